//! The CEL rules of BatchJob: what one field's bounds cannot say.

use kube::core::{Reason, Rule};
use serde_json::Value;

use super::NAME_MAX_LENGTH;
use crate::schema::{add_immutability, add_rules};

/// Fields of the spec that cannot change after creation, presence included.
/// Admission is not persisted, so no rule could say "once admitted".
pub const IMMUTABLE_FIELDS: [&str; 16] = [
    "queueName",
    "tier",
    "managedBy",
    "completions",
    "minParallelism",
    "completionMode",
    "interruption.policy",
    "backoffLimit",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
    "podFailurePolicy",
    "successPolicy",
    "profile",
    "release.completionTracking",
    "release.logTail",
    "template",
];

/// Adds the rules of the object and of its spec to the schema's root.
pub(super) fn add(root: &mut Value) {
    add_rules(root, name_rules());
    let spec = &mut root["properties"]["spec"];
    add_rules(spec, spec_rules());
    add_immutability(spec, &IMMUTABLE_FIELDS, "delete the job and create it again");
}

fn name_rules() -> Vec<Rule> {
    let rule = |rule: &str, message: &str| Rule::new(rule).message(message).reason(Reason::FieldValueInvalid);
    vec![
        rule(
            &format!("self.metadata.name.size() <= {NAME_MAX_LENGTH}"),
            &format!(
                "metadata.name must have at most {NAME_MAX_LENGTH} characters, so that pod names stay within 63"
            ),
        ),
        rule(
            "!self.metadata.name.contains('.')",
            "metadata.name must not contain dots, as it is part of the pods' hostnames; use a hyphen",
        ),
    ]
}

fn spec_rules() -> Vec<Rule> {
    let rule = |field: &str, rule: &str, message: &str| {
        Rule::new(rule).message(message).reason(Reason::FieldValueInvalid).field_path(format!(".{field}"))
    };
    vec![
        rule(
            "minParallelism",
            "self.minParallelism <= self.parallelism",
            "minParallelism must be at most parallelism",
        ),
        rule(
            "minParallelism",
            "self.minParallelism <= self.completions",
            "minParallelism must be at most completions",
        ),
        rule(
            "backoffLimitPerIndex",
            "!has(self.backoffLimitPerIndex) || self.completionMode == 'Indexed'",
            "backoffLimitPerIndex needs completionMode: Indexed",
        ),
        rule(
            "maxFailedIndexes",
            "!has(self.maxFailedIndexes) || has(self.backoffLimitPerIndex)",
            "maxFailedIndexes needs backoffLimitPerIndex",
        ),
        rule(
            "maxFailedIndexes",
            "!has(self.maxFailedIndexes) || self.maxFailedIndexes <= self.completions",
            "maxFailedIndexes must be at most completions",
        ),
        rule(
            "podFailurePolicy",
            "!has(self.podFailurePolicy) || has(self.backoffLimitPerIndex) || \
             self.podFailurePolicy.rules.all(r, r.action != 'FailIndex')",
            "podFailurePolicy: action FailIndex needs backoffLimitPerIndex",
        ),
        rule(
            "podFailurePolicy",
            &format!(
                "!has(self.podFailurePolicy) || self.podFailurePolicy.rules.all(r, !has(r.onExitCodes) || \
                 !has(r.onExitCodes.containerName) || {} || (has(self.template.spec.initContainers) && {}))",
                "self.template.spec.containers.exists(c, c.name == r.onExitCodes.containerName)",
                "self.template.spec.initContainers.exists(c, c.name == r.onExitCodes.containerName)",
            ),
            "podFailurePolicy: each containerName must be the name of a container of the template",
        ),
        rule(
            "successPolicy",
            "!has(self.successPolicy) || self.completionMode == 'Indexed' || \
             self.successPolicy.rules.all(r, !has(r.succeededIndexes))",
            "successPolicy: succeededIndexes needs completionMode: Indexed",
        ),
        rule(
            "successPolicy",
            "!has(self.successPolicy) || self.successPolicy.rules.all(r, !has(r.succeededCount) || \
             r.succeededCount <= self.completions)",
            "successPolicy: succeededCount must be at most completions",
        ),
        rule(
            "successPolicy",
            // Of each range both ends: what is done to a part of a split text costs without bound.
            "!has(self.successPolicy) || self.successPolicy.rules.all(r, !has(r.succeededIndexes) || \
             r.succeededIndexes.replace('-', ',').split(',').all(i, int(i) < self.completions))",
            "successPolicy: each of succeededIndexes must be below completions; the first index is 0",
        ),
        rule(
            "retry",
            "self.retry.initialBackoffSeconds <= self.retry.maxBackoffSeconds",
            "initialBackoffSeconds must be at most maxBackoffSeconds",
        ),
        rule(
            "template",
            "!has(self.queueName) || !has(self.template.spec.priorityClassName)",
            "priorityClassName must be absent with queueName, as the queue's tiers set it; remove one of them",
        ),
    ]
}

/// A failure rule matches by exit codes or by pod conditions.
pub(super) fn one_requirement() -> Rule {
    Rule::new("has(self.onExitCodes) != has(self.onPodConditions)")
        .message("a rule must have exactly one of onExitCodes and onPodConditions")
        .reason(Reason::FieldValueInvalid)
}

/// A success rule asks for something.
pub(super) fn some_success() -> Rule {
    Rule::new("has(self.succeededIndexes) || has(self.succeededCount)")
        .message("a rule must have succeededIndexes, succeededCount or both")
        .reason(Reason::FieldValueInvalid)
}

/// Exit code 0 never is a failure.
pub(super) fn zero_is_success() -> Rule {
    Rule::new("self.operator != 'In' || !self.values.exists(v, v == 0)")
        .message("values must not contain 0, which is success; remove it or use operator NotIn")
        .reason(Reason::FieldValueInvalid)
        .field_path(".values")
}

/// Only what has a name can be learned of.
pub(super) fn mode_needs_key() -> Rule {
    Rule::new("has(self.key) || !has(self.mode) || self.mode == 'Off'")
        .message(
            "mode needs a key: set profile.key, the name of the BatchTaskProfile that learns of this task",
        )
        .reason(Reason::FieldValueInvalid)
        .field_path(".key")
}

/// The scheduler alone places pods.
pub(super) fn no_node_name() -> Rule {
    Rule::new("!has(self.nodeName)")
        .message("nodeName must be absent, the scheduler places the pods; use nodeSelector or affinity")
        .reason(Reason::FieldValueForbidden)
        .field_path(".nodeName")
}

/// A gated pod would exist without running.
pub(super) fn no_scheduling_gates() -> Rule {
    Rule::new("!has(self.schedulingGates)")
        .message("schedulingGates must be absent, pods are created only when they fit; use stopPolicy: Hold")
        .reason(Reason::FieldValueForbidden)
        .field_path(".schedulingGates")
}
