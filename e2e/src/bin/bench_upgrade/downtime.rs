//! I7 and I4: for how long a pod is out while its container is replaced, with a real kubelet and images that are on the
//! node, and whether its volume is the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::api::Api;
use serde::{Deserialize, Serialize};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::PrePullMode;
use springtide_e2e::bench::on_a_node;
use springtide_e2e::bench::stats::sorted;
use springtide_e2e::node::{self, NodeCluster};
use springtide_e2e::upgrade::traffic::{lines, server_image, server_reference, server_text};
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
    /// Pods that there were.
    pub(crate) pods: usize,
    /// Those of them whose volume has kept each start of each version.
    pub(crate) volumes: usize,
}

/// Of pods with the gate and of pods without.
#[derive(Serialize, Deserialize)]
pub(crate) struct Downtimes {
    pub(crate) gated: Downtime,
    pub(crate) plain: Downtime,
}

/// A node that has the images of two versions of a server.
pub(crate) fn with_servers() -> Result<node::Builder> {
    Ok(NodeCluster::builder().image(server_image(1)?).image(server_image(2)?))
}

/// The version that follows: its image is on the node too.
pub(crate) fn next(version: u32) -> u32 {
    3 - version
}

/// Measures both, one pod at a time.
pub(crate) async fn measure() -> Result<Option<Downtimes>> {
    let Some((cluster, manager)) = on_a_node(with_servers).await? else { return Ok(None) };
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
    let expected: Vec<String> = (0..=ROUNDS)
        .scan(1, |version, _| Some(std::mem::replace(version, next(*version))))
        .map(server_text)
        .collect();
    let mut volumes = 0;
    for pod in before.values() {
        volumes += usize::from(lines(cluster, &pod.ip)? == expected);
    }
    let downtime = Downtime {
        changes,
        pods: before.len(),
        volumes,
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
