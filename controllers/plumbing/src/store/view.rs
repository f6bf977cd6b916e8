//! What can be asked of a store without knowing what it holds.

use super::{AdvanceListener, Part, Store};
use crate::key::{ObjectKey, Resource, ResourceVersion, Uid};
use crate::projection::Projection;
use futures::FutureExt;
use futures::future::BoxFuture;

/// A store of any projection: for the read-your-writes gate, readiness and metrics.
pub trait StoreView: Send + Sync {
    /// The kind stored.
    fn resource(&self) -> Resource;
    /// See [`Store::len`].
    fn object_count(&self) -> usize;
    /// See [`Store::bytes`].
    fn bytes(&self) -> usize;
    /// See [`Store::parts`].
    fn parts(&self) -> &[Part];
    /// See [`Store::part_of`].
    fn part_of(&self, namespace: &str) -> Option<&Part>;
    /// UID, resourceVersion and whether deletion was asked for, of the object now stored under `key`.
    fn identity(&self, key: &ObjectKey) -> Option<(Uid, ResourceVersion, bool)>;
    /// See [`Store::is_synced`].
    fn is_synced(&self) -> bool;
    /// See [`Store::synced`].
    fn wait_synced(&self) -> BoxFuture<'static, ()>;
    /// See [`Store::on_advance`].
    fn on_advance(&self, listener: AdvanceListener);
}

impl<P: Projection> StoreView for Store<P> {
    fn resource(&self) -> Resource {
        P::RESOURCE
    }

    fn object_count(&self) -> usize {
        self.len()
    }

    fn bytes(&self) -> usize {
        Store::bytes(self)
    }

    fn parts(&self) -> &[Part] {
        Store::parts(self)
    }

    fn part_of(&self, namespace: &str) -> Option<&Part> {
        Store::part_of(self, namespace)
    }

    fn identity(&self, key: &ObjectKey) -> Option<(Uid, ResourceVersion, bool)> {
        let object = self.get(key)?;
        let meta = object.meta();
        Some((meta.uid.clone(), meta.resource_version, meta.is_deleting()))
    }

    fn is_synced(&self) -> bool {
        Store::is_synced(self)
    }

    fn wait_synced(&self) -> BoxFuture<'static, ()> {
        self.synced().boxed()
    }

    fn on_advance(&self, listener: AdvanceListener) {
        Store::on_advance(self, listener);
    }
}
