//! A proxy between any client and a real API server that injects faults by rule.
//!
//! Each connection of a client has a connection to the API server behind it, with the same protocol
//! (HTTP/2 or HTTP/1.1, by ALPN) and in the same name: TLS ends here, so the proxy issues the client
//! certificates that are to pass and shows the very same ones to the API server. Bearer tokens and upgraded
//! connections (exec, port-forward) pass as they are. Watches are asked for in JSON, and nothing is
//! compressed, so that faults can be placed within a body.
//!
//! A rule says which requests ([`Class`]), which of them ([`When`]) and what ([`Fault`]), or the same for the
//! events of watches ([`EventFault`]). Rules come and go at run time. The journal has every request; tests
//! query it and wait on it.

mod body;
mod connection;
mod faults;
mod forward;
mod journal;
mod link;
mod request;
mod rules;
mod upstream;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::local_cluster::LocalCluster;
use crate::oracle::feed::PATIENCE;
use crate::pki::KeyedCertificate;
use crate::write_count::Request;

pub use faults::{Answer, At, EventFault, EventKind, Fault, Latency, REPLAY_MAX};
use journal::Journal;
pub use journal::{Entry, Stage};
use link::Lever;
use rules::Rules;
pub use rules::{Class, Hits, RuleId, When};

/// What a client meets that opens a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Handshake {
    /// TLS, as always.
    #[default]
    Complete,
    /// The connection is reset before the server's first word.
    Reset,
    /// It is accepted, and then nothing.
    Silence,
}

/// Which protocols clients are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/2, and HTTP/1.1 for those who do not speak it.
    All,
    /// HTTP/1.1 alone.
    Http1,
}

/// A running proxy on loopback. It has a runtime of its own, so that tests on different ones share it;
/// dropping it ends all of its connections.
pub struct FaultProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    kubeconfig: PathBuf,
    runtime: Option<Runtime>,
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for on another one's thread.
            runtime.shutdown_background();
        }
    }
}

/// Who a client is, by its certificate.
struct Identity {
    user: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// What all connections share.
struct Shared {
    /// Where new connections lead to.
    server: Mutex<SocketAddr>,
    authority: Arc<RootCertStore>,
    identities: Mutex<HashMap<CertificateDer<'static>, Arc<Identity>>>,
    /// Both under one lock: the order in which rules count is the journal's.
    course: Mutex<(Rules, Journal)>,
    changes: watch::Sender<u64>,
    links: Mutex<Vec<Weak<Lever>>>,
    handshake: Mutex<Handshake>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn begin(&self, request: Request, http2: bool) -> (usize, Option<(RuleId, Fault, u64)>) {
        let (number, met) = {
            let mut course = lock(&self.course);
            let met = course.0.on_request(&request);
            let fault = met.as_ref().map(|(id, ..)| *id);
            let (at, stage) = (Instant::now(), Stage::Received);
            let entry = Entry { at, ended: None, request, http2, fault, upstream: 0, stage };
            (course.1.push(entry), met)
        };
        self.changes.send_modify(|count| *count += 1);
        (number, met)
    }

    /// Waits until there is no such rule any more.
    async fn removed(&self, rule: RuleId) {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let is_there = lock(&self.course).0.has(rule);
            // The sender lives as long as this.
            if !is_there || changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut Entry)) {
        lock(&self.course).1.change(number, change);
        self.changes.send_modify(|count| *count += 1);
    }

    fn on_event(&self, watch: &Request, kind: EventKind) -> Option<EventFault> {
        let met = lock(&self.course).0.on_event(watch, kind);
        if met.is_some() {
            self.changes.send_modify(|count| *count += 1);
        }
        met.map(|(_, fault)| fault)
    }
}

/// A free port of loopback, in the network of the thread.
fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listen")?;
    listener.set_nonblocking(true).context("listen")?;
    Ok(listener)
}

impl FaultProxy {
    /// Starts a proxy to `cluster`.
    ///
    /// # Errors
    /// It cannot listen, or a file cannot be written.
    pub fn start(cluster: &LocalCluster, protocols: Protocols) -> Result<Self> {
        Self::serve(cluster, protocols, listen()?)
    }

    /// Starts a proxy for clients on the private machine that `cluster` runs on, such as its kubelet: it
    /// listens on the loopback of that machine.
    ///
    /// # Errors
    /// The cluster has no machine of its own; and as for [`FaultProxy::start`].
    pub fn inside(cluster: &LocalCluster, protocols: Protocols) -> Result<Self> {
        let namespaces = cluster.namespaces().context("the cluster runs on this very machine")?;
        Self::serve(cluster, protocols, namespaces.run(listen)??)
    }

    fn serve(cluster: &LocalCluster, protocols: Protocols, listener: TcpListener) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fault-proxy")
            .enable_all()
            .build()
            .context("the proxy's runtime")?;
        let address = listener.local_addr().context("the proxy's address")?;

        let mut authority = RootCertStore::empty();
        let file = cluster.pki().authority_certificate();
        authority.add(read_certificate(&file)?).context("the cluster's authority")?;
        let shared = Arc::new(Shared {
            server: Mutex::new(cluster.address()),
            authority: Arc::new(authority),
            identities: Mutex::default(),
            course: Mutex::default(),
            changes: watch::Sender::default(),
            links: Mutex::default(),
            handshake: Mutex::default(),
        });
        let certificate =
            cluster.pki().server(&format!("fault-proxy-{}", address.port()), &["localhost", "127.0.0.1"])?;
        let tls = server_config(&shared, &certificate, protocols)?;
        let serving = Arc::clone(&shared);
        runtime.spawn(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => connection::accept(serving, listener, tls).await,
                Err(error) => tracing::error!(%error, "the proxy cannot listen"),
            }
        });
        let mut proxy = Self { shared, address, kubeconfig: PathBuf::new(), runtime: Some(runtime) };
        proxy.kubeconfig = proxy.kubeconfig_for(cluster, "admin", "system:masters")?;
        Ok(proxy)
    }

    /// A kubeconfig of an administrator that leads through the proxy.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Writes a kubeconfig for a user of a group that leads through the proxy.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig_for(&self, cluster: &LocalCluster, user: &str, group: &str) -> Result<PathBuf> {
        let name = user.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let name = format!("proxy-{}-{name}", self.address.port());
        let certificate = cluster.pki().client(&name, user, group)?;
        let leaf = read_certificate(&certificate.certificate)?;
        let identity = Identity {
            user: user.to_owned(),
            chain: vec![leaf.clone()],
            key: PrivateKeyDer::from_pem_file(&certificate.key).context("a client's key")?,
        };
        lock(&self.shared.identities).insert(leaf, Arc::new(identity));
        let path = cluster.folder().join(format!("{name}.kubeconfig"));
        cluster.pki().kubeconfig(&path, &format!("https://{}", self.address), &certificate)?;
        Ok(path)
    }

    /// Adds a rule: the requests of `class` that `when` picks meet `fault`.
    pub fn fault(&self, class: Class, when: When, fault: Fault) -> RuleId {
        lock(&self.shared.course).0.add(class, when, fault)
    }

    /// Adds a rule: the events of these kinds (of all kinds where none is named), in watches of `watches`,
    /// that `when` picks meet `fault`. It meets those of running watches too.
    pub fn event_fault(&self, watches: Class, kinds: &[EventKind], when: When, fault: EventFault) -> RuleId {
        lock(&self.shared.course).0.add_events(watches, kinds, when, fault)
    }

    /// Removes a rule. What has met it stays as it is: what is held stays held, unless the fault says otherwise.
    pub fn remove(&self, rule: RuleId) {
        lock(&self.shared.course).0.remove(rule);
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        lock(&self.shared.course).0.clear();
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// How often a rule was concerned; nothing for one that was removed.
    #[must_use]
    pub fn hits(&self, rule: RuleId) -> Hits {
        lock(&self.shared.course).0.hits(rule)
    }

    /// Looks at all requests since the start (or since [`FaultProxy::forget`]), in the order of their arrival.
    pub fn journal<T>(&self, look: impl FnOnce(&[Entry]) -> T) -> T {
        look(lock(&self.shared.course).1.entries())
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        lock(&self.shared.course).1.clear();
    }

    /// Waits until `find` finds something in the journal. It is asked after each change, and events that
    /// met a rule are a change too.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`].
    pub async fn until<T>(&self, what: &str, find: impl Fn(&[Entry]) -> Option<T>) -> Result<T> {
        let mut changes = self.shared.changes.subscribe();
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = self.journal(&find) {
                    return Some(found);
                }
                // The sender lives as long as the proxy.
                changes.changed().await.ok()?;
            }
        });
        if let Ok(Some(found)) = found.await {
            return Ok(found);
        }
        let last = self.journal(|entries| {
            let last = entries.iter().rev().take(20).rev();
            last.map(|entry| format!("{entry:?}\n")).collect::<String>()
        });
        bail!("the proxy has not seen within {PATIENCE:?}: {what}; the last requests:\n{last}")
    }

    /// Waits until a rule has met `count` requests or events.
    ///
    /// # Errors
    /// It does not within [`PATIENCE`].
    pub async fn fired(&self, rule: RuleId, count: u64) -> Result<()> {
        let what = format!("rule {rule:?} {count} times");
        let mut changes = self.shared.changes.subscribe();
        let fired = tokio::time::timeout(PATIENCE, async {
            while self.hits(rule).fired < count {
                changes.changed().await?;
            }
            anyhow::Ok(())
        });
        fired.await.with_context(|| format!("the proxy has not applied {what} within {PATIENCE:?}"))?
    }

    /// Resets all connections that are open now.
    pub fn reset_connections(&self) {
        self.links().iter().for_each(|lever| lever.reset());
    }

    /// All connections that are open now fall silent and stay open, as when the peer's machine has
    /// vanished. New ones work.
    pub fn freeze_connections(&self) {
        self.links().iter().for_each(|lever| lever.freeze());
    }

    /// Leads connections to another API server of the cluster from now on, as a load balancer does when one
    /// fails: those that are open are reset.
    pub fn fail_over_to(&self, server: SocketAddr) {
        *lock(&self.shared.server) = server;
        self.reset_connections();
    }

    /// What new connections meet from now on.
    pub fn on_connect(&self, handshake: Handshake) {
        *lock(&self.shared.handshake) = handshake;
    }

    fn links(&self) -> Vec<Arc<Lever>> {
        lock(&self.shared.links).iter().filter_map(Weak::upgrade).collect()
    }
}

fn read_certificate(file: &Path) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_file(file).with_context(|| format!("read {}", file.display()))
}

fn server_config(
    shared: &Shared,
    certificate: &KeyedCertificate,
    protocols: Protocols,
) -> Result<Arc<rustls::ServerConfig>> {
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::clone(&shared.authority), Arc::clone(&provider))
            // A client with a token has none.
            .allow_unauthenticated()
            .build()
            .context("verify clients by the cluster's authority")?;
    let key = PrivateKeyDer::from_pem_file(&certificate.key).context("the proxy's key")?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS versions")?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![read_certificate(&certificate.certificate)?], key)
        .context("the proxy's certificate")?;
    tls.alpn_protocols = match protocols {
        Protocols::All => vec![upstream::H2.to_vec(), upstream::HTTP_11.to_vec()],
        Protocols::Http1 => vec![upstream::HTTP_11.to_vec()],
    };
    Ok(Arc::new(tls))
}
