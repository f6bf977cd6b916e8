//! What is done beside others that have a say in the same pods: a VerticalPodAutoscaler, a TimeShareGroup.

use super::world::World;
use crate::change::Change;
use crate::differences::{Against, differences};
use crate::fixtures::{at, autoscaler, deployment, overlay, pod, replica_set, template};
use crate::machine::{PodWrite, is_available};
use crate::observed::Observed;
use crate::patch;
use crate::plan::accept::{Refused, accept};
use crate::plan::plan;
use crate::target::Target;
use crate::time_share::TimeShare;
use crate::verdict::{Court, Verdict, judge};
use crate::wish::Wish;
use jiff::SignedDuration;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{
    InPlaceUpgradeSpec, Ineligible, RefusalReason, TargetKind, TrafficMode,
};
use springtide_plumbing::plan::{Action, Fields, Patch, Write};
use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::claims::Claim;
use springtide_plumbing::workloads::names::RECORD_ANNOTATION;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use std::sync::Arc;

/// A Deployment of one pod of `app:1`, and an object that wishes what the inline patch says.
fn wishing(inline: Value) -> Observed {
    let upgrade = json!({
        "metadata": {"name": "ipu", "namespace": "ns", "uid": "ipu", "generation": 1, "resourceVersion": "3"},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "source": {"type": "Inline", "inline": {"containers": [inline]}},
        },
    });
    let mut observed = Observed::of(Arc::new(serde_json::from_value(upgrade).unwrap()));
    let sets = vec![replica_set("rs", 1, 1, "app:1")];
    observed.target = Some(Target::deployment(deployment(1, "app:1", json!({})), sets));
    observed.pods = vec![pod("web-1", json!({}))];
    observed
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}})
}

fn policies(policy: Value) -> Value {
    json!({"spec": {"resourcePolicy": {"containerPolicies": [policy]}}})
}

fn refused(observed: &Observed) -> Option<(RefusalReason, String)> {
    match accept(observed, at(0)) {
        Ok(_) => None,
        Err(Refused::For { reason, message }) => Some((reason, message)),
        Err(Refused::TargetAwaited { .. }) => panic!("it is there"),
    }
}

/// A pod with these resources, in its spec and in force.
fn sized(resources: &Value, over: Value) -> Arc<PodView> {
    let mut whole = json!({
        "spec": {"containers": [{"name": "app", "image": "app:1", "resources": resources}]},
        "status": {"containerStatuses": [
            {"name": "app", "containerID": "c", "imageID": "i", "resources": resources},
        ]},
    });
    overlay(&mut whole, over);
    pod("web-1", whole)
}

fn of_size(resources: &Value) -> Arc<Template> {
    let containers = json!([{"name": "app", "image": "app:1", "resources": resources}]);
    template("app:1", json!({"spec": {"containers": containers}}))
}

fn wish(template: &Arc<Template>) -> Wish {
    Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), template)
}

fn member(peak: Value) -> TimeShare {
    let claim = Claim::of_stated([("app".into(), Amounts::read(&peak))]);
    TimeShare { group: "day-night".to_owned(), member: "web".to_owned(), claim, ..TimeShare::default() }
}

#[test]
fn only_a_wish_of_what_an_autoscaler_controls_is_refused() {
    let cpu = || json!({"name": "app", "resources": {"requests": {"cpu": "1"}}});
    let image = json!({"name": "app", "image": "app:2"});
    let limits = json!({"name": "app", "resources": {"limits": {"cpu": "1"}}});
    let conflict = RefusalReason::ConflictsWithVerticalPodAutoscaler;
    for (inline, over, expected) in [
        (cpu(), json!({}), Some(conflict)),
        (image, json!({}), None),
        (cpu(), policies(json!({"containerName": "app", "mode": "Off"})), None),
        (cpu(), policies(json!({"containerName": "*", "controlledResources": ["memory"]})), None),
        (cpu(), policies(json!({"containerName": "*", "controlledResources": ["cpu"]})), Some(conflict)),
        (cpu(), policies(json!({"containerName": "other", "mode": "Off"})), Some(conflict)),
        (limits, policies(json!({"containerName": "app", "controlledValues": "RequestsOnly"})), None),
    ] {
        let mut observed = wishing(inline.clone());
        observed.autoscaler = Some(autoscaler("vpa", over.clone()));
        let found = refused(&observed);
        assert_eq!(found.as_ref().map(|(reason, _)| *reason), expected, "{inline} {over}");
        if let Some((_, message)) = found {
            assert!(message.contains("container app") && message.contains("Autoscaler vpa"), "{message}");
        }
    }
}

#[test]
fn only_a_wish_of_what_a_group_sizes_is_refused_and_against_what_pods_are_made_from() {
    let mut observed = wishing(json!({"name": "app", "resources": {"requests": {"cpu": "1"}}}));
    observed.time_share = Some(member(requests("4", "8Gi")));
    let (reason, message) = refused(&observed).unwrap();
    assert_eq!(reason, RefusalReason::ConflictsWithTimeShareGroup);
    assert!(message.contains("day-night"), "{message}");
    observed.time_share = Some(member(json!({"requests": {"memory": "8Gi"}})));
    assert_eq!(refused(&observed), None, "its cpu is nobody's");

    let mut images = wishing(json!({"name": "app", "image": "app:2"}));
    images.time_share = Some(member(requests("4", "8Gi")));
    images.pods = vec![sized(&requests("4", "8Gi"), json!({}))];
    assert_eq!(refused(&images), None, "pods are at peak size, and the wish says nothing of it");
}

#[test]
fn what_the_pods_of_a_bare_replica_set_have_become_by_an_autoscaler_is_no_wish() {
    let mut observed = wishing(json!({"name": "app", "image": "app:2"}));
    observed.target = Some(Target::ReplicaSet(replica_set("rs", 1, 1, "app:1")));
    observed.pods = vec![sized(&requests("2", "1Gi"), json!({}))];
    observed.autoscaler = Some(autoscaler("vpa", json!({})));
    assert_eq!(refused(&observed), None);
}

#[test]
fn of_a_container_that_is_shared_only_the_rest_is_compared_and_written() {
    let (old, new) = (of_size(&requests("1", "1Gi")), of_size(&requests("2", "1Gi")));
    let of_memory = policies(json!({"containerName": "*", "controlledResources": ["memory"]}));
    let claims = [autoscaler("vpa", of_memory).claim.clone()];
    let wish = wish(&new);
    let change = Change::between(&old, &new);
    let court = Court {
        wish: &wish,
        change: &change,
        revision: None,
        is_strict_on_amounts: true,
        claims: &claims,
        traffic: TrafficMode::Auto,
        ineligible: Ineligible::Block,
        is_denied: false,
    };
    let grown = sized(&requests("1", "3Gi"), json!({}));
    let judgement = judge(&grown, None, &court);
    assert_eq!(judgement.verdict, Verdict::Resize);
    let Some(Write { action: Action::Patch { patch: Patch::Strategic(Fields { fields, .. }), .. }, .. }) =
        patch::write(&grown, &judgement, &wish, PodWrite::Resize, at(0))
    else {
        panic!("{judgement:?}")
    };
    assert_eq!(fields["spec"]["containers"][0]["resources"], json!({"requests": {"cpu": "2"}}));
    let done = sized(&requests("2", "3Gi"), json!({}));
    assert_eq!(judge(&done, None, &court).verdict, Verdict::UpToDate, "memory is the autoscaler's");
}

#[test]
fn a_pod_at_peak_size_without_the_groups_traffic_is_neither_drift_nor_unavailable() {
    let valley = of_size(&requests("200m", "8Gi"));
    let gated = json!({
        "spec": {"readinessGates": [{"conditionType": "springtide.dev/traffic"}]},
        "status": {"conditions": [
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": at(-60).to_string()},
            {"type": "Ready", "status": "False", "lastTransitionTime": at(-60).to_string()},
            {"type": "springtide.dev/traffic", "status": "False"},
        ]},
    });
    let pod = sized(&requests("4", "8Gi"), gated);
    let claims = [member(requests("4", "8Gi")).claim];
    let change = Change::between(&valley, &valley);
    let differs = |claims: &[Claim]| {
        let against =
            Against { wish: &valley, change: &change, revision: None, is_strict_on_amounts: true, claims };
        !differences(&pod, &against).is_content_equal()
    };
    assert_eq!((differs(&claims), differs(&[])), (false, true));
    assert!(is_available(&pod, None, SignedDuration::ZERO, at(0)));
}

#[test]
fn a_label_that_turns_traffic_is_not_held_against_a_pod_that_has_it() {
    for label in ["springtide.dev/traffic-serving", "springtide.dev/upgrade-serving"] {
        let wish = template("app:1", json!({"metadata": {"labels": {label: "false"}}}));
        let change = Change::between(&wish, &wish);
        let against =
            Against { wish: &wish, change: &change, revision: None, is_strict_on_amounts: true, claims: &[] };
        // A run has changed it once, so that its labels count.
        let record =
            json!({"run": "7c9f21ab04de", "at": "2026-11-23T10:00:00Z", "g": 1, "base": {}}).to_string();
        let with = |labels: Value| {
            let metadata = json!({"labels": labels, "annotations": {RECORD_ANNOTATION: record}});
            differences(&pod("web-1", json!({"metadata": metadata})), &against)
        };
        assert!(with(json!({label: "true"})).is_content_equal(), "{label}");
        assert_eq!(with(json!({})).labels.len(), 1, "{label}: without it no Service would find the pod");
    }
}

#[test]
fn a_conflict_that_comes_in_mid_run_leaves_nobody_out_of_traffic() {
    let mut world = World::new(4, true, json!({}));
    while world.out_of_traffic() == 0 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    let out = world.out_of_traffic();
    let resources = json!({"requests": {"cpu": "1"}});
    world.deployment["spec"]["template"]["spec"]["containers"][0]["resources"] = resources;
    let mut observed = world.observe();
    observed.autoscaler = Some(autoscaler("vpa", json!({})));
    let planned = plan(&observed, at(world.now));
    let writes: Vec<&Write> = planned.stages.iter().flatten().flat_map(|step| step.writes()).collect();
    let opens = |write: &&&Write| {
        let Action::Patch { patch: Patch::Strategic(Fields { fields, .. }), .. } = &write.action else {
            return false;
        };
        fields["status"]["conditions"][0]["status"] == "True"
    };
    assert_eq!((writes.len(), writes.iter().filter(opens).count()), (out, out), "{writes:#?}");
    let Action::Status { status, .. } = &planned.status.as_ref().unwrap().action else { panic!() };
    let accepted = status["conditions"].as_array().unwrap().iter().find(|found| found["type"] == "Accepted");
    assert_eq!(accepted.unwrap()["reason"], "ConflictsWithVerticalPodAutoscaler");
}
