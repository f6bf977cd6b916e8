//! Plans: every write a controller wants, as data, before anything is sent.
//!
//! A planner is a pure function from what was observed to a [`Plan`]. It is idempotent (planning
//! again after its effects gives an empty plan) and correct after a crash between any two writes:
//! what must not be forgotten stands in a deterministic name or in the stored status.

use crate::events::EventNote;
use crate::key::{ObjectKey, Resource, ResourceVersion, Uid};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The most writes of one pass, so that no key holds a worker and the budget for long. The executor
/// leaves what is beyond it to the next plan.
pub const MAX_WRITES: usize = 200;
/// The most bytes of a status as JSON; the executor sends no larger one. Every watcher of the kind
/// gets it with every change.
pub const MAX_STATUS_BYTES: usize = 10_000;

/// The JSON pointer to an object's finalizers.
const FINALIZERS: &str = "/metadata/finalizers";

/// What one reconcile pass will do, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Writes in order: the steps of one stage are independent and may be in flight together; a stage
    /// starts when the one before it has succeeded as a whole.
    pub stages: Vec<Vec<Step>>,
    /// The status write of the owner, sent last, and only when it differs.
    pub status: Option<Write>,
    /// When to plan again without an event.
    pub wake: Option<Timestamp>,
    /// Where the object stands.
    pub outcome: Outcome,
    /// The decisions in words, for explanations and logs.
    pub why: Vec<Why>,
    /// What users are told once all writes have succeeded.
    pub events: Vec<EventNote>,
}

impl Plan {
    /// A plan that writes nothing.
    pub fn idle(outcome: Outcome) -> Self {
        Self { stages: Vec::new(), status: None, wake: None, outcome, why: Vec::new(), events: Vec::new() }
    }

    /// Number of writes, the status included.
    pub fn writes(&self) -> usize {
        let staged = self.stages.iter().flatten().map(|step| step.writes().len());
        staged.sum::<usize>() + usize::from(self.status.is_some())
    }

    /// Makes the wake time the earlier of its own and `at`.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }
}

/// One element of a stage. A write becomes one by `into`.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// One write.
    One(Write),
    /// Writes that are sent back to back, each when the one before it is answered: the write budget has
    /// room for all of them before the first goes out. One that does not succeed stops the rest.
    Chain(Vec<Write>),
}

impl Step {
    /// Its writes, in order.
    pub fn writes(&self) -> &[Write] {
        match self {
            Self::One(write) => std::slice::from_ref(write),
            Self::Chain(writes) => writes,
        }
    }

    /// Its writes, in order.
    pub fn into_writes(self) -> Vec<Write> {
        match self {
            Self::One(write) => vec![write],
            Self::Chain(writes) => writes,
        }
    }
}

impl From<Write> for Step {
    fn from(write: Write) -> Self {
        Self::One(write)
    }
}

/// Where an object stands after a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The world is as the spec asks; nothing is left to do.
    Converged,
    /// Work is under way; an event of its own objects brings the next pass.
    Progressing,
    /// Something that comes by itself is awaited (capacity, a point in time).
    Waiting,
    /// A person has to change something first.
    Blocked,
}

/// One decision of a planner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The documented reason, CamelCase.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// Which kind of pressure a write may be shed under: the write budget sheds from the bottom.
///
/// Leases are not here: they never pass the budget, and go out on a client of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriteClass {
    /// Gives something back or keeps users from harm: finalizer release, rollback, traffic restored.
    Protective,
    /// Creates, deletes and changes of spec.
    Spec,
    /// Status of our own objects.
    Status,
    /// What can wait: history trimming, waiting records, work found by an initial list.
    Low,
    /// Events; dropped first.
    Event,
}

impl WriteClass {
    /// All classes, most important first.
    pub const ALL: [Self; 5] = [Self::Protective, Self::Spec, Self::Status, Self::Low, Self::Event];

    /// Whether writes of this class give way under pressure: events are dropped, others put off.
    pub fn is_shed(self) -> bool {
        match self {
            Self::Low | Self::Event => true,
            Self::Protective | Self::Spec | Self::Status => false,
        }
    }

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protective => "protective",
            Self::Spec => "spec",
            Self::Status => "status",
            Self::Low => "low",
            Self::Event => "event",
        }
    }
}

/// One write, complete with the precondition that makes it safe on a stale view.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Resource type of the object written.
    pub resource: Resource,
    /// The object written.
    pub key: ObjectKey,
    /// Budget class.
    pub class: WriteClass,
    /// What is done to it.
    pub action: Action,
}

/// What a write does. Each variant carries the precondition under which it is right.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// POST under the deterministic name in [`Write::key`]; the name is the precondition.
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
    /// JSON patch whose `test` operations are the precondition; a failed test is a conflict.
    Patch {
        /// RFC 6902 operations; the first one is a test.
        operations: Value,
    },
    /// Replaces the status sub-resource of exactly this version.
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
}

impl Action {
    /// The verb, as the audit log and the metrics name it.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Delete { .. } => "delete",
            Self::Patch { .. } | Self::Status { .. } => "patch",
        }
    }

    /// The sub-resource written, empty for the object itself.
    pub fn subresource(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Create { .. } | Self::Delete { .. } | Self::Patch { .. } => "",
        }
    }

    /// UID of the only object that it is for, as far as it says so.
    pub fn uid(&self) -> Option<&str> {
        match self {
            Self::Create { .. } => None,
            Self::Delete { uid, .. } | Self::Status { uid, .. } => Some(&uid.0),
            Self::Patch { operations } => operations.as_array().into_iter().flatten().find_map(|operation| {
                let tests_uid = operation["op"] == "test" && operation["path"] == "/metadata/uid";
                operation["value"].as_str().filter(|_| tests_uid)
            }),
        }
    }

    /// Whether it destroys something: a delete, or finalizers taken away, which may complete one. Of the
    /// operations on finalizers, or on what holds them, only `test` and the `add` of one to a list surely
    /// take none away.
    pub fn is_destructive(&self) -> bool {
        match self {
            Self::Delete { .. } => true,
            Self::Patch { operations } => operations.as_array().into_iter().flatten().any(|operation| {
                let paths = ["path", "from"].map(|field| operation[field].as_str().unwrap_or_default());
                let holds = |path: &str| FINALIZERS.starts_with(path);
                match operation["op"].as_str() {
                    Some("test") => false,
                    Some("add") => holds(paths[0]),
                    Some("move") => paths.iter().any(|path| holds(path) || path.starts_with(FINALIZERS)),
                    Some(_) | None => holds(paths[0]) || paths[0].starts_with(FINALIZERS),
                }
            }),
            Self::Create { .. } | Self::Status { .. } => false,
        }
    }

    /// Whether the write would change nothing, by what the planner saw.
    pub fn is_noop(&self) -> bool {
        match self {
            Self::Status { status, stored, .. } => same_but_for_times(status, stored),
            Self::Create { .. } | Self::Delete { .. } | Self::Patch { .. } => false,
        }
    }
}

/// A JSON patch that removes one finalizer from exactly this incarnation of an object.
///
/// `finalizers` is the list as observed; the tests make a list that changed meanwhile a conflict.
/// `None` when the finalizer is not in the list.
pub fn remove_finalizer(uid: &Uid, finalizers: &[std::sync::Arc<str>], finalizer: &str) -> Option<Action> {
    let at = finalizers.iter().position(|held| held.as_ref() == finalizer)?;
    let path = format!("{FINALIZERS}/{at}");
    Some(Action::Patch {
        operations: json!([
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": path, "value": finalizer},
            {"op": "remove", "path": path},
        ]),
    })
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
    fn a_finalizer_is_removed_by_its_observed_place() {
        let held = ["a".into(), "b".into()];
        let Some(Action::Patch { operations }) = remove_finalizer(&Uid("u".into()), &held, "b") else {
            panic!("b is held")
        };
        assert_eq!(operations[2]["path"], "/metadata/finalizers/1");
        assert_eq!(remove_finalizer(&Uid("u".into()), &held, "c"), None);
        assert_eq!(Action::Patch { operations }.uid(), Some("u"));
    }

    #[test]
    fn whatever_may_take_a_finalizer_away_is_destructive() {
        let patch = |operation| {
            let test = json!({"op": "test", "path": "/metadata/finalizers/0", "value": "a"});
            Action::Patch { operations: json!([test, operation]) }
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
    }

    #[test]
    fn the_earlier_wake_wins() {
        let mut plan = Plan::idle(Outcome::Waiting);
        plan.wake_at(Timestamp::from_second(20).unwrap());
        plan.wake_at(Timestamp::from_second(10).unwrap());
        plan.wake_at(Timestamp::from_second(30).unwrap());
        assert_eq!(plan.wake, Some(Timestamp::from_second(10).unwrap()));
    }
}
