//! Each reason for which a job waits: what is said of it, until when that holds, and what helps.

use super::*;
use crate::rehearsal::advice::{self, Wait};

/// A job that waits, and all there is to say of it.
struct Case {
    world: World,
    job: &'static str,
    wait: Wait,
    until: Option<Timestamp>,
    /// A piece of the message.
    says: &'static str,
}

impl Case {
    fn new(world: World, reason: QueuedReason, says: &'static str) -> Self {
        Self { world, job: "a", wait: Wait::For(reason), until: None, says }
    }

    fn until(self, seconds: i64) -> Self {
        Self { until: Some(later(seconds)), ..self }
    }

    fn of(self, wait: Wait) -> Self {
        Self { wait, ..self }
    }
}

/// As the status of a job tells it.
fn reason_of(wait: Wait) -> QueuedReason {
    match wait {
        Wait::For(reason) => reason,
        Wait::KeptRoom => QueuedReason::HeadBlocked,
        Wait::MetricsOld | Wait::NodesNotVisible => QueuedReason::CapacityStale,
    }
}

fn later(seconds: i64) -> Timestamp {
    NOW + jiff::SignedDuration::from_secs(seconds)
}

fn condition(type_: &str, reason: &str, message: &str, since: i64) -> Value {
    json!({
        "type": type_, "status": "True", "observedGeneration": 1, "reason": reason, "message": message,
        "lastTransitionTime": later(since),
    })
}

/// A job of which the manager has said that it waits.
fn told(name: &str, cpu: &str, reason: QueuedReason, message: &str, since: i64) -> Arc<JobView> {
    with(&job(name, cpu, json!({})), |job| {
        let said = condition("Queued", reason.as_str(), message, since);
        job.status = serde_json::from_value(json!({"conditions": [said]})).unwrap();
    })
}

fn queue_with(spec: Value, status: Value) -> Arc<QueueView> {
    decoded(json!({"metadata": meta("default"), "spec": spec, "status": status}))
}

/// One job in a queue of these rules, and nothing that runs.
fn in_queue(spec: Value) -> World {
    world(vec![job("a", "1", json!({}))], vec![queue_of("default", spec)])
}

fn cpu(nominal: &str) -> Value {
    json!([{"resource": "cpu", "nominal": nominal}])
}

/// A peak of every day, by hours in UTC; it is midnight.
fn peak(start: &str, end: &str, action: Value) -> Value {
    json!([{
        "name": "night", "window": {"start": start, "end": end, "timeZone": "UTC"}, "actions": [action],
        "leadSeconds": 600, "resume": {"rampSeconds": 600, "jitterSeconds": 0},
    }])
}

fn best_effort(action: &str) -> Value {
    json!({"tier": "BestEffort", "action": action})
}

/// Rules with a load trigger, and what the status says of it.
fn triggered(action: &str, on: &[&str]) -> Arc<QueueView> {
    let trigger = json!({
        "name": "hot", "highPercent": 75, "lowPercent": 60, "sustainSeconds": 60,
        "actions": [best_effort(action)],
    });
    let status = json!({
        "activeLoadTriggers": on, "activeWindow": {"name": "hot", "startTime": later(-100)},
        "conditions": [condition("PeakWindowActive", "LoadTrigger", "", -100)],
    });
    queue_with(json!({"loadTriggers": [trigger]}), status)
}

fn by_peaks() -> Vec<Case> {
    let reason = QueuedReason::PeakWindow;
    let forced = json!({
        "peakWindows": peak("12:00", "13:00", best_effort("Hold")),
        "overridePeak": {"mode": "ForceOn", "untilTime": later(3600), "reason": "INC-4711"},
    });
    let degrade = json!({"tier": "BestEffort", "action": "Degrade", "percent": 10});
    let windows = |windows: Value| in_queue(json!({"peakWindows": windows}));
    let finishing = |seconds: u32| {
        let spec = json!({"interruption": {"policy": "FinishOrDontStart"}, "expectedSeconds": seconds});
        let drained = json!({"peakWindows": peak("01:00", "02:00", best_effort("Drain"))});
        world(vec![job("a", "1", spec)], vec![queue_of("default", drained)])
    };
    let loaded = |on: &[&str]| world(vec![job("a", "1", json!({}))], vec![triggered("Drain", on)]);
    let would_not = QueuedReason::WouldNotFinish;
    vec![
        Case::new(windows(peak("23:00", "02:00", best_effort("Hold"))), reason, "peak night lasts until")
            .until(7200),
        // Its pods leave already, ten minutes before it.
        Case::new(windows(peak("00:05", "02:00", best_effort("Drain"))), reason, "peak night starts at")
            .until(7200),
        Case::new(windows(peak("23:00", "02:00", degrade)), reason, "the peak leaves its tier").until(7200),
        // A tenth of eight cores is open by now.
        Case::new(windows(peak("22:00", "23:59", best_effort("Hold"))), reason, "opens little by little")
            .until(540),
        Case::new(in_queue(forced), reason, "INC-4711").until(3600),
        Case::new(finishing(7200), would_not, "a task takes 7200 s").until(7200),
        // So long the nodes are never left to it.
        Case::new(finishing(172_800), would_not, "a task takes 172800 s"),
        Case::new(loaded(&["hot"]), QueuedReason::LoadTrigger, "75 % of cpu was in use for 60 s"),
        Case::new(loaded(&[]), QueuedReason::LoadTrigger, "tells nothing of most nodes"),
    ]
}

fn by_room() -> Vec<Case> {
    let runs = |queue: &str, cpu: &str| vec![pod("r-0-0", Some("r"), queue, cpu)];
    let both = |runs: &str, waits: Arc<JobView>| vec![job("r", runs, json!({})), waits];
    let queue = |spec: Value| vec![queue_of("default", spec)];
    let late = job("a", "1", json!({}));
    let full = World {
        pods: runs("default", "1"),
        ..world(both("1", Arc::clone(&late)), queue(json!({"quota": cpu("1")})))
    };
    // What runs may end for a higher tier once it exists for 900 s, which is in 300 s.
    let yielding = json!({
        "quota": cpu("1"), "maxTier": "Guaranteed",
        "tiers": [{"name": "BestEffort", "preemptible": {"by": ["Guaranteed"], "minRunSeconds": 900}}],
    });
    let urgent = job("a", "1", json!({"tier": "Guaranteed"}));
    let promised = World { pods: runs("default", "1"), ..world(both("1", urgent), queue(yielding)) };
    let crowded = World { pods: runs("", "8"), ..world(both("8", Arc::clone(&late)), vec![]) };
    let strict = json!({"ordering": "StrictFIFO", "quota": cpu("4")});
    let jobs =
        vec![job("r", "3", json!({})), job("head", "2", json!({"priority": 1})), job("a", "1", json!({}))];
    let behind = World { pods: runs("default", "3"), ..world(jobs, queue(strict)) };
    let kept = vec![
        job("r", "6", json!({})),
        told("large", "4", QueuedReason::NoCapacity, "room for 0", -700),
        told("a", "1", QueuedReason::HeadBlocked, "kept", -30),
    ];
    let kept = World { pods: runs("", "6"), ..world(kept, vec![]) };
    let bounded = json!({"quota": cpu("1"), "maxQueuedJobs": 1});
    let jobs = vec![job("r", "1", json!({})), job("a", "1", json!({})), job("z", "1", json!({}))];
    let outside = World { pods: runs("default", "1"), ..world(jobs, queue(bounded)) };
    vec![
        Case::new(full, QueuedReason::QuotaExceeded, "uses 1 of 1 cpu"),
        Case::new(promised, QueuedReason::QuotaExceeded, "uses 1 of 1 cpu").until(300),
        Case::new(crowded, QueuedReason::NoCapacity, "room for 0 on 1 eligible nodes"),
        Case::new(world(vec![job("a", "64", json!({}))], vec![]), QueuedReason::NeverFits, "no node"),
        Case::new(behind, QueuedReason::HeadBlocked, "the queue is strict"),
        Case::new(kept, QueuedReason::HeadBlocked, "is kept for a job").of(Wait::KeptRoom),
        Case { job: "z", ..Case::new(outside, QueuedReason::QueueFull, "1 jobs of this queue wait already") },
    ]
}

fn by_what_is_known() -> Vec<Case> {
    let stale = QueuedReason::CapacityStale;
    let measured = json!({"capacitySource": {"type": "NodeMetrics"}});
    let old = json!({"conditions": [condition("CapacityStale", "MetricsOld", "", -100)]});
    let old = world(vec![job("a", "1", json!({}))], vec![queue_with(measured, old)]);
    // Who asks sees no nodes either, and has the manager's word alone.
    let blind = |queues: Vec<Arc<QueueView>>| World {
        nodes: None,
        ..world(vec![told("a", "1", stale, "the manager's word", -60)], queues)
    };
    let unseen = json!({"conditions": [condition("Stalled", "NodesNotVisible", "", -100)]});
    vec![
        Case::new(old, stale, "was not measured within its staleAfterSeconds").of(Wait::MetricsOld),
        Case::new(blind(vec![]), stale, "the manager's word"),
        Case::new(blind(vec![queue_with(json!({}), unseen)]), stale, "the manager's word")
            .of(Wait::NodesNotVisible),
    ]
}

/// A pod of an earlier job called `a` that is still ending.
fn left_over() -> Arc<PodView> {
    decoded(json!({
        "metadata": {
            "namespace": "ns", "name": "a-0-0", "uid": "left-over", "resourceVersion": "1",
            "creationTimestamp": later(-900), "deletionTimestamp": later(20),
            "ownerReferences": [{
                "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": "a", "uid": "uid-before",
                "controller": true,
            }],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"phase": "Running"},
    }))
}

fn by_rules() -> Vec<Case> {
    let plain = || job("a", "1", json!({}));
    let of = |spec: Value, queues| world(vec![job("a", "1", spec)], queues);
    let refused = told("a", "1", QueuedReason::ClassBackoff, "pods is forbidden: exceeded quota", -60);
    let held = World { pods: vec![left_over()], ..world(vec![plain()], vec![]) };
    let plain_queue = || vec![queue_of("default", json!({}))];
    vec![
        Case::new(world(vec![refused], vec![]), QueuedReason::ClassBackoff, "exceeded quota"),
        Case::new(in_queue(json!({"stopPolicy": "Hold"})), QueuedReason::QueueStopped, "default is Hold"),
        Case::new(of(json!({"queueName": "reports"}), plain_queue()), QueuedReason::QueueNotFound, "reports"),
        Case::new(
            world(vec![plain()], vec![queue("reports", "1")]),
            QueuedReason::QueueNameRequired,
            "reports",
        ),
        Case::new(of(json!({"tier": "Guaranteed"}), plain_queue()), QueuedReason::TierNotAllowed, "Standard"),
        Case::new(held, QueuedReason::NameHeld, "pod a-0-0 of an earlier job"),
        Case::new(of(json!({"stopPolicy": "Hold"}), vec![]), QueuedReason::Suspended, "holds the job"),
    ]
}

#[tokio::test]
async fn each_reason_is_told_with_what_wakes_the_job_when_and_what_helps() {
    let mut met = Vec::new();
    let cases = [by_peaks(), by_room(), by_what_is_known(), by_rules()];
    for Case { world, job, wait, until, says } in cases.into_iter().flatten() {
        let reason = reason_of(wait);
        let answer = explained(world, job);
        let Some(waits) = &answer.waits else { panic!("{wait:?}, {says}: {answer:?}") };
        let told = (waits.said.reason.as_str(), waits.until);
        assert_eq!(told, (reason.as_str(), until), "{says}: {waits:?}");
        assert!(waits.said.message.contains(says), "{says}: {waits:?}");
        assert_eq!((waits.wakes.as_str(), &waits.said.meaning[..]), (advice::wakes(wait), reason.doc()));
        assert_eq!(waits.remedies, advice::remedies(wait));
        assert!(!waits.remedies.is_empty(), "nothing is said to help against {reason:?}");
        assert_eq!(created(&answer.next_writes), [""; 0], "{wait:?}, {says}");
        met.push(reason);
    }
    for reason in QueuedReason::all().into_iter().filter(|reason| advice::is_wait(*reason)) {
        assert!(met.contains(&reason), "no case waits for {reason:?}");
    }
}

#[tokio::test]
async fn a_job_behind_the_first_of_a_strict_queue_and_one_outside_are_told_their_places() {
    let places: Vec<_> = by_room()
        .into_iter()
        .filter(|case| reason_of(case.wait) == QueuedReason::HeadBlocked || case.job == "z")
        .map(|case| explained(case.world, case.job).line.unwrap())
        .map(|line| (line.waiting, line.ahead, line.class_waiting, line.class_ahead, line.outside))
        .collect();
    // Behind the first; the older of two, while room is kept for the other; behind the only one let in.
    assert_eq!(places, [(2, 1, 1, 0, false), (2, 0, 1, 0, false), (1, 1, 1, 1, true)]);
}

#[tokio::test]
async fn what_only_the_manager_measures_is_taken_from_the_statuses() {
    // Requests decide where it knows what is in use, and triggers of which nothing is told are off.
    let trigger = json!({
        "name": "hot", "highPercent": 75, "lowPercent": 60, "actions": [best_effort("Hold")],
    });
    let spec = json!({"capacitySource": {"type": "NodeMetrics"}, "loadTriggers": [trigger]});
    let measured = in_queue(spec);
    let starts = explained(measured.clone(), "a");
    assert_eq!((starts.state, created(&starts.next_writes)), (State::Starting, vec!["a-0-0"]));
    let full = World { pods: vec![pod("other", None, "", "8")], ..measured };
    assert_eq!(explained(full, "a").waits.unwrap().said.reason, QueuedReason::NoCapacity.as_str());
    // One that is on holds, and ends nothing: whether the load is still high is not known.
    let mut drained = world(vec![job("a", "1", json!({}))], vec![triggered("Drain", &["hot"])]);
    drained.pods = vec![pod("a-0-0", Some("a"), "default", "1")];
    let runs = explained(drained, "a");
    assert_eq!(runs.state, State::Running);
    assert!(runs.next_writes.iter().all(|write| write.verb != "delete"), "{:?}", runs.next_writes);
}
