//! The summary of a group, whether it goes on by itself, and whether it needs a person.

use super::conditions::{held, problem_text, verdict};
use super::name;
use super::obstacles::{first_stuck, left_behind, progress, waits_for};
use crate::machine::{Cannot, Side, UnitState};
use crate::message::{count, quoting};
use crate::plan::accept::Refusal;
use crate::plan::decision::{Decision, WaitFor};
use crate::plan::situation::{Hold, Situation, Stop};
use crate::rollback;
use springtide_crds::common::ConditionStatus;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    GuardsPassingReason, LastTransition, ReadyReason, ReconcilingReason, RefusalReason, StalledReason,
    StuckPod, Transition, TransitionCause,
};

/// What conditions Ready, Reconciling and Stalled say.
pub(super) struct Summary {
    pub(super) ready: (ReadyReason, String),
    pub(super) reconciling: Option<ReconcilingReason>,
    pub(super) stalled: Option<(StalledReason, String)>,
}

/// It goes on by itself.
fn goes(ready: ReadyReason, reconciling: ReconcilingReason, message: impl Into<String>) -> Summary {
    Summary { ready: (ready, message.into()), reconciling: Some(reconciling), stalled: None }
}

/// It rests, or waits for somebody.
fn rests(ready: ReadyReason, message: impl Into<String>) -> Summary {
    Summary { ready: (ready, message.into()), reconciling: None, stalled: None }
}

/// The summary. `guards` is what condition GuardsPassing says.
pub(super) fn summary(
    situation: &Situation<'_>,
    decision: &Decision,
    guards: &(GuardsPassingReason, String),
    stuck: &[StuckPod],
) -> Summary {
    let decided = decided(situation, decision, guards, stuck);
    let Some((reason, message)) = needs_person(situation, decision, guards, stuck) else { return decided };
    // Of a switch that goes on all the same it is told how it goes.
    let ready = match (reason, situation.course.is_open()) {
        (StalledReason::Refused(_), true) => decided.ready,
        (StalledReason::Refused(_), false) => (ReadyReason::Refused, message.clone()),
        (
            StalledReason::GuardBreached
            | StalledReason::UnitStuck
            | StalledReason::RolledBack
            | StalledReason::RollbackStuck
            | StalledReason::DeadlineExceeded
            | StalledReason::NoProgress
            | StalledReason::Forbidden
            | StalledReason::InternalError,
            _,
        ) => (decided.ready.0, message.clone()),
    };
    Summary { ready, reconciling: decided.reconciling, stalled: Some((reason, message)) }
}

/// What the group does by this decision.
fn decided(
    situation: &Situation<'_>,
    decision: &Decision,
    guards: &(GuardsPassingReason, String),
    stuck: &[StuckPod],
) -> Summary {
    match decision {
        Decision::Open(next) => goes(ReadyReason::Switching, ReconcilingReason::Switching, begins(next)),
        Decision::Supersede { next, kept } => {
            let message =
                format!("{}, in the place of the one to {}", begins(next), name(kept.to.as_deref()));
            goes(ReadyReason::Switching, ReconcilingReason::Switching, message)
        }
        Decision::Fail { back, kept } => {
            let message = taken_back(back, kept, &why_failed(situation, guards, stuck));
            goes(ReadyReason::RollingBack, ReconcilingReason::RollingBack, message)
        }
        Decision::Advance(step) => {
            let message = format!("step {step} of {} begins", situation.reach.of);
            goes(ReadyReason::Switching, ReconcilingReason::Switching, message)
        }
        Decision::Hold(_) => {
            goes(ReadyReason::Held, ReconcilingReason::Switching, held(situation, decision).1)
        }
        Decision::Close(_) if situation.is_rollback() => came_back(situation),
        Decision::Close(_) | Decision::Settled => settled(situation, stuck),
        Decision::Drive if situation.course.is_open() => driving(situation, decision),
        Decision::Drive => settling(situation, stuck),
        Decision::Rest => resting(situation),
        Decision::Wait(wait) => waiting(situation, decision, *wait),
    }
}

fn begins(next: &Transition) -> String {
    let asked_by = match next.cause {
        TransitionCause::Window => "a window opens",
        TransitionCause::Default => "no window is open",
        TransitionCause::Override => "spec.override has it so",
        TransitionCause::Rollback => "the last one has gone wrong",
    };
    format!("switch {} to {} begins, as {asked_by}", next.id, name(next.to.as_deref()))
}

fn taken_back(back: &Transition, kept: &LastTransition, why: &str) -> String {
    let before = format!("switch {} goes back to {}: ", kept.id, name(back.to.as_deref()));
    quoting(&before, why, "")
}

fn why_failed(
    situation: &Situation<'_>,
    guards: &(GuardsPassingReason, String),
    stuck: &[StuckPod],
) -> String {
    match &situation.lost {
        Some(Refusal::For { message, .. }) => message.clone(),
        Some(Refusal::MemberAwaited { .. }) | None => verdict(situation, guards, stuck),
    }
}

/// A switch that is under way.
fn driving(situation: &Situation<'_>, decision: &Decision) -> Summary {
    if situation.is_rollback() {
        return goes(ReadyReason::RollingBack, ReconcilingReason::RollingBack, progress(situation));
    }
    match situation.hold(decision) {
        Some(Hold::Step(_)) => {
            goes(ReadyReason::Held, ReconcilingReason::Switching, held(situation, decision).1)
        }
        Some(Hold::Paused | Hold::Preflight | Hold::DonorBusy | Hold::NoData(_)) => {
            rests(ReadyReason::Held, held(situation, decision).1)
        }
        None if is_asked_first(situation) => {
            let message = "the API server is asked for the resizes of the first step, by dry runs";
            goes(ReadyReason::Switching, ReconcilingReason::Preflight, message)
        }
        None => goes(ReadyReason::Switching, ReconcilingReason::Switching, progress(situation)),
    }
}

/// Whether nothing has begun, as the API server is asked first.
fn is_asked_first(situation: &Situation<'_>) -> bool {
    let mut reached = situation.sides.iter().zip(&situation.stands).filter(|(side, _)| **side == Side::To);
    situation.tally.counts.done == 0
        && situation.tally.counts.in_flight == 0
        && reached.any(|(_, stand)| stand.state == UnitState::Cannot(Cannot::Unasked))
}

/// All is where the last transition leads, or cannot get there for now.
fn settled(situation: &Situation<'_>, stuck: &[StuckPod]) -> Summary {
    if situation.tally.stuck_now > 0 {
        return settling(situation, stuck);
    }
    let to = name(situation.transition().and_then(|last| last.to.as_deref()));
    if situation.tally.counts.stuck > 0 {
        let message = quoting(&format!("{to} has the peak; "), &left_behind(situation, stuck), "");
        return rests(ReadyReason::SettledWithSkips, message);
    }
    let pods = situation.observed.members.iter().map(|member| member.pods.len()).sum::<usize>();
    let pods = count(u32::try_from(pods).unwrap_or(u32::MAX), "pod");
    rests(ReadyReason::Settled, format!("{to} has the peak, and each of {pods} its size and traffic"))
}

/// The last transition has ended, and pods have not what is theirs.
fn settling(situation: &Situation<'_>, stuck: &[StuckPod]) -> Summary {
    let to = name(situation.transition().and_then(|last| last.to.as_deref()));
    let before = format!("{to} has the peak, and pods get what is theirs");
    let message = match (first_stuck(stuck), waits_for(situation)) {
        (Some((first, remedy)), _) if situation.tally.stuck_now > 0 => {
            quoting(&format!("{before}; stuck is "), &first, &format!(": {remedy}"))
        }
        (_, Some(waits_for)) => quoting(&format!("{before}; "), &waits_for, ""),
        (_, None) => before,
    };
    goes(ReadyReason::Degraded, ReconcilingReason::Settling, message)
}

/// A rollback has come to its end.
fn came_back(situation: &Situation<'_>) -> Summary {
    let to = name(situation.transition().and_then(|last| last.to.as_deref()));
    rests(ReadyReason::RollingBack, format!("{to} has the peak again"))
}

/// What is under way comes to rest.
fn resting(situation: &Situation<'_>) -> Summary {
    if situation.stop.is_some() {
        // Why, is what needs a person.
        return rests(ReadyReason::Switching, progress(situation));
    }
    let flying = situation.tally.counts.in_flight;
    let rest = if flying > 0 {
        format!("{} come to rest", count(flying, "unit"))
    } else {
        "no unit starts".to_owned()
    };
    rests(ReadyReason::Paused, format!("spec.mode is Paused: {rest}; set it to Active to go on"))
}

/// No transition opens, or nothing is written.
fn waiting(situation: &Situation<'_>, decision: &Decision, wait: WaitFor) -> Summary {
    match wait {
        WaitFor::Mode => {
            let what = match (situation.opening, &situation.desired, situation.transition()) {
                (Some(_), Some(desired), _) => {
                    format!("a switch to {} is due", name(desired.member.as_deref()))
                }
                (_, _, Some(open)) if situation.course.is_open() => {
                    format!("the switch to {} stands", name(open.to.as_deref()))
                }
                (_, _, _) => "pods have not what is theirs".to_owned(),
            };
            rests(
                ReadyReason::Observing,
                format!("spec.mode is Observe: {what}; set it to Active to have it done"),
            )
        }
        // What is wrong with it needs a person.
        WaitFor::Schedule => rests(ReadyReason::Refused, "nobody is to have the peak by this schedule"),
        WaitFor::RolledBack => came_back(situation),
        WaitFor::Preflight => {
            let message = "the API server is asked for all resizes of the switch that is due, by dry runs";
            goes(ReadyReason::Switching, ReconcilingReason::Preflight, message)
        }
        WaitFor::PreflightFailed => rests(ReadyReason::Held, held(situation, decision).1),
    }
}

/// What needs a person.
fn needs_person(
    situation: &Situation<'_>,
    decision: &Decision,
    guards: &(GuardsPassingReason, String),
    stuck: &[StuckPod],
) -> Option<(StalledReason, String)> {
    if let Some(Refusal::For { reason, message }) = &situation.lost {
        return Some((StalledReason::Refused(*reason), message.clone()));
    }
    if let Some(problem) = situation.schedule_problem() {
        return Some((StalledReason::Refused(RefusalReason::InvalidSchedule), problem_text(problem)));
    }
    match situation.stop {
        Some(Stop::GuardBreached) => {
            let message = quoting("no unit starts: ", &guards.1, "; change the spec to go on");
            return Some((StalledReason::GuardBreached, message));
        }
        Some(Stop::UnitStuck) => {
            let (first, remedy) = first_stuck(stuck).unwrap_or((String::new(), "see status.stuck"));
            let message = quoting("no unit starts, as one is stuck: ", &first, &format!(": {remedy}"));
            return Some((StalledReason::UnitStuck, message));
        }
        None => {}
    }
    let is_over = match decision {
        Decision::Close(_) => situation.is_rollback(),
        Decision::Settled | Decision::Drive | Decision::Rest | Decision::Wait(_) => {
            situation.is_rollback() && !situation.course.is_open()
        }
        Decision::Open(_)
        | Decision::Supersede { .. }
        | Decision::Fail { .. }
        | Decision::Advance(_)
        | Decision::Hold(_) => false,
    };
    if !is_over {
        return None;
    }
    if situation.tally.counts.stuck > 0 || situation.tally.stuck_now > 0 {
        let (first, remedy) = first_stuck(stuck).unwrap_or((String::new(), "see status.stuck"));
        let number = count(situation.tally.counts.stuck, "unit");
        let before = format!("{number} did not come back, first ");
        return Some((StalledReason::RollbackStuck, quoting(&before, &first, &format!(": {remedy}"))));
    }
    let desired = situation.desired.as_ref()?;
    let is_kept = situation.is_barred
        || (situation.course.is_open() && rollback::is_what_failed(situation.observed, desired));
    is_kept.then(|| {
        let failed = name(desired.member.as_deref());
        let why = verdict(situation, guards, stuck);
        let message = quoting(
            &format!("no peak for {failed}: "),
            &why,
            "; change the spec, or wait for its next window",
        );
        (StalledReason::RolledBack, message)
    })
}

/// The same, as far as it is told by how long something lasts.
pub(super) fn overdue(situation: &Situation<'_>, decision: &Decision) -> Option<(StalledReason, String)> {
    let now = situation.now;
    if situation.stands_still_from(decision).is_some_and(|from| from <= now) {
        let awaited = waits_for(situation).unwrap_or_else(|| progress(situation));
        let after = "; see its events and node";
        let message = quoting("nothing has moved for 10 minutes: ", &awaited, after);
        return Some((StalledReason::NoProgress, message));
    }
    let goes_on = match decision {
        Decision::Drive | Decision::Advance(_) | Decision::Hold(_) => true,
        Decision::Settled
        | Decision::Open(_)
        | Decision::Supersede { .. }
        | Decision::Fail { .. }
        | Decision::Close(_)
        | Decision::Rest
        | Decision::Wait(_) => false,
    };
    let is_late = goes_on && situation.deadline.is_some_and(|deadline| deadline <= now);
    is_late.then(|| {
        let seconds = situation.observed.group.spec.switch.deadline_seconds;
        let before = format!("it takes longer than switch.deadlineSeconds ({seconds}), and goes on: ");
        (StalledReason::DeadlineExceeded, quoting(&before, &progress(situation), ""))
    })
}

/// Whether nothing is left to do, by the summary.
pub(super) fn is_ready(ready: ReadyReason) -> bool {
    ready.status() == ConditionStatus::True
}
