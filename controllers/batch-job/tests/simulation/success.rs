//! Jobs that succeed before all their tasks have.

use crate::lives::spec;
use crate::world::World;
use serde_json::{Value, json};

/// All six tasks of a job with this success rule run.
fn running(rule: Value, extra: Value) -> World {
    let mut spec = spec(json!({
        "completions": 6, "parallelism": 6, "completionMode": "Indexed", "successPolicy": {"rules": [rule]},
        "release": {"completionTracking": "Strict"},
    }));
    for (field, value) in extra.as_object().unwrap() {
        spec[field] = value.clone();
    }
    let mut world = World::new("4");
    world.cluster.submit("a", spec);
    world.settle();
    world.cluster.pass_time(2000);
    world.settle();
    world.work_but_finish_nothing();
    world.settle();
    assert_eq!(world.live(), [0, 1, 2, 3, 4, 5]);
    world
}

fn end(world: &mut World, ends: &[(u32, i32)]) {
    for (index, code) in ends {
        world.cluster.finish(&format!("a-{index}-0"), *code);
    }
    world.cluster.pass_time(2000);
    world.settle();
}

/// Whoever is told to end, ends.
fn reap(world: &mut World) {
    for name in world.pod_names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        world.cluster.reap(&name);
    }
    world.cluster.pass_time(2000);
    world.settle();
}

#[test]
fn the_named_indexes_are_enough_and_a_new_manager_goes_on_with_that() {
    let mut world =
        running(json!({"succeededIndexes": "1,3-4", "succeededCount": 2}), json!({"backoffLimit": 0}));
    end(&mut world, &[(0, 0), (1, 0)]);
    assert_eq!(world.reason("a", "Complete"), "Running", "0 is not named");
    world.restart();
    world.settle();
    end(&mut world, &[(4, 0)]);
    assert_eq!(world.reason("a", "Complete"), "Finishing");
    world.restart();
    world.settle();
    // One of the others fails by itself before it is ended: too late to fail the job.
    world.cluster.finish("a-2-0", 1);
    world.settle();
    reap(&mut world);
    assert_eq!(world.reason("a", "Complete"), "SuccessPolicyMet", "{:#}", world.status("a"));
    assert_eq!((world.reason("a", "Failed"), world.reason("a", "Stalled")), ("", ""));
    assert_eq!(world.status("a")["succeeded"], 3);
    assert_eq!(world.pod_names(), [] as [&str; 0]);
    let creates = world.cluster.log.iter().filter(|line| line.starts_with("create")).count();
    assert_eq!(creates, 6, "nothing starts again");
    assert_eq!(world.cluster.violations, [] as [String; 0]);
}

#[test]
fn a_named_index_that_failed_for_good_is_no_success() {
    let per_index = || json!({"backoffLimitPerIndex": 0});
    let mut world = running(json!({"succeededIndexes": "0-2"}), per_index());
    end(&mut world, &[(0, 1), (1, 0), (2, 0)]);
    assert_eq!(world.reason("a", "Complete"), "Running");
    end(&mut world, &[(3, 0), (4, 0), (5, 0)]);
    assert_eq!(world.reason("a", "Failed"), "FailedIndexes");

    let mut world = running(json!({"succeededIndexes": "0-2", "succeededCount": 2}), per_index());
    end(&mut world, &[(0, 1), (1, 0), (2, 0)]);
    reap(&mut world);
    assert_eq!(world.reason("a", "Complete"), "SuccessPolicyMet");
}

#[test]
fn so_many_of_all_tasks_are_enough_also_when_they_are_alike() {
    let mut world = running(json!({"succeededCount": 4}), json!({"completionMode": "NonIndexed"}));
    end(&mut world, &[(0, 0), (2, 0), (4, 0)]);
    assert_eq!(world.reason("a", "Complete"), "Running");
    end(&mut world, &[(5, 0)]);
    reap(&mut world);
    assert_eq!(world.reason("a", "Complete"), "SuccessPolicyMet");
    assert_eq!((&world.status("a")["succeeded"], &world.status("a")["failed"]), (&json!(4), &json!(0)));
}

#[test]
fn a_single_task_meets_its_policy_by_itself() {
    let mut world = World::new("4");
    let policy = json!({"rules": [{"succeededIndexes": "0"}]});
    world.cluster.submit("a", spec(json!({"completionMode": "Indexed", "successPolicy": policy})));
    world.run_to_the_end("a");
    assert_eq!(world.reason("a", "Complete"), "SuccessPolicyMet");
}
