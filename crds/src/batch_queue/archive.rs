//! Where a finished job is written down before it is deleted.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// Longest [`Archive::url`].
pub const URL_MAX_LENGTH: usize = 512;

/// The form of [`Archive::url`]: https, a name or an address, and a port, a path and a query if need be. Everybody
/// with `view` reads queues, so user and password have no place in it.
pub const URL_PATTERN: &str = "^https://([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?|\\[[0-9a-fA-F:.]+\\])\
                               (:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?\
                               ([/?][-A-Za-z0-9._~/?%:@!$&()*+,;=]*)?$";

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
    #[schemars(length(min = 1, max = URL_MAX_LENGTH), regex(pattern = URL_PATTERN))]
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
