//! An HTTPS server that takes the lines of finished jobs, or does not.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;

use crate::oracle::feed::PATIENCE;
use crate::pki::Pki;

/// What a sink does with what is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It answers with this status.
    Status(u16),
    /// It answers 307, with this location.
    Redirect(String),
    /// It never answers.
    Silence,
}

/// The configuration of a manager that may post to sinks of this authority at 127.0.0.1, and to nothing else that is
/// internal.
#[must_use]
pub fn manager_configuration(pki: &Pki) -> Value {
    let archive = json!({"caFile": pki.authority_certificate(), "allowedCidrs": ["127.0.0.1/32"]});
    json!({
        "apiVersion": "config.springtide.dev/v1alpha1", "kind": "ManagerConfiguration",
        "controllers": {"batchJob": {"settings": {"archive": archive}}},
    })
}

/// One line that was posted.
#[derive(Debug, Clone, PartialEq)]
pub struct Posted {
    /// Path and query.
    pub path: String,
    /// Header `Idempotency-Key`.
    pub key: String,
    /// Header `Content-Type`.
    pub content_type: String,
    /// The body.
    pub line: Value,
    /// What it was answered.
    pub answer: Answer,
}

/// A running sink on loopback; dropping it ends it.
pub struct ArchiveSink {
    shared: Arc<Shared>,
    address: SocketAddr,
    changes: watch::Receiver<()>,
    task: AbortHandle,
}

struct Shared {
    answer: Mutex<Answer>,
    posted: Mutex<Vec<Posted>>,
    connections: Mutex<usize>,
    changed: watch::Sender<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for ArchiveSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ArchiveSink {
    /// Starts a sink with a certificate of this authority, on the runtime of the caller.
    ///
    /// # Errors
    /// It cannot listen, or has no certificate.
    pub async fn start(pki: &Pki, answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("listen")?;
        let address = listener.local_addr().context("the sink's address")?;
        let certificate = pki
            .server(&format!("archive-sink-{}", address.port()), &["localhost", "127.0.0.1", "127.0.0.2"])?;
        let key = PrivateKeyDer::from_pem_file(&certificate.key).context("the sink's key")?;
        let chain =
            CertificateDer::from_pem_file(&certificate.certificate).context("the sink's certificate")?;
        let tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("TLS versions")?
            .with_no_client_auth()
            .with_single_cert(vec![chain], key)
            .context("the sink's certificate")?;
        let (changed, changes) = watch::channel(());
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            posted: Mutex::default(),
            connections: Mutex::default(),
            changed,
        });
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let tls = TlsAcceptor::from(Arc::new(tls));
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                *lock(&serving.connections) += 1;
                let (serving, tls) = (Arc::clone(&serving), tls.clone());
                tokio::spawn(async move {
                    // What a client breaks off is its own business.
                    let _ = converse(serving, tls, stream).await;
                });
            }
        })
        .abort_handle();
        Ok(Self { shared, address, changes, task })
    }

    /// Its URL, under the host that is given.
    #[must_use]
    pub fn url(&self, host: &str, path: &str) -> String {
        format!("https://{host}:{}{path}", self.address.port())
    }

    /// What it does from now on.
    pub fn answer(&self, answer: Answer) {
        *lock(&self.shared.answer) = answer;
    }

    /// All lines that were posted, in the order of their coming.
    #[must_use]
    pub fn posted(&self) -> Vec<Posted> {
        lock(&self.shared.posted).clone()
    }

    /// UIDs of the jobs whose lines were answered by 2xx, in that order.
    #[must_use]
    pub fn taken(&self) -> Vec<String> {
        let is_taken = |posted: &Posted| matches!(posted.answer, Answer::Status(200..300));
        self.posted().into_iter().filter(is_taken).map(|posted| posted.key).collect()
    }

    /// Connections that were opened.
    #[must_use]
    pub fn connections(&self) -> usize {
        *lock(&self.shared.connections)
    }

    /// Waits until `find` finds something in what was posted.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`].
    pub async fn until<T>(&self, what: &str, find: impl Fn(&[Posted]) -> Option<T>) -> Result<T> {
        let mut changes = self.changes.clone();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = find(&self.posted()) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        });
        match found.await {
            Ok(Some(found)) => Ok(found),
            Ok(None) | Err(_) => bail!("the sink has not seen {what}: {:?}", self.posted()),
        }
    }
}

async fn converse(shared: Arc<Shared>, tls: TlsAcceptor, stream: TcpStream) -> Result<()> {
    let stream = tls.accept(stream).await.context("TLS of the client")?;
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(take(&shared, request).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    connection.await.context("HTTP/1.1")
}

async fn take(shared: &Shared, request: Request<Incoming>) -> Response<Empty<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let answer = lock(&shared.answer).clone();
    let text = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    lock(&shared.posted).push(Posted {
        path: head.uri.to_string(),
        key: text(&head.headers, "idempotency-key"),
        content_type: text(&head.headers, "content-type"),
        line: serde_json::from_slice(&body).unwrap_or_default(),
        answer: answer.clone(),
    });
    let mut response = Response::new(Empty::new());
    match answer {
        Answer::Status(status) => {
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
        }
        Answer::Redirect(location) => {
            *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
            if let Ok(location) = location.parse() {
                response.headers_mut().insert(http::header::LOCATION, location);
            }
        }
        Answer::Silence => {
            shared.changed.send_replace(());
            std::future::pending::<()>().await;
        }
    }
    shared.changed.send_replace(());
    response
}
