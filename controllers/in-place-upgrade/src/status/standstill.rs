//! Nothing has moved for long although nothing holds: a person is asked to look.

use crate::census::Member;
use crate::machine::PodState;
use crate::message::quoting;
use crate::plan::decision::Decision;
use crate::plan::moves::Moves;
use crate::plan::situation::{Course, Situation};
use crate::verdict::Verdict;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::common::ConditionStatus;
use springtide_crds::in_place_upgrade::{HeldReason, StalledReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;

/// After so long without a move, at the earliest.
const NO_PROGRESS: SignedDuration = SignedDuration::from_mins(10);

/// A run that may be standing still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standstill {
    /// When a person is asked, if nothing moves until then.
    pub(super) told_at: Timestamp,
    reason: StalledReason,
    patience: SignedDuration,
}

impl Standstill {
    /// What is said of it; `awaited` is what the run waits for.
    pub(super) fn told(self, awaited: &str) -> (StalledReason, String) {
        let remedy = match self.reason {
            StalledReason::FinalizeFailed => {
                "; see kube-controller-manager, and who else changes the workload"
            }
            StalledReason::RollbackFailed => "; delete the pods that do not come back, one by one",
            StalledReason::DrainFailed => "; see the EndpointSlices of its Services, or spec.traffic.drain",
            StalledReason::NoProgress
            | StalledReason::NotLocked
            | StalledReason::FieldOwnershipConflict
            | StalledReason::TemplateRefused
            | StalledReason::PodsBlocked
            | StalledReason::PrePullFailed
            | StalledReason::HealthFailed
            | StalledReason::RolledBack
            | StalledReason::Forbidden
            | StalledReason::InternalError
            | StalledReason::Refused(_) => "; see the events of these pods, their nodes and controllers",
        };
        let before = format!("nothing has moved for {} minutes: ", self.patience.as_mins());
        (self.reason, quoting(&before, awaited, remedy))
    }
}

/// Looks whether it may be so; `None` while something holds, or nothing is to move.
pub(super) fn look(
    situation: &Situation<'_>,
    decision: &Decision,
    made: &Moves,
    now: Timestamp,
) -> Option<Standstill> {
    let is_to_move = match decision {
        Decision::Move => made.hold.is_none(),
        Decision::Flip(_) | Decision::Finalize(_) | Decision::TemplateNotObserved => true,
        Decision::UpToDate
        | Decision::RolledBack
        | Decision::PlanOnly
        | Decision::Paused
        | Decision::NotLocked
        | Decision::PodsBlocked
        | Decision::NotRecorded(_)
        | Decision::NoWayBack
        | Decision::TemplateRefused
        | Decision::Preflight
        | Decision::Open(_)
        | Decision::Supersede
        | Decision::Fail
        | Decision::Persist(_)
        | Decision::Raise(_)
        | Decision::Close(_) => false,
    };
    let still_since = situation.observed.still_since.filter(|_| is_to_move)?;
    // Who was held, or had no run, did not stand still.
    let held = situation.observed.upgrade.condition(HeldReason::CONDITION);
    let free_since = held.map(|held| match held.status {
        ConditionStatus::True => now,
        ConditionStatus::False | ConditionStatus::Unknown => held.last_transition_time.0,
    });
    let begun = situation.course.is_open().then_some(situation.step.status.start_time.0);
    let since = [free_since, begun].into_iter().flatten().fold(still_since, Timestamp::max);
    let reason = if decision.finalize().is_some() {
        StalledReason::FinalizeFailed
    } else if situation.course == Course::Back {
        StalledReason::RollbackFailed
    } else if situation.members.iter().any(is_put_off) {
        StalledReason::DrainFailed
    } else {
        StalledReason::NoProgress
    };
    let patience = patience(situation, made);
    Some(Standstill { told_at: after(since, patience), reason, patience })
}

/// Whether a pod was put off as it does not leave traffic: one after the other may be tried so, and none is changed.
pub(super) fn is_put_off(member: &Member) -> bool {
    match member.state() {
        PodState::NotDrained { .. } => true,
        // One that is to be evicted is put off by a budget.
        PodState::Old => member.stand.wake.is_some() && member.judgement.verdict != Verdict::Recreate,
        PodState::Resizing
        | PodState::Draining { .. }
        | PodState::Drained
        | PodState::Patched
        | PodState::Started
        | PodState::Renewed
        | PodState::Updated
        | PodState::Unavailable
        | PodState::Failed(_)
        | PodState::Ineligible => false,
    }
}

/// How long it may take before a person is asked: what has a time of its own in the spec is waited for.
fn patience(situation: &Situation<'_>, made: &Moves) -> SignedDuration {
    let pace = &situation.pace;
    let drain = pace.drain.timeout.saturating_add(pace.drain.min);
    let own = situation.members.iter().map(|member| match member.state() {
        PodState::Resizing => pace.resize_timeout,
        PodState::Draining { .. } => drain,
        PodState::Old | PodState::NotDrained { .. } if is_put_off(member) => drain,
        PodState::Patched | PodState::Started | PodState::Renewed => {
            pace.pod_deadline.saturating_add(pace.min_ready)
        }
        // One that its kubelet is about to start.
        PodState::Old if member.stand.wake.is_none() && member.pod.has_not_started() => pace.pod_deadline,
        PodState::Old
        | PodState::Drained
        | PodState::NotDrained { .. }
        | PodState::Updated
        | PodState::Unavailable
        | PodState::Failed(_)
        | PodState::Ineligible => SignedDuration::ZERO,
    });
    let pull = situation.observed.upgrade.spec.pre_pull.timeout_seconds;
    let pull =
        if made.waits_for_images { SignedDuration::from_secs(pull.into()) } else { SignedDuration::ZERO };
    own.fold(NO_PROGRESS.max(pull), SignedDuration::max)
}
