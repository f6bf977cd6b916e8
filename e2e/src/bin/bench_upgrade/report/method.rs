//! The page's paragraphs on how it was measured, and on the peer that is not there.

use springtide_crds::in_place_upgrade::MAX_PODS;

use super::Measured;
use crate::conflicts::NOISE_PER_SECOND;
use crate::field::NODES;
use crate::throughput::BUDGET;
use crate::{Options, downtime, raw, requests, writes};

/// Requests a second that the client of OpenKruise's manager is held to unless its flag `--rest-config-qps` says otherwise.
const OPEN_KRUISE_QPS: u32 = 30;

/// All of them.
pub(super) fn paragraphs(measured: &Measured, options: &Options) -> Vec<String> {
    let Options { pods, many, .. } = options;
    let sweep: Vec<String> = raw::IN_FLIGHT.iter().map(usize::to_string).collect();
    vec![
        format!(
            "One control plane (etcd with fsync, kube-apiserver, controller manager and scheduler with \
             `--kube-api-qps=5000 --kube-api-burst=10000`) and KWOK with {NODES} nodes, all on the same machine as the manager \
             and the bench's own watch. KWOK plays the kubelet with stages of our own: a pod whose spec changes gets its \
             observed generation, a new container, and its condition Ready, each by a write of its own. Pods have two \
             containers, of which one is upgraded, and no Service, as EndpointSlices of ten thousand pods would be what is \
             measured."
        ),
        format!(
            "Timed: a paused Deployment of {pods} pods whose template has a new image gets an upgrade with `maxUnavailable: \
             100%`, `maxInFlightPerNode: 110`, no pre-pull and `minSeconds: 0`. The write budget of the manager is {BUDGET} \
             writes a second with a burst of as many, in one namespace as in all, workers and all else as shipped; with a \
             gate a pod takes three writes, without one. The clock runs from the create of the upgrade until a watch has \
             shown the last pod ready with another container. It is done when the Deployment controller agrees and the \
             upgrade is Ready."
        ),
        format!(
            "Without a controller: the manager is stopped, and a generator sends the same writes to the same pods, each when \
             the watch shows that the one before has come into force, with {} pods in flight for 20 s each after 10 s that do \
             not count. The best counts.",
            sweep.join(", ")
        ),
        format!(
            "Writes a pod are counted by an audit log, {} pods a row, refused ones too. The one who writes statuses sets a \
             condition of {NOISE_PER_SECOND} pods a second, at random among those that have not been upgraded yet; the share is \
             of all writes of the manager on pods in that upgrade. Memory is the resident set of the manager half a minute \
             after the last change; at rest nothing but KWOK's heartbeats is written by anybody. Of {many} pods, as an object \
             takes {MAX_PODS} at most, ten thousand each are of one workload; there is no upgrade of them, and their gates \
             are opened by the manager.",
            writes::PODS
        ),
        format!(
            "Out: {} pods of a real node that serve HTTP are upgraded {} times, one at a time, between two versions whose \
             images are both on the node, `minSeconds: 0`. Their probe asks every second. Without connections a server takes \
             {} s of its grace, which the goal adds to its bound; a pod without a gate may be back before anybody has seen it \
             out.",
            downtime::PODS,
            downtime::ROUNDS,
            downtime::GRACE_USED
        ),
        format!(
            "Requests: {} pods behind a Service, kube-proxy of the same node, `minSeconds: {}`. {} requests a second from a \
             pod's network, half of them with a connection each, the others on connections that are kept until the server \
             ends them; none is sent again. Upgrades follow one another until all are sent. Without a drain \
             (`traffic.mode: None`) the same goes on for {} upgrades.",
            requests::PODS,
            requests::MIN_SECONDS,
            requests::RATE,
            requests::CONTROL_UPGRADES
        ),
        "Kills: the controller's own test in a build for development, with its long loop. Each scenario is played without a \
         kill first, and then with one at each write the manager makes: before it is sent, when it is stored and not \
         answered, and after that. A case ends otherwise when its end state, the history of its pods or its writes are \
         others than without a kill."
            .to_owned(),
        open_kruise(*pods),
        format!(
            "{} Times of single runs vary on a small machine; the shares are within one run.",
            measured.log.independence()
        ),
    ]
}

/// Why the peer has no run.
fn open_kruise(pods: u32) -> String {
    format!(
        "Peer: OpenKruise, which upgrades pods of its own workload kinds in place, has no run here. What the bench runs beside \
         us is built from pinned Go modules, and the module of OpenKruise's manager could not be had where this was \
         written, nor could its image. What its default comes to can be reckoned: its client is held to {OPEN_KRUISE_QPS} \
         requests a second (`--rest-config-qps`), so each write that {pods} pods need takes at least {:.0} s of its time.",
        f64::from(pods) / f64::from(OPEN_KRUISE_QPS)
    )
}
