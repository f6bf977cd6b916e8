//! Objects for tests: short forms of what the API server serves.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use springtide_plumbing::workloads::content::POD_TEMPLATE_HASH;
use springtide_plumbing::workloads::kinds::{
    ControllerRevisionView, DaemonSetView, DeploymentView, ReplicaSetView, StatefulSetView,
};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::template::Template;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::sync::Arc;

/// So many seconds after an instant that tests begin at.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).unwrap()
}

/// Lays one tree over another: objects are merged, anything else is replaced.
pub(crate) fn overlay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                overlay(under.entry(name).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

fn object<P: DeserializeOwned>(mut object: Value, over: Value) -> Arc<P> {
    overlay(&mut object, over);
    Arc::new(serde_json::from_value(object).unwrap())
}

/// The template of a workload with one container.
pub(crate) fn template_json(image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "app", "image": image}]},
    })
}

/// The same, with changes laid over.
pub(crate) fn template(image: &str, over: Value) -> Arc<Template> {
    let mut template = template_json(image);
    overlay(&mut template, over);
    Template::shared(&template)
}

/// A Deployment `web` of UID `web`, paused and observed.
pub(crate) fn deployment(replicas: u32, image: &str, over: Value) -> Arc<DeploymentView> {
    let whole = json!({
        "metadata": {"name": "web", "namespace": "ns", "uid": "web", "generation": 1, "resourceVersion": "1"},
        "spec": {
            "replicas": replicas, "paused": true, "selector": {"matchLabels": {"app": "web"}},
            "template": template_json(image),
        },
        "status": {"observedGeneration": 1, "replicas": replicas, "updatedReplicas": replicas},
    });
    object(whole, over)
}

/// A ReplicaSet of the Deployment `web`; its UID and hash are its name.
pub(crate) fn replica_set(name: &str, revision: i64, replicas: u32, image: &str) -> Arc<ReplicaSetView> {
    let mut template = template_json(image);
    template["metadata"]["labels"][POD_TEMPLATE_HASH] = json!(name);
    let created = Timestamp::from_second(1_790_000_000 + revision).unwrap().to_string();
    let whole = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "resourceVersion": "5", "creationTimestamp": created,
            "labels": {POD_TEMPLATE_HASH: name},
            "annotations": {"deployment.kubernetes.io/revision": revision.to_string()},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "web", "controller": true},
            ],
        },
        "spec": {"replicas": replicas, "template": template},
        "status": {"replicas": replicas},
    });
    object(whole, json!({}))
}

/// A StatefulSet `db` with a high partition.
pub(crate) fn stateful_set(replicas: u32, image: &str, spec: Value, status: Value) -> Arc<StatefulSetView> {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 100_000}});
    let whole = json!({
        "metadata": {"name": "db", "namespace": "ns", "uid": "db", "generation": 1, "resourceVersion": "1"},
        "spec": {"replicas": replicas, "template": template_json(image), "updateStrategy": strategy},
        "status": {"observedGeneration": 1},
    });
    object(whole, json!({"spec": spec, "status": status}))
}

/// A DaemonSet `log`, observed.
pub(crate) fn daemon_set(desired: u32, image: &str, is_on_delete: bool) -> Arc<DaemonSetView> {
    let strategy = if is_on_delete { "OnDelete" } else { "RollingUpdate" };
    let whole = json!({
        "metadata": {"name": "log", "namespace": "ns", "uid": "log", "generation": 1},
        "spec": {"template": template_json(image), "updateStrategy": {"type": strategy}},
        "status": {"observedGeneration": 1, "desiredNumberScheduled": desired, "updatedNumberScheduled": desired},
    });
    object(whole, json!({}))
}

/// A ControllerRevision.
pub(crate) fn revision(name: &str, number: i64, image: &str) -> Arc<ControllerRevisionView> {
    let mut template = template_json(image);
    template["$patch"] = json!("replace");
    let whole = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "revision": number,
        "data": {"spec": {"template": template}},
    });
    object(whole, json!({}))
}

/// A pod of ReplicaSet `rs` with container `app` of image `app:1`, which runs and is ready; its UID is its name.
pub(crate) fn pod(name: &str, over: Value) -> Arc<PodView> {
    let since = at(-3600).to_string();
    let whole = json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "resourceVersion": "10", "generation": 1,
            "creationTimestamp": since, "labels": {"app": "web"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true},
            ],
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "app", "image": "app:1"}],
        },
        "status": {
            "phase": "Running", "qosClass": "BestEffort", "observedGeneration": 1,
            "conditions": [
                {"type": "ContainersReady", "status": "True", "lastTransitionTime": since},
                {"type": "Ready", "status": "True", "lastTransitionTime": since},
            ],
            "containerStatuses": [{
                "name": "app", "containerID": "containerd://1", "imageID": "reg/app@sha256:1", "ready": true,
                "restartCount": 0, "state": {"running": {"startedAt": since}}, "resources": {},
            }],
        },
    });
    object(whole, over)
}

/// A VerticalPodAutoscaler of the Deployment `web` that says nothing but that; its UID is its name.
pub(crate) fn autoscaler(name: &str, over: Value) -> Arc<VerticalPodAutoscalerView> {
    let whole = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "7", "generation": 1},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    object(whole, over)
}

/// A node.
pub(crate) fn node(name: &str, images: &[&str], over: Value) -> Arc<NodeView> {
    let whole = json!({
        "metadata": {"name": name},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi"}, "images": [{"names": images}]},
    });
    object(whole, over)
}
