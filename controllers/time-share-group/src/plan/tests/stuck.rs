//! Units that do not come through: each ends wholly on one side, and what it cost is told.

use super::world::{Stage, World};
use serde_json::{Value, json};
use springtide_crds::time_share_group::{StuckReason, TransitionCause, TransitionResult};

/// Four nodes with a unit each, of which every one may fail.
fn four(over: Value) -> World {
    let mut spec = json!({"guards": {"failureThresholdPercent": 100}});
    crate::fixtures::overlay(&mut spec, over);
    World::settled(4, [1, 1], spec)
}

/// The partner of a pod of `promo` on its node.
fn partner(world: &World, promo: &str) -> String {
    let node = &world.pods[promo]["spec"]["nodeName"];
    world.pods_of("pay").into_iter().find(|name| world.pods[name]["spec"]["nodeName"] == *node).unwrap()
}

fn stuck(world: &World) -> Vec<(String, StuckReason)> {
    world.status().stuck.into_iter().map(|row| (row.pod, row.reason)).collect()
}

#[test]
fn a_pod_whose_resize_is_refused_keeps_its_donor_as_it_is() {
    let mut world = four(json!({}));
    let promo = world.pods_of("promo")[0].clone();
    let pay = partner(&world, &promo);
    world.oddities.denied.insert(promo.clone());
    world.give(Some("promo"));
    world.until("the switch ends", |world| world.status().active_member.as_deref() == Some("promo"));
    assert_eq!((world.stage(&promo), world.stage(&pay)), (Stage::Valley, Stage::Peak));
    assert!(world.writes_of(&pay).is_empty(), "nothing was begun");
    assert_eq!(world.count("promo", Stage::Peak), 3);
    assert_eq!(world.reason("Ready"), "SettledWithSkips");
    // What is refused may be let through later, and is asked about now and then.
    world.rest();
    let asked = world.asked;
    world.run_for(3600);
    assert!((1..=7).contains(&(world.asked - asked)), "{} questions in an hour", world.asked - asked);
    world.oddities.denied.clear();
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([4, 0, 0], [0, 4, 0]));
    assert_eq!(world.reason("Ready"), "Settled");
}

#[test]
fn a_donor_whose_resize_is_refused_ahead_keeps_its_size_until_it_is_let_through() {
    let mut world = four(json!({"guards": {"preflight": {"onFailure": "Hold", "requirePercent": 50}}}));
    let pay = world.pods_of("pay")[0].clone();
    world.oddities.denied.insert(pay.clone());
    world.give(Some("promo"));
    world.rest();
    assert_eq!((world.stage(&pay), world.count("promo", Stage::Peak)), (Stage::Peak, 3));
    assert!(world.writes_of(&pay).is_empty(), "nothing was begun");
    world.oddities.denied.clear();
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([4, 0, 0], [0, 4, 0]));
    assert_eq!(world.reason("Ready"), "Settled");
}

#[test]
fn a_pod_that_is_refused_only_when_it_comes_to_it_is_given_up_and_its_donor_grows_again() {
    let mut world = four(json!({}));
    let promo = world.pods_of("promo")[0].clone();
    let pay = partner(&world, &promo);
    world.oddities.denied_later.insert(promo.clone());
    world.give(Some("promo"));
    world.until("the switch ends", |world| world.status().active_member.as_deref() == Some("promo"));
    assert_eq!((world.stage(&promo), world.stage(&pay)), (Stage::Valley, Stage::Peak));
    assert_eq!(stuck(&world), [(promo, StuckReason::AdmissionDenied)]);
    world.assert_whole([1, 1]);
    let status = world.status();
    assert_eq!((status.last_transitions[0].units, status.last_transitions[0].skipped), (4, 1));
}

#[test]
fn a_pod_whose_kubelet_does_not_put_it_in_force_is_given_up_when_its_time_is_over() {
    let mut world = four(json!({}));
    let promo = world.pods_of("promo")[0].clone();
    let pay = partner(&world, &promo);
    world.oddities.slow.insert(promo.clone());
    world.give(Some("promo"));
    let begun = world.now;
    world.until("it is given up", |world| !stuck(world).is_empty());
    assert!(world.now - begun >= 60, "after {} s", world.now - begun);
    assert_eq!(stuck(&world), [(promo.clone(), StuckReason::DeadlineExceeded)]);
    world.oddities.slow.clear();
    world.rest();
    assert_eq!((world.stage(&promo), world.stage(&pay)), (Stage::Valley, Stage::Peak));
    assert_eq!(world.reason("Ready"), "SettledWithSkips");
    // The next switch tries it again.
    world.give(Some("pay"));
    world.rest();
    world.give(Some("promo"));
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([4, 0, 0], "Settled"));
}

#[test]
fn a_kubelet_that_misses_that_there_is_room_is_nudged_and_not_waited_for() {
    let mut world = four(json!({}));
    let promo = world.pods_of("promo")[0].clone();
    let node = world.pods[&promo]["spec"]["nodeName"].as_str().unwrap().to_owned();
    world.oddities.deaf.insert(node);
    world.give(Some("promo"));
    let begun = world.now;
    world.until("it is done", |world| world.count("promo", Stage::Peak) == 4);
    assert!(world.now - begun < 60, "it took {} s", world.now - begun);
    world.rest();
    let status = world.status();
    assert_eq!((status.transition.unwrap().nudges, status.last_transitions[0].nudges), (1, 1));
    let resizes: Vec<Option<i64>> = world
        .writes_of(&promo)
        .into_iter()
        .filter(|(what, _)| *what == "Pod resize")
        .map(|(_, amount)| amount)
        .collect();
    assert_eq!(resizes, [Some(4000), Some(200), Some(4000)], "asked for, withdrawn, asked for");
}

#[test]
fn a_unit_that_is_stuck_takes_the_whole_switch_back_where_the_spec_says_so() {
    let mut world = four(json!({"switch": {"onStuck": "Rollback", "maxInFlightUnits": 1}}));
    let slow = world.pods_of("promo");
    world.give(Some("promo"));
    world.until("two are done", |world| world.count("promo", Stage::Peak) == 2);
    world.oddities.slow.extend(slow);
    world.until("it rolls back", |world| world.reason("Ready") == "RollingBack");
    world.oddities.slow.clear();
    world.rest();
    assert_eq!((world.stages("pay"), world.stages("promo")), ([4, 0, 0], [0, 4, 0]));
    let status = world.status();
    let transition = status.transition.unwrap();
    assert_eq!((transition.cause, transition.to.as_deref()), (TransitionCause::Rollback, Some("pay")));
    assert_eq!(status.active_member.as_deref(), Some("pay"));
    let results: Vec<_> = status.last_transitions.iter().map(|last| last.result).collect();
    let [back, failed, ..] = results[..] else { panic!("{results:?}") };
    assert_eq!((back, failed), (TransitionResult::Succeeded, TransitionResult::RolledBack));
    assert_eq!(world.reason("Stalled"), "RolledBack");
    // It is not tried again before somebody says so.
    let written = world.written.len();
    world.run_for(3600);
    let pods = world.written[written..].iter().filter(|written| written.what.starts_with("Pod")).count();
    assert_eq!((pods, world.reason("Stalled").as_str()), (0, "RolledBack"));
    world.edit(json!({"switch": {"nudgeAfterSeconds": 6}}));
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([4, 0, 0], "Settled"));
    assert_eq!(world.reason("Stalled"), "");
}

#[test]
fn what_comes_back_does_so_in_the_opposite_order() {
    let mut world = four(json!({"switch": {"onStuck": "Rollback", "maxInFlightUnits": 1}}));
    let promo = world.pods_of("promo");
    world.give(Some("promo"));
    world.until("three are done", |world| world.count("promo", Stage::Peak) == 3);
    world.oddities.slow.extend(promo);
    world.until("it rolls back", |world| world.reason("Ready") == "RollingBack");
    world.oddities.slow.clear();
    world.rest();
    let of = |amount: i64| -> Vec<&str> {
        let own = world.written.iter().filter(|written| written.what == "Pod resize");
        let own = own.filter(|written| written.name.starts_with("promo") && written.amount == Some(amount));
        own.map(|written| written.name.as_str()).collect()
    };
    let (mut grown, shrunk) = (of(4000), of(200));
    grown.reverse();
    grown.dedup();
    assert_eq!(grown, shrunk);
}

#[test]
fn a_unit_that_is_stuck_lets_nothing_further_begin_where_the_spec_says_so() {
    let mut world = four(json!({"switch": {"onStuck": "Pause", "maxInFlightUnits": 1}}));
    let promo = world.pods_of("promo");
    world.oddities.slow.extend(promo);
    world.give(Some("promo"));
    world.until("it is stuck", |world| world.reason("Stalled") == "UnitStuck");
    world.run_for(600);
    assert_eq!(world.count("pay", Stage::Peak), 3, "one has begun");
    world.oddities.slow.clear();
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([4, 0, 0], "Settled"));
}

#[test]
fn pods_that_are_not_ready_when_they_are_small_are_seen_in_the_canary_and_go_back() {
    let steps = json!([{"percent": 25, "holdSeconds": 60}, {"percent": 100}]);
    let mut world = World::settled(4, [1, 1], json!({"switch": {"steps": steps}}));
    world.oddities.fragile.insert("pay".to_owned());
    world.give(Some("promo"));
    let mut fewest = usize::MAX;
    world.until("it has rolled back", |world| {
        let small = world.pods_of("pay").len() - world.count("pay", Stage::Peak);
        fewest = fewest.min(4 - small);
        world.reason("Stalled") == "RolledBack"
    });
    assert_eq!(fewest, 3, "the canary alone was touched");
    world.rest();
    assert_eq!((world.stages("pay"), world.stages("promo")), ([4, 0, 0], [0, 4, 0]));
    assert_eq!(world.reason("GuardsPassing"), "TooManyFailures");
}

#[test]
fn a_unit_that_cannot_come_back_either_stays_and_serves_where_it_is_large() {
    let mut world = four(json!({"switch": {"onStuck": "Rollback", "maxInFlightUnits": 1}}));
    world.give(Some("promo"));
    world.until("two are done", |world| world.count("promo", Stage::Peak) == 2);
    let pods: Vec<String> = world.pods.keys().cloned().collect();
    world.oddities.slow.extend(pods);
    world.until("it gives up", |world| world.reason("Stalled") == "RollbackStuck");
    for name in world.pods_of("promo") {
        let in_force = &world.pods[&name]["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"];
        let serves = world.pods[&name]["metadata"]["labels"]["springtide.dev/traffic-serving"] == "true";
        let asked = &world.pods[&name]["spec"]["containers"][0]["resources"]["requests"]["cpu"];
        assert!(*in_force != "4" || *asked != "4" || serves, "{name} is large and serves nobody");
    }
    world.oddities.slow.clear();
    world.rest();
    world.assert_whole([1, 1]);
}
