//! Generated files against what would be generated now.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use similar::TextDiff;
use springtide_crds::Kind;

use super::Finding;
use crate::generate;

/// Lines of a diff that are shown; more tell nothing new.
const SHOWN_LINES: usize = 40;

/// One finding per file that is missing, edited or left over.
pub(super) fn findings(root: &Path, kinds: &[Kind]) -> Result<Vec<Finding>> {
    let files = generate::files(kinds)?;
    let mut findings = compare(root, &files);
    for path in generate::stale(root, &files)? {
        findings.push(finding(&path, "nothing generates it any more"));
    }
    Ok(findings)
}

fn compare(root: &Path, files: &BTreeMap<PathBuf, String>) -> Vec<Finding> {
    files
        .iter()
        .filter_map(|(path, fresh)| match fs::read_to_string(root.join(path)) {
            Ok(old) if old == *fresh => None,
            Ok(old) => Some(finding(path, &format!("differs from the Rust values\n{}", diff(&old, fresh)))),
            Err(error) => Some(finding(path, &error.to_string())),
        })
        .collect()
}

fn finding(path: &Path, problem: &str) -> Finding {
    let problem = format!("{problem}; run `cargo xtask gen` and commit the result");
    Finding { lint: "generated", at: path.display().to_string(), problem }
}

fn diff(old: &str, fresh: &str) -> String {
    let text = TextDiff::from_lines(old, fresh).unified_diff().header("committed", "generated").to_string();
    let mut lines: Vec<&str> = text.lines().take(SHOWN_LINES).collect();
    if text.lines().count() > SHOWN_LINES {
        lines.push("(more lines differ)");
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edited_and_a_missing_file_are_found_with_the_remedy() {
        let fresh = generate::files(&springtide_crds::all()).unwrap();
        let mut edited = fresh.clone();
        let crd = PathBuf::from("config/crd/springtide.dev_batchjobs.yaml");
        let text = edited[&crd].replace("maximum: 1000", "maximum: 1001");
        edited.insert(crd.clone(), text);
        edited.insert(PathBuf::from("config/crd/none.yaml"), String::new());

        let found = compare(&crate::repository_root(), &edited);
        assert_eq!(found.len(), 2, "{found:?}");
        let edited = found.iter().find(|finding| finding.at == crd.display().to_string()).unwrap();
        assert!(edited.problem.contains("1001") && edited.problem.contains("cargo xtask gen"), "{edited}");
    }
}
