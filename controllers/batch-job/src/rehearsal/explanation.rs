//! The explanation of a job, as data: its JSON form is stable within its apiVersion.

use super::PlannedWrite;
use crate::admission::{FitReport, PlaceInLine};
use jiff::Timestamp;
use serde::Serialize;
use springtide_crds::batch_job::{ExitCodeCount, FailureRecord, TaskResult};
use springtide_crds::common::Tier;
use springtide_crds::reason::Reason;
use springtide_plumbing::plan::Why;

/// Why a job is where it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Namespace of the job.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// In one word.
    pub state: State,
    /// What the answer rests on.
    pub basis: Basis,
    /// The reason of its condition Complete, as it should be now.
    pub summary: Said,
    /// What needs a person, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Said>,
    /// Its queue.
    pub queue: QueueStanding,
    /// What its profile makes of its pods' requests, and how long they are expected to run; of those that are created now.
    /// Empty where the job speaks of neither.
    pub profile: Vec<ProfileWord>,
    /// What it, or the rest of it, waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits: Option<Waits>,
    /// The first task whose pause after a failure is not over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryWait>,
    /// Its place in the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<PlaceInLine>,
    /// How its pods fit on the nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<FitReport>,
    /// Its progress.
    pub tasks: Tasks,
    /// Its pods, up to 20 of them.
    pub pods: Vec<PodLine>,
    /// Its newest failures, the newest last.
    pub last_failures: Vec<FailureRecord>,
    /// How its pods ended, by exit code and reason.
    pub exit_codes: Vec<ExitCodeCount>,
    /// What a job with one task came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// Points in time at which something is decided.
    pub deadlines: Vec<Deadline>,
    /// What the manager would write for it now.
    pub next_writes: Vec<PlannedWrite>,
    /// What the manager said last, in condition Queued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<Reported>,
}

/// Where a job stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// It has no pods, and waits to start some.
    Waiting,
    /// It may start, or has started, and no pod of it runs yet.
    Starting,
    /// Pods of it run.
    Running,
    /// Somebody holds it, or its queue.
    Stopped,
    /// Its last pods are ending.
    Ending,
    /// It has succeeded.
    Completed,
    /// It has failed for good.
    Failed,
    /// Another controller runs it, as its spec.managedBy says.
    Foreign,
    /// What is seen does not say.
    Unknown,
}

/// What an answer rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Basis {
    /// The manager's own planner, run on what the cluster has now.
    Computed,
    /// What the manager has written into the job's status, as something could not be read.
    Reported,
}

/// A reason with its words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Said {
    /// The documented reason.
    pub reason: String,
    /// What it is in this case.
    pub message: String,
    /// What the reason means.
    pub meaning: String,
}

impl Said {
    /// A reason with what it is in one case.
    pub fn of<R: Reason>(reason: R, message: &str) -> Self {
        Self {
            reason: reason.as_str().to_owned(),
            message: message.to_owned(),
            meaning: reason.doc().to_owned(),
        }
    }
}

/// One thing that follows from a job's profile, or why nothing does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileWord {
    /// `ProfileRequest`: a request that the profile sets; `ProfileSetsNothing`: why it sets none; `ExpectedRunTime`: how long
    /// a pod is expected to run.
    pub reason: String,
    /// What it is, and what it follows from.
    pub message: String,
}

impl From<Why> for ProfileWord {
    fn from(Why { reason, message }: Why) -> Self {
        Self { reason: reason.to_owned(), message }
    }
}

/// What a job waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waits {
    /// The reason of condition Queued.
    #[serde(flatten)]
    pub said: Said,
    /// The resource that is short, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// What lets it go on.
    pub wakes: String,
    /// When it is looked at again by time alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What a person can do.
    pub remedies: Vec<String>,
}

/// A task that is tried again later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryWait {
    /// Its index.
    pub index: u32,
    /// How often it failed.
    pub failures: u32,
    /// When it may start again.
    pub until: Timestamp,
}

/// The queue of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStanding {
    /// Name of the BatchQueue; empty for the built-in queue, and where none is found.
    pub name: String,
    /// How it was found.
    pub found_by: String,
    /// Whether there is such a queue.
    pub exists: bool,
    /// The job's tier there.
    pub tier: Tier,
    /// Its priority in the tier.
    pub priority: i32,
    /// Its quota.
    pub quota: Vec<QuotaUse>,
}

/// The use of one resource of a quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QuotaUse {
    /// The resource.
    pub resource: String,
    /// What pods and grants of the queue hold.
    pub used: String,
    /// What it can count on.
    pub nominal: String,
    /// What it never exceeds.
    pub max: String,
}

/// Progress of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tasks {
    /// Tasks in all.
    pub completions: u32,
    /// Pods at a time.
    pub parallelism: u32,
    /// Tasks that succeeded.
    pub succeeded: u32,
    /// Pods that failed and count.
    pub failed: u32,
    /// Pods that something else ended.
    pub disrupted: u32,
    /// Pods that have not ended.
    pub live: u32,
    /// Of these, the ones that run.
    pub running: u32,
    /// Tasks that could start now, had they room, within parallelism.
    pub startable: u32,
}

/// One pod of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodLine {
    /// Its name.
    pub name: String,
    /// `status.phase`, or `Terminating`.
    pub phase: String,
    /// Its node; empty while it has none.
    pub node: String,
    /// When it was created.
    pub created_time: Timestamp,
    /// What keeps it from starting; empty where nothing does.
    pub obstacle: String,
}

/// A point in time at which something is decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Deadline {
    /// The field that says so.
    pub field: String,
    /// What happens then.
    pub what: String,
    /// When.
    pub time: Timestamp,
}

/// What the manager wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reported {
    /// Reason of condition Queued.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// When its status last changed.
    pub since: Timestamp,
    /// Whether it is about the job as it is now, not as it was before an edit.
    pub is_current: bool,
}
