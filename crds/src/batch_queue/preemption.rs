//! For whom the pods of a tier may be ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::Tier;

/// Most pods of a queue that may exist though no node has room for them.
pub const MAX_PENDING_PODS: u32 = 1000;

/// For whom the pods of a tier may be ended, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct Preemptible {
    /// Tiers of the same queue whose jobs may take the place of these pods, if they can start then. The tier itself
    /// stands for its jobs of higher priority.
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub by: Vec<Tier>,
    /// A pod is left alone until it exists for so many seconds, also by who has lent what it uses.
    #[schemars(range(max = 86_400))]
    #[serde(default)]
    pub min_run_seconds: u32,
}
