//! Pods that come, go and are worked on by others while sizes change.

use super::world::{Stage, World};
use serde_json::json;

#[test]
fn a_pod_that_is_made_anew_is_born_small_and_raised_at_once_where_its_member_has_the_peak() {
    let mut world = World::settled(3, [1, 1], json!({}));
    let (pay, promo) = (world.pods_of("pay")[0].clone(), world.pods_of("promo")[0].clone());
    for gone in [&pay, &promo] {
        world.pods.remove(gone);
    }
    world.rest();
    assert_eq!((world.stages("pay"), world.stages("promo")), ([3, 0, 0], [0, 3, 0]));
    assert_eq!(world.reason("Ready"), "Settled");
    assert_eq!(world.status().transition.unwrap().id, 1, "it is no switch");
}

#[test]
fn pods_that_go_in_mid_switch_keep_nobody_from_its_end() {
    let mut world = World::settled(4, [1, 1], json!({"switch": {"maxInFlightUnits": 1}}));
    world.give(Some("promo"));
    world.until("one is done", |world| world.count("promo", Stage::Peak) == 1);
    for member in ["pay", "promo"] {
        let all = world.pods_of(member);
        world.pods.remove(&all[0]);
        world.pods.remove(&all[3]);
    }
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([4, 0, 0], [0, 4, 0]));
    assert_eq!(world.reason("Ready"), "Settled");
}

#[test]
fn pods_that_do_not_come_back_keep_nobody_from_its_end() {
    let mut world = World::settled(4, [1, 1], json!({}));
    world.give(Some("promo"));
    world.until("it has begun", |world| world.serving("pay") < 4);
    world.deployments.get_mut("pay").unwrap().replicas = 2;
    world.deployments.get_mut("promo").unwrap().replicas = 3;
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([3, 0, 0], [0, 2, 0]));
    assert_eq!(world.status().active_member.as_deref(), Some("promo"));
}

#[test]
fn a_member_that_is_scaled_up_in_mid_switch_gets_its_new_pods_raised_as_far_as_there_is_room() {
    let mut world =
        World::new(4, [1, 1], json!({"switch": {"maxInFlightUnits": 1}})).with_room(4000).at_rest();
    world.give(Some("promo"));
    world.until("one is done", |world| world.count("promo", Stage::Peak) == 1);
    world.deployments.get_mut("promo").unwrap().replicas = 8;
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([8, 0, 0], [0, 4, 0]));
    assert_eq!(world.reason("Ready"), "Settled");
}

#[test]
fn a_pod_that_is_being_upgraded_is_left_alone_and_its_unit_waits() {
    let mut world = World::settled(3, [1, 1], json!({}));
    let promo = world.pods_of("promo")[0].clone();
    world.upgrading.insert(promo.clone());
    world.give(Some("promo"));
    world.until("the others are done", |world| world.count("promo", Stage::Peak) == 2);
    assert_eq!((world.writes_of(&promo), world.count("pay", Stage::Peak)), (vec![], 1));
    world.until("the switch ends", |world| world.status().active_member.as_deref() == Some("promo"));
    assert_eq!((world.writes_of(&promo), world.reason("Ready").as_str()), (vec![], "SettledWithSkips"));
    let member = world.status().members.into_iter().find(|member| member.name == "promo").unwrap();
    assert_eq!((member.upgrading, member.at_peak), (1, 2));
    world.upgrading.clear();
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([3, 0, 0], "Settled"));
}

#[test]
fn a_pod_whose_upgrade_begins_when_its_donor_is_drained_keeps_that_from_serving_for_a_while_only() {
    let mut world = World::settled(3, [1, 1], json!({}));
    world.give(Some("promo"));
    world.until("all are drained", |world| world.serving("pay") == 0);
    let promo = world.pods_of("promo")[0].clone();
    world.upgrading.insert(promo.clone());
    world.until("the switch ends", |world| world.status().active_member.as_deref() == Some("promo"));
    world.run_for(60);
    assert_eq!((world.stage(&promo), world.count("promo", Stage::Peak)), (Stage::Valley, 2));
    assert_eq!((world.count("pay", Stage::Peak), world.reason("Ready").as_str()), (1, "SettledWithSkips"));
    world.upgrading.clear();
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([3, 0, 0], [0, 3, 0]));
}

#[test]
fn a_workload_that_goes_in_mid_switch_is_told_of_and_its_return_taken_up() {
    let mut world = World::settled(2, [1, 1], json!({"switch": {"maxInFlightUnits": 1}}));
    world.give(Some("promo"));
    world.until("one is done", |world| world.count("promo", Stage::Peak) == 1);
    let gone = world.deployments.remove("promo").unwrap();
    world.pods.retain(|name, _| !name.starts_with("promo"));
    world.until("it is told", |world| world.reason("Stalled") == "MemberNotFound");
    let before = world.written.len();
    world.run_for(300);
    let resized = world.written[before..].iter().filter(|written| written.what == "Pod resize").count();
    assert_eq!(resized, 0, "nothing is resized meanwhile");
    world.deployments.insert(gone.name.clone(), gone);
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([2, 0, 0], [0, 2, 0]));
    assert_eq!(world.reason("Ready"), "Settled");
}

#[test]
fn a_profile_that_changes_in_mid_switch_is_that_of_the_rest_of_it() {
    let mut world =
        World::new(3, [1, 1], json!({"switch": {"maxInFlightUnits": 1}})).with_room(1000).at_rest();
    world.give(Some("promo"));
    world.until("one is done", |world| world.count("promo", Stage::Peak) == 1);
    let larger = json!([{"name": "promo", "containers": [{"name": "app", "peak": {"cpu": "4500m"}}]}]);
    world.edit(json!({"members": larger}));
    world.deployments.get_mut("promo").unwrap().peak = json!("4500m");
    // Those that were done serve with the former peak until they have the new one.
    while world.count("promo", Stage::Peak) < 3 {
        let passed = world.pass();
        assert!(world.go_on_after(&passed), "{:#}", world.group["status"]);
    }
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([3, 0, 0], "Settled"));
}
