mod at_rest;
mod bad_input;
mod bounds;
mod conditions;
mod deletion;
mod events;
mod histories;
mod kinds;
mod left_out;
mod limits;
mod neighbours;
mod partitions;
mod reasons;
mod refusals;
mod renewal;
mod repair;
mod restarts;
mod scenes;
mod selection;
mod summary;
mod world;

use crate::fixtures::{at, overlay};
use proptest::prelude::*;
use serde_json::json;
use springtide_crds::in_place_upgrade::{InPlaceUpgradeStatus, RunResult};
use world::World;

const ALL_NEW: &str = "app:2";

fn count(world: &World, what: &str) -> usize {
    world.written.iter().filter(|written| *written == what).count()
}

fn status(world: &World) -> InPlaceUpgradeStatus {
    serde_json::from_value(world.upgrade["status"].clone()).unwrap()
}

#[test]
fn pods_without_a_gate_are_changed_with_one_write_each_and_the_deployment_agrees() {
    let mut world = World::new(5, false, json!({}));
    world.run_until("UpToDate", |_| {});
    assert_eq!(world.images(), [ALL_NEW; 5]);
    assert_eq!((count(&world, "Pod"), count(&world, "Pod status")), (5, 0));
    let rs = &world.replica_sets["rs"];
    assert_eq!(rs["spec"]["template"]["spec"]["containers"][0]["image"], ALL_NEW);
    assert_eq!(world.replica_sets.len(), 2, "the old template is kept");
    assert_eq!(count(&world, "Deployment"), 0, "it is never written");
    let status = status(&world);
    assert_eq!((status.pods.updated_ready, status.previous.is_some()), (5, false));
    assert_eq!(status.last_run.unwrap().pods, 5);
    assert_eq!(world.reason("Finalized"), "NativeControllerAgrees");
    let finalizers = world.upgrade["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    world.pass(usize::MAX);
    assert!(finalizers.len() <= 1);
    let (_, sent) = world.pass(usize::MAX);
    assert_eq!(sent, 0, "nothing is left to write");
}

#[test]
fn gated_pods_take_three_writes_each_and_no_more_are_out_of_traffic_than_may_be() {
    let mut world = World::new(10, true, json!({"strategy": {"maxUnavailable": 2}}));
    // Nobody has set the gates yet.
    for pod in world.pods.values_mut() {
        let gate = json!({"type": springtide_plumbing::workloads::names::UPGRADE_TRAFFIC.gate, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        pod["status"]["conditions"].as_array_mut().unwrap().push(gate);
    }
    world.others_act();
    world.run_until("UpToDate", |world| assert!(world.out_of_traffic() <= 2));
    assert_eq!((count(&world, "Pod"), count(&world, "Pod status")), (10, 20));
    assert_eq!(world.out_of_traffic(), 0);
}

#[test]
fn a_bad_image_is_rolled_back_and_not_tried_again() {
    let mut world = World::new(4, false, json!({}));
    world.bad_images.push(ALL_NEW.to_owned());
    let mut worst = 0;
    world.run_until("RolledBack", |world| {
        worst = worst.max(world.images().iter().filter(|image| **image == ALL_NEW).count());
    });
    assert_eq!((world.images(), worst), (vec!["app:1"; 4], 1));
    assert_eq!(
        (world.reason("Healthy"), world.reason("Stalled")),
        ("TooManyFailures".into(), "RolledBack".into())
    );
    assert_eq!(status(&world).last_run.unwrap().result, RunResult::RolledBack);
    let written = world.written.len();
    for _ in 0..20 {
        world.now += 60;
        world.pass(usize::MAX);
    }
    let further = &world.written[written..];
    assert!(further.len() <= 2, "but for the finalizer and the counts: {further:?}");
    world.bad_images.clear();
    overlay(&mut world.upgrade, json!({"spec": {"attempt": 1}}));
    world.run_until("UpToDate", |_| {});
    assert_eq!(world.images(), [ALL_NEW; 4]);
}

#[test]
fn a_run_that_went_wrong_stands_where_it_is_to() {
    let mut world = World::new(4, false, json!({"rollback": {"onFailure": "Hold"}}));
    world.bad_images.push(ALL_NEW.to_owned());
    world.run_until("Failed", |_| {});
    let written = world.written.len();
    for _ in 0..20 {
        world.now += 60;
        world.pass(usize::MAX);
        world.others_act();
    }
    assert_eq!((world.written.len(), world.reason("Stalled").as_str()), (written, "HealthFailed"));
    overlay(&mut world.upgrade, json!({"spec": {"rollback": {"onFailure": "Auto"}}}));
    world.run_until("RolledBack", |_| {});
    assert_eq!(world.images(), ["app:1"; 4]);
}

#[test]
fn a_step_waits_for_its_approval() {
    let steps = json!([{"replicas": 1, "hold": {"type": "Approval"}}, {"replicas": "100%"}]);
    let mut world = World::new(6, false, json!({"strategy": {"steps": steps, "maxUnavailable": "100%"}}));
    world.run_until("Held", |_| {});
    let new = |world: &World| world.images().iter().filter(|image| **image == ALL_NEW).count();
    assert_eq!((new(&world), world.reason("Held").as_str()), (1, "ApprovalRequired"));
    for _ in 0..10 {
        world.now += 60;
        world.pass(usize::MAX);
        world.others_act();
    }
    assert_eq!(new(&world), 1);
    let approval = json!({"targetHash": status(&world).target_hash, "throughStep": 1});
    overlay(&mut world.upgrade, json!({"spec": {"approval": approval}}));
    world.run_until("UpToDate", |_| {});
}

#[test]
fn a_run_knows_when_it_began_however_long_it_was_waited_for_and_is_held() {
    let steps = json!([{"replicas": 1, "hold": {"type": "Approval"}}, {"replicas": "100%"}]);
    let mut world = World::new(3, false, json!({"mode": "Paused", "strategy": {"steps": steps}}));
    world.run_until("Paused", |_| {});
    assert_eq!(status(&world).start_time, None);
    world.now = 500;
    overlay(&mut world.upgrade, json!({"spec": {"mode": "Apply"}}));
    world.run_until("Held", |_| {});
    let began = status(&world).start_time.unwrap();
    assert!(began.0 >= at(500) && began.0 <= at(world.now), "it was not Ready long before: {began:?}");
    world.now = 900;
    let approval = json!({"targetHash": status(&world).target_hash, "throughStep": 1});
    overlay(&mut world.upgrade, json!({"spec": {"approval": approval}}));
    world.run_until("UpToDate", |world| {
        assert!(status(world).start_time.is_none_or(|time| time == began), "it is kept");
    });
    let status = status(&world);
    let last = status.last_run.unwrap();
    assert_eq!((last.start_time, status.start_time), (Some(began), None));
    assert!(last.completion_time.0 >= at(900));
}

#[test]
fn a_run_that_takes_the_place_of_another_begins_then() {
    let mut world = World::new(6, false, json!({}));
    while !world.images().contains(&ALL_NEW) {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    let first = status(&world).start_time.unwrap();
    world.now = 500;
    world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:3");
    while status(&world).last_run.is_none() {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    let superseded = status(&world);
    let second = superseded.start_time.unwrap();
    let last = superseded.last_run.unwrap();
    assert_eq!((last.result, last.start_time), (RunResult::Superseded, Some(first)));
    assert!(second.0 >= at(500));
    world.run_until("UpToDate", |_| {});
    assert_eq!(status(&world).last_run.unwrap().start_time, Some(second));
}

#[test]
fn a_lock_that_is_taken_away_in_mid_run_stops_every_write() {
    let mut world = World::new(6, false, json!({}));
    while world.images().iter().filter(|image| **image == ALL_NEW).count() < 2 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    world.deployment["spec"]["paused"] = json!(false);
    let written = world.written.len();
    for _ in 0..5 {
        world.pass(usize::MAX);
        world.now += 1;
    }
    assert_eq!(world.reason("Locked"), "UnlockedDuringRun");
    assert!(world.written[written..].iter().all(|written| written == "InPlaceUpgrade status"));
    world.deployment["spec"]["paused"] = json!(true);
    world.run_until("UpToDate", |_| {});
}

#[test]
fn a_wish_that_is_taken_back_before_the_kubelet_has_seen_it_is_waited_for() {
    let mut world = World::new(3, false, json!({}));
    while !world.images().contains(&ALL_NEW) {
        world.pass(usize::MAX);
        world.now += 1;
    }
    // Its kubelet has not looked since.
    world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:1");
    for _ in 0..5 {
        world.pass(usize::MAX);
        world.now += 1;
    }
    assert!(world.images().contains(&ALL_NEW), "nobody could tell what comes of it");
    world.run_until("UpToDate", |_| {});
    assert_eq!(world.images(), ["app:1"; 3]);
    assert_eq!(world.replica_sets.len(), 1);
}

#[test]
fn who_pauses_in_mid_drain_leaves_nobody_out_of_traffic() {
    let mut world = World::new(4, true, json!({}));
    while world.out_of_traffic() == 0 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    overlay(&mut world.upgrade, json!({"spec": {"mode": "Paused"}}));
    for _ in 0..30 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    assert_eq!((world.out_of_traffic(), world.reason("Ready").as_str()), (0, "Paused"));
    overlay(&mut world.upgrade, json!({"spec": {"mode": "Apply"}}));
    world.run_until("UpToDate", |_| {});
}

#[test]
fn an_object_that_is_deleted_in_mid_run_gives_back_what_it_took() {
    let mut world = World::new(4, true, json!({}));
    while world.out_of_traffic() == 0 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    world.upgrade["metadata"]["deletionTimestamp"] = json!("2026-11-23T10:00:00Z");
    for _ in 0..5 {
        world.pass(usize::MAX);
        world.others_act();
    }
    assert_eq!(world.out_of_traffic(), 0);
    assert_eq!(world.upgrade["metadata"]["finalizers"], json!([]));
}

#[test]
fn a_mode_of_plan_writes_no_pod() {
    let mut world = World::new(4, true, json!({"mode": "Plan"}));
    world.run_until("PlanOnly", |_| {});
    let status = status(&world);
    assert_eq!((status.plan.in_place, world.images()), (4, vec!["app:1"; 4]));
    assert!(world.written.iter().all(|written| written == "InPlaceUpgrade status"), "{:?}", world.written);
}

#[test]
fn a_pod_that_comes_in_mid_run_is_found_by_what_it_is() {
    let mut world = World::new(3, false, json!({}));
    while !world.images().contains(&ALL_NEW) {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    world.deployment["spec"]["replicas"] = json!(5);
    world.replica_sets.get_mut("rs").unwrap()["spec"]["replicas"] = json!(5);
    world.add_pod("web-new-1");
    world.add_pod("web-new-2");
    world.others_act();
    world.run_until("UpToDate", |_| {});
    assert_eq!(world.images(), [ALL_NEW; 5]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The process is killed in any pass after any number of writes, and another one goes on with nothing but what the
    /// API server has. All runs end, and nobody is left out of traffic.
    #[test]
    fn a_run_ends_wherever_it_is_interrupted(
        gated in any::<bool>(),
        is_bad in any::<bool>(),
        cuts in proptest::collection::vec(0..6usize, 0..80),
    ) {
        let mut world = World::new(4, gated, json!({"strategy": {"maxUnavailable": 2}}));
        if is_bad {
            world.bad_images.push(ALL_NEW.to_owned());
        }
        for cut in cuts {
            world.pass(cut);
            world.others_act();
            world.now += 1;
        }
        world.run_until(if is_bad { "RolledBack" } else { "UpToDate" }, |_| {});
        let image = if is_bad { "app:1" } else { ALL_NEW };
        prop_assert_eq!(world.images(), [image; 4]);
        prop_assert_eq!(world.out_of_traffic(), 0);
    }
}
