//! What the status of a queue says, when it is written, and which events tell of it.

use super::super::status::{Observed, plan, status};
use super::*;
use crate::admission::{PeakFigures, QueueFigures, WaitingClass};
use crate::loads::{Loads, Reading};
use crate::peaks::drain::Forecast;
use crate::pod_groups::Service;
use jiff::Timestamp;
use springtide_crds::batch_queue::{
    BatchQueueStatus, CapacityStaleReason, DrainWillMissReason, GangSchedulingReason, OvercommittedReason,
    ReadyReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::events::Severity;
use springtide_plumbing::plan::Action;

const START: Timestamp = Timestamp::constant(1_794_355_200, 0);

fn observed(spec: Value, figures: QueueFigures) -> Observed {
    Observed {
        queue: Arc::new(queue("q", spec)),
        figures,
        problems: Vec::new(),
        archive: None,
        last_write: None,
        pod_groups: Service::Unknown,
        failing: None,
    }
}

fn busy() -> QueueFigures {
    let list = |value: Value| serde_json::from_value::<ResourceList>(value).unwrap();
    QueueFigures {
        pending_jobs: 5,
        admitted_jobs: 2,
        running_pods: 3,
        classes: 1,
        used: list(json!({"cpu": "1500m", "memory": "3Gi", "pods": 3})),
        borrowed: list(json!({"cpu": "500m"})),
        capacity: Some(list(json!({"cpu": 9, "memory": "10000Mi"}))),
        waiting: vec![WaitingClass {
            tier: Tier::BestEffort,
            priority: 0,
            shape: "9be1".to_owned(),
            reason: QueuedReason::QuotaExceeded,
            resource: Some("cpu".into()),
            jobs: 5,
            oldest: START,
        }],
        ..QueueFigures::default()
    }
}

#[test]
fn a_load_trigger_stands_in_the_status_and_its_turns_are_told() {
    let spec = json!({"loadTriggers": [{
        "name": "hot", "highPercent": 75, "lowPercent": 60, "sustainSeconds": 10,
        "actions": [{"tier": "BestEffort", "action": "Drain"}],
    }]});
    let mut observed = observed(spec, busy());
    let peaks = Arc::clone(&observed.queue.peaks);
    let at = |seconds| START + SignedDuration::from_secs(seconds);
    let mut loads = Loads::default();
    for seconds in [0, 15] {
        let reading = Reading { at: at(seconds), cpu: 800, memory: 0 };
        loads.observe(peaks.triggers(), Some(&reading), at(seconds));
    }
    let mut state = peaks.at(at(20), None);
    loads.add_to(&mut state, peaks.queue(), at(20));
    let wake = state.wake;
    observed.figures.peak = Some(PeakFigures { state, pods_left: 3, forecast: None, wake });
    let (shown, ready, message) = status(&observed, at(20));
    assert_eq!(ready, ReadyReason::Closed);
    assert!(message.starts_with("load trigger hot: 75 % of cpu"), "{message}");
    let shown = json!(shown);
    assert_eq!(shown["activeWindow"], json!({"name": "hot", "startTime": at(15), "podsLeft": 3}));
    assert_eq!(shown["activeLoadTriggers"], json!(["hot"]));
    let plan = plan(&observed, at(20));
    let told: Vec<_> = plan.events.iter().map(|note| (note.reason, note.severity)).collect();
    assert_eq!(told, [("LoadTrigger", Severity::Normal)]);
    assert_eq!(wake, Some(at(75)), "when what was measured is too old");
}

#[test]
fn capacity_that_was_not_measured_lately_is_told() {
    let old = QueueFigures { is_stale: true, metrics_old: true, ..busy() };
    let (shown, ready, message) = status(&observed(json!({}), old), START);
    assert_eq!(ready, ReadyReason::CapacityStale);
    assert!(message.contains("metrics.k8s.io") && message.contains("what runs goes on"), "{message}");
    assert!(shown.conditions.iter().any(|condition| condition.is(CapacityStaleReason::MetricsOld)));
}

#[test]
fn the_status_shows_the_figures_as_people_write_them() {
    let spec =
        json!({"quota": [{"resource": "cpu", "nominal": 1, "max": 2}, {"resource": "x.y/z", "nominal": 1}]});
    let (status, ready, _) = status(&observed(spec, busy()), START);
    assert_eq!(ready, ReadyReason::Admitting);
    let mut shown = json!(status);
    let conditions = shown.as_object_mut().unwrap().remove("conditions").unwrap();
    assert_eq!(
        shown,
        json!({
            "observedGeneration": 3, "pendingJobs": 5, "admittedJobs": 2, "runningPods": 3, "classes": 1,
            "used": {"cpu": "1500m", "x.y/z": "0", "memory": "3Gi"},
            "borrowed": {"cpu": "500m"},
            "capacity": {"cpu": "9", "x.y/z": "0", "memory": "10000Mi"},
            "capacityTime": START,
            "waiting": [{
                "tier": "BestEffort", "priority": 0, "shape": "9be1", "reason": "QuotaExceeded", "resource": "cpu",
                "jobs": 5, "oldestTime": START,
            }],
        })
    );
    let reasons: Vec<_> = conditions
        .as_array()
        .unwrap()
        .iter()
        .map(|found| (found["type"].clone(), found["reason"].clone()))
        .collect();
    assert_eq!(
        reasons,
        [
            (json!("Ready"), json!("Admitting")),
            (json!("CapacityStale"), json!("Fresh")),
            (json!("Overcommitted"), json!("NominalAboveLive")),
        ]
    );
}

#[test]
fn ready_says_what_the_queue_does() {
    let idle = QueueFigures::default;
    let stale = || QueueFigures { is_stale: true, ..busy() };
    let running = || QueueFigures { running_pods: 1, ..idle() };
    for (policy, figures, expected) in [
        ("None", idle(), ReadyReason::Admitting),
        ("None", stale(), ReadyReason::CapacityStale),
        ("Hold", running(), ReadyReason::Held),
        ("Drain", running(), ReadyReason::Draining),
        ("Drain", idle(), ReadyReason::Drained),
    ] {
        assert_eq!(status(&observed(json!({"stopPolicy": policy}), figures), START).1, expected);
    }
    let mut broken = observed(json!({"stopPolicy": "Hold"}), idle());
    broken.problems = vec![Problem {
        reason: StalledReason::InvalidTier,
        tier: Some(Tier::Standard),
        message: "why".to_owned(),
    }];
    let (status, ready, message) = status(&broken, START);
    assert_eq!((ready, message.as_str()), (ReadyReason::Stalled(StalledReason::InvalidTier), "why"));
    assert!(status.conditions.iter().any(|condition| condition.is(StalledReason::InvalidTier)));
}

/// A queue whose window opens five minutes after the start, with what it means at a time.
fn in_peak(seconds: i64, pods_left: u32, forecast: Option<Forecast>) -> Observed {
    let spec = json!({"peakWindows": [{
        "name": "noon", "window": {"start": "00:05", "end": "01:00", "timeZone": "UTC"}, "leadSeconds": 60,
        "actions": [{"tier": "BestEffort", "action": "Drain"}],
    }]});
    let mut observed = observed(spec, busy());
    let state = observed.queue.peaks.at(START + SignedDuration::from_secs(seconds), None);
    let wake = state.wake;
    observed.figures.peak = Some(PeakFigures { state, pods_left, forecast, wake });
    observed
}

#[test]
fn a_peak_stands_in_the_status_and_its_turns_are_told() {
    let at = |seconds| START + SignedDuration::from_secs(seconds);
    let condition = |status: &BatchQueueStatus, type_: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_);
        found.map(|found| found.reason.clone()).unwrap_or_default()
    };
    let (before, ready, _) = status(&in_peak(0, 0, None), at(0));
    assert_eq!((ready, condition(&before, "PeakWindowActive").as_str()), (ReadyReason::Admitting, "Idle"));
    assert_eq!(before.next_window.as_ref().unwrap().start_time.0, at(300));
    assert_eq!(condition(&before, "DrainWillMiss"), "OnTime");
    assert_eq!(before.active_window, None);
    let missed = Forecast { reason: DrainWillMissReason::RateTooLow, message: "too many".to_owned() };
    for (seconds, expected) in
        [(250, ReadyReason::Draining), (300, ReadyReason::Closed), (3610, ReadyReason::Ramping)]
    {
        let observed = in_peak(seconds, 7, Some(missed.clone()));
        let (shown, ready, _) = status(&observed, at(seconds));
        assert_eq!(ready, expected);
        assert_eq!(condition(&shown, "DrainWillMiss"), "RateTooLow");
        let active = shown.active_window.unwrap();
        assert_eq!((active.name.as_str(), active.pods_left), ("noon", 7));
        let plan = plan(&observed, at(seconds));
        let told: Vec<_> = plan.events.iter().map(|note| (note.reason, note.severity)).collect();
        assert_eq!(told, [(expected.as_str(), Severity::Normal), ("RateTooLow", Severity::Warning)]);
        assert!(plan.wake.is_some_and(|wake| wake > at(seconds)));
    }
    // Without windows nothing of them is left.
    let mut without = in_peak(300, 0, None);
    without.figures.peak = None;
    let (shown, ..) = status(&without, at(300));
    assert_eq!(condition(&shown, "PeakWindowActive"), "");
}

#[test]
fn what_the_nodes_have_is_told_only_where_it_is_known() {
    let told = |spec: Value, figures: QueueFigures| {
        let conditions = status(&observed(spec, figures), START).0.conditions;
        let stale = CapacityStaleReason::all().into_iter();
        let over = OvercommittedReason::all().into_iter();
        (
            stale.filter(|reason| conditions.iter().any(|found| found.is(*reason))).collect::<Vec<_>>(),
            over.filter(|reason| conditions.iter().any(|found| found.is(*reason))).collect::<Vec<_>>(),
        )
    };
    let nine = json!({"quota": [{"resource": "cpu", "nominal": "9"}]});
    let fresh = vec![CapacityStaleReason::Fresh];
    assert_eq!(told(nine.clone(), busy()), (fresh.clone(), vec![OvercommittedReason::WithinLive]));
    let ten = json!({"quota": [{"resource": "cpu", "nominal": "10"}]});
    assert_eq!(told(ten, busy()).1, [OvercommittedReason::NominalAboveLive]);
    let stale = QueueFigures { is_stale: true, ..busy() };
    assert_eq!(told(nine.clone(), stale), (vec![CapacityStaleReason::NodesNotSynced], vec![]));
    let uncounted = QueueFigures { capacity: None, ..busy() };
    assert_eq!(told(nine, uncounted), (fresh, vec![]), "the quota alone counts");
}

#[test]
fn a_queue_that_asks_for_groups_says_whether_there_are_any() {
    let told = |spec: Value, pod_groups: Service| {
        let observed = Observed { pod_groups, ..observed(spec, QueueFigures::default()) };
        let conditions = status(&observed, START).0.conditions;
        let known = GangSchedulingReason::all().into_iter();
        known.filter(|reason| conditions.iter().any(|found| found.is(*reason))).collect::<Vec<_>>()
    };
    let asks = || json!({"gangScheduler": "PodGroup"});
    let not_served = || Service::NotServed { message: "not found".to_owned() };
    let refused = || Service::Refused { message: "exceeded quota: groups".to_owned() };
    assert_eq!(told(asks(), Service::Unknown), []);
    assert_eq!(told(asks(), Service::Served), [GangSchedulingReason::PodGroup]);
    assert_eq!(told(asks(), not_served()), [GangSchedulingReason::NotServed]);
    assert_eq!(told(asks(), refused()), [GangSchedulingReason::Refused]);
    assert_eq!(told(json!({}), refused()), []);
    let observed = Observed { pod_groups: refused(), ..observed(asks(), QueueFigures::default()) };
    let plan = plan(&observed, START);
    let [event] = &plan.events[..] else { panic!("one event") };
    assert_eq!((event.reason, event.severity), ("Refused", Severity::Warning));
    assert!(event.note.contains("by the count alone: exceeded quota: groups"), "{}", event.note);
}

#[test]
fn a_queue_beyond_the_maximum_and_one_that_cannot_be_written_need_a_person() {
    let none_missing = |_: &str| true;
    let beyond = Surroundings { beyond_maximum: Some(20), ..around(&none_missing) };
    let queue = queue("q", json!({}));
    let problems = problems(&queue, &beyond);
    let mut observed = observed(json!({}), QueueFigures::default());
    observed.problems = problems.clone();
    let (limited, ready, message) = status(&observed, START);
    assert_eq!(ready, ReadyReason::Stalled(StalledReason::LimitExceeded));
    assert!(
        message.contains("20 BatchQueues")
            && limited.conditions.iter().any(|found| found.is(StalledReason::LimitExceeded))
    );
    let placed = Placement::of(
        &job(json!({"queueName": "q"})),
        None,
        &[Arc::new(queue)],
        BuiltInQueue::Enabled,
        |_| problems.clone(),
    );
    assert_eq!(reason(&placed), Some(QueuedReason::QueueStopped), "nothing starts in it");
}

fn written(observed: &Observed, now: Timestamp) -> Option<Value> {
    plan(observed, now).status.map(|write| match write.action {
        Action::Status { status, .. } => status,
        other @ (Action::Create { .. }
        | Action::Delete { .. }
        | Action::Patch { .. }
        | Action::Apply { .. }
        | Action::Evict { .. }
        | Action::DryRun { .. }) => panic!("{other:?}"),
    })
}

#[test]
fn the_status_is_written_when_it_differs_and_no_more_than_every_five_seconds() {
    let after = |seconds| START + SignedDuration::from_secs(seconds);
    let first = observed(json!({}), busy());
    let stored = written(&first, START).unwrap();
    let mut queue = json!({
        "metadata": {"namespace": "ns", "name": "q", "uid": "q", "resourceVersion": "7", "generation": 3},
        "spec": {}, "status": stored,
    });
    let mut same = Observed {
        queue: Arc::new(serde_json::from_value(queue.clone()).unwrap()),
        last_write: Some(START),
        ..first
    };
    assert_eq!((written(&same, after(60)), plan(&same, after(60)).wake), (None, Some(after(65))));
    same.figures.running_pods = 4;
    let soon = plan(&same, after(2));
    assert_eq!((soon.status, soon.wake), (None, Some(after(5))));
    assert_eq!(written(&same, after(5)).unwrap()["runningPods"], 4);
    assert_eq!(written(&same, after(5)).unwrap()["capacityTime"], json!(START), "the capacity is the same");
    // The clock was put back by hours: it is not waited for.
    same.last_write = Some(after(9000));
    assert_eq!(written(&same, after(2)).unwrap()["runningPods"], 4);
    same.last_write = Some(START);
    // In an empty queue nothing is hurried.
    same.figures = QueueFigures::default();
    assert_eq!(plan(&same, after(60)).wake, Some(after(90)));
    queue["metadata"]["deletionTimestamp"] = json!(START);
    same.queue = Arc::new(serde_json::from_value(queue).unwrap());
    let deleting = written(&same, after(60)).unwrap();
    let of = |type_: &str| {
        let conditions = deleting["conditions"].as_array().unwrap().iter();
        conditions
            .filter(|condition| condition["type"] == type_)
            .map(|found| found["reason"].clone())
            .next_back()
    };
    assert_eq!((of("Ready"), of("Reconciling")), (Some(json!("Deleting")), Some(json!("Deleting"))));
}

#[test]
fn the_largest_figures_stay_within_the_bound() {
    let resources: serde_json::Map<String, Value> =
        (0..40).map(|i| (format!("example.com/{i:036}"), json!(i64::MAX / 2))).collect();
    let list: ResourceList = serde_json::from_value(json!(resources)).unwrap();
    let mut figures = busy();
    figures.waiting = vec![figures.waiting[0].clone(); 40];
    let figures = QueueFigures {
        pending_jobs: usize::MAX,
        used: list.clone(),
        borrowed: list.clone(),
        capacity: Some(list),
        ..figures
    };
    let text = json!(status(&observed(json!({}), figures), START).0).to_string();
    assert!(text.len() <= springtide_plumbing::plan::MAX_STATUS_BYTES, "{}", text.len());
}

#[test]
fn an_archive_that_takes_nothing_is_told_with_why_and_by_one_event() {
    use crate::archive::{Health, outbox::FailureKind};
    let http = json!({"retention": {"archive": {"type": "HTTP", "url": "https://sink.example.com/secret"}}});
    let failing = |kind, dropping| Health::Failing { problem: "it answers 503".to_owned(), kind, dropping };
    for (health, reason, part) in [
        (Health::Well, "Delivering", "once their line is taken"),
        (failing(FailureKind::Unavailable, false), "NotTaken", "sink.example.com: it answers 503"),
        (failing(FailureKind::Refused, false), "NotTaken", "sink.example.com: it answers 503"),
        (failing(FailureKind::AddressRefused, false), "AddressRefused", "sink.example.com"),
        (failing(FailureKind::Unavailable, true), "Dropping", "without a line"),
    ] {
        let observed = Observed { archive: Some(health.clone()), ..observed(http.clone(), busy()) };
        let told = plan(&observed, START);
        let (status, ready, _) = status(&observed, START);
        assert_eq!(ready, ReadyReason::Admitting, "jobs start all the same");
        let condition = springtide_crds::common::condition(&status.conditions, "ArchiveFailing").unwrap();
        assert_eq!(condition.reason, reason);
        assert!(condition.message.contains(part) && !condition.message.contains("secret"), "{condition:?}");
        let events: Vec<_> = told.events.iter().map(|event| event.reason).collect();
        assert_eq!(events, if health == Health::Well { vec![] } else { vec![reason] });
        // It is told once.
        let mut queue = json!({
            "metadata": {"namespace": "ns", "name": "q", "uid": "q", "resourceVersion": "7", "generation": 3},
            "spec": http, "status": status,
        });
        queue["status"]["pendingJobs"] = json!(1);
        let again = Observed { queue: Arc::new(serde_json::from_value(queue).unwrap()), ..observed };
        assert!(plan(&again, START).status.is_some() && plan(&again, START).events.is_empty());
    }
    let none = Observed { archive: None, ..observed(json!({}), busy()) };
    assert!(!json!(status(&none, START).0).to_string().contains("ArchiveFailing"));
}
