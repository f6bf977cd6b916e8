//! Who has the peak, and when.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::MEMBER_NAME_MAX_LENGTH;
use super::members::NAME_PATTERN;
use crate::common::{Window, time_schema};
use crate::window::DATE_PATTERN;

/// Most windows of a group.
pub const WINDOWS_MAX: usize = 32;
/// Most dates on which no window starts.
pub const SKIP_DATES_MAX: usize = 64;
/// Longest [`Override::reason`].
pub const OVERRIDE_REASON_MAX_LENGTH: usize = 256;

/// Who has the peak, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Schedule {
    /// The member that has the peak outside of windows. Absent = nobody has it, and what the nodes have is free for others.
    #[schemars(length(min = 1, max = MEMBER_NAME_MAX_LENGTH), regex(pattern = NAME_PATTERN))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_member: Option<String>,
    /// Local dates (YYYY-MM-DD), such as holidays, on which no window starts.
    #[schemars(
        length(max = SKIP_DATES_MAX),
        inner(length(max = 10), regex(pattern = DATE_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skip_dates: Vec<String>,
    /// The peaks. Windows of different members must not overlap, their leads included; while some do, whoever has the peak
    /// keeps it.
    #[schemars(
        length(max = WINDOWS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<MemberWindow>,
}

/// A peak of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct MemberWindow {
    /// Name of the peak, for conditions and messages.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// The member whose peak it is.
    #[schemars(length(min = 1, max = MEMBER_NAME_MAX_LENGTH), regex(pattern = NAME_PATTERN))]
    pub member: String,
    /// The switch begins so many seconds before the peak, so that it is done when the peak starts.
    #[schemars(range(max = 86_400))]
    #[serde(default = "lead_seconds")]
    pub lead_seconds: u32,
    /// When the peak is.
    pub window: Window,
}

/// Gives the peak to one member for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// The member that has the peak. Absent = nobody has it.
    #[schemars(length(min = 1, max = MEMBER_NAME_MAX_LENGTH), regex(pattern = NAME_PATTERN))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// The override has no effect from then on, and the schedule decides again.
    #[schemars(schema_with = "time_schema")]
    pub until_time: Time,
    /// Why, for whoever reads the object, such as the number of an incident.
    #[schemars(length(min = 1, max = OVERRIDE_REASON_MAX_LENGTH))]
    pub reason: String,
}

impl Override {
    /// Whether it still has an effect.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        now < self.until_time.0
    }
}

fn lead_seconds() -> u32 {
    600
}
