//! Who gets traffic while sizes change.

use super::world::{Stage, World};
use serde_json::json;

#[test]
fn with_a_trickle_so_many_small_pods_serve_on_and_are_the_same_ones_each_time() {
    let trickle = json!({"valley": "Trickle", "trickle": 2});
    let members = json!([{"name": "pay", "traffic": trickle}, {"name": "promo", "traffic": trickle}]);
    let mut world = World::settled(3, [2, 2], json!({"members": members}));
    let serving = |world: &World| -> Vec<String> {
        let label = |name: &&String| {
            world.pods[*name]["metadata"]["labels"]["springtide.dev/traffic-serving"] == "true"
        };
        world.pods_of("pay").iter().filter(label).cloned().collect()
    };
    assert_eq!((world.serving("pay"), world.serving("promo")), (6, 2));
    world.give(Some("promo"));
    world.rest();
    let first = serving(&world);
    assert_eq!((first.len(), world.serving("promo")), (2, 6));
    world.give(Some("pay"));
    world.rest();
    world.give(Some("promo"));
    world.rest();
    assert_eq!((serving(&world), world.reason("Ready").as_str()), (first, "Settled"));
}

#[test]
fn pods_that_keep_their_traffic_are_resized_and_nothing_else() {
    let keep = json!({"valley": "Keep"});
    let members = json!([{"name": "pay", "traffic": keep}, {"name": "promo", "traffic": keep}]);
    let mut world = World::settled(2, [2, 2], json!({"members": members}));
    assert_eq!((world.serving("pay"), world.serving("promo")), (4, 4));
    world.give(Some("promo"));
    world.rest();
    assert_eq!((world.serving("pay"), world.serving("promo")), (4, 4));
    for name in world.pods.keys() {
        let writes = world.writes_of(name);
        assert!(writes.len() == 1 && writes[0].0 == "Pod resize", "{name}: {writes:?}");
    }
}

#[test]
fn nobody_shrinks_while_a_slice_lists_it() {
    let drain = json!({"drain": {"timeoutSeconds": 3600}});
    let members = json!([{"name": "pay", "traffic": drain}]);
    let mut world = World::settled(2, [1, 1], json!({"members": members}));
    world.oddities.stale_slices = true;
    world.give(Some("promo"));
    world.run_for(600);
    assert_eq!((world.serving("pay"), world.serving("promo")), (0, 0));
    let resized = world.written.iter().any(|written| written.what == "Pod resize");
    assert!(!resized, "{:?}", world.written);
    world.oddities.stale_slices = false;
    world.rest();
    assert_eq!((world.stages("pay"), world.stages("promo")), ([0, 2, 0], [2, 0, 0]));
}

#[test]
fn a_drain_that_is_not_proved_in_time_gives_the_unit_up_and_its_pods_serve_again() {
    let mut world = World::settled(2, [1, 1], json!({"guards": {"failureThresholdPercent": 100}}));
    world.oddities.stale_slices = true;
    world.give(Some("promo"));
    world.until("the switch ends", |world| world.status().active_member.as_deref() == Some("promo"));
    assert_eq!((world.stages("pay"), world.stages("promo")), ([2, 0, 0], [0, 2, 0]));
    assert_eq!(world.reason("Ready"), "SettledWithSkips");
    let stuck = world.status().stuck;
    assert!(stuck.len() == 2 && stuck.iter().all(|row| row.reason.as_str() == "DrainTimedOut"), "{stuck:?}");
}

#[test]
fn a_drain_that_may_proceed_does_so_when_its_time_is_over() {
    let drain = json!({"drain": {"timeoutSeconds": 20, "onTimeout": "Proceed"}});
    let mut world = World::settled(2, [1, 1], json!({"members": [{"name": "pay", "traffic": drain}]}));
    world.oddities.stale_slices = true;
    world.give(Some("promo"));
    let begun = world.now;
    world.until("it proceeds", |world| world.count("pay", Stage::Valley) == 2);
    assert!(world.now - begun >= 20, "after {} s", world.now - begun);
}

#[test]
fn traffic_comes_when_pods_have_been_warm_for_long_enough() {
    let warm = json!([{"name": "promo", "warmUpSeconds": 30}]);
    let mut world = World::settled(2, [1, 1], json!({"members": warm}));
    world.give(Some("promo"));
    let is_large = |world: &World, name: &str| {
        world.pods[name]["status"]["containerStatuses"][0]["resources"]["requests"]["cpu"] == "4"
    };
    world.until("they are large", |world| world.pods_of("promo").iter().all(|name| is_large(world, name)));
    let large = world.now;
    assert_eq!(world.serving("promo"), 0);
    world.until("they serve", |world| world.serving("promo") == 2);
    assert!(world.now - large >= 29, "after {} s", world.now - large);
    world.rest();
    assert_eq!(world.reason("Ready"), "Settled");
}

#[test]
fn a_label_that_somebody_else_has_changed_is_set_back() {
    let mut world = World::settled(2, [1, 1], json!({}));
    let label = |world: &mut World, name: &str, value: &str| {
        world.pods.get_mut(name).unwrap()["metadata"]["labels"]["springtide.dev/traffic-serving"] =
            json!(value);
    };
    let (pay, promo) = (world.pods_of("pay")[0].clone(), world.pods_of("promo")[0].clone());
    label(&mut world, &pay, "false");
    world.rest();
    assert_eq!(world.stages("pay"), [2, 0, 0]);
    // Of a small pod that serves nobody says that it should: it is seen only with the next look.
    label(&mut world, &promo, "true");
    while world.serving("promo") > 0 {
        let passed = world.pass();
        world.go_on_after(&passed);
    }
    world.rest();
    assert_eq!((world.stages("promo"), world.reason("Ready").as_str()), ([0, 2, 0], "Settled"));
}

#[test]
fn a_size_that_somebody_else_has_changed_is_set_back() {
    let mut world = World::settled(2, [1, 1], json!({}));
    let pay = world.pods_of("pay")[0].clone();
    let pod = world.pods.get_mut(&pay).unwrap();
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1");
    pod["metadata"]["generation"] = json!(9);
    // It serves with less than its size meanwhile, which is that hand's doing.
    while world.stage(&pay) != Stage::Peak {
        let passed = world.pass();
        assert!(world.go_on_after(&passed), "{:#}", world.group["status"]);
    }
    world.rest();
    assert_eq!(world.reason("Ready"), "Settled");
}
