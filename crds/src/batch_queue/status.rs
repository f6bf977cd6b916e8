//! The status of a BatchQueue.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::loads::LOAD_TRIGGERS_MAX;
use super::peaks::{ActiveWindow, NextWindow};
use super::reasons::CONDITION_TYPES;
use crate::common::{
    Condition, MAX_GENERATION, Quantity, RESOURCE_NAME_MAX_LENGTH, Tier, conditions_schema, time_schema,
};

/// Longest condition message of a BatchQueue, in bytes of its JSON form.
pub const MESSAGE_MAX_BYTES: usize = 160;
/// Most rows of [`BatchQueueStatus::waiting`].
pub const WAITING_MAX: usize = 10;
/// Longest [`WaitingClass::shape`]: 32 bits in hex.
pub const SHAPE_MAX_LENGTH: usize = 8;
/// Longest [`WaitingClass::reason`]: those of a wait are shorter than others may be.
pub const WAITING_REASON_MAX_LENGTH: usize = 20;
/// Bound of every counter of jobs and pods.
pub const COUNT_MAX: u32 = 1_000_000;

/// What the controller last observed and decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchQueueStatus {
    /// The metadata.generation this status was computed for; 0 before the controller has seen the queue.
    #[schemars(range(min = 0, max = MAX_GENERATION))]
    #[serde(default)]
    pub observed_generation: i64,
    /// What the queue does.
    #[schemars(schema_with = "conditions")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Jobs that wait for their first grant, those beyond spec.maxQueuedJobs included.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub pending_jobs: u32,
    /// Unfinished jobs that have been granted capacity.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub admitted_jobs: u32,
    /// Pods that exist and have not ended.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub running_pods: u32,
    /// Groups of jobs that are alike to the admission: of one tier, priority and pod shape.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub classes: u32,
    /// Amounts that the queue's pods request, granted ones that are being created included.
    #[schemars(extend("maxProperties" = super::QUOTA_ROWS_MAX))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub used: BTreeMap<String, Quantity>,
    /// Amounts of those above nominal, which others of the cohort lend.
    #[schemars(extend("maxProperties" = super::QUOTA_ROWS_MAX))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub borrowed: BTreeMap<String, Quantity>,
    /// Amounts that batch may use on the queue's nodes now, by spec.capacitySource.
    #[schemars(extend("maxProperties" = super::QUOTA_ROWS_MAX))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub capacity: BTreeMap<String, Quantity>,
    /// When the capacity last changed in this status.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_time: Option<Time>,
    /// Groups of alike jobs that wait, those with most jobs first.
    #[schemars(length(max = WAITING_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingClass>,
    /// The peak that condition PeakWindowActive is about: one that is near, open, or just over, or a load trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_window: Option<ActiveWindow>,
    /// The next peak to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_window: Option<NextWindow>,
    /// Names of the load triggers that are on, by the last that was measured.
    #[schemars(length(max = LOAD_TRIGGERS_MAX), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active_load_triggers: Vec<String>,
}

/// Jobs that are alike to the admission and wait for the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct WaitingClass {
    /// Tier of the jobs.
    pub tier: Tier,
    /// Their priority.
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,
    /// Names the shape of their pods: requests and what decides on nodes.
    #[schemars(length(max = SHAPE_MAX_LENGTH))]
    pub shape: String,
    /// What they wait for; a reason of BatchJob's condition Queued.
    #[schemars(length(max = WAITING_REASON_MAX_LENGTH))]
    pub reason: String,
    /// The resource that is short, if one is.
    #[schemars(length(max = RESOURCE_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// How many jobs.
    #[schemars(range(max = COUNT_MAX))]
    pub jobs: u32,
    /// When the one that waits longest was created.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_time: Option<Time>,
}

fn conditions(_: &mut SchemaGenerator) -> Schema {
    conditions_schema(CONDITION_TYPES, MESSAGE_MAX_BYTES)
}
