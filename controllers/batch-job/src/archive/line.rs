//! The line that stands for a finished job: one JSON object, documented in `docs/archive.md`.
//!
//! A pure function of the job as it is stored, so that a line which is written twice is the same twice. Names and
//! meanings of its fields do not change within one [`FORMAT`]; further fields may come.

use crate::projections::job::JobView;
use serde::Serialize;
use serde_json::{Map, Value, json};
use springtide_crds::batch_job::{CompleteReason, CompletionMode, ExitCodeCount, FailureRecord, TaskResult};
use springtide_crds::common::Tier;
use springtide_crds::reason::Reason;
use springtide_plumbing::projection::Projection;

/// Value of the field `archive`, by which a line is known: the kind of the object and the version of the format.
pub const FORMAT: &str = "springtide.dev/batchjob/v1";
/// The longest line, its end included. Container runtimes split longer ones (containerd at 16 KiB), and log agents
/// may see them in pieces.
pub const MAX_BYTES: usize = 15_360;
/// Containers of the template that are named.
const CONTAINERS_MAX: usize = 8;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    archive: &'static str,
    time: String,
    namespace: &'a str,
    name: &'a str,
    uid: &'a str,
    queue: &'a str,
    outcome: &'static str,
    reason: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    labels: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
    spec: Spec<'a>,
    status: Status<'a>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

#[derive(Serialize)]
struct Owner<'a> {
    kind: &'a str,
    name: &'a str,
    uid: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    tier: Tier,
    priority: i32,
    completions: u32,
    parallelism: u32,
    completion_mode: CompletionMode,
    template_hash: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    creation_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    admitted_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_time: Option<String>,
    completion_time: String,
    running_seconds: u32,
    suspended_seconds: u32,
    succeeded: u32,
    failed: u32,
    disrupted: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    failed_indexes: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    exit_codes: &'a [ExitCodeCount],
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a TaskResult>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    last_failures: &'a [FailureRecord],
}

/// The line of a job that has finished, with its end; nothing for any other job.
pub fn line(job: &JobView) -> Option<Vec<u8>> {
    let mut line = whole(job)?;
    // What a reader can do without goes first.
    let shorten: [fn(&mut Line<'_>); 3] = [
        |line| line.spec.containers.clear(),
        |line| line.labels.clear(),
        |line| line.status.last_failures = &[],
    ];
    let mut text = encode(&line);
    for cut in shorten {
        if text.len() <= MAX_BYTES {
            break;
        }
        cut(&mut line);
        line.truncated = true;
        text = encode(&line);
    }
    Some(text)
}

fn encode(line: &Line<'_>) -> Vec<u8> {
    // A struct of strings, numbers and lists cannot fail to be JSON; the JSON of a text has no line break.
    let mut text = serde_json::to_vec(line).unwrap_or_default();
    text.push(b'\n');
    text
}

fn whole(job: &JobView) -> Option<Line<'_>> {
    let (meta, spec, status) = (job.meta(), &job.spec, &job.status);
    let completion = status.completion_time.as_ref().filter(|_| job.is_finished())?.0.to_string();
    let summary = job.condition(CompleteReason::CONDITION);
    Some(Line {
        archive: FORMAT,
        time: completion.clone(),
        namespace: &meta.key.namespace,
        name: &meta.key.name,
        uid: &meta.uid.0,
        queue: status.queue.as_deref().unwrap_or_default(),
        outcome: if job.completed() { "Complete" } else { "Failed" },
        reason: summary.map_or("", |summary| summary.reason.as_str()),
        message: summary.map_or("", |summary| summary.message.as_str()),
        labels: meta.labels.others.unpack(),
        owner: meta.controller.as_ref().map(|owner| Owner {
            kind: &owner.kind,
            name: &owner.name,
            uid: &owner.uid.0,
        }),
        spec: Spec {
            tier: spec.tier,
            priority: spec.priority,
            completions: spec.completions,
            parallelism: spec.parallelism,
            completion_mode: spec.completion_mode,
            template_hash: status.template_hash.as_deref().unwrap_or(&job.template.hash),
            containers: containers(&job.template.unpack().0),
        },
        status: Status {
            creation_time: meta.creation_time.to_string(),
            admitted_time: status.admitted_time.as_ref().map(|time| time.0.to_string()),
            start_time: status.start_time.as_ref().map(|time| time.0.to_string()),
            completion_time: completion,
            running_seconds: status.running_seconds,
            suspended_seconds: status.suspended_seconds,
            succeeded: status.succeeded,
            failed: status.failed,
            disrupted: status.disrupted,
            failed_indexes: status.indexes.as_ref().map_or("", |indexes| indexes.failed.as_str()),
            exit_codes: &status.exit_codes,
            result: status.result.as_ref(),
            last_failures: &status.last_failures,
        },
        truncated: false,
    })
}

/// Name, image and requests of the containers; arguments and environment may hold what is secret.
fn containers(template: &Map<String, Value>) -> Vec<Value> {
    let containers = template.get("spec").and_then(|spec| spec["containers"].as_array());
    let described = containers.into_iter().flatten().take(CONTAINERS_MAX).map(|container| {
        let mut described = json!({"name": container["name"], "image": container["image"]});
        if let Some(requests) = container["resources"]["requests"].as_object() {
            described["requests"] = json!(requests);
        }
        described
    });
    described.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_crds::batch_job::{
        EXIT_CODE_ROWS_MAX, FAILED_INDEXES_MAX_BYTES, FAILURE_MESSAGE_MAX_BYTES, LAST_FAILURES_MAX,
    };

    fn job(spec: Value, status: Value) -> JobView {
        let mut spec = spec;
        if spec["template"].is_null() {
            spec["template"] = json!({"spec": {"containers": [{
                "name": "main", "image": "registry.example.com/etl:1", "args": ["--password=1234"],
                "env": [{"name": "TOKEN", "value": "5678"}],
                "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
            }]}});
        }
        serde_json::from_value(json!({
            "metadata": {
                "namespace": "reports", "name": "etl-17", "uid": "u-17", "resourceVersion": "9",
                "creationTimestamp": "2026-11-11T00:00:00Z",
                "labels": {"team": "billing", "springtide.dev/delete-protection": ""},
                "ownerReferences": [
                    {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "daily", "uid": "w", "controller": true},
                ],
            },
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn finished(further: Value) -> Value {
        let mut status = json!({
            "queue": "default", "templateHash": "00ff",
            "admittedTime": "2026-11-11T00:00:01Z", "startTime": "2026-11-11T00:00:02Z",
            "completionTime": "2026-11-11T00:00:42Z", "runningSeconds": 40, "succeeded": 1,
            "conditions": [{
                "type": "Complete", "status": "True", "observedGeneration": 1, "reason": "Completed",
                "message": "1 of 1 tasks succeeded", "lastTransitionTime": "2026-11-11T00:00:42Z",
            }],
        });
        status.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        status
    }

    #[test]
    fn a_line_has_these_fields_and_no_others() {
        let result = json!({"exitCode": 0, "signal": 0, "reason": "Completed", "message": "a \"line\"\u{2028}", "node": "n7",
            "finishTime": "2026-11-11T00:00:41Z"});
        let job = job(json!({}), finished(json!({"result": result})));
        let text = String::from_utf8(line(&job).unwrap()).unwrap();
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1, "{text}");
        // By this an agent may tell a line without parsing it.
        assert!(
            text.starts_with(r#"{"archive":"springtide.dev/batchjob/v1","time":"2026-11-11T00:00:42Z","#),
            "{text}"
        );
        let mut result = result;
        result["finishTime"] = json!("2026-11-11T00:00:41Z");
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({
                "archive": "springtide.dev/batchjob/v1", "time": "2026-11-11T00:00:42Z",
                "namespace": "reports", "name": "etl-17", "uid": "u-17", "queue": "default",
                "outcome": "Complete", "reason": "Completed", "message": "1 of 1 tasks succeeded",
                "labels": {"team": "billing"},
                "owner": {"kind": "Workflow", "name": "daily", "uid": "w"},
                "spec": {
                    "tier": "BestEffort", "priority": 0, "completions": 1, "parallelism": 1,
                    "completionMode": "NonIndexed", "templateHash": "00ff",
                    "containers": [{"name": "main", "image": "registry.example.com/etl:1",
                        "requests": {"cpu": "500m", "memory": "1Gi"}}],
                },
                "status": {
                    "creationTime": "2026-11-11T00:00:00Z", "admittedTime": "2026-11-11T00:00:01Z",
                    "startTime": "2026-11-11T00:00:02Z", "completionTime": "2026-11-11T00:00:42Z",
                    "runningSeconds": 40, "suspendedSeconds": 0,
                    "succeeded": 1, "failed": 0, "disrupted": 0, "result": result,
                },
            })
        );
        assert_eq!(line(&job), line(&job.clone()), "a line that is written twice is the same twice");
    }

    #[test]
    fn a_failure_says_so_and_an_unfinished_job_has_no_line() {
        let conditions = json!([
            {"type": "Complete", "status": "False", "observedGeneration": 1, "reason": "BackoffLimitExceeded", "message": "why",
                "lastTransitionTime": "2026-11-11T00:00:42Z"},
            {"type": "Failed", "status": "True", "observedGeneration": 1, "reason": "BackoffLimitExceeded", "message": "why",
                "lastTransitionTime": "2026-11-11T00:00:42Z"},
        ]);
        let failed = job(
            json!({"completions": 3}),
            finished(json!({"conditions": conditions, "indexes": {"failed": "1-2"}})),
        );
        let value: Value = serde_json::from_slice(&line(&failed).unwrap()).unwrap();
        assert_eq!((&value["outcome"], &value["reason"]), (&json!("Failed"), &json!("BackoffLimitExceeded")));
        assert_eq!((&value["message"], &value["status"]["failedIndexes"]), (&json!("why"), &json!("1-2")));
        assert_eq!(line(&job(json!({}), finished(json!({"conditions": []})))), None);
        assert_eq!(line(&job(json!({}), json!({}))), None);
    }

    #[test]
    fn the_longest_job_gives_a_line_that_no_runtime_splits() {
        let long = |length: usize| "x".repeat(length);
        let containers: Vec<Value> =
            (0..40).map(|i| json!({"name": format!("c{i}"), "image": long(1500)})).collect();
        let failures: Vec<Value> = (0..LAST_FAILURES_MAX)
            .map(|i| {
                json!({"index": i, "attempt": 999, "node": long(63), "exitCode": -1, "reason": long(32),
                    "message": long(FAILURE_MESSAGE_MAX_BYTES), "finishTime": "2026-11-11T00:00:41Z"})
            })
            .collect();
        let codes: Vec<Value> = (0..EXIT_CODE_ROWS_MAX)
            .map(|i| json!({"code": i, "reason": long(32), "count": 1_000_000}))
            .collect();
        let status = finished(json!({
            "lastFailures": failures, "exitCodes": codes, "indexes": {"failed": long(FAILED_INDEXES_MAX_BYTES)},
        }));
        let mut object = json!({
            "metadata": {"namespace": long(63), "name": long(52), "uid": long(36), "creationTimestamp": "2026-11-11T00:00:00Z",
                "labels": {}},
            "spec": {"completions": 100_000, "template": {"spec": {"containers": containers}}}, "status": status,
        });
        for number in 0..100 {
            object["metadata"]["labels"][format!("{}/{number}", long(200))] = json!(long(63));
        }
        let job: JobView = serde_json::from_value(object).unwrap();
        let text = line(&job).unwrap();
        assert!(text.len() <= MAX_BYTES, "{}", text.len());
        let value: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["truncated"], true);
        assert_eq!(value["status"]["lastFailures"].as_array().unwrap().len(), LAST_FAILURES_MAX);
    }

    #[test]
    fn what_a_template_keeps_secret_is_in_no_line() {
        let text = String::from_utf8(line(&job(json!({}), finished(json!({})))).unwrap()).unwrap();
        assert!(
            !text.contains("1234") && !text.contains("5678") && !text.contains("delete-protection"),
            "{text}"
        );
    }
}
