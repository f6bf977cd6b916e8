//! The way back from a switch that has gone wrong, and that it is not tried again at once.

use crate::observed::Observed;
use crate::transition::{next_id, record, transition};
use jiff::Timestamp;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    LastTransition, StalledReason, Transition, TransitionCause, TransitionResult, UnitCounts,
};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::window::calendar::Desired;

/// Whether what is asked for was rolled back, so that it is not tried again: the rollback has ended, it is the same spec,
/// and [what failed](is_what_failed) is asked for.
///
/// That it is the same spec is told by condition Stalled, which stands from the rollback's end on for as long as this
/// holds, whatever else takes its reason meanwhile (a member that is missing, a write that is forbidden).
pub fn is_barred(observed: &Observed, desired: &Desired) -> bool {
    let last = observed.group.status.transition.as_ref();
    let has_ended = last.is_some_and(|last| last.completion_time.is_some());
    has_ended && is_what_failed(observed, desired) && is_stalled(observed)
}

/// Whether the last transition is a rollback, and the same member is asked for as before it, by what has asked for it
/// then: not by a window that has begun since.
pub fn is_what_failed(observed: &Observed, desired: &Desired) -> bool {
    let Some(last) = &observed.group.status.transition else { return false };
    let is_rollback = match last.cause {
        TransitionCause::Rollback => true,
        TransitionCause::Window | TransitionCause::Default | TransitionCause::Override => false,
    };
    is_rollback
        && last.from.as_deref() == desired.member.as_deref()
        && desired.since.is_none_or(|since| since <= last.start_time.0)
}

/// Why a person is needed, as the status says it of this very spec.
pub fn stalled(observed: &Observed) -> Option<StalledReason> {
    observed.group.reason::<StalledReason>().filter(|_| is_stalled(observed))
}

fn is_stalled(observed: &Observed) -> bool {
    let group = &observed.group;
    let stalled = group.condition(StalledReason::CONDITION);
    stalled.is_some_and(|condition| condition.observed_generation == group.meta().generation)
}

/// The transition that takes the open one back, and what is kept of that; `units` are how many of them there are, and how
/// many were given up. `None` where there is none.
pub fn fail(observed: &Observed, units: &UnitCounts, now: Timestamp) -> Option<(Transition, LastTransition)> {
    let failed = observed.group.status.transition.as_ref()?;
    let kept = record(failed, units, observed.nudges, TransitionResult::RolledBack, now);
    let (from, to) = (failed.to.as_deref(), failed.from.as_deref());
    Some((transition(next_id(failed.id), from, to, TransitionCause::Rollback, now), kept))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, group, observed_of, overlay, switching};
    use serde_json::{Value, json};
    use springtide_plumbing::window::calendar::Cause;
    use std::sync::Arc;

    /// A group of generation 3 whose switch to pay was rolled back at `at(0)`.
    fn rolled_back(over: Value) -> Observed {
        let mut status = switching(8, Some("pay"), Some("promo"));
        status["activeMember"] = json!("promo");
        let told = json!({
            "transition": {"cause": "Rollback", "completionTime": at(30).to_string()},
            "conditions": [{"type": "Stalled", "status": "True", "reason": "RolledBack", "message": "",
                "observedGeneration": 3, "lastTransitionTime": at(30).to_string()}],
        });
        overlay(&mut status, told);
        overlay(&mut status, over);
        observed_of(group(json!({"metadata": {"generation": 3}, "status": status})), &[])
    }

    fn desired(member: &str, since: Option<i64>) -> Desired {
        Desired {
            member: Some(Arc::from(member)),
            cause: Cause::Window,
            window: None,
            window_start: None,
            since: since.map(at),
            until: None,
            next: None,
        }
    }

    #[test]
    fn what_was_rolled_back_is_not_tried_again_while_it_is_asked_for_as_before() {
        let pay = desired("pay", Some(-60));
        assert!(is_barred(&rolled_back(json!({})), &pay));
        assert!(is_barred(&rolled_back(json!({})), &desired("pay", Some(0))));
        assert!(is_barred(&rolled_back(json!({})), &desired("pay", None)), "an override that still stands");
        assert!(!is_barred(&rolled_back(json!({})), &desired("pay", Some(1))), "the next window");
        assert!(!is_barred(&rolled_back(json!({})), &desired("games", Some(-60))), "another member");
        let open = rolled_back(json!({"transition": {"completionTime": null}}));
        assert!(!is_barred(&open, &pay) && is_what_failed(&open, &pay));
        let forward = rolled_back(json!({"transition": {"cause": "Window"}}));
        assert!(!is_barred(&forward, &pay));
    }

    #[test]
    fn another_spec_is_tried_and_another_trouble_meanwhile_is_no_other_spec() {
        let pay = desired("pay", Some(-60));
        let stalled = |over: Value| {
            let mut stalled = json!({"type": "Stalled"});
            overlay(&mut stalled, over);
            rolled_back(json!({"conditions": [stalled]}))
        };
        assert!(!is_barred(&stalled(json!({"observedGeneration": 2})), &pay));
        assert!(is_barred(&stalled(json!({"reason": "MemberNotFound"})), &pay));
        let mut freed = rolled_back(json!({}));
        let mut status = freed.group.status.clone();
        status.conditions.clear();
        freed.group = Arc::new(freed.group.with_status(status, freed.group.meta().resource_version));
        assert!(!is_barred(&freed, &pay), "it was let go by another spec before");
    }

    #[test]
    fn what_needs_a_person_is_of_this_very_spec() {
        assert_eq!(stalled(&rolled_back(json!({}))), Some(StalledReason::RolledBack));
        let old = rolled_back(json!({"conditions": [{"type": "Stalled", "observedGeneration": 2}]}));
        assert_eq!(stalled(&old), None);
    }

    #[test]
    fn a_rollback_leads_back_under_the_next_number() {
        let status = switching(7, Some("promo"), Some("pay"));
        let mut observed = observed_of(group(json!({"status": status})), &[]);
        observed.nudges = 4;
        let units = UnitCounts { total: 9, skipped: 1, ..UnitCounts::default() };
        let (back, kept) = fail(&observed, &units, at(40)).unwrap();
        assert_eq!((back.id, back.cause, back.step), (8, TransitionCause::Rollback, 1));
        assert_eq!((back.from.as_deref(), back.to.as_deref()), (Some("pay"), Some("promo")));
        assert_eq!(back.start_time.0, at(40));
        assert_eq!(
            (kept.id, kept.result, kept.to.as_deref()),
            (7, TransitionResult::RolledBack, Some("pay"))
        );
        assert_eq!((kept.units, kept.skipped, kept.nudges, kept.duration_seconds), (9, 1, 4, 40));
        assert_eq!(fail(&observed_of(group(json!({})), &[]), &units, at(0)), None);
    }
}
