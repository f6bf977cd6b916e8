//! T9: requests through a Service whose members take turns, and how many of them are lost; beside it the same where all
//! pods leave traffic at once, which has to lose some.

use anyhow::Result;
use springtide_e2e::bench::on_a_node;
use springtide_e2e::bench::requests::{Asked, Compared, Requests};
use springtide_e2e::node::NodeCluster;
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::traffic::with_traffic;

/// Pods of each member behind the Service.
pub(crate) const PODS: u32 = 3;
/// Seconds that a drained pod keeps its size, for the node's proxy to follow.
pub(crate) const MIN_SECONDS: u32 = 2;
/// Units at once, with proof and in the control.
const ONE: u32 = 1;
const ALL: u32 = 110;
/// Switches of the control.
pub(crate) const CONTROL: u32 = 4;
/// Name of the Service.
const FRONT: &str = "front";

/// Sends at least so many requests, and some to the control.
pub(crate) async fn measure(requests: u64) -> Result<Option<Compared>> {
    let Some((cluster, manager)) = on_a_node(|| Ok(NodeCluster::builder())).await? else { return Ok(None) };
    let drained = of(&cluster, ONE, Some(requests)).await?;
    let control = of(&cluster, ALL, None).await?;
    let compared = Compared::of(requests, drained, control)?;
    manager.stop()?;
    cluster.stop()?;
    Ok(Some(compared))
}

/// Has members take turns, so many units at once, until so many requests are sent, or as often as in a control.
async fn of(cluster: &NodeCluster, at_once: u32, requests: Option<u64>) -> Result<Requests> {
    let stage = NodeStage::new(cluster, "requests").await?;
    let members = ["pay", "promo"].map(|name| NodeMember::new(name, PODS, "300m", "50m"));
    let mut before = Vec::new();
    for member in &members {
        before.push(stage.start(member).await?);
    }
    stage.fill(i64::from(PODS) * 250).await?;
    stage
        .group(&[&members[0], &members[1]], |spec| {
            spec.switch.max_in_flight_units_per_node = at_once;
            for member in &mut spec.members {
                member.traffic.drain.min_seconds = MIN_SECONDS;
            }
        })
        .await?;
    stage.switch_to(Some("pay")).await?;
    let turn = async |switches: u32| {
        let to = if switches.is_multiple_of(2) { "promo" } else { "pay" };
        stage.switch_to(Some(to)).await.map(drop)
    };
    let asked = Asked { test: &stage.test, name: FRONT, selector: with_traffic(None, true), pods: PODS };
    let seen = match requests {
        Some(requests) => asked.until_sent(requests, turn).await?,
        None => asked.for_turns(CONTROL, turn).await?,
    };
    eprintln!(
        "      {at_once} units at once: {} switches, {} requests, {} lost",
        seen.turns,
        seen.sent(),
        seen.lost()
    );
    for (member, before) in members.iter().zip(&before) {
        stage.sizes.now().ensure_same(&member.name, before)?;
    }
    stage.test.clear().await?;
    Ok(seen)
}
