//! What a pass knows of one job: its pods with what their ends mean, its progress, its course.

use super::course::{self, Course};
use super::dispatch::{self, Dispatch};
use super::tally::Tally;
use crate::admission::CohortScope;
use crate::ceiling::Standing;
use crate::failure::{Ending, OOM_KILLED, ending};
use crate::indexes::{IndexError, Indexes, Retries};
use crate::memory::{Facts, RELEASE_BACKOFF_MAX};
use crate::pod_groups::GroupUse;
use crate::pods::UNFIT_DEADLINE;
use crate::profiles::fitting::Fitting;
use crate::projections::job::JobView;
use crate::projections::pod::{PodPhase, PodView};
use crate::queues::{BuiltInQueue, Placement};
use crate::shape::Shape;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::{MAX_OOM_STEPS, StopPolicy};
use springtide_crds::batch_queue;
use springtide_plumbing::clock::after;
use springtide_plumbing::failing::Failing;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use std::sync::Arc;

/// One pod of the job's present incarnation: an attempt at an index.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The pod.
    pub view: Arc<PodView>,
    /// Which task.
    pub index: u32,
    /// Which attempt at it; 0 is the first.
    pub attempt: u32,
    /// How it ended; `None` while it may still run.
    pub ending: Option<Ending>,
}

impl Attempt {
    /// Reads the job's pods: those of this incarnation whose names are of ours.
    pub fn of_job(job: &JobView, pods: &[Arc<PodView>]) -> Vec<Self> {
        let policy = job.spec.pod_failure_policy.as_ref();
        let own = pods.iter().filter(|pod| pod.job_owner().is_some_and(|owner| owner.uid == job.meta().uid));
        own.filter_map(|pod| {
            let (index, attempt) = pod.attempt()?;
            let ending = ending(pod, policy);
            (index < job.spec.completions).then(|| Self { view: Arc::clone(pod), index, attempt, ending })
        })
        .collect()
    }

    /// Whether it may still run.
    pub fn is_live(&self) -> bool {
        self.ending.is_none()
    }

    /// Whether its containers run.
    pub fn is_running(&self) -> bool {
        self.is_live() && self.view.phase == PodPhase::Running
    }

    /// Whether it ended and its outcome counts.
    pub fn has_outcome(&self) -> bool {
        match &self.ending {
            Some(Ending::Succeeded | Ending::Failed(_)) => true,
            Some(Ending::Disrupted) | None => false,
        }
    }

    /// When its first container began to run; where the clock of its node says what cannot be, the time
    /// the pod was made.
    pub fn started(&self, now: Timestamp) -> Option<Timestamp> {
        let started = self.view.task.as_deref().and_then(|task| task.started)?;
        let created = self.view.meta().creation_time;
        Some(if (created..=now).contains(&started) { started } else { created })
    }

    /// When its last container ended; not before the pod was made.
    pub fn finished(&self) -> Option<Timestamp> {
        let finished = self.view.task.as_deref().and_then(|task| task.finished)?;
        Some(finished.max(self.view.meta().creation_time))
    }

    /// Whether it waits for a node. What a foreign gate holds back does not: taken back, it would be held
    /// back again.
    pub fn waits_for_node(&self) -> bool {
        self.is_live()
            && self.view.node.is_none()
            && self.view.scheduling_gate.is_none()
            && !self.view.meta().is_deleting()
    }

    /// When a pod that waits for a node is taken back; `None` for any other. It counts from when this
    /// process saw it wait: the clock of the API server, which says when it was made, may be hours off.
    pub fn pending_until(&self, job: &JobView, facts: &Facts) -> Option<Timestamp> {
        let since = facts.pending.get(&self.view.meta().uid).filter(|_| self.waits_for_node())?;
        let deadline = SignedDuration::from_secs(job.spec.pending_deadline_seconds.into());
        // A node that an autoscaler adds takes minutes to come.
        let is_unfit = self.view.meta().labels.unfit.0;
        Some(*since + if is_unfit { deadline.max(UNFIT_DEADLINE) } else { deadline })
    }

    /// Whether it waits for a node too long.
    pub fn is_overdue(&self, job: &JobView, facts: &Facts, now: Timestamp) -> bool {
        self.pending_until(job, facts).is_some_and(|until| until <= now)
    }
}

/// A pod of somebody else under a name that the job needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The pod.
    pub pod: ObjectKey,
    /// Its controller, as `Kind name`; empty when it has none.
    pub owner: String,
}

/// Bounds that the manager sets for all jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How long a finished job stays of which neither itself nor its queue says it, in seconds.
    pub ttl_seconds: u32,
    /// Finished jobs kept in one namespace, those aside that were in a BatchQueue.
    pub history_limit: usize,
    /// Whether jobs run in namespaces without a BatchQueue.
    pub built_in_queue: BuiltInQueue,
    /// Which queues of one cohort's name lend to each other.
    pub cohort_scope: CohortScope,
    /// Declared maximum of jobs in one namespace.
    pub max_per_namespace: usize,
    /// Declared maximum of jobs in the cluster.
    pub max_per_cluster: usize,
    /// Declared maximum of queues in one namespace.
    pub max_queues_per_namespace: usize,
    /// Declared maximum of queues in the cluster.
    pub max_queues_per_cluster: usize,
}

impl Default for Settings {
    /// The defaults of the built-in queue, and the maxima that the CRD declares.
    fn default() -> Self {
        Self {
            ttl_seconds: 900,
            history_limit: 400,
            built_in_queue: BuiltInQueue::Enabled,
            cohort_scope: CohortScope::Namespace,
            max_per_namespace: 1500,
            max_per_cluster: 10_000,
            max_queues_per_namespace: batch_queue::MAX_PER_NAMESPACE as usize,
            max_queues_per_cluster: batch_queue::MAX_PER_CLUSTER as usize,
        }
    }
}

/// Everything a plan for one job rests on, but for the grant.
#[derive(Clone, Debug)]
pub struct JobState {
    /// The job.
    pub job: Arc<JobView>,
    /// What this process remembers of it.
    pub facts: Facts,
    /// Where it stands among the declared maxima.
    pub standing: Standing,
    /// Manager-wide bounds.
    pub settings: Settings,
    /// Its progress as the stored status says.
    pub indexes: Indexes,
    /// Its pods.
    pub pods: Vec<Attempt>,
    /// Its progress, the outcomes included that no status says yet.
    pub tally: Tally,
    /// Where it is heading.
    pub course: Course,
    /// What it could start now.
    pub dispatch: Dispatch,
    /// Names it needs that somebody else has.
    pub conflicts: Vec<Conflict>,
    /// The queue it is in.
    pub placement: Placement,
    /// What the job has to do with a PodGroup.
    pub group: GroupUse,
    /// What its pods look like there.
    pub shape: Arc<Shape>,
    /// What its other writes fail at: those of pods are in [`facts`](Self::facts).
    pub failing: Option<Failing>,
    /// What its profile makes of its pods' requests.
    pub fitting: Fitting,
}

impl JobState {
    /// Takes stock. `pods` are those of all incarnations of the job's name; `pods` of others than this
    /// one hold their names and indexes until they are gone.
    pub fn new(
        job: Arc<JobView>,
        pods: &[Arc<PodView>],
        facts: Facts,
        standing: Standing,
        settings: Settings,
        now: Timestamp,
    ) -> Self {
        let (indexes, unreadable) = match stored_indexes(&job) {
            Ok(indexes) => (indexes, None),
            Err(error) => (Indexes::new(job.spec.completions), Some(error)),
        };
        // Nothing is counted, started or released on a record that cannot be read.
        let own = if unreadable.is_some() { Vec::new() } else { Attempt::of_job(&job, pods) };
        let mut tally = Tally::count(&job, &indexes, &own, &facts, false, now);
        let course = course::of(
            &job,
            &own,
            unreadable.as_ref().map_or(Ok(&indexes), Err),
            &tally,
            &facts,
            standing,
            now,
        );
        if course.is_ending() && !own.iter().any(Attempt::is_live) {
            tally = Tally::count(&job, &indexes, &own, &facts, true, now);
        }
        let dispatch = match course {
            Course::Open => dispatch::of(&job, &tally, &own, pods, &facts, now),
            Course::Deleting
            | Course::Finished
            | Course::Failing { .. }
            | Course::Completing(_)
            | Course::Stopped(_)
            | Course::Stuck { .. } => Dispatch::default(),
        };
        Self {
            placement: Placement::default(),
            group: GroupUse::None,
            shape: Arc::clone(&job.template.shape),
            job,
            facts,
            standing,
            settings,
            indexes,
            pods: own,
            tally,
            course,
            dispatch,
            conflicts: Vec::new(),
            failing: None,
            fitting: Fitting::default(),
        }
    }

    /// Takes the names out of what could start that somebody else has: `holder` gives the pod of a name.
    pub fn yield_names(&mut self, holder: impl Fn(&ObjectKey) -> Option<Arc<PodView>>) {
        let job = &self.job.meta().key;
        let conflicts = &mut self.conflicts;
        self.dispatch.startable.retain(|start| {
            let Some(pod) = holder(&crate::pods::pod_key(job, start.index, start.attempt)) else {
                return true;
            };
            let owner = pod.meta().controller.as_ref();
            let owner = owner.map(|owner| format!("{} {}", owner.kind, owner.name)).unwrap_or_default();
            conflicts.push(Conflict { pod: pod.meta().key.clone(), owner });
            false
        });
    }

    /// Name of the queue that let the first pods of the job start, empty for the built-in one: the job stays
    /// in it.
    pub fn fixed_queue(&self) -> Option<Arc<str>> {
        if let Some(pod) = self.pods.first() {
            return Some(pod.view.meta().labels.queue.clone().unwrap_or_else(|| Arc::from("")));
        }
        let is_fixed = self.job.status.admitted_time.is_some() || self.job.is_finished();
        self.job.status.queue.as_deref().filter(|_| is_fixed).map(Arc::from)
    }

    /// Whether the job's queue ends its pods, and lets none start.
    pub fn is_drained(&self) -> bool {
        let serves = match &self.course {
            Course::Open | Course::Stuck { .. } => true,
            Course::Deleting
            | Course::Finished
            | Course::Failing { .. }
            | Course::Completing(_)
            | Course::Stopped(_) => false,
        };
        serves && self.placement.stop == StopPolicy::Drain
    }

    /// Whether the job ever had a pod, as far as anybody knows.
    pub fn has_started(&self) -> bool {
        // Of pods that were ended before any status told of them, this alone may be left.
        let was_disrupted = self.facts.disrupted.max(self.job.status.disrupted) > 0;
        was_disrupted || course::has_started(&self.job, &self.pods)
    }

    /// Pods that may still run, those being deleted included.
    pub fn live(&self) -> u32 {
        count(self.pods.iter().filter(|pod| pod.is_live()))
    }

    /// Until when a pod is left alone that the API server refused to release. A pause that ends later than any can
    /// was begun before the clock was put back.
    pub(super) fn unreleased_until(&self, pod: &PodView, now: Timestamp) -> Option<Timestamp> {
        let refusal = self.facts.unreleased.get(&pod.meta().key.name)?;
        Some(refusal.until).filter(|until| *until > now && *until <= after(now, RELEASE_BACKOFF_MAX))
    }

    /// Whether the stored status, or its being final, accounts for this pod.
    pub fn is_counted(&self, pod: &Attempt) -> bool {
        self.job.is_finished() || self.indexes.is_counted(pod.index, pod.attempt)
    }
}

/// Counts, within the bounds of the API.
pub(super) fn count(items: impl Iterator) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

/// The progress of a job as its stored status says.
pub(crate) fn stored_indexes(job: &JobView) -> Result<Indexes, IndexError> {
    let completions = job.spec.completions;
    match &job.status.indexes {
        _ if job.is_single() => {
            let ooms = job.status.exit_codes.iter().filter(|row| row.reason == OOM_KILLED);
            let oom_steps = ooms.map(|row| row.count).sum::<u32>().min(MAX_OOM_STEPS);
            let retries = Retries { failures: job.status.failed, oom_steps };
            Ok(Indexes::single(retries, job.is_finished()))
        }
        Some(stored) => Indexes::decode(stored, completions),
        None => Ok(Indexes::new(completions)),
    }
}
