//! Lints on single fields: description, type, name.

use serde_json::Value;

use super::{Problem, Subject};
use crate::schema::Node;

/// Where an open schema is right: pod templates below their checked fields.
const TEMPLATES: [&str; 1] = ["spec.template"];

/// Words of a name that make it a duration.
const DURATION_WORDS: [&str; 9] =
    ["Deadline", "Timeout", "Duration", "Interval", "Grace", "Age", "Ttl", "Delay", "Period"];

/// Every field has a description.
pub(super) fn described(subject: &Subject) -> Vec<Problem> {
    let mut problems = Vec::new();
    subject.each_field(|node| {
        let text = node.schema["description"].as_str().unwrap_or_default();
        if node.is_field() && !text.trim_end().ends_with('.') {
            problems.push((node.path.to_owned(), "needs a description in sentences".to_owned()));
        }
    });
    problems
}

/// Types and names that age badly.
pub(super) fn banned(subject: &Subject) -> Vec<Problem> {
    let mut problems = Vec::new();
    subject.each_field(|node| {
        let mut ban = |problem: &str| problems.push((node.path.to_owned(), problem.to_owned()));
        if node.type_().is_empty() && node.schema["x-kubernetes-int-or-string"] != true {
            ban("has no type");
        }
        if node.type_() == "number" {
            ban("floats are not exact; use an integer or a quantity");
        }
        if node.is_open() && !node.in_open && !TEMPLATES.contains(&node.path) {
            ban("an open schema keeps whatever is typed; declare the fields");
        }
        if node.in_open || !node.is_field() {
            return;
        }
        if node.type_() == "boolean" {
            ban("a boolean never gets a third value; use an enum");
        }
        if ["phase", "state"].contains(&node.name) {
            ban("use conditions");
        }
        if node.name == "namespace" {
            ban("references stay in the namespace");
        }
        // A choice may be named after what it follows, as `onTimeout` is.
        if node.type_() == "string" && node.schema["enum"].is_null() && is_duration(node.name) {
            ban("a duration is an integer whose name ends in Seconds");
        }
    });
    problems
}

/// Names say the unit and the kind of value.
pub(super) fn names(subject: &Subject) -> Vec<Problem> {
    let mut problems = Vec::new();
    subject.each_field(|node| {
        if node.in_open {
            return; // the names of Kubernetes
        }
        let mut complain = |problem: String| problems.push((node.path.to_owned(), problem));
        for value in node.schema["enum"].as_array().into_iter().flatten() {
            if !value.as_str().is_some_and(is_camel_case) {
                complain(format!("enum value {value} is not CamelCase"));
            }
        }
        if !node.is_field() {
            return;
        }
        let first = node.name.chars().next();
        if !first.is_some_and(|letter| letter.is_ascii_lowercase())
            || !node.name.chars().all(char::is_alphanumeric)
        {
            complain("is not camelCase".to_owned());
        }
        let is_time = node.schema["format"] == "date-time";
        if is_time != node.name.ends_with("Time") {
            complain("an instant is a date-time and its name ends in Time, nothing else does".to_owned());
        }
        if node.type_() == "integer" && is_duration(node.name) && !node.name.contains("Seconds") {
            complain("the name of a duration has the unit Seconds".to_owned());
        }
        if node.type_() == "integer" && node.name.ends_with("Count") {
            complain("a count is a plural noun".to_owned());
        }
        if is_reference(node) && !node.name.ends_with("Ref") && !node.name.ends_with("Refs") {
            complain("the name of a reference ends in Ref".to_owned());
        }
    });
    problems
}

fn is_duration(name: &str) -> bool {
    // As a word: `Age` in minPodAgeSeconds, not in pagesRead.
    let capitalised: String =
        name.chars().enumerate().map(|(i, c)| if i == 0 { c.to_ascii_uppercase() } else { c }).collect();
    DURATION_WORDS.iter().any(|word| {
        capitalised.match_indices(word).any(|(at, _)| {
            capitalised[at + word.len()..].chars().next().is_none_or(|next| next.is_ascii_uppercase())
        })
    })
}

fn is_camel_case(value: &str) -> bool {
    value.starts_with(|first: char| first.is_ascii_uppercase())
        && value.chars().all(|c| c.is_ascii_alphanumeric())
}

/// An object that holds nothing but what names another object.
fn is_reference(node: Node<'_>) -> bool {
    let object = if node.type_() == "array" { &node.schema["items"] } else { node.schema };
    object["properties"].as_object().is_some_and(|fields: &serde_json::Map<String, Value>| {
        fields.contains_key("name")
            && fields
                .keys()
                .all(|name| ["apiVersion", "kind", "name", "namespace", "uid"].contains(&name.as_str()))
    })
}
