//! The objects of one life.

use serde_json::{Value, json};
use springtide_e2e::kwok::RUN_SECONDS;

/// Path of a collection.
pub(crate) fn jobs(namespace: &str) -> String {
    format!("/apis/springtide.dev/v1alpha1/namespaces/{namespace}/batchjobs")
}

/// Path of a collection.
pub(crate) fn pods(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods")
}

fn pod_spec(run_seconds: &str) -> Value {
    json!({
        "restartPolicy": "Never",
        "containers": [{
            "name": "main",
            "image": "localhost/springtide-box:1",
            "args": ["sleep", run_seconds],
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        }],
    })
}

/// A job of one pod, gone as soon as it has ended. It runs `run_seconds`, on a real node or as KWOK plays it.
pub(crate) fn job(namespace: &str, name: &str, run_seconds: &str) -> Value {
    json!({
        "apiVersion": "springtide.dev/v1alpha1",
        "kind": "BatchJob",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "ttlSecondsAfterFinished": 0,
            "template": {"metadata": {"annotations": {RUN_SECONDS: run_seconds}}, "spec": pod_spec(run_seconds)},
        },
    })
}

/// The pod that the generator makes for a job, as the controller would.
pub(crate) fn pod(namespace: &str, job: &str, job_uid: &str, run_seconds: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": namespace,
            "name": format!("{job}-0-0"),
            "labels": {"springtide.dev/job": job, "springtide.dev/tier": "BestEffort"},
            "annotations": {RUN_SECONDS: run_seconds},
            "ownerReferences": [{
                "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": job, "uid": job_uid,
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "spec": pod_spec(run_seconds),
    })
}

/// A final status of the size the controller writes.
pub(crate) fn final_status() -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "observedGeneration": 1,
            "lastTransitionTime": now, "message": "",
        })
    };
    json!({"status": {
        "observedGeneration": 1,
        "succeeded": 1,
        "completionTime": now,
        "conditions": [
            condition("Complete", "True", "Completed"),
            condition("Queued", "False", "Finished"),
            condition("Admitted", "True", "BuiltInQueue"),
        ],
        "result": {"exitCode": 0, "reason": "Completed", "node": "kwok-0", "finishTime": now},
    }})
}
