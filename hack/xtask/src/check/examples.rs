//! The stored examples of what a kind takes and refuses. A test against a real API server applies
//! them; the lint demands that they are there, and a test here evaluates the rules on them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;
use springtide_crds::Kind;

/// Examples of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Examples {
    /// A valid object; all others are merge patches on it.
    base: Value,
    /// One entry per rule, and more for what the schema itself refuses.
    pub(super) rules: Vec<RuleExamples>,
}

/// Examples of one rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleExamples {
    /// The rule's message, which names it; of the schema, how the API server's words begin.
    pub(super) message: String,
    /// For a transition rule: the object before the update.
    pub(super) old: Option<Value>,
    /// Objects the rule accepts.
    pub(super) accept: Vec<Value>,
    /// Objects the rule refuses.
    pub(super) reject: Vec<Value>,
}

impl Examples {
    /// The object that a patch stands for.
    pub(super) fn with(&self, patch: &Value) -> Value {
        let mut object = self.base.clone();
        json_patch::merge(&mut object, patch);
        object
    }
}

/// Reads the examples of a kind.
pub(super) fn read(root: &Path, kind: &Kind) -> Result<Examples> {
    let path = root.join("crds/tests/fixtures/cel").join(format!("{}.yaml", kind.crd.spec.names.plural));
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_yaml::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

#[cfg(test)]
mod tests;
