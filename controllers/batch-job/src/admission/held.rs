//! What a pass keeps from others while it serves: room that was given up for one class and is not whole yet, and
//! nodes that are kept for one.
//!
//! Neither is a charge that lasts: it stands in the books for the time of the pass alone, so that everybody else finds
//! it taken, and is made anew in the next.

use super::class::ClassKey;
use super::{Admission, pods};
use crate::ledger::Slot;
use springtide_plumbing::resources::ResourceList;
use crate::shape::Placement;
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::clock::after;

/// Room that is held for pods of a class.
#[derive(Debug)]
pub(super) struct Hold {
    class: ClassKey,
    places: Vec<Slot>,
    pods: usize,
}

/// What is free on a node that is kept for a class.
#[derive(Debug)]
pub(super) struct Blocked {
    node: Slot,
    /// What of it is kept from others at the moment.
    amount: ResourceList,
    keeper: ClassKey,
    /// When the class should be able to start there, as far as anybody knows.
    free_at: Option<Timestamp>,
}

impl Blocked {
    /// Whether a class uses the node as if nobody waited for it.
    fn is_open_to(&self, key: &ClassKey) -> bool {
        !self.keeper.keeps_nodes_from(key)
    }
}

/// Who is served from nodes that are kept for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Whoever may anyway.
    Entitled,
    /// Who ends by then.
    Until(Timestamp),
}

impl Admission {
    /// Holds what others end for, or have ended for, until it is enough: of three pods that make room for one the
    /// first is gone before the last, and what it held is not for whoever comes first.
    pub(super) fn hold_owed(&mut self, now: Timestamp) -> Vec<Hold> {
        if self.claimants.is_empty() {
            return Vec::new();
        }
        let owed: Vec<_> = self.claimants.values().cloned().collect();
        let coming = self.coming(&mut self.pods.staying(), now);
        self.book(&coming, -1);
        let mut holds = Vec::new();
        for owed in owed {
            let key = &owed.class;
            let is_open = self.classes.get(key).is_some_and(|class| class.paused_until.is_none())
                && self.queues.closed(&key.line, key.tier).is_none()
                && self.goes_first(key);
            if !is_open {
                continue;
            }
            let pods = owed.pods.min(self.fits_now(key, owed.fill));
            let places = match self.fits.get_mut(&key.shape) {
                Some(fit) if !self.blind => fit.table.place(pods, &key.shape, &mut self.ledger),
                Some(_) | None => Vec::new(),
            };
            self.queues.grant(key, pods::signed(pods));
            holds.push(Hold { class: owed.class, places, pods });
        }
        self.book(&coming, 1);
        holds
    }

    /// Ends that.
    pub(super) fn release(&mut self, holds: Vec<Hold>) {
        for hold in holds {
            for place in hold.places {
                self.ledger.credit(place, &hold.class.shape.requests);
            }
            self.queues.grant(&hold.class, -pods::signed(hold.pods));
        }
    }

    /// Keeps what is free on nodes from those who may not use it.
    pub(super) fn block(&mut self) {
        let kept = self.kept.values().map(|kept| Blocked {
            node: kept.node,
            amount: ResourceList::default(),
            keeper: kept.class.clone(),
            free_at: kept.free_at,
        });
        self.blocked = kept.collect();
        for at in 0..self.blocked.len() {
            self.close(at);
        }
    }

    /// Ends that.
    pub(super) fn unblock(&mut self) {
        for at in 0..self.blocked.len() {
            self.open(at);
        }
        self.blocked.clear();
    }

    fn close(&mut self, at: usize) {
        let blocked = &mut self.blocked[at];
        let Some(node) = self.ledger.node(blocked.node) else { return };
        let mut free = node.view.allocatable.clone();
        free.subtract(&node.used);
        blocked.amount = free.without_debts();
        self.ledger.charge(blocked.node, &blocked.amount);
    }

    fn open(&mut self, at: usize) {
        let blocked = &mut self.blocked[at];
        let amount = std::mem::take(&mut blocked.amount);
        self.ledger.credit(blocked.node, &amount);
    }

    /// Pods of a class that fit on the nodes that are kept from others and not from it, and that its table does not show.
    pub(super) fn kept_for(&self, key: &ClassKey) -> u64 {
        let fits = |blocked: &Blocked| {
            let node = self.ledger.node(blocked.node)?;
            let mut used = node.used.clone();
            used.subtract(&blocked.amount);
            let is_eligible = key.shape.placement(&node.view) == Placement::Eligible;
            is_eligible.then(|| u64::from(key.shape.requests.times_within(&node.view.allocatable, &used)))
        };
        self.blocked.iter().filter(|blocked| blocked.is_open_to(key)).filter_map(fits).sum()
    }

    /// Whether a class may find room that its table does not show now.
    pub(super) fn may_be_let_in(&self, key: &ClassKey) -> bool {
        let ends = |blocked: &Blocked| blocked.free_at.is_some_and(|at| self.head_ends_by(key, at));
        self.blocked.iter().any(|blocked| blocked.is_open_to(key) || ends(blocked))
    }

    /// Opens the nodes that are kept for others to who is entitled to them, or ends in time; `grant` is told when
    /// what it grants must have ended. Returns what `grant` did.
    pub(super) fn let_in(
        &mut self,
        key: &ClassKey,
        mut grant: impl FnMut(&mut Self, Option<Timestamp>) -> Option<()>,
    ) -> Option<()> {
        if self.blocked.is_empty() {
            return grant(self, None);
        }
        let granted = self.opened(key, Opening::Entitled, &mut grant);
        let free_at = self.blocked.iter().filter(|blocked| !blocked.is_open_to(key));
        let free_at = free_at.filter_map(|blocked| blocked.free_at).max();
        match free_at.filter(|at| granted.is_none() && self.head_ends_by(key, *at)) {
            Some(at) => self.opened(key, Opening::Until(at), &mut grant),
            None => granted,
        }
    }

    fn opened(
        &mut self,
        key: &ClassKey,
        opening: Opening,
        grant: &mut impl FnMut(&mut Self, Option<Timestamp>) -> Option<()>,
    ) -> Option<()> {
        let opens = |blocked: &Blocked| {
            blocked.is_open_to(key)
                || match opening {
                    Opening::Entitled => false,
                    Opening::Until(at) => blocked.free_at.is_some_and(|free_at| free_at >= at),
                }
        };
        let opened: Vec<usize> = (0..self.blocked.len()).filter(|at| opens(&self.blocked[*at])).collect();
        for at in &opened {
            self.open(*at);
        }
        let granted = match opening {
            Opening::Entitled => grant(self, None),
            Opening::Until(at) => grant(self, Some(at)),
        };
        for at in opened {
            self.close(at);
        }
        granted
    }

    fn head_ends_by(&self, key: &ClassKey, at: Timestamp) -> bool {
        let head = self.classes.get(key).and_then(|class| class.waiting.first());
        head.and_then(|(_, uid)| self.jobs.get(uid))
            .is_some_and(|job| ends_by(job.demand.interruption.expected, self.now(), at))
    }
}

/// Whether what starts now has ended by a time.
pub(super) fn ends_by(expected: Option<SignedDuration>, now: Timestamp, at: Timestamp) -> bool {
    expected.is_some_and(|run| after(now, run) <= at)
}
