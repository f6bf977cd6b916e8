//! Decides what to do for a TimeShareGroup, as a pure function of what was observed.
//!
//! The order is one way: is the group served at all ([`accept`]), which way does it go ([`crate::transition`],
//! [`schedule`]), what follows for its units ([`situation`]), what is the one thing to do now ([`decision`]), by which
//! writes ([`moves`]), and what does the status say ([`crate::status`]).

pub mod accept;
pub mod decision;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod moves;
pub mod schedule;
pub mod situation;
pub mod tally;

use crate::deletion;
use crate::memory_safety::widest;
use crate::names::FINALIZER;
use crate::observed::{Attempt, MemberPod, Observed};
use crate::profiles;
use crate::projections::group::{GroupView, TIME_SHARE_GROUP};
use crate::sizes::{Level, Size};
use crate::status::{self, pace};
use crate::traffic::{TrafficGoal, due, turn_on};
use crate::transition::{Course, course};
use accept::{Refusal, accept};
use decision::{Decision, decide};
use jiff::Timestamp;
use moves::moves;
use schedule::refused_from;
use serde_json::json;
use situation::Situation;
use springtide_crds::time_share_group::{Mode, TimeShareGroupStatus};
use springtide_plumbing::plan::{Action, MAX_WRITES, Outcome, Plan, Step, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::window::calendar::Desired;

/// The plan for one group.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let group = &observed.group;
    if group.meta().is_deleting() {
        return deletion::plan(observed, now);
    }
    let course = course(observed);
    let accepted = match accept(observed, &course, now) {
        Ok(accepted) => accepted,
        Err(refusal) => return refused(observed, &refusal, &course, now),
    };
    let situation = Situation::new(observed, accepted, course, now);
    let decision = decide(&situation);
    if let Some(step) = finalizer(group, &course, &decision) {
        // By itself: it makes a version of the object on which no status of this pass could rest.
        let mut plan = Plan::idle(Outcome::Progressing);
        plan.stages = vec![vec![step]];
        return plan;
    }
    let made = moves(&situation, &decision);
    let status = status::status(&situation, &decision, now);
    let mut plan = Plan::idle(status::outcome(&status));
    plan.why = vec![status::why(&status)];
    plan.stages = if made.steps.is_empty() { Vec::new() } else { vec![made.steps] };
    for wake in wakes(&situation, &decision) {
        plan.wake_at(wake);
    }
    match pace::due(&group.status, &status, observed.status_written, now) {
        // What is told stands in the same status.
        pace::Due::Now => {
            plan.events = status::events(&situation, &decision, &status);
            plan.status = Some(status_write(group, &status));
        }
        pace::Due::At(time) => plan.wake_at(time),
    }
    plan
}

/// When time alone may change what is done or said: to the instant, so that a switch begins when it is due.
fn wakes(situation: &Situation<'_>, decision: &Decision) -> impl Iterator<Item = Timestamp> {
    let Situation { now, tally, route, preflight, .. } = situation;
    let hold = match decision {
        Decision::Hold(until) => Some(*until),
        Decision::Settled
        | Decision::Open(_)
        | Decision::Supersede { .. }
        | Decision::Fail { .. }
        | Decision::Advance(_)
        | Decision::Close(_)
        | Decision::Drive
        | Decision::Rest
        | Decision::Wait(_) => situation.held_until(),
    };
    let calendar = situation
        .desired
        .iter()
        .flat_map(|Desired { until, next, .. }| [*until, next.as_ref().map(|next| next.start)]);
    let own = [
        tally.wake,
        route.wake,
        preflight.wake,
        hold,
        situation.deadline,
        situation.stands_still_from(decision),
        deletion::retry_at(situation.observed, *now),
        refused_from(situation.observed, *now),
    ];
    let now = *now;
    own.into_iter().chain(calendar).flatten().filter(move |wake| *wake > now)
}

/// Adds our finalizer before anything is done to pods that only we undo.
fn finalizer(group: &GroupView, course: &Course, decision: &Decision) -> Option<Step> {
    let is_needed = match decision {
        Decision::Open(_) => true,
        // Somebody has taken it away.
        Decision::Settled
        | Decision::Supersede { .. }
        | Decision::Fail { .. }
        | Decision::Advance(_)
        | Decision::Hold(_)
        | Decision::Close(_)
        | Decision::Drive
        | Decision::Rest
        | Decision::Wait(_) => match (group.spec.mode, course) {
            (Mode::Active, Course::Open(_) | Course::Ended(_)) => true,
            (Mode::Active, Course::Fresh) | (Mode::Paused | Mode::Observe, _) => false,
        },
    };
    if group.is_held() || !is_needed {
        return None;
    }
    let meta = group.meta();
    let uid = json!({"op": "test", "path": "/metadata/uid", "value": meta.uid});
    let version = meta.resource_version.to_string();
    let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": version});
    let add = if meta.finalizers.is_empty() {
        json!({"op": "add", "path": "/metadata/finalizers", "value": [FINALIZER]})
    } else {
        json!({"op": "add", "path": "/metadata/finalizers/-", "value": FINALIZER})
    };
    let action = Action::json_patch(json!([uid, version, add]));
    Some(own_write(group, action, WriteClass::Spec).into())
}

/// The plan of a group that is not served: pods that have their peak size get traffic, however long it may be until it is
/// served again, and nothing else is done.
fn refused(observed: &Observed, refusal: &Refusal, course: &Course, now: Timestamp) -> Plan {
    let group = &observed.group;
    let status = status::refused(observed, refusal, now);
    let mut plan = Plan::idle(refusal.outcome());
    plan.wake = refusal.wake();
    plan.why = vec![status::why(&status)];
    let is_ours = match (group.spec.mode, course) {
        (Mode::Active | Mode::Paused, Course::Open(_) | Course::Ended(_)) => observed.excess.is_none(),
        (Mode::Active | Mode::Paused, Course::Fresh) | (Mode::Observe, _) => false,
    };
    if is_ours {
        let mut back = traffic_back(observed, now);
        for retry_at in back.retries {
            plan.wake_at(retry_at);
        }
        back.writes.truncate(MAX_WRITES - 1);
        plan.stages = if back.writes.is_empty() { Vec::new() } else { vec![back.writes] };
    }
    plan.events = status::events_of_refused(observed, &status);
    plan.status = Some(status_write(group, &status));
    plan
}

/// Traffic that is given back.
#[derive(Default)]
struct TrafficBack {
    writes: Vec<Step>,
    /// When what was refused is tried again.
    retries: Vec<Timestamp>,
}

/// Traffic of pods that have their peak size and serve nobody. Of a member whose sizes cannot be told nothing is known.
fn traffic_back(observed: &Observed, now: Timestamp) -> TrafficBack {
    let spec = &observed.group.spec;
    let mut back = TrafficBack::default();
    let Ok(profiles) = profiles::all(spec, &observed.members) else { return back };
    let members = spec.members.iter().zip(&observed.members).zip(&profiles);
    for ((spec, member), profile) in members.filter(|((_, member), _)| member.is_ours()) {
        let peak = profile.sized(Level::Peak, widest(spec.memory));
        for found in &member.pods {
            let Some((lever, true)) = due(spec, &found.pod, TrafficGoal::On) else { continue };
            if !is_on_stage(found, &peak) {
                continue;
            }
            match retry_at(found, now) {
                Some(retry_at) => back.retries.push(retry_at),
                None => back.writes.push(turn_on(&found.pod, lever, now).into()),
            }
        }
    }
    back
}

fn is_on_stage(found: &MemberPod, peak: &Size) -> bool {
    peak.is_in_force(&found.pod) && found.pod.are_containers_ready()
}

/// When a change of its traffic that was refused is tried again, where that is still to come.
fn retry_at(found: &MemberPod, now: Timestamp) -> Option<Timestamp> {
    let refused = found.evidence.refused.as_ref().filter(|refused| refused.what == Attempt::Traffic)?;
    (refused.retry_at > now).then_some(refused.retry_at)
}

/// The stored status, and in it that the group's writes fail.
pub(crate) fn told(observed: &Observed, now: Timestamp) -> Write {
    status_write(&observed.group, &status::failing(observed, now))
}

/// A write of the group's status.
pub(crate) fn status_write(group: &GroupView, status: &TimeShareGroupStatus) -> Write {
    let meta = group.meta();
    // Both are of types that are always written.
    let json = |status: &TimeShareGroupStatus| serde_json::to_value(status).unwrap_or_default();
    let action = Action::Status {
        uid: meta.uid.clone(),
        resource_version: meta.resource_version,
        status: json(status),
        stored: json(&group.status),
    };
    own_write(group, action, WriteClass::Status)
}

/// A write of the group itself.
pub(crate) fn own_write(group: &GroupView, action: Action, class: WriteClass) -> Write {
    Write { resource: TIME_SHARE_GROUP, key: group.meta().key.clone(), class, action }
}

#[cfg(test)]
mod tests;
