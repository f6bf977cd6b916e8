//! A load trigger that drains a tier: what it ends has a warrant, which [`World::pass`] sees to, and it ends no more than
//! it takes.

use crate::cluster::is_deleting;
use crate::lives::spec;
use crate::world::World;
use serde_json::json;

/// So many seconds go by, in which so much is in use.
fn seconds(world: &mut World, cpu: &str, count: i64) {
    for second in 0..count {
        if second % 15 == 0 {
            world.measure(cpu);
        }
        world.pass_queues();
        world.settle();
        world.work_but_finish_nothing();
        world.settle();
        world.cluster.pass_time(1000);
    }
}

/// Pods that nobody has asked to end.
fn staying(world: &World) -> usize {
    world.cluster.pods.objects.values().filter(|pod| !is_deleting(pod)).count()
}

#[test]
fn a_drain_that_has_worked_ends_nothing_more_and_starts_nothing_until_the_trigger_is_off() {
    let mut world = World::new("100");
    let actions = json!([{"tier": "BestEffort", "action": "Drain"}]);
    world.set_queue(
        "q",
        Some(json!({"loadTriggers": [{
            "name": "hot", "resource": "cpu", "highPercent": 75, "lowPercent": 60, "sustainSeconds": 60,
            "drainPodsPerSecond": 1, "actions": actions, "resume": {"rampSeconds": 0, "jitterSeconds": 0},
        }]})),
    );
    for number in 0..80 {
        world.cluster.submit(&format!("j{number}"), spec(json!({"queueName": "q"})));
    }
    seconds(&mut world, "40", 30);
    assert_eq!(staying(&world), 80);
    seconds(&mut world, "80", 60);
    assert_eq!(staying(&world), 80, "not for long enough");
    seconds(&mut world, "80", 15);
    let left = staying(&world);
    assert!((60..75).contains(&left), "{left}");
    // It goes on while the load is not low.
    seconds(&mut world, "61", 15);
    assert!(staying(&world) < left);
    seconds(&mut world, "59", 1);
    let left = staying(&world);
    for _ in 0..3 {
        seconds(&mut world, "59", 15);
        assert_eq!(staying(&world), left, "nothing more ends, and nothing starts");
    }
    for name in world.pod_names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
        world.cluster.reap(&name);
    }
    seconds(&mut world, "59", 45);
    assert_eq!(staying(&world), 80, "all are back");
    assert_eq!(world.cluster.violations, [] as [String; 0]);
}
