//! A peak window that opens and ends over a random population of jobs, under a process that dies at any time and a
//! clock that is hours off: nothing starts inside, what has to go is gone at the start, and what comes back comes
//! along an even slope.

use crate::cluster::{NAMESPACE, is_deleting, is_terminal, text};
use crate::lives::spec;
use crate::world::World;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Cores of the node.
pub(crate) const CORES: i64 = 120;
pub(crate) const LEAD: i64 = 120;
pub(crate) const RAMP: i64 = 100;
pub(crate) const JITTER: i64 = 20;
pub(crate) const PODS_PER_SECOND: usize = 5;

/// Numbers that look random, the same at each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The generator of Knuth's MMIX.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A peak of five minutes, ten minutes after the process's clock shows midnight; Standard keeps a third.
pub(crate) fn queue(begins: Timestamp) -> Value {
    let time_of_day = |seconds: i64| {
        let at = begins + SignedDuration::from_secs(seconds);
        at.to_string()[11..16].to_owned()
    };
    json!({
        "maxTier": "Guaranteed",
        "peakWindows": [{
            "name": "noon",
            "window": {"start": time_of_day(600), "end": time_of_day(900), "timeZone": "UTC"},
            "actions": [
                {"tier": "BestEffort", "action": "Drain"}, {"tier": "Standard", "action": "Degrade", "percent": 30},
            ],
            "leadSeconds": LEAD,
            "drainPodsPerSecond": PODS_PER_SECOND,
            "resume": {"rampSeconds": RAMP, "jitterSeconds": JITTER},
        }],
    })
}

/// More work than fits, of all tiers, elastic and in gangs.
pub(crate) fn populate(world: &mut World, random: &mut Random) {
    for number in 0..60 {
        let tier = ["BestEffort", "BestEffort", "Standard", "Guaranteed"][random.below(4) as usize];
        let (parallelism, gang) = match (tier, random.below(4)) {
            // What is never drained must leave room for the others.
            ("Guaranteed", _) => (1, 1),
            (_, 0) => (4, 4),
            (_, 1) => (6, 2),
            (_, _) => (1 + random.below(4), 1),
        };
        world.cluster.submit(
            &format!("j{number}"),
            spec(json!({
                "queueName": "q", "tier": tier, "completions": 500, "parallelism": parallelism,
                "minParallelism": gang, "interruption": {"graceSeconds": random.below(20)},
                "template": {"spec": {"containers": [
                    {"name": "main", "image": "app", "resources": {"requests": {"cpu": "1"}}}]}},
            })),
        );
    }
}

/// One second of a cluster: the controller works, kubelets start and end what they are told to.
pub(crate) fn second(world: &mut World) {
    world.pass_queues();
    world.settle();
    kubelets(world);
    world.settle();
}

/// What kubelets do in a second, whether or not there is a controller.
pub(crate) fn kubelets(world: &mut World) {
    world.work_but_finish_nothing();
    let now = world.cluster.now;
    let has_had_its_grace = |pod: &&Value| {
        is_deleting(pod) && text(pod, "/metadata/deletionTimestamp").parse::<Timestamp>().unwrap() <= now
    };
    let reaped: Vec<String> = world
        .cluster
        .pods
        .objects
        .values()
        .filter(has_had_its_grace)
        .map(|pod| text(pod, "/metadata/name").to_owned())
        .collect();
    for name in reaped {
        world.cluster.reap(&name);
    }
}

/// Pods that may run, by tier.
pub(crate) fn running(world: &World) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for pod in world.cluster.pods.objects.values().filter(|pod| !is_terminal(pod)) {
        *counts.entry(text(pod, "/metadata/labels/springtide.dev~1tier")).or_default() += 1;
    }
    counts
}

pub(crate) fn uids(world: &World, wanted: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    let pods = world.cluster.pods.objects.values().filter(|pod| wanted(pod));
    pods.map(|pod| text(pod, "/metadata/uid").to_owned()).collect()
}

pub(crate) fn tier_of(pod: &Value) -> &str {
    text(pod, "/metadata/labels/springtide.dev~1tier")
}

fn play(seed: u64, hours_ahead: i64, dies: bool) {
    let mut random = Random(seed);
    let mut world = World::new(&CORES.to_string());
    world.put_clock_ahead(SignedDuration::from_hours(hours_ahead));
    let begins = world.now();
    world.set_queue("q", Some(queue(begins)));
    populate(&mut world, &mut random);
    let context = |second: i64| format!("seed {seed}, {hours_ahead} h ahead, second {second}");
    let (mut free, mut came_back) = (0, 0);
    let mut known = BTreeSet::new();
    let mut deleting = BTreeSet::new();
    for at in 0..1100 {
        assert_eq!(world.now().duration_since(begins).as_secs(), at);
        if dies && random.below(40) == 0 {
            world.restart();
        }
        // Some seconds pass without any process, but none of those in which pods are ended or come back.
        let is_down =
            dies && (590..895).contains(&at) && random.below(3) == 0 && !(600 - LEAD..602).contains(&at);
        if !is_down {
            second(&mut world);
        }
        let inside = (600 - LEAD..900).contains(&at);
        let born: Vec<String> = uids(&world, |pod| !is_terminal(pod)).difference(&known).cloned().collect();
        let is_new = |pod: &Value| born.iter().any(|uid| *uid == text(pod, "/metadata/uid"));
        let new_low = uids(&world, |pod| is_new(pod) && tier_of(pod) == "BestEffort").len();
        if inside {
            assert_eq!(new_low, 0, "{}: a pod has started inside", context(at));
        }
        let now_deleting = uids(&world, is_deleting);
        // A process that has died does not know how many its predecessor ended in this very second.
        let most = if dies { 2 * PODS_PER_SECOND } else { PODS_PER_SECOND };
        let ended = now_deleting.difference(&deleting).count();
        assert!(ended <= most, "{}: {ended} pods ended", context(at));
        let counts = running(&world);
        let count = |tier: &str| counts.get(tier).copied().unwrap_or(0);
        if (600..900).contains(&at) {
            assert_eq!(count("BestEffort"), 0, "{}", context(at));
            let most = usize::try_from(CORES * 30 / 100).unwrap();
            assert!(count("Standard") <= most, "{}: {} Standard", context(at), count("Standard"));
        }
        let all: usize = counts.values().sum();
        if at == 899 {
            free = CORES - i64::try_from(all).unwrap();
            assert!(free > 40, "{}: {free} cores are free", context(at));
            came_back = 0;
        }
        if at >= 900 {
            let of_tier = |pod: &Value| is_new(pod) && tier_of(pod) != "Guaranteed";
            let new = i64::try_from(uids(&world, of_tier).len()).unwrap();
            came_back += new;
            // The queue's own delay is at most the jitter.
            let slope = |at: i64| free * (at - 900).min(RAMP) / RAMP;
            assert!(came_back <= slope(at) + 1, "{}: {came_back} of {free} are back", context(at));
            let step = free * 11 / (RAMP * 10) + 2;
            // Who was dead for a second makes up for it.
            assert!(dies || new <= step, "{}: {new} pods at once", context(at));
        }
        known.extend(born);
        deleting = now_deleting;
        world.cluster.pass_time(1000);
    }
    let all: usize = running(&world).values().sum();
    let wanted = usize::try_from(CORES).unwrap();
    assert!(all + 6 >= wanted, "{}: {all} pods at last", context(1100));
    assert_eq!(world.cluster.violations, [] as [String; 0]);
    assert_eq!(world.queue_status("q")["conditions"][0]["reason"], "Admitting", "{NAMESPACE}");
    // A drained task has not failed.
    for job in world.cluster.jobs.objects.values() {
        assert_eq!(job["status"]["failed"].as_u64().unwrap_or(0), 0);
    }
}

#[test]
fn a_peak_window_opens_and_ends_over_a_random_population() {
    for seed in 0..3 {
        play(seed, 0, false);
    }
}

#[test]
fn a_peak_window_is_kept_by_a_process_that_dies_and_by_a_clock_that_is_off() {
    play(10, 0, true);
    play(11, 2, false);
    play(12, -2, false);
}

#[test]
fn a_drained_job_is_suspended_and_resumes_and_one_that_waits_for_the_peak_costs_no_write() {
    let mut world = World::new("8");
    let begins = world.now();
    world.set_queue("q", Some(queue(begins)));
    world.cluster.submit("a", spec(json!({"queueName": "q"})));
    let pass_to = |world: &mut World, until: i64| {
        while world.now().duration_since(begins).as_secs() < until {
            second(world);
            world.cluster.pass_time(1000);
        }
        second(world);
    };
    pass_to(&mut world, 470);
    assert_eq!(world.reason("a", "Complete"), "Running");
    assert_eq!(world.queue_status("q")["nextWindow"]["name"], "noon");
    pass_to(&mut world, 600);
    assert_eq!(world.pod_names(), [] as [&str; 0]);
    assert_eq!((world.reason("a", "Complete"), world.reason("a", "Suspended")), ("Suspended", "PeakWindow"));
    let writes = |world: &World, job: &str| {
        world.cluster.log.iter().filter(|line| *line == &format!("patch batchjobs {job}")).count()
    };
    assert_eq!(writes(&world, "a"), 2, "started, suspended: {:?}", world.cluster.log);
    world.cluster.submit("late", spec(json!({"queueName": "q"})));
    pass_to(&mut world, 899);
    assert_eq!((world.reason("late", "Complete"), writes(&world, "late")), ("Pending", 0));
    assert_eq!(world.queue_status("q")["waiting"][0]["reason"], "PeakWindow");
    assert_eq!(world.queue_status("q")["activeWindow"]["podsLeft"], 0);
    pass_to(&mut world, 1100);
    assert_eq!((world.reason("a", "Complete"), world.reason("a", "Suspended")), ("Running", "Resumed"));
    assert_eq!(world.status("a")["disrupted"], 1);
    let stopped = world.status("a")["suspendedSeconds"].as_u64().unwrap();
    assert!((280..500).contains(&stopped), "{stopped}");
    world.run_to_the_end("a");
    world.run_to_the_end("late");
}

#[test]
fn a_job_that_a_peak_drains_before_any_status_told_of_its_pods_is_suspended_all_the_same() {
    for restarts in [false, true] {
        let mut world = World::new("8");
        let begins = world.now();
        let mut open = queue(begins + SignedDuration::from_hours(5));
        world.set_queue("q", Some(open.clone()));
        let wide = json!({"queueName": "q", "completions": 6, "parallelism": 6, "interruption": {"graceSeconds": 2}});
        world.cluster.submit("a", spec(wide));
        second(&mut world);
        assert_eq!((world.live().len(), world.reason("a", "Complete")), (6, "Pending"));
        let until = begins + SignedDuration::from_hours(1);
        open["overridePeak"] = json!({"mode": "ForceOn", "untilTime": until, "reason": "INC-4711"});
        world.set_queue("q", Some(open.clone()));
        let pass = |world: &mut World, seconds: i64| {
            for _ in 0..seconds {
                second(world);
                world.cluster.pass_time(1000);
            }
        };
        pass(&mut world, 20);
        assert_eq!(world.live().len(), 0);
        assert_eq!(
            (world.reason("a", "Complete"), world.reason("a", "Suspended")),
            ("Suspended", "PeakWindow")
        );
        if restarts {
            world.restart();
        }
        pass(&mut world, 60);
        assert_eq!(
            (world.reason("a", "Complete"), world.reason("a", "Suspended")),
            ("Suspended", "PeakWindow")
        );
        open.as_object_mut().unwrap().remove("overridePeak");
        world.set_queue("q", Some(open));
        pass(&mut world, 200);
        assert_eq!((world.live().len(), world.reason("a", "Suspended")), (6, "Resumed"));
    }
}

#[test]
fn an_override_drains_at_once_and_its_end_is_a_ramp_and_a_bad_time_zone_holds() {
    let mut world = World::new("50");
    let two_cores = json!({"spec": {"containers": [
        {"name": "main", "image": "app", "resources": {"requests": {"cpu": "2"}}}]}});
    let begins = world.now();
    let pass = |world: &mut World, seconds: i64| {
        for _ in 0..seconds {
            second(world);
            world.cluster.pass_time(1000);
        }
    };
    let mut open = queue(begins + SignedDuration::from_hours(5));
    world.set_queue("q", Some(open.clone()));
    let wide = json!({"queueName": "q", "completions": 90, "parallelism": 20, "template": two_cores});
    world.cluster.submit("a", spec(wide));
    pass(&mut world, 10);
    assert_eq!(world.live().len(), 20);
    let until = begins + SignedDuration::from_hours(1);
    open["overridePeak"] = json!({"mode": "ForceOn", "untilTime": until, "reason": "INC-4711"});
    world.set_queue("q", Some(open.clone()));
    pass(&mut world, 50);
    assert_eq!(world.live().len(), 0, "all have had their grace");
    let condition = |world: &World, type_: &str| {
        let conditions = world.queue_status("q")["conditions"].as_array().unwrap().clone();
        conditions.into_iter().find(|found| found["type"] == type_).unwrap_or_default()
    };
    assert_eq!(condition(&world, "PeakWindowActive")["reason"], "Forced");
    assert!(text(&condition(&world, "PeakWindowActive"), "/message").contains("INC-4711"));
    // Lifted early: what comes back comes by and by, whoever leads.
    open.as_object_mut().unwrap().remove("overridePeak");
    world.set_queue("q", Some(open.clone()));
    pass(&mut world, 40);
    world.restart();
    pass(&mut world, 10);
    assert_eq!(condition(&world, "Ready")["reason"], "Ramping");
    let back = world.live().len();
    assert!((1..20).contains(&back), "{back}");
    pass(&mut world, 100);
    assert_eq!(world.live().len(), 20);
    assert_eq!(condition(&world, "PeakWindowActive")["reason"], "Idle");
    // What nobody can read holds what it might drain, and says so.
    open["peakWindows"][0]["window"]["timeZone"] = json!("Mars/Olympus");
    world.set_queue("q", Some(open));
    pass(&mut world, 10);
    assert_eq!(condition(&world, "Stalled")["reason"], "InvalidWindow");
    assert_eq!(condition(&world, "PeakWindowActive")["reason"], "Unresolved");
    assert_eq!(world.live().len(), 20, "what runs goes on");
    world.cluster.submit("b", spec(json!({"queueName": "q"})));
    world.cluster.submit("c", spec(json!({"queueName": "q", "tier": "Standard"})));
    pass(&mut world, 10);
    let has_pod = |job: &str| world.pod_names().iter().any(|name| name.starts_with(job));
    assert_eq!((has_pod("b-"), has_pod("c-")), (false, true));
}

#[test]
fn a_forecast_follows_the_write_budget_while_the_process_runs() {
    let mut world = World::new("120");
    let rate = Arc::new(AtomicU32::new(100));
    world.follow_budget(Arc::clone(&rate));
    world.set_queue("q", Some(queue(world.now())));
    world.cluster.submit("many", spec(json!({"queueName": "q", "completions": 150, "parallelism": 150})));
    world.settle();
    assert_eq!(world.live().len(), 150);
    let mut told = |writes: u32| {
        rate.store(writes, Ordering::Relaxed);
        world.cluster.pass_time(6000);
        world.settle();
        world.pass_queues();
        let conditions = world.queue_status("q")["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|found| found["type"] == "DrainWillMiss").unwrap();
        text(found, "/reason").to_owned()
    };
    assert_eq!([100, 1, 100].map(&mut told), ["OnTime", "BudgetTooSmall", "OnTime"]);
}
