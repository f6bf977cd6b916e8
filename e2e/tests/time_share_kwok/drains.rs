//! What proves that a pod is out of traffic before it shrinks: several Services, those that publish what is not ready, and
//! slices that do not follow.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use serde_json::json;
use springtide_crds::common::OnTimeout;
use springtide_crds::time_share_group::{StuckReason, TrafficMode};
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::{cluster, manager, shared};
use springtide_e2e::upgrade::slices::{SliceFeed, Slices};

/// Pods of each member, one a node.
const PODS: usize = 3;

/// Waits until a Service has so many pods as ready.
async fn serves(slices: &SliceFeed, service: &str, pods: usize) -> Result<()> {
    let all = |slices: &Slices| (slices.ready(service).len() == pods).then_some(());
    slices.until(&format!("{service} has {pods} pods"), all).await
}

#[tokio::test]
async fn nobody_shrinks_that_any_service_has_as_ready_but_those_that_publish_what_is_not() -> Result<()> {
    let setting = Setting::new("services", 3).each(|member| member.mode(TrafficMode::ReadinessGate));
    let stage = setting.start(&shared().await?.cluster, |_| {}).await?;
    let slices = SliceFeed::start(stage.test.api()).await?;
    for (name, publishes) in [("second", false), ("published", true)] {
        stage
            .test
            .create::<Service>(json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
                "spec": {
                    "selector": {"app": "pay"}, "ports": [{"port": 80}], "publishNotReadyAddresses": publishes,
                },
            }))
            .await?;
    }
    for service in ["pay", "second", "published"] {
        serves(&slices, service, PODS).await?;
    }
    stage.switch_to("promo").await?;
    let shrinks = stage.test.pods.now().sizes.shrinks("pay");
    ensure!(shrinks.len() == PODS && slices.now().gaps() == 0, "{shrinks:?}");
    for change in &shrinks {
        let listing = slices.now().listing(change, &["pay", "second"]);
        ensure!(listing.is_empty(), "{change:?} shrank in traffic of {listing:?}");
        let published = slices.now().listing(change, &["published"]);
        ensure!(published == ["published"], "it is never out of that one's");
    }
    serves(&slices, "promo", PODS).await?;
    stage.test.verify()
}

/// A stage whose drains are waited for as long as two seconds, and whose Services have their pods.
async fn impatient<'a>(cluster: &'a LocalCluster, name: &str, end: OnTimeout) -> Result<Stage<'a>> {
    let stage = Setting::new(name, 3)
        .start(cluster, |spec| {
            for member in &mut spec.members {
                member.traffic.drain.timeout_seconds = 2;
                member.traffic.drain.on_timeout = end;
            }
            spec.guards.failure_threshold_percent = 100;
        })
        .await?;
    serves(&SliceFeed::start(stage.test.api()).await?, "pay", PODS).await?;
    Ok(stage)
}

#[tokio::test]
async fn a_drain_that_is_not_proved_in_time_ends_as_the_spec_says() -> Result<()> {
    let bounded = cluster().await?;
    let cluster = &bounded.cluster;
    let manager = manager(cluster).await?;
    let skips = impatient(cluster, "skips", OnTimeout::Skip).await?;
    let proceeds = impatient(cluster, "proceeds", OnTimeout::Proceed).await?;
    // From now on no slice follows its pods.
    let controllers = cluster.component(Component::ControllerManager).context("the controller manager")?;
    controllers.pause()?;
    for stage in [&skips, &proceeds] {
        stage.give("promo").await?;
    }
    let group = skips.settled_with_skips("promo").await?;
    let status = group.status.context("a status")?;
    let reasons: Vec<StuckReason> = status.stuck.iter().map(|row| row.reason).collect();
    ensure!(reasons == [StuckReason::DrainTimedOut; PODS], "{:?}", status.stuck);
    // They have their traffic again, and nobody has shrunk.
    skips.stand("pay", Standing::peak(PODS)).await?;
    skips.stand("promo", Standing::valley(PODS)).await?;
    let shrinks = skips.test.pods.now().sizes.shrinks("pay");
    ensure!(shrinks.is_empty(), "{shrinks:?}");
    proceeds.settled("promo").await?;
    proceeds.ensure_peak("promo").await?;
    controllers.resume()?;
    for stage in [&skips, &proceeds] {
        stage.give("pay").await?;
        stage.settled("pay").await?;
        stage.ensure_peak("pay").await?;
    }
    skips.switch_to("promo").await?;
    skips.test.verify()?;
    proceeds.test.verify()?;
    manager.stop()?;
    Ok(())
}
