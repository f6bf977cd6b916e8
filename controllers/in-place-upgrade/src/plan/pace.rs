//! When a status is written. While pods move its figures differ in every pass, and each write is one to every watcher of
//! the kind; so what is only news of how far it is waits for its second.

use jiff::{SignedDuration, Timestamp};
use springtide_crds::common::condition;
use springtide_crds::in_place_upgrade::{
    AcceptedReason, FinalizedReason, HealthyReason, InPlaceUpgradeStatus, LockedReason, StalledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;

/// Distance between two writes of figures.
const INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// When to write a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Now, if it differs at all.
    Now,
    /// Not before this time, if it still differs then.
    At(Timestamp),
}

/// When to write `desired` in the place of `stored`. `written` is when this process has written it last: a new one
/// writes at once.
pub(super) fn due(
    stored: &InPlaceUpgradeStatus,
    desired: &InPlaceUpgradeStatus,
    written: Option<Timestamp>,
    now: Timestamp,
) -> Due {
    if is_decisive(stored, desired) || stored == desired {
        return Due::Now;
    }
    // A clock that was put back says nothing of how long ago that was.
    let Some(written) = written.filter(|written| *written <= now) else { return Due::Now };
    let time = after(written, INTERVAL);
    if time <= now { Due::Now } else { Due::At(time) }
}

/// Whether plans rest on what differs, or a person has to learn it at once.
fn is_decisive(stored: &InPlaceUpgradeStatus, desired: &InPlaceUpgradeStatus) -> bool {
    let step = |status: &InPlaceUpgradeStatus| {
        status.step.as_ref().map(|step| (step.index, step.start_time.clone(), step.hold_until_time.clone()))
    };
    let reason = |status: &InPlaceUpgradeStatus, type_: &str| {
        condition(&status.conditions, type_).map(|condition| condition.reason.clone())
    };
    let decisive = [
        AcceptedReason::CONDITION,
        LockedReason::CONDITION,
        HealthyReason::CONDITION,
        FinalizedReason::CONDITION,
        StalledReason::CONDITION,
    ];
    stored.observed_generation != desired.observed_generation
        || stored.target_hash != desired.target_hash
        || stored.previous != desired.previous
        || stored.last_run != desired.last_run
        || step(stored) != step(desired)
        || decisive.into_iter().any(|type_| reason(stored, type_) != reason(desired, type_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;
    use springtide_crds::common::{ConditionWriter, whole_seconds};
    use springtide_crds::in_place_upgrade::{
        HeldReason, MESSAGE_MAX_BYTES, PodCounts, Previous, ReadyReason, StepStatus,
    };

    fn status(updated: u32) -> InPlaceUpgradeStatus {
        let pods = PodCounts { total: 300, updated, ..PodCounts::default() };
        let mut status = InPlaceUpgradeStatus {
            observed_generation: 1,
            target_hash: "7c9f21ab04de".to_owned(),
            previous: Some(Previous { revision: "web-1".to_owned(), ..Previous::default() }),
            step: Some(StepStatus {
                index: 1,
                of: 2,
                pods: 30,
                start_time: whole_seconds(at(0)),
                hold_until_time: None,
            }),
            pods,
            ..InPlaceUpgradeStatus::default()
        };
        tell(&mut status, ReadyReason::Upgrading);
        tell(&mut status, HealthyReason::GatesPassing);
        status
    }

    fn tell<R: Reason>(status: &mut InPlaceUpgradeStatus, reason: R) {
        let writer =
            ConditionWriter { observed_generation: 1, now: at(0), message_max_bytes: MESSAGE_MAX_BYTES };
        writer.set(&mut status.conditions, reason, "");
    }

    #[test]
    fn figures_are_written_once_in_a_second() {
        let due = |written| due(&status(1), &status(2), written, at(10));
        assert_eq!(due(Some(at(10))), Due::At(at(11)));
        assert_eq!(due(Some(at(9))), Due::Now);
        assert_eq!(due(None), Due::Now, "a process that has just begun to lead");
        assert_eq!(due(Some(at(500))), Due::Now, "its clock was put back");
    }

    #[test]
    fn how_far_it_is_waits_with_the_figures() {
        let mut held = status(1);
        tell(&mut held, ReadyReason::Held);
        tell(&mut held, HeldReason::Unavailable);
        assert_eq!(due(&status(1), &held, Some(at(10)), at(10)), Due::At(at(11)));
    }

    #[test]
    fn what_plans_rest_on_is_written_at_once() {
        let changes: [fn(&mut InPlaceUpgradeStatus); 7] = [
            |status| status.previous = None,
            |status| status.target_hash = "000000000000".to_owned(),
            |status| status.observed_generation = 2,
            |status| status.step = None,
            |status| tell(status, HealthyReason::TooManyFailures),
            |status| tell(status, FinalizedReason::WaitingForHandshake),
            |status| tell(status, StalledReason::PodsBlocked),
        ];
        for (place, change) in changes.iter().enumerate() {
            let mut desired = status(1);
            change(&mut desired);
            assert_eq!(due(&status(1), &desired, Some(at(10)), at(10)), Due::Now, "{place}");
        }
    }

    #[test]
    fn a_status_that_stays_as_it_is_wakes_nobody() {
        assert_eq!(due(&status(1), &status(1), Some(at(10)), at(10)), Due::Now);
    }
}
