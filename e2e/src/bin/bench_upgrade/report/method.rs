//! The page's paragraphs on how it was measured, and on the peer that is not there.

use springtide_crds::in_place_upgrade::MAX_PODS;
use springtide_e2e::bench::at_rest;
use springtide_e2e::bench::requests::method as clients;

use super::Measured;
use crate::conflicts::NOISE_PER_SECOND;
use crate::field::NODES;
use crate::throughput::BUDGET;
use crate::{Options, downtime, names, raw, requests, writes};

/// Requests a second that the client of OpenKruise's manager is held to unless its flag `--rest-config-qps` says otherwise.
const OPEN_KRUISE_QPS: u32 = 30;

/// All of them.
pub(super) fn paragraphs(measured: &Measured, options: &Options) -> Vec<String> {
    let Options { pods, many, rest_minutes, .. } = options;
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
            "Of the same pods are those whose UID, address and node are what they were before the upgrade. Writes a pod are \
             counted by an audit log, {} pods a row, refused ones too. The one who writes statuses sets a condition of \
             {NOISE_PER_SECOND} pods a second, at random among those that have not been upgraded yet; the share is of all \
             writes of the manager on pods in that upgrade.",
            writes::PODS
        ),
        format!(
            "{} Of {many} pods, as an object takes {MAX_PODS} at most, ten thousand each are of one workload, which has an \
             upgrade with nothing to do; etcd does not wait for the disk there.",
            at_rest::method(*rest_minutes)
        ),
        format!(
            "Out: {} pods of a real node that serve HTTP are upgraded {} times, one at a time, between two versions whose \
             images are both on the node, `minSeconds: 0`. Their probe asks every second. Without connections a server takes \
             {} s of its grace, which the goal adds to its bound; a pod without a gate may be back before anybody has seen it \
             out. A server adds a line to a file in its volume when it starts.",
            downtime::PODS,
            downtime::ROUNDS,
            downtime::GRACE_USED
        ),
        format!(
            "Requests: {} pods behind a Service, kube-proxy of the same node, `minSeconds: {}`; {}. Upgrades follow one \
             another until all are sent. Without a drain (`traffic.mode: None`) the same goes on for {} upgrades.",
            requests::PODS,
            requests::MIN_SECONDS,
            clients(),
            requests::CONTROL_UPGRADES
        ),
        format!(
            "Upgrades that end otherwise: the controller's own tests, in a build for development. On a real node with a \
             registry {} tests upgrade among names of equal digests, digest pins and a tag that gets other content, and \
             restart kubelet, containerd and node in between. Kills: each scenario is played without a kill first, and then \
             with one at each write the manager makes, which hits in turns before it is sent, when it is stored and not \
             answered, and after that, with in turns a new manager and a standby to go on (`make test-long` has all points \
             of each write with both, and those of several at once). A case ends otherwise when its end state, the history of \
             its pods or its writes are others than without a kill. At random: small workloads of all kinds, many at a time, \
             with steps, histories and protocols by chance, beside watches that are late by up to six seconds, controller \
             managers that are killed or stand still, and changes of leader; every ReplicaSet and pod that is made or ended \
             for them counts, and every upgrade that does not come to its end.",
            names::TESTS.len()
        ),
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
