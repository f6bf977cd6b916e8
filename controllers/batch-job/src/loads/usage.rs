//! What metrics.k8s.io tells of nodes.

use crate::projections::node::NodeView;
use springtide_plumbing::resources::ResourceList;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::Projection;
use std::collections::HashMap;
use std::sync::Arc;

/// `metrics.k8s.io/v1beta1` NodeMetrics. Its plural is that of nodes.
pub const NODE_METRICS: Resource = Resource {
    group: "metrics.k8s.io",
    version: "v1beta1",
    kind: "NodeMetrics",
    plural: "nodes",
    namespaced: false,
};

/// What the API tells of one node.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeMetrics {
    metadata: Name,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    usage: ResourceList,
}

#[derive(Clone, Debug, Deserialize)]
struct Name {
    name: Arc<str>,
}

/// What is in use on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLoad {
    /// When it was measured, by the clock of whoever did.
    measured: Option<Timestamp>,
    /// When that was first told, by our own clock, which may be hours off.
    pub at: Timestamp,
    /// By everything that runs there.
    pub used: ResourceList,
    /// By what is no pod of a BatchJob.
    pub foreign: ResourceList,
}

/// What was told last, of all nodes. Never changed: each look makes another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tells looks apart; 0 before the first.
    pub round: u64,
    /// When the look was.
    pub taken: Option<Timestamp>,
    /// What was told before that.
    before: Option<Arc<Self>>,
    nodes: HashMap<Arc<str>, NodeLoad>,
}

impl Usage {
    /// After a look that told this. `by_batch`: what pods of BatchJobs use, by node. A node that is told of with the time
    /// of before was not measured since: what stands still must grow old.
    #[must_use]
    pub fn next(
        &self,
        told: Vec<NodeMetrics>,
        by_batch: &HashMap<Arc<str>, ResourceList>,
        now: Timestamp,
    ) -> Self {
        let nodes = told.into_iter().map(|told| {
            let name = told.metadata.name;
            let before = self.nodes.get(&name);
            if let Some(same) =
                before.filter(|same| same.measured.is_some() && same.measured == told.timestamp)
            {
                return (name, same.clone());
            }
            let mut foreign = told.usage.clone();
            if let Some(batch) = by_batch.get(&name) {
                foreign.subtract(batch);
            }
            let foreign = foreign.without_debts();
            (name, NodeLoad { measured: told.timestamp, at: now, used: told.usage, foreign })
        });
        let before = self.taken.map(|_| Arc::new(Self { before: None, ..self.clone() }));
        Self { round: self.round + 1, taken: Some(now), nodes: nodes.collect(), before }
    }

    /// A look that has found these nodes idle, for who cannot look: requests alone decide then, and no trigger turns.
    #[must_use]
    pub fn idle(nodes: impl IntoIterator<Item = Arc<str>>, now: Timestamp) -> Self {
        let idle = NodeLoad {
            measured: Some(now),
            at: now,
            used: ResourceList::default(),
            foreign: ResourceList::default(),
        };
        let nodes = nodes.into_iter().map(|node| (node, idle.clone())).collect();
        Self { round: 1, taken: Some(now), before: None, nodes }
    }

    /// What was told at the look before; `None` at the first.
    #[must_use]
    pub fn before(&self) -> Option<&Self> {
        self.before.as_deref()
    }

    /// What is known of a node, if that was not older than this when the look was.
    #[must_use]
    pub fn of(&self, node: &str, most_age: SignedDuration) -> Option<&NodeLoad> {
        let taken = self.taken?;
        self.nodes.get(node).filter(|load| taken.duration_since(load.at) <= most_age)
    }

    /// What is left for batch work on a node that has so much, and promised so much to others: the less of what that
    /// leaves and of what they use. Nothing on one that is not measured.
    #[must_use]
    pub fn left(&self, node: &NodeView, promised: &ResourceList, most_age: SignedDuration) -> ResourceList {
        let Some(load) = self.of(&node.meta().key.name, most_age) else { return ResourceList::default() };
        let mut taken = promised.clone();
        taken.raise_to(&load.foreign);
        let mut left = node.allocatable.clone();
        left.subtract(&taken);
        left.without_debts()
    }
}

/// How much of the nodes of a queue is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Half of the nodes were measured then or later.
    pub at: Timestamp,
    /// Processor time, in thousandths of what is allocatable.
    pub cpu: u32,
    /// Memory, likewise.
    pub memory: u32,
}

impl Reading {
    /// Sums up these nodes, those aside that are not measured, or not lately. `None` when that leaves less than half of
    /// them: the rest would not stand for the whole.
    #[must_use]
    pub fn of<'a>(
        nodes: impl Iterator<Item = &'a NodeView>,
        usage: &Usage,
        most_age: SignedDuration,
    ) -> Option<Self> {
        let (mut times, mut count) = (Vec::new(), 0_usize);
        let (mut used, mut whole) = (ResourceList::default(), ResourceList::default());
        for node in nodes {
            count += 1;
            if let Some(load) = usage.of(&node.meta().key.name, most_age) {
                times.push(load.at);
                used.add(&load.used);
                whole.add(&node.allocatable);
            }
        }
        times.sort_unstable_by_key(|at| std::cmp::Reverse(*at));
        let at = *times.get(count.div_ceil(2).checked_sub(1)?)?;
        let share = |used: i64, whole: i64| {
            let share = i128::from(used.max(0)) * 1000 / i128::from(whole.max(1));
            u32::try_from(share).unwrap_or(u32::MAX)
        };
        Some(Self { at, cpu: share(used.cpu, whole.cpu), memory: share(used.memory, whole.memory) })
    }
}
