//! A clock of the process that is hours off, or is put forward or back while something waits.

use crate::cluster::NODE;
use crate::lives::{begin, spec};
use crate::world::World;
use jiff::SignedDuration;
use serde_json::json;

/// Where a clock is set to: hours ahead of the API server's.
const OFF: [i64; 2] = [-2, 2];

fn put(world: &mut World, hours: i64) {
    world.put_clock_ahead(SignedDuration::from_hours(hours));
}

fn pass_seconds(world: &mut World, seconds: usize) {
    for _ in 0..seconds {
        world.settle();
        world.cluster.pass_time(1000);
    }
    world.settle();
}

#[test]
fn a_process_whose_clock_is_hours_off_is_as_quick_as_any() {
    for hours in OFF {
        let mut world = World::new("4");
        put(&mut world, hours);
        let began = world.cluster.now;
        world.cluster.submit("a", spec(json!({"completions": 6, "parallelism": 2})));
        world.cluster.submit("b", spec(json!({})));
        for job in ["a", "b"] {
            world.run_to_the_end(job);
            assert_eq!(world.reason(job, "Complete"), "Completed", "{hours} h");
        }
        let took = world.cluster.now.duration_since(began);
        assert!(took < SignedDuration::from_secs(60), "{hours} h: {took}");
        assert_eq!(world.status("a")["succeeded"], 6);
    }
}

#[test]
fn what_has_failed_is_tried_again_after_seconds_though_the_clock_is_put_forward_or_back() {
    for hours in OFF {
        let mut world = begin(spec(json!({"retry": {"initialBackoffSeconds": 20}})));
        world.cluster.start("a-0-0");
        world.cluster.finish("a-0-0", 1);
        pass_seconds(&mut world, 5);
        assert_eq!(world.pod_names(), [] as [&str; 0], "{hours} h: it pauses");
        put(&mut world, hours);
        pass_seconds(&mut world, 20);
        assert_eq!(world.pod_names(), ["a-0-1"], "{hours} h");
        // The next one pauses by the clock as it is now.
        world.cluster.start("a-0-1");
        world.cluster.finish("a-0-1", 1);
        pass_seconds(&mut world, 35);
        assert_eq!(world.pod_names(), [] as [&str; 0], "{hours} h: it pauses for twice as long");
        pass_seconds(&mut world, 10);
        assert_eq!(world.pod_names(), ["a-0-2"], "{hours} h");
    }
}

#[test]
fn what_was_disrupted_again_and_again_goes_on_after_seconds_though_the_clock_is_put_back() {
    let mut world = begin(spec(json!({"retry": {"initialBackoffSeconds": 10}})));
    for _ in 0..2 {
        pass_seconds(&mut world, 15);
        assert_eq!(world.pod_names(), ["a-0-0"]);
        world.cluster.start("a-0-0");
        world.settle();
        assert_eq!(world.cluster.pods.objects["a-0-0"]["spec"]["nodeName"], NODE);
        world.cluster.evict("a-0-0");
        world.settle();
    }
    put(&mut world, -2);
    pass_seconds(&mut world, 20);
    assert_eq!(world.pod_names(), ["a-0-0"]);
    assert_eq!(world.run_to_the_end("a")["status"]["disrupted"], 2);
}

#[test]
fn a_class_that_pauses_goes_on_after_seconds_though_the_clock_is_put_forward_or_back() {
    for hours in OFF {
        let mut world = World::new("64");
        world.cluster.refuse_pods = Some((403, "pods \"a\" is forbidden: exceeded quota: pods"));
        world.cluster.submit("a", spec(json!({})));
        pass_seconds(&mut world, 40);
        assert_eq!(world.reason("a", "Queued"), "ClassBackoff");
        put(&mut world, hours);
        world.cluster.refuse_pods = None;
        pass_seconds(&mut world, 60);
        assert_eq!(world.pod_names(), ["a-0-0"], "{hours} h");
    }
}

#[test]
fn a_pod_whose_release_was_refused_goes_within_minutes_though_the_clock_is_put_forward_or_back() {
    for hours in OFF {
        let mut world = begin(spec(json!({})));
        world.cluster.protected = Some("a-0-0");
        world.cluster.start("a-0-0");
        world.cluster.finish("a-0-0", 0);
        pass_seconds(&mut world, 5);
        assert_eq!(world.pod_names(), ["a-0-0"]);
        put(&mut world, hours);
        world.cluster.protected = None;
        pass_seconds(&mut world, 300);
        assert_eq!(world.pod_names(), [] as [&str; 0], "{hours} h");
    }
}

#[test]
fn outcomes_are_recorded_within_seconds_though_the_clock_is_put_forward_or_back() {
    for hours in OFF {
        let mut world = begin(spec(json!({"completions": 4, "parallelism": 2})));
        world.cluster.start("a-0-0");
        world.cluster.start("a-1-0");
        pass_seconds(&mut world, 2);
        assert_eq!(world.status("a")["active"], 2);
        put(&mut world, hours);
        world.cluster.finish("a-0-0", 0);
        pass_seconds(&mut world, 2);
        assert_eq!(world.status("a")["succeeded"], 1, "{hours} h");
        assert_eq!(world.run_to_the_end("a")["status"]["succeeded"], 4);
    }
}
