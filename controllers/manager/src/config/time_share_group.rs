//! What the controller of TimeShareGroup is bound by beside its objects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use springtide_time_share_group::Settings;

/// Settings of the controller of TimeShareGroup.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct TimeShareGroupSettings {
    /// How many TimeShareGroups of one namespace are served; the newest beyond them are Stalled until older ones are gone.
    /// Speed and memory are measured up to the defaults of the maxima.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_groups_per_namespace: u32,
    /// The same of all namespaces together.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_groups_per_cluster: u32,
}

impl Default for TimeShareGroupSettings {
    fn default() -> Self {
        let Settings { max_per_namespace, max_per_cluster } = Settings::default();
        Self { max_groups_per_namespace: max_per_namespace, max_groups_per_cluster: max_per_cluster }
    }
}

impl From<&TimeShareGroupSettings> for Settings {
    fn from(settings: &TimeShareGroupSettings) -> Self {
        let TimeShareGroupSettings { max_groups_per_namespace, max_groups_per_cluster } = settings;
        Self { max_per_namespace: *max_groups_per_namespace, max_per_cluster: *max_groups_per_cluster }
    }
}
