//! What load triggers may ask for: only what a fresh measure bears out.

use super::*;
use crate::loads::Usage;
use std::collections::HashMap;

impl Bench {
    /// A queue whose BestEffort leaves at three quarters of a node of four cores.
    fn triggered(&mut self, forced: Value) {
        self.version += 1;
        let version = self.version.to_string();
        let mut spec = json!({"capacitySource": {"type": "Static"}, "loadTriggers": [{
            "name": "hot", "highPercent": 75, "lowPercent": 60,
            "actions": [
                {"tier": "BestEffort", "action": "Drain"}, {"tier": "Standard", "action": "Degrade", "percent": 40},
            ],
        }], "quota": [{"resource": "cpu", "nominal": 5}]});
        spec["overridePeak"] = forced;
        let metadata =
            json!({"namespace": "ns", "name": "q", "uid": "q", "resourceVersion": version, "generation": 1});
        self.queues.apply(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap());
        let node = json!({
            "metadata": {"name": "n", "uid": "n", "resourceVersion": version},
            "status": {
                "allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        self.nodes.apply(serde_json::from_value(node).unwrap());
    }

    /// Jobs of five pods of one core, of which all were told that so many thousandths of a core are in use.
    fn busy(tier: &'static str, millis: i64, forced: Value) -> Self {
        Self::told(tier, look(&Usage::default(), START, millis), forced)
    }

    fn told(tier: &'static str, usage: Usage, forced: Value) -> Self {
        let usage = Arc::new(usage);
        let mut bench = Self::new();
        bench.triggered(forced);
        bench.job(json!({"queueName": "q", "tier": tier, "completions": 9, "parallelism": 9}), json!({}));
        for index in 0..5 {
            bench.pod(&format!("a-{index}-0"), |pod| {
                pod["metadata"]["labels"]["springtide.dev/queue"] = json!("q");
                pod["metadata"]["labels"]["springtide.dev/tier"] = json!(tier);
                pod["spec"]["containers"] =
                    json!([{"name": "main", "resources": {"requests": {"cpu": "1"}}}]);
            });
        }
        bench.warrants.follow_load(Arc::new(move || Some(Arc::clone(&usage))));
        bench
    }
}

/// After a look at which so many thousandths of a core were in use.
fn look(before: &Usage, at: &str, millis: i64) -> Usage {
    let told = json!({
        "metadata": {"name": "n"}, "timestamp": at, "usage": {"cpu": format!("{millis}m"), "memory": "1Gi"},
    });
    before.next(vec![serde_json::from_value(told).unwrap()], &HashMap::new(), at.parse().unwrap())
}

#[test]
fn what_was_planned_before_the_load_fell_is_warranted_while_it_is_on_its_way() {
    let high = look(&Usage::default(), START, 3200);
    let low = look(&high, "2026-11-11T00:00:15Z", 2400);
    let still_low = look(&low, "2026-11-11T00:00:20Z", 2400);
    for (usage, seconds, deletable) in [(&low, 15, 5), (&low, 24, 5), (&low, 25, 0), (&still_low, 20, 0)] {
        let bench = Bench::told("BestEffort", usage.clone(), Value::Null);
        bench.after(seconds);
        assert_eq!(bench.deletable(5), deletable, "after {seconds} s, at look {}", usage.round);
    }
}

#[test]
fn a_measured_load_warrants_what_a_trigger_asks_for_while_it_is_fresh() {
    for (tier, millis, deletable) in [
        ("BestEffort", 3200, 5),
        // Not low yet: one that is on goes on.
        ("BestEffort", 2500, 5),
        ("BestEffort", 2400, 0),
        // Two of five cores are left to it.
        ("Standard", 3200, 3),
        ("Guaranteed", 3200, 0),
    ] {
        assert_eq!(Bench::busy(tier, millis, Value::Null).deletable(5), deletable, "{tier} {millis}");
    }
    let late = Bench::busy("BestEffort", 3200, Value::Null);
    late.after(69);
    assert_eq!(late.deletable(5), 5, "what was planned within the minute is on its way");
    let late = Bench::busy("BestEffort", 3200, Value::Null);
    late.after(70);
    assert_eq!(late.deletable(5), 0, "too old to end anything");
    let forced = json!({"mode": "ForceOff", "untilTime": "2026-11-11T01:00:00Z", "reason": "INC-1"});
    assert_eq!(Bench::busy("BestEffort", 3200, forced).deletable(5), 0);
}
