//! Who uses more than it may, or what others have lent.

use super::{Cohort, Queue, Queues, counted, in_rows, most, rank};
use crate::admission::line::LineId;
use springtide_plumbing::resources::ResourceList;
use springtide_crds::common::Tier;
use springtide_plumbing::key::ObjectKey;

impl Queue {
    /// What is in use and will stay so.
    fn staying(&self, resource: &str) -> i64 {
        let leaving = self.leaving.iter().map(|leaving| counted(self.rules.as_deref(), leaving, resource));
        self.counted(resource) - leaving.sum::<i64>()
    }

    /// By how much of its quota it uses more than it may, what is on its way back aside.
    fn excess(&self) -> ResourceList {
        let Some(rules) = self.rules.as_deref() else { return ResourceList::default() };
        in_rows(rules, |row| (self.staying(&row.resource) - most(rules, row)).max(0))
    }
}

impl Queues {
    /// Queues that use more than they may, and by how much, what is on its way back aside. Of one whose pods are not
    /// known as they are now nobody can say.
    pub(in crate::admission) fn exceeding(&self) -> Vec<(ObjectKey, ResourceList)> {
        let known = self.by_key.iter().filter(|(_, queue)| !queue.old);
        let excess = known.map(|(key, queue)| (key.clone(), queue.excess()));
        excess.filter(|(_, excess)| excess.iter().next().is_some()).collect()
    }

    /// What the quota of a queue sees of an amount.
    pub(in crate::admission) fn in_quota(&self, key: &ObjectKey, amount: &ResourceList) -> ResourceList {
        match self.rules(key) {
            Some(rules) => in_rows(rules, |row| counted(Some(rules), amount, &row.resource)),
            None => ResourceList::default(),
        }
    }

    /// Whether anybody could have to end for a pod of these requests: the cohort has lent what is the queue's
    /// own, or there are pods of a tier that yields.
    pub(in crate::admission) fn may_claim(&self, line: &LineId, tier: Tier, requests: &ResourceList) -> bool {
        let Some(key) = line.queue() else { return false };
        let Some(queue) = self.by_key.get(&key) else { return false };
        let Some(rules) = queue.rules.as_deref() else { return false };
        let yields = rules.tiers.iter().any(|(of, rules)| {
            rules.preemptible_by.contains(&tier)
                && *of <= tier
                && queue.used[rank(*of)] != ResourceList::default()
        });
        let has_own = || {
            rules.quota.iter().all(|row| {
                let wanted = counted(Some(rules), requests, &row.resource);
                wanted == 0 || wanted <= row.nominal - queue.counted(&row.resource)
            })
        };
        let cohort = self.cohort_of(&key, rules).and_then(|id| self.cohorts.get(&id));
        let has_lent = |cohort: &Cohort| cohort.members.iter().any(|other| self.has_borrowed(other));
        yields || cohort.is_some_and(|cohort| has_own() && has_lent(cohort))
    }

    fn has_borrowed(&self, key: &ObjectKey) -> bool {
        self.borrowed(key).iter().next().is_some()
    }

    /// What a queue has borrowed.
    pub(in crate::admission) fn borrowed(&self, key: &ObjectKey) -> ResourceList {
        let Some(queue) = self.by_key.get(key) else { return ResourceList::default() };
        let Some(rules) = queue.rules.as_deref() else { return ResourceList::default() };
        in_rows(rules, |row| (queue.counted(&row.resource) - row.nominal).max(0))
    }

    /// Whether two queues lend to each other.
    pub(in crate::admission) fn share_cohort(&self, one: &LineId, other: &LineId) -> bool {
        let cohort = |line: &LineId| {
            let key = line.queue()?;
            self.cohort_of(&key, self.rules(&key)?)
        };
        cohort(one).is_some_and(|own| cohort(other) == Some(own))
    }

    /// Whether a queue may have lent something to another one.
    pub(in crate::admission) fn lends_to(&self, lender: &ObjectKey, borrower: &ObjectKey) -> bool {
        let cohort = |key: &ObjectKey| self.rules(key).and_then(|rules| self.cohort_of(key, rules));
        cohort(lender).is_some_and(|own| cohort(borrower) == Some(own)) && self.has_borrowed(borrower)
    }
}
