//! How many pods of one shape fit on each node, kept up to date by what has changed.

use super::{Ledger, Slot};
use springtide_plumbing::resources::ResourceList;
use crate::shape::{Placement, Shape};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// The fit of one shape: the sum over eligible nodes of whole pods that fit.
#[derive(Debug, Default)]
pub(crate) struct FitTable {
    /// Pods that fit, by slot.
    times: Vec<u32>,
    total: u64,
    /// Whether some node could hold one, were it empty and willing.
    ever: bool,
    /// Nodes that would take it now, room aside.
    eligible: usize,
    position: Option<(u64, usize)>,
}

impl FitTable {
    /// Takes in what has changed in the ledger. Returns whether "could it ever fit" has changed.
    pub(crate) fn refresh(&mut self, shape: &Shape, ledger: &Ledger) -> bool {
        let before = self.position.is_some().then_some(self.ever);
        match self.position.and_then(|position| ledger.changes_since(position)) {
            Some(changes) if changes.len() < self.times.len() => {
                for slot in changes {
                    self.update(*slot, shape, ledger);
                }
            }
            // Each once is less than all changes one by one.
            Some(_) => {
                for slot in 0..self.times.len() {
                    self.update(slot, shape, ledger);
                }
            }
            None => self.rebuild(shape, ledger),
        }
        self.position = Some(ledger.position());
        before.is_some_and(|before| before != self.ever)
    }

    /// Whether it was ever built.
    pub(crate) fn is_built(&self) -> bool {
        self.position.is_some()
    }

    /// Whole pods that fit now.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Whether some node could hold one pod, were it empty and willing.
    pub(crate) fn ever(&self) -> bool {
        self.ever
    }

    /// Nodes that would take it now, room aside.
    pub(crate) fn eligible(&self) -> usize {
        self.eligible
    }

    /// Up to `count` places, one pod each, spread over the nodes with most room; charges the ledger.
    pub(crate) fn place(&mut self, count: usize, shape: &Shape, ledger: &mut Ledger) -> Vec<Slot> {
        self.refresh(shape, ledger);
        let with_room = self.times.iter().enumerate().filter(|(_, times)| **times > 0);
        let mut heap: BinaryHeap<(u32, Reverse<Slot>)> =
            with_room.map(|(slot, times)| (*times, Reverse(slot))).collect();
        let mut places = Vec::with_capacity(count.min(usize::try_from(self.total).unwrap_or(usize::MAX)));
        while places.len() < count
            && let Some(mut roomiest) = heap.peek_mut()
        {
            let (times, Reverse(slot)) = &mut *roomiest;
            places.push(*slot);
            // Each pod takes exactly one of the times that pods of its shape fit.
            *times -= 1;
            self.times[*slot] = *times;
            if *times == 0 {
                PeekMut::pop(roomiest);
            }
        }
        self.total -= places.len() as u64;
        let mut pods = vec![0_i64; self.times.len()];
        for slot in &places {
            pods[*slot] += 1;
        }
        for (slot, pods) in pods.into_iter().enumerate().filter(|(_, pods)| *pods > 0) {
            ledger.charge(slot, &shape.requests.times(pods));
        }
        self.position = Some(ledger.position());
        places
    }

    fn rebuild(&mut self, shape: &Shape, ledger: &Ledger) {
        *self = Self::default();
        let none = ResourceList::default();
        for (slot, node) in ledger.nodes() {
            let placement = shape.placement(&node.view);
            if placement == Placement::Eligible {
                self.eligible += 1;
            }
            self.ever |= placement != Placement::Never
                && shape.requests.times_within(&node.view.allocatable, &none) > 0;
            self.update(slot, shape, ledger);
        }
    }

    fn update(&mut self, slot: Slot, shape: &Shape, ledger: &Ledger) {
        let times = ledger
            .node(slot)
            .filter(|node| shape.placement(&node.view) == Placement::Eligible)
            .map_or(0, |node| shape.requests.times_within(&node.view.allocatable, &node.used));
        if self.times.len() <= slot {
            self.times.resize(slot + 1, 0);
        }
        self.total = self.total - u64::from(self.times[slot]) + u64::from(times);
        self.times[slot] = times;
    }
}
