//! One watch for several stores: each object is decoded once for each of them, from the same bytes.
//!
//! The stores share their [`Part`]: it moves on when all of them have taken an event in, so whoever sees a version
//! reached finds it in every one. An object that one projection cannot be read from keeps its last known state in that
//! store alone.

use super::kube_source::{Collection, decode_event, decode_list};
use super::sink::{Sink, Watched};
use super::source::{
    EventStream, Identity, ListPage, ListRequest, Source, Unreadable, WatchError, WatchRequest,
};
use crate::key::{ObjectKey, Resource, ResourceVersion};
use crate::projection::Projection;
use crate::store::{Fill, Kept, Part, Trouble, finish};
use kube::core::WatchEvent;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An object as each store keeps it, in their order; what the decoder said where it could not be read.
pub(super) struct Fanned {
    key: ObjectKey,
    resource_version: ResourceVersion,
    kept: Box<[Result<Kept, String>]>,
}

impl Watched for Fanned {
    fn key(&self) -> &ObjectKey {
        &self.key
    }

    fn resource_version(&self) -> ResourceVersion {
        self.resource_version
    }
}

/// An object as one store keeps it.
pub(super) struct One {
    key: ObjectKey,
    resource_version: ResourceVersion,
    object: Kept,
}

impl One {
    fn of<P: Projection>(object: P) -> Self {
        let meta = object.meta();
        let (key, resource_version) = (meta.key.clone(), meta.resource_version);
        Self { key, resource_version, object: Arc::new(object) }
    }
}

/// Decodes for one store.
#[derive(Clone, Copy)]
pub(super) struct Decoder {
    event: fn(&[u8]) -> Result<WatchEvent<One>, WatchError>,
    list: fn(&[u8]) -> Result<ListPage<One>, WatchError>,
}

impl Decoder {
    pub(super) fn of<P: Projection>() -> Self {
        Self {
            event: |line| {
                Ok(match decode_event::<P>(line)? {
                    WatchEvent::Added(object) => WatchEvent::Added(One::of(object)),
                    WatchEvent::Modified(object) => WatchEvent::Modified(One::of(object)),
                    WatchEvent::Deleted(object) => WatchEvent::Deleted(One::of(object)),
                    WatchEvent::Bookmark(bookmark) => WatchEvent::Bookmark(bookmark),
                    WatchEvent::Error(status) => WatchEvent::Error(status),
                })
            },
            list: |body| {
                let ListPage { objects, unreadable, resource_version, continue_token } =
                    decode_list::<P>(body)?;
                let objects = objects.into_iter().map(One::of).collect();
                Ok(ListPage { objects, unreadable, resource_version, continue_token })
            },
        }
    }
}

/// The objects of one kind, decoded for several stores.
pub(super) struct FannedSource {
    collection: Collection,
    decoders: Arc<[Decoder]>,
}

impl FannedSource {
    pub(super) fn new(collection: Collection, decoders: Arc<[Decoder]>) -> Self {
        Self { collection, decoders }
    }
}

impl Source for FannedSource {
    type Object = Fanned;

    async fn open(&self, request: WatchRequest) -> Result<EventStream<Fanned>, WatchError> {
        let decoders = Arc::clone(&self.decoders);
        self.collection.open(request, move |line| event(&decoders, line)).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListPage<Fanned>, WatchError> {
        list(&self.decoders, &self.collection.list(request).await?)
    }
}

/// What kind of event an object came with.
enum Came {
    Added,
    Modified,
    Deleted,
}

fn event(decoders: &[Decoder], line: &[u8]) -> Result<WatchEvent<Fanned>, WatchError> {
    let mut kept = Vec::with_capacity(decoders.len());
    let mut read = None;
    let mut unread = None;
    for decoder in decoders {
        let (came, one) = match (decoder.event)(line) {
            Ok(WatchEvent::Added(one)) => (Came::Added, one),
            Ok(WatchEvent::Modified(one)) => (Came::Modified, one),
            Ok(WatchEvent::Deleted(one)) => (Came::Deleted, one),
            // These are the same for all.
            Ok(WatchEvent::Bookmark(bookmark)) => return Ok(WatchEvent::Bookmark(bookmark)),
            Ok(WatchEvent::Error(status)) => return Ok(WatchEvent::Error(status)),
            Err(WatchError::Unreadable(object)) => {
                kept.push(Err(object.message.clone()));
                unread = Some(object);
                continue;
            }
            Err(error) => return Err(error),
        };
        let One { key, resource_version, object } = one;
        kept.push(Ok(object));
        read = Some((came, key, resource_version));
    }
    match (read, unread) {
        (Some((came, key, resource_version)), _) => {
            let object = Fanned { key, resource_version, kept: kept.into() };
            Ok(match came {
                Came::Added => WatchEvent::Added(object),
                Came::Modified => WatchEvent::Modified(object),
                Came::Deleted => WatchEvent::Deleted(object),
            })
        }
        (None, Some(object)) => Err(WatchError::Unreadable(object)),
        // A watch for no store at all is none.
        (None, None) => Err(WatchError::Transport("nothing to decode an event for".to_owned())),
    }
}

/// What each store makes of one object of a list.
struct Row {
    resource_version: ResourceVersion,
    kept: Vec<Option<Result<Kept, String>>>,
}

fn list(decoders: &[Decoder], body: &[u8]) -> Result<ListPage<Fanned>, WatchError> {
    let mut rows = BTreeMap::<ObjectKey, Row>::new();
    let (mut unreadable, mut page) = (Vec::new(), None);
    for (at, decoder) in decoders.iter().enumerate() {
        let ListPage { objects, unreadable: failed, resource_version, continue_token } =
            (decoder.list)(body)?;
        page = Some((resource_version, continue_token));
        let mut set = |key, resource_version, kept| {
            let row = || Row { resource_version, kept: decoders.iter().map(|_| None).collect() };
            let row = rows.entry(key).or_insert_with(row);
            row.kept[at] = Some(kept);
        };
        for One { key, resource_version, object } in objects {
            set(key, resource_version, Ok(object));
        }
        for Unreadable { identity, message } in failed {
            match identity {
                Some(Identity { key, resource_version, .. }) => set(key, resource_version, Err(message)),
                None => unreadable.push(Unreadable { identity, message }),
            }
        }
    }
    let Some((resource_version, continue_token)) = page else {
        return Err(WatchError::Transport("nothing to decode a list for".to_owned()));
    };
    let objects = rows.into_iter().map(|(key, Row { resource_version, kept })| {
        let missing = || Err("it is missing among those that were decoded".to_owned());
        let kept = kept.into_iter().map(|kept| kept.unwrap_or_else(missing)).collect();
        Fanned { key, resource_version, kept }
    });
    Ok(ListPage { objects: objects.collect(), unreadable, resource_version, continue_token })
}

/// The writers to one part of several stores.
pub(super) struct Fan {
    resource: Resource,
    parts: Arc<[Part]>,
    /// Its place among the parts.
    part: usize,
    writers: Vec<Box<dyn Fill>>,
}

impl Fan {
    pub(super) fn new(
        resource: Resource,
        parts: Arc<[Part]>,
        part: usize,
        writers: Vec<Box<dyn Fill>>,
    ) -> Self {
        Self { resource, parts, part, writers }
    }

    fn not_before(&self, rv: ResourceVersion) -> ResourceVersion {
        rv.max(self.part().last_rv())
    }

    /// Changes each store by its writer, then moves the part on.
    fn commit(
        &mut self,
        rv: ResourceVersion,
        is_list: bool,
        mut change: impl FnMut(&mut dyn Fill, usize) -> usize,
    ) {
        let writers = self.writers.iter_mut().enumerate();
        // They are changes of the same objects, but for what one of them could not read.
        let spec_changes = writers.map(|(at, writer)| change(&mut **writer, at)).max().unwrap_or_default();
        let stores: Vec<&dyn Fill> = self.writers.iter().map(|writer| &**writer).collect();
        finish(&self.parts[self.part], rv, is_list, spec_changes, &stores);
    }

    /// Counts and reports an object that one store has not got.
    fn report(&self, key: &ObjectKey, message: &str) {
        self.part().stats().count_unreadable();
        tracing::error!(
            resource = %self.resource, object = %key, message,
            "cannot decode for one of its stores; its last known state stays there"
        );
    }

    fn report_all(&self, object: &Fanned) {
        for message in object.kept.iter().filter_map(|kept| kept.as_ref().err()) {
            self.report(&object.key, message);
        }
    }
}

impl Sink for Fan {
    type Object = Fanned;
    /// By store. Empty until the first object, then one for each.
    type Listing = Vec<BTreeMap<ObjectKey, Kept>>;

    fn resource(&self) -> Resource {
        self.resource
    }

    fn part(&self) -> &Part {
        &self.parts[self.part]
    }

    fn stored(&self) -> usize {
        self.writers.iter().map(|writer| writer.count()).max().unwrap_or_default()
    }

    fn apply(&mut self, object: Fanned) {
        self.report_all(&object);
        let rv = self.not_before(object.resource_version);
        self.commit(rv, false, |writer, at| match object.kept.get(at) {
            Some(Ok(kept)) => writer.apply(kept),
            Some(Err(_)) | None => 0,
        });
    }

    fn delete(&mut self, object: Fanned) {
        self.report_all(&object);
        let rv = self.not_before(object.resource_version);
        self.commit(rv, false, |writer, at| match object.kept.get(at) {
            Some(Ok(kept)) => writer.delete(kept),
            Some(Err(_)) | None => writer.delete_unread(&object.key),
        });
    }

    fn delete_unread(&mut self, key: &ObjectKey, rv: ResourceVersion) {
        self.commit(self.not_before(rv), false, |writer, _| writer.delete_unread(key));
    }

    fn advance(&mut self, rv: ResourceVersion) {
        self.commit(self.not_before(rv), false, |_, _| 0);
    }

    fn put(&self, listing: &mut Self::Listing, object: Fanned) {
        self.report_all(&object);
        listing.resize_with(self.writers.len(), BTreeMap::new);
        for ((list, writer), kept) in listing.iter_mut().zip(&self.writers).zip(object.kept) {
            let kept = match kept {
                Ok(kept) => Some(writer.stored_as(&object.key, &kept).unwrap_or(kept)),
                Err(_) => writer.stored(&object.key),
            };
            if let Some(kept) = kept {
                list.insert(object.key.clone(), kept);
            }
        }
    }

    fn keep(&self, listing: &mut Self::Listing, key: &ObjectKey) {
        listing.resize_with(self.writers.len(), BTreeMap::new);
        for (list, writer) in listing.iter_mut().zip(&self.writers) {
            list.extend(writer.stored(key).map(|stored| (key.clone(), stored)));
        }
    }

    fn drop_listed(&self, listing: &mut Self::Listing, key: &ObjectKey) {
        for list in listing {
            list.remove(key);
        }
    }

    fn replace(&mut self, mut listing: Self::Listing, rv: ResourceVersion) {
        self.commit(rv, true, |writer, at| {
            writer.replace(listing.get_mut(at).map(std::mem::take).unwrap_or_default())
        });
    }

    fn set_trouble(&mut self, trouble: Trouble) -> bool {
        let is_news = self.part().set_trouble(trouble);
        self.writers.iter().for_each(|writer| writer.tell_synced());
        is_news
    }

    fn set_obstacle(&mut self, why: String) {
        self.part().set_obstacle(why);
    }
}
