//! Load triggers: when batch work shrinks, waits or leaves because the nodes are busy.

use kube::core::{Reason, Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::peaks::{Resume, TierAction, drain_pods_per_second};

/// Most load triggers of one queue.
pub const LOAD_TRIGGERS_MAX: usize = 8;

/// A measured load of the queue's nodes at which batch work gives way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    Rule::new("self.lowPercent < self.highPercent")
        .message("lowPercent must be below highPercent")
        .reason(Reason::FieldValueInvalid)
        .field_path(".lowPercent"),
]))]
#[serde(rename_all = "camelCase")]
pub struct LoadTrigger {
    /// Name of the trigger, for conditions and messages.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// What is measured: the part of the allocatable amount of the nodes of spec.capacitySource.nodeSelector that is in
    /// use, by whomever.
    #[serde(default)]
    pub resource: LoadResource,
    /// The trigger goes on when so much has been in use, or more, for sustainSeconds.
    #[schemars(range(min = 1, max = 100))]
    pub high_percent: u32,
    /// It goes off when so much has been in use, or less, for sustainSeconds.
    #[schemars(range(min = 1, max = 100))]
    pub low_percent: u32,
    /// So long the load must stay high, or low, before the trigger turns; nodes are measured every 15 s.
    #[schemars(range(min = 10, max = 3600))]
    #[serde(default = "sustain_seconds")]
    pub sustain_seconds: u32,
    /// What the trigger means for each tier while it is on; a tier without an entry is not affected.
    #[schemars(
        length(max = 3),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["tier"])
    )]
    #[serde(default)]
    pub actions: Vec<TierAction>,
    /// Most pods that are ended in a second.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "drain_pods_per_second")]
    pub drain_pods_per_second: u32,
    /// How batch work comes back when the trigger goes off.
    #[serde(default)]
    pub resume: Resume,
}

/// What a load trigger looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "lowercase")]
pub enum LoadResource {
    /// Processor time.
    #[default]
    Cpu,
    /// Memory that cannot be taken back: the working set.
    Memory,
}

fn sustain_seconds() -> u32 {
    60
}
