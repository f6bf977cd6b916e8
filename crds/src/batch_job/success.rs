//! When a job has succeeded although not all its tasks have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MAX_COMPLETIONS, rules};

/// When the job has succeeded although not all its tasks have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct SuccessPolicy {
    /// When the rule is met the job is Complete with reason SuccessPolicyMet: nothing starts any more, and the
    /// remaining pods are ended.
    #[schemars(length(min = 1, max = 1), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<SuccessRule>,
}

/// What must have succeeded; at least one of the fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::some_success()]))]
#[serde(rename_all = "camelCase")]
pub struct SuccessRule {
    /// The indexes that matter, as numbers and ranges such as 1,3-5,7: all of them must succeed, or so many of them as
    /// succeededCount says. Needs completionMode Indexed. Absent = any task.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = "^[0-9]{1,6}(-[0-9]{1,6})?(,[0-9]{1,6}(-[0-9]{1,6})?)*$")
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_indexes: Option<String>,
    /// So many must succeed. Absent = all of succeededIndexes.
    #[schemars(range(min = 1, max = MAX_COMPLETIONS))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_count: Option<u32>,
}
