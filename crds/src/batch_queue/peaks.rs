//! Peak windows: when batch work shrinks, waits or leaves.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::{Reason, Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::status::COUNT_MAX;
use crate::common::{Tier, Window, time_schema};

/// Most peak windows of one queue.
pub const PEAK_WINDOWS_MAX: usize = 16;

/// Hours in which the machines belong to online services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    Rule::new("has(self.window) != has(self.fromTimeShareGroup)")
        .message("give either window or fromTimeShareGroup")
        .reason(Reason::FieldValueInvalid),
]))]
#[serde(rename_all = "camelCase")]
pub struct PeakWindow {
    /// Name of the peak, for conditions and messages.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// When the peak is. Give this or fromTimeShareGroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// The peak is whenever a TimeShareGroup has one by its windows and its override: it begins the group's own lead before
    /// the window, and leadSeconds before that batch work begins to leave. Give this or window. While there is no such
    /// group, or its schedule cannot be used, the tiers that the window would hold or drain start nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_time_share_group: Option<TimeShareGroupPeak>,
    /// What the peak means for each tier; a tier without an entry is not affected.
    #[schemars(
        length(max = 3),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["tier"])
    )]
    #[serde(default)]
    pub actions: Vec<TierAction>,
    /// So many seconds before the peak Drain and Degrade begin, so that they are done when it starts. A pod gets its
    /// grace within this time, and not beyond the start.
    #[schemars(range(max = 86_400))]
    #[serde(default = "lead_seconds")]
    pub lead_seconds: u32,
    /// Most pods that are ended in a second.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "drain_pods_per_second")]
    pub drain_pods_per_second: u32,
    /// How batch work comes back after the peak.
    #[serde(default)]
    pub resume: Resume,
}

/// The peaks of a TimeShareGroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct TimeShareGroupPeak {
    /// Name of the TimeShareGroup.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The member whose peaks count. Absent = those of all members.
    #[schemars(length(min = 1, max = 63))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// Namespace of the TimeShareGroup. Absent = that of the queue; another one only while a ReferenceGrant there lets
    /// BatchQueues of the queue's namespace name the group.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What a peak means for one tier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    Rule::new("has(self.percent) == (self.action == 'Degrade')")
        .message("percent is for action Degrade, which needs it")
        .reason(Reason::FieldValueInvalid)
        .field_path(".percent"),
]))]
#[serde(rename_all = "camelCase")]
pub struct TierAction {
    /// The tier.
    pub tier: Tier,
    /// None changes nothing; Degrade leaves the tier a part of the capacity; Hold starts nothing while the peak lasts;
    /// Drain starts nothing and ends what runs before the peak starts.
    #[serde(default)]
    pub action: PeakAction,
    /// The part of the queue's capacity that Degrade leaves the tier, in percent.
    #[schemars(range(min = 1, max = 99))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u32>,
}

/// What a peak does to pods, from the weakest to the strongest.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum PeakAction {
    /// Nothing.
    #[default]
    None,
    /// Fewer pods: those beyond a part of the capacity are ended, by the start.
    Degrade,
    /// Nothing starts; running pods finish.
    Hold,
    /// Nothing starts, and running pods are ended, by the start.
    Drain,
}

/// How batch work comes back after a peak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Resume {
    /// The free capacity is filled evenly over so many seconds.
    #[schemars(range(max = 86_400))]
    pub ramp_seconds: u32,
    /// The ramp begins up to so many seconds late, each queue at its own moment, so that several do not start
    /// together.
    #[schemars(range(max = 3600))]
    pub jitter_seconds: u32,
}

impl Default for Resume {
    fn default() -> Self {
        Self { ramp_seconds: 600, jitter_seconds: 60 }
    }
}

/// Overrides every peak window for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct PeakOverride {
    /// ForceOn does at once what the windows would do, each tier its strongest action; ForceOff lets no window have an
    /// effect.
    pub mode: PeakOverrideMode,
    /// The override has no effect from then on.
    #[schemars(schema_with = "time_schema")]
    pub until_time: Time,
    /// Why, for whoever reads the status, such as the number of an incident.
    #[schemars(length(min = 1, max = 63))]
    pub reason: String,
}

impl PeakOverride {
    /// The mode, if the override still has an effect.
    #[must_use]
    pub fn in_force(&self, now: Timestamp) -> Option<PeakOverrideMode> {
        (now < self.until_time.0).then_some(self.mode)
    }
}

/// What an override of the peak windows does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PeakOverrideMode {
    /// As if every window were open.
    ForceOn,
    /// As if there were no windows.
    ForceOff,
}

/// A peak that is near, open, or just over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct ActiveWindow {
    /// Name of the window, or of the load trigger; `overridePeak` for the override.
    #[schemars(length(max = 63))]
    pub name: String,
    /// When the peak starts or has started; absent for the override, also that of a TimeShareGroup, and after a load
    /// trigger.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,
    /// When it ends or has ended; absent while nobody knows, as a load trigger is on.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,
    /// Pods that have to go and are still there.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub pods_left: u32,
}

/// The next peak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct NextWindow {
    /// Name of the window.
    #[schemars(length(max = 63))]
    pub name: String,
    /// When the peak starts.
    #[schemars(schema_with = "time_schema")]
    pub start_time: Time,
    /// When it ends.
    #[schemars(schema_with = "time_schema")]
    pub end_time: Time,
}

fn lead_seconds() -> u32 {
    600
}

pub(super) fn drain_pods_per_second() -> u32 {
    50
}
