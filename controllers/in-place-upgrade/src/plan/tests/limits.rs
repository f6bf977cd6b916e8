//! What has been begun counts against limits from its write on: a kubelet takes its time to see it, and a container to end,
//! and for as long a pod says that it is ready.

use super::world::World;
use serde_json::{Value, json};
use springtide_plumbing::workloads::names::CONTROLLER_REVISION_HASH;

fn changed(world: &World) -> usize {
    world.images().iter().filter(|image| **image == "app:2").count()
}

/// Pods that run what their spec does not say any more, or are about to.
fn out(world: &World) -> usize {
    let is_out = |pod: &&Value| pod["spec"]["containers"][0]["image"] != pod["status"]["running"];
    world.pods.values().filter(is_out).count()
}

#[test]
fn pods_that_are_changed_in_traffic_are_unavailable_before_their_kubelets_have_seen_it() {
    let mut world = World::new(10, false, json!({"strategy": {"maxUnavailable": 2}}));
    while changed(&world) == 0 {
        world.pass(usize::MAX);
    }
    for _ in 0..10 {
        world.pass(usize::MAX);
        world.now += 1;
    }
    assert_eq!((changed(&world), out(&world)), (2, 2), "their kubelets have not looked since");
    let mut worst = 0;
    for _ in 0..60 {
        world.others_act();
        for _ in 0..5 {
            world.pass(usize::MAX);
            worst = worst.max(out(&world));
        }
        world.now += 1;
    }
    assert_eq!((changed(&world), worst), (10, 2));
}

#[test]
fn one_that_its_controller_makes_anew_is_unavailable_before_that_has_acted() {
    let spec = json!({"policy": {"ineligible": "Recreate"}, "strategy": {"maxUnavailable": 1}});
    let mut world = World::stateful(3, spec);
    // The last one was made by a template of another environment.
    let mut earlier = world.revisions["db-1"].clone();
    earlier["metadata"] = json!({"name": "db-earlier", "namespace": "ns", "uid": "db-earlier"});
    earlier["revision"] = json!(0);
    let environment = json!([{"name": "MODE", "value": "old"}]);
    earlier["data"]["spec"]["template"]["spec"]["containers"][0]["env"] = environment;
    world.revisions.insert("db-earlier".to_owned(), earlier);
    let last = world.pods.get_mut("db-2").unwrap();
    last["metadata"]["labels"][CONTROLLER_REVISION_HASH] = json!("db-earlier");
    let partition = |world: &World| {
        let set = world.stateful_set.as_ref().unwrap();
        set["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64().unwrap()
    };
    for _ in 0..20 {
        world.pass(usize::MAX);
    }
    assert_eq!((partition(&world), changed(&world)), (2, 0), "its controller has not acted since");
}
