//! Jobs in queues: what waits, what is taken back, what one queue means to another.

use crate::cluster::text;
use crate::lives::spec;
use crate::world::{World, is_finished};
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn sized(cpu: &str, extra: Value) -> Value {
    let mut spec = spec(extra);
    spec["template"] = json!({"spec": {"containers": [
        {"name": "main", "image": "app", "resources": {"requests": {"cpu": cpu}}}]}});
    spec
}

fn quota(nominal: &str) -> Value {
    json!({"quota": [{"resource": "cpu", "nominal": nominal}]})
}

fn lending(nominal: &str, max: &str) -> Value {
    json!({"cohort": "idle", "quota": [{"resource": "cpu", "nominal": nominal, "max": max}]})
}

/// So many seconds go by, in which pods that were told to go do, and others start.
fn seconds(world: &mut World, count: usize) {
    for _ in 0..count {
        world.settle();
        for name in names(world) {
            world.cluster.reap(&name);
        }
        world.settle();
        world.work_but_finish_nothing();
        world.cluster.pass_time(1000);
    }
    world.settle();
}

fn names(world: &World) -> Vec<String> {
    world.pod_names().into_iter().map(str::to_owned).collect()
}

fn pods_of(world: &World, job: &str) -> Vec<String> {
    let prefix = format!("{job}-");
    names(world).into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

/// kueue#8095
#[test]
fn a_thousand_jobs_that_wait_for_an_hour_are_written_once_each() {
    // With the one that runs as many as the built-in queue lets wait.
    const WAITING: usize = 999;
    const STEP_SECONDS: usize = 4;
    for queue in [None, Some("q")] {
        let within = |mut spec: Value| {
            if let Some(queue) = queue {
                spec["queueName"] = json!(queue);
            }
            spec
        };
        let mut world = World::new("1");
        if queue.is_some() {
            world.set_queue(
                "q",
                Some(json!({"maxQueuedJobs": 2000, "quota": [{"resource": "cpu", "nominal": "1"}]})),
            );
        }
        // It takes the only slot again and again, so that what the others wait for changes all the time.
        world.cluster.submit(
            "busy",
            within(sized("1", json!({"completions": 1000, "parallelism": 2, "priority": 10}))),
        );
        world.settle();
        for number in 0..WAITING {
            let tracking = if number % 2 == 0 { "Strict" } else { "AtLeastOnce" };
            let wide = if number % 3 == 0 { 3 } else { 1 };
            let extra = json!({"completions": wide, "parallelism": wide, "release": {"completionTracking": tracking}});
            world.cluster.submit(&format!("w{number}"), within(sized("1", extra)));
        }
        let mut most = 0;
        for second in (0..3600).step_by(STEP_SECONDS) {
            let before = world.cluster.log.len();
            if second == 1800 {
                world.restart();
            }
            world.settle();
            world.work_but_finish_nothing();
            if second % 20 == 16 {
                for pod in pods_of(&world, "busy") {
                    world.cluster.finish(&pod, 0);
                }
            }
            world.settle();
            world.cluster.pass_time(1000 * i64::try_from(STEP_SECONDS).unwrap());
            let new = &world.cluster.log[before..];
            most = most.max(new.iter().filter(|line| line.starts_with("patch batchjobs w")).count());
        }
        assert!(names(&world).iter().all(|name| name.starts_with("busy")), "{:?}", names(&world));
        let told = |job: &str| {
            let line = format!("patch batchjobs {job}");
            world.cluster.log.iter().filter(|written| **written == line).count()
        };
        for number in 0..WAITING {
            let job = format!("w{number}");
            assert!(told(&job) <= 1, "{job} was written {} times", told(&job));
        }
        let reason = if queue.is_some() { "QuotaExceeded" } else { "NoCapacity" };
        assert_eq!((world.reason("w0", "Queued"), world.reason("w0", "Complete")), (reason, "Queued"));
        // Seconds pass between two moments in which something is written.
        assert_eq!(most, 20, "records in a second");
    }
}

/// kueue#3210, kueue#10270: all of it without any time that passes.
#[test]
fn capacity_follows_nodes_that_come_change_and_go_at_once() {
    let mut world = World::new("1");
    world.cluster.submit("first", sized("1", json!({})));
    world.settle();
    world.cluster.start("first-0-0");
    world.cluster.submit("a", sized("1", json!({"completions": 9, "parallelism": 9})));
    world.settle();
    assert_eq!(pods_of(&world, "a").len(), 0);
    world.set_node("cordoned", Some("2"), true);
    world.set_node("brief", Some("4"), false);
    world.set_node("brief", None, false);
    world.settle();
    assert_eq!(pods_of(&world, "a").len(), 0, "neither a cordoned node has room nor one that is gone");
    world.set_node("cordoned", Some("2"), false);
    world.settle();
    assert_eq!(pods_of(&world, "a").len(), 2);
    world.set_node("added", Some("3"), false);
    world.settle();
    assert_eq!(pods_of(&world, "a").len(), 5);
    world.set_node("added", Some("4"), false);
    world.settle();
    assert_eq!(pods_of(&world, "a").len(), 6, "it has grown");
    world.set_node("added", Some("9"), true);
    world.settle();
    assert_eq!(pods_of(&world, "a").len(), 6, "what it has is for nobody while it is cordoned");
}

/// YuniKorn has one configuration for all queues.
#[test]
fn a_bad_queue_stops_its_own_jobs_and_nobody_elses() {
    let bad = || {
        let mut spec = quota("1");
        spec["tiers"] = json!([{"name": "BestEffort", "podLabels": {"springtide.dev/job": "mine"}}]);
        spec
    };
    let mut world = World::new("4");
    world.set_queue("good", Some(quota("1")));
    world.set_queue("bad", Some(bad()));
    for (name, queue, tier) in
        [("g", "good", "BestEffort"), ("b", "bad", "BestEffort"), ("s", "bad", "Standard")]
    {
        world.cluster.submit(name, spec(json!({"queueName": queue, "tier": tier})));
    }
    seconds(&mut world, 5);
    assert_eq!(names(&world), ["g-0-0", "s-0-0"], "its other tiers go on, too");
    assert_eq!(
        (world.reason("b", "Stalled"), world.reason("b", "Queued")),
        ("TierNotAllowed", "TierNotAllowed")
    );
    let conditions = world.status("b")["conditions"].to_string();
    assert!(conditions.contains("podLabels"), "the field is named: {conditions}");
    // A good one that is spoilt ends nothing.
    world.set_queue("good", Some(bad()));
    world.cluster.submit("late", spec(json!({"queueName": "good"})));
    seconds(&mut world, 60);
    assert_eq!(names(&world), ["g-0-0", "s-0-0"]);
    for queue in ["good", "bad"] {
        world.set_queue(queue, Some(quota("1")));
    }
    world.settle();
    assert_eq!(names(&world), ["b-0-0", "g-0-0", "late-0-0", "s-0-0"]);
    for job in ["b", "g", "late", "s"] {
        world.run_to_the_end(job);
    }
}

#[test]
fn pods_of_a_queue_that_is_deleted_finish_and_nothing_starts_until_it_is_back() {
    let mut world = World::new("4");
    world.set_queue("q", Some(quota("200m")));
    world.cluster.submit("a", spec(json!({"queueName": "q", "completions": 4, "parallelism": 4})));
    seconds(&mut world, 3);
    assert_eq!(world.live(), [0, 1]);
    world.set_queue("q", None);
    world.cluster.finish("a-0-0", 0);
    seconds(&mut world, 10);
    assert_eq!((names(&world), world.reason("a", "Queued")), (vec!["a-1-0".to_owned()], "QueueNotFound"));
    assert_eq!(world.status("a")["succeeded"], 1, "what ends is counted");
    world.restart();
    seconds(&mut world, 10);
    assert_eq!((names(&world), world.reason("a", "Stalled")), (vec!["a-1-0".to_owned()], "QueueNotFound"));
    world.set_queue("q", Some(quota("200m")));
    world.settle();
    assert_eq!(world.live(), [1, 2]);
    assert_eq!(world.run_to_the_end("a")["status"]["failed"], 0);
}

#[test]
fn a_quota_that_is_cut_and_a_lender_take_pods_back_that_run_again_and_have_not_failed() {
    // Whether the nominal quota is cut, or its lender uses it.
    for (cause, mine) in [("QuotaShrunk", quota("400m")), ("Reclaimed", lending("200m", "400m"))] {
        let mut world = World::new("4");
        world.set_queue("mine", Some(mine.clone()));
        world.set_queue("other", Some(lending("200m", "200m")));
        let wide = json!({"queueName": "mine", "completions": 8, "parallelism": 4});
        world.cluster.submit("mine", spec(wide));
        seconds(&mut world, 3);
        assert_eq!(world.live().len(), 4);
        let before = world.cluster.log.len();
        match cause {
            "QuotaShrunk" => world.set_queue("mine", Some(quota("200m"))),
            _ => world
                .cluster
                .submit("back", spec(json!({"queueName": "other", "completions": 2, "parallelism": 2}))),
        }
        seconds(&mut world, 3);
        assert_eq!(pods_of(&world, "mine").len(), 2, "{cause}");
        assert_eq!(world.reason("mine", "Degraded"), cause);
        let since = |start: &str| world.cluster.log[before..].iter().position(|line| line.starts_with(start));
        assert!(since("patch batchjobs mine") < since("delete pods mine"), "it is told of before a pod goes");
        seconds(&mut world, 120);
        assert_eq!(pods_of(&world, "mine").len(), 2, "and no more comes back: {:?}", world.cluster.log);
        match cause {
            "QuotaShrunk" => world.set_queue("mine", Some(mine)),
            _ => {
                let back = pods_of(&world, "back");
                assert_eq!(back.len(), 2);
                back.iter().for_each(|pod| world.cluster.finish(pod, 0));
            }
        }
        seconds(&mut world, 10);
        assert_eq!(pods_of(&world, "mine").len(), 4, "{cause}");
        let status = world.run_to_the_end("mine")["status"].clone();
        assert_eq!((&status["succeeded"], &status["failed"]), (&json!(8), &json!(0)), "{cause}");
        assert_eq!(world.reason("mine", "Degraded"), "FullParallelism");
        assert_eq!(world.cluster.violations, [] as [String; 0]);
    }
}

fn gang(extra: Value) -> Value {
    let mut gang = json!({"queueName": "q", "completions": 3, "parallelism": 3, "minParallelism": 3,
        "completionMode": "Indexed", "retry": {"initialBackoffSeconds": 0}});
    for (field, value) in extra.as_object().unwrap() {
        gang[field] = value.clone();
    }
    spec(gang)
}

fn group_of<'a>(world: &'a World, pod: &str) -> &'a str {
    text(&world.cluster.pods.objects[pod], "/spec/schedulingGroup/podGroupName")
}

#[test]
fn a_gang_gets_its_group_before_its_first_pod_and_only_once() {
    let mut world = World::new("4");
    world.cluster.pod_groups = Some(BTreeSet::new());
    world.set_queue("q", Some(json!({"gangScheduler": "PodGroup"})));
    world.cluster.submit("alone", spec(json!({"queueName": "q"})));
    world.cluster.submit("gang", gang(json!({})));
    world.settle();
    let groups = world.cluster.pod_groups.clone().unwrap();
    assert_eq!(groups.len(), 1, "a single pod has none: {groups:?}");
    let group = groups.first().unwrap().clone();
    let made: Vec<&String> = world.cluster.log.iter().filter(|line| line.contains("gang")).collect();
    assert_eq!(*made[0], format!("create podgroups {group}"));
    assert_eq!(made.len(), 4, "{made:?}");
    assert!(pods_of(&world, "gang").iter().all(|pod| group_of(&world, pod) == group));
    assert_eq!(group_of(&world, "alone-0-0"), "");
    // One that is run again belongs to it as long as the gang is whole. A new manager finds the group there.
    world.restart();
    world.work_but_finish_nothing();
    world.cluster.finish("gang-1-0", 1);
    seconds(&mut world, 2);
    assert_eq!(group_of(&world, "gang-1-1"), group);
    // What is left of a gang would wait for the others for ever.
    for pod in ["gang-0-0", "gang-2-0"] {
        world.cluster.finish(pod, 0);
    }
    world.settle();
    world.cluster.finish("gang-1-1", 1);
    seconds(&mut world, 3);
    assert_eq!(group_of(&world, "gang-1-2"), "");
    assert_eq!(world.cluster.pod_groups.as_ref().unwrap().len(), 1);
    let asked = world.cluster.log.iter().filter(|line| line.contains("podgroups")).count();
    assert_eq!(asked, 2, "once by each manager");
    world.run_to_the_end("gang");
}

#[test]
fn a_gang_starts_by_the_count_alone_where_no_group_can_be_made() {
    let mut world = World::new("4");
    world.set_queue("q", Some(json!({"gangScheduler": "PodGroup"})));
    for job in ["first", "second"] {
        world.cluster.submit(job, gang(json!({"parallelism": 3})));
        world.settle();
        let pods = pods_of(&world, job);
        assert_eq!(pods.len(), 3);
        assert!(pods.iter().all(|pod| group_of(&world, pod).is_empty()));
    }
    let asked = world.cluster.log.iter().filter(|line| line.contains("podgroups")).count();
    assert_eq!(asked, 1, "it is not asked for again and again: {:?}", world.cluster.log);
    // The API is enabled later.
    world.cluster.pod_groups = Some(BTreeSet::new());
    seconds(&mut world, 601);
    world.cluster.submit("third", gang(json!({})));
    world.settle();
    assert!(pods_of(&world, "third").iter().all(|pod| !group_of(&world, pod).is_empty()));
    for job in ["first", "second", "third"] {
        world.run_to_the_end(job);
    }
}

/// Reason and message of what a queue says of its gangs.
fn said_of_gangs<'a>(world: &'a World, queue: &str) -> (&'a str, &'a str) {
    let conditions = world.queue_status(queue)["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|found| found["type"] == "GangScheduling").unwrap();
    (text(found, "/reason"), text(found, "/message"))
}

fn has_groups(world: &World, job: &str) -> bool {
    let pods = pods_of(world, job);
    assert_eq!(pods.len(), 3, "{job}");
    let grouped = pods.iter().filter(|pod| !group_of(world, pod).is_empty()).count();
    assert!([0, 3].contains(&grouped), "{job}: {grouped}");
    grouped == 3
}

#[test]
fn a_refused_group_is_a_matter_of_its_queue_alone_and_is_asked_for_again() {
    let mut world = World::new("4");
    world.cluster.pod_groups = Some(BTreeSet::new());
    for queue in ["q", "r"] {
        world.set_queue(queue, Some(json!({"gangScheduler": "PodGroup"})));
    }
    world.cluster.refuse_groups = Some(("q", 403, "exceeded quota: groups"));
    world.cluster.submit("first", gang(json!({})));
    world.settle();
    world.cluster.submit("other", gang(json!({"queueName": "r"})));
    world.cluster.submit("second", gang(json!({})));
    world.settle();
    assert!(!has_groups(&world, "first") && !has_groups(&world, "second"), "they start all the same");
    assert!(has_groups(&world, "other"), "nobody has refused one of its queue");
    let asked = world.cluster.log.iter().filter(|line| line.contains("podgroups")).count();
    assert_eq!(asked, 2, "once in each queue: {:?}", world.cluster.log);
    world.pass_queues();
    assert_eq!(said_of_gangs(&world, "r").0, "PodGroup");
    let (reason, message) = said_of_gangs(&world, "q");
    assert_eq!(reason, "Refused");
    assert!(message.contains("exceeded quota: groups"), "{message}");
    world.cluster.refuse_groups = None;
    seconds(&mut world, 31);
    world.cluster.submit("third", gang(json!({})));
    world.settle();
    assert!(has_groups(&world, "third"));
    world.pass_queues();
    assert_eq!(said_of_gangs(&world, "q").0, "PodGroup");
    // The others of its gang are in none: the scheduler would wait for them for ever.
    world.work_but_finish_nothing();
    world.cluster.finish("first-1-0", 1);
    seconds(&mut world, 2);
    assert_eq!(group_of(&world, "first-1-1"), "");
    for job in ["first", "second", "third", "other"] {
        world.run_to_the_end(job);
    }
}

#[test]
fn an_invalid_group_is_a_matter_of_its_job_and_one_without_an_answer_holds_up_no_gang() {
    let mut world = World::new("4");
    world.cluster.pod_groups = Some(BTreeSet::new());
    world.set_queue("q", Some(json!({"gangScheduler": "PodGroup"})));
    world.cluster.refuse_groups = Some(("bad", 422, "PodGroup is invalid: minCount"));
    world.cluster.submit("bad", gang(json!({})));
    world.settle();
    assert!(!has_groups(&world, "bad"));
    world.pass_queues();
    assert_eq!(said_of_gangs(&world, "q").0, "Refused");
    world.cluster.submit("good", gang(json!({})));
    world.settle();
    assert!(has_groups(&world, "good"), "the next one of the queue asks at once");
    world.cluster.refuse_groups = Some(("lost", 500, "failed calling webhook"));
    world.cluster.submit("lost", gang(json!({})));
    seconds(&mut world, 5);
    assert!(!has_groups(&world, "lost"));
    world.pass_queues();
    let (reason, message) = said_of_gangs(&world, "q");
    assert_eq!(reason, "Refused");
    assert!(message.contains("failed calling webhook"), "{message}");
    for job in ["bad", "good", "lost"] {
        world.run_to_the_end(job);
    }
}

#[test]
fn half_a_gang_of_a_queue_is_taken_back_and_its_quota_is_for_others() {
    let mut world = World::new("4");
    world.set_queue("q", Some(quota("400m")));
    // The API server refuses the last two: somebody has set a ResourceQuota.
    world.cluster.quota = 2;
    let gang = json!({"queueName": "q", "completions": 4, "parallelism": 4, "minParallelism": 4, "pendingDeadlineSeconds": 5});
    world.cluster.submit("gang", spec(gang));
    seconds(&mut world, 3);
    assert_eq!(pods_of(&world, "gang").len(), 2);
    world.cluster.submit("solo", sized("100m", json!({"queueName": "q", "priority": 5})));
    let mut solo_ran = false;
    for _ in 0..60 {
        seconds(&mut world, 1);
        solo_ran |= !pods_of(&world, "solo").is_empty();
        for pod in pods_of(&world, "solo") {
            world.cluster.finish(&pod, 0);
        }
    }
    assert!(solo_ran, "{:?}", world.cluster.log);
    assert!(is_finished(&world.cluster.jobs.objects["solo"]));
    world.cluster.quota = usize::MAX;
    let status = world.run_to_the_end("gang")["status"].clone();
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(4), &json!(0)));
}

#[test]
fn who_may_have_others_end_once_they_have_run_as_promised_is_served_then_without_any_event() {
    let mut world = World::new("2");
    let preemptible = json!({"by": ["Guaranteed"], "minRunSeconds": 60});
    let tiers = json!([{"name": "BestEffort", "preemptible": preemptible}]);
    world.set_queue("q", Some(json!({"maxTier": "Guaranteed", "tiers": tiers})));
    let of_tier = |tier: &str| json!({"queueName": "q", "tier": tier});
    world.cluster.submit("high", sized("1", of_tier("Guaranteed")));
    seconds(&mut world, 1);
    world.cluster.submit("wide", sized("2", of_tier("Guaranteed")));
    // All that it has to say by itself is said by then.
    seconds(&mut world, 300);
    world.cluster.submit("low", sized("1", of_tier("BestEffort")));
    world.settle();
    assert_eq!(names(&world), ["high-0-0", "low-0-0"]);
    let since = world.now();
    // That the room of the other one would be enough is found by a pass that nobody looks at this job for.
    world.cluster.finish("high-0-0", 0);
    world.settle();
    world.work_but_finish_nothing();
    world.settle();
    while pods_of(&world, "wide").is_empty() {
        world.cluster.pass_time(1);
        assert!(world.sleep(), "nothing comes by time alone");
        assert!(world.now().duration_since(since).as_secs() <= 60, "{:?}", world.cluster.log);
        world.settle();
        world.cluster.reap("low-0-0");
        world.settle();
    }
    assert_eq!(names(&world), ["wide-0-0"]);
}
