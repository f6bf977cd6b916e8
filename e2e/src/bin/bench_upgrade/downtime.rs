//! I7: for how long a pod is out while its container is replaced, with a real kubelet and images that are on the node.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::Api;
use serde::{Deserialize, Serialize};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::PrePullMode;
use springtide_e2e::bench::stats::sorted;
use springtide_e2e::manager::Manager;
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::upgrade::traffic::{server_image, server_reference};
use springtide_e2e::upgrade::{Signal, Testbed, Workload};

use crate::pods::PodFeed;

/// Pods of each workload, and how often each is upgraded.
pub(crate) const PODS: u32 = 4;
pub(crate) const ROUNDS: u32 = 12;
/// What a server without connections takes of its grace, in seconds: it waits so long for such as are on the way.
pub(crate) const GRACE_USED: f64 = 0.1;
/// Name of a workload and of its upgrade.
const WEB: &str = "web";
/// For the last statuses to be seen.
const SEEN: Duration = Duration::from_secs(3);

/// What was seen of one workload, in seconds, sorted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Downtime {
    /// Containers that were replaced.
    pub(crate) changes: usize,
    /// Ready False to Ready True.
    pub(crate) out: Vec<f64>,
    /// Change of the image to the new container, of those in such a time.
    pub(crate) restarted: Vec<f64>,
}

/// Of pods with the gate and of pods without.
#[derive(Serialize, Deserialize)]
pub(crate) struct Downtimes {
    pub(crate) gated: Downtime,
    pub(crate) plain: Downtime,
}

/// A cluster with a real node that has the images of two versions of a server, and a manager; none where no node can run
/// and `SPRINGTIDE_NODE=off` says so.
pub(crate) async fn on_a_node() -> Result<Option<(NodeCluster, Manager)>> {
    if !required_or_skipped().await? {
        return Ok(None);
    }
    let builder = NodeCluster::builder().image(server_image(1)?).image(server_image(2)?);
    let cluster = builder.start().await?;
    cluster.control_plane().install_crds().await?;
    let mut manager = Manager::start(cluster.control_plane(), "manager", &[]).await?;
    manager.wait_ready().await?;
    Ok(Some((cluster, manager)))
}

/// The version that follows: its image is on the node too.
pub(crate) fn next(version: u32) -> u32 {
    3 - version
}

/// Measures both, one pod at a time.
pub(crate) async fn measure() -> Result<Option<Downtimes>> {
    let Some((cluster, manager)) = on_a_node().await? else { return Ok(None) };
    let gated = of(&cluster, Signal::Gate).await?;
    let plain = of(&cluster, Signal::None).await?;
    manager.stop()?;
    cluster.stop()?;
    Ok(Some(Downtimes { gated, plain }))
}

async fn of(cluster: &NodeCluster, signal: Signal) -> Result<Downtime> {
    let plane = cluster.control_plane();
    let test = Testbed::new(plane, "downtime").await?;
    let web = Workload::deployment(WEB, PODS).signal(signal).serving();
    let before = test.start_paused(&web).await?;
    let feed = PodFeed::start(Api::namespaced(plane.client("bench-watcher")?, &test.namespace)).await?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Int(1);
    spec.traffic.drain.min_seconds = 0;
    spec.pre_pull.mode = PrePullMode::None;
    let mut version = 1;
    for round in 0..ROUNDS {
        let last = test.target_hash(WEB);
        version = next(version);
        test.set_image(&web, &server_reference(version)).await?;
        if round == 0 {
            test.upgrade(WEB, spec.clone()).await?;
        }
        test.succeeded(WEB, &last).await?;
    }
    tokio::time::sleep(SEEN).await;
    test.pods.now().ensure_same(WEB, &before)?;
    test.verify()?;
    let restarts: i32 = test.pods.now().of(WEB).iter().map(|life| life.restarts()).sum();
    let changes = (PODS * ROUNDS) as usize;
    ensure!(usize::try_from(restarts)? == changes, "{restarts} restarts, and {changes} changes");
    let seen = feed.now();
    ensure!(seen.gaps() == 0, "the watch has begun anew");
    let outages = seen.outages();
    ensure!(!outages.is_empty(), "no pod was seen to be out");
    if signal == Signal::Gate {
        ensure!(outages.len() == changes, "{} pods were out in {changes} changes", outages.len());
    }
    let downtime = Downtime {
        changes,
        out: sorted(outages.iter().map(|outage| outage.seconds)),
        restarted: sorted(outages.iter().filter_map(|outage| outage.restarted_after)),
    };
    eprintln!(
        "      {signal:?}: out for {:.2} s at most, {} times in {changes} changes",
        downtime.out.last().copied().unwrap_or(f64::NAN),
        downtime.out.len()
    );
    Ok(downtime)
}
