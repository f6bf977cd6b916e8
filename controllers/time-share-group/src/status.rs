//! The status, as a pure function of what was observed and decided.

mod conditions;
mod counts;
mod events;
mod obstacles;
pub mod pace;
mod report;
mod summary;
#[cfg(test)]
mod tests;

pub use events::{events, events_of_refused};

use crate::observed::Observed;
use crate::plan::accept::Refusal;
use crate::plan::decision::Decision;
use crate::plan::situation::Situation;
use jiff::Timestamp;
use report::Report;
use springtide_crds::common::{holds, whole_seconds};
use springtide_crds::reason::{Reason, said};
use springtide_crds::time_share_group::{NextTransition, ReadyReason, StalledReason, TimeShareGroupStatus};
use springtide_plumbing::plan::{Outcome, Why};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::window::calendar::Next;

/// The status of a group that is served.
pub fn status(situation: &Situation<'_>, decision: &Decision, now: Timestamp) -> TimeShareGroupStatus {
    let group = &situation.observed.group;
    let generation = group.meta().generation;
    let mut status = group.status.clone();
    status.observed_generation = generation;
    // Nobody else is wished for while the schedule cannot be followed, and nothing is known to come.
    if let Some(desired) = &situation.desired {
        status.desired_member = desired.member.as_deref().map(str::to_owned);
    }
    let next = situation.desired.as_ref().and_then(|desired| desired.next.as_ref());
    status.next_transition = next.map(next_transition);
    status.members = counts::members(situation);
    status.union = Some(counts::union(&situation.union));
    status.preflight = counts::preflight(situation, now);
    let stuck = counts::stuck(situation);
    let report = Report::of(situation, decision, &stuck);
    status.stuck = counts::kept_stuck(situation, decision, stuck);
    decision.keep(&mut status, &situation.tally, situation.observed.nudges);
    report.set(&mut status.conditions, generation, now);
    status
}

fn next_transition(next: &Next) -> NextTransition {
    NextTransition {
        member: next.member.as_deref().map(str::to_owned),
        start_time: whole_seconds(next.start),
    }
}

/// The status of a group that is not served: what stood in it before stays, but for its conditions.
pub fn refused(observed: &Observed, refusal: &Refusal, now: Timestamp) -> TimeShareGroupStatus {
    Report::of_refused(observed, refusal).onto(&observed.group, now)
}

/// The stored status, and in it that the group's writes fail.
pub fn failing(observed: &Observed, now: Timestamp) -> TimeShareGroupStatus {
    Report::of_failing(&observed.group, observed.failing.as_ref()).onto(&observed.group, now)
}

/// Where a group stands with this status.
pub fn outcome(status: &TimeShareGroupStatus) -> Outcome {
    let conditions = &status.conditions;
    if holds(conditions, StalledReason::CONDITION) {
        return Outcome::Blocked;
    }
    match said::<ReadyReason>(conditions).map_or(ReadyReason::Pending, |(ready, _)| ready) {
        ReadyReason::Settled | ReadyReason::SettledWithSkips => Outcome::Converged,
        ReadyReason::Pending | ReadyReason::Held | ReadyReason::Paused | ReadyReason::Observing => {
            Outcome::Waiting
        }
        ReadyReason::Switching | ReadyReason::RollingBack | ReadyReason::Degraded | ReadyReason::Deleting => {
            Outcome::Progressing
        }
        ReadyReason::Refused => Outcome::Blocked,
    }
}

/// The decision in words: what needs a person, else where the group stands.
pub fn why(status: &TimeShareGroupStatus) -> Why {
    let told = |reason: &'static str, message: &str| Why { reason, message: message.to_owned() };
    if let Some((stalled, message)) = said::<StalledReason>(&status.conditions) {
        return told(stalled.as_str(), message);
    }
    let (ready, message) = said::<ReadyReason>(&status.conditions).unwrap_or((ReadyReason::Pending, ""));
    told(ready.as_str(), message)
}

/// Who it is that has, or is to have, the peak.
fn name(member: Option<&str>) -> &str {
    member.unwrap_or("nobody")
}
