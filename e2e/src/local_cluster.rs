//! A real control plane as child processes: etcd, kube-apiserver,
//! kube-controller-manager and kube-scheduler.

mod access;
mod components;
mod controller_manager;
mod etcd;
mod second;
mod shared;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use crate::binaries::Binaries;
use crate::kwok::{Kwok, NodeSpec, Stages};
use crate::namespaces::Namespaces;
use crate::pki::Pki;
use crate::process::Child;
use crate::relay::Relay;
use crate::state_folder::StateFolder;
use crate::write_count::AuditLog;

use components::{Certificates, Endpoint, Layout};
pub use components::{Component, POD_CIDR, SERVICE_CIDR};
pub use second::SecondApiServer;

const AUDIT_POLICY: &str = include_str!("local_cluster/audit-policy.yaml");
/// Bound for each component to become ready: 3 s on two idle cores, but tests
/// share them with compilers.
const READY: Duration = Duration::from_secs(180);
/// Bound for each component to end when asked: kube-apiserver takes 1.4 to 3 s.
const STOP: Duration = Duration::from_secs(30);
/// Starts that are tried when another process takes our port first.
const ATTEMPTS: u32 = 3;

/// Options of a [`LocalCluster`].
#[derive(Debug)]
pub struct Builder {
    audit: bool,
    controllers: bool,
    fsync: bool,
    inside: Option<(Arc<Namespaces>, IpAddr)>,
    extra_args: Vec<(Component, Vec<String>)>,
    nodes: Option<NodeSpec>,
    stages: Stages,
}

impl Builder {
    /// Leaves the audit log off, as a timed run wants it. Default: on.
    #[must_use]
    pub fn without_audit(mut self) -> Self {
        self.audit = false;
        self
    }

    /// Starts neither controller manager nor scheduler. Default: both run.
    #[must_use]
    pub fn without_controllers(mut self) -> Self {
        self.controllers = false;
        self
    }

    /// Has etcd wait for the disk, as a bench that reports it must. Default: it does not.
    #[must_use]
    pub fn with_fsync(mut self) -> Self {
        self.fsync = true;
        self
    }

    /// Runs everything inside namespaces in which `node_address` is an address of
    /// the node. Kubelets and pods reach the API server there; this process and
    /// users reach it by a loopback port as usual.
    #[must_use]
    pub fn in_namespaces(mut self, namespaces: &Arc<Namespaces>, node_address: IpAddr) -> Self {
        self.inside = Some((Arc::clone(namespaces), node_address));
        self
    }

    /// Adds flags to a component's command line, after ours: the last one counts.
    #[must_use]
    pub fn extra_args<S: Into<String>>(
        mut self,
        component: Component,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        self.extra_args.push((component, args));
        self
    }

    /// Starts KWOK with these nodes too.
    #[must_use]
    pub fn kwok(mut self, nodes: NodeSpec) -> Self {
        self.nodes = Some(nodes);
        self
    }

    /// What KWOK does with pods. Default: [`Stages::Lives`].
    #[must_use]
    pub fn stages(mut self, stages: Stages) -> Self {
        self.stages = stages;
        self
    }

    /// Starts the cluster and waits until it is ready: the API server says so, and
    /// (with controllers) the namespace `default` has its service account.
    ///
    /// # Errors
    /// A missing binary, or a component that ends early or is not ready in time; its
    /// last log lines stand in the error. Nothing is left behind.
    pub async fn start(self) -> Result<LocalCluster> {
        let binaries = Binaries::locate()?;
        let mut attempt = 1;
        loop {
            match self.try_start(&binaries).await {
                Ok(mut cluster) => {
                    if let Some(nodes) = &self.nodes {
                        cluster.kwok = Some(Kwok::start(&cluster, nodes, self.stages).await?);
                    }
                    return Ok(cluster);
                }
                Err(error)
                    if attempt < ATTEMPTS && format!("{error:#}").contains("address already in use") =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_start(&self, binaries: &Binaries) -> Result<LocalCluster> {
        let folder = StateFolder::create("cluster")?;
        folder.subfolder("log")?;
        let pki = Pki::create(&folder.subfolder("pki")?)?;
        let policy = folder.join("audit-policy.yaml");
        std::fs::write(&policy, AUDIT_POLICY).context("write the audit policy")?;

        let namespaces = self.inside.as_ref().map(|(namespaces, _)| namespaces);
        let endpoint = Endpoint { inside: self.inside.clone(), port: Endpoint::free_port(namespaces)? };
        let relay = namespaces.map(|namespaces| Relay::start(namespaces, endpoint.local())).transpose()?;
        let address = relay.as_ref().map_or_else(|| endpoint.local(), Relay::address);
        let admin = pki.client("admin", "admin", "system:masters")?;
        let kubeconfig = folder.join("kubeconfig");
        pki.kubeconfig(&kubeconfig, &format!("https://{address}"), &admin)?;
        pki.kubeconfig(
            &components::component_kubeconfig(&folder),
            &format!("https://{}", endpoint.local()),
            &admin,
        )?;
        let certificates = Certificates::create(&pki, self.inside.as_ref().map(|inside| inside.1))?;
        let config = access::config(&kubeconfig).await?;

        let mut cluster = LocalCluster {
            kwok: None,
            scheduler: None,
            controller_manager: None,
            api_server: None,
            etcd: None,
            _relay: relay,
            address,
            config,
            binaries: binaries.clone(),
            endpoint,
            audit: self.audit,
            fsync: self.fsync,
            extra_args: self.extra_args.clone(),
            certificates,
            pki,
            folder,
        };
        cluster.start_etcd().await?;
        cluster.start_api_server().await?;
        if self.controllers {
            cluster.controller_manager = Some(cluster.spawn(Component::ControllerManager)?);
            cluster.scheduler = Some(cluster.spawn(Component::Scheduler)?);
            cluster.wait_service_account("default").await?;
        }
        Ok(cluster)
    }
}

/// A running control plane. Dropping it kills its processes and removes its state.
pub struct LocalCluster {
    // Fields are dropped in this order: users of the API first, etcd last.
    kwok: Option<Kwok>,
    scheduler: Option<Child>,
    controller_manager: Option<Child>,
    api_server: Option<Child>,
    etcd: Option<Child>,
    _relay: Option<Relay>,
    address: SocketAddr,
    config: kube::Config,
    binaries: Binaries,
    endpoint: Endpoint,
    audit: bool,
    fsync: bool,
    extra_args: Vec<(Component, Vec<String>)>,
    certificates: Certificates,
    pki: Pki,
    folder: StateFolder,
}

/// Waits until the API server that `config` leads to says that it is ready.
async fn wait_for_api_server(api_server: &mut Child, config: &kube::Config) -> Result<()> {
    let ready = api_server.wait_ready(READY, async || {
        // A new client each time: a pool could hold a connection to a stranger on the port.
        let client = access::client(config, "springtide-readiness")?;
        let request = http::Request::get("/readyz").body(Vec::new()).context("readiness request")?;
        client.request_text(request).await.map_err(|error| anyhow!(error))
    });
    ready.await.map(drop)
}

impl LocalCluster {
    /// Options with their defaults: audit log, controller manager and scheduler, no
    /// waiting for the disk, loopback only, no KWOK.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            audit: true,
            controllers: true,
            fsync: false,
            inside: None,
            extra_args: Vec::new(),
            nodes: None,
            stages: Stages::default(),
        }
    }

    fn layout(&self) -> Layout<'_> {
        Layout {
            binaries: &self.binaries,
            folder: &self.folder,
            pki: &self.pki,
            certificates: &self.certificates,
            endpoint: &self.endpoint,
            etcd: components::etcd_socket(&self.folder),
            suffix: "",
            audit: self.audit,
            fsync: self.fsync,
            extra_args: &self.extra_args,
        }
    }

    fn spawn(&self, component: Component) -> Result<Child> {
        self.layout().command(component)?.spawn()
    }

    async fn start_etcd(&mut self) -> Result<()> {
        let mut etcd = self.spawn(Component::Etcd)?;
        let socket = components::etcd_socket(&self.folder);
        etcd.wait_ready(READY, async || {
            tokio::net::UnixStream::connect(&socket)
                .await
                .with_context(|| format!("connect to {}", socket.display()))
        })
        .await?;
        self.etcd = Some(etcd);
        Ok(())
    }

    async fn start_api_server(&mut self) -> Result<()> {
        let mut api_server = self.spawn(Component::ApiServer)?;
        wait_for_api_server(&mut api_server, &self.config).await?;
        self.api_server = Some(api_server);
        Ok(())
    }

    /// The process of a component; `None` when it was not asked for.
    #[must_use]
    pub fn component(&self, component: Component) -> Option<&Child> {
        match component {
            Component::Etcd => self.etcd.as_ref(),
            Component::ApiServer => self.api_server.as_ref(),
            Component::ControllerManager => self.controller_manager.as_ref(),
            Component::Scheduler => self.scheduler.as_ref(),
        }
    }

    /// KWOK, when the builder was given nodes.
    #[must_use]
    pub fn kwok(&self) -> Option<&Kwok> {
        self.kwok.as_ref()
    }

    /// Ends the API server by `signal` (SIGTERM drains it, SIGKILL does not) and
    /// starts it again on the same port, with the same state. Returns when it is ready.
    ///
    /// # Errors
    /// It does not become ready again.
    pub async fn restart_api_server(&mut self, signal: Signal) -> Result<()> {
        let Some(api_server) = self.api_server.take() else {
            bail!("kube-apiserver is not running");
        };
        api_server.stop(signal, STOP)?;
        self.start_api_server().await
    }

    /// Runs controller manager and scheduler by the way of `kubeconfig` from now on; those that run are
    /// killed. Returns when the namespace `default` has its service account.
    ///
    /// # Errors
    /// One does not start, or the service account does not come.
    pub async fn run_controllers_through(&mut self, kubeconfig: &Path) -> Result<()> {
        let way = format!("--kubeconfig={}", kubeconfig.display());
        let args = [Component::ControllerManager, Component::Scheduler];
        self.run_controllers_with(args.map(|component| (component, vec![way.clone()]))).await
    }

    /// Runs controller manager and scheduler with these flags from now on, beside those that they had: the last one
    /// counts. Those that run are killed. Returns when the namespace `default` has its service account.
    ///
    /// # Errors
    /// As [`LocalCluster::run_controllers_through`].
    pub async fn run_controllers_with(
        &mut self,
        args: impl IntoIterator<Item = (Component, Vec<String>)>,
    ) -> Result<()> {
        self.extra_args.extend(args);
        // First the old ones: two at a time would do everything twice.
        self.controller_manager = None;
        self.scheduler = None;
        self.controller_manager = Some(self.spawn(Component::ControllerManager)?);
        self.scheduler = Some(self.spawn(Component::Scheduler)?);
        self.wait_service_account("default").await
    }

    /// Ends everything in order, each component with time to finish: first the users
    /// of the API, then the API server, then etcd (without etcd an API server hangs
    /// for minutes). Dropping the cluster is quicker, but kills.
    ///
    /// # Errors
    /// A process cannot be waited for; the others are still ended.
    pub fn stop(mut self) -> Result<()> {
        let users =
            [self.kwok.take().map(Kwok::into_child), self.scheduler.take(), self.controller_manager.take()];
        for child in users.into_iter().flatten() {
            child.stop(Signal::SIGTERM, STOP)?;
        }
        for child in [self.api_server.take(), self.etcd.take()].into_iter().flatten() {
            child.stop(Signal::SIGTERM, STOP)?;
        }
        Ok(())
    }

    /// Kubeconfig of an administrator, for users and for processes outside the
    /// cluster's namespaces.
    #[must_use]
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Kubeconfig of an administrator for processes inside the cluster's network
    /// namespace (the same as [`LocalCluster::kubeconfig_path`] where there is none).
    #[must_use]
    pub fn inner_kubeconfig_path(&self) -> PathBuf {
        components::component_kubeconfig(&self.folder)
    }

    /// Where clients of this process reach the API server.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A port that is free right now, for a server beside the cluster. Another process may still be faster.
    ///
    /// # Errors
    /// There is none.
    pub fn free_port() -> Result<u16> {
        Endpoint::free_port(None)
    }

    /// The API server's port inside the cluster's own network.
    #[must_use]
    pub fn inner_port(&self) -> u16 {
        self.endpoint.port
    }

    /// The namespaces everything runs in, where asked for.
    #[must_use]
    pub fn namespaces(&self) -> Option<&Arc<Namespaces>> {
        self.endpoint.inside.as_ref().map(|inside| &inside.0)
    }

    /// The certificate authority, to issue further certificates (for a kubelet).
    #[must_use]
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The binaries it was started from.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Folder of its state; logs are in `log`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The audit log, for [`write_count`](crate::write_count).
    ///
    /// # Errors
    /// The cluster was started without it.
    pub fn audit_log(&self) -> Result<AuditLog> {
        if !self.audit {
            bail!("this cluster was started without an audit log");
        }
        Ok(AuditLog::at(components::audit_log(&self.folder)))
    }
}
