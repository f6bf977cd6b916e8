//! How many pods change at a time, in which steps, and when not.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::STEPS_MAX;
use super::rules;
use crate::common::{IntOrPercent, Window};

/// How many pods change at a time, and in which steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::last_step_is_all()]))]
#[serde(rename_all = "camelCase", default)]
pub struct Strategy {
    /// Steps in order, the numbers cumulative and rising; the last one is 100%.
    #[schemars(length(min = 1, max = STEPS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<Step>,
    /// Most pods that are unavailable or missing at a time, whatever the cause: a whole number or a part of the
    /// workload's replicas, rounded down, and at least 1. A pod that is unavailable already starts at once.
    pub max_unavailable: IntOrPercent,
    /// Most pods of one node that change at a time.
    #[schemars(range(min = 1, max = 110))]
    pub max_in_flight_per_node: u32,
    /// Bounds the pods of one zone, or of nodes alike in another label, that change at a time. Absent = no such bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_in_flight_per_topology: Option<TopologyLimit>,
    /// Respect starts a pod only where each PodDisruptionBudget that selects it would still hold; Ignore does not look at
    /// them. Nothing is evicted either way.
    pub disruption_budgets: DisruptionBudgets,
    /// A changed pod counts as available when it has been ready for so long; the larger of this and the workload's own
    /// minReadySeconds.
    #[schemars(range(max = 3600))]
    pub min_ready_seconds: u32,
    /// A pod whose resize is Deferred or InProgress for longer has failed.
    #[schemars(range(min = 10, max = 86_400))]
    pub resize_timeout_seconds: u32,
    /// A pod that is not available so many seconds after its image was changed has failed.
    #[schemars(range(min = 30, max = 86_400))]
    pub pod_deadline_seconds: u32,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            steps: vec![Step { replicas: IntOrPercent::ALL, hold: None }],
            max_unavailable: IntOrPercent::Percent(10),
            max_in_flight_per_node: 1,
            max_in_flight_per_topology: None,
            disruption_budgets: DisruptionBudgets::default(),
            min_ready_seconds: 0,
            resize_timeout_seconds: 300,
            pod_deadline_seconds: 300,
        }
    }
}

/// A part of the pods, and what comes after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Pods that are changed at the end of the step, those of the steps before included: a whole number, or a part of the
    /// workload's replicas, rounded up.
    pub replicas: IntOrPercent,
    /// What the next step waits for. Absent = it follows at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// What the next step waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::duration_iff_type_duration()]))]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// Approval waits for spec.approval; Duration waits for durationSeconds.
    #[serde(rename = "type")]
    pub type_: HoldType,
    /// Seconds from the moment when all pods of the step are available. Needed with type Duration, and absent with
    /// Approval.
    #[schemars(range(min = 1, max = 604_800))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u32>,
}

/// What ends a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum HoldType {
    /// A person, or what acts for one.
    Approval,
    /// Time.
    Duration,
}

/// A bound by a label of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct TopologyLimit {
    /// Label of nodes, such as topology.kubernetes.io/zone; nodes without it are one more group.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub topology_key: String,
    /// Most pods on nodes of one value that change at a time: a whole number, or a part of all pods, rounded down, and at
    /// least 1.
    pub max: IntOrPercent,
}

/// Whether PodDisruptionBudgets count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DisruptionBudgets {
    /// They do.
    #[default]
    Respect,
    /// They do not.
    Ignore,
}

/// Hours in which no pod starts to change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct FreezeWindow {
    /// Name of the window, for conditions and messages.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// When it is.
    pub window: Window,
}
