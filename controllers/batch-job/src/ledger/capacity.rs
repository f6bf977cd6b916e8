//! What the schedulable nodes leave to batch work, kept up to date by what has changed.

use super::{Ledger, Slot};
use crate::loads::{Reading, Usage};
use crate::projections::node::NodeView;
use springtide_plumbing::resources::ResourceList;
use jiff::SignedDuration;
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels that a node must have; none selects all of them.
pub(crate) type NodeSelector = BTreeMap<Arc<str>, Arc<str>>;

/// What a sum is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CapacityKey {
    /// Of which nodes.
    pub(crate) selector: NodeSelector,
    /// Also by what is really used there, if that was not measured longer ago.
    pub(crate) measured: Option<SignedDuration>,
}

/// The sum over the selected nodes of what they have, less what pods request that belong to no BatchJob, or use, where
/// that is measured and more.
///
/// A node counts while it is ready and not cordoned. Taints are left to the fit of the pods, which may
/// tolerate them. A node that has promised more than it has counts as empty, and takes nothing from others.
#[derive(Debug, Default)]
pub(crate) struct CapacityTable {
    by_slot: Vec<ResourceList>,
    total: ResourceList,
    position: Option<(u64, usize)>,
    /// The look at the usage of nodes that it rests on.
    round: u64,
}

impl CapacityTable {
    /// Takes in what has changed in the ledger. Returns whether the sum has changed.
    pub(crate) fn refresh(&mut self, key: &CapacityKey, ledger: &Ledger, usage: &Usage) -> bool {
        let is_measured_anew = key.measured.is_some() && self.round != usage.round;
        let position = self.position.filter(|_| !is_measured_anew);
        let changed = match position.and_then(|position| ledger.changes_since(position)) {
            Some(changes) => {
                let mut changed = false;
                for slot in changes {
                    changed |= self.update(*slot, key, ledger, usage);
                }
                changed
            }
            None => {
                let before = std::mem::take(self);
                for (slot, _) in ledger.nodes() {
                    self.update(slot, key, ledger, usage);
                }
                before.total != self.total
            }
        };
        self.position = Some(ledger.position());
        self.round = usage.round;
        changed
    }

    /// The sum.
    pub(crate) fn total(&self) -> &ResourceList {
        &self.total
    }

    fn update(&mut self, slot: Slot, key: &CapacityKey, ledger: &Ledger, usage: &Usage) -> bool {
        let left = match ledger.node(slot) {
            Some(node) if counts(&node.view, &key.selector) => match key.measured {
                Some(most_age) => usage.left(&node.view, &node.foreign, most_age),
                None => {
                    let mut left = node.view.allocatable.clone();
                    left.subtract(&node.foreign);
                    left.without_debts()
                }
            },
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

/// How much of the selected nodes is in use, as far as that was measured no longer ago.
pub(crate) fn reading(
    selector: &NodeSelector,
    most_age: SignedDuration,
    ledger: &Ledger,
    usage: &Usage,
) -> Option<Reading> {
    let nodes = ledger.nodes().map(|(_, node)| &*node.view).filter(|node| counts(node, selector));
    Reading::of(nodes, usage, most_age)
}

/// Whether a node takes pods, and has these labels.
pub(crate) fn counts(node: &NodeView, selector: &NodeSelector) -> bool {
    let labels = &node.meta().labels;
    node.ready && !node.unschedulable && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
