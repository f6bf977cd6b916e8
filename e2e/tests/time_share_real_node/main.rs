//! What a TimeShareGroup does to pods that a real kubelet runs: sizes in the kernel, room on a full node, probes, requests.
//! Most tests need all of a node, so one runs at a time; they share a cluster unless they restart parts of it or need another
//! node, and clear it for the next one.
//!
//! `SPRINGTIDE_LONG=1` runs long loops in full, without it a sample runs.

mod memory;
mod neighbours;
mod nudges;
mod probes;
mod refused;
mod replay;
mod restarts;
mod room;
mod switches;
mod traffic;

use anyhow::{Context, Result};
use serde_json::json;
use springtide_crds::time_share_group::TimeShareGroup;
use springtide_e2e::fault_proxy::{FaultProxy, Protocols};
use springtide_e2e::manager::Manager;
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::upgrade::real_node::NodeBed;
use tokio::sync::{Mutex, OnceCell};

static SHARED: OnceCell<NodeBed> = OnceCell::const_new();
/// Held by the test that runs.
static TURN: Mutex<()> = Mutex::const_new(());

/// The cluster that tests share; `None` where real nodes are switched off.
async fn shared() -> Result<Option<&'static NodeBed>> {
    if !required_or_skipped().await? {
        return Ok(None);
    }
    SHARED.get_or_try_init(|| NodeBed::start(NodeCluster::builder())).await.map(Some)
}

/// A cluster with a real node whose manager goes through a proxy.
struct Proxied {
    // Dropped in this order.
    manager: Manager,
    proxy: FaultProxy,
    cluster: NodeCluster,
}

impl Proxied {
    /// `None` where real nodes are switched off.
    async fn start() -> Result<Option<Self>> {
        if !required_or_skipped().await? {
            return Ok(None);
        }
        let cluster = NodeCluster::builder().start().await?;
        let plane = cluster.control_plane();
        plane.install_crds().await?;
        let proxy = FaultProxy::start(plane, Protocols::All)?;
        let mut manager = Manager::start_with(plane, proxy.kubeconfig(), "manager", &[]).await?;
        manager.wait_ready().await?;
        Ok(Some(Self { manager, proxy, cluster }))
    }

    fn stop(self) -> Result<()> {
        let Self { manager, proxy, cluster } = self;
        manager.stop().context("stop the manager")?;
        drop(proxy);
        cluster.stop()
    }
}

/// Whether a loop runs in full.
fn times(sample: usize, long: usize) -> usize {
    if springtide_e2e::batch::long() { long } else { sample }
}

/// What the transition of a group, running or the last one, says in JSON, for messages.
fn told(group: &TimeShareGroup) -> String {
    let status = group.status.as_ref();
    let told = status.map(|status| json!({"transition": status.transition, "stuck": status.stuck}));
    format!("{GROUP}: {}", told.unwrap_or_default())
}
