//! Whatever is done at whatever moment: each unit ends wholly on one side, with traffic where it belongs.

use super::world::{Fault, Stage, World};
use proptest::prelude::*;
use serde_json::json;

/// What is done to the group and to its pods.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// A member gets the peak, or nobody does.
    Give(Option<&'static str>),
    /// The override goes.
    Revoke,
    Pause,
    GoOn,
    /// The process ends, and another one knows nothing.
    Crash,
    /// It ends after so many writes of a pass.
    Cut(usize),
    /// A pod is deleted.
    Delete(usize),
    /// A pod's kubelet does nothing for it any more, or does again.
    Slow(usize),
    Recover,
    /// So many seconds pass.
    Wait(i64),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        4 => prop::sample::select(vec![Some("pay"), Some("promo"), None]).prop_map(Deed::Give),
        1 => Just(Deed::Revoke),
        1 => Just(Deed::Pause),
        2 => Just(Deed::GoOn),
        2 => Just(Deed::Crash),
        3 => (0..6usize).prop_map(Deed::Cut),
        2 => (0..8usize).prop_map(Deed::Delete),
        1 => (0..8usize).prop_map(Deed::Slow),
        1 => Just(Deed::Recover),
        9 => (1..25i64).prop_map(Deed::Wait),
    ];
    proptest::collection::vec(deed, 1..40)
}

fn orders() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["Pipelined", "ClaimFirst", "ShrinkFirst"])
}

/// Four nodes with a unit each.
fn group(order: &str, on_stuck: &str) -> World {
    let switch = json!({
        "order": order, "onStuck": on_stuck, "maxInFlightUnits": 2,
        "steps": [{"percent": 50, "holdSeconds": 3}, {"percent": 100}],
    });
    // Else a canary that is slow would make each attempt its last.
    let guards = json!({"failureThresholdPercent": 100});
    World::settled(4, [1, 1], json!({"switch": switch, "guards": guards}))
}

fn done(world: &mut World, deed: Deed) {
    match deed {
        Deed::Give(member) => world.give(member),
        Deed::Revoke => {
            world.group["spec"]["override"] = serde_json::Value::Null;
            world.edit(json!({}));
        }
        Deed::Pause => world.edit(json!({"mode": "Paused"})),
        Deed::GoOn => world.edit(json!({"mode": "Active"})),
        Deed::Crash => world.crash(),
        Deed::Cut(most) => {
            let passed = world.pass_until(most);
            world.go_on_after(&passed);
            world.assert_sound();
        }
        Deed::Delete(number) => {
            let name = world.pods.keys().nth(number).cloned();
            drop(name.and_then(|name| world.pods.remove(&name)));
        }
        Deed::Slow(number) => {
            let name = world.pods.keys().nth(number).cloned();
            world.oddities.slow.extend(name);
        }
        Deed::Recover => world.oddities.slow.clear(),
        Deed::Wait(seconds) => world.run_for(seconds),
    }
}

/// All goes well from now on.
fn calm(world: &mut World) {
    world.oddities.slow.clear();
    world.oddities.is_late = false;
    world.faults.clear();
    world.edit(json!({"mode": "Active"}));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_done_each_unit_ends_wholly_on_one_side(
        order in orders(),
        on_stuck in prop::sample::select(vec!["Skip", "Rollback", "Pause"]),
        deeds in deeds(),
        faults in Fault::some(80),
        is_late in any::<bool>(),
        to in prop::sample::select(vec!["pay", "promo"]),
    ) {
        let mut world = group(order, on_stuck);
        world.oddities.is_late = is_late;
        world.faults.extend(faults);
        for deed in deeds {
            done(&mut world, deed);
        }
        calm(&mut world);
        world.give(Some(to));
        world.rest();
        world.assert_whole([1, 1]);
        // With units that were given up in what was under way, another switch away and back leaves none.
        for to in [if to == "pay" { "promo" } else { "pay" }, to] {
            world.give(Some(to));
            world.rest();
        }
        prop_assert_eq!(world.count(to, Stage::Peak), 4, "{:#}", world.group["status"]);
        prop_assert_eq!(world.reason("Ready"), "Settled");
    }

    #[test]
    fn a_group_that_is_deleted_at_any_moment_goes_and_leaves_every_pod_in_traffic_at_the_size_that_it_had(
        order in orders(),
        deeds in deeds(),
        faults in Fault::some(40),
    ) {
        let mut world = group(order, "Skip");
        for deed in deeds {
            done(&mut world, deed);
        }
        world.faults.extend(faults);
        let asked = |world: &World, name: &str| world.pods[name]["spec"]["containers"][0]["resources"].clone();
        world.delete_group();
        world.others_act();
        let before: Vec<_> = world.pods.keys().map(|name| (name.clone(), asked(&world, name))).collect();
        for _ in 0..80 {
            world.step();
        }
        prop_assert!(world.group.is_null(), "{:#}", world.group);
        prop_assert_eq!((world.serving("pay"), world.serving("promo")), (4, 4));
        for (name, size) in before {
            prop_assert_eq!(asked(&world, &name), size, "{}", name);
        }
    }
}

#[test]
fn a_group_of_gated_pods_that_is_deleted_in_mid_switch_leaves_every_gate_open() {
    let gated = json!({"mode": "ReadinessGate"});
    let members = json!([{"name": "pay", "traffic": gated}, {"name": "promo", "traffic": gated}]);
    let mut world = World::settled(2, [2, 2], json!({"members": members, "switch": {"maxInFlightUnits": 1}}));
    world.give(Some("promo"));
    world.until("one is done", |world| world.count("promo", Stage::Peak) == 1);
    world.delete_group();
    for _ in 0..30 {
        world.step();
    }
    assert!(world.group.is_null(), "{:#}", world.group);
    assert_eq!((world.serving("pay"), world.serving("promo"), world.listed.len()), (4, 4, 8));
}

#[test]
fn a_member_that_is_removed_in_mid_switch_gives_its_room_back() {
    let switch = json!({"switch": {"maxInFlightUnits": 1}});
    let mut world = World::settled(3, [1, 1], switch).with_room(200);
    world.add_member("games", 3, &crate::fixtures::member("games"));
    world.rest();
    world.give(Some("promo"));
    world.until("one is done", |world| world.count("promo", Stage::Peak) == 1);
    // promo leaves, and games comes in its place.
    let members = world.group["spec"]["members"].as_array_mut().unwrap();
    members.retain(|member| member["name"] != "promo");
    world.give(Some("games"));
    world.rest();
    let stages = ["pay", "games"].map(|member| world.stages(member));
    assert_eq!(stages, [[0, 3, 0], [3, 0, 0]], "{:#}", world.group["status"]);
    let cpu =
        |name: &String| world.pods[name]["spec"]["containers"][0]["resources"]["requests"]["cpu"].clone();
    assert!(
        world.pods_of("promo").iter().all(|name| cpu(name) == "200m"),
        "they have what their template says"
    );
}
