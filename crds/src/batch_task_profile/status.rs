//! The status of a BatchTaskProfile.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::reasons::CONDITION_TYPES;
use crate::common::{Condition, MAX_GENERATION, conditions_schema, time_schema};

/// Longest condition message of a BatchTaskProfile, in bytes of its JSON form.
pub const MESSAGE_MAX_BYTES: usize = 160;
/// Most rows of [`BatchTaskProfileStatus::containers`].
pub const CONTAINERS_MAX: usize = 8;
/// Longest [`ContainerProfile::histogram`], in bytes.
pub const CONTAINER_HISTOGRAM_MAX_BYTES: usize = 512;
/// Longest [`RunTime::histogram`], in bytes.
pub const RUN_TIME_HISTOGRAM_MAX_BYTES: usize = 256;
/// Longest quantity that is recommended: a whole number of thousandths of a core or of bytes, or of Mi.
const AMOUNT_MAX_LENGTH: usize = 20;
/// Bound of every counter of runs.
const MAX_COUNT: u32 = u32::MAX;
/// Longest run time that the histogram tells, about; in seconds.
const MAX_SECONDS: u32 = 10_000_000;

/// What was learned.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchTaskProfileStatus {
    /// The metadata.generation this status was computed for; 0 before the controller has seen the profile.
    #[schemars(range(min = 0, max = MAX_GENERATION))]
    pub observed_generation: i64,
    /// Where the profile stands.
    #[schemars(schema_with = "conditions")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Runs that were learned from: those that succeeded, and those that were killed for want of memory.
    #[schemars(range(max = MAX_COUNT))]
    pub samples: u32,
    /// Runs in which a container was killed for want of memory.
    #[schemars(range(max = MAX_COUNT))]
    pub oom_kills: u32,
    /// When the last run ended that was learned from.
    #[schemars(schema_with = "time_schema")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_sample_time: Option<Time>,
    /// What is known by container.
    #[schemars(
        length(max = CONTAINERS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<ContainerProfile>,
    /// How long runs that succeed take; absent while none has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_time: Option<RunTime>,
}

/// What is known of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProfile {
    /// Name of the container.
    #[schemars(length(max = 63))]
    pub name: String,
    /// What to request: percentile and margin of the spec, within its bounds. A resource is absent that was
    /// measured in fewer than twenty runs.
    #[serde(default, skip_serializing_if = "RecommendedRequests::is_empty")]
    pub recommended: RecommendedRequests,
    /// What it used, as a histogram in a form of the controller's own. Absent while nothing is known.
    #[schemars(length(max = CONTAINER_HISTOGRAM_MAX_BYTES))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub histogram: String,
}

/// Requests of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct RecommendedRequests {
    /// Quantity of cpu.
    #[schemars(length(max = AMOUNT_MAX_LENGTH))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<String>,
    /// Quantity of memory.
    #[schemars(length(max = AMOUNT_MAX_LENGTH))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

impl RecommendedRequests {
    /// Whether nothing is requested.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.memory.is_none()
    }
}

/// How long runs take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct RunTime {
    /// Half of the runs end within so many seconds.
    #[schemars(range(max = MAX_SECONDS))]
    pub p50_seconds: u32,
    /// Of a hundred runs 95 end within so many seconds.
    #[schemars(range(max = MAX_SECONDS))]
    pub p95_seconds: u32,
    /// How long they took, as a histogram in a form of the controller's own.
    #[schemars(length(max = RUN_TIME_HISTOGRAM_MAX_BYTES))]
    pub histogram: String,
}

fn conditions(_: &mut SchemaGenerator) -> Schema {
    conditions_schema(CONDITION_TYPES, MESSAGE_MAX_BYTES)
}
