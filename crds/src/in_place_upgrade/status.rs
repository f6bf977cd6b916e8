//! The status of an InPlaceUpgrade.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::reasons::CONDITION_TYPES;
use super::{MAX_PODS, STEPS_MAX, TARGET_HASH_LENGTH};
use crate::common::{Condition, MAX_GENERATION, REASON_MAX_LENGTH, conditions_schema, time_schema};

/// Longest condition message of an InPlaceUpgrade, in bytes of its JSON form.
pub const MESSAGE_MAX_BYTES: usize = 240;
/// Longest [`InPlaceUpgradeStatus::target`]: a kind, a slash and a name.
pub const TARGET_MAX_LENGTH: usize = "StatefulSet/".len() + 253;
/// Most rows of [`InPlaceUpgradeStatus::failures`].
pub const FAILURES_MAX: usize = 8;
/// Longest name of a pod or a node that is kept; a longer one is cut.
pub const NAME_MAX_LENGTH: usize = 63;
/// Most rows of [`PlanCounts::reasons`]: as many as there are reasons.
pub const BLOCKED_REASONS_MAX: usize = 10;
/// Longest [`Previous::content`], in bytes of its JSON form as a text.
pub const CONTENT_MAX_BYTES: usize = 1900;
/// Bound of counters of pods that existed at some time.
const COUNT_MAX: u32 = 1_000_000;

/// What the controller last observed and decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InPlaceUpgradeStatus {
    /// The metadata.generation this status was computed for; 0 before the controller has seen the object.
    #[schemars(range(min = 0, max = MAX_GENERATION))]
    #[serde(default)]
    pub observed_generation: i64,
    /// Where the upgrade stands.
    #[schemars(schema_with = "conditions")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Kind and name of the workload, such as Deployment/web.
    #[schemars(length(max = TARGET_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// Names the wish with spec.attempt and spec.restart; it changes when one of them does. An approval quotes it.
    #[schemars(length(max = TARGET_HASH_LENGTH))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target_hash: String,
    /// When the run began; absent while there is no run.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// The step of the run; absent while there is no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
    /// The workload's pods, those that are ending or have ended left out.
    #[serde(default)]
    pub pods: PodCounts,
    /// What is still to be done to them.
    #[serde(default)]
    pub plan: PlanCounts,
    /// Nodes that pull images for this step; absent when none has to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_pull: Option<PrePullCounts>,
    /// What a rollback goes back to, written before the first pod is changed; absent while there is no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// Pods of this run that failed, the oldest failures first; the rest is in pods.failed.
    #[schemars(
        length(max = FAILURES_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["pod"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<PodFailure>,
    /// The last run that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// When what the API server refused is asked for again; absent while nothing waits for that.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
}

/// A step of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Its number in spec.strategy.steps, from 1.
    #[schemars(range(min = 1, max = STEPS_MAX))]
    pub index: u32,
    /// How many steps there are.
    #[schemars(range(min = 1, max = STEPS_MAX))]
    pub of: u32,
    /// Pods that are changed at its end, those of the steps before included.
    #[schemars(range(max = MAX_PODS))]
    pub pods: u32,
    /// When it began.
    #[schemars(schema_with = "time_schema")]
    pub start_time: Time,
    /// When its hold of type Duration ends; absent before the hold has begun.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until_time: Option<Time>,
}

/// Pods by where they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCounts {
    /// All of them.
    #[schemars(range(max = COUNT_MAX))]
    pub total: u32,
    /// Those that are as the wish has it.
    #[schemars(range(max = COUNT_MAX))]
    pub updated: u32,
    /// Those of them that run so, by what their kubelets report, and are available.
    #[schemars(range(max = COUNT_MAX))]
    pub updated_ready: u32,
    /// Those that have been started and are not available yet.
    #[schemars(range(max = COUNT_MAX))]
    pub in_flight: u32,
    /// Those of them that are leaving traffic.
    #[schemars(range(max = COUNT_MAX))]
    pub draining: u32,
    /// Those that failed in this run.
    #[schemars(range(max = COUNT_MAX))]
    pub failed: u32,
    /// Those that cannot be changed in place.
    #[schemars(range(max = COUNT_MAX))]
    pub blocked: u32,
    /// Those that differ although no run is under way.
    #[schemars(range(max = COUNT_MAX))]
    pub drifted: u32,
    /// Those with an init image that is as the wish has it and has effect when the pod restarts.
    #[schemars(range(max = COUNT_MAX))]
    pub next_restart_only: u32,
}

/// Pods by what is to be done to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanCounts {
    /// Nothing.
    #[schemars(range(max = COUNT_MAX))]
    pub up_to_date: u32,
    /// New labels and annotations.
    #[schemars(range(max = COUNT_MAX))]
    pub metadata: u32,
    /// A resize that restarts nothing.
    #[schemars(range(max = COUNT_MAX))]
    pub resize: u32,
    /// New images.
    #[schemars(range(max = COUNT_MAX))]
    pub in_place: u32,
    /// A restart: by spec.restart, or by a resize that needs one.
    #[schemars(range(max = COUNT_MAX))]
    pub restart: u32,
    /// A new pod in their place.
    #[schemars(range(max = COUNT_MAX))]
    pub recreate: u32,
    /// Nothing can be done.
    #[schemars(range(max = COUNT_MAX))]
    pub blocked: u32,
    /// Why nothing can be done, most pods first.
    #[schemars(
        length(max = BLOCKED_REASONS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["reason"])
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<BlockedPods>,
}

/// Pods that cannot be changed in place for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct BlockedPods {
    /// The reason.
    pub reason: BlockedReason,
    /// How many pods.
    #[schemars(range(max = COUNT_MAX))]
    pub count: u32,
}

/// Why a pod cannot be changed in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum BlockedReason {
    /// The wish changes a field that no API changes on a live pod.
    TemplateFieldNotInPlace,
    /// Its QoS class would be another one.
    #[serde(rename = "QoSClassWouldChange")]
    QosClassWouldChange,
    /// The wish takes a request or a limit away, which no API does on a live pod.
    ResourceRemoved,
    /// Its node or its containers cannot be resized.
    ResizeUnsupported,
    /// It would request more than its node has at all.
    ExceedsNodeAllocatable,
    /// It has not the readiness gate that spec.traffic.mode asks for.
    GateMissing,
    /// It has no container of a name that the wish has.
    ContainerMissing,
    /// The digest of a running image is not known, which a restart in place needs.
    DigestUnknown,
    /// The API server refuses the change.
    AdmissionDenied,
    /// It is the mirror of a static pod.
    StaticPod,
}

impl BlockedReason {
    /// The reason as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TemplateFieldNotInPlace => "TemplateFieldNotInPlace",
            Self::QosClassWouldChange => "QoSClassWouldChange",
            Self::ResourceRemoved => "ResourceRemoved",
            Self::ResizeUnsupported => "ResizeUnsupported",
            Self::ExceedsNodeAllocatable => "ExceedsNodeAllocatable",
            Self::GateMissing => "GateMissing",
            Self::ContainerMissing => "ContainerMissing",
            Self::DigestUnknown => "DigestUnknown",
            Self::AdmissionDenied => "AdmissionDenied",
            Self::StaticPod => "StaticPod",
        }
    }
}

/// Nodes that pull images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct PrePullCounts {
    /// Nodes that need the images for this step.
    #[schemars(range(max = COUNT_MAX))]
    pub nodes: u32,
    /// Those of them that have the images.
    #[schemars(range(max = COUNT_MAX))]
    pub ready: u32,
    /// Those of them where the pull failed.
    #[schemars(range(max = COUNT_MAX))]
    pub failed: u32,
}

/// What a rollback goes back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Previous {
    /// The ReplicaSet or ControllerRevision with the old template; empty for a ReplicaSet that no Deployment owns.
    #[schemars(length(max = 253))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// The StatefulSet's partition at the start of the run, restored at its end.
    #[schemars(range(min = 0, max = i32::MAX))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// Where no revision keeps it: the old values of the fields that the run changes, as JSON in the form of a pod
    /// template.
    #[schemars(length(max = CONTENT_MAX_BYTES))]
    #[serde(skip_serializing_if = "String::is_empty")]
    pub content: String,
}

/// A pod that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct PodFailure {
    /// Name of the pod.
    #[schemars(length(max = NAME_MAX_LENGTH))]
    pub pod: String,
    /// Node it is on.
    #[schemars(length(max = NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Why: what the kubelet says, such as ImagePullBackOff, or which bound of the spec was exceeded.
    #[schemars(length(max = REASON_MAX_LENGTH))]
    pub reason: String,
    /// Since when.
    #[schemars(schema_with = "time_schema")]
    pub since_time: Time,
}

/// A run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// Its status.targetHash.
    #[schemars(length(max = TARGET_HASH_LENGTH))]
    pub target_hash: String,
    /// When it began.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ended.
    #[schemars(schema_with = "time_schema")]
    pub completion_time: Time,
    /// Pods that were as its wish had it at the end.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub pods: u32,
    /// How it ended.
    pub result: RunResult,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum RunResult {
    /// Each pod is as the wish has it.
    Succeeded,
    /// It went wrong, and each pod is again what it was.
    RolledBack,
    /// Another wish took its place.
    Superseded,
}

fn conditions(_: &mut SchemaGenerator) -> Schema {
    conditions_schema(CONDITION_TYPES, MESSAGE_MAX_BYTES)
}
