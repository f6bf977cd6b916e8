//! At rest nothing is written, and a new process writes nothing either.

use super::world::World;
use serde_json::json;

#[track_caller]
fn assert_idle(mut world: World) {
    world.rest();
    for _ in 0..2 {
        let written = world.written.len();
        world.run_for(1800);
        let more = &world.written[written..];
        assert!(more.is_empty(), "{more:?}: {:#}", world.group["status"]);
        // Another process knows nothing of all that.
        world.crash();
    }
}

#[test]
fn a_group_at_rest_costs_nothing_and_neither_does_a_new_process() {
    assert_idle(World::settled(3, [2, 2], json!({})));
    let mut switched = World::settled(3, [2, 2], json!({}));
    switched.give(Some("promo"));
    assert_idle(switched);
}

#[test]
fn a_group_of_gated_pods_at_rest_costs_nothing() {
    let gated = json!({"mode": "ReadinessGate"});
    let members = json!([{"name": "pay", "traffic": gated}, {"name": "promo", "traffic": gated}]);
    assert_idle(World::settled(2, [2, 2], json!({"members": members})));
}

#[test]
fn a_group_with_units_that_cannot_be_done_costs_questions_alone() {
    let mut world = World::settled(3, [1, 1], json!({"guards": {"failureThresholdPercent": 100}}));
    let denied = world.pods_of("promo")[0].clone();
    world.oddities.denied.insert(denied);
    world.give(Some("promo"));
    assert_idle(world);
}

#[test]
fn a_group_that_was_rolled_back_costs_nothing() {
    let mut world = World::settled(3, [1, 1], json!({"switch": {"onStuck": "Rollback"}}));
    let slow = world.pods_of("promo");
    world.oddities.slow.extend(slow);
    world.give(Some("promo"));
    world.until("it rolls back", |world| world.reason("Ready") == "RollingBack");
    world.oddities.slow.clear();
    assert_idle(world);
}

#[test]
fn a_group_that_only_observes_writes_its_status_alone_and_says_what_would_be() {
    let mut world = World::settled(2, [1, 1], json!({}));
    world.edit(json!({"mode": "Observe"}));
    world.give(Some("promo"));
    world.rest();
    let others = world.written.iter().filter(|written| written.what != "TimeShareGroup status").count();
    assert_eq!((others, world.reason("Ready").as_str()), (0, "Observing"));
    assert_eq!(world.status().desired_member.as_deref(), Some("promo"));
    assert!(world.asked > 0, "the API server is asked all the same");
    assert_idle(world);
}

#[test]
fn a_group_that_is_paused_lets_what_has_begun_come_to_rest_and_begins_nothing() {
    let mut world = World::settled(4, [1, 1], json!({"switch": {"maxInFlightUnits": 1}}));
    world.give(Some("promo"));
    world.until("the second has begun", |world| world.serving("pay") == 2);
    world.edit(json!({"mode": "Paused"}));
    world.rest();
    world.assert_whole([1, 1]);
    let told = (world.reason("Ready"), world.reason("Held"));
    assert_eq!(told, ("Paused".to_owned(), "Paused".to_owned()));
    assert_eq!(world.serving("promo"), 2);
    world.edit(json!({"mode": "Active"}));
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([4, 0, 0], "Settled"));
}
