//! The explanation of an object, as data: its JSON form is stable within its apiVersion.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{
    LastRun, PlanCounts, PodCounts, PodFailure, PrePullCounts, StepStatus,
};
use springtide_plumbing::plan::{Action, Patch, Write};
use springtide_plumbing::rehearsal::{Basis, Reported, Said};

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

/// A condition, as it should be now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConditionLine {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
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

/// A write that would be sent, with all that is in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedWrite {
    /// `create`, `patch` or `delete`, as the audit log names it.
    pub verb: String,
    /// Kind of the object.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `status`, `resize` or `eviction`; empty for the object itself.
    pub subresource: String,
    /// Only the object with this UID; empty for one that is made.
    pub uid: String,
    /// Only in this version; empty where any will do.
    pub resource_version: String,
    /// What the body is: `manifest`, `strategicMerge`, `merge`, `jsonPatch`, `apply`, `status` or `options`.
    pub form: String,
    /// Name of the field manager of an apply; empty for every other form.
    pub field_manager: String,
    /// The body, without the preconditions above.
    pub body: Value,
}

impl PlannedWrite {
    /// A write as it is told.
    pub fn of(write: &Write) -> Self {
        let (form, field_manager, body) = content(&write.action);
        let version = write.action.resource_version();
        Self {
            verb: write.action.verb().to_owned(),
            kind: write.resource.kind.to_owned(),
            namespace: write.key.namespace.to_string(),
            name: write.key.name.to_string(),
            subresource: write.action.subresource().to_owned(),
            uid: write.action.uid().unwrap_or_default().to_owned(),
            resource_version: version.map(|version| version.to_string()).unwrap_or_default(),
            form: form.to_owned(),
            field_manager: field_manager.to_owned(),
            body,
        }
    }

    /// The resource that is written, as `pod/status`.
    pub fn resource(&self) -> String {
        let kind = self.kind.to_lowercase();
        match self.subresource.as_str() {
            "" => kind,
            subresource => format!("{kind}/{subresource}"),
        }
    }
}

/// What an action says: its form, its field manager where it names one, and its body.
fn content(action: &Action) -> (&'static str, &'static str, Value) {
    match action {
        Action::Create { manifest } => ("manifest", "", manifest.clone()),
        Action::Delete { grace_seconds, .. } | Action::Evict { grace_seconds, .. } => {
            let options =
                grace_seconds.map_or_else(|| json!({}), |grace| json!({"gracePeriodSeconds": grace}));
            ("options", "", options)
        }
        Action::Patch { patch, .. } => match patch {
            Patch::Json { operations } => ("jsonPatch", "", operations.clone()),
            Patch::Merge(fields) => ("merge", "", fields.fields.clone()),
            Patch::Strategic(fields) => ("strategicMerge", "", fields.fields.clone()),
        },
        Action::Apply { manager, fields, .. } => ("apply", manager, fields.clone()),
        Action::Status { status, .. } => ("status", "", status.clone()),
        Action::DryRun { of, .. } => content(of),
    }
}
