//! `cargo xtask check`: generated files are up to date, every CRD keeps
//! the rules that all kinds share, what must hold has a test, and the YAML of
//! the docs fits.

mod acceptance;
mod allowed;
mod compatibility;
mod drift;
mod examples;
mod fit;
mod lints;
mod pages;
mod sources;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The rule's name, as allow-list entries call it.
    pub(crate) lint: &'static str,
    /// Where: a kind with a path, or a file.
    pub(crate) at: String,
    /// What is wrong, and what to do.
    pub(crate) problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.lint, self.at, self.problem)
    }
}

/// Prints every finding; an error if there is one.
pub(crate) fn run() -> Result<()> {
    let findings = findings(&crate::repository_root())?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        broken => bail!("{broken} findings"),
    }
}

/// Everything that is wrong in the repository at `root`.
fn findings(root: &Path) -> Result<Vec<Finding>> {
    let kinds = springtide_crds::all();
    let mut findings = drift::findings(root, &kinds)?;
    let mut of_kinds = Vec::new();
    for kind in &kinds {
        of_kinds.extend(lints::findings(&lints::Subject::read(root, kind)?));
    }
    findings.extend(allowed::apply(&allowed::read()?, of_kinds));
    findings.extend(compatibility::findings(root, &kinds)?);
    findings.extend(acceptance::findings(root, &kinds)?);
    findings.extend(pages::findings(root, &kinds)?);
    findings.extend(crate::monitoring::findings(root, &kinds)?);
    Ok(findings)
}

#[cfg(test)]
mod tests {
    /// `make test` runs the whole check through this.
    #[test]
    fn the_repository_passes() {
        let findings = super::findings(&crate::repository_root()).unwrap();
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(findings.is_empty(), "{}", text.join("\n"));
    }
}
