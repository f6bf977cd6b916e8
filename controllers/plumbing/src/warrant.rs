//! Warrants: what entitles a write to destroy something.
//!
//! A warrant is derived anew from the stores, right before the write, by code that no planner calls. A bug
//! in a planner therefore has to be made twice, in different words, before it destroys more than the
//! [breaker](crate::breaker) lets pass.

use crate::key::{ObjectKey, Resource};
use serde::{Deserialize, Deserializer};

/// Label of objects that are never deleted, whatever its value.
pub const PROTECTION_LABEL: &str = "springtide.dev/delete-protection";

/// Why an object may be destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Warrant {
    /// It has ended, and what came of it is recorded; or it has stayed for as long as it was to.
    Finished,
    /// Its owner is gone or being deleted.
    OwnerGone,
    /// The owner's spec asks for it: a suspension, a deadline or policy that is met, a lowered count.
    Declared,
}

impl Warrant {
    /// All of them, for metrics that start at zero.
    pub const ALL: [Self; 3] = [Self::Finished, Self::OwnerGone, Self::Declared];

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::OwnerGone => "owner_gone",
            Self::Declared => "declared",
        }
    }
}

/// What a write would destroy.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Resource type of the object.
    pub resource: Resource,
    /// The object.
    pub key: &'a ObjectKey,
    /// The incarnation that the write is for, as far as it says so.
    pub uid: Option<&'a str>,
    /// Whether it is deleted or evicted; else a finalizer is taken away.
    pub is_delete: bool,
}

/// Derives warrants for the destructive writes of one controller, from its stores alone.
pub trait Warrants: Send + Sync {
    /// Why the target may be destroyed; `None` where the stores say nothing that would entitle to it.
    ///
    /// Asked once for each write right before it leaves, on the task of a worker. Where what is declared
    /// has a number (three pods fewer), no more are warranted, also while the stores do not show yet
    /// what was warranted before.
    fn warrant(&self, target: &Target<'_>) -> Option<Warrant>;

    /// Whether the target bears [`PROTECTION_LABEL`].
    fn is_protected(&self, target: &Target<'_>) -> bool;

    /// Live objects of this kind in the care of the controller, in one namespace or all: what its caps are
    /// measured by.
    fn live(&self, resource: Resource, namespace: Option<&str>) -> usize;
}

/// For a controller that destroys nothing: whatever it would destroy all the same has no warrant.
#[derive(Clone, Copy, Debug)]
pub struct NoWarrants;

impl Warrants for NoWarrants {
    fn warrant(&self, _: &Target<'_>) -> Option<Warrant> {
        None
    }

    fn is_protected(&self, _: &Target<'_>) -> bool {
        false
    }

    fn live(&self, _: Resource, _: Option<&str>) -> usize {
        0
    }
}

/// Whether [`PROTECTION_LABEL`] is there, as the field of a projection's labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection(pub bool);

impl<'de> Deserialize<'de> for Protection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}
