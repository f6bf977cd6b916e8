//! ReferenceGrant as the API server and the controllers see it.

// Helpers of tests fail the test, as tests do.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use springtide_crds::reference_grant::{FromKind, ReferenceGrantSpec, ToKind, crd};
use springtide_crds::time_share_group::MemberKind;

fn grant(spec: Value) -> ReferenceGrantSpec {
    serde_json::from_value(spec).unwrap()
}

#[test]
fn each_row_of_from_may_name_each_row_of_to_and_nothing_else() {
    let grant = grant(json!({
        "from": [
            {"kind": "TimeShareGroup", "namespace": "platform"},
            {"group": "springtide.dev", "kind": "BatchQueue", "namespace": "batch"},
        ],
        "to": [{"group": "apps", "kind": "Deployment", "name": "payment"}, {"kind": "TimeShareGroup"}],
    }));
    let group = (FromKind::TimeShareGroup, "platform");
    let queue = (FromKind::BatchQueue, "batch");
    for from in [group, queue] {
        assert!(grant.allows(from, (ToKind::Deployment, "payment")), "{from:?}");
        assert!(grant.allows(from, (ToKind::TimeShareGroup, "double11")), "{from:?}: all that have no name");
        assert!(!grant.allows(from, (ToKind::Deployment, "promo")), "{from:?}: another name");
        assert!(!grant.allows(from, (ToKind::StatefulSet, "payment")), "{from:?}: another kind");
    }
    for from in [(FromKind::TimeShareGroup, "batch"), (FromKind::BatchQueue, "platform")] {
        assert!(
            !grant.allows(from, (ToKind::Deployment, "payment")),
            "{from:?}: kind and namespace belong together"
        );
    }
}

#[test]
fn each_workload_of_a_member_can_be_granted() {
    let kinds = [
        (MemberKind::Deployment, "Deployment"),
        (MemberKind::StatefulSet, "StatefulSet"),
        (MemberKind::ReplicaSet, "ReplicaSet"),
    ];
    for (member, name) in kinds {
        assert_eq!(json!(ToKind::from(member)), json!(name));
        assert_eq!((json!(member), member.as_str()), (json!(name), name));
    }
}

#[test]
fn it_has_rows_and_no_status() {
    let version = json!(crd())["spec"]["versions"][0].clone();
    let root = &version["schema"]["openAPIV3Schema"];
    assert_eq!(version["subresources"], Value::Null);
    assert_eq!(root["properties"]["status"], Value::Null);
    let spec = &root["properties"]["spec"];
    assert_eq!(spec["required"], json!(["from", "to"]));
    for rows in ["from", "to"] {
        let rows = &spec["properties"][rows];
        assert_eq!((&rows["minItems"], &rows["maxItems"]), (&json!(1), &json!(16)), "{rows}");
        assert_eq!(rows["x-kubernetes-list-type"], "atomic");
    }
    let from = &spec["properties"]["from"]["items"];
    assert_eq!(from["required"], json!(["kind", "namespace"]));
    assert_eq!(from["properties"]["kind"]["enum"], json!(["TimeShareGroup", "BatchQueue"]));
}
