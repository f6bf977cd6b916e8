//! Secondary indexes: the questions a mapper or an observer may ask of a store without scanning it.

use crate::key::{ObjectKey, Uid};
use crate::projection::Projection;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// The value objects are grouped by: an owner's UID, a node's name, a label.
///
/// Shares the string it is made from, so indexing costs no copy of it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct IndexKey(Arc<str>);

impl From<&str> for IndexKey {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<&Arc<str>> for IndexKey {
    fn from(text: &Arc<str>) -> Self {
        Self(Arc::clone(text))
    }
}

impl From<&Uid> for IndexKey {
    fn from(uid: &Uid) -> Self {
        Self(Arc::clone(&uid.0))
    }
}

/// A grouping of the objects of one store, by a pure function of the object alone.
///
/// Made to be a constant, named both where the store is registered and where it is asked:
///
/// ```
/// # use springtide_plumbing::{key::Resource, projection::{Meta, NoLabels, Projection}};
/// # #[derive(Clone, serde::Deserialize)] struct Pod { metadata: Meta }
/// # impl Projection for Pod {
/// #     const RESOURCE: Resource = Resource::POD;
/// #     type Labels = NoLabels;
/// #     fn meta(&self) -> &Meta { &self.metadata }
/// # }
/// use springtide_plumbing::store::{Index, IndexKey};
///
/// /// Pods by the UID of their controlling owner.
/// const PODS_BY_OWNER: Index<Pod> =
///     Index::new("owner", |pod| pod.metadata.controller.as_ref().map(|owner| IndexKey::from(&owner.uid)));
/// ```
pub struct Index<P> {
    name: &'static str,
    keys: Keys<P>,
}

/// By what an object is found.
enum Keys<P> {
    /// One key at most, as of an index of many objects: it costs no list.
    One(fn(&P) -> Option<IndexKey>),
    /// Any number of them.
    Many(fn(&P) -> Vec<IndexKey>),
}

impl<P> Index<P> {
    /// An index called `name` (unique within a store); an object for which `key_of` gives `None` is not in it.
    pub const fn new(name: &'static str, key_of: fn(&P) -> Option<IndexKey>) -> Self {
        Self { name, keys: Keys::One(key_of) }
    }

    /// The same by any number of keys: an object is found by each of them, by one that is there twice once.
    pub const fn many(name: &'static str, keys_of: fn(&P) -> Vec<IndexKey>) -> Self {
        Self { name, keys: Keys::Many(keys_of) }
    }

    /// The name, unique within a store.
    pub fn name(&self) -> &'static str {
        self.name
    }
}

impl<P> Clone for Index<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Index<P> {}

impl<P> Clone for Keys<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Keys<P> {}

impl<P> fmt::Debug for Index<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Index").field(&self.name).finish()
    }
}

/// The content of one index. A bucket is a vector sorted by object key: eight bytes per object,
/// where a map per bucket would cost more than the projection's own identity.
pub(super) struct IndexTable<P> {
    index: Index<P>,
    buckets: HashMap<IndexKey, Vec<Arc<P>>>,
}

impl<P: Projection> IndexTable<P> {
    pub(super) fn new(index: Index<P>) -> Self {
        Self { index, buckets: HashMap::new() }
    }

    pub(super) fn name(&self) -> &'static str {
        self.index.name
    }

    /// Puts `new` in the place of `old`, the object that had the same key until now.
    pub(super) fn replace(&mut self, old: Option<&Arc<P>>, new: Option<&Arc<P>>) {
        match self.index.keys {
            Keys::One(key_of) => {
                let keys = |object: Option<&Arc<P>>| object.and_then(|object| key_of(object));
                self.file(keys(old).as_slice(), old, keys(new).as_slice(), new);
            }
            Keys::Many(keys_of) => {
                let keys = |object: Option<&Arc<P>>| object.map(|object| keys_of(object)).unwrap_or_default();
                self.file(&keys(old), old, &keys(new), new);
            }
        }
    }

    fn file(
        &mut self,
        before: &[IndexKey],
        old: Option<&Arc<P>>,
        now: &[IndexKey],
        new: Option<&Arc<P>>,
    ) {
        if let Some(old) = old {
            for bucket in before.iter().filter(|bucket| !now.contains(bucket)) {
                self.remove(bucket, &old.meta().key);
            }
        }
        let Some(object) = new else { return };
        for bucket in now {
            let objects = self.buckets.entry(bucket.clone()).or_default();
            match position(objects, &object.meta().key) {
                Ok(found) => objects[found] = Arc::clone(object),
                Err(gap) => objects.insert(gap, Arc::clone(object)),
            }
        }
    }

    pub(super) fn get(&self, key: &IndexKey) -> Vec<Arc<P>> {
        self.buckets.get(key).cloned().unwrap_or_default()
    }

    fn remove(&mut self, bucket: &IndexKey, key: &ObjectKey) {
        let Some(objects) = self.buckets.get_mut(bucket) else { return };
        if let Ok(found) = position(objects, key) {
            objects.remove(found);
        }
        if objects.is_empty() {
            self.buckets.remove(bucket);
        }
    }
}

fn position<P: Projection>(objects: &[Arc<P>], key: &ObjectKey) -> Result<usize, usize> {
    objects.binary_search_by(|object| object.meta().key.cmp(key))
}
