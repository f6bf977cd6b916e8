//! Where the watch loop puts what it reads.

use crate::key::{ObjectKey, Resource, ResourceVersion};
use crate::projection::Projection;
use crate::store::{Part, StoreWriter, Trouble, same_version};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the loop needs to know of an object, whatever is kept of it.
pub trait Watched: Send + 'static {
    /// Namespace and name.
    fn key(&self) -> &ObjectKey;
    /// `metadata.resourceVersion`.
    fn resource_version(&self) -> ResourceVersion;
}

impl<P: Projection> Watched for P {
    fn key(&self) -> &ObjectKey {
        &self.meta().key
    }

    fn resource_version(&self) -> ResourceVersion {
        self.meta().resource_version
    }
}

/// What one watch fills: the part of one store, or of several that keep different fields of the same objects.
pub trait Sink: Send + 'static {
    /// The objects as they are read.
    type Object: Watched;
    /// A list under way, kept apart from the stores, which serve their former content until it is whole.
    type Listing: Default + Send;

    /// The kind.
    fn resource(&self) -> Resource;
    /// The part: how far it has come.
    fn part(&self) -> &Part;
    /// Number of objects stored.
    fn stored(&self) -> usize;
    /// See [`StoreWriter::apply`].
    fn apply(&mut self, object: Self::Object);
    /// See [`StoreWriter::delete`].
    fn delete(&mut self, object: Self::Object);
    /// See [`StoreWriter::delete_unread`].
    fn delete_unread(&mut self, key: &ObjectKey, rv: ResourceVersion);
    /// See [`StoreWriter::advance`].
    fn advance(&mut self, rv: ResourceVersion);
    /// Takes an object into a list. The stored one where the version is the same, so that a relist does not double
    /// memory.
    fn put(&self, listing: &mut Self::Listing, object: Self::Object);
    /// Takes over what is stored of an object that exists but cannot be read.
    fn keep(&self, listing: &mut Self::Listing, key: &ObjectKey);
    /// Takes an object out of a list again.
    fn drop_listed(&self, listing: &mut Self::Listing, key: &ObjectKey);
    /// See [`StoreWriter::replace`].
    fn replace(&mut self, listing: Self::Listing, rv: ResourceVersion);
    /// See [`StoreWriter::set_trouble`].
    fn set_trouble(&mut self, trouble: Trouble) -> bool;
    /// See [`StoreWriter::set_obstacle`].
    fn set_obstacle(&mut self, why: String);
}

impl<P: Projection> Sink for StoreWriter<P> {
    type Object = P;
    type Listing = BTreeMap<ObjectKey, Arc<P>>;

    fn resource(&self) -> Resource {
        P::RESOURCE
    }

    fn part(&self) -> &Part {
        StoreWriter::part(self)
    }

    fn stored(&self) -> usize {
        self.store().len()
    }

    fn apply(&mut self, object: P) {
        StoreWriter::apply(self, object);
    }

    fn delete(&mut self, object: P) {
        StoreWriter::delete(self, object);
    }

    fn delete_unread(&mut self, key: &ObjectKey, rv: ResourceVersion) {
        StoreWriter::delete_unread(self, key, rv);
    }

    fn advance(&mut self, rv: ResourceVersion) {
        StoreWriter::advance(self, rv);
    }

    fn put(&self, listing: &mut Self::Listing, object: P) {
        let stored = self.store().get(&object.meta().key).filter(|stored| same_version(&**stored, &object));
        let object = stored.unwrap_or_else(|| Arc::new(object));
        listing.insert(object.meta().key.clone(), object);
    }

    fn keep(&self, listing: &mut Self::Listing, key: &ObjectKey) {
        if let Some(stored) = self.store().get(key) {
            listing.insert(key.clone(), stored);
        }
    }

    fn drop_listed(&self, listing: &mut Self::Listing, key: &ObjectKey) {
        listing.remove(key);
    }

    fn replace(&mut self, listing: Self::Listing, rv: ResourceVersion) {
        StoreWriter::replace(self, listing, rv);
    }

    fn set_trouble(&mut self, trouble: Trouble) -> bool {
        StoreWriter::set_trouble(self, trouble)
    }

    fn set_obstacle(&mut self, why: String) {
        StoreWriter::set_obstacle(self, why);
    }
}
