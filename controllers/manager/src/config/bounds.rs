//! Values against the bounds of a schema. What serde has read has the right shape already, so only what
//! a type does not say is looked at: ranges, lengths, numbers of items.

use serde_json::Value;
use std::fmt;

/// A value that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, like `controllers.batchJob.workers`.
    pub path: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl Violation {
    pub(super) fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.problem)
    }
}

/// Every value out of bounds.
pub(super) fn violations(schema: &Value, value: &Value) -> Vec<Violation> {
    let mut violations = Vec::new();
    walk("", schema, value, &mut violations);
    violations
}

fn walk(path: &str, schema: &Value, value: &Value, violations: &mut Vec<Violation>) {
    let (measure, keywords, unit) = match value {
        Value::Number(number) => (number.as_f64(), ["minimum", "maximum"], ""),
        Value::String(text) => {
            (Some(text.chars().count() as f64), ["minLength", "maxLength"], " characters long")
        }
        Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                walk(&format!("{path}[{number}]"), &schema["items"], item, violations);
            }
            (Some(items.len() as f64), ["minItems", "maxItems"], " items long")
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                walk(&path, &schema["properties"][name], field, violations);
            }
            return;
        }
        // Infinity and what is no number have no JSON; a field that is absent is not there at all.
        Value::Null => return violations.push(Violation::new(path, "must be a finite number".to_owned())),
        Value::Bool(_) => return,
    };
    let [low, high] = keywords.map(|keyword| schema[keyword].as_f64());
    let Some(measure) = measure else { return };
    if low.is_some_and(|low| measure < low) || high.is_some_and(|high| measure > high) {
        let bounds = match (low, high) {
            (Some(low), Some(high)) => format!("{low} to {high}"),
            (Some(low), None) => format!("at least {low}"),
            (None, high) => format!("at most {}", high.unwrap_or_default()),
        };
        violations.push(Violation::new(path, format!("must be {bounds}{unit}, is {measure}")));
    }
}
