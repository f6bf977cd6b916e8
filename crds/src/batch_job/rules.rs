//! The CEL rules of BatchJob: what one field's bounds cannot say.

use kube::core::{Reason, Rule};
use serde_json::Value;

use super::NAME_MAX_LENGTH;
use crate::schema::{add_rules, immutable};

/// Fields of the spec that cannot change after creation, presence included.
/// Admission is not persisted, so no rule could say "once admitted".
pub const IMMUTABLE_FIELDS: [&str; 11] = [
    "tier",
    "completions",
    "minParallelism",
    "completionMode",
    "backoffLimit",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "podFailurePolicy",
    "release.completionTracking",
    "release.logTail",
    "template",
];

/// Adds the rules of the object and of its spec to the schema's root.
pub(super) fn add(root: &mut Value) {
    add_rules(root, name_rules());
    let spec = &mut root["properties"]["spec"];
    add_rules(spec, spec_rules());
    immutable(spec, &IMMUTABLE_FIELDS, "delete the job and create it again");
}

fn name_rules() -> Vec<Rule> {
    vec![
        Rule::new(format!("self.metadata.name.size() <= {NAME_MAX_LENGTH}"))
            .message(
                format!(
                    "metadata.name: at most {NAME_MAX_LENGTH} characters, so that pod names stay within 63"
                )
                .as_str(),
            )
            .reason(Reason::FieldValueInvalid),
        Rule::new("!self.metadata.name.contains('.')")
            .message("metadata.name: no dots, because it becomes part of the pods' hostnames; use a hyphen")
            .reason(Reason::FieldValueInvalid),
    ]
}

fn spec_rules() -> Vec<Rule> {
    let invalid = |field: &str, rule: &str, message: &str| {
        Rule::new(rule)
            .message(format!("spec.{field}: {message}").as_str())
            .reason(Reason::FieldValueInvalid)
            .field_path(format!(".{field}"))
    };
    vec![
        invalid(
            "minParallelism",
            "self.minParallelism <= self.parallelism",
            "at most spec.parallelism; lower it or raise parallelism",
        ),
        invalid(
            "minParallelism",
            "self.minParallelism <= self.completions",
            "at most spec.completions; lower it or raise completions",
        ),
        invalid(
            "backoffLimitPerIndex",
            "!has(self.backoffLimitPerIndex) || self.completionMode == 'Indexed'",
            "needs spec.completionMode: Indexed",
        ),
        invalid(
            "maxFailedIndexes",
            "!has(self.maxFailedIndexes) || has(self.backoffLimitPerIndex)",
            "needs spec.backoffLimitPerIndex",
        ),
        invalid(
            "maxFailedIndexes",
            "!has(self.maxFailedIndexes) || self.maxFailedIndexes <= self.completions",
            "at most spec.completions",
        ),
        invalid(
            "podFailurePolicy",
            "!has(self.podFailurePolicy) || has(self.backoffLimitPerIndex) || \
             self.podFailurePolicy.rules.all(r, r.action != 'FailIndex')",
            "action FailIndex needs spec.backoffLimitPerIndex",
        ),
        invalid(
            "retry",
            "self.retry.initialBackoffSeconds <= self.retry.maxBackoffSeconds",
            "initialBackoffSeconds is at most maxBackoffSeconds",
        ),
    ]
}

/// A failure rule matches by exit codes or by pod conditions.
pub(super) fn one_requirement() -> Rule {
    Rule::new("has(self.onExitCodes) != has(self.onPodConditions)")
        .message("spec.podFailurePolicy.rules: give exactly one of onExitCodes and onPodConditions")
        .reason(Reason::FieldValueInvalid)
}

/// Exit code 0 never is a failure.
pub(super) fn zero_is_success() -> Rule {
    Rule::new("self.operator != 'In' || !self.values.exists(v, v == 0)")
        .message(
            "spec.podFailurePolicy.rules.onExitCodes.values: 0 is success, remove it or use operator NotIn",
        )
        .reason(Reason::FieldValueInvalid)
        .field_path(".values")
}
