//! The connections of clients, each with its own to the API server.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::crypto::ring;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::forward::Forward;
use super::link::{Lever, Link};
use super::upstream::{H2, Upstream};
use super::{Handshake, Identity, Shared, lock};

/// Before the next try where none can be accepted (no file descriptor is left, say).
const PAUSE: Duration = Duration::from_millis(50);
/// Streams of one HTTP/2 connection; the API server allows 100 where Go clients open a connection more.
const STREAMS_MAX: u32 = 250;

/// Accepts connections for ever.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
    let tls = TlsAcceptor::from(tls);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    if let Err(error) = serve(shared, tls, stream).await {
                        tracing::debug!("a connection broke: {error:#}");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, tls: TlsAcceptor, stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true).context("set TCP_NODELAY")?;
    let lever = Arc::new(Lever::default());
    {
        let mut links = lock(&shared.links);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&lever));
    }
    let link = Link::new(stream, Arc::clone(&lever));
    let handshake = *lock(&shared.handshake);
    match handshake {
        Handshake::Complete => {}
        Handshake::Reset => lever.reset(),
        Handshake::Silence => lever.freeze(),
    }
    tokio::select! {
        biased;
        // What is dropped then ends with RST.
        () = lever.is_reset() => Ok(()),
        ended = converse(shared, tls, link, Arc::clone(&lever)) => ended,
    }
}

async fn converse(shared: Arc<Shared>, tls: TlsAcceptor, link: Link, lever: Arc<Lever>) -> Result<()> {
    // First: a client of a server that is away must not get as far as TLS.
    let server = *lock(&shared.server);
    let server = match TcpStream::connect(server).await {
        Ok(server) => server,
        Err(error) => {
            lever.reset();
            drop(link);
            return Err(error).context("connect to the API server");
        }
    };
    let tls = tls.accept(link).await.context("TLS of the client")?;
    let session = tls.get_ref().1;
    let is_http2 = session.alpn_protocol() == Some(H2);
    let identity = match session.peer_certificates().and_then(<[_]>::first) {
        None => None,
        Some(certificate) => match lock(&shared.identities).get(certificate) {
            Some(identity) => Some(Arc::clone(identity)),
            None => bail!("the client's certificate is none of those that the proxy has issued"),
        },
    };
    let ended = CancellationToken::new();
    let config = client_config(&shared, identity.as_deref())?;
    let upstream = Upstream::connect(server, config, is_http2, ended.clone()).await;
    let upstream = upstream.context("the API server").inspect_err(|_| lever.reset())?;
    let user = identity.map(|identity| identity.user.clone()).unwrap_or_default();
    let forward = Arc::new(Forward::new(shared, upstream, lever, user, is_http2));

    let serving = Arc::clone(&forward);
    let service = service_fn(move |request| Arc::clone(&serving).serve(request));
    let io = TokioIo::new(tls);
    // As the server's end of the conversation, so the client's.
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
        let mut connection = pin!(builder.serve_connection(io, service));
        tokio::select! {
            end = connection.as_mut() => return end.context("HTTP/2"),
            () = ended.cancelled() => connection.as_mut().graceful_shutdown(),
        }
        return connection.await.context("HTTP/2");
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new());
    let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
    tokio::select! {
        end = connection.as_mut() => return end.context("HTTP/1.1"),
        // An upgrade ends the HTTP on both sides, and nothing else.
        () = ended.cancelled() => if !forward.is_upgrading() {
            connection.as_mut().graceful_shutdown();
        }
    }
    connection.await.context("HTTP/1.1")
}

/// TLS to the API server in the name of a client, or of nobody.
fn client_config(shared: &Shared, identity: Option<&Identity>) -> Result<rustls::ClientConfig> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_root_certificates(Arc::clone(&shared.authority));
    Ok(match identity {
        Some(Identity { chain, key, .. }) => builder
            .with_client_auth_cert(chain.clone(), key.clone_key())
            .context("the client's certificate")?,
        None => builder.with_no_client_auth(),
    })
}
