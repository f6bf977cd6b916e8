//! Node, as the ledger reads it: what it can hold, and for whom.

use springtide_plumbing::resources::ResourceList;
use serde::Deserialize;
use springtide_crds::common::ConditionStatus;
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::{Meta, Projection};
use std::collections::BTreeMap;
use std::sync::Arc;

/// All labels of a node: any of them may be selected by.
pub type NodeLabels = BTreeMap<Arc<str>, Arc<str>>;

/// One node.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct NodeView {
    meta: Meta<NodeLabels>,
    /// `spec.unschedulable`: it is cordoned.
    pub unschedulable: bool,
    /// Taints that keep pods away.
    pub taints: Vec<Taint>,
    /// What pods may request on it in total.
    pub allocatable: ResourceList,
    /// Whether its kubelet says that it is ready.
    pub ready: bool,
}

/// One of `spec.taints`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Taint {
    /// Key.
    pub key: Box<str>,
    /// Value, often empty.
    #[serde(default)]
    pub value: Box<str>,
    /// Effect.
    pub effect: TaintEffect,
}

/// What a taint does to a pod that does not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum TaintEffect {
    /// It is not scheduled there.
    NoSchedule,
    /// It is scheduled elsewhere if that is possible.
    PreferNoSchedule,
    /// It is not scheduled there, and evicted.
    NoExecute,
}

impl NodeView {
    /// Whether everything that the ledger reads is the same.
    pub fn same_for_ledger(&self, other: &Self) -> bool {
        self.unschedulable == other.unschedulable
            && self.ready == other.ready
            && self.taints == other.taints
            && self.allocatable == other.allocatable
            && self.meta.labels == other.meta.labels
    }
}

impl Projection for NodeView {
    const RESOURCE: Resource = Resource::NODE;
    type Labels = NodeLabels;

    fn meta(&self) -> &Meta<NodeLabels> {
        &self.meta
    }

    fn bytes(&self) -> usize {
        let labels = self.meta.labels.iter();
        let labels: usize =
            labels.map(|(key, value)| 2 * size_of::<Arc<str>>() + key.len() + value.len()).sum();
        let taints = self.taints.iter();
        let taints: usize =
            taints.map(|taint| size_of::<Taint>() + taint.key.len() + taint.value.len()).sum();
        size_of::<Self>() + self.meta.text_bytes() + labels + taints
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta<NodeLabels>,
    #[serde(default)]
    spec: WireSpec,
    #[serde(default)]
    status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireSpec {
    unschedulable: bool,
    taints: Vec<Taint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStatus {
    allocatable: ResourceList,
    conditions: Vec<WireCondition>,
}

#[derive(Deserialize)]
struct WireCondition {
    #[serde(rename = "type")]
    type_: Box<str>,
    status: ConditionStatus,
}

impl From<Wire> for NodeView {
    fn from(wire: Wire) -> Self {
        let ready = wire.status.conditions.iter().any(|condition| {
            condition.type_.as_ref() == "Ready" && condition.status == ConditionStatus::True
        });
        Self {
            meta: wire.metadata,
            unschedulable: wire.spec.unschedulable,
            taints: wire.spec.taints,
            allocatable: wire.status.allocatable,
            ready,
        }
    }
}
