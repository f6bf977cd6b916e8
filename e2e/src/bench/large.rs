//! A control plane for ten thousand pods and more on nodes that KWOK plays, and a manager with a write budget of its own.

use anyhow::{Context, Result};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::{TUNED, usage};
use crate::kwok::{NodeSpec, Stages};
use crate::local_cluster::{Builder, Component, LocalCluster};
use crate::manager::Manager;

/// etcd's own default would be full of versions of tens of thousands of pods before they are compacted.
const ETCD: [&str; 1] = ["--quota-backend-bytes=8589934592"];
/// ReplicaSets make pods in lots that double; five at a time are the default.
const REPLICA_SETS: &str = "--concurrent-replicaset-syncs=20";
/// Nodes get a range of addresses each, and there are 256 of the usual ones.
const NODE_RANGES: [&str; 1] = ["--node-cidr-mask-size=26"];

/// Options of its control plane, whose pods follow changes of their spec. Who takes times asks for [`Builder::with_fsync`].
#[must_use]
pub fn builder(nodes: NodeSpec) -> Builder {
    let ranges = if nodes.count > 256 { &NODE_RANGES[..] } else { &[] };
    LocalCluster::builder()
        .extra_args(Component::Etcd, ETCD)
        .extra_args(
            Component::ControllerManager,
            TUNED.into_iter().chain([REPLICA_SETS]).chain(ranges.iter().copied()),
        )
        .extra_args(Component::Scheduler, TUNED)
        .kwok(nodes)
        .stages(Stages::InPlace)
}

/// A control plane, a namespace of what is measured, and a manager that can be replaced.
pub struct Managed {
    /// The bench's own hands.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
    manager: Option<Manager>,
    config: String,
    // Last, so that it ends last.
    /// The control plane.
    pub cluster: LocalCluster,
}

impl Managed {
    /// Starts all of it. The manager has this configuration, and writes so much a second, into one namespace as into all; a
    /// burst is the writes of one second. `prefix` begins the name of the namespace.
    ///
    /// # Errors
    /// A part does not start.
    pub async fn start(
        builder: Builder,
        configuration: Value,
        writes_per_second: u32,
        prefix: &str,
    ) -> Result<Self> {
        let cluster = builder.start().await?;
        cluster.install_crds().await?;
        let config = configure(&cluster, configuration, writes_per_second)?;
        let client = cluster.client("bench-generator")?;
        let namespace = cluster.create_namespace(prefix).await?;
        let mut managed = Self { client, namespace, manager: None, config, cluster };
        managed.start_manager("manager").await?;
        Ok(managed)
    }

    /// An API of the namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Path of a pod.
    #[must_use]
    pub fn path(&self, pod: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{pod}", self.namespace)
    }

    /// Creates a Deployment.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create(&self, manifest: Value) -> Result<()> {
        create(&self.api(), manifest).await
    }

    /// The manager.
    ///
    /// # Errors
    /// None runs.
    pub fn manager(&self) -> Result<&Manager> {
        self.manager.as_ref().context("no manager runs")
    }

    /// The resident memory of the manager now, in MiB.
    ///
    /// # Errors
    /// None runs.
    pub fn resident_mib(&self) -> Result<f64> {
        usage::resident_mib(self.manager()?.child().pid())
    }

    /// The most that it ever was, in MiB.
    ///
    /// # Errors
    /// None runs.
    pub fn peak_mib(&self) -> Result<f64> {
        Ok(usage::of(self.manager()?.child().pid())?.peak_mib)
    }

    /// Ends the manager in order, if there is one.
    ///
    /// # Errors
    /// It does not end.
    pub fn stop_manager(&mut self) -> Result<()> {
        self.manager.take().map_or(Ok(()), |manager| manager.stop().map(drop))
    }

    /// Starts another one in its place, without election: it waits for nobody's Lease, and at rest it writes nothing at all.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_manager(&mut self, name: &str) -> Result<()> {
        let args = ["--no-leader-election", "--config", &self.config];
        let mut manager = Manager::start(&self.cluster, name, &args).await?;
        manager.wait_ready().await?;
        self.manager = Some(manager);
        Ok(())
    }

    /// Ends all of it in order.
    ///
    /// # Errors
    /// A process does not end.
    pub fn stop(mut self) -> Result<()> {
        self.stop_manager()?;
        self.cluster.stop()
    }
}

/// Creates a Deployment.
///
/// # Errors
/// It is refused.
pub async fn create(deployments: &Api<Deployment>, manifest: Value) -> Result<()> {
    let deployment: Deployment = serde_json::from_value(manifest)?;
    deployments.create(&PostParams::default(), &deployment).await.map(drop).context("a Deployment")
}

/// Writes the configuration of a manager with that budget, and gives its path.
fn configure(cluster: &LocalCluster, mut configuration: Value, writes_per_second: u32) -> Result<String> {
    let bucket = json!({"rate": writes_per_second, "burst": writes_per_second});
    configuration["writeBudget"] = json!({"process": bucket, "controller": bucket, "namespace": bucket});
    let path = cluster.folder().join("bench-configuration.yaml");
    std::fs::write(&path, configuration.to_string()).with_context(|| format!("write {}", path.display()))?;
    Ok(path.to_str().context("the folder of the cluster")?.to_owned())
}
