//! When a run has gone wrong, and what happens then.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{IntOrPercent, METRICS_MAX, MetricGate};

/// When a run has gone wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// The run fails when more pods failed than this: a whole number, or a part of all pods, rounded down; with 0 the
    /// first failed pod fails it.
    pub failure_threshold: IntOrPercent,
    /// Restarts that a changed container may have beyond the upgrade's own; with more the pod has failed.
    #[schemars(range(max = 100))]
    pub max_restarts: u32,
    /// Measured values that must stay within a bound while the run goes on.
    #[schemars(
        length(max = METRICS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricGate>,
}

impl Default for Health {
    fn default() -> Self {
        Self { failure_threshold: IntOrPercent::Percent(2), max_restarts: 0, metrics: Vec::new() }
    }
}

/// What happens when a run has gone wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollback {
    /// Auto makes pods again what they were, in place and within the same bounds; Hold leaves everything for a person.
    pub on_failure: OnFailure,
}

/// What happens to a run that has gone wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnFailure {
    /// It is rolled back.
    #[default]
    Auto,
    /// It stays as it is.
    Hold,
}
