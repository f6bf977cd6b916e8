//! The explanation of an object, as data: its JSON form is stable within its apiVersion.

use jiff::Timestamp;
use serde::Serialize;
use springtide_crds::in_place_upgrade::{
    LastRun, PlanCounts, PodCounts, PodFailure, PrePullCounts, StepStatus,
};
use springtide_plumbing::rehearsal::{Basis, ConditionLine, PlannedWrite, Reported, Said};

/// Why an object is where it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Namespace of the object.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// Kind and name of the workload.
    pub target: String,
    /// What the answer rests on.
    pub basis: Basis,
    /// The reason of its condition Ready, as it should be now.
    pub summary: Said,
    /// What needs a person, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Said>,
    /// What keeps further pods from starting, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Said>,
    /// What lets it go on; empty where nothing is left to do.
    pub wakes: String,
    /// When it is looked at again by time alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What a person can do, most useful first; empty where waiting is all.
    pub remedies: Vec<String>,
    /// Names the wish; empty where the spec cannot be served.
    pub target_hash: String,
    /// Whether pods become again what they were.
    pub is_rollback: bool,
    /// The step of the run; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<StepStatus>,
    /// Pods by where they stand.
    pub counts: PodCounts,
    /// Pods by what is to be done to them.
    pub plan: PlanCounts,
    /// Nodes that pull images; absent when none has to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_pull: Option<PrePullCounts>,
    /// The other conditions.
    pub conditions: Vec<ConditionLine>,
    /// The pods: all of a plan, else up to 20, those first that something is told of.
    pub pods: Vec<PodLine>,
    /// Pods that failed in the run, the oldest failures first.
    pub failures: Vec<PodFailure>,
    /// The last run that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// What the manager would write now, until a pod, the workload or a person has to do something.
    pub next_writes: Vec<PlannedWrite>,
    /// What the manager said last, in condition Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<Reported>,
}

/// One pod of the workload.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodLine {
    /// Its name.
    pub name: String,
    /// Its node; empty while it has none.
    pub node: String,
    /// What is to be done to it: `UpToDate`, `Metadata`, `Resize`, `InPlace`, `Restart`, `NextRestart`, `Recreate` or
    /// `Blocked`.
    pub verdict: String,
    /// Why nothing can be; empty for every other verdict.
    pub blocked_because: String,
    /// Where it stands: `Old`, `Resizing`, `Draining`, `Drained`, `NotDrained`, `Patched`, `Started`, `Updated`,
    /// `Unavailable`, `Renewed`, `Failed` or `Ineligible`.
    pub state: String,
    /// What it waits for, or why it failed; empty where the state says all.
    pub detail: String,
    /// Whether it is available.
    pub is_available: bool,
    /// In what it differs from the wish.
    pub differences: Vec<String>,
    /// When time alone may change where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The writes that bring it from where it stands to the wish, in their order; of a plan alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<PlannedWrite>,
}
