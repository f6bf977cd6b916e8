//! Who has to go for whom, over several nodes and through a process that dies in between: no pod ends that need not,
//! and what ends has a warrant, which [`World::pass`] sees to.

use crate::cluster::{is_deleting, text};
use crate::lives::spec;
use crate::world::{Trouble, World, key};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Nodes of four cores each.
const NODES: usize = 4;

fn node(number: usize) -> String {
    format!("n{}", number % NODES + 1)
}

/// A job of the queue, of pods of so many cores.
fn sized(cpu: &str, extra: Value) -> Value {
    let mut spec = spec(extra);
    spec["queueName"] = json!("q");
    spec["template"] = json!({"spec": {"containers": [
        {"name": "main", "image": "app", "resources": {"requests": {"cpu": cpu}}}]}});
    spec
}

/// Pods of BestEffort end for those of Guaranteed.
fn world() -> World {
    let mut world = World::new("4");
    for number in 1..NODES {
        world.set_node(&node(number), Some("4"), false);
    }
    world.set_queue(
        "q",
        Some(json!({
            "maxTier": "Guaranteed",
            "tiers": [{"name": "BestEffort", "preemptible": {"by": ["Guaranteed"]}}],
        })),
    );
    world
}

/// Which task of its job a pod is.
fn index(pod: &str) -> usize {
    pod.split('-').nth(1).unwrap().parse().unwrap()
}

/// The scheduler spreads the pods of a job over the nodes.
fn spread(world: &mut World, job: &str) {
    let is_waiting = |pod: &&Value| {
        text(pod, "/status/phase") == "Pending"
            && !is_deleting(pod)
            && text(pod, "/metadata/ownerReferences/0/name") == job
    };
    let waiting = world.cluster.pods.objects.values().filter(is_waiting);
    let names: Vec<String> = waiting.map(|pod| text(pod, "/metadata/name").to_owned()).collect();
    for name in names {
        world.cluster.start_on(&name, &node(index(&name)));
    }
}

/// The pods of a job that were ended, in this order.
fn ended(world: &World, job: &str) -> Vec<String> {
    let start = format!("delete pods {job}-");
    let lines = world.cluster.log.iter().filter(|line| line.starts_with(&start));
    lines.map(|line| line.strip_prefix("delete pods ").unwrap().to_owned()).collect()
}

/// The job `low` runs so many pods, its task `i` on node `i % NODES`.
fn fill(world: &mut World, spec: Value, pods: usize) {
    world.cluster.submit("low", spec);
    for _ in 0..20 {
        world.settle();
        spread(world, "low");
        world.cluster.pass_time(1000);
    }
    world.settle();
    assert_eq!(world.live().len(), pods, "{:?}", world.cluster.log);
}

/// Twenty seconds go by. The process dies before the write of this number in a pass that has told why pods of `low`
/// end.
fn twenty_seconds(world: &mut World, crash: Option<usize>) {
    let restarts = world.restarts;
    for _ in 0..20 {
        for passes in 0.. {
            assert!(passes < 1000, "a hot loop: {:?}", world.cluster.log);
            world.deliver(usize::MAX, usize::MAX);
            let Some(key) = world.next_key() else { break };
            let is_told = world.reason("low", "Degraded") == "Reclaimed"
                || world.reason("low", "Suspended") == "Preempted";
            let trouble = match crash {
                Some(number) if &*key.name == "low" && is_told && world.restarts == restarts => {
                    Trouble::Crash(number)
                }
                Some(_) | None => Trouble::None,
            };
            world.pass(&key, trouble);
        }
        for name in world.pod_names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
            world.cluster.reap(&name);
        }
        world.cluster.pass_time(1000);
    }
    world.settle();
}

#[test]
fn an_elastic_job_loses_the_pods_of_one_node_and_no_more_whoever_leads() {
    for crash in [None, Some(0), Some(1), Some(2), Some(3)] {
        let mut world = world();
        fill(&mut world, sized("1", json!({"completions": 100, "parallelism": 16})), 16);
        world.cluster.submit("high", sized("4", json!({"tier": "Guaranteed"})));
        twenty_seconds(&mut world, crash);
        assert_eq!(world.restarts, usize::from(crash.is_some()));
        let gone = ended(&world, "low");
        let nodes: BTreeSet<String> = gone.iter().map(|pod| node(index(pod))).collect();
        assert_eq!((gone.len(), nodes.len()), (4, 1), "{crash:?}: {gone:?}");
        assert_eq!(world.reason("low", "Degraded"), "Reclaimed", "{crash:?}: {:?}", world.cluster.log);
        assert!(world.pod_names().contains(&"high-0-0"), "{crash:?}: {:?}", world.pod_names());
        // What it lost comes back, and has not failed.
        world.cluster.start_on("high-0-0", nodes.first().unwrap());
        world.settle();
        world.cluster.finish("high-0-0", 0);
        for _ in 0..20 {
            world.settle();
            spread(&mut world, "low");
            world.cluster.pass_time(1000);
        }
        world.settle();
        assert_eq!(world.live().len(), 16);
        assert_eq!(
            (world.reason("low", "Degraded"), &world.status("low")["failed"]),
            ("FullParallelism", &json!(0))
        );
        assert_eq!(ended(&world, "low").len(), 4, "{crash:?}");
        assert_eq!(world.cluster.violations, [] as [String; 0]);
    }
}

#[test]
fn a_gang_ends_as_a_whole_whoever_leads() {
    for crash in [None, Some(0), Some(1), Some(5), Some(11)] {
        let mut world = world();
        fill(&mut world, sized("1", json!({"completions": 12, "parallelism": 12, "minParallelism": 12})), 12);
        world.cluster.submit("high", sized("4", json!({"tier": "Guaranteed"})));
        twenty_seconds(&mut world, crash);
        assert_eq!(world.restarts, usize::from(crash.is_some()));
        let gone: BTreeSet<String> = ended(&world, "low").into_iter().collect();
        assert_eq!(gone.len(), 12, "{crash:?}: {gone:?}");
        assert!(world.pod_names().contains(&"high-0-0"), "{crash:?}: {:?}", world.pod_names());
    }
}

#[test]
fn who_takes_over_gives_what_a_lender_took_back_to_nobody_else() {
    let mut world = World::new("4");
    let of_cohort =
        |max: &str| json!({"cohort": "idle", "quota": [{"resource": "cpu", "nominal": "1", "max": max}]});
    world.set_queue("q", Some(of_cohort("2")));
    world.set_queue("lender", Some(of_cohort("1")));
    world.cluster.submit("job", sized("1", json!({"completions": 2, "parallelism": 2})));
    world.settle();
    for pod in ["job-0-0", "job-1-0"] {
        world.cluster.start(pod);
    }
    world.settle();
    let mut back = sized("1", json!({}));
    back["queueName"] = json!("lender");
    world.cluster.submit("back", back);
    // The process dies as soon as the pod is gone that it had ended.
    while world.pod_names().len() > 1 {
        world.deliver(usize::MAX, usize::MAX);
        match world.next_key() {
            Some(key) => {
                world.pass(&key, Trouble::None);
            }
            None => assert!(world.sleep(), "{:?}", world.cluster.log),
        }
        world.cluster.reap("job-1-0");
    }
    assert_eq!(world.pod_names(), ["job-0-0"]);
    world.restart();
    // Its workers look at several jobs at a time, so that any may be the first.
    world.pass(&key("job"), Trouble::None);
    world.settle();
    assert_eq!(world.pod_names(), ["back-0-0", "job-0-0"]);
    let is_going = |pod: &&Value| is_deleting(pod);
    assert_eq!(world.cluster.pods.objects.values().filter(is_going).count(), 0, "{:?}", world.cluster.log);
}
