//! An object that is deleted in mid-run: what is of its making is given back, and what pods have become they stay.

use super::scenes::{draining, message_of};
use super::world::World;
use crate::fixtures::{at, overlay};
use crate::plan::plan;
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{ReadyReason, ReconcilingReason, StalledReason};
use springtide_plumbing::workloads::names::PAUSED_BY_ANNOTATION;
use std::collections::BTreeMap;

/// An inline wish for a Deployment that nobody has paused.
fn transient() -> World {
    let inline = json!({"containers": [{"name": "app", "image": "app:2"}]});
    let mut world = World::new(
        3,
        false,
        json!({"policy": {"lock": "Transient"}, "source": {"type": "Inline", "inline": inline}}),
    );
    world.deployment["spec"]["paused"] = json!(false);
    world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:1");
    world.others_act();
    world
}

/// The same with its pods changed, and the Deployment paused for the end of the run.
fn paused() -> World {
    let mut world = transient();
    for _ in 0..500 {
        if world.deployment["spec"]["paused"] == true {
            assert_eq!(world.images(), ["app:2"; 3]);
            return world;
        }
        world.pass(usize::MAX);
        if world.deployment["spec"]["paused"] != true {
            world.others_act();
        }
        world.now += 1;
    }
    panic!("not paused: {:#}", world.upgrade["status"]);
}

fn delete(world: &mut World) {
    world.upgrade["metadata"]["deletionTimestamp"] = json!(at(world.now).to_string());
}

fn uids(world: &World) -> BTreeMap<String, Value> {
    let uid = |pod: &Value| pod["metadata"]["uid"].clone();
    world.pods.iter().map(|(name, pod)| (name.clone(), uid(pod))).collect()
}

fn is_free(world: &World) -> bool {
    world.upgrade["metadata"]["finalizers"] == json!([])
}

/// The Deployment goes on by itself, and finds all its pods to be of its template.
fn assert_handed_back(world: &World) {
    assert_eq!(world.deployment["spec"]["paused"], false);
    assert!(world.deployment["metadata"]["annotations"].get(PAUSED_BY_ANNOTATION).is_none());
    let image = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(
        (image(&world.deployment), image(&world.replica_sets["rs"])),
        (json!("app:2"), json!("app:2"))
    );
    assert_eq!(world.deployment["status"]["updatedReplicas"], 3);
    assert_eq!(world.images(), ["app:2"; 3]);
}

#[test]
fn a_transient_run_that_is_deleted_in_mid_pause_is_brought_to_its_end_so_that_nothing_rolls() {
    let mut world = paused();
    let before = uids(&world);
    delete(&mut world);
    for _ in 0..20 {
        world.pass(usize::MAX);
        // It fails the test if it would make a ReplicaSet.
        world.others_act();
        world.now += 1;
    }
    assert!(is_free(&world), "{:#}", world.upgrade);
    assert_handed_back(&world);
    assert_eq!(uids(&world), before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The process is killed after any number of writes, and the Deployment's controller acts whenever it likes.
    #[test]
    fn a_deletion_in_mid_pause_ends_wherever_it_is_interrupted(
        cuts in proptest::collection::vec((0..4usize, any::<bool>()), 0..20),
    ) {
        let mut world = paused();
        delete(&mut world);
        for (cut, acts) in cuts {
            world.pass(cut);
            if acts {
                world.others_act();
            }
            world.now += 1;
        }
        for _ in 0..20 {
            world.pass(usize::MAX);
            world.others_act();
            world.now += 1;
        }
        prop_assert!(is_free(&world));
        assert_handed_back(&world);
    }
}

#[test]
fn who_is_deleted_says_what_is_waited_for() {
    let mut world = paused();
    delete(&mut world);
    let mut told = Vec::new();
    for _ in 0..5 {
        let planned = plan(&world.observe(), at(world.now));
        if let Some(message) = message_of(&planned, &ReadyReason::Deleting) {
            assert!(message_of(&planned, &ReconcilingReason::Deleting).is_some());
            told.push(message);
        }
        // The Deployment's controller does nothing.
        world.pass(usize::MAX);
        world.now += 1;
    }
    let last = told.last().unwrap();
    assert!(last.contains("given back") && last.contains("the Deployment's controller"), "{told:#?}");
    assert!(!is_free(&world), "its pause still stands");
}

#[test]
fn a_transient_run_that_is_deleted_before_its_pause_leaves_the_deployment_alone() {
    let mut world = transient();
    while !world.images().contains(&"app:2") {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    let (images, deployment) = (world.images().join(" "), world.deployment.clone());
    delete(&mut world);
    for _ in 0..5 {
        world.pass(usize::MAX);
        world.others_act();
    }
    assert!(is_free(&world));
    assert_eq!((world.images().join(" "), world.deployment), (images, deployment));
}

#[test]
fn what_needed_a_person_needs_none_when_it_goes() {
    let mut world = draining(json!({}));
    let stalled = json!([{
        "type": "Stalled", "status": "True", "observedGeneration": 1, "reason": "PodsBlocked", "message": "x",
        "lastTransitionTime": at(0).to_string(),
    }]);
    overlay(&mut world.upgrade, json!({"status": {"conditions": stalled}}));
    delete(&mut world);
    let planned = plan(&world.observe(), at(world.now));
    assert!(message_of(&planned, &ReadyReason::Deleting).unwrap().contains("traffic of"));
    assert_eq!(message_of(&planned, &StalledReason::PodsBlocked), None);
}
