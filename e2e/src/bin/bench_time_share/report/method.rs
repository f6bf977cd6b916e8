//! The page's paragraphs on how it was measured, and on the peers.

use springtide_e2e::bench::at_rest;
use springtide_e2e::bench::requests::method as clients;

use super::Measured;
use crate::Options;
use crate::faults;
use crate::field::PER_NODE;
use crate::pods::{PEAK, VALLEY};
use crate::raw;
use crate::requests;
use crate::switched::{BUDGET, WRITES};
use crate::unit;
use crate::writes;

/// All of them.
pub(super) fn paragraphs(measured: &Measured, options: &Options) -> Vec<String> {
    let Options { units, many, rest_minutes, fault_rounds, .. } = options;
    let sweep: Vec<String> = raw::IN_FLIGHT.iter().map(usize::to_string).collect();
    let nodes = units.div_ceil(PER_NODE);
    vec![
        format!(
            "One control plane (etcd with fsync, kube-apiserver, controller manager and scheduler with \
             `--kube-api-qps=5000 --kube-api-burst=10000`) and KWOK with {nodes} nodes, all on the same machine as the manager \
             and the bench's own watch. KWOK plays the kubelet with stages of our own: a pod whose spec changes gets its \
             observed generation, its resources a tenth of a second later, and its condition Ready, each by a write of its \
             own. Two Deployments of {units} pods lie on the nodes, {PER_NODE} of each on a node, {VALLEY}m of cpu a pod at \
             valley and {PEAK}m at peak; a node has as much as one of them needs at peak beside the other one. There is no \
             Service, as EndpointSlices of ten thousand pods would be what is measured."
        ),
        format!(
            "Timed: the one member has the peak, the preflight of the switch to the other one is complete, and an override asks \
             for it: one step, `minSeconds` and `warmUpSeconds` 0, `maxInFlightUnits` 5000, no limit per node. The write \
             budget of the manager is {BUDGET} writes a second with a burst of as many, in one namespace as in all, workers \
             and all else as shipped; a unit takes {WRITES} writes. The clock runs from the override until a watch has shown \
             the last pod at its peak size and ready with traffic."
        ),
        format!(
            "Without a controller: the manager is stopped, and a generator sends the same writes to the same pods, each when \
             the watch shows that the one before has come into force, the two resizes right after one another, with {} units \
             in flight for 20 s each after 10 s that do not count. The best counts.",
            sweep.join(", ")
        ),
        format!(
            "The peer is what scalers by cron do (KEDA's cron trigger, kubernetes-cronhpa-controller, Kapacity): at the hour one \
             scale goes to 0 and another one to {units}. On the same cluster, without a manager, both are patched at the same \
             moment, and the clock runs until the last new pod is ready. All else is the work of the Deployment controller and \
             the scheduler, so that no scaler of this kind can be faster; containers of KWOK start at once, which real ones do \
             not."
        ),
        format!(
            "Dry runs: a window is foreseen, and all resizes of its switch are asked for within half of its lead of five \
             minutes, while another group of forty pods takes turns; a policy refuses one unit of a hundred. Waits for the \
             budget are those that the manager counts, in all classes but that of dry runs. As soon as all units are looked at, \
             an override asks for the switch, and those that do not come through are compared with those that were named. \
             Writes a pod are counted by an audit log, {} pods a row, refused ones too, on nodes whose room is accounted as a \
             kubelet does.",
            writes::PODS
        ),
        format!(
            "{} Of {many} pods ten thousand each are of one group, of which one member has the peak; etcd does not wait for \
             the disk there.",
            at_rest::method(*rest_minutes)
        ),
        format!(
            "One unit: two pods take turns on a full real node {} times, with limits of cpu, so that the kernel's quota changes \
             each time. From the moment at which the API server has got the resize of the pod that shrinks, by its audit log, \
             until a watch shows the other one's peak in force. By hand: the same two resizes, one right after the other, {} \
             times, without a manager.",
            unit::SWITCHES,
            unit::BY_HAND
        ),
        format!(
            "Requests: {} pods of each member behind one Service, kube-proxy of the same node, `minSeconds: {}`; {}. Members \
             take turns until all are sent, one unit after the other. In the control all units begin at once, so that for some \
             seconds nobody serves, {} times.",
            requests::PODS,
            requests::MIN_SECONDS,
            clients(),
            requests::CONTROL
        ),
        format!(
            "Faults: the controller's own tests, in a build for development, on nodes whose room is accounted as a kubelet \
             does. Switches of many groups meet refused, lost and late requests and late events, and managers that are killed, \
             in {fault_rounds} rounds; after each status of each pod what is allocated on its node is summed up. Pods of \
             others wait for room beside them.{} Aborts come at random moments of a switch. Starts: the leader ends, by SIGKILL \
             or in order, some seconds before window - lead.",
            fewer(*fault_rounds)
        ),
        format!(
            "{} Times of single runs vary on a small machine; the comparisons are within one run.",
            measured.log.independence()
        ),
    ]
}

/// What is said of fewer rounds than the specification has.
fn fewer(rounds: u64) -> String {
    if rounds >= faults::SPECIFIED_ROUNDS {
        return String::new();
    }
    format!(
        " The specification names a thousand switches of each order; those are {} rounds (`--fault-rounds`), as the test has \
         them by itself in `make test-long`.",
        faults::SPECIFIED_ROUNDS
    )
}
