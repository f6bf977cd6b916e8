use super::*;
use crate::workloads::claims::{Share, Which};
use crate::workloads::content::Role;
use serde_json::{Value, json};

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn member(name: &str, target: Value) -> Value {
    json!({
        "name": name, "targetRef": target,
        "containers": [{"name": "app", "peak": {"cpu": "4", "memory": "8Gi"}, "valley": {"cpu": "200m", "memory": "8Gi"}}],
    })
}

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name})
}

/// Payment has noon, promo has the rest.
fn group() -> Value {
    let window = json!({"start": "12:00", "end": "14:00", "timeZone": "UTC"});
    json!({
        "metadata": {
            "namespace": "shop", "name": "double11", "uid": "g", "resourceVersion": "1", "generation": 3,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "members": [member("payment", deployment("pay")), member("promo", deployment("promo"))],
            "schedule": {
                "defaultMember": "promo",
                "windows": [{"name": "noon", "member": "payment", "leadSeconds": 600, "window": window}],
            },
        },
    })
}

fn view(group: Value) -> TimeShareGroupView {
    serde_json::from_value(group).unwrap()
}

fn grant(namespace: &str, from: Value, to: Value) -> ReferenceGrantView {
    serde_json::from_value(json!({
        "metadata": {"namespace": namespace, "name": "grant", "uid": "r", "resourceVersion": "1"},
        "spec": {"from": [from], "to": [to]},
    }))
    .unwrap()
}

#[test]
fn a_member_has_a_peak_in_its_windows_and_by_the_override_and_not_by_default() {
    let mut group = group();
    let read = view(group.clone());
    let (before, noon) = (time("2026-05-04T11:00:00Z"), time("2026-05-04T11:50:00Z"));
    assert_eq!(read.desired(before).unwrap().gives_until("payment"), None);
    assert_eq!(read.desired(noon).unwrap().gives_until("payment"), Some(time("2026-05-04T14:00:00Z")));
    assert_eq!(read.desired(before).unwrap().gives_until("promo"), None, "it is at peak by default");
    assert_eq!(read.desired(before).unwrap().member.as_deref(), Some("promo"));
    group["spec"]["override"] =
        json!({"member": "promo", "untilTime": "2026-05-04T13:00:00Z", "reason": "INC-1"});
    let forced = view(group);
    assert_eq!(forced.desired(before).unwrap().gives_until("promo"), Some(time("2026-05-04T13:00:00Z")));
    assert_eq!(forced.desired(noon).unwrap().gives_until("payment"), None);
    assert_eq!(
        forced.peaks(Some("payment")).unwrap().next_after(before).unwrap().start,
        time("2026-05-04T13:00:00Z")
    );
    assert!(forced.peaks(Some("stranger")).is_none());
}

#[test]
fn a_schedule_that_cannot_be_read_or_is_refused_is_a_problem_and_the_object_is_there() {
    let mut group = group();
    assert_eq!(view(group.clone()).schedule_problem(), None);
    let accepted = |generation: i64, status: &str, reason: &str| {
        json!({"conditions": [{
            "type": "Accepted", "status": status, "reason": reason, "message": "night and day overlap",
            "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]})
    };
    for (status, expected) in [
        (accepted(3, "False", "InvalidSchedule"), Some("night and day overlap")),
        (accepted(2, "False", "InvalidSchedule"), None), // The spec has been changed since.
        (accepted(3, "False", "MemberNotFound"), None),
        (accepted(3, "True", "Accepted"), None),
    ] {
        group["status"] = status.clone();
        assert_eq!(view(group.clone()).schedule_problem().as_deref(), expected, "{status}");
    }
    group["spec"]["schedule"]["windows"][0]["window"]["timeZone"] = json!("Mars/Olympus");
    let broken = view(group);
    assert!(broken.schedule_problem().unwrap().contains("Mars/Olympus"));
    let now = time("2026-05-04T12:00:00Z");
    assert!(broken.desired(now).is_none() && broken.peaks(None).is_none());
}

#[test]
fn a_switch_is_under_way_until_it_is_complete_and_counters_are_no_news() {
    let with = |transition: Value| {
        let mut group = group();
        group["status"] = json!({"transition": transition});
        view(group)
    };
    let begun = json!({"id": 1, "cause": "Window", "startTime": "2026-05-04T11:50:00Z", "step": 1});
    let mut counted = begun.clone();
    counted["units"] = json!({"total": 9, "done": 4});
    let mut ended = begun.clone();
    ended["completionTime"] = json!("2026-05-04T11:53:00Z");
    assert!(!view(group()).is_switching && with(begun.clone()).is_switching);
    assert!(!with(ended.clone()).is_switching);
    assert!(with(begun.clone()).says_the_same(&with(counted)));
    assert!(!with(begun).says_the_same(&with(ended)));
}

#[test]
fn a_group_claims_what_the_sizes_of_its_containers_state() {
    let mut group = group();
    group["spec"]["members"][0]["containers"] = json!([
        {"name": "app", "peak": {"cpu": "4"}, "valley": {"cpu": "1"}},
        {"name": "proxy", "peak": {"cpu": "1", "memory": "1Gi"}, "valley": {"cpu": "1", "memory": "1Gi"}, "limits": "Keep"},
    ]);
    let read = view(group);
    let found = read.member_of(TargetKind::Deployment, &ObjectKey::new("shop", "pay")).unwrap();
    assert_eq!(&*found.name, "payment");
    let (cpu, both) = (Which { cpu: true, memory: false }, Which { cpu: true, memory: true });
    assert_eq!(found.claim.of("app", Role::Main), Share { requests: cpu, limits: cpu });
    assert_eq!(found.claim.of("proxy", Role::Main), Share { requests: both, limits: Which::default() });
    assert_eq!(found.claim.of("other", Role::Main), Share::default());
    for (kind, namespace, name) in [
        (TargetKind::StatefulSet, "shop", "pay"),
        (TargetKind::Deployment, "other", "pay"),
        (TargetKind::Deployment, "shop", "none"),
    ] {
        assert!(
            read.member_of(kind, &ObjectKey::new(namespace, name)).is_none(),
            "{kind:?} {namespace}/{name}"
        );
    }
}

#[test]
fn what_is_in_another_namespace_is_named_only_by_a_grant_of_that_namespace() {
    let group = ObjectKey::new("shop", "double11");
    let is_granted = |grants: &[ReferenceGrantView], namespace: &str| {
        is_granted(grants, (FromKind::BatchQueue, namespace), (ToKind::TimeShareGroup, &group))
    };
    assert!(is_granted(&[], "shop"), "its own namespace");
    assert!(!is_granted(&[], "batch"));
    let queues = |namespace: &str| json!({"kind": "BatchQueue", "namespace": namespace});
    let all = json!({"kind": "TimeShareGroup"});
    assert!(is_granted(&[grant("shop", queues("batch"), all.clone())], "batch"));
    let named = |name: &str| json!({"kind": "TimeShareGroup", "name": name});
    assert!(is_granted(&[grant("shop", queues("batch"), named("double11"))], "batch"));
    for other in [
        grant("shop", queues("batch"), named("other")),
        grant("shop", queues("elsewhere"), all.clone()),
        grant("batch", queues("batch"), all.clone()),
        grant("shop", json!({"kind": "TimeShareGroup", "namespace": "batch"}), all),
        grant("shop", queues("batch"), json!({"kind": "Deployment"})),
    ] {
        assert!(!is_granted(std::slice::from_ref(&other), "batch"), "{other:?}");
    }
}

#[test]
fn of_two_groups_of_a_workload_the_older_has_it_and_one_of_another_namespace_by_grant_alone() {
    let named = |namespace: &str, name: &str, created: &str, target: Value| {
        let mut group = group();
        group["metadata"] = json!({
            "namespace": namespace, "name": name, "uid": name, "resourceVersion": "1", "generation": 1,
            "creationTimestamp": created,
        });
        group["spec"]["members"][0]["targetRef"] = target;
        Arc::new(view(group))
    };
    let mut far = deployment("pay");
    far["namespace"] = json!("shop");
    let groups = [
        named("shop", "late", "2026-02-02T00:00:00Z", deployment("pay")),
        named("shop", "early", "2026-02-01T00:00:00Z", deployment("pay")),
        named("other", "first", "2026-01-01T00:00:00Z", far),
    ];
    let workload = ObjectKey::new("shop", "pay");
    let found = |grants: &[Arc<ReferenceGrantView>]| {
        let found = TimeShares::of(&groups, grants).group_of(TargetKind::Deployment, &workload);
        found.unwrap().meta().key.name.to_string()
    };
    assert_eq!(found(&[]), "early");
    let from = json!({"kind": "TimeShareGroup", "namespace": "other"});
    let granted = Arc::new(grant("shop", from, json!({"kind": "Deployment", "name": "pay"})));
    assert_eq!(found(&[granted]), "first");
    let nobody = TimeShares::of(&groups, &[]).group_of(TargetKind::DaemonSet, &workload);
    assert!(nobody.is_none());
}

#[test]
fn controllers_share_one_watch_of_each_kind() {
    let mut watches = crate::watch::WatchSet::new(1);
    for _ in 0..2 {
        TimeShares::register(&mut watches, &crate::watch::Scope::All).unwrap();
    }
    let shown = format!("{watches:?}");
    assert_eq!(shown.matches(" in ").count(), 2, "{shown}");
    assert_eq!(shown.matches("optional").count(), 2, "{shown}");
}
