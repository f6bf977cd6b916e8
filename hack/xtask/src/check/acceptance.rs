//! What must hold has a test that says so: each row of the table of traps names tests that exist, and each reason of
//! each condition is named by some test.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use regex::Regex;
use springtide_crds::Kind;
use springtide_crds::reason::ReasonDoc;

use super::Finding;

/// The table, below the root.
const TABLE: &str = "docs/traps.md";
/// Where tests are, below the root.
const FOLDERS: [&str; 3] = ["controllers", "crds", "e2e/tests"];

/// Rows without a test, tests that do not exist, and reasons that no test names.
pub(super) fn findings(root: &Path, kinds: &[Kind]) -> Result<Vec<Finding>> {
    let text = fs::read_to_string(root.join(TABLE)).with_context(|| format!("read {TABLE}"))?;
    let mut findings = rows(&text, |file| fs::read_to_string(root.join(file)).ok())?;
    let tests = tests(root)?;
    for kind in kinds {
        let problems = untested(&kind.reasons, &tests)?.into_iter().map(|problem| Finding {
            lint: "reason-tested",
            at: kind.crd.spec.names.kind.clone(),
            problem,
        });
        findings.extend(problems);
    }
    Ok(findings)
}

/// The findings in the tables of a page, whose last column names tests; `read` gives the text of a file.
fn rows(page: &str, read: impl Fn(&str) -> Option<String>) -> Result<Vec<Finding>> {
    // A test as the page names it: [`function`](../path/of/the/file.rs).
    let link = Regex::new(r"\[`(\w+)`\]\(\.\./([^)]+)\)")?;
    let lines: Vec<&str> = page.lines().collect();
    let is_rule = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("|-"));
    let mut findings = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let is_header = is_rule(lines.get(number + 1));
        if !line.starts_with('|') || is_header || is_rule(Some(line)) {
            continue;
        }
        let mut report = |problem: String| {
            findings.push(Finding {
                lint: "trap-tested",
                at: format!("{TABLE} line {}", number + 1),
                problem,
            });
        };
        let last = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        if !link.is_match(last) {
            report("names no test; name one that would fail, as [`function`](../file)".to_owned());
        }
        for test in link.captures_iter(last) {
            let (name, file) = (&test[1], &test[2]);
            match read(file) {
                Some(text) if text.contains(&format!("fn {name}(")) => {}
                Some(_) => report(format!("there is no {name} in {file}; name the test that holds this now")),
                None => report(format!("there is no file {file}; name the test that holds this now")),
            }
        }
    }
    Ok(findings)
}

/// The texts of all tests: programs and modules of tests, and their fixtures.
fn tests(root: &Path) -> Result<Vec<String>> {
    let module = Regex::new(r"#\[cfg\(test\)\]\nmod \w+ \{")?;
    let mut texts = Vec::new();
    for folder in FOLDERS {
        for entry in walkdir::WalkDir::new(root.join(folder)).sort_by_file_name() {
            let entry = entry.with_context(|| format!("walk {folder}"))?;
            let path = entry.path();
            let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
            if !["rs", "yaml"].contains(&extension) {
                continue;
            }
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let relative = path.strip_prefix(root).unwrap_or(path);
            let is_test = |part: &str| part == "tests" || part == "tests.rs" || part.ends_with("_test.rs");
            if relative.iter().filter_map(|part| part.to_str()).any(is_test) {
                texts.push(text);
            } else if let Some(found) = module.find(&text) {
                texts.push(text[found.start()..].to_owned());
            }
        }
    }
    Ok(texts)
}

/// The reasons that no test names together with their condition: as a variant of its type, or in one line. Some
/// conditions repeat reasons of others, in the same words; they are tested with those.
fn untested(reasons: &[ReasonDoc], tests: &[String]) -> Result<Vec<String>> {
    let named = |doc: &ReasonDoc| -> Result<bool> {
        let (condition, reason) = (doc.condition, doc.reason);
        let pattern = format!(
            r"\b{condition}Reason::{reason}\b|(?m:^.*\b{condition}\b.*\b{reason}\b|^.*\b{reason}\b.*\b{condition}\b)"
        );
        let pattern = Regex::new(&pattern)?;
        Ok(tests.iter().any(|text| pattern.is_match(text)))
    };
    let mut problems = Vec::new();
    for doc in reasons {
        let twins = reasons.iter().filter(|other| (other.reason, other.doc) == (doc.reason, doc.doc));
        let mut is_named = false;
        for twin in twins {
            is_named |= named(twin)?;
        }
        if !is_named {
            let (condition, reason) = (doc.condition, doc.reason);
            problems.push(format!(
                "no test names reason {reason} of condition {condition}; write one that leads to it"
            ));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_crds::common::ConditionStatus;

    #[test]
    fn a_row_needs_a_test_that_exists() {
        let read =
            |file: &str| (file == "a/b.rs").then(|| "    async fn it_holds() -> Result<()> {".to_owned());
        let page = "# Traps\n\n| from | what | test |\n|---|---|---|\n\
                    | a | b | [`it_holds`](../a/b.rs) |\n\
                    | a | b | [`it_holds`](../a/b.rs), [`it_does`](../a/b.rs), [`it_holds`](../a/c.rs) |\n\
                    | a, [`it_holds`](../a/b.rs) | b | none |\n";
        let found: Vec<_> =
            rows(page, read).unwrap().into_iter().map(|found| (found.at, found.problem)).collect();
        let lines: Vec<_> = found.iter().map(|(at, _)| at.rsplit(' ').next().unwrap()).collect();
        assert_eq!(lines, ["6", "6", "7"], "{found:?}");
        assert!(
            found[0].1.contains("no it_does in a/b.rs") && found[1].1.contains("no file a/c.rs"),
            "{found:?}"
        );
    }

    fn doc(condition: &'static str, reason: &'static str, text: &'static str) -> ReasonDoc {
        ReasonDoc { condition, status: ConditionStatus::True, reason, doc: text }
    }

    #[test]
    fn a_reason_is_named_as_a_variant_or_beside_its_condition() {
        let reasons = [
            doc("Ready", "Held", "held"),
            doc("Ready", "Open", "open"),
            doc("Stalled", "Broken", "broken"),
            doc("Ready", "Broken", "broken"),
            doc("Ready", "Gone", "gone"),
            doc("Stalled", "Gone", "another word"),
        ];
        let tests = [
            "ReadyReason::Held".to_owned(),
            "Ready: True\nOpen\nStalled: True Broken\n(\"Gone\", \"Stalled\")".to_owned(),
        ];
        let problems = untested(&reasons, &tests).unwrap();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].contains("Open of condition Ready")
                && problems[1].contains("Gone of condition Ready")
        );
    }
}
