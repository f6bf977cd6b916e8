//! Whether a queue's rules ask for the end of a pod that may still run, and of how many: a cut quota, a lender
//! who wants back what it has lent, a tier that has to yield.
//!
//! Derived from the rules, the pods and the jobs alone, whatever the admission has claimed. Each claim is bounded:
//! by what exceeds the max, or by what those ask for that wait and are entitled. What goes already counts.

use crate::admission::{CohortScope, QueueRules, QuotaRow};
use crate::projections::job::JobView;
use crate::projections::pod::PodView;
use springtide_plumbing::resources::ResourceList;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::StopPolicy;
use springtide_crds::batch_queue::DEFAULT_QUEUE;
use springtide_crds::common::Tier;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// What the stores say of the queues of one namespace, or of all that may lend to each other.
pub(super) struct Scene<'a> {
    queues: &'a BTreeMap<ObjectKey, QueueRules>,
    scope: CohortScope,
    /// What pods hold that stay.
    staying: HashMap<ObjectKey, ResourceList>,
    /// What pods hold that go.
    going: HashMap<ObjectKey, ResourceList>,
    waiting: Vec<Waiting>,
    now: Timestamp,
}

/// What a job still asks for.
struct Waiting {
    queue: ObjectKey,
    rank: (Tier, i32),
    wants: ResourceList,
}

impl<'a> Scene<'a> {
    /// `going`: pods that are warranted to go, which the stores may not show yet. `size`: what a pod that is still to come
    /// requests, by job and queue.
    pub(super) fn new(
        queues: &'a BTreeMap<ObjectKey, QueueRules>,
        scope: CohortScope,
        pods: &[Arc<PodView>],
        jobs: &[Arc<JobView>],
        going: &HashSet<Uid>,
        size: impl Fn(&JobView, &ObjectKey) -> ResourceList,
        now: Timestamp,
    ) -> Self {
        let (staying, waiting) = (HashMap::new(), Vec::new());
        let mut scene = Self { queues, scope, staying, going: HashMap::new(), waiting, now };
        let mut alive: HashMap<&Uid, u32> = HashMap::new();
        for pod in pods.iter().filter(|pod| pod.may_run()) {
            let Some(owner) = pod.job_owner() else { continue };
            let meta = pod.meta();
            *alive.entry(&owner.uid).or_default() += 1;
            let Some(queue) = queue_of(pod) else { continue };
            let amount = charged(queues.get(&queue), pod);
            let goes = meta.is_deleting() || going.contains(&meta.uid);
            let held = if goes { &mut scene.going } else { &mut scene.staying };
            held.entry(queue).or_default().add(&amount);
        }
        for job in jobs.iter().filter(|job| !job.is_finished() && !job.meta().is_deleting()) {
            let alive = alive.get(&job.meta().uid).copied().unwrap_or(0);
            let spec = &job.spec;
            let open = spec.completions.saturating_sub(job.status.succeeded);
            let missing = spec.parallelism.min(open).saturating_sub(alive);
            let name = spec.queue_name.as_deref().unwrap_or(DEFAULT_QUEUE);
            let queue = ObjectKey { namespace: Arc::clone(&job.meta().key.namespace), name: Arc::from(name) };
            if missing > 0 && spec.stop_policy == StopPolicy::None && queues.contains_key(&queue) {
                let wants = size(job, &queue).times(missing.into());
                scene.waiting.push(Waiting { queue, rank: (spec.tier, spec.priority), wants });
            }
        }
        scene
    }

    /// The same before anything went.
    pub(super) fn before(mut self) -> Self {
        for (queue, amount) in self.going.drain() {
            self.staying.entry(queue).or_default().add(&amount);
        }
        self
    }

    /// Whether the rules of its queue ask for the end of a pod of this priority.
    pub(super) fn is_claimed(&self, pod: &PodView, priority: i32) -> bool {
        let Some(queue) = queue_of(pod) else { return false };
        let Some(rules) = self.queues.get(&queue) else { return false };
        rules.stop == StopPolicy::Drain
            || self.exceeds_max(&queue, rules, pod)
            || self.is_lent(&queue, rules, pod)
            || self.yields(&queue, rules, pod, (pod.meta().labels.tier.0, priority))
    }

    fn exceeds_max(&self, queue: &ObjectKey, rules: &QueueRules, pod: &PodView) -> bool {
        rules.quota.iter().any(|row| {
            let most = if rules.cohort.is_some() { row.max } else { row.nominal.min(row.max) };
            holds(rules, row, pod) && held(rules, self.staying.get(queue), row) > most
        })
    }

    /// Whether the queue has borrowed what others of its cohort wait for, within what is their own.
    fn is_lent(&self, queue: &ObjectKey, rules: &QueueRules, pod: &PodView) -> bool {
        if rules.cohort.is_none() {
            return false;
        }
        let is_near = |other: &ObjectKey| match self.scope {
            CohortScope::Namespace => other.namespace == queue.namespace,
            CohortScope::Cluster => true,
        };
        let of_cohort =
            |(key, other): &(&ObjectKey, &QueueRules)| other.cohort == rules.cohort && is_near(key);
        let others = || self.queues.iter().filter(of_cohort);
        rules.quota.iter().any(|row| {
            if !holds(rules, row, pod) || held(rules, self.staying.get(queue), row) <= row.nominal {
                return false;
            }
            let claimed: i64 = others()
                .filter(|(lender, _)| *lender != queue)
                .filter_map(|(lender, rules)| {
                    let own = rules.quota.iter().find(|own| own.resource == row.resource)?;
                    let used = held(rules, self.staying.get(lender), own);
                    let wanted = self.wanted(lender, rules, own);
                    Some(own.nominal.saturating_sub(used).max(0).min(wanted))
                })
                .sum();
            let going: i64 = others().map(|(other, rules)| held(rules, self.going.get(other), row)).sum();
            going < claimed
        })
    }

    /// Whether those of its queue wait that it has to yield to, and it has run as long as it is promised.
    fn yields(&self, queue: &ObjectKey, rules: &QueueRules, pod: &PodView, rank: (Tier, i32)) -> bool {
        let Some(tier) = rules.tiers.get(&rank.0).filter(|tier| !tier.preemptible_by.is_empty()) else {
            return false;
        };
        if after(pod.meta().creation_time, tier.min_run.max(SignedDuration::ZERO)) > self.now {
            return false;
        }
        let is_heard = |other: (Tier, i32)| other > rank && tier.preemptible_by.contains(&other.0);
        let mut wants = ResourceList::default();
        for waiting in self.waiting.iter().filter(|waiting| waiting.queue == *queue && is_heard(waiting.rank))
        {
            wants.add(&waiting.wants);
        }
        // What waits asks by the names of its template, and what runs by those that its tier maps them to.
        let wants = by_base(rules, &wants);
        let going = self.going.get(queue).map(|going| by_base(rules, going)).unwrap_or_default();
        let held = by_base(rules, &charged(Some(rules), pod));
        held.iter().any(|(resource, amount)| amount > 0 && going.get(resource) < wants.get(resource))
    }

    fn wanted(&self, queue: &ObjectKey, rules: &QueueRules, row: &QuotaRow) -> i64 {
        let waiting = self.waiting.iter().filter(|waiting| waiting.queue == *queue);
        waiting.map(|waiting| held(rules, Some(&waiting.wants), row)).sum()
    }
}

/// The queue that a pod is counted in.
fn queue_of(pod: &PodView) -> Option<ObjectKey> {
    let meta = pod.meta();
    let name = Arc::clone(meta.labels.queue.as_ref()?);
    Some(ObjectKey { namespace: Arc::clone(&meta.key.namespace), name })
}

/// An amount by the names that resources have beside those that stand for them.
fn by_base(rules: &QueueRules, amount: &ResourceList) -> ResourceList {
    let base = |name: &str| rules.counted_as.get(name).cloned().unwrap_or_else(|| Arc::from(name));
    amount.iter().map(|(name, amount)| (base(name), amount)).collect()
}

/// Whether a pod takes anything of a row of a quota.
fn holds(rules: &QueueRules, row: &QuotaRow, pod: &PodView) -> bool {
    held(rules, Some(&charged(Some(rules), pod)), row) > 0
}

/// What a pod counts as: one without requests takes something all the same, unless it asks by another name.
pub(super) fn charged(rules: Option<&QueueRules>, pod: &PodView) -> ResourceList {
    let is_renamed = |rules: &QueueRules| rules.counted_as.keys().any(|name| pod.requests.get(name) > 0);
    match rules {
        Some(rules) if is_renamed(rules) => pod.requests.clone(),
        Some(_) | None => pod.requests.clone().charged(),
    }
}

/// How much of a row of a quota an amount is, by whatever name.
pub(super) fn held(rules: &QueueRules, amount: Option<&ResourceList>, row: &QuotaRow) -> i64 {
    let Some(amount) = amount else { return 0 };
    let others =
        rules.counted_as.iter().filter(|(name, base)| **base == row.resource && **name != row.resource);
    amount.get(&row.resource) + others.map(|(name, _)| amount.get(name)).sum::<i64>()
}

#[cfg(test)]
mod tests;
