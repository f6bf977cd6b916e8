//! One write as one HTTP request, and its answer as an outcome.

use super::Done;
use crate::budget::{Permit, Report, Route, Signal};
use crate::client::{Answer, Identity, SendError, send as send_request};
use crate::error::{Refusal, WriteError};
use crate::plan::{Action, Write};
use http::{Method, StatusCode};
use kube::core::Status;
use kube::core::response::reason;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// Deadline of a write on our side: the longest that it is under way.
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Deadline in the request: the server gives up first, so an answer after it cannot come.
const SERVER_TIMEOUT: &str = "8s";

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
    match answer {
        Ok(answer) => read(write, &answer, hold.unwrap_or_default()),
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

/// A write as it goes out.
#[derive(Debug, PartialEq)]
struct Request {
    method: Method,
    path: String,
    content_type: &'static str,
    body: Vec<u8>,
}

impl Request {
    fn of(controller: &str, write: &Write) -> Self {
        let object = write.resource.object_path(&write.key);
        let query = format!("timeout={SERVER_TIMEOUT}&fieldManager=springtide-{controller}");
        match &write.action {
            Action::Create { manifest } => Self {
                method: Method::POST,
                path: format!("{}?{query}", write.resource.collection_path(Some(&write.key.namespace))),
                content_type: "application/json",
                body: manifest.to_string().into_bytes(),
            },
            Action::Delete { uid, resource_version, grace_seconds } => {
                let mut preconditions = json!({"uid": uid});
                if let Some(version) = resource_version {
                    preconditions["resourceVersion"] = version.to_string().into();
                }
                let mut options = json!({
                    "apiVersion": "v1",
                    "kind": "DeleteOptions",
                    "propagationPolicy": "Background",
                    "preconditions": preconditions,
                });
                if let Some(seconds) = grace_seconds {
                    options["gracePeriodSeconds"] = (*seconds).into();
                }
                Self {
                    method: Method::DELETE,
                    path: format!("{object}?timeout={SERVER_TIMEOUT}"),
                    content_type: "application/json",
                    body: options.to_string().into_bytes(),
                }
            }
            Action::Patch { operations } => Self {
                method: Method::PATCH,
                path: format!("{object}?{query}"),
                content_type: "application/json-patch+json",
                body: operations.to_string().into_bytes(),
            },
            // The server compares a resourceVersion that is written: 409 when it differs. A uid that is
            // written is ignored for custom resources, so that is tested: 422.
            Action::Status { uid, resource_version, status, .. } => Self {
                method: Method::PATCH,
                path: format!("{object}/status?{query}"),
                content_type: "application/json-patch+json",
                body: json!([
                    {"op": "test", "path": "/metadata/uid", "value": uid},
                    {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version.to_string()},
                    {"op": "add", "path": "/status", "value": status},
                ])
                .to_string()
                .into_bytes(),
            },
        }
    }
}

/// `hold` is how long a 429 keeps its priority level closed.
fn read(write: &Write, answer: &Answer, hold: Duration) -> Result<Done, WriteError> {
    if answer.code.is_success() {
        let resource_version = Identity::of_json(&answer.body).map(|identity| identity.resource_version);
        return Ok(Done { resource_version, noop: false });
    }
    let creates = matches!(write.action, Action::Create { .. });
    let status = answer.status();
    Err(match answer.code {
        StatusCode::TOO_MANY_REQUESTS => WriteError::Busy { retry_after: hold },
        StatusCode::CONFLICT if status.reason == reason::ALREADY_EXISTS => WriteError::AlreadyExists,
        StatusCode::CONFLICT if is_another_incarnation(&status) => WriteError::Gone,
        StatusCode::CONFLICT => WriteError::Conflict(status.message),
        StatusCode::NOT_FOUND if !creates => WriteError::Gone,
        StatusCode::UNPROCESSABLE_ENTITY if is_failed_test(write, &status) => {
            WriteError::Conflict("a value that the patch tests differs".to_owned())
        }
        code if code.is_server_error() || code == StatusCode::REQUEST_TIMEOUT => {
            WriteError::Unknown(format!("{} {}", code.as_u16(), status.message))
        }
        _ => WriteError::Refused(Refusal::from_status(&status)),
    })
}

/// Whether a delete found another object under the name: the one that it was for is gone. The server
/// has no machine-readable word for it.
fn is_another_incarnation(status: &Status) -> bool {
    status.message.contains("the UID in the precondition")
}

/// A JSON patch that cannot be applied, be it for a failed `test` or a missing path, is answered with
/// 422 and no cause. An object that is invalid after the patch is a 422 too, with causes.
fn is_failed_test(write: &Write, status: &Status) -> bool {
    let explained = status.details.as_ref().is_some_and(|details| !details.causes.is_empty());
    match &write.action {
        Action::Patch { .. } | Action::Status { .. } => !explained,
        Action::Create { .. } | Action::Delete { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{ObjectKey, Resource, ResourceVersion, Uid};
    use crate::plan::{WriteClass, remove_finalizer};
    use serde_json::Value;

    fn write(action: Action) -> Write {
        Write { resource: Resource::POD, key: ObjectKey::new("ns", "p"), class: WriteClass::Spec, action }
    }

    fn answer(code: u16, body: Value) -> Answer {
        Answer {
            code: StatusCode::from_u16(code).unwrap(),
            retry_after: None,
            priority_level: None,
            body: body.to_string().into_bytes().into(),
        }
    }

    fn create() -> Write {
        write(Action::Create { manifest: json!({"kind": "Pod"}) })
    }

    fn delete() -> Write {
        write(Action::Delete {
            uid: Uid("u".into()),
            resource_version: Some(ResourceVersion(7)),
            grace_seconds: Some(5),
        })
    }

    fn unfinalize() -> Write {
        write(remove_finalizer(&Uid("u".into()), &["f".into()], "f").unwrap())
    }

    fn status() -> Write {
        write(Action::Status {
            uid: Uid("u".into()),
            resource_version: ResourceVersion(7),
            status: json!({"active": 1}),
            stored: json!({}),
        })
    }

    #[test]
    fn every_write_carries_its_precondition_and_the_servers_deadline() {
        let sent = Request::of("batch-job", &delete());
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(body["preconditions"], json!({"uid": "u", "resourceVersion": "7"}));
        assert_eq!(body["gracePeriodSeconds"], 5);

        let sent = Request::of("batch-job", &status());
        assert!(sent.path.starts_with("/api/v1/namespaces/ns/pods/p/status?timeout=8s"));
        let body: Value = serde_json::from_slice(&sent.body).unwrap();
        assert_eq!(body[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
        assert_eq!(body[1]["value"], "7");

        let sent = Request::of("batch-job", &create());
        assert_eq!(sent.path, "/api/v1/namespaces/ns/pods?timeout=8s&fieldManager=springtide-batch-job");
    }

    #[test]
    fn answers_become_outcomes() {
        let read = |write: &Write, code, body| read(write, &answer(code, body), Duration::ZERO);
        let object = json!({"metadata": {"uid": "u", "resourceVersion": "9"}});
        assert_eq!(read(&create(), 201, object).unwrap().resource_version, Some(ResourceVersion(9)));
        assert_eq!(read(&delete(), 200, json!({"kind": "Status"})).unwrap().resource_version, None);
        let exists = json!({"reason": "AlreadyExists", "code": 409});
        assert!(matches!(read(&create(), 409, exists), Err(WriteError::AlreadyExists)));
        assert!(matches!(read(&delete(), 409, json!({"reason": "Conflict"})), Err(WriteError::Conflict(_))));
        assert!(matches!(read(&delete(), 404, json!({})), Err(WriteError::Gone)));
        assert!(matches!(read(&create(), 404, json!({})), Err(WriteError::Refused(_))));
        assert!(matches!(read(&unfinalize(), 422, json!({})), Err(WriteError::Conflict(_))));
        assert!(matches!(read(&create(), 422, json!({})), Err(WriteError::Refused(_))));
        assert!(matches!(read(&status(), 422, json!({})), Err(WriteError::Conflict(_))));
        let invalid = json!({"details": {"causes": [{"field": "status.active", "message": "no"}]}});
        assert!(matches!(read(&status(), 422, invalid.clone()), Err(WriteError::Refused(_))));
        assert!(matches!(read(&unfinalize(), 422, invalid), Err(WriteError::Refused(_))));
        let other =
            json!({"message": "the UID in the precondition (u) does not match", "reason": "Conflict"});
        assert!(matches!(read(&delete(), 409, other), Err(WriteError::Gone)));
        assert!(matches!(read(&create(), 500, json!({})), Err(WriteError::Unknown(_))));
        assert!(matches!(read(&create(), 429, json!({})), Err(WriteError::Busy { .. })));
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
