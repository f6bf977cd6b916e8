//! A node that is kept for a class which has waited for room for long: where small pods take every bit that comes
//! free, a large one would wait for ever.
//!
//! One class of each queue has one. Others of its tier or below, but those that go before it in its own line, use what
//! is free there only if they have ended by the time at which it should be able to start: backfilling as of EASY
//! (Lifka, The ANL/IBM SP Scheduling System, 1995), for a node. When nobody knows when the pods end that are in its way, none of these may.

use super::Admission;
use super::class::{Class, ClassKey};
use super::line::LineId;
use crate::ledger::Slot;
use springtide_plumbing::resources::ResourceList;
use crate::shape::Placement;
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::clock::after;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// So long a class finds no node with room before one is kept for it.
pub(super) const KEPT_AFTER: SignedDuration = SignedDuration::from_secs(600);

/// Classes of a queue for which a node is looked for in a pass, the first in its order.
const TRIED_PER_QUEUE: usize = 8;

/// A node that is kept for a class.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) class: ClassKey,
    pub(super) node: Slot,
    /// When the class should be able to start there, as far as anybody knows.
    pub(super) free_at: Option<Timestamp>,
}

/// How well a node suits: known to be free first, of these the earliest; of the others the one where least has to go.
type Suits = (bool, Option<Timestamp>, usize, Slot);

impl ClassKey {
    /// Whether a node that is kept for this class is not for that one. Priorities mean something inside a line alone.
    pub(super) fn keeps_nodes_from(&self, other: &Self) -> bool {
        let goes_before = other.line == self.line && other.rank() > self.rank();
        other != self && other.tier <= self.tier && !goes_before
    }
}

impl Admission {
    /// Whether time alone has made that a node should be kept for a class.
    pub(super) fn is_keeping_due(&self, now: Timestamp) -> bool {
        self.classes.values().any(|class| class.keeps_at.is_some_and(|at| at <= now))
    }

    /// Takes in since when the class of a job has found no node, by the word of who has watched it.
    pub fn starved_since(&mut self, uid: &Uid, since: Timestamp) {
        let Some(key) = self.jobs.get(uid).map(|job| &job.class) else { return };
        if let Some(class) = self.classes.get_mut(key) {
            class.starved = Some(class.starved.map_or(since, |known| known.min(since)));
        }
    }

    /// Notes since when classes find no node, and when one should be kept for them. To be asked when all have been
    /// served.
    pub(super) fn note_starved(&mut self, now: Timestamp) {
        if self.blind {
            return;
        }
        let mut changed = Vec::new();
        for (key, class) in &self.classes {
            // One that lies ahead was noted before the clock was put back.
            let since = class.starved.filter(|since| *since <= now).unwrap_or(now);
            let starved = self.is_starved(key, class).then_some(since);
            let keeps_at = starved.map(|since| after(since, KEPT_AFTER)).filter(|at| *at > now);
            if (starved, keeps_at) != (class.starved, class.keeps_at) {
                changed.push((key.clone(), starved, keeps_at));
            }
        }
        for (key, starved, keeps_at) in changed {
            if let Some(class) = self.classes.get_mut(&key) {
                (class.starved, class.keeps_at) = (starved, keeps_at);
            }
        }
    }

    /// Whether nothing but room on nodes keeps the first job of a class from starting.
    fn is_starved(&self, key: &ClassKey, class: &Class) -> bool {
        // Who waits behind the first of a strict queue would have a node kept for as long as that one waits.
        if class.waiting.first().is_none_or(|head| self.is_held_up(&key.line, head)) {
            return false;
        }
        let (Some(fit), Some(least)) = (self.fits.get(&key.shape), self.least(key)) else { return false };
        let is_open = class.paused_until.is_none() && self.queues.closed(&key.line, key.tier).is_none();
        is_open
            && self.models(&key.shape)
            && fit.table.ever()
            && fit.table.total() < least as u64
            && self.room_to_start(key) >= least
    }

    /// Pods that the queue of a class would let start, had the nodes room.
    fn room_to_start(&self, key: &ClassKey) -> usize {
        let fill = self.queues.last_fill(&key.line);
        self.queues.room(&key.line, key.tier, &self.queues.wanted(key), fill).pods
    }

    /// Chooses the nodes that are kept, and for whom; those that are kept already stay so while they help.
    pub(super) fn keep_nodes(&mut self, now: Timestamp) {
        let is_due = |class: &Class| class.starved.is_some_and(|since| after(since, KEPT_AFTER) <= now);
        for (queue, held) in std::mem::take(&mut self.kept) {
            let still = self.classes.get(&held.class).filter(|class| is_due(class));
            let least = still.and_then(|_| self.least(&held.class));
            let suits = least.and_then(|least| self.suits(&held.class, least, held.node, now));
            if let Some((_, free_at, ..)) = suits {
                self.kept.insert(queue, Kept { free_at, ..held });
            }
        }
        let mut due: BTreeMap<Option<ObjectKey>, BTreeMap<_, &ClassKey>> = BTreeMap::new();
        for (key, class) in self.classes.iter().filter(|(_, class)| is_due(class)) {
            let queue = key.line.queue();
            if let Some(head) = class.waiting.first()
                && !self.kept.contains_key(&queue)
            {
                let first = due.entry(queue).or_default();
                first.insert((Reverse(key.rank()), head), key);
                if first.len() > TRIED_PER_QUEUE {
                    first.pop_last();
                }
            }
        }
        let due: Vec<(Option<ObjectKey>, Vec<ClassKey>)> = due
            .into_iter()
            .map(|(queue, classes)| (queue, classes.into_values().cloned().collect()))
            .collect();
        for (queue, classes) in due {
            for class in classes {
                let Some(least) = self.least(&class) else { continue };
                let taken: Vec<Slot> = self.kept.values().map(|kept| kept.node).collect();
                let free = self.ledger.nodes().map(|(slot, _)| slot).filter(|slot| !taken.contains(slot));
                let best = free.filter_map(|slot| self.suits(&class, least, slot, now)).min();
                if let Some((_, free_at, _, node)) = best {
                    self.kept.insert(queue, Kept { class, node, free_at });
                    break;
                }
            }
        }
    }

    /// Whether a node was kept in this pass for a class that is not short of one any more, though nothing was given to
    /// it: others have done without for nobody.
    pub(super) fn keeps_in_vain(&self) -> bool {
        self.kept.values().any(|kept| {
            let class = self.classes.get(&kept.class);
            class.is_none_or(|class| class.starved.is_none() && class.served != self.turn)
        })
    }

    /// How well a node suits a class that starts with `least` pods; `None` where it does not help, whatever ends there.
    fn suits(&self, key: &ClassKey, least: usize, slot: Slot, now: Timestamp) -> Option<Suits> {
        let node = self.ledger.node(slot)?;
        if key.shape.placement(&node.view) != Placement::Eligible {
            return None;
        }
        let requests = &key.shape.requests;
        let fits = |used: &ResourceList| requests.times_within(&node.view.allocatable, used) as usize;
        let elsewhere = (self.fits.get(&key.shape)?.table.total() as usize).saturating_sub(fits(&node.used));
        let elsewhere = elsewhere.saturating_sub(self.kept_from(key, slot));
        let needed = least.saturating_sub(elsewhere).max(1);
        let mut used = node.used.clone();
        let mut in_way = self.pods.on(slot);
        // What nobody knows the end of ends last.
        let end = |job: &Uid, since: Timestamp| {
            self.jobs.get(job).and_then(|job| Some(after(since, job.demand.interruption.expected?).max(now)))
        };
        in_way.sort_by_key(|(job, since, _)| {
            let end = end(job, *since);
            (end.is_none(), end)
        });
        let mut free_at = Some(now);
        let mut gone = 0;
        for (job, since, held) in in_way {
            if fits(&used) >= needed {
                break;
            }
            used.subtract(held);
            free_at = end(job, since);
            gone += 1;
        }
        (fits(&used) >= needed).then_some((free_at.is_none(), free_at, gone, slot))
    }

    /// Pods of a class that would fit now on other nodes than this one, but that these are kept from it: two gangs, each
    /// with a node that the other one needs as well, would wait for ever.
    fn kept_from(&self, key: &ClassKey, slot: Slot) -> usize {
        let others = self.kept.values().filter(|kept| kept.node != slot && kept.class.keeps_nodes_from(key));
        let fits = |kept: &Kept| {
            let node = self.ledger.node(kept.node)?;
            let is_eligible = key.shape.placement(&node.view) == Placement::Eligible;
            is_eligible.then(|| key.shape.requests.times_within(&node.view.allocatable, &node.used) as usize)
        };
        others.filter_map(fits).sum()
    }

    /// Whether a node is kept for a class of another job, so that what is free may not be for this one.
    pub(super) fn is_node_kept_from(&self, key: &ClassKey) -> bool {
        self.kept.values().any(|kept| kept.class.keeps_nodes_from(key))
    }

    /// Whether a node is kept for a class of a queue.
    pub(super) fn has_kept(&self, line: &LineId) -> bool {
        self.kept.contains_key(&line.queue())
    }
}
