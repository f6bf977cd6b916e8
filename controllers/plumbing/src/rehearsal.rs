//! What the rehearsals of controllers share: a controller's own code over a snapshot of a cluster in memory, for people
//! who ask why an object is where it is, and what would be written for it.

use crate::key::{ObjectKey, ResourceVersion};
use crate::projection::Projection;
use crate::store::StoreWriter;
use jiff::Timestamp;
use serde::Serialize;
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

/// Fills a store with a list. `seen` becomes the highest version so far, which is that of the list too.
pub fn fill<P: Projection>(writer: &mut StoreWriter<P>, objects: &[Arc<P>], seen: &mut ResourceVersion) {
    let list: BTreeMap<ObjectKey, Arc<P>> =
        objects.iter().map(|object| (object.meta().key.clone(), Arc::clone(object))).collect();
    *seen =
        list.values().map(|object| object.meta().resource_version).max().max(Some(*seen)).unwrap_or_default();
    writer.replace(list, *seen);
}
