//! The list of findings that are right as they are.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Finding;

/// One accepted finding.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Allowed {
    lint: String,
    at: String,
    reason: String,
}

/// The project's list.
pub(super) fn read() -> Result<Vec<Allowed>> {
    serde_yaml::from_str(include_str!("allowed.yaml")).context("hack/xtask/src/check/allowed.yaml")
}

/// Takes the allowed findings out and adds one for each entry that is stale or
/// has no reason.
pub(super) fn apply(allowed: &[Allowed], findings: Vec<Finding>) -> Vec<Finding> {
    let matches = |entry: &Allowed, finding: &Finding| entry.lint == finding.lint && entry.at == finding.at;
    let unused = allowed
        .iter()
        .filter(|entry| {
            entry.reason.trim().is_empty() || !findings.iter().any(|finding| matches(entry, finding))
        })
        .map(|entry| Finding {
            lint: "allowed",
            at: format!("{} {}", entry.lint, entry.at),
            problem: "the entry has no reason or matches nothing any more; take it out of allowed.yaml"
                .to_owned(),
        })
        .collect::<Vec<_>>();
    let kept = findings.into_iter().filter(|finding| !allowed.iter().any(|entry| matches(entry, finding)));
    kept.chain(unused).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: &str, reason: &str) -> Allowed {
        Allowed { lint: "names".to_owned(), at: at.to_owned(), reason: reason.to_owned() }
    }

    fn finding(at: &str) -> Finding {
        Finding { lint: "names", at: at.to_owned(), problem: "odd".to_owned() }
    }

    #[test]
    fn an_entry_takes_out_its_finding_and_no_other() {
        let left = apply(&[entry("a", "as in Kubernetes")], vec![finding("a"), finding("b")]);
        assert_eq!(left, [finding("b")]);
    }

    #[test]
    fn a_stale_entry_and_one_without_reason_fail() {
        let left = apply(&[entry("a", "gone"), entry("b", " ")], vec![finding("b")]);
        let at: Vec<&str> = left.iter().map(|finding| finding.at.as_str()).collect();
        assert_eq!(at, ["names a", "names b"]);
    }
}
