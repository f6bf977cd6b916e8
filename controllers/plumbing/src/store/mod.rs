//! The store of one kind: projections by key and by index, and who is told when they change.
//!
//! It is filled by one watch, or by one for each of several namespaces: these are its [`Part`]s. Stores of several
//! projections may be filled by the same watches; then they share their parts.
//!
//! A change takes this way, and no other: store and indexes, then the listeners in the order of their
//! registration, then [`Part::last_rv`], then the advance listeners. So whoever sees `last_rv` reach a
//! version may rely on every listener (a ledger, a queue) having seen it too.

mod fill;
mod index;
mod part;
mod state;
mod view;

pub use index::{Index, IndexKey};
pub use part::{Part, Trouble};
pub use view::StoreView;

pub(crate) use fill::{Fill, Kept, finish};
pub(crate) use state::same_version;

use crate::key::{ObjectKey, ResourceVersion};
use crate::projection::Projection;
use crate::watch::Scope;
use part::Progress;
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

impl<P: Projection> Change<P> {
    /// Whether it changes what is asked for: the object came, went, or has another generation.
    fn is_of_spec(&self) -> bool {
        match self {
            Self::Apply { initial: true, .. } => false,
            Self::Apply { old: None, .. } | Self::Delete { .. } => true,
            Self::Apply { old: Some(old), new, .. } => old.meta().generation != new.meta().generation,
        }
    }
}

/// A synchronous listener to changes; see [`Store::on_change`] for what it may do.
pub type ChangeListener<P> = Arc<dyn Fn(&Change<P>) + Send + Sync>;
/// A synchronous listener to the progress of a part, see [`Store::on_advance`]; bound by the same rules.
pub type AdvanceListener = Arc<dyn Fn(&Part) + Send + Sync>;
/// A synchronous listener to the end of a stale time, see [`Store::on_fresh`]; bound by the same rules.
pub type FreshListener = Arc<dyn Fn() + Send + Sync>;

/// A handle on the objects of one kind and scope, as last seen; cheap to clone, for reading only.
///
/// It is filled by the [`StoreWriter`]s that were made with it, one for each [`Part`].
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
    /// At least one. That of the whole cluster is alone; those of namespaces are in the order of these.
    parts: Arc<[Part]>,
    /// Held from before a change enters `state` until every listener to changes has seen it, and while a late
    /// listener takes its snapshot: this is what makes both whole.
    listeners: Mutex<Listeners<P>>,
    synced: watch::Sender<bool>,
}

struct Listeners<P> {
    change: Vec<ChangeListener<P>>,
    advance: Vec<AdvanceListener>,
    fresh: Vec<FreshListener>,
}

impl<P: Projection> Store<P> {
    /// An empty store of the whole cluster with these indexes, and the one writer to it.
    pub fn new(indexes: &[Index<P>]) -> (Self, StoreWriter<P>) {
        let store = Self::of_parts([Part::new(None)].into(), indexes);
        (store.clone(), StoreWriter { store, part: 0 })
    }

    /// An empty store with these indexes, and a writer to each of its parts, in the order of
    /// [`Store::parts`].
    pub fn within(scope: &Scope, indexes: &[Index<P>]) -> (Self, Vec<StoreWriter<P>>) {
        Self::of_watches(scope.parts().into_iter().map(Part::new).collect(), indexes)
    }

    /// The same of a kind that the server may lack: then the store is synced, and empty.
    pub fn optional(scope: &Scope, indexes: &[Index<P>]) -> (Self, Vec<StoreWriter<P>>) {
        Self::of_watches(scope.parts().into_iter().map(Part::optional).collect(), indexes)
    }

    /// An empty store beside others that the same watches fill, and a writer to each of its parts.
    pub(crate) fn of_watches(parts: Arc<[Part]>, indexes: &[Index<P>]) -> (Self, Vec<StoreWriter<P>>) {
        let store = Self::of_parts(parts, indexes);
        let writer = |part| StoreWriter { store: store.clone(), part };
        let writers = (0..store.parts().len()).map(writer).collect();
        (store, writers)
    }

    fn of_parts(parts: Arc<[Part]>, indexes: &[Index<P>]) -> Self {
        let shared = Arc::new(Shared {
            state: RwLock::new(State::new(indexes)),
            parts,
            listeners: Mutex::new(Listeners { change: Vec::new(), advance: Vec::new(), fresh: Vec::new() }),
            synced: watch::Sender::new(false),
        });
        Self { shared }
    }

    /// The object of that key.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<P>> {
        read(&self.shared.state).get(key).cloned()
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

    /// Files the objects by these too, as far as they are not filed so by an index of that name.
    pub(crate) fn add_indexes(&self, indexes: &[Index<P>]) {
        write(&self.shared.state).add_indexes(indexes);
    }

    /// How many objects are stored.
    pub fn len(&self) -> usize {
        read(&self.shared.state).len()
    }

    /// About how many bytes of memory the objects take, see [`Projection::bytes`].
    pub fn bytes(&self) -> usize {
        read(&self.shared.state).bytes()
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What each of the watches behind it shows, in the order of their namespaces. The same parts as those of a store
    /// that the same watches fill.
    pub fn parts(&self) -> &[Part] {
        &self.shared.parts
    }

    /// The same, to be shared with another store.
    pub(crate) fn shared_parts(&self) -> Arc<[Part]> {
        Arc::clone(&self.shared.parts)
    }

    /// The part that shows the objects of a namespace (empty for cluster-scoped ones), if one does.
    pub fn part_of(&self, namespace: &str) -> Option<&Part> {
        match self.parts() {
            [whole] if whole.namespace().is_none() => Some(whole),
            parts => {
                let by_name = |part: &Part| part.namespace().map_or("", |name| &**name).cmp(namespace);
                parts.binary_search_by(by_name).ok().map(|found| &parts[found])
            }
        }
    }

    /// The resourceVersion that every part reflects. It moves after the listeners have run.
    pub fn last_rv(&self) -> ResourceVersion {
        self.parts().iter().map(Part::last_rv).min().unwrap_or_default()
    }

    /// Whether there is nothing to wait for: some part is listed, and every other one too, or the server
    /// has said that it may not be watched. One namespace that is forbidden must not hold up the others;
    /// its [`Part::trouble`] tells of it. Not while the kind is not served.
    pub fn is_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Whether a part of it is stale: what it says may be long past, and nothing may be destroyed on its
    /// word.
    pub fn is_stale(&self) -> bool {
        self.parts().iter().any(Part::is_stale)
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

    /// Calls `listener` with each part whose [`Part::last_rv`] has moved, or whose first list is complete,
    /// when every change listener has run. Under the rules of [`Store::on_change`]. The present value
    /// is not announced: register first, then read it.
    pub fn on_advance(&self, listener: AdvanceListener) {
        lock(&self.shared.listeners).advance.push(listener);
    }

    /// Calls `listener` each time a part was stale and has been brought forward, by whatever frame;
    /// after the listeners of that frame itself. Under the rules of [`Store::on_change`].
    pub fn on_fresh(&self, listener: FreshListener) {
        lock(&self.shared.listeners).fresh.push(listener);
    }
}

/// The one way to fill a part of a store: the watch loop holds it, and so may a test.
#[derive(Debug)]
pub struct StoreWriter<P: Projection> {
    store: Store<P>,
    /// Its place among the parts.
    part: usize,
}

impl<P: Projection> StoreWriter<P> {
    /// The store this writes to.
    pub fn store(&self) -> &Store<P> {
        &self.store
    }

    /// The part that this writes.
    pub fn part(&self) -> &Part {
        &self.store.shared.parts[self.part]
    }

    /// An ADDED or MODIFIED event. The same version once more changes nothing.
    pub fn apply(&mut self, object: P) {
        let rv = self.not_before(object.meta().resource_version);
        self.commit(rv, |state, changes| state.apply(Arc::new(object), false, changes));
    }

    /// A DELETED event with the object's last state; nothing happens if it was not stored.
    pub fn delete(&mut self, object: P) {
        let rv = self.not_before(object.meta().resource_version);
        self.commit(rv, |state, changes| state.delete(Arc::new(object), changes));
    }

    /// A DELETED event of which only key and version could be read: the stored state is the last one.
    pub fn delete_unread(&mut self, key: &ObjectKey, rv: ResourceVersion) {
        self.commit(self.not_before(rv), |state, changes| state.delete_unread(key, changes));
    }

    /// A bookmark: everything up to `rv` has been seen.
    pub fn advance(&mut self, rv: ResourceVersion) {
        self.commit(self.not_before(rv), |_, _| {});
    }

    /// A complete list of the part at `rv`: what is missing in it is deleted, what has another version
    /// applied; other parts are not touched. `rv` is taken even when it is lower than before.
    pub fn replace(&mut self, list: BTreeMap<ObjectKey, Arc<P>>, rv: ResourceVersion) {
        let spec_changes = self.enter_list(list);
        finish(self.part(), rv, true, spec_changes, &[self]);
    }

    fn enter_list(&self, list: BTreeMap<ObjectKey, Arc<P>>) -> usize {
        let (initial, namespace) = (!self.part().is_listed(), self.part().namespace());
        self.enter(|state, changes| {
            state.take_list(namespace.map(|name| &**name), list, initial, changes);
        })
    }

    /// The server does not show the part at present. The content stays, until a list says otherwise. Returns
    /// whether that is news.
    pub fn set_trouble(&mut self, trouble: Trouble) -> bool {
        let is_news = self.part().set_trouble(trouble);
        self.tell_synced();
        is_news
    }

    /// An attempt to show the part has ended so, in words for people. Says nothing where it is synced.
    pub fn set_obstacle(&mut self, why: String) {
        self.part().set_obstacle(why);
    }

    fn not_before(&self, rv: ResourceVersion) -> ResourceVersion {
        rv.max(self.part().last_rv())
    }

    fn commit(&self, rv: ResourceVersion, change: impl FnOnce(&mut State<P>, &mut Vec<Change<P>>)) {
        let spec_changes = self.enter(change);
        finish(self.part(), rv, false, spec_changes, &[self]);
    }

    /// Changes the content and tells those who listen to changes. Gives the number of changes of what is asked for.
    fn enter(&self, change: impl FnOnce(&mut State<P>, &mut Vec<Change<P>>)) -> usize {
        let shared = &self.store.shared;
        let listeners = lock(&shared.listeners);
        let mut changes = Vec::new();
        change(&mut write(&shared.state), &mut changes);
        for change in &changes {
            for listener in &listeners.change {
                listener(change);
            }
        }
        changes.iter().filter(|change| change.is_of_spec()).count()
    }
}

impl<P> Shared<P> {
    /// Looks at the parts anew, under the lock of the channel: the last to change one tells the truth.
    fn tell_synced(&self) {
        self.synced.send_if_modified(|synced| {
            let progress = || self.parts.iter().map(Part::progress);
            let now = progress().all(|part| part != Progress::Awaited)
                && progress().any(|part| part == Progress::Listed);
            std::mem::replace(synced, now) != now
        });
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
