//! The InPlaceUpgrade controller: the live pods of a workload become what its template says, and stay the same pods.
//!
//! - [`watches`] is the table of what is watched, and which keys a change wakes.
//! - [`observe`](observed) gathers plain data about one object; [`memory`] knows since when things are as they are.
//! - [`plan`] decides, as a pure function: what is wished ([`wish`]), what that changes ([`change`], [`differences`]), what
//!   is to be done to each pod ([`verdict`]), where it stands ([`machine`]), who starts ([`steps`], [`holds`], [`starts`]).
//! - [`time_share`] is what a TimeShareGroup says of a workload.
//! - [`traffic`] is given back to pods that nothing is changed of.
//! - [`pre_pull`] has images on a node before anything there is stopped.
//! - [`finalize`] brings the workload's own controller to see the work.
//! - [`status`] says in the object's status where it stands.
//! - [`GateKeeper`] keeps gates of pods open that no run has closed.
//! - [`pod_times`] is how long things take, for metrics.
//! - [`rehearsal`] is the same code over a snapshot, for people who ask.
//! - [`RIGHTS`] is the table of what may be asked of the API server, [`InPlaceUpgradeWarrants`] of what may be destroyed.

pub mod census;
pub mod change;
mod departures;
pub mod differences;
pub mod finalize;
#[cfg(test)]
pub(crate) mod fixtures;
mod gate_keeping;
pub mod health;
pub mod holds;
pub mod lock;
pub mod machine;
mod measures;
pub mod memory;
pub mod message;
pub mod names;
mod observe;
pub mod observed;
pub mod patch;
pub mod plan;
pub mod pod_times;
pub mod pre_pull;
pub mod previous;
pub mod projections;
pub mod recreation;
pub mod rehearsal;
pub mod restarts;
mod rights;
pub mod spec_rules;
pub mod starts;
pub mod status;
pub mod steps;
pub mod target;
pub mod time_share;
pub mod traffic;
pub mod verdict;
mod warrants;
pub mod watches;
pub mod wish;

pub use gate_keeping::GateKeeper;
pub use rights::RIGHTS;
pub use warrants::InPlaceUpgradeWarrants;
pub use watches::Stores;

use departures::{Departing, Departures};
use jiff::Timestamp;
use measures::Measures;
use memory::Memory;
use observed::Observed;
use projections::upgrade::IN_PLACE_UPGRADE;
use prometheus_client::registry::Registry;
use springtide_crds::in_place_upgrade::{
    MAX_PER_CLUSTER, MAX_PER_NAMESPACE, OnFailure, ReadyReason, StalledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::controller::{Reconciler, Settled};
use springtide_plumbing::dry_run::Verdicts;
use springtide_plumbing::error::WriteError;
use springtide_plumbing::executor::WriteResult;
use springtide_plumbing::failing::{Failing, Telling};
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::metric_query::MetricQueries;
use springtide_plumbing::metrics::{Census, Population};
use springtide_plumbing::plan::{Action, Outcome, Plan};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::rights::Rights;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The InPlaceUpgrade controller, as the loop drives it.
pub struct InPlaceUpgradeReconciler {
    stores: Stores,
    /// What the process remembers of each object.
    memories: Mutex<HashMap<ObjectKey, Memory>>,
    /// What dry runs were answered.
    answers: Verdicts<()>,
    /// Who asks for metrics; absent where nobody may be asked.
    queries: Option<Arc<MetricQueries>>,
    /// The image of pods that pull images.
    tools_image: Arc<str>,
    queue: OnceLock<WorkQueue<ObjectKey>>,
    measures: Measures,
    /// What passes of other objects have just decided.
    departures: Departures,
}

impl InPlaceUpgradeReconciler {
    /// A controller over these stores.
    pub fn new(
        stores: Stores,
        queries: Option<Arc<MetricQueries>>,
        tools_image: impl Into<Arc<str>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            stores,
            memories: Mutex::default(),
            answers: Verdicts::new(|_| ()),
            queries,
            tools_image: tools_image.into(),
            queue: OnceLock::new(),
            measures: Measures::default(),
            departures: Departures::default(),
        })
    }

    /// Makes what this controller measures part of what is scraped.
    pub fn register(&self, registry: &mut Registry) {
        self.measures.register(registry, self.stores.upgrades.clone());
    }

    /// Measures what was written.
    fn measure(&self, key: &ObjectKey, results: &[WriteResult], now: Timestamp) {
        let written = results.iter().filter(|result| matches!(&result.outcome, Ok(done) if !done.noop));
        for WriteResult { write, .. } in written {
            if let Action::Create { .. } = &write.action
                && write.resource == Resource::POD
                && let Some(memory) = lock(&self.memories).get_mut(key)
            {
                memory.pulls(&write.key.name, now);
            }
            if let Action::Status { status, stored, .. } = &write.action
                && measures::goes_wrong(stored, status)
                && let Some(upgrade) = self.stores.upgrades.get(key)
            {
                match upgrade.spec.rollback.on_failure {
                    OnFailure::Auto => self.measures.rolled_back(),
                    OnFailure::Hold => {}
                }
            }
        }
    }

    /// Wakes the object of this key, as there is news of its metrics.
    pub fn metric_has_news(&self, key: &ObjectKey) {
        self.wake(key.clone(), Priority::Normal, Urgency::Routine);
    }
}

impl Reconciler for InPlaceUpgradeReconciler {
    const NAME: &'static str = "in-place-upgrade";
    const RIGHTS: Rights = RIGHTS;
    type Observed = Observed;

    fn observe(&self, key: &ObjectKey, failing: Option<&Failing>, now: Timestamp) -> Option<Observed> {
        let departing = self.departures.begin(key);
        self.gather(key, failing, departing, now)
    }

    fn generation(observed: &Observed) -> Option<i64> {
        Some(observed.upgrade.meta().generation)
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan {
        let planned = plan::plan(observed, now);
        let key = &observed.upgrade.meta().key;
        if observed.budgets.is_empty() || self.departures.decide(key, &observed.departing, &planned) {
            return planned;
        }
        // What it rests on is no more.
        let mut again = Plan::idle(Outcome::Progressing);
        again.wake_at(now);
        again
    }

    fn tell(&self, key: &ObjectKey, failing: &Failing, now: Timestamp) -> Option<Telling> {
        let observed = self.gather(key, Some(failing), Departing::default(), now)?;
        let upgrade = &observed.upgrade;
        let event = failing.note(IN_PLACE_UPGRADE, key.clone(), upgrade.meta().uid.clone())?;
        // The stored status with other conditions: nothing that a run rests on moves by it.
        Some(Telling { event, status: Some(plan::told(&observed, now)) })
    }

    fn settle(&self, key: &ObjectKey, results: &[WriteResult], now: Timestamp) -> Settled {
        self.answers.settle(key, results, now);
        self.measure(key, results, now);
        let mut settled = Settled::Default;
        if plan::preflight::is_outdated(&self.answers.of(key), results, now) {
            self.answers.forget(key);
            settled = Settled::Handled;
        }
        for WriteResult { write, outcome } in results {
            if matches!((&write.action, outcome), (Action::Status { .. }, Ok(done)) if !done.noop)
                && let Some(memory) = lock(&self.memories).get_mut(key)
            {
                memory.status_written = Some(now);
            }
            if let (Action::Evict { uid, .. }, Err(WriteError::DisruptionBudget(_))) =
                (&write.action, outcome)
                && let Some(memory) = lock(&self.memories).get_mut(key)
            {
                memory.put_off(uid, now);
            }
            if let Err(WriteError::FieldConflict(conflicts)) = outcome {
                let message = conflicts.first().map(plan::preflight::ownership).unwrap_or_default();
                let upgrade = self.stores.upgrades.get(key);
                let observed = upgrade.map(|upgrade| self.generations_of(&upgrade));
                if let (Some(of), Some(memory)) = (observed, lock(&self.memories).get_mut(key)) {
                    memory.field_conflict = Some((message, of));
                    settled = Settled::Handled;
                }
            }
        }
        settled
    }
}

impl Population for InPlaceUpgradeReconciler {
    fn census(&self) -> Census {
        let mut census = Census::new(
            IN_PLACE_UPGRADE.kind,
            ReadyReason::all().iter().map(Reason::as_str),
            StalledReason::all().iter().map(Reason::as_str),
            MAX_PER_NAMESPACE as usize,
            MAX_PER_CLUSTER as usize,
        );
        for upgrade in self.stores.upgrades.list(None) {
            let reason = |type_| upgrade.condition(type_).map(|condition| condition.reason.as_str());
            let (ready, stalled) = (reason(ReadyReason::CONDITION), reason(StalledReason::CONDITION));
            census.add(&upgrade.meta().key.namespace, ready, stalled);
        }
        census
    }
}

/// The data under these locks is whole wherever a panic can happen, so poisoning says nothing more.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
