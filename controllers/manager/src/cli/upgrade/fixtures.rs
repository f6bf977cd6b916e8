//! An upgrade for tests of what is said of it: one of three pods is done, and the next step needs an approval.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{HeldReason, ReadyReason};
use springtide_in_place_upgrade::projections::upgrade::UpgradeView;
use springtide_in_place_upgrade::rehearsal::{
    Basis, ConditionLine, Explanation, PlannedWrite, PodLine, Reported, Said, advice,
};

pub(super) const NOW: Timestamp = Timestamp::constant(1_794_355_200, 0);
pub(super) const HASH: &str = "7c9f21ab04de";
pub(super) const HELD: &str = "step 1 is done: set spec.approval to targetHash 7c9f21ab04de, throughStep 1";

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
        "target": "Deployment/web",
        "targetHash": HASH,
        "conditions": [
            condition("Ready", "False", "Held", HELD),
            condition("Held", "True", "ApprovalRequired", HELD),
        ],
        "step": {"index": 1, "of": 2, "pods": 1, "startTime": at(-600)},
        "pods": {"total": 3, "updated": 1, "updatedReady": 1, "blocked": 1},
        "plan": {
            "upToDate": 1, "inPlace": 1, "blocked": 1, "reasons": [{"reason": "QoSClassWouldChange", "count": 1}],
        },
        "previous": {"revision": "web-6d4c"},
        "lastRun": {
            "targetHash": "000000000000", "completionTime": at(-7200), "pods": 3, "result": "Succeeded",
        },
    })
}

/// The object with this status.
pub(super) fn upgrade(name: &str, status: &Value) -> UpgradeView {
    let object = json!({
        "metadata": {
            "namespace": "team-a", "name": name, "uid": name, "generation": 2, "resourceVersion": "7",
            "creationTimestamp": at(-7200),
        },
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}},
        "status": status,
    });
    serde_json::from_value(object).unwrap()
}

/// A write to pod `web-2`.
pub(super) fn write(subresource: &str, body: Value) -> PlannedWrite {
    PlannedWrite {
        verb: "patch".into(),
        kind: "Pod".into(),
        namespace: "team-a".into(),
        name: "web-2".into(),
        subresource: subresource.into(),
        uid: "uid-2".into(),
        resource_version: String::new(),
        form: "strategicMerge".into(),
        field_manager: String::new(),
        body,
    }
}

fn pod(name: &str, verdict: &str, state: &str, differences: &[&str]) -> PodLine {
    PodLine {
        name: name.into(),
        node: "n1".into(),
        verdict: verdict.into(),
        blocked_because: String::new(),
        state: state.into(),
        detail: String::new(),
        is_available: true,
        differences: differences.iter().map(|difference| (*difference).to_owned()).collect(),
        until: None,
        writes: Vec::new(),
    }
}

/// What is told of it.
pub(super) fn held() -> Explanation {
    let status = upgrade("web", &status()).status;
    let mut blocked = pod("web-3", "Blocked", "Ineligible", &["image of app: reg/app:v2"]);
    blocked.blocked_because = "QoSClassWouldChange".into();
    Explanation {
        namespace: "team-a".into(),
        name: "web".into(),
        generation: 2,
        target: "Deployment/web".into(),
        basis: Basis::Computed,
        summary: Said::of(ReadyReason::Held, HELD),
        stalled: None,
        held: Some(Said::of(HeldReason::ApprovalRequired, HELD)),
        wakes: advice::wakes_of_hold(HeldReason::ApprovalRequired).into(),
        until: None,
        remedies: vec!["approve it".into()],
        target_hash: HASH.into(),
        is_rollback: false,
        step: status.step,
        counts: status.pods,
        plan: status.plan,
        pre_pull: status.pre_pull,
        conditions: vec![
            ConditionLine {
                type_: "Locked".into(),
                status: "True".into(),
                reason: "Paused".into(),
                message: "the Deployment is paused".into(),
            },
            ConditionLine {
                type_: "Finalized".into(),
                status: "False".into(),
                reason: "WaitingForPods".into(),
                message: "pods are still to be changed".into(),
            },
        ],
        pods: vec![
            blocked,
            pod("web-2", "InPlace", "Old", &["image of app: reg/app:v2"]),
            pod("web-1", "UpToDate", "Updated", &[]),
        ],
        failures: Vec::new(),
        last_run: status.last_run,
        next_writes: Vec::new(),
        reported: Some(Reported {
            reason: "Held".into(),
            message: HELD.into(),
            since: at(-300),
            is_current: true,
        }),
    }
}
