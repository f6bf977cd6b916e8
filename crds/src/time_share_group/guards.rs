//! What is proved before a switch, and when one has gone wrong.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::common::{METRICS_MAX, MetricGate};

/// What is proved before a switch, and when one has gone wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::donor_max_load_is_an_upper_bound()]))]
#[serde(rename_all = "camelCase", default)]
pub struct Guards {
    /// Asks the API server for each resize of the next switch without doing it, and counts what fits on each node.
    pub preflight: Preflight,
    /// The switch has gone wrong when more units than this are stuck or were taken back, in percent of those that its steps
    /// have reached; units that the API server refuses count in percent of all. With 0 the first one is too many.
    #[schemars(range(max = 100))]
    pub failure_threshold_percent: u32,
    /// Pods do not shrink while the measured value is above failureAbove: those that lose the peak are still busy. Absent =
    /// their load is not looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub donor_max_load: Option<MetricGate>,
    /// Measured values that must stay within a bound while the switch goes on.
    #[schemars(
        length(max = METRICS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<MetricGate>,
    /// What follows when the switch has gone wrong, by failureThresholdPercent or by metrics: Rollback gives the peak back;
    /// Pause starts nothing further and leaves everything for a person.
    pub on_breach: OnBreach,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            preflight: Preflight::default(),
            failure_threshold_percent: 2,
            donor_max_load: None,
            metrics: Vec::new(),
            on_breach: OnBreach::default(),
        }
    }
}

/// The proof before a switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Preflight {
    /// It begins so many seconds before the switch; before an override and after each change of the group at once.
    #[schemars(range(max = 604_800))]
    pub lead_seconds: u32,
    /// It is passed when so many of a hundred units are; the units that are not are named in the status.
    #[schemars(range(min = 1, max = 100))]
    pub require_percent: u32,
    /// What follows when it is not passed: Report switches all the same, and leaves those units as they are; Hold does not
    /// switch.
    pub on_failure: OnPreflightFailure,
}

impl Default for Preflight {
    fn default() -> Self {
        Self { lead_seconds: 7200, require_percent: 99, on_failure: OnPreflightFailure::default() }
    }
}

/// What follows when the proof fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnPreflightFailure {
    /// It is said.
    #[default]
    Report,
    /// There is no switch.
    Hold,
}

/// What follows when a switch has gone wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnBreach {
    /// The peak goes back.
    #[default]
    Rollback,
    /// It stays as it is.
    Pause,
}

/// What follows when a HorizontalPodAutoscaler scales a member by its utilization.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Autoscalers {
    /// It is said.
    #[default]
    Report,
    /// The group is not served.
    Refuse,
}
