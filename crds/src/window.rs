//! A recurring window of time in a time zone.

use kube::core::{Reason, Rule};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The form of a local date.
pub(crate) const DATE_PATTERN: &str = "^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$";

/// A recurring window: `start` and `end`, or `cron` and `durationSeconds`.
///
/// A missing local time (clocks go forward) moves to the next valid instant;
/// of an ambiguous one, the start takes the first and the end the second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    Rule::new(
        "has(self.start) == has(self.end) && has(self.cron) == has(self.durationSeconds) && has(self.start) != has(self.cron)"
    )
    .message("give either start and end, or cron and durationSeconds")
    .reason(Reason::FieldValueInvalid),
]))]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// Local time of day the window opens, HH:MM.
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Local time of day the window closes, HH:MM; at or before `start` means the next day.
    #[schemars(length(max = 5), regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// When the window opens, as a cron expression of five fields in local time.
    #[schemars(length(max = 128), regex(pattern = "^[^ ]+( +[^ ]+){4}$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// How long a window opened by `cron` lasts, in seconds.
    #[schemars(range(min = 60, max = 604_800))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u32>,
    /// IANA time zone, such as `Asia/Shanghai`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9+_-]+(/[A-Za-z0-9+_-]+)*$"))]
    pub time_zone: String,
    /// Local dates (YYYY-MM-DD) on which the window starts; absent = every day.
    #[schemars(
        length(min = 1, max = 64),
        inner(length(max = 10), regex(pattern = DATE_PATTERN)),
        extend("x-kubernetes-list-type" = "set")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dates: Option<Vec<String>>,
}
