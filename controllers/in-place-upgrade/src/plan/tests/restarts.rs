//! Containers are restarted in place, their images unchanged.

use super::world::World;
use crate::fixtures::{at, overlay};
use crate::plan::plan;
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeStatus, RunResult};
use springtide_plumbing::workloads::template::Template;
use std::collections::BTreeSet;

/// A Deployment whose pods are as they are wished, at second 100.
fn settled(replicas: usize, gated: bool, over: Value) -> World {
    let mut world = World::new(replicas, gated, over);
    world.run_until("UpToDate", |_| {});
    world.now = world.now.max(100);
    world.written.clear();
    world
}

fn restart(world: &mut World, before: i64) {
    overlay(&mut world.upgrade, json!({"spec": {"restart": {"beforeTime": at(before).to_string()}}}));
}

fn containers(world: &World) -> BTreeSet<String> {
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].as_str().unwrap().to_owned();
    world.pods.values().map(id).collect()
}

fn status(world: &World) -> InPlaceUpgradeStatus {
    let stored = world.upgrade.get("status").cloned();
    stored.map_or_else(InPlaceUpgradeStatus::default, |stored| serde_json::from_value(stored).unwrap())
}

fn count(world: &World, what: &str) -> usize {
    world.written.iter().filter(|written| *written == what).count()
}

/// Lets everybody act until pods are restarted for an instant, and all is said.
fn until_restarted(world: &mut World) {
    world.run_until("Upgrading", |_| {});
    world.run_until("UpToDate", |_| {});
}

#[test]
fn every_container_restarts_once_with_the_image_that_it_has_and_back_to_its_name_the_next_time() {
    let mut world = settled(3, false, json!({}));
    let before = containers(&world);
    restart(&mut world, 100);
    let mut planned = 0;
    world.run_until("Upgrading", |world| planned = planned.max(status(world).plan.restart));
    world.run_until("UpToDate", |world| planned = planned.max(status(world).plan.restart));
    let first = containers(&world);
    assert_eq!((planned, first.len(), first.is_disjoint(&before)), (3, 3, true));
    assert!(world.images().iter().all(|image| image.starts_with("app:2@sha256:")), "{:?}", world.images());
    assert_eq!(count(&world, "Pod"), 3, "one write each");
    assert_eq!(count(&world, "ReplicaSet"), 0, "its template says the same");
    for _ in 0..5 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 60;
    }
    assert_eq!((count(&world, "Pod"), containers(&world) == first), (3, true), "once");
    let again = world.now;
    restart(&mut world, again);
    until_restarted(&mut world);
    assert_eq!((world.images(), count(&world, "Pod")), (vec!["app:2"; 3], 6));
    assert!(containers(&world).is_disjoint(&first));
}

#[test]
fn a_restart_of_the_future_waits_for_its_time() {
    let mut world = settled(2, false, json!({}));
    let before = containers(&world);
    restart(&mut world, 200);
    for _ in 0..20 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    assert_eq!((world.reason("Ready").as_str(), containers(&world) == before), ("UpToDate", true));
    let observed = world.observe();
    let wake = plan(&observed, at(world.now)).wake;
    assert!(wake.is_some_and(|wake| wake <= at(200)), "{wake:?}");
    world.now = 200;
    until_restarted(&mut world);
    assert!(containers(&world).is_disjoint(&before));
}

#[test]
fn a_pod_that_is_born_later_is_not_restarted() {
    let mut world = settled(2, false, json!({}));
    world.now = 150;
    world.deployment["spec"]["replicas"] = json!(3);
    world.replica_sets.get_mut("rs").unwrap()["spec"]["replicas"] = json!(3);
    world.others_act();
    restart(&mut world, 150);
    until_restarted(&mut world);
    let flipped = world.images().iter().filter(|image| image.contains('@')).count();
    assert_eq!((flipped, count(&world, "Pod")), (2, 2));
}

#[test]
fn gated_pods_leave_traffic_for_a_restart_within_the_limits() {
    let mut world = settled(4, true, json!({}));
    restart(&mut world, 100);
    world.run_until("Upgrading", |_| {});
    let mut most = 0;
    world.run_until("UpToDate", |world| most = most.max(world.out_of_traffic()));
    assert_eq!((most, world.out_of_traffic()), (1, 0));
    assert_eq!((count(&world, "Pod"), count(&world, "Pod status")), (4, 8));
}

#[test]
fn a_restart_that_does_not_start_gets_its_name_back_and_is_not_tried_again() {
    let mut world = settled(3, false, json!({}));
    // The pinned name is one that its registry does not know.
    let pinned = {
        let id = world.pods["web-00"]["status"]["containerStatuses"][0]["imageID"].as_str().unwrap();
        format!("app:2@{}", id.rsplit_once('@').unwrap().1)
    };
    world.bad_images.push(pinned);
    restart(&mut world, 100);
    world.run_until("RolledBack", |_| {});
    assert_eq!(status(&world).last_run.unwrap().result, RunResult::RolledBack);
    assert_eq!(
        (world.images(), count(&world, "Pod")),
        (vec!["app:2"; 3], 2),
        "the first that failed was the last"
    );
}

#[test]
fn an_image_and_a_restart_are_one_patch() {
    let mut world = settled(2, false, json!({}));
    restart(&mut world, 100);
    world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:3");
    until_restarted(&mut world);
    assert_eq!((world.images(), count(&world, "Pod")), (vec!["app:3"; 2], 2));
}

#[test]
fn an_annotation_that_the_environment_is_made_of_restarts_its_container() {
    let mut world = World::new(2, false, json!({}));
    let variable =
        json!({"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['config']"}}});
    let set = |template: &mut Value, config: &str| {
        template["metadata"]["annotations"]["config"] = json!(config);
        template["spec"]["containers"][0]["env"] = json!([variable]);
        template["spec"]["containers"][0]["image"] = json!("app:1");
    };
    set(&mut world.deployment["spec"]["template"], "v2");
    set(&mut world.replica_sets.get_mut("rs").unwrap()["spec"]["template"], "v1");
    for name in ["web-00", "web-01"] {
        world.add_pod(name);
    }
    world.others_act();
    let before = containers(&world);
    world.run_until("UpToDate", |_| {});
    assert!(containers(&world).is_disjoint(&before));
    assert!(world.pods.values().all(|pod| pod["metadata"]["annotations"]["config"] == "v2"));
    assert_eq!(count(&world, "Pod"), 2, "both in one patch each");
    let rs = Template::shared(&world.replica_sets["rs"]["spec"]["template"]);
    assert_eq!(rs.whole, Template::shared(&world.deployment["spec"]["template"]).whole);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The process is killed in any pass after any number of writes, and no container is restarted twice for one instant.
    #[test]
    fn a_restart_ends_wherever_it_is_interrupted_and_is_done_once(
        gated in any::<bool>(),
        cuts in proptest::collection::vec(0..4usize, 0..60),
    ) {
        let mut world = settled(3, gated, json!({}));
        let before = containers(&world);
        restart(&mut world, 100);
        let mut seen = containers(&world);
        for cut in cuts {
            world.pass(cut);
            world.others_act();
            seen.extend(containers(&world));
            world.now += 1;
        }
        for _ in 0..300 {
            world.pass(usize::MAX);
            world.others_act();
            seen.extend(containers(&world));
            world.now += 1;
        }
        prop_assert_eq!(world.reason("Ready"), "UpToDate");
        prop_assert!(containers(&world).is_disjoint(&before));
        prop_assert_eq!((seen.len(), world.out_of_traffic()), (6, 0));
    }
}

#[test]
fn a_rollout_restart_of_kubectl_gives_new_containers_to_the_same_pods() {
    let mut world = settled(3, false, json!({}));
    let before = containers(&world);
    let names: Vec<String> = world.pods.keys().cloned().collect();
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": "2026-11-23T10:00:00Z"});
    world.deployment["spec"]["template"]["metadata"]["annotations"] = annotations.clone();
    until_restarted(&mut world);
    let restarted = containers(&world);
    assert!(restarted.is_disjoint(&before) && restarted.len() == 3);
    assert_eq!((world.pods.keys().cloned().collect::<Vec<_>>(), count(&world, "Pod")), (names, 3));
    for _ in 0..5 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 60;
    }
    assert_eq!((containers(&world), count(&world, "Pod")), (restarted, 3), "once");
}
