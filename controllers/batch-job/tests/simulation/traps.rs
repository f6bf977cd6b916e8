//! What has gone wrong in other systems for single jobs.

use crate::cluster::{is_terminal, text};
use crate::lives::{begin, spec};
use crate::world::{Trouble, World, is_finished, key};
use serde_json::{Value, json};

fn creates(world: &World) -> usize {
    world.cluster.log.iter().filter(|line| line.starts_with("create pods")).count()
}

/// The container ends with this message.
fn finish_saying(world: &mut World, pod: &str, code: i32, message: &str) {
    world.cluster.finish(pod, code);
    world.cluster.change_pod(pod, |pod| {
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = json!(message);
        true
    });
}

/// Seconds from the failure of a task to its next attempt, while nothing or a lot happens beside it.
fn pause(with_events: bool) -> Option<i64> {
    let mut world = begin(spec(json!({
        "completions": 3, "parallelism": 3, "completionMode": "Indexed",
        "retry": {"initialBackoffSeconds": 20, "maxBackoffSeconds": 600},
    })));
    world.cluster.pass_time(2000);
    world.settle();
    world.work_but_finish_nothing();
    world.settle();
    world.cluster.finish("a-1-0", 1);
    let failed = world.cluster.now;
    for second in 0..60 {
        world.settle();
        if world.pod_names().contains(&"a-1-1") {
            return Some(world.cluster.now.duration_since(failed).as_secs());
        }
        if with_events {
            match second % 5 {
                0 => world.cluster.edit("a", |spec| spec["priority"] = json!(second)),
                1 => drop(world.cluster.change_pod("a-0-0", |pod| {
                    pod["status"]["conditions"] = json!([{"type": format!("T{second}"), "status": "True"}]);
                    true
                })),
                2 => world.cluster.intrude(&format!("other-{second}")),
                3 => world.cluster.finish("a-2-0", 0),
                _ => drop(world.pass(&key("a"), Trouble::None)),
            }
        }
        world.cluster.pass_time(1000);
    }
    None
}

/// kubernetes#132805
#[test]
fn events_during_a_pause_change_nothing_about_it() {
    assert_eq!(pause(false), Some(20));
    assert_eq!(pause(true), Some(20));
}

/// armada#631
#[test]
fn a_success_whose_pod_was_deleted_unseen_counts_once_or_runs_again_and_is_no_failure() {
    for (tracking, runs) in [("Strict", 1), ("AtLeastOnce", 2)] {
        let mut world = begin(spec(json!({"release": {"completionTracking": tracking}, "backoffLimit": 0})));
        world.cluster.start("a-0-0");
        world.settle();
        world.cluster.finish("a-0-0", 0);
        world.cluster.delete_pod("a-0-0", 0);
        let status = world.run_to_the_end("a")["status"].clone();
        assert_eq!((&status["succeeded"], &status["failed"]), (&json!(1), &json!(0)), "{tracking}");
        assert_eq!(creates(&world), runs, "{tracking}");
        assert_eq!(world.reason("a", "Complete"), "Completed");
    }
}

/// armada#1164, armada#4195, volcano#916
#[test]
fn what_a_task_came_to_is_readable_when_its_pod_is_gone() {
    let mut world = begin(spec(json!({"retry": {"initialBackoffSeconds": 0}})));
    for (pod, code, message) in [("a-0-0", 3, "no such table"), ("a-0-1", 0, "42 rows")] {
        world.cluster.start(pod);
        world.settle();
        finish_saying(&mut world, pod, code, message);
        world.settle();
        assert!(!world.pod_names().contains(&pod));
        let result = &world.status("a")["result"];
        assert_eq!((&result["exitCode"], &result["message"]), (&json!(code), &json!(message)));
    }
    let failures = world.status("a")["lastFailures"].as_array().unwrap();
    assert_eq!((failures.len(), &failures[0]["message"]), (1, &json!("no such table")));
}

/// armada#311
#[test]
fn a_pod_stays_for_scrapers_until_it_is_old_enough_and_holds_no_capacity() {
    let mut world = World::new("100m");
    let release = json!({"minPodAgeSeconds": 30});
    world.cluster.submit("a", spec(json!({"release": release, "ttlSecondsAfterFinished": 0})));
    world.settle();
    world.cluster.start("a-0-0");
    world.cluster.pass_time(2000);
    world.settle();
    world.cluster.finish("a-0-0", 0);
    world.cluster.submit("b", spec(json!({})));
    for second in 2..30 {
        world.settle();
        assert_eq!(world.pod_names(), ["a-0-0", "b-0-0"], "second {second}");
        world.cluster.start("b-0-0");
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Complete"), "Completed", "and the job with it, whatever its time to live");
    world.settle();
    world.settle();
    assert_eq!(world.pod_names(), ["b-0-0"]);
    assert!(!world.cluster.jobs.objects.contains_key("a"));
    // One that has run for longer goes at once.
    world.cluster.submit("c", spec(json!({"release": {"minPodAgeSeconds": 30}})));
    world.cluster.finish("b-0-0", 0);
    world.settle();
    world.cluster.start("c-0-0");
    world.cluster.pass_time(31_000);
    world.settle();
    world.cluster.finish("c-0-0", 0);
    world.settle();
    assert_eq!(world.pod_names(), [] as [&str; 0]);
}

#[test]
fn a_failed_pod_that_is_held_for_debugging_holds_no_capacity() {
    let mut world = World::new("100m");
    let release = json!({"holdOnFailureSeconds": 600, "keepFailedPods": 1});
    world.cluster.submit("a", spec(json!({"release": release, "retry": {"initialBackoffSeconds": 0}})));
    for pod in ["a-0-0", "a-0-1"] {
        world.settle();
        world.cluster.start(pod);
        world.settle();
        world.cluster.finish(pod, 1);
    }
    world.settle();
    assert_eq!(world.pod_names(), ["a-0-0", "a-0-1", "a-0-2"]);
    assert_eq!(world.live(), [0]);
}

/// volcano#4736
#[test]
fn a_failed_job_goes_after_its_time_as_one_that_succeeded_does() {
    let failing = [
        json!({"backoffLimit": 0}),
        json!({"completions": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 0, "maxFailedIndexes": 0}),
        json!({"podFailurePolicy": {"rules": [
            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1]}}]}}),
    ];
    for mut extra in failing {
        extra["ttlSecondsAfterFinished"] = json!(60);
        let mut world = begin(spec(extra));
        world.cluster.start("a-0-0");
        world.cluster.pass_time(2000);
        world.settle();
        world.cluster.finish("a-0-0", 1);
        for _ in 0..59 {
            world.settle();
            world.cluster.pass_time(1000);
        }
        assert!(is_finished(&world.cluster.jobs.objects["a"]), "{:#}", world.status("a"));
        for _ in 0..5 {
            world.settle();
            world.cluster.pass_time(1000);
        }
        assert!(world.cluster.jobs.objects.is_empty() && world.pod_names().is_empty());
    }
}

/// volcano#3357
#[test]
fn pods_that_a_user_deletes_while_the_job_is_held_stay_away() {
    let mut world = begin(spec(json!({"completions": 3, "parallelism": 3})));
    world.cluster.pass_time(2000);
    world.settle();
    world.work_but_finish_nothing();
    world.cluster.edit("a", |spec| spec["stopPolicy"] = json!("Hold"));
    world.settle();
    assert_eq!(world.live().len(), 3, "what runs may finish");
    for pod in ["a-0-0", "a-1-0"] {
        world.cluster.delete_pod(pod, 30);
        world.cluster.reap(pod);
    }
    for _ in 0..120 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.pod_names(), ["a-2-0"]);
    world.restart();
    world.settle();
    assert_eq!(world.pod_names(), ["a-2-0"]);
    world.cluster.edit("a", |spec| spec["stopPolicy"] = json!("None"));
    assert_eq!(world.run_to_the_end("a")["status"]["succeeded"], 3);
}

#[test]
fn the_status_of_a_job_that_fails_in_every_way_stays_small() {
    let mut world = World::new("1000");
    let completions = 3000;
    world.cluster.submit(
        "a",
        spec(json!({
            "completions": completions, "parallelism": 400, "completionMode": "Indexed",
            "backoffLimitPerIndex": 1, "retry": {"initialBackoffSeconds": 0, "onOOM": {}},
            "successPolicy": {"rules": [{"succeededIndexes": format!("0-{}", completions - 1)}]},
        })),
    );
    let (mut largest, mut number) = (0, 0);
    let message = "\"quoted\" and \u{7} long ".repeat(300);
    for _ in 0..400 {
        world.settle();
        let stored = &world.cluster.jobs.objects["a"];
        largest = largest.max(stored["status"].to_string().len());
        if is_finished(stored) {
            break;
        }
        let pods: Vec<Value> = world.cluster.pods.objects.values().cloned().collect();
        for pod in pods.iter().filter(|pod| !is_terminal(pod)) {
            number += 1;
            let name = text(pod, "/metadata/name").to_owned();
            world.cluster.start(&name);
            match number % 7 {
                0 => world.cluster.run_out_of_memory(&name),
                1 | 2 => world.cluster.finish(&name, 0),
                3 => {}
                _ => finish_saying(&mut world, &name, 1 + number % 250, &message),
            }
        }
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Failed"), "FailedIndexes");
    assert!((4_000..=10_000).contains(&largest), "{largest} bytes");
    let codes = world.status("a")["exitCodes"].as_array().unwrap();
    let counted: u64 = codes.iter().map(|row| row["count"].as_u64().unwrap()).sum();
    let [succeeded, failed] = ["succeeded", "failed"].map(|field| world.status("a")[field].as_u64().unwrap());
    assert_eq!(counted, succeeded + failed, "each end is in one row");
    assert_eq!(world.cluster.violations, [] as [String; 0]);
}
