//! What the rehearsals of controllers share: a controller's own code over a snapshot of a cluster in memory, for people
//! who ask why an object is where it is, and what would be written for it.

mod planned_write;

pub use planned_write::PlannedWrite;

use crate::key::{ObjectKey, ResourceVersion};
use crate::projection::Projection;
use crate::store::{Index, Store, StoreWriter};
use jiff::Timestamp;
use serde::Serialize;
use springtide_crds::common::Condition;
use springtide_crds::reason::Reason;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What an answer rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Basis {
    /// The manager's own planner, run on what the cluster has now.
    Computed,
    /// What the manager has written into the object's status: something could not be read, or is known to it alone.
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

impl ConditionLine {
    /// A condition as it is told.
    pub fn of(told: &Condition) -> Self {
        Self {
            type_: told.type_.clone(),
            status: told.status.as_str().to_owned(),
            reason: told.reason.clone(),
            message: told.message.clone(),
        }
    }
}

/// What the manager wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Reported {
    /// Reason of the condition that says why the object waits.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// When its status last changed.
    pub since: Timestamp,
    /// Whether it is about the object as it is now, not as it was before an edit.
    pub is_current: bool,
}

impl Reported {
    /// What a condition says of an object of this generation.
    pub fn of(told: &Condition, generation: i64) -> Self {
        Self {
            reason: told.reason.clone(),
            message: told.message.clone(),
            since: told.last_transition_time.0,
            is_current: told.observed_generation == generation,
        }
    }
}

/// A store that is filled with these, and who fills it further. `seen` as [`fill`] has it.
pub fn stored<P: Projection>(
    objects: &[Arc<P>],
    indexes: &[Index<P>],
    seen: &mut ResourceVersion,
) -> (Store<P>, StoreWriter<P>) {
    let (store, mut writer) = Store::new(indexes);
    fill(&mut writer, objects, seen);
    (store, writer)
}

/// Fills a store with a list. `seen` becomes the highest version so far, which is that of the list too.
pub fn fill<P: Projection>(writer: &mut StoreWriter<P>, objects: &[Arc<P>], seen: &mut ResourceVersion) {
    let list: BTreeMap<ObjectKey, Arc<P>> =
        objects.iter().map(|object| (object.meta().key.clone(), Arc::clone(object))).collect();
    *seen =
        list.values().map(|object| object.meta().resource_version).max().max(Some(*seen)).unwrap_or_default();
    writer.replace(list, *seen);
}
