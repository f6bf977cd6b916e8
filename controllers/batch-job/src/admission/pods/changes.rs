//! What a change of a pod means to admission: live pods of jobs, grants that have become pods, places that were
//! guessed wrong.

use super::Held;
use crate::admission::Admission;
use crate::admission::class::ClassKey;
use crate::admission::jobs::PodCounts;
use crate::ledger::Slot;
use crate::projections::pod::PodView;
use springtide_plumbing::resources::ResourceList;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::Change;
use std::sync::Arc;

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
        if let Some(class) = held.unbound_in.as_ref().and_then(|class| self.classes.get_mut(class)) {
            class.scheduling.gone(key);
        }
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
                None => unbound_in = self.unbound(job, &meta.key),
            }
        }
        if pod.node.is_some()
            && let Some(class) = unbound_in.take().and_then(|class| self.classes.get_mut(&class))
        {
            class.bind(&meta.key);
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
        if let Some(class) = self.classes.get_mut(&*job.class) {
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
    fn unbound(&mut self, job: &Uid, pod: &ObjectKey) -> Option<ClassKey> {
        let key = &self.jobs.get(job)?.class;
        self.classes.get_mut(key)?.scheduling.waits(pod.clone());
        Some(ClassKey::clone(key))
    }
}

/// Counts for a job; who counts nothing is forgotten.
fn tally(counts: &mut PodCounts, job: &Uid, by: i32) {
    if by == 0 {
        return;
    }
    let count = counts.entry(job.clone()).or_default();
    *count = count.saturating_add_signed(by);
    if *count == 0 {
        counts.remove(job);
    }
}
