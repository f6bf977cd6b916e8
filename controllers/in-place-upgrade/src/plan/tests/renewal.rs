//! Pods that cannot be changed in place are made anew by their own controllers.

use super::world::World;
use crate::fixtures::{overlay, pod};
use crate::plan::plan;
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeStatus, RunResult};
use springtide_plumbing::plan::{Action, Plan};
use springtide_plumbing::workloads::names::{CONTROLLER_REVISION_HASH, EARLIER_ANNOTATION};
use std::collections::BTreeSet;

/// What a template has beside what can be changed in place.
fn environment(value: &str) -> Value {
    json!([{"name": "MODE", "value": value}])
}

fn recreate(over: Value) -> Value {
    let mut spec = json!({"policy": {"ineligible": "Recreate"}, "strategy": {"maxUnavailable": 2}});
    overlay(&mut spec, over);
    spec
}

/// A Deployment whose template asks for another environment too.
fn deployment(replicas: usize, gated: bool, over: Value) -> World {
    let mut world = World::new(replicas, gated, recreate(over));
    world.deployment["spec"]["template"]["spec"]["containers"][0]["env"] = environment("new");
    world
}

/// A StatefulSet whose template does.
fn stateful(replicas: usize) -> World {
    let mut world = World::stateful(replicas, recreate(json!({})));
    let set = world.stateful_set.as_mut().unwrap();
    set["spec"]["template"]["spec"]["containers"][0]["env"] = environment("new");
    // Its controller makes a revision of it.
    world.others_act();
    world
}

fn environments(world: &World) -> Vec<Value> {
    world.pods.values().map(|pod| pod["spec"]["containers"][0]["env"].clone()).collect()
}

fn uids(world: &World) -> BTreeSet<String> {
    world.pods.values().map(|pod| pod["metadata"]["uid"].as_str().unwrap().to_owned()).collect()
}

fn unready(world: &World, replicas: usize) -> usize {
    let is_ready = |pod: &&Value| {
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        conditions.any(|found| found["type"] == "Ready" && found["status"] == "True")
    };
    replicas - world.pods.values().filter(is_ready).count()
}

fn count(world: &World, what: &str) -> usize {
    world.written.iter().filter(|written| *written == what).count()
}

fn status(world: &World) -> InPlaceUpgradeStatus {
    let stored = world.upgrade.get("status").cloned();
    stored.map_or_else(InPlaceUpgradeStatus::default, |stored| serde_json::from_value(stored).unwrap())
}

fn evicted(plan: &Plan) -> usize {
    let writes = plan.stages.iter().flatten().flat_map(|step| step.writes());
    writes.filter(|write| matches!(write.action, Action::Evict { .. })).count()
}

#[test]
fn pods_of_a_deployment_are_evicted_once_its_replica_set_makes_them_as_they_are_wished() {
    let mut world = deployment(5, false, json!({}));
    let before = uids(&world);
    let mut planned = 0;
    world.run_until("UpToDate", |world| {
        planned = planned.max(status(world).plan.recreate);
        assert!(unready(world, 5) <= 2, "no more are missing than may be");
        if uids(world) != before {
            let set = &world.replica_sets["rs"]["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(set["env"], environment("new"), "else the same would come again");
        }
    });
    assert_eq!((world.images(), environments(&world)), (vec!["app:2"; 5], vec![environment("new"); 5]));
    assert_eq!((planned, uids(&world).is_disjoint(&before)), (5, true));
    assert_eq!(
        (count(&world, "Pod eviction"), count(&world, "Pod")),
        (5, 0),
        "each once, and none is patched"
    );
    assert_eq!(world.replica_sets.len(), 2, "its controller made none, and the old template is kept");
    assert_eq!(count(&world, "Deployment"), 0, "it is never written");
    let noted = world.replica_sets["rs"]["metadata"]["annotations"].get(EARLIER_ANNOTATION);
    assert_eq!(noted, None, "it is forgotten when all pods are of one template");
    let status = status(&world);
    assert_eq!((status.plan.recreate, status.pods.updated_ready, status.last_run.unwrap().pods), (0, 5, 5));
    for _ in 0..3 {
        world.pass(usize::MAX);
    }
    assert_eq!(world.pass(usize::MAX).1, 0, "nothing is left to write");
}

#[test]
fn who_blocks_or_ignores_them_evicts_nobody() {
    for policy in ["Block", "Ignore"] {
        let mut world = deployment(3, false, json!({"policy": {"ineligible": policy}}));
        for _ in 0..30 {
            world.pass(usize::MAX);
            world.others_act();
            world.now += 1;
        }
        assert_eq!((count(&world, "Pod eviction"), world.images()), (0, vec!["app:1"; 3]), "{policy}");
    }
}

#[test]
fn a_run_of_pods_that_are_made_anew_and_do_not_start_is_rolled_back_by_the_old_template() {
    let mut world = deployment(4, false, json!({}));
    world.bad_images.push("app:2".to_owned());
    world.run_until("RolledBack", |world| assert!(unready(world, 4) <= 2));
    assert_eq!((world.images(), environments(&world)), (vec!["app:1"; 4], vec![Value::Null; 4]));
    assert_eq!(status(&world).last_run.unwrap().result, RunResult::RolledBack);
    let set = &world.replica_sets["rs"];
    assert_eq!(
        set["spec"]["template"]["spec"]["containers"][0]["image"], "app:1",
        "whoever comes is of it too"
    );
    assert_eq!(set["metadata"]["annotations"].get(EARLIER_ANNOTATION), None);
    let sets = world.replica_sets.len();
    world.bad_images.clear();
    overlay(&mut world.upgrade, json!({"spec": {"attempt": 1}}));
    world.run_until("UpToDate", |_| {});
    assert_eq!((environments(&world), world.replica_sets.len()), (vec![environment("new"); 4], sets));
}

#[test]
fn a_run_that_goes_wrong_before_a_pod_was_evicted_leaves_the_old_template_to_all() {
    let mut world = deployment(4, false, json!({}));
    while world.replica_sets["rs"]["spec"]["template"]["spec"]["containers"][0]["image"] != "app:2" {
        world.pass(usize::MAX);
        world.now += 1;
    }
    let unhealthy = json!([{
        "type": "Healthy", "status": "False", "observedGeneration": 1, "reason": "MetricBreached", "message": "x",
        "lastTransitionTime": crate::fixtures::at(world.now).to_string(),
    }]);
    world.upgrade["status"]["conditions"] = unhealthy;
    world.run_until("RolledBack", |_| {});
    assert_eq!((count(&world, "Pod eviction"), world.images()), (0, vec!["app:1"; 4]));
    let image = &world.replica_sets["rs"]["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "app:1");
}

#[test]
fn a_wish_that_is_taken_back_in_mid_run_leaves_those_that_were_not_made_anew_alone() {
    let mut world = deployment(4, false, json!({}));
    let before = uids(&world);
    while uids(&world) == before {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    let stayed: BTreeSet<String> = uids(&world).intersection(&before).cloned().collect();
    world.deployment["spec"]["template"]["spec"]["containers"][0] = json!({"name": "app", "image": "app:1"});
    world.run_until("UpToDate", |_| {});
    assert_eq!((world.images(), environments(&world)), (vec!["app:1"; 4], vec![Value::Null; 4]));
    assert!(stayed.is_subset(&uids(&world)) && !stayed.is_empty(), "{stayed:?}");
}

#[test]
fn an_eviction_that_a_budget_refuses_is_tried_again_and_named() {
    let mut world = deployment(2, false, json!({}));
    world.refuses_evictions = true;
    while count(&world, "Pod eviction") == 0 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    let mut observed = world.observe();
    for evidence in observed.evidence.values_mut() {
        evidence.put_off_until = Some(crate::fixtures::at(world.now + 15));
    }
    let planned = plan(&observed, crate::fixtures::at(world.now));
    let Action::Status { status, .. } = &planned.status.as_ref().unwrap().action else { panic!() };
    let held = status["conditions"].as_array().unwrap().iter().find(|found| found["type"] == "Held").unwrap();
    assert_eq!((evicted(&planned), held["reason"].as_str()), (0, Some("DisruptionBudget")));
    assert!(planned.wake.is_some_and(|wake| wake <= crate::fixtures::at(world.now + 15)));
    world.refuses_evictions = false;
    world.run_until("UpToDate", |_| {});
}

#[test]
fn steps_bound_who_is_made_anew() {
    let steps = json!([{"replicas": 1, "hold": {"type": "Approval"}}, {"replicas": "100%"}]);
    let mut world = deployment(4, false, json!({"strategy": {"steps": steps, "maxUnavailable": "100%"}}));
    world.run_until("Held", |_| {});
    let new = environments(&world).iter().filter(|found| **found == environment("new")).count();
    assert_eq!((new, count(&world, "Pod eviction"), unready(&world, 4)), (1, 1, 0));
    let approval = json!({"targetHash": status(&world).target_hash, "throughStep": 1});
    overlay(&mut world.upgrade, json!({"spec": {"approval": approval}}));
    world.run_until("UpToDate", |_| {});
    assert_eq!(count(&world, "Pod eviction"), 4);
}

#[test]
fn pods_of_a_stateful_set_are_made_anew_by_its_controller_from_the_top() {
    let mut world = stateful(4);
    world.run_until("UpToDate", |world| assert!(unready(world, 4) <= 1, "one after another"));
    assert_eq!((world.images(), environments(&world)), (vec!["app:2"; 4], vec![environment("new"); 4]));
    assert_eq!(world.deleted_by_others, ["db-3", "db-2", "db-1", "db-0"]);
    assert_eq!(count(&world, "Pod eviction"), 0);
    let set = world.stateful_set.as_ref().unwrap();
    assert_eq!(set["spec"]["updateStrategy"]["rollingUpdate"]["partition"], 100_000, "it is what it was");
    assert_eq!(set["status"]["currentRevision"], set["status"]["updateRevision"]);
}

#[test]
fn a_stateful_set_whose_pods_do_not_start_gets_back_pods_of_the_old_revision() {
    let mut world = stateful(3);
    world.bad_images.push("app:2".to_owned());
    world.run_until("RolledBack", |_| {});
    assert_eq!((world.images(), environments(&world)), (vec!["app:1"; 3], vec![Value::Null; 3]));
    assert_eq!(world.deleted_by_others, ["db-2"], "the others stayed");
    assert_eq!(count(&world, "Pod eviction"), 1);
    let labels: BTreeSet<&str> = world
        .pods
        .values()
        .map(|pod| pod["metadata"]["labels"][CONTROLLER_REVISION_HASH].as_str().unwrap())
        .collect();
    assert_eq!(labels, BTreeSet::from(["db-1"]));
}

#[test]
fn a_pod_that_the_store_shows_twice_is_counted_once() {
    // The store may show for a moment the pod that goes and the one that comes in its place.
    let mut world = deployment(2, false, json!({}));
    while count(&world, "Pod eviction") == 0 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    let mut observed = world.observe();
    let deleting = json!({"metadata": {"deletionTimestamp": crate::fixtures::at(world.now).to_string()}});
    observed.pods.push(pod("web-00-old", deleting));
    let planned = plan(&observed, crate::fixtures::at(world.now));
    let Action::Status { status, .. } = &planned.status.as_ref().unwrap().action else { panic!() };
    assert_eq!(status["pods"]["total"], world.pods.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The process is killed in any pass after any number of writes. All runs end, no more pods are missing than may be, and
    /// the workload's controller makes no ReplicaSet and no pod that is to be made anew again.
    #[test]
    fn a_run_that_makes_pods_anew_ends_wherever_it_is_interrupted(
        gated in any::<bool>(),
        is_bad in any::<bool>(),
        is_stateful in any::<bool>(),
        cuts in proptest::collection::vec(0..4usize, 0..60),
    ) {
        let mut world = if is_stateful { stateful(3) } else { deployment(3, gated, json!({})) };
        if is_bad {
            world.bad_images.push("app:2".to_owned());
        }
        for cut in cuts {
            world.pass(cut);
            world.others_act();
            world.now += 1;
        }
        world.run_until(if is_bad { "RolledBack" } else { "UpToDate" }, |_| {});
        let (image, env) = if is_bad { ("app:1", Value::Null) } else { ("app:2", environment("new")) };
        prop_assert_eq!((world.images(), environments(&world)), (vec![image; 3], vec![env; 3]));
        prop_assert_eq!(world.out_of_traffic(), 0);
        let most = if is_bad { 6 } else { 3 };
        prop_assert!(count(&world, "Pod eviction") <= most);
    }
}
