//! What can be done to a request, and to the events of a watch.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use serde_json::json;

/// Where on the way of a request something happens to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The API server has not seen it.
    BeforeSend,
    /// The API server has answered, the client does not know.
    AfterCommit,
}

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// It is answered with this and not forwarded.
    Refuse(Answer),
    /// It is forwarded, and answered with this in place of the API server's reply.
    Replace(Answer),
    /// The client's connection is reset (RST), and with it all else on the connection.
    Reset(At),
    /// The connection is reset once so many bytes of the reply's body have been sent.
    ResetBody {
        /// Bytes that are sent.
        after: usize,
    },
    /// The reply's body ends after so many bytes as if it were whole.
    CutBody {
        /// Bytes that are sent.
        after: usize,
    },
    /// The reply's body comes in small pieces.
    Trickle {
        /// Bytes of a piece.
        bytes: usize,
        /// Time before each.
        every: Duration,
    },
    /// It stays here for good, with its connection open, until the client gives it up.
    Hold(At),
    /// The API server sees it only once the rule that it has met is removed, unless the client gives it up before.
    HoldUntilRemoved,
    /// The head of the reply passes, then nothing more comes, with the connection open.
    Silence,
    /// It is late.
    Delay(Latency),
    /// It is in time, and its answer is late.
    DelayAnswer(Latency),
}

/// What happens to the event of a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum EventFault {
    /// The client never sees it.
    Drop,
    /// Before it, the client sees the events before it once more.
    Replay {
        /// How many of them, oldest first; at most [`REPLAY_MAX`].
        events: usize,
    },
    /// It and those behind it arrive so much later, without waiting for each other.
    Delay(Duration),
    /// Neither it nor anything behind it arrives, with the stream open.
    Silence,
    /// The stream ends before it as the API server ends one.
    Close,
    /// An ERROR event with status 410 takes its place, and the stream ends.
    Expire,
}

/// The most events that a watch can show again.
pub const REPLAY_MAX: usize = 64;

/// How late a request is.
#[derive(Debug, Clone, PartialEq)]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// A Pareto distribution: of every so many requests one is late by a multiple. The chance to be later
    /// than `t` is (`least` / `t`)^`shape`.
    Pareto {
        /// The shortest.
        least: Duration,
        /// The longest, at which it is cut.
        most: Duration,
        /// The tail: the smaller, the heavier; about 1 for a server in trouble.
        shape: f64,
        /// Of the random numbers.
        seed: u64,
    },
}

impl Latency {
    /// That of the n-th request: the same in every run.
    pub(super) fn of(&self, nth: u64) -> Duration {
        match *self {
            Self::Fixed(time) => time,
            Self::Pareto { least, most, shape, seed } => {
                let uniform = 1.0 - random(seed, nth);
                let factor = uniform.powf(-1.0 / shape).min(most.as_secs_f64() / least.as_secs_f64());
                least.mul_f64(factor).min(most)
            }
        }
    }
}

/// The n-th number of a seed, from 0 up to, but not including, 1.
pub(super) fn random(seed: u64, nth: u64) -> f64 {
    StdRng::seed_from_u64(seed.wrapping_add(nth.wrapping_mul(0x9e37_79b9_7f4a_7c15))).random()
}

/// A failure as the API server words it.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub code: StatusCode,
    /// `reason` of the Status.
    pub reason: &'static str,
    /// `message` of the Status.
    pub message: &'static str,
    /// Header `Retry-After` and `retryAfterSeconds` of the Status.
    pub retry_after_seconds: Option<u32>,
}

impl Answer {
    const fn new(code: StatusCode, reason: &'static str, message: &'static str) -> Self {
        Self { code, reason, message, retry_after_seconds: None }
    }

    /// 409, the object has changed.
    #[must_use]
    pub const fn conflict() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "Conflict",
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 409, an object of the name exists.
    #[must_use]
    pub const fn already_exists() -> Self {
        Self::new(StatusCode::CONFLICT, "AlreadyExists", "the object already exists")
    }

    /// 429, with the time to wait where there is one.
    #[must_use]
    pub const fn too_many_requests(retry_after_seconds: Option<u32>) -> Self {
        let answer = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later",
        );
        Self { retry_after_seconds, ..answer }
    }

    /// 500.
    #[must_use]
    pub const fn internal_error() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "an internal error occurred")
    }

    /// 503.
    #[must_use]
    pub const fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServiceUnavailable",
            "the server is currently unable to handle the request",
        )
    }

    /// 504.
    #[must_use]
    pub const fn gateway_timeout() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            "request did not complete within the allotted timeout",
        )
    }

    /// 401.
    #[must_use]
    pub const fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// 403, as RBAC refuses.
    #[must_use]
    pub const fn forbidden() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", "the user may not do this at the cluster scope")
    }

    /// 403, as a ResourceQuota refuses.
    #[must_use]
    pub const fn exceeded_quota() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Forbidden",
            "pods is forbidden: exceeded quota: compute, requested: pods=1, used: pods=10, limited: pods=10",
        )
    }

    /// 413.
    #[must_use]
    pub const fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            "Request entity too large: limit is 3145728",
        )
    }

    /// 422.
    #[must_use]
    pub const fn invalid() -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", "the object is invalid")
    }

    /// 422, as a server without streaming lists refuses one.
    #[must_use]
    pub const fn no_streaming_list() -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: \
             sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        )
    }

    /// 410 at the start of a watch.
    #[must_use]
    pub const fn too_old() -> Self {
        Self::new(StatusCode::GONE, "Expired", "too old resource version: 1 (2)")
    }

    /// 410 for the continue token of a list.
    #[must_use]
    pub const fn continue_expired() -> Self {
        Self::new(
            StatusCode::GONE,
            "Expired",
            "The provided continue parameter is too old to display a consistent list result. \
             You must start a new list without the continue parameter.",
        )
    }

    /// The Status object, in JSON.
    pub(super) fn status(&self) -> Bytes {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16(),
        });
        if let Some(seconds) = self.retry_after_seconds {
            status["details"] = json!({"retryAfterSeconds": seconds});
        }
        Bytes::from(status.to_string())
    }
}

/// Annotation of the bookmark after the initial events of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What kind of event a watch sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// ADDED.
    Added,
    /// MODIFIED.
    Modified,
    /// DELETED.
    Deleted,
    /// BOOKMARK, other than the next one.
    Bookmark,
    /// The BOOKMARK that ends the initial events of a streaming list.
    InitialEventsEnd,
    /// ERROR.
    Error,
}

impl EventKind {
    /// Reads it from a line of a watch in JSON.
    pub(super) fn of(line: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Event<'a> {
            r#type: &'a str,
            #[serde(default)]
            object: Object,
        }
        #[derive(Deserialize, Default)]
        struct Object {
            #[serde(default)]
            metadata: Metadata,
        }
        #[derive(Deserialize, Default)]
        struct Metadata {
            annotations: Option<BTreeMap<String, String>>,
        }
        let event: Event<'_> = serde_json::from_slice(line).ok()?;
        let is_end =
            event.object.metadata.annotations.is_some_and(|all| all.contains_key(INITIAL_EVENTS_END));
        Some(match event.r#type {
            "ADDED" => Self::Added,
            "MODIFIED" => Self::Modified,
            "DELETED" => Self::Deleted,
            "BOOKMARK" if is_end => Self::InitialEventsEnd,
            "BOOKMARK" => Self::Bookmark,
            "ERROR" => Self::Error,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heavy_tail_stays_within_its_bounds_and_is_the_same_again() {
        let (least, most) = (Duration::from_millis(50), Duration::from_secs(5));
        let latency = Latency::Pareto { least, most, shape: 1.0, seed: 7 };
        let times: Vec<_> = (1..=1000).map(|nth| latency.of(nth)).collect();
        assert!(times.iter().all(|time| (least..=most).contains(time)));
        // P(more than 500 ms) is a tenth, P(5 s) a hundredth.
        let late = times.iter().filter(|time| **time > Duration::from_millis(500)).count();
        assert!((50..200).contains(&late), "{late}");
        assert!(times.contains(&most));
        assert_eq!(times, (1..=1000).map(|nth| latency.of(nth)).collect::<Vec<_>>());
    }

    #[test]
    fn events_are_told_apart() {
        let end = r#"{"type":"BOOKMARK","object":{"metadata":{"annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
        let cases = [
            (r#"{"type":"ADDED","object":{}}"#, Some(EventKind::Added)),
            (
                r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"4"}}}"#,
                Some(EventKind::Bookmark),
            ),
            (end, Some(EventKind::InitialEventsEnd)),
            (r#"{"type":"ERROR","object":{"code":410}}"#, Some(EventKind::Error)),
            (r#"{"type":"ADD"#, None),
        ];
        for (line, kind) in cases {
            assert_eq!(EventKind::of(line.as_bytes()), kind, "{line}");
        }
    }

    #[test]
    fn a_retry_after_stands_in_the_status_too() {
        let status: serde_json::Value =
            serde_json::from_slice(&Answer::too_many_requests(Some(4)).status()).unwrap();
        assert_eq!(status["details"]["retryAfterSeconds"], 4);
        assert_eq!(status["code"], 429);
    }
}
