//! All watches of one API server in this process.

use super::fan::{Decoder, Fan, FannedSource};
use super::kube_source::{Collection, KubeConnection, KubeSource};
use super::listing::StreamingLists;
use super::run::run;
use super::source::{Scope, Selector};
use crate::key::Resource;
use crate::panic_text::panic_text;
use crate::projection::Projection;
use crate::rights::{NotGranted, Rights, Verb};
use crate::store::{Fill, Index, Part, Store, StoreView, StoreWriter};
use futures::future::{BoxFuture, FutureExt, join_all};
use std::any::{Any, TypeId, type_name};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// The watches to run against one API server: registered first, then started together.
///
/// A kind has one watch, or one for each namespace where only some are watched, however many stores it fills.
/// At most one watch reads any object: each further one would make every write to it dearer for all.
pub struct WatchSet {
    seed: u64,
    rights: Option<Vec<Rights>>,
    watches: Vec<Registration>,
}

struct Registration {
    identity: WatchIdentity,
    parts: Arc<[Part]>,
    /// At least one.
    stores: Vec<Registered>,
}

/// A store that a watch fills.
struct Registered {
    projection: TypeId,
    view: Arc<dyn StoreView>,
    /// The same, for who shares it.
    store: Box<dyn Any + Send + Sync>,
    decoder: Decoder,
    /// One for each part.
    writers: Box<dyn Writers>,
}

/// The writers to the parts of one store.
trait Writers: Send {
    /// The loops of watches that fill this store alone, one for each part, from this seed on. Only here its type is
    /// known, so that its objects are decoded as they are kept.
    fn run(self: Box<Self>, start: &Start<'_>, seed: u64) -> Vec<BoxFuture<'static, Infallible>>;
    /// The same, to be filled beside other stores.
    fn beside_others(self: Box<Self>) -> Vec<Box<dyn Fill>>;
}

/// What the watches of one registration begin with.
struct Start<'a> {
    connection: &'a KubeConnection,
    selector: &'a Selector,
    streaming: &'a StreamingLists,
}

impl<P: Projection> Writers for Vec<StoreWriter<P>> {
    fn run(self: Box<Self>, start: &Start<'_>, seed: u64) -> Vec<BoxFuture<'static, Infallible>> {
        let &Start { connection, selector, streaming } = start;
        let watch = |(writer, seed): (StoreWriter<P>, u64)| {
            let namespace = writer.part().namespace().cloned();
            let source = KubeSource::<P>::new(connection.clone(), namespace.as_deref(), selector.clone());
            run(source, writer, streaming.clone(), seed).boxed()
        };
        self.into_iter().zip(seeds(seed)).map(watch).collect()
    }

    fn beside_others(self: Box<Self>) -> Vec<Box<dyn Fill>> {
        self.into_iter().map(|writer| Box::new(writer) as Box<dyn Fill>).collect()
    }
}

fn seeds(first: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(first), |seed| Some(seed.wrapping_add(1)))
}

#[derive(Clone)]
struct WatchIdentity {
    resource: Resource,
    scope: Scope,
    selector: Selector,
    /// Whether the server may lack the kind.
    is_optional: bool,
    projections: Vec<&'static str>,
}

impl fmt::Display for WatchIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, scope, selector, is_optional, projections } = self;
        let optional = if *is_optional { ", optional" } else { "" };
        write!(f, "{resource} in {scope} ({selector}{optional}) as {}", projections.join(" and "))
    }
}

/// Two registrations would watch the same objects.
#[derive(Debug, thiserror::Error)]
#[error(
    "two watches of one kind: {first}, and {second}; register it once, with the fields and indexes of both, \
     and share its store; or give each a projection of its own, in one scope and with one selector, and both optional \
     or none"
)]
pub struct DuplicateWatch {
    /// The one that is registered.
    pub first: String,
    /// The one that was refused.
    pub second: String,
}

/// Why a watch was not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// Another one shows the same objects.
    #[error(transparent)]
    Duplicate(#[from] DuplicateWatch),
    /// No table of rights has it.
    #[error(transparent)]
    NotGranted(#[from] NotGranted),
}

/// A watch ended although nobody had stopped it.
#[derive(Debug, thiserror::Error)]
#[error("the watch of {watch} panicked: {message}")]
pub struct WatchPanicked {
    /// Which one.
    pub watch: String,
    /// What the panic said.
    pub message: String,
}

impl WatchSet {
    /// An empty set. `seed` decides the random part of all waits; take it from the system's
    /// randomness, so that the processes of a fleet differ.
    pub fn new(seed: u64) -> Self {
        Self { seed, rights: None, watches: Vec::new() }
    }

    /// Refuses from now on what none of these tables has.
    #[must_use]
    pub fn within(self, rights: impl IntoIterator<Item = Rights>) -> Self {
        Self { rights: Some(rights.into_iter().collect()), ..self }
    }

    /// Registers the watches of `P::RESOURCE`, one for each part of the scope, and gives the store they
    /// will fill. Where the kind is watched already in that scope and by that selector, for another projection, the
    /// store is filled by the same watches: the objects are decoded for both, and the stores share their parts.
    ///
    /// # Errors
    /// If the kind is registered already for that projection; or by another selector, in that scope or one that holds
    /// or lies in it, unless each of the two watches is of one name, and these differ; if the tables of
    /// [`within`](Self::within) lack it.
    pub fn add<P: Projection>(
        &mut self,
        scope: Scope,
        selector: Selector,
        indexes: &[Index<P>],
    ) -> Result<Store<P>, RegistrationError> {
        self.register(scope, selector, indexes, false)
    }

    /// The same of a kind that the server may lack, as it is of another project. Where it does, the store is synced and
    /// empty, and nothing waits for it; from when the kind is there on it is a store like any other.
    ///
    /// That a role forbids the watch is no such case: nobody knows then whether there is an object.
    ///
    /// # Errors
    /// As [`add`](Self::add); also if the kind is registered as one that is needed.
    pub fn add_optional<P: Projection>(
        &mut self,
        scope: Scope,
        selector: Selector,
        indexes: &[Index<P>],
    ) -> Result<Store<P>, RegistrationError> {
        self.register(scope, selector, indexes, true)
    }

    /// The store of a projection that several controllers read, for each of them: that which is registered already in that
    /// scope and by that selector, which gets the indexes that it has not; else a new one.
    ///
    /// # Errors
    /// As [`add`](Self::add), but that the same projection may be there.
    pub fn share<P: Projection>(
        &mut self,
        scope: Scope,
        selector: Selector,
        indexes: &[Index<P>],
    ) -> Result<Store<P>, RegistrationError> {
        self.shared(scope, selector, indexes, false)
    }

    /// The same of a kind that the server may lack, see [`add_optional`](Self::add_optional).
    ///
    /// # Errors
    /// As [`add_optional`](Self::add_optional), but that the same projection may be there.
    pub fn share_optional<P: Projection>(
        &mut self,
        scope: Scope,
        selector: Selector,
        indexes: &[Index<P>],
    ) -> Result<Store<P>, RegistrationError> {
        self.shared(scope, selector, indexes, true)
    }

    fn shared<P: Projection>(
        &mut self,
        scope: Scope,
        selector: Selector,
        indexes: &[Index<P>],
        is_optional: bool,
    ) -> Result<Store<P>, RegistrationError> {
        self.check_rights(P::RESOURCE)?;
        let is_same = |watch: &&Registration| {
            let WatchIdentity { resource, scope: shown, selector: by, is_optional: optional, .. } =
                &watch.identity;
            (resource, shown, by, optional) == (&P::RESOURCE, &scope, &selector, &is_optional)
        };
        let mut stores = self.watches.iter().filter(is_same).flat_map(|watch| &watch.stores);
        let known = stores.find_map(|registered| registered.store.downcast_ref::<Store<P>>());
        match known.cloned() {
            Some(store) => {
                store.add_indexes(indexes);
                Ok(store)
            }
            None => self.register(scope, selector, indexes, is_optional),
        }
    }

    fn register<P: Projection>(
        &mut self,
        scope: Scope,
        selector: Selector,
        indexes: &[Index<P>],
        is_optional: bool,
    ) -> Result<Store<P>, RegistrationError> {
        let projections = vec![type_name::<P>()];
        let identity = WatchIdentity { resource: P::RESOURCE, scope, selector, is_optional, projections };
        let other = self.watches.iter().position(|other| other.identity.overlaps(&identity));
        if let Some(other) = other.map(|at| &self.watches[at])
            && !other.admits::<P>(&identity)
        {
            let (first, second) = (other.identity.to_string(), identity.to_string());
            return Err(DuplicateWatch { first, second }.into());
        }
        self.check_rights(P::RESOURCE)?;
        let (store, writers) = match other {
            Some(other) => Store::of_watches(Arc::clone(&self.watches[other].parts), indexes),
            None if is_optional => Store::optional(&identity.scope, indexes),
            None => Store::within(&identity.scope, indexes),
        };
        let registered = Registered {
            projection: TypeId::of::<P>(),
            view: Arc::new(store.clone()),
            store: Box::new(store.clone()),
            decoder: Decoder::of::<P>(),
            writers: Box::new(writers),
        };
        match other.map(|at| &mut self.watches[at]) {
            Some(other) => {
                other.identity.projections.extend(identity.projections);
                other.stores.push(registered);
            }
            None => {
                let parts = store.shared_parts();
                self.watches.push(Registration { identity, parts, stores: vec![registered] });
            }
        }
        Ok(store)
    }

    /// A watch takes both verbs: where the server cannot stream its first list, that is a list of its own.
    fn check_rights(&self, resource: Resource) -> Result<(), NotGranted> {
        let Some(tables) = &self.rights else { return Ok(()) };
        let mut refused = Ok(());
        for rights in tables {
            refused = [Verb::Watch, Verb::List].iter().try_for_each(|verb| rights.check(*verb, resource, ""));
            if refused.is_ok() {
                break;
            }
        }
        refused
    }

    /// Starts every watch as a task of the current runtime, until `stop` is cancelled.
    pub fn start(self, client: impl Into<KubeConnection>, stop: &CancellationToken) -> RunningWatches {
        let connection = client.into();
        let streaming = StreamingLists::default();
        let mut tasks = JoinSet::new();
        let mut watches = HashMap::new();
        let mut stores = Vec::new();
        let mut seed = self.seed;
        for registration in self.watches {
            let identity = registration.identity.clone();
            stores.extend(registration.stores.iter().map(|registered| Arc::clone(&registered.view)));
            let loops = registration.run(&connection, &streaming, seed);
            for (part, watch) in identity.scope.parts().into_iter().zip(loops) {
                let scope = part.map_or(Scope::All, |namespace| Scope::of([&*namespace]));
                let span = tracing::info_span!("watch", resource = %identity.resource, %scope);
                seed = seed.wrapping_add(1);
                let until_stopped = stop.clone().run_until_cancelled_owned(watch).map(drop);
                let task = tasks.spawn(until_stopped.instrument(span));
                watches.insert(task.id(), WatchIdentity { scope, ..identity.clone() });
            }
        }
        RunningWatches { tasks, watches, stores: stores.into() }
    }
}

impl fmt::Debug for WatchSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.watches.iter().map(|watch| watch.identity.to_string())).finish()
    }
}

impl Registration {
    /// Whether a store of this projection may be filled by these watches too.
    fn admits<P: Projection>(&self, identity: &WatchIdentity) -> bool {
        (&self.identity.scope, &self.identity.selector) == (&identity.scope, &identity.selector)
            && self.identity.is_optional == identity.is_optional
            && self.stores.iter().all(|registered| registered.projection != TypeId::of::<P>())
    }

    /// The loops of the watches, one for each part.
    fn run(
        self,
        connection: &KubeConnection,
        streaming: &StreamingLists,
        seed: u64,
    ) -> Vec<BoxFuture<'static, Infallible>> {
        let Self { identity: WatchIdentity { resource, selector, .. }, parts, mut stores } = self;
        if stores.len() == 1
            && let Some(alone) = stores.pop()
        {
            return alone.writers.run(&Start { connection, selector: &selector, streaming }, seed);
        }
        let decoders: Arc<[Decoder]> = stores.iter().map(|registered| registered.decoder).collect();
        let mut writers: Vec<_> =
            stores.into_iter().map(|registered| registered.writers.beside_others().into_iter()).collect();
        let watch = |(part, seed): (usize, u64)| {
            let namespace = parts[part].namespace().cloned();
            let collection =
                Collection::new(connection.clone(), resource, namespace.as_deref(), selector.clone());
            let source = FannedSource::new(collection, Arc::clone(&decoders));
            let of_part = writers.iter_mut().filter_map(Iterator::next).collect();
            let fan = Fan::new(resource, Arc::clone(&parts), part, of_part);
            run(source, fan, streaming.clone(), seed).boxed()
        };
        (0..parts.len()).zip(seeds(seed)).map(watch).collect()
    }
}

impl WatchIdentity {
    fn overlaps(&self, other: &Self) -> bool {
        self.resource == other.resource
            && !self.selector.is_apart_from(&other.selector)
            && self.scope.overlaps(&other.scope)
    }
}

/// The watches of a started [`WatchSet`]. Dropping it ends them.
pub struct RunningWatches {
    tasks: JoinSet<()>,
    watches: HashMap<Id, WatchIdentity>,
    stores: Arc<[Arc<dyn StoreView>]>,
}

impl RunningWatches {
    /// Every store, in the order of registration: for readiness, metrics and the read-your-writes gate.
    pub fn stores(&self) -> Arc<[Arc<dyn StoreView>]> {
        Arc::clone(&self.stores)
    }

    /// Resolves when every store is synced.
    pub fn all_synced(&self) -> impl Future<Output = ()> + Send + 'static {
        join_all(self.stores.iter().map(|store| store.wait_synced())).map(drop)
    }

    /// Resolves with the first watch that panics, or with `Ok` once all have been stopped.
    ///
    /// # Errors
    /// A watch that has ended by itself: its store will not change again, so the process must end.
    pub async fn ended(&mut self) -> Result<(), WatchPanicked> {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            let Err(error) = ended else { continue };
            let watch = self.watches.get(&error.id()).map_or_else(String::new, ToString::to_string);
            let message = match error.try_into_panic() {
                Ok(panic) => panic_text(&*panic),
                // Aborted with the set, which nobody else does.
                Err(_) => continue,
            };
            return Err(WatchPanicked { watch, message });
        }
        Ok(())
    }
}

impl fmt::Debug for RunningWatches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.watches.values().map(ToString::to_string)).finish()
    }
}
