//! Everything is bounded, lists merge, and the largest status is small.

use serde_json::Value;
use springtide_crds::common::RESOURCE_NAME_MAX_LENGTH;

use super::{Problem, Subject};
use crate::schema::Node;

/// Largest status in bytes of JSON; the executor refuses more.
const MAX_STATUS_BYTES: u64 = 10_000;

/// Longest key of a map in a status: no schema can bound it. All are names of resources, which the controllers
/// leave out where they are longer.
const MAX_KEY_BYTES: u64 = RESOURCE_NAME_MAX_LENGTH as u64;

/// Strings, lists, maps and integers have an upper bound.
pub(super) fn bounds(subject: &Subject) -> Vec<Problem> {
    let mut problems = Vec::new();
    subject.each_field(|node| {
        if let Some(missing) = missing_bound(node) {
            problems.push((node.path.to_owned(), format!("needs {missing}")));
        }
    });
    problems
}

fn missing_bound(node: Node<'_>) -> Option<&'static str> {
    let has = |keyword: &str| !node.schema[keyword].is_null();
    match node.type_() {
        "string" if !has("enum") && !has("maxLength") && node.schema["format"] != "date-time" => {
            Some("maxLength")
        }
        "" if node.schema["x-kubernetes-int-or-string"] == true && !has("maxLength") => Some("maxLength"),
        "array" if !has("maxItems") => Some("maxItems"),
        "object" if has("additionalProperties") && !has("maxProperties") => Some("maxProperties"),
        "integer" if !has("minimum") || !has("maximum") => Some("minimum and maximum"),
        _ => None,
    }
}

/// Lists say how server-side apply merges them.
pub(super) fn lists(subject: &Subject) -> Vec<Problem> {
    let mut problems = Vec::new();
    subject.each_field(|node| {
        if node.type_() != "array" {
            return;
        }
        let item = &node.schema["items"];
        let keys = node.schema["x-kubernetes-list-map-keys"].as_array().cloned().unwrap_or_default();
        let problem = match node.schema["x-kubernetes-list-type"].as_str() {
            Some("map") if keys.is_empty() => "a list-map needs its keys",
            Some("map") if !keys.iter().all(|key| is_certain(item, key)) => {
                "each key of a list-map must be required or have a default"
            }
            Some("map" | "set" | "atomic") => return,
            _ => "needs x-kubernetes-list-type: map, set or atomic",
        };
        problems.push((node.path.to_owned(), problem.to_owned()));
    });
    problems
}

fn is_certain(item: &Value, key: &Value) -> bool {
    let required = item["required"].as_array().is_some_and(|names| names.contains(key));
    required || key.as_str().is_some_and(|key| !item["properties"][key]["default"].is_null())
}

/// The largest status that the schema allows fits the executor's bound.
pub(super) fn status_size(subject: &Subject) -> Vec<Problem> {
    if !subject.kind.has_status() {
        return Vec::new();
    }
    let problem = match largest(&subject.root["properties"]["status"]) {
        Some(bytes) if bytes <= MAX_STATUS_BYTES => return Vec::new(),
        Some(bytes) => format!("may reach {bytes} bytes, at most {MAX_STATUS_BYTES}: lower a bound"),
        None => "has no computable bound".to_owned(),
    };
    vec![("status".to_owned(), problem)]
}

/// Bytes of the largest JSON value of a schema. A string counts `maxLength`
/// bytes: the controllers cut foreign text by bytes of its JSON form, and all
/// other text is ASCII.
fn largest(schema: &Value) -> Option<u64> {
    let bound = |keyword: &str| schema[keyword].as_f64().map(|bound| bound as u64);
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(|value| value.to_string().len() as u64).max();
    }
    // As text it has quotes, so it is longer than a number of as many digits.
    if schema["x-kubernetes-int-or-string"] == true {
        return Some(2 + bound("maxLength")?);
    }
    match schema["type"].as_str()? {
        "string" if schema["format"] == "date-time" => Some("\"2026-11-11T00:00:00Z\"".len() as u64),
        "string" => Some(2 + bound("maxLength")?),
        "integer" => {
            let digits =
                |keyword: &str| schema[keyword].as_f64().map(|bound| format!("{bound:.0}").len() as u64);
            Some(digits("minimum")?.max(digits("maximum")?))
        }
        "boolean" => Some("false".len() as u64),
        "array" => Some(2 + bound("maxItems")? * (largest(&schema["items"])? + 1)),
        "object" => {
            let mut bytes = 2;
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                bytes += "\"\":,".len() as u64 + name.len() as u64 + largest(field)?;
            }
            if schema["additionalProperties"].is_object() {
                let entry = "\"\":,".len() as u64 + MAX_KEY_BYTES + largest(&schema["additionalProperties"])?;
                bytes += bound("maxProperties")? * entry;
            }
            // Of fields that never stand together the smallest is missing.
            let excluded =
                schema["not"]["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let sizes: Option<Vec<u64>> = excluded
                .map(|name| {
                    Some("\"\":,".len() as u64 + name.len() as u64 + largest(&schema["properties"][name])?)
                })
                .collect();
            bytes -= sizes?.into_iter().min().unwrap_or_default();
            (schema["x-kubernetes-preserve-unknown-fields"] != true).then_some(bytes)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_largest_value_has_exactly_the_computed_length() {
        let schema = json!({"type": "object", "properties": {
            "text": {"type": "string", "maxLength": 5},
            "number": {"type": "integer", "minimum": -100, "maximum": 99},
            "kind": {"type": "string", "enum": ["A", "Long"]},
            "at": {"type": "string", "format": "date-time"},
        }});
        let value = json!({"text": "12345", "number": -100, "kind": "Long", "at": "2026-11-24T03:44:00Z"});
        // One comma more than there are: it buys a simple sum.
        assert_eq!(largest(&schema), Some(value.to_string().len() as u64 + 1));
    }

    #[test]
    fn of_fields_that_exclude_each_other_one_is_missing() {
        let text = |bytes: u64| json!({"type": "string", "maxLength": bytes});
        let mut schema = json!({"type": "object", "properties": {"a": text(9), "b": text(4), "c": text(2)}});
        let all = largest(&schema).unwrap();
        schema["not"] = json!({"required": ["a", "b"]});
        assert_eq!(largest(&schema), Some(all - r#""b":"1234","#.len() as u64));
    }

    #[test]
    fn what_has_no_bound_has_no_size() {
        assert_eq!(largest(&json!({"type": "string"})), None);
        assert_eq!(largest(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})), None);
    }
}
