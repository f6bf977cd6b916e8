//! A measured value that decides whether work may go on.

use kube::core::{Reason, Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decimal::Decimal;
use crate::url::ADDRESS_PATTERN;

/// Most metrics of one object.
pub const METRICS_MAX: usize = 8;
/// Longest query, in bytes.
pub const QUERY_MAX_LENGTH: usize = 4096;

/// A measured value and its bound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    // A metric fails on one side.
    Rule::new("has(self.failureAbove) != has(self.failureBelow)")
        .message("give either failureAbove or failureBelow; for a bound on both sides give two metrics")
        .reason(Reason::FieldValueInvalid),
]))]
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
    /// So many failures one after the other breach the bound.
    #[schemars(range(min = 1, max = 100))]
    #[serde(default = "failure_limit")]
    pub failure_limit: u32,
    /// When no value comes: Hold starts nothing further until one does, Ignore goes on, Fail takes it for a failure.
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

fn interval_seconds() -> u32 {
    30
}

fn failure_limit() -> u32 {
    1
}
