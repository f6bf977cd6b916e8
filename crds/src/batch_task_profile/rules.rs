//! The CEL rules of BatchTaskProfile.

use kube::core::{Reason, Rule};
use serde_json::Value;

use super::NAME_MAX_LENGTH;
use crate::schema::add_rules;

/// Adds the rules of the object to the schema's root.
pub(super) fn add(root: &mut Value) {
    let rule = |rule: String, message: String| {
        Rule::new(rule).message(message.as_str()).reason(Reason::FieldValueInvalid)
    };
    add_rules(
        root,
        vec![
            rule(
                format!("self.metadata.name.size() <= {NAME_MAX_LENGTH}"),
                format!(
                    "metadata.name must have at most {NAME_MAX_LENGTH} characters, as it is the profile.key of jobs"
                ),
            ),
            rule(
                "!self.metadata.name.contains('.')".to_owned(),
                "metadata.name must not contain dots, as it is the profile.key of jobs; use a hyphen"
                    .to_owned(),
            ),
        ],
    );
}

/// A bound leaves room. Whole numbers are quantities too.
pub(super) fn min_at_most_max() -> Rule {
    Rule::new(
        "!has(self.min) || !has(self.max) || quantity(string(self.min)).compareTo(quantity(string(self.max))) <= 0",
    )
    .message("min must be at most max")
    .reason(Reason::FieldValueInvalid)
    .field_path(".min")
}

/// The pattern of a quantity sees strings alone, not numbers.
pub(super) fn not_negative(field: &str) -> Rule {
    Rule::new(format!("!has(self.{field}) || !quantity(string(self.{field})).isLessThan(quantity('0'))"))
        .message(format!("{field} must not be negative").as_str())
        .reason(Reason::FieldValueInvalid)
        .field_path(format!(".{field}"))
}
