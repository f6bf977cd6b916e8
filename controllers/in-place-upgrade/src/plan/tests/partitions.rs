//! A StatefulSet's partition while a run goes on: who has lowered it, and what becomes of pods past it.

use super::kinds::{db, db_pod, in_run, observed, old_pods, writes};
use super::status;
use super::world::World;
use crate::fixtures::{at, overlay, revision, stateful_set};
use crate::plan::plan;
use crate::target::Target;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeStatus, RunResult};
use springtide_plumbing::plan::{Action, Plan, Write};
use springtide_plumbing::workloads::names::CONTROLLER_REVISION_HASH;

fn reason(plan: &Plan, type_: &str) -> String {
    let Action::Status { status, .. } = &plan.status.as_ref().unwrap().action else { panic!() };
    let status: InPlaceUpgradeStatus = serde_json::from_value(status.clone()).unwrap();
    let found = status.conditions.into_iter().find(|condition| condition.type_ == type_);
    found.map(|condition| condition.reason).unwrap_or_default()
}

/// The partition that a write applies.
fn applied(write: &Write) -> Option<u64> {
    let Action::Apply { fields, .. } = &write.action else { return None };
    fields["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64()
}

fn partition(world: &World) -> u64 {
    let set = world.stateful_set.as_ref().unwrap();
    set["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64().unwrap()
}

fn wish(world: &mut World, image: &str) {
    let set = world.stateful_set.as_mut().unwrap();
    set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    let generation = set["metadata"]["generation"].as_i64().unwrap();
    set["metadata"]["generation"] = json!(generation + 1);
}

#[test]
fn a_partition_that_another_lowers_past_pods_that_are_not_changed_is_a_lock_that_is_taken_away() {
    let let_go = plan(&observed("StatefulSet", db(1, 0, 1), old_pods(), in_run()), at(0));
    assert!(writes(&let_go).is_empty(), "their own controller makes them anew");
    let told = (reason(&let_go, "Locked"), reason(&let_go, "Stalled"));
    assert_eq!(told, ("UnlockedDuringRun".into(), "NotLocked".into()));

    let done = || {
        vec![
            db_pod(0, "db-a", "app:1", json!({})),
            db_pod(1, "db-b", "app:2", json!({})),
            db_pod(2, "db-b", "app:2", json!({})),
        ]
    };
    let ours = plan(&observed("StatefulSet", db(1, 2, 1), done(), in_run()), at(0));
    let names: Vec<_> = writes(&ours).iter().map(|write| &*write.key.name).collect();
    assert_eq!((reason(&ours, "Locked").as_str(), names), ("Partition", vec!["db-0"]));

    let mut anew = in_run();
    overlay(&mut anew, json!({"spec": {"policy": {"ineligible": "Recreate"}}}));
    let next = plan(&observed("StatefulSet", db(0, 2, 1), done(), anew.clone()), at(0));
    assert_eq!(reason(&next, "Locked"), "Partition", "it may be the one that is made anew next");
    let further = plan(&observed("StatefulSet", db(0, 0, 1), old_pods(), anew), at(0));
    assert_eq!(reason(&further, "Locked"), "UnlockedDuringRun");
}

#[test]
fn who_scales_a_set_past_its_partition_in_mid_run_takes_no_lock_away() {
    let spec = json!({"updateStrategy": {"rollingUpdate": {"partition": 3}}});
    let status = json!({"currentRevision": "db-a", "updateRevision": "db-b", "updatedReplicas": 2});
    let set = stateful_set(5, "app:2", spec, status);
    let target = || {
        Target::stateful_set(set.clone(), vec![revision("db-a", 1, "app:1"), revision("db-b", 2, "app:2")])
    };
    let mut pods = old_pods();
    pods.extend([3, 4].map(|ordinal| db_pod(ordinal, "db-b", "app:2", json!({}))));
    let closed = plan(&observed("StatefulSet", target(), pods.clone(), json!({})), at(0));
    assert_eq!(reason(&closed, "Locked"), "PartitionTooLow", "no run begins so");
    let over = json!({"status": {"previous": {"revision": "db-a", "partition": 3}}});
    let open = plan(&observed("StatefulSet", target(), pods, over), at(0));
    assert_eq!((reason(&open, "Locked").as_str(), writes(&open).len()), ("Partition", 2));
}

/// A run of two steps, the first one over and its partition lowered past two pods.
fn held() -> World {
    let steps = json!([{"replicas": 2, "hold": {"type": "Approval"}}, {"replicas": "100%"}]);
    let mut world = World::stateful(4, json!({"strategy": {"steps": steps, "maxUnavailable": 2}}));
    world.run_until("Held", |_| {});
    for _ in 0..3 {
        world.pass(usize::MAX);
        world.others_act();
    }
    assert_eq!((partition(&world), world.images()), (2, vec!["app:1", "app:1", "app:2", "app:2"]));
    world
}

fn approve(world: &mut World) {
    let approval = json!({"targetHash": status(world).target_hash, "throughStep": 1});
    overlay(&mut world.upgrade, json!({"spec": {"approval": approval}}));
}

#[test]
fn another_wish_in_mid_run_has_no_pod_made_anew_that_is_past_the_partition() {
    for (image, is_first) in [("app:3", true), ("app:3", false), ("app:1", true), ("app:1", false)] {
        let mut world = held();
        wish(&mut world, image);
        if !is_first {
            // Its controller makes them anew one by one, and is at the first when the manager comes to see it.
            world.others_act();
        }
        for _ in 0..3 {
            world.pass(usize::MAX);
            world.others_act();
        }
        assert_eq!(partition(&world), 100_000, "{image}");
        world.run_until("Held", |_| {});
        approve(&mut world);
        world.run_until("UpToDate", |_| {});
        let most = usize::from(!is_first);
        assert!(world.deleted_by_others.len() <= most, "{image}: {:?}", world.deleted_by_others);
        assert_eq!((world.images(), partition(&world)), (vec![image; 4], 100_000));
    }
}

#[test]
fn a_partition_is_raised_before_the_other_wish_is_looked_at() {
    let pods = vec![
        db_pod(0, "db-a", "app:1", json!({})),
        db_pod(1, "db-b", "app:2", json!({})),
        db_pod(2, "db-b", "app:2", json!({})),
    ];
    let spec = json!({"updateStrategy": {"rollingUpdate": {"partition": 1}}});
    let seen = json!({"currentRevision": "db-a", "updateRevision": "db-b", "observedGeneration": 0});
    let revisions = vec![revision("db-a", 1, "app:1"), revision("db-b", 2, "app:2")];
    let target = Target::stateful_set(stateful_set(3, "app:3", spec, seen), revisions);
    let mut over = in_run();
    over["status"]["targetHash"] = json!("000000000000");
    for mode in ["Apply", "Plan", "Paused"] {
        over["spec"] = json!({"mode": mode});
        let planned = plan(&observed("StatefulSet", target.clone(), pods.clone(), over.clone()), at(0));
        let partitions: Vec<_> = writes(&planned).into_iter().map(applied).collect();
        assert_eq!(partitions, [Some(100_000)], "{mode}");
        let Action::Status { status, .. } = &planned.status.as_ref().unwrap().action else { panic!() };
        assert_eq!(status["targetHash"], "000000000000", "that is the next thing");
    }
}

#[test]
fn pods_that_are_left_out_keep_no_run_from_its_end_and_the_partition_is_what_it_was() {
    let steps = json!([{"replicas": 1, "hold": {"type": "Approval"}}, {"replicas": "100%"}]);
    let spec = json!({"policy": {"ineligible": "Ignore"}, "strategy": {"steps": steps}});
    let mut world = World::stateful(3, spec);
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
    overlay(world.pods.get_mut("db-0").unwrap(), mirror);
    world.run_until("Held", |_| {});
    world.pass(usize::MAX);
    assert_eq!((world.images(), partition(&world)), (vec!["app:1", "app:1", "app:2"], 2));
    approve(&mut world);
    world.run_until("UpToDate", |_| {});
    assert_eq!(world.images(), ["app:1", "app:2", "app:2"]);
    assert_eq!(partition(&world), 100_000, "the next change of the template rolls nothing");
    assert_eq!(
        (world.reason("Finalized").as_str(), world.reason("Stalled").as_str()),
        ("NativeControllerAgrees", "")
    );
    assert_eq!(status(&world).last_run.unwrap().result, RunResult::Succeeded);
    for _ in 0..3 {
        world.pass(usize::MAX);
    }
    assert_eq!(world.pass(usize::MAX).1, 0, "nothing is left to write");

    // One is lost, and comes again by the revision from before.
    world.now += 60;
    world.pods.remove("db-2");
    world.others_act();
    assert_eq!(world.images(), ["app:1", "app:2", "app:1"]);
    world.run_until("Upgrading", |_| {});
    world.run_until("UpToDate", |_| {});
    assert_eq!(world.images(), ["app:1", "app:2", "app:2"], "it is changed like the one before it");

    // One that somebody edits is drift.
    world.now += 60;
    let edited = world.pods.get_mut("db-1").unwrap();
    edited["spec"]["containers"][0]["image"] = json!("app:9");
    for _ in 0..5 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    assert_eq!((world.reason("Drifted").as_str(), world.images()[1]), ("PodsDiffer", "app:9"));
    assert_eq!(world.deleted_by_others, [""; 0]);
}

#[test]
fn pods_that_failed_and_are_tolerated_do_not_leave_a_partition_lowered_behind() {
    let spec = json!({"health": {"failureThreshold": "50%"}, "strategy": {"maxUnavailable": 2}});
    let mut world = World::stateful(4, spec);
    let label = json!({"metadata": {"labels": {CONTROLLER_REVISION_HASH: "db-2"}}});
    // One was made by the new revision already, and does not start.
    overlay(world.pods.get_mut("db-1").unwrap(), label);
    let broken = world.pods.get_mut("db-1").unwrap();
    broken["spec"]["containers"][0]["image"] = json!("app:2");
    let waiting = json!([{
        "name": "app", "containerID": "", "imageID": "", "restartCount": 0,
        "state": {"waiting": {"reason": "CreateContainerError", "message": "no"}},
    }]);
    let unready = |pod: &mut Value| {
        pod["status"]["containerStatuses"] = waiting.clone();
        for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
            condition["status"] = json!("False");
        }
    };
    for _ in 0..60 {
        world.pass(usize::MAX);
        world.others_act();
        unready(world.pods.get_mut("db-1").unwrap());
        world.now += 1;
    }
    assert_eq!(world.images(), ["app:2"; 4]);
    let told = status(&world);
    assert_eq!(
        (told.pods.updated, told.pods.failed, told.last_run),
        (4, 1, None),
        "its controller does not agree"
    );
    assert_eq!(world.reason("Ready"), "Finalizing");
    world.run_until("UpToDate", |_| {});
    assert_eq!(partition(&world), 100_000);
}
