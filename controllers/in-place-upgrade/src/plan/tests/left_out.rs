//! Pods that cannot be changed and are left as they are: they are counted as what they are, also when the workload's own
//! controller takes them for pods of its template.

use super::world::World;
use super::{count, status};
use crate::fixtures::overlay;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{BlockedPods, BlockedReason};
use springtide_plumbing::workloads::names::EARLIER_ANNOTATION;

fn world(replicas: usize) -> World {
    World::new(replicas, false, json!({"policy": {"ineligible": "Ignore"}}))
}

fn message(world: &World, type_: &str) -> String {
    let conditions = world.upgrade["status"]["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
    found["message"].as_str().unwrap().to_owned()
}

fn note(world: &World) -> Value {
    world.replica_sets["rs"]["metadata"]["annotations"][EARLIER_ANNOTATION].clone()
}

/// Passes until nothing is left to write.
fn rest(world: &mut World) {
    for _ in 0..3 {
        world.pass(usize::MAX);
    }
    assert_eq!(world.pass(usize::MAX).1, 0, "nothing is left to write");
}

#[test]
fn a_pod_that_is_left_out_is_told_from_those_that_were_changed_until_it_is_made_anew() {
    let mut world = world(3);
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
    overlay(world.pods.get_mut("web-00").unwrap(), mirror);
    world.run_until("UpToDate", |_| {});
    rest(&mut world);
    assert_eq!((world.images(), count(&world, "Pod")), (vec!["app:1", "app:2", "app:2"], 2));
    let told = status(&world);
    assert_eq!((told.pods.total, told.pods.updated, told.pods.updated_ready), (3, 2, 2));
    assert_eq!((told.pods.blocked, told.plan.up_to_date, told.plan.blocked), (1, 2, 1));
    assert_eq!(told.plan.reasons, [BlockedPods { reason: BlockedReason::StaticPod, count: 1 }]);
    assert_eq!(
        (told.pods.drifted, world.reason("Drifted").as_str()),
        (0, "NoDrift"),
        "nobody has changed it"
    );
    let ready = message(&world, "Ready");
    assert!(ready.contains("2 of 3 pods are as they are wished; 1 pod left out"), "{ready}");
    assert!(message(&world, "Drifted").contains("1 pod left out, first web-00"));

    world.now += 60;
    world.pods.remove("web-00");
    world.others_act();
    rest(&mut world);
    let told = status(&world);
    assert_eq!((told.pods.updated, told.pods.blocked, told.plan.up_to_date), (3, 0, 3));
    assert_eq!(message(&world, "Drifted"), "no pod differs outside of a run");

    assert!(note(&world).is_string());
    world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:3");
    world.run_until("Upgrading", |_| {});
    world.run_until("UpToDate", |_| {});
    assert_eq!((world.images(), note(&world)), (vec!["app:3"; 3], Value::Null));
}

#[test]
fn a_wish_that_no_pod_can_take_on_updates_none_of_them() {
    let mut world = world(3);
    world.deployment["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    world.run_until("UpToDate", |_| {});
    rest(&mut world);
    assert_eq!((world.images(), count(&world, "Pod")), (vec!["app:1"; 3], 0));
    let told = status(&world);
    assert_eq!((told.pods.updated, told.pods.blocked, told.plan.up_to_date), (0, 3, 0));
    assert_eq!(told.last_run.unwrap().pods, 0);
    let ready = message(&world, "Ready");
    assert!(ready.contains("0 of 3 pods are as they are wished; 3 pods left out"), "{ready}");
}

#[test]
fn what_was_changed_is_what_a_later_run_goes_back_to_though_others_were_left_out() {
    let mut world = world(3);
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
    overlay(world.pods.get_mut("web-00").unwrap(), mirror);
    world.run_until("UpToDate", |_| {});
    world.now += 60;
    world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:3");
    world.bad_images.push("app:3".to_owned());
    world.run_until("RolledBack", |_| {});
    assert_eq!(world.images(), ["app:1", "app:2", "app:2"]);
    assert!(note(&world).is_string(), "web-00 is still what it was");
}

#[test]
fn a_wish_that_names_what_the_workload_has_not_leaves_nobody_out() {
    let unknown = json!({"containers": [{"name": "ap", "image": "app:2"}]});
    for wish in [
        json!({"source": {"type": "Inline", "inline": unknown}}),
        json!({"restart": {"beforeTime": "2099-01-01T00:00:00Z", "containers": ["ap"]}}),
    ] {
        let mut world = world(3);
        overlay(&mut world.upgrade, json!({"spec": wish}));
        world.run_until("Blocked", |_| {});
        rest(&mut world);
        assert_eq!((world.images(), count(&world, "Pod")), (vec!["app:1"; 3], 0));
        assert_eq!(world.reason("Stalled"), "PodsBlocked");
        let told = status(&world);
        assert_eq!(told.plan.reasons, [BlockedPods { reason: BlockedReason::ContainerMissing, count: 3 }]);
        let ready = message(&world, "Ready");
        assert!(ready.contains("no container ap that"), "{ready}");
    }
}
