//! CEL rules speak to people, have examples, and cover what is immutable.

use serde_json::Value;
use springtide_crds::Kind;

use super::{Problem, Subject};
use crate::check::examples::RuleExamples;
use crate::check::fit;
use crate::schema;

/// Every rule has a message that names a field, a reason and examples; every
/// field that is immutable or may only rise has its transition rule.
pub(super) fn rules(subject: &Subject) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut known = Vec::new();
    schema::walk("", &subject.root, &mut |node| {
        let names = names_below(node.schema);
        for rule in node.schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap_or_default();
            let message = rule["message"].as_str().unwrap_or_default();
            let mut complain = |problem: &str| {
                problems.push((node.path.to_owned(), format!("rule `{text}`: {problem}")));
            };
            if !names.iter().any(|name| message.contains(name.as_str())) && !message.contains("metadata.") {
                complain("the message must name the field and what to do");
            }
            if rule["reason"].is_null() {
                complain("needs a reason");
            }
            if let Some(problem) = example_problem(subject, message, text.contains("oldSelf")) {
                complain(problem);
            }
            known.push((message.to_owned(), text.to_owned()));
        }
    });
    for example in &subject.examples.rules {
        if !known.iter().any(|(message, _)| *message == example.message) {
            problems.extend(schema_problem(subject, example).map(|problem| (String::new(), problem)));
        }
    }
    let transitions: Vec<&str> =
        known.iter().map(|(_, rule)| rule.as_str()).filter(|rule| rule.contains("oldSelf")).collect();
    problems.extend(guarded(subject, &transitions));
    problems
}

fn example_problem(subject: &Subject, message: &str, transition: bool) -> Option<&'static str> {
    let mut found = subject.examples.rules.iter().filter(|example| example.message == message);
    let (Some(example), None) = (found.next(), found.next()) else {
        return Some("needs one entry of examples under crds/tests/fixtures/cel");
    };
    if example.accept.is_empty() || example.reject.is_empty() {
        return Some("needs an accepted and a rejected example");
    }
    if example.old.is_some() != transition {
        return Some("examples have `old` exactly when the rule compares with oldSelf");
    }
    None
}

/// What no rule says the schema itself may refuse: then the message is how the API server begins, with the path of a
/// field, as `spec.override.untilTime: Required value`.
fn schema_problem(subject: &Subject, example: &RuleExamples) -> Option<String> {
    let message = &example.message;
    let field = message.split_once(": ").map(|(path, _)| path).filter(|path| path.starts_with("spec."));
    let Some(name) = field.and_then(|path| path.rsplit('.').next()).and_then(|name| name.split('[').next())
    else {
        return Some(format!("examples for {message:?}, which no rule says"));
    };
    let problems = |patch: &Value| fit::object_problems(&subject.examples.with(patch), &subject.root);
    let is_refused = |patch: &Value| problems(patch).iter().any(|problem| problem.contains(name));
    if example.accept.is_empty() || example.reject.is_empty() {
        return Some(format!("{message:?} needs an accepted and a rejected example"));
    }
    if let Some(patch) = example.accept.iter().find(|patch| !problems(patch).is_empty()) {
        return Some(format!("the schema does not take {patch}, which {message:?} accepts"));
    }
    let taken = example.reject.iter().find(|patch| !is_refused(patch))?;
    Some(format!("nothing refuses {taken}, which {message:?} rejects"))
}

fn guarded(subject: &Subject, transitions: &[&str]) -> Vec<Problem> {
    let Kind { immutable_fields, rising_fields, .. } = &subject.kind;
    let declared = [("immutable", "==", immutable_fields), ("rising", ">=", rising_fields)];
    let mut problems = Vec::new();
    for (what, relation, fields) in declared {
        for field in *fields {
            let schema =
                field.split('.').fold(&subject.root["properties"]["spec"], |schema, step| {
                    match step.strip_suffix("[]") {
                        Some(list) => &schema["properties"][list]["items"],
                        None => &schema["properties"][step],
                    }
                });
            // The rule of an item of a list is on the item.
            let of_object = field.rsplit("[].").next().unwrap_or(field);
            let kept = format!("self.{of_object} {relation} oldSelf.{of_object}");
            if schema["type"].is_null() {
                problems.push((format!("spec.{field}"), format!("is listed as {what} but does not exist")));
            } else if !transitions.iter().any(|rule| rule.contains(&kept)) {
                problems.push((
                    format!("spec.{field}"),
                    format!("is listed as {what} but no transition rule guards it"),
                ));
            }
        }
    }
    if transitions.len() != immutable_fields.len() + rising_fields.len() {
        problems.push((
            "spec".to_owned(),
            "there must be one transition rule per immutable or rising field, no more".to_owned(),
        ));
    }
    problems
}

fn names_below(schema: &Value) -> Vec<String> {
    let mut names = Vec::new();
    schema::walk("", schema, &mut |node| {
        if !node.name.is_empty() {
            names.push(node.name.to_owned());
        }
    });
    names
}
