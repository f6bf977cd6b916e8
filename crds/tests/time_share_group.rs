//! TimeShareGroup as the API server sees it.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

use jiff::Timestamp;
use serde_json::{Value, json};
use springtide_crds::common::{ConditionStatus, OnTimeout};
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_crds::reason::Reason;
use springtide_crds::schema::with_defaults;
use springtide_crds::time_share_group::{
    AcceptedReason, AutoscalerConflictReason, Autoscalers, CapacitySafeReason, GuardsPassingReason,
    HeldReason, LimitsPolicy, MemberKind, MemoryPolicy, Mode, OnBreach, OnPreflightFailure, OnStuck, Order,
    Overlap, PreflightFailure, PreflightPassedReason, ReadyReason, ReconcilingReason, RefusalReason,
    ScheduleValidReason, StalledReason, StuckReason, TimeShareGroup, TimeShareGroupSpec,
    TimeShareGroupStatus, TrafficMode, Unpaired, ValleyTraffic, crd,
};

fn schema(part: &str) -> Value {
    json!(crd())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone()
}

fn member(name: &str) -> Value {
    json!({
        "name": name,
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "containers": [{"name": "app", "peak": {"cpu": "4"}, "valley": {"cpu": "200m"}}],
    })
}

fn sparse() -> Value {
    json!({"members": [member("payment"), member("promo")]})
}

fn read(spec: Value) -> TimeShareGroupSpec {
    serde_json::from_value(spec).unwrap()
}

#[test]
fn the_defaults_of_rust_and_of_the_schema_are_the_same() {
    let spec = TimeShareGroupSpec::new(read(sparse()).members);
    let mut stored = sparse();
    with_defaults(&mut stored, &schema("spec"));
    assert_eq!(stored, json!(spec));
    assert_eq!(read(stored), spec);
    assert_eq!(read(sparse()), spec);
}

#[test]
fn part_of_a_group_leaves_the_rest_at_its_default() {
    let mut stored = sparse();
    stored["members"][0]["traffic"] = json!({"mode": "HTTPRoute", "httpRoute": {"name": "pay", "backend": "pay"}, "drain": {"minSeconds": 9}});
    stored["schedule"] = json!({"windows": [
        {"name": "night", "member": "payment", "window": {"start": "23:30", "end": "01:30", "timeZone": "UTC"}},
    ]});
    stored["override"] = json!({"untilTime": "2026-11-11T03:00:00Z", "reason": "INC-4711"});
    stored["switch"] = json!({"steps": [{"percent": 100}]});
    stored["guards"] = json!({"preflight": {"leadSeconds": 60}, "donorMaxLoad": {
        "name": "qps", "prometheus": {"address": "http://prom:9090", "query": "up"}, "failureAbove": "0.3",
    }});
    let sparse = read(stored.clone());
    with_defaults(&mut stored, &schema("spec"));
    assert_eq!(sparse, read(stored));
    let route = sparse.members[0].traffic.http_route.as_ref().unwrap();
    assert_eq!((route.peak_weight, route.valley_weight), (100, 0));
    assert_eq!((sparse.schedule.windows[0].lead_seconds, sparse.switch.steps[0].hold_seconds), (600, 0));
    assert_eq!(sparse.guards.preflight.require_percent, 99);
    assert_eq!(sparse.guards.donor_max_load.as_ref().map(|gate| gate.interval_seconds), Some(30));
    assert_eq!(sparse.override_.as_ref().map(|forced| forced.member.is_some()), Some(false));
}

#[test]
fn a_group_that_says_only_its_members_is_careful() {
    let object: TimeShareGroup = serde_json::from_value(json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "TimeShareGroup", "metadata": {"name": "double11"},
        "spec": sparse(),
    }))
    .unwrap();
    let spec = object.spec;
    assert_eq!((spec.mode, spec.autoscalers), (Mode::Active, Autoscalers::Report));
    assert_eq!((spec.schedule.default_member, spec.override_), (None, None));
    assert_eq!(spec.pairing.unpaired, Unpaired::GrowWhenFree);
    let member = &spec.members[0];
    assert_eq!((member.memory, member.warm_up_seconds), (MemoryPolicy::Keep, 0));
    assert_eq!(member.containers[0].limits, LimitsPolicy::EqualRequests);
    assert_eq!((member.traffic.mode, member.traffic.valley), (TrafficMode::None, ValleyTraffic::Off));
    let drain = &member.traffic.drain;
    assert_eq!((drain.min_seconds, drain.timeout_seconds, drain.on_timeout), (5, 60, OnTimeout::Skip));
    let switch = &spec.switch;
    assert_eq!((switch.order, switch.overlap), (Order::Pipelined, Overlap::WhenFree));
    let steps: Vec<(u32, u32)> = switch.steps.iter().map(|step| (step.percent, step.hold_seconds)).collect();
    assert_eq!(steps, [(1, 60), (10, 60), (100, 0)]);
    assert_eq!((switch.max_in_flight_units, switch.max_in_flight_units_per_node), (500, 2));
    assert_eq!((switch.nudge_after_seconds, switch.unit_deadline_seconds), (5, 60));
    assert_eq!((switch.deadline_seconds, switch.on_stuck), (600, OnStuck::Skip));
    let preflight = &spec.guards.preflight;
    assert_eq!((preflight.lead_seconds, preflight.require_percent), (7200, 99));
    assert_eq!(preflight.on_failure, OnPreflightFailure::Report);
    assert_eq!((spec.guards.failure_threshold_percent, spec.guards.on_breach), (2, OnBreach::Rollback));
}

#[test]
fn an_override_ends_at_its_time() {
    let mut spec = sparse();
    spec["override"] =
        json!({"member": "payment", "untilTime": "1970-01-01T00:01:00Z", "reason": "INC-4711"});
    let forced = read(spec).override_.unwrap();
    let at = |second| Timestamp::from_second(second).unwrap();
    assert_eq!((forced.is_in_force(at(59)), forced.is_in_force(at(60))), (true, false));
}

#[test]
fn a_member_is_of_a_kind_that_an_upgrade_knows_too() {
    for (kind, target) in [
        (MemberKind::Deployment, TargetKind::Deployment),
        (MemberKind::StatefulSet, TargetKind::StatefulSet),
        (MemberKind::ReplicaSet, TargetKind::ReplicaSet),
    ] {
        assert_eq!((TargetKind::from(kind), json!(kind)), (target, json!(kind.as_str())));
    }
}

#[test]
fn the_status_nobody_wrote_reads_as_a_status() {
    let status: TimeShareGroupStatus = serde_json::from_value(schema("status")["default"].clone()).unwrap();
    let reasons: Vec<(&str, &str)> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.reason.as_str()))
        .collect();
    assert_eq!(reasons, [("Ready", "Pending"), ("Reconciling", "Pending")]);
    assert_eq!((status.active_member, status.transition), (None, None));
}

#[test]
fn each_condition_but_the_summaries_has_a_reason_for_what_was_not_looked_at() {
    for reason in [
        AcceptedReason::NotObserved.as_str(),
        ScheduleValidReason::NotObserved.as_str(),
        PreflightPassedReason::NotObserved.as_str(),
        CapacitySafeReason::NotObserved.as_str(),
        GuardsPassingReason::NotObserved.as_str(),
        HeldReason::NotObserved.as_str(),
        AutoscalerConflictReason::NotObserved.as_str(),
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
fn work_under_way_is_true_and_the_default_status_begins_it() {
    for reason in ReconcilingReason::all() {
        assert_eq!(reason.status(), ConditionStatus::True, "{reason:?}");
    }
    assert_eq!(ReconcilingReason::Pending.as_str(), ReadyReason::Pending.as_str());
}

#[test]
fn the_rows_of_the_status_say_their_reasons_as_they_are_named() {
    let status = schema("status");
    let row = |path: &[&str]| {
        let rows = path.iter().fold(&status, |schema, name| &schema["properties"][*name]);
        rows["items"]["properties"]["reason"]["enum"].as_array().unwrap().clone()
    };
    let failures = row(&["preflight", "failures"]);
    assert_eq!(failures.len(), PreflightFailure::all().len());
    for value in failures {
        let reason: PreflightFailure = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(reason.as_str(), value, "it is written as it is named");
        assert_eq!(PreflightPassedReason::Failed(reason).as_str(), value, "the condition says the same");
    }
    for value in row(&["stuck"]) {
        let reason: StuckReason = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(reason.as_str(), value, "it is written as it is named");
    }
}

#[test]
fn no_pod_of_a_group_fails_by_a_drain() {
    let member = &schema("spec")["properties"]["members"]["items"];
    let drain = &member["properties"]["traffic"]["properties"]["drain"]["properties"];
    assert_eq!(drain["onTimeout"]["enum"], json!(["Skip", "Proceed"]));
    assert_eq!(drain["onTimeout"]["default"], "Skip");
    let text = drain["onTimeout"]["description"].as_str().unwrap();
    assert!(text.contains("Proceed") && !text.contains("Fail") && text.ends_with("Default: Skip."), "{text}");
}

#[test]
fn a_workload_stays_with_its_member() {
    let member = &schema("spec")["properties"]["members"]["items"];
    let rules = member["x-kubernetes-validations"].as_array().unwrap();
    let kept = rules.iter().find(|rule| rule["rule"] == "self.targetRef == oldSelf.targetRef").unwrap();
    assert_eq!((&kept["fieldPath"], &kept["reason"]), (&json!(".targetRef"), &json!("FieldValueForbidden")));
    let text = member["properties"]["targetRef"]["description"].as_str().unwrap();
    assert!(text.ends_with("Immutable."), "{text}");
}

#[test]
fn groups_are_found_by_mode_and_by_who_has_the_peak() {
    let text = json!(crd()).to_string();
    assert!(!text.contains("nullable") && !text.contains("uint") && !text.contains("anyOf"));
    let version = &json!(crd())["spec"]["versions"][0];
    let of = |list: &str, field: &str| -> Vec<Value> {
        version[list].as_array().unwrap().iter().map(|item| item[field].clone()).collect()
    };
    assert_eq!(of("selectableFields", "jsonPath"), [".spec.mode", ".status.activeMember"]);
    let columns = ["Active", "Ready", "Next", "Done", "Units", "Stuck", "Saved-CPU", "Age"];
    assert_eq!(of("additionalPrinterColumns", "name"), columns);
}
