//! What pods mean to admission: charges on nodes, live pods of jobs, grants that have become pods.

use super::Admission;
use super::class::{Class, ClassKey};
use crate::ledger::{Ledger, Slot};
use crate::projections::pod::PodView;
use crate::resources::ResourceList;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::Change;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// All pods that hold something.
#[derive(Debug, Default)]
pub(super) struct Pods {
    held: HashMap<ObjectKey, Held>,
    /// Bound pods by the name of a node that is not known (yet).
    homeless: HashMap<Arc<str>, HashSet<ObjectKey>>,
    /// Pods by the slot they are charged to.
    by_slot: HashMap<Slot, HashSet<ObjectKey>>,
}

/// One pod that has not ended.
#[derive(Debug)]
struct Held {
    uid: Uid,
    job: Option<Uid>,
    requests: ResourceList,
    node: Option<Arc<str>>,
    slot: Option<Slot>,
    /// The class that counts it as unbound: its job may have left that class since.
    unbound_in: Option<ClassKey>,
}

impl Pods {
    /// A node is known now: the pods bound to it are charged.
    pub(super) fn node_appeared(&mut self, name: &Arc<str>, slot: Slot, ledger: &mut Ledger) {
        for key in self.homeless.remove(name).unwrap_or_default() {
            if let Some(held) = self.held.get_mut(&key) {
                held.slot = Some(slot);
                ledger.charge(slot, &held.requests);
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

    /// Whether a pod of that name is seen, and has not ended.
    pub(super) fn holds(&self, key: &ObjectKey) -> bool {
        self.held.contains_key(key)
    }

    /// The slot a pod is charged to.
    #[cfg(test)]
    pub(super) fn slot_of(&self, key: &ObjectKey) -> Option<Slot> {
        self.held.get(key)?.slot
    }

    fn remove(&mut self, key: &ObjectKey, ledger: &mut Ledger) -> Option<Held> {
        let held = self.held.remove(key)?;
        match (held.slot, &held.node) {
            (Some(slot), _) => {
                ledger.credit(slot, &held.requests);
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
                ledger.charge(slot, &held.requests);
                self.by_slot.entry(slot).or_default().insert(key.clone());
            }
            (None, Some(node)) => {
                self.homeless.entry(Arc::clone(node)).or_default().insert(key.clone());
            }
            (None, None) => {}
        }
        self.held.insert(key, held);
    }
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
        if let Some(job) = &held.job {
            self.lives(job, -1);
        }
        self.no_longer_unbound(held.unbound_in.as_ref());
        for (class, state) in &mut self.classes {
            if class.namespace == key.namespace {
                state.pod_ended();
            }
        }
    }

    fn pod_holds(&mut self, pod: &PodView) {
        let meta = pod.meta();
        let job = pod.job_owner().map(|owner| owner.uid.clone());
        if let Some(held) = self.pods.held.get(&meta.key) {
            if held.uid != meta.uid {
                self.pod_ended(&meta.key);
            } else if held.node == pod.node && held.requests == pod.requests {
                return;
            }
        }
        if job.is_none() && pod.node.is_none() {
            // Nobody knows where a foreign pod will go; it is charged once it is bound.
            return;
        }
        self.dirty = true;
        let before = self.pods.remove(&meta.key, &mut self.ledger);
        let bound = pod.node.as_ref().and_then(|node| self.ledger.slot(node));
        let slot = match (&pod.node, &before, &job) {
            (Some(_), ..) => bound,
            // It stays where its grant was, until the scheduler has decided.
            (None, Some(before), _) => before.slot,
            (None, None, Some(job)) => {
                self.take_grant(job, &meta.key).flatten().or_else(|| self.ledger.roomiest(&pod.requests))
            }
            (None, None, None) => None,
        };
        // Where it was thought to go, and did not.
        let mut guess = before.as_ref().filter(|before| before.node.is_none()).and_then(|before| before.slot);
        let mut unbound_in = before.as_ref().and_then(|before| before.unbound_in.clone());
        if let Some(job) = job.as_ref().filter(|_| before.is_none()) {
            self.lives(job, 1);
            match &pod.node {
                // Bound before we first saw it: its grant is used all the same.
                Some(_) => guess = self.take_grant(job, &meta.key).flatten(),
                None => unbound_in = self.unbound(job),
            }
        }
        if pod.node.is_some()
            && let Some(class) = self.no_longer_unbound(unbound_in.take().as_ref())
        {
            class.bind();
        }
        let held = Held {
            uid: meta.uid.clone(),
            job,
            requests: pod.requests.clone(),
            node: pod.node.clone(),
            slot,
            unbound_in,
        };
        self.pods.insert(meta.key.clone(), held, &mut self.ledger);
        if let (Some(guess), Some(bound)) = (guess, bound)
            && guess != bound
        {
            self.trade_places(bound, guess);
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

    /// A granted pod exists: its grant ends, and its place is the pod's.
    fn take_grant(&mut self, uid: &Uid, pod: &ObjectKey) -> Option<Option<Slot>> {
        let job = self.jobs.get_mut(uid)?;
        job.unseen.remove(pod);
        let place = job.in_flight.pop()?;
        if let Some(slot) = place {
            self.ledger.credit(slot, &job.class.shape.requests);
        }
        if let Some(class) = self.classes.get_mut(&job.class) {
            class.in_flight -= 1;
            class.confirm();
        }
        Some(place)
    }

    fn lives(&mut self, job: &Uid, by: i32) {
        let live = self.live.entry(job.clone()).or_default();
        *live = live.saturating_add_signed(by);
        if *live == 0 {
            self.live.remove(job);
        }
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
