//! What the tests of InPlaceUpgrade share: a cluster whose pods follow changes of their spec, and for each test a
//! namespace with native workloads and oracles.
//!
//! | module | holds |
//! |---|---|
//! | [`workload`] | manifests of native workloads, locked and not |
//! | [`testbed`] | a namespace, its workloads and upgrades, and waiting for them |
//! | [`pods`] | every pod of a workload: whether it stays the same, and when it is out of traffic |
//! | [`slices`] | every EndpointSlice: which pods a Service had at which time |
//! | [`upgrades`] | every status of every upgrade: what may never be |
//! | [`native`] | what the native controllers say, and have done |
//! | [`replacements`] | every ReplicaSet that is made, and every pod that is made or ended |
//! | [`disturbed`] | a cluster whose controllers see late what changes, and come and go |
//! | [`real_node`] | a real node with a registry and a manager that pulls ahead |
//! | [`traffic`] | servers on a real node, and clients that count what they lose |
//! | [`cost`] | what each pod costs the API server |

pub mod cost;
pub mod disturbed;
pub mod native;
pub mod pods;
pub mod real_node;
pub mod replacements;
pub mod slices;
pub mod testbed;
pub mod traffic;
pub mod upgrades;
pub mod workload;

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::batch::{GENERAL, pool};
use crate::kwok::Stages;
use crate::local_cluster::{Builder, LocalCluster};
use crate::manager::Manager;

pub use testbed::Testbed;
pub use workload::{Signal, Workload, image};

/// Readiness gate by which a pod is taken out of traffic.
pub const GATE: &str = "springtide.dev/upgrade-ready";
/// Label by which a pod without the gate is taken out of traffic; Services select it.
pub const SERVING_LABEL: &str = "springtide.dev/upgrade-serving";
/// Annotation of a changed pod.
pub const RECORD: &str = "springtide.dev/in-place-upgrade";
/// Label of a pod of a StatefulSet or DaemonSet: the revision that it has.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// Prefix of the names of pods by which images get to nodes.
pub const PULLER_PREFIX: &str = "ipu-pull-";

static SHARED: OnceCell<(LocalCluster, Manager)> = OnceCell::const_new();

/// The cluster that all tests of a binary share, with the pool [`GENERAL`] of ten nodes, the CRDs and one manager that
/// is ready; started by the first caller.
///
/// # Errors
/// A part does not start; the next caller tries again.
pub async fn shared() -> Result<&'static LocalCluster> {
    let (cluster, _) = SHARED
        .get_or_try_init(async || {
            let cluster = cluster().await?;
            let manager = manager(&cluster).await?;
            Ok::<_, anyhow::Error>((cluster, manager))
        })
        .await?;
    Ok(cluster)
}

/// The configuration of a manager by which images may be pulled to nodes before a container there is stopped, by an image
/// that KWOK plays.
#[must_use]
pub fn manager_configuration() -> Value {
    json!({
        "apiVersion": "config.springtide.dev/v1alpha1", "kind": "ManagerConfiguration",
        "controllers": {"inPlaceUpgrade": {"settings": {"pullerImage": "example.com/springtide:v1"}}},
    })
}

/// Starts a manager of this configuration, and waits until it is ready.
///
/// # Errors
/// As [`Manager::start`] and [`Manager::wait_ready`].
pub async fn manager(cluster: &LocalCluster) -> Result<Manager> {
    manager_through(cluster, &cluster.kubeconfig_path(), "manager", &[]).await
}

/// As [`manager`], by the way of `kubeconfig`, with `args` beside those that tests always need. `name` is of this one alone.
///
/// # Errors
/// As [`manager`].
pub async fn manager_through(
    cluster: &LocalCluster,
    kubeconfig: &Path,
    name: &str,
    args: &[&str],
) -> Result<Manager> {
    let file = cluster.folder().join("upgrade-configuration.yaml");
    std::fs::write(&file, manager_configuration().to_string())
        .with_context(|| format!("write {}", file.display()))?;
    let path = file.to_str().context("a path in UTF-8")?;
    let args = [&["--config", path], args].concat();
    let mut manager = Manager::start_with(cluster, kubeconfig, name, &args).await?;
    manager.wait_ready().await?;
    Ok(manager)
}

/// A cluster of one's own with the pool [`GENERAL`] and the CRDs, without a manager.
///
/// # Errors
/// A part does not start.
pub async fn cluster() -> Result<LocalCluster> {
    with_crds(LocalCluster::builder()).await
}

/// As [`cluster`], with other options of its control plane.
///
/// # Errors
/// As [`cluster`].
pub async fn with_crds(builder: Builder) -> Result<LocalCluster> {
    let cluster = builder.kwok(pool(GENERAL, 10, "32", 110)).stages(Stages::InPlace).start().await?;
    cluster.install_crds().await?;
    Ok(cluster)
}
