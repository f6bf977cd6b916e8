//! The CEL rules of BatchQueue: what one field's bounds cannot say.

use kube::core::{Reason, Rule};
use serde_json::Value;

use super::NAME_MAX_LENGTH;
use crate::schema::{add_immutability, add_rules};

/// Fields of the spec that cannot change after creation: `engine` will be one, when it has a second value.
pub const IMMUTABLE_FIELDS: [&str; 0] = [];

/// Adds the rules of the object and of its spec to the schema's root.
pub(super) fn add(root: &mut Value) {
    add_rules(
        root,
        vec![
            Rule::new(format!("self.metadata.name.size() <= {NAME_MAX_LENGTH}"))
                .message(
                    format!(
                        "metadata.name must have at most {NAME_MAX_LENGTH} characters, as it is the value of a label"
                    )
                    .as_str(),
                )
                .reason(Reason::FieldValueInvalid),
        ],
    );
    let spec = &mut root["properties"]["spec"];
    add_rules(spec, spec_rules());
    add_immutability(spec, &IMMUTABLE_FIELDS, "delete the queue and create it again");
}

fn spec_rules() -> Vec<Rule> {
    let rule = |field: &str, rule: &str, message: &str| {
        Rule::new(rule).message(message).reason(Reason::FieldValueInvalid).field_path(format!(".{field}"))
    };
    vec![
        rule(
            "quota",
            "self.capacitySource.type != 'Static' || (has(self.quota) && self.quota.size() > 0)",
            "capacitySource.type Static needs at least one row of quota, as nothing else bounds the queue",
        ),
        rule(
            "tiers",
            "self.capacitySource.type != 'ExtendedResource' || (has(self.tiers) && \
             self.tiers.exists(t, has(t.resourceNames) && t.resourceNames.size() > 0))",
            "capacitySource.type ExtendedResource needs a tier with resourceNames",
        ),
    ]
}

/// A ceiling below the guarantee would be neither.
pub(super) fn max_at_least_nominal() -> Rule {
    Rule::new("!has(self.max) || !quantity(string(self.max)).isLessThan(quantity(string(self.nominal)))")
        .message("max must be at least nominal")
        .reason(Reason::FieldValueInvalid)
        .field_path(".max")
}

/// Who is less important goes first for nobody.
pub(super) fn yields_to_no_lower_tier() -> Rule {
    Rule::new(
        "!has(self.preemptible) || self.preemptible.by.all(t, t == self.name || t == 'Guaranteed' || \
         self.name == 'BestEffort')",
    )
    .message("preemptible.by must name the tier itself, for its higher priorities, or higher tiers")
    .reason(Reason::FieldValueInvalid)
    .field_path(".preemptible.by")
}

/// The pattern of a quantity sees strings alone, not numbers.
pub(super) fn nominal_not_negative() -> Rule {
    Rule::new("!quantity(string(self.nominal)).isLessThan(quantity('0'))")
        .message("nominal must not be negative")
        .reason(Reason::FieldValueInvalid)
        .field_path(".nominal")
}

/// An address without a use, or a use without an address.
pub(super) fn url_iff_http() -> Rule {
    Rule::new("(self.type == 'HTTP') == has(self.url)")
        .message("archive needs a url with type HTTP, and has none with any other type")
        .reason(Reason::FieldValueInvalid)
        .field_path(".url")
}
