//! What can go wrong with a write, and what each class of error means for the next pass.

use crate::budget::Throttled;
use crate::guard::Withheld;
use crate::key::Resource;
use kube::core::Status;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// Every failure belongs to exactly one class; the class decides the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// 5xx, reset, time-out: it may work the next time. Backoff.
    Transient,
    /// 409 or a failed precondition: decided on an old view. Planned again when the store has caught up.
    Conflict,
    /// 422, 400, 404 of something referred to: only a change by the user helps.
    UserConfig,
    /// 403: missing right or quota. Backoff from 30 s.
    Forbidden,
    /// 413: the object is too large. Backoff from 300 s.
    TooLarge,
    /// A defect of ours: panic, impossible answer. Backoff from 300 s.
    Bug,
}

impl ErrorClass {
    /// All classes, for metrics that start at zero.
    pub const ALL: [Self; 6] =
        [Self::Transient, Self::Conflict, Self::UserConfig, Self::Forbidden, Self::TooLarge, Self::Bug];

    /// The least backoff before the next pass: it doubles from there.
    pub fn backoff_floor(self) -> Duration {
        match self {
            Self::Transient | Self::Conflict | Self::UserConfig => Duration::ZERO,
            Self::Forbidden => Duration::from_secs(30),
            Self::TooLarge | Self::Bug => Duration::from_secs(300),
        }
    }

    /// The class of an HTTP status that the API server answered to a write.
    pub fn of_http(code: u16) -> Self {
        match code {
            409 => Self::Conflict,
            401 | 403 => Self::Forbidden,
            413 => Self::TooLarge,
            400 | 404 | 405 | 415 | 422 => Self::UserConfig,
            // 408, 429 and the 5xx; an unfamiliar code is worth another try.
            _ => Self::Transient,
        }
    }

    /// The label value in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Conflict => "conflict",
            Self::UserConfig => "user_config",
            Self::Forbidden => "forbidden",
            Self::TooLarge => "too_large",
            Self::Bug => "bug",
        }
    }
}

/// Why one write did not succeed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// No budget now; nothing was sent, and the key is in line for it.
    #[error("write budget: {0}")]
    Throttled(Throttled),
    /// The server asked for a pause (429); nothing was stored.
    #[error("the API server asked to be left alone; nothing goes out for {} ms", .retry_after.as_millis())]
    Busy {
        /// How long the write budget sends nothing on the priority level: the server's Retry-After, else
        /// one second, and up to a quarter more.
        retry_after: Duration,
    },
    /// This process may not write now: it does not hold the lease, or its fence has closed.
    #[error("not the leader")]
    NotLeading,
    /// Brake, observe mode, delete protection or breaker; nothing was sent.
    #[error("not sent: {0}")]
    Withheld(Withheld),
    /// A store behind the plan has not heard from the server for too long: nothing is destroyed on its
    /// word.
    #[error("not sent, as the store of {0} is stale")]
    StaleStore(Resource),
    /// Somebody else undoes what we write to the object again and again, so writes to it keep a distance.
    #[error("another client keeps undoing this; not sent for now")]
    Contested {
        /// When it may go out.
        until: Instant,
    },
    /// An earlier write of the same pass failed, or the plan held too many; nothing was sent.
    #[error("not sent: left for the next plan, as an earlier write did not succeed or there were too many")]
    Skipped,
    /// POST of a name that is taken.
    #[error("an object of this name exists already")]
    AlreadyExists,
    /// The object is not there any more (404 or another UID).
    #[error("the object is gone")]
    Gone,
    /// The object changed since it was observed.
    #[error("the object has changed since it was observed: {0}")]
    Conflict(String),
    /// Other field managers hold what an apply without force would set; nothing was stored. A person has to choose, so
    /// a controller takes it in by itself ([`Settled::Handled`](crate::controller::Settled)).
    #[error("held by other field managers: {}", list(.0))]
    FieldConflict(Vec<FieldConflict>),
    /// A PodDisruptionBudget does not allow the eviction for now; nothing was stored. It says nothing about the load of
    /// the server, though the answer is a 429 as a rule.
    #[error("not evicted: {0}")]
    DisruptionBudget(String),
    /// The server refused; nothing was stored.
    #[error("refused with {code} {reason}: {message}", code = .0.code, reason = .0.reason, message = .0.message)]
    Refused(Refusal),
    /// The server was never reached: nothing was stored.
    #[error("not sent: {0}")]
    NotSent(String),
    /// Nobody knows whether it was stored: 5xx, reset or time-out after the request began.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// A field that an apply would take from its manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldConflict {
    /// Name of the other manager, like `kubectl-edit`; the server's words where they name none.
    pub manager: String,
    /// Path of the field, like `.spec.template.spec.containers[name="app"].image`.
    pub field: String,
}

impl fmt::Display for FieldConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.field, self.manager)
    }
}

impl FieldConflict {
    /// Reads the conflicts from the API server's Status; none where it tells of something else.
    pub fn from_status(status: &Status) -> Vec<Self> {
        let causes = status.details.iter().flat_map(|details| details.causes.iter());
        let conflicts = causes.filter(|cause| cause.reason == FIELD_MANAGER_CONFLICT);
        conflicts.map(|cause| Self { manager: manager(&cause.message), field: cause.field.clone() }).collect()
    }
}

/// `CauseTypeFieldManagerConflict` of apimachinery's `meta/v1`.
const FIELD_MANAGER_CONFLICT: &str = "FieldManagerConflict";

/// The name in `conflict with "kubectl" using apps/v1 at 2026-11-11T00:00:00Z` (`printManager` of apimachinery's
/// `managedfields`), which quotes it as Go does.
fn manager(message: &str) -> String {
    let quoted = message.strip_prefix("conflict with \"").and_then(|rest| rest.split_once('"'));
    quoted.map_or(message, |(name, _)| name).to_owned()
}

fn list(conflicts: &[FieldConflict]) -> String {
    conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An answer by which the server refused a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// Machine-readable reason, like `Forbidden`.
    pub reason: String,
    /// The server's sentence.
    pub message: String,
    /// Its causes: which fields, as far as the server names them.
    pub fields: Vec<String>,
}

impl Refusal {
    /// Reads a refusal from the API server's Status.
    pub fn from_status(status: &Status) -> Self {
        let fields = status
            .details
            .iter()
            .flat_map(|details| details.causes.iter())
            .filter(|cause| !cause.field.is_empty())
            .map(|cause| cause.field.clone())
            .collect();
        Self { code: status.code, reason: status.reason.clone(), message: status.message.clone(), fields }
    }

    /// The class that decides the next pass.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::of_http(self.code)
    }

    /// Whether a 403 comes from a ResourceQuota: it goes away when other objects end.
    pub fn is_quota(&self) -> bool {
        self.code == 403 && self.message.contains("exceeded quota")
    }

    /// Whether a 403 comes from a LimitRange: what is requested, or limited, is more or less than it allows.
    pub fn is_limit_range(&self) -> bool {
        // `minConstraint`, `maxConstraint` and `limitRequestRatioConstraint` of apiserver's plugin `limitranger`.
        let says = |words: &str| self.message.contains(words);
        self.code == 403 && (says(" usage per ") || says(" max limit to request ratio per "))
    }

    /// Whether a refusal as invalid may be about the requests of a container: it names them, or no field at all.
    pub fn concerns_requests(&self) -> bool {
        self.fields.is_empty() || self.fields.iter().any(|field| field.contains("resources"))
    }

    /// Whether a 403 comes from an authorizer: the manager's account lacks the right. Admission plugins
    /// refuse in other words.
    pub fn is_missing_right(&self) -> bool {
        // `Forbidden` in apiserver's `responsewriters/errors.go`: `User "x" cannot create resource "pods" ...`.
        self.code == 403 && self.message.contains("\" cannot ") && self.message.contains(" resource ")
    }

    /// Whether a 404 says that the server does not know the kind at all. What else it does not find it names, such as
    /// the namespace.
    pub fn is_kind_not_served(&self) -> bool {
        // `NewGenericServerResponse` of apimachinery's `api/errors`, where others of the group are served; the text of
        // apiserver's `mux.PathRecorderMux` (`http.NotFound`) where none is.
        let says = |words: &str| self.message.contains(words);
        self.code == 404 && (says("could not find the requested resource") || says("404 page not found"))
    }

    /// Whether a 403 says that the namespace is being deleted: nothing can be created there any more.
    pub fn is_namespace_terminating(&self) -> bool {
        self.code == 403 && self.message.contains("being terminated")
    }
}

impl WriteError {
    /// The class that decides the next pass; `None` where it is no failure of the write's own (throttled,
    /// not leading, a disruption budget, gone).
    pub fn class(&self) -> Option<ErrorClass> {
        match self {
            Self::Throttled(_)
            | Self::Busy { .. }
            | Self::NotLeading
            | Self::Withheld(_)
            | Self::StaleStore(_)
            | Self::Contested { .. }
            | Self::Skipped
            | Self::DisruptionBudget(_)
            | Self::Gone => None,
            Self::AlreadyExists | Self::Conflict(_) => Some(ErrorClass::Conflict),
            Self::FieldConflict(_) => Some(ErrorClass::UserConfig),
            Self::Refused(refusal) => Some(refusal.class()),
            Self::NotSent(_) | Self::Unknown(_) => Some(ErrorClass::Transient),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conflict_over_fields_names_managers_and_fields() {
        // As apimachinery's `managedfields/internal/conflict.go` writes them.
        let image = ".spec.template.spec.containers[name=\"app\"].image";
        let cause = |message: &str, field: &str| serde_json::json!({"reason": "FieldManagerConflict", "message": message, "field": field});
        let status = serde_json::json!({
            "kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409,
            "message": "Apply failed with 3 conflicts: ...",
            "details": {"causes": [
                cause("conflict with \"argocd-controller\"", image),
                cause("conflict with \"hpa\" with subresource \"scale\" using apps/v1", ".spec.replicas"),
                cause("conflict with nobody known", ".spec.paused"),
            ]},
        });
        let conflicts = FieldConflict::from_status(&serde_json::from_value(status).unwrap());
        let named: Vec<_> =
            conflicts.iter().map(|held| (held.manager.as_str(), held.field.as_str())).collect();
        assert_eq!(
            named,
            [
                ("argocd-controller", image),
                ("hpa", ".spec.replicas"),
                ("conflict with nobody known", ".spec.paused")
            ]
        );
        let told = WriteError::FieldConflict(conflicts).to_string();
        assert!(
            told.starts_with(&format!("held by other field managers: {image} by argocd-controller, ")),
            "{told}"
        );
        let other =
            serde_json::json!({"code": 409, "reason": "Conflict", "message": "the object has been modified"});
        assert_eq!(FieldConflict::from_status(&serde_json::from_value(other).unwrap()), []);
    }

    #[test]
    fn a_kind_that_is_not_served_is_told_from_what_else_is_not_found() {
        let refusal = |code, message: &str| Refusal {
            code,
            reason: "NotFound".to_owned(),
            message: message.to_owned(),
            fields: Vec::new(),
        };
        for (code, message, is_not_served) in [
            (404, "the server could not find the requested resource", true),
            (404, "404 page not found\n", true),
            (404, "namespaces \"a\" not found", false),
            (404, "admission webhook \"w\" denied the request: no such team", false),
            (403, "the server could not find the requested resource", false),
        ] {
            assert_eq!(refusal(code, message).is_kind_not_served(), is_not_served, "{code} {message}");
        }
    }
}
