mod groups;
mod profiles;
mod reasons;

use super::*;
use crate::admission::NodeExclusion;
use serde_json::{Value, json};
use springtide_crds::batch_job::{QueuedReason, StalledReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::plan::Action;

const NOW: Timestamp = Timestamp::constant(1_794_355_200, 0);

fn decoded<P: serde::de::DeserializeOwned>(object: Value) -> Arc<P> {
    Arc::new(serde_json::from_value(object).unwrap())
}

fn meta(name: &str) -> Value {
    json!({
        "namespace": "ns", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "1", "generation": 1,
        "creationTimestamp": NOW - jiff::SignedDuration::from_secs(600),
    })
}

fn job(name: &str, cpu: &str, spec: Value) -> Arc<JobView> {
    let container = json!({"name": "main", "image": "app", "resources": {"requests": {"cpu": cpu}}});
    let mut full = json!({"template": {"spec": {"containers": [container]}}});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    decoded(json!({"metadata": meta(name), "spec": full}))
}

fn with(job: &JobView, change: impl FnOnce(&mut JobView)) -> Arc<JobView> {
    let mut job = job.clone();
    change(&mut job);
    Arc::new(job)
}

fn node(name: &str, cpu: &str, change: Value) -> Arc<NodeView> {
    let mut node = json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
        "spec": {},
        "status": {
            "allocatable": {"cpu": cpu, "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    node["spec"] = change;
    decoded(node)
}

fn queue(name: &str, cpu: &str) -> Arc<QueueView> {
    queue_of(name, json!({"quota": [{"resource": "cpu", "nominal": cpu}]}))
}

fn queue_of(name: &str, spec: Value) -> Arc<QueueView> {
    decoded(json!({"metadata": meta(name), "spec": spec}))
}

/// A pod that runs on `n1`; one of a job where it names one.
fn pod(name: &str, job: Option<&str>, queue: &str, cpu: &str) -> Arc<PodView> {
    let mut pod = json!({
        "metadata": meta(name),
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}],
        },
        "status": {"phase": "Running"},
    });
    if let Some(job) = job {
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": job,
            "uid": format!("uid-{job}"), "controller": true,
        }]);
        pod["metadata"]["labels"] = json!({
            "springtide.dev/job": job, "springtide.dev/queue": queue, "springtide.dev/tier": "BestEffort",
        });
    }
    decoded(pod)
}

fn world(jobs: Vec<Arc<JobView>>, queues: Vec<Arc<QueueView>>) -> World {
    World {
        jobs,
        queues,
        nodes: Some(vec![node("n1", "8", json!({}))]),
        priority_classes: Some(Vec::new()),
        ..World::default()
    }
}

fn explained(world: World, name: &str) -> Explanation {
    let mut rehearsal = Rehearsal::new(world, NOW);
    if rehearsal.sees_nodes() {
        rehearsal.run();
    } else {
        rehearsal.look();
    }
    rehearsal.explain(&ObjectKey::new("ns", name)).unwrap()
}

fn of_job(job: &Arc<JobView>) -> Changes {
    Changes { jobs: vec![Arc::clone(job)], ..Changes::default() }
}

fn of_queue(queue: Arc<QueueView>) -> Changes {
    Changes { queues: vec![queue], ..Changes::default() }
}

/// Verb, kind and name of each.
fn told(writes: &[PlannedWrite]) -> Vec<(&str, &str, &str)> {
    writes.iter().map(|write| (write.verb.as_str(), write.kind.as_str(), write.name.as_str())).collect()
}

fn created(writes: &[PlannedWrite]) -> Vec<&str> {
    writes.iter().filter(|write| write.verb == "create").map(|write| write.name.as_str()).collect()
}

#[tokio::test]
async fn a_job_that_fits_is_created_as_a_whole_though_its_class_starts_slowly() {
    let wide = job("a", "1", json!({"completions": 20, "parallelism": 20}));
    let answer = explained(world(vec![wide], vec![]), "a");
    assert_eq!(created(&answer.next_writes).len(), 8, "as many as the node holds: {answer:?}");
    assert_eq!(answer.state, State::Starting);
    let waits = answer.waits.unwrap();
    assert_eq!(waits.said.reason, QueuedReason::NoCapacity.as_str());
    let nodes = answer.nodes.unwrap();
    assert_eq!((nodes.nodes, nodes.pods, nodes.with_room), (1, 0, 0));
    assert_eq!(nodes.excluded[0].reason, NodeExclusion::Full);
    assert_eq!((answer.tasks.live, answer.tasks.startable), (0, 12), "none of these exists yet");
}

#[tokio::test]
async fn who_comes_first_is_served_first_whatever_order_jobs_are_seen_in() {
    let late = job("a-late", "8", json!({}));
    let early = with(&job("b-early", "8", json!({"priority": 5})), |_| {});
    let all = world(vec![late, early], vec![]);
    assert_eq!(created(&explained(all.clone(), "b-early").next_writes), ["b-early-0-0"]);
    let late = explained(all, "a-late");
    assert_eq!(created(&late.next_writes), [""; 0]);
    assert_eq!((late.state, late.waits.unwrap().said.reason.as_str()), (State::Waiting, "NoCapacity"));
    let line = late.line.unwrap();
    assert_eq!((line.waiting, line.ahead, line.outside), (1, 0, false), "the other one starts");
}

#[tokio::test]
async fn a_full_quota_is_told_with_its_numbers_and_the_place_in_line() {
    let runs = job("a", "1", json!({"completions": 2, "parallelism": 2}));
    let first = job("b", "1", json!({"priority": 1}));
    let second = job("c", "1", json!({}));
    let mut full = world(vec![runs, first, second], vec![queue("default", "2")]);
    full.pods = vec![pod("a-0-0", Some("a"), "default", "1"), pod("a-1-0", Some("a"), "default", "1")];
    let answer = explained(full, "c");
    let waits = answer.waits.unwrap();
    assert_eq!((waits.said.reason.as_str(), waits.resource.as_deref()), ("QuotaExceeded", Some("cpu")));
    assert!(waits.said.message.contains("uses 2 of 2 cpu"), "{waits:?}");
    let line = answer.line.unwrap();
    assert_eq!((line.waiting, line.ahead, line.class_waiting, line.class_ahead), (2, 1, 1, 0));
    let expected =
        QuotaUse { resource: "cpu".into(), used: "2".into(), nominal: "2".into(), max: "2".into() };
    assert_eq!((answer.queue.name.as_str(), answer.queue.quota), ("default", vec![expected]));
    assert_eq!(answer.queue.found_by, "the BatchQueue called default");
    assert!(answer.next_writes.iter().all(|write| write.verb != "create"));
}

#[tokio::test]
async fn nodes_are_counted_by_what_speaks_against_them() {
    let mut all = world(vec![job("a", "4", json!({}))], vec![]);
    let taint = json!({"taints": [{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}]});
    all.nodes = Some(vec![
        node("n1", "2", json!({})),
        node("n2", "8", json!({"unschedulable": true})),
        node("n3", "8", taint.clone()),
        node("n4", "8", taint),
    ]);
    let answer = explained(all, "a");
    let found: Vec<_> = answer
        .nodes
        .unwrap()
        .excluded
        .into_iter()
        .map(|excluded| (excluded.reason, excluded.detail, excluded.nodes, excluded.examples.join(" ")))
        .collect();
    let expected = [
        (NodeExclusion::Tainted, "dedicated=gpu:NoSchedule".to_owned(), 2, "n3 n4".to_owned()),
        (NodeExclusion::Cordoned, String::new(), 1, "n2".to_owned()),
        (NodeExclusion::TooSmall, "cpu".to_owned(), 1, "n1".to_owned()),
    ];
    assert_eq!(found, expected);
    assert_eq!(answer.waits.unwrap().said.reason, "NoCapacity", "it would fit on what is only kept away now");
}

#[tokio::test]
async fn what_never_fits_and_what_has_no_queue_needs_a_person() {
    let huge = explained(world(vec![job("a", "64", json!({}))], vec![]), "a");
    assert_eq!(huge.stalled.unwrap().reason, StalledReason::NeverFits.as_str());
    let named = job("a", "1", json!({"queueName": "reports"}));
    let missing = explained(world(vec![named], vec![]), "a");
    let stalled = missing.stalled.unwrap();
    assert_eq!(stalled.reason, StalledReason::QueueNotFound.as_str());
    assert_eq!((missing.queue.name.as_str(), missing.queue.exists), ("reports", false));
    let nameless = explained(world(vec![job("a", "1", json!({}))], vec![queue("reports", "1")]), "a");
    assert_eq!(nameless.waits.unwrap().said.reason, QueuedReason::QueueNameRequired.as_str());
}

#[tokio::test]
async fn a_pause_after_a_failure_is_computed_from_the_status() {
    let failed = with(&job("a", "1", json!({"retry": {"initialBackoffSeconds": 60}})), |job| {
        let ended = NOW - jiff::SignedDuration::from_secs(10);
        job.status = serde_json::from_value(json!({
            "failed": 1, "admittedTime": ended, "startTime": ended, "queue": "",
            "lastFailures": [{"index": 0, "attempt": 0, "exitCode": 1, "finishTime": ended}],
        }))
        .unwrap();
    });
    let answer = explained(world(vec![failed], vec![]), "a");
    assert_eq!(answer.state, State::Waiting);
    let retry = answer.retry.unwrap();
    assert_eq!((retry.index, retry.failures, retry.until), (0, 1, NOW + jiff::SignedDuration::from_secs(50)));
    assert_eq!(created(&answer.next_writes), [""; 0]);
}

#[tokio::test]
async fn what_the_api_server_refused_is_told_in_its_words_and_not_tried() {
    let refused = with(&job("a", "1", json!({})), |job| {
        job.status = serde_json::from_value(json!({"conditions": [{
            "type": "Queued", "status": "True", "observedGeneration": 1, "reason": "ClassBackoff",
            "message": "pods is forbidden: exceeded quota", "lastTransitionTime": NOW,
        }]}))
        .unwrap();
    });
    let answer = explained(world(vec![refused], vec![]), "a");
    assert_eq!((answer.state, created(&answer.next_writes)), (State::Waiting, vec![]));
    let waits = answer.waits.unwrap();
    assert_eq!((waits.said.reason.as_str(), waits.until), ("ClassBackoff", None));
    assert_eq!(waits.said.message, "pods is forbidden: exceeded quota");
}

#[tokio::test]
async fn without_nodes_the_word_of_the_manager_counts_but_not_where_quota_decides() {
    let waits = |reason: &str| {
        with(&job("a", "1", json!({})), |job| {
            job.status = serde_json::from_value(json!({"conditions": [{
                "type": "Queued", "status": "True", "observedGeneration": 1, "reason": reason,
                "message": "a pod needs cpu 1: room for 0 on 3 eligible nodes", "lastTransitionTime": NOW,
            }]}))
            .unwrap();
        })
    };
    let blind = |job, queues| World { nodes: None, ..world(vec![job], queues) };
    let reported = explained(blind(waits("NoCapacity"), vec![]), "a");
    assert_eq!((reported.basis, reported.state), (Basis::Reported, State::Waiting));
    assert_eq!(reported.waits.unwrap().said.message, "a pod needs cpu 1: room for 0 on 3 eligible nodes");
    assert_eq!(reported.nodes, None);
    let unknown = explained(blind(job("a", "1", json!({})), vec![]), "a");
    assert_eq!((unknown.state, unknown.waits), (State::Unknown, None));
    // The queue's source are nodes that are not seen, which is not what the manager sees.
    let bounded = explained(blind(job("a", "1", json!({})), vec![queue("default", "500m")]), "a");
    assert_eq!((bounded.basis, bounded.state), (Basis::Computed, State::Waiting));
    assert_eq!(bounded.waits.unwrap().said.reason, "NeverFits", "larger than the quota");
}

#[tokio::test]
async fn a_smaller_quota_ends_pods_and_a_larger_one_starts_some() {
    let wide = with(&job("a", "1", json!({"completions": 4, "parallelism": 4})), |job| {
        job.status =
            serde_json::from_value(json!({"active": 2, "admittedTime": NOW, "queue": "default"})).unwrap();
    });
    let mut now = world(vec![wide], vec![queue("default", "2")]);
    now.pods = vec![pod("a-0-0", Some("a"), "default", "1"), pod("a-1-0", Some("a"), "default", "1")];
    let same = caused_by(&now, of_queue(queue("default", "2")), NOW);
    assert_eq!((same.writes, same.spared), (vec![], vec![]));
    let more = caused_by(&now, of_queue(queue("default", "3")), NOW);
    assert_eq!(created(&more.writes), ["a-2-0"]);
    let less = caused_by(&now, of_queue(queue("default", "1")), NOW);
    let ended: Vec<_> = less.writes.iter().map(|write| (write.verb.as_str(), write.job.as_str())).collect();
    assert_eq!(ended, [("delete", "a")]);
    assert_eq!(less.writes[0].grace_seconds, Some(30));
    let drained = queue_of("default", json!({"stopPolicy": "Drain"}));
    assert_eq!(caused_by(&now, of_queue(drained), NOW).writes.len(), 2);
}

#[tokio::test]
async fn a_new_job_leads_to_its_own_pods_alone() {
    let now = world(vec![job("a", "6", json!({}))], vec![]);
    let new = job("b", "1", json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"}));
    let difference = caused_by(&now, of_job(&new), NOW);
    assert_eq!(created(&difference.writes), ["b-0-0", "b-1-0"], "the other job's pod is due anyway");
    let answer = difference.after.explain(&ObjectKey::new("ns", "b")).unwrap();
    assert_eq!((answer.tasks.startable, answer.waits.unwrap().said.reason.as_str()), (1, "NoCapacity"));
    // One that takes the whole node comes after it, and then cannot start.
    let now = world(vec![job("a", "8", json!({"priority": -1}))], vec![]);
    let difference = caused_by(&now, of_job(&new), NOW);
    assert_eq!(created(&difference.writes).len(), 3);
    assert_eq!(created(&difference.spared), ["a-0-0"]);
}

#[tokio::test]
async fn a_rehearsal_writes_as_the_planner_does() {
    let strict = job("a", "1", json!({"tier": "Standard", "completions": 2, "parallelism": 2}));
    let mut rehearsal = Rehearsal::new(world(vec![strict], vec![]), NOW);
    let manifests: Vec<Value> = rehearsal
        .run()
        .iter()
        .filter_map(|write| match &write.action {
            Action::Create { manifest } => Some(manifest.clone()),
            Action::Delete { .. } | Action::Patch { .. } | Action::Status { .. } => None,
        })
        .collect();
    assert_eq!(manifests.len(), 2);
    assert_eq!(manifests[0]["metadata"]["finalizers"], json!(["springtide.dev/job-tracking"]));
    let before = rehearsal.writes().len();
    assert_eq!(rehearsal.run().len(), before, "a second run has nothing to do");
    assert!(!rehearsal.is_cut());
}
