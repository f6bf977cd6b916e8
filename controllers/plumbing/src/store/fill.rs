//! How a watch fills its stores, whatever each of them keeps of the objects.

use super::{Part, StoreWriter, lock, same_version};
use crate::key::{ObjectKey, ResourceVersion};
use crate::projection::Projection;
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An object as one store keeps it: a projection of a type that only that store knows.
pub(crate) type Kept = Arc<dyn Any + Send + Sync>;

/// A writer to one part of a store, as one of several that a watch fills.
///
/// Those that change the content give the number of changes of what is asked for. Each is followed by one [`finish`]
/// for all stores.
pub(crate) trait Fill: Send {
    /// Number of objects stored.
    fn count(&self) -> usize;
    /// The stored object of the key.
    fn stored(&self, key: &ObjectKey) -> Option<Kept>;
    /// The stored object in place of `object`, if it is the same version.
    fn stored_as(&self, key: &ObjectKey, object: &Kept) -> Option<Kept>;
    /// As [`StoreWriter::apply`].
    fn apply(&mut self, object: &Kept) -> usize;
    /// As [`StoreWriter::delete`].
    fn delete(&mut self, object: &Kept) -> usize;
    /// As [`StoreWriter::delete_unread`].
    fn delete_unread(&mut self, key: &ObjectKey) -> usize;
    /// As [`StoreWriter::replace`].
    fn replace(&mut self, list: BTreeMap<ObjectKey, Kept>) -> usize;
    /// Calls who listens to the progress of the part.
    fn tell_advance(&self);
    /// Calls who listens to the end of a stale time.
    fn tell_fresh(&self);
    /// Wakes who waits for the store to be synced.
    fn tell_synced(&self);
}

/// Moves the version of a part on, when every listener to changes of every store has run, and tells those who wait.
pub(crate) fn finish(
    part: &Part,
    rv: ResourceVersion,
    is_list: bool,
    spec_changes: usize,
    stores: &[&dyn Fill],
) {
    part.stats().count_spec_changes(spec_changes);
    let (was_stale, was_synced) = (part.is_stale(), part.is_synced());
    if part.advance(rv, is_list) {
        stores.iter().for_each(|store| store.tell_advance());
    }
    if was_stale {
        stores.iter().for_each(|store| store.tell_fresh());
    }
    if !was_synced {
        stores.iter().for_each(|store| store.tell_synced());
    }
}

/// What only this store knows. It has decoded the object itself, so there is no other answer than `Some`.
fn own<P: Projection>(object: &Kept) -> Option<Arc<P>> {
    Arc::clone(object).downcast().ok()
}

impl<P: Projection> Fill for StoreWriter<P> {
    fn count(&self) -> usize {
        self.store.len()
    }

    fn stored(&self, key: &ObjectKey) -> Option<Kept> {
        self.store.get(key).map(|stored| stored as Kept)
    }

    fn stored_as(&self, key: &ObjectKey, object: &Kept) -> Option<Kept> {
        let (stored, object) = (self.store.get(key)?, own::<P>(object)?);
        same_version(&*stored, &*object).then_some(stored as Kept)
    }

    fn apply(&mut self, object: &Kept) -> usize {
        let Some(object) = own::<P>(object) else { return 0 };
        self.enter(|state, changes| state.apply(object, false, changes))
    }

    fn delete(&mut self, object: &Kept) -> usize {
        let Some(last) = own::<P>(object) else { return 0 };
        self.enter(|state, changes| state.delete(last, changes))
    }

    fn delete_unread(&mut self, key: &ObjectKey) -> usize {
        self.enter(|state, changes| state.delete_unread(key, changes))
    }

    fn replace(&mut self, list: BTreeMap<ObjectKey, Kept>) -> usize {
        let list = list.into_iter().filter_map(|(key, object)| Some((key, own::<P>(&object)?))).collect();
        self.enter_list(list)
    }

    fn tell_advance(&self) {
        let part = self.part();
        for listener in &lock(&self.store.shared.listeners).advance {
            listener(part);
        }
    }

    fn tell_fresh(&self) {
        for listener in &lock(&self.store.shared.listeners).fresh {
            listener();
        }
    }

    fn tell_synced(&self) {
        self.store.shared.tell_synced();
    }
}
