//! What the controller may destroy, derived from the stores by code that no planner calls.
//!
//! | target | warrant | where the stores say |
//! |---|---|---|
//! | pod or its finalizer | OwnerGone | its job is being deleted, was seen to go, or is missed for long |
//! | ended pod | Finished | its outcome stands in the job's status, or it is no outcome |
//! | live pod | Declared | `spec` asks for its end ([`declared`]): stop, met policies, place in a gang, count |
//! | live pod | Declared | the rules of its queue ask for it ([`claims`]): cut quota, lender, tier, drain |
//! | live pod | Declared | a peak window of its queue is near or open ([`peaks`]), and drains or degrades its tier |
//! | live pod | Declared | the nodes of its queue are measured so busy that a load trigger may be on ([`loads`]) |
//! | finished job | Finished, Declared | its time is over; it exceeds the history |
//!
//! Whatever this leaves out is counted by the breaker: saying no by mistake costs a few deletes per five
//! minutes, saying yes may cost all of them.

mod claims;
mod declared;
mod loads;
mod peaks;
mod record;
mod sizes;
#[cfg(test)]
mod tests;

use crate::loads::Usage;
use crate::lock;
use crate::plan::Settings;
use crate::profiles::fitting::Fittings;
use crate::projections::job::{BATCH_JOB, JobView};
use crate::projections::pod::{PodPhase, PodView};
use crate::projections::queue::QueueView;
use crate::watches::{PODS_BY_JOB, Stores, pods_of_job};
use declared::Leaving;
use jiff::{SignedDuration, Timestamp};
use record::Outcomes;
use springtide_crds::batch_job::PodFailureAction;
use springtide_crds::common::ConditionStatus;
use springtide_plumbing::clock::Clock;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::{ObjectKey, Resource, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::Change;
use springtide_plumbing::warrant::{Target, Warrant, Warrants};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

/// How long the owner of a pod must be missed that was never seen: one watch may lag another by half a
/// minute.
const MISSED_FOR: SignedDuration = SignedDuration::from_secs(40);
/// Owners that are gone or missed are remembered so long; then they are missed anew, like those that were
/// never seen.
const REMEMBERED_FOR: SignedDuration = SignedDuration::from_secs(3600);
/// So many of them are remembered before the old ones are forgotten.
const REMEMBERED_MOST: usize = 4096;

/// Derives the warrants of the BatchJob controller.
pub struct BatchJobWarrants {
    stores: Stores,
    settings: Settings,
    clock: Clock,
    seen: Mutex<Seen>,
    /// Tells what is in use on the nodes.
    usage: OnceLock<UsageSource>,
    /// What profiles make of templates.
    fittings: Mutex<Fittings>,
}

/// Tells what is in use on the nodes, as long as somebody knows.
pub type UsageSource = Arc<dyn Fn() -> Option<Arc<Usage>> + Send + Sync>;

/// What only the changes of the stores tell.
#[derive(Debug, Default)]
struct Seen {
    /// Live pods of jobs by namespace, and since when each is seen.
    live: HashMap<Arc<str>, HashMap<Uid, Timestamp>>,
    /// Jobs that were seen to go.
    gone: HashMap<Uid, Timestamp>,
    /// Owners of pods that no store shows, and since when they are missed.
    missed: HashMap<Uid, Timestamp>,
    /// Live pods by job that were warranted to go, as the stores may not show yet.
    leaving: HashMap<Uid, Leaving>,
    /// Whether a gang has been whole since it last had no live pod.
    whole: HashMap<Uid, bool>,
}

impl BatchJobWarrants {
    /// Derives from these stores, and follows their changes from now on; `clock` is that of the planners.
    pub fn new(stores: Stores, settings: Settings, clock: Clock) -> Arc<Self> {
        let (seen, fittings) = (Mutex::default(), Mutex::default());
        let this = Arc::new(Self { stores, settings, clock, seen, usage: OnceLock::new(), fittings });
        // Weak, as the stores hold their listeners and `this` the stores.
        let follows = Arc::downgrade(&this);
        this.stores.jobs.on_change(Arc::new(move |change| {
            if let Some(this) = follows.upgrade() {
                this.job_changed(change);
            }
        }));
        let follows = Arc::downgrade(&this);
        this.stores.pods.on_change(Arc::new(move |change| {
            if let Some(this) = follows.upgrade() {
                this.pod_changed(change);
            }
        }));
        this
    }

    /// Tells it whom to ask for what is in use on the nodes: without, no load trigger warrants anything.
    pub fn follow_load(&self, source: UsageSource) {
        // Only the first is taken.
        let _ = self.usage.set(source);
    }

    fn job_changed(&self, change: &Change<JobView>) {
        let now = self.clock.now();
        let mut seen = lock(&self.seen);
        let gone = match change {
            Change::Apply { old, new, .. } => {
                seen.missed.remove(&new.meta().uid);
                self.follow_gang(new, &mut seen);
                old.as_ref().filter(|old| old.meta().uid != new.meta().uid)
            }
            Change::Delete { last } => Some(last),
        };
        if let Some(job) = gone {
            seen.leaving.remove(&job.meta().uid);
            seen.whole.remove(&job.meta().uid);
            seen.gone.insert(job.meta().uid.clone(), now);
            if seen.gone.len() > REMEMBERED_MOST {
                seen.gone.retain(|_, at| *at + REMEMBERED_FOR > now);
            }
        }
    }

    fn pod_changed(&self, change: &Change<PodView>) {
        let pod = change.object();
        let Some(owner) = pod.job_owner() else { return };
        let now = self.clock.now();
        let meta = pod.meta();
        let mut seen = lock(&self.seen);
        let live = seen.live.entry(Arc::clone(&meta.key.namespace)).or_default();
        if let Change::Apply { old: Some(old), .. } = change
            && old.meta().uid != meta.uid
        {
            live.remove(&old.meta().uid);
        }
        if change.present().is_none_or(|pod| pod.is_terminal()) {
            live.remove(&meta.uid);
        } else {
            live.entry(meta.uid.clone()).or_insert(now);
        }
        if live.is_empty() {
            seen.live.remove(&meta.key.namespace);
        }
        let job = self.owner(pod);
        // Whether a gang is whole changes only with the number of its live pods.
        let begins_or_ends = match change {
            Change::Apply { old: Some(old), new, .. } => old.may_run() != new.may_run(),
            Change::Apply { old: None, .. } | Change::Delete { .. } => true,
        };
        if let Some(job) = job.as_ref().filter(|_| begins_or_ends) {
            self.follow_gang(job, &mut seen);
        }
        if change.present().is_some() && !seen.gone.contains_key(&owner.uid) && job.is_none() {
            seen.missed.entry(owner.uid.clone()).or_insert(now);
            if seen.missed.len() > REMEMBERED_MOST {
                seen.missed.retain(|_, since| *since + REMEMBERED_FOR > now);
            }
        }
    }

    /// The job that owns a pod, in the incarnation that the pod is of.
    fn owner(&self, pod: &PodView) -> Option<Arc<JobView>> {
        let owner = pod.job_owner()?;
        let key = ObjectKey { namespace: pod.meta().key.namespace.clone(), name: owner.name.clone() };
        self.stores.jobs.get(&key).filter(|job| job.meta().uid == owner.uid)
    }

    /// What was before this process, the figures in the status tell.
    fn follow_gang(&self, job: &JobView, seen: &mut Seen) {
        if job.spec.min_parallelism <= 1 {
            return;
        }
        let live = self.pods_of(job).iter().filter(|pod| pod.may_run()).count();
        let whole = seen.whole.entry(job.meta().uid.clone()).or_insert_with(|| declared::was_whole(job));
        *whole = live >= job.spec.min_parallelism as usize || *whole && live > 0;
    }

    /// All pods of a job, in the incarnation that it is of.
    fn pods_of(&self, job: &JobView) -> Vec<Arc<PodView>> {
        self.stores
            .pods
            .by_index(&PODS_BY_JOB, &pods_of_job(&job.meta().key))
            .into_iter()
            .filter(|pod| pod.job_owner().is_some_and(|owner| owner.uid == job.meta().uid))
            .collect()
    }

    fn pod(&self, target: &Target<'_>) -> Option<Arc<PodView>> {
        let of_this = |uid: &Uid| target.uid.is_none_or(|wanted| *wanted == *uid.0);
        self.stores.pods.get(target.key).filter(|pod| of_this(&pod.meta().uid))
    }

    fn job(&self, target: &Target<'_>) -> Option<Arc<JobView>> {
        let of_this = |uid: &Uid| target.uid.is_none_or(|wanted| *wanted == *uid.0);
        self.stores.jobs.get(target.key).filter(|job| of_this(&job.meta().uid))
    }

    fn of_pod(&self, target: &Target<'_>, now: Timestamp) -> Option<Warrant> {
        let pod = self.pod(target)?;
        let Some(owner) = pod.job_owner() else { return self.of_orphan(&pod, target) };
        let Some(job) = self.owner(&pod) else {
            let seen = lock(&self.seen);
            let long_missed = seen.missed.get(&owner.uid).is_some_and(|since| *since + MISSED_FOR <= now);
            return (seen.gone.contains_key(&owner.uid) || long_missed).then_some(Warrant::OwnerGone);
        };
        if !job.is_ours() {
            return None;
        }
        if job.meta().is_deleting() {
            return Some(Warrant::OwnerGone);
        }
        let (index, attempt) = pod.attempt()?;
        let outcomes = Outcomes::of(&job)?;
        if pod.is_terminal() {
            return if outcomes.holds(index, attempt) {
                Some(Warrant::Finished)
            } else {
                without_outcome(&job, &pod)
            };
        }
        if !target.is_delete {
            // Somebody else deletes it, and no kubelet will report its end.
            return pod.will_never_run().then_some(Warrant::Declared);
        }
        let is_declared = self.is_declared(&job, &outcomes, &pod, now);
        is_declared.then_some(Warrant::Declared)
    }

    /// A pod that bears our finalizer and nobody owns: whoever deleted its job has orphaned it.
    fn of_orphan(&self, pod: &PodView, target: &Target<'_>) -> Option<Warrant> {
        let key =
            ObjectKey { namespace: pod.meta().key.namespace.clone(), name: Arc::clone(pod.job_name()?) };
        let is_gone = self.stores.jobs.get(&key).is_none_or(|job| job.meta().is_deleting());
        (is_gone && !target.is_delete).then_some(Warrant::OwnerGone)
    }

    fn of_job(&self, target: &Target<'_>, now: Timestamp) -> Option<Warrant> {
        let job = self.job(target).filter(|job| job.is_ours())?;
        let ended = job.status.completion_time.as_ref().filter(|_| job.is_finished())?.0;
        let settings = &self.settings;
        let queue = self.queue_of(&job);
        let (ttl, history) = match queue.as_deref().map(|queue| &queue.spec.retention) {
            Some(kept) => (kept.ttl_seconds_after_finished, kept.history_limit as usize),
            None => (settings.ttl_seconds, settings.history_limit),
        };
        let ttl = job.spec.ttl_seconds_after_finished.unwrap_or(ttl);
        if after(ended, SignedDuration::from_secs(ttl.into())) <= now {
            return Some(Warrant::Finished);
        }
        let mut here = self.stores.jobs.list(Some(&job.meta().key.namespace));
        if Crowd::of(&job, &here).exceeds(usize::MAX, settings.max_per_namespace) {
            return Some(Warrant::Declared);
        }
        let queue = |job: &JobView| job.status.queue.clone().unwrap_or_default();
        here.retain(|other| queue(other) == queue(&job));
        if Crowd::of(&job, &here).exceeds(history, usize::MAX) {
            return Some(Warrant::Declared);
        }
        // Below the maximum of the cluster a twentieth is kept free for those that come.
        let most = settings.max_per_cluster - settings.max_per_cluster / 20;
        let is_near = self.stores.jobs.len() > most;
        let exceeds = is_near && Crowd::of(&job, &self.stores.jobs.list(None)).exceeds(usize::MAX, most);
        exceeds.then_some(Warrant::Declared)
    }
}

impl BatchJobWarrants {
    /// The BatchQueue that a job's status names.
    fn queue_of(&self, job: &JobView) -> Option<Arc<QueueView>> {
        let name = job.status.queue.as_deref().filter(|name| !name.is_empty())?;
        self.stores
            .queues
            .get(&ObjectKey { namespace: job.meta().key.namespace.clone(), name: Arc::from(name) })
    }
}

/// A pod that ended for no fault of its task and no merit: nothing is lost with it.
fn without_outcome(job: &JobView, pod: &PodView) -> Option<Warrant> {
    if pod.phase != PodPhase::Failed {
        return None;
    }
    let task = pod.task.as_deref()?;
    // Set by whoever ended or rejected the whole pod; its own deadline is the template's doing.
    let was_ended = task.reason.as_deref().is_some_and(|reason| reason != "DeadlineExceeded");
    let was_target = task
        .conditions
        .iter()
        .any(|found| &*found.type_ == "DisruptionTarget" && found.status == ConditionStatus::True);
    if pod.meta().is_deleting() || was_ended || was_target {
        return Some(Warrant::Finished);
    }
    let rules = job.spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    let is_ignored = rules.into_iter().any(|rule| rule.action == PodFailureAction::Ignore);
    is_ignored.then_some(Warrant::Declared)
}

/// The jobs around a finished one.
struct Crowd {
    unfinished: usize,
    /// Finished jobs that ended after it.
    newer: usize,
}

impl Crowd {
    fn of(job: &JobView, all: &[Arc<JobView>]) -> Self {
        let end = |job: &JobView| {
            let at = job.status.completion_time.as_ref().filter(|_| job.is_finished())?;
            Some((at.0, job.meta().uid.clone()))
        };
        let own = end(job);
        let mut crowd = Self { unfinished: 0, newer: 0 };
        for other in all.iter().filter(|other| other.is_ours()) {
            match end(other) {
                None => crowd.unfinished += 1,
                other => crowd.newer += usize::from(other > own),
            }
        }
        crowd
    }

    /// Whether so many newer ones are there that this one is no longer kept.
    fn exceeds(&self, history: usize, most: usize) -> bool {
        self.newer >= history.min(most.saturating_sub(self.unfinished))
    }
}

impl Warrants for BatchJobWarrants {
    fn warrant(&self, target: &Target<'_>) -> Option<Warrant> {
        let now = self.clock.now();
        match target.resource {
            Resource::POD => self.of_pod(target, now),
            BATCH_JOB if target.is_delete => self.of_job(target, now),
            _ => None,
        }
    }

    fn is_protected(&self, target: &Target<'_>) -> bool {
        match target.resource {
            Resource::POD => self.pod(target).is_some_and(|pod| pod.meta().labels.protection.0),
            BATCH_JOB => self.job(target).is_some_and(|job| job.meta().labels.protection.0),
            _ => false,
        }
    }

    fn live(&self, resource: Resource, namespace: Option<&str>) -> usize {
        if resource == BATCH_JOB {
            return self
                .stores
                .jobs
                .list(namespace)
                .iter()
                .filter(|job| job.is_ours() && !job.is_finished())
                .count();
        }
        let seen = lock(&self.seen);
        match namespace {
            Some(namespace) => seen.live.get(namespace).map_or(0, HashMap::len),
            None => seen.live.values().map(HashMap::len).sum(),
        }
    }
}
