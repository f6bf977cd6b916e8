//! The controller of BatchTaskProfile: it makes a profile at its first use, hears of the runs of its jobs, and
//! writes what they teach into its status.
//!
//! A run is learned from once: it waits in memory until the status that holds it is written. Runs that ended since
//! the last write are lost with the process; and of those that another process may have written before, only
//! such count as ended after the status's last one.

use super::fitting;
use super::learned::Run;
use super::measures::{Measures, Reading};
use super::plan::{Observed, due, plan};
use super::runs::{self, Measured};
use super::status::UsageApi;
use crate::projections::job::JobView;
use crate::projections::pod::PodView;
use crate::projections::profile::{BATCH_TASK_PROFILE, ProfileView};
use crate::projections::queue::QueueView;
use crate::queues::placement::default_profile_mode;
use crate::watches::{JOBS_BY_PROFILE, Stores, ends, jobs_of_profile};
use crate::{RIGHTS, lock};
use jiff::Timestamp;
use prometheus_client::registry::Registry;
use springtide_crds::batch_task_profile::{
    MAX_PER_CLUSTER, MAX_PER_NAMESPACE, ProfileMode, ReadyReason, StalledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::Clock;
use springtide_plumbing::controller::{Reconciler, Settled};
use springtide_plumbing::executor::WriteResult;
use springtide_plumbing::failing::{Failing, Telling};
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::metrics::{Census, Population};
use springtide_plumbing::plan::{Action, Plan};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::rights::Rights;
use springtide_plumbing::store::{Change, StoreView};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

/// Runs of one profile that wait for their write; the oldest beyond that are forgotten.
const WAITING_MAX: usize = 1000;

/// The BatchTaskProfile controller, as the loop drives it.
pub struct ProfileReconciler {
    pub(super) stores: Stores,
    clock: Clock,
    records: Mutex<HashMap<ObjectKey, Record>>,
    /// What was measured of pods that have not ended.
    measured: Mutex<HashMap<Uid, Measured>>,
    usage_api: Mutex<UsageApi>,
    queue: OnceLock<WorkQueue<ObjectKey>>,
    measures: Measures,
}

/// What is remembered of one profile.
#[derive(Debug, Default)]
struct Record {
    /// Runs that no status holds, as far as is known.
    waiting: VecDeque<Run>,
    /// How many of them are in the plan that is under way.
    planned: usize,
    /// Whether that plan writes what differs; else it is too early.
    is_due: bool,
    /// The last sample of the newest status that was seen or written. It never goes back: a view may show a status
    /// from before this process's own write, and runs that end meanwhile are in neither.
    known: Option<Option<Timestamp>>,
    /// When the status was last written by this process.
    written: Option<Timestamp>,
    /// When this process first planned for a profile whose status another one has written, at whatever time.
    found: Option<Timestamp>,
}

impl Record {
    /// When the status was last written, as far as is known; never too early.
    fn last_write(&self) -> Option<Timestamp> {
        self.written.or(self.found)
    }

    /// Forgets runs that a status holds which this process has not written.
    fn follow(&mut self, last: Option<Timestamp>) {
        if self.planned == 0 && self.known.is_none_or(|known| known < last) {
            self.waiting.retain(|run| last.is_none_or(|last| run.finished > last));
            self.known = Some(last);
        }
    }

    /// Keeps a run. Returns whether it is the first that waits.
    fn keep(&mut self, run: Run) -> bool {
        // Those that are being written must stay where they are.
        if self.waiting.len() >= WAITING_MAX && self.planned == 0 {
            self.waiting.pop_front();
        }
        self.waiting.push_back(run);
        self.waiting.len() == 1
    }

    /// The plan that was under way has been performed. `written` is whether the status stands now that it wanted, or
    /// `None` where it wanted none.
    fn settle(&mut self, written: Option<bool>, now: Timestamp) {
        let planned = std::mem::take(&mut self.planned);
        let is_held = match written {
            Some(written) => written,
            // They teach nothing: they were of another task.
            None => self.is_due,
        };
        if !is_held {
            return;
        }
        let held = self.waiting.drain(..planned.min(self.waiting.len()));
        let last = held.map(|run| run.finished).max();
        if written.is_some() {
            self.written = Some(now);
            let whole = last.and_then(|last| Timestamp::from_second(last.as_second()).ok());
            self.known = Some(self.known.flatten().max(whole));
        }
    }
}

fn last_sample(profile: &ProfileView) -> Option<Timestamp> {
    profile.status.last_sample_time.as_ref().map(|time| time.0)
}

impl ProfileReconciler {
    /// A controller over these stores; `clock` says when runs end that say it not themselves.
    pub fn new(stores: Stores, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            stores,
            clock,
            records: Mutex::default(),
            measured: Mutex::default(),
            usage_api: Mutex::default(),
            queue: OnceLock::new(),
            measures: Measures::default(),
        })
    }

    /// Adds the metrics of this controller to those that are scraped.
    pub fn register(&self, registry: &mut Registry) {
        self.measures.register(registry);
    }

    /// What its plans rest on, for the gate.
    pub fn views(&self) -> Vec<Arc<dyn StoreView>> {
        let Stores { jobs, pods, profiles, queues, nodes: _, priority_classes: _, time_shares: _ } = &self.stores;
        vec![
            Arc::new(profiles.clone()),
            Arc::new(jobs.clone()),
            Arc::new(pods.clone()),
            Arc::new(queues.clone()),
        ]
    }

    /// Lets the stores fill the queue, from the moment all of them are listed. Nothing happens but by the
    /// future, which is done when that is so.
    pub fn wire(self: &Arc<Self>, queue: &WorkQueue<ObjectKey>) -> impl Future<Output = ()> + Send + use<> {
        // Only the first queue is taken; a reconciler has one.
        let _ = self.queue.set(queue.clone());
        let this = Arc::clone(self);
        async move {
            let Stores { jobs, pods, profiles, queues, nodes: _, priority_classes: _, time_shares: _ } = &this.stores;
            tokio::join!(jobs.synced(), pods.synced(), profiles.synced(), queues.synced());
            this.listen();
        }
    }

    fn listen(self: &Arc<Self>) {
        let this = Arc::clone(self);
        self.stores.profiles.on_change(Arc::new(move |change| this.profile_changed(change)));
        let this = Arc::clone(self);
        self.stores.queues.on_change(Arc::new(move |change| this.queue_changed(change)));
        let this = Arc::clone(self);
        self.stores.jobs.on_change(Arc::new(move |change| this.job_changed(change)));
        let this = Arc::clone(self);
        self.stores.pods.on_change(Arc::new(move |change| this.pod_changed(change)));
    }

    fn profile_changed(&self, change: &Change<ProfileView>) {
        let profile = change.object();
        let key = &profile.meta().key;
        if let (Some(record), Some(profile)) = (lock(&self.records).get_mut(key), change.present()) {
            record.follow(last_sample(profile));
        }
        let is_edited = match change {
            Change::Apply { old: Some(old), new, .. } => old.meta().generation != new.meta().generation,
            Change::Apply { old: None, .. } | Change::Delete { .. } => false,
        };
        let urgency = if is_edited { Urgency::BreaksBackoff } else { Urgency::Routine };
        self.wake(key, urgency);
    }

    /// A job may be the first use of its profile.
    fn job_changed(&self, change: &Change<JobView>) {
        if let Some(job) = change.present() {
            self.want(job);
        }
    }

    /// Wakes the profile of a job that is to be made.
    fn want(&self, job: &JobView) {
        if let Some(key) = job.profile_key()
            && self.stores.profiles.get(&key).is_none()
            && self.is_use(job)
        {
            self.wake(&key, Urgency::Routine);
        }
    }

    /// Jobs that leave the mode to their queue may have runs now to learn from.
    fn queue_changed(&self, change: &Change<QueueView>) {
        let is_same = match change {
            Change::Apply { old: Some(old), new, .. } => {
                old.spec.default_profile_mode == new.spec.default_profile_mode
            }
            // All jobs are looked at in the beginning.
            Change::Apply { old: None, initial, .. } => *initial,
            Change::Delete { .. } => false,
        };
        if !is_same {
            for job in self.stores.jobs.list(Some(&change.object().meta().key.namespace)) {
                self.want(&job);
            }
        }
    }

    /// What a job wants of its profile. `queue` is the one that it is known to be in.
    fn wanted(&self, job: &JobView, queue: Option<&str>) -> ProfileMode {
        let Some(asked) = &job.spec.profile else { return ProfileMode::Off };
        let default = match asked.mode {
            Some(mode) => mode,
            None => {
                let queues = self.stores.queues.list(Some(&job.meta().key.namespace));
                default_profile_mode(job, queue, &queues)
            }
        };
        fitting::wanted(asked, default)
    }

    /// Whether a job will have runs to learn from.
    fn is_use(&self, job: &JobView) -> bool {
        let is_open = job.is_ours() && !job.is_finished() && !job.meta().is_deleting();
        let queue = job.status.queue.as_deref().filter(|_| job.status.admitted_time.is_some());
        is_open && self.wanted(job, queue) > ProfileMode::Off
    }

    fn pod_changed(&self, change: &Change<PodView>) {
        match change {
            Change::Apply { old, new, .. } if ends(old.as_deref(), new, PodView::is_terminal) => {
                let measured = lock(&self.measured).remove(&new.meta().uid).unwrap_or_default();
                self.ended(new, &measured);
            }
            Change::Apply { .. } => {}
            Change::Delete { last } => {
                lock(&self.measured).remove(&last.meta().uid);
            }
        }
    }

    /// Takes in the end of a pod, if it was a run of a task with a profile.
    fn ended(&self, pod: &PodView, measured: &Measured) {
        let Some(owner) = pod.job_owner() else { return };
        let key =
            ObjectKey { namespace: Arc::clone(&pod.meta().key.namespace), name: Arc::clone(&owner.name) };
        let Some(job) = self.stores.jobs.get(&key).filter(|job| job.meta().uid == owner.uid) else { return };
        let Some(key) = job.profile_key().filter(|_| job.is_ours()) else { return };
        let profile = self.stores.profiles.get(&key);
        let queue = pod.meta().labels.queue.as_deref().unwrap_or_default();
        match fitting::mode(self.wanted(&job, Some(queue)), profile.as_deref()) {
            ProfileMode::Off => return,
            ProfileMode::Observe | ProfileMode::Initial | ProfileMode::Auto => {}
        }
        let Some(run) = runs::of_pod(&job, pod, measured, self.clock.now()) else { return };
        let is_first = {
            let mut records = lock(&self.records);
            let record = records.entry(key.clone()).or_default();
            if let Some(profile) = &profile {
                record.follow(last_sample(profile));
                // Of a pod that ended before this process began: another one may have learned from it.
                let is_old =
                    last_sample(profile).is_some_and(|last| run.finished <= last) && record.written.is_none();
                if is_old {
                    return;
                }
                let has = |name: &str| run.containers.iter().any(|container| &*container.name == name);
                if profile.status.containers.iter().any(|row| !has(&row.name)) {
                    self.measures.mismatched();
                }
            }
            self.measures.ended(&run);
            record.keep(run)
        };
        // While more come, the plan for the first one knows when they are written.
        if is_first {
            self.wake(&key, Urgency::Routine);
        }
    }

    fn wake(&self, key: &ObjectKey, urgency: Urgency) {
        if let Some(queue) = self.queue.get() {
            queue.add(key.clone(), Priority::Low, urgency);
        }
    }

    /// Why no further profile is made in a namespace, if so.
    fn refusal(&self, namespace: &str) -> Option<String> {
        let profiles = &self.stores.profiles;
        if profiles.len() >= MAX_PER_CLUSTER as usize {
            return Some(format!(
                "there are {MAX_PER_CLUSTER} profiles in the cluster; no further one is made"
            ));
        }
        // The namespace is looked through only when a profile is to be made.
        (profiles.list(Some(namespace)).len() >= MAX_PER_NAMESPACE as usize).then(|| {
            format!("there are {MAX_PER_NAMESPACE} profiles in the namespace; no further one is made")
        })
    }

    /// Takes in what was measured of a pod that runs; of each container the most counts.
    pub(super) fn measured(
        &self,
        pod: &Uid,
        usage: impl IntoIterator<Item = (Box<str>, super::usage::Usage)>,
    ) {
        let mut measured = lock(&self.measured);
        let of_pod = measured.entry(pod.clone()).or_default();
        for (container, usage) in usage {
            of_pod.entry(container).or_default().raise_to(usage);
        }
    }

    /// The API did not answer; whether it is served is as it was.
    pub(super) fn read_failed(&self) {
        self.measures.read(Reading::Failed);
    }

    /// Takes in whether usage can be measured. Returns whether that is news.
    pub(super) fn usage_api(&self, answered: UsageApi, reading: Reading) -> bool {
        self.measures.read(reading);
        let before = std::mem::replace(&mut *lock(&self.usage_api), answered);
        before != answered
    }
}

impl Reconciler for ProfileReconciler {
    const NAME: &'static str = "batch-task-profile";
    const RIGHTS: Rights = RIGHTS;
    type Observed = Observed;

    fn observe(&self, key: &ObjectKey, _: Option<&Failing>, now: Timestamp) -> Option<Observed> {
        let stored = self.stores.profiles.get(key);
        let jobs = || self.stores.jobs.by_index(&JOBS_BY_PROFILE, &jobs_of_profile(key));
        let is_used = stored.is_none() && jobs().iter().any(|job| self.is_use(job));
        if stored.is_none() && !is_used {
            lock(&self.records).remove(key);
            return None;
        }
        let refusal = if stored.is_none() { self.refusal(&key.namespace) } else { None };
        let mut records = lock(&self.records);
        let record = records.entry(key.clone()).or_default();
        record.planned = 0;
        if let Some(profile) = &stored {
            record.follow(last_sample(profile));
            record.planned = record.waiting.len();
            if profile.status.observed_generation > 0 {
                record.found.get_or_insert(now);
            }
        }
        record.is_due = due(record.last_write(), now).is_none();
        if refusal.is_some() {
            record.waiting.clear();
        }
        let runs = record.waiting.iter().take(record.planned).cloned().collect();
        let (written, usage_api) = (record.last_write(), *lock(&self.usage_api));
        Some(Observed { key: key.clone(), stored, is_used, refusal, runs, written, usage_api })
    }

    fn plan(&self, observed: &Observed, now: Timestamp) -> Plan {
        plan(observed, now)
    }

    /// An event alone: what a status would say of it could not be written either.
    fn tell(&self, key: &ObjectKey, failing: &Failing, _: Timestamp) -> Option<Telling> {
        let stored = self.stores.profiles.get(key)?;
        let event = failing.note(BATCH_TASK_PROFILE, key.clone(), stored.meta().uid.clone())?;
        Some(Telling { event, status: None })
    }

    fn settle(&self, key: &ObjectKey, results: &[WriteResult], now: Timestamp) -> Settled {
        let is_status = |result: &&WriteResult| matches!(result.write.action, Action::Status { .. });
        let written = results.iter().find(is_status).map(|result| result.outcome.is_ok());
        let is_left = {
            let mut records = lock(&self.records);
            let Some(record) = records.get_mut(key) else { return Settled::Default };
            record.settle(written, now);
            written == Some(true) && !record.waiting.is_empty()
        };
        // They came while the others were written.
        if is_left {
            self.wake(key, Urgency::Routine);
        }
        Settled::Default
    }
}

impl Population for ProfileReconciler {
    fn census(&self) -> Census {
        let mut census = Census::new(
            BATCH_TASK_PROFILE.kind,
            ReadyReason::all().iter().map(Reason::as_str),
            StalledReason::all().iter().map(Reason::as_str),
            MAX_PER_NAMESPACE as usize,
            MAX_PER_CLUSTER as usize,
        );
        for profile in self.stores.profiles.list(None) {
            let reason = |type_| profile.condition(type_).map(|condition| condition.reason.as_str());
            let (ready, stalled) = (reason(ReadyReason::CONDITION), reason(StalledReason::CONDITION));
            census.add(&profile.meta().key.namespace, ready, stalled);
        }
        census
    }
}

#[cfg(test)]
mod tests;
