//! Requests to a Service whose members take turns: none is lost as long as some pod serves at any time.

use std::time::Duration;

use anyhow::{Result, ensure};
use springtide_crds::time_share_group::TrafficMode;
use springtide_e2e::node::NodeCluster;
use springtide_e2e::node::load::Seen;
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::traffic::{Clients, with_traffic};
use springtide_e2e::upgrade::slices::SliceFeed;
use springtide_e2e::upgrade::traffic::service;
use tokio::time::Instant;

use super::{TURN, shared};

/// Requests a second.
const RATE: u32 = 800;
/// Requests of which none may be lost, and the time for them, a tenth more than it takes.
const REQUESTS: u64 = 100_000;
const TIME: Duration = Duration::from_secs(138);
/// A shorter time, for pods that leave traffic by their gate.
const SHORT: Duration = Duration::from_secs(40);
/// Pods of each member.
const PAIRS: u32 = 3;
/// The Service of all members.
const FRONT: &str = "front";
/// So long a pod keeps its size after no EndpointSlice lists it: proxies are later than that.
const MIN_SECONDS: u32 = 2;

/// Has members take turns beside requests to the Service of both, for so long and at least twice; `at_once` units at a
/// time. Gives what clients have seen, and how often a pod was made small while a Service had it.
async fn take_turns(
    cluster: &NodeCluster,
    mode: TrafficMode,
    at_once: u32,
    time: Duration,
) -> Result<(Seen, usize)> {
    let stage = NodeStage::new(cluster, "traffic").await?;
    let members = ["pay", "promo"].map(|name| NodeMember::new(name, PAIRS, "300m", "50m").mode(mode));
    let mut before = Vec::new();
    for member in &members {
        before.push(stage.start(member).await?);
    }
    stage.fill(i64::from(PAIRS) * 250).await?;
    stage
        .group(&[&members[0], &members[1]], |spec| {
            spec.switch.max_in_flight_units_per_node = at_once;
            for member in &mut spec.members {
                member.traffic.drain.min_seconds = MIN_SECONDS;
            }
        })
        .await?;
    stage.switch_to(Some("pay")).await?;
    let by_label = mode == TrafficMode::ServiceLabel;
    for member in &members {
        service(&stage.test, &member.name, &with_traffic(Some(&member.name), by_label)).await?;
    }
    let slices = SliceFeed::start(stage.test.api()).await?;
    let front = with_traffic(None, by_label);
    // Without a way out of traffic all of them have it.
    let serving = if mode == TrafficMode::None { 2 * PAIRS } else { PAIRS } as usize;
    let clients = Clients::start(&stage.test, FRONT, &front, serving, RATE).await?;
    let enough = Instant::now() + time;
    let mut switches = 0;
    while switches < 2 || Instant::now() < enough {
        for to in ["promo", "pay"] {
            stage.switch_to(Some(to)).await?;
            switches += 1;
        }
    }
    let seen = clients.end().await?;
    println!(
        "{switches} switches by {mode:?}, {at_once} units at once: {} of {} requests failed, at {} a second",
        seen.failed(),
        seen.answered() + seen.failed(),
        seen.rate()
    );
    let mut listed = 0;
    for (member, before) in members.iter().zip(&before) {
        let sizes = stage.sizes.now();
        sizes.ensure_same(&member.name, before)?;
        let slices = slices.now();
        ensure!(slices.gaps() == 0, "the watch of slices has begun anew");
        for shrink in sizes.shrinks(&member.name) {
            listed += usize::from(!slices.listing(&shrink, &[FRONT, "pay", "promo"]).is_empty());
        }
    }
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    stage.test.clear().await?;
    Ok((seen, listed))
}

/// # Errors
/// Not both members have answered.
fn ensure_both_served(seen: &Seen) -> Result<()> {
    for half in [&seen.new, &seen.kept] {
        for member in ["pay", "promo"] {
            ensure!(half.texts.get(member).is_some_and(|answers| *answers > 0), "{member}: {seen:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn members_that_take_turns_lose_none_of_a_hundred_thousand_requests() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let (seen, listed) = take_turns(&bed.cluster, TrafficMode::ServiceLabel, 1, TIME).await?;
    seen.ensure_none_failed()?;
    ensure!(seen.answered() >= REQUESTS, "{seen:?}");
    ensure!(listed == 0, "{listed} pods were made small while a Service had them");
    ensure_both_served(&seen)
}

#[tokio::test]
async fn pods_that_leave_traffic_by_their_gate_lose_no_request_either() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let (seen, listed) = take_turns(&bed.cluster, TrafficMode::ReadinessGate, 1, SHORT).await?;
    seen.ensure_none_failed()?;
    ensure!(listed == 0, "{listed} pods were made small while a Service had them");
    ensure_both_served(&seen)
}

#[tokio::test]
async fn the_same_clients_lose_requests_where_all_pods_leave_at_once() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let (seen, listed) = take_turns(&bed.cluster, TrafficMode::ServiceLabel, 110, Duration::ZERO).await?;
    ensure!(seen.failed() > 0 && seen.ensure_none_failed().is_err(), "{seen:?}");
    ensure!(listed == 0, "{listed} pods were made small while a Service had them");
    Ok(())
}

#[tokio::test]
async fn without_a_way_out_of_traffic_pods_are_made_small_while_a_service_has_them() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let (seen, listed) = take_turns(&bed.cluster, TrafficMode::None, 1, Duration::ZERO).await?;
    ensure!(listed == 2 * PAIRS as usize, "{listed} of them were: the oracle would not see it");
    ensure_both_served(&seen)
}
