//! The ledger: what every node has left, from nodes and pods alone.
//!
//! A pod is charged to the node it is bound to; a pod of ours that is not bound yet, and a grant whose
//! pod does not exist yet, to the node where it would fit. Nothing of it is persisted.

mod capacity;
mod fit;

pub(crate) use capacity::{CapacityKey, CapacityTable, NodeSelector, counts, reading};
pub(crate) use fit::FitTable;

use crate::projections::node::NodeView;
use springtide_plumbing::resources::ResourceList;
use springtide_plumbing::projection::Projection;
use std::collections::HashMap;
use std::sync::Arc;

/// A node's place in the ledger. A place is used again when its node has gone.
pub(crate) type Slot = usize;

/// Entries of the change log per node before it is cut.
const LOG_PER_NODE: usize = 8;

/// One node and what is charged to it.
#[derive(Debug)]
pub(crate) struct NodeEntry {
    pub(crate) view: Arc<NodeView>,
    pub(crate) used: ResourceList,
    /// What of it pods request that belong to no BatchJob.
    pub(crate) foreign: ResourceList,
}

/// All nodes.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    slots: Vec<Option<NodeEntry>>,
    by_name: HashMap<Arc<str>, Slot>,
    free_slots: Vec<Slot>,
    /// Slots whose free capacity changed, oldest first; readers remember how far they have read.
    log: Vec<Slot>,
    /// Grows when the log is cut, and when a node appears, goes or changes in itself: readers start anew.
    epoch: u64,
}

impl Ledger {
    /// A node that is new or changed. Returns its slot and whether it is new.
    pub(crate) fn apply_node(&mut self, view: &Arc<NodeView>) -> (Slot, bool) {
        let name = &view.meta().key.name;
        if let Some(slot) = self.by_name.get(name).copied() {
            if let Some(entry) = &mut self.slots[slot] {
                if !entry.view.same_for_ledger(view) {
                    self.epoch += 1;
                }
                entry.view = Arc::clone(view);
            }
            return (slot, false);
        }
        let entry = NodeEntry {
            view: Arc::clone(view),
            used: ResourceList::default(),
            foreign: ResourceList::default(),
        };
        let slot = match self.free_slots.pop() {
            Some(slot) => {
                self.slots[slot] = Some(entry);
                slot
            }
            None => {
                self.slots.push(Some(entry));
                self.slots.len() - 1
            }
        };
        self.by_name.insert(Arc::clone(name), slot);
        self.epoch += 1;
        (slot, true)
    }

    /// A node that is gone; its slot, where it was known.
    pub(crate) fn remove_node(&mut self, name: &str) -> Option<Slot> {
        let slot = self.by_name.remove(name)?;
        self.slots[slot] = None;
        self.free_slots.push(slot);
        self.epoch += 1;
        Some(slot)
    }

    /// The slot of a node.
    pub(crate) fn slot(&self, name: &str) -> Option<Slot> {
        self.by_name.get(name).copied()
    }

    /// The node in a slot.
    pub(crate) fn node(&self, slot: Slot) -> Option<&NodeEntry> {
        self.slots.get(slot)?.as_ref()
    }

    /// All nodes with their slots.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (Slot, &NodeEntry)> {
        self.slots.iter().enumerate().filter_map(|(slot, entry)| Some((slot, entry.as_ref()?)))
    }

    /// Charges a node.
    pub(crate) fn charge(&mut self, slot: Slot, amount: &ResourceList) {
        if let Some(Some(entry)) = self.slots.get_mut(slot) {
            entry.used.add(amount);
            self.changed(slot);
        }
    }

    /// Takes a charge back.
    pub(crate) fn credit(&mut self, slot: Slot, amount: &ResourceList) {
        if let Some(Some(entry)) = self.slots.get_mut(slot) {
            entry.used.subtract(amount);
            self.changed(slot);
        }
    }

    /// Charges a node with `times` what a pod requests that belongs to no BatchJob; -1 takes it back.
    pub(crate) fn charge_foreign(&mut self, slot: Slot, amount: &ResourceList, times: i64) {
        if let Some(Some(entry)) = self.slots.get_mut(slot) {
            let amount = amount.times(times);
            entry.used.add(&amount);
            entry.foreign.add(&amount);
            self.changed(slot);
        }
    }

    /// Whether more is charged to a node than it has.
    pub(crate) fn is_overcommitted(&self, slot: Slot) -> bool {
        self.node(slot)
            .is_some_and(|node| node.used.iter().any(|(name, used)| used > node.view.allocatable.get(name)))
    }

    /// Whether more is charged to a node than it has of anything that `amount` has a part in.
    pub(crate) fn is_short_of(&self, slot: Slot, amount: &ResourceList) -> bool {
        self.node(slot).is_some_and(|node| {
            let is_short = |name: &str| node.used.get(name) > node.view.allocatable.get(name);
            amount.iter().any(|(name, amount)| amount > 0 && is_short(name))
        })
    }

    /// The node with the most room for `amount` by size alone; for a pod whose shape is not known.
    pub(crate) fn roomiest(&self, amount: &ResourceList) -> Option<Slot> {
        self.nodes()
            .filter(|(_, node)| node.view.ready && !node.view.unschedulable)
            .map(|(slot, node)| (amount.times_within(&node.view.allocatable, &node.used), slot))
            .filter(|(times, _)| *times > 0)
            .max_by_key(|(times, slot)| (*times, std::cmp::Reverse(*slot)))
            .map(|(_, slot)| slot)
    }

    /// Whether anything has changed since the reader's position.
    pub(crate) fn position(&self) -> (u64, usize) {
        (self.epoch, self.log.len())
    }

    fn changed(&mut self, slot: Slot) {
        self.log.push(slot);
        if self.log.len() > LOG_PER_NODE * self.slots.len().max(16) {
            self.log.clear();
            self.epoch += 1;
        }
    }

    /// Slots changed after `from`; `None` when the reader must start anew.
    fn changes_since(&self, (epoch, at): (u64, usize)) -> Option<&[Slot]> {
        (epoch == self.epoch).then(|| &self.log[at..])
    }
}
