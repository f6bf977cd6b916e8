//! Anything may happen in any order.

use crate::cluster::{Ended, How, IGNORED, NODE, is_deleting, text};
use crate::world::{Trouble, World, key};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const JOB: &str = "a";
/// What the only node has.
const CPU: &str = "350m";
/// The exit code by which a pod fails the whole job.
const FATAL: i32 = 42;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The controller works on what asks for it.
    Pass(Trouble),
    /// A pass that nothing asked for.
    Spurious,
    /// The watches show so many events.
    Deliver {
        jobs: usize,
        pods: usize,
    },
    /// Watches are cut and list anew: events are lost.
    CutWatches {
        jobs: bool,
        pods: bool,
    },
    Restart,
    /// The node goes, with all that runs on it.
    LoseNode,
    /// There is a node again.
    NodeJoins,
    Time {
        milliseconds: i64,
    },
    Start(usize),
    Finish(usize, i32),
    Evict(usize),
    Delete(usize),
    ForceDelete(usize),
    Reap(usize),
    Stop(&'static str),
    Parallelism(u32),
    Quota(usize),
    RecreateJob,
}

fn step() -> impl Strategy<Value = Step> {
    let pod = 0..12_usize;
    prop_oneof![
        24 => Just(Step::Pass(Trouble::None)),
        4 => (0..6_usize).prop_map(|write| Step::Pass(Trouble::Crash(write))),
        2 => (0..6_usize).prop_map(|write| Step::Pass(Trouble::LostAnswer(write))),
        2 => (0..6_usize).prop_map(|write| Step::Pass(Trouble::NoBudget(write))),
        2 => Just(Step::Spurious),
        12 => (0..3_usize, 0..6_usize).prop_map(|(jobs, pods)| Step::Deliver { jobs, pods }),
        1 => (0..3).prop_map(|which| Step::CutWatches { jobs: which != 0, pods: which != 1 }),
        1 => Just(Step::Restart),
        1 => Just(Step::LoseNode),
        4 => Just(Step::NodeJoins),
        8 => (1..4000_i64).prop_map(|milliseconds| Step::Time { milliseconds }),
        12 => pod.clone().prop_map(Step::Start),
        12 => (pod.clone(), prop_oneof![40 => Just(0), 20 => Just(1), 10 => Just(IGNORED), 1 => Just(FATAL)])
            .prop_map(|(pod, code)| Step::Finish(pod, code)),
        1 => pod.clone().prop_map(Step::Evict),
        1 => pod.clone().prop_map(Step::Delete),
        1 => pod.clone().prop_map(Step::ForceDelete),
        3 => pod.prop_map(Step::Reap),
        1 => prop::sample::select(vec!["None", "Hold", "Drain"]).prop_map(Step::Stop),
        1 => (1..5_u32).prop_map(Step::Parallelism),
        1 => (0..4_usize).prop_map(Step::Quota),
    ]
}

/// Steps in which a job is deleted and made anew under its name, too.
fn step_with_recreation() -> impl Strategy<Value = Step> {
    prop_oneof![40 => step(), 1 => Just(Step::RecreateJob)]
}

fn spec() -> impl Strategy<Value = Value> {
    (
        1..6_u32,
        1..5_u32,
        any::<bool>(),
        any::<bool>(),
        prop_oneof![3 => Just(1000_u32), 1 => 0..4_u32],
        prop::option::weighted(0.3, 0..3_u32),
        (0..3_u32, prop::option::weighted(0.2, 5..60_u32), prop::bool::weighted(0.2)),
        (prop_oneof![3 => Just(0), 1 => 1..30_u32], prop_oneof![3 => Just(0), 1 => 1..30_u32], 0..2_u32),
        prop::option::weighted(0.3, (1..5_u32, any::<bool>())),
    )
        .prop_map(
            |(
                completions,
                parallelism,
                indexed,
                strict,
                limit,
                per_index,
                (backoff, deadline, gang),
                (age, hold, keep),
                enough,
            )| {
                let mut spec = json!({
                    "completions": completions,
                    "parallelism": parallelism,
                    "completionMode": if indexed { "Indexed" } else { "NonIndexed" },
                    "backoffLimit": limit,
                    "podFailurePolicy": {"rules": [
                    {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [IGNORED]}},
                    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [FATAL]}},
                    ]},
                    "retry": {"initialBackoffSeconds": backoff, "maxBackoffSeconds": 4},
                    "release": {
                        "completionTracking": if strict { "Strict" } else { "AtLeastOnce" },
                        "minPodAgeSeconds": age, "holdOnFailureSeconds": hold, "keepFailedPods": keep,
                    },
                    "template": {"spec": {"containers": [{"name": "main", "image": "app"}]}},
                });
                if gang {
                    spec["minParallelism"] = json!(parallelism.min(completions).min(3));
                    spec["pendingDeadlineSeconds"] = json!(5);
                }
                if let Some(seconds) = deadline {
                    spec["activeDeadlineSeconds"] = json!(seconds);
                }
                if let Some((count, named)) = enough {
                    let mut rule = json!({"succeededCount": count.min(completions)});
                    if indexed && named {
                        rule = json!({"succeededIndexes": format!("0,{}", count.min(completions - 1))});
                    }
                    spec["successPolicy"] = json!({"rules": [rule]});
                }
                if indexed && let Some(limit) = per_index {
                    spec["backoffLimitPerIndex"] = json!(limit);
                }
                spec
            },
        )
}

fn take(world: &mut World, step: &Step, spec: &Value) {
    let name = |world: &World, number: usize| {
        let pods = &world.cluster.pods.objects;
        pods.keys().nth(number % pods.len().max(1)).cloned().unwrap_or_default()
    };
    match step {
        Step::Pass(trouble) => {
            if let Some(key) = world.next_key() {
                world.pass(&key, *trouble);
            }
        }
        Step::Spurious => drop(world.pass(&key(JOB), Trouble::None)),
        Step::Deliver { jobs, pods } => world.deliver(*jobs, *pods),
        Step::CutWatches { jobs, pods } => world.cut_watches(*jobs, *pods),
        Step::Restart => world.restart(),
        Step::LoseNode => world.lose_node(NODE),
        Step::NodeJoins => node_joins(world),
        Step::Time { milliseconds } => world.cluster.pass_time(*milliseconds),
        Step::Start(pod) if world.has_node(NODE) => world.cluster.start(&name(world, *pod)),
        Step::Start(_) => {}
        Step::Finish(pod, code) => world.cluster.finish(&name(world, *pod), *code),
        Step::Evict(pod) => world.cluster.evict(&name(world, *pod)),
        Step::Delete(pod) | Step::ForceDelete(pod) => {
            let name = name(world, *pod);
            // A failure that is deleted before it was seen may count as a disruption.
            if world.cluster.pods.objects.get(&name).is_some_and(|pod| text(pod, "/status/phase") != "Failed")
            {
                world.cluster.delete_pod(&name, if matches!(step, Step::Delete(_)) { 30 } else { 0 });
            }
        }
        Step::Reap(pod) => world.cluster.reap(&name(world, *pod)),
        Step::Stop(policy) => world.cluster.edit(JOB, |spec| spec["stopPolicy"] = json!(policy)),
        Step::Parallelism(pods) => world.cluster.edit(JOB, |spec| {
            let least = spec["minParallelism"].as_u64().unwrap_or(1);
            spec["parallelism"] = json!(u64::from(*pods).max(least));
        }),
        Step::Quota(pods) => world.cluster.quota = *pods,
        Step::RecreateJob => {
            world.cluster.delete_job(JOB);
            world.cluster.submit(JOB, spec.clone());
        }
    }
}

/// A node comes, unless there is one.
fn node_joins(world: &mut World) {
    if !world.has_node(NODE) {
        world.set_node(NODE, Some(CPU), false);
    }
}

/// What holds at every moment.
fn check_status(before: &Value, now: &Value) -> Result<(), TestCaseError> {
    let number = |status: &Value, field: &str| status[field].as_u64().unwrap_or(0);
    for field in ["succeeded", "failed", "disrupted", "runningSeconds", "suspendedSeconds"] {
        prop_assert!(number(now, field) >= number(before, field), "{} went back: {} {}", field, before, now);
    }
    Ok(())
}

fn ends(world: &World, uid: &str) -> Vec<Ended> {
    world.cluster.ended.iter().filter(|ended| ended.job == uid).cloned().collect()
}

fn live_through(spec: &Value, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new(CPU);
    world.cluster.submit(JOB, spec.clone());
    for step in steps {
        let before = world.cluster.jobs.objects.get(JOB).cloned();
        take(&mut world, step, spec);
        prop_assert!(
            world.cluster.violations.is_empty(),
            "{:?}\n{:#?}",
            world.cluster.violations,
            world.cluster.log
        );
        let now = world.cluster.jobs.objects.get(JOB);
        if let Some((before, now)) = before.zip(now)
            && text(&before, "/metadata/uid") == text(now, "/metadata/uid")
        {
            check_status(&before["status"], &now["status"])?;
        }
    }
    // From here on all goes well.
    world.cluster.quota = usize::MAX;
    node_joins(&mut world);
    world.cluster.edit(JOB, |spec| spec["stopPolicy"] = json!("None"));
    world.settle();
    // Whoever plans once more on the same view finds nothing to do; nor does another process.
    let again = world.plan(&key(JOB)).map_or(0, |plan| plan.writes());
    prop_assert_eq!(again, 0, "a plan is not idempotent");
    world.restart();
    let log = world.cluster.log.len();
    let writes: Vec<String> = {
        world.settle();
        world.cluster.log[log..].iter().filter(|line| line.starts_with("patch batchjobs")).cloned().collect()
    };
    // What only the former process knew may be said anew, but not again and again.
    prop_assert!(writes.len() <= 1, "a restart writes {:?}", writes);
    let stored = world.run_to_the_end(JOB);
    check_outcome(&world, spec, &stored)?;
    let end = |stored: &Value| {
        let mut status = stored["status"].clone();
        status["observedGeneration"].take();
        status["conditions"].take();
        status
    };
    let expected = end(&stored);
    for _ in 0..1000 {
        world.settle();
        let Some(stored) = world.cluster.jobs.objects.get(JOB) else { break };
        prop_assert_eq!(&end(stored), &expected, "the outcome of a job is final");
        if !world.work() {
            prop_assert!(world.sleep(), "a finished job waits for its end");
        }
    }
    world.settle();
    while world.work() {
        world.settle();
    }
    // Pods of an owner that the last process never saw.
    while world.sleep() {
        world.settle();
    }
    prop_assert!(world.cluster.violations.is_empty(), "{:?}", world.cluster.violations);
    let left: Vec<&Value> = world
        .cluster
        .pods
        .objects
        .values()
        .filter(|pod| !is_deleting(pod) || pod["metadata"].get("finalizers").is_some())
        .collect();
    prop_assert!(left.is_empty(), "left behind: {:?}", left);
    prop_assert!(world.cluster.jobs.objects.is_empty());
    Ok(())
}

fn check_outcome(world: &World, spec: &Value, stored: &Value) -> Result<(), TestCaseError> {
    let status = &stored["status"];
    let completions = spec["completions"].as_u64().unwrap();
    let ends = ends(world, text(stored, "/metadata/uid"));
    let mut succeeded: BTreeMap<u32, usize> = BTreeMap::new();
    for ended in ends.iter().filter(|ended| ended.how == How::Succeeded) {
        *succeeded.entry(ended.index).or_default() += 1;
    }
    let failed: Vec<&Ended> = ends.iter().filter(|ended| ended.how == How::Failed).collect();
    let counted: BTreeSet<(u32, u32)> = failed.iter().map(|ended| (ended.index, ended.attempt)).collect();
    let is_complete = world.reason(JOB, "Complete") == "Completed";
    let context = format!("{status:#}\n{ends:#?}\n{:#?}", world.cluster.log);
    if is_complete {
        prop_assert_eq!(status["succeeded"].as_u64(), Some(completions), "{}", context);
        prop_assert_eq!(succeeded.len() as u64, completions, "{}", context);
    }
    if world.reason(JOB, "Complete") == "SuccessPolicyMet" {
        let rule = &spec["successPolicy"]["rules"][0];
        if let Some(count) = rule["succeededCount"].as_u64() {
            prop_assert!(succeeded.len() as u64 >= count, "{}", context);
        }
        for index in rule["succeededIndexes"].as_str().into_iter().flat_map(|list| list.split(',')) {
            prop_assert!(succeeded.contains_key(&index.parse().unwrap()), "{}", context);
        }
    }
    if spec["release"]["completionTracking"] == "Strict" {
        prop_assert!(succeeded.values().all(|count| *count == 1), "an index succeeded twice: {}", context);
        prop_assert_eq!(status["succeeded"].as_u64(), Some(succeeded.len() as u64), "{}", context);
        prop_assert_eq!(counted.len(), failed.len(), "an attempt failed twice: {}", context);
        prop_assert_eq!(status["failed"].as_u64(), Some(failed.len() as u64), "{}", context);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn every_job_ends_and_no_index_runs_twice(
        spec in spec(),
        steps in prop::collection::vec(step(), 1..160),
    ) {
        live_through(&spec, &steps)?;
    }

    #[test]
    fn a_name_is_used_again_by_another_job(
        spec in spec(),
        steps in prop::collection::vec(step_with_recreation(), 1..160),
    ) {
        live_through(&spec, &steps)?;
    }
}

#[test]
fn a_gang_that_was_whole_for_a_moment_between_two_passes_was_whole() {
    let spec = json!({
        "completions": 3, "parallelism": 3, "minParallelism": 3, "pendingDeadlineSeconds": 5,
        "retry": {"initialBackoffSeconds": 0, "maxBackoffSeconds": 4},
        "template": {"spec": {"containers": [{"name": "main", "image": "app"}]}},
    });
    let pass = || Step::Pass(Trouble::None);
    let nothing = || Step::Deliver { jobs: 0, pods: 0 };
    let steps = [
        vec![
            Step::Time { milliseconds: 1000 },
            pass(),
            Step::Deliver { jobs: 1, pods: 0 },
            pass(),
            nothing(),
        ],
        vec![Step::Spurious, pass(), pass(), Step::Delete(0), Step::Deliver { jobs: 0, pods: 1 }, nothing()],
        vec![pass(), nothing(), pass(), Step::Start(2), Step::Finish(2, 0), pass(), pass(), pass()],
        vec![Step::Deliver { jobs: 0, pods: 3 }, pass(), Step::Time { milliseconds: 1 }, pass()],
        vec![Step::Time { milliseconds: 1298 }, Step::Delete(3), Step::Time { milliseconds: 2856 }],
        vec![Step::Start(2), Step::Time { milliseconds: 2846 }, pass(), pass(), pass()],
    ];
    live_through(&spec, &steps.concat()).unwrap();
}
