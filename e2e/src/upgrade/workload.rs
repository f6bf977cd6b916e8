//! Native workloads whose pods KWOK plays, or a real kubelet runs.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{
    FieldOwnership, FreezeWindow, InPlaceUpgradeSpec, Inline, InlineContainer, Lock, PrePullMode, Source,
    SourceType, Step, TargetKind,
};

use super::traffic::{PORT, server_reference};
use super::{GATE, SERVING_LABEL};
use crate::batch::{GENERAL, POOL};

/// Name of the container that is upgraded; the other one never changes.
pub const CONTAINER: &str = "app";
/// A partition above every number of replicas: no pod is recreated.
pub const LOCKED_PARTITION: u32 = 100_000;

/// The image of a version.
#[must_use]
pub fn image(version: u32) -> String {
    format!("example.com/app:v{version}")
}

/// A source in the upgrade itself: another image, which is written to the workload as well.
#[must_use]
pub fn inline(image: &str) -> Source {
    let container =
        InlineContainer { name: CONTAINER.to_owned(), image: Some(image.to_owned()), resources: None };
    Source {
        type_: SourceType::Inline,
        inline: Some(Inline { containers: vec![container], ..Inline::default() }),
    }
}

/// A first step of so many pods, and all others after it.
#[must_use]
pub fn in_two_steps(first: u32) -> Vec<Step> {
    let step = |replicas| Step { replicas, hold: None };
    vec![step(IntOrPercent::Int(first)), step(IntOrPercent::ALL)]
}

/// Freeze windows, of which the only one is open for about an hour more.
///
/// # Errors
/// Never.
pub fn open_window() -> Result<Vec<FreezeWindow>> {
    let (now, hour) = (Timestamp::now(), SignedDuration::from_hours(1));
    let [start, end] = [now - hour, now + hour].map(|at| at.strftime("%H:%M").to_string());
    let window = json!({"start": start, "end": end, "timeZone": "UTC"});
    Ok(serde_json::from_value(json!([{"name": "now", "window": window}]))?)
}

/// A workload whose pods are otherwise than usual: `change` gets the spec of its pods. What is said of its pods later has no
/// effect.
#[must_use]
pub fn with_pod(workload: Workload, change: impl FnOnce(&mut Value)) -> Workload {
    let mut template = workload.manifest()["spec"]["template"].take();
    change(&mut template["spec"]);
    workload.spec(json!({"template": template}))
}

/// How a pod is taken out of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// By the readiness gate.
    Gate,
    /// By the label that Services select.
    Label,
    /// It is not.
    None,
}

/// What the pods of a workload run.
#[derive(Clone, Debug)]
enum Program {
    /// Nothing: KWOK says that they run.
    Played,
    /// A server on a real node.
    Server,
}

/// A workload of the image [`image`]`(1)`, or of [`server_image`](super::traffic::server_image)`(1)`.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its kind.
    pub kind: TargetKind,
    /// Its name, which is the value of its pods' label `app` as well.
    pub name: String,
    /// Pods that it is to have; a DaemonSet has one on each node of its pool.
    pub replicas: u32,
    /// How its pods are taken out of traffic.
    pub signal: Signal,
    /// Value of [`POOL`] of the nodes of its pods; a real node has none.
    pub pool: String,
    /// Annotations of its pods.
    pub annotations: BTreeMap<String, String>,
    /// Further gates of its pods.
    pub gates: Vec<String>,
    /// Further fields of its spec, over those that are made here.
    spec: Value,
    program: Program,
}

impl Workload {
    fn new(kind: TargetKind, name: &str, replicas: u32, spec: Value) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            replicas,
            signal: Signal::Gate,
            pool: GENERAL.to_owned(),
            annotations: BTreeMap::new(),
            gates: Vec::new(),
            spec,
            program: Program::Played,
        }
    }

    /// A Deployment with gated pods; not paused, as it would never have pods.
    #[must_use]
    pub fn deployment(name: &str, replicas: u32) -> Self {
        Self::new(TargetKind::Deployment, name, replicas, json!({}))
    }

    /// A ReplicaSet without an owner, with gated pods.
    #[must_use]
    pub fn replica_set(name: &str, replicas: u32) -> Self {
        Self::new(TargetKind::ReplicaSet, name, replicas, json!({}))
    }

    /// A StatefulSet with gated pods, locked by its partition.
    #[must_use]
    pub fn stateful_set(name: &str, replicas: u32) -> Self {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": LOCKED_PARTITION}});
        Self::new(TargetKind::StatefulSet, name, replicas, json!({"updateStrategy": strategy}))
    }

    /// A DaemonSet of type OnDelete with gated pods, on `nodes` nodes of a pool.
    #[must_use]
    pub fn daemon_set(name: &str, pool: &str, nodes: u32) -> Self {
        let made = Self::new(TargetKind::DaemonSet, name, nodes, json!({}));
        Self { pool: pool.to_owned(), ..made.on_delete() }
    }

    /// With pods that serve HTTP on a real node.
    #[must_use]
    pub fn serving(self) -> Self {
        Self { program: Program::Server, ..self }
    }

    /// Of type OnDelete.
    #[must_use]
    pub fn on_delete(self) -> Self {
        self.spec(json!({"updateStrategy": {"type": "OnDelete"}}))
    }

    /// With another way out of traffic.
    #[must_use]
    pub fn signal(self, signal: Signal) -> Self {
        Self { signal, ..self }
    }

    /// With an annotation of its pods.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: impl Into<String>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// With a field of its spec in place of what stands there.
    #[must_use]
    pub fn spec(mut self, fields: Value) -> Self {
        overlay(&mut self.spec, fields);
        self
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> Value {
        let labels = json!({"app": self.name});
        let mut pod_labels = labels.clone();
        let mut gates: Vec<Value> = self.gates.iter().map(|gate| json!({"conditionType": gate})).collect();
        match self.signal {
            Signal::Gate => gates.push(json!({"conditionType": GATE})),
            Signal::Label => pod_labels[SERVING_LABEL] = json!("true"),
            Signal::None => {}
        }
        let mut spec = json!({
            "replicas": self.replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": pod_labels, "annotations": self.annotations},
                "spec": {
                    "readinessGates": gates,
                    "volumes": [{"name": "scratch", "emptyDir": {}}],
                },
            },
        });
        overlay(&mut spec["template"]["spec"], self.containers());
        match self.kind {
            TargetKind::Deployment | TargetKind::ReplicaSet => {}
            TargetKind::StatefulSet => spec["serviceName"] = json!(self.name),
            TargetKind::DaemonSet => {
                if let Some(fields) = spec.as_object_mut() {
                    fields.remove("replicas");
                }
            }
        }
        overlay(&mut spec, self.spec.clone());
        json!({
            "apiVersion": "apps/v1",
            "kind": self.kind.as_str(),
            "metadata": {"name": self.name, "labels": {"app": self.name}},
            "spec": spec,
        })
    }

    /// Containers of a pod, and where it runs.
    fn containers(&self) -> Value {
        let mounts = json!([{"name": "scratch", "mountPath": "/scratch"}]);
        match self.program {
            Program::Played => json!({
                "nodeSelector": {POOL: self.pool},
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {
                        "name": CONTAINER, "image": image(1), "volumeMounts": mounts,
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m"}},
                    },
                    {"name": "log", "image": "example.com/log:v1"},
                ],
            }),
            Program::Server => json!({
                "terminationGracePeriodSeconds": 10,
                "containers": [{
                    "name": CONTAINER, "image": server_reference(1), "volumeMounts": mounts,
                    "ports": [{"containerPort": PORT}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
                    "resources": {"requests": {"cpu": "50m", "memory": "16Mi"}},
                }],
            }),
        }
    }

    /// An upgrade of it to its own template, without steps, with all pods of a node at a time, without a pause between
    /// proof and patch, and without pre-pull, which a fake node does not need.
    #[must_use]
    pub fn upgrade(&self) -> InPlaceUpgradeSpec {
        let mut spec = InPlaceUpgradeSpec::new(self.kind, &self.name);
        spec.strategy.max_in_flight_per_node = 110;
        spec.traffic.drain.min_seconds = 0;
        spec.pre_pull.mode = PrePullMode::None;
        spec
    }

    /// As [`Workload::upgrade`], of a Deployment to another image by its own patch: it is paused at the end alone. The field
    /// is taken from whoever has created the Deployment.
    #[must_use]
    pub fn transient(&self, image: &str) -> InPlaceUpgradeSpec {
        let mut spec = self.upgrade();
        spec.source = inline(image);
        spec.policy.lock = Lock::Transient;
        spec.policy.field_ownership = FieldOwnership::Force;
        spec
    }

    /// As [`Workload::upgrade`], one pod at a time.
    #[must_use]
    pub fn one_by_one(&self) -> InPlaceUpgradeSpec {
        let mut spec = self.upgrade();
        spec.strategy.max_unavailable = IntOrPercent::Int(1);
        spec
    }
}

/// Puts the fields of an object over those of another one, each as a whole.
fn overlay(object: &mut Value, fields: Value) {
    if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
        object.extend(fields);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};

    #[test]
    fn each_kind_is_what_its_type_takes() {
        let deployment: Deployment = serde_json::from_value(
            Workload::deployment("web", 3).annotated("a", "b").spec(json!({"minReadySeconds": 2})).manifest(),
        )
        .unwrap();
        let spec = deployment.spec;
        assert_eq!((spec.replicas, spec.min_ready_seconds), (Some(3), Some(2)));
        let template = spec.template;
        assert_eq!(template.metadata.unwrap().annotations.unwrap()["a"], "b");
        assert_eq!(template.spec.unwrap().readiness_gates.unwrap()[0].condition_type, GATE);

        let manifest = Workload::stateful_set("db", 2).signal(Signal::Label).manifest();
        let set: StatefulSet = serde_json::from_value(manifest).unwrap();
        let spec = set.spec;
        assert!(spec.template.metadata.unwrap().labels.unwrap().contains_key(SERVING_LABEL));
        let rolling = spec.update_strategy.unwrap().rolling_update.unwrap();
        assert_eq!(rolling.partition, Some(i32::try_from(LOCKED_PARTITION).unwrap()));

        let manifest = Workload::daemon_set("agent", "pool", 3).signal(Signal::None).manifest();
        assert!(manifest["spec"].get("replicas").is_none());
        let set: DaemonSet = serde_json::from_value(manifest).unwrap();
        assert_eq!(set.spec.update_strategy.unwrap().type_.as_deref(), Some("OnDelete"));
    }
}
