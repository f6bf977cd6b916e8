//! The rules every CRD keeps, each a function over one kind.

mod bounds;
mod fields;
mod kind;
mod rules;
mod samples;
mod status_contract;
mod wiring;
mod words;

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use springtide_crds::Kind;

use super::Finding;
use super::examples::{self, Examples};
use super::sources::Sources;
use crate::schema;

/// What a lint looks at.
pub(super) struct Subject {
    kind: Kind,
    /// The CRD as JSON.
    crd: Value,
    /// Its root schema.
    root: Value,
    examples: Examples,
    sources: Sources,
}

/// A problem at a path of the CRD's schema.
type Problem = (String, String);

/// One lint: its name and the rule.
type Lint = (&'static str, fn(&Subject) -> Vec<Problem>);

const LINTS: [Lint; 16] = [
    ("scope", kind::scope),
    ("maximum", kind::maximum),
    ("subresource", kind::subresource),
    ("polish", kind::polish),
    ("size", kind::size),
    ("conditions", status_contract::conditions),
    ("described", fields::described),
    ("banned", fields::banned),
    ("names", fields::names),
    ("bounds", bounds::bounds),
    ("status-size", bounds::status_size),
    ("lists", bounds::lists),
    ("rules", rules::rules),
    ("wiring", wiring::wiring),
    ("samples", samples::samples),
    ("words", words::words),
];

impl Subject {
    /// Gathers what the lints of a kind need.
    pub(super) fn read(root: &Path, kind: &Kind) -> Result<Self> {
        let crd = json!(kind.crd);
        Ok(Self {
            root: schema::root(&crd),
            crd,
            kind: kind.clone(),
            examples: examples::read(root, kind)?,
            sources: Sources::read(root, kind.controller)?,
        })
    }

    /// Visits every schema of the spec and the status.
    fn each_field(&self, mut visit: impl FnMut(schema::Node<'_>)) {
        for part in ["spec", "status"] {
            schema::walk(part, &self.root["properties"][part], &mut visit);
        }
    }
}

/// The findings of all lints.
pub(super) fn findings(subject: &Subject) -> Vec<Finding> {
    let kind = &subject.kind.crd.spec.names.kind;
    LINTS
        .iter()
        .flat_map(|(lint, rule)| {
            rule(subject).into_iter().map(move |(path, problem)| Finding {
                lint,
                at: if path.is_empty() { kind.clone() } else { format!("{kind} {path}") },
                problem,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
