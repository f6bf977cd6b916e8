//! How far a switch is, and what it waits for.

use super::name;
use crate::machine::{Side, UnitState};
use crate::message::{count, quoting};
use crate::observed::PodIndex;
use crate::plan::situation::Situation;
use crate::units::Unit;
use springtide_crds::time_share_group::{StuckPod, StuckReason, UnitCounts};
use springtide_plumbing::projection::Projection;

/// How far the open switch is, and what the first unit waits for that is under way.
pub(super) fn progress(situation: &Situation<'_>) -> String {
    let Some(transition) = situation.transition() else {
        return "no switch has been asked for yet".to_owned();
    };
    let UnitCounts { total, done, in_flight, .. } = situation.tally.counts;
    let to = name(transition.to.as_deref());
    let (is_return, reach) = (situation.heading.is_return, &situation.reach);
    let step = if is_return || reach.of < 2 {
        String::new()
    } else {
        format!("step {} of {}, ", reach.step, reach.of)
    };
    let back = if is_return { " back" } else { "" };
    let flying = if in_flight > 0 { format!(", {in_flight} in flight") } else { String::new() };
    let before =
        format!("switch {}{back} to {to}: {step}{done} of {total} units done{flying}", transition.id);
    match waits_for(situation) {
        Some(waits_for) => quoting(&format!("{before}; "), &waits_for, ""),
        None => before,
    }
}

/// What the first unit waits for that is under way; else what keeps the first that has not begun.
pub(super) fn waits_for(situation: &Situation<'_>) -> Option<String> {
    let units = || situation.units.units.iter().zip(&situation.sides).zip(&situation.stands);
    let flying = units().find(|(_, stand)| stand.in_flight);
    let next = || units().find(|((_, side), stand)| **side == Side::To && stand.state == UnitState::Waiting);
    if let Some(((unit, _), stand)) = flying.or_else(next) {
        let (pod, what) = awaited(unit, &stand.state)?;
        return Some(format!("{} {what}", pod_on_node(situation, pod)?));
    }
    let stray = situation.strays.iter().find(|found| found.stand.in_flight)?;
    let (_, what) = of_state(&stray.stand.state)?;
    Some(format!("{} {what}", pod_on_node(situation, stray.stray.pod)?))
}

/// A pod with its node.
fn pod_on_node(situation: &Situation<'_>, pod: PodIndex) -> Option<String> {
    let pod = &situation.observed.pod(pod)?.pod;
    Some(on_node(&pod.meta().key.name, pod.node.as_deref().unwrap_or_default()))
}

fn on_node(pod: &str, node: &str) -> String {
    if node.is_empty() { pod.to_owned() } else { format!("{pod} on {node}") }
}

/// Which pod of a unit is waited for, and what of it.
fn awaited(unit: &Unit, state: &UnitState) -> Option<(PodIndex, &'static str)> {
    let (is_of_donor, what) = of_state(state)?;
    let donor = unit.from.first().copied().filter(|_| is_of_donor);
    Some((donor.or_else(|| unit.lead())?, what))
}

/// Whether it is the pod that shrinks that is waited for, and what of it.
fn of_state(state: &UnitState) -> Option<(bool, &'static str)> {
    match state {
        UnitState::Waiting => Some((false, "waits for room on its node")),
        UnitState::Draining => Some((true, "leaves traffic")),
        UnitState::Drained => Some((true, "has left traffic, and shrinks next")),
        UnitState::Resizing => Some((false, "is being resized by its kubelet")),
        UnitState::Deferred => Some((false, "waits for its kubelet, which has no room yet")),
        UnitState::Warming => Some((false, "warms up")),
        UnitState::Turning => Some((false, "gets its traffic")),
        UnitState::Returning => Some((false, "is taken back")),
        UnitState::Stuck(_) => Some((false, "is stuck")),
        UnitState::Cannot(_) => Some((false, "cannot go on")),
        UnitState::Still | UnitState::Idle | UnitState::Done | UnitState::GivenUp => None,
    }
}

/// The first pod of a unit that did not come through, and what helps: `pay-1 on n1 (Deferred)` and a remedy.
pub(super) fn first_stuck(rows: &[StuckPod]) -> Option<(String, &'static str)> {
    let StuckPod { pod, node, reason, .. } = rows.first()?;
    Some((format!("{} ({})", on_node(pod, node), reason.as_str()), remedy(*reason)))
}

fn remedy(reason: StuckReason) -> &'static str {
    match reason {
        StuckReason::Deferred => "make room on its node",
        StuckReason::Infeasible => "see its condition PodResizePending",
        StuckReason::ResizeFailed => "see its condition PodResizeInProgress",
        StuckReason::AdmissionDenied => "change what refuses it",
        StuckReason::DrainTimedOut => "see its EndpointSlices",
        StuckReason::NotReady => "see why it is not ready",
        StuckReason::Upgrading => "it follows after the upgrade",
        StuckReason::DeadlineExceeded => "see its events and node",
    }
}

/// How many units did not come through, and the first of them with what helps.
pub(super) fn left_behind(situation: &Situation<'_>, rows: &[StuckPod]) -> String {
    let UnitCounts { total, stuck, .. } = situation.tally.counts;
    let before = format!("{stuck} of {} did not come through", count(total, "unit"));
    match first_stuck(rows) {
        Some((first, remedy)) => quoting(&format!("{before}, first "), &first, &format!(": {remedy}")),
        None => before,
    }
}
