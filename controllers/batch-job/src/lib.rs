//! The BatchJob controller: pods exist only while a task really executes.
//!
//! - [`watches`] is the table of what is watched, and which keys a change wakes.
//! - [`observe`] gathers plain data about one job, and asks the [`admission`] for its grant.
//! - [`plan`] decides, as a pure function: it counts outcomes, releases and creates pods.
//! - [`status`] says in the job's status where it stands.
//! - [`RIGHTS`] is the table of what may be asked of the API server.
//! - [`queues`] finds the BatchQueue of a job, and keeps the status of BatchQueues.
//! - [`profiles`] learns from the runs of recurring tasks what the next ones need.
//! - [`warrants`](BatchJobWarrants) says, by the stores alone, what may be destroyed.
//! - [`ledger`](admission) and [`shape`] know what fits on the nodes.
//! - [`archive`] writes finished jobs down before they are deleted.
//! - [`rehearsal`] runs all of it over a snapshot in memory, for the command line.
//! - [`pod_groups`] has the scheduler place gangs as a whole.
//! - [`peaks`] knows, as a pure function, what a peak window leaves to batch work, and [`loads`] what busy nodes do.

pub mod admission;
pub mod archive;
pub mod ceiling;
pub mod failure;
#[cfg(test)]
mod footprint;
pub mod growth;
pub mod indexes;
mod ledger;
pub mod loads;
mod measures;
pub mod memory;
pub mod observe;
mod passes;
pub mod peaks;
pub mod plan;
pub mod pod_groups;
pub mod pods;
mod population;
pub mod profiles;
pub mod projections;
pub mod queues;
mod record_turns;
pub mod rehearsal;
pub mod resources;
mod rights;
pub mod shape;
pub mod status;
mod takeover;
mod warrants;
pub mod watches;

pub use admission::CohortScope;
pub use plan::Settings;
pub use profiles::controller::ProfileReconciler;
pub use queues::{BatchQueueReconciler, BuiltInQueue};
pub use rights::RIGHTS;
pub use warrants::{BatchJobWarrants, UsageSource};
pub use watches::Stores;

use admission::{Admission, Trouble};
use archive::Archive;
use ceiling::Ceiling;
use jiff::Timestamp;
use loads::Usage;
use measures::Measures;
use observe::{Observed, Record};
use passes::Passes;
use pod_groups::{POD_GROUP, PodGroups};
use profiles::fitting::Fittings;
use prometheus_client::registry::Registry;
use record_turns::RecordTurns;
use springtide_plumbing::budget::WriteRates;
use springtide_plumbing::controller::{Reconciler, Settled};
use springtide_plumbing::error::WriteError;
use springtide_plumbing::executor::WriteResult;
use springtide_plumbing::failing::{self, Failing, Telling};
use springtide_plumbing::guard::Withheld;
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::plan::{Action, Plan, Write};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::WorkQueue;
use springtide_plumbing::rights::Rights;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use takeover::Takeover;

/// Tells how fast the controller may write at present.
pub type RateSource = Arc<dyn Fn() -> WriteRates + Send + Sync>;

/// The BatchJob controller, as the loop drives it.
pub struct BatchJobReconciler {
    stores: Stores,
    settings: Settings,
    admission: Mutex<Admission>,
    passes: Passes,
    takeover: Takeover,
    ceiling: Mutex<Ceiling>,
    /// What is remembered by job name. A key runs once at a time, so its record is taken out while it does.
    records: Mutex<HashMap<ObjectKey, Box<Record>>>,
    /// Jobs by the foreign pod whose name they need.
    conflicts: Mutex<HashMap<ObjectKey, ObjectKey>>,
    /// What profiles make of templates.
    fittings: Mutex<Fittings>,
    /// Whose turn it is to record that it waits.
    record_turns: Mutex<RecordTurns>,
    /// Tells how fast pods may be deleted.
    rates: OnceLock<RateSource>,
    queue: OnceLock<WorkQueue<ObjectKey>>,
    /// The keys of the loop over BatchQueues.
    queue_keys: OnceLock<WorkQueue<ObjectKey>>,
    /// BatchQueues whose status that loop looks at again by itself, as something waits or runs in them.
    active_queues: Mutex<HashSet<ObjectKey>>,
    /// What is in use on the nodes.
    usage: Mutex<Arc<Usage>>,
    /// Wakes whoever looks at that, as a queue wants to know.
    load_asked: tokio::sync::Notify,
    /// Lines of finished jobs that have still to be taken.
    archive: Archive,
    measures: Measures,
    pod_groups: PodGroups,
}

impl BatchJobReconciler {
    /// A controller over these stores, with default settings.
    pub fn new(stores: Stores) -> Arc<Self> {
        Self::with_settings(stores, Settings::default())
    }

    /// A controller over these stores.
    pub fn with_settings(stores: Stores, settings: Settings) -> Arc<Self> {
        let mut admission = match stores.nodes {
            Some(_) => Admission::default(),
            None => Admission::without_nodes(),
        };
        admission.set_cohort_scope(settings.cohort_scope);
        Arc::new(Self {
            stores,
            settings,
            admission: Mutex::new(admission),
            passes: Passes::default(),
            takeover: Takeover::default(),
            ceiling: Mutex::new(Ceiling::new(settings)),
            records: Mutex::default(),
            conflicts: Mutex::default(),
            fittings: Mutex::default(),
            record_turns: Mutex::default(),
            rates: OnceLock::new(),
            queue: OnceLock::new(),
            queue_keys: OnceLock::new(),
            active_queues: Mutex::default(),
            usage: Mutex::default(),
            load_asked: tokio::sync::Notify::new(),
            archive: Archive::default(),
            measures: Measures::default(),
            pod_groups: PodGroups::default(),
        })
    }

    /// Tells it whom to ask how fast it may write, to foretell whether drains are done in time: without, any number of
    /// pods can be deleted at once. It is asked anew each time, as the budget may change while the process runs.
    pub fn follow_budget(&self, source: RateSource) {
        // Only the first is taken.
        let _ = self.rates.set(source);
    }

    /// Adds the metrics of this controller to those that are scraped.
    pub fn register(&self, registry: &mut Registry) {
        self.measures.register(registry);
        self.archive.register(registry);
    }
}

impl Reconciler for BatchJobReconciler {
    const NAME: &'static str = "batch-job";
    const RIGHTS: Rights = RIGHTS;
    type Observed = Observed;

    fn observe(&self, key: &ObjectKey, failing: Option<&Failing>, now: Timestamp) -> Option<Observed> {
        if watches::is_admission(key) {
            self.admit(now);
            return self.passes.due().filter(|due| *due > now).map(Observed::of_admission);
        }
        self.observe_job(key, failing, now)
    }

    fn generation(observed: &Observed) -> Option<i64> {
        observed.state.as_ref().map(|state| state.job.meta().generation)
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan {
        plan::plan(observed, now)
    }

    fn tell(&self, key: &ObjectKey, failing: &Failing, now: Timestamp) -> Option<Telling> {
        let job = self.stores.jobs.get(key)?;
        let pods = self.stores.pods.by_index(&watches::PODS_BY_JOB, &watches::pods_of_job(key));
        let runs = plan::Attempt::of_job(&job, &pods).iter().any(plan::Attempt::is_running);
        plan::tell(&job, runs, failing, now)
    }

    fn settle(&self, key: &ObjectKey, results: &[WriteResult], now: Timestamp) -> Settled {
        let mut records = lock(&self.records);
        let Some((job, memory)) = records.get_mut(key).and_then(|record| record.job_mut()) else {
            return Settled::Default;
        };
        let mut trouble: Option<Trouble> = None;
        let mut handled = true;
        let creates =
            |write: &Write| write.resource == Resource::POD && matches!(write.action, Action::Create { .. });
        let releases = |write: &Write| {
            write.resource == Resource::POD
                && matches!(write.action, Action::Delete { .. } | Action::Patch { .. })
        };
        // Before the refusals: of creates sent together, which one finds the last room is chance, and the
        // refusal of another one stays true.
        let is_done = |result: &WriteResult| matches!(&result.outcome, Ok(done) if !done.noop);
        let mut created = Vec::new();
        for result in results.iter().filter(|result| creates(&result.write) && is_done(result)) {
            created.push(&result.write.key);
            self.measures.granted();
            if memory.created() {
                self.measures.waited(now.duration_since(memory.facts.since));
            }
        }
        for WriteResult { write, outcome } in results {
            match outcome {
                Ok(done) if matches!(write.action, Action::Status { .. }) && !done.noop => {
                    memory.facts.last_flush = Some(now);
                }
                Ok(_) | Err(WriteError::Gone) if releases(write) => {
                    memory.released(&write.key.name);
                    if let Action::Delete { uid, .. } = &write.action
                        && let Some(ended) = memory.ended_since(uid)
                    {
                        self.measures.released(now.duration_since(ended));
                    }
                }
                Err(WriteError::Refused(refusal)) if releases(write) => {
                    memory.release_refused(&write.key.name, failing::explain(write, refusal), now);
                }
                Err(WriteError::Withheld(
                    withheld @ (Withheld::Protected | Withheld::BreakerOpen { .. }),
                )) if releases(write) => {
                    memory.release_withheld(&write.key.name, withheld, now);
                }
                outcome if write.resource == POD_GROUP => {
                    handled &= self.pod_groups.settle(&mut memory.facts.pod_group, write, outcome, now);
                }
                // The loop knows when to look again.
                Err(WriteError::Withheld(_)) => handled = false,
                Err(WriteError::Refused(refusal)) if creates(write) => {
                    trouble = trouble.max(memory.refused(
                        job.generation,
                        refusal,
                        failing::explain(write, refusal),
                        now,
                    ));
                }
                // Its grants would be idle for as long as the key backs off: others may use them, and the
                // pause of the class is the backoff. A pod that exists all the same counts when it is seen.
                Err(error @ (WriteError::NotSent(_) | WriteError::Unknown(_))) if creates(write) => {
                    memory.unanswered(job.generation, error.to_string(), now);
                    trouble = trouble.max(Some(Trouble::Create));
                }
                Err(WriteError::Refused(_) | WriteError::NotSent(_) | WriteError::Unknown(_)) => {
                    handled = false
                }
                // No failures, or such as the loop knows how to go on from.
                Ok(_)
                | Err(
                    WriteError::Throttled(_)
                    | WriteError::Busy { .. }
                    | WriteError::NotLeading
                    | WriteError::StaleStore(_)
                    | WriteError::Contested { .. }
                    | WriteError::Skipped
                    | WriteError::AlreadyExists
                    | WriteError::Gone
                    | WriteError::Conflict(_),
                ) => {}
            }
        }
        let uid = job.uid.clone();
        drop(records);
        if !created.is_empty() || trouble.is_some() {
            let mut admission = lock(&self.admission);
            for pod in created {
                admission.created(&uid, pod);
            }
            if let Some(trouble) = trouble {
                admission.pause(&uid, trouble, now);
            }
        }
        if handled { Settled::Handled } else { Settled::Default }
    }
}

/// The data under these locks is whole wherever a panic can happen, so poisoning says nothing more.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
