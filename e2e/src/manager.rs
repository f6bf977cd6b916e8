//! The real `springtide manager` as a child process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::OnceCell;

use crate::cargo::cargo;
use crate::local_cluster::LocalCluster;
use crate::process::{Child, Command};

/// Managers hold it in the namespace `default` when they are told no other.
pub use springtide_plumbing::lease::LEASE_NAME;

/// Prefix of the user agents of all requests of a manager.
pub const USER_AGENT: &str = "springtide/";
const LEASE_NAMESPACE: &str = "--lease-namespace";
/// Bound for a manager to become ready, and for a drain at its end; far above what they take.
const BOUND: Duration = Duration::from_secs(180);

static BINARY: OnceCell<PathBuf> = OnceCell::const_new();

/// The `springtide` binary of this checkout, built in the profile of the caller when it is not fresh.
///
/// # Errors
/// It does not build.
pub async fn springtide_binary() -> Result<&'static Path> {
    BINARY.get_or_try_init(build).await.map(PathBuf::as_path)
}

async fn build() -> Result<PathBuf> {
    let release = !cfg!(debug_assertions);
    let mut args = vec!["build", "--quiet", "--bin", "springtide"];
    args.extend(match release {
        // As `make bench-batch` builds it: nothing of the tests is in a release.
        true => ["--release", "--package=springtide-manager"].as_slice(),
        // As everything for development is built: cargo unites features over the packages
        // that are selected, and would compile the project's crates once more for this one.
        false => &["--workspace"],
    });
    let status = tokio::process::Command::from(cargo())
        .args(args)
        .status()
        .await
        .context("run cargo to build the springtide binary")?;
    if !status.success() {
        bail!("the springtide binary does not build");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let binary = target.join(if release { "release" } else { "debug" }).join("springtide");
    binary.canonicalize().with_context(|| format!("find {}", binary.display()))
}

/// A running manager.
pub struct Manager {
    child: Child,
    health: SocketAddr,
}

impl Manager {
    /// Starts a manager on `cluster`, with `args` beside the ones that tests always need, and waits
    /// until it has read its options and serves its health. `name` tells its log from others'.
    ///
    /// # Errors
    /// It does not build or start; the end of its log is in the error.
    pub async fn start(cluster: &LocalCluster, name: &str, args: &[&str]) -> Result<Self> {
        Self::start_with(cluster, &cluster.kubeconfig_path(), name, args).await
    }

    /// As [`Manager::start`], as `user` of `group`, by which the audit log knows it, and which names its log;
    /// waits until it is ready.
    ///
    /// # Errors
    /// As [`Manager::start`] and [`Manager::wait_ready`].
    pub async fn start_as(cluster: &LocalCluster, user: &str, group: &str, args: &[&str]) -> Result<Self> {
        let kubeconfig = cluster.kubeconfig_for(user, group)?;
        let mut manager = Self::start_with(cluster, &kubeconfig, user, args).await?;
        manager.wait_ready().await?;
        Ok(manager)
    }

    /// As [`Manager::start`], with the rights and by the way of `kubeconfig`.
    ///
    /// # Errors
    /// As [`Manager::start`].
    pub async fn start_with(
        cluster: &LocalCluster,
        kubeconfig: &Path,
        name: &str,
        args: &[&str],
    ) -> Result<Self> {
        let log = cluster.folder().join(format!("{name}.log"));
        let mut child = Command::new(name, springtide_binary().await?, &log)
            .args(["manager", "--health-address", "127.0.0.1:0"])
            .args(if args.contains(&LEASE_NAMESPACE) { &[][..] } else { &[LEASE_NAMESPACE, "default"] })
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(args)
            .spawn()?;
        let health = child
            .wait_ready(BOUND, async || health_address(&log).context("it has not logged its health_address"))
            .await
            .with_context(|| format!("{name} does not serve its health"))?;
        Ok(Self { child, health })
    }

    /// Waits until all its stores are synced.
    ///
    /// # Errors
    /// It ends first, or takes longer than three minutes.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let health = self.health;
        self.child.wait_ready(BOUND, async || ready(health).await).await
    }

    /// Whether it says now that all its stores are synced.
    pub async fn is_ready(&self) -> bool {
        get(self.health, "/readyz").await.is_ok()
    }

    /// What it says of its readiness, ready or not.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn readiness(&self) -> Result<String> {
        Ok(answer(self.health, "/readyz?verbose").await?.1)
    }

    /// The body of `/metrics`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> Result<String> {
        get(self.health, "/metrics").await
    }

    /// The process, to be paused, resumed or killed.
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// SIGTERM, and the end of the drain.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn stop(self) -> Result<ExitStatus> {
        self.child.stop(Signal::SIGTERM, BOUND)
    }

    /// SIGKILL: no drain, no release of the lease.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn kill(self) -> Result<ExitStatus> {
        self.child.stop(Signal::SIGKILL, BOUND)
    }
}

/// Who holds the lease of the managers that have it in this namespace, by the name of its identity.
///
/// # Errors
/// The API server does not answer.
pub async fn lease_holder(client: kube::Client, namespace: &str) -> Result<Option<String>> {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let holder = leases.get_opt(LEASE_NAME).await?.and_then(|lease| lease.spec?.holder_identity);
    Ok(holder.filter(|holder| !holder.is_empty()))
}

/// Reads the port that the manager chose from its log.
fn health_address(log: &Path) -> Option<SocketAddr> {
    let text = std::fs::read_to_string(log).ok()?;
    text.lines().find_map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).ok()?;
        event["health_address"].as_str()?.parse().ok()
    })
}

/// Whether the manager that serves its health there, by plain HTTP at `/readyz`, has all of its stores synced.
///
/// # Errors
/// It has not, or does not answer.
pub async fn ready(health: SocketAddr) -> Result<()> {
    get(health, "/readyz").await.map(drop)
}

/// A plain GET; anything but 200 is an error.
async fn get(address: SocketAddr, path: &str) -> Result<String> {
    let (head, body) = answer(address, path).await?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(body)
}

/// The head and the body of an answer.
async fn answer(address: SocketAddr, path: &str) -> Result<(String, String)> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    Ok((head.to_owned(), body.to_owned()))
}
