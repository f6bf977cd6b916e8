mod status;

use super::placement::Placement;
use super::rules::{Problem, Surroundings, problems, rules};
use super::*;
use crate::admission::{CapacitySource, NodeShare, QueueId, QuotaRow};
use crate::peaks::{GroupProblem, peaks_of};
use crate::projections::job::JobView;
use crate::projections::queue::QueueView;
use springtide_plumbing::resources::ResourceList;
use jiff::SignedDuration;
use serde_json::{Value, json};
use springtide_crds::batch_job::QueuedReason;
use springtide_crds::batch_queue::StalledReason;
use springtide_crds::batch_queue::peaks::TimeShareGroupPeak;
use springtide_crds::common::Tier;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::window::calendar::PeakTimes;
use std::collections::BTreeMap;
use std::sync::Arc;

fn queue(name: &str, spec: Value) -> QueueView {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "7", "generation": 3},
        "spec": spec,
    }))
    .unwrap()
}

fn job(spec: Value) -> JobView {
    let mut spec = spec;
    spec["template"] = json!({"spec": {"containers": [{"name": "main"}]}});
    serde_json::from_value(json!({"metadata": {"namespace": "ns", "name": "a", "uid": "a"}, "spec": spec}))
        .unwrap()
}

fn around(has_class: &dyn Fn(&str) -> bool) -> Surroundings<'_> {
    Surroundings {
        sees_nodes: true,
        has_priority_class: has_class,
        peaks_of_group: &no_group,
        beyond_maximum: None,
    }
}

fn no_group(named: &TimeShareGroupPeak) -> Result<PeakTimes, GroupProblem> {
    peaks_of(named, None, true)
}

fn no_problem(_: &QueueView) -> Vec<Problem> {
    Vec::new()
}

fn place(spec: Value, fixed: Option<&str>, queues: &[(&str, Value)]) -> Placement {
    let queues: Vec<_> = queues.iter().map(|(name, spec)| Arc::new(queue(name, spec.clone()))).collect();
    Placement::of(&job(spec), fixed, &queues, BuiltInQueue::Enabled, no_problem)
}

fn object(name: &str) -> Option<QueueId> {
    Some(QueueId::Object(ObjectKey::new("ns", name)))
}

fn reason(placement: &Placement) -> Option<QueuedReason> {
    placement.obstacle.as_ref().map(|obstacle| obstacle.reason)
}

#[test]
fn a_job_is_in_the_queue_that_it_names_else_in_the_default_else_in_the_built_in_one() {
    let open = json!({});
    let both = [("default", open.clone()), ("reports", open.clone())];
    let named = place(json!({"queueName": "reports"}), None, &both);
    assert_eq!((named.queue.clone(), reason(&named)), (object("reports"), None));
    assert_eq!(named.queue_name(), Some("reports"));
    assert_eq!(place(json!({}), None, &both).queue, object("default"));
    let alone = place(json!({"tier": "Guaranteed"}), None, &[]);
    assert_eq!((alone.queue.clone(), alone.tier), (Some(QueueId::BuiltIn), Tier::BestEffort));
    assert_eq!(alone.queue_name(), Some(""));
}

#[test]
fn where_there_are_queues_none_of_which_is_the_default_one_has_to_be_named() {
    let placed = place(json!({}), None, &[("a", json!({})), ("b", json!({}))]);
    assert_eq!((placed.queue.clone(), reason(&placed)), (None, Some(QueuedReason::QueueNameRequired)));
    assert!(placed.obstacle.unwrap().message.ends_with("one of a, b"));
}

#[test]
fn a_queue_that_is_missing_is_waited_for() {
    let placed = place(json!({"queueName": "later"}), None, &[("default", json!({}))]);
    assert_eq!((placed.queue.clone(), reason(&placed)), (object("later"), Some(QueuedReason::QueueNotFound)));
}

#[test]
fn the_queue_that_let_the_first_pods_start_stays() {
    let queues = [("default", json!({}))];
    assert_eq!(place(json!({}), Some(""), &queues).queue, Some(QueueId::BuiltIn));
    let gone = place(json!({}), Some("default"), &[]);
    assert_eq!((gone.queue.clone(), reason(&gone)), (object("default"), Some(QueuedReason::QueueNotFound)));
}

#[test]
fn without_a_built_in_queue_a_queue_has_to_be_there() {
    for fixed in [None, Some("")] {
        let placed = Placement::of(&job(json!({})), fixed, &[], BuiltInQueue::Disabled, no_problem);
        assert_eq!((placed.queue.clone(), reason(&placed)), (None, Some(QueuedReason::QueueNameRequired)));
    }
}

#[test]
fn a_tier_above_the_highest_waits_and_so_does_one_whose_mapping_cannot_be_used() {
    let tiers = json!({"tiers": [{"name": "BestEffort", "priorityClassName": "low"}]});
    let queue = Arc::new(queue("q", tiers));
    let missing = |_: &str| false;
    let placed = |tier: &str| {
        let job = job(json!({"queueName": "q", "tier": tier}));
        let problems = |queue: &QueueView| problems(queue, &around(&missing));
        Placement::of(&job, None, &[Arc::clone(&queue)], BuiltInQueue::Enabled, problems)
    };
    assert_eq!(reason(&placed("Guaranteed")), Some(QueuedReason::TierNotAllowed), "maxTier is Standard");
    assert_eq!(reason(&placed("Standard")), None, "has no mapping");
    let low = placed("BestEffort");
    assert_eq!(reason(&low), Some(QueuedReason::TierNotAllowed));
    assert!(low.obstacle.unwrap().message.contains("there is no PriorityClass low"));
    assert_eq!(low.mapping.unwrap().priority_class_name.as_deref(), Some("low"));
}

#[test]
fn a_stopped_queue_has_no_other_obstacle() {
    let placed = place(
        json!({"queueName": "q", "tier": "Guaranteed"}),
        None,
        &[("q", json!({"stopPolicy": "Drain", "retention": {"ttlSecondsAfterFinished": 5}}))],
    );
    assert_eq!((reason(&placed), placed.ttl_seconds), (None, Some(5)));
}

#[test]
fn a_spec_becomes_the_rules_of_the_admission() {
    let rules = rules(&queue(
        "q",
        json!({
            "cohort": "idle", "weight": 3, "ordering": "StrictFIFO", "maxQueuedJobs": 7, "maxTier": "Guaranteed",
            "stopPolicy": "Hold",
            "quota": [
                {"resource": "cpu", "nominal": "1500m", "max": 3}, {"resource": "nvidia.com/gpu", "nominal": 2},
            ],
            "capacitySource": {
                "type": "ExtendedResource", "nodeSelector": {"matchLabels": {"pool": "online"}}, "percent": 60,
                "reserve": {"cpu": "50", "memory": "1Gi"}, "staleAfterSeconds": 120,
            },
            "tiers": [{"name": "BestEffort", "resourceNames": {"cpu": "kubernetes.io/batch-cpu"}}],
        }),
    ));
    let reserve: ResourceList = serde_json::from_value(json!({"cpu": 50, "memory": "1Gi"})).unwrap();
    let selector = BTreeMap::from([(Arc::from("pool"), Arc::from("online"))]);
    assert_eq!(rules.source, CapacitySource::ExtendedResource(NodeShare { selector, percent: 60, reserve }));
    assert_eq!(
        rules.quota,
        [
            QuotaRow { resource: "cpu".into(), nominal: 1500, max: 3000 },
            QuotaRow { resource: "nvidia.com/gpu".into(), nominal: 2, max: 2 },
        ]
    );
    assert_eq!(rules.counted_as, BTreeMap::from([("kubernetes.io/batch-cpu".into(), "cpu".into())]));
    assert_eq!((rules.cohort.as_deref(), rules.weight, rules.max_queued_jobs), (Some("idle"), 3, 7));
    assert_eq!((rules.max_tier, rules.stale_after), (Tier::Guaranteed, SignedDuration::from_secs(120)));
}

#[test]
fn an_empty_spec_gives_the_defaults_of_both_sides() {
    assert_eq!(rules(&queue("q", json!({}))), crate::admission::QueueRules::default());
}

#[test]
fn a_spec_says_whose_pods_end_for_whom_and_how_many_are_shown() {
    let rules = rules(&queue(
        "q",
        json!({
            "capacitySource": {"maxPendingPods": 7},
            "tiers": [
                {"name": "BestEffort", "preemptible": {"by": ["Standard", "Guaranteed"], "minRunSeconds": 60}},
                {"name": "Standard", "preemptible": {"by": ["Standard"]}},
                {"name": "Guaranteed", "podLabels": {"a": "b"}},
            ],
        }),
    ));
    let yields: Vec<_> = rules
        .tiers
        .iter()
        .map(|(tier, rules)| (*tier, rules.preemptible_by.clone(), rules.min_run.as_secs()))
        .collect();
    assert_eq!(
        yields,
        [
            (Tier::BestEffort, vec![Tier::Standard, Tier::Guaranteed], 60),
            (Tier::Standard, vec![Tier::Standard], 0)
        ]
    );
    assert_eq!(rules.max_pending, 7);
}

#[test]
fn what_a_tier_cannot_do_names_field_and_remedy() {
    let found = |tier: Value| {
        let has = |name: &str| name == "there";
        let problems = problems(&queue("q", json!({"tiers": [tier]})), &around(&has));
        problems.into_iter().next().map(|problem| (problem.reason, problem.tier, problem.message))
    };
    let ok = json!({
        "name": "Standard", "priorityClassName": "there", "podLabels": {"a.example.com/b": "", "c": "D_1.x"},
        "resourceNames": {"cpu": "kubernetes.io/batch-cpu", "memory": "kubernetes.io/batch-memory"},
    });
    assert_eq!(found(ok), None);
    for (field, value, part) in [
        ("priorityClassName", json!("gone"), "priorityClassName: there is no PriorityClass gone"),
        ("podLabels", json!({"-a": "x"}), "podLabels: \"-a\" is not the name of a label"),
        ("podLabels", json!({"A.b/c": "x"}), "is not the name of a label"),
        ("podLabels", json!({"a": "x y"}), "\"x y\" is not the value of a label"),
        ("podLabels", json!({"springtide.dev/job": "x"}), "springtide.dev/job is set by the controller"),
        ("resourceNames", json!({"cpu": "memory"}), "memory in place of cpu is no extended resource"),
        ("resourceNames", json!({"cpu": "a.b/c", "memory": "a.b/c"}), "a.b/c stands for two resources"),
    ] {
        let mut tier = json!({"name": "Standard"});
        tier[field] = value;
        let (reason, tier, message) = found(tier).unwrap();
        assert_eq!((reason, tier), (StalledReason::InvalidTier, Some(Tier::Standard)));
        assert!(message.starts_with("spec.tiers[Standard].") && message.contains(part), "{message}");
    }
}

#[test]
fn where_no_node_is_seen_only_a_static_queue_works() {
    let has = |_: &str| true;
    let blind = Surroundings { sees_nodes: false, ..around(&has) };
    for (type_, expected) in [
        ("NodeAllocatable", Some(StalledReason::NodesNotVisible)),
        ("ExtendedResource", Some(StalledReason::NodesNotVisible)),
        ("NodeMetrics", Some(StalledReason::NodesNotVisible)),
        ("Static", None),
    ] {
        let queue = queue("q", json!({"capacitySource": {"type": type_}}));
        assert_eq!(problems(&queue, &blind).first().map(|problem| problem.reason), expected);
    }
}

#[test]
fn where_no_node_is_seen_load_triggers_stop_their_tiers() {
    let has = |_: &str| true;
    let blind = Surroundings { sees_nodes: false, ..around(&has) };
    let trigger = json!({
        "name": "hot", "highPercent": 75, "lowPercent": 60,
        "actions": [{"tier": "BestEffort", "action": "Hold"}, {"tier": "Standard", "action": "None"}],
    });
    let queue = queue("q", json!({"capacitySource": {"type": "Static"}, "loadTriggers": [trigger]}));
    let [problem] = &problems(&queue, &blind)[..] else { panic!("one tier is concerned") };
    assert_eq!((problem.reason, problem.tier), (StalledReason::NodesNotVisible, Some(Tier::BestEffort)));
    assert!(problem.message.contains("spec.loadTriggers"), "{}", problem.message);
    assert_eq!(problems(&queue, &around(&has)), []);
}

#[test]
fn a_window_that_cannot_be_read_is_told_with_its_remedy() {
    let windows = json!({"peakWindows": [
        {"name": "a", "window": {"start": "00:05", "end": "01:00", "timeZone": "Mars/Olympus"}},
        {"name": "b", "fromTimeShareGroup": {"name": "double11", "member": "payment"}},
    ]});
    let has = |_: &str| true;
    let found = problems(&queue("q", windows), &around(&has));
    let reasons: Vec<StalledReason> = found.iter().map(|problem| problem.reason).collect();
    assert_eq!(reasons, [StalledReason::InvalidWindow, StalledReason::TimeShareGroupNotFound]);
    assert!(found[0].message.contains("Mars/Olympus") && found[0].message.contains("IANA"));
    assert!(found[1].message.contains("double11 with member payment"), "{}", found[1].message);
    // It concerns no tier that no window would hold or drain.
    let problems = |queue: &QueueView| problems(queue, &around(&has));
    let queue =
        Arc::new(queue("q", json!({"peakWindows": [{"name": "b", "fromTimeShareGroup": {"name": "x"}}]})));
    let placed =
        Placement::of(&job(json!({"queueName": "q"})), None, &[queue], BuiltInQueue::Enabled, problems);
    assert_eq!(reason(&placed), None);
}
