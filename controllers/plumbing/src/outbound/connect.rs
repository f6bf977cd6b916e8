//! Connections to addresses that were judged.

use super::address::AddressPolicy;
use super::target::Target;
use super::trust::Trust;
use super::{Obstacle, resolve, unavailable};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// How long one address may take to accept a connection, so that a dead one leaves time for another.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// A connection by HTTP/1.1.
pub type Connection = SendRequest<Full<Bytes>>;

/// Makes connections.
pub struct Connector {
    trust: Trust,
    addresses: AddressPolicy,
}

impl Connector {
    /// Trusts the authorities in a file (PEM), which is read again every minute, or those of the system where there is no
    /// such file, and connects to what the policy allows.
    pub fn new(ca_file: PathBuf, addresses: AddressPolicy) -> Self {
        Self { trust: Trust::new(ca_file), addresses }
    }

    /// A new connection to the host of a URL.
    ///
    /// The addresses that were judged are those that are connected to: a name that changes meanwhile leads nowhere else.
    ///
    /// # Errors
    /// None of its addresses is allowed, or answers, or is trusted.
    pub async fn connect(&self, target: &Target<'_>) -> Result<Connection, Obstacle> {
        let addresses = resolve::resolve(target, &self.addresses).await?;
        if !target.is_tls() {
            return handshake(self.reach(target.name(), &addresses).await?).await;
        }
        let tls = self.trust.config().await?;
        let name = ServerName::try_from(target.name().to_owned())
            .map_err(|_| unavailable("its host is no name of a server".to_owned()))?;
        let stream = self.reach(target.name(), &addresses).await?;
        let stream = TlsConnector::from(tls)
            .connect(name, stream)
            .await
            .map_err(|error| unavailable(format!("no TLS connection: {error}")))?;
        handshake(stream).await
    }

    async fn reach(&self, name: &str, addresses: &[SocketAddr]) -> Result<TcpStream, Obstacle> {
        let mut problem = "its name has no address".to_owned();
        for address in addresses {
            match timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let peer = stream.peer_addr().map_err(|error| unavailable(error.to_string()))?;
                    return match self.addresses.refusal(peer.ip()) {
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
}

async fn handshake<S>(stream: S) -> Result<Connection, Obstacle>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    TokioIo<S>: Read + Write,
{
    let (connection, running) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unavailable(format!("no HTTP connection: {error}")))?;
    // It ends when the connection is dropped, and what it ends with, requests are told.
    tokio::spawn(async move {
        let _ = running.await;
    });
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_sent_to_an_address_that_is_refused() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = [SocketAddr::from(([127, 0, 0, 1], port))];
        let connector = Connector::new(PathBuf::new(), AddressPolicy::default());
        let refused = connector.reach("sink", &address).await.unwrap_err();
        assert_eq!(refused, Obstacle::AddressRefused("loopback"));
        let loopback = "127.0.0.0/8".parse().unwrap();
        let addresses = AddressPolicy { allowed: vec![loopback], refused: Vec::new() };
        let connector = Connector::new(PathBuf::new(), addresses);
        assert!(connector.reach("sink", &address).await.is_ok());
    }
}
