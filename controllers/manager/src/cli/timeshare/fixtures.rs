//! A group for tests of what is said of it: in the second step of its switch from promo to payment.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_crds::time_share_group::ReadyReason;
use springtide_time_share_group::projections::group::GroupView;
use springtide_time_share_group::rehearsal::{
    Basis, ConditionLine, Explanation, PlannedWrite, Reported, Said, UnitLine, advice, day,
};

pub(super) const NOW: Timestamp = Timestamp::constant(1_794_355_200, 0);
pub(super) const MESSAGE: &str = "switch 42 to payment";

pub(super) fn at(seconds: i64) -> Timestamp {
    NOW + SignedDuration::from_secs(seconds)
}

/// A condition as it is stored.
pub(super) fn condition(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": message, "observedGeneration": 2,
        "lastTransitionTime": at(-300),
    })
}

/// Its status, as it is stored.
pub(super) fn status() -> Value {
    json!({
        "observedGeneration": 2,
        "conditions": [condition("Ready", "False", "Switching", MESSAGE), condition("Held", "False", "Free", "")],
        "activeMember": "promo",
        "desiredMember": "payment",
        "nextTransition": {"member": "promo", "startTime": at(7200)},
        "transition": {
            "id": 42, "from": "promo", "to": "payment", "cause": "Window", "startTime": at(-120), "step": 2,
            "units": {"total": 10, "done": 3, "inFlight": 2, "stuck": 1, "skipped": 1},
        },
        "members": [
            {"name": "payment", "pods": 10, "atPeak": 3, "atValley": 7, "trafficOn": 3, "unpaired": 1},
            {"name": "promo", "pods": 10, "atPeak": 7, "atValley": 3, "trafficOn": 7},
        ],
        "union": {
            "nodes": 10, "budget": {"cpu": "40"}, "sumOfPeaks": {"cpu": "80"}, "saved": {"cpu": "40"},
        },
        "preflight": {
            "member": "payment", "completionTime": at(-3600), "units": 10, "passed": 9,
            "failures": [{"node": "n7", "pod": "payment-7", "reason": "QuotaExceeded"}],
        },
        "lastTransitions": [{
            "id": 41, "to": "promo", "cause": "Default", "completionTime": at(-7200), "durationSeconds": 138,
            "units": 10, "skipped": 1, "nudges": 2, "result": "Succeeded",
        }],
        "stuck": [{"pod": "payment-7", "node": "n7", "reason": "Deferred", "sinceTime": at(-90)}],
    })
}

/// A member of the spec.
fn member(name: &str) -> Value {
    json!({
        "name": name,
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
        "containers": [{"name": "app", "peak": {"cpu": "4"}, "valley": {"cpu": "200m"}}],
    })
}

/// The group with this status.
pub(super) fn group(name: &str, status: &Value) -> GroupView {
    let object = json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": name, "generation": 2, "resourceVersion": "7",
            "creationTimestamp": at(-7200),
        },
        "spec": {
            "members": [member("payment"), member("promo")],
            "schedule": {"defaultMember": "promo", "windows": [{
                "name": "night", "member": "payment",
                "window": {"start": "00:00", "end": "02:00", "timeZone": "UTC"},
            }]},
        },
        "status": status,
    });
    serde_json::from_value(object).unwrap()
}

/// A write to a pod.
pub(super) fn write(name: &str, subresource: &str) -> PlannedWrite {
    PlannedWrite {
        verb: "patch".into(),
        kind: "Pod".into(),
        namespace: "shop".into(),
        name: name.into(),
        subresource: subresource.into(),
        uid: name.into(),
        resource_version: "10".into(),
        form: "strategicMerge".into(),
        field_manager: String::new(),
        body: json!({"spec": {}}),
    }
}

pub(super) fn unit(number: u32, side: &str, state: &str, detail: &str) -> UnitLine {
    UnitLine {
        node: format!("n{number}"),
        shrinking: vec![format!("promo-{number}")],
        growing: vec![format!("payment-{number}")],
        side: side.into(),
        state: state.into(),
        detail: detail.into(),
        until: None,
        writes: Vec::new(),
    }
}

/// What is told of it.
pub(super) fn switching() -> Explanation {
    let group = group("double11", &status());
    let status = group.status;
    Explanation {
        namespace: "shop".into(),
        name: "double11".into(),
        generation: 2,
        basis: Basis::Computed,
        summary: Said::of(ReadyReason::Switching, MESSAGE),
        stalled: None,
        held: None,
        wakes: advice::wakes_of(ReadyReason::Switching).into(),
        until: None,
        remedies: Vec::new(),
        active_member: status.active_member,
        desired_member: status.desired_member,
        cause: "Window".into(),
        next_transition: status.next_transition,
        transition: status.transition,
        steps: 3,
        members: status.members,
        union: status.union,
        preflight: status.preflight,
        conditions: vec![
            ConditionLine {
                type_: "CapacitySafe".into(),
                status: "False".into(),
                reason: "NodesOverBudget".into(),
                message: "1 of 10 nodes".into(),
            },
            ConditionLine {
                type_: "PreflightPassed".into(),
                status: "Unknown".into(),
                reason: "NotDue".into(),
                message: "a switch is under way".into(),
            },
        ],
        units: vec![
            unit(7, "Back", "GivenUp", "it has its old sizes until the next switch"),
            unit(4, "To", "Draining", "Services have yet to stop sending traffic"),
            unit(1, "To", "Done", ""),
        ],
        stuck: status.stuck,
        last_transitions: status.last_transitions,
        day: day(&group.spec, NOW),
        next_writes: Vec::new(),
        reported: Some(Reported {
            reason: "Switching".into(),
            message: MESSAGE.into(),
            since: at(-300),
            is_current: true,
        }),
    }
}
