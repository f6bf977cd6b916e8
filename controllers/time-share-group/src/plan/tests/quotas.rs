//! ResourceQuotas: those that grow count twice until the others have shrunk.

use super::world::{Stage, World};
use serde_json::{Value, json};

/// Six nodes with a unit each, and a quota with room for so many cores more than all of it has.
fn bounded(room: i64, over: Value) -> World {
    let mut world = World::settled(6, [1, 1], over);
    let used: i64 = 6 * (4000 + 200);
    world.oddities.quota = Some(used + room);
    world
}

#[test]
fn no_more_units_are_under_way_than_the_quota_has_room_for_and_nothing_is_refused() {
    let mut world = bounded(3 * 3800, json!({}));
    world.give(Some("promo"));
    let mut most = 0;
    loop {
        let passed = world.pass();
        let growing = |name: &&String| {
            let asked = &world.pods[*name]["spec"]["containers"][0]["resources"]["requests"]["cpu"];
            *asked == "4" && world.stage(name) != Stage::Peak
        };
        most = most.max(world.pods_of("promo").iter().filter(growing).count());
        if !world.go_on_after(&passed) {
            break;
        }
        world.assert_sound();
    }
    assert!((1..=3).contains(&most), "{most}");
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([6, 0, 0], "Settled"));
    for name in world.pods.keys() {
        assert_eq!(world.writes_of(name).len(), 2, "{name}");
    }
}

#[test]
fn a_quota_without_room_for_one_is_told_and_nobody_begins() {
    let mut world = bounded(3799, json!({}));
    world.give(Some("promo"));
    world.until("it is told", |world| world.reason("CapacitySafe") == "QuotaTooSmall");
    world.run_for(600);
    assert_eq!((world.stages("pay"), world.serving("pay")), ([6, 0, 0], 6));
    // Shrinking first needs none.
    world.edit(json!({"switch": {"order": "ShrinkFirst"}}));
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([6, 0, 0], "Settled"));
}
