//! InPlaceUpgrade: changes the live pods of a workload, which stay the same pods.

mod health;
mod policy;
mod reasons;
mod rules;
mod source;
mod status;
mod strategy;
mod traffic;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use health::{Health, OnFailure, Rollback};
pub use policy::{DriftPolicy, FieldOwnership, History, Ineligible, Lock, Policy, TimeSharePolicy};
pub use reasons::{
    AcceptedReason, DriftedReason, FinalizedReason, HealthyReason, HeldReason, LockedReason, PrePulledReason,
    ReadyReason, ReconcilingReason, RefusalReason, StalledReason, all as all_reasons,
};
pub use rules::{IMMUTABLE_FIELDS, RISING_FIELDS};
pub use source::{
    Approval, ContainerResources, IMAGE_MAX_LENGTH, Inline, InlineContainer, InlineMetadata,
    METADATA_KEYS_MAX, Persist, Restart, Source, SourceType, TargetKind, TargetRef,
};
pub use status::{
    BLOCKED_REASONS_MAX, BlockedPods, BlockedReason, CONTENT_MAX_BYTES, FAILURES_MAX, InPlaceUpgradeStatus,
    LastRun, MESSAGE_MAX_BYTES, NAME_MAX_LENGTH, PlanCounts, PodCounts, PodFailure, PrePullCounts, Previous,
    RunResult, StepStatus, TARGET_MAX_LENGTH,
};
pub use strategy::{DisruptionBudgets, FreezeWindow, Hold, HoldType, Step, Strategy, TopologyLimit};
pub use traffic::{PrePull, PrePullMode, PrePullScope, Traffic, TrafficMode};

use crate::schema;

/// Most objects in one namespace; what is beyond is not served.
pub const MAX_PER_NAMESPACE: u32 = 500;
/// Most objects in a cluster; what is beyond is not served.
pub const MAX_PER_CLUSTER: u32 = 5_000;
/// Most pods of one workload; a larger one is not served.
pub const MAX_PODS: u32 = 20_000;
/// Most containers that a wish names.
pub const CONTAINERS_MAX: usize = 20;
/// Most steps of a run.
pub const STEPS_MAX: u32 = 20;
/// Most windows in which no pod starts.
pub const FREEZE_WINDOWS_MAX: usize = 16;
/// Highest [`InPlaceUpgradeSpec::attempt`].
pub const MAX_ATTEMPT: u32 = 1_000_000;
/// Length of [`InPlaceUpgradeStatus::target_hash`]: 48 bits in hex.
pub const TARGET_HASH_LENGTH: usize = 12;
/// The form of a target hash.
const TARGET_HASH_PATTERN: &str = "^[0-9a-f]{12}$";

/// Which workload's pods change, to what, and how.
// Each printer column has a `type_`, which clippy takes for one attribute said twice.
#[allow(clippy::duplicated_attributes)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "springtide.dev",
    version = "v1alpha1",
    kind = "InPlaceUpgrade",
    plural = "inplaceupgrades",
    shortname = "ipu",
    category = "springtide",
    namespaced,
    status = "InPlaceUpgradeStatus",
    derive = "PartialEq",
    doc = "Changes image, cpu, memory, labels and annotations of the live pods of a workload, in steps and behind health \
           gates: UID, IP, node and volumes stay. One object per workload, for as long as the workload lives.",
    selectable = ".spec.targetRef.kind",
    selectable = ".spec.targetRef.name",
    printcolumn(
        name = "Target",
        type_ = "string",
        description = "Kind and name of the workload.",
        json_path = ".status.target"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Where the upgrade stands: reason of condition Ready.",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Updated",
        type_ = "integer",
        description = "Pods that are as the wish has it.",
        json_path = ".status.pods.updated"
    ),
    printcolumn(
        name = "Total",
        type_ = "integer",
        description = "Pods of the workload.",
        json_path = ".status.pods.total"
    ),
    printcolumn(
        name = "Step",
        type_ = "integer",
        description = "The step of the run, from 1; empty while there is none.",
        json_path = ".status.step.index"
    ),
    printcolumn(
        name = "Blocked",
        type_ = "integer",
        description = "Pods that cannot be changed in place.",
        json_path = ".status.pods.blocked"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        description = "Time since the object was created.",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct InPlaceUpgradeSpec {
    /// Apply changes pods; Plan writes no pod and says in the status what would be done; Paused starts no further pod, and
    /// those that have started come to rest.
    #[serde(default)]
    pub mode: Mode,
    /// The workload whose pods change. One InPlaceUpgrade has it: of two, the older one.
    pub target_ref: TargetRef,
    /// What its pods are to become.
    #[serde(default)]
    pub source: Source,
    /// A higher number has a wish tried again that was rolled back or has failed. It may only rise.
    #[schemars(range(max = MAX_ATTEMPT))]
    #[serde(default)]
    pub attempt: u32,
    /// Opens holds of type Approval, for one wish. Absent = they stay closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Restarts containers in place, their images unchanged. Absent = nothing is restarted for its own sake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// What the upgrade may do.
    #[serde(default)]
    pub policy: Policy,
    /// How many pods change at a time, and in which steps.
    #[serde(default)]
    pub strategy: Strategy,
    /// How a pod is taken out of traffic while its containers restart.
    #[serde(default)]
    pub traffic: Traffic,
    /// How images get to the nodes before containers are stopped.
    #[serde(default)]
    pub pre_pull: PrePull,
    /// When the run has gone wrong.
    #[serde(default)]
    pub health: Health,
    /// What happens when it has.
    #[serde(default)]
    pub rollback: Rollback,
    /// Hours in which no pod starts to change; those that have started come to rest.
    #[schemars(
        length(max = FREEZE_WINDOWS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze_windows: Vec<FreezeWindow>,
}

impl InPlaceUpgradeSpec {
    /// An upgrade of this workload to its own template, everything else at its default.
    #[must_use]
    pub fn new(kind: TargetKind, name: impl Into<String>) -> Self {
        Self {
            mode: Mode::default(),
            target_ref: TargetRef { api_version: "apps/v1".to_owned(), kind, name: name.into() },
            source: Source::default(),
            attempt: 0,
            approval: None,
            restart: None,
            policy: Policy::default(),
            strategy: Strategy::default(),
            traffic: Traffic::default(),
            pre_pull: PrePull::default(),
            health: Health::default(),
            rollback: Rollback::default(),
            freeze_windows: Vec::new(),
        }
    }
}

/// Whether pods are changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Mode {
    /// They are.
    #[default]
    Apply,
    /// They are not, and the status says what would be done.
    Plan,
    /// No further one is.
    Paused,
}

/// The CustomResourceDefinition as it is installed: what the derive gives,
/// with rules, default status and bounded, documented fields.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let crd = schema::finish(InPlaceUpgrade::crd(), &IMMUTABLE_FIELDS, |root| {
        rules::add(root);
        root["properties"]["status"]["default"] = crate::common::never_seen("Ready", "object");
    });
    crate::labelled(crate::with_maxima(crd, MAX_PER_NAMESPACE, MAX_PER_CLUSTER))
}
