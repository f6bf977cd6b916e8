//! What the schedulable nodes leave to batch work, kept up to date by what has changed.

use super::{Ledger, Slot};
use crate::projections::node::NodeView;
use crate::resources::ResourceList;
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels that a node must have; none selects all of them.
pub(crate) type NodeSelector = BTreeMap<Arc<str>, Arc<str>>;

/// The sum over the selected nodes of what they have, less what pods request that belong to no BatchJob.
///
/// A node counts while it is ready and not cordoned. Taints are left to the fit of the pods, which may
/// tolerate them. A node that has promised more than it has counts as empty, and takes nothing from others.
#[derive(Debug, Default)]
pub(crate) struct CapacityTable {
    by_slot: Vec<ResourceList>,
    total: ResourceList,
    position: Option<(u64, usize)>,
}

impl CapacityTable {
    /// Takes in what has changed in the ledger. Returns whether the sum has changed.
    pub(crate) fn refresh(&mut self, selector: &NodeSelector, ledger: &Ledger) -> bool {
        let changed = match self.position.and_then(|position| ledger.changes_since(position)) {
            Some(changes) => {
                let mut changed = false;
                for slot in changes {
                    changed |= self.update(*slot, selector, ledger);
                }
                changed
            }
            None => {
                let before = std::mem::take(self);
                for (slot, _) in ledger.nodes() {
                    self.update(slot, selector, ledger);
                }
                before.total != self.total
            }
        };
        self.position = Some(ledger.position());
        changed
    }

    /// The sum.
    pub(crate) fn total(&self) -> &ResourceList {
        &self.total
    }

    fn update(&mut self, slot: Slot, selector: &NodeSelector, ledger: &Ledger) -> bool {
        let left = match ledger.node(slot) {
            Some(node) if counts(&node.view, selector) => {
                let mut left = node.view.allocatable.clone();
                left.subtract(&node.foreign);
                left.without_debts()
            }
            Some(_) | None => ResourceList::default(),
        };
        if self.by_slot.len() <= slot {
            self.by_slot.resize_with(slot + 1, ResourceList::default);
        }
        if self.by_slot[slot] == left {
            return false;
        }
        self.total.subtract(&self.by_slot[slot]);
        self.total.add(&left);
        self.by_slot[slot] = left;
        true
    }
}

fn counts(node: &NodeView, selector: &NodeSelector) -> bool {
    let labels = &node.meta().labels;
    node.ready && !node.unschedulable && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
