//! What jobs that go before others may have ended.

use super::*;

impl Bench {
    /// A queue whose BestEffort ends for Guaranteed, five pods of it of one core, and who waits.
    fn preemptible(low: Value, high: Value) -> Self {
        let mut bench = Self::new();
        bench.queue(json!({
            "quota": [{"resource": "cpu", "nominal": 5}], "capacitySource": {"type": "Static"}, "maxTier": "Guaranteed",
            "tiers": [{"name": "BestEffort", "preemptible": {"by": ["Guaranteed"]}}],
        }));
        bench.job(low, json!({"active": 5}));
        bench.queued("BestEffort", 5);
        bench.job_with("high", |job| {
            job["spec"] = json!({"queueName": "q", "tier": "Guaranteed", "template": {"spec": {"containers": [
                {"name": "main", "resources": {"requests": {"cpu": "1"}}}]}}});
            job["spec"].as_object_mut().unwrap().extend(high.as_object().unwrap().clone());
        });
        bench
    }
}

fn low(min_parallelism: u32) -> Value {
    json!({"queueName": "q", "completions": 5, "parallelism": 5, "minParallelism": min_parallelism})
}

#[test]
fn a_gang_ends_as_a_whole_for_one_pod_and_an_elastic_job_loses_one() {
    for (min_parallelism, deletable) in [(1, 1), (4, 1), (5, 5)] {
        let bench = Bench::preemptible(low(min_parallelism), json!({}));
        assert_eq!(bench.deletable(5), deletable, "at least {min_parallelism}");
    }
    // Its first pods were ended by another process, and that is all that anybody waits for.
    let mut bench = Bench::preemptible(low(5), json!({}));
    for index in 0..2 {
        bench.pod(&format!("a-{index}-0"), |pod| {
            pod["metadata"]["labels"]["springtide.dev/queue"] = json!("q");
            pod["metadata"]["labels"]["springtide.dev/tier"] = json!("BestEffort");
            pod["spec"]["containers"] = json!([{"name": "main", "resources": {"requests": {"cpu": "1"}}}]);
            deleting(pod);
        });
    }
    assert_eq!((2..5).filter(|index| bench.delete(&format!("a-{index}-0")).is_some()).count(), 3);
    // Where nobody waits, what is left of a gang stays.
    let mut alone = Bench::preemptible(low(5), json!({"stopPolicy": "Hold"}));
    alone.pod("a-0-0", |pod| {
        pod["metadata"]["labels"]["springtide.dev/queue"] = json!("q");
        deleting(pod);
    });
    assert_eq!(alone.deletable(5), 0);
}

#[test]
fn who_waits_asks_with_what_its_profile_makes_of_its_requests() {
    let profile = |max_mode: &str| {
        json!({
            "metadata": {"namespace": "ns", "name": "etl", "uid": "p", "resourceVersion": "2"},
            "spec": {"maxMode": max_mode},
            "status": {"samples": 30, "containers": [
                {"name": "main", "recommended": {"cpu": "4", "memory": "1Mi"}, "histogram": ""}]},
        })
    };
    let none = json!({"spec": {"containers": [{"name": "main"}]}});
    let some = json!({"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "3", "memory": "1Mi"}}}]}});
    for (template, mode, max_mode, deletable) in [
        (&none, "Initial", "Auto", 4),
        (&none, "Auto", "Initial", 4),
        (&none, "Observe", "Auto", 1),
        (&none, "Auto", "Observe", 1),
        (&some, "Initial", "Auto", 3),
        (&some, "Auto", "Auto", 4),
    ] {
        let high = json!({"profile": {"key": "etl", "mode": mode}, "template": template});
        let mut bench = Bench::preemptible(low(1), high);
        bench.profiles.apply(serde_json::from_value(profile(max_mode)).unwrap());
        assert_eq!(bench.deletable(5), deletable, "{mode} up to {max_mode} of {template}");
    }
}

#[test]
fn who_ran_out_of_memory_asks_for_more_of_it() {
    let template = json!({"spec": {"containers": [
        {"name": "main", "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}]}});
    let indexes = |retries: &str| json!({"indexes": {"closedBelow": 0, "closedBitmap": "", "retries": retries, "failed": ""}});
    // The others count with 200Mi each.
    for (completions, status, deletable) in [
        (1, json!({"failed": 2}), 1),
        (1, json!({"failed": 2, "exitCodes": [{"code": 137, "reason": "OOMKilled", "count": 2}]}), 2),
        (1, json!({"failed": 9, "exitCodes": [{"code": 137, "reason": "OOMKilled", "count": 9}]}), 4),
        (9, indexes("0:1,3:2/2,4:3/1"), 2),
        (9, indexes("0:1,3:2"), 1),
    ] {
        let high = json!({
            "template": template, "completions": completions, "retry": {"onOOM": {"memoryPercent": 200, "maxSteps": 3}},
        });
        let mut bench = Bench::preemptible(low(1), high.clone());
        bench.job_with("high", |job| {
            job["spec"] = json!({"queueName": "q", "tier": "Guaranteed"});
            job["spec"].as_object_mut().unwrap().extend(high.as_object().unwrap().clone());
            job["status"] = status.clone();
        });
        assert_eq!(bench.deletable(5), deletable, "{completions}: {status}");
    }
}
