//! Amounts of what a live pod can get more or less of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::Quantity;

/// Amounts of what can be changed in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("minProperties" = 1))]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceAmounts {
    /// Cores, such as 500m.
    // `with`: an optional value of no one type would become an `anyOf` with null.
    #[schemars(with = "Quantity")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes, such as 512Mi.
    #[schemars(with = "Quantity")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}
