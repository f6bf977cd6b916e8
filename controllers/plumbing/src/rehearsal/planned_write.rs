//! A write that was planned, as data for people and programs: its JSON form is stable within the apiVersion of the command
//! that prints it.

use crate::plan::{Action, Patch, Write};
use serde::Serialize;
use serde_json::{Value, json};

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
