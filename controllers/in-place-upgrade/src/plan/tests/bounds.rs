//! A status is small whatever is in it.

use super::kinds::observed;
use super::scenes::status_of;
use crate::fixtures::{at, pod, replica_set};
use crate::plan::plan;
use crate::target::Target;
use crate::wish::Wish;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{
    BLOCKED_REASONS_MAX, CONTENT_MAX_BYTES, FAILURES_MAX, InPlaceUpgradeStatus, MESSAGE_MAX_BYTES,
    TARGET_MAX_LENGTH,
};
use springtide_plumbing::error::ErrorClass;
use springtide_plumbing::failing::Failing;
use springtide_plumbing::plan::MAX_STATUS_BYTES;
use springtide_plumbing::workloads::names::RECORD_ANNOTATION;
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

/// Foreign text of which each character takes more than one byte.
const WORDS: &str = "\"双十一\\\"\u{1b}";

fn json_bytes(text: &str) -> usize {
    Value::String(text.to_owned()).to_string().len() - 2
}

/// Many pods that fail in a run of a workload, all with names as long as there are.
fn failing_pods(run: &str) -> Vec<Arc<PodView>> {
    let record = json!({"run": run, "at": at(-10).to_string(), "g": 0, "base": {"app": ["a", "b"]}});
    let failing = |number: usize| {
        let waiting = json!({"reason": "CreateContainerConfigError", "message": WORDS.repeat(500)});
        let container = json!({
            "name": "app", "containerID": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": waiting},
        });
        let over = json!({
            "metadata": {"annotations": {RECORD_ANNOTATION: record.to_string()}},
            "spec": {"nodeName": "n".repeat(253), "containers": [{"name": "app", "image": "app:2"}]},
            "status": {"conditions": [], "containerStatuses": [container]},
        });
        pod(&format!("{number:0>253}"), over)
    };
    (0..40).map(failing).collect()
}

#[test]
fn a_status_has_at_most_ten_kilobytes_of_the_largest_input() {
    let target = || Target::ReplicaSet(replica_set(&"r".repeat(253), 0, 40, "app:2"));
    let empty = observed("ReplicaSet", target(), Vec::new(), json!({}));
    let run = Wish::of(&empty.upgrade.spec, target().template()).hash;
    let time = at(0).to_string();
    let over = json!({
        "metadata": {"generation": 1_000_000_000},
        "spec": {"rollback": {"onFailure": "Hold"}},
        "status": {
            "targetHash": run.as_str(),
            "startTime": time,
            "previous": {"content": "x".repeat(CONTENT_MAX_BYTES), "partition": i32::MAX, "revision": "r".repeat(253)},
            "step": {"index": 20, "of": 20, "pods": 20_000, "startTime": time, "holdUntilTime": time},
            "lastRun": {
                "targetHash": run.as_str(), "startTime": time, "completionTime": time, "pods": 1_000_000,
                "result": "Superseded",
            },
            "nextAttemptTime": time,
        },
    });
    let mut observed = observed("ReplicaSet", target(), failing_pods(run.as_str()), over);
    let message = WORDS.repeat(500);
    observed.failing = Some(Failing { class: ErrorClass::Bug, passes: 1, attempt: None, message });
    let status = status_of(&plan(&observed, at(0))).unwrap();
    assert_eq!(status.pods.failed, 40);
    assert_eq!(status.failures.len(), FAILURES_MAX);
    assert_eq!(status.target.len(), "ReplicaSet/".len() + 253);
    assert!(status.target.len() <= TARGET_MAX_LENGTH);
    assert_largest(&status);
}

/// It fits with all of its conditions and lists at their bounds.
fn assert_largest(status: &InPlaceUpgradeStatus) {
    for condition in &status.conditions {
        assert!(json_bytes(&condition.message) <= MESSAGE_MAX_BYTES, "{condition:?}");
    }
    let mut largest = serde_json::to_value(status).unwrap();
    let conditions = largest["conditions"].as_array_mut().unwrap();
    for condition in conditions.iter_mut() {
        condition["message"] = json!("m".repeat(MESSAGE_MAX_BYTES));
    }
    let row = json!({"reason": "TemplateFieldNotInPlace", "count": 1_000_000});
    largest["plan"]["reasons"] = Value::Array(vec![row; BLOCKED_REASONS_MAX]);
    let bytes = largest.to_string().len();
    assert!(bytes <= MAX_STATUS_BYTES, "{bytes}");
    assert!(bytes > MAX_STATUS_BYTES / 2, "it is no large one: {bytes}");
}
