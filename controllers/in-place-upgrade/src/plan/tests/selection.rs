//! Labels by which a workload knows its pods are not changed under it.

use super::kinds::{observed, writes};
use crate::fixtures::{at, daemon_set, deployment, overlay, pod, replica_set};
use crate::plan::plan;
use crate::target::Target;
use serde_json::{Value, json};
use springtide_plumbing::plan::Action;
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;

fn web(selector: Value, template: Value) -> Target {
    let spec = json!({"spec": {"selector": selector, "template": template}});
    Target::deployment(deployment(2, "app:2", spec), vec![replica_set("rs", 1, 2, "app:1")])
}

/// Why an object is not served, with how many pods are written; `None` where it is.
fn refused(kind: &str, target: Target, over: Value, pod_over: &Value) -> Option<String> {
    let pods = ["web-1", "web-2"].map(|name| pod(name, pod_over.clone()));
    let planned = plan(&observed(kind, target, pods.to_vec(), over), at(0));
    let Action::Status { status, .. } = &planned.status.as_ref()?.action else { panic!() };
    let conditions = status["conditions"].as_array().unwrap();
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted").unwrap();
    let is_refused = accepted["reason"] == "InvalidSpec";
    assert!(!is_refused || writes(&planned).is_empty());
    is_refused.then(|| accepted["message"].as_str().unwrap().to_owned())
}

fn labels(persist: &str, labels: Value) -> Value {
    json!({"spec": {"source": {"type": "Inline", "inline": {"persist": persist, "metadata": {"labels": labels}}}}})
}

#[test]
fn a_wish_that_takes_pods_from_their_workload_is_refused() {
    let by_app = || json!({"matchLabels": {"app": "web"}});
    for persist in ["PodsOnly", "Template"] {
        let target = || web(by_app(), json!({}));
        let other = refused("Deployment", target(), labels(persist, json!({"app": "other"})), &json!({}));
        assert!(other.unwrap().starts_with("spec.source.inline.metadata.labels of Deployment/web: "));
        let further = labels(persist, json!({"app": "web", "tier": "gold"}));
        assert_eq!(refused("Deployment", target(), further, &json!({})), None);
    }
    let none = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]});
    let tier = || labels("PodsOnly", json!({"tier": "gold"}));
    assert!(refused("Deployment", web(none, json!({})), tier(), &json!({})).is_some());
    assert_eq!(
        refused(
            "DaemonSet",
            Target::daemon_set(daemon_set(2, "app:2", true), Vec::new()),
            tier(),
            &json!({})
        ),
        None
    );
}

#[test]
fn a_replica_set_that_its_deployment_has_left_behind_knows_its_pods_by_its_hash_too() {
    let mut set =
        springtide_plumbing::workloads::kinds::ReplicaSetView::clone(&replica_set("rs", 1, 2, "app:1"));
    set.selector = json!({"matchLabels": {"app": "web", "pod-template-hash": "rs"}});
    let target = || Target::ReplicaSet(std::sync::Arc::new(set.clone()));
    let refused = |over| refused("ReplicaSet", target(), over, &json!({}));
    assert_eq!(refused(labels("PodsOnly", json!({"tier": "gold"}))), None);
    assert!(refused(labels("PodsOnly", json!({"app": "other"}))).is_some());
}

#[test]
fn the_label_that_turns_traffic_is_no_lever_where_the_workload_selects_by_it() {
    let label = || json!({UPGRADE_TRAFFIC.label: "true"});
    let template = || json!({"metadata": {"labels": label()}});
    let mut selected = json!({"matchLabels": {"app": "web"}});
    overlay(&mut selected, json!({"matchLabels": label()}));
    let has_label = json!({"metadata": {"labels": label()}});
    let gates = json!([{"conditionType": UPGRADE_TRAFFIC.gate}]);
    let has_both = json!({"metadata": {"labels": label()}, "spec": {"readinessGates": gates}});
    let of = |selector: &Value, mode: &str, pod: &Value| {
        let over = json!({"spec": {"traffic": {"mode": mode}}});
        refused("Deployment", web(selector.clone(), template()), over, pod)
    };
    for mode in ["Auto", "ServiceLabel"] {
        let told = of(&selected, mode, &has_label).unwrap();
        assert!(told.starts_with("spec.traffic.mode: the selector of Deployment/web has label"), "{told}");
        assert_eq!(of(&json!({"matchLabels": {"app": "web"}}), mode, &has_label), None);
    }
    assert_eq!(of(&selected, "Auto", &has_both), None, "they are turned by the gate");
    assert_eq!(of(&selected, "None", &has_label), None);
}
