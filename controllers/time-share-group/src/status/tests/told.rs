//! The events of a group, and where it stands in one word.

use super::super::{events, events_of_refused, outcome, why};
use super::switches::{came_back, canary_done, refused_ahead, settled, skipped, switched};
use super::{breached, failing, status_of, stored, unknown};
use crate::fixtures::{at, on_stage};
use crate::observed::Observed;
use crate::plan::accept::accept;
use crate::plan::decision::decide;
use crate::plan::fixtures::{both, found, to_pay};
use crate::plan::situation::Situation;
use crate::pod_times::{Stretch, Took};
use crate::status::status;
use crate::transition::course;
use jiff::SignedDuration;
use serde_json::{Value, json};
use springtide_plumbing::error::ErrorClass;
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::failing::Failing;
use springtide_plumbing::plan::Outcome;

fn events_of(observed: &Observed) -> Vec<EventNote> {
    let course = course(observed);
    match accept(observed, &course, at(100)) {
        Ok(accepted) => {
            let situation = Situation::new(observed, accepted, course, at(100));
            let decision = decide(&situation);
            events(&situation, &decision, &status(&situation, &decision, at(100)))
        }
        Err(_) => events_of_refused(observed, &status_of(observed)),
    }
}

/// Action and reason of each event.
fn named(observed: &Observed) -> Vec<(&'static str, &'static str)> {
    events_of(observed).iter().map(|event| (event.action, event.reason)).collect()
}

fn asks_for(member: &str) -> Value {
    let until = at(1000).to_string();
    json!({"spec": {"override": {"member": member, "untilTime": until, "reason": "INC-4711"}}})
}

#[test]
fn a_switch_tells_that_it_begins_and_why() {
    let observed = found(asks_for("pay"), &[json!({})], &[on_stage()]);
    let [event] = &events_of(&observed)[..] else { panic!("{:?}", events_of(&observed)) };
    assert_eq!((event.severity, event.action, event.reason), (Severity::Normal, "Opening", "Switching"));
    assert!(
        event.note.starts_with("switch 1 from nobody to pay begins, in 3 steps: spec.override"),
        "{}",
        event.note
    );
    assert!(event.note.ends_with(": INC-4711"), "{}", event.note);
}

#[test]
fn that_an_override_has_ended_is_told_with_the_switch_that_follows() {
    let cause = json!({"status": {"transition": {"cause": "Override"}}});
    let observed =
        found(both(to_pay(cause), json!({"spec": {"schedule": {"defaultMember": "promo"}}})), &[], &[]);
    let [event] = &events_of(&observed)[..] else { panic!("{:?}", events_of(&observed)) };
    assert_eq!(event.action, "Superseding");
    assert!(event.note.starts_with("spec.override has ended: switch 8 from pay to promo"), "{}", event.note);
    assert!(event.note.ends_with("in the place of switch 7 to pay"), "{}", event.note);
}

#[test]
fn a_switch_that_has_ended_tells_how_long_it_took() {
    let mut observed = found(
        to_pay(json!({"spec": {"switch": {"steps": [{"percent": 100}]}}})),
        &[on_stage()],
        &[json!({})],
    );
    let seconds = SignedDuration::from_millis;
    observed.nudges = 1;
    observed.took = vec![Took { stretch: Stretch::Drain, p50: seconds(5000), p99: seconds(7900) }];
    let [event] = &events_of(&observed)[..] else { panic!("{:?}", events_of(&observed)) };
    assert_eq!((event.action, event.reason), ("Finishing", "Settled"));
    let expected = "switch 7 to pay has ended after 100 s: 1 of 1 unit done, 0 skipped, 1 nudge; drain p50 5.0 s, p99 7.9 s";
    assert_eq!(event.note, expected);
}

#[test]
fn steps_are_told_and_their_holds_are_not() {
    assert_eq!(named(&canary_done(json!({}))), [], "the hold begins");
    let over = json!({"status": {"transition": {"holdUntilTime": at(90).to_string()}}});
    assert_eq!(named(&canary_done(over)), [("Stepping", "Switching")]);
}

#[test]
fn a_switch_that_goes_wrong_tells_why() {
    let mut observed = switched(json!({}));
    observed.metrics = vec![breached("errors")];
    let [event] = &events_of(&observed)[..] else { panic!("{:?}", events_of(&observed)) };
    assert_eq!(
        (event.severity, event.action, event.reason),
        (Severity::Warning, "RollingBack", "MetricBreached")
    );
    assert!(event.note.contains("metric errors"), "{}", event.note);
}

#[test]
fn what_holds_and_what_needs_a_person_is_told_once() {
    let mut held = found(to_pay(json!({})), &[json!({})], &[on_stage()]);
    held.metrics = vec![unknown("errors")];
    let hold = json!({"spec": {"guards": {"preflight": {"onFailure": "Hold"}}}});
    for (observed, expected) in [
        (held, ("Holding", "NoMetricData")),
        (refused_ahead(hold), ("Holding", "PreflightFailed")),
        (Observed { excess: Some("one too many".to_owned()), ..settled() }, ("Switching", "LimitExceeded")),
    ] {
        assert_eq!(named(&observed), [expected]);
        let again = stored(&observed, status_of(&observed));
        assert_eq!(named(&again), [], "{expected:?}");
    }
    assert_eq!(named(&came_back(on_stage())), [], "it stands in the stored status");
}

#[test]
fn where_a_group_stands_follows_from_its_conditions() {
    let paused = switched(json!({"spec": {"mode": "Paused"}}));
    let excess = Observed { excess: Some("one too many".to_owned()), ..settled() };
    for (observed, expected, reason) in [
        (settled(), Outcome::Converged, "Settled"),
        (skipped(), Outcome::Converged, "SettledWithSkips"),
        (switched(json!({})), Outcome::Progressing, "Switching"),
        (paused, Outcome::Waiting, "Paused"),
        (excess, Outcome::Blocked, "LimitExceeded"),
        (came_back(on_stage()), Outcome::Blocked, "RolledBack"),
    ] {
        let status = status_of(&observed);
        assert_eq!((outcome(&status), why(&status).reason), (expected, reason), "{:?}", status.conditions);
    }
}

#[test]
fn what_its_writes_fail_at_is_told_in_the_stored_status() {
    let message = "may not patch pods/resize in namespace shop".to_owned();
    let failure = Failing { class: ErrorClass::Forbidden, passes: 1, attempt: None, message };
    let settled = settled();
    let mut observed = stored(&settled, status_of(&settled));
    observed.failing = Some(failure);
    let status = failing(&observed, at(100));
    assert_eq!((outcome(&status), why(&status).reason), (Outcome::Blocked, "Forbidden"));
    assert_eq!(status.transition, observed.group.status.transition, "nothing that plans rest on moves");
    observed.failing = Some(Failing {
        class: ErrorClass::Transient,
        passes: 9,
        attempt: None,
        message: "no answer".to_owned(),
    });
    let status = failing(&observed, at(100));
    assert_eq!((outcome(&status), why(&status).reason), (Outcome::Progressing, "Degraded"));
}
