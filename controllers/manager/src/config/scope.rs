//! Where the controllers act: in the whole cluster, or in some namespaces.

use super::Violation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use springtide_plumbing::watch::Scope;
use std::collections::BTreeSet;

/// Where the controllers act. The Lease, and the ConfigMaps of brake and breaker, are in the manager's own
/// namespace whatever this says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ScopeConfig {
    /// Where the controllers act: the whole cluster, or the listed namespaces and nothing else. Then no object of the cluster is read
    /// either, nodes above all, and Roles in these namespaces are enough.
    #[serde(rename = "type")]
    pub type_: ScopeType,
    /// The namespaces that the controllers act in, where type is Namespaces: each has a watch of its own for each kind. No two managers may
    /// share one.
    #[schemars(length(min = 0, max = 64), inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")), extend("uniqueItems" = true))]
    pub namespaces: Vec<String>,
}

/// How far the controllers reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ScopeType {
    /// All namespaces, and objects of the cluster.
    #[default]
    Cluster,
    /// Some namespaces.
    Namespaces,
}

impl ScopeConfig {
    /// What the kinds of the controllers are watched in.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self.type_ {
            ScopeType::Cluster => Scope::All,
            ScopeType::Namespaces => Scope::of(self.namespaces.iter().map(String::as_str)),
        }
    }

    /// What the schema cannot say.
    pub(super) fn violations(&self) -> Vec<Violation> {
        let Self { type_, namespaces } = self;
        let mut violations = Vec::new();
        match (type_, namespaces.is_empty()) {
            (ScopeType::Namespaces, true) => {
                let problem = "must name a namespace at least, as scope.type is Namespaces";
                violations.push(Violation::new("scope.namespaces", problem));
            }
            (ScopeType::Cluster, false) => {
                let problem = "must be empty, as scope.type is Cluster; Namespaces would hold to them";
                violations.push(Violation::new("scope.namespaces", problem));
            }
            (ScopeType::Namespaces, false) | (ScopeType::Cluster, true) => {}
        }
        let mut seen = BTreeSet::new();
        for (number, namespace) in namespaces.iter().enumerate() {
            let path = format!("scope.namespaces[{number}]");
            if !namespace.is_empty() && !is_label(namespace) {
                let problem = format!(
                    "must be the name of a namespace (lower-case letters, digits and `-`, none of these at an \
                     end), is `{namespace}`"
                );
                violations.push(Violation::new(&path, problem));
            }
            if !seen.insert(namespace) {
                violations.push(Violation::new(&path, format!("names `{namespace}` a second time")));
            }
        }
        violations
    }
}

/// A label as RFC 1123 has it; its length is the schema's.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}
