//! The CEL rules of TimeShareGroup: what one field's bounds cannot say.

use kube::core::{Reason, Rule};
use serde_json::{Value, json};

use super::switch::STEPS_MAX;
use crate::schema::{add_immutability, add_rules};

/// Fields of the spec that cannot change after creation; `[]` stands for each item of a list.
pub const IMMUTABLE_FIELDS: [&str; 1] = ["members[].targetRef"];

/// The resources that have a peak and a valley.
const RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Adds the rules of the spec to the schema's root, and takes away what the kind has no use for.
pub(super) fn add(root: &mut Value) {
    let spec = &mut root["properties"]["spec"];
    add_rules(spec, spec_rules());
    add_immutability(
        spec,
        &IMMUTABLE_FIELDS,
        "remove the member, and add one of another name for the new workload",
    );
    without_failed_pods(spec);
}

fn spec_rules() -> Vec<Rule> {
    let rule = |field: &str, rule: &str, message: &str| {
        Rule::new(rule).message(message).reason(Reason::FieldValueInvalid).field_path(format!(".{field}"))
    };
    vec![
        rule(
            "schedule.defaultMember",
            "!has(self.schedule.defaultMember) || \
             self.members.exists(m, m.name == self.schedule.defaultMember)",
            "schedule.defaultMember must be the name of one of members; leave it out for nobody",
        ),
        rule(
            "schedule.windows",
            "!has(self.schedule.windows) || \
             self.schedule.windows.all(w, self.members.exists(m, m.name == w.member))",
            "schedule.windows: each member must be the name of one of members; correct it, or add that member",
        ),
        rule(
            "override.member",
            "!has(self.override) || !has(self.override.member) || \
             self.members.exists(m, m.name == self.override.member)",
            "override.member must be the name of one of members; leave it out for nobody",
        ),
        rule(
            "members",
            "self.members.all(m, self.members.exists_one(n, n.targetRef == m.targetRef))",
            "members: each targetRef must name another workload; put all containers of one into one member",
        ),
    ]
}

/// A drain is shared with kinds in which a pod can fail. Here a unit that is not done is stuck, whatever has kept it.
fn without_failed_pods(spec: &mut Value) {
    let drain = &mut spec["properties"]["members"]["items"]["properties"]["traffic"]["properties"]["drain"];
    let on_timeout = &mut drain["properties"]["onTimeout"];
    on_timeout["enum"] = json!(["Skip", "Proceed"]);
    on_timeout["description"] = json!(
        "Skip gives the pod its traffic back, and its unit is stuck; Proceed shrinks it although it may get traffic."
    );
}

/// Memory that moves can be missing on the way.
pub(super) fn memory_equal_unless_move() -> Rule {
    Rule::new(
        "self.memory == 'Move' || self.containers.all(c, !has(c.peak.memory) || !has(c.valley.memory) || \
         quantity(string(c.peak.memory)).compareTo(quantity(string(c.valley.memory))) == 0)",
    )
    .message(
        "memory of peak and valley must be equal with memory: Keep; make them equal, or set memory: Move",
    )
    .reason(Reason::FieldValueInvalid)
    .field_path(".containers")
}

/// Which resources a size decides cannot change with the size.
pub(super) fn same_keys() -> Rule {
    let same = RESOURCES.map(|resource| format!("has(self.peak.{resource}) == has(self.valley.{resource})"));
    Rule::new(same.join(" && "))
        .message(
            "peak and valley must have the same of cpu and memory; give each of them in both or in neither",
        )
        .reason(Reason::FieldValueInvalid)
        .field_path(".valley")
}

/// Whoever gives up the peak gives up room. Whole numbers are quantities too.
pub(super) fn peak_at_least_valley() -> Rule {
    let at_least = RESOURCES.map(|resource| {
        format!(
            "(!has(self.peak.{resource}) || !has(self.valley.{resource}) || \
             quantity(string(self.peak.{resource})).compareTo(quantity(string(self.valley.{resource}))) >= 0)"
        )
    });
    Rule::new(at_least.join(" && "))
        .message("peak must be at least valley in cpu and in memory; raise peak or lower valley")
        .reason(Reason::FieldValueInvalid)
        .field_path(".peak")
}

/// The pattern of a quantity sees strings alone, not numbers.
pub(super) fn valley_not_negative() -> Rule {
    let not_negative = RESOURCES.map(|resource| {
        format!(
            "(!has(self.valley.{resource}) || \
             !quantity(string(self.valley.{resource})).isLessThan(quantity('0')))"
        )
    });
    Rule::new(not_negative.join(" && "))
        .message("valley must not be negative; give what the container needs while it idles")
        .reason(Reason::FieldValueInvalid)
        .field_path(".valley")
}

/// A number of pods without a use, or a use without the number.
pub(super) fn trickle_iff_valley_trickle() -> Rule {
    Rule::new("has(self.trickle) == (self.valley == 'Trickle')")
        .message("trickle is for valley: Trickle, which needs it; set valley or remove trickle")
        .reason(Reason::FieldValueInvalid)
        .field_path(".trickle")
}

/// A weight picks no pods, and without a lever all keep their traffic.
pub(super) fn trickle_needs_pods() -> Rule {
    Rule::new("self.valley != 'Trickle' || self.mode == 'ServiceLabel' || self.mode == 'ReadinessGate'")
        .message(
            "valley: Trickle needs mode: ServiceLabel or ReadinessGate; with HTTPRoute give httpRoute.valleyWeight",
        )
        .reason(Reason::FieldValueInvalid)
        .field_path(".valley")
}

/// A backend without a use, or a use without the backend.
pub(super) fn http_route_iff_mode_http_route() -> Rule {
    Rule::new("has(self.httpRoute) == (self.mode == 'HTTPRoute')")
        .message("httpRoute is for mode: HTTPRoute, which needs it; set mode or remove httpRoute")
        .reason(Reason::FieldValueInvalid)
        .field_path(".httpRoute")
}

/// Traffic comes with the peak.
pub(super) fn peak_weight_at_least_valley_weight() -> Rule {
    Rule::new("self.peakWeight >= self.valleyWeight")
        .message("peakWeight must be at least valleyWeight; exchange the two")
        .reason(Reason::FieldValueInvalid)
        .field_path(".peakWeight")
}

/// A step that adds nothing would hold for nothing.
pub(super) fn steps_rise() -> Rule {
    // A rule has no index of its own: it walks through all that there may be.
    let indexes: Vec<String> = (0..STEPS_MAX - 1).map(|index| index.to_string()).collect();
    Rule::new(format!(
        "[{}].all(i, i + 1 >= self.steps.size() || self.steps[i].percent < self.steps[i + 1].percent)",
        indexes.join(", ")
    ))
    .message("steps must rise: give each a percent above that of the one before")
    .reason(Reason::FieldValueInvalid)
    .field_path(".steps")
}

/// A switch that left some units out would never end.
pub(super) fn last_step_is_all() -> Rule {
    // The schema wants one step at least, but a rule runs beside it.
    Rule::new("self.steps.size() == 0 || self.steps[self.steps.size() - 1].percent == 100")
        .message("the last of steps must have percent: 100; add it after a hold, to stop before the rest")
        .reason(Reason::FieldValueInvalid)
        .field_path(".steps")
}

/// Who gives up the peak is busy above a load, not below it.
pub(super) fn donor_max_load_is_an_upper_bound() -> Rule {
    Rule::new("!has(self.donorMaxLoad) || has(self.donorMaxLoad.failureAbove)")
        .message(
            "donorMaxLoad needs failureAbove, the load above which pods do not shrink; give it instead of \
             failureBelow",
        )
        .reason(Reason::FieldValueInvalid)
        .field_path(".donorMaxLoad")
}
