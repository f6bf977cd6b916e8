//! Whole lives of jobs, write by write.

use crate::cluster::is_deleting;
use crate::world::{World, is_finished, key};
use serde_json::{Value, json};
use springtide_batch_job::Settings;

pub(crate) fn spec(extra: Value) -> Value {
    let mut spec = json!({"template": {"spec": {"containers": [{"name": "main", "image": "app"}]}}});
    for (field, value) in extra.as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

pub(crate) fn strict(extra: Value) -> Value {
    let mut spec = spec(extra);
    spec["release"]["completionTracking"] = json!("Strict");
    spec
}

/// A world in which a job was submitted and its pods, if any, are pending.
pub(crate) fn begin(spec: Value) -> World {
    let mut world = World::new("4");
    world.cluster.submit("a", spec);
    world.settle();
    world
}

/// Lets everything go well until the job and all that belongs to it is gone.
pub(crate) fn to_the_very_end(world: &mut World) {
    world.run_to_the_end("a");
    while world.cluster.jobs.objects.contains_key("a") {
        world.settle();
        if !world.work() && world.cluster.jobs.objects.contains_key("a") {
            assert!(world.sleep(), "a finished job waits for its end");
        }
    }
    world.settle();
    assert_eq!(world.cluster.violations, [] as [String; 0]);
    assert_eq!(world.pod_names(), [] as [&str; 0]);
}

#[test]
fn a_short_task_costs_four_writes() {
    let mut world = begin(spec(json!({})));
    to_the_very_end(&mut world);
    assert_eq!(
        world.cluster.log,
        ["create pods a-0-0", "patch batchjobs a", "delete pods a-0-0", "delete batchjobs a"]
    );
}

#[test]
fn a_short_strict_task_costs_five_writes() {
    let mut world = begin(strict(json!({})));
    to_the_very_end(&mut world);
    assert_eq!(
        world.cluster.log,
        [
            "create pods a-0-0",
            "patch batchjobs a",
            "patch pods a-0-0",
            "delete pods a-0-0",
            "delete batchjobs a"
        ]
    );
}

#[test]
fn a_long_task_costs_one_more() {
    let mut world = begin(spec(json!({})));
    world.cluster.start("a-0-0");
    for _ in 0..100 {
        world.settle();
        world.cluster.pass_time(500);
    }
    assert_eq!(world.reason("a", "Complete"), "Running");
    assert_eq!(world.status("a")["active"], 1);
    to_the_very_end(&mut world);
    assert_eq!(world.cluster.log.len(), 5, "{:?}", world.cluster.log);
}

#[test]
fn a_task_that_waits_long_costs_one_more() {
    let mut world = World::new("50m");
    world.cluster.submit("a", spec(json!({})));
    for _ in 0..3600 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.cluster.log, ["patch batchjobs a"]);
    assert_eq!(world.reason("a", "Stalled"), "NeverFits");
    assert_eq!(world.reason("a", "Complete"), "Queued");
}

#[test]
fn what_is_settled_stays_so_over_a_restart() {
    for extra in [
        json!({}),
        json!({"completions": 4, "parallelism": 2}),
        json!({"stopPolicy": "Hold"}),
        json!({"completions": 30, "parallelism": 30, "completionMode": "Indexed"}),
    ] {
        let mut world = begin(strict(extra.clone()));
        for name in world.pod_names().into_iter().map(str::to_owned).collect::<Vec<_>>() {
            world.cluster.start(&name);
        }
        for _ in 0..200 {
            world.settle();
            world.cluster.pass_time(1000);
        }
        world.settle();
        assert!(!is_finished(&world.cluster.jobs.objects["a"]));
        let before = world.cluster.log.len();
        for _ in 0..3 {
            world.restart();
            for _ in 0..120 {
                assert_eq!(world.settle(), 0, "{extra}: {:?}", &world.cluster.log[before..]);
                world.cluster.pass_time(1000);
            }
        }
        world.cluster.edit("a", |spec| spec["stopPolicy"] = json!("None"));
        let stored = world.run_to_the_end("a");
        assert_eq!(stored["status"]["succeeded"], extra.get("completions").unwrap_or(&json!(1)).clone());
    }
}

#[test]
fn a_life_is_measured() {
    let world = World::new("4");
    let text = world.metrics();
    for line in [
        "springtide_batch_grants_total 0",
        "springtide_batch_disruptions_total 0",
        "springtide_batch_pending_pod_seconds_total 0.0",
        "springtide_batch_queue_wait_seconds_count 0",
        "springtide_batch_release_seconds_count 0",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let mut world = begin(strict(json!({})));
    for _ in 0..7 {
        world.cluster.pass_time(1000);
        world.settle();
    }
    world.cluster.start("a-0-0");
    world.settle();
    world.cluster.evict("a-0-0");
    to_the_very_end(&mut world);
    let text = world.metrics();
    for line in [
        "springtide_batch_grants_total 2",
        "springtide_batch_disruptions_total 1",
        "springtide_batch_pending_pod_seconds_total 7.0",
        "springtide_batch_queue_wait_seconds_count 1",
        "springtide_batch_release_seconds_count 2",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[test]
fn an_edit_of_the_template_after_the_start_is_noticed_at_once() {
    let mut world = begin(spec(json!({"completions": 4, "parallelism": 2})));
    let image = |image: &'static str| {
        move |spec: &mut Value| spec["template"]["spec"]["containers"][0]["image"] = json!(image)
    };
    world.cluster.edit("a", image("other"));
    world.settle();
    world.cluster.pass_time(1500);
    world.settle();
    assert_eq!(world.reason("a", "Stalled"), "TemplateChanged");
    for name in ["a-0-0", "a-1-0"] {
        world.cluster.start(name);
        world.cluster.finish(name, 0);
    }
    for _ in 0..5 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.status("a")["succeeded"], 2);
    assert_eq!(world.pod_names(), [] as [&str; 0], "nothing starts from another template");
    world.restart();
    world.settle();
    assert_eq!(world.pod_names(), [] as [&str; 0]);
    world.cluster.edit("a", image("app"));
    world.run_to_the_end("a");
    assert_eq!(world.reason("a", "Stalled"), "");
}

#[test]
fn parallelism_shrinks_by_the_newest() {
    let mut world = begin(spec(json!({"completions": 9, "parallelism": 2, "completionMode": "Indexed"})));
    world.work();
    world.cluster.pass_time(5000);
    world.cluster.edit("a", |spec| spec["parallelism"] = json!(5));
    world.settle();
    assert_eq!(world.live(), [0, 1, 2, 3, 4]);
    for name in ["a-2-0", "a-3-0", "a-4-0"] {
        world.cluster.start(name);
    }
    world.cluster.edit("a", |spec| spec["parallelism"] = json!(1));
    world.settle();
    for name in ["a-0-0", "a-1-0", "a-2-0", "a-3-0", "a-4-0"] {
        world.cluster.reap(name);
    }
    world.settle();
    assert_eq!(world.live(), [0]);
    let status = world.run_to_the_end("a")["status"].clone();
    assert_eq!((&status["succeeded"], &status["disrupted"]), (&json!(9), &json!(4)));
}

#[test]
fn a_user_stops_and_resumes_a_job() {
    let mut world = begin(spec(json!({"completions": 3, "parallelism": 3})));
    for name in ["a-0-0", "a-1-0", "a-2-0"] {
        world.cluster.start(name);
    }
    world.settle();
    world.cluster.edit("a", |spec| spec["stopPolicy"] = json!("Drain"));
    world.settle();
    world.cluster.pass_time(1000);
    world.settle();
    assert_eq!((world.reason("a", "Suspended"), world.reason("a", "Complete")), ("UserDrain", "Draining"));
    while world.work() {
        world.settle();
    }
    world.cluster.pass_time(60_000);
    world.settle();
    assert_eq!(world.reason("a", "Complete"), "Suspended");
    assert_eq!(world.status("a")["disrupted"], 3);
    world.cluster.edit("a", |spec| spec["stopPolicy"] = json!("None"));
    world.settle();
    assert_eq!(world.live(), [0, 1, 2], "one disruption is no reason to wait");
    let status = world.run_to_the_end("a")["status"].clone();
    assert_eq!(status["suspendedSeconds"], 61);
    assert_eq!(world.reason("a", "Suspended"), "Resumed");
}

#[test]
fn names_of_others_are_left_alone() {
    let mut world = World::new("4");
    world.cluster.intrude("a-0-0");
    world.cluster.submit("a", spec(json!({})));
    for _ in 0..5 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Stalled"), "NameConflict");
    world.cluster.delete_pod("a-0-0", 0);
    world.settle();
    assert_eq!(world.live(), [0], "its end is an event for the job");
    // A job of the same name, while a pod of the former one is still ending.
    world.cluster.start("a-0-0");
    world.cluster.delete_job("a");
    world.cluster.submit("a", spec(json!({})));
    for _ in 0..60 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Queued"), "NameHeld");
    world.cluster.reap("a-0-0");
    world.run_to_the_end("a");
}

#[test]
fn the_finalizers_of_a_deleted_job_are_released() {
    for crash in [false, true] {
        let mut world = begin(strict(json!({"completions": 4, "parallelism": 4})));
        world.work();
        world.cluster.finish("a-0-0", 0);
        world.cluster.delete_job("a");
        if crash {
            world.restart();
        }
        for _ in 0..3 {
            world.settle();
            while world.work() {
                world.settle();
            }
            world.sleep();
        }
        assert_eq!(world.pod_names(), [] as [&str; 0]);
        assert!(world.plan(&key("a")).is_none_or(|plan| plan.writes() == 0));
    }
}

#[test]
fn a_job_that_waits_for_its_pods_to_go_lets_them() {
    for finalizer in ["foregroundDeletion", "orphan"] {
        let mut world = begin(strict(json!({"completions": 4, "parallelism": 2})));
        world.work_but_finish_nothing();
        world.settle();
        world.cluster.delete_job_later("a", finalizer);
        let before = world.cluster.log.len();
        world.settle();
        world.cluster.finish("a-0-0", 0);
        world.settle();
        assert_eq!(world.cluster.log[before..], ["patch pods a-0-0", "patch pods a-1-0"], "{finalizer}");
        // Some pods are orphaned before their finalizer is off, and the job is gone then.
        world.cluster.orphan("a-1-0");
        world.cluster.delete_job("a");
        world.settle();
        assert!(world.cluster.pods.objects["a-1-0"]["metadata"]["finalizers"].as_array().unwrap().is_empty());
    }
}

#[test]
fn an_orphan_is_let_go_even_when_its_job_is_gone_already() {
    let mut world = begin(strict(json!({})));
    world.cluster.start("a-0-0");
    world.cluster.orphan("a-0-0");
    world.cluster.delete_job("a");
    world.restart();
    for _ in 0..60 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    let pod = &world.cluster.pods.objects["a-0-0"];
    assert!(pod["metadata"]["finalizers"].as_array().unwrap().is_empty() && !is_deleting(pod));
}

#[test]
fn hold_takes_back_what_has_not_started() {
    let mut world = begin(spec(json!({"completions": 4, "parallelism": 2})));
    world.cluster.start("a-0-0");
    world.cluster.edit("a", |spec| spec["stopPolicy"] = json!("Hold"));
    for _ in 0..3 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.pod_names(), ["a-0-0"]);
    assert_eq!((world.reason("a", "Suspended"), world.reason("a", "Complete")), ("UserHold", "Running"));
    world.cluster.finish("a-0-0", 0);
    for _ in 0..3 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.reason("a", "Complete"), "Suspended");
    assert_eq!(world.status("a")["succeeded"], 1);
}

#[test]
fn a_restart_writes_nothing_whatever_state_jobs_are_in() {
    let mut world = World::new("450m");
    let request =
        |cpu: &str| json!([{"name": "main", "image": "app", "resources": {"requests": {"cpu": cpu}}}]);
    let submit = |world: &mut World, name: &str, extra: Value, cpu: &str| {
        let mut spec = spec(extra);
        spec["template"]["spec"]["containers"] = request(cpu);
        world.cluster.submit(name, spec);
        world.settle();
        world.work_but_finish_nothing();
    };
    submit(&mut world, "runs", json!({}), "100m");
    submit(&mut world, "strict", json!({"tier": "Standard", "completions": 3}), "100m");
    submit(
        &mut world,
        "wide",
        json!({"completions": 30, "parallelism": 30, "completionMode": "Indexed"}),
        "100m",
    );
    submit(&mut world, "waits", json!({"completions": 3, "parallelism": 3}), "100m");
    submit(&mut world, "huge", json!({"completions": 3}), "8");
    submit(&mut world, "held", json!({"stopPolicy": "Hold"}), "100m");
    submit(&mut world, "gang", json!({"completions": 9, "parallelism": 9, "minParallelism": 9}), "50m");
    world.cluster.intrude("named-0-0");
    submit(&mut world, "named", json!({}), "1m");
    submit(&mut world, "failed", json!({"backoffLimit": 0, "release": {"keepFailedPods": 1}}), "1m");
    world.cluster.finish("failed-0-0", 3);
    submit(&mut world, "done", json!({"ttlSecondsAfterFinished": 100_000}), "1m");
    world.cluster.finish("done-0-0", 0);
    for _ in 0..200 {
        world.settle();
        world.work_but_finish_nothing();
        world.cluster.pass_time(1000);
    }
    let reasons: Vec<(&str, &str)> =
        ["runs", "strict", "wide", "waits", "huge", "held", "gang", "named", "failed", "done"]
            .into_iter()
            .map(|name| (name, world.reason(name, "Complete")))
            .collect();
    assert_eq!(
        reasons,
        [
            ("runs", "Running"),
            ("strict", "Running"),
            ("wide", "Running"),
            ("waits", "Queued"),
            ("huge", "Queued"),
            ("held", "Suspended"),
            ("gang", "Queued"),
            ("named", "Admitted"),
            ("failed", "BackoffLimitExceeded"),
            ("done", "Completed"),
        ]
    );
    let before = world.cluster.log.len();
    for _ in 0..3 {
        world.restart();
        for _ in 0..120 {
            world.settle();
            world.cluster.pass_time(1000);
        }
    }
    assert_eq!(world.cluster.log[before..], [] as [String; 0]);
}

#[test]
fn a_job_that_somebody_else_manages_is_wholly_left_alone() {
    let dispatched = || spec(json!({"managedBy": "example.com/dispatcher", "queueDeadlineSeconds": 5}));
    let settings = Settings { max_per_namespace: 1, history_limit: 1, ..Settings::default() };
    let mut world = World::with_settings("4", settings);
    world.cluster.submit("a", dispatched());
    let untouched = world.status("a").clone();
    for _ in 0..120 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    world.cluster.edit("a", |spec| spec["stopPolicy"] = json!("Drain"));
    assert!(world.plan(&key("a")).is_none());
    // Its manager says that it has ended, long ago.
    world.cluster.set_status(
        "a",
        json!({"completionTime": "2026-11-10T00:00:00Z", "conditions": [
        {"type": "Complete", "status": "True", "reason": "Completed", "message": "", "observedGeneration": 1,
         "lastTransitionTime": "2026-11-10T00:00:00Z"}]}),
    );
    world.settle();
    assert!(world.plan(&key("a")).is_none());
    assert_eq!(world.cluster.log, [] as [String; 0], "no write at all");
    assert_ne!(*world.status("a"), untouched);
    // It takes the place of no job of ours, and one that names our controller is of ours.
    world.cluster.submit("b", spec(json!({"managedBy": "springtide.dev/batch-job"})));
    world.run_to_the_end("b");
    // A pod of its manager's is no orphan, though it bears our finalizer.
    world.cluster.delete_job("a");
    world.cluster.submit("a", dispatched());
    let uid = world.cluster.jobs.objects["a"]["metadata"]["uid"].clone();
    world.cluster.intrude("a-0-0");
    world.cluster.change_pod("a-0-0", |pod| {
        pod["metadata"]["finalizers"] = json!(["springtide.dev/job-tracking"]);
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": "a", "uid": uid, "controller": true,
        }]);
        true
    });
    world.cluster.log.clear();
    for _ in 0..120 {
        world.settle();
        world.cluster.pass_time(1000);
    }
    let of_a: Vec<&String> = world.cluster.log.iter().filter(|line| line.contains(" a")).collect();
    assert_eq!(of_a, [] as [&String; 0]);
}

#[test]
fn what_our_job_left_behind_is_released_though_its_name_is_now_of_another_manager() {
    let mut world = begin(strict(json!({})));
    world.cluster.start("a-0-0");
    world.settle();
    world.cluster.delete_job("a");
    world.cluster.submit("a", spec(json!({"managedBy": "example.com/dispatcher"})));
    for _ in 0..60 {
        world.settle();
        world.cluster.reap("a-0-0");
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.pod_names(), [] as [&str; 0]);
    assert_eq!(world.reason("a", "Complete"), "Pending");
}
