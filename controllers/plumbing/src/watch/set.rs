//! All watches of one API server in this process.

use super::kube_source::{KubeConnection, KubeSource};
use super::listing::StreamingLists;
use super::run::run;
use super::source::{Scope, Selector};
use crate::key::Resource;
use crate::panic_text::panic_text;
use crate::projection::Projection;
use crate::rights::{NotGranted, Rights, Verb};
use crate::store::{Index, Store, StoreView, StoreWriter};
use futures::future::{BoxFuture, FutureExt, join_all};
use std::any::type_name;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// The watches to run against one API server: registered first, then started together.
///
/// A kind has one watch, or one for each namespace where only some are watched; all feed its one store.
/// At most one watch reads any object: each further one would make every write to it dearer for all.
pub struct WatchSet {
    seed: u64,
    rights: Option<Vec<Rights>>,
    watches: Vec<Registration>,
}

struct Registration {
    identity: WatchIdentity,
    store: Arc<dyn StoreView>,
    /// One for each part of the store.
    launches: Vec<Launch>,
}

/// Starts a loop; what `P` is, only this closure still knows.
type Launch = Box<dyn FnOnce(&KubeConnection, StreamingLists, u64) -> BoxFuture<'static, Infallible> + Send>;

#[derive(Clone)]
struct WatchIdentity {
    resource: Resource,
    scope: Scope,
    selector: Selector,
    projection: &'static str,
}

impl fmt::Display for WatchIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, scope, selector, projection } = self;
        write!(f, "{resource} in {scope} ({selector}) as {projection}")
    }
}

/// Two registrations would watch the same objects.
#[derive(Debug, thiserror::Error)]
#[error(
    "two watches of one kind: {first}, and {second}; register it once, with the fields and indexes of both, \
     and clone its store"
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
    /// will fill.
    ///
    /// # Errors
    /// If the kind is registered already in that scope, or in one that holds or lies in it, unless each of
    /// the two watches is of one name, and these differ; if the tables of [`within`](Self::within) lack it.
    pub fn add<P: Projection>(
        &mut self,
        scope: Scope,
        selector: Selector,
        indexes: &[Index<P>],
    ) -> Result<Store<P>, RegistrationError> {
        let identity = WatchIdentity { resource: P::RESOURCE, scope, selector, projection: type_name::<P>() };
        if let Some(other) = self.watches.iter().find(|other| other.identity.overlaps(&identity)) {
            let (first, second) = (other.identity.to_string(), identity.to_string());
            return Err(DuplicateWatch { first, second }.into());
        }
        self.check_rights(P::RESOURCE)?;
        let (store, writers) = Store::within(&identity.scope, indexes);
        let launch = |writer: StoreWriter<P>| -> Launch {
            let selector = identity.selector.clone();
            Box::new(move |connection, streaming, seed| {
                let namespace = writer.part().namespace().cloned();
                let source = KubeSource::<P>::new(connection.clone(), namespace.as_deref(), selector);
                run(source, writer, streaming, seed).boxed()
            })
        };
        let launches = writers.into_iter().map(launch).collect();
        self.watches.push(Registration { identity, store: Arc::new(store.clone()), launches });
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
        for Registration { identity, store, launches } in self.watches {
            for (part, launch) in identity.scope.parts().into_iter().zip(launches) {
                let scope = part.map_or(Scope::All, |namespace| Scope::of([&*namespace]));
                let span = tracing::info_span!("watch", resource = %identity.resource, %scope);
                let watch = launch(&connection, streaming.clone(), seed);
                seed = seed.wrapping_add(1);
                let until_stopped = stop.clone().run_until_cancelled_owned(watch).map(drop);
                let task = tasks.spawn(until_stopped.instrument(span));
                watches.insert(task.id(), WatchIdentity { scope, ..identity.clone() });
            }
            stores.push(store);
        }
        RunningWatches { tasks, watches, stores: stores.into() }
    }
}

impl fmt::Debug for WatchSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.watches.iter().map(|watch| watch.identity.to_string())).finish()
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
