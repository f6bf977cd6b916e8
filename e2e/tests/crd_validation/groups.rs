//! TimeShareGroups, and the grants by which they reach other namespaces.

use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::common::{ConditionWriter, Quantity, ResourceAmounts, whole_seconds};
use springtide_crds::reference_grant::ReferenceGrant;
use springtide_crds::time_share_group::{
    MESSAGE_MAX_BYTES, NextTransition, ReadyReason, TimeShareGroup, TimeShareGroupSpec, TimeShareGroupStatus,
    Transition, TransitionCause, UnionBudget, UnitCounts,
};

use super::{answer, cluster, examples, merged, objects};

/// A group whose first member is changed, and whose spec is.
fn group(base: &Value, member: &Value, spec: &Value) -> Value {
    let mut group = merged(base, &json!({"spec": spec}));
    group["spec"]["members"][0] = merged(&group["spec"]["members"][0], member);
    group
}

#[tokio::test]
async fn a_group_of_members_alone_gets_each_default_from_the_server() {
    let cluster = cluster().await;
    let base = examples("timesharegroups.yaml").base;
    let api = objects(cluster, &base).await;
    let asked: TimeShareGroup = serde_json::from_value(base.clone()).unwrap();
    api.create(&PostParams::default(), &serde_json::from_value(base).unwrap()).await.unwrap();
    let stored = api.get("base").await.unwrap();
    let spec = TimeShareGroupSpec::new(asked.spec.members);
    assert_eq!(stored.data["spec"], json!(spec), "the server's defaults are those of the type");
    let group: TimeShareGroup = serde_json::from_value(json!(stored)).unwrap();
    let status = group.status.unwrap();
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|condition| (condition.type_.as_str(), condition.status.as_str(), condition.reason.as_str()))
        .collect();
    assert_eq!(conditions, [("Ready", "Unknown", "Pending"), ("Reconciling", "True", "Pending")]);
}

#[tokio::test]
async fn a_group_is_held_to_the_bounds_of_its_fields() {
    let cluster = cluster().await;
    let base = examples("timesharegroups.yaml").base;
    let api = objects(cluster, &base).await;
    let drain = |value: &str| json!({"traffic": {"mode": "ServiceLabel", "drain": {"onTimeout": value}}});
    let window = |lead: u32| {
        let window = json!({"start": "08:00", "end": "20:00", "timeZone": "UTC"});
        json!({"schedule": {"windows": [{"name": "day", "member": "promo", "leadSeconds": lead, "window": window}]}})
    };
    for (member, spec) in [
        (drain("Proceed"), json!({})),
        (json!({"name": "a".repeat(40)}), window(86_400)),
        (
            json!({"warmUpSeconds": 3600}),
            json!({"switch": {"maxInFlightUnits": 5000, "nudgeAfterSeconds": 300}}),
        ),
        (
            json!({}),
            json!({"schedule": {"skipDates": ["2026-02-29"]}, "guards": {"failureThresholdPercent": 0}}),
        ),
    ] {
        let object = group(&base, &member, &spec);
        assert_eq!(answer(&api, None, object.clone()).await, Ok(()), "{object}");
    }
    for (member, spec, named) in [
        (drain("Fail"), json!({}), "onTimeout"),
        (json!({"name": "a".repeat(41)}), json!({}), "members[0].name"),
        (json!({"name": "Payment"}), json!({}), "members[0].name"),
        (json!({"targetRef": {"kind": "DaemonSet"}}), json!({}), "kind"),
        (json!({"targetRef": {"apiVersion": "apps/v2"}}), json!({}), "apiVersion"),
        (json!({"targetRef": {"namespace": "shop.eu"}}), json!({}), "namespace"),
        (json!({"containers": []}), json!({}), "containers"),
        (json!({"warmUpSeconds": 3601}), json!({}), "warmUpSeconds"),
        (json!({}), window(86_401), "leadSeconds"),
        (json!({}), json!({"schedule": {"skipDates": ["2026-13-01"]}}), "skipDates"),
        (json!({}), json!({"override": {"member": "promo", "reason": "INC-4711"}}), "untilTime"),
        (json!({}), json!({"override": {"untilTime": "2026-11-11T03:00:00Z"}}), "reason"),
        (json!({}), json!({"switch": {"steps": []}}), "steps"),
        (json!({}), json!({"switch": {"deadlineSeconds": 29}}), "deadlineSeconds"),
        (json!({}), json!({"switch": {"maxInFlightUnitsPerNode": 111}}), "maxInFlightUnitsPerNode"),
        (json!({}), json!({"guards": {"preflight": {"requirePercent": 0}}}), "requirePercent"),
    ] {
        let object = group(&base, &member, &spec);
        let answer = answer(&api, None, object.clone()).await;
        let Err(error) = answer else { panic!("{object} should be refused for {named}") };
        assert!(error.contains(named), "{object}: {error}");
    }
    let members = |count: usize| -> Vec<Value> {
        let named = |i: usize| json!({"name": format!("m{i}"), "targetRef": {"name": format!("m{i}")}});
        (0..count).map(|i| merged(&base["spec"]["members"][0], &named(i))).collect()
    };
    for (count, accepted) in [(1, false), (2, true), (8, true), (9, false)] {
        let object = merged(&base, &json!({"spec": {"members": members(count)}}));
        assert_eq!(answer(&api, None, object).await.is_ok(), accepted, "{count} members");
    }
}

#[tokio::test]
async fn groups_are_selected_by_mode_and_by_who_has_the_peak_and_read_well() {
    let cluster = cluster().await;
    let base = examples("timesharegroups.yaml").base;
    let api = objects(cluster, &base).await;
    for (name, mode) in [("double11", "Active"), ("trial", "Observe")] {
        let patch = json!({"metadata": {"name": name}, "spec": {"mode": mode}});
        let group = serde_json::from_value(merged(&base, &patch)).unwrap();
        api.create(&PostParams::default(), &group).await.unwrap();
    }
    let now = jiff::Timestamp::UNIX_EPOCH;
    let amounts = |cpu: &str| ResourceAmounts { cpu: Some(Quantity::new(cpu)), memory: None };
    let mut status = TimeShareGroupStatus {
        observed_generation: 1,
        active_member: Some("promo".to_owned()),
        desired_member: Some("promo".to_owned()),
        next_transition: Some(NextTransition {
            member: Some("payment".to_owned()),
            start_time: whole_seconds(now),
        }),
        transition: Some(Transition {
            id: 7,
            from: Some("payment".to_owned()),
            to: Some("promo".to_owned()),
            cause: TransitionCause::Default,
            start_time: whole_seconds(now),
            completion_time: Some(whole_seconds(now)),
            step: 3,
            hold_until_time: None,
            units: UnitCounts { total: 300, done: 296, stuck: 4, ..UnitCounts::default() },
            nudges: 0,
        }),
        union: Some(UnionBudget {
            nodes: 30,
            nodes_over_budget: 0,
            budget: amounts("40k"),
            sum_of_peaks: amounts("80k"),
            saved: amounts("40k"),
        }),
        ..TimeShareGroupStatus::default()
    };
    let writer = ConditionWriter { observed_generation: 1, now, message_max_bytes: MESSAGE_MAX_BYTES };
    writer.set(&mut status.conditions, ReadyReason::SettledWithSkips, "all but 4 of 300 units are done");
    let patch = Patch::Merge(json!({"status": status}));
    api.patch_status("double11", &PatchParams::default(), &patch).await.unwrap();

    for by in ["spec.mode=Active", "status.activeMember=promo"] {
        let listed = api.list(&ListParams::default().fields(by)).await.unwrap();
        let names: Vec<_> = listed.items.iter().filter_map(|group| group.metadata.name.as_deref()).collect();
        assert_eq!(names, ["double11"], "{by}");
    }
    let namespace = api.get("double11").await.unwrap().metadata.namespace.unwrap();
    let output = cluster.kubectl(&["get", "tsg", "-n", &namespace]).await.unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let head = ["NAME", "ACTIVE", "READY", "NEXT", "DONE", "UNITS", "STUCK", "SAVED-CPU", "AGE"];
    assert_eq!(rows[0], head, "{table}");
    let row = ["double11", "promo", "SettledWithSkips", "1970-01-01T00:00:00Z", "296", "300", "4", "40k"];
    assert_eq!(rows[1][..8], row, "{table}");
    // Nothing is known of it yet.
    assert_eq!(rows[2][..2], ["trial", "Pending"], "{table}");
}

#[tokio::test]
async fn a_grant_is_stored_as_it_is_and_names_known_kinds_alone() {
    let cluster = cluster().await;
    let base = examples("referencegrants.yaml").base;
    let api = objects(cluster, &base).await;
    for (spec, named) in [
        (json!({"from": []}), "from"),
        (json!({"to": []}), "to"),
        (json!({"from": [{"kind": "BatchJob", "namespace": "batch"}]}), "kind"),
        (json!({"from": [{"kind": "BatchQueue"}]}), "namespace"),
        (json!({"from": [{"group": "apps", "kind": "BatchQueue", "namespace": "batch"}]}), "group"),
        (json!({"to": [{"kind": "DaemonSet"}]}), "kind"),
        (json!({"to": [{"kind": "Deployment", "name": ""}]}), "name"),
    ] {
        let answer = answer(&api, None, merged(&base, &json!({"spec": spec}))).await;
        assert!(answer.is_err_and(|error| error.contains(named)), "{spec}");
    }
    api.create(&PostParams::default(), &serde_json::from_value(base.clone()).unwrap()).await.unwrap();
    let stored = api.get("base").await.unwrap();
    assert_eq!((&stored.data["spec"], stored.data.get("status")), (&base["spec"], None));
    let grant: ReferenceGrant = serde_json::from_value(json!(stored)).unwrap();
    assert_eq!(json!(grant.spec), base["spec"]);

    let namespace = stored.metadata.namespace.unwrap();
    let output = cluster.kubectl(&["get", "rgrant", "-n", &namespace, "-o", "wide"]).await.unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let head: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head, ["NAME", "FROM", "TO", "AGE"], "{table}");
    assert!(table.contains(r#"[{"kind":"TimeShareGroup","namespace":"platform"}]"#), "{table}");
}
