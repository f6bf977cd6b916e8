//! Nodes that are full: nobody else gets the room of a switch, and no node gives out more than it has.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use springtide_crds::time_share_group::{Order, ReadyReason, UnitCounts};
use springtide_e2e::fault_proxy::{Class, Fault, FaultProxy, Latency, Protocols, When};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::time_share::kubelets::Habits;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::{Pods, Standing};
use springtide_e2e::time_share::resizes::{of_pod, stored};
use springtide_e2e::time_share::stage::Setting;
use springtide_e2e::time_share::third_pods::THIRD;
use springtide_e2e::time_share::{Bounded, cluster, manager, manager_through, shared};
use springtide_e2e::write_count::Verb;

/// By so much resizes are late.
const LATE: Duration = Duration::from_secs(2);
/// So long kubelets take for a size: far longer than the second resize of a unit takes behind the first, on a busy machine too.
const LEISURELY: Habits = Habits { least: LATE, most: LATE, deaf_percent: 0 };

/// Switches there and back while others wait for room; how many of them have got some.
async fn robbed(bounded: &Bounded, name: &str, order: Order) -> Result<usize> {
    let stage = Setting::new(name, 4).start(&bounded.cluster, |spec| spec.switch.order = order).await?;
    stage.wait_for_room(8).await?;
    for member in ["promo", "pay"] {
        stage.give(member).await?;
        let reasons = [ReadyReason::Settled, ReadyReason::SettledWithSkips];
        stage.test.settled_as(GROUP, Some(member), &reasons).await?;
    }
    stage.test.verify()?;
    Ok(stage.robbers(&bounded.kubelets).len())
}

#[tokio::test]
async fn pods_that_wait_for_room_get_none_of_a_switch() -> Result<()> {
    let bounded = cluster().await?;
    bounded.kubelets.behave(LEISURELY);
    let manager = manager(&bounded.cluster).await?;
    let robbed = robbed(&bounded, "pipelined", Order::Pipelined).await?;
    ensure!(robbed == 0, "{robbed} have got its room");
    manager.stop()?;
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
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    manager.stop()?;
    Ok(())
}

#[tokio::test]
async fn several_that_wait_on_one_node_do_not_block_each_other() -> Result<()> {
    let stage = Setting::new("several", 1)
        .pods([6, 6])
        // All that grow ask before anybody has shrunk.
        .start(&shared().await?.cluster, |spec| spec.switch.order = Order::ClaimFirst)
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
    stage.wait_for_room(1).await?;
    let node = |seen: &Pods| seen.sizes.of(THIRD).first()?.pod.spec.as_ref()?.node_name.clone();
    let taken = stage.test.pods_until("it runs", node).await?;
    let mark = stage.test.mark()?;
    stage.give("promo").await?;
    stage.settled_with_skips("promo").await?;
    stage.whole().await?;
    for member in ["pay", "promo"] {
        stage.stand(member, Standing::split(1, 1)).await?;
    }
    // It was not tried there at all.
    let writes = stored(&stage.test.requests_since(mark)?);
    for member in ["pay", "promo"] {
        for pod in stage.test.pods.now().by_node(member).remove(&taken).context("a pod there")? {
            let own = of_pod(&writes, &pod);
            ensure!(own.is_empty(), "{pod}: {own:?}");
        }
    }
    stage.test.verify()
}
