//! Deployments without pods: one that keeps no history has its only ReplicaSet deleted by its own controller.

use super::scenes::opened;
use super::status;
use super::world::World;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::RunResult;

/// A Deployment that was rolled out, keeps no history and has no pods.
fn without_history(spec: Value, is_paused: bool, image: &str) -> World {
    let mut world = World::new(0, false, spec);
    world.deployment["metadata"]["annotations"] = json!({"deployment.kubernetes.io/revision": "4"});
    world.deployment["spec"]["revisionHistoryLimit"] = json!(0);
    world.deployment["spec"]["paused"] = json!(is_paused);
    world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    world.others_act();
    world
}

/// The one ReplicaSet has the wish, and is of the next revision.
#[track_caller]
fn assert_made_again(world: &World) {
    let sets: Vec<&Value> = world.replica_sets.values().collect();
    let [set] = &sets[..] else { panic!("{sets:#?}") };
    assert_eq!(set["spec"]["template"]["spec"]["containers"][0]["image"], "app:2");
    assert_eq!(set["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "5");
    assert_eq!(status(world).last_run.unwrap().result, RunResult::Succeeded);
}

#[test]
fn the_only_replica_set_of_a_deployment_without_history_is_made_again_with_the_wish() {
    let mut world = without_history(json!({}), true, "app:2");
    assert!(world.replica_sets.is_empty(), "its controller has taken it for an old one");
    world.run_until("UpToDate", |_| {});
    assert_made_again(&world);
    // Its controller may delete that one too, by what it has seen of it before.
    world.replica_sets.clear();
    for _ in 0..10 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    assert_made_again(&world);
    assert_eq!(world.reason("Ready"), "UpToDate");
    // It is scaled up, and stays as it is.
    world.deployment["spec"]["replicas"] = json!(2);
    for set in world.replica_sets.values_mut() {
        set["spec"]["replicas"] = json!(2);
    }
    world.others_act();
    world.run_until("UpToDate", |_| {});
    assert_eq!(world.images(), ["app:2"; 2]);
    // The next wish finds a ReplicaSet with pods, which nobody deletes.
    world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:3");
    world.others_act();
    world.run_until("Finalizing", |_| {});
    world.run_until("UpToDate", |_| {});
    assert_eq!((world.images(), world.replica_sets.len()), (vec!["app:3"; 2], 1));
}

#[test]
fn a_transient_run_of_a_deployment_without_history_and_without_pods_ends_with_its_pause() {
    let inline = json!({"containers": [{"name": "app", "image": "app:2"}]});
    let spec = json!({"policy": {"lock": "Transient"}, "source": {"type": "Inline", "inline": inline}});
    let mut world = without_history(spec, false, "app:1");
    assert_eq!(world.replica_sets.len(), 1, "nothing is old yet");
    world.run_until("UpToDate", |_| {});
    assert_made_again(&world);
    assert_eq!(world.deployment["spec"]["paused"], false);
}

#[test]
fn a_deployment_that_is_about_to_be_scaled_up_from_nothing_is_not_at_the_end_of_its_run() {
    let mut world = opened(json!({}));
    world.pods.clear();
    world.replica_sets.get_mut("rs").unwrap()["spec"]["replicas"] = json!(0);
    for _ in 0..3 {
        world.others_act();
        world.pass(usize::MAX);
        world.now += 1;
    }
    // There is a way back as long as no pod has the wish.
    let told = (world.reason("Finalized"), world.reason("Locked"));
    assert_eq!(told, ("WaitingForPods".to_owned(), "Paused".to_owned()));
    world.replica_sets.get_mut("rs").unwrap()["spec"]["replicas"] = json!(3);
    world.run_until("UpToDate", |_| {});
    assert_eq!(world.images(), ["app:2"; 3]);
}
