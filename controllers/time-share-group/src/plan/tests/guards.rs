//! What is proved before a switch, and what stops one.

use super::world::{Stage, World};
use serde_json::json;

#[test]
fn too_many_units_that_fail_take_the_switch_back() {
    let mut world = World::settled(4, [1, 1], json!({"switch": {"maxInFlightUnits": 1}}));
    let slow = world.pods_of("promo");
    world.give(Some("promo"));
    world.until("one is done", |world| world.count("promo", Stage::Peak) == 1);
    world.oddities.slow.extend(slow);
    world.until("it rolls back", |world| world.reason("Ready") == "RollingBack");
    world.oddities.slow.clear();
    world.rest();
    assert_eq!((world.stages("pay"), world.stages("promo")), ([4, 0, 0], [0, 4, 0]));
    let told = (world.reason("Stalled"), world.reason("GuardsPassing"));
    assert_eq!(told, ("RolledBack".to_owned(), "TooManyFailures".to_owned()));
}

#[test]
fn too_many_units_that_fail_stop_the_switch_where_the_spec_says_so() {
    let spec = json!({"switch": {"maxInFlightUnits": 1}, "guards": {"onBreach": "Pause"}});
    let mut world = World::settled(4, [1, 1], spec);
    let slow = world.pods_of("promo");
    world.oddities.slow.extend(slow);
    world.give(Some("promo"));
    world.until("it stops", |world| world.reason("Stalled") == "GuardBreached");
    world.oddities.slow.clear();
    world.run_for(1200);
    world.assert_whole([1, 1]);
    assert_eq!((world.count("pay", Stage::Peak), world.reason("Stalled").as_str()), (4, "GuardBreached"));
    // Somebody looks, and goes on.
    world.edit(json!({"guards": {"failureThresholdPercent": 100}}));
    world.rest();
    assert_eq!(world.status().active_member.as_deref(), Some("promo"));
    world.assert_whole([1, 1]);
}

#[test]
fn a_switch_that_is_not_proved_waits_where_the_spec_says_so() {
    let preflight = json!({"onFailure": "Hold", "requirePercent": 80});
    let mut world = World::settled(4, [1, 1], json!({"guards": {"preflight": preflight}}));
    let denied = world.pods_of("promo")[0].clone();
    world.oddities.denied.insert(denied.clone());
    world.give(Some("promo"));
    world.until("it is held", |world| world.reason("Held") == "PreflightFailed");
    let status = world.status();
    let preflight = status.preflight.unwrap();
    assert_eq!((preflight.units, preflight.passed), (4, 3));
    assert_eq!(preflight.failures.iter().map(|row| row.pod.as_str()).collect::<Vec<_>>(), [denied]);
    assert_eq!((status.transition.unwrap().id, world.stages("pay")), (1, [4, 0, 0]));
    world.run_for(900);
    assert_eq!(world.status().transition.unwrap().id, 1);
    world.oddities.denied.clear();
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([4, 0, 0], "Settled"));
}

#[test]
fn every_unit_that_is_refused_was_named_ahead() {
    let mut world = World::settled(4, [1, 1], json!({"guards": {"failureThresholdPercent": 100}}));
    let denied: Vec<String> = world.pods_of("promo").into_iter().take(2).collect();
    world.oddities.denied.extend(denied.clone());
    // The next switch is known, and not due.
    let start = crate::fixtures::at(world.now + 3600);
    let time = start.strftime("%H:%M").to_string();
    let end = (start + jiff::SignedDuration::from_hours(2)).strftime("%H:%M").to_string();
    let window = json!({"start": time, "end": end, "timeZone": "UTC"});
    world.edit(json!({"schedule": {"windows": [{"name": "night", "member": "promo", "leadSeconds": 0, "window": window}]}}));
    world.until("all is known", |world| {
        world.status().preflight.is_some_and(|preflight| preflight.completion_time.is_some())
    });
    let preflight = world.status().preflight.unwrap();
    assert_eq!(preflight.member.as_deref(), Some("promo"));
    let mut named: Vec<String> = preflight.failures.into_iter().map(|row| row.pod).collect();
    named.sort();
    assert_eq!(
        (named, world.written.iter().filter(|written| written.what.starts_with("Pod")).count()),
        (denied.clone(), 0)
    );
    world.until("the switch ends", |world| world.status().active_member.as_deref() == Some("promo"));
    for name in &denied {
        assert_eq!(world.stage(name), Stage::Valley);
        assert!(world.writes_of(name).is_empty(), "{name}");
    }
    assert_eq!((world.count("promo", Stage::Peak), world.count("pay", Stage::Peak)), (2, 2));
    world.assert_whole([1, 1]);
}
