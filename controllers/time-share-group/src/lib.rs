//! The TimeShareGroup controller: services whose peaks do not overlap share one set of nodes. At any time the pods of one
//! member are at peak size with traffic, those of the others are warm at valley size; a switch resizes live pods and
//! moves traffic.
//!
//! - [`watches`] is the table of what is watched, and which keys a change wakes.
//! - [`observe`](observed) gathers plain data about one group; [`memory`] knows since when things are as they are, and what
//!   dry runs were answered.
//! - [`plan`] decides, as a pure function: which way the group goes and how far it may ([`transition`],
//!   [`steps`]), in which [`units`], within what fits ([`union`], [`limits`], [`quota`]).
//! - [`machine`] says where one unit stands and what is written next, by what the API shows alone.
//! - [`profiles`] are the sizes of members' pods; [`traffic`] is who is to serve, and by what that is turned.
//! - [`preflight`] proves a switch ahead; [`guards`] end one that goes wrong.
//! - [`deletion`] lets pods go: of a group, and of a member that is removed.
//! - [`status`] says in the group's status where it stands.
//! - [`GateKeeper`] keeps gates and labels of pods open that belong to no group.
//! - [`usage`] asks what pods use, where memory moves; [`pod_times`] is how long things take, for metrics.
//! - [`rehearsal`] is the same code over a snapshot, for people who ask.
//! - [`RIGHTS`] is the table of what may be asked of the API server, [`TimeShareGroupWarrants`] of what may be destroyed.

#[cfg(any(test, feature = "allocator"))]
pub mod allocator;
pub mod autoscalers;
pub mod deletion;
#[cfg(test)]
pub(crate) mod fixtures;
mod gate_keeping;
pub mod guards;
pub mod limits;
pub mod machine;
mod measures;
pub mod memory;
pub mod memory_safety;
pub mod message;
pub mod names;
mod observe;
pub mod observed;
pub mod placement;
pub mod plan;
pub mod pod_times;
pub mod preflight;
pub mod profiles;
pub mod projections;
pub mod quota;
pub mod rehearsal;
mod rights;
pub mod rollback;
pub mod sizes;
pub mod spec_rules;
pub mod status;
pub mod steps;
pub mod traffic;
pub mod transition;
pub mod union;
pub mod units;
pub mod usage;
mod warrants;
pub mod watches;

pub use gate_keeping::GateKeeper;
pub use rights::RIGHTS;
pub use warrants::TimeShareGroupWarrants;
pub use watches::Stores;

use jiff::Timestamp;
use measures::Measures;
use memory::Memory;
use observed::{Observed, Usage};
use projections::group::TIME_SHARE_GROUP;
use prometheus_client::registry::Registry;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{MAX_PER_CLUSTER, MAX_PER_NAMESPACE, ReadyReason, StalledReason};
use springtide_plumbing::controller::{Reconciler, Settled};
use springtide_plumbing::executor::WriteResult;
use springtide_plumbing::failing::{Failing, Telling};
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::metric_query::MetricQueries;
use springtide_plumbing::metrics::{Census, Population};
use springtide_plumbing::plan::{Action, Patch, Plan};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::rights::Rights;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;

/// The TimeShareGroup controller, as the loop drives it.
pub struct TimeShareGroupReconciler {
    stores: Stores,
    /// What the process remembers of each group. Each has a lock of its own, as a look at a large group takes a while.
    memories: Mutex<HashMap<ObjectKey, Arc<Mutex<Memory>>>>,
    /// The nodes that each group's pods were on when it was looked at last.
    nodes: Mutex<HashMap<ObjectKey, HashSet<Arc<str>>>>,
    /// What pods use whose memory moves, as it was told last.
    usage: Mutex<HashMap<ObjectKey, Usage>>,
    /// Somebody may want to know that now.
    usage_asked: Notify,
    /// Who asks for metrics; absent where nobody may be asked.
    queries: Option<Arc<MetricQueries>>,
    settings: Settings,
    queue: OnceLock<WorkQueue<ObjectKey>>,
    measures: Measures,
}

/// What the controller is bound by beside its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most groups of one namespace that are served.
    pub max_per_namespace: u32,
    /// Most groups of all namespaces together that are served.
    pub max_per_cluster: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_per_namespace: MAX_PER_NAMESPACE, max_per_cluster: MAX_PER_CLUSTER }
    }
}

impl TimeShareGroupReconciler {
    /// A controller over these stores.
    pub fn new(stores: Stores, queries: Option<Arc<MetricQueries>>) -> Arc<Self> {
        Self::with_settings(stores, queries, Settings::default())
    }

    /// The same with other settings.
    pub fn with_settings(
        stores: Stores,
        queries: Option<Arc<MetricQueries>>,
        settings: Settings,
    ) -> Arc<Self> {
        Arc::new(Self {
            stores,
            memories: Mutex::default(),
            nodes: Mutex::default(),
            usage: Mutex::default(),
            usage_asked: Notify::new(),
            queries,
            settings,
            queue: OnceLock::new(),
            measures: Measures::default(),
        })
    }

    /// Makes what this controller measures part of what is scraped.
    pub fn register(&self, registry: &mut Registry) {
        self.measures.register(registry, self.stores.groups.clone());
    }

    /// Wakes the group of this key, as there is news of its metrics.
    pub fn metric_has_news(&self, key: &ObjectKey) {
        self.wake(key.clone(), Priority::Normal, Urgency::Routine);
    }

    /// The memory of a group, which begins with this if there is none.
    fn memory(&self, key: &ObjectKey) -> Arc<Mutex<Memory>> {
        Arc::clone(lock(&self.memories).entry(key.clone()).or_default())
    }

    /// A group is gone.
    fn forget(&self, key: &ObjectKey) {
        lock(&self.memories).remove(key);
        lock(&self.nodes).remove(key);
        if let Some(queries) = &self.queries {
            queries.want(&observe::owner(key), []);
        }
    }

    /// Measures what was written.
    fn measure(&self, results: &[WriteResult]) {
        let written = results.iter().filter(|result| matches!(&result.outcome, Ok(done) if !done.noop));
        for WriteResult { write, .. } in written {
            if let Action::Status { status, stored, .. } = &write.action {
                self.measures.written(stored, status);
            }
            if let Action::Patch { part, patch: Patch::Strategic(fields) } = &write.action
                && write.resource == Resource::POD
                && memory::is_nudge(*part, fields)
            {
                self.measures.nudged(1);
            }
        }
    }
}

impl Reconciler for TimeShareGroupReconciler {
    const NAME: &'static str = "time-share-group";
    const RIGHTS: Rights = RIGHTS;
    type Observed = Observed;

    fn observe(&self, key: &ObjectKey, failing: Option<&Failing>, now: Timestamp) -> Option<Observed> {
        self.gather(key, failing, now)
    }

    fn generation(observed: &Observed) -> Option<i64> {
        Some(observed.group.meta().generation)
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan {
        plan::plan(observed, now)
    }

    fn tell(&self, key: &ObjectKey, failing: &Failing, now: Timestamp) -> Option<Telling> {
        let observed = self.gather(key, Some(failing), now)?;
        let group = &observed.group;
        let event = failing.note(TIME_SHARE_GROUP, key.clone(), group.meta().uid.clone())?;
        // The stored status with other conditions: nothing that a switch rests on moves by it.
        Some(Telling { event, status: Some(plan::told(&observed, now)) })
    }

    fn settle(&self, key: &ObjectKey, results: &[WriteResult], now: Timestamp) -> Settled {
        self.measure(results);
        // Of a group that is gone nothing is to be remembered.
        let memory = lock(&self.memories).get(key).cloned();
        let Some(memory) = memory else { return Settled::Default };
        lock(&memory).settle(results, |pod| self.stores.pods.get(pod), now)
    }
}

impl Population for TimeShareGroupReconciler {
    fn census(&self) -> Census {
        let mut census = Census::new(
            TIME_SHARE_GROUP.kind,
            ReadyReason::all().iter().map(Reason::as_str),
            StalledReason::all().iter().map(Reason::as_str),
            self.settings.max_per_namespace as usize,
            self.settings.max_per_cluster as usize,
        );
        for group in self.stores.groups.list(None) {
            let reason = |type_| group.condition(type_).map(|condition| condition.reason.as_str());
            let (ready, stalled) = (reason(ReadyReason::CONDITION), reason(StalledReason::CONDITION));
            census.add(&group.meta().key.namespace, ready, stalled);
        }
        census
    }
}

/// The data under these locks is whole wherever a panic can happen, so poisoning says nothing more.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
