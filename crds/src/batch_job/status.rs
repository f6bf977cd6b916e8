//! The status of a BatchJob.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::reasons::CONDITION_TYPES;
use crate::batch_task_profile::RecommendedRequests;
use crate::common::{Condition, MAX_GENERATION, conditions_schema, time_schema};

/// Longest condition message of a BatchJob, in bytes of its JSON form: ten
/// thousand jobs are listed at once, so their statuses stay small.
pub const MESSAGE_MAX_BYTES: usize = 160;
/// Longest [`TaskResult::message`], in bytes of its JSON form.
pub const RESULT_MESSAGE_MAX_BYTES: usize = 512;
/// Longest [`FailureRecord::message`], in bytes of its JSON form.
pub const FAILURE_MESSAGE_MAX_BYTES: usize = 256;
/// Most rows of [`BatchJobStatus::exit_codes`], the row `Other` included.
pub const EXIT_CODE_ROWS_MAX: usize = 16;
/// Most rows of [`BatchJobStatus::last_failures`].
pub const LAST_FAILURES_MAX: usize = 5;
/// Most bits of [`IndexStatus::closed_bitmap`]; indexes are dispatched in
/// order within this distance of the first open one.
pub const CLOSED_BITMAP_MAX_BITS: usize = 8192;
/// Longest [`IndexStatus::closed_bitmap`]: base64 of its bits.
pub const CLOSED_BITMAP_MAX_BYTES: usize = CLOSED_BITMAP_MAX_BITS.div_ceil(8).div_ceil(3) * 4;
/// Longest [`IndexStatus::retries`], in bytes.
pub const RETRIES_MAX_BYTES: usize = 1024;
/// Longest [`IndexStatus::failed`], in bytes.
pub const FAILED_INDEXES_MAX_BYTES: usize = 192;
/// Longest [`BatchJobStatus::template_hash`]: 128 bits in hex.
pub const TEMPLATE_HASH_MAX_LENGTH: usize = 32;
/// Longest node name kept; a longer one is cut.
pub const NODE_NAME_MAX_LENGTH: usize = 63;
/// Bound of every counter of pods.
const MAX_COUNT: u32 = 100_000_000;

/// What the controller last observed and decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchJobStatus {
    /// The metadata.generation this status was computed for; 0 before the controller has seen the job.
    #[schemars(range(min = 0, max = MAX_GENERATION))]
    #[serde(default)]
    pub observed_generation: i64,
    /// Where the job stands.
    #[schemars(schema_with = "conditions")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Hash of spec.template when the job first started; a different template starts no pods.
    #[schemars(length(max = TEMPLATE_HASH_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_hash: Option<String>,
    /// The BatchQueue the job is in; empty in the built-in queue, absent while it is in none.
    #[schemars(length(max = crate::batch_queue::NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// When the job was first granted capacity.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted_time: Option<Time>,
    /// When the first pod of the job started to run.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When the job ended, complete or failed.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Pods the job may have now.
    #[schemars(range(max = MAX_COUNT))]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub granted: u32,
    /// Pods that exist and have not ended.
    #[schemars(range(max = MAX_COUNT))]
    #[serde(default)]
    pub active: u32,
    /// Completions that succeeded.
    #[schemars(range(max = MAX_COUNT))]
    #[serde(default)]
    pub succeeded: u32,
    /// Pods that failed and count against the backoff limit.
    #[schemars(range(max = MAX_COUNT))]
    #[serde(default)]
    pub failed: u32,
    /// Pods lost to drains, preemption, node loss or garbage collection; they count against no limit.
    /// Approximate when the controller restarts.
    #[schemars(range(max = MAX_COUNT))]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub disrupted: u32,
    /// Which indexes ended; absent when the job has a single completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexes: Option<IndexStatus>,
    /// How often pods ended with which exit code; the last row, reason Other and code 0, sums up what has no room.
    #[schemars(
        length(max = EXIT_CODE_ROWS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["code", "reason"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exit_codes: Vec<ExitCodeCount>,
    /// Outcome of the last pod of a job with a single completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// The newest failures, newest last.
    #[schemars(
        length(max = LAST_FAILURES_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["index", "attempt"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_failures: Vec<FailureRecord>,
    /// What the pods got by spec.profile; absent while nothing of it was used. Condition Admitted says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<JobProfileStatus>,
    /// Since when at least one pod has been running; absent while none is.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since_time: Option<Time>,
    /// Seconds during which at least one pod ran, over all runs before the present one.
    #[schemars(range(max = MAX_COUNT))]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub running_seconds: u32,
    /// Seconds the job was stopped by spec.stopPolicy, over all stops that have ended.
    #[schemars(range(max = MAX_COUNT))]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suspended_seconds: u32,
}

/// What the pods of a job got by its profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct JobProfileStatus {
    /// Runs that the profile had learned from then.
    #[schemars(range(max = u32::MAX))]
    pub samples: u32,
    /// Requests that it set, summed up over the containers of a pod.
    pub applied: RecommendedRequests,
}

/// Progress by index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct IndexStatus {
    /// Every index below this one is closed: it succeeded or failed for good.
    #[schemars(range(max = super::MAX_COMPLETIONS))]
    #[serde(default)]
    pub closed_below: u32,
    /// Base64; bit i, least significant first, says that index closedBelow + i is closed.
    #[schemars(length(max = CLOSED_BITMAP_MAX_BYTES))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub closed_bitmap: String,
    /// Failures of open indexes so far, as index:failures, separated by commas; of a task that ran out of memory while
    /// spec.retry.onOOM is set, index:failures/steps. A single task has its steps in exitCodes, reason OOMKilled.
    #[schemars(length(max = RETRIES_MAX_BYTES))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub retries: String,
    /// How many of spec.successPolicy's succeededIndexes succeeded.
    #[schemars(range(max = super::MAX_COMPLETIONS))]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub named_succeeded: u32,
    /// Indexes that failed for good, such as 7,9-12; cut when there are too many.
    #[schemars(length(max = FAILED_INDEXES_MAX_BYTES))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub failed: String,
}

/// How many pods ended alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct ExitCodeCount {
    /// Exit code of the first container that failed, or 0.
    #[schemars(range(min = i32::MIN, max = i32::MAX))]
    pub code: i32,
    /// Reason the container runtime or the kubelet gave, such as OOMKilled.
    #[schemars(length(max = crate::common::REASON_MAX_LENGTH))]
    pub reason: String,
    /// Number of pods.
    #[schemars(range(max = MAX_COUNT))]
    pub count: u32,
}

/// How the only task of a job ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct TaskResult {
    /// Exit code of the first container that failed, or 0.
    #[schemars(range(min = i32::MIN, max = i32::MAX))]
    pub exit_code: i32,
    /// Signal that ended the container (exit code - 128), or 0.
    #[schemars(range(max = 127))]
    #[serde(default)]
    pub signal: u32,
    /// Reason the container runtime or the kubelet gave, such as Completed or OOMKilled.
    #[schemars(length(max = crate::common::REASON_MAX_LENGTH))]
    #[serde(default)]
    pub reason: String,
    /// The container's termination message or the tail of its log, cut.
    #[schemars(length(max = RESULT_MESSAGE_MAX_BYTES))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Node the pod ran on.
    #[schemars(length(max = NODE_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// When the container ended.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<Time>,
}

/// One failed pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct FailureRecord {
    /// Index of the task.
    #[schemars(range(max = super::MAX_COMPLETIONS))]
    pub index: u32,
    /// Which attempt at the index this was; 0 is the first.
    #[schemars(range(max = super::MAX_ATTEMPTS))]
    pub attempt: u32,
    /// Node the pod ran on.
    #[schemars(length(max = NODE_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Exit code of the first container that failed.
    #[schemars(range(min = i32::MIN, max = i32::MAX))]
    pub exit_code: i32,
    /// Reason the container runtime or the kubelet gave, such as OOMKilled.
    #[schemars(length(max = crate::common::REASON_MAX_LENGTH))]
    #[serde(default)]
    pub reason: String,
    /// The container's termination message or the tail of its log, cut.
    #[schemars(length(max = FAILURE_MESSAGE_MAX_BYTES))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the container ended.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_time: Option<Time>,
}

fn conditions(_: &mut SchemaGenerator) -> Schema {
    conditions_schema(CONDITION_TYPES, MESSAGE_MAX_BYTES)
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
fn is_zero(count: &u32) -> bool {
    *count == 0
}
