//! BatchJob as the API server sees it.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, BatchJobStatus, CompletionMode, NAME_MAX_LENGTH, PodTemplate, crd,
};
use springtide_crds::common::Tier;
use springtide_crds::schema::with_defaults;

fn template() -> PodTemplate {
    serde_json::from_value(json!({
        "metadata": {"labels": {"app": "report"}, "annotations": {"note": "x"}},
        "spec": {"containers": [{"name": "main", "image": "app"}], "fieldOfTheFuture": {"a": [1, 2]}},
    }))
    .unwrap()
}

fn schema(part: &str) -> Value {
    json!(crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone()
}

#[test]
fn the_defaults_of_rust_and_of_the_schema_are_the_same() {
    let mut stored = json!({"template": template()});
    with_defaults(&mut stored, &schema("spec"));
    // The schema's default for what the template declares is for pods, not for us.
    stored["template"] = json!(template());
    assert_eq!(stored, json!(BatchJobSpec::new(template())));
    assert_eq!(serde_json::from_value::<BatchJobSpec>(stored).unwrap(), BatchJobSpec::new(template()));
}

#[test]
fn a_sparse_object_reads_as_its_defaults() {
    let job: BatchJob = serde_json::from_value(json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "metadata": {"name": "a"},
        "spec": {"completionMode": "Indexed", "retry": {"maxBackoffSeconds": 20}, "template": template()},
    }))
    .unwrap();
    assert_eq!(job.spec.completion_mode, CompletionMode::Indexed);
    assert_eq!((job.spec.retry.initial_backoff_seconds, job.spec.retry.max_backoff_seconds), (10, 20));
    assert_eq!((job.spec.tier, job.spec.backoff_limit, job.status), (Tier::BestEffort, None, None));
}

#[test]
fn a_template_keeps_what_it_does_not_know() {
    let kept: PodTemplate = serde_json::from_str(&serde_json::to_string(&template()).unwrap()).unwrap();
    assert_eq!(kept, template());
    assert_eq!(kept.spec().unwrap()["fieldOfTheFuture"], json!({"a": [1, 2]}));
    assert_eq!(kept.labels().unwrap()["app"], "report");
    assert_eq!(kept.annotations().unwrap()["note"], "x");
    assert_eq!(PodTemplate::default().labels(), None);
}

#[test]
fn the_status_nobody_wrote_reads_as_a_status() {
    let mut status = schema("status")["default"].clone();
    with_defaults(&mut status, &schema("status"));
    let status: BatchJobStatus = serde_json::from_value(status).unwrap();
    assert_eq!((status.observed_generation, status.succeeded, status.active), (0, 0, 0));
    let reasons: Vec<(&str, &str)> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.reason.as_str()))
        .collect();
    assert_eq!(reasons, [("Complete", "Pending"), ("Reconciling", "Pending")]);
}

#[test]
fn the_longest_pod_name_is_a_hostname() {
    let job = "j".repeat(NAME_MAX_LENGTH);
    let last = springtide_crds::batch_job::MAX_COMPLETIONS - 1;
    let failures = springtide_crds::batch_job::MAX_ATTEMPTS;
    assert_eq!(format!("{job}-{last}-{failures}").len(), 63);
}

#[test]
fn no_schema_allows_null_or_an_unknown_format() {
    let text = json!(crd()).to_string();
    assert!(!text.contains("nullable") && !text.contains("uint"));
}
