//! The status contract: kstatus and `kubectl wait` work from the first moment.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Problem, Subject};

/// Conditions are a list-map whose items carry their generation; the three
/// summary types exist; the default status says "not seen yet". A kind without
/// conditions has no status at all.
pub(super) fn conditions(subject: &Subject) -> Vec<Problem> {
    let status = &subject.root["properties"]["status"];
    if !subject.kind.has_status() && status.is_null() {
        return Vec::new();
    }
    let conditions = &status["properties"]["conditions"];
    let item = &conditions["items"];
    let types: BTreeSet<&str> = subject.kind.reasons.iter().map(|row| row.condition).collect();
    let mut problems = Vec::new();
    let mut expect = |holds: bool, path: &str, problem: &str| {
        if !holds {
            problems.push((path.to_owned(), problem.to_owned()));
        }
    };

    expect(
        status["properties"]["observedGeneration"]["type"] == "integer",
        "status",
        "observedGeneration is missing",
    );
    expect(
        conditions["x-kubernetes-list-type"] == "map"
            && conditions["x-kubernetes-list-map-keys"] == serde_json::json!(["type"]),
        "status.conditions",
        "must be a list-map by type",
    );
    expect(
        requires(item, "observedGeneration"),
        "status.conditions[]",
        "each condition must carry observedGeneration",
    );
    expect(
        conditions["maxItems"].as_f64().is_some_and(|most| most == types.len() as f64),
        "status.conditions",
        "maxItems must be the number of documented condition types",
    );
    expect(
        types.contains("Ready") || types.contains("Complete"),
        "status.conditions",
        "a summary condition (Ready or Complete) is missing",
    );
    for needed in ["Reconciling", "Stalled"] {
        expect(types.contains(needed), "status.conditions", "Reconciling and Stalled must be documented");
    }

    let default = &status["default"];
    expect(default["observedGeneration"] == 0, "status", "the default must have observedGeneration 0");
    for (types, status) in
        [(["Ready", "Complete"].as_slice(), "Unknown"), (["Reconciling"].as_slice(), "True")]
    {
        let says = default["conditions"].as_array().into_iter().flatten().any(|condition| {
            types.iter().any(|type_| condition["type"] == *type_)
                && condition["status"] == status
                && condition["reason"] == "Pending"
        });
        expect(
            says,
            "status",
            "the default must have the summary Unknown and Reconciling True, both Pending",
        );
    }
    problems
}

fn requires(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name))
}
