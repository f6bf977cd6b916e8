//! Tasks that run out of memory and get more of it.

use crate::lives::spec;
use crate::world::World;
use serde_json::{Value, json};

/// A job whose pods ask for so much memory, which is their limit too, and grow by half.
fn hungry(memory: &str, extra: Value) -> Value {
    let mut spec = spec(json!({
        "retry": {"initialBackoffSeconds": 0, "maxBackoffSeconds": 0, "onOOM": {"maxSteps": 2}},
        "template": {"spec": {"containers": [{"name": "main", "image": "app", "resources": {
            "requests": {"memory": memory}, "limits": {"memory": memory}}}]}},
    }));
    for (field, value) in extra.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

/// What a pod requests and what it is limited to.
fn memory(world: &World, pod: &str) -> (String, String) {
    let resources = &world.cluster.pods.objects[pod]["spec"]["containers"][0]["resources"];
    let of = |kind: &str| resources[kind]["memory"].as_str().unwrap().to_owned();
    (of("requests"), of("limits"))
}

/// The pod starts, runs out of memory, and its failure is recorded.
fn run_out(world: &mut World, pod: &str) {
    world.cluster.start(pod);
    world.settle();
    world.cluster.run_out_of_memory(pod);
    world.cluster.pass_time(2000);
    world.settle();
}

fn both(memory: &str) -> (String, String) {
    (memory.to_owned(), memory.to_owned())
}

#[test]
fn a_single_task_grows_by_steps_over_restarts_and_keeps_what_it_got() {
    let mut world = World::new("4");
    world.cluster.submit("a", hungry("100Mi", json!({})));
    world.settle();
    assert_eq!(memory(&world, "a-0-0"), both("100Mi"));
    run_out(&mut world, "a-0-0");
    assert_eq!(memory(&world, "a-0-1"), both("150Mi"));
    // Another failure is no step.
    world.cluster.start("a-0-1");
    world.settle();
    world.cluster.finish("a-0-1", 1);
    world.cluster.pass_time(2000);
    world.settle();
    assert_eq!(memory(&world, "a-0-2"), both("150Mi"));
    world.restart();
    run_out(&mut world, "a-0-2");
    assert_eq!(memory(&world, "a-0-3"), both("225Mi"));
    // A disruption is none either, and its pod is made again as it was.
    world.cluster.start("a-0-3");
    world.settle();
    world.cluster.evict("a-0-3");
    world.restart();
    world.settle();
    assert_eq!(memory(&world, "a-0-3"), both("225Mi"));
    run_out(&mut world, "a-0-3");
    assert_eq!(memory(&world, "a-0-4"), both("225Mi"), "two steps are the most");
    let status = world.run_to_the_end("a")["status"].clone();
    assert_eq!(status["failed"], 4);
    assert!(
        status["exitCodes"]
            .as_array()
            .unwrap()
            .contains(&json!({"code": 137, "reason": "OOMKilled", "count": 3}))
    );
}

#[test]
fn each_of_several_tasks_has_its_own_steps_and_the_status_keeps_them() {
    let mut world = World::new("4");
    world.cluster.submit(
        "a",
        hungry("100Mi", json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"})),
    );
    world.settle();
    world.cluster.pass_time(2000);
    world.settle();
    run_out(&mut world, "a-1-0");
    assert_eq!(world.status("a")["indexes"]["retries"], "1:1/1");
    world.restart();
    run_out(&mut world, "a-1-1");
    assert_eq!(world.status("a")["indexes"]["retries"], "1:2/2");
    assert_eq!(memory(&world, "a-1-2"), both("225Mi"));
    assert_eq!(memory(&world, "a-0-0"), both("100Mi"));
    world.run_to_the_end("a");
    assert_eq!(world.cluster.violations, [] as [String; 0]);
}

#[test]
fn nothing_grows_without_the_policy() {
    let mut world = World::new("4");
    world
        .cluster
        .submit("a", hungry("100Mi", json!({"retry": {"initialBackoffSeconds": 0}, "completions": 2})));
    world.settle();
    run_out(&mut world, "a-0-0");
    assert_eq!(memory(&world, "a-0-1"), both("100Mi"));
    assert_eq!(world.status("a")["indexes"]["retries"], "0:1");
}

#[test]
fn what_grew_is_charged_as_it_is_and_a_task_that_fits_nowhere_stops_no_other() {
    // The node has 64Gi.
    let mut world = World::new("64");
    world.cluster.submit("a", hungry("40Gi", json!({"completions": 4, "completionMode": "Indexed"})));
    world.settle();
    run_out(&mut world, "a-0-0");
    // 60Gi fit, but the others come first.
    assert_eq!(world.pod_names(), ["a-1-0"]);
    world.cluster.submit("b", hungry("10Gi", json!({})));
    world.settle();
    world.cluster.start("b-0-0");
    world.cluster.start("a-1-0");
    world.settle();
    world.cluster.finish("a-1-0", 0);
    world.cluster.pass_time(2000);
    world.settle();
    run_out(&mut world, "a-2-0");
    world.cluster.start("a-3-0");
    world.settle();
    world.cluster.finish("a-3-0", 0);
    world.cluster.pass_time(2000);
    world.settle();
    assert_eq!(world.pod_names(), ["b-0-0"], "60Gi do not fit beside 10Gi");
    assert_eq!(world.status("a")["succeeded"], 2);
    for _ in 0..60 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!((world.reason("a", "Queued"), world.reason("a", "Stalled")), ("NoCapacity", ""));
    world.run_to_the_end("b");
    world.settle();
    assert_eq!(memory(&world, "a-0-1"), both("61440Mi"));
    run_out(&mut world, "a-0-1");
    // 90Gi are more than any node has: the other one goes on, then the job says so.
    assert_eq!(world.pod_names(), ["a-2-1"]);
    world.cluster.start("a-2-1");
    world.settle();
    world.cluster.finish("a-2-1", 0);
    for _ in 0..60 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!((world.reason("a", "Complete"), world.reason("a", "Stalled")), ("Queued", "NeverFits"));
    // The remedy is in the user's hands.
    world.cluster.edit("a", |spec| spec["retry"]["onOOM"]["maxMemory"] = json!("62Gi"));
    world.settle();
    assert_eq!(memory(&world, "a-0-2"), both("63488Mi"));
    world.run_to_the_end("a");
}

#[test]
fn a_gang_of_which_one_grew_starts_as_a_whole_when_all_of_it_fits() {
    let mut world = World::new("64");
    let gang = json!({"completions": 2, "parallelism": 2, "minParallelism": 2, "completionMode": "Indexed"});
    world.cluster.submit("a", hungry("20Gi", gang));
    world.settle();
    world.cluster.pass_time(2000);
    world.settle();
    for name in ["a-0-0", "a-1-0"] {
        world.cluster.start(name);
    }
    world.settle();
    world.cluster.run_out_of_memory("a-0-0");
    world.cluster.evict("a-1-0");
    world.cluster.pass_time(2000);
    world.settle();
    assert_eq!((memory(&world, "a-0-1"), memory(&world, "a-1-0")), (both("30720Mi"), both("20Gi")));
    world.run_to_the_end("a");
    assert_eq!(world.cluster.violations, [] as [String; 0]);
}
