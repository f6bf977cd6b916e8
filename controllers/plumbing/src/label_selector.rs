//! Label selectors as `metav1.LabelSelector` writes them, held against labels of any form.

use serde::Deserialize;
use std::collections::BTreeMap;

/// A label selector. One that says nothing selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    match_labels: Option<BTreeMap<Box<str>, Box<str>>>,
    match_expressions: Option<Vec<Requirement>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Requirement {
    key: Box<str>,
    operator: Operator,
    #[serde(default)]
    values: Option<Vec<Box<str>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether it selects an object, of which `label` gives the value of a label.
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let mut labels = self.match_labels.iter().flatten();
        let mut expressions = self.match_expressions.iter().flatten();
        labels.all(|(key, value)| label(key) == Some(&**value))
            && expressions.all(|requirement| requirement.holds(label(&requirement.key)))
    }

    /// Bytes of its text.
    pub fn text_bytes(&self) -> usize {
        let labels = self.match_labels.iter().flatten().map(|(key, value)| key.len() + value.len());
        let expressions = self.match_expressions.iter().flatten().map(Requirement::text_bytes);
        labels.sum::<usize>() + expressions.sum::<usize>()
    }
}

impl Requirement {
    fn holds(&self, label: Option<&str>) -> bool {
        let mut values = self.values.iter().flatten();
        let is_listed = label.is_some_and(|label| values.any(|value| **value == *label));
        match self.operator {
            Operator::In => is_listed,
            Operator::NotIn => !is_listed,
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }

    fn text_bytes(&self) -> usize {
        let values = self.values.iter().flatten().map(|value| size_of::<Box<str>>() + value.len());
        size_of::<Self>() + self.key.len() + values.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn selects(selector: Value, labels: &[(&str, &'static str)]) -> bool {
        let selector: LabelSelector = serde_json::from_value(selector).unwrap();
        selector.selects(|key| labels.iter().find(|(name, _)| *name == key).map(|(_, value)| *value))
    }

    #[test]
    fn all_that_a_selector_says_has_to_hold() {
        let labels = [("app", "web"), ("tier", "front")];
        let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": null, "matchExpressions": null}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "web", "tier": "back"}}), false),
            (json!({"matchLabels": {"zone": ""}}), false),
            (expression("app", "In", &["api", "web"]), true),
            (expression("app", "In", &["api"]), false),
            (expression("zone", "In", &["a"]), false),
            (expression("app", "NotIn", &["web"]), false),
            // A label that is not there is not among the values.
            (expression("zone", "NotIn", &["a"]), true),
            (expression("app", "Exists", &[]), true),
            (expression("zone", "Exists", &[]), false),
            (expression("app", "DoesNotExist", &[]), false),
            (expression("zone", "DoesNotExist", &[]), true),
        ] {
            assert_eq!(selects(selector.clone(), &labels), expected, "{selector}");
        }
    }

    #[test]
    fn an_operator_that_nobody_knows_is_no_selector() {
        let unknown = json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]});
        assert!(serde_json::from_value::<LabelSelector>(unknown).is_err());
    }
}
