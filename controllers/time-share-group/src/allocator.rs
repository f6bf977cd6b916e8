//! How the kubelet of one node admits resizes, as a pure piece: what the in-memory world of this crate's tests and KWOK's
//! nodes resize pods by, as neither accounts what a node has.
//!
//! It follows v1.37.2, the
//! [allocation manager](https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/kubelet/allocation/allocation_manager.go)
//! and its
//! [callers](https://github.com/kubernetes/kubernetes/blob/v1.37.2/pkg/kubelet/kubelet.go):
//!
//! - A pod counts with the larger of what was allocated to it and what its status says is in force, of each resource. What
//!   it waits for counts for nothing here; the scheduler counts that too, see [`Allocator::scheduled`].
//! - A resize is allocated as a whole, when each resource that it asks for fits beside all others; else it is deferred.
//! - Deferred ones are looked at again when the spec of any pod asks for another size than it has, when a status says that
//!   a pod got smaller, when a pod ends, and 3 min after the last look (30 s after the first start). Nothing else counts:
//!   not a change of metadata, and not the withdrawal of a resize.
//! - They are looked at in an order: those that do not grow, then higher priority, then `Guaranteed`, then who has waited
//!   longest.
//!
//! More than the whole node has is infeasible. Since 1.36 that never comes to a kubelet, as the API server refuses it
//! ([kubernetes#136043](https://github.com/kubernetes/kubernetes/pull/136043)); kubelets before it said so in the pod's
//! status.

pub mod kubelet;

use crate::sizes::Demand;
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::clock::after;
use springtide_plumbing::workloads::content::QosClass;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// How long after the last look all deferred resizes are looked at again (`retryDelay`).
pub const RETRY_EVERY: SignedDuration = SignedDuration::from_mins(3);
/// The same for the first time (`initialRetryDelay`).
pub const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(30);

/// By what one resize goes before another that waits too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    /// `spec.priority` of the pod.
    pub priority: i32,
    /// Its class of quality of service.
    pub qos: QosClass,
}

/// What the node says to a size that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is the pod's. In force it is later, see [`Allocator::actuate`].
    Allocated,
    /// It is not now, and is looked at again.
    Deferred,
    /// It never is.
    Infeasible,
}

/// A resize that is not allocated: condition `PodResizePending`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// There is no room for it.
    Deferred {
        /// Since when: `lastTransitionTime`.
        since: Timestamp,
    },
    /// There can never be.
    Infeasible,
}

/// What one pod has on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// What its spec asks for.
    pub asked: Demand,
    /// What was allocated to it.
    pub allocated: Demand,
    /// What its status says is in force.
    pub in_force: Demand,
    /// What it waits for, if it does.
    pub pending: Option<Pending>,
    rank: Rank,
    /// When it came into the queue, counted.
    turn: u64,
}

impl Holding {
    /// What counts of it on the node.
    fn held(&self) -> Demand {
        self.allocated.max(self.in_force)
    }

    fn is_growing(&self) -> bool {
        self.asked.cpu > self.allocated.cpu || self.asked.memory > self.allocated.memory
    }

    /// Since when it is deferred, if it is.
    fn deferred_since(&self) -> Option<Timestamp> {
        match self.pending {
            Some(Pending::Deferred { since }) => Some(since),
            Some(Pending::Infeasible) | None => None,
        }
    }

    /// Its place among those that wait; who has just come goes last.
    fn place(&self) -> (bool, Reverse<i32>, bool, Timestamp, u64) {
        let since = self.deferred_since().unwrap_or(Timestamp::MAX);
        let is_guaranteed = match self.rank.qos {
            QosClass::Guaranteed => true,
            QosClass::Burstable | QosClass::BestEffort => false,
        };
        (self.is_growing(), Reverse(self.rank.priority), !is_guaranteed, since, self.turn)
    }

    fn answer(&self) -> Answer {
        match self.pending {
            None => Answer::Allocated,
            Some(Pending::Deferred { .. }) => Answer::Deferred,
            Some(Pending::Infeasible) => Answer::Infeasible,
        }
    }
}

/// What the pods of one node have of it.
#[derive(Clone, Debug)]
pub struct Allocator {
    allocatable: Demand,
    pods: BTreeMap<String, Holding>,
    /// Whether something has happened after which those that wait are looked at.
    has_news: bool,
    /// When they are looked at in any case; `None` before the node has begun.
    next_look: Option<Timestamp>,
    turns: u64,
    /// Those that got what they waited for, of which nobody has been told.
    granted: Vec<String>,
}

impl Allocator {
    /// A node that has so much for pods, and none yet.
    pub fn new(allocatable: Demand) -> Self {
        Self {
            allocatable,
            pods: BTreeMap::new(),
            has_news: false,
            next_look: None,
            turns: 0,
            granted: Vec::new(),
        }
    }

    /// The spec of a pod asks for so much now.
    ///
    /// One that has not been seen comes to the node: it is admitted with that, or turned away for good, and is not kept
    /// then. That a spec asks for what it asked for before is no news. One that asks again for what it has withdraws its
    /// resize, and nobody is looked at for that. With any other size all that wait are looked at, this one among them; who
    /// of the others got something is told by the next [`retry`](Self::retry).
    pub fn offer(&mut self, uid: &str, spec: Demand, rank: Rank, now: Timestamp) -> Answer {
        self.begin(now);
        if !self.pods.contains_key(uid) {
            return self.admit(uid, spec, rank);
        }
        if self.ask(uid, spec, rank) {
            self.look(now);
        }
        let answer = self.pods.get(uid).map_or(Answer::Infeasible, Holding::answer);
        match answer {
            Answer::Allocated => self.granted.retain(|granted| granted != uid),
            Answer::Deferred | Answer::Infeasible => {}
        }
        answer
    }

    fn admit(&mut self, uid: &str, spec: Demand, rank: Rank) -> Answer {
        if !spec.fits(self.allocatable - self.claimed()) {
            return Answer::Infeasible;
        }
        let turn = self.turns;
        let holding = Holding { asked: spec, allocated: spec, in_force: spec, pending: None, rank, turn };
        self.pods.insert(uid.to_owned(), holding);
        Answer::Allocated
    }

    /// Takes down what a pod asks for; whether that is something to look at.
    fn ask(&mut self, uid: &str, spec: Demand, rank: Rank) -> bool {
        let Some(pod) = self.pods.get_mut(uid) else { return false };
        pod.rank = rank;
        if pod.asked == spec {
            return false;
        }
        pod.asked = spec;
        if pod.allocated == spec {
            pod.pending = None;
            return false;
        }
        if pod.pending == Some(Pending::Infeasible) {
            pod.pending = None;
        }
        self.turns += 1;
        pod.turn = self.turns;
        true
    }

    /// The node has put into force what was allocated to a pod, and its status says so. Whether that changed anything.
    pub fn actuate(&mut self, uid: &str) -> bool {
        let Some(pod) = self.pods.get_mut(uid) else { return false };
        let before = pod.held();
        let is_change = pod.in_force != pod.allocated;
        pod.in_force = pod.allocated;
        let after = pod.held();
        self.has_news |= after.cpu < before.cpu || after.memory < before.memory;
        is_change
    }

    /// A pod has ended, or is gone.
    pub fn remove(&mut self, uid: &str) {
        self.granted.retain(|granted| granted != uid);
        self.has_news |= self.pods.remove(uid).is_some();
    }

    /// Looks at those that wait, if something has happened or it is time; says who got another size since the last call,
    /// beside those that were told so at once.
    pub fn retry(&mut self, now: Timestamp) -> Vec<String> {
        let next_look = self.begin(now);
        if self.has_news || next_look <= now {
            self.look(now);
        }
        std::mem::take(&mut self.granted)
    }

    /// What has happened since the last look goes unnoticed, as by kubelets that miss a smaller status
    /// ([kubernetes#140646](https://github.com/kubernetes/kubernetes/pull/140646)).
    pub fn miss_news(&mut self) {
        self.has_news = false;
    }

    /// When [`retry`](Self::retry) looks next if nothing happens before; `None` while nobody waits.
    pub fn wake(&self) -> Option<Timestamp> {
        self.next_look.filter(|_| self.pods.values().any(|pod| pod.deferred_since().is_some()))
    }

    /// What a pod has; `None` of one that is not here.
    pub fn pod(&self, uid: &str) -> Option<&Holding> {
        self.pods.get(uid)
    }

    /// What the node has for pods.
    pub fn allocatable(&self) -> Demand {
        self.allocatable
    }

    /// What is allocated to all pods.
    pub fn allocated(&self) -> Demand {
        self.pods.values().map(|pod| pod.allocated).sum()
    }

    /// What all pods hold: of each the larger of what is allocated and what is in force. Never more than the node has.
    pub fn claimed(&self) -> Demand {
        self.pods.values().map(Holding::held).sum()
    }

    /// What all pods hold in the eyes of the scheduler: it counts also what they wait for, unless that can never be.
    pub fn scheduled(&self) -> Demand {
        let counted = |pod: &Holding| match pod.pending {
            Some(Pending::Infeasible) => pod.held(),
            Some(Pending::Deferred { .. }) | None => pod.held().max(pod.asked),
        };
        self.pods.values().map(counted).sum()
    }

    /// When those that wait are looked at next.
    fn begin(&mut self, now: Timestamp) -> Timestamp {
        *self.next_look.get_or_insert_with(|| after(now, FIRST_RETRY))
    }

    fn look(&mut self, now: Timestamp) {
        self.has_news = false;
        self.next_look = Some(after(now, RETRY_EVERY));
        let waits = |pod: &Holding| pod.asked != pod.allocated && pod.pending != Some(Pending::Infeasible);
        let mut waiting: Vec<_> = self
            .pods
            .iter()
            .filter(|(_, pod)| waits(pod))
            .map(|(uid, pod)| (pod.place(), uid.clone()))
            .collect();
        waiting.sort_unstable();
        let mut claimed = self.claimed();
        for (_, uid) in waiting {
            let Some(pod) = self.pods.get_mut(&uid) else { continue };
            let others = claimed - pod.held();
            if !pod.asked.fits(self.allocatable) {
                pod.pending = Some(Pending::Infeasible);
            } else if pod.asked.fits(self.allocatable - others) {
                pod.allocated = pod.asked;
                pod.pending = None;
                claimed = others + pod.held();
                self.granted.retain(|granted| *granted != uid);
                self.granted.push(uid);
            } else if pod.deferred_since().is_none() {
                pod.pending = Some(Pending::Deferred { since: now });
            }
        }
    }
}

#[cfg(test)]
mod tests;
