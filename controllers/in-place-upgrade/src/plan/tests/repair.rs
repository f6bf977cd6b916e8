//! Pods that somebody changes after a run are made as they are wished again, where that is asked for; and what a rollback
//! gives back beside images.

use super::world::World;
use crate::fixtures::overlay;
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeStatus, RunResult};

/// A Deployment whose run has ended, and one of whose pods somebody has changed since.
fn drifted(policy: &str) -> World {
    let mut world = World::new(3, false, json!({"policy": {"drift": policy}}));
    world.run_until("UpToDate", |_| {});
    world.written.clear();
    let pod = world.pods.get_mut("web-01").unwrap();
    overlay(pod, json!({"metadata": {"generation": 9, "resourceVersion": "999"}}));
    pod["spec"]["containers"][0]["image"] = json!("app:9");
    world.others_act();
    world.now += 60;
    world
}

fn count(world: &World, what: &str) -> usize {
    world.written.iter().filter(|written| *written == what).count()
}

fn status(world: &World) -> InPlaceUpgradeStatus {
    let stored = world.upgrade.get("status").cloned();
    stored.map_or_else(InPlaceUpgradeStatus::default, |stored| serde_json::from_value(stored).unwrap())
}

#[test]
fn drift_is_repaired_by_a_run_that_ends_and_says_so() {
    let mut world = drifted("Repair");
    let first = status(&world).last_run.unwrap();
    let mut told = Vec::new();
    world.run_until("Upgrading", |world| told.push((world.reason("Drifted"), status(world).pods.drifted)));
    assert!(told.contains(&("PodsDiffer".to_owned(), 1)), "{told:?}");
    world.run_until("UpToDate", |_| {});
    assert_eq!((world.images(), count(&world, "Pod")), (vec!["app:2"; 3], 1), "the others are left alone");
    let status = status(&world);
    let last = status.last_run.unwrap();
    assert_eq!((last.result, last.target_hash == first.target_hash), (RunResult::Succeeded, true));
    assert!(last.completion_time.0 > first.completion_time.0);
    assert_eq!((world.reason("Drifted").as_str(), status.pods.drifted), ("NoDrift", 0));
    for _ in 0..3 {
        world.pass(usize::MAX);
    }
    assert_eq!(world.pass(usize::MAX).1, 0, "nothing is left to write");
}

#[test]
fn drift_is_repaired_as_often_as_it_comes() {
    let mut world = drifted("Repair");
    world.run_until("Upgrading", |_| {});
    world.run_until("UpToDate", |_| {});
    world.now += 60;
    world.pods.get_mut("web-01").unwrap()["spec"]["containers"][0]["image"] = json!("app:8");
    world.others_act();
    world.run_until("Upgrading", |_| {});
    world.run_until("UpToDate", |_| {});
    assert_eq!((world.images(), count(&world, "Pod")), (vec!["app:2"; 3], 2));
}

#[test]
fn drift_that_is_only_reported_stays() {
    let mut world = drifted("Report");
    for _ in 0..10 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    assert_eq!((world.images()[1], count(&world, "Pod")), ("app:9", 0));
    assert_eq!(
        (world.reason("Ready").as_str(), world.reason("Drifted").as_str()),
        ("UpToDate", "PodsDiffer")
    );
}

#[test]
fn a_repair_that_does_not_start_ends_too() {
    let mut world = drifted("Repair");
    world.bad_images.push("app:2".to_owned());
    world.run_until("RolledBack", |_| {});
    assert_eq!(status(&world).last_run.unwrap().result, RunResult::RolledBack);
    let written = count(&world, "Pod");
    for _ in 0..20 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 60;
    }
    assert_eq!(count(&world, "Pod"), written, "it is not tried again and again");
}

/// A Deployment whose template adds a label and takes an annotation away.
fn with_metadata() -> World {
    let mut world = World::new(3, false, json!({}));
    world.deployment["spec"]["template"]["metadata"]["labels"]["added"] = json!("x");
    let old = &mut world.replica_sets.get_mut("rs").unwrap()["spec"]["template"];
    old["metadata"]["annotations"] = json!({"taken": "y"});
    for name in ["web-00", "web-01", "web-02"] {
        world.add_pod(name);
    }
    world.others_act();
    world
}

fn metadata(world: &World) -> Vec<(Value, Value)> {
    let of = |pod: &Value| {
        (pod["metadata"]["labels"]["added"].clone(), pod["metadata"]["annotations"]["taken"].clone())
    };
    world.pods.values().map(of).collect()
}

#[test]
fn labels_and_annotations_that_a_wish_adds_or_takes_away_are_given_back_by_a_rollback() {
    let mut world = with_metadata();
    world.bad_images.push("app:2".to_owned());
    world.run_until("RolledBack", |_| {});
    assert_eq!(metadata(&world), vec![(Value::Null, json!("y")); 3]);
    assert!(count(&world, "Pod") >= 2, "one was changed forth and back");
}

#[test]
fn what_a_wish_has_added_goes_with_the_one_that_takes_its_place_in_mid_run() {
    let mut world = with_metadata();
    while metadata(&world).iter().all(|(added, _)| added.is_null()) {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    let labels = world.deployment["spec"]["template"]["metadata"]["labels"].as_object_mut().unwrap();
    labels.remove("added");
    world.run_until("UpToDate", |_| {});
    assert_eq!(metadata(&world), vec![(Value::Null, Value::Null); 3]);
    assert_eq!(world.images(), ["app:2"; 3]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The process is killed in any pass after any number of writes.
    #[test]
    fn a_repair_ends_wherever_it_is_interrupted(cuts in proptest::collection::vec(0..4usize, 0..40)) {
        let mut world = drifted("Repair");
        for cut in cuts {
            world.pass(cut);
            world.others_act();
            world.now += 1;
        }
        for _ in 0..300 {
            world.pass(usize::MAX);
            world.others_act();
            world.now += 1;
        }
        prop_assert_eq!(world.reason("Ready"), "UpToDate");
        prop_assert_eq!(world.images(), ["app:2"; 3]);
        prop_assert_eq!(count(&world, "Pod"), 1);
    }
}
