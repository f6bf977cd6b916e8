//! What users are told of a group by events: that a switch begins, comes to a step, is held, goes back or has ended, and
//! that a person is needed. Each bears the reason of a condition, and is made with the status that says so first, so that
//! it is made once; a switch of one step that goes as it should costs two.

use super::name;
use crate::message::count;
use crate::observed::Observed;
use crate::plan::decision::Decision;
use crate::plan::situation::Situation;
use crate::pod_times::Took;
use crate::projections::group::{GroupView, TIME_SHARE_GROUP};
use springtide_crds::common::ConditionStatus;
use springtide_crds::reason::{Reason, said};
use springtide_crds::time_share_group::{
    GuardsPassingReason, HeldReason, LastTransition, ReadyReason, StalledReason, TimeShareGroupStatus,
    Transition, TransitionCause,
};
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::projection::Projection;
use std::fmt::Write as _;

/// The events of a status that is written in the place of the stored one.
pub fn events(
    situation: &Situation<'_>,
    decision: &Decision,
    status: &TimeShareGroupStatus,
) -> Vec<EventNote> {
    let group = &*situation.observed.group;
    let turn = of_switch(situation, decision, status);
    let needed = of_stalled(group, status);
    let held = if needed.is_none() { of_hold(group, status) } else { None };
    [turn, held, needed].into_iter().flatten().collect()
}

/// The events of a status of a group that is not served.
pub fn events_of_refused(observed: &Observed, status: &TimeShareGroupStatus) -> Vec<EventNote> {
    of_stalled(&observed.group, status).into_iter().collect()
}

/// A person is needed, where the stored status does not say so.
fn of_stalled(group: &GroupView, status: &TimeShareGroupStatus) -> Option<EventNote> {
    let (reason, message) = said::<StalledReason>(&status.conditions)?;
    let is_told = group.condition(StalledReason::CONDITION).is_some_and(|stored| stored.is(reason));
    (!is_told).then(|| note(group, Severity::Warning, reason.as_str(), "Switching", message.to_owned()))
}

/// What becomes of a switch.
fn of_switch(
    situation: &Situation<'_>,
    decision: &Decision,
    status: &TimeShareGroupStatus,
) -> Option<EventNote> {
    let group = &*situation.observed.group;
    let normal = |reason: ReadyReason, action, text| {
        Some(note(group, Severity::Normal, reason.as_str(), action, text))
    };
    match decision {
        Decision::Open(next) => {
            let text = format!("{}{}", ended_override(situation, next), begins(situation, next));
            normal(ReadyReason::Switching, "Opening", text)
        }
        Decision::Supersede { next, kept } => {
            let former = format!(", in the place of switch {} to {}", kept.id, name(kept.to.as_deref()));
            let text = format!("{}{}{former}", ended_override(situation, next), begins(situation, next));
            normal(ReadyReason::Switching, "Superseding", text)
        }
        Decision::Fail { .. } => {
            let (_, message) = said::<ReadyReason>(&status.conditions)?;
            let guards = said::<GuardsPassingReason>(&status.conditions).map(|(reason, _)| reason);
            let reason = match guards.filter(|reason| reason.status() == ConditionStatus::False) {
                Some(reason) => reason.as_str(),
                None => StalledReason::UnitStuck.as_str(),
            };
            Some(note(group, Severity::Warning, reason, "RollingBack", message.to_owned()))
        }
        Decision::Close(kept) => {
            let reason =
                said::<ReadyReason>(&status.conditions).map_or(ReadyReason::Settled, |(ready, _)| ready);
            normal(reason, "Finishing", ended(situation, kept))
        }
        Decision::Advance(step) => {
            let text = format!("switch to {}: step {step} of {} begins", to(situation), situation.reach.of);
            normal(ReadyReason::Switching, "Stepping", text)
        }
        // Its hold is part of the step, and told by the condition.
        Decision::Hold(_) | Decision::Settled | Decision::Drive | Decision::Rest | Decision::Wait(_) => None,
    }
}

fn to<'a>(situation: &Situation<'a>) -> &'a str {
    name(situation.transition().and_then(|transition| transition.to.as_deref()))
}

fn begins(situation: &Situation<'_>, next: &Transition) -> String {
    let steps = situation.observed.group.spec.switch.steps.len();
    let steps = count(u32::try_from(steps).unwrap_or(u32::MAX), "step");
    let desired = situation.desired.as_ref();
    let cause = match next.cause {
        TransitionCause::Window => {
            match desired.and_then(|desired| desired.window.as_deref().zip(desired.window_start)) {
                Some((window, start)) => format!("window {window} opens at {start:.0}"),
                None => "a window opens".to_owned(),
            }
        }
        TransitionCause::Default => "no window is open".to_owned(),
        TransitionCause::Override => match &situation.observed.group.spec.override_ {
            Some(forced) => {
                format!("spec.override has it so until {:.0}: {}", forced.until_time.0, forced.reason)
            }
            None => "spec.override has it so".to_owned(),
        },
        TransitionCause::Rollback => "the last one has gone wrong".to_owned(),
    };
    let (from, to) = (name(next.from.as_deref()), name(next.to.as_deref()));
    format!("switch {} from {from} to {to} begins, in {steps}: {cause}", next.id)
}

/// That the override by which the last switch came is over, where this one follows from that.
fn ended_override(situation: &Situation<'_>, next: &Transition) -> &'static str {
    let last = situation.transition().map(|last| last.cause);
    match (last, next.cause) {
        (Some(TransitionCause::Override), TransitionCause::Window | TransitionCause::Default) => {
            "spec.override has ended: "
        }
        (_, _) => "",
    }
}

/// How a switch has ended, and how long its pods took for the parts of it.
fn ended(situation: &Situation<'_>, kept: &LastTransition) -> String {
    let counts = &situation.tally.counts;
    let units = count(kept.units, "unit");
    let mut text = format!(
        "switch {} to {} has ended after {} s: {} of {units} done, {} skipped, {}",
        kept.id,
        name(kept.to.as_deref()),
        kept.duration_seconds,
        counts.done,
        kept.skipped,
        count(kept.nudges, "nudge"),
    );
    for Took { stretch, p50, p99 } in &situation.observed.took {
        let (p50, p99) = (p50.as_secs_f64(), p99.as_secs_f64());
        let _ = write!(text, "; {} p50 {p50:.1} s, p99 {p99:.1} s", stretch.as_str());
    }
    text
}

/// What keeps units from starting, where the stored status does not say so; but for what the user has just asked for, and
/// what is part of every step.
fn of_hold(group: &GroupView, status: &TimeShareGroupStatus) -> Option<EventNote> {
    let (reason, message) = said::<HeldReason>(&status.conditions)?;
    let is_news = group.condition(HeldReason::CONDITION).is_none_or(|stored| !stored.is(reason));
    match reason {
        HeldReason::PreflightFailed | HeldReason::DonorBusy | HeldReason::NoMetricData => {
            is_news.then(|| note(group, Severity::Warning, reason.as_str(), "Holding", message.to_owned()))
        }
        HeldReason::StepHold | HeldReason::Paused | HeldReason::NotObserved | HeldReason::Free => None,
    }
}

fn note(
    group: &GroupView,
    severity: Severity,
    reason: &'static str,
    action: &'static str,
    note: String,
) -> EventNote {
    let meta = group.meta();
    let (key, uid) = (meta.key.clone(), meta.uid.clone());
    EventNote { resource: TIME_SHARE_GROUP, key, uid, severity, reason, action, note }
}
