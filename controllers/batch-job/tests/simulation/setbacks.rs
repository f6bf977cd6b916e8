//! Refusals, failures, deadlines, and clocks that are off.

use crate::lives::{begin, spec};
use crate::world::World;
use jiff::SignedDuration;
use serde_json::json;

#[test]
fn a_refused_template_is_tried_once() {
    let mut world = World::new("64");
    world.cluster.refuse_pods = Some((422, "spec.containers[0].image: Required value"));
    world.cluster.submit("a", spec(json!({"completions": 9, "parallelism": 9})));
    world.settle();
    world.cluster.pass_time(1000);
    world.settle();
    assert_eq!(world.reason("a", "Complete"), "InvalidTemplate");
    let creates = world.cluster.log.iter().filter(|line| line.starts_with("create")).count();
    assert_eq!(creates, 1, "{:?}", world.cluster.log);
    // A class that has proven itself changes nothing about it.
    world.cluster.refuse_pods = None;
    world.cluster.submit("good", spec(json!({"completions": 20, "parallelism": 20})));
    world.run_to_the_end("good");
    world.cluster.log.clear();
    world.cluster.refuse_pods = Some((422, "spec.containers[0].image: Required value"));
    world.cluster.submit("bad", spec(json!({"completions": 9, "parallelism": 9})));
    world.settle();
    world.cluster.pass_time(1000);
    world.settle();
    assert_eq!(world.reason("bad", "Complete"), "InvalidTemplate");
    let creates = world.cluster.log.iter().filter(|line| line.starts_with("create")).count();
    assert_eq!(creates, 1, "{:?}", world.cluster.log);
}

#[test]
fn what_is_forbidden_is_said_and_tried_again_later() {
    for (message, stalled) in [
        ("pods \"a\" is forbidden: exceeded quota: pods", ""),
        ("pods \"a\" is forbidden: no PriorityClass with name late was found", "Forbidden"),
    ] {
        let mut world = World::new("64");
        world.cluster.refuse_pods = Some((403, message));
        world.cluster.submit("a", spec(json!({"completions": 9, "parallelism": 9})));
        for _ in 0..240 {
            world.settle();
            world.cluster.pass_time(1000);
        }
        assert_eq!(world.reason("a", "Queued"), "ClassBackoff", "{message}");
        assert_eq!(world.reason("a", "Stalled"), stalled);
        assert_eq!(world.reason("a", "Complete"), "Queued");
        let conditions = world.status("a")["conditions"].as_array().unwrap();
        let queued = conditions.iter().find(|found| found["type"] == "Queued").unwrap();
        assert!(queued["message"].as_str().unwrap().contains(&message[20..]), "{queued}");
        let tries = world.cluster.log.iter().filter(|line| line.starts_with("create")).count();
        assert!((3..=12).contains(&tries), "{:?}", world.cluster.log);
        let records = world.cluster.log.iter().filter(|line| line.starts_with("patch batchjobs")).count();
        assert!(records <= 2, "{:?}", world.cluster.log);
        // A new process asks once more, and leaves what it says as it is.
        world.restart();
        let before = world.cluster.log.len();
        for _ in 0..20 {
            world.settle();
            world.cluster.pass_time(1000);
        }
        let patches = world.cluster.log[before..].iter().filter(|line| line.starts_with("patch")).count();
        assert_eq!(patches, 0, "{:?}", &world.cluster.log[before..]);
        world.cluster.refuse_pods = None;
        let status = world.run_to_the_end("a")["status"].clone();
        assert_eq!(status["succeeded"], 9);
        assert_eq!(world.reason("a", "Stalled"), "");
    }
}

#[test]
fn deadlines_end_jobs_and_take_pods_back() {
    let mut world = begin(spec(json!({"activeDeadlineSeconds": 10, "completions": 2})));
    world.cluster.start("a-0-0");
    for _ in 0..12 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Complete"), "Finishing");
    world.settle();
    world.cluster.reap("a-0-0");
    world.settle();
    world.cluster.pass_time(1000);
    world.settle();
    assert_eq!(world.reason("a", "Failed"), "DeadlineExceeded");
    assert_eq!(world.status("a")["failed"], 0);

    let mut world = World::new("50m");
    world.cluster.submit("a", spec(json!({"queueDeadlineSeconds": 10})));
    for _ in 0..12 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Failed"), "QueueDeadlineExceeded");

    let mut world = begin(spec(json!({"pendingDeadlineSeconds": 5, "completions": 5, "parallelism": 5})));
    for _ in 0..240 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Queued"), "ClassBackoff");
    assert_eq!(world.reason("a", "Admitted"), "PendingDeadline");
    let creates = world.cluster.log.iter().filter(|line| line.starts_with("create")).count();
    assert!((6..=16).contains(&creates), "{:?}", world.cluster.log);
    let records = world.cluster.log.iter().filter(|line| line.starts_with("patch")).count();
    assert!(records <= 20, "{:?}", world.cluster.log);
}

#[test]
fn failures_are_tried_again_after_a_pause_and_held_for_debugging() {
    let mut world = begin(spec(json!({
        "backoffLimit": 2, "retry": {"initialBackoffSeconds": 10, "maxBackoffSeconds": 15},
        "release": {"holdOnFailureSeconds": 100, "keepFailedPods": 1},
    })));
    let mut starts = Vec::new();
    let began = world.cluster.now;
    for _ in 0..60 {
        world.settle();
        for name in world.pod_names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
            if world.cluster.pods.objects[&name]["status"]["phase"] == "Pending" {
                starts.push(world.cluster.now.duration_since(began).as_secs());
                world.cluster.start(&name);
                world.cluster.finish(&name, 3);
            }
        }
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(starts, [0, 10, 25]);
    assert_eq!(world.reason("a", "Failed"), "BackoffLimitExceeded");
    assert_eq!(world.status("a")["failed"], 3);
    assert_eq!(world.status("a")["exitCodes"], json!([{"code": 3, "reason": "Error", "count": 3}]));
    assert_eq!(world.pod_names(), ["a-0-0", "a-0-1", "a-0-2"]);
    world.cluster.pass_time(80_000);
    world.settle();
    assert_eq!(world.pod_names(), ["a-0-2"], "the newest stays until the job goes");
    world.cluster.pass_time(1_000_000);
    world.settle();
    assert!(world.cluster.jobs.objects.is_empty() && world.pod_names().is_empty());
}

#[test]
fn the_clock_of_a_node_may_be_hours_off() {
    for hours in [-2, 2] {
        let mut world = World::new("4");
        world.cluster.node_clock_ahead = SignedDuration::from_hours(hours);
        world
            .cluster
            .submit("a", spec(json!({"activeDeadlineSeconds": 100, "retry": {"initialBackoffSeconds": 20}})));
        world.settle();
        world.cluster.start("a-0-0");
        world.cluster.pass_time(50_000);
        world.settle();
        assert_eq!(world.reason("a", "Complete"), "Running", "{hours} h: not too long yet");
        world.cluster.finish("a-0-0", 1);
        world.settle();
        assert_eq!(world.pod_names(), [] as [&str; 0], "{hours} h: it pauses");
        world.cluster.pass_time(20_000);
        world.settle();
        assert_eq!(world.pod_names(), ["a-0-1"], "{hours} h: not for hours");
        world.cluster.start("a-0-1");
        for _ in 0..200 {
            world.settle();
            world.cluster.reap("a-0-1");
            world.cluster.pass_time(1000);
        }
        assert_eq!(world.reason("a", "Failed"), "DeadlineExceeded", "{hours} h");
    }
}

#[test]
fn creates_that_fail_hold_no_room_that_others_need() {
    let mut world = World::new("1");
    let sized = |cpu: &str| {
        spec(json!({"template": {"spec": {"containers": [
            {"name": "main", "image": "app", "resources": {"requests": {"cpu": cpu}}}]}}}))
    };
    world.cluster.broken = Some("a");
    world.cluster.submit("a", sized("1"));
    world.settle();
    world.cluster.submit("b", sized("900m"));
    for _ in 0..120 {
        world.settle();
        world.cluster.pass_time(500);
    }
    assert_eq!(world.pod_names(), ["b-0-0"]);
    let tries = world.cluster.log.iter().filter(|line| line.starts_with("create pods a-")).count();
    assert!(tries <= 7, "{:?}", world.cluster.log);
    assert_eq!((world.reason("a", "Queued"), world.reason("a", "Stalled")), ("NoCapacity", ""));
    world.cluster.broken = None;
    world.run_to_the_end("b");
    world.run_to_the_end("a");
}

#[test]
fn many_jobs_that_name_what_is_missing_cost_one_create_per_pause() {
    let mut world = World::new("640");
    let message = "pods \"a\" is forbidden: no PriorityClass with name late was found";
    world.cluster.refuse_pods = Some((403, message));
    world.cluster.submit("a", spec(json!({})));
    world.cluster.pass_time(1000);
    for number in 0..60 {
        world.cluster.submit(&format!("j{number}"), spec(json!({})));
    }
    for _ in 0..120 {
        world.settle();
        world.cluster.pass_time(500);
    }
    let tries = world.cluster.log.iter().filter(|line| line.starts_with("create")).count();
    assert!((4..=7).contains(&tries), "{tries}");
    // Each try was another job's: what one names may be there for the next.
    assert_eq!((world.reason("a", "Queued"), world.reason("a", "Stalled")), ("ClassBackoff", ""));
    world.cluster.refuse_pods = None;
    for _ in 0..65 {
        world.settle();
        world.work_but_finish_nothing();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.live().len(), 61, "by themselves");
    assert_eq!(world.reason("a", "Stalled"), "");
}

#[test]
fn the_gap_after_a_disruption_is_no_running_time() {
    let mut world = World::new("4");
    world.cluster.submit("a", spec(json!({"activeDeadlineSeconds": 100, "parallelism": 1})));
    world.settle();
    world.cluster.start("a-0-0");
    for _ in 0..40 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Complete"), "Running");
    world.cluster.delete_pod("a-0-0", 30);
    world.cluster.reap("a-0-0");
    world.settle();
    assert_eq!(world.pod_names(), ["a-0-0"], "made again");
    // The scheduler is away.
    for _ in 0..25 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    world.cluster.start("a-0-0");
    for _ in 0..58 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Complete"), "Running", "98 s so far");
    world.cluster.pass_time(4000);
    world.settle();
    world.cluster.reap("a-0-0");
    world.settle();
    assert_eq!(world.reason("a", "Failed"), "DeadlineExceeded");
    assert!(
        world.status("a")["runningSeconds"].as_u64().unwrap().abs_diff(102) <= 1,
        "{}",
        world.status("a")
    );
}

#[test]
fn a_pod_that_may_not_be_deleted_stops_neither_counting_nor_the_other_tasks() {
    for tracking in ["AtLeastOnce", "Strict"] {
        let mut world = World::new("4");
        world.cluster.protected = Some("a-0-0");
        world.cluster.submit(
            "a",
            spec(json!({
                "completions": 6, "parallelism": 2, "completionMode": "Indexed",
                "release": {"completionTracking": tracking}, "ttlSecondsAfterFinished": 60,
            })),
        );
        world.settle();
        // Creates are no less forbidden.
        world.cluster.protected = None;
        world.cluster.pass_time(2000);
        world.settle();
        world.cluster.protected = Some("a-0-0");
        for _ in 0..200 {
            world.settle();
            world.work();
            world.cluster.pass_time(500);
        }
        assert_eq!(world.reason("a", "Complete"), "Completed", "{tracking}: {:#}", world.status("a"));
        assert_eq!(world.status("a")["succeeded"], 6);
        assert_eq!(world.pod_names(), ["a-0-0"]);
        let tries =
            world.cluster.log.iter().filter(|line| line.ends_with("policy protects this pod")).count();
        assert!((3..=7).contains(&tries), "{:?}", world.cluster.log);
        world.cluster.protected = None;
        for _ in 0..400 {
            world.settle();
            world.work();
            world.cluster.pass_time(1000);
        }
        assert!(world.cluster.jobs.objects.is_empty() && world.pod_names().is_empty());
    }
}

/// One of two tasks has ended for so many seconds, and a policy protects its pod.
fn with_a_protected_pod(seconds: usize) -> World {
    let mut world = World::new("4");
    world.cluster.submit("a", spec(json!({"completions": 2, "parallelism": 2})));
    world.settle();
    world.cluster.protected = Some("a-0-0");
    for name in ["a-0-0", "a-1-0"] {
        world.cluster.start(name);
    }
    world.cluster.finish("a-0-0", 0);
    for _ in 0..seconds {
        world.settle();
        world.cluster.pass_time(1000);
    }
    world
}

#[test]
fn a_pod_that_may_not_be_deleted_is_named() {
    let mut world = with_a_protected_pod(100);
    assert_eq!((world.reason("a", "Complete"), world.reason("a", "Stalled")), ("Running", "Forbidden"));
    assert_eq!(world.status("a")["succeeded"], 1);
    world.cluster.protected = None;
    world.run_to_the_end("a");
    assert_eq!(world.reason("a", "Stalled"), "");
}

#[test]
fn a_pod_that_may_not_be_deleted_and_is_gone_all_the_same_is_no_longer_named() {
    let mut world = with_a_protected_pod(5);
    assert_eq!(world.reason("a", "Stalled"), "Forbidden");
    // Somebody who may removes it.
    world.cluster.delete_pod("a-0-0", 0);
    for _ in 0..3 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!((world.reason("a", "Complete"), world.reason("a", "Stalled")), ("Running", ""));
}

#[test]
fn an_orphan_that_may_not_be_changed_is_not_asked_for_again_and_again() {
    let mut world = begin(spec(json!({"release": {"completionTracking": "Strict"}})));
    world.cluster.start("a-0-0");
    world.settle();
    world.cluster.delete_job("a");
    world.cluster.submit("a", spec(json!({"completions": 2, "parallelism": 2})));
    world.cluster.protected = Some("a-0-0");
    for _ in 0..60 {
        world.settle();
        world.cluster.start("a-1-0");
        world.cluster.finish("a-1-0", 0);
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.status("a")["succeeded"], 1, "the other task runs");
    let tries = world.cluster.log.iter().filter(|line| line.ends_with("policy protects this pod")).count();
    assert!(tries <= 3, "{:?}", world.cluster.log);
    world.cluster.protected = None;
    for _ in 0..300 {
        world.settle();
        world.work();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Complete"), "Completed");
}

#[test]
fn one_job_that_names_what_is_missing_does_not_hold_up_those_of_its_class() {
    let mut world = World::new("640");
    world.cluster.broken = Some("bad");
    for name in ["bad", "good-1", "good-2"] {
        world.cluster.submit(name, spec(json!({})));
        world.settle();
        world.cluster.pass_time(1000);
    }
    for _ in 0..20 {
        world.settle();
        world.work_but_finish_nothing();
        world.cluster.pass_time(500);
    }
    let mut running: Vec<_> = world.pod_names();
    running.sort_unstable();
    assert_eq!(running, ["good-1-0-0", "good-2-0-0"]);
    world.cluster.broken = None;
    for name in ["good-1", "good-2", "bad"] {
        world.run_to_the_end(name);
    }
}
