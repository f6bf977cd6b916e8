//! Steps, canaries, holds, and that each unit has its place in them whoever leads.

use super::world::{Stage, World};
use serde_json::{Value, json};

/// Ten nodes with a unit each, and a switch in three steps, the first two of which are held for a minute.
fn ten(over: Value) -> World {
    let steps =
        json!([{"percent": 10, "holdSeconds": 60}, {"percent": 50, "holdSeconds": 60}, {"percent": 100}]);
    let mut spec = json!({"switch": {"steps": steps}});
    crate::fixtures::overlay(&mut spec, over);
    let mut world = World::settled(10, [1, 1], json!({}));
    world.edit(spec);
    world.at_rest()
}

/// Pods of `pay` that the switch has begun with.
fn begun(world: &World) -> usize {
    world.pods_of("pay").len() - world.count("pay", Stage::Peak)
}

#[test]
fn each_step_reaches_as_many_units_as_it_says_and_waits_for_its_hold() {
    let mut world = ten(json!({}));
    world.give(Some("promo"));
    let mut seen = Vec::new();
    let mut last = (0, 0);
    world.until("promo has the peak", |world| {
        let status = world.status();
        if let Some(transition) = status.transition.filter(|transition| transition.id > 1) {
            let now = (transition.step, begun(world));
            let most = [1, 5, 10][now.0 as usize - 1];
            assert!(now.1 <= most, "{} units in step {}", now.1, now.0);
            if now != last && transition.completion_time.is_none() {
                seen.push((now, world.now));
                last = now;
            }
        }
        status.active_member.as_deref() == Some("promo")
    });
    let first_of = |step: u32| seen.iter().find(|((own, _), _)| *own == step).map(|(_, at)| *at).unwrap();
    for step in [2, 3] {
        assert!(first_of(step) - first_of(step - 1) >= 60, "step {step}: {seen:?}");
    }
    assert!(seen.iter().any(|((step, begun), _)| (*step, *begun) == (1, 1)), "a canary: {seen:?}");
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([10, 0, 0], "Settled"));
}

#[test]
fn a_hold_is_told_and_nothing_is_written_meanwhile() {
    let mut world = ten(json!({}));
    world.give(Some("promo"));
    world.until("it holds", |world| world.reason("Held") == "StepHold");
    let (until, written) =
        (world.status().transition.unwrap().hold_until_time.unwrap().0, world.written.len());
    assert!(until > crate::fixtures::at(world.now));
    world.run_for(40);
    let pods = world.written[written..].iter().filter(|written| written.what.starts_with("Pod")).count();
    assert_eq!((pods, world.reason("Held").as_str(), begun(&world)), (0, "StepHold", 1));
}

#[test]
fn the_canary_is_the_same_for_each_process_and_another_one_in_the_next_switch() {
    let canary = |crashes: bool| {
        let mut world = ten(json!({}));
        world.give(Some("promo"));
        world
            .until("the first unit", |world| world.status().transition.unwrap().id == 2 && begun(world) == 1);
        if crashes {
            world.crash();
        }
        let is_begun = |world: &World, name: &String| world.stage(name) != Stage::Peak;
        let found = world.pods_of("pay").into_iter().find(|name| is_begun(&world, name)).unwrap();
        world.until("it holds", |world| world.reason("Held") == "StepHold");
        assert!(is_begun(&world, &found) && begun(&world) == 1, "another one");
        found
    };
    assert_eq!(canary(false), canary(true));
}

#[test]
fn units_that_have_begun_stay_reached_when_pods_go() {
    let mut world = ten(json!({}));
    world.give(Some("promo"));
    world.until("five have begun", |world| begun(world) == 5);
    // Half of the nodes' pods go.
    for member in ["pay", "promo"] {
        world.deployments.get_mut(member).unwrap().replicas = 5;
    }
    world.rest();
    assert_eq!((world.count("promo", Stage::Peak), world.count("pay", Stage::Valley)), (5, 5));
}

#[test]
fn each_step_is_gone_over_once() {
    let mut world = ten(json!({"switch": {"steps": [
        {"percent": 10, "holdSeconds": 5}, {"percent": 50, "holdSeconds": 5}, {"percent": 100}
    ]}}));
    world.give(Some("promo"));
    let mut steps: Vec<u32> = Vec::new();
    world.until("promo has the peak", |world| {
        let open = world.status().transition.filter(|transition| transition.id == 2);
        steps.extend(open.map(|open| open.step).filter(|step| steps.last() != Some(step)));
        world.status().active_member.as_deref() == Some("promo")
    });
    assert_eq!(steps, [1, 2, 3]);
}
