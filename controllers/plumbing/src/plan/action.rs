//! What one write does, under which precondition, and what it tells of itself.
//!
//! What becomes of a write whose answer is lost (a cut connection, a 5xx) is known of none of them. The key is not
//! planned before the store shows the object anew, or one consistent GET agrees with the store; then the planner sees
//! what is there. So each write has to be one that is right to be planned again:
//!
//! | action | if it was stored | if it was not |
//! |---|---|---|
//! | `Create` | the name is taken: by us | planned again |
//! | `Delete`, `Evict` | the object is deleting or gone | planned again, for the same incarnation alone |
//! | `Patch`, `Status` | the store shows the new values: no difference, no write | planned again on the version that is shown |
//! | `Apply` | the same | the same; an apply twice is one |
//! | `DryRun` | nothing is ever stored | asked again |

use crate::key::{ResourceVersion, Uid};
use serde_json::{Value, json};
use std::sync::Arc;

/// The JSON pointer to an object's finalizers.
const FINALIZERS: &str = "/metadata/finalizers";

/// What a write does. Each variant carries the precondition under which it is right.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// POST under the deterministic name in [`Write::key`](super::Write::key); the name is the precondition.
    Create {
        /// The whole object, `apiVersion` and `kind` included.
        manifest: Value,
    },
    /// DELETE of exactly this incarnation.
    Delete {
        /// Only the object with this UID.
        uid: Uid,
        /// Only in this version; left out where the object is terminal and cannot come back.
        resource_version: Option<ResourceVersion>,
        /// Seconds from SIGTERM to SIGKILL for a pod; the object's own when absent.
        grace_seconds: Option<u32>,
    },
    /// Changes some fields, under the precondition in the patch.
    Patch {
        /// Of the object itself, or of which sub-resource.
        part: Part,
        /// The fields.
        patch: Patch,
    },
    /// Server-side apply: the fields become these, and ours. Fields that the same manager applied before and that are
    /// missing now are removed, so what is applied apart needs managers apart. Never makes an object.
    ///
    /// Finalizers are not for it, as one that is missing is taken away without a word: [`remove_finalizer`].
    Apply {
        /// Of the object itself, or of which sub-resource.
        part: Part,
        /// Name of the field manager: `springtide-<controller>`, and more behind it where one controller applies
        /// several sets of fields.
        manager: &'static str,
        /// Only the object with this UID. Never left out: an apply to a name that nothing bears would make an object.
        uid: Uid,
        /// Only in this version; left out where the manager's ownership of the fields is enough.
        resource_version: Option<ResourceVersion>,
        /// The fields, a JSON object like `{"spec": {"paused": true}}`; the writer adds `apiVersion`, `kind`, name
        /// and precondition.
        fields: Value,
        /// Whether to take fields that others hold. Without, that is a
        /// [`FieldConflict`](crate::error::WriteError::FieldConflict).
        force: bool,
    },
    /// POST to `pods/eviction`: a delete that PodDisruptionBudgets may refuse, which is
    /// [`DisruptionBudget`](crate::error::WriteError::DisruptionBudget). Counts as a delete for warrants and breaker.
    Evict {
        /// Only the pod with this UID.
        uid: Uid,
        /// Only in this version, where given.
        resource_version: Option<ResourceVersion>,
        /// Seconds from SIGTERM to SIGKILL; the pod's own when absent.
        grace_seconds: Option<u32>,
    },
    /// Replaces the status sub-resource of exactly this version, of an object of ours.
    Status {
        /// UID of the object.
        uid: Uid,
        /// Version on which the decision rested.
        resource_version: ResourceVersion,
        /// The whole new status.
        status: Value,
        /// The status as stored: equal ones (times apart) are not written.
        stored: Value,
    },
    /// Asks what another action would come to: validation, ownership of fields and admission are run, nothing is
    /// stored. The answer is [`Done::dry_run`](crate::executor::Done::dry_run); it enters a controller's memory by
    /// [`Reconciler::settle`](crate::controller::Reconciler::settle), see [`Verdicts`](crate::dry_run::Verdicts).
    DryRun {
        /// The name under which the answer is looked for, unique for its key: what is asked of which revision, say.
        question: Arc<str>,
        /// The action in question.
        of: Box<Action>,
    },
}

/// What of an object a write is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The object itself.
    Main,
    /// Its status: conditions of pods and the like. For the status of our own kinds there is [`Action::Status`].
    Status,
    /// Requests and limits of a running pod (`pods/resize`).
    Resize,
    /// The number of replicas of a workload (`scale`).
    Scale,
}

impl Part {
    /// The sub-resource, empty for the object itself.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Resize => "resize",
            Self::Scale => "scale",
        }
    }
}

/// The body of a patch, with its precondition.
#[derive(Clone, Debug, PartialEq)]
pub enum Patch {
    /// JSON patch (RFC 6902) whose `test` operations are the precondition; a failed test is a conflict. For noisy
    /// co-writers: it tests the values that the decision rests on, and nothing else.
    Json {
        /// The operations; the first one is a test of `/metadata/uid`.
        operations: Value,
    },
    /// JSON merge patch (RFC 7386): lists are replaced as a whole, `null` removes.
    Merge(Fields),
    /// Strategic merge patch: lists are merged by their keys (containers by name, conditions by type). Kinds of
    /// Kubernetes itself only; custom resources refuse it (415).
    Strategic(Fields),
}

/// Fields to change, and of which object.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields {
    /// Only the object with this UID.
    pub uid: Uid,
    /// Only in this version. Left out where the co-writer is noisy and the fields are ours alone.
    pub resource_version: Option<ResourceVersion>,
    /// The fields, a JSON object; the writer puts the precondition into its `metadata`.
    pub fields: Value,
}

impl Action {
    /// A JSON patch of an object itself; see [`Patch::Json`].
    pub fn json_patch(operations: Value) -> Self {
        Self::Patch { part: Part::Main, patch: Patch::Json { operations } }
    }

    /// The question what this would come to; see [`Action::DryRun`].
    #[must_use]
    pub fn dry_run(self, question: impl Into<Arc<str>>) -> Self {
        Self::DryRun { question: question.into(), of: Box::new(self) }
    }

    /// The verb, as the audit log and the metrics name it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } | Self::Evict { .. } => "create",
            Self::Delete { .. } => "delete",
            Self::Patch { .. } | Self::Apply { .. } | Self::Status { .. } => "patch",
            Self::DryRun { of, .. } => of.verb(),
        }
    }

    /// The sub-resource written, empty for the object itself.
    pub fn subresource(&self) -> &'static str {
        match self {
            Self::Patch { part, .. } | Self::Apply { part, .. } => part.as_str(),
            Self::Evict { .. } => "eviction",
            Self::Status { .. } => "status",
            Self::Create { .. } | Self::Delete { .. } => "",
            Self::DryRun { of, .. } => of.subresource(),
        }
    }

    /// UID of the only object that it is for, as far as it says so.
    pub fn uid(&self) -> Option<&str> {
        match self {
            Self::Create { .. } => None,
            Self::Delete { uid, .. }
            | Self::Apply { uid, .. }
            | Self::Evict { uid, .. }
            | Self::Status { uid, .. }
            | Self::Patch {
                patch: Patch::Merge(Fields { uid, .. }) | Patch::Strategic(Fields { uid, .. }),
                ..
            } => Some(&uid.0),
            Self::Patch { patch: Patch::Json { operations }, .. } => each(operations).find_map(|operation| {
                let tests_uid = operation["op"] == "test" && operation["path"] == "/metadata/uid";
                operation["value"].as_str().filter(|_| tests_uid)
            }),
            Self::DryRun { of, .. } => of.uid(),
        }
    }

    /// The only version of the object that it is for, where it names one in its precondition.
    pub fn resource_version(&self) -> Option<ResourceVersion> {
        match self {
            Self::Create { .. } | Self::Patch { patch: Patch::Json { .. }, .. } => None,
            Self::Status { resource_version, .. } => Some(*resource_version),
            Self::Delete { resource_version, .. }
            | Self::Apply { resource_version, .. }
            | Self::Evict { resource_version, .. }
            | Self::Patch {
                patch:
                    Patch::Merge(Fields { resource_version, .. })
                    | Patch::Strategic(Fields { resource_version, .. }),
                ..
            } => *resource_version,
            Self::DryRun { of, .. } => of.resource_version(),
        }
    }

    /// Whether the object is to go, at once or with its last finalizer.
    pub fn is_delete(&self) -> bool {
        match self {
            Self::Delete { .. } | Self::Evict { .. } => true,
            Self::Create { .. }
            | Self::Patch { .. }
            | Self::Apply { .. }
            | Self::Status { .. }
            | Self::DryRun { .. } => false,
        }
    }

    /// Whether it destroys something: a delete or eviction, or finalizers taken away, which may complete one.
    pub fn is_destructive(&self) -> bool {
        match self {
            Self::Delete { .. } | Self::Evict { .. } => true,
            Self::Patch { patch, .. } => patch.may_take_finalizers(),
            Self::Apply { fields, .. } => sets_finalizers(fields),
            Self::Create { .. } | Self::Status { .. } | Self::DryRun { .. } => false,
        }
    }

    /// Whether the write would change nothing, by what the planner saw. What a merge or an apply would change is
    /// known to the server alone, so their planners compare before they plan.
    pub fn is_noop(&self) -> bool {
        match self {
            Self::Status { status, stored, .. } => same_but_for_times(status, stored),
            Self::Patch { patch, .. } => patch.changes_nothing(),
            Self::Create { .. }
            | Self::Delete { .. }
            | Self::Apply { .. }
            | Self::Evict { .. }
            | Self::DryRun { .. } => false,
        }
    }
}

impl Patch {
    /// Of the operations on finalizers, or on what holds them, only `test` and the `add` of one to a list surely
    /// take none away.
    fn may_take_finalizers(&self) -> bool {
        match self {
            Self::Json { operations } => each(operations).any(|operation| {
                let paths = ["path", "from"].map(|field| operation[field].as_str().unwrap_or_default());
                let holds = |path: &str| FINALIZERS.starts_with(path);
                match operation["op"].as_str() {
                    Some("test") => false,
                    Some("add") => holds(paths[0]),
                    Some("move") => paths.iter().any(|path| holds(path) || path.starts_with(FINALIZERS)),
                    Some(_) | None => holds(paths[0]) || paths[0].starts_with(FINALIZERS),
                }
            }),
            Self::Merge(Fields { fields, .. }) | Self::Strategic(Fields { fields, .. }) => {
                sets_finalizers(fields)
            }
        }
    }

    fn changes_nothing(&self) -> bool {
        match self {
            Self::Json { operations } => each(operations).all(|operation| {
                let is_tested = || {
                    each(operations).any(|test| {
                        test["op"] == "test"
                            && test["path"] == operation["path"]
                            && test["value"] == operation["value"]
                    })
                };
                operation["op"] == "test" || (operation["op"] == "replace" && is_tested())
            }),
            Self::Merge(Fields { fields, .. }) | Self::Strategic(Fields { fields, .. }) => {
                fields.as_object().is_none_or(serde_json::Map::is_empty)
            }
        }
    }
}

fn each(operations: &Value) -> impl Iterator<Item = &Value> {
    operations.as_array().into_iter().flatten()
}

/// Whether fields to merge say anything of finalizers: a list that replaces the one that is there, a directive
/// (`$patch`, `$deleteFromPrimitiveList/finalizers`), or `null` for what holds them.
fn sets_finalizers(fields: &Value) -> bool {
    let Some(metadata) = fields.get("metadata") else { return fields.get("$patch").is_some() };
    let names = metadata.as_object().into_iter().flatten().map(|(name, _)| name);
    let is_of_them = |name: &String| name.ends_with("finalizers") || name.starts_with("$patch");
    metadata.is_null() || fields.get("$patch").is_some() || names.into_iter().any(is_of_them)
}

/// A JSON patch that removes one finalizer from exactly this incarnation of an object.
///
/// `finalizers` is the list as observed; the tests make a list that changed meanwhile a conflict.
/// `None` when the finalizer is not in the list.
pub fn remove_finalizer(uid: &Uid, finalizers: &[Arc<str>], finalizer: &str) -> Option<Action> {
    let at = finalizers.iter().position(|held| held.as_ref() == finalizer)?;
    let path = format!("{FINALIZERS}/{at}");
    Some(Action::json_patch(json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": path, "value": finalizer},
        {"op": "remove", "path": path},
    ])))
}

/// Compares two JSON trees; of a field whose name ends in `Time`, only its presence counts.
fn same_but_for_times(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| {
                    right
                        .get(name)
                        .is_some_and(|other| name.ends_with("Time") || same_but_for_times(value, other))
                })
        }
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(a, b)| same_but_for_times(a, b))
        }
        (left, right) => left == right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(stored: Value, status: Value) -> Action {
        Action::Status { uid: Uid::default(), resource_version: ResourceVersion(1), status, stored }
    }

    fn merge(fields: Value) -> Patch {
        Patch::Merge(Fields { uid: Uid("u".into()), resource_version: Some(ResourceVersion(4)), fields })
    }

    fn apply(fields: Value) -> Action {
        Action::Apply {
            part: Part::Main,
            manager: "springtide-a",
            uid: Uid("u".into()),
            resource_version: None,
            fields,
            force: false,
        }
    }

    fn evict() -> Action {
        Action::Evict { uid: Uid("u".into()), resource_version: None, grace_seconds: None }
    }

    #[test]
    fn a_status_that_differs_in_times_alone_is_no_write() {
        let stored = json!({"active": 1, "conditions": [{"type": "A", "lastTransitionTime": "x"}]});
        assert!(
            status(
                stored.clone(),
                json!({"active": 1, "conditions": [{"type": "A", "lastTransitionTime": "y"}]})
            )
            .is_noop()
        );
        assert!(!status(stored.clone(), json!({"active": 2, "conditions": []})).is_noop());
        assert!(!status(json!({}), json!({"startTime": "x"})).is_noop(), "a time that appears is news");
    }

    #[test]
    fn a_patch_that_sets_what_it_tests_is_no_write() {
        let test = json!({"op": "test", "path": "/spec/replicas", "value": 3});
        let set = |value| json!({"op": "replace", "path": "/spec/replicas", "value": value});
        assert!(Action::json_patch(json!([test, set(3)])).is_noop());
        assert!(Action::json_patch(json!([test])).is_noop());
        assert!(!Action::json_patch(json!([test, set(4)])).is_noop());
        assert!(!Action::json_patch(json!([set(3)])).is_noop(), "nobody knows");
        let inserts = json!({"op": "add", "path": "/spec/replicas", "value": 3});
        assert!(!Action::json_patch(json!([test, inserts])).is_noop(), "into a list it would be one more");
        assert!(Action::Patch { part: Part::Main, patch: merge(json!({})) }.is_noop());
        assert!(!Action::Patch { part: Part::Main, patch: merge(json!({"spec": {}})) }.is_noop());
        assert!(!apply(json!({})).is_noop(), "it gives up what was applied before");
    }

    #[test]
    fn a_finalizer_is_removed_by_its_observed_place() {
        let held = ["a".into(), "b".into()];
        let removal = remove_finalizer(&Uid("u".into()), &held, "b").unwrap();
        let Action::Patch { patch: Patch::Json { operations }, .. } = &removal else { panic!("{removal:?}") };
        assert_eq!(operations[2]["path"], "/metadata/finalizers/1");
        assert_eq!(remove_finalizer(&Uid("u".into()), &held, "c"), None);
        assert_eq!(removal.uid(), Some("u"));
    }

    #[test]
    fn whatever_may_take_a_finalizer_away_is_destructive() {
        let patch = |operation| {
            let test = json!({"op": "test", "path": "/metadata/finalizers/0", "value": "a"});
            Action::json_patch(json!([test, operation]))
        };
        for destructive in [
            json!({"op": "remove", "path": "/metadata/finalizers"}),
            json!({"op": "remove", "path": "/metadata/finalizers/0"}),
            json!({"op": "replace", "path": "/metadata/finalizers", "value": []}),
            json!({"op": "add", "path": "/metadata/finalizers", "value": []}),
            json!({"op": "move", "from": "/metadata/finalizers/0", "path": "/metadata/labels/a"}),
            json!({"op": "copy", "from": "/metadata/labels/a", "path": "/metadata/finalizers/0"}),
            json!({"op": "replace", "path": "/metadata", "value": {}}),
            json!({"op": "remove", "path": "/metadata"}),
            json!({"op": "replace", "path": "", "value": {}}),
        ] {
            assert!(patch(destructive.clone()).is_destructive(), "{destructive}");
        }
        for harmless in [
            json!({"op": "add", "path": "/metadata/finalizers/-", "value": "b"}),
            json!({"op": "remove", "path": "/metadata/labels/a"}),
            json!({"op": "replace", "path": "/spec/suspend", "value": true}),
        ] {
            assert!(!patch(harmless.clone()).is_destructive(), "{harmless}");
        }
        for (fields, destroys) in [
            (json!({"metadata": {"finalizers": ["a"]}}), true),
            (json!({"metadata": {"finalizers": null}}), true),
            (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}), true),
            (json!({"metadata": {"$patch": "replace", "labels": {}}}), true),
            (json!({"metadata": null}), true),
            (json!({"$patch": "replace"}), true),
            (json!({"metadata": {"labels": {"a": "b"}}, "spec": {"paused": true}}), false),
            (json!({"status": {"conditions": []}}), false),
        ] {
            let merged = merge(fields.clone());
            let Patch::Merge(body) = merged.clone() else { panic!() };
            for patch in [merged, Patch::Strategic(body)] {
                assert_eq!(Action::Patch { part: Part::Main, patch }.is_destructive(), destroys, "{fields}");
            }
            assert_eq!(apply(fields.clone()).is_destructive(), destroys, "{fields}");
        }
    }

    #[test]
    fn an_eviction_counts_as_a_delete_and_a_question_as_nothing() {
        assert!(evict().is_delete() && evict().is_destructive());
        assert_eq!((evict().verb(), evict().subresource(), evict().uid()), ("create", "eviction", Some("u")));
        let asked = evict().dry_run("q");
        assert!(!asked.is_delete() && !asked.is_destructive() && !asked.is_noop());
        assert_eq!((asked.verb(), asked.subresource(), asked.uid()), ("create", "eviction", Some("u")));
    }

    #[test]
    fn every_part_names_its_subresource_and_its_precondition() {
        for part in [Part::Main, Part::Status, Part::Resize, Part::Scale] {
            let action = Action::Patch { part, patch: merge(json!({"a": 1})) };
            assert_eq!((action.verb(), action.subresource()), ("patch", part.as_str()));
            assert_eq!((action.uid(), action.resource_version()), (Some("u"), Some(ResourceVersion(4))));
        }
        assert_eq!(apply(json!({})).subresource(), "");
        assert_eq!(Action::json_patch(json!([{"op": "test", "path": "/a", "value": "u"}])).uid(), None);
    }
}
