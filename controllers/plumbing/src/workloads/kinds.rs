//! The workloads whose pods are changed, and their revisions.

use super::Annotated;
use super::template::Template;
use crate::workloads::earlier::EarlierTemplates;
use serde::Deserialize;
use serde_json::Value;
use springtide_crds::in_place_upgrade::TargetKind;
use crate::key::Resource;
use crate::projection::{Meta, NoLabels, Projection};
use std::sync::Arc;

/// `apps/v1` Deployment.
pub const DEPLOYMENT: Resource = apps("Deployment", "deployments");
/// `apps/v1` ReplicaSet.
pub const REPLICA_SET: Resource = apps("ReplicaSet", "replicasets");
/// `apps/v1` StatefulSet.
pub const STATEFUL_SET: Resource = apps("StatefulSet", "statefulsets");
/// `apps/v1` DaemonSet.
pub const DAEMON_SET: Resource = apps("DaemonSet", "daemonsets");
/// `apps/v1` ControllerRevision.
pub const CONTROLLER_REVISION: Resource = apps("ControllerRevision", "controllerrevisions");

/// Annotation of a ReplicaSet: which revision of its Deployment it is; and of a Deployment: at which it is.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// What the API server sets where a workload does not say.
const DEFAULT_HISTORY_LIMIT: u32 = 10;

const fn apps(kind: &'static str, plural: &'static str) -> Resource {
    Resource { group: "apps", version: "v1", kind, plural, namespaced: true }
}

/// The kind of workload that an object of `apps` of this kind is; `None` where it is none whose pods are changed.
pub fn target_kind(kind: &str) -> Option<TargetKind> {
    match kind {
        "Deployment" => Some(TargetKind::Deployment),
        "ReplicaSet" => Some(TargetKind::ReplicaSet),
        "StatefulSet" => Some(TargetKind::StatefulSet),
        "DaemonSet" => Some(TargetKind::DaemonSet),
        _ => None,
    }
}

/// One Deployment.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire<NoLabels, DeploymentAnnotations>")]
pub struct DeploymentView {
    meta: Meta,
    /// Pods that it is to have.
    pub replicas: u32,
    /// Whether its controller leaves its ReplicaSets' templates alone.
    pub is_paused: bool,
    /// UID of the object of ours that has paused it, if one has.
    pub paused_by: Option<Arc<str>>,
    /// `spec.selector`.
    pub selector: Value,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: u32,
    /// `spec.revisionHistoryLimit`.
    pub history_limit: u32,
    /// `spec.template`.
    pub template: Arc<Template>,
    /// At which revision it is; 0 before its controller has made a first ReplicaSet.
    pub revision: i64,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// `status.updatedReplicas`: pods of the ReplicaSet that its controller holds for the new one.
    pub updated_replicas: u32,
    /// `status.replicas`.
    pub status_replicas: u32,
}

/// One ReplicaSet.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire<ReplicaSetLabels, ReplicaSetAnnotations>")]
pub struct ReplicaSetView {
    meta: Meta<ReplicaSetLabels>,
    /// Pods that it is to have.
    pub replicas: u32,
    /// `spec.selector`, of one that nobody owns; there are many others, which are looked at by way of their owners.
    pub selector: Value,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: u32,
    /// `spec.template`.
    pub template: Arc<Template>,
    /// Which revision of its Deployment it is; 0 where nothing says so.
    pub revision: i64,
    /// Pods that it has.
    pub status_replicas: u32,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// Templates that it had, where it got its own under its pods.
    pub earlier: EarlierTemplates,
}

/// The labels of a ReplicaSet that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ReplicaSetLabels {
    /// By what it tells its pods from those of its Deployment's others.
    #[serde(rename = "pod-template-hash", default)]
    pub pod_template_hash: Option<Arc<str>>,
}

/// One StatefulSet.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire<NoLabels, NoAnnotations>")]
pub struct StatefulSetView {
    meta: Meta,
    /// Pods that it is to have.
    pub replicas: u32,
    /// `spec.selector`.
    pub selector: Value,
    /// Number of its first pod.
    pub first_ordinal: u32,
    /// How it updates its pods.
    pub strategy: StatefulSetStrategy,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: u32,
    /// `spec.template`.
    pub template: Arc<Template>,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// `status.currentRevision`.
    pub current_revision: Arc<str>,
    /// `status.updateRevision`.
    pub update_revision: Arc<str>,
    /// `status.updatedReplicas`.
    pub updated_replicas: u32,
}

/// How a StatefulSet updates its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatefulSetStrategy {
    /// From the last to this ordinal, counted from the first one, by itself.
    RollingUpdate {
        /// `partition`.
        partition: u32,
    },
    /// A pod that somebody deletes is made anew.
    OnDelete,
    /// Something later than this program.
    Other,
}

/// One DaemonSet.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire<NoLabels, NoAnnotations>")]
pub struct DaemonSetView {
    meta: Meta,
    /// `spec.selector`.
    pub selector: Value,
    /// Whether a pod is made anew only when somebody deletes it.
    pub is_on_delete: bool,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: u32,
    /// `spec.template`.
    pub template: Arc<Template>,
    /// `status.observedGeneration`.
    pub observed_generation: i64,
    /// `status.desiredNumberScheduled`.
    pub desired: u32,
    /// `status.updatedNumberScheduled`.
    pub updated: u32,
}

/// One ControllerRevision of a StatefulSet or DaemonSet.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "RevisionWire")]
pub struct ControllerRevisionView {
    meta: Meta<RevisionLabels>,
    /// `revision`: the highest is the newest.
    pub revision: i64,
    /// The template.
    pub template: Arc<Template>,
}

/// The labels of a ControllerRevision that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RevisionLabels {
    /// What the pods of a DaemonSet bear of it.
    #[serde(rename = "controller-revision-hash", default)]
    pub hash: Option<Arc<str>>,
}

impl ControllerRevisionView {
    /// Value of [`CONTROLLER_REVISION_HASH`] on pods of this revision: a DaemonSet's bear its hash, a StatefulSet's its
    /// name.
    pub fn pod_label(&self) -> &Arc<str> {
        self.meta.labels.hash.as_ref().unwrap_or(&self.meta.key.name)
    }
}

macro_rules! projections {
    ($($view:ty, $labels:ty, $resource:expr;)+) => { $(
        impl Projection for $view {
            const RESOURCE: Resource = $resource;
            type Labels = $labels;

            fn meta(&self) -> &Meta<$labels> {
                &self.meta
            }

            fn bytes(&self) -> usize {
                size_of::<Self>() + self.meta.text_bytes() + self.template.bytes()
            }
        }
    )+ };
}

projections! {
    DeploymentView, NoLabels, DEPLOYMENT;
    ReplicaSetView, ReplicaSetLabels, REPLICA_SET;
    StatefulSetView, NoLabels, STATEFUL_SET;
    DaemonSetView, NoLabels, DAEMON_SET;
    ControllerRevisionView, RevisionLabels, CONTROLLER_REVISION;
}

/// Of a Deployment.
#[derive(Default, Deserialize)]
struct DeploymentAnnotations {
    #[serde(rename = "springtide.dev/paused-by-upgrade", default)]
    paused_by: Option<Arc<str>>,
    #[serde(rename = "deployment.kubernetes.io/revision", default)]
    revision: Option<Box<str>>,
}

/// Of a ReplicaSet.
#[derive(Default, Deserialize)]
struct ReplicaSetAnnotations {
    #[serde(rename = "deployment.kubernetes.io/revision", default)]
    revision: Option<Box<str>>,
    #[serde(rename = "springtide.dev/earlier-templates", default)]
    earlier: Option<Box<str>>,
}

/// Of the others.
#[derive(Default, Deserialize)]
struct NoAnnotations {}

#[derive(Deserialize)]
#[serde(bound = "L: serde::de::DeserializeOwned + Default, A: serde::de::DeserializeOwned + Default")]
struct Wire<L, A> {
    metadata: Annotated<L, A>,
    #[serde(default)]
    spec: WireSpec,
    #[serde(default)]
    status: WireStatus,
}

/// The fields of all four kinds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    replicas: Option<u32>,
    paused: bool,
    selector: Value,
    min_ready_seconds: u32,
    revision_history_limit: Option<u32>,
    template: Value,
    ordinals: Option<WireOrdinals>,
    update_strategy: Option<WireStrategy>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireOrdinals {
    start: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStrategy {
    #[serde(rename = "type", default)]
    type_: Option<Box<str>>,
    #[serde(default)]
    rolling_update: Option<WireRollingUpdate>,
}

#[derive(Deserialize)]
struct WireRollingUpdate {
    #[serde(default)]
    partition: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    observed_generation: i64,
    replicas: u32,
    updated_replicas: u32,
    current_revision: Option<Arc<str>>,
    update_revision: Option<Arc<str>>,
    desired_number_scheduled: u32,
    updated_number_scheduled: u32,
}

/// The number of a revision; 0 where nothing says it.
fn number(text: Option<Box<str>>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl From<Wire<NoLabels, DeploymentAnnotations>> for DeploymentView {
    fn from(wire: Wire<NoLabels, DeploymentAnnotations>) -> Self {
        let Wire { metadata: Annotated { meta, annotations }, spec, status } = wire;
        Self {
            meta,
            replicas: spec.replicas.unwrap_or(1),
            is_paused: spec.paused,
            paused_by: annotations.paused_by,
            min_ready_seconds: spec.min_ready_seconds,
            history_limit: spec.revision_history_limit.unwrap_or(DEFAULT_HISTORY_LIMIT),
            template: Template::shared(&spec.template),
            revision: number(annotations.revision),
            selector: spec.selector,
            observed_generation: status.observed_generation,
            updated_replicas: status.updated_replicas,
            status_replicas: status.replicas,
        }
    }
}

impl From<Wire<ReplicaSetLabels, ReplicaSetAnnotations>> for ReplicaSetView {
    fn from(wire: Wire<ReplicaSetLabels, ReplicaSetAnnotations>) -> Self {
        let Wire { metadata: Annotated { meta, annotations }, spec, status } = wire;
        let selector = if meta.controller.is_none() { spec.selector } else { Value::Null };
        Self {
            meta,
            replicas: spec.replicas.unwrap_or(1),
            selector,
            min_ready_seconds: spec.min_ready_seconds,
            template: Template::shared(&spec.template),
            revision: number(annotations.revision),
            status_replicas: status.replicas,
            observed_generation: status.observed_generation,
            earlier: annotations.earlier.as_deref().map(EarlierTemplates::read).unwrap_or_default(),
        }
    }
}

impl From<Wire<NoLabels, NoAnnotations>> for StatefulSetView {
    fn from(wire: Wire<NoLabels, NoAnnotations>) -> Self {
        let Wire { metadata: Annotated { meta, .. }, spec, status } = wire;
        let strategy = match spec.update_strategy {
            None => StatefulSetStrategy::RollingUpdate { partition: 0 },
            Some(WireStrategy { type_, rolling_update }) => match type_.as_deref() {
                Some("RollingUpdate") | None => StatefulSetStrategy::RollingUpdate {
                    partition: rolling_update.and_then(|update| update.partition).unwrap_or(0),
                },
                Some("OnDelete") => StatefulSetStrategy::OnDelete,
                Some(_) => StatefulSetStrategy::Other,
            },
        };
        Self {
            meta,
            replicas: spec.replicas.unwrap_or(1),
            selector: spec.selector,
            first_ordinal: spec.ordinals.map_or(0, |ordinals| ordinals.start),
            strategy,
            min_ready_seconds: spec.min_ready_seconds,
            template: Template::shared(&spec.template),
            observed_generation: status.observed_generation,
            current_revision: status.current_revision.unwrap_or_default(),
            update_revision: status.update_revision.unwrap_or_default(),
            updated_replicas: status.updated_replicas,
        }
    }
}

impl From<Wire<NoLabels, NoAnnotations>> for DaemonSetView {
    fn from(wire: Wire<NoLabels, NoAnnotations>) -> Self {
        let Wire { metadata: Annotated { meta, .. }, spec, status } = wire;
        let type_ = spec.update_strategy.and_then(|strategy| strategy.type_);
        Self {
            meta,
            selector: spec.selector,
            is_on_delete: type_.as_deref() == Some("OnDelete"),
            min_ready_seconds: spec.min_ready_seconds,
            template: Template::shared(&spec.template),
            observed_generation: status.observed_generation,
            desired: status.desired_number_scheduled,
            updated: status.updated_number_scheduled,
        }
    }
}

#[derive(Deserialize)]
struct RevisionWire {
    metadata: Meta<RevisionLabels>,
    #[serde(default)]
    revision: i64,
    #[serde(default)]
    data: Value,
}

impl From<RevisionWire> for ControllerRevisionView {
    fn from(wire: RevisionWire) -> Self {
        let template = Template::shared(&wire.data["spec"]["template"]);
        Self { meta: wire.metadata, revision: wire.revision, template }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::names::{CONTROLLER_REVISION_HASH, EARLIER_ANNOTATION, PAUSED_BY_ANNOTATION};

    fn view<P: serde::de::DeserializeOwned>(text: &str) -> P {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn a_deployment_and_its_replica_set_share_their_template() {
        let template = "{metadata: {labels: {app: web}}, spec: {containers: [{name: app, image: 'app:1'}]}}";
        let deployment: DeploymentView = view(&format!(
            "metadata: {{name: web, uid: d, generation: 4, annotations: {{springtide.dev/paused-by-upgrade: u, \
             deployment.kubernetes.io/revision: '6'}}}}\n\
             spec: {{replicas: 3, paused: true, selector: {{matchLabels: {{app: web}}}}, template: {template}}}\n\
             status: {{observedGeneration: 4, updatedReplicas: 3, replicas: 3}}"
        ));
        let hashed = template.replace("app: web", "app: web, pod-template-hash: 6d");
        let set: ReplicaSetView = view(&format!(
            "metadata: {{name: web-6d, uid: r, labels: {{pod-template-hash: 6d}}, \
             annotations: {{deployment.kubernetes.io/revision: '7', other: x}}, \
             ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, uid: d, controller: true}}]}}\n\
             spec: {{replicas: 3, template: {hashed}}}"
        ));
        assert!(deployment.is_paused && deployment.paused_by.as_deref() == Some("u"));
        let numbers = (deployment.history_limit, deployment.meta().generation, deployment.revision);
        assert_eq!(numbers, (10, 4, 6));
        assert_eq!((set.revision, set.meta().labels.pod_template_hash.as_deref()), (7, Some("6d")));
        assert_eq!((deployment.selector["matchLabels"]["app"].as_str(), &set.selector), (Some("web"), &Value::Null));
        assert!(Arc::ptr_eq(&deployment.template, &set.template));
    }

    #[test]
    fn the_strategies_of_a_stateful_set_are_told_apart() {
        let of = |strategy: &str| {
            let text = format!(
                "{{metadata: {{name: db}}, spec: {{ordinals: {{start: 5}}, updateStrategy: {strategy}}}}}"
            );
            let set: StatefulSetView = view(&text);
            assert_eq!((set.replicas, set.first_ordinal), (1, 5));
            set.strategy
        };
        let partition = |partition| StatefulSetStrategy::RollingUpdate { partition };
        assert_eq!(of("null"), partition(0));
        assert_eq!(of("{type: RollingUpdate, rollingUpdate: {partition: 100000}}"), partition(100_000));
        assert_eq!(of("{type: OnDelete}"), StatefulSetStrategy::OnDelete);
        assert_eq!(of("{type: Recreate}"), StatefulSetStrategy::Other);
    }

    #[test]
    fn pods_of_a_daemon_set_bear_the_hash_of_a_revision_and_those_of_a_stateful_set_its_name() {
        let data =
            "data: {spec: {template: {$patch: replace, spec: {containers: [{name: app, image: 'app:1'}]}}}}";
        let daemon: ControllerRevisionView = view(&format!(
            "metadata: {{name: log-7f, labels: {{controller-revision-hash: 7f}}}}
revision: 2
{data}"
        ));
        let stateful: ControllerRevisionView = view(&format!(
            "metadata: {{name: db-7f}}
revision: 3
{data}"
        ));
        assert_eq!((&**daemon.pod_label(), &**stateful.pod_label()), ("7f", "db-7f"));
        assert_eq!(&*daemon.template.content.containers["app"].image, "app:1");
        assert_eq!(daemon.template, stateful.template);
    }

    #[test]
    fn the_names_in_the_wire_are_those_that_are_written() {
        // The attributes of serde take no constants.
        assert_eq!(PAUSED_BY_ANNOTATION, "springtide.dev/paused-by-upgrade");
        assert_eq!(EARLIER_ANNOTATION, "springtide.dev/earlier-templates");
        assert_eq!(REVISION, "deployment.kubernetes.io/revision");
        assert_eq!(CONTROLLER_REVISION_HASH, "controller-revision-hash");
    }
}
