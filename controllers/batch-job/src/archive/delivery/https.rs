//! Posts lines to URLs: https alone, no proxy, no redirect, no address that the policy refuses.

use super::super::outbox::{Failure, FailureKind};
use crate::lock;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use springtide_plumbing::key::Uid;
use springtide_plumbing::outbound::{AddressPolicy, Connection, Connector, Obstacle, Target, with_causes};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

/// The header by which a sink knows a line that it has had already.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// A connection that nobody has used for so long may have been forgotten on its way.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Connections to one URL that are kept for the next line.
const IDLE_CONNECTIONS_MAX: usize = 4;
/// The most bytes of an answer that are read, so that its connection can be used again. Nothing is made of them: what
/// an inner service says is not for whoever wrote its URL into a queue.
const ANSWER_BYTES_MAX: usize = 65_536;

/// What the manager's configuration says of archives by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpsSettings {
    /// File of the certificates (PEM) of the authorities that are trusted; those of the system where there is no such
    /// file.
    pub ca_file: PathBuf,
    /// Which addresses may be posted to.
    pub addresses: AddressPolicy,
}

/// Connections to one endpoint that nobody uses, and since when.
type Idle = Vec<(Instant, Connection)>;

/// Posts lines.
pub(super) struct Https {
    connector: Connector,
    idle: Mutex<HashMap<Arc<str>, Idle>>,
}

impl Https {
    pub(super) fn new(settings: HttpsSettings) -> Self {
        let HttpsSettings { ca_file, addresses } = settings;
        Self { connector: Connector::new(ca_file, addresses), idle: Mutex::default() }
    }

    /// Posts one line.
    ///
    /// # Errors
    /// No answer, or another one than 2xx.
    pub(super) async fn post(&self, url: &Arc<str>, uid: &Uid, line: Vec<u8>) -> Result<(), Failure> {
        let target = Target::parse(url).filter(Target::is_tls);
        let target = target.ok_or_else(|| unavailable("it is no https URL".to_owned()))?;
        let line = Bytes::from(line);
        // An old connection may have been closed by the other side; the key makes a second attempt harmless.
        if let Some(connection) = self.idle_connection(url)
            && let Ok(answer) = self.exchange(url, connection, &target, uid, line.clone()).await
        {
            return verdict(&answer);
        }
        let connection = self.connector.connect(&target).await.map_err(failure)?;
        let answer = self
            .exchange(url, connection, &target, uid, line)
            .await
            .map_err(|error| unavailable(format!("the connection broke: {}", with_causes(&error))))?;
        verdict(&answer)
    }

    async fn exchange(
        &self,
        url: &Arc<str>,
        mut connection: Connection,
        target: &Target<'_>,
        uid: &Uid,
        line: Bytes,
    ) -> Result<Response<()>, hyper::Error> {
        let mut request = Request::new(Full::new(line));
        *request.method_mut() = http::Method::POST;
        // Target and UID were made of printable characters by the schema and the API server.
        *request.uri_mut() = target.path().parse().unwrap_or_default();
        let host = target.authority();
        for (name, value) in [
            (HOST.as_str(), host.as_str()),
            (USER_AGENT.as_str(), concat!("springtide/", env!("CARGO_PKG_VERSION"), " archive")),
            (CONTENT_TYPE.as_str(), "application/json"),
            (IDEMPOTENCY_KEY, &*uid.0),
        ] {
            if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
                request.headers_mut().insert(name, value);
            }
        }
        connection.ready().await?;
        let (head, body) = connection.send_request(request).await?.into_parts();
        if is_drained(body).await && connection.ready().await.is_ok() {
            self.keep(url, connection);
        }
        Ok(Response::from_parts(head, ()))
    }

    fn idle_connection(&self, url: &Arc<str>) -> Option<Connection> {
        let mut idle = lock(&self.idle);
        let kept = idle.get_mut(url)?;
        while let Some((since, connection)) = kept.pop() {
            if since.elapsed() < IDLE_MAX && !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, url: &Arc<str>, connection: Connection) {
        let mut idle = lock(&self.idle);
        idle.retain(|_, kept| {
            kept.retain(|(since, connection)| since.elapsed() < IDLE_MAX && !connection.is_closed());
            !kept.is_empty()
        });
        let kept = idle.entry(Arc::clone(url)).or_default();
        if kept.len() < IDLE_CONNECTIONS_MAX {
            kept.push((Instant::now(), connection));
        }
    }
}

/// Whether the answer was read to its end.
async fn is_drained(body: Incoming) -> bool {
    Limited::new(body, ANSWER_BYTES_MAX).collect().await.is_ok()
}

/// What an answer says.
fn verdict(answer: &Response<()>) -> Result<(), Failure> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let problem = if status.is_redirection() {
        format!("it answers {}; redirects are not followed", status.as_u16())
    } else {
        format!("it answers {}", status.as_u16())
    };
    let kind = match status {
        // What is wrong with one line need not be so with the next one.
        StatusCode::BAD_REQUEST
        | StatusCode::CONFLICT
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => FailureKind::Refused,
        _ => FailureKind::Unavailable,
    };
    let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Err(Failure { problem, kind, retry_after: asked.map(Duration::from_secs) })
}

fn unavailable(problem: String) -> Failure {
    Failure { problem, kind: FailureKind::Unavailable, retry_after: None }
}

fn failure(obstacle: Obstacle) -> Failure {
    match obstacle {
        Obstacle::Unavailable(problem) => unavailable(problem),
        Obstacle::AddressRefused(what) => Failure {
            problem: format!("its address is {what}; the manager's archive.allowedCidrs must allow it"),
            kind: FailureKind::AddressRefused,
            retry_after: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Result<(), Failure> {
        let mut answer = Response::builder().status(status);
        if let Some(seconds) = retry_after {
            answer = answer.header(RETRY_AFTER, seconds);
        }
        verdict(&answer.body(()).unwrap())
    }

    #[test]
    fn only_2xx_is_taken_and_a_redirect_is_not_followed() {
        for status in [200, 201, 202, 204] {
            assert_eq!(answer(status, None), Ok(()), "{status}");
        }
        for (status, kind) in [
            (301, FailureKind::Unavailable),
            (307, FailureKind::Unavailable),
            (304, FailureKind::Unavailable),
            (401, FailureKind::Unavailable),
            (404, FailureKind::Unavailable),
            (429, FailureKind::Unavailable),
            (500, FailureKind::Unavailable),
            (503, FailureKind::Unavailable),
            (400, FailureKind::Refused),
            (413, FailureKind::Refused),
            (422, FailureKind::Refused),
        ] {
            let failure = answer(status, None).unwrap_err();
            assert_eq!(failure.kind, kind, "{status}");
            assert!(failure.problem.contains(&status.to_string()), "{failure:?}");
        }
        assert!(answer(302, None).unwrap_err().problem.contains("not followed"));
        assert_eq!(answer(503, Some("7")).unwrap_err().retry_after, Some(Duration::from_secs(7)));
        assert_eq!(answer(503, Some("Wed, 21 Oct 2026 07:28:00 GMT")).unwrap_err().retry_after, None);
    }

    #[tokio::test]
    async fn an_address_that_is_refused_is_a_failure_of_its_own_with_the_remedy() {
        let https = Https::new(HttpsSettings::default());
        let post = async |url: &str| https.post(&Arc::from(url), &Uid("u".into()), Vec::new()).await;
        let refused = post("https://127.0.0.1:1/").await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::AddressRefused);
        assert!(refused.problem.contains("archive.allowedCidrs"), "{refused:?}");
        let plain = post("http://127.0.0.1:1/").await.unwrap_err();
        assert_eq!((plain.kind, &*plain.problem), (FailureKind::Unavailable, "it is no https URL"));
    }
}
