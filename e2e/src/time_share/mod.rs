//! What the tests of TimeShareGroup share: a cluster whose nodes have only so much, and for each test a namespace with a
//! group and oracles.
//!
//! | module | holds |
//! |---|---|
//! | [`testbed`] | a namespace and its groups, and waiting for them |
//! | [`stage`] | two members on nodes that are full, played by KWOK |
//! | [`kubelets`] | what the kubelets of these nodes do about sizes, as KWOK has no account of nodes |
//! | [`groups`] | every status of every group: what may never be |
//! | [`pods`] | every pod: its sizes, its traffic, and what may never be of both |
//! | [`sizes`] | every size of every pod |
//! | [`resizes`] | the order of resizes, from the audit log |
//! | [`node_member`] | members that a real node runs, or KWOK plays |
//! | [`node_stage`] | a group of servers on a real node |
//! | [`traffic`] | clients that count what switches cost them |
//! | [`windows`] | windows by the clock |
//! | [`routes`] | an HTTPRoute of the members |
//! | [`third_pods`] | pods of others that wait for room |
//! | [`fixed_pods`] | pods that the API server lets nobody resize |

pub mod fixed_pods;
pub mod groups;
pub mod kubelets;
pub mod node_member;
pub mod node_stage;
pub mod pods;
pub mod resizes;
pub mod routes;
pub mod sizes;
pub mod stage;
pub mod testbed;
pub mod third_pods;
pub mod traffic;
pub mod windows;

use std::path::Path;

use anyhow::Result;
use springtide_plumbing::workloads::names::TIME_SHARE_TRAFFIC;
use tokio::sync::OnceCell;

use crate::batch::{GENERAL, pool};
use crate::kwok::Stages;
use crate::local_cluster::{Builder, LocalCluster};
use crate::manager::Manager;
use crate::upgrade;

pub use kubelets::Kubelets;
pub use stage::Stage;
pub use testbed::Testbed;

/// Readiness gate by which a pod is taken out of traffic.
pub const GATE: &str = TIME_SHARE_TRAFFIC.gate;
/// Label by which a pod without the gate is taken out of traffic; Services select it.
pub const LABEL: &str = TIME_SHARE_TRAFFIC.label;

/// A cluster whose nodes have only so much, by [`Kubelets`].
pub struct Bounded {
    // Dropped in this order.
    /// Who answers resizes.
    pub kubelets: Kubelets,
    /// The cluster.
    pub cluster: LocalCluster,
}

static SHARED: OnceCell<(Manager, Bounded)> = OnceCell::const_new();

/// The cluster that all tests of a binary share, with one manager that is ready; started by the first caller.
///
/// # Errors
/// A part does not start; the next caller tries again.
pub async fn shared() -> Result<&'static Bounded> {
    let (_, bounded) = SHARED
        .get_or_try_init(async || {
            let bounded = cluster().await?;
            let manager = manager(&bounded.cluster).await?;
            Ok::<_, anyhow::Error>((manager, bounded))
        })
        .await?;
    Ok(bounded)
}

/// A cluster of one's own with the pool [`GENERAL`] and the CRDs, without a manager.
///
/// # Errors
/// A part does not start.
pub async fn cluster() -> Result<Bounded> {
    with_crds(LocalCluster::builder()).await
}

/// As [`cluster`], with other options of its control plane.
///
/// # Errors
/// As [`cluster`].
pub async fn with_crds(builder: Builder) -> Result<Bounded> {
    let cluster = builder.kwok(pool(GENERAL, 2, "32", 110)).stages(Stages::Unsized).start().await?;
    cluster.install_crds().await?;
    let kubelets = Kubelets::start(&cluster)?;
    Ok(Bounded { kubelets, cluster })
}

/// Starts a manager that members' pods may be upgraded by too, and waits until it is ready.
///
/// # Errors
/// As [`Manager::start`] and [`Manager::wait_ready`].
pub async fn manager(cluster: &LocalCluster) -> Result<Manager> {
    upgrade::manager(cluster).await
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
    upgrade::manager_through(cluster, kubeconfig, name, args).await
}
