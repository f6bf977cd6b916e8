use super::*;
use serde_json::{Value, json};
use std::sync::Arc;

const NOW: Timestamp = Timestamp::constant(1_794_355_200, 0);

fn at(seconds: i64) -> Timestamp {
    NOW + jiff::SignedDuration::from_secs(seconds)
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": type_, "status": status, "observedGeneration": 1, "reason": reason,
        "message": format!("message of {reason}"), "lastTransitionTime": NOW,
    })
}

fn meta(namespace: &str, name: &str) -> Value {
    json!({
        "namespace": namespace, "name": name, "uid": name, "resourceVersion": "1", "generation": 1,
        "creationTimestamp": at(-7200),
    })
}

fn queue(namespace: &str, name: &str, status: Value) -> Arc<QueueView> {
    let spec = json!({
        "cohort": "idle",
        "quota": [{"resource": "cpu", "nominal": "10", "max": "20"}, {"resource": "memory", "nominal": "64Gi"}],
    });
    Arc::new(
        serde_json::from_value(json!({"metadata": meta(namespace, name), "spec": spec, "status": status}))
            .unwrap(),
    )
}

fn job(namespace: &str, name: &str, queue: Option<&str>, status: Value) -> Arc<JobView> {
    let spec = json!({"queueName": queue, "template": {}});
    Arc::new(
        serde_json::from_value(json!({"metadata": meta(namespace, name), "spec": spec, "status": status}))
            .unwrap(),
    )
}

fn world() -> World {
    let busy = json!({
        "observedGeneration": 1, "pendingJobs": 640, "admittedJobs": 12, "runningPods": 24, "classes": 2,
        "used": {"cpu": "12", "memory": "24Gi", "nvidia.com/gpu": "1"}, "borrowed": {"cpu": "2"},
        "capacity": {"cpu": "40", "memory": "128Gi"},
        "conditions": [condition("Ready", "True", "Admitting"), condition("Overcommitted", "True", "NominalAboveLive")],
        "waiting": [{
            "tier": "BestEffort", "priority": 0, "shape": "9be1", "reason": "QuotaExceeded", "resource": "cpu",
            "jobs": 640, "oldestTime": at(-7200),
        }],
    });
    let broken = json!({
        "observedGeneration": 1,
        "conditions": [condition("Ready", "False", "InvalidTier"), condition("Stalled", "True", "InvalidTier")],
    });
    let waits = json!({"conditions": [
        condition("Complete", "False", "Queued"), condition("Queued", "True", "QuotaExceeded"),
    ]});
    World {
        queues: vec![queue("team-a", "reports", busy), queue("team-b", "default", broken)],
        jobs: vec![
            job("team-a", "etl", Some("reports"), waits),
            job("team-c", "free", None, json!({"active": 3})),
            job("team-c", "new", None, json!({})),
            job("team-c", "old", None, json!({"conditions": [condition("Complete", "True", "Completed")]})),
        ],
        ..World::default()
    }
}

#[test]
fn queues_are_told_in_two_tables() {
    let items = queues(&world(), false);
    let expected = "\
QUEUE               READY         PENDING   RUNNING   RESOURCE         USED   NOMINAL   MAX    BORROWED   CAPACITY
team-a/reports      Admitting     640       24        cpu              12     10        20     2          40
                                                      memory           24Gi   64Gi      64Gi   -          128Gi
                                                      nvidia.com/gpu   1      -         -      -          -
team-b/default      InvalidTier   0         0         cpu              -      10        20     -          -
                                                      memory           -      64Gi      64Gi   -          -
team-c/(built-in)   BuiltIn       1         3         -                -      -         -      -          -

WAITING IN       TIER         PRIORITY   SHAPE   JOBS   OLDEST   REASON          RESOURCE
team-a/reports   BestEffort   0          9be1    640    2h       QuotaExceeded   cpu
";
    assert_eq!(overview(&items, true, "team-a", NOW), expected);
    let verdicts: Vec<Verdict> = items.iter().map(verdict).collect();
    assert_eq!(verdicts, [Verdict::Fine, Verdict::Stalled, Verdict::Fine]);
}

#[test]
fn one_queue_is_told_with_its_jobs_and_what_reasons_mean() {
    let items = queues(&world(), true);
    let expected = "\
BatchQueue team-a/reports: Admitting
  message of Admitting

Jobs      640 pending, 12 admitted; 24 pods running
Cohort    idle
Warning   Overcommitted (NominalAboveLive): message of NominalAboveLive

RESOURCE         USED   NOMINAL   MAX    BORROWED   CAPACITY
cpu              12     10        20     2          40
memory           24Gi   64Gi      64Gi   -          128Gi
nvidia.com/gpu   1      -         -      -          -

TIER         PRIORITY   SHAPE   JOBS   OLDEST   REASON          RESOURCE
BestEffort   0          9be1    640    2h       QuotaExceeded   cpu

QuotaExceeded: The queue has used up its quota, and its cohort has nothing to lend.

JOB      COMPLETE   QUEUED          ACTIVE   AGE
bj/etl   Queued     QuotaExceeded   0        2h
";
    assert_eq!(detail(&items[0], NOW), expected);
}

#[test]
fn what_the_manager_has_not_seen_is_not_ready_and_nothing_is_said_as_nothing() {
    let fresh = World { queues: vec![queue("ns", "new", json!({}))], ..World::default() };
    let items = queues(&fresh, false);
    assert_eq!(verdict(&items[0]), Verdict::NotReady);
    assert!(overview(&items, false, "ns", NOW).contains("Pending (old)"));
    let none = overview(&[], false, "ns", NOW);
    assert_eq!(none, "There is no BatchQueue in namespace ns, and no job that has not ended.\n");
}

#[test]
fn the_json_has_the_documented_fields() {
    let answer = Answer { api_version: API_VERSION, kind: "QueueStatusList", items: queues(&world(), true) };
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["items"][0]["resources"][0]["borrowed"], "2");
    assert_eq!(json["items"][0]["waiting"][0]["jobs"], 640);
    let page = include_str!("../../../../../../docs/cli.md");
    for field in json["items"][0].as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}
