//! Many jobs, and jobs with many tasks.

use crate::cluster::{is_terminal, text};
use crate::lives::spec;
use crate::world::{World, is_finished};
use serde_json::{Value, json};
use springtide_batch_job::Settings;
use springtide_batch_job::projections::job::BATCH_JOB;

fn names(world: &World) -> Vec<&str> {
    world.cluster.jobs.objects.keys().map(String::as_str).collect()
}

#[test]
fn the_oldest_finished_jobs_go_beyond_the_history() {
    let mut world = World::with_settings("4", Settings { history_limit: 2, ..Settings::default() });
    for name in ["a", "b", "c", "d", "e"] {
        world.cluster.submit(name, spec(json!({})));
        world.settle();
        world.run_to_the_end(name);
        world.cluster.pass_time(1000);
        world.settle();
    }
    assert_eq!(names(&world), ["d", "e"]);
    assert_eq!(world.pod_names(), [] as [&str; 0]);
    world.restart();
    world.settle();
    assert_eq!(names(&world), ["d", "e"]);
}

#[test]
fn the_newest_beyond_the_maximum_is_told_once_and_starts_when_others_go() {
    let settings = Settings { max_per_namespace: 2, history_limit: 2, ..Settings::default() };
    let mut world = World::with_settings("4", settings);
    for name in ["a", "b", "c", "d"] {
        world.cluster.submit(name, spec(json!({})));
        world.cluster.pass_time(1000);
    }
    for _ in 0..60 {
        world.settle();
        world.work_but_finish_nothing();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.pod_names(), ["a-0-0", "b-0-0"]);
    for name in ["c", "d"] {
        assert_eq!(
            (world.reason(name, "Stalled"), world.reason(name, "Queued")),
            ("LimitExceeded", "QueueFull")
        );
        let writes =
            world.cluster.log.iter().filter(|line| *line == &format!("patch batchjobs {name}")).count();
        assert_eq!(writes, 1, "{:?}", world.cluster.log);
    }
    world.restart();
    assert_eq!(world.settle(), 0);
    // Finished jobs make room for those that have work to do.
    for _ in 0..6 {
        world.work();
        world.settle();
        world.cluster.pass_time(1000);
    }
    for name in ["c", "d"] {
        assert!(world.cluster.jobs.objects.get(name).is_none_or(is_finished), "{:?}", world.cluster.log);
    }
}

#[test]
fn six_thousand_indexes_leave_no_finished_pod_and_a_small_status() {
    let mut world = World::new("1000");
    let completions = 6000;
    world.cluster.submit(
        "a",
        spec(json!({
            "completions": completions, "parallelism": 500, "completionMode": "Indexed",
            "backoffLimitPerIndex": 3, "retry": {"initialBackoffSeconds": 1},
        })),
    );
    let mut rounds = 0;
    loop {
        world.settle();
        let stored = &world.cluster.jobs.objects["a"];
        assert!(stored["status"].to_string().len() < 10_000, "{}", stored["status"]);
        if is_finished(stored) {
            break;
        }
        let pods: Vec<Value> = world.cluster.pods.objects.values().cloned().collect();
        assert!(pods.len() <= 500 && !pods.iter().any(is_terminal), "{} pods", pods.len());
        for (number, pod) in pods.iter().enumerate() {
            let name = text(pod, "/metadata/name");
            world.cluster.start(name);
            // Every fiftieth fails at first; every fifth takes its time.
            let fails = number % 50 == 0 && name.ends_with("-0");
            if number % 5 > 0 || rounds % 4 == 0 {
                world.cluster.finish(name, i32::from(fails));
            }
        }
        // Until the next flush.
        world.settle();
        world.cluster.pass_time(1000);
        rounds += 1;
    }
    assert!(rounds < 200, "{rounds}");
    let status = world.status("a");
    assert_eq!(status["succeeded"], completions);
    assert_eq!(status["indexes"], json!({"closedBelow": completions}));
    let successes =
        world.cluster.ended.iter().filter(|ended| ended.how == crate::cluster::How::Succeeded).count();
    assert_eq!(successes, completions, "each index once");
    let flushes = world.cluster.log.iter().filter(|line| line.contains(BATCH_JOB.plural)).count();
    assert!(flushes <= 2 * rounds + 2, "{flushes} status writes in {rounds} seconds");
}

#[test]
fn a_quota_that_leaves_room_for_some_is_used_up() {
    let mut world = World::new("64");
    world.cluster.quota = 2;
    world.cluster.submit("a", spec(json!({"completions": 6, "parallelism": 6})));
    for _ in 0..60 {
        world.settle();
        world.work_but_finish_nothing();
        world.cluster.pass_time(1000);
    }
    assert_eq!(world.live().len(), 2);
    assert_eq!((world.reason("a", "Complete"), world.reason("a", "Queued")), ("Running", "ClassBackoff"));
    let conditions = world.status("a")["conditions"].as_array().unwrap();
    let queued = conditions.iter().find(|found| found["type"] == "Queued").unwrap();
    assert!(text(queued, "/message").contains("exceeded quota"), "{queued}");
    let refused = world.cluster.log.iter().filter(|line| line.contains("refused")).count();
    assert!((3..=12).contains(&refused), "{:?}", world.cluster.log);
    let patches = world.cluster.log.iter().filter(|line| line.starts_with("patch")).count();
    assert!(patches <= 4, "{:?}", world.cluster.log);
    world.cluster.quota = 10;
    assert_eq!(world.run_to_the_end("a")["status"]["succeeded"], 6);
}

#[test]
fn of_two_half_created_gangs_one_gives_way() {
    let gang = |cpu: &str| {
        spec(json!({
            "completions": 4, "parallelism": 4, "minParallelism": 4,
            "template": {"spec": {"containers": [
                {"name": "main", "image": "app", "resources": {"requests": {"cpu": cpu}}}]}},
        }))
    };
    let mut world = World::new("64");
    world.cluster.quota = 3;
    world.cluster.submit("a", gang("100m"));
    world.settle();
    world.cluster.submit("b", gang("200m"));
    world.cluster.quota = 6;
    world.settle();
    assert_eq!(world.pod_names(), ["a-0-0", "a-1-0", "a-2-0", "b-0-0", "b-1-0", "b-2-0"]);
    // Pods wait for their sisters: a gang works, and ends, only as a whole.
    for _ in 0..400 {
        world.settle();
        world.work_but_finish_nothing();
        world.cluster.pass_time(1000);
        for job in ["a", "b"] {
            let pods: Vec<String> = world
                .pod_names()
                .into_iter()
                .filter(|name| name.starts_with(job))
                .map(str::to_owned)
                .collect();
            for name in &pods {
                world.cluster.reap(name);
            }
            let running = |name: &&String| {
                let pod = world.cluster.pods.objects.get(*name);
                pod.is_some_and(|pod| text(pod, "/status/phase") == "Running")
            };
            if pods.iter().filter(running).count() == 4 {
                pods.iter().for_each(|name| world.cluster.finish(name, 0));
            }
        }
    }
    for job in ["a", "b"] {
        assert_eq!(world.reason(job, "Complete"), "Completed", "{:?}", world.cluster.log);
        assert_eq!(world.status(job)["succeeded"], 4);
    }
    assert!(world.cluster.log.len() < 80, "{:?}", world.cluster.log);
}

#[test]
fn many_distinct_jobs_share_their_admission_and_all_run() {
    let mut world = World::new("500");
    let jobs: Vec<String> = (0..150).map(|number| format!("j{number}")).collect();
    for (number, job) in jobs.iter().enumerate() {
        let cpu = format!("{}m", 100 + number);
        let job_spec = spec(json!({"template": {"spec": {"containers": [
            {"name": "main", "image": "app", "resources": {"requests": {"cpu": cpu}}}]}}}));
        world.cluster.submit(job, job_spec);
    }
    let huge = json!({"template": {"spec": {"containers": [
        {"name": "main", "image": "app", "resources": {"requests": {"cpu": "600"}}}]}}});
    world.cluster.submit("huge", spec(huge));
    assert_eq!(world.settle(), 150, "one create each");
    world.cluster.pass_time(5000);
    world.settle();
    assert_eq!(world.reason("huge", "Stalled"), "NeverFits");
    world.restart();
    assert_eq!(world.settle(), 0, "{:?}", world.cluster.log);
    for job in &jobs {
        world.run_to_the_end(job);
    }
    assert_eq!(world.cluster.violations, [] as [String; 0]);
}
