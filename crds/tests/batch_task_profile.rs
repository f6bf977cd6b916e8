//! BatchTaskProfile as the API server sees it.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use springtide_crds::batch_job::JobProfile;
use springtide_crds::batch_task_profile::{
    BatchTaskProfile, BatchTaskProfileSpec, BatchTaskProfileStatus, ProfileMode, crd,
};

fn schema(part: &str) -> Value {
    json!(crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone()
}

#[test]
fn the_defaults_of_rust_and_of_the_schema_are_the_same() {
    let fields = schema("spec")["properties"].as_object().unwrap().clone();
    let defaults = fields.iter().filter(|(_, field)| !field["default"].is_null());
    let defaults: serde_json::Map<String, Value> =
        defaults.map(|(name, field)| (name.clone(), field["default"].clone())).collect();
    assert_eq!(Value::Object(defaults), json!(BatchTaskProfileSpec::default()));
    let empty: BatchTaskProfileSpec = serde_json::from_value(json!({})).unwrap();
    assert_eq!(empty, BatchTaskProfileSpec::default());
}

#[test]
fn bounds_are_quantities_as_people_write_them() {
    let profile: BatchTaskProfile = serde_json::from_value(json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchTaskProfile", "metadata": {"name": "a"},
        "spec": {"bounds": [{"container": "c", "resource": "memory", "min": 8_589_934_592_u64, "max": "16Gi"}]},
    }))
    .unwrap();
    let bound = &profile.spec.bounds[0];
    let text = [&bound.min, &bound.max].map(|quantity| quantity.as_ref().unwrap().as_str());
    assert_eq!(text, ["8589934592", "16Gi"]);
    let min = &schema("spec")["properties"]["bounds"]["items"]["properties"]["min"];
    assert_eq!(min["x-kubernetes-int-or-string"], true);
    assert!(min["type"].is_null() && min["anyOf"].is_null(), "{min}");
}

#[test]
fn the_status_nobody_wrote_reads_as_a_status() {
    let status: BatchTaskProfileStatus = serde_json::from_value(schema("status")["default"].clone()).unwrap();
    let reasons: Vec<(&str, &str)> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.reason.as_str()))
        .collect();
    assert_eq!(reasons, [("Ready", "Pending"), ("Reconciling", "Pending")]);
    assert_eq!((status.samples, status.observed_generation), (0, 0));
}

#[test]
fn modes_do_more_and_more() {
    assert!(ProfileMode::Off < ProfileMode::Observe);
    assert!(ProfileMode::Observe < ProfileMode::Initial && ProfileMode::Initial < ProfileMode::Auto);
    let absent: JobProfile = serde_json::from_value(json!({"key": "etl"})).unwrap();
    assert_eq!(absent.mode, None, "the queue decides, not the schema");
}

#[test]
fn no_schema_allows_null_or_an_unknown_format() {
    let text = json!(crd()).to_string();
    assert!(!text.contains("nullable") && !text.contains("uint"));
}
