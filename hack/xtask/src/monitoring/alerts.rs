//! The alerts: their rules, runbooks and cases.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::expressions::Known;
use crate::check::Finding;

/// The rule file, from the repository's root.
const RULES: &str = "charts/springtide/files/alerts/springtide.yaml";
/// The cases for `promtool test rules`.
const CASES: &str = "hack/alerts/cases.yaml";
/// Where the runbooks are.
pub(super) const RUNBOOKS: &str = "docs/operate/runbooks";
/// Where users read them.
const RUNBOOK_URL: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/operate/runbooks/");
/// The sections of a runbook.
const SECTIONS: [&str; 5] =
    ["## Meaning", "## Impact", "## What to look at", "## What to do", "## How to silence"];

/// One alerting rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    pub(super) alert: String,
    pub(super) expr: String,
    #[serde(default, rename = "for")]
    pub(super) hold: Option<String>,
    pub(super) labels: Labels,
    pub(super) annotations: Annotations,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Labels {
    pub(super) severity: Severity,
    /// Tells the rules of one alert apart.
    #[serde(default)]
    pub(super) cause: Option<String>,
}

/// How soon somebody must come.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// At once.
    Critical,
    /// In working hours.
    Warning,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Annotations {
    pub(super) summary: String,
    pub(super) description: String,
    pub(super) runbook_url: String,
}

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct CaseFile {
    tests: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    alert_rule_test: Vec<Expectation>,
}

#[derive(Deserialize)]
struct Expectation {
    alertname: String,
    exp_alerts: Vec<ExpectedAlert>,
}

#[derive(Deserialize)]
struct ExpectedAlert {
    exp_labels: serde_json::Value,
}

/// All rules, in their order.
pub(super) fn rules(root: &Path) -> Result<Vec<Rule>> {
    let file: RuleFile = read(root, RULES)?;
    Ok(file.groups.into_iter().flat_map(|group| group.rules).collect())
}

fn read<T: serde::de::DeserializeOwned>(root: &Path, path: &str) -> Result<T> {
    let text = fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))?;
    serde_yaml::from_str(&text).with_context(|| format!("read {path}"))
}

/// Everything that is wrong with the alerts of the repository at `root`.
pub(super) fn findings(root: &Path, rules: &[Rule], known: &Known<'_>) -> Result<Vec<Finding>> {
    let mut findings = expressions(rules, known);
    let cases: CaseFile = read(root, CASES)?;
    findings.extend(untested(rules, &cases.tests));
    let names: BTreeSet<&str> = rules.iter().map(|rule| rule.alert.as_str()).collect();
    for name in &names {
        let path = format!("{RUNBOOKS}/{name}.md");
        let text = fs::read_to_string(root.join(&path)).unwrap_or_default();
        findings.extend(runbook(name, &text).into_iter().map(|problem| finding(&path, problem)));
    }
    for entry in fs::read_dir(root.join(RUNBOOKS)).with_context(|| format!("list {RUNBOOKS}"))? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        if !names.contains(file.trim_end_matches(".md")) {
            findings.push(finding(&format!("{RUNBOOKS}/{file}"), "no alert is called so".to_owned()));
        }
    }
    Ok(findings)
}

fn finding(at: &str, problem: String) -> Finding {
    Finding { lint: "alerts", at: at.to_owned(), problem }
}

fn expressions(rules: &[Rule], known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in rules {
        let mut complain = |problem| findings.push(finding(&rule.alert, problem));
        known.problems(&rule.expr).into_iter().for_each(&mut complain);
        if rule.annotations.runbook_url != format!("{RUNBOOK_URL}{}.md", rule.alert) {
            complain(format!("runbook_url must be {RUNBOOK_URL}{}.md", rule.alert));
        }
        for (what, text) in
            [("summary", &rule.annotations.summary), ("description", &rule.annotations.description)]
        {
            if !text.ends_with('.') {
                complain(format!("the {what} must be a sentence"));
            }
        }
    }
    findings
}

/// What a runbook lacks.
fn runbook(name: &str, text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["is missing".to_owned()];
    }
    let mut problems = Vec::new();
    if text.lines().next() != Some(&format!("# {name}")) {
        problems.push(format!("must begin with `# {name}`"));
    }
    let headings: Vec<&str> = text.lines().filter(|line| line.starts_with("## ")).collect();
    if headings != SECTIONS {
        problems.push(format!("must have these sections, in this order: {SECTIONS:?}"));
    }
    problems
}

/// Rules without a case in which they fire, alerts without one in which they keep quiet, and cases of
/// alerts that are not there.
fn untested(rules: &[Rule], cases: &[Case]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let expectations: Vec<&Expectation> = cases.iter().flat_map(|case| &case.alert_rule_test).collect();
    for rule in rules {
        let of_it = || expectations.iter().filter(|expectation| expectation.alertname == rule.alert);
        let fires = of_it()
            .flat_map(|expectation| &expectation.exp_alerts)
            .any(|alert| rule.labels.cause.as_deref() == alert.exp_labels["cause"].as_str());
        let quiet = of_it().any(|expectation| expectation.exp_alerts.is_empty());
        for (has, which) in [(fires, "fires"), (quiet, "keeps quiet")] {
            if !has {
                findings.push(finding(&rule.alert, format!("{CASES} has no case in which it {which}")));
            }
        }
    }
    for expectation in &expectations {
        if !rules.iter().any(|rule| rule.alert == expectation.alertname) {
            findings.push(finding(CASES, format!("no alert is called {}", expectation.alertname)));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn promtool_passes_every_case() {
        let root = crate::repository_root();
        let promtool = crate::tools::provide(&["promtool".to_owned()]).unwrap().join("promtool");
        for arguments in [["check", "rules", RULES], ["test", "rules", CASES]] {
            let output = Command::new(&promtool).args(arguments).current_dir(&root).output().unwrap();
            let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success(), "promtool {}:\n{text}", arguments.join(" "));
            assert!(text.contains("SUCCESS"), "{text}");
        }
    }

    #[test]
    fn an_alert_without_runbook_or_cases_is_found() {
        let rules = rules(&crate::repository_root()).unwrap();
        assert!(untested(&rules, &[]).len() >= 2 * rules.len());
        let strange = Case {
            alert_rule_test: vec![Expectation { alertname: "Other".to_owned(), exp_alerts: Vec::new() }],
        };
        assert!(untested(&rules, &[strange]).iter().any(|found| found.problem.contains("Other")));
        assert_eq!(runbook("A", ""), ["is missing"]);
        assert_eq!(runbook("A", "# B\n\n## Meaning\n").len(), 2);
        let whole = format!("# A\n\n{}\n", SECTIONS.join("\n\ntext\n\n"));
        assert_eq!(runbook("A", &whole), Vec::<String>::new());
    }
}
