//! What a job says of its failing writes.

use crate::lives::{begin, spec};
use crate::world::{World, key};
use serde_json::{Value, json};
use springtide_plumbing::error::ErrorClass;
use springtide_plumbing::failing::{Attempt, Failing};
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::Action;

fn failing(class: ErrorClass, passes: u32) -> Failing {
    let attempt = Attempt { resource: Resource::POD, subresource: "", verb: "delete" };
    Failing { class, passes, attempt: Some(attempt), message: "cannot delete Pod a-0-0: no".into() }
}

/// A job that runs, or waits for another one, and says so.
fn world(runs: bool) -> World {
    let mut world = match runs {
        true => begin(spec(json!({}))),
        false => World::new("100m"),
    };
    if runs {
        world.cluster.start("a-0-0");
    } else {
        world.cluster.submit("b", spec(json!({})));
        world.settle();
        world.cluster.start("b-0-0");
        world.cluster.submit("a", spec(json!({})));
    }
    for _ in 0..60 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    world.settle();
    world
}

/// The conditions that a plan writes; `None` where it writes no status.
fn planned(world: &World, failing: Option<&Failing>) -> Option<Value> {
    let plan = world.plan_under(&key("a"), failing).unwrap();
    match plan.status?.action {
        Action::Status { status, .. } => Some(status["conditions"].clone()),
        Action::Create { .. }
        | Action::Delete { .. }
        | Action::Patch { .. }
        | Action::Apply { .. }
        | Action::Evict { .. }
        | Action::DryRun { .. } => None,
    }
}

#[test]
fn what_is_told_of_a_failure_stands_until_it_is_over_and_then_goes() {
    for (class, stalled) in [
        (ErrorClass::Forbidden, "Forbidden"),
        (ErrorClass::TooLarge, "InternalError"),
        (ErrorClass::Bug, "InternalError"),
        (ErrorClass::Transient, ""),
    ] {
        for runs in [true, false] {
            let mut world = world(runs);
            let before = world.status("a").clone();
            let failing = failing(class, 3);
            assert!(world.tell(&key("a"), &failing), "{class:?}");
            assert_eq!(world.reason("a", "Stalled"), stalled);
            assert_eq!(world.reason("a", "Complete"), if runs { "Running" } else { "Queued" });
            let is_on_its_way = !world.reason("a", "Reconciling").is_empty();
            assert_eq!(is_on_its_way, runs || stalled.is_empty());
            let told = world.status("a")["conditions"].to_string();
            assert!(told.contains("cannot delete Pod a-0-0"), "{told}");
            assert_eq!(
                planned(&world, Some(&failing)),
                None,
                "{class:?} {runs}: nothing is to be written twice"
            );
            let Some(after) = planned(&world, None) else {
                // What is forbidden is tried again when the job has a turn, and stands until then.
                assert!(class == ErrorClass::Forbidden && !runs, "{class:?} {runs}");
                continue;
            };
            assert!(!after.to_string().contains("a-0-0: no"), "{class:?}: {after}");
            assert_eq!(after.as_array().map(Vec::len), before["conditions"].as_array().map(Vec::len));
        }
    }
}

#[test]
fn a_failure_that_is_not_worth_telling_changes_nothing() {
    let world = world(true);
    for failing in [failing(ErrorClass::Transient, 2), failing(ErrorClass::Conflict, 9)] {
        assert_eq!(planned(&world, Some(&failing)), None);
    }
}

#[test]
fn of_a_job_that_has_ended_the_status_stays_as_it_is() {
    let mut world = begin(spec(json!({})));
    world.run_to_the_end("a");
    assert!(!world.tell(&key("a"), &failing(ErrorClass::Forbidden, 1)));
    assert_eq!(planned(&world, Some(&failing(ErrorClass::Forbidden, 1))), None);
}

#[test]
fn pods_that_a_webhook_keeps_from_being_made_are_told_in_its_words() {
    let mut world = World::new("4");
    world.cluster.broken = Some("a");
    world.cluster.submit("a", spec(json!({})));
    for _ in 0..120 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!((world.reason("a", "Queued"), world.reason("a", "Stalled")), ("ClassBackoff", ""));
    let told = world.status("a")["conditions"].to_string();
    assert!(told.contains("failed calling webhook"), "{told}");
    world.cluster.broken = None;
    world.run_to_the_end("a");
}
