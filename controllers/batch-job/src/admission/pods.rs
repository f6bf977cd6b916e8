//! What pods mean to admission: charges on nodes, live pods of jobs, grants that have become pods.

use super::Admission;
use super::class::{Class, ClassKey};
use super::line::LineId;
use super::quota::Queues;
use crate::ledger::{Ledger, Slot};
use crate::projections::pod::PodView;
use crate::resources::ResourceList;
use jiff::Timestamp;
use springtide_crds::common::Tier;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::Change;
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
        let of_line = |key: &&ObjectKey| {
            let queue = self.held.get(*key).and_then(|held| held.queue.as_ref());
            queue.is_some_and(|(queue, _)| LineId::of_queue(queue) == *line)
        };
        self.unfit.iter().filter(of_line).count()
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

/// Counts for a job; who counts nothing is forgotten.
fn tally(counts: &mut HashMap<Uid, u32>, job: &Uid, by: i32) {
    if by == 0 {
        return;
    }
    let count = counts.entry(job.clone()).or_default();
    *count = count.saturating_add_signed(by);
    if *count == 0 {
        counts.remove(job);
    }
}

/// Live pods of a job that are not being deleted.
pub(super) fn staying(live: &HashMap<Uid, u32>, leaving: &HashMap<Uid, u32>, job: &Uid) -> u32 {
    let count = |counts: &HashMap<Uid, u32>| counts.get(job).copied().unwrap_or(0);
    count(live).saturating_sub(count(leaving))
}

/// A number of pods or grants that may be taken off.
pub(super) fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Admission {
    /// Takes in a change of a pod, ours or not.
    pub fn pod_changed(&mut self, change: &Change<PodView>) {
        match change {
            Change::Apply { new, .. } if !new.may_run() => {
                self.pod_ended(&new.meta().key);
            }
            Change::Apply { new, .. } => self.pod_holds(new),
            Change::Delete { last } => self.pod_ended(&last.meta().key),
        }
    }

    fn pod_ended(&mut self, key: &ObjectKey) {
        let Some(held) = self.pods.remove(key, &mut self.ledger) else { return };
        self.dirty = true;
        held.count(-1, &mut self.queues);
        if let Some(job) = &held.job {
            self.lives(job, -1);
            self.leaves(job, -i32::from(held.gone_by.is_some()));
        }
        self.no_longer_unbound(held.unbound_in.as_ref());
        for (class, state) in &mut self.classes {
            if class.line.namespace == key.namespace {
                state.pod_ended();
            }
        }
    }

    fn pod_holds(&mut self, pod: &PodView) {
        let meta = pod.meta();
        let job = pod.job_owner().map(|owner| owner.uid.clone());
        let gone_by = meta.deletion_time;
        let queue = job.as_ref().and(meta.labels.queue.as_ref()).map(|name| {
            let namespace = Arc::clone(&meta.key.namespace);
            (ObjectKey { namespace, name: Arc::clone(name) }, meta.labels.tier.0)
        });
        let requests = match &job {
            Some(_) => self.queues.charged(queue.as_ref().map(|(queue, _)| queue), &pod.requests),
            None => pod.requests.clone(),
        };
        if let Some(held) = self.pods.held.get(&meta.key) {
            if held.uid != meta.uid {
                self.pod_ended(&meta.key);
            } else if held.node == pod.node && held.requests == requests && held.gone_by == gone_by {
                return;
            }
        }
        if job.is_none() && pod.node.is_none() {
            // Nobody knows where a foreign pod will go; it is charged once it is bound.
            return;
        }
        self.dirty = true;
        let before = self.pods.remove(&meta.key, &mut self.ledger);
        if let Some(before) = &before {
            before.count(-1, &mut self.queues);
            if let Some(job) = &before.job {
                self.leaves(job, -i32::from(before.gone_by.is_some()));
            }
        }
        let unfit = pod.node.is_none() && meta.labels.unfit.0;
        let bound = pod.node.as_ref().and_then(|node| self.ledger.slot(node));
        let slot = match (&pod.node, &before, &job) {
            (Some(_), ..) => bound,
            // It stays where its grant was, until the scheduler has decided.
            (None, Some(before), _) => before.slot,
            (None, None, Some(job)) => match self.take_grant(job, &meta.key, unfit, &requests).flatten() {
                None if !unfit => self.ledger.roomiest(&requests),
                place => place,
            },
            (None, None, None) => None,
        };
        // Where it was thought to go, and did not.
        let mut guess = before.as_ref().filter(|before| before.node.is_none()).and_then(|before| before.slot);
        let mut unbound_in = before.as_ref().and_then(|before| before.unbound_in.clone());
        if let Some(job) = job.as_ref().filter(|_| before.is_none()) {
            self.lives(job, 1);
            match &pod.node {
                // Bound before we first saw it: its grant is used all the same.
                Some(_) => {
                    guess = self.take_grant(job, &meta.key, meta.labels.unfit.0, &requests).flatten();
                }
                None => unbound_in = self.unbound(job),
            }
        }
        if pod.node.is_some()
            && let Some(class) = self.no_longer_unbound(unbound_in.take().as_ref())
        {
            class.bind();
        }
        if let Some(job) = &job {
            self.leaves(job, i32::from(gone_by.is_some()));
        }
        let held = Held {
            uid: meta.uid.clone(),
            job,
            queue,
            requests,
            node: pod.node.clone(),
            slot,
            index: pod.attempt().map(|(index, _)| index),
            unfit,
            since: meta.creation_time,
            seen: before.as_ref().map_or(self.last_pass, |before| before.seen),
            gone_by,
            left: before
                .as_ref()
                .and_then(|before| before.left)
                .or(self.last_pass)
                .filter(|_| gone_by.is_some()),
            unbound_in,
        };
        let is_foreign = held.job.is_none();
        held.count(1, &mut self.queues);
        self.pods.insert(meta.key.clone(), held, &mut self.ledger);
        if let (Some(guess), Some(bound)) = (guess, bound)
            && guess != bound
        {
            self.trade_places(bound, guess);
        }
        if let Some(bound) = bound.filter(|_| is_foreign) {
            self.crowd_out(bound);
        }
    }

    /// The scheduler bound a pod to another node than was guessed. What else was guessed to go there and
    /// has no room now is expected on the node that the pod left free, or the same room would be
    /// counted twice: as free there, and as missing here.
    fn trade_places(&mut self, crowded: Slot, freed: Slot) {
        while self.ledger.is_overcommitted(crowded) {
            let unbound = self.pods.by_slot.get(&crowded).and_then(|keys| {
                keys.iter().find(|key| self.pods.held.get(*key).is_some_and(|held| held.node.is_none()))
            });
            if let Some(key) = unbound.cloned() {
                let Some(mut held) = self.pods.remove(&key, &mut self.ledger) else { return };
                held.slot = Some(freed);
                self.pods.insert(key, held, &mut self.ledger);
                continue;
            }
            let granted = self.jobs.values_mut().find_map(|job| {
                Some((&job.class, job.in_flight.iter_mut().find(|at| **at == Some(crowded))?))
            });
            let Some((class, place)) = granted else { return };
            *place = Some(freed);
            self.ledger.credit(crowded, &class.shape.requests);
            self.ledger.charge(freed, &class.shape.requests);
        }
    }

    /// A granted pod exists: its grant ends, and its place is the pod's. One that no node has room for takes a grant
    /// without a place, if there is one. What it requests may be more than was granted.
    fn take_grant(
        &mut self,
        uid: &Uid,
        pod: &ObjectKey,
        unfit: bool,
        requests: &ResourceList,
    ) -> Option<Option<Slot>> {
        let job = self.jobs.get_mut(uid)?;
        job.unseen.remove(pod);
        let alike = job.in_flight.iter().rposition(|place| place.is_none() == unfit);
        let place = match alike {
            Some(at) => job.in_flight.remove(at),
            None => job.in_flight.pop()?,
        };
        if let Some(slot) = place {
            self.ledger.credit(slot, &job.class.shape.requests);
        }
        self.queues.grant(&job.class, -1);
        if let Some(class) = self.classes.get_mut(&job.class) {
            class.in_flight -= 1;
            class.confirm();
            self.queues.stored(&job.class, requests, class.in_flight);
        }
        Some(place)
    }

    fn lives(&mut self, job: &Uid, by: i32) {
        tally(&mut self.live, job, by);
    }

    fn leaves(&mut self, job: &Uid, by: i32) {
        tally(&mut self.leaving, job, by);
    }

    /// Counts an unbound pod in the class of its job, which it returns.
    fn unbound(&mut self, job: &Uid) -> Option<ClassKey> {
        let key = &self.jobs.get(job)?.class;
        self.classes.get_mut(key)?.unbound += 1;
        Some(key.clone())
    }

    /// Ends that, and returns the class.
    fn no_longer_unbound(&mut self, key: Option<&ClassKey>) -> Option<&mut Class> {
        let class = self.classes.get_mut(key?)?;
        class.unbound = class.unbound.saturating_sub(1);
        Some(class)
    }
}
