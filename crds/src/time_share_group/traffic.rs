//! How the pods of a member get traffic, and lose it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::common::{Drain, IntOrPercent};

/// Largest weight of a backend, as Gateway API has it.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// How pods get traffic at their peak size, and lose it before they shrink.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    rules::trickle_iff_valley_trickle(), rules::trickle_needs_pods(), rules::http_route_iff_mode_http_route(),
]))]
#[serde(rename_all = "camelCase", default)]
pub struct Traffic {
    /// ServiceLabel writes the label springtide.dev/traffic-serving, which the Service selects; ReadinessGate writes the
    /// gate springtide.dev/traffic; HTTPRoute writes the weight of a backend; None moves no traffic. With a label a pod
    /// without traffic is ready all the same, and new pods need nobody to become so.
    pub mode: TrafficMode,
    /// What a pod gets at valley size, where its mode is ServiceLabel or ReadinessGate: Off nothing; Trickle leaves a few
    /// pods their traffic; Keep leaves it to all.
    pub valley: ValleyTraffic,
    /// How many pods keep their traffic at valley size: a whole number, or a part of the workload's pods, rounded up; they
    /// are spread over nodes. Needed with valley Trickle, and absent otherwise.
    #[schemars(with = "IntOrPercent")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trickle: Option<IntOrPercent>,
    /// The backend whose weight is written. Needed with mode HTTPRoute, and absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// When a pod that loses its traffic counts as drained; with mode HTTPRoute only minSeconds counts.
    pub drain: Drain,
}

/// What gives pods traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TrafficMode {
    /// Nothing.
    #[default]
    None,
    /// A label that Services select.
    ServiceLabel,
    /// A readiness gate.
    ReadinessGate,
    /// The weight of a backend.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
}

/// What a pod gets at valley size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ValleyTraffic {
    /// No traffic.
    #[default]
    Off,
    /// A few pods keep theirs.
    Trickle,
    /// All keep theirs.
    Keep,
}

/// A backend of an HTTPRoute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::peak_weight_at_least_valley_weight()]))]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// Name of the HTTPRoute, which is in the workload's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Name of the Service that is the backend, in each rule that has it.
    #[schemars(length(min = 1, max = 253))]
    pub backend: String,
    /// Its weight while the member has the peak.
    #[schemars(range(max = MAX_WEIGHT))]
    #[serde(default = "peak_weight")]
    pub peak_weight: u32,
    /// Its weight at any other time.
    #[schemars(range(max = MAX_WEIGHT))]
    #[serde(default)]
    pub valley_weight: u32,
}

fn peak_weight() -> u32 {
    100
}
