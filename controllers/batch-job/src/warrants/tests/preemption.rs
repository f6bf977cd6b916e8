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
