//! What can be asked of a store without knowing what it holds.

use super::{AdvanceListener, Store};
use crate::key::{ObjectKey, Resource, ResourceVersion, Uid};
use crate::projection::Projection;
use crate::watch::WatchStats;
use futures::FutureExt;
use futures::future::BoxFuture;

/// A store of any projection: for the read-your-writes gate, readiness and metrics.
pub trait StoreView: Send + Sync {
    /// The kind stored.
    fn resource(&self) -> Resource;
    /// See [`Store::len`].
    fn object_count(&self) -> usize;
    /// See [`Store::last_rv`].
    fn last_rv(&self) -> ResourceVersion;
    /// UID, resourceVersion and whether deletion was asked for, of the object now stored under `key`.
    fn identity(&self, key: &ObjectKey) -> Option<(Uid, ResourceVersion, bool)>;
    /// See [`Store::is_synced`].
    fn is_synced(&self) -> bool;
    /// See [`Store::obstacle`].
    fn obstacle(&self) -> Option<String>;
    /// See [`Store::is_stale`].
    fn is_stale(&self) -> bool;
    /// See [`Store::synced`].
    fn wait_synced(&self) -> BoxFuture<'static, ()>;
    /// See [`Store::on_advance`].
    fn on_advance(&self, listener: AdvanceListener);
    /// See [`Store::stats`].
    fn stats(&self) -> &WatchStats;
}

impl<P: Projection> StoreView for Store<P> {
    fn resource(&self) -> Resource {
        P::RESOURCE
    }

    fn object_count(&self) -> usize {
        self.len()
    }

    fn last_rv(&self) -> ResourceVersion {
        Store::last_rv(self)
    }

    fn identity(&self, key: &ObjectKey) -> Option<(Uid, ResourceVersion, bool)> {
        let object = self.get(key)?;
        let meta = object.meta();
        Some((meta.uid.clone(), meta.resource_version, meta.is_deleting()))
    }

    fn is_synced(&self) -> bool {
        Store::is_synced(self)
    }

    fn obstacle(&self) -> Option<String> {
        Store::obstacle(self)
    }

    fn is_stale(&self) -> bool {
        Store::is_stale(self)
    }

    fn wait_synced(&self) -> BoxFuture<'static, ()> {
        self.synced().boxed()
    }

    fn on_advance(&self, listener: AdvanceListener) {
        Store::on_advance(self, listener);
    }

    fn stats(&self) -> &WatchStats {
        Store::stats(self)
    }
}
