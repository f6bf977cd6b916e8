//! A second API server on the same etcd, which can be made to lag behind the first.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::components::{Component, Endpoint, Layout, etcd_socket};
use super::{LocalCluster, access, wait_for_api_server};
use crate::process::Child;

/// Bytes that are taken from a connection at once.
const CHUNK: usize = 64 << 10;
/// What stands before the resource in a key of etcd. Requests have keys as they are.
const REGISTRY: &[u8] = b"/registry/";
/// Bytes of a request that are kept to find a key in two pieces: as many as a resource's name has at most, and more.
const TAIL: usize = 128;

/// Another API server of a cluster, on a loopback port of its own and without an audit log. It is to be dropped
/// before the cluster, as an API server without etcd hangs.
pub struct SecondApiServer {
    // Dropped in this order, for the same reason.
    _process: Child,
    link: Link,
    address: SocketAddr,
    config: kube::Config,
}

impl LocalCluster {
    /// Starts a second API server and waits until it is ready.
    ///
    /// # Errors
    /// The cluster runs in namespaces of its own, or the server does not become ready.
    pub async fn second_api_server(&self) -> Result<SecondApiServer> {
        if self.endpoint.inside.is_some() {
            bail!(
                "the cluster does not run on this very machine, so a second API server would not be reached"
            );
        }
        let etcd = self.folder.join("etcd-2.sock");
        let link = Link::start(&etcd, etcd_socket(&self.folder))?;
        let endpoint = Endpoint { inside: None, port: Endpoint::free_port(None)? };
        let address = endpoint.local();
        let layout = Layout { endpoint: &endpoint, etcd, suffix: "-2", audit: false, ..self.layout() };
        let mut process = layout.command(Component::ApiServer)?.spawn()?;
        let mut config = self.config();
        config.cluster_url =
            format!("https://{address}").parse().context("address of the second API server")?;
        wait_for_api_server(&mut process, &config).await?;
        Ok(SecondApiServer { _process: process, link, address, config })
    }
}

impl SecondApiServer {
    /// Where clients of this process reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of an administrator, as [`LocalCluster::client`] gives one of the first API server.
    ///
    /// # Errors
    /// `user_agent` is not a header value.
    pub fn client(&self, user_agent: &str) -> Result<kube::Client> {
        access::client(&self.config, user_agent)
    }

    /// From now on nothing passes between it and etcd, though their connections stay: what it serves from its
    /// caches grows old, and what needs etcd waits.
    pub fn cut_off(&self) {
        self.link.cut.send_replace(Cut::All);
    }

    /// As [`SecondApiServer::cut_off`], of the connections alone on which it has asked for this built-in resource, such as
    /// `replicasets`: it has one for each. It says that it is well, and all else is new.
    pub fn cut_off_from(&self, resource: &str) {
        self.link.cut.send_replace(Cut::Resource(resource.to_owned()));
    }

    /// Nothing stands between it and etcd any more: what has waited passes.
    pub fn rejoin(&self) {
        self.link.cut.send_replace(Cut::Nothing);
    }
}

/// What does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Cut {
    Nothing,
    All,
    /// Connections on which this resource was asked for.
    Resource(String),
}

impl Cut {
    fn holds(&self, asked: &Asked) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Resource(resource) => asked.lock().contains(resource),
        }
    }
}

/// The resources that a connection has asked for so far.
#[derive(Clone, Debug, Default)]
struct Asked(Arc<Mutex<BTreeSet<String>>>);

impl Asked {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks for keys in the end of what was sent.
    fn look(&self, sent: &[u8]) {
        for (place, window) in sent.windows(REGISTRY.len()).enumerate() {
            if window != REGISTRY {
                continue;
            }
            let key = &sent[place + REGISTRY.len()..];
            if let Some(end) = key.iter().position(|byte| *byte == b'/') {
                self.lock().insert(String::from_utf8_lossy(&key[..end]).into_owned());
            }
        }
    }
}

/// A Unix socket that leads to another one, and can be made to pass nothing. It has a runtime of its own, so that it
/// works on while the caller's is busy; dropping it ends its connections.
struct Link {
    cut: watch::Sender<Cut>,
    runtime: Option<Runtime>,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for on another one's thread.
            runtime.shutdown_background();
        }
    }
}

impl Link {
    /// Listens on `socket` and leads to `target`.
    fn start(socket: &Path, target: PathBuf) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("etcd-link")
            .enable_all()
            .build()
            .context("the runtime of the way to etcd")?;
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(socket).with_context(|| format!("listen on {}", socket.display()))?
        };
        let cut = watch::Sender::new(Cut::Nothing);
        let listening = cut.subscribe();
        runtime.spawn(async move {
            // It fails for good only with the runtime; a client sees its connection closed.
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, target.clone(), listening.clone()));
            }
        });
        Ok(Self { cut, runtime: Some(runtime) })
    }
}

async fn carry(client: UnixStream, target: PathBuf, cut: watch::Receiver<Cut>) {
    let Ok(server) = UnixStream::connect(&target).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let asked = Asked::default();
    // An error ends both ways, which is how the two peers learn of it.
    let both = async {
        tokio::try_join!(
            one_way(from_client, to_server, &asked, true, cut.clone()),
            one_way(from_server, to_client, &asked, false, cut.clone())
        )
    };
    if let Err(error) = both.await {
        tracing::debug!(%error, "a connection to etcd broke");
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    asked: &Asked,
    asks: bool,
    mut cut: watch::Receiver<Cut>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut sent = Vec::new();
    loop {
        let length = from.read(&mut chunk).await?;
        if asks {
            sent.extend_from_slice(&chunk[..length]);
            asked.look(&sent);
            sent.drain(..sent.len().saturating_sub(TAIL));
        }
        // What was on its way waits with what comes behind it.
        if cut.wait_for(|cut| !cut.holds(asked)).await.is_err() {
            return Ok(());
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn what_is_sent_while_a_link_is_cut_arrives_when_it_no_longer_is() {
        let folder = tempfile::tempdir().unwrap();
        let (near, far) = (folder.path().join("near"), folder.path().join("far"));
        let server = UnixListener::bind(&far).unwrap();
        let link = Link::start(&near, far).unwrap();
        let mut client = UnixStream::connect(&near).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        let mut three = [0; 3];
        client.write_all(b"one").await.unwrap();
        served.read_exact(&mut three).await.unwrap();
        assert_eq!(&three, b"one");
        link.cut.send_replace(Cut::All);
        client.write_all(b"two").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(200), served.read_exact(&mut three)).await;
        assert!(early.is_err(), "it has passed all the same");
        link.cut.send_replace(Cut::Nothing);
        served.read_exact(&mut three).await.unwrap();
        assert_eq!(&three, b"two");
        served.write_all(b"end").await.unwrap();
        drop(served);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"end");
    }

    #[tokio::test]
    async fn a_connection_is_cut_that_has_asked_for_the_resource_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (near, far) = (folder.path().join("near"), folder.path().join("far"));
        let server = UnixListener::bind(&far).unwrap();
        let link = Link::start(&near, far).unwrap();
        let mut ends = Vec::new();
        for key in ["/registry/pods/a", "/registry/replicasets/a"] {
            let mut client = UnixStream::connect(&near).await.unwrap();
            let (mut served, _) = server.accept().await.unwrap();
            // A key may come in two pieces.
            for piece in [&key[..14], &key[14..]] {
                client.write_all(piece.as_bytes()).await.unwrap();
                let mut passed = vec![0; piece.len()];
                served.read_exact(&mut passed).await.unwrap();
                assert_eq!(passed, piece.as_bytes());
            }
            ends.push((client, served));
        }
        link.cut.send_replace(Cut::Resource("replicasets".to_owned()));
        let mut passes = Vec::new();
        for (client, served) in &mut ends {
            served.write_all(b"more").await.unwrap();
            let mut four = [0; 4];
            let read = tokio::time::timeout(Duration::from_millis(200), client.read_exact(&mut four)).await;
            passes.push(read.is_ok());
        }
        assert_eq!(passes, [true, false]);
    }
}
