//! What peak windows ask for, second by second.

use super::super::peaks::{Asks, asks};
use super::*;
use springtide_crds::batch_queue::BatchQueueSpec;
use springtide_crds::common::Tier;

/// From ten to eleven past midnight, after a minute of lead.
fn spec() -> Value {
    json!({
        "quota": [{"resource": "cpu", "nominal": 5}], "capacitySource": {"type": "Static"},
        "peakWindows": [{
            "name": "noon", "window": {"start": "00:10", "end": "00:11", "timeZone": "UTC"}, "leadSeconds": 60,
            "actions": [
                {"tier": "BestEffort", "action": "Drain"}, {"tier": "Standard", "action": "Degrade", "percent": 40},
                {"tier": "Guaranteed", "action": "Hold"},
            ],
        }],
    })
}

impl Bench {
    pub(super) fn queue(&mut self, spec: Value) {
        self.version += 1;
        let metadata = json!({
            "namespace": "ns", "name": "q", "uid": "q", "resourceVersion": self.version.to_string(), "generation": 1,
        });
        self.queues.apply(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
    }

    /// Pods of the job in the queue, of one core each.
    pub(super) fn queued(&mut self, tier: &'static str, count: usize) {
        for index in 0..count {
            self.pod(&format!("a-{index}-0"), |pod| {
                pod["metadata"]["labels"]["springtide.dev/queue"] = json!("q");
                pod["metadata"]["labels"]["springtide.dev/tier"] = json!(tier);
                pod["spec"]["containers"] =
                    json!([{"name": "main", "resources": {"requests": {"cpu": "1"}}}]);
            });
        }
    }
}

#[test]
fn a_window_asks_from_its_lead_to_its_end() {
    let parsed: BatchQueueSpec = serde_json::from_value(spec()).unwrap();
    let at = |tier, second: i64| {
        asks(&parsed, tier, START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second), |_| None)
    };
    for (second, low, usual) in [
        (539, Asks::Nothing, Asks::Nothing),
        (540, Asks::All, Asks::Beyond(40)),
        (600, Asks::All, Asks::Beyond(40)),
        (659, Asks::All, Asks::Beyond(40)),
        (660, Asks::Nothing, Asks::Nothing),
    ] {
        assert_eq!((at(Tier::BestEffort, second), at(Tier::Standard, second)), (low, usual), "{second}");
        assert_eq!(at(Tier::Guaranteed, second), Asks::Nothing, "Hold ends nothing");
    }
    let forced = |mode: &str, second: i64| {
        let mut spec = spec();
        spec["overridePeak"] = json!({"mode": mode, "untilTime": "2026-11-11T00:10:30Z", "reason": "test"});
        let parsed: BatchQueueSpec = serde_json::from_value(spec).unwrap();
        let now = START.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second);
        asks(&parsed, Tier::BestEffort, now, |_| None)
    };
    assert_eq!((forced("ForceOn", 0), forced("ForceOff", 600)), (Asks::All, Asks::Nothing));
    assert_eq!(
        (forced("ForceOn", 700), forced("ForceOff", 640)),
        (Asks::Nothing, Asks::All),
        "inert when past"
    );
}

#[test]
fn a_drained_tier_goes_as_a_whole_and_only_in_its_time() {
    let mut bench = Bench::new();
    bench.queue(spec());
    bench.job(json!({"queueName": "q", "completions": 9, "parallelism": 9}), json!({}));
    bench.queued("BestEffort", 5);
    assert_eq!(bench.deletable(5), 0);
    bench.after(540);
    assert_eq!(bench.deletable(5), 5);
    bench.after(120);
    let mut later = Bench::new();
    later.queue(spec());
    later.job(json!({"queueName": "q", "completions": 9, "parallelism": 9}), json!({}));
    later.queued("BestEffort", 5);
    later.after(660);
    assert_eq!(later.deletable(5), 0, "the window has closed");
}

#[test]
fn a_group_that_the_queue_follows_asks_from_before_the_lead_of_its_window() {
    let mut following = spec();
    let peak = following["peakWindows"][0].as_object_mut().unwrap();
    peak.remove("window");
    peak.insert("fromTimeShareGroup".to_owned(), json!({"name": "double11", "member": "payment"}));
    let mut bench = Bench::new();
    bench.queue(following);
    bench.job(json!({"queueName": "q", "completions": 9, "parallelism": 9}), json!({}));
    bench.queued("BestEffort", 5);
    // The group's lead of two minutes begins at eight minutes past midnight, that of the queue a minute before.
    bench.after(420);
    assert_eq!(bench.deletable(5), 0, "there is no such group");
    let size = || json!({"cpu": "1"});
    let member = |name: &str| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        let containers = json!([{"name": "app", "peak": size(), "valley": size()}]);
        json!({"name": name, "targetRef": target, "containers": containers})
    };
    let window = json!({"start": "00:10", "end": "00:11", "timeZone": "UTC"});
    let windows = json!([{"name": "w", "member": "payment", "leadSeconds": 120, "window": window}]);
    let group = json!({
        "metadata": {"namespace": "ns", "name": "double11", "uid": "g", "resourceVersion": "1", "generation": 1},
        "spec": {"members": [member("payment"), member("promo")], "schedule": {"windows": windows}},
    });
    bench.groups.apply(serde_json::from_value(group).unwrap());
    bench.after(-1);
    assert_eq!(bench.deletable(5), 0);
    bench.after(1);
    assert_eq!(bench.deletable(5), 5);
}

#[test]
fn of_a_degraded_tier_only_what_exceeds_its_share_goes() {
    let mut bench = Bench::new();
    bench.queue(spec());
    let job = json!({"queueName": "q", "tier": "Standard", "completions": 9, "parallelism": 9});
    bench.job(job.clone(), json!({}));
    bench.queued("Standard", 5);
    bench.after(600);
    assert_eq!(bench.deletable(5), 3, "two of five cores are left to it");
    // A gang that has lost one cannot run: all of it goes.
    let mut gang = Bench::new();
    gang.queue(spec());
    let mut job = job;
    job["minParallelism"] = json!(5);
    gang.job(job, json!({"active": 5}));
    gang.queued("Standard", 5);
    gang.after(600);
    assert_eq!(gang.deletable(5), 5);
}

#[test]
fn what_a_degraded_tier_has_is_not_less_for_want_of_measures() {
    let mut bench = Bench::new();
    let mut spec = spec();
    spec["quota"] = json!([]);
    spec["capacitySource"] = json!({"type": "NodeMetrics"});
    bench.queue(spec);
    let node = json!({
        "metadata": {"name": "n", "uid": "n", "resourceVersion": "2"},
        "status": {
            "allocatable": {"cpu": "5", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    bench.nodes.apply(serde_json::from_value(node).unwrap());
    bench.job(json!({"queueName": "q", "tier": "Standard", "completions": 9, "parallelism": 9}), json!({}));
    bench.queued("Standard", 5);
    bench.after(600);
    assert_eq!(bench.deletable(5), 3, "two of five cores are left to it, whatever is in use");
}
