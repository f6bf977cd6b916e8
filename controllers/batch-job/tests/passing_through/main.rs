//! Many jobs pass through, one generation after the other: what stays is the history and no more, neither as
//! objects nor in memory. A program of its own, as its memory is what is measured.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
// The simulation has more than is used here.
#![allow(dead_code, reason = "shared with the simulation")]

#[path = "../simulation/cluster.rs"]
mod cluster;
#[path = "../simulation/world.rs"]
mod world;

use serde_json::json;
use springtide_batch_job::Settings;
use world::{World, is_finished};

/// Jobs of the sample, and of the long run (`SPRINGTIDE_LONG=1`).
const SAMPLE: usize = 2_000;
const LONG: usize = 90_000;
/// Jobs that are there at a time.
const GENERATION: usize = 40;
/// Finished jobs that are kept.
const HISTORY: usize = 60;
/// By so much the memory may grow from the first fifth of the jobs on, in KiB: the allocator's own waste.
const GROWTH_KIB: usize = 8 * 1024;

/// Resident memory of this process.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// kueue#3818, whose memory grew with every workload that had ever been there.
#[test]
fn jobs_that_have_passed_through_leave_the_history_and_no_memory() {
    let count = if std::env::var("SPRINGTIDE_LONG").is_ok_and(|long| long == "1") { LONG } else { SAMPLE };
    let settings = Settings { history_limit: HISTORY, ..Settings::default() };
    let mut world = World::with_settings("64", settings);
    world.set_queue("q", Some(json!({"retention": {"historyLimit": HISTORY}})));
    let mut reference = None;
    for generation in 0..count / GENERATION {
        for number in 0..GENERATION {
            // Of each kind some: that name a queue and not, that fail, of several tasks, each class another one.
            let code = usize::from(number % 5 == 0);
            let mut spec = json!({"backoffLimit": 0, "template": {"spec": {"containers": [{"name": "main", "image": "app",
                "resources": {"requests": {"cpu": format!("{}m", 50 + (generation * GENERATION + number) % 997)}}}]}}});
            spec["queueName"] = json!("q");
            if number % 7 == 0 {
                spec["completions"] = json!(3);
                spec["parallelism"] = json!(3);
            }
            world.cluster.submit(&format!("g{generation}-{number}-{code}"), spec);
        }
        for _ in 0..100 {
            world.settle();
            if world.cluster.jobs.objects.values().all(is_finished) && world.pod_names().is_empty() {
                break;
            }
            let pods: Vec<String> = world.pod_names().into_iter().map(str::to_owned).collect();
            for pod in pods {
                // Its job's name says how it ends.
                let code = i32::from(pod.rsplit('-').nth(2) == Some("1"));
                world.cluster.start(&pod);
                world.cluster.finish(&pod, code);
                world.cluster.reap(&pod);
            }
            world.settle();
            world.cluster.pass_time(1000);
        }
        let jobs = &world.cluster.jobs.objects;
        assert!(jobs.values().all(is_finished), "generation {generation}");
        assert!(jobs.len() <= HISTORY, "{} jobs are kept", jobs.len());
        assert!(world.pod_names().is_empty());
        // What the test itself writes down is no matter of the controller.
        world.cluster.log.clear();
        world.cluster.ended.clear();
        if generation == count / GENERATION / 5 {
            reference = Some(resident_kib());
        }
    }
    let grown = resident_kib().saturating_sub(reference.unwrap());
    assert!(grown <= GROWTH_KIB, "{grown} KiB more after {count} jobs");
}
