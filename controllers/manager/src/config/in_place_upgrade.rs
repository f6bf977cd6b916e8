//! What the controller of InPlaceUpgrade is bound by beside its objects.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the controller of InPlaceUpgrade.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct InPlaceUpgradeSettings {
    /// Image of the pods that pull images to nodes before a container there is stopped: the manager's own, under a name
    /// that nodes can pull. When empty nothing is pulled ahead, whatever spec.prePull of an object says.
    #[schemars(length(min = 0, max = 512))]
    pub puller_image: String,
}
