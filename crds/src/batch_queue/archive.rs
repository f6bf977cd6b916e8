//! Where a finished job is written down before it is deleted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;
use crate::url::HTTPS_URL_PATTERN;

/// Longest [`Archive::url`].
pub const URL_MAX_LENGTH: usize = 512;

/// Where a finished job is written down before it is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::url_iff_http()]))]
#[serde(rename_all = "camelCase", default)]
pub struct Archive {
    /// None writes nothing. Stdout has the manager write one line of JSON for each job to its standard output. HTTP
    /// has it post the line to url, and delete the job only after an answer of 2xx.
    #[serde(rename = "type")]
    pub type_: ArchiveType,
    /// Where lines are posted to. An address of the cluster or of a private network needs the permission of the
    /// manager's configuration; redirects are not followed.
    #[schemars(length(min = 1, max = URL_MAX_LENGTH), regex(pattern = HTTPS_URL_PATTERN))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// What becomes of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ArchiveType {
    /// There are none.
    #[default]
    None,
    /// The manager writes them to its standard output.
    Stdout,
    /// The manager posts them to a URL.
    #[serde(rename = "HTTP")]
    Http,
}
