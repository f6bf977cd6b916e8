//! Which events a run costs.

use super::world::World;
use crate::fixtures::{at, overlay};
use crate::plan::plan;
use serde_json::{Value, json};
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::key::ObjectKey;

/// Lets everybody act until condition Ready has this reason; the reasons and actions of all events on the way.
fn told_until(world: &mut World, ready: &str) -> Vec<(&'static str, &'static str)> {
    let mut told = Vec::new();
    for _ in 0..1000 {
        let (planned, _) = world.pass(usize::MAX);
        told.extend(planned.events.iter().map(|event| (event.reason, event.action)));
        world.others_act();
        world.now += 1;
        if world.reason("Ready") == ready {
            return told;
        }
    }
    panic!("not {ready}: {:#}", world.upgrade["status"]);
}

fn world(spec: Value) -> World {
    World::new(4, false, spec)
}

fn events(world: &mut World) -> Vec<EventNote> {
    plan(&world.observe(), at(world.now)).events
}

#[test]
fn a_run_that_goes_as_it_should_is_told_when_it_begins_and_ends() {
    let mut world = world(json!({}));
    assert_eq!(told_until(&mut world, "UpToDate"), [("Upgrading", "Opening"), ("UpToDate", "Finishing")]);
    for _ in 0..5 {
        let (planned, _) = world.pass(usize::MAX);
        assert!(planned.events.is_empty(), "{:?}", planned.events);
        world.now += 60;
    }
}

#[test]
fn each_step_and_each_hold_is_told_once() {
    let steps = json!([{"replicas": 1, "hold": {"type": "Approval"}}, {"replicas": "100%"}]);
    let mut world = world(json!({"strategy": {"steps": steps}}));
    let begins = told_until(&mut world, "Held");
    assert_eq!(begins, [("Upgrading", "Opening"), ("ApprovalRequired", "Holding")]);
    for _ in 0..5 {
        let (planned, _) = world.pass(usize::MAX);
        assert!(planned.events.is_empty(), "{:?}", planned.events);
        world.now += 60;
    }
    let approval = json!({"targetHash": world.upgrade["status"]["targetHash"], "throughStep": 1});
    overlay(&mut world.upgrade, json!({"spec": {"approval": approval}}));
    let ends = told_until(&mut world, "UpToDate");
    assert_eq!(ends, [("Upgrading", "Stepping"), ("UpToDate", "Finishing")]);
}

#[test]
fn a_run_that_goes_back_warns_with_its_cause_and_at_its_end() {
    let mut world = world(json!({}));
    world.bad_images.push("app:2".to_owned());
    let told = told_until(&mut world, "RolledBack");
    let expected =
        [("Upgrading", "Opening"), ("TooManyFailures", "RollingBack"), ("RolledBack", "Upgrading")];
    assert_eq!(told, expected);
}

#[test]
fn a_run_that_stands_where_it_went_wrong_warns_once() {
    let mut world = world(json!({"rollback": {"onFailure": "Hold"}}));
    world.bad_images.push("app:2".to_owned());
    let told = told_until(&mut world, "Failed");
    assert_eq!(told, [("Upgrading", "Opening"), ("HealthFailed", "Upgrading")]);
}

#[test]
fn another_wish_in_mid_run_is_told() {
    let mut world = world(json!({}));
    while !world.images().contains(&"app:2") {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:3");
    let told = told_until(&mut world, "UpToDate");
    assert_eq!(told, [("Upgrading", "Superseding"), ("UpToDate", "Finishing")]);
}

#[test]
fn what_needs_a_person_warns_once() {
    let mut world = world(json!({}));
    world.deployment["spec"]["paused"] = json!(false);
    let first = events(&mut world);
    let [event] = &first[..] else { panic!("{first:?}") };
    assert_eq!((event.reason, event.severity), ("NotLocked", Severity::Warning));
    assert!(event.note.contains("spec.paused"), "{}", event.note);
    world.pass(usize::MAX);
    assert!(events(&mut world).is_empty());
}

#[test]
fn an_object_that_is_not_served_warns_once() {
    let mut world = world(json!({}));
    let mut observed = world.observe();
    observed.rival = Some(ObjectKey::new("ns", "older"));
    let planned = plan(&observed, at(0));
    let reasons: Vec<_> = planned.events.iter().map(|event| event.reason).collect();
    assert_eq!(reasons, ["TargetTaken"]);
    world.upgrade["status"] = super::conditions::planned_status(&planned).clone();
    let mut observed = world.observe();
    observed.rival = Some(ObjectKey::new("ns", "older"));
    assert!(plan(&observed, at(1)).events.is_empty());
}

#[test]
fn what_the_user_has_just_asked_for_is_no_news() {
    let mut world = world(json!({}));
    while !world.images().contains(&"app:2") {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    overlay(&mut world.upgrade, json!({"spec": {"mode": "Paused"}}));
    assert!(told_until(&mut world, "Paused").is_empty());
}
