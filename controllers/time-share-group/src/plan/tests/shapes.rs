//! Members of other sizes than each other, pods that find no partner, and nobody who has the peak.

use super::world::{Stage, World};
use serde_json::{Value, json};

/// A member whose pods move so much cpu between valley and peak, in thousandths of a core.
fn sized(name: &str, peak: i64, valley: i64) -> Value {
    let size = |cpu: i64| json!({"cpu": format!("{cpu}m"), "memory": "1Gi"});
    json!({"name": name, "containers": [{"name": "app", "peak": size(peak), "valley": size(valley)}]})
}

/// There and back; at either end all is as it should be.
#[track_caller]
fn there_and_back(mut world: World, pods: [usize; 2], block: [usize; 2]) {
    for (to, own, other) in [("promo", pods[1], pods[0]), ("pay", pods[0], pods[1])] {
        let from = if to == "promo" { "pay" } else { "promo" };
        world.written.clear();
        world.give(Some(to));
        world.rest();
        assert_eq!(world.reason("Ready"), "Settled", "{:#}", world.group["status"]);
        assert_eq!((world.stages(to), world.stages(from)), ([own, 0, 0], [0, other, 0]), "to {to}");
        world.assert_whole(block);
        for name in world.pods.keys() {
            assert!(world.writes_of(name).len() <= 2, "{name}: {:?}", world.writes_of(name));
        }
    }
}

#[test]
fn three_that_grow_have_the_room_of_one_that_shrinks() {
    let members = json!([sized("pay", 3100, 100), sized("promo", 1100, 100)]);
    let world = World::settled(3, [2, 6], json!({"members": members}));
    there_and_back(world, [6, 18], [1, 3]);
}

#[test]
fn one_that_grows_has_the_room_of_three_that_shrink() {
    let members = json!([sized("pay", 1100, 100), sized("promo", 3100, 100)]);
    let world = World::settled(3, [6, 2], json!({"members": members}));
    there_and_back(world, [18, 6], [3, 1]);
}

#[test]
fn sizes_that_do_not_divide_each_other_move_by_whole_blocks() {
    let members = json!([sized("pay", 2100, 100), sized("promo", 3100, 100)]);
    let world = World::settled(2, [2, 1], json!({"members": members}));
    there_and_back(world, [4, 2], [2, 1]);
}

#[test]
fn who_finds_nobody_to_shrink_grows_where_there_is_room() {
    let mut world = World::new(2, [1, 1], json!({})).with_room(4200);
    // A second one of each comes to each node, as there is room for it at valley size.
    world.deployments.get_mut("promo").unwrap().replicas = 4;
    let mut world = world.at_rest();
    world.give(Some("promo"));
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([4, 0, 0], [0, 2, 0]));
    assert_eq!(world.status().transition.unwrap().units.total, 4);
}

#[test]
fn who_finds_neither_partner_nor_room_stays_small_and_grows_when_there_is_some() {
    let mut world = World::new(2, [1, 1], json!({})).with_room(400);
    world.deployments.get_mut("promo").unwrap().replicas = 4;
    let mut world = world.at_rest();
    world.give(Some("promo"));
    world.rest();
    assert_eq!(world.stages("promo"), [2, 2, 0], "{:#}", world.group["status"]);
    assert_eq!(world.reason("Ready"), "SettledWithSkips");
    let units = world.status().transition.unwrap().units;
    assert_eq!((units.total, units.done, units.skipped), (4, 2, 2));
    // Others go.
    world.deployments.get_mut("promo").unwrap().replicas = 2;
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([2, 0, 0], "Settled"));
}

#[test]
fn who_finds_no_partner_is_left_small_where_the_spec_says_so() {
    let mut world = World::new(2, [1, 1], json!({"pairing": {"unpaired": "Leave"}})).with_room(9000);
    world.deployments.get_mut("promo").unwrap().replicas = 4;
    let mut world = world.at_rest();
    world.give(Some("promo"));
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([2, 2, 0], [0, 2, 0]));
    assert_eq!(world.status().transition.unwrap().units.total, 2);
    let member = world.status().members.into_iter().find(|member| member.name == "promo").unwrap();
    assert_eq!((member.pods, member.unpaired), (4, 2));
}

#[test]
fn those_that_shrink_for_nobody_go_last() {
    let mut world = World::new(2, [1, 1], json!({})).with_room(8400);
    world.deployments.get_mut("pay").unwrap().replicas = 4;
    let mut world = world.at_rest();
    assert_eq!(world.stages("pay"), [4, 0, 0], "{:#}", world.group["status"]);
    world.edit(json!({"switch": {"maxInFlightUnits": 1, "overlap": "Never"}}));
    world.give(Some("promo"));
    world.rest();
    assert_eq!((world.stages("promo"), world.stages("pay")), ([2, 0, 0], [0, 4, 0]));
    let resized: Vec<&str> = world
        .written
        .iter()
        .filter(|written| written.what == "Pod resize")
        .map(|written| if written.amount == Some(4000) { "grow" } else { "shrink" })
        .collect();
    assert_eq!(resized, ["shrink", "grow", "shrink", "grow", "shrink", "shrink"]);
}

#[test]
fn nobody_may_have_the_peak_and_all_are_small_then() {
    let mut world = World::settled(2, [2, 2], json!({}));
    world.give(None);
    world.rest();
    assert_eq!((world.stages("pay"), world.stages("promo")), ([0, 4, 0], [0, 4, 0]));
    assert_eq!((world.status().active_member, world.reason("Ready").as_str()), (None, "Settled"));
    world.give(Some("promo"));
    world.rest();
    assert_eq!((world.stages("pay"), world.stages("promo")), ([0, 4, 0], [4, 0, 0]));
}

#[test]
fn a_group_whose_peak_is_nobodys_by_default_writes_nothing() {
    let mut world = World::new(2, [2, 2], json!({"schedule": {"defaultMember": null}}));
    world.rest();
    let pods = world.written.iter().filter(|written| written.what.starts_with("Pod")).count();
    assert_eq!((pods, world.status().active_member), (0, None));
    assert_eq!(world.count("pay", Stage::Valley) + world.count("promo", Stage::Valley), 8);
    assert_eq!(world.reason("Ready"), "Settled");
}

#[test]
fn a_member_that_has_no_pods_gets_the_peak_and_gives_it_back() {
    let mut world = World::settled(2, [2, 0], json!({}));
    world.give(Some("promo"));
    world.rest();
    assert_eq!((world.stages("pay"), world.reason("Ready").as_str()), ([0, 4, 0], "Settled"));
    world.give(Some("pay"));
    world.rest();
    assert_eq!((world.stages("pay"), world.status().active_member.as_deref()), ([4, 0, 0], Some("pay")));
}
