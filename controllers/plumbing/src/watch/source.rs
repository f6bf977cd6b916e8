//! The wire as the watch loop sees it.

use super::sink::Watched;
use crate::key::{ObjectKey, ResourceVersion};
use futures::stream::BoxStream;
use kube::core::{Status, WatchEvent};
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Where one watch gets its objects: [`super::KubeSource`], or a script in a test.
pub trait Source: Send + Sync + 'static {
    /// What the objects are decoded to.
    type Object: Watched;

    /// Opens a watch. Errors of the request are returned, those of the open stream are its items; after
    /// any error but an [`Unreadable`] object with identity, the stream is of no further use.
    fn open(
        &self,
        request: WatchRequest,
    ) -> impl Future<Output = Result<EventStream<Self::Object>, WatchError>> + Send;

    /// One LIST without a limit, or the page that a continue token asks for.
    fn list(
        &self,
        request: ListRequest,
    ) -> impl Future<Output = Result<ListPage<Self::Object>, WatchError>> + Send;
}

/// An open watch: its items are the frames in the server's order; it ends when the server ends it.
pub type EventStream<P> = BoxStream<'static, Result<WatchEvent<P>, WatchError>>;

/// A watch to open; bookmarks are always asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    /// What it begins with.
    pub start: WatchStart,
    /// When the server is to end it, in seconds (`timeoutSeconds`).
    pub timeout_seconds: u32,
}

/// What a watch begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// All objects first, then a bookmark that says so, then changes: `sendInitialEvents=true` and
    /// `resourceVersionMatch=NotOlderThan`.
    StreamingList {
        /// Not older than this; `None` leaves it unset, which is a consistent read.
        at: Option<ResourceVersion>,
    },
    /// The changes after that version.
    Watch {
        /// The version last seen.
        from: ResourceVersion,
    },
}

/// How new a plain LIST must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListVersion {
    /// Not older than this.
    NotOlderThan(ResourceVersion),
    /// Consistent (`resourceVersion` unset): the server asks etcd for its revision, waits until its watch cache has
    /// that, and serves the cache. Where nothing was seen yet, or the server has said that what was seen last is ahead
    /// of all it has. Whatever the cache has (`resourceVersion=0`) is never asked for: of a server that has lost etcd it
    /// may be of any age, and nothing seen would tell.
    Latest,
}

/// A plain LIST without a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListRequest {
    /// How new it must be; without meaning where there is a token.
    pub version: ListVersion,
    /// The server's token for the rest of a list that it cut in spite of having no limit.
    pub continue_token: Option<String>,
}

/// A LIST's answer.
#[derive(Debug)]
pub struct ListPage<P> {
    /// The objects that could be decoded.
    pub objects: Vec<P>,
    /// Those that could not.
    pub unreadable: Vec<Unreadable>,
    /// `metadata.resourceVersion` of the list.
    pub resource_version: ResourceVersion,
    /// `metadata.continue`, when more is to come.
    pub continue_token: Option<String>,
}

/// Which part of the cluster a kind is watched in.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Scope {
    /// All namespaces; the one choice for cluster-scoped kinds.
    All,
    /// These namespaces, in order and each once, each by a watch of its own; see [`Scope::of`].
    Namespaces(Arc<[Arc<str>]>),
}

impl Scope {
    /// These namespaces, in whatever order.
    pub fn of<'a>(namespaces: impl IntoIterator<Item = &'a str>) -> Self {
        let namespaces: BTreeSet<&str> = namespaces.into_iter().collect();
        Self::Namespaces(namespaces.into_iter().map(Arc::from).collect())
    }

    /// What its watches are of: each of a namespace, or one of all.
    pub fn parts(&self) -> Vec<Option<Arc<str>>> {
        match self {
            Self::All => vec![None],
            Self::Namespaces(namespaces) => namespaces.iter().cloned().map(Some).collect(),
        }
    }

    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => true,
            (Self::Namespaces(some), Self::Namespaces(others)) => {
                some.iter().any(|namespace| others.contains(namespace))
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all namespaces"),
            Self::Namespaces(namespaces) => match &**namespaces {
                [namespace] => write!(f, "namespace {namespace}"),
                namespaces => write!(f, "namespaces {}", namespaces.join(", ")),
            },
        }
    }
}

/// Which objects of the scope are watched, chosen by the server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selector {
    /// `labelSelector`.
    pub labels: Option<String>,
    /// `fieldSelector`; of a custom resource only its `selectableFields`.
    pub fields: Option<String>,
}

impl Selector {
    /// The field selector of one name, but for the name.
    const NAMED: &str = "metadata.name=";

    /// Only the object of that name.
    pub fn named(name: &str) -> Self {
        Self { fields: Some(format!("{}{name}", Self::NAMED)), ..Self::default() }
    }

    /// Whether no object can be chosen by both: each is for one name, and these differ.
    pub(super) fn is_apart_from(&self, other: &Self) -> bool {
        let name = |selector: &Self| selector.fields.as_deref()?.strip_prefix(Self::NAMED).map(str::to_owned);
        matches!((name(self), name(other)), (Some(one), Some(another)) if one != another)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.labels, &self.fields) {
            (None, None) => f.write_str("no selector"),
            (Some(labels), None) => write!(f, "labels `{labels}`"),
            (None, Some(fields)) => write!(f, "fields `{fields}`"),
            (Some(labels), Some(fields)) => write!(f, "labels `{labels}`, fields `{fields}`"),
        }
    }
}

/// Why a request or an open stream failed, by what the loop does about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// 410: the server's history does not reach back to the version (or token) asked for.
    #[error("expired (410): {0}")]
    Expired(String),
    /// The server has not reached the version asked for.
    #[error("too large resource version: {0}")]
    AheadOfServer(String),
    /// 404: the kind is not served.
    #[error("not served (404): {0}")]
    NotServed(String),
    /// The server does not accept the request as such: 400, 405, 406, 415, 422 or 501.
    #[error("refused ({code}): {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// The server's words.
        message: String,
    },
    /// Any other status: overload, credentials, permissions.
    #[error("answered {code}: {message}")]
    Server {
        /// HTTP status.
        code: u16,
        /// The server's words.
        message: String,
        /// The earliest time to ask again that the server named.
        retry_after: Option<Duration>,
    },
    /// An event that could not be decoded.
    #[error("unreadable: {0}")]
    Unreadable(Unreadable),
    /// The connection failed after a response had begun, or there was none in time.
    #[error("connection: {0}")]
    Transport(String),
    /// Nobody accepts a connection, or it ends before any response.
    #[error("nobody answers: {0}")]
    Unreachable(String),
    /// 503 of a server that listens, but has not installed its paths yet: those of CRDs come last. It names 5 s in
    /// which to ask again, whatever is left to do; the answer costs it as little as none.
    #[error("starting (503): {0}")]
    Starting(String),
}

/// What the handler of unknown paths says while there are paths to come (`notfoundhandler` of kube-apiserver).
const STARTING: &str = "before all known HTTP paths have been installed";

impl WatchError {
    /// Reads a `Status` of the API, answered with or streamed as ERROR event.
    pub fn from_status(status: &Status) -> Self {
        let message = format!("{} {}", status.reason, status.message).trim().to_owned();
        let code = status.code;
        if code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone") {
            return Self::Expired(message);
        }
        let details = status.details.as_ref();
        // apimachinery's CauseTypeResourceVersionTooLarge; it comes with a 504.
        let too_large = details
            .is_some_and(|d| d.causes.iter().any(|cause| cause.reason == "ResourceVersionTooLarge"))
            || status.message.contains("Too large resource version");
        if too_large {
            return Self::AheadOfServer(message);
        }
        match code {
            404 => Self::NotServed(message),
            400 | 405 | 406 | 415 | 422 | 501 => Self::Refused { code, message },
            503 if status.message.contains(STARTING) => Self::Starting(message),
            _ => {
                let seconds = details.map_or(0, |d| d.retry_after_seconds);
                let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
                Self::Server { code, message, retry_after }
            }
        }
    }
}

/// An object, or a whole event, that could not be decoded.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// Whose it is, when at least that could be read.
    pub identity: Option<Identity>,
    /// What the decoder said.
    pub message: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => write!(f, "{}: {}", identity.key, self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// What is known of an unreadable object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its key.
    pub key: ObjectKey,
    /// Its version.
    pub resource_version: ResourceVersion,
    /// Whether the event says that it is gone.
    pub deleted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify(status: serde_json::Value) -> WatchError {
        WatchError::from_status(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn statuses_as_kube_apiserver_sends_them_are_told_apart() {
        let expired = classify(serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410,
            "reason": "Expired", "message": "too old resource version: 1 (4711)"
        }));
        assert!(matches!(expired, WatchError::Expired(_)), "{expired}");

        let ahead = classify(serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 504,
            "reason": "Timeout", "message": "Timeout: Too large resource version: 99, current: 4",
            "details": {
                "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
                "retryAfterSeconds": 1
            }
        }));
        assert!(matches!(ahead, WatchError::AheadOfServer(_)), "{ahead}");

        let no_gate = classify(serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 422,
            "reason": "Invalid",
            "message": "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the \
                        WatchList feature gate is enabled"
        }));
        assert!(matches!(no_gate, WatchError::Refused { code: 422, .. }), "{no_gate}");

        let starting = classify(serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 503,
            "reason": "ServiceUnavailable",
            "message": "the request has been made before all known HTTP paths have been installed, please try again",
            "details": {"retryAfterSeconds": 5}
        }));
        assert!(matches!(starting, WatchError::Starting(_)), "{starting}");

        let busy = classify(serde_json::json!({
            "kind": "Status", "status": "Failure", "code": 429, "reason": "TooManyRequests",
            "message": "try again", "details": {"retryAfterSeconds": 7}
        }));
        let WatchError::Server { code: 429, retry_after, .. } = busy else { panic!("{busy}") };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }
}
