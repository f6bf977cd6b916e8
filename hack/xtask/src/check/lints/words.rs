//! Reasons are words with a documented meaning.

use std::collections::BTreeSet;

use springtide_crds::common::REASON_MAX_LENGTH;

use super::{Problem, Subject};

/// Each reason is one CamelCase word within the bound, documented in
/// sentences, once per condition; the default status uses documented ones.
pub(super) fn words(subject: &Subject) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    for row in &subject.kind.reasons {
        let mut complain = |problem: &str| {
            problems.push((format!("{} {}", row.condition, row.reason), problem.to_owned()));
        };
        let camel = row.reason.starts_with(|first: char| first.is_ascii_uppercase())
            && row.reason.chars().all(|letter| letter.is_ascii_alphanumeric());
        if !camel || row.reason.len() > REASON_MAX_LENGTH {
            complain("a reason is one CamelCase word within the bound of reasons");
        }
        if !row.doc.ends_with('.') {
            complain("needs a documentation in sentences");
        }
        if !seen.insert((row.condition, row.reason)) {
            complain("stands twice under one condition");
        }
    }
    let default = &subject.root["properties"]["status"]["default"]["conditions"];
    for condition in default.as_array().into_iter().flatten() {
        let (type_, reason) = (condition["type"].as_str(), condition["reason"].as_str());
        if !seen.iter().any(|(known, word)| Some(*known) == type_ && Some(*word) == reason) {
            problems
                .push(("status".to_owned(), format!("the default has an undocumented reason: {condition}")));
        }
    }
    problems
}
