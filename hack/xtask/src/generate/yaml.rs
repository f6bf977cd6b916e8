//! Kubernetes objects as YAML files.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Number, Value};

use super::MARK;

/// The object as a YAML document below the generated mark and the comments.
pub(crate) fn document(object: &impl Serialize, comments: &[&str]) -> Result<String> {
    let mut text = format!("# {MARK}; edits are lost.\n");
    for comment in comments {
        text.push_str(&format!("# {comment}\n"));
    }
    Ok(text + &body(object)?)
}

/// The object as one more document of a file.
pub(crate) fn further_document(object: &impl Serialize) -> Result<String> {
    Ok(format!("---\n{}", body(object)?))
}

fn body(object: &impl Serialize) -> Result<String> {
    let mut value = serde_json::to_value(object).context("object to JSON")?;
    tidy(&mut value);
    serde_yaml::to_string(&value).context("object to YAML")
}

/// Whole numbers lose their `.0`: the Rust type of a schema's bounds is f64.
/// Keys are sorted, whatever features serde_json was built with.
pub(super) fn tidy(value: &mut Value) {
    match value {
        Value::Number(number) => {
            if let Some(whole) = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9e15) {
                // Exact: the range above is within both types.
                #[allow(clippy::cast_possible_truncation)]
                let whole = whole as i64;
                *number = Number::from(whole);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Object(fields) => {
            fields.values_mut().for_each(tidy);
            fields.sort_keys();
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}
