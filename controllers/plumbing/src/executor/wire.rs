//! One write sent, and its answer as an outcome.

use super::Done;
use super::request::Request;
use crate::budget::{Permit, Report, Route, Signal};
use crate::client::{Answer, Identity, SendError, send as send_request};
use crate::dry_run::Verdict;
use crate::error::{FieldConflict, Refusal, WriteError};
use crate::plan::{Action, Patch, Write};
use http::StatusCode;
use kube::core::Status;
use kube::core::response::reason;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Deadline of a write on our side: the longest that it is under way.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);

#[allow(clippy::disallowed_types, reason = "the one place that writes")]
pub(super) async fn send(
    client: &kube::Client,
    controller: &str,
    write: &Write,
    // No request leaves without one, and the budget learns from each answer.
    permit: &Permit<'_>,
) -> Result<Done, WriteError> {
    let Request { method, path, content_type, body } = Request::of(controller, write);
    let sent = Instant::now();
    let answer = send_request(client, method, &path, content_type, body, WRITE_DEADLINE).await;
    let level = answer.as_ref().ok().and_then(|answer| answer.priority_level.as_deref());
    let report = Report { route: Route::of(write), level, signal: signal(&answer), sent };
    let hold = permit.report(&report);
    received(&write.action, answer, hold.unwrap_or_default())
}

/// Asks what a write would come to, by the rights of the client: for a person, whom no budget bounds. Nothing is stored.
///
/// # Errors
/// The question was not answered. What is no question is not sent.
#[allow(clippy::disallowed_types, reason = "the one place that writes")]
pub async fn ask(client: &kube::Client, controller: &str, write: &Write) -> Result<Done, WriteError> {
    if !matches!(write.action, Action::DryRun { .. }) {
        return Err(WriteError::NotSent("it is no dry run".to_owned()));
    }
    let Request { method, path, content_type, body } = Request::of(controller, write);
    let answer = send_request(client, method, &path, content_type, body, WRITE_DEADLINE).await;
    received(&write.action, answer, Duration::ZERO)
}

/// `hold` is how long a 429 keeps its priority level closed.
fn received(action: &Action, answer: Result<Answer, SendError>, hold: Duration) -> Result<Done, WriteError> {
    match answer {
        Ok(answer) => read(action, &answer, hold),
        Err(SendError::NotSent(error)) => Err(WriteError::NotSent(error)),
        Err(SendError::Fenced) => Err(WriteError::NotLeading),
        Err(SendError::Lost(error)) => Err(WriteError::Unknown(error)),
        Err(error @ SendError::TimedOut(_)) => Err(WriteError::Unknown(error.to_string())),
    }
}

/// What an answer tells of how the server bears its load.
fn signal(answer: &Result<Answer, SendError>) -> Signal {
    match answer {
        Ok(answer) => match answer.code {
            // It has looked at the pods and refuses for their sake.
            StatusCode::TOO_MANY_REQUESTS if is_of_disruption_budget(&answer.status()) => Signal::Answered,
            StatusCode::TOO_MANY_REQUESTS => Signal::TooManyRequests { retry_after: answer.retry_after },
            // 408: the body of the request took too long, or what the server did for it.
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => {
                Signal::Overloaded
            }
            code if code.is_server_error() => Signal::Unclear,
            _ => Signal::Answered,
        },
        Err(SendError::TimedOut(_)) => Signal::Overloaded,
        Err(SendError::NotSent(_) | SendError::Fenced | SendError::Lost(_)) => Signal::Unclear,
    }
}

fn read(action: &Action, answer: &Answer, hold: Duration) -> Result<Done, WriteError> {
    match action {
        Action::DryRun { of, .. } => read_dry_run(of, answer, hold),
        Action::Create { .. }
        | Action::Delete { .. }
        | Action::Patch { .. }
        | Action::Apply { .. }
        | Action::Evict { .. }
        | Action::Status { .. } => read_write(action, answer, hold),
    }
}

fn read_write(action: &Action, answer: &Answer, hold: Duration) -> Result<Done, WriteError> {
    if answer.code.is_success() {
        let resource_version = Identity::of_json(&answer.body).map(|identity| identity.resource_version);
        return Ok(Done { resource_version, ..Done::default() });
    }
    let status = answer.status();
    let creates = matches!(action, Action::Create { .. });
    let held = FieldConflict::from_status(&status);
    Err(match answer.code {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::FORBIDDEN if is_of_disruption_budget(&status) => {
            WriteError::DisruptionBudget(disruption_budget(status))
        }
        StatusCode::INTERNAL_SERVER_ERROR if is_of_two_budgets(action, &status) => {
            WriteError::DisruptionBudget(status.message)
        }
        StatusCode::TOO_MANY_REQUESTS => WriteError::Busy { retry_after: hold },
        StatusCode::CONFLICT if status.reason == reason::ALREADY_EXISTS => WriteError::AlreadyExists,
        StatusCode::CONFLICT if !held.is_empty() => WriteError::FieldConflict(held),
        StatusCode::CONFLICT if is_another_incarnation(&status) => WriteError::Gone,
        StatusCode::CONFLICT => WriteError::Conflict(status.message),
        StatusCode::NOT_FOUND if !creates => WriteError::Gone,
        StatusCode::UNPROCESSABLE_ENTITY if is_of_uid(action, &status) => WriteError::Gone,
        StatusCode::UNPROCESSABLE_ENTITY if is_failed_test(action, &status) => {
            WriteError::Conflict("a value that the patch tests differs".to_owned())
        }
        code if code.is_server_error() || code == StatusCode::REQUEST_TIMEOUT => {
            WriteError::Unknown(format!("{} {}", code.as_u16(), status.message))
        }
        _ => WriteError::Refused(Refusal::from_status(&status)),
    })
}

/// What the server would not store is an answer too; what it was not asked about is none.
fn read_dry_run(of: &Action, answer: &Answer, hold: Duration) -> Result<Done, WriteError> {
    let verdict = match read(of, answer, hold) {
        Ok(_) => Verdict::Accepted(Arc::new(serde_json::from_slice(&answer.body).unwrap_or_default())),
        Err(WriteError::Refused(refusal)) if refusal.code != 401 && !refusal.is_missing_right() => {
            Verdict::Refused(refusal)
        }
        Err(WriteError::FieldConflict(held)) => Verdict::FieldConflict(held),
        Err(WriteError::DisruptionBudget(message)) => Verdict::DisruptionBudget(message),
        Err(error) => return Err(error),
    };
    Ok(Done { dry_run: Some(verdict), ..Done::default() })
}

/// Whether an eviction is refused for a PodDisruptionBudget: `DisruptionBudgetCause` of `policy/v1`.
fn is_of_disruption_budget(status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| details.causes.iter());
    causes.any(|cause| cause.reason == "DisruptionBudget")
}

/// Whether an eviction is refused as two budgets concern the pod, which kube-apiserver says with a 500 and in words alone
/// (`eviction.go`).
fn is_of_two_budgets(action: &Action, status: &Status) -> bool {
    matches!(action, Action::Evict { .. }) && status.message.contains("more than one PodDisruptionBudget")
}

/// Which budget it was, and what it says: the message is the same for all.
fn disruption_budget(status: Status) -> String {
    let mut causes = status.details.iter().flat_map(|details| details.causes.iter());
    let named = causes.find(|cause| cause.reason == "DisruptionBudget" && !cause.message.is_empty());
    named.map_or(status.message.clone(), |cause| cause.message.clone())
}

/// Whether another object was found under the name: the one that the write was for is gone. The server has no
/// machine-readable word for it: `BeforeDelete` of apiserver's `registry/rest`, `Preconditions.Check` of its
/// `storage` and `applyPatch` of its `endpoints/handlers`.
fn is_another_incarnation(status: &Status) -> bool {
    ["the UID in the precondition", "UID in precondition:", "uid mismatch:"]
        .iter()
        .any(|words| status.message.contains(words))
}

/// The same for what is merged, where the UID is a field that cannot change.
fn is_of_uid(action: &Action, status: &Status) -> bool {
    let mut causes = status.details.iter().flat_map(|details| details.causes.iter());
    match action {
        Action::Apply { .. } | Action::Patch { patch: Patch::Merge(_) | Patch::Strategic(_), .. } => {
            causes.any(|cause| cause.field == "metadata.uid")
        }
        Action::Patch { patch: Patch::Json { .. }, .. }
        | Action::Create { .. }
        | Action::Delete { .. }
        | Action::Evict { .. }
        | Action::Status { .. }
        | Action::DryRun { .. } => false,
    }
}

/// A JSON patch that cannot be applied, be it for a failed `test` or a missing path, is answered with
/// 422 and no cause. An object that is invalid after the patch is a 422 too, with causes.
fn is_failed_test(action: &Action, status: &Status) -> bool {
    let explained = status.details.as_ref().is_some_and(|details| !details.causes.is_empty());
    match action {
        Action::Patch { patch: Patch::Json { .. }, .. } | Action::Status { .. } => !explained,
        Action::Patch { patch: Patch::Merge(_) | Patch::Strategic(_), .. }
        | Action::Create { .. }
        | Action::Delete { .. }
        | Action::Apply { .. }
        | Action::Evict { .. }
        | Action::DryRun { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{ResourceVersion, Uid};
    use crate::plan::{Fields, Part, remove_finalizer};
    use serde_json::{Value, json};

    fn answer(code: u16, body: Value) -> Answer {
        Answer {
            code: StatusCode::from_u16(code).unwrap(),
            retry_after: None,
            priority_level: None,
            body: body.to_string().into_bytes().into(),
        }
    }

    fn outcome(action: &Action, code: u16, body: Value) -> Result<Done, WriteError> {
        read(action, &answer(code, body), Duration::ZERO)
    }

    fn uid() -> Uid {
        Uid("u".into())
    }

    fn create() -> Action {
        Action::Create { manifest: json!({"kind": "Pod"}) }
    }

    fn delete() -> Action {
        Action::Delete { uid: uid(), resource_version: Some(ResourceVersion(7)), grace_seconds: Some(5) }
    }

    fn unfinalize() -> Action {
        remove_finalizer(&uid(), &["f".into()], "f").unwrap()
    }

    fn status() -> Action {
        let (status, stored) = (json!({"active": 1}), json!({}));
        Action::Status { uid: uid(), resource_version: ResourceVersion(7), status, stored }
    }

    fn merge() -> Action {
        let fields = Fields { uid: uid(), resource_version: None, fields: json!({"spec": {"paused": true}}) };
        Action::Patch { part: Part::Main, patch: Patch::Strategic(fields) }
    }

    fn apply() -> Action {
        Action::Apply {
            part: Part::Main,
            manager: "springtide-a",
            uid: uid(),
            resource_version: None,
            fields: json!({"spec": {"paused": true}}),
            force: false,
        }
    }

    fn evict() -> Action {
        Action::Evict { uid: uid(), resource_version: None, grace_seconds: None }
    }

    fn caused(code: u16, reason: &str, cause: Value) -> Value {
        json!({
            "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no",
            "details": {"causes": [cause]},
        })
    }

    /// As `createTooManyRequestsError` and `checkAndDecrement` of kube-apiserver's `eviction.go` answer.
    fn budget_says_no(code: u16) -> Value {
        let cause = json!({"reason": "DisruptionBudget", "message": "The disruption budget web needs 3"});
        caused(code, "TooManyRequests", cause)
    }

    #[test]
    fn answers_become_outcomes() {
        let read = |action: &Action, code, body| outcome(action, code, body);
        let object = json!({"metadata": {"uid": "u", "resourceVersion": "9"}});
        for action in [create(), merge(), apply(), unfinalize(), status()] {
            let version = read(&action, 200, object.clone()).unwrap().resource_version;
            assert_eq!(version, Some(ResourceVersion(9)), "{action:?}");
        }
        for action in [delete(), evict()] {
            let success = json!({"kind": "Status", "status": "Success"});
            assert_eq!(read(&action, 201, success).unwrap(), Done::default(), "{action:?}");
        }
        let exists = json!({"reason": "AlreadyExists", "code": 409});
        assert!(matches!(read(&create(), 409, exists), Err(WriteError::AlreadyExists)));
        for action in [delete(), evict(), merge(), apply(), unfinalize(), status()] {
            let changed = json!({"reason": "Conflict"});
            assert!(matches!(read(&action, 409, changed), Err(WriteError::Conflict(_))), "{action:?}");
            assert!(matches!(read(&action, 404, json!({})), Err(WriteError::Gone)), "{action:?}");
            assert!(matches!(read(&action, 500, json!({})), Err(WriteError::Unknown(_))), "{action:?}");
            assert!(matches!(read(&action, 429, json!({})), Err(WriteError::Busy { .. })), "{action:?}");
        }
        assert!(matches!(read(&create(), 404, json!({})), Err(WriteError::Refused(_))));
        assert!(matches!(read(&create(), 500, json!({})), Err(WriteError::Unknown(_))));
        assert!(matches!(read(&create(), 429, json!({})), Err(WriteError::Busy { .. })));
        for action in [unfinalize(), status()] {
            assert!(matches!(read(&action, 422, json!({})), Err(WriteError::Conflict(_))), "{action:?}");
        }
        let invalid = || caused(422, "Invalid", json!({"field": "spec.paused", "message": "no"}));
        for action in [unfinalize(), status(), merge(), apply()] {
            assert!(matches!(read(&action, 422, invalid()), Err(WriteError::Refused(_))), "{action:?}");
        }
        for action in [create(), merge(), apply()] {
            let no_patch = json!({});
            assert!(matches!(read(&action, 422, no_patch), Err(WriteError::Refused(_))), "{action:?}");
        }
    }

    #[test]
    fn another_incarnation_is_no_conflict() {
        for (action, message) in [
            (delete(), "the UID in the precondition (u) does not match the UID in record (v)"),
            (evict(), "the UID in the precondition (u) does not match the UID in record (v)"),
            (evict(), "Precondition failed: UID in precondition: u, UID in object meta: v"),
            (merge(), "Precondition failed: UID in precondition: u, UID in object meta: v"),
            (apply(), "uid mismatch: the provided object specified uid u, and no existing object was found"),
        ] {
            let other = json!({"message": message, "reason": "Conflict"});
            assert!(matches!(outcome(&action, 409, other), Err(WriteError::Gone)), "{message}");
        }
        let immutable = || caused(422, "Invalid", json!({"field": "metadata.uid", "message": "immutable"}));
        for action in [merge(), apply()] {
            assert!(matches!(outcome(&action, 422, immutable()), Err(WriteError::Gone)), "{action:?}");
        }
        assert!(matches!(outcome(&unfinalize(), 422, immutable()), Err(WriteError::Refused(_))));
    }

    #[test]
    fn a_conflict_over_fields_is_told_from_an_old_view() {
        let cause = json!({
            "reason": "FieldManagerConflict", "message": "conflict with \"flux\"", "field": ".spec.paused",
        });
        let Err(WriteError::FieldConflict(held)) = outcome(&apply(), 409, caused(409, "Conflict", cause))
        else {
            panic!("a conflict over fields")
        };
        assert_eq!(held, [FieldConflict { manager: "flux".to_owned(), field: ".spec.paused".to_owned() }]);
    }

    #[test]
    fn a_disruption_budget_is_told_from_a_server_that_is_busy() {
        for code in [429, 403] {
            let Err(WriteError::DisruptionBudget(message)) = outcome(&evict(), code, budget_says_no(code))
            else {
                panic!("{code}")
            };
            assert_eq!(message, "The disruption budget web needs 3");
            assert_eq!(signal(&Ok(answer(code, budget_says_no(code)))), Signal::Answered, "{code}");
        }
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        let two = json!({"kind": "Status", "status": "Failure", "code": 500, "message": message});
        assert!(matches!(outcome(&evict(), 500, two), Err(WriteError::DisruptionBudget(_))));
    }

    #[test]
    fn a_dry_run_that_is_denied_is_answered() {
        let asked = |action: Action, code, body| outcome(&action.dry_run("q"), code, body);
        let stored = json!({"metadata": {"uid": "u", "resourceVersion": "9"}, "spec": {"paused": true}});
        let done = asked(apply(), 200, stored.clone()).unwrap();
        assert_eq!(done, Done { dry_run: Some(Verdict::Accepted(Arc::new(stored))), ..Done::default() });

        let message = "admission webhook \"images.example\" denied the request: not signed";
        for code in [400, 403, 422] {
            let denied = json!({"kind": "Status", "status": "Failure", "code": code, "message": message});
            let Some(Verdict::Refused(refusal)) = asked(merge(), code, denied).unwrap().dry_run else {
                panic!("{code}")
            };
            assert_eq!((refusal.code, refusal.message.as_str()), (code, message));
        }
        assert_eq!(
            asked(evict(), 429, budget_says_no(429)).unwrap().dry_run,
            Some(Verdict::DisruptionBudget("The disruption budget web needs 3".to_owned()))
        );
        // What says nothing of the question is no answer.
        let unauthorized = "User \"x\" cannot patch resource \"pods\" in API group \"\"";
        let forbidden = json!({"code": 403, "reason": "Forbidden", "message": unauthorized});
        assert!(matches!(asked(merge(), 403, forbidden), Err(WriteError::Refused(_))));
        assert!(matches!(asked(merge(), 401, json!({})), Err(WriteError::Refused(_))));
        assert!(matches!(asked(merge(), 404, json!({})), Err(WriteError::Gone)));
        assert!(matches!(asked(merge(), 409, json!({})), Err(WriteError::Conflict(_))));
        assert!(matches!(asked(merge(), 429, json!({})), Err(WriteError::Busy { .. })));
        assert!(matches!(asked(merge(), 500, json!({})), Err(WriteError::Unknown(_))));
    }

    #[tokio::test]
    async fn only_questions_are_sent_for_a_person() {
        // Port 1 on loopback: nothing listens there.
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let client = crate::client::Connection::from_config(config).client("test").unwrap();
        let asked = |action: Action| {
            let (resource, key) = (crate::key::Resource::POD, crate::key::ObjectKey::new("ns", "p"));
            let write = Write { resource, key, class: crate::plan::WriteClass::Spec, action };
            let client = client.clone();
            async move { ask(&client, "a", &write).await.unwrap_err().to_string() }
        };
        assert_eq!(asked(delete()).await, "not sent: it is no dry run");
        let sent = asked(delete().dry_run("q")).await;
        assert!(sent.starts_with("not sent: ") && !sent.contains("dry run"), "{sent}");
    }

    #[test]
    fn answers_tell_how_the_server_bears_its_load() {
        let of = |code| signal(&Ok(answer(code, json!({}))));
        for code in [200, 201, 403, 404, 409, 422] {
            assert_eq!(of(code), Signal::Answered, "{code}");
        }
        for code in [408, 503, 504] {
            assert_eq!(of(code), Signal::Overloaded, "{code}");
        }
        assert_eq!(of(429), Signal::TooManyRequests { retry_after: None });
        assert_eq!(of(500), Signal::Unclear);
        assert_eq!(signal(&Err(SendError::TimedOut(WRITE_DEADLINE))), Signal::Overloaded);
        assert_eq!(signal(&Err(SendError::Lost("reset".to_owned()))), Signal::Unclear);
    }
}
