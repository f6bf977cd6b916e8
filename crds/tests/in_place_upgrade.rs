//! InPlaceUpgrade as the API server sees it.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use springtide_crds::common::{ConditionStatus, IntOrPercent, OnTimeout};
use springtide_crds::in_place_upgrade::{
    AcceptedReason, BLOCKED_REASONS_MAX, BlockedReason, DriftedReason, FinalizedReason, HealthyReason,
    HeldReason, InPlaceUpgrade, InPlaceUpgradeSpec, InPlaceUpgradeStatus, Lock, LockedReason, Mode,
    OnFailure, PrePullScope, PrePulledReason, ReadyReason, ReconcilingReason, RefusalReason, SourceType,
    StalledReason, TARGET_MAX_LENGTH, TargetKind, TrafficMode, crd,
};
use springtide_crds::reason::Reason;
use springtide_crds::schema::with_defaults;

fn schema(part: &str) -> Value {
    json!(crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone()
}

fn sparse() -> Value {
    json!({"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}})
}

#[test]
fn the_defaults_of_rust_and_of_the_schema_are_the_same() {
    let spec = InPlaceUpgradeSpec::new(TargetKind::Deployment, "web");
    let mut stored = sparse();
    with_defaults(&mut stored, &schema("spec"));
    assert_eq!(stored, json!(spec));
    assert_eq!(serde_json::from_value::<InPlaceUpgradeSpec>(stored).unwrap(), spec);
    assert_eq!(serde_json::from_value::<InPlaceUpgradeSpec>(sparse()).unwrap(), spec);
}

#[test]
fn an_upgrade_that_says_only_its_target_is_careful() {
    let object: InPlaceUpgrade = serde_json::from_value(json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "InPlaceUpgrade", "metadata": {"name": "web"},
        "spec": sparse(),
    }))
    .unwrap();
    let spec = object.spec;
    assert_eq!((spec.mode, spec.source.type_, spec.attempt), (Mode::Apply, SourceType::Template, 0));
    assert_eq!((spec.policy.lock, spec.rollback.on_failure), (Lock::Require, OnFailure::Auto));
    let strategy = &spec.strategy;
    assert_eq!((strategy.steps.len(), strategy.steps[0].replicas), (1, IntOrPercent::Percent(100)));
    assert_eq!((strategy.max_unavailable, strategy.max_in_flight_per_node), (IntOrPercent::Percent(10), 1));
    assert_eq!((strategy.resize_timeout_seconds, strategy.pod_deadline_seconds), (300, 300));
    assert_eq!(spec.traffic.mode, TrafficMode::Auto);
    let drain = &spec.traffic.drain;
    assert_eq!((drain.min_seconds, drain.timeout_seconds, drain.on_timeout), (5, 60, OnTimeout::Skip));
    assert_eq!((spec.pre_pull.scope, spec.pre_pull.parallelism), (PrePullScope::NextStep, 50));
    assert_eq!(spec.pre_pull.timeout_seconds, 600);
    assert_eq!((spec.health.failure_threshold, spec.health.max_restarts), (IntOrPercent::Percent(2), 0));
}

#[test]
fn part_of_an_object_leaves_the_rest_at_its_default() {
    let mut stored = sparse();
    stored["strategy"] = json!({"maxUnavailable": 3});
    stored["source"] =
        json!({"type": "Inline", "inline": {"containers": [{"name": "app", "image": "app:2"}]}});
    stored["health"] = json!({"metrics": [
        {"name": "errors", "prometheus": {"address": "http://prom:9090", "query": "up"}, "failureAbove": "0.01"},
    ]});
    let read: InPlaceUpgradeSpec = serde_json::from_value(stored.clone()).unwrap();
    with_defaults(&mut stored, &schema("spec"));
    let defaulted: InPlaceUpgradeSpec = serde_json::from_value(stored).unwrap();
    assert_eq!(read, defaulted);
    let metric = &read.health.metrics[0];
    assert_eq!((metric.interval_seconds, metric.failure_limit), (30, 1));
    assert_eq!(metric.failure_above.as_ref().and_then(|bound| bound.value()), Some(0.01));
    assert_eq!(read.strategy.pod_deadline_seconds, 300);
}

#[test]
fn the_status_nobody_wrote_reads_as_a_status() {
    let status: InPlaceUpgradeStatus = serde_json::from_value(schema("status")["default"].clone()).unwrap();
    let reasons: Vec<(&str, &str)> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.reason.as_str()))
        .collect();
    assert_eq!(reasons, [("Ready", "Pending"), ("Reconciling", "Pending")]);
}

#[test]
fn every_reason_of_a_blocked_pod_has_its_row() {
    let reasons = &schema("status")["properties"]["plan"]["properties"]["reasons"];
    let values = reasons["items"]["properties"]["reason"]["enum"].as_array().unwrap();
    assert_eq!(values.len(), BLOCKED_REASONS_MAX);
    assert!(values.contains(&json!("QoSClassWouldChange")), "{values:?}");
    for value in values {
        let reason: BlockedReason = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(reason.as_str(), *value, "it is written as it is named");
    }
    let longest = format!("StatefulSet/{}", "x".repeat(253));
    assert_eq!(longest.len(), TARGET_MAX_LENGTH);
}

#[test]
fn each_condition_but_the_summaries_has_a_reason_for_what_was_not_looked_at() {
    for reason in [
        AcceptedReason::NotObserved.as_str(),
        LockedReason::NotObserved.as_str(),
        PrePulledReason::NotObserved.as_str(),
        HeldReason::NotObserved.as_str(),
        HealthyReason::NotObserved.as_str(),
        FinalizedReason::NotObserved.as_str(),
        DriftedReason::NotObserved.as_str(),
    ] {
        assert_eq!(reason, "NotObserved");
    }
    assert_eq!(HeldReason::NotObserved.status(), ConditionStatus::Unknown);
}

#[test]
fn what_refuses_a_spec_stands_under_accepted_and_stalled() {
    for refusal in RefusalReason::all() {
        let (accepted, stalled) = (AcceptedReason::Refused(refusal), StalledReason::Refused(refusal));
        assert_eq!((accepted.as_str(), stalled.as_str()), (refusal.as_str(), refusal.as_str()));
        assert_eq!((accepted.status(), stalled.status()), (ConditionStatus::False, ConditionStatus::True));
    }
}

#[test]
fn work_is_under_way_exactly_while_it_ends_by_itself() {
    let reconciling: Vec<&str> = ReadyReason::all()
        .into_iter()
        .filter_map(ReconcilingReason::of)
        .map(|reason| {
            assert_eq!(reason.status(), ConditionStatus::True);
            reason.as_str()
        })
        .collect();
    let all: Vec<&str> = ReconcilingReason::all().iter().map(Reason::as_str).collect();
    assert_eq!(reconciling, all);
    assert_eq!(ReconcilingReason::of(ReadyReason::Held), None);
}

#[test]
fn lists_are_named_and_numbers_are_of_a_known_format() {
    let text = json!(crd()).to_string();
    assert!(!text.contains("nullable") && !text.contains("uint") && !text.contains("anyOf"));
    let spec = schema("spec");
    let max_unavailable = &spec["properties"]["strategy"]["properties"]["maxUnavailable"];
    assert_eq!(max_unavailable["x-kubernetes-int-or-string"], true);
    assert_eq!((&max_unavailable["maxLength"], &max_unavailable["default"]), (&json!(4), &json!("10%")));
    let selectable: Vec<Value> = json!(crd())["spec"]["versions"][0]["selectableFields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| field["jsonPath"].clone())
        .collect();
    assert_eq!(selectable, [".spec.targetRef.kind", ".spec.targetRef.name"]);
}
