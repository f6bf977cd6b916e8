//! Nodes that are full: nobody else gets the room of a switch, and no node gives out more than it has.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use springtide_crds::time_share_group::{Order, ReadyReason, StuckReason, UnitCounts};
use springtide_e2e::batch::POOL;
use springtide_e2e::fault_proxy::{Class, Fault, FaultProxy, Latency, Protocols, When};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::time_share::kubelets::Habits;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Pods;
use springtide_e2e::time_share::sizes::SizedPod;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::{Bounded, cluster, manager, manager_through, shared};
use springtide_e2e::write_count::Verb;

/// Label of the pods that wait for room.
const THIRD: &str = "third";
/// By so much resizes are late.
const LATE: Duration = Duration::from_secs(2);

/// Has pods wait on the nodes of the stage for a core each.
async fn wait_for_room(stage: &Stage<'_>, pods: usize) -> Result<()> {
    for number in 0..pods {
        stage
            .test
            .create::<Pod>(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("{THIRD}-{number}"), "labels": {"app": THIRD}},
                "spec": {
                    "nodeSelector": {POOL: stage.test.namespace}, "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "main", "image": "example.com/task:1", "resources": {"requests": {"cpu": "1"}},
                    }],
                },
            }))
            .await?;
    }
    let is_there = |seen: &Pods| (seen.sizes.of(THIRD).len() == pods).then_some(());
    stage.test.pods_until("they wait", is_there).await
}

/// Those that have got some.
fn admitted(stage: &Stage<'_>) -> usize {
    let pods = stage.test.pods.now();
    pods.sizes.of(THIRD).into_iter().filter(|pod| is_bound(pod)).count()
}

fn is_bound(pod: &SizedPod) -> bool {
    pod.pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// Switches there and back while others wait for room; how many of them have got some.
async fn robbed(bounded: &Bounded, name: &str, order: Order) -> Result<usize> {
    let stage = Setting::new(name, 4).start(&bounded.cluster, |spec| spec.switch.order = order).await?;
    wait_for_room(&stage, 8).await?;
    for member in ["promo", "pay"] {
        stage.give(member).await?;
        let reasons = [ReadyReason::Settled, ReadyReason::SettledWithSkips];
        stage.test.settled_as(GROUP, Some(member), &reasons).await?;
    }
    stage.test.verify()?;
    Ok(admitted(&stage) + bounded.kubelets.turned_away(&stage.test.namespace).len())
}

#[tokio::test]
async fn pods_that_wait_for_room_get_none_of_a_switch() -> Result<()> {
    let robbed = robbed(shared().await?, "pipelined", Order::Pipelined).await?;
    ensure!(robbed == 0, "{robbed} have got its room");
    Ok(())
}

#[tokio::test]
async fn pods_that_wait_for_room_get_none_of_a_claim_however_slow_the_api_is_and_some_of_a_switch_that_waits()
-> Result<()> {
    let bounded = cluster().await?;
    let proxy = FaultProxy::start(&bounded.cluster, Protocols::All)?;
    let manager = manager_through(&bounded.cluster, proxy.kubeconfig(), "manager", &[]).await?;
    let resizes = Class::of([Verb::Patch]).resource("pods/resize").agent(USER_AGENT);
    proxy.fault(resizes, When::Always, Fault::Delay(Latency::Fixed(LATE)));
    let claimed = robbed(&bounded, "claimed", Order::ClaimFirst).await?;
    ensure!(claimed == 0, "{claimed} have got the room of a claim");
    let waiting = robbed(&bounded, "waiting", Order::ShrinkFirst).await?;
    ensure!(waiting > 0, "the test tells nothing");
    manager.stop()?;
    Ok(())
}

#[tokio::test]
async fn slow_and_deaf_kubelets_delay_a_switch_and_no_node_gives_out_more_than_it_has() -> Result<()> {
    let bounded = cluster().await?;
    let habits = Habits { least: Duration::from_millis(50), most: Duration::from_secs(2), deaf_percent: 40 };
    bounded.kubelets.behave(habits);
    let manager = manager(&bounded.cluster).await?;
    let stage = Setting::new("slow", 6)
        .pods([2, 2])
        .start(&bounded.cluster, |spec| spec.switch.nudge_after_seconds = 1)
        .await?;
    let mut nudges = 0;
    for member in ["promo", "pay"] {
        let group = stage.switch_to(member).await?;
        nudges += group.status.and_then(|status| status.transition).map_or(0, |transition| transition.nudges);
    }
    ensure!(nudges > 0, "nobody was nudged");
    let happened = bounded.kubelets.happened();
    ensure!(happened.overcommitted.is_empty() && happened.turned_away.is_empty(), "{happened:?}");
    stage.test.verify()?;
    manager.stop()?;
    Ok(())
}

#[tokio::test]
async fn several_that_wait_on_one_node_do_not_block_each_other() -> Result<()> {
    let stage = Setting::new("several", 1)
        .pods([6, 6])
        .start(&shared().await?.cluster, |spec| spec.switch.max_in_flight_units_per_node = 6)
        .await?;
    let group = stage.switch_to("promo").await?;
    let transition = group.status.and_then(|status| status.transition);
    let units = transition.map(|transition| transition.units).unwrap_or_default();
    ensure!(UnitCounts { total: 6, done: 6, ..UnitCounts::default() } == units, "{units:?}");
    stage.switch_to("pay").await?;
    stage.test.verify()
}

#[tokio::test]
async fn a_node_on_which_somebody_else_has_the_room_keeps_its_donors() -> Result<()> {
    let stage = Setting::new("taken", 2)
        .sizes([("4", "200m"), ("5", "200m")])
        .start(&shared().await?.cluster, |_| {})
        .await?;
    // A core is left on each node while pay has the peak; on one of them it goes.
    wait_for_room(&stage, 1).await?;
    let runs = |seen: &Pods| seen.sizes.of(THIRD).into_iter().any(is_bound).then_some(());
    stage.test.pods_until("it runs", runs).await?;
    stage.give("promo").await?;
    let group = stage.settled_with_skips("promo").await?;
    stage.ensure_whole()?;
    ensure!((stage.standing("promo").at_peak, stage.standing("pay").at_peak) == (1, 1));
    let status = group.status.unwrap_or_default();
    ensure!(status.stuck.iter().all(|row| row.reason != StuckReason::Deferred), "{:?}", status.stuck);
    stage.test.verify()
}
