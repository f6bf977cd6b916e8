//! How a task is tried again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::Quantity;

/// Most steps by which a task's memory grows: bound of [`OnOom::max_steps`].
pub const MAX_OOM_STEPS: u32 = 5;

/// Pauses between attempts: they double with each failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Retry {
    /// Pause after the first failure, in seconds; it doubles with each further one.
    #[schemars(range(max = 3600))]
    pub initial_backoff_seconds: u32,
    /// Longest pause, in seconds.
    #[schemars(range(max = 3600))]
    pub max_backoff_seconds: u32,
    /// FailedNodes has new pods prefer other nodes than the last three on which pods of this job failed, those of their
    /// own index first; where nothing else is free they run there all the same. None leaves the template alone.
    pub node_avoidance: NodeAvoidance,
    /// Gives a task more memory when it ran out of it. Absent = it is tried again as it is.
    #[serde(rename = "onOOM", skip_serializing_if = "Option::is_none")]
    pub on_oom: Option<OnOom>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            initial_backoff_seconds: 10,
            max_backoff_seconds: 600,
            node_avoidance: NodeAvoidance::default(),
            on_oom: None,
        }
    }
}

/// Which nodes new pods of a job prefer not to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum NodeAvoidance {
    /// Those on which pods of the job failed.
    #[default]
    FailedNodes,
    /// None.
    None,
}

/// More memory for tasks that ran out of it.
///
/// Each failure whose first failed container was OOMKilled is a step; it counts against the backoff limits as every
/// other failure does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct OnOom {
    /// Memory after a step, in percent of that before it: requests and limits of all containers that have them.
    #[schemars(range(min = 101, max = 400))]
    pub memory_percent: u32,
    /// No container grows beyond this; what the template gives stays. Absent = maxSteps is the only bound.
    #[schemars(with = "Quantity")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory: Option<Quantity>,
    /// Steps after which memory grows no more.
    #[schemars(range(min = 1, max = MAX_OOM_STEPS))]
    pub max_steps: u32,
}

impl Default for OnOom {
    fn default() -> Self {
        Self { memory_percent: 150, max_memory: None, max_steps: 3 }
    }
}
