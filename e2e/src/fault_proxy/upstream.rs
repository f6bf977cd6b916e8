//! The connection to the API server that stands behind one connection of a client.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Name of HTTP/2 in ALPN.
pub(super) const H2: &[u8] = b"h2";
/// Name of HTTP/1.1 in ALPN.
pub(super) const HTTP_11: &[u8] = b"http/1.1";

/// A connection that speaks what the client speaks.
pub(super) enum Upstream {
    /// One request at a time, as the client sends them.
    Http1(Mutex<http1::SendRequest<Full<Bytes>>>),
    /// Many at a time.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Upstream {
    /// Sets up TLS and HTTP on a connection. `ended` is cancelled when it is over.
    pub(super) async fn connect(
        stream: TcpStream,
        mut tls: rustls::ClientConfig,
        is_http2: bool,
        ended: CancellationToken,
    ) -> Result<Self> {
        tls.alpn_protocols = vec![if is_http2 { H2.to_vec() } else { HTTP_11.to_vec() }];
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let address = stream.peer_addr().context("address of the API server")?;
        let connector = TlsConnector::from(Arc::new(tls));
        let tls = connector.connect(ServerName::from(address.ip()), stream).await.context("TLS")?;
        let io = TokioIo::new(tls);
        if is_http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.context("HTTP/2 handshake")?;
            tokio::spawn(async move {
                log_end(connection.await);
                ended.cancel();
            });
            return Ok(Self::Http2(sender));
        }
        let (sender, connection) = http1::handshake(io).await.context("HTTP/1.1 handshake")?;
        tokio::spawn(async move {
            log_end(connection.with_upgrades().await);
            ended.cancel();
        });
        Ok(Self::Http1(Mutex::new(sender)))
    }

    /// Sends a request and gives the head of the reply, with its body to come.
    pub(super) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                let mut sender = sender.lock().await;
                sender.ready().await.context("the API server has closed the connection")?;
                sender.send_request(request).await.context("no reply of the API server")
            }
            Self::Http2(sender) => {
                let mut sender = sender.clone();
                if sender.is_closed() {
                    bail!("the API server has closed the connection");
                }
                sender.ready().await.context("the API server has closed the connection")?;
                sender.send_request(request).await.context("no reply of the API server")
            }
        }
    }
}

fn log_end(end: hyper::Result<()>) {
    if let Err(error) = end {
        tracing::debug!(%error, "a connection to the API server broke");
    }
}
