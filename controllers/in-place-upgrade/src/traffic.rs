//! Traffic that pods get back although nothing is changed of them.

use jiff::Timestamp;
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Step, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::traffic::{Lever, Signals, Traffic};
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;
use springtide_plumbing::workloads::pod::PodView;

/// The levers of a pod that a run has turned off. One that says of no run is the user's own.
pub fn closed_by_run(signals: &Signals) -> impl Iterator<Item = Lever> {
    let levers = [(Lever::ReadinessGate, signals.has_gate), (Lever::ServiceLabel, signals.label.is_some())];
    let is_closed = |lever: Lever| matches!(signals.traffic(lever), Traffic::Off { run: Some(_), .. });
    levers.into_iter().filter(move |(lever, is_there)| *is_there && is_closed(*lever)).map(|(lever, _)| lever)
}

/// Gives a pod its traffic back that a run has taken, by whichever lever but `kept`, which is the run's business; the next
/// one is looked for when that is done.
///
/// By another one nothing is taken any more, as where `spec.traffic.mode` was changed in mid-run, and nobody else would
/// turn it on.
pub fn given_back(pod: &PodView, kept: Option<Lever>, now: Timestamp) -> Option<Step> {
    let lever = closed_by_run(&pod.signals).find(|lever| kept != Some(*lever))?;
    let action = UPGRADE_TRAFFIC.turn_on(lever, &pod.meta().uid, &pod.signals, now);
    let key = pod.meta().key.clone();
    Some(Write { resource: Resource::POD, key, class: WriteClass::Protective, action }.into())
}
