//! Projections: the few fields of an object that somebody reads, decoded straight from the wire.
//!
//! A typed Pod takes some 55 KiB of memory, a projection of one about 2 KiB, and decoding skips
//! what is not named. Only types that implement [`Projection`] can enter a store, so caching a
//! generated Kubernetes type does not compile.

use crate::key::{ObjectKey, Resource, ResourceVersion, Uid};
use crate::text::{Shared, shared_text};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use std::sync::Arc;

/// A small copy of an API object: its identity and the fields that planners read.
pub trait Projection: DeserializeOwned + Clone + Send + Sync + 'static {
    /// The resource whose objects it is decoded from.
    const RESOURCE: Resource;
    /// The labels kept from `metadata.labels`.
    type Labels: DeserializeOwned + Default + Clone + Send + Sync + 'static;

    /// Identity and life cycle of the object.
    fn meta(&self) -> &Meta<Self::Labels>;

    /// Takes the texts of its name and UID from `old`, the version of it before: what holds them by key, or by UID, does
    /// so since long ago, and they need not be there twice. For kinds of which there are many; changes nothing else.
    fn share_identity(&mut self, _old: &Self) {}

    /// About how many bytes of memory it takes: itself and the text behind it. Text that objects share counts for
    /// each of them. It says the same as long as the object lives.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.meta().text_bytes()
    }
}

/// For kinds none of whose labels are read.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct NoLabels {}

/// The part of `metadata` that every controller needs; `L` names the labels it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta<L = NoLabels> {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`.
    pub resource_version: ResourceVersion,
    /// `metadata.generation`; 0 for kinds that have none.
    pub generation: i64,
    /// `metadata.creationTimestamp`; the epoch where the server sent none.
    pub creation_time: Timestamp,
    /// `metadata.deletionTimestamp`: when the grace period ends; present as soon as deletion was asked for.
    pub deletion_time: Option<Timestamp>,
    /// `metadata.finalizers`.
    pub finalizers: Vec<Arc<str>>,
    /// The owner reference with `controller: true`.
    pub controller: Option<Box<OwnerRef>>,
    /// The labels that somebody reads.
    pub labels: L,
}

impl<L> Meta<L> {
    /// Bytes of its text, labels not counted.
    pub fn text_bytes(&self) -> usize {
        let finalizers: usize =
            self.finalizers.iter().map(|finalizer| finalizer.len() + size_of::<Arc<str>>()).sum();
        let owner = self
            .controller
            .as_ref()
            .map_or(0, |owner| owner.kind.len() + owner.name.len() + owner.uid.0.len());
        self.key.namespace.len() + self.key.name.len() + self.uid.0.len() + finalizers + owner
    }

    /// See [`Projection::share_identity`].
    pub fn share_identity(&mut self, old: &Self) {
        if self.key == old.key {
            self.key.clone_from(&old.key);
        }
        if self.uid == old.uid {
            self.uid.clone_from(&old.uid);
        }
    }

    /// Whether deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.deletion_time.is_some()
    }
}

/// The controlling owner of an object.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerRef {
    /// Kind of the owner.
    #[serde(deserialize_with = "kind")]
    pub kind: Arc<str>,
    /// Name of the owner, in the object's own namespace.
    pub name: Arc<str>,
    /// UID of the owner.
    pub uid: Uid,
    #[serde(default)]
    controller: bool,
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    Shared::deserialize(deserializer).map(|shared| shared.0)
}

impl<'de, L: DeserializeOwned + Default> Deserialize<'de> for Meta<L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", bound = "L: DeserializeOwned + Default")]
        struct Wire<L> {
            #[serde(default)]
            namespace: Option<Shared>,
            name: Arc<str>,
            #[serde(default)]
            uid: Uid,
            #[serde(default)]
            resource_version: Option<String>,
            #[serde(default)]
            generation: i64,
            #[serde(default)]
            creation_timestamp: Option<Timestamp>,
            #[serde(default)]
            deletion_timestamp: Option<Timestamp>,
            #[serde(default)]
            finalizers: Vec<Shared>,
            #[serde(default)]
            owner_references: Vec<OwnerRef>,
            #[serde(default)]
            labels: L,
        }
        let wire = Wire::<L>::deserialize(deserializer)?;
        let mut finalizers: Vec<_> = wire.finalizers.into_iter().map(|shared| shared.0).collect();
        finalizers.shrink_to_fit();
        Ok(Self {
            key: ObjectKey {
                namespace: wire.namespace.map_or_else(|| shared_text(""), |shared| shared.0),
                name: wire.name,
            },
            uid: wire.uid,
            resource_version: wire
                .resource_version
                .as_deref()
                .and_then(ResourceVersion::parse)
                .unwrap_or_default(),
            generation: wire.generation,
            creation_time: wire.creation_timestamp.unwrap_or(Timestamp::UNIX_EPOCH),
            deletion_time: wire.deletion_timestamp,
            finalizers,
            controller: wire.owner_references.into_iter().find(|owner| owner.controller).map(Box::new),
            labels: wire.labels,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_keeps_the_controller_and_the_named_labels() {
        #[derive(Clone, Debug, Default, Deserialize)]
        struct Labels {
            #[serde(rename = "springtide.dev/job", default)]
            job: Option<String>,
        }
        let meta: Meta<Labels> = serde_json::from_value(serde_json::json!({
            "namespace": "ns", "name": "p", "uid": "u1", "resourceVersion": "42", "generation": 3,
            "creationTimestamp": "2026-11-11T00:00:00Z",
            "labels": {"springtide.dev/job": "j", "other": "x"},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "A", "name": "a", "uid": "ua"},
                {"apiVersion": "v1", "kind": "B", "name": "b", "uid": "ub", "controller": true}
            ]
        }))
        .unwrap();
        assert_eq!(meta.key, ObjectKey::new("ns", "p"));
        assert_eq!(meta.resource_version, ResourceVersion(42));
        assert_eq!(meta.controller.unwrap().name.as_ref(), "b");
        assert_eq!(meta.labels.job.as_deref(), Some("j"));
        assert!(meta.deletion_time.is_none());
    }
}
