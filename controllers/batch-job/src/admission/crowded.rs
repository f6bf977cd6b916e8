//! Grants whose room is gone before their pods exist.
//!
//! A grant that waits for its create sits on a node where it would fit. When somebody else's pod comes there or grows, or
//! the node shrinks, its pod would find no room any more, and would wait in front of the scheduler. Pods that exist are
//! left alone.

use super::{Admission, Job};
use crate::ledger::Slot;
use springtide_plumbing::key::Uid;
use std::cmp::Reverse;

impl Admission {
    /// Takes grants back that are charged to a node which has less by now than is charged to it: the newest of the lowest
    /// first, and with one of a gang all that have no pod, where the rest would be too few.
    pub(super) fn crowd_out(&mut self, slot: Slot) {
        while let Some(uid) = self.crowded(slot) {
            let Some(job) = self.jobs.get_mut(&uid) else { return };
            let Some(at) = job.in_flight.iter().position(|place| *place == Some(slot)) else { return };
            job.in_flight.remove(at);
            let made = job.unseen.len();
            let least = job.demand.min_parallelism;
            if let Some(class) = self.classes.get_mut(&*job.class) {
                class.in_flight -= 1;
            }
            self.ledger.credit(slot, &job.class.shape.requests);
            self.queues.grant(&job.class, -1);
            if self.granted(&uid) < least {
                self.give_back(&uid, made);
            }
            self.dirty = true;
            self.place_in_line(&uid);
        }
    }

    /// The job that gives way next on a node, if more is charged to it than it has.
    fn crowded(&self, slot: Slot) -> Option<Uid> {
        let has_grants = || self.classes.values().any(|class| class.in_flight > 0);
        if !self.ledger.is_overcommitted(slot) || !has_grants() {
            return None;
        }
        // Which of the grants those pods are of that are made but not seen is not known.
        let has_grant = |job: &&Job| {
            job.in_flight.len() > job.unseen.len()
                && job.in_flight.contains(&Some(slot))
                && self.ledger.is_short_of(slot, &job.class.shape.requests)
        };
        let granted = self.jobs.values().filter(has_grant);
        let gives_way = granted.min_by_key(|job| (job.class.rank(), Reverse(job.place())))?;
        Some(gives_way.demand.uid.clone())
    }
}
