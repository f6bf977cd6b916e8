//! How the peak changes hands: order, steps and limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Most steps of a switch.
pub const STEPS_MAX: u32 = 10;

/// Which pods grow where nobody shrinks for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Pairing {
    /// What happens to a pod that is to grow on a node where no pod of the group shrinks: GrowWhenFree grows it where the
    /// node has room; Leave leaves it at valley size.
    pub unpaired: Unpaired,
}

/// What happens to a pod that is to grow, where none shrinks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Unpaired {
    /// It grows where its node has room.
    #[default]
    GrowWhenFree,
    /// It stays as it is.
    Leave,
}

/// How the peak changes hands. A unit is a pod that grows with those of its node that shrink for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::steps_rise(), rules::last_step_is_all()]))]
#[serde(rename_all = "camelCase", default)]
pub struct Switch {
    /// Pipelined shrinks, and grows at once, before the node offers the room to others; ClaimFirst grows first, so that
    /// nobody else ever gets it; ShrinkFirst grows when the shrunk pod has been confirmed, for a quota that has no room for
    /// both, and leaves others time to take the room.
    pub order: Order,
    /// WhenFree grows a pod before another one shrinks, where its node has room for both; Never does not.
    pub overlap: Overlap,
    /// Steps in order, their percentages rising; the last one is 100. Units come in the same order at every attempt, so the
    /// first step is a canary.
    #[schemars(length(min = 1, max = STEPS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub steps: Vec<Step>,
    /// Most units that are under way at a time.
    #[schemars(range(min = 1, max = 5000))]
    pub max_in_flight_units: u32,
    /// Most of them on one node.
    #[schemars(range(min = 1, max = 110))]
    pub max_in_flight_units_per_node: u32,
    /// A resize that the node has deferred for so many seconds is withdrawn and asked for again, as the kubelet may have
    /// missed that there is room by now.
    #[schemars(range(min = 1, max = 300))]
    pub nudge_after_seconds: u32,
    /// A unit that is not done so many seconds after its pods have begun to shrink is stuck; drain and warm-up do not count.
    #[schemars(range(min = 5, max = 3600))]
    pub unit_deadline_seconds: u32,
    /// A switch that takes longer needs a person, and goes on; the holds of its steps do not count.
    #[schemars(range(min = 30, max = 86_400))]
    pub deadline_seconds: u32,
    /// What follows when a unit is stuck: Skip takes the unit back and goes on with the others; Rollback takes all of them
    /// back; Pause starts nothing further.
    pub on_stuck: OnStuck,
}

impl Default for Switch {
    fn default() -> Self {
        let step = |percent, hold_seconds| Step { percent, hold_seconds };
        Self {
            order: Order::default(),
            overlap: Overlap::default(),
            steps: vec![step(1, 60), step(10, 60), step(100, 0)],
            max_in_flight_units: 500,
            max_in_flight_units_per_node: 2,
            nudge_after_seconds: 5,
            unit_deadline_seconds: 60,
            deadline_seconds: 600,
            on_stuck: OnStuck::default(),
        }
    }
}

/// Who is resized first in a unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Order {
    /// Those that shrink, and right after them the one that grows.
    #[default]
    Pipelined,
    /// The one that grows.
    ClaimFirst,
    /// Those that shrink, until their kubelet has confirmed it.
    ShrinkFirst,
}

/// Whether a pod may grow before another one shrinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Overlap {
    /// Where there is room for both.
    #[default]
    WhenFree,
    /// Nowhere.
    Never,
}

/// A part of the units, and how long it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Units that are done at the end of the step, in percent of all, rounded up, those of the steps before included.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u32,
    /// Seconds that the next step waits when this one is done.
    #[schemars(range(max = 86_400))]
    #[serde(default)]
    pub hold_seconds: u32,
}

/// What follows when a unit is stuck.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnStuck {
    /// It is taken back, and the others go on.
    #[default]
    Skip,
    /// All are taken back.
    Rollback,
    /// No further one starts.
    Pause,
}
