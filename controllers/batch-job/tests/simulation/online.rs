//! Online pods beside batch work on one node, resized in place as a TimeShareGroup does it: batch work has what they gave
//! up in the very moment in which it is no longer in force, and what they ask for is theirs at once. No time passes.

use crate::cluster::{is_terminal, text};
use crate::lives::spec;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The online pod of each play, on a node of eight cores.
const WEB: &str = "web";

/// Requests of [`WEB`] in cores: what its spec asks for, what the kubelet has admitted, and what is in force.
fn resize(world: &mut World, asked: i64, admitted: i64, in_force: i64) {
    let cores = |cpu: i64| json!({"cpu": cpu.to_string()});
    let changed = world.cluster.change_pod(WEB, |pod| {
        pod["spec"]["containers"] = json!([{"name": "main", "resources": {"requests": cores(asked)}}]);
        pod["status"]["containerStatuses"] = json!([{
            "name": "main", "state": {"running": {}},
            "allocatedResources": cores(admitted), "resources": {"requests": cores(in_force)},
        }]);
        true
    });
    assert!(changed.is_some());
}

/// Names of the job's pods that may run.
fn batch(world: &World) -> BTreeSet<String> {
    let pods = world.cluster.pods.objects.values();
    let own = pods.filter(|pod| !is_terminal(pod) && text(pod, "/metadata/name") != WEB);
    own.map(|pod| text(pod, "/metadata/name").to_owned()).collect()
}

/// A world with an online pod of so many cores and a job, in a queue or not, that would take all that is left.
fn begin(cores: i64, queue: Option<Value>) -> World {
    let mut world = World::new("8");
    world.cluster.intrude(WEB);
    resize(&mut world, cores, cores, cores);
    let mut job = spec(json!({"completions": 1000, "parallelism": 50, "template": {"spec": {"containers": [
        {"name": "main", "image": "app", "resources": {"requests": {"cpu": "1"}}}]}}}));
    if queue.is_some() {
        world.set_queue("q", queue);
        job["queueName"] = json!("q");
    }
    world.cluster.submit("a", job);
    goes_on(&mut world);
    world
}

/// The controller does what there is to do now, and what it has made starts.
fn goes_on(world: &mut World) {
    while world.settle() > 0 {
        world.work_but_finish_nothing();
    }
}

/// So many tasks of the job end well.
fn end(world: &mut World, count: usize) {
    for pod in batch(world).into_iter().take(count) {
        world.cluster.finish(&pod, 0);
    }
    goes_on(world);
}

/// The built-in queue, one with all that online pods leave, and one with a quota besides.
fn queues() -> [Option<Value>; 3] {
    [None, Some(json!({})), Some(json!({"quota": [{"resource": "cpu", "nominal": "100"}]}))]
}

#[test]
fn what_an_online_pod_gives_up_is_used_as_soon_as_it_is_no_longer_in_force_and_never_before() {
    for (queue, restarts) in queues().into_iter().flat_map(|queue| [(queue.clone(), false), (queue, true)]) {
        let mut world = begin(6, queue.clone());
        let first = batch(&world);
        assert_eq!(first.len(), 2);
        let steps = [
            // The spec is changed, then the kubelet admits it, then the one and the other half is carried out.
            ((2, 6, 6), 2),
            ((2, 2, 6), 2),
            ((2, 2, 4), 4),
            ((2, 2, 2), 6),
        ];
        for ((asked, admitted, in_force), expected) in steps {
            resize(&mut world, asked, admitted, in_force);
            if restarts {
                world.restart();
            }
            goes_on(&mut world);
            let context = format!("{queue:?}, {in_force} of {asked} in force, restarts: {restarts}");
            assert_eq!(batch(&world).len(), expected, "{context}");
            assert!(batch(&world).is_superset(&first), "{context}");
            // A task that ends meanwhile has a successor, and no more than one.
            end(&mut world, 0);
            assert_eq!(batch(&world).len(), expected, "{context}");
        }
        assert_eq!(world.cluster.violations, [] as [String; 0]);
    }
}

#[test]
fn what_an_online_pod_asks_for_is_held_back_at_once_and_no_running_task_is_ended_for_it() {
    for (queue, restarts) in queues().into_iter().flat_map(|queue| [(queue.clone(), false), (queue, true)]) {
        let context = |step: &str| format!("{queue:?}, {step}, restarts: {restarts}");
        let mut world = begin(2, queue.clone());
        assert_eq!(batch(&world).len(), 6);
        // A task ends in the same moment: what it leaves is not for its successor.
        for pod in batch(&world).into_iter().take(1) {
            world.cluster.finish(&pod, 0);
        }
        resize(&mut world, 5, 2, 2);
        if restarts {
            world.restart();
        }
        goes_on(&mut world);
        assert_eq!(batch(&world).len(), 5, "{}", context("asked"));
        for left in [4, 3] {
            end(&mut world, 1);
            assert_eq!(batch(&world).len(), left, "{}", context("deferred"));
        }
        for (admitted, in_force) in [(5, 2), (5, 5)] {
            resize(&mut world, 5, admitted, in_force);
            goes_on(&mut world);
            assert_eq!(batch(&world).len(), 3, "{}", context("admitted"));
        }
        end(&mut world, 2);
        assert_eq!(batch(&world).len(), 3, "{}", context("in force"));
        // Outcomes are written at most once a second.
        world.cluster.pass_time(2000);
        goes_on(&mut world);
        let deleted = world.cluster.log.iter().filter(|line| line.starts_with("delete pods"));
        let ended = world.cluster.ended.len();
        assert_eq!(deleted.count(), ended, "{}: only pods that had ended", context("all"));
        assert_eq!(world.cluster.violations, [] as [String; 0]);
    }
}

#[test]
fn a_grant_that_has_no_pod_yet_goes_back_when_an_online_pod_takes_its_room() {
    for queue in queues() {
        let mut world = begin(6, queue.clone());
        assert_eq!(batch(&world).len(), 2);
        // The room is there, and is granted, but the job has not come to its turn when it is gone again.
        resize(&mut world, 2, 2, 2);
        world.deliver(usize::MAX, usize::MAX);
        let admission = world.next_key().unwrap();
        assert!(world.plan(&admission).is_none(), "{admission} is a pass of the admission");
        let key = crate::world::key("a");
        assert!(world.plan(&key).is_some_and(|plan| plan.writes() > 0), "{queue:?}: it is granted");
        resize(&mut world, 6, 2, 2);
        goes_on(&mut world);
        assert_eq!(batch(&world).len(), 2, "{queue:?}");
        end(&mut world, 2);
        assert_eq!(batch(&world).len(), 2, "{queue:?}");
    }
}
