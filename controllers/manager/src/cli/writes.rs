//! What several commands say of writes: those that the manager is about to send, and dry runs of such.

use super::text::count;
use serde::Serialize;
use springtide_plumbing::dry_run::Verdict as Answered;
use springtide_plumbing::executor::WriteResult;
use springtide_plumbing::rehearsal::PlannedWrite;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Writes that are told of one by one.
const WRITES_TOLD: usize = 20;
/// Longest body of a write that is printed.
const BODY_MAX: usize = 4000;

/// One dry run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Check {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
    /// `Accepted`, `Refused`, or `NotAsked`: then it counts as accepted.
    pub(super) verdict: &'static str,
    /// The server's words, or why it was not asked.
    pub(super) message: String,
}

impl Check {
    pub(super) fn of(result: &WriteResult) -> Self {
        let WriteResult { write, outcome } = result;
        let (verdict, message) = match outcome.as_ref().map(|done| &done.dry_run) {
            Ok(Some(Answered::Accepted(_))) => ("Accepted", String::new()),
            Ok(Some(Answered::Refused(refusal))) => ("Refused", refusal.message.clone()),
            Ok(Some(Answered::FieldConflict(held))) => {
                let held: Vec<String> = held.iter().map(ToString::to_string).collect();
                ("Refused", format!("held by other field managers: {}", held.join("; ")))
            }
            Ok(Some(Answered::DisruptionBudget(message))) => ("Refused", message.clone()),
            Ok(None) => ("NotAsked", String::new()),
            Err(error) => ("NotAsked", error.to_string()),
        };
        let told = PlannedWrite::of(write);
        Self {
            kind: told.kind,
            namespace: told.namespace,
            name: told.name,
            subresource: told.subresource,
            verdict,
            message,
        }
    }

    pub(super) fn text(&self) -> String {
        let Self { kind, name, subresource, verdict, message, .. } = self;
        let part = if subresource.is_empty() { String::new() } else { format!("/{subresource}") };
        let said = match *verdict {
            "Accepted" => "the API server would take it",
            "Refused" => "the API server refuses it: ",
            _ => "NOT asked, and taken to be accepted: ",
        };
        format!("{}{part} {name}: {said}{message}", kind.to_lowercase())
    }
}

/// All that the manager would write now.
pub(super) fn now_written(text: &mut String, next: &[PlannedWrite]) {
    if next.is_empty() {
        let _ = writeln!(text, "\nThe manager would write nothing now.");
        return;
    }
    let _ = writeln!(text, "\nThe manager would write now ({}):", count(next.len(), "write"));
    for write in next.iter().take(WRITES_TOLD) {
        write_line(text, write);
    }
    if next.len() > WRITES_TOLD {
        let _ = writeln!(text, "  and {} more", next.len() - WRITES_TOLD);
    }
}

/// A write with its body, where that is not too long for a line that somebody reads.
pub(super) fn write_line(text: &mut String, write: &PlannedWrite) {
    let PlannedWrite { verb, namespace, name, form, body, .. } = write;
    let body = body.to_string();
    let shown = match (form.as_str(), body.len()) {
        ("status", _) => "  its new status".to_owned(),
        (form, size) if size > BODY_MAX => format!("  {form} of {size} bytes"),
        (form, _) => format!("  {form} {body}"),
    };
    let _ = writeln!(text, "  {verb} {} {namespace}/{name}{shown}", write.resource());
}

/// What the manager is about to write, objects of one kind together. That the object says so of itself is no news.
pub(super) fn next(writes: &[PlannedWrite], own_kind: &str) -> Vec<String> {
    let mut groups: BTreeMap<(String, &str), Vec<&str>> = BTreeMap::new();
    for write in writes.iter().filter(|write| write.kind != own_kind) {
        groups.entry((write.resource(), write.verb.as_str())).or_default().push(&write.name);
    }
    let mut said: Vec<String> = groups
        .into_iter()
        .map(|((resource, verb), names)| {
            let first = names.first().copied().unwrap_or_default();
            let more = if names.len() > 1 { ", ..." } else { "" };
            let many = count(names.len(), "object");
            format!("the manager is about to {verb} {resource} of {many} ({first}{more})")
        })
        .collect();
    if !said.is_empty() {
        said.push(
            "if that does not happen within seconds, look whether a manager runs and may write".to_owned(),
        );
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use springtide_plumbing::error::{FieldConflict, Refusal, WriteError};
    use springtide_plumbing::executor::Done;
    use springtide_plumbing::key::{ObjectKey, Resource, Uid};
    use springtide_plumbing::plan::{Action, Fields, Part, Patch, Write, WriteClass};
    use std::sync::Arc;

    fn answered(outcome: Result<Done, WriteError>) -> WriteResult {
        let fields = Fields { uid: Uid("uid-2".into()), resource_version: None, fields: json!({}) };
        let action = Action::Patch { part: Part::Resize, patch: Patch::Strategic(fields) };
        let key = ObjectKey::new("team-a", "web-2");
        let write =
            Write { resource: Resource::POD, key, class: WriteClass::Spec, action: action.dry_run("q") };
        WriteResult { write, outcome }
    }

    fn accepted() -> Done {
        Done { dry_run: Some(Answered::Accepted(Arc::new(json!({})))), ..Done::default() }
    }

    #[test]
    fn a_check_says_what_the_server_said_or_why_it_was_not_asked() {
        let refusal = |message: &str| Refusal {
            code: 403,
            reason: "Forbidden".to_owned(),
            message: message.to_owned(),
            fields: Vec::new(),
        };
        let refused = Answered::Refused(refusal("webhook images: not signed"));
        let held = FieldConflict { manager: "flux".to_owned(), field: ".spec.template".to_owned() };
        let says = |verdict| Ok(Done { dry_run: Some(verdict), ..Done::default() });
        let cases = [
            (Ok(accepted()), "Accepted", ""),
            (says(refused), "Refused", "webhook images: not signed"),
            (
                says(Answered::FieldConflict(vec![held])),
                "Refused",
                "held by other field managers: .spec.template by flux",
            ),
            (
                Err(WriteError::Refused(refusal("no right"))),
                "NotAsked",
                "refused with 403 Forbidden: no right",
            ),
        ];
        for (outcome, verdict, message) in cases {
            let check = Check::of(&answered(outcome));
            assert_eq!((check.verdict, check.message.as_str()), (verdict, message));
            assert_eq!((check.kind.as_str(), check.subresource.as_str()), ("Pod", "resize"));
        }
        let unasked = Check::of(&answered(Err(WriteError::Unknown("reset".to_owned()))));
        let said = unasked.text();
        assert!(
            said.starts_with("pod/resize web-2: NOT asked, and taken to be accepted: ")
                && said.ends_with("reset")
        );
    }
}
