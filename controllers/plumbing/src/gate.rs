//! Read-your-writes: a key is not planned before the stores show what it wrote last.
//!
//! Without this, a planner that looks at a store which lags its own create plans the create once
//! more. The writer notes per owner what a store has to show ([`Expectation`]); the stores, as they
//! advance, open the gate and wake the owner, exactly once. What is not met for 10 s is put to the
//! API server: one consistent GET decides.
//!
//! Nor is a key planned before all stores have listed its namespace. That matters where each namespace has
//! its own watch: one may be shown long after the others.

mod state;
#[cfg(test)]
mod tests;

use crate::client::{Identity, ReadError};
use crate::key::{ObjectKey, Resource, ResourceVersion, Uid};
use crate::store::{Part, StoreView};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use state::{Ask, State};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// What the stores do not show for this long is asked of the API server, and again after as long.
const ASK_AFTER: Duration = Duration::from_secs(10);
/// GETs in flight at once: when a watch hangs, many owners wait for it together.
const CONCURRENT_ASKS: usize = 8;

/// What a store must show before an owner is planned again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// The store has reached the version that a write was answered with.
    Seen {
        /// Resource type of the object written.
        resource: Resource,
        /// The object written.
        key: ObjectKey,
        /// Its version after the write.
        rv: ResourceVersion,
    },
    /// A delete was answered: the store shows this incarnation as deleting, or no more.
    Gone {
        /// Resource type of the object deleted.
        resource: Resource,
        /// The object deleted.
        key: ObjectKey,
        /// The incarnation deleted.
        uid: Uid,
    },
    /// Nobody knows what became of a write, or the view it was decided on was old: the store shows
    /// the object anew (it appears, disappears, or in another version), or a consistent GET agrees
    /// with the store that nothing happened.
    Resolve {
        /// Resource type of the object written.
        resource: Resource,
        /// The object written.
        key: ObjectKey,
        /// What [`Gate::shown`] said right before the write. The event of a write may well arrive
        /// before its answer is given up for lost.
        before: Option<ResourceVersion>,
    },
}

impl Expectation {
    fn resource(&self) -> Resource {
        match self {
            Self::Seen { resource, .. } | Self::Gone { resource, .. } | Self::Resolve { resource, .. } => {
                *resource
            }
        }
    }

    fn key(&self) -> &ObjectKey {
        match self {
            Self::Seen { key, .. } | Self::Gone { key, .. } | Self::Resolve { key, .. } => key,
        }
    }
}

/// A consistent GET of one object's identity; `None` when the server has no such object.
pub type Confirm =
    Box<dyn Fn(Resource, ObjectKey) -> BoxFuture<'static, Result<Option<Identity>, ReadError>> + Send + Sync>;

/// The gate of one controller. Owners are its keys.
pub struct Gate {
    views: Views,
    state: Mutex<State>,
    wake: Box<dyn Fn(&ObjectKey) + Send + Sync>,
    confirm: Confirm,
    /// Tells [`Gate::run`] that there is something to wait for.
    noted: Notify,
}

impl Gate {
    /// A gate on these stores, which are those that the plans of the controller rest on: a stale one of
    /// another controller is no reason to hold this one back. `wake` is called, on the task of a watch or
    /// of [`Gate::run`], with each owner whose gate has opened; it must be brief. `confirm` reads past the
    /// stores.
    pub fn new(
        stores: &[Arc<dyn StoreView>],
        wake: impl Fn(&ObjectKey) + Send + Sync + 'static,
        confirm: Confirm,
    ) -> Arc<Self> {
        let gate = Arc::new(Self {
            views: Views::new(stores),
            state: Mutex::default(),
            wake: Box::new(wake),
            confirm,
            noted: Notify::new(),
        });
        for store in stores {
            let (gate, resource) = (Arc::downgrade(&gate), store.resource());
            store.on_advance(Arc::new(move |part| {
                if let Some(gate) = gate.upgrade() {
                    gate.advanced(&Place::of(resource, part));
                }
            }));
        }
        gate
    }

    /// Closes the gate of `owner` until the expectation is met, unless it is met already.
    ///
    /// A kind without a store is not waited for, as no plan rests on it; but an outcome that is
    /// unknown is resolved for it too, by a GET.
    pub fn note(&self, owner: ObjectKey, expectation: Expectation) {
        // The store is read under the lock: an advance after the reading finds the owner noted.
        let mut state = self.lock();
        state.note(owner, expectation, &self.views, Instant::now());
        drop(state);
        self.noted.notify_one();
    }

    /// Whether the stores show everything that `owner` wrote, and its namespace at all. If not, `wake` is
    /// called when they do.
    pub fn is_open(&self, owner: &ObjectKey) -> bool {
        // The stores are read under the lock: an advance after the reading finds the owner noted.
        let mut state = self.lock();
        let is_listed = self.views.list(&owner.namespace);
        if !is_listed {
            state.await_list(owner.clone());
        }
        is_listed && !state.is_waiting(owner)
    }

    /// The version of an object that the store shows now, for [`Expectation::Resolve`].
    pub fn shown(&self, resource: Resource, key: &ObjectKey) -> Option<ResourceVersion> {
        self.views.shown(resource, key).map(|shown| shown.resource_version)
    }

    /// A kind of which nothing has been heard for too long in the namespace of `owner` or of `object`, if
    /// there is one: what is planned for the one and done to the other rests on it.
    pub fn stale_kind(&self, owner: &ObjectKey, object: &ObjectKey) -> Option<Resource> {
        self.views.stale_kind([&owner.namespace, &object.namespace])
    }

    /// Number of owners whose gate is closed.
    pub fn closed(&self) -> usize {
        self.lock().len()
    }

    /// Asks the API server about what the stores do not show in time, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut asked = FuturesUnordered::new();
        loop {
            while asked.len() < CONCURRENT_ASKS {
                let due = self.lock().take_due(Instant::now());
                match due {
                    Some(ask) => asked.push(self.ask(ask)),
                    None => break,
                }
            }
            let next = self.lock().next_ask().filter(|_| asked.len() < CONCURRENT_ASKS);
            let timer = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                Some(()) = asked.next() => {}
                () = timer => {}
                () = self.noted.notified() => {}
            }
        }
    }

    async fn ask(&self, ask: Ask) {
        let answer = (self.confirm)(ask.resource, ask.key.clone()).await;
        if let Err(error) = &answer {
            tracing::warn!(
                owner = %ask.owner, resource = %ask.resource, object = %ask.key, %error,
                "cannot confirm the outcome of a write, will ask again"
            );
        }
        let opened = {
            let mut state = self.lock();
            // The store is read after the answer, so it had the whole time of the request to catch up.
            let agrees = answer.is_ok_and(|answer| self.views.agrees(ask.resource, &ask.key, answer));
            state.answered(&ask, agrees, &self.views, Instant::now())
        };
        if opened {
            (self.wake)(&ask.owner);
        }
    }

    fn advanced(&self, place: &Place) {
        let opened = self.lock().advance(place, &self.views);
        for owner in opened {
            (self.wake)(&owner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No panic can leave the state half changed in a way that a lock would mend.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("closed", &self.closed()).finish_non_exhaustive()
    }
}

/// What one watch shows: a kind in one namespace, or in all. Versions are comparable over the whole kind,
/// but what one watch has reached says nothing of another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Place {
    resource: Resource,
    /// `None` for all of them, and where nobody watches.
    namespace: Option<Arc<str>>,
}

impl Place {
    fn of(resource: Resource, part: &Part) -> Self {
        Self { resource, namespace: part.namespace().cloned() }
    }
}

/// The stores by kind.
struct Views(HashMap<Resource, Vec<Arc<dyn StoreView>>>);

impl Views {
    fn new(stores: &[Arc<dyn StoreView>]) -> Self {
        let mut views = HashMap::<_, Vec<_>>::new();
        for store in stores {
            views.entry(store.resource()).or_default().push(Arc::clone(store));
        }
        Self(views)
    }

    /// The parts that show a kind in a namespace: one at most, but that two watches may be of one object each.
    fn parts<'a>(&'a self, resource: Resource, namespace: &'a str) -> impl Iterator<Item = &'a Part> {
        let stores = self.0.get(&resource).into_iter().flatten();
        stores.filter_map(move |store| store.part_of(namespace))
    }

    /// Where the watch of a kind in a namespace stands.
    fn place(&self, resource: Resource, namespace: &str) -> Place {
        let part = self.parts(resource, namespace).next();
        part.map_or(Place { resource, namespace: None }, |part| Place::of(resource, part))
    }

    /// Whether all of them have listed a namespace, as far as they are to show it.
    fn list(&self, namespace: &str) -> bool {
        self.0.values().flatten().filter_map(|store| store.part_of(namespace)).all(Part::is_listed)
    }

    /// The version that is reached in the namespace; `None` where nobody watches.
    fn last_rv(&self, resource: Resource, namespace: &str) -> Option<ResourceVersion> {
        self.parts(resource, namespace).map(Part::last_rv).min()
    }

    fn stale_kind(&self, namespaces: [&str; 2]) -> Option<Resource> {
        let is_stale = |store: &&Arc<dyn StoreView>| {
            namespaces.iter().filter_map(|namespace| store.part_of(namespace)).any(Part::is_stale)
        };
        self.0.values().flatten().find(is_stale).map(|store| store.resource())
    }

    fn shown(&self, resource: Resource, key: &ObjectKey) -> Option<Identity> {
        let (uid, resource_version, deleting) =
            self.0.get(&resource)?.iter().find_map(|store| store.identity(key))?;
        Some(Identity { uid, resource_version, deleting })
    }

    fn is_met(&self, expectation: &Expectation) -> bool {
        match expectation {
            Expectation::Seen { resource, key, rv } => {
                self.last_rv(*resource, &key.namespace).is_none_or(|last| last >= *rv)
            }
            Expectation::Gone { resource, key, uid } => {
                self.shown(*resource, key).is_none_or(|shown| shown.deleting || shown.uid != *uid)
            }
            Expectation::Resolve { resource, key, before } => {
                self.shown(*resource, key).map(|shown| shown.resource_version) != *before
            }
        }
    }

    /// Whether the store is as new as the answer of a consistent GET: then the plan may rest on it,
    /// whatever became of the write. Without a store, the answer is all there is to wait for.
    fn agrees(&self, resource: Resource, key: &ObjectKey, answer: Option<Identity>) -> bool {
        let Some(last) = self.last_rv(resource, &key.namespace) else { return true };
        match (self.shown(resource, key), answer) {
            (None, None) => true,
            // A store that is past the version and does not show it never will: nobody can read the
            // object, or the store's selector leaves it out.
            (shown, Some(answer)) => {
                shown.map_or(last, |shown| shown.resource_version.max(last)) >= answer.resource_version
            }
            (Some(_), None) => false,
        }
    }
}
