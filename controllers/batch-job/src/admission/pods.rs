//! The pods that hold something: what they are charged to, and who stays, leaves or waits for a node.

mod changes;

use super::class::ClassKey;
use super::jobs::PodCounts;
use super::line::LineId;
use super::quota::Queues;
use crate::ledger::{Ledger, Slot};
use springtide_plumbing::resources::ResourceList;
use jiff::Timestamp;
use springtide_crds::common::Tier;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// All pods that hold something.
#[derive(Debug, Default)]
pub(super) struct Pods {
    held: HashMap<ObjectKey, Held>,
    /// Bound pods by the name of a node that is not known (yet).
    homeless: HashMap<Arc<str>, HashSet<ObjectKey>>,
    /// Pods by the slot they are charged to.
    by_slot: HashMap<Slot, HashSet<ObjectKey>>,
    /// Pods that wait for a new node.
    unfit: BTreeSet<ObjectKey>,
}

/// One pod that has not ended.
#[derive(Debug)]
struct Held {
    uid: Uid,
    job: Option<Uid>,
    /// The BatchQueue and the tier that it is counted in; of no foreign pod.
    queue: Option<(ObjectKey, Tier)>,
    requests: ResourceList,
    node: Option<Arc<str>>,
    slot: Option<Slot>,
    /// Which task it is; of a job's pods created in one second the highest is ended first.
    index: Option<u32>,
    /// It was made though no node had room for it, and waits for one.
    unfit: bool,
    /// Since when it is there.
    since: Timestamp,
    /// The last pass before it was first seen; `None` of one that was there before any. Unlike the time that the API
    /// server gives it, that is of our own clock.
    seen: Option<Timestamp>,
    /// It is being deleted, and should be gone by then: what it holds is on its way back.
    gone_by: Option<Timestamp>,
    /// The last pass before it was first seen so, which is the one that asked for it; `None` where there was none.
    left: Option<Timestamp>,
    /// The class that counts it as unbound: its job may have left that class since.
    unbound_in: Option<ClassKey>,
}

/// What a pod of a queue is to a peak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holding<'a> {
    pub(super) job: &'a Uid,
    pub(super) tier: Tier,
    pub(super) requests: &'a ResourceList,
    pub(super) created: Timestamp,
    pub(super) scheduled: bool,
    /// Since when it goes.
    pub(super) left: Option<Timestamp>,
}

impl Held {
    /// Charges the node it is charged to with what it holds, or takes that off.
    fn charge(&self, slot: Slot, times: i64, ledger: &mut Ledger) {
        match (&self.job, times) {
            (None, _) => ledger.charge_foreign(slot, &self.requests, times),
            (Some(_), 1) => ledger.charge(slot, &self.requests),
            (Some(_), _) => ledger.credit(slot, &self.requests),
        }
    }

    /// Counts it in its queue, or no longer.
    fn count(&self, times: i64, queues: &mut Queues) {
        let Some((queue, tier)) = &self.queue else { return };
        queues.charge(queue, *tier, &self.requests, times);
        if self.gone_by.is_some() {
            queues.leaves(queue, *tier, &self.requests, times);
        }
        queues.count_pod(queue, times);
    }
}

impl Pods {
    /// A node is known now: the pods bound to it are charged.
    pub(super) fn node_appeared(&mut self, name: &Arc<str>, slot: Slot, ledger: &mut Ledger) {
        for key in self.homeless.remove(name).unwrap_or_default() {
            if let Some(held) = self.held.get_mut(&key) {
                held.slot = Some(slot);
                held.charge(slot, 1, ledger);
                self.by_slot.entry(slot).or_default().insert(key);
            }
        }
    }

    /// A node is gone; its pods may outlive it for a while, and it may come back.
    pub(super) fn node_gone(&mut self, name: &Arc<str>, slot: Slot) {
        for key in self.by_slot.remove(&slot).unwrap_or_default() {
            if let Some(held) = self.held.get_mut(&key) {
                held.slot = None;
                if held.node.is_some() {
                    self.homeless.entry(Arc::clone(name)).or_default().insert(key);
                }
            }
        }
    }

    /// Pods of jobs that are being deleted and should not be gone before `since`.
    pub(super) fn leaving(&self, since: Timestamp) -> Vec<ObjectKey> {
        let leaves = |held: &Held| held.job.is_some() && held.gone_by.is_some_and(|at| at >= since);
        self.held.iter().filter(|(_, held)| leaves(held)).map(|(key, _)| key.clone()).collect()
    }

    /// Pods that stay, by job, with the time since when they are there: those that wait for a node first, then
    /// the newest, which is the order in which they are ended.
    pub(super) fn staying(&self) -> HashMap<Uid, Vec<(ObjectKey, Timestamp)>> {
        let mut by_job: HashMap<Uid, Vec<(&ObjectKey, &Held)>> = HashMap::new();
        for (key, held) in self.held.iter().filter(|(_, held)| held.gone_by.is_none()) {
            if let Some(job) = held.queue.as_ref().and(held.job.as_ref()) {
                by_job.entry(job.clone()).or_default().push((key, held));
            }
        }
        let in_order = |mut pods: Vec<(&ObjectKey, &Held)>| {
            pods.sort_by_key(|(key, held)| {
                (held.node.is_some(), Reverse(held.since), Reverse(held.index), *key)
            });
            pods.into_iter().map(|(key, held)| (key.clone(), held.since)).collect()
        };
        by_job.into_iter().map(|(job, pods)| (job, in_order(pods))).collect()
    }

    /// What pods of a queue hold that were made since then.
    pub(super) fn started(
        &self,
        queue: &ObjectKey,
        tiers: impl Fn(Tier) -> Option<Timestamp>,
    ) -> ResourceList {
        let mut started = ResourceList::default();
        for held in self.held.values() {
            let Some((_, tier)) = held.queue.as_ref().filter(|(of, _)| of == queue) else { continue };
            if tiers(*tier).is_some_and(|ended| held.seen.unwrap_or(held.since) >= ended) {
                started.add(&held.requests);
            }
        }
        started
    }

    /// Pods of a queue that belong to jobs, in no order; those that were going before the first pass are taken to go
    /// since now.
    pub(super) fn of_queue(&mut self, queue: &ObjectKey, now: Timestamp) -> Vec<Holding<'_>> {
        let of_queue =
            self.held.values_mut().filter(|held| held.queue.as_ref().is_some_and(|(of, _)| of == queue));
        of_queue
            .filter_map(|held| {
                if held.gone_by.is_some() {
                    held.left.get_or_insert(now);
                }
                let (job, (_, tier)) = (held.job.as_ref()?, held.queue.as_ref()?);
                Some(Holding {
                    job,
                    tier: *tier,
                    requests: &held.requests,
                    created: held.since,
                    scheduled: held.node.is_some(),
                    left: held.left,
                })
            })
            .collect()
    }

    /// What a pod holds.
    pub(super) fn requests(&self, key: &ObjectKey) -> Option<&ResourceList> {
        Some(&self.held.get(key)?.requests)
    }

    /// Takes a pod off the books of its queue and node, as if it were gone, or puts it back.
    pub(super) fn book(&self, key: &ObjectKey, times: i64, queues: &mut Queues, ledger: &mut Ledger) {
        let Some(held) = self.held.get(key) else { return };
        if let Some((queue, tier)) = &held.queue {
            queues.charge(queue, *tier, &held.requests, times);
        }
        if let Some(slot) = held.slot {
            held.charge(slot, times, ledger);
        }
    }

    /// Pods of jobs that are charged to a node: the job, since when each is there, and what it holds.
    pub(super) fn on(&self, slot: Slot) -> Vec<(&Uid, Timestamp, &ResourceList)> {
        let held = self.by_slot.get(&slot).into_iter().flatten().filter_map(|key| self.held.get(key));
        held.filter_map(|held| Some((held.job.as_ref()?, held.since, &held.requests))).collect()
    }

    /// Pods that wait for a new node, and are expected on none that there is.
    pub(super) fn unfit_without_place(&self) -> Vec<ObjectKey> {
        let has_place = |key: &&ObjectKey| self.held.get(*key).is_some_and(|held| held.slot.is_some());
        self.unfit.iter().filter(|key| !has_place(key)).cloned().collect()
    }

    /// How many pods of a queue wait for a new node.
    pub(super) fn unfit_of(&self, line: &LineId) -> usize {
        let of_line = |(queue, _): &(ObjectKey, Tier)| LineId::of_queue(queue) == *line;
        self.unfit_that(|held| held.queue.as_ref().is_some_and(of_line))
    }

    /// How many pods that a class counts as unbound wait for a new node.
    pub(super) fn unfit_in(&self, class: &ClassKey) -> usize {
        self.unfit_that(|held| held.unbound_in.as_ref() == Some(class))
    }

    fn unfit_that(&self, is_it: impl Fn(&Held) -> bool) -> usize {
        self.unfit.iter().filter(|key| self.held.get(*key).is_some_and(&is_it)).count()
    }

    /// The job of a pod.
    pub(super) fn job_of(&self, key: &ObjectKey) -> Option<&Uid> {
        self.held.get(key)?.job.as_ref()
    }

    /// A pod without a node is expected on this one.
    pub(super) fn expect_on(&mut self, key: &ObjectKey, slot: Slot, ledger: &mut Ledger) {
        if let Some(mut held) = self.remove(key, ledger) {
            held.slot = Some(slot);
            self.insert(key.clone(), held, ledger);
        }
    }

    /// Which incarnation of a pod is there.
    pub(super) fn uid(&self, key: &ObjectKey) -> Option<&Uid> {
        Some(&self.held.get(key)?.uid)
    }

    /// Whether this incarnation of a pod is there and not being deleted.
    pub(super) fn stays(&self, key: &ObjectKey, uid: &Uid) -> bool {
        self.held.get(key).is_some_and(|held| held.uid == *uid && held.gone_by.is_none())
    }

    /// Whether a pod of that name is seen, and has not ended.
    pub(super) fn holds(&self, key: &ObjectKey) -> bool {
        self.held.contains_key(key)
    }

    /// Whether a pod is being deleted.
    #[cfg(test)]
    pub(super) fn is_leaving(&self, key: &ObjectKey) -> bool {
        self.held.get(key).is_some_and(|held| held.gone_by.is_some())
    }

    /// The slot a pod is charged to.
    #[cfg(test)]
    pub(super) fn slot_of(&self, key: &ObjectKey) -> Option<Slot> {
        self.held.get(key)?.slot
    }

    fn remove(&mut self, key: &ObjectKey, ledger: &mut Ledger) -> Option<Held> {
        let held = self.held.remove(key)?;
        self.unfit.remove(key);
        match (held.slot, &held.node) {
            (Some(slot), _) => {
                held.charge(slot, -1, ledger);
                if let Some(keys) = self.by_slot.get_mut(&slot) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.by_slot.remove(&slot);
                    }
                }
            }
            (None, Some(node)) => {
                if let Some(keys) = self.homeless.get_mut(node) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.homeless.remove(node);
                    }
                }
            }
            (None, None) => {}
        }
        Some(held)
    }

    fn insert(&mut self, key: ObjectKey, held: Held, ledger: &mut Ledger) {
        match (held.slot, &held.node) {
            (Some(slot), _) => {
                held.charge(slot, 1, ledger);
                self.by_slot.entry(slot).or_default().insert(key.clone());
            }
            (None, Some(node)) => {
                self.homeless.entry(Arc::clone(node)).or_default().insert(key.clone());
            }
            (None, None) => {}
        }
        if held.unfit {
            self.unfit.insert(key.clone());
        }
        self.held.insert(key, held);
    }
}

/// Live pods of a job that are not being deleted.
pub(super) fn staying(live: &PodCounts, leaving: &PodCounts, job: &Uid) -> u32 {
    let count = |counts: &PodCounts| counts.get(job).copied().unwrap_or(0);
    count(live).saturating_sub(count(leaving))
}

/// A number of pods or grants that may be taken off.
pub(super) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
