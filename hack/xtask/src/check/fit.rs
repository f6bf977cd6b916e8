//! Whether a value fits a structural schema, as the API server judges it by `fieldValidation: Strict`: of an object that
//! does not say otherwise, a field that no schema declares is an error.

use regex::Regex;
use serde_json::Value;

/// What of an object does not fit the root schema of its kind, each with its path.
pub(super) fn object_problems(object: &Value, root: &Value) -> Vec<String> {
    // Type and metadata are the API server's own.
    let mut fields = object.as_object().cloned().unwrap_or_default();
    fields.retain(|name, _| !["apiVersion", "kind", "metadata"].contains(&name.as_str()));
    problems(&Value::Object(fields), root, "")
}

/// What of the value does not fit, each with its path.
pub(super) fn problems(value: &Value, schema: &Value, path: &str) -> Vec<String> {
    let mut problems = Vec::new();
    check(value, schema, path, &mut problems);
    problems
}

fn check(value: &Value, schema: &Value, path: &str, problems: &mut Vec<String>) {
    let type_ = schema["type"].as_str().unwrap_or_default();
    let either = schema["x-kubernetes-int-or-string"] == true;
    let mut complain = |problem: String| problems.push(format!("{path} {problem}").trim_start().to_owned());
    match value {
        Value::Object(_) if type_ == "object" => return check_object(value, schema, path, problems),
        Value::Array(_) if type_ == "array" => return check_list(value, schema, path, problems),
        Value::String(text) if type_ == "string" || either => check_text(text, schema, &mut complain),
        Value::Number(number) if (type_ == "integer" || either) && (number.is_i64() || number.is_u64()) => {
            check_number(number.as_f64().unwrap_or_default(), schema, &mut complain);
        }
        Value::Number(_) if type_ == "number" => {}
        Value::Bool(_) if type_ == "boolean" => {}
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            let wanted = if either { "integer or string" } else { type_ };
            complain(format!("is {value}, and should be of type {wanted}"));
        }
    }
    let listed = schema["enum"].as_array();
    if listed.is_some_and(|listed| !listed.contains(value)) {
        complain(format!("is {value}, and should be one of {}", schema["enum"]));
    }
}

fn check_text(text: &str, schema: &Value, complain: &mut impl FnMut(String)) {
    check_size(text.chars().count(), schema, ("minLength", "maxLength"), "characters", complain);
    let pattern = schema["pattern"].as_str();
    // RE2 and this crate read the patterns of our schemas alike; one that is none is another lint's matter.
    if pattern.is_some_and(|pattern| !Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))) {
        complain(format!("is {text:?}, and should match {}", schema["pattern"]));
    }
    if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
        complain(format!("is {text:?}, and should be a time as 2026-11-11T00:00:00Z"));
    }
}

fn check_number(number: f64, schema: &Value, complain: &mut impl FnMut(String)) {
    let bound = |keyword: &str| schema[keyword].as_f64();
    // As a float, 1 is not told as 1.0.
    let told = |keyword: &str| bound(keyword).map_or("any".to_owned(), |bound| bound.to_string());
    if bound("minimum").is_some_and(|least| number < least)
        || bound("maximum").is_some_and(|most| number > most)
    {
        complain(format!("is {number}, and should be from {} to {}", told("minimum"), told("maximum")));
    }
}

fn check_size(
    size: usize,
    schema: &Value,
    (least, most): (&str, &str),
    of: &str,
    complain: &mut impl FnMut(String),
) {
    let bound = |keyword: &str| schema[keyword].as_u64().and_then(|bound| usize::try_from(bound).ok());
    if bound(least).is_some_and(|least| size < least) || bound(most).is_some_and(|most| size > most) {
        complain(format!("has {size} {of}, and should have {} to {}", schema[least], schema[most]));
    }
}

fn check_list(value: &Value, schema: &Value, path: &str, problems: &mut Vec<String>) {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let mut complain = |problem: String| problems.push(format!("{path} {problem}").trim_start().to_owned());
    check_size(items.len(), schema, ("minItems", "maxItems"), "items", &mut complain);
    // What tells the items apart, where the schema says that something does.
    let keys = schema["x-kubernetes-list-map-keys"].as_array();
    let identity = |item: &Value| match keys {
        Some(keys) => keys.iter().filter_map(Value::as_str).map(|key| item[key].clone()).collect(),
        None => vec![item.clone()],
    };
    let is_unique = ["map", "set"].iter().any(|type_| schema["x-kubernetes-list-type"] == *type_);
    let known: Vec<_> = items.iter().map(identity).collect();
    if is_unique && (1..known.len()).any(|at| known[..at].contains(&known[at])) {
        complain("has an item twice".to_owned());
    }
    for (at, item) in items.iter().enumerate() {
        check(item, &schema["items"], &format!("{path}[{at}]"), problems);
    }
}

fn check_object(value: &Value, schema: &Value, path: &str, problems: &mut Vec<String>) {
    let Some(fields) = value.as_object() else { return };
    let mut complain = |problem: String| problems.push(format!("{path} {problem}").trim_start().to_owned());
    check_size(fields.len(), schema, ("minProperties", "maxProperties"), "entries", &mut complain);
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(required) {
            complain(format!("has no {required}, which is required"));
        }
    }
    let (declared, others) = (&schema["properties"], &schema["additionalProperties"]);
    let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true || declared.is_null();
    for (name, field) in fields {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if declared[name].is_object() {
            check(field, &declared[name], &path, problems);
        } else if others.is_object() {
            check(field, others, &path, problems);
        } else if !is_open {
            problems.push(format!("{path} is no field of this kind"));
        }
    }
}
