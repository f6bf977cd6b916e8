//! A field that no example has is one that nobody is shown.

use serde_json::Value;

use super::{Problem, Subject};
use crate::generate::samples::without_defaults_of;

/// Each spec field is in a sample, as its file has it: without what is default anyway. Of a field that is in none those below
/// it are not told besides.
pub(super) fn samples(subject: &Subject) -> Vec<Problem> {
    let samples = subject.kind.samples.iter();
    let objects: Vec<Value> = samples.map(|sample| without_defaults_of(&subject.root, sample)).collect();
    let mut problems: Vec<Problem> = Vec::new();
    subject.each_field(|node| {
        if !node.path.starts_with("spec.") || !node.is_field() || node.in_open {
            return;
        }
        let is_below = |(above, _): &Problem| {
            node.path.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
        };
        let steps = node.path.replace("[]", ".[]");
        let steps: Vec<&str> = steps.split('.').collect();
        if !problems.iter().any(is_below) && !objects.iter().any(|object| has(object, &steps)) {
            let problem = "no sample has it; add it to one in crds/src/samples.rs".to_owned();
            problems.push((node.path.to_owned(), problem));
        }
    });
    problems
}

/// Whether there is something at the end of these steps: fields, items of lists, values of maps.
fn has(value: &Value, steps: &[&str]) -> bool {
    match steps {
        [] => true,
        ["[]", rest @ ..] => value.as_array().into_iter().flatten().any(|item| has(item, rest)),
        ["*", rest @ ..] => value.as_object().into_iter().flatten().any(|(_, value)| has(value, rest)),
        [name, rest @ ..] => value.get(name).is_some_and(|field| has(field, rest)),
    }
}
