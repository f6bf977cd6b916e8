//! A field of the API that nobody reads or writes is a promise not kept.

use super::{Problem, Subject};

/// The controller's source reads each spec field and mentions each status
/// field, tests apart. A scan of the text: it finds the forgotten field, not
/// the field that is read in vain.
pub(super) fn wiring(subject: &Subject) -> Vec<Problem> {
    let controller = subject.kind.controller;
    let mut problems = Vec::new();
    subject.each_field(|node| {
        // Conditions are written through their own writer; open templates go to the pods whole.
        let of_condition = node.path.starts_with("status.conditions[");
        if !node.is_field() || node.in_open || of_condition || ["spec", "status"].contains(&node.path) {
            return;
        }
        let in_spec = node.path.starts_with("spec.");
        let problem = match in_spec {
            true if !subject.sources.reads(node.name) => "reads",
            false if !subject.sources.mentions(node.name) => "writes",
            true | false => return,
        };
        problems.push((
            node.path.to_owned(),
            format!("nothing in controllers/{controller}/src {problem} it; serve the field or leave it out of the CRD"),
        ));
    });
    problems
}
