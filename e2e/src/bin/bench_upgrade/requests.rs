//! I8: requests through a Service while its pods are upgraded again and again, and how many of them are lost; beside it
//! the same without a drain, which has to lose some.

use anyhow::Result;
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{PrePullMode, TrafficMode};
use springtide_e2e::bench::on_a_node;
use springtide_e2e::bench::requests::{Asked, Compared, Requests};
use springtide_e2e::node::NodeCluster;
use springtide_e2e::upgrade::traffic::server_reference;
use springtide_e2e::upgrade::{Testbed, Workload};

use crate::downtime::{next, with_servers};

/// Pods behind the Service.
pub(crate) const PODS: u32 = 4;
/// Seconds that a drained pod goes on serving, for the node's proxy to follow.
pub(crate) const MIN_SECONDS: u32 = 2;
/// Upgrades of the run without a drain.
pub(crate) const CONTROL_UPGRADES: u32 = 3;
/// Name of the workload, of its Service and of its upgrade.
const WEB: &str = "web";

/// Sends at least so many requests, and some to the control.
pub(crate) async fn measure(requests: u64) -> Result<Option<Compared>> {
    let Some((cluster, manager)) = on_a_node(with_servers).await? else { return Ok(None) };
    let drained = of(&cluster, TrafficMode::ReadinessGate, Some(requests)).await?;
    let control = of(&cluster, TrafficMode::None, None).await?;
    let compared = Compared::of(requests, drained, control)?;
    manager.stop()?;
    cluster.stop()?;
    Ok(Some(compared))
}

/// Upgrades all pods to one version and the other until so many requests are sent, or as often as a control is.
async fn of(cluster: &NodeCluster, mode: TrafficMode, requests: Option<u64>) -> Result<Requests> {
    let test = Testbed::new(cluster.control_plane(), "requests").await?;
    let web = Workload::deployment(WEB, PODS).serving();
    let before = test.start_paused(&web).await?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Int(1);
    spec.traffic.mode = mode;
    spec.traffic.drain.min_seconds = MIN_SECONDS;
    spec.pre_pull.mode = PrePullMode::None;
    let selector = json!({"app": WEB});
    let asked = Asked { test: &test, name: WEB, selector, pods: PODS };
    let mut version = 1;
    let turn = async |upgrades: u32| {
        let last = test.target_hash(WEB);
        version = next(version);
        test.set_image(&web, &server_reference(version)).await?;
        if upgrades == 0 {
            test.upgrade(WEB, spec.clone()).await?;
        }
        test.succeeded(WEB, &last).await.map(drop)
    };
    let seen = match requests {
        Some(requests) => asked.until_sent(requests, turn).await?,
        None => asked.for_turns(CONTROL_UPGRADES, turn).await?,
    };
    eprintln!("      {mode:?}: {} upgrades, {} requests, {} lost", seen.turns, seen.sent(), seen.lost());
    test.pods.now().ensure_same(WEB, &before)?;
    test.clear().await?;
    Ok(seen)
}
