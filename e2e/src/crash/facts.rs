//! What a run has come to, in comparable form.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// In place of a value that differs between runs by nature.
const MASK: &str = "*";

/// Fields by which the rows of a list are told apart, whatever their order: conditions, exit codes, failures.
const KEYS: [&str; 4] = ["type", "code", "index", "attempt"];

/// Facts by their path, such as `job.status.succeeded`. Times and the like are masked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    facts: BTreeMap<String, String>,
}

impl Facts {
    /// Adds one.
    pub fn add(&mut self, path: impl Into<String>, value: impl ToString) {
        self.facts.insert(path.into(), value.to_string());
    }

    /// Adds every leaf of a document below `path`. Those whose field ends with `Time` count only by being
    /// there, those whose field is one of `left_out` not at all.
    pub fn add_document(&mut self, path: &str, document: &Value, left_out: &[&str]) {
        match document {
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(name, _)| !left_out.contains(&name.as_str())) {
                    let path = format!("{path}.{name}");
                    if name.ends_with("Time") {
                        self.add(path, MASK);
                    } else {
                        self.add_document(&path, value, left_out);
                    }
                }
            }
            Value::Array(items) => {
                for (number, value) in items.iter().enumerate() {
                    let named = KEYS.iter().filter_map(|key| Some(value.get(key)?.to_string()));
                    let key = named.collect::<Vec<_>>().join("/");
                    let key = if key.is_empty() { number.to_string() } else { key.replace('"', "") };
                    self.add_document(&format!("{path}[{key}]"), value, left_out);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => self.add(path, document),
        }
    }

    /// Whether one of them is this text.
    pub(super) fn say(&self, text: &str) -> bool {
        let text = Value::from(text).to_string();
        self.facts.values().any(|fact| *fact == text)
    }

    /// Where the two differ, a line each.
    #[must_use]
    pub fn differences(&self, other: &Self) -> BTreeMap<String, String> {
        let paths: BTreeSet<_> = self.facts.keys().chain(other.facts.keys()).collect();
        let shown = |facts: &Self, path| facts.facts.get(path).map_or("nothing".to_owned(), Clone::clone);
        paths
            .into_iter()
            .filter(|path| self.facts.get(*path) != other.facts.get(*path))
            .map(|path| {
                (path.clone(), format!("{path}: {} in place of {}", shown(other, path), shown(self, path)))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(document: &Value) -> Facts {
        let mut facts = Facts::default();
        facts.add_document("job", document, &["node"]);
        facts
    }

    #[test]
    fn what_differs_by_nature_does_not_count() {
        let first = json!({"succeeded": 3, "startTime": "a", "rows": [{"node": "n1", "code": 1}, {"code": 2}],
            "conditions": [{"type": "A", "status": "True"}, {"type": "B", "status": "True"}]});
        let same = json!({"succeeded": 3, "startTime": "b", "rows": [{"code": 2}, {"node": "n2", "code": 1}],
            "conditions": [{"type": "B", "status": "True"}, {"type": "A", "status": "True"}]});
        assert!(facts(&first).differences(&facts(&same)).is_empty());
        let other = json!({"succeeded": 2, "rows": [{"node": "n1", "code": 1}, {"code": 2}],
            "conditions": [{"type": "A", "status": "False"}]});
        let differences = facts(&first).differences(&facts(&other));
        let lines: Vec<_> = differences.values().map(String::as_str).collect();
        assert_eq!(
            lines,
            [
                r#"job.conditions[A].status: "False" in place of "True""#,
                r#"job.conditions[B].status: nothing in place of "True""#,
                r#"job.conditions[B].type: nothing in place of "B""#,
                "job.startTime: nothing in place of *",
                "job.succeeded: 2 in place of 3",
            ]
        );
    }
}
