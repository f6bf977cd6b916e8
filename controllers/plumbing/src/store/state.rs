//! The content of a store and its indexes: plain data, changed under the store's lock.

use super::Change;
use super::index::{Index, IndexKey, IndexTable};
use crate::key::ObjectKey;
use crate::projection::Projection;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

pub(super) struct State<P> {
    objects: BTreeSet<Keyed<P>>,
    indexes: Vec<IndexTable<P>>,
    /// Sum of [`Projection::bytes`].
    bytes: usize,
}

/// An object in the order of the keys, which it bears itself: a map would hold another.
struct Keyed<P>(Arc<P>);

impl<P: Projection> Borrow<ObjectKey> for Keyed<P> {
    fn borrow(&self) -> &ObjectKey {
        &self.0.meta().key
    }
}

impl<P: Projection> Ord for Keyed<P> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.meta().key.cmp(&other.0.meta().key)
    }
}

impl<P: Projection> PartialOrd for Keyed<P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Projection> PartialEq for Keyed<P> {
    fn eq(&self, other: &Self) -> bool {
        self.0.meta().key == other.0.meta().key
    }
}

impl<P: Projection> Eq for Keyed<P> {}

impl<P: Projection> State<P> {
    pub(super) fn new(indexes: &[Index<P>]) -> Self {
        Self {
            objects: BTreeSet::new(),
            indexes: indexes.iter().copied().map(IndexTable::new).collect(),
            bytes: 0,
        }
    }

    pub(super) fn add_indexes(&mut self, indexes: &[Index<P>]) {
        for index in indexes {
            if self.indexes.iter().any(|table| table.name() == index.name()) {
                continue;
            }
            let mut table = IndexTable::new(*index);
            for Keyed(object) in &self.objects {
                table.replace(None, Some(object));
            }
            self.indexes.push(table);
        }
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Arc<P>> {
        self.objects.get(key).map(|Keyed(object)| object)
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn list(&self, namespace: Option<&str>) -> Vec<Arc<P>> {
        self.range(namespace).cloned().collect()
    }

    /// The objects of one namespace, or all.
    fn range(&self, namespace: Option<&str>) -> impl Iterator<Item = &Arc<P>> {
        // No name is empty, so this bound stands right before the first object of the namespace.
        let start = namespace.map(|namespace| ObjectKey::new(namespace, ""));
        let start = start.as_ref().map_or(Bound::Unbounded, Bound::Included);
        self.objects.range::<ObjectKey, _>((start, Bound::Unbounded)).map(|Keyed(object)| object).take_while(
            move |object| namespace.is_none_or(|namespace| *object.meta().key.namespace == *namespace),
        )
    }

    pub(super) fn by_index(&self, name: &str, key: &IndexKey) -> Option<Vec<Arc<P>>> {
        self.indexes.iter().find(|table| table.name() == name).map(|table| table.get(key))
    }

    /// Stores one object. Nothing changes if that very version is stored already; another UID under
    /// the same key is another object, so the former one is deleted first.
    pub(super) fn apply(&mut self, mut new: Arc<P>, initial: bool, changes: &mut Vec<Change<P>>) {
        let old = self.get(&new.meta().key).cloned();
        let old = match old {
            Some(old) if same_version(&*old, &*new) => return,
            Some(old) if old.meta().uid != new.meta().uid => {
                self.remove(&new.meta().key);
                changes.push(Change::Delete { last: old });
                None
            }
            Some(_) | None => old,
        };
        if let (Some(old), Some(new)) = (&old, Arc::get_mut(&mut new)) {
            new.share_identity(old);
        }
        for table in &mut self.indexes {
            table.replace(old.as_ref(), Some(&new));
        }
        self.bytes = self.bytes.saturating_sub(old.as_ref().map_or(0, |old| old.bytes())) + new.bytes();
        self.objects.replace(Keyed(Arc::clone(&new)));
        changes.push(Change::Apply { old, new, initial });
    }

    /// Takes an object out whose last state is known; nothing happens if it was not stored.
    pub(super) fn delete(&mut self, last: Arc<P>, changes: &mut Vec<Change<P>>) {
        if self.remove(&last.meta().key).is_some() {
            changes.push(Change::Delete { last });
        }
    }

    /// Takes an object out whose stored state is the last one that is known.
    pub(super) fn delete_unread(&mut self, key: &ObjectKey, changes: &mut Vec<Change<P>>) {
        changes.extend(self.remove(key).map(|last| Change::Delete { last }));
    }

    fn remove(&mut self, key: &ObjectKey) -> Option<Arc<P>> {
        let Keyed(old) = self.objects.take(key)?;
        self.bytes = self.bytes.saturating_sub(old.bytes());
        for table in &mut self.indexes {
            table.replace(Some(&old), None);
        }
        Some(old)
    }

    /// Takes over a complete list of one namespace, or of all. Deletes come first, so that a listener that counts capacity frees
    /// before it takes; within each part the order is that of the keys.
    pub(super) fn take_list(
        &mut self,
        namespace: Option<&str>,
        list: BTreeMap<ObjectKey, Arc<P>>,
        initial: bool,
        changes: &mut Vec<Change<P>>,
    ) {
        let gone: Vec<ObjectKey> = self
            .range(namespace)
            .map(|old| old.meta())
            .filter(|old| list.get(&old.key).is_none_or(|new| new.meta().uid != old.uid))
            .map(|old| old.key.clone())
            .collect();
        for key in gone {
            changes.extend(self.remove(&key).map(|last| Change::Delete { last }));
        }
        for new in list.into_values() {
            self.apply(new, initial, changes);
        }
    }
}

pub(crate) fn same_version<P: Projection>(a: &P, b: &P) -> bool {
    a.meta().uid == b.meta().uid && a.meta().resource_version == b.meta().resource_version
}
