//! Pods of others that wait for any room that a switch lets go of.

use super::world::{Fault, World};
use proptest::prelude::*;
use serde_json::json;

/// Switches there and back, while on each node a pod of somebody else waits for so much, and writes meet these. Those that
/// came to run.
fn thieves(order: &str, faults: Vec<Fault>, is_late: bool) -> usize {
    let mut world = World::settled(4, [2, 2], json!({"switch": {"order": order, "overlap": "Never"}}));
    world.oddities.is_late = is_late;
    world.faults.extend(faults);
    for number in 0..4 {
        world.add_third(&format!("third-{number}"), &format!("node-{number}"), 1000);
    }
    for to in ["promo", "pay"] {
        world.give(Some(to));
        world.rest();
    }
    world
        .pods
        .values()
        .filter(|pod| !pod["spec"]["nodeSelector"].is_null() && !pod["spec"]["nodeName"].is_null())
        .count()
}

#[test]
fn nobody_takes_the_room_of_a_switch_that_claims_it_in_time() {
    for order in ["Pipelined", "ClaimFirst"] {
        assert_eq!(thieves(order, Vec::new(), false), 0, "{order}");
    }
}

#[test]
fn somebody_takes_the_room_of_a_switch_that_lets_go_of_it() {
    assert!(thieves("ShrinkFirst", Vec::new(), false) > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn nobody_takes_room_that_is_claimed_first_whatever_becomes_of_writes(
        faults in Fault::some(120),
        is_late in any::<bool>(),
    ) {
        prop_assert_eq!(thieves("ClaimFirst", faults, is_late), 0);
    }
}

#[test]
fn a_unit_whose_room_was_taken_stays_small_and_is_raised_when_it_is_there_again() {
    let mut world = World::settled(2, [1, 1], json!({"switch": {"order": "ShrinkFirst"}}));
    world.add_third("third", "node-0", 1000);
    world.give(Some("promo"));
    world.rest();
    assert_eq!(world.stages("promo"), [1, 1, 0], "{:#}", world.group["status"]);
    assert!(world.reason("Ready").starts_with("Settled"), "{}", world.reason("Ready"));
    world.pods.remove("third");
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([2, 0, 0], "Settled"));
}

#[test]
fn where_others_have_the_room_already_no_donor_is_touched() {
    let mut world = World::new(2, [1, 1], json!({})).with_room(1000).at_rest();
    // promo needs a core more than pay gives up on a node where somebody else has what was left.
    let larger = json!([{"name": "promo", "containers": [{"name": "app", "peak": {"cpu": "4900m"}}]}]);
    world.edit(json!({"members": larger}));
    world.deployments.get_mut("promo").unwrap().peak = json!("4900m");
    world.add_third("third", "node-0", 900);
    world.rest();
    world.written.clear();
    world.give(Some("promo"));
    world.rest();
    let on_full: Vec<String> = world
        .pods
        .iter()
        .filter(|(name, pod)| *name != "third" && pod["spec"]["nodeName"] == "node-0")
        .map(|(name, _)| name.clone())
        .collect();
    for name in on_full {
        assert!(world.writes_of(&name).is_empty(), "{name}");
    }
    assert_eq!((world.stages("promo"), world.stages("pay")), ([1, 1, 0], [1, 1, 0]));
    assert_eq!(world.reason("CapacitySafe"), "NodesOverBudget");
}
