//! A control plane for ten thousand pods and more on nodes that KWOK plays, and a manager with a write budget of its own.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::TUNED;
use crate::kwok::{NodeSpec, Stages};
use crate::local_cluster::{Builder, Component, LocalCluster};
use crate::manager::Manager;

/// etcd's own default would be full of versions of tens of thousands of pods before they are compacted.
const ETCD: [&str; 1] = ["--quota-backend-bytes=8589934592"];
/// ReplicaSets make pods in lots that double; five at a time are the default.
const REPLICA_SETS: &str = "--concurrent-replicaset-syncs=20";
/// Nodes get a range of addresses each, and there are 256 of the usual ones.
const NODE_RANGES: [&str; 1] = ["--node-cidr-mask-size=26"];

/// Options of its control plane, whose pods follow changes of their spec.
#[must_use]
pub fn builder(nodes: NodeSpec) -> Builder {
    let ranges = if nodes.count > 256 { &NODE_RANGES[..] } else { &[] };
    LocalCluster::builder()
        .with_fsync()
        .extra_args(Component::Etcd, ETCD)
        .extra_args(
            Component::ControllerManager,
            TUNED.into_iter().chain([REPLICA_SETS]).chain(ranges.iter().copied()),
        )
        .extra_args(Component::Scheduler, TUNED)
        .kwok(nodes)
        .stages(Stages::InPlace)
}

/// Writes a configuration for a manager that writes so much a second, into one namespace as into all, and gives its path.
/// A burst is the writes of one second.
///
/// # Errors
/// The file cannot be written.
pub fn configure(cluster: &LocalCluster, mut configuration: Value, writes_per_second: u32) -> Result<String> {
    let bucket = json!({"rate": writes_per_second, "burst": writes_per_second});
    configuration["writeBudget"] = json!({"process": bucket, "controller": bucket, "namespace": bucket});
    let path = cluster.folder().join(format!("manager-of-{writes_per_second}.yaml"));
    std::fs::write(&path, configuration.to_string()).with_context(|| format!("write {}", path.display()))?;
    Ok(path.to_str().context("the folder of the cluster")?.to_owned())
}

/// Starts a manager of a configuration, without election: a successor waits for nobody's Lease, and a manager at rest
/// writes nothing at all.
///
/// # Errors
/// It does not start.
pub async fn start_manager(cluster: &LocalCluster, name: &str, config: &str) -> Result<Manager> {
    let mut manager = Manager::start(cluster, name, &["--no-leader-election", "--config", config]).await?;
    manager.wait_ready().await?;
    Ok(manager)
}
