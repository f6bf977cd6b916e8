//! Who is to have the peak, and whether the schedule can be followed.
//!
//! Windows of different members that meet far ahead are told of and hinder nothing yet: somebody has the time to move one.
//! A spec that is new is refused at once, as whoever wrote it is still there. An override is followed in any case.

use crate::observed::Observed;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{AcceptedReason, Override, RefusalReason};
use springtide_plumbing::clock::after;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::window::calendar::{CalendarProblem, Cause, Desired};
use std::sync::Arc;

/// Windows that meet sooner than this keep the schedule from being followed.
const NEAR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Who is to have the peak. While the schedule is not followed that is whoever an override names, and else nobody knows.
pub fn desired(observed: &Observed, now: Timestamp) -> Option<Desired> {
    let over = observed.group.spec.override_.as_ref();
    match (&observed.calendar, refused_schedule(observed, now)) {
        (Ok(surveyed), None) => Some(surveyed.calendar.desired(over, now)),
        (Ok(_) | Err(_), _) => overridden(observed, over?, now),
    }
}

/// Who is to have the peak by an override alone. What comes after it is not known.
fn overridden(observed: &Observed, over: &Override, now: Timestamp) -> Option<Desired> {
    let member = match over.member.as_deref() {
        None => None,
        Some(name) => {
            let known = observed.member(name).and_then(|index| observed.members.get(index.0))?;
            Some(Arc::clone(&known.name))
        }
    };
    over.is_in_force(now).then_some(Desired {
        member,
        cause: Cause::Override,
        window: None,
        window_start: None,
        since: None,
        until: Some(over.until_time.0),
        next: None,
    })
}

/// What is wrong with the schedule, whether it is followed or not: it cannot be read, or windows of different members meet
/// within the time that is looked at.
pub fn schedule_problem(observed: &Observed) -> Option<&CalendarProblem> {
    match &observed.calendar {
        Ok(surveyed) => surveyed.survey.conflict.as_ref(),
        Err(problem) => Some(problem),
    }
}

/// Why the schedule is not followed. Whoever has the peak then keeps it.
pub fn refused_schedule(observed: &Observed, now: Timestamp) -> Option<&CalendarProblem> {
    let problem = schedule_problem(observed)?;
    let is_near = near_from(problem).is_none_or(|from| from <= now);
    (is_near || is_new(observed) || was_refused(observed)).then_some(problem)
}

/// From when on the schedule is not followed, where it still is although something is wrong with it.
pub fn refused_from(observed: &Observed, now: Timestamp) -> Option<Timestamp> {
    near_from(schedule_problem(observed)?).filter(|from| *from > now)
}

fn near_from(problem: &CalendarProblem) -> Option<Timestamp> {
    problem.begins().map(|begins| after(begins, -NEAR))
}

/// Whether nobody has looked at this spec before.
fn is_new(observed: &Observed) -> bool {
    let group = &observed.group;
    group.status.observed_generation < group.meta().generation
}

/// Whether this very spec was refused for its schedule when it was new.
fn was_refused(observed: &Observed) -> bool {
    let group = &observed.group;
    let accepted = group.condition(AcceptedReason::CONDITION);
    let is_of_it = accepted.is_some_and(|told| told.observed_generation == group.meta().generation);
    is_of_it && group.reason() == Some(AcceptedReason::Refused(RefusalReason::InvalidSchedule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, group, observed_of, overlay};
    use serde_json::{Value, json};

    /// Both members have a window on this date of 2026; tests begin on November 18.
    fn meeting(date: &str, status: Value) -> Observed {
        let window = |name: &str| {
            json!({"name": name, "member": name, "leadSeconds": 0, "window":
                {"start": "10:00", "end": "12:00", "timeZone": "UTC", "dates": [date]}})
        };
        let schedule = json!({"defaultMember": "pay", "windows": [window("pay"), window("promo")]});
        observed_of(group(json!({"spec": {"schedule": schedule}, "status": status})), &[])
    }

    fn known() -> Value {
        json!({"observedGeneration": 1})
    }

    fn over(observed: Observed, member: Value, until: i64) -> Observed {
        let mut spec = serde_json::to_value(&observed.group.spec).unwrap();
        let until = at(until).to_string();
        overlay(&mut spec, json!({"override": {"member": member, "untilTime": until, "reason": "INC-1"}}));
        let status = serde_json::to_value(&observed.group.status).unwrap();
        observed_of(group(json!({"spec": spec, "status": status})), &[])
    }

    fn member(desired: Option<Desired>) -> Option<Option<String>> {
        desired.map(|desired| desired.member.map(|member| member.to_string()))
    }

    #[test]
    fn windows_that_meet_soon_keep_the_schedule_from_being_followed() {
        let soon = meeting("2026-11-20", known());
        assert!(refused_schedule(&soon, at(0)).is_some());
        assert_eq!(desired(&soon, at(0)), None);
    }

    #[test]
    fn windows_that_meet_far_ahead_refuse_a_new_spec_and_none_that_is_served() {
        let far = meeting("2026-12-24", known());
        assert!(schedule_problem(&far).is_some() && refused_schedule(&far, at(0)).is_none());
        assert_eq!(member(desired(&far, at(0))), Some(Some("pay".to_owned())));
        let from = refused_from(&far, at(0)).unwrap();
        assert_eq!(from.to_string(), "2026-12-17T10:00:00Z");
        assert!(refused_schedule(&far, from).is_some());
        assert!(refused_schedule(&meeting("2026-12-24", json!({})), at(0)).is_some(), "it is new");
        let told = json!({"observedGeneration": 1, "conditions": [{"type": "Accepted", "status": "False",
            "reason": "InvalidSchedule", "observedGeneration": 1, "lastTransitionTime": at(0).to_string()}]});
        assert!(
            refused_schedule(&meeting("2026-12-24", told), at(0)).is_some(),
            "it was new, and is no better"
        );
    }

    #[test]
    fn an_override_is_followed_whatever_is_wrong_with_the_schedule() {
        let soon = || meeting("2026-11-20", known());
        let found = desired(&over(soon(), json!("promo"), 100), at(0)).unwrap();
        assert_eq!((found.member.as_deref(), found.cause), (Some("promo"), Cause::Override));
        assert_eq!((found.until, found.next), (Some(at(100)), None));
        assert_eq!(member(desired(&over(soon(), Value::Null, 100), at(0))), Some(None), "nobody");
        assert_eq!(desired(&over(soon(), json!("promo"), 100), at(100)), None, "its time is over");
        assert_eq!(desired(&over(soon(), json!("games"), 100), at(0)), None, "there is no such member");
    }
}
