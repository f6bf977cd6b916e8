//! A process that ends after any write: the next one comes to the same end, by the same way.

use super::world::{Fault, Stage, World};
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_crds::time_share_group::{TransitionCause, TransitionResult};
use std::collections::BTreeSet;

/// How a switch is done.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Pipelined,
    ClaimFirst,
    ShrinkFirst,
    Gated,
    Stepwise,
    RolledBack,
}

const KINDS: [Kind; 6] =
    [Kind::Pipelined, Kind::ClaimFirst, Kind::ShrinkFirst, Kind::Gated, Kind::Stepwise, Kind::RolledBack];

/// Units of the first step of [`Kind::Stepwise`]: a third of three, rounded up.
const FIRST_STEP: usize = 2;

impl Kind {
    /// A group that has come to rest.
    fn world(self) -> World {
        let spec = match self {
            Self::Pipelined => json!({}),
            Self::ClaimFirst => json!({"switch": {"order": "ClaimFirst"}}),
            Self::ShrinkFirst => json!({"switch": {"order": "ShrinkFirst"}}),
            Self::Gated => {
                let traffic = json!({"mode": "ReadinessGate"});
                json!({"members": [{"name": "pay", "traffic": traffic}, {"name": "promo", "traffic": traffic}]})
            }
            Self::Stepwise => {
                json!({"switch": {"steps": [{"percent": 34, "holdSeconds": 5}, {"percent": 100}]}})
            }
            Self::RolledBack => json!({"switch": {"onStuck": "Rollback", "maxInFlightUnits": 1}}),
        };
        let mut world = World::settled(3, [1, 1], spec);
        match self {
            Self::RolledBack => {
                // The second unit does not come through.
                let slow = world.pods_of("promo");
                world.oddities.slow.extend(slow.into_iter().skip(1));
            }
            Self::Pipelined | Self::ClaimFirst | Self::ShrinkFirst | Self::Gated | Self::Stepwise => {}
        }
        world
    }
}

/// What a switch comes to.
#[derive(Debug, PartialEq)]
struct End {
    pods: Vec<(String, Stage)>,
    active: Option<String>,
    transition: (u32, Option<String>, Option<String>, TransitionCause, u32, bool),
    results: Vec<(u32, TransitionResult, u32)>,
    reasons: [String; 2],
    finalizers: Value,
}

impl End {
    fn of(world: &World) -> Self {
        let status = world.status();
        let transition = status.transition.unwrap();
        let results = status.last_transitions.iter().map(|last| (last.id, last.result, last.skipped));
        Self {
            pods: world.pods.keys().map(|name| (name.clone(), world.stage(name))).collect(),
            active: status.active_member,
            transition: (
                transition.id,
                transition.from,
                transition.to,
                transition.cause,
                transition.step,
                transition.completion_time.is_some(),
            ),
            results: results.collect(),
            reasons: ["Ready", "Stalled"].map(|type_| world.reason(type_)),
            finalizers: world.group["metadata"]["finalizers"].clone(),
        }
    }
}

/// What is written, and for how much.
type Write = (String, Option<i64>);

/// Writes on pods, by pod.
fn writes(world: &World) -> Vec<(String, Vec<Write>)> {
    let of = |name: &String| {
        let own = world.writes_of(name).into_iter().map(|(what, amount)| (what.to_owned(), amount));
        (name.clone(), own.collect())
    };
    world.pods.keys().map(of).collect()
}

/// Pods of `promo` in the order in which they grow.
fn order(world: &World) -> Vec<String> {
    let grown =
        world.written.iter().filter(|written| written.what == "Pod resize" && written.amount == Some(4000));
    let mut grown: Vec<String> = grown
        .filter(|written| written.name.starts_with("promo"))
        .map(|written| written.name.clone())
        .collect();
    grown.dedup();
    grown
}

/// Nodes with a pod whose writes met something: their units come later than they would have, and nobody waits for them.
fn late(world: &World) -> BTreeSet<String> {
    world.disturbed.iter().map(|name| node(world, name)).collect()
}

fn node(world: &World, pod: &str) -> String {
    world.pods[pod]["spec"]["nodeName"].as_str().unwrap().to_owned()
}

/// The order of units is the switch's: those whose own writes met nothing keep it, and where one goes after the other, or a
/// step after another one, all do.
fn assert_order(kind: Kind, world: &World, expected: &World) -> Result<(), TestCaseError> {
    let (found, wanted) = (order(world), order(expected));
    let late = late(world);
    let on_time = |order: &[String]| -> Vec<String> {
        order.iter().filter(|pod| !late.contains(&node(world, pod))).cloned().collect()
    };
    prop_assert_eq!(on_time(&found), on_time(&wanted), "late are {:?}", late);
    match kind {
        Kind::RolledBack => prop_assert_eq!(found, wanted),
        Kind::Stepwise => prop_assert_eq!(&found[FIRST_STEP..], &wanted[FIRST_STEP..]),
        Kind::Pipelined | Kind::ClaimFirst | Kind::ShrinkFirst | Kind::Gated => {}
    }
    Ok(())
}

/// Gives `promo` the peak, and lets all come to rest without a disturbance.
fn undisturbed(kind: Kind) -> World {
    let mut world = kind.world();
    world.give(Some("promo"));
    world.rest();
    world
}

#[test]
fn a_crash_after_each_write_of_a_switch_changes_neither_its_end_nor_what_it_costs() {
    for kind in KINDS {
        let expected = undisturbed(kind);
        let count = expected.written.len() + expected.asked;
        // Every number of writes that a pass can come to, in each pass.
        for most in 0..8 {
            let mut world = kind.world();
            world.give(Some("promo"));
            for _ in 0..count {
                let passed = world.pass_until(most);
                world.go_on_after(&passed);
                world.assert_sound();
                if most == 0 {
                    break;
                }
            }
            world.rest();
            assert_eq!(End::of(&world), End::of(&expected), "{kind:?}, {most} writes");
            assert_eq!(writes(&world), writes(&expected), "{kind:?}, {most} writes");
        }
    }
}

#[test]
fn a_new_process_in_each_pass_goes_by_the_same_order_of_units() {
    let one = json!({"switch": {"maxInFlightUnits": 1}});
    let mut expected = World::settled(8, [1, 1], one.clone());
    expected.give(Some("promo"));
    expected.rest();
    let mut world = World::settled(8, [1, 1], one);
    world.give(Some("promo"));
    while world.status().active_member.as_deref() != Some("promo") {
        world.step();
        // Drains would never be proved if nobody remembered since when.
        if world.now % 11 == 0 {
            world.crash();
        }
    }
    world.rest();
    assert_eq!(order(&world), order(&expected));
    assert_eq!(order(&world).len(), 8);
    assert_eq!(End::of(&world), End::of(&expected));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The process ends in any pass after any number of writes, and what it has sent may have been stored or not.
    #[test]
    fn a_switch_comes_to_the_same_end_wherever_it_is_interrupted(
        kind in prop::sample::select(KINDS.to_vec()),
        cuts in proptest::collection::vec(0..6usize, 0..60),
        faults in Fault::some(60),
        is_late in any::<bool>(),
    ) {
        let expected = undisturbed(kind);
        let mut world = kind.world();
        world.oddities.is_late = is_late;
        world.faults.extend(faults);
        world.give(Some("promo"));
        for cut in cuts {
            let passed = world.pass_until(cut);
            world.go_on_after(&passed);
            world.assert_sound();
        }
        world.faults.clear();
        world.rest();
        prop_assert_eq!(End::of(&world), End::of(&expected));
        assert_order(kind, &world, &expected)?;
        prop_assert_eq!(writes(&world), writes(&expected));
    }
}
