//! BatchJob: finite tasks that run when there is room for them.

mod reasons;
mod retry;
mod rules;
mod status;
mod success;
mod template;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use reasons::{
    AdmittedReason, CompleteReason, DegradedReason, FailedReason, QueuedReason, ReconcilingReason,
    StalledReason, SuspendedReason, all as all_reasons,
};
pub use retry::{MAX_OOM_STEPS, NodeAvoidance, OnOom, Retry};
pub use rules::IMMUTABLE_FIELDS;
pub use status::{
    BatchJobStatus, CLOSED_BITMAP_MAX_BITS, CLOSED_BITMAP_MAX_BYTES, EXIT_CODE_ROWS_MAX, ExitCodeCount,
    FAILED_INDEXES_MAX_BYTES, FAILURE_MESSAGE_MAX_BYTES, FailureRecord, IndexStatus, JobProfileStatus,
    LAST_FAILURES_MAX, MESSAGE_MAX_BYTES, NODE_NAME_MAX_LENGTH, RESULT_MESSAGE_MAX_BYTES, RETRIES_MAX_BYTES,
    TEMPLATE_HASH_MAX_LENGTH, TaskResult,
};
pub use success::{SuccessPolicy, SuccessRule};
pub use template::PodTemplate;

use crate::batch_task_profile::ProfileMode;
use crate::common::Tier;
use crate::schema;

/// Most completions of one job.
pub const MAX_COMPLETIONS: u32 = 100_000;
/// Most pods of one job at a time.
pub const MAX_PARALLELISM: u32 = 5_000;
/// Highest failure count of one index: [`BatchJobSpec::backoff_limit`]'s bound.
pub const MAX_ATTEMPTS: u32 = 1_000;
/// [`BatchJobSpec::backoff_limit`] when the job sets neither it nor
/// [`BatchJobSpec::backoff_limit_per_index`]; the default of batch/v1.
pub const DEFAULT_BACKOFF_LIMIT: u32 = 6;
/// Longest job name: with `-<index>-<failures>` a pod name stays within the
/// 63 bytes of a hostname.
pub const NAME_MAX_LENGTH: usize = 52;
/// [`BatchJobSpec::managed_by`] of the jobs that our controller runs, when it is set at all.
pub const MANAGED_BY: &str = "springtide.dev/batch-job";
/// Most jobs in one namespace; more are not started.
pub const MAX_PER_NAMESPACE: u32 = 1_500;
/// Most jobs in a cluster; more are not started.
pub const MAX_PER_CLUSTER: u32 = 10_000;
/// Bound of deadlines: 30 days in seconds.
const MAX_DEADLINE_SECONDS: u32 = 2_592_000;

/// What to run, how often, and what to do when it fails.
// Each printer column has a `type_`, which clippy takes for one attribute said twice.
#[allow(clippy::duplicated_attributes)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "springtide.dev",
    version = "v1alpha1",
    kind = "BatchJob",
    plural = "batchjobs",
    shortname = "bj",
    category = "springtide",
    namespaced,
    status = "BatchJobStatus",
    derive = "PartialEq",
    doc = "Runs finite tasks on capacity that is free: a pod exists only while its task can really run, and is \
           deleted at exit, once its outcome is in the status.",
    selectable = ".spec.queueName",
    selectable = ".spec.tier",
    printcolumn(
        name = "Complete",
        type_ = "string",
        description = "Where the job stands: reason of condition Complete.",
        json_path = ".status.conditions[?(@.type==\"Complete\")].reason"
    ),
    printcolumn(
        name = "Queue",
        type_ = "string",
        description = "The BatchQueue the job is in; empty in the built-in queue.",
        json_path = ".status.queue"
    ),
    printcolumn(
        name = "Tier",
        type_ = "string",
        description = "Importance of the job.",
        json_path = ".spec.tier"
    ),
    printcolumn(
        name = "Succeeded",
        type_ = "integer",
        description = "Completions that succeeded.",
        json_path = ".status.succeeded"
    ),
    printcolumn(
        name = "Completions",
        type_ = "integer",
        description = "Completions the job needs.",
        json_path = ".spec.completions"
    ),
    printcolumn(
        name = "Active",
        type_ = "integer",
        description = "Pods that exist and have not ended.",
        json_path = ".status.active"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        description = "Pods that failed.",
        json_path = ".status.failed"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        description = "Time since the job was created.",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BatchJobSpec {
    /// The BatchQueue of this namespace that decides when the job starts; until there is one of this name the job
    /// waits. Absent = the BatchQueue called default; in a namespace without any BatchQueue the built-in queue: all
    /// free capacity, no quota.
    #[schemars(
        length(min = 1, max = crate::batch_queue::NAME_MAX_LENGTH),
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_name: Option<String>,
    /// Importance of the job. The built-in queue treats every tier as BestEffort.
    #[serde(default)]
    pub tier: Tier,
    /// Order inside the tier; higher starts first.
    #[schemars(range(min = -1000, max = 1000))]
    #[serde(default)]
    pub priority: i32,
    /// None runs the job; Hold starts nothing and lets running pods finish; Drain ends running pods too.
    #[serde(default)]
    pub stop_policy: StopPolicy,
    /// Who runs the job. With any other value than springtide.dev/batch-job this controller leaves it wholly alone, for
    /// a dispatcher of yours: no pods, no status, and it counts in no maximum. Absent = springtide.dev/batch-job.
    #[schemars(
        length(max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
    /// How many tasks must succeed.
    #[schemars(range(min = 1, max = MAX_COMPLETIONS))]
    #[serde(default = "one")]
    pub completions: u32,
    /// How many pods may exist at a time.
    #[schemars(range(min = 1, max = MAX_PARALLELISM))]
    #[serde(default = "one")]
    pub parallelism: u32,
    /// The job starts when so many pods fit at once; equal to parallelism it starts as a gang.
    #[schemars(range(min = 1, max = MAX_PARALLELISM))]
    #[serde(default = "one")]
    pub min_parallelism: u32,
    /// NonIndexed tasks are alike; an Indexed task finds its number, from 0, in JOB_COMPLETION_INDEX and in its
    /// hostname.
    #[serde(default)]
    pub completion_mode: CompletionMode,
    /// The job fails after running this long, in seconds; time without pods does not count. Absent = no limit.
    #[schemars(range(min = 1, max = MAX_DEADLINE_SECONDS))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_deadline_seconds: Option<u32>,
    /// The job fails after waiting this long for its first start, in seconds. Absent = it waits for ever.
    #[schemars(range(min = 1, max = MAX_DEADLINE_SECONDS))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_deadline_seconds: Option<u32>,
    /// A pod that is not scheduled after so many seconds is taken back, and pods like it wait for a while.
    /// A new manager counts anew.
    #[schemars(range(min = 5, max = 3600))]
    #[serde(default = "pending_deadline")]
    pub pending_deadline_seconds: u32,
    /// How long one task takes, in seconds, for decisions that look ahead; what was learned of the task goes before it.
    /// Absent = activeDeadlineSeconds.
    #[schemars(range(min = 1, max = MAX_DEADLINE_SECONDS))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_seconds: Option<u32>,
    /// How running pods are ended.
    #[serde(default)]
    pub interruption: Interruption,
    /// The job fails when more pods failed than this. Absent = 6, or no limit with backoffLimitPerIndex.
    #[schemars(range(max = MAX_ATTEMPTS))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_limit: Option<u32>,
    /// An index fails for good when more of its pods failed than this; the others go on. Needs completionMode
    /// Indexed. Absent = failures are counted over the whole job.
    #[schemars(range(max = 100))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff_limit_per_index: Option<u32>,
    /// The job fails at once when more indexes failed for good than this. Needs backoffLimitPerIndex. Absent = all
    /// indexes are tried.
    #[schemars(range(max = MAX_COMPLETIONS))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failed_indexes: Option<u32>,
    /// What a failed pod means, as in batch/v1. Absent = every failure counts against the backoff limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_failure_policy: Option<PodFailurePolicy>,
    /// When the job has succeeded although not all its tasks have, as in batch/v1. A limit that fails the job in the same
    /// moment comes first. Absent = all tasks must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success_policy: Option<SuccessPolicy>,
    /// Pauses between the attempts at a task.
    #[serde(default)]
    pub retry: Retry,
    /// What is learned from the runs of this task, and used for the next ones. Absent = nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<JobProfile>,
    /// What happens to a pod that ended.
    #[serde(default)]
    pub release: Release,
    /// The job is deleted so many seconds after it ended. Absent = the queue decides; the built-in queue keeps it
    /// for 900 seconds.
    #[schemars(range(max = 604_800))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds_after_finished: Option<u32>,
    /// The pod that runs one task.
    pub template: PodTemplate,
}

impl BatchJobSpec {
    /// A job that runs `template` once, everything else at its default.
    #[must_use]
    pub fn new(template: PodTemplate) -> Self {
        Self {
            queue_name: None,
            tier: Tier::default(),
            priority: 0,
            stop_policy: StopPolicy::default(),
            managed_by: None,
            completions: one(),
            parallelism: one(),
            min_parallelism: one(),
            completion_mode: CompletionMode::default(),
            active_deadline_seconds: None,
            queue_deadline_seconds: None,
            pending_deadline_seconds: pending_deadline(),
            expected_seconds: None,
            interruption: Interruption::default(),
            backoff_limit: None,
            backoff_limit_per_index: None,
            max_failed_indexes: None,
            pod_failure_policy: None,
            success_policy: None,
            retry: Retry::default(),
            profile: None,
            release: Release::default(),
            ttl_seconds_after_finished: None,
            template,
        }
    }
}

/// Whether the user lets the job run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum StopPolicy {
    /// The job runs.
    #[default]
    None,
    /// Nothing starts; running pods finish.
    Hold,
    /// Nothing starts; running pods are ended.
    Drain,
}

/// Whether tasks differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum CompletionMode {
    /// All tasks are alike.
    #[default]
    NonIndexed,
    /// Each task has a number.
    Indexed,
}

/// How running pods are ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Interruption {
    /// Interruptible tasks start at any time; with FinishOrDontStart no task starts that would still run when the next
    /// peak window of the queue ends pods of its tier, by expectedSeconds.
    pub policy: InterruptionPolicy,
    /// Seconds between SIGTERM and SIGKILL when Springtide ends a pod that runs: for Drain, a deadline, a peak, a job that
    /// goes before it, a lender or a quota that was cut. A peak that starts sooner cuts it. Evictions by others take the
    /// template's terminationGracePeriodSeconds.
    #[schemars(range(max = 3600))]
    pub grace_seconds: u32,
}

impl Default for Interruption {
    fn default() -> Self {
        Self { policy: InterruptionPolicy::default(), grace_seconds: 30 }
    }
}

/// Whether a task may be cut short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum InterruptionPolicy {
    /// It runs again after an interruption.
    #[default]
    Interruptible,
    /// It is not started where a peak would interrupt it.
    FinishOrDontStart,
}

/// What a failed pod means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct PodFailurePolicy {
    /// Rules in order; the first that matches decides. A failure that matches none counts.
    #[schemars(length(min = 1, max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<PodFailureRule>,
}

/// One rule of a pod failure policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::one_requirement()]))]
#[serde(rename_all = "camelCase")]
pub struct PodFailureRule {
    /// FailJob ends the job as failed; FailIndex gives the index up (needs backoffLimitPerIndex); Ignore treats the
    /// failure as a disruption; Count counts it against the backoff limit.
    pub action: PodFailureAction,
    /// Matches exit codes of containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exit_codes: Option<OnExitCodes>,
    /// Matches when the pod has one of these conditions.
    #[schemars(length(min = 1, max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_pod_conditions: Vec<PodConditionPattern>,
}

/// What to do with a matching failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PodFailureAction {
    /// The job fails at once.
    FailJob,
    /// The index fails at once; the others go on.
    FailIndex,
    /// The failure is a disruption: not counted, the task runs again.
    Ignore,
    /// The failure counts against the backoff limit.
    Count,
}

/// Exit codes to match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::zero_is_success()]))]
#[serde(rename_all = "camelCase")]
pub struct OnExitCodes {
    /// Only this container's exit code is looked at. Absent = those of all containers.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// In matches the values; NotIn matches every other exit code but 0.
    pub operator: ExitCodeOperator,
    /// Exit codes; 0 is success and cannot be used with In.
    #[schemars(
        length(min = 1, max = 255),
        inner(range(min = 0, max = i32::MAX)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub values: Vec<i32>,
}

/// How exit codes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ExitCodeOperator {
    /// One of the values.
    In,
    /// None of the values, and not 0.
    NotIn,
}

/// A pod condition to match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct PodConditionPattern {
    /// Type of the pod condition, such as DisruptionTarget.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,
    /// Status the condition must have.
    #[serde(default = "condition_true")]
    pub status: crate::common::ConditionStatus,
}

/// Which BatchTaskProfile learns of a task, and what it may do for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::mode_needs_key()]))]
#[serde(rename_all = "camelCase", default)]
pub struct JobProfile {
    /// Name of the BatchTaskProfile, the same for all jobs that run this task; it is made at the first use.
    #[schemars(
        length(min = 1, max = crate::batch_task_profile::NAME_MAX_LENGTH),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Off does nothing; Observe learns; Initial also fills in requests that the template leaves out; Auto also
    /// replaces the template's own. Never above a limit, from twenty runs on, and no further than the profile's
    /// spec.maxMode. Absent = the queue's defaultProfileMode; Observe without a queue.
    // `with`: for an optional enum the derive would take the enum's own description.
    #[schemars(with = "ProfileMode")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ProfileMode>,
}

/// What happens to a pod that ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Release {
    /// Strict counts each outcome exactly once, by a finalizer on the pod, at the cost of one more write.
    /// AtLeastOnce runs a task again when its pod vanished unseen. Absent = AtLeastOnce for tier BestEffort, else
    /// Strict.
    // `with`: for an optional enum the derive would take the enum's own description.
    #[schemars(with = "CompletionTracking")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completion_tracking: Option<CompletionTracking>,
    /// A pod is kept until it is so many seconds old, counted from its creation, for metric scrapers and log agents.
    #[schemars(range(max = 3600))]
    pub min_pod_age_seconds: u32,
    /// A failed pod is kept so many seconds, for debugging.
    #[schemars(range(max = 86_400))]
    pub hold_on_failure_seconds: u32,
    /// So many of the newest failed pods stay until the job goes.
    #[schemars(range(max = 10))]
    pub keep_failed_pods: u32,
    /// OnFailure takes the end of a failed container's log as its message, unless the template sets a
    /// terminationMessagePolicy; Never leaves the template alone.
    pub log_tail: LogTail,
}

/// How certain the count of outcomes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum CompletionTracking {
    /// Each outcome is counted exactly once.
    Strict,
    /// A task whose pod vanished unseen runs again.
    AtLeastOnce,
}

/// When the end of a container's log becomes its message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum LogTail {
    /// When the container failed without a message.
    #[default]
    OnFailure,
    /// Never.
    Never,
}

/// The CustomResourceDefinition as it is installed: what the derive gives,
/// with rules, default status and bounded, documented fields.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let crd = schema::finish(BatchJob::crd(), &IMMUTABLE_FIELDS, |root| {
        rules::add(root);
        let status = &mut root["properties"]["status"];
        status["default"] = crate::common::never_seen("Complete", "job");
        // One is of jobs with many tasks, the other of jobs with one: both together need never fit.
        status["not"] = serde_json::json!({"required": ["indexes", "result"]});
    });
    crate::labelled(crate::with_maxima(crd, MAX_PER_NAMESPACE, MAX_PER_CLUSTER))
}

fn one() -> u32 {
    1
}

fn pending_deadline() -> u32 {
    30
}

fn condition_true() -> crate::common::ConditionStatus {
    crate::common::ConditionStatus::True
}
