//! Whether a queue's rules ask for the end of a pod that may still run, and of how many: a cut quota, a lender
//! who wants back what it has lent, a tier that has to yield.
//!
//! Derived from the rules, the pods and the jobs alone, whatever the admission has claimed. Each claim is bounded:
//! by what exceeds the max, or by what those ask for that wait and are entitled. What goes already counts.

use crate::admission::{QueueRules, QuotaRow};
use crate::projections::job::JobView;
use crate::projections::pod::PodView;
use crate::resources::ResourceList;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::StopPolicy;
use springtide_crds::common::Tier;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// A queue by its name, as one namespace sees it.
type Name<'a> = &'a str;

/// What the stores say of the queues of one namespace.
pub(super) struct Scene<'a> {
    /// Rules by the name of the queue.
    queues: &'a BTreeMap<Arc<str>, QueueRules>,
    /// What pods hold that stay.
    staying: HashMap<Name<'a>, ResourceList>,
    /// What pods hold that go.
    going: HashMap<Name<'a>, ResourceList>,
    waiting: Vec<Waiting<'a>>,
    now: Timestamp,
}

/// What a job still asks for.
struct Waiting<'a> {
    queue: Name<'a>,
    rank: (Tier, i32),
    wants: ResourceList,
}

impl<'a> Scene<'a> {
    /// `going`: pods that are warranted to go, which the stores may not show yet.
    pub(super) fn new(
        queues: &'a BTreeMap<Arc<str>, QueueRules>,
        pods: &'a [Arc<PodView>],
        jobs: &'a [Arc<JobView>],
        going: &HashSet<Uid>,
        now: Timestamp,
    ) -> Self {
        let mut scene =
            Self { queues, staying: HashMap::new(), going: HashMap::new(), waiting: Vec::new(), now };
        let mut alive: HashMap<&Uid, u32> = HashMap::new();
        for pod in pods.iter().filter(|pod| pod.may_run()) {
            let Some(owner) = pod.job_owner() else { continue };
            let meta = pod.meta();
            *alive.entry(&owner.uid).or_default() += 1;
            let Some(queue) = meta.labels.queue.as_deref() else { continue };
            let goes = meta.is_deleting() || going.contains(&meta.uid);
            let held = if goes { &mut scene.going } else { &mut scene.staying };
            held.entry(queue).or_default().add(&charged(queues.get(queue), pod));
        }
        for job in jobs.iter().filter(|job| !job.is_finished() && !job.meta().is_deleting()) {
            let alive = alive.get(&job.meta().uid).copied().unwrap_or(0);
            let spec = &job.spec;
            let open = spec.completions.saturating_sub(job.status.succeeded);
            let missing = spec.parallelism.min(open).saturating_sub(alive);
            let queue = spec.queue_name.as_deref().unwrap_or("default");
            if missing > 0 && spec.stop_policy == StopPolicy::None && queues.contains_key(queue) {
                let wants = job.template.shape.requests.times(missing.into());
                scene.waiting.push(Waiting { queue, rank: (spec.tier, spec.priority), wants });
            }
        }
        scene
    }

    /// Whether the rules of its queue ask for the end of a pod of this priority.
    pub(super) fn is_claimed(&self, pod: &PodView, priority: i32) -> bool {
        let labels = &pod.meta().labels;
        let Some(name) = labels.queue.as_deref() else { return false };
        let Some(rules) = self.queues.get(name) else { return false };
        rules.stop == StopPolicy::Drain
            || self.exceeds_max(name, rules, pod)
            || self.is_lent(name, rules, pod)
            || self.yields(name, rules, pod, (labels.tier.0, priority))
    }

    fn exceeds_max(&self, name: Name<'_>, rules: &QueueRules, pod: &PodView) -> bool {
        rules.quota.iter().any(|row| {
            let most = if rules.cohort.is_some() { row.max } else { row.nominal.min(row.max) };
            holds(rules, row, pod) && held(rules, self.staying.get(name), row) > most
        })
    }

    /// Whether the queue has borrowed what others of its cohort wait for, within what is their own.
    fn is_lent(&self, name: Name<'_>, rules: &QueueRules, pod: &PodView) -> bool {
        if rules.cohort.is_none() {
            return false;
        }
        let others = || self.queues.iter().filter(|(_, other)| other.cohort == rules.cohort);
        rules.quota.iter().any(|row| {
            if !holds(rules, row, pod) || held(rules, self.staying.get(name), row) <= row.nominal {
                return false;
            }
            let claimed: i64 = others()
                .filter(|(lender, _)| &***lender != name)
                .filter_map(|(lender, rules)| {
                    let own = rules.quota.iter().find(|own| own.resource == row.resource)?;
                    let used = held(rules, self.staying.get(&**lender), own);
                    let wanted = self.wanted(lender, rules, own);
                    Some(own.nominal.saturating_sub(used).max(0).min(wanted))
                })
                .sum();
            let going: i64 = others().map(|(other, rules)| held(rules, self.going.get(&**other), row)).sum();
            going < claimed
        })
    }

    /// Whether those of its queue wait that it has to yield to, and it has run as long as it is promised.
    fn yields(&self, name: Name<'_>, rules: &QueueRules, pod: &PodView, rank: (Tier, i32)) -> bool {
        let Some(tier) = rules.tiers.get(&rank.0).filter(|tier| !tier.preemptible_by.is_empty()) else {
            return false;
        };
        if after(pod.meta().creation_time, tier.min_run.max(SignedDuration::ZERO)) > self.now {
            return false;
        }
        let is_heard = |other: (Tier, i32)| other > rank && tier.preemptible_by.contains(&other.0);
        let mut wants = ResourceList::default();
        for waiting in self.waiting.iter().filter(|waiting| waiting.queue == name && is_heard(waiting.rank)) {
            wants.add(&waiting.wants);
        }
        let none = ResourceList::default();
        let going = self.going.get(name).unwrap_or(&none);
        let held = charged(Some(rules), pod);
        held.iter().any(|(resource, amount)| amount > 0 && going.get(resource) < wants.get(resource))
    }

    fn wanted(&self, name: &str, rules: &QueueRules, row: &QuotaRow) -> i64 {
        let waiting = self.waiting.iter().filter(|waiting| waiting.queue == name);
        waiting.map(|waiting| held(rules, Some(&waiting.wants), row)).sum()
    }
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
