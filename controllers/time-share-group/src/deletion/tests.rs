//! Groups and members that go, in whatever state their pods are.

use super::*;
use crate::fixtures::{NAMESPACE, at, group, observed_of, on_stage, overlay, pod, serving, sized, switching};
use crate::observed::RefusedBy;
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_crds::common::condition;
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::plan::{Action, Fields, Part, Patch};
use springtide_plumbing::workloads::names::TIME_SHARE_TRAFFIC;

/// The group as it is being deleted, with its finalizer.
fn deleted(over: Value) -> Arc<GroupView> {
    let mut whole = json!({"metadata": {"deletionTimestamp": at(0).to_string(), "finalizers": [FINALIZER]}});
    overlay(&mut whole, over);
    group(whole)
}

fn writes_of(plan: &Plan) -> Vec<&Write> {
    plan.stages.iter().flatten().flat_map(Step::writes).collect()
}

/// What a patch makes of what is laid over a pod.
fn store(over: &mut Value, write: &Write) {
    let Action::Patch { patch: Patch::Strategic(Fields { fields, .. }), .. } = &write.action else {
        panic!("{write:?} is no strategic merge")
    };
    overlay(over, fields.clone());
    let annotations = over.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.retain(|_, value| !value.is_null());
    }
}

/// What is laid over a pod that lists the gate, with this status of its condition.
fn gated(status: Option<&str>) -> Value {
    let mut over = json!({"spec": {"readinessGates": [{"conditionType": TIME_SHARE_TRAFFIC.gate}]}});
    if let Some(status) = status {
        let condition = json!({"type": TIME_SHARE_TRAFFIC.gate, "status": status, "message": "run=7"});
        overlay(&mut over, json!({"status": {"conditions": [condition]}}));
    }
    over
}

#[test]
fn a_deleted_group_gives_traffic_back_and_goes_when_each_pod_is_seen_to_have_it() {
    let status = json!({"status": switching(7, Some("promo"), Some("pay"))});
    let pods = |label: &str| {
        let promo = vec![pod("promo-1", "n1", serving(label))];
        [("pay", vec![pod("pay-1", "n1", on_stage()), pod("pay-2", "n1", serving(label))]), ("promo", promo)]
    };
    let first = plan(&observed_of(deleted(status.clone()), &pods("false")), at(5));
    let names: Vec<_> = writes_of(&first).iter().map(|write| write.key.name.to_string()).collect();
    assert_eq!(names, ["pay-2", "promo-1"]);
    assert!(writes_of(&first).iter().all(|write| write.class == WriteClass::Protective));
    let Some(Write { action: Action::Status { status: told, .. }, .. }) = &first.status else {
        panic!("{first:?}")
    };
    let told: springtide_crds::time_share_group::TimeShareGroupStatus =
        serde_json::from_value(told.clone()).unwrap();
    let reason = |type_| condition(&told.conditions, type_).map(|condition| condition.reason.as_str());
    assert_eq!((reason("Ready"), reason("Reconciling")), (Some("Deleting"), Some("Deleting")));
    assert_eq!(told.transition.as_ref().unwrap().id, 7, "all else stays as it is stored");

    let last = plan(&observed_of(deleted(status), &pods("true")), at(6));
    let [write] = writes_of(&last)[..] else { panic!("{last:?}") };
    assert_eq!((write.resource, write.action.is_destructive()), (TIME_SHARE_GROUP, true));
    assert_eq!((last.events.len(), last.events[0].reason, last.status), (1, "Deleting", None));
}

#[test]
fn a_group_that_has_begun_nothing_is_left_to_go() {
    let free = deleted(json!({"metadata": {"finalizers": ["example.com/other"]}}));
    let plan = plan(&observed_of(free, &[("pay", vec![pod("pay-1", "n1", json!({}))])]), at(0));
    assert_eq!((plan.writes(), plan.events.len()), (0, 0));
}

#[test]
fn pods_of_a_member_that_an_older_group_has_are_that_ones() {
    let pods = [("pay", vec![pod("pay-1", "n1", json!({}))]), ("promo", vec![])];
    let mut observed = observed_of(deleted(json!({})), &pods);
    observed.members[0].taken_by = Some(ObjectKey::new(NAMESPACE, "older"));
    let plan = plan(&observed, at(0));
    let [write] = writes_of(&plan)[..] else { panic!("{plan:?}") };
    assert_eq!(write.resource, TIME_SHARE_GROUP);
}

#[test]
fn traffic_that_is_refused_keeps_the_group_and_is_tried_again_in_its_time() {
    let pods = [("pay", vec![pod("pay-1", "n1", json!({})), pod("pay-2", "n1", json!({}))])];
    let mut observed = observed_of(deleted(json!({})), &pods);
    observed.members[0].pods[0].evidence.refused = Some(Refused {
        what: Attempt::Traffic,
        why: RefusedBy::Admission,
        message: "labels are sealed".into(),
        at: at(0),
        retry_at: at(60),
    });
    let waiting = plan(&observed, at(59));
    assert_eq!((writes_of(&waiting).len(), waiting.wake), (1, Some(at(60))));
    assert!(waiting.why[0].message.ends_with("refused: labels are sealed"), "{:?}", waiting.why);
    assert_eq!(writes_of(&plan(&observed, at(60))).len(), 2);
}

/// The group whose member `promo` is removed from its spec, with one pod of it, and this status.
fn without_promo(status: Value, over: Value) -> Observed {
    let pods = [("promo", vec![pod("promo-1", "n1", over)])];
    let mut observed = observed_of(group(json!({"status": status})), &pods);
    let promo = observed.members.pop().unwrap();
    observed.removed.push(promo);
    observed
}

#[test]
fn a_removed_member_that_holds_a_peak_shrinks_to_its_template_when_another_one_has_it() {
    for (holder, shrinks) in [(Some("pay"), 1), (Some("promo"), 0), (None, 0)] {
        let observed = without_promo(json!({"activeMember": holder}), on_stage());
        assert_eq!(let_go(&observed, at(0)).len(), shrinks, "{holder:?} has it");
        let observed = without_promo(switching(7, Some("promo"), holder), on_stage());
        assert_eq!(let_go(&observed, at(0)).len(), shrinks, "{holder:?} gets it");
    }
    let over = json!({"spec": {"containers": [{"name": "app", "resources": {
        "requests": {"cpu": "4", "memory": "8Gi"}, "limits": {"cpu": "4", "memory": "8Gi"},
    }}]}});
    let observed = without_promo(json!({"activeMember": "pay"}), over);
    let writes = let_go(&observed, at(0));
    let Action::Patch { part: Part::Resize, patch: Patch::Strategic(Fields { fields, .. }) } =
        &writes[0].action
    else {
        panic!("{writes:?}")
    };
    let resources = &fields["spec"]["containers"][0]["resources"];
    assert_eq!(
        *resources,
        json!({"requests": {"cpu": "200m"}}),
        "memory stays, and what the template does not say"
    );
    assert_eq!((writes[0].resource, writes[0].class), (Resource::POD, WriteClass::Spec));
}

#[test]
fn a_removed_member_is_let_go_when_none_of_its_pods_holds_more_than_its_template_says() {
    let active = || json!({"activeMember": "pay"});
    let is_done = |observed: &Observed| is_let_go(&observed.removed[0]);
    let peak = without_promo(active(), on_stage());
    assert!(!is_done(&peak) && is_done(&without_promo(active(), json!({}))));
    // What was asked for is enough: the rest is its kubelet's.
    assert!(is_done(&without_promo(active(), sized("200m", "4"))));
    let restarted = json!({"spec": {"containers": [{"name": "app", "resizePolicy": [
        {"resourceName": "cpu", "restartPolicy": "RestartContainer"},
    ]}]}});
    let mut over = on_stage();
    overlay(&mut over, restarted);
    let restarted = without_promo(active(), over);
    assert!(let_go(&restarted, at(0)).is_empty() && is_done(&restarted), "it is not restarted for that");
    let mut upgrading = peak.clone();
    upgrading.removed[0].pods[0].evidence.is_upgrading = true;
    assert!(let_go(&upgrading, at(0)).is_empty() && !is_done(&upgrading));
    let mut elsewhere = peak.clone();
    elsewhere.removed[0].taken_by = Some(ObjectKey::new(NAMESPACE, "other"));
    assert!(let_go(&elsewhere, at(0)).is_empty() && is_done(&elsewhere));
    let mut gone = peak;
    gone.removed[0].workload = None;
    assert!(let_go(&gone, at(0)).is_empty() && is_done(&gone));
}

#[test]
fn a_shrink_that_is_refused_is_tried_again_in_its_time() {
    let mut observed = without_promo(json!({"activeMember": "pay"}), on_stage());
    assert_eq!(retry_at(&observed, at(0)), None);
    observed.removed[0].pods[0].evidence.refused = Some(Refused {
        what: Attempt::Resize(Level::Valley),
        why: RefusedBy::Admission,
        message: "not now".into(),
        at: at(0),
        retry_at: at(60),
    });
    assert_eq!((let_go(&observed, at(59)).len(), retry_at(&observed, at(59))), (0, Some(at(60))));
    assert_eq!((let_go(&observed, at(60)).len(), retry_at(&observed, at(60))), (1, None));
}

proptest! {
    /// Whatever a switch has left behind: two writes a pod at most, then each has traffic by each of its levers and the
    /// size that it had, and the group goes.
    #[test]
    fn a_group_that_is_deleted_at_any_moment_leaves_no_pod_without_traffic(
        pods in prop::collection::vec(
            (
                any::<bool>(),
                prop::sample::select(vec![("200m", "200m"), ("4", "4"), ("4", "200m"), ("200m", "4")]),
                prop::sample::select(vec![None, Some(None), Some(Some("True")), Some(Some("False"))]),
                prop::sample::select(vec!["true", "false", "by hand"]),
            ),
            0..6,
        ),
        modes in prop::collection::vec(prop::sample::select(vec!["None", "ServiceLabel", "ReadinessGate"]), 2),
    ) {
        let mut overs: Vec<(&str, String, Value)> = Vec::new();
        for (number, (is_pay, (asked, in_force), gate, label)) in pods.iter().enumerate() {
            let mut over = sized(asked, in_force);
            overlay(&mut over, serving(label));
            if let Some(status) = gate {
                overlay(&mut over, gated(*status));
            }
            let name = if *is_pay { "pay" } else { "promo" };
            overs.push((name, format!("{name}-{number}"), over));
        }
        let members = json!([
            {"name": "pay", "traffic": {"mode": modes[0]}}, {"name": "promo", "traffic": {"mode": modes[1]}},
        ]);
        let seen = |overs: &[(&str, String, Value)]| {
            let of = |member: &str| {
                let own = overs.iter().filter(|(name, _, _)| *name == member);
                own.map(|(_, name, over)| pod(name, "n1", over.clone())).collect::<Vec<_>>()
            };
            let pods = [("pay", of("pay")), ("promo", of("promo"))];
            observed_of(deleted(json!({"spec": {"members": members}})), &pods)
        };
        let sizes = |observed: &Observed| {
            let pods = observed.members.iter().flat_map(|member| &member.pods);
            pods.map(|found| found.pod.containers[0].amounts).collect::<Vec<_>>()
        };
        let before = seen(&overs);
        let first = plan(&before, at(0));
        for (_, name, over) in &mut overs {
            let own = writes_of(&first).into_iter().filter(|write| *write.key.name == **name);
            let own: Vec<_> = own.collect();
            prop_assert!(own.len() <= 2);
            own.into_iter().for_each(|write| store(over, write));
        }
        let after = seen(&overs);
        prop_assert_eq!(sizes(&before), sizes(&after));
        for found in after.members.iter().flat_map(|member| &member.pods) {
            prop_assert_eq!(closed(found.time_share()).count(), 0);
        }
        let last = plan(&after, at(1));
        let [write] = writes_of(&last)[..] else { panic!("{last:?}") };
        prop_assert_eq!((write.resource, write.action.is_destructive()), (TIME_SHARE_GROUP, true));
    }
}
