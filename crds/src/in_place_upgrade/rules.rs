//! The CEL rules of InPlaceUpgrade: what one field's bounds cannot say.

use kube::core::{Reason, Rule};
use serde_json::Value;

use crate::schema::{add_immutability, add_rising, add_rules};

/// Fields of the spec that cannot change after creation.
pub const IMMUTABLE_FIELDS: [&str; 1] = ["targetRef"];

/// Numbers of the spec that may only rise.
pub const RISING_FIELDS: [&str; 1] = ["attempt"];

/// Adds the rules of the spec to the schema's root.
pub(super) fn add(root: &mut Value) {
    let spec = &mut root["properties"]["spec"];
    add_rules(
        spec,
        vec![
            Rule::new(
                "self.policy.lock != 'Transient' || (self.targetRef.kind == 'Deployment' && \
                 self.source.type == 'Inline' && has(self.source.inline) && \
                 self.source.inline.persist == 'Template')",
            )
            .message(
                "policy.lock Transient needs a targetRef of kind Deployment and a source of type Inline with persist: \
                 Template; use lock: Require and pause the workload yourself",
            )
            .reason(Reason::FieldValueInvalid)
            .field_path(".policy.lock"),
        ],
    );
    add_immutability(spec, &IMMUTABLE_FIELDS, "delete the object and create it again");
    add_rising(spec, &RISING_FIELDS, "give a number above the last one to try again");
}

/// A patch that nobody asks for, or a question without one.
pub(super) fn inline_iff_type_inline() -> Rule {
    Rule::new("has(self.inline) == (self.type == 'Inline')")
        .message("inline is for type Inline, which needs it; set source.type or remove source.inline")
        .reason(Reason::FieldValueInvalid)
        .field_path(".inline")
}

/// A container of which nothing changes has no place in a patch.
pub(super) fn image_or_resources() -> Rule {
    Rule::new("has(self.image) || has(self.resources)")
        .message("a container must have image, resources or both; remove it to leave it as it is")
        .reason(Reason::FieldValueInvalid)
}

/// A run that left some pods out would never end.
pub(super) fn last_step_is_all() -> Rule {
    // The schema wants one step at least, but a rule runs beside it.
    Rule::new("self.steps.size() == 0 || string(self.steps[self.steps.size() - 1].replicas) == '100%'")
        .message("the last of steps must have replicas: 100%; add it after a hold, to stop before the rest")
        .reason(Reason::FieldValueInvalid)
        .field_path(".steps")
}

/// A hold for a time without the time, or a time that nothing waits for.
pub(super) fn duration_iff_type_duration() -> Rule {
    Rule::new("has(self.durationSeconds) == (self.type == 'Duration')")
        .message(
            "durationSeconds is for a hold of type Duration, which needs it; set type, or give or remove \
             durationSeconds",
        )
        .reason(Reason::FieldValueInvalid)
        .field_path(".durationSeconds")
}
