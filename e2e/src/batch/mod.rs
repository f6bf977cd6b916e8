//! What the tests of BatchJob share: a cluster with a running manager, and for each
//! test a namespace with its own oracles.

mod cost;
pub mod profiles;
pub mod queues;
mod task;
mod testbed;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::OnceCell;

use crate::kwok::NodeSpec;
use crate::local_cluster::{Builder, Component, LocalCluster};
use crate::manager::Manager;

pub use cost::{Cost, cost_of_jobs, cost_of_waiting_jobs, writes_of_pod_groups};
pub use task::{GENERAL, POOL, Task};
pub use testbed::Testbed;

static SHARED: OnceCell<(LocalCluster, Manager)> = OnceCell::const_new();

/// The cluster that all tests of a binary share, with the pool [`GENERAL`] of ten
/// nodes, the CRDs and one manager that is ready; started by the first caller.
///
/// # Errors
/// A part does not start; the next caller tries again.
pub async fn shared() -> Result<&'static LocalCluster> {
    let (cluster, _) = SHARED
        .get_or_try_init(async || {
            let cluster = cluster().await?;
            let mut manager = Manager::start(&cluster, "manager", &[]).await?;
            manager.wait_ready().await?;
            Ok::<_, anyhow::Error>((cluster, manager))
        })
        .await?;
    Ok(cluster)
}

/// A cluster of one's own with the pool [`GENERAL`] and the CRDs, without a manager.
///
/// # Errors
/// A part does not start.
pub async fn cluster() -> Result<LocalCluster> {
    with_crds(LocalCluster::builder()).await
}

/// As [`cluster`], with an API server that serves PodGroups and a scheduler that goes by them.
///
/// # Errors
/// As [`cluster`].
pub async fn cluster_with_pod_groups() -> Result<LocalCluster> {
    let gates = "--feature-gates=GenericWorkload=true";
    let builder = LocalCluster::builder()
        .extra_args(Component::ApiServer, [gates, "--runtime-config=scheduling.k8s.io/v1beta1=true"])
        .extra_args(Component::ControllerManager, [gates])
        .extra_args(Component::Scheduler, [gates]);
    with_crds(builder).await
}

async fn with_crds(builder: Builder) -> Result<LocalCluster> {
    let cluster = builder.kwok(pool(GENERAL, 10, "32", 110)).start().await?;
    cluster.install_crds().await?;
    Ok(cluster)
}

/// Waits until what is created is younger than all that is there: ages count in whole seconds, and among equals
/// something else decides.
pub async fn next_second() {
    tokio::time::sleep(Duration::from_millis(1100)).await;
}

/// Nodes of a pool.
#[must_use]
pub fn pool(name: &str, count: usize, cpu: &str, pods: u32) -> NodeSpec {
    NodeSpec {
        name: name.to_owned(),
        count,
        cpu: cpu.to_owned(),
        pods,
        labels: BTreeMap::from([(POOL.to_owned(), name.to_owned())]),
        ..NodeSpec::default()
    }
}

/// Whether the long loops are wanted; else tests run a fixed sample of them.
#[must_use]
pub fn long() -> bool {
    std::env::var_os("SPRINGTIDE_LONG").is_some_and(|value| value != "0" && !value.is_empty())
}
