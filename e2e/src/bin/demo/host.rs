//! The cluster of a demo with the manager on it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use springtide_e2e::kwok::NodeSpec;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::node::leftovers::Footprint;
use springtide_e2e::node::preflight::{Availability, availability};
use springtide_e2e::node::{Allocatable, NODE_NAME, NodeCluster};

use super::home::Cluster;
use super::scenario;
use super::server::{Event, tell};

/// What the node offers, so that the same jobs fit on every machine: the sample
/// with more work than fits asks for eight CPUs.
const CPUS: u64 = 2;
const MEMORY_MEBIBYTES: u64 = 1024;
/// Set of the one node that KWOK plays; the node is called `node-0`.
const KWOK_NODES: &str = "node";
/// Between two looks at the manager.
const LOOK: Duration = Duration::from_millis(500);

/// A running cluster with a running manager. Dropping it kills all of it.
pub(crate) struct Host {
    // Dropped in this order: who uses the API before who serves it.
    manager: Manager,
    nodes: Nodes,
}

enum Nodes {
    Real(Box<NodeCluster>),
    Kwok(Box<LocalCluster>),
}

impl Host {
    /// Starts all of it, telling the foreground each step.
    ///
    /// # Errors
    /// A part of it does not become ready; the end of its log is in the error.
    pub(crate) async fn start() -> Result<Self> {
        let nodes = Nodes::start().await?;
        tell(&Event::Step("Install the kinds of Springtide (CRDs)".into()));
        nodes.control_plane().install_crds().await?;
        tell(&Event::Step("Start `springtide manager`".into()));
        let mut manager = Manager::start(nodes.control_plane(), "manager", &[]).await?;
        manager.wait_ready().await?;
        Ok(Self { manager, nodes })
    }

    /// Where users find it, and what must be gone after its end.
    ///
    /// # Errors
    /// The samples cannot be written.
    pub(crate) fn describe(&self) -> Result<Cluster> {
        let control_plane = self.nodes.control_plane();
        let (node, samples, footprint) = match &self.nodes {
            Nodes::Real(cluster) => (NODE_NAME.to_owned(), scenario::SAMPLES.to_owned(), cluster.footprint()),
            Nodes::Kwok(cluster) => {
                let folder = cluster.folder().join("samples");
                std::fs::create_dir_all(&folder).context("make the folder of the samples")?;
                let samples = scenario::write_for_kwok(&folder)?;
                (format!("{KWOK_NODES}-0"), samples, Footprint::of_folder(cluster.folder())?)
            }
        };
        Ok(Cluster {
            kubeconfig: control_plane.kubeconfig_path(),
            audit_log: control_plane.audit_log()?.path().to_owned(),
            samples,
            node,
            footprint,
        })
    }

    /// Returns when the manager has ended by itself, with the end of its log.
    ///
    /// # Errors
    /// Always.
    pub(crate) async fn watch(&self) -> Result<()> {
        let manager = self.manager.child();
        while manager.is_running() {
            tokio::time::sleep(LOOK).await;
        }
        bail!("the manager has ended by itself; its log ends with:\n{}", manager.log_tail())
    }

    /// Ends all of it in order.
    ///
    /// # Errors
    /// A process cannot be waited for; the others are still ended.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { manager, nodes } = self;
        let manager = manager.stop();
        match nodes {
            Nodes::Real(cluster) => cluster.stop()?,
            Nodes::Kwok(cluster) => cluster.stop()?,
        }
        manager.map(drop)
    }
}

impl Nodes {
    async fn start() -> Result<Self> {
        match availability().await {
            Availability::Ready => {
                tell(&Event::Step(
                    "Start a control plane (etcd, kube-apiserver, controller manager, scheduler) and a real node \
                     (containerd, kubelet, kube-proxy)"
                        .into(),
                ));
                let offered = Allocatable { cpu_millis: cpus() * 1000, memory_bytes: MEMORY_MEBIBYTES << 20 };
                let cluster = NodeCluster::builder().allocatable(offered).start().await?;
                Ok(Self::Real(Box::new(cluster)))
            }
            without @ (Availability::Off | Availability::Missing(_)) => {
                tell(&Event::Note(format!(
                    "No real node here ({}): KWOK plays a node on which no container runs; annotations of the pods \
                     say how their containers would end.",
                    why(&without)
                )));
                tell(&Event::Step(
                    "Start a control plane (etcd, kube-apiserver, controller manager, scheduler) and KWOK"
                        .into(),
                ));
                let nodes = NodeSpec {
                    name: KWOK_NODES.into(),
                    count: 1,
                    cpu: CPUS.to_string(),
                    memory: format!("{MEMORY_MEBIBYTES}Mi"),
                    ..NodeSpec::default()
                };
                Ok(Self::Kwok(Box::new(LocalCluster::builder().kwok(nodes).start().await?)))
            }
        }
    }

    fn control_plane(&self) -> &LocalCluster {
        match self {
            Self::Real(cluster) => cluster.control_plane(),
            Self::Kwok(cluster) => cluster,
        }
    }
}

/// A real node cannot offer more than the machine has.
fn cpus() -> u64 {
    let machine = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    machine.min(CPUS)
}

/// Why there is no real node. An ordinary user lacks other things as well, but
/// having those would not help.
fn why(availability: &Availability) -> String {
    match availability {
        Availability::Missing(_) if !nix::unistd::geteuid().is_root() => "the user is not root".into(),
        Availability::Missing(reasons) => reasons.join("; "),
        Availability::Off => "SPRINGTIDE_NODE=off".into(),
        Availability::Ready => String::new(),
    }
}
