//! When a status is written. In a switch its figures differ in every pass, and each write is one to every watcher of the
//! kind; so what is only news of how far it is waits for its second.

use jiff::{SignedDuration, Timestamp};
use springtide_crds::common::{condition, remove_condition};
use springtide_crds::reason::{Reason, said};
use springtide_crds::time_share_group::{
    AcceptedReason, GuardsPassingReason, HeldReason, PreflightPassedReason, ScheduleValidReason,
    StalledReason, TimeShareGroupStatus,
};
use springtide_plumbing::clock::after;

/// Distance between two writes of figures.
const INTERVAL: SignedDuration = SignedDuration::from_secs(1);
/// The same where nothing is new but how many dry runs were answered of those that are spread over a lead of hours.
const ASKING_INTERVAL: SignedDuration = SignedDuration::from_secs(60);

/// When to write a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Now, if it differs at all.
    Now,
    /// Not before this time, if it still differs then.
    At(Timestamp),
}

/// When to write `desired` in the place of `stored`. `written` is when this process has written it last: a new one
/// writes at once.
pub fn due(
    stored: &TimeShareGroupStatus,
    desired: &TimeShareGroupStatus,
    written: Option<Timestamp>,
    now: Timestamp,
) -> Due {
    if is_decisive(stored, desired) || stored == desired {
        return Due::Now;
    }
    // A clock that was put back says nothing of how long ago that was.
    let Some(written) = written.filter(|written| *written <= now) else { return Due::Now };
    let interval = if is_of_questions(stored, desired) { ASKING_INTERVAL } else { INTERVAL };
    let time = after(written, interval);
    if time <= now { Due::Now } else { Due::At(time) }
}

/// Whether plans rest on what differs, others act by it, or a person has to learn it at once.
fn is_decisive(stored: &TimeShareGroupStatus, desired: &TimeShareGroupStatus) -> bool {
    let way = |status: &TimeShareGroupStatus| {
        status.transition.as_ref().map(|open| {
            let ends = (open.completion_time.clone(), open.hold_until_time.clone());
            (
                open.id,
                open.from.clone(),
                open.to.clone(),
                open.cause,
                open.start_time.clone(),
                open.step,
                ends,
            )
        })
    };
    let workloads = |status: &TimeShareGroupStatus| {
        let named = status.members.iter().map(|member| (member.name.clone(), member.workload_uid.clone()));
        named.collect::<Vec<_>>()
    };
    let reason = |status: &TimeShareGroupStatus, type_: &str| {
        condition(&status.conditions, type_).map(|condition| condition.reason.clone())
    };
    let decisive = [
        AcceptedReason::CONDITION,
        ScheduleValidReason::CONDITION,
        GuardsPassingReason::CONDITION,
        HeldReason::CONDITION,
        StalledReason::CONDITION,
    ];
    stored.observed_generation != desired.observed_generation
        || stored.active_member != desired.active_member
        || stored.desired_member != desired.desired_member
        || stored.next_transition != desired.next_transition
        || stored.last_transitions != desired.last_transitions
        || way(stored) != way(desired)
        || workloads(stored) != workloads(desired)
        || decisive.into_iter().any(|type_| reason(stored, type_) != reason(desired, type_))
}

/// Whether nothing differs but how far the questions ahead of a switch are that are not all answered yet.
fn is_of_questions(stored: &TimeShareGroupStatus, desired: &TimeShareGroupStatus) -> bool {
    let is_asking = |status: &TimeShareGroupStatus| {
        said::<PreflightPassedReason>(&status.conditions)
            .is_some_and(|(reason, _)| reason == PreflightPassedReason::NotObserved)
    };
    let rest = |status: &TimeShareGroupStatus| {
        let mut rest = status.clone();
        rest.preflight = None;
        remove_condition(&mut rest.conditions, PreflightPassedReason::CONDITION);
        rest
    };
    is_asking(stored) && is_asking(desired) && rest(stored) == rest(desired)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, group, overlay, switching};
    use serde_json::{Value, json};
    use springtide_crds::common::{ConditionWriter, whole_seconds};
    use springtide_crds::time_share_group::{MESSAGE_MAX_BYTES, ReadyReason};

    /// In transition 7, which has done so many units.
    fn status(done: u32, over: Value) -> TimeShareGroupStatus {
        let mut stored = switching(7, Some("promo"), Some("pay"));
        overlay(
            &mut stored,
            json!({
                "transition": {"units": {"total": 300, "done": done}},
                "members": [{"name": "pay", "pods": 300, "workloadUid": "pay"}],
            }),
        );
        overlay(&mut stored, over);
        let mut status = group(json!({"status": stored})).status.clone();
        tell(&mut status, ReadyReason::Switching);
        tell(&mut status, HeldReason::Free);
        status
    }

    fn tell<R: Reason>(status: &mut TimeShareGroupStatus, reason: R) {
        let writer =
            ConditionWriter { observed_generation: 1, now: at(0), message_max_bytes: MESSAGE_MAX_BYTES };
        writer.set(&mut status.conditions, reason, "");
    }

    #[test]
    fn figures_are_written_once_in_a_second() {
        let due = |written| due(&status(1, json!({})), &status(2, json!({})), written, at(10));
        assert_eq!(due(Some(at(10))), Due::At(at(11)));
        assert_eq!(due(Some(at(9))), Due::Now);
        assert_eq!(due(None), Due::Now, "a process that has just begun to lead");
        assert_eq!(due(Some(at(500))), Due::Now, "its clock was put back");
        let same = status(1, json!({}));
        assert_eq!(super::due(&same, &same, Some(at(10)), at(10)), Due::Now, "it wakes nobody");
    }

    #[test]
    fn how_many_questions_are_answered_is_written_once_in_a_minute() {
        let asking = |passed: u32, done: u32, reason| {
            let mut status = status(done, json!({"preflight": {"units": 300, "passed": passed}}));
            tell(&mut status, reason);
            status
        };
        use PreflightPassedReason::{AllUnits, NotObserved};
        let due = |desired: &TimeShareGroupStatus, now| {
            super::due(&asking(10, 1, NotObserved), desired, Some(at(10)), at(now))
        };
        assert_eq!(due(&asking(20, 1, NotObserved), 11), Due::At(at(70)));
        assert_eq!(due(&asking(20, 1, NotObserved), 70), Due::Now);
        assert_eq!(due(&asking(20, 2, NotObserved), 11), Due::Now, "something else is new too");
        assert_eq!(due(&asking(300, 1, AllUnits), 11), Due::Now, "all are");
    }

    #[test]
    fn how_far_it_is_waits_with_the_figures() {
        let mut settled = status(
            1,
            json!({"preflight": {"units": 3, "passed": 2}, "stuck": [
                {"pod": "pay-1", "node": "n1", "reason": "Deferred", "sinceTime": at(0).to_string()},
            ]}),
        );
        tell(&mut settled, ReadyReason::Degraded);
        assert_eq!(due(&status(1, json!({})), &settled, Some(at(10)), at(10)), Due::At(at(11)));
    }

    #[test]
    fn what_plans_rest_on_is_written_at_once() {
        let soon = at(90).to_string();
        let record = json!([{"id": 6, "cause": "Window", "completionTime": soon, "result": "Succeeded"}]);
        for over in [
            json!({"observedGeneration": 2}),
            json!({"activeMember": "pay"}),
            json!({"desiredMember": "promo"}),
            json!({"nextTransition": {"member": "promo", "startTime": soon}}),
            json!({"transition": {"id": 8}}),
            json!({"transition": {"step": 2}}),
            json!({"transition": {"to": "games"}}),
            json!({"transition": {"holdUntilTime": soon}}),
            json!({"transition": {"completionTime": soon}}),
            json!({"lastTransitions": record}),
            json!({"members": [{"name": "pay", "workloadUid": "other"}]}),
        ] {
            let found = due(&status(1, json!({})), &status(1, over.clone()), Some(at(10)), at(10));
            assert_eq!(found, Due::Now, "{over}");
        }
        let changes: [fn(&mut TimeShareGroupStatus); 4] = [
            |status| tell(status, GuardsPassingReason::TooManyFailures),
            |status| tell(status, StalledReason::UnitStuck),
            |status| tell(status, HeldReason::DonorBusy),
            |status| status.transition.iter_mut().for_each(|open| open.start_time = whole_seconds(at(5))),
        ];
        for (place, change) in changes.iter().enumerate() {
            let mut desired = status(1, json!({}));
            change(&mut desired);
            assert_eq!(due(&status(1, json!({})), &desired, Some(at(10)), at(10)), Due::Now, "{place}");
        }
    }
}
