//! Whether a job's spec asks for the end of a pod that may still run, and of how many.

use super::claims::Scene;
use super::record::Outcomes;
use super::{BatchJobWarrants, Seen, peaks};
use crate::admission::{CohortScope, QueueRules};
use crate::lock;
use crate::pods::UNFIT_DEADLINE;
use crate::projections::job::JobView;
use crate::projections::pod::{PodPhase, PodView};
use crate::queues::rules;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::{
    DEFAULT_BACKOFF_LIMIT, FailedReason, PodFailureAction, StalledReason, StopPolicy,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::{ObjectKey, ResourceVersion, Uid};
use springtide_plumbing::projection::Projection;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// For so long a pod that was warranted to go counts as going: its delete is answered by then, and seen.
const LEAVES_WITHIN: SignedDuration = SignedDuration::from_secs(60);

/// The pods of one job that were warranted to go.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    pods: HashMap<Uid, Going>,
    /// When the first pod of a gang went that is not complete: the others go with it.
    gang: Option<Timestamp>,
}

/// A pod for whose delete there was a warrant.
#[derive(Debug)]
struct Going {
    since: Timestamp,
    /// The delete is of this version alone.
    version: ResourceVersion,
}

impl Leaving {
    /// The pods.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Uid> {
        self.pods.keys()
    }

    /// Forgets what has not gone: in time, or as its delete has failed, since it stays in a later version.
    fn forget(&mut self, pods: &[Arc<PodView>], now: Timestamp) {
        self.pods.retain(|_, going| going.since + LEAVES_WITHIN > now);
        for meta in pods.iter().map(|pod| pod.meta()).filter(|meta| !meta.is_deleting()) {
            if self.pods.get(&meta.uid).is_some_and(|going| going.version < meta.resource_version) {
                self.pods.remove(&meta.uid);
            }
        }
        self.gang = self.gang.filter(|at| *at + LEAVES_WITHIN > now);
    }
}

impl BatchJobWarrants {
    pub(super) fn is_declared(
        &self,
        job: &JobView,
        outcomes: &Outcomes,
        pod: &PodView,
        now: Timestamp,
    ) -> bool {
        let pods = self.pods_of(job);
        let mut seen = lock(&self.seen);
        let mut leaving = seen.leaving.remove(&job.meta().uid).unwrap_or_default();
        leaving.forget(&pods, now);
        let is_closed = pod.attempt().is_some_and(|(index, _)| outcomes.is_closed(index));
        let is_declared = leaving.pods.contains_key(&pod.meta().uid)
            || is_closed
            || is_stopped(job, pod)
            || failure(job).is_some_and(|reason| is_met(reason, job, outcomes, &pods, now))
            || is_overdue(job, pod, &seen, now)
            || is_of_incomplete_gang(job, outcomes, pod, &pods, &seen, &mut leaving, now)
            || exceeds_parallelism(job, &pods, &leaving)
            || has_succeeded(job, outcomes)
            || self.is_claimed(job, pod, &seen, &leaving, now);
        if is_declared {
            let version = pod.meta().resource_version;
            leaving.pods.entry(pod.meta().uid.clone()).or_insert(Going { since: now, version });
        }
        if !leaving.pods.is_empty() {
            seen.leaving.insert(job.meta().uid.clone(), leaving);
        }
        is_declared
    }
}

impl BatchJobWarrants {
    /// Whether the rules of its queue ask for the end of a pod, those aside that go already.
    fn is_claimed(
        &self,
        job: &JobView,
        pod: &PodView,
        seen: &Seen,
        leaving: &Leaving,
        now: Timestamp,
    ) -> bool {
        let Some(name) = &pod.meta().labels.queue else { return false };
        let key = ObjectKey { namespace: Arc::clone(&pod.meta().key.namespace), name: Arc::clone(name) };
        let going = peaks::going(seen, leaving);
        if let Some(queue) = self.stores.queues.get(&key)
            && self.yields_to_peak(&queue, job, pod, &going, now)
        {
            return true;
        }
        let scope = self.settings.cohort_scope;
        let own = &pod.meta().key.namespace;
        let mut queues: BTreeMap<ObjectKey, QueueRules> = match scope {
            CohortScope::Namespace => self.rules(Some(own)),
            CohortScope::Cluster => self.rules(None),
        };
        let cohort = queues.get(&key).and_then(|rules| rules.cohort.clone());
        queues.retain(|key, rules| key.namespace == *own || cohort.is_some() && rules.cohort == cohort);
        let namespaces: BTreeSet<&Arc<str>> = queues.keys().map(|key| &key.namespace).collect();
        let mut pods = Vec::new();
        let mut jobs = Vec::new();
        for namespace in namespaces {
            pods.extend(self.stores.pods.list(Some(namespace)));
            jobs.extend(self.stores.jobs.list(Some(namespace)));
        }
        let size = |job: &JobView, queue: &ObjectKey| self.size(job, queue);
        let scene = Scene::new(&queues, scope, &pods, &jobs, &going, size, now);
        // A gang ends as a whole, though less were enough.
        scene.is_claimed(pod, job.spec.priority)
            || self.is_of_broken_gang(job, &going) && scene.before().is_claimed(pod, job.spec.priority)
    }

    /// The rules of the queues of a namespace, or of all.
    fn rules(&self, namespace: Option<&str>) -> BTreeMap<ObjectKey, QueueRules> {
        let queues = self.stores.queues.list(namespace);
        queues.iter().map(|queue| (queue.meta().key.clone(), rules::rules(queue))).collect()
    }
}

fn is_stopped(job: &JobView, pod: &PodView) -> bool {
    match job.spec.stop_policy {
        StopPolicy::Drain => true,
        StopPolicy::Hold => pod.node.is_none(),
        StopPolicy::None => false,
    }
}

/// Why the job has failed, or is about to, as its status says.
fn failure(job: &JobView) -> Option<FailedReason> {
    let failed = job.condition(FailedReason::CONDITION).filter(|_| job.holds(FailedReason::CONDITION));
    let said = failed.or_else(|| job.condition(StalledReason::CONDITION))?;
    FailedReason::all().into_iter().find(|reason| reason.as_str() == said.reason)
}

/// Whether the figures are such as the reason says: the status alone was written by the planner.
fn is_met(
    reason: FailedReason,
    job: &JobView,
    outcomes: &Outcomes,
    pods: &[Arc<PodView>],
    now: Timestamp,
) -> bool {
    let (spec, status) = (&job.spec, &job.status);
    let counted =
        |pod: &PodView| pod.attempt().is_some_and(|(index, attempt)| outcomes.holds(index, attempt));
    let uncounted = pods.iter().filter(|pod| pod.phase == PodPhase::Failed && !counted(pod)).count();
    let failures = (status.failed as usize).saturating_add(uncounted);
    let has_run = |limit: u32| {
        let since =
            status.running_since_time.as_ref().map_or(SignedDuration::ZERO, |at| now.duration_since(at.0));
        i64::from(status.running_seconds) + since.as_secs() >= i64::from(limit)
    };
    let has_waited = |limit: u32| {
        let stopped = i64::from(status.suspended_seconds);
        let wait = SignedDuration::from_secs(i64::from(limit) + stopped);
        let deadline = after(job.meta().creation_time, wait);
        status.start_time.is_none() && deadline <= now
    };
    match reason {
        FailedReason::BackoffLimitExceeded => {
            let unlimited = spec.backoff_limit_per_index.is_some();
            let limit = spec.backoff_limit.or((!unlimited).then_some(DEFAULT_BACKOFF_LIMIT));
            limit.is_some_and(|limit| failures > limit as usize)
        }
        FailedReason::FailedIndexes => outcomes.closed() >= spec.completions,
        FailedReason::MaxFailedIndexesExceeded => spec
            .max_failed_indexes
            .is_some_and(|most| outcomes.closed().saturating_sub(status.succeeded) > most),
        FailedReason::PodFailurePolicy => {
            let rules = spec.pod_failure_policy.iter().flat_map(|policy| &policy.rules);
            failures > 0 && rules.into_iter().any(|rule| rule.action == PodFailureAction::FailJob)
        }
        FailedReason::DeadlineExceeded => spec.active_deadline_seconds.is_some_and(has_run),
        FailedReason::QueueDeadlineExceeded => spec.queue_deadline_seconds.is_some_and(has_waited),
        // Nothing in the stores shows that the API server refuses it; and so it has no pods.
        FailedReason::InvalidTemplate => false,
    }
}

/// Whether so many tasks have succeeded as the success policy asks for, and so many of those that it names have ended.
fn has_succeeded(job: &JobView, outcomes: &Outcomes) -> bool {
    let Some(rule) = job.spec.success_policy.as_ref().and_then(|policy| policy.rules.first()) else {
        return false;
    };
    let Some(list) = &rule.succeeded_indexes else {
        return rule.succeeded_count.is_some_and(|count| job.status.succeeded >= count);
    };
    let mut named: Vec<(u32, u32)> = list
        .split(',')
        .filter_map(|entry| {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
            Some((first.min(last), first.max(last)))
        })
        .collect();
    named.sort_unstable();
    let (mut all, mut ended, mut next) = (0, 0, 0);
    for (first, last) in named {
        for index in first.max(next)..=last.min(job.spec.completions.saturating_sub(1)) {
            all += 1;
            ended += u32::from(outcomes.is_closed(index));
            next = index + 1;
        }
    }
    let needed = rule.succeeded_count.unwrap_or(all);
    needed > 0 && ended >= needed && job.status.succeeded >= needed
}

/// Whether a pod was not scheduled for as long as the job gives it. What a foreign gate holds is not late.
fn is_overdue(job: &JobView, pod: &PodView, seen: &Seen, now: Timestamp) -> bool {
    pod.node.is_none() && pod.scheduling_gate.is_none() && is_seen_for_deadline(job, pod, seen, now)
}

fn is_seen_for_deadline(job: &JobView, pod: &PodView, seen: &Seen, now: Timestamp) -> bool {
    let since = seen.live.get(&pod.meta().key.namespace).and_then(|live| live.get(&pod.meta().uid));
    let is_unfit = pod.node.is_none() && pod.meta().labels.unfit.0;
    let deadline = if is_unfit { pending_deadline(job).max(UNFIT_DEADLINE) } else { pending_deadline(job) };
    since.is_some_and(|since| *since + deadline <= now)
}

fn pending_deadline(job: &JobView) -> SignedDuration {
    SignedDuration::from_secs(job.spec.pending_deadline_seconds.into())
}

/// Whether the pod holds a place for others of its gang that do not come: one of them is late, or the gang
/// has never been whole and has had its time.
fn is_of_incomplete_gang(
    job: &JobView,
    outcomes: &Outcomes,
    pod: &PodView,
    pods: &[Arc<PodView>],
    seen: &Seen,
    leaving: &mut Leaving,
    now: Timestamp,
) -> bool {
    let open = job.spec.completions.saturating_sub(outcomes.closed());
    let needed = job.spec.min_parallelism.min(open) as usize;
    if needed <= 1 {
        return false;
    }
    if leaving.gang.is_some() {
        return true;
    }
    let live = || pods.iter().filter(|pod| pod.may_run());
    let overdue: Vec<_> = live().filter(|pod| is_overdue(job, pod, seen, now)).collect();
    let on_nodes = live().filter(|pod| pod.node.is_some() && !pod.meta().is_deleting()).count();
    let oldest = overdue.iter().map(|pod| pod.meta().creation_time).min();
    // One that was there long before is at work.
    let waits_for = oldest.is_some_and(|oldest| pod.meta().creation_time + pending_deadline(job) >= oldest);
    let was_whole = seen.whole.get(&job.meta().uid).copied().unwrap_or_else(|| was_whole(job));
    let staying = live().filter(|pod| !pod.meta().is_deleting()).count();
    let has_had_its_time =
        !was_whole && staying < needed && live().all(|pod| is_seen_for_deadline(job, pod, seen, now));
    let is_incomplete = on_nodes < needed && waits_for || has_had_its_time;
    if is_incomplete {
        leaving.gang = Some(now);
    }
    is_incomplete
}

/// Whether the status says of a gang that it had as many pods as it needs, or an end.
pub(super) fn was_whole(job: &JobView) -> bool {
    let status = &job.status;
    status.active >= job.spec.min_parallelism || status.succeeded + status.failed + status.disrupted > 0
}

/// Whether more pods stay than the job may have now, those aside that go already.
fn exceeds_parallelism(job: &JobView, pods: &[Arc<PodView>], leaving: &Leaving) -> bool {
    let staying = pods.iter().filter(|pod| {
        let meta = pod.meta();
        !pod.is_terminal() && !meta.is_deleting() && !leaving.pods.contains_key(&meta.uid)
    });
    staying.count() > job.spec.parallelism as usize
}
