//! Switches from one member to another on nodes that are full: what they write, in which order, and what comes of it.

use super::world::{Passed, Stage, World};
use serde_json::json;
use springtide_crds::time_share_group::{TransitionCause, TransitionResult};
use springtide_plumbing::plan::{Action, Step};

/// What a member's pod requests at peak and at valley, in thousandths of a core.
const PEAK: Option<i64> = Some(4000);
const VALLEY: Option<i64> = Some(200);
/// Traffic, as writes have it.
const OFF: Option<i64> = Some(0);
const ON: Option<i64> = Some(1);

/// Gives `promo` the peak, and lets all come to rest.
fn switched(mut world: World) -> World {
    world.give(Some("promo"));
    world.rest();
    world
}

/// All pods of `promo` have the peak, and none of `pay`.
#[track_caller]
fn assert_switched(world: &World, pods: [usize; 2]) {
    let [pay, promo] = pods;
    assert_eq!(world.stages("pay"), [0, pay, 0], "{:#}", world.group["status"]);
    assert_eq!(world.stages("promo"), [promo, 0, 0], "{:#}", world.group["status"]);
    assert_eq!(world.status().active_member.as_deref(), Some("promo"));
    assert_eq!(world.reason("Ready"), "Settled");
}

/// Resizes in their order, as whose pod it is, and to what.
fn resizes(world: &World) -> Vec<(String, Option<i64>)> {
    let resizes = world.written.iter().filter(|written| written.what == "Pod resize");
    resizes.map(|written| (written.name.clone(), written.amount)).collect()
}

fn node(world: &World, pod: &str) -> String {
    world.pods[pod]["spec"]["nodeName"].as_str().unwrap().to_owned()
}

#[test]
fn each_pod_takes_two_writes_and_the_peak_changes_hands() {
    let world = switched(World::settled(3, [2, 2], json!({})));
    assert_switched(&world, [6, 6]);
    for name in world.pods_of("pay") {
        assert_eq!(world.writes_of(&name), [("Pod", OFF), ("Pod resize", VALLEY)], "{name}");
    }
    for name in world.pods_of("promo") {
        assert_eq!(world.writes_of(&name), [("Pod resize", PEAK), ("Pod", ON)], "{name}");
    }
    let status = world.status();
    let transition = status.transition.unwrap();
    let ends = (transition.id, transition.from.as_deref(), transition.to.as_deref(), transition.cause);
    assert_eq!(ends, (2, Some("pay"), Some("promo"), TransitionCause::Override));
    assert_eq!((transition.units.total, transition.units.done, transition.nudges), (6, 6, 0));
    assert!(transition.completion_time.is_some());
    let last = &status.last_transitions[0];
    assert_eq!((last.id, last.result, last.units, last.skipped), (2, TransitionResult::Succeeded, 6, 0));
}

#[test]
fn who_grows_does_so_right_after_the_one_that_shrinks_for_it_on_its_node() {
    let world = switched(World::settled(3, [2, 2], json!({})));
    for pair in resizes(&world).chunks(2) {
        let [(donor, small), (receiver, large)] = pair else { panic!("{pair:?}") };
        assert_eq!((*small, *large), (VALLEY, PEAK));
        assert_eq!(node(&world, donor), node(&world, receiver));
        assert!(donor.starts_with("pay") && receiver.starts_with("promo"), "{pair:?}");
    }
}

#[test]
fn with_claim_first_who_grows_goes_before_the_one_that_shrinks() {
    let spec = json!({"switch": {"order": "ClaimFirst", "overlap": "Never"}});
    let world = switched(World::settled(2, [1, 1], spec));
    assert_switched(&world, [2, 2]);
    for pair in resizes(&world).chunks(2) {
        let [(receiver, large), (donor, small)] = pair else { panic!("{pair:?}") };
        assert_eq!((*large, *small), (PEAK, VALLEY));
        assert_eq!(node(&world, donor), node(&world, receiver));
    }
}

#[test]
fn with_shrink_first_nobody_grows_before_the_smaller_size_is_in_force() {
    let mut world = World::settled(2, [1, 1], json!({"switch": {"order": "ShrinkFirst"}}));
    world.give(Some("promo"));
    let chained =
        |passed: &Passed| passed.plan.stages.iter().flatten().any(|step| matches!(step, Step::Chain(_)));
    loop {
        let before = resizes(&world).len();
        let passed = world.pass();
        assert!(!chained(&passed), "{:#?}", passed.plan);
        for (name, amount) in resizes(&world).split_off(before) {
            let is_small = |donor: &String| {
                node(&world, donor) != node(&world, &name) || world.stage(donor) == Stage::Valley
            };
            assert!(amount == VALLEY || world.pods_of("pay").iter().all(is_small), "{name} grows too soon");
        }
        if !world.go_on_after(&passed) {
            break;
        }
        world.assert_sound();
    }
    assert_switched(&world, [2, 2]);
}

#[test]
fn pods_with_the_gate_are_turned_by_it_and_become_ready_and_unready() {
    let gated = json!({"mode": "ReadinessGate"});
    let members = json!([{"name": "pay", "traffic": gated}, {"name": "promo", "traffic": gated}]);
    let world = switched(World::settled(2, [2, 2], json!({"members": members})));
    assert_switched(&world, [4, 4]);
    for name in world.pods_of("pay") {
        assert_eq!(world.writes_of(&name), [("Pod status", OFF), ("Pod resize", VALLEY)], "{name}");
    }
    for name in world.pods_of("promo") {
        assert_eq!(world.writes_of(&name), [("Pod resize", PEAK), ("Pod status", ON)], "{name}");
        let uid = world.pods[&name]["metadata"]["uid"].as_str().unwrap();
        assert!(world.listed.contains(uid), "{name} is listed by its Service");
    }
    assert_eq!(world.listed.len(), 4);
}

#[test]
fn pods_without_a_way_out_of_traffic_take_one_write_each() {
    let members = json!([
        {"name": "pay", "traffic": {"mode": "None"}}, {"name": "promo", "traffic": {"mode": "None"}},
    ]);
    let world = switched(World::settled(2, [2, 2], json!({"members": members})));
    assert_eq!(world.reason("Ready"), "Settled");
    for (member, amount) in [("pay", VALLEY), ("promo", PEAK)] {
        for name in world.pods_of(member) {
            assert_eq!(world.writes_of(&name), [("Pod resize", amount)], "{name}");
        }
    }
}

#[test]
fn with_free_room_somebody_serves_all_the_time() {
    let mut world = World::new(3, [2, 2], json!({})).with_room(2 * 3800).at_rest();
    world.give(Some("promo"));
    let mut fewest = usize::MAX;
    world.until("promo has the peak", |world| {
        fewest = fewest.min(world.serving("pay") + world.serving("promo"));
        world.status().active_member.as_deref() == Some("promo")
    });
    assert!(fewest >= 6, "{fewest} served");
    world.rest();
    assert_switched(&world, [6, 6]);
    for name in world.pods_of("promo") {
        assert_eq!(world.writes_of(&name).len(), 2, "{name}");
    }
}

#[test]
fn no_more_units_are_under_way_than_may_be_of_the_group_and_of_a_node() {
    let limits = json!({"switch": {"maxInFlightUnits": 3, "maxInFlightUnitsPerNode": 1}});
    let mut world = World::settled(4, [3, 3], limits);
    world.give(Some("promo"));
    let mut most = (0, 0);
    world.until("promo has the peak", |world| {
        let is_out = |name: &&String| {
            let serves = world.pods[*name]["metadata"]["labels"]["springtide.dev/traffic-serving"] == "true";
            !serves && world.stage(name) != Stage::Valley
        };
        let begun: Vec<String> = world.pods_of("pay").iter().filter(is_out).cloned().collect();
        let of_node =
            |name: &String| begun.iter().filter(|other| node(world, other) == node(world, name)).count();
        most.0 = most.0.max(begun.len());
        most.1 = most.1.max(begun.iter().map(of_node).max().unwrap_or_default());
        world.status().active_member.as_deref() == Some("promo")
    });
    assert_eq!(most, (3, 1));
}

#[test]
fn a_hundred_units_at_once_are_planned_by_two_hundred_writes_at_most() {
    let limits = json!({"switch": {"maxInFlightUnits": 5000, "maxInFlightUnitsPerNode": 110}});
    let mut world = World::settled(6, [40, 40], limits);
    world.give(Some("promo"));
    let mut largest = 0;
    loop {
        let passed = world.pass();
        largest = largest.max(passed.plan.writes());
        if !world.go_on_after(&passed) {
            break;
        }
        world.assert_sound();
    }
    assert!((100..=200).contains(&largest), "{largest}");
    assert_switched(&world, [240, 240]);
    for name in world.pods_of("pay").iter().chain(&world.pods_of("promo")) {
        assert_eq!(world.writes_of(name).len(), 2, "{name}");
    }
}

#[test]
fn there_and_back_the_pods_are_the_same() {
    let mut world = switched(World::settled(2, [2, 2], json!({})));
    let before: Vec<String> = world.pods.keys().cloned().collect();
    world.give(Some("pay"));
    world.rest();
    assert_eq!((world.stages("pay"), world.stages("promo")), ([4, 0, 0], [0, 4, 0]));
    assert_eq!(world.pods.keys().cloned().collect::<Vec<_>>(), before);
    assert_eq!(world.status().transition.unwrap().id, 3);
}

#[test]
fn a_pod_is_asked_about_before_its_unit_begins_and_the_answer_costs_no_write() {
    let world = switched(World::settled(2, [1, 1], json!({"guards": {"preflight": {"leadSeconds": 0}}})));
    assert!(world.asked >= 2, "{} questions", world.asked);
    assert_switched(&world, [2, 2]);
}

#[test]
fn what_is_planned_is_not_planned_again_before_somebody_else_has_acted() {
    let mut world = World::settled(3, [2, 2], json!({}));
    world.give(Some("promo"));
    loop {
        let passed = world.pass();
        let done: Vec<_> = passed.plan.stages.iter().flatten().flat_map(Step::writes).cloned().collect();
        let is_question = |action: &Action| matches!(action, Action::DryRun { .. });
        let again = crate::plan::plan(&world.observe(), crate::fixtures::at(world.now));
        for write in again.stages.iter().flatten().flat_map(Step::writes) {
            let is_same = |other: &&springtide_plumbing::plan::Write| {
                let own = (&other.resource, &other.key, other.action.subresource());
                own == (&write.resource, &write.key, write.action.subresource())
            };
            let same = done.iter().find(is_same).filter(|_| !is_question(&write.action));
            assert!(same.is_none(), "{write:?} is planned again after {same:?}");
        }
        if !world.go_on_after(&passed) {
            break;
        }
    }
    assert_switched(&world, [6, 6]);
}
