//! The store of one watch: projections by key and by index, and who is told when they change.
//!
//! A change takes this way, and no other: store and indexes, then the listeners in the order of their
//! registration, then [`Store::last_rv`], then the advance listeners. So whoever sees `last_rv` reach a
//! version may rely on every listener (a ledger, a queue) having seen it too.

mod index;
mod state;
mod view;

pub use index::{Index, IndexKey};
pub use view::StoreView;

pub(crate) use state::same_version;

use crate::key::{ObjectKey, ResourceVersion};
use crate::projection::Projection;
use crate::watch::{STALE_AFTER, WatchStats};
use state::State;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// What happened to one object.
#[derive(Clone, Debug)]
pub enum Change<P> {
    /// The object appeared or changed.
    Apply {
        /// The version before; `None` for an object the store did not have.
        old: Option<Arc<P>>,
        /// The version now in the store.
        new: Arc<P>,
        /// Part of the first list, or of the snapshot given to a late listener: nothing says that it
        /// changed just now.
        initial: bool,
    },
    /// The object is gone.
    Delete {
        /// Its last state: that of the DELETED event, or the last one stored when the event was missed.
        last: Arc<P>,
    },
}

impl<P> Change<P> {
    /// The object as it is now, or was last.
    pub fn object(&self) -> &Arc<P> {
        match self {
            Self::Apply { new, .. } => new,
            Self::Delete { last } => last,
        }
    }

    /// The object where it is there now; `None` after a delete.
    pub fn present(&self) -> Option<&Arc<P>> {
        match self {
            Self::Apply { new, .. } => Some(new),
            Self::Delete { .. } => None,
        }
    }
}

/// A synchronous listener to changes; see [`Store::on_change`] for what it may do.
pub type ChangeListener<P> = Arc<dyn Fn(&Change<P>) + Send + Sync>;
/// A synchronous listener to the progress of [`Store::last_rv`]; bound by the same rules.
pub type AdvanceListener = Arc<dyn Fn(ResourceVersion) + Send + Sync>;
/// A synchronous listener to the end of a stale time, see [`Store::on_fresh`]; bound by the same rules.
pub type FreshListener = Arc<dyn Fn() + Send + Sync>;

/// A handle on the objects of one kind and scope, as last seen; cheap to clone, for reading only.
///
/// It is filled by the one [`StoreWriter`] that was made with it.
pub struct Store<P: Projection> {
    shared: Arc<Shared<P>>,
}

impl<P: Projection> Clone for Store<P> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<P: Projection> fmt::Debug for Store<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("resource", &P::RESOURCE)
            .field("objects", &self.len())
            .field("last_rv", &self.last_rv())
            .finish()
    }
}

struct Shared<P> {
    state: RwLock<State<P>>,
    last_rv: Mutex<ResourceVersion>,
    /// Held from before a change enters `state` until every listener has seen it, and while a late
    /// listener takes its snapshot: this is what makes both whole.
    listeners: Mutex<Listeners<P>>,
    synced: watch::Sender<bool>,
    /// Why it is not synced.
    obstacle: Mutex<Option<String>>,
    stats: WatchStats,
}

struct Listeners<P> {
    change: Vec<ChangeListener<P>>,
    advance: Vec<AdvanceListener>,
    fresh: Vec<FreshListener>,
}

impl<P: Projection> Store<P> {
    /// An empty store with these indexes, and the one writer to it.
    pub fn new(indexes: &[Index<P>]) -> (Self, StoreWriter<P>) {
        let shared = Arc::new(Shared {
            state: RwLock::new(State::new(indexes)),
            last_rv: Mutex::default(),
            listeners: Mutex::new(Listeners { change: Vec::new(), advance: Vec::new(), fresh: Vec::new() }),
            synced: watch::Sender::new(false),
            obstacle: Mutex::default(),
            stats: WatchStats::default(),
        });
        let store = Self { shared };
        (store.clone(), StoreWriter { store, listed: false })
    }

    /// The object of that key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<P>> {
        read(&self.shared.state).objects().get(key).cloned()
    }

    /// The objects of one namespace, or all, ordered by key. For a start, a resync or a report:
    /// an event is mapped by [`Store::by_index`].
    pub fn list(&self, namespace: Option<&str>) -> Vec<Arc<P>> {
        read(&self.shared.state).list(namespace)
    }

    /// The objects that `index` files under `key`, ordered by object key.
    ///
    /// # Panics
    /// If the store was registered without that index.
    pub fn by_index(&self, index: &Index<P>, key: &IndexKey) -> Vec<Arc<P>> {
        match read(&self.shared.state).by_index(index.name(), key) {
            Some(objects) => objects,
            // An empty answer would look like "no such objects" and be acted upon.
            None => panic!(
                "the store of {} has no index `{}`: name it where the watch is added",
                P::RESOURCE,
                index.name()
            ),
        }
    }

    /// How many objects are stored.
    pub fn len(&self) -> usize {
        read(&self.shared.state).objects().len()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The highest resourceVersion this store reflects, by event, list or bookmark; zero before the
    /// first list. It moves after the listeners have run.
    pub fn last_rv(&self) -> ResourceVersion {
        *lock(&self.shared.last_rv)
    }

    /// Whether a first list is complete, and the kind is still served.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// What keeps the store from being synced, for people: how the last attempt ended. `None` where it is synced,
    /// and before the first attempt has ended.
    pub fn obstacle(&self) -> Option<String> {
        lock(&self.shared.obstacle).clone()
    }

    /// Whether nothing (event, bookmark or list) has brought the store forward for [`STALE_AFTER`], or
    /// ever since it was made: what it says may be long past, and nothing may be destroyed on its word.
    pub fn is_stale(&self) -> bool {
        self.shared.stats.since_last_frame() >= STALE_AFTER
    }

    /// Resolves when the store is synced, at once if it is; any number may wait.
    pub fn synced(&self) -> impl Future<Output = ()> + Send + 'static {
        let store = self.clone();
        async move {
            let mut receiver = store.shared.synced.subscribe();
            // The sender lives in `store`, so the channel cannot close while this waits.
            let _ = receiver.wait_for(|synced| *synced).await;
        }
    }

    /// Counters of the watch behind this store.
    pub fn stats(&self) -> &WatchStats {
        &self.shared.stats
    }

    /// Calls `listener` for every object now stored (`initial: true`, in key order), then for every
    /// change after that, each exactly once and in the order of the watch.
    ///
    /// It runs on the watch's task, so it must be brief. It may read any store, and enqueue; it must
    /// not register a listener, which would wait for itself.
    pub fn on_change(&self, listener: ChangeListener<P>) {
        let mut listeners = lock(&self.shared.listeners);
        for new in self.list(None) {
            listener(&Change::Apply { old: None, new, initial: true });
        }
        listeners.change.push(listener);
    }

    /// Calls `listener` each time [`Store::last_rv`] has moved and every change listener has run.
    /// Under the rules of [`Store::on_change`]. The present value is not announced: register first,
    /// then read it.
    pub fn on_advance(&self, listener: AdvanceListener) {
        lock(&self.shared.listeners).advance.push(listener);
    }

    /// Calls `listener` each time the store was stale and has been brought forward, by whatever frame;
    /// after the listeners of that frame itself. Under the rules of [`Store::on_change`].
    pub fn on_fresh(&self, listener: FreshListener) {
        lock(&self.shared.listeners).fresh.push(listener);
    }
}

/// The one way to fill a store: the watch loop holds it, and so may a test.
#[derive(Debug)]
pub struct StoreWriter<P: Projection> {
    store: Store<P>,
    listed: bool,
}

impl<P: Projection> StoreWriter<P> {
    /// The store this writes to.
    pub fn store(&self) -> &Store<P> {
        &self.store
    }

    /// An ADDED or MODIFIED event. The same version once more changes nothing.
    pub fn apply(&mut self, object: P) {
        let rv = self.not_before(object.meta().resource_version);
        self.commit(rv, |state, changes| state.apply(Arc::new(object), false, changes));
    }

    /// A DELETED event with the object's last state; nothing happens if it was not stored.
    pub fn delete(&mut self, object: P) {
        let rv = self.not_before(object.meta().resource_version);
        self.commit(rv, |state, changes| {
            if state.remove(&object.meta().key).is_some() {
                changes.push(Change::Delete { last: Arc::new(object) });
            }
        });
    }

    /// A DELETED event of which only key and version could be read: the stored state is the last one.
    pub fn delete_unread(&mut self, key: &ObjectKey, rv: ResourceVersion) {
        self.commit(self.not_before(rv), |state, changes| {
            changes.extend(state.remove(key).map(|last| Change::Delete { last }));
        });
    }

    /// A bookmark: everything up to `rv` has been seen.
    pub fn advance(&mut self, rv: ResourceVersion) {
        self.commit(self.not_before(rv), |_, _| {});
    }

    /// A complete list at `rv`: what is missing in it is deleted, what has another version applied.
    /// Afterwards the store is synced. `rv` is taken even when it is lower than before.
    pub fn replace(&mut self, list: BTreeMap<ObjectKey, Arc<P>>, rv: ResourceVersion) {
        let initial = !self.listed;
        self.commit(rv, |state, changes| state.take_list(list, initial, changes));
        self.listed = true;
        *lock(&self.store.shared.obstacle) = None;
        self.store.shared.synced.send_replace(true);
    }

    /// The kind is not served at present. The content stays, until a list says otherwise.
    pub fn set_unsynced(&mut self) {
        self.store.shared.synced.send_replace(false);
    }

    /// An attempt to list has ended so. Says nothing where the store is synced: it shows what it last knew.
    pub fn set_obstacle(&mut self, why: String) {
        if !self.store.is_synced() {
            *lock(&self.store.shared.obstacle) = Some(why);
        }
    }

    fn not_before(&self, rv: ResourceVersion) -> ResourceVersion {
        rv.max(self.store.last_rv())
    }

    fn commit(&mut self, rv: ResourceVersion, change: impl FnOnce(&mut State<P>, &mut Vec<Change<P>>)) {
        let shared = &self.store.shared;
        let listeners = lock(&shared.listeners);
        let mut changes = Vec::new();
        change(&mut write(&shared.state), &mut changes);
        for change in &changes {
            for listener in &listeners.change {
                listener(change);
            }
        }
        let was_stale = self.store.is_stale();
        shared.stats.frame();
        let before = std::mem::replace(&mut *lock(&shared.last_rv), rv);
        if before != rv {
            for listener in &listeners.advance {
                listener(rv);
            }
        }
        if was_stale {
            for listener in &listeners.fresh {
                listener();
            }
        }
    }
}

// A listener that panics ends its watch, which is reported and ends the process. The data under these
// locks is whole at every point where that can happen, so poisoning says nothing more.

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
