//! Posts lines to URLs: https alone, no proxy, no redirect, no address that the policy refuses.

use super::super::address::AddressPolicy;
use super::super::outbox::{Failure, FailureKind};
use super::super::sink::Target;
use super::resolve;
use crate::lock;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use springtide_plumbing::key::Uid;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

/// The header by which a sink knows a line that it has had already.
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// How long one address may take to accept a connection, so that a dead one leaves time for another.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// A connection that nobody has used for so long may have been forgotten on its way.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Connections to one URL that are kept for the next line.
const IDLE_CONNECTIONS_MAX: usize = 4;
/// The most bytes of an answer that are read, so that its connection can be used again. Nothing is made of them: what
/// an inner service says is not for whoever wrote its URL into a queue.
const ANSWER_BYTES_MAX: usize = 65_536;
/// How often the authorities that are trusted are read again.
const TRUST_PERIOD: Duration = Duration::from_secs(60);

/// What the manager's configuration says of archives by HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpsSettings {
    /// File of the certificates (PEM) of the authorities that are trusted; those of the system where there is no such
    /// file.
    pub ca_file: PathBuf,
    /// Which addresses may be posted to.
    pub addresses: AddressPolicy,
}

type Connection = SendRequest<Full<Bytes>>;

/// Connections to one endpoint that nobody uses, and since when.
type Idle = Vec<(Instant, Connection)>;

/// Posts lines.
pub(super) struct Https {
    settings: HttpsSettings,
    trust: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
    idle: Mutex<HashMap<Arc<str>, Idle>>,
}

impl Https {
    pub(super) fn new(settings: HttpsSettings) -> Self {
        Self { settings, trust: Mutex::default(), idle: Mutex::default() }
    }

    /// Posts one line.
    ///
    /// # Errors
    /// No answer, or another one than 2xx.
    pub(super) async fn post(&self, url: &Arc<str>, uid: &Uid, line: Vec<u8>) -> Result<(), Failure> {
        let target = Target::parse(url).ok_or_else(|| unavailable("it is no https URL".to_owned()))?;
        let line = Bytes::from(line);
        // An old connection may have been closed by the other side; the key makes a second attempt harmless.
        if let Some(connection) = self.idle_connection(url)
            && let Ok(answer) = self.exchange(url, connection, &target, uid, line.clone()).await
        {
            return verdict(&answer);
        }
        let connection = self.connect(&target).await?;
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
        let host = if target.port() == 443 {
            target.host().to_owned()
        } else {
            format!("{}:{}", target.host(), target.port())
        };
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

    /// A new connection, to an address that may be posted to.
    async fn connect(&self, target: &Target<'_>) -> Result<Connection, Failure> {
        let tls = self.trust().await?;
        let name = ServerName::try_from(target.name().to_owned())
            .map_err(|_| unavailable("its host is no name of a server".to_owned()))?;
        // The addresses that were judged are those that are connected to: a name that changes meanwhile leads nowhere
        // else.
        let addresses = resolve::resolve(target, &self.settings.addresses).await?;
        let stream = self.reach(target.name(), &addresses).await?;
        let stream = TlsConnector::from(tls)
            .connect(name, stream)
            .await
            .map_err(|error| unavailable(format!("no TLS connection: {error}")))?;
        let (connection, running) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unavailable(format!("no HTTP connection: {error}")))?;
        // It ends when the connection is dropped, and what it ends with, requests are told.
        tokio::spawn(async move {
            let _ = running.await;
        });
        Ok(connection)
    }

    async fn reach(&self, name: &str, addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
        let mut problem = "its name has no address".to_owned();
        for address in addresses {
            match timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let peer = stream.peer_addr().map_err(|error| unavailable(error.to_string()))?;
                    return match self.settings.addresses.refusal(peer.ip()) {
                        None => Ok(stream),
                        Some(what) => Err(resolve::refusal(name, peer.ip(), what)),
                    };
                }
                Ok(Err(error)) => problem = format!("no connection: {error}"),
                Err(_) => problem = format!("no connection within {} s", CONNECT_DEADLINE.as_secs()),
            }
        }
        Err(unavailable(problem))
    }

    /// Whom to trust, as it was read a minute ago at most.
    async fn trust(&self) -> Result<Arc<ClientConfig>, Failure> {
        if let Some((read, config)) = &*lock(&self.trust)
            && read.elapsed() < TRUST_PERIOD
        {
            return Ok(Arc::clone(config));
        }
        let file = self.settings.ca_file.clone();
        let config = tokio::task::spawn_blocking(move || client_config(&file))
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(unavailable)?;
        let config = Arc::new(config);
        *lock(&self.trust) = Some((Instant::now(), Arc::clone(&config)));
        Ok(config)
    }
}

/// TLS as a client that trusts the authorities of a file, or those of the system.
fn client_config(ca_file: &Path) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    if ca_file.exists() {
        let read = |error| format!("{}: {error}", ca_file.display());
        for certificate in CertificateDer::pem_file_iter(ca_file).map_err(read)? {
            roots
                .add(certificate.map_err(read)?)
                .map_err(|error| format!("{}: {error}", ca_file.display()))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(format!(
            "no authority to trust: the manager needs certificates in {}",
            ca_file.display()
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
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

/// What hyper says of an error is in its causes.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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

    #[test]
    fn a_file_without_authorities_trusts_nobody() {
        let file = std::env::temp_dir().join(format!("springtide-archive-{}.pem", std::process::id()));
        std::fs::write(&file, "nothing").unwrap();
        let error = client_config(&file).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        assert!(error.contains("no authority to trust") && error.contains("springtide-archive"), "{error}");
    }

    #[tokio::test]
    async fn nothing_is_sent_to_an_address_that_is_refused() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let https = Https::new(HttpsSettings::default());
        let failure = https.reach("sink", &[SocketAddr::from(([127, 0, 0, 1], port))]).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::AddressRefused);
        let loopback = "127.0.0.0/8".parse().unwrap();
        let addresses = AddressPolicy { allowed: vec![loopback], refused: Vec::new() };
        let https = Https::new(HttpsSettings { addresses, ..HttpsSettings::default() });
        assert!(https.reach("sink", &[SocketAddr::from(([127, 0, 0, 1], port))]).await.is_ok());
    }
}
