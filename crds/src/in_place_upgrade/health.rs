//! When a run has gone wrong, and what happens then.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::common::{ADDRESS_PATTERN, Decimal, IntOrPercent};

/// Most metrics of one object.
pub const METRICS_MAX: usize = 8;
/// Longest query, in bytes.
pub const QUERY_MAX_LENGTH: usize = 4096;

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

/// A measured value and its bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::one_failure_bound()]))]
#[serde(rename_all = "camelCase")]
pub struct MetricGate {
    /// Name of the metric, for conditions and messages.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The Prometheus that is asked, and for what.
    pub prometheus: PrometheusQuery,
    /// A value above this is a failure, as text such as 0.01. Give this or failureBelow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_above: Option<Decimal>,
    /// A value below this is a failure, as text such as 99.9. Give this or failureAbove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_below: Option<Decimal>,
    /// Seconds between two queries.
    #[schemars(range(min = 5, max = 3600))]
    #[serde(default = "interval_seconds")]
    pub interval_seconds: u32,
    /// So many failures one after the other fail the run.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "failure_limit")]
    pub failure_limit: u32,
    /// When no value comes: Hold starts no further pod until one does, Ignore goes on, Fail takes it for a failure.
    #[serde(default)]
    pub on_no_data: OnNoData,
}

/// A query of a Prometheus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct PrometheusQuery {
    /// Where it serves its HTTP API, such as http://prometheus.monitoring:9090. The manager's configuration must allow the
    /// address; redirects are not followed, and no credentials are sent.
    #[schemars(length(min = 1, max = 256), regex(pattern = ADDRESS_PATTERN))]
    pub address: String,
    /// The expression in PromQL; it gives a scalar or a vector of one element.
    #[schemars(length(min = 1, max = QUERY_MAX_LENGTH))]
    pub query: String,
}

/// What a missing value means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnNoData {
    /// Wait.
    #[default]
    Hold,
    /// Nothing.
    Ignore,
    /// A failure.
    Fail,
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

fn interval_seconds() -> u32 {
    30
}

fn failure_limit() -> u32 {
    1
}
