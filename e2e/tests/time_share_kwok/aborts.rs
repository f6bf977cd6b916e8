//! Switches that are stopped, or whose group or member goes in the middle: each unit ends wholly on one side.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt;
use serde_json::json;
use springtide_crds::time_share_group::{HeldReason, Mode, ReadyReason};
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::{Pods, Standing, serves};
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::{Setting, Stage};

/// A stage whose switches take a while.
async fn slow(name: &str) -> Result<Stage<'static>> {
    Setting::new(name, 6).start(&shared().await?.cluster, |spec| spec.switch.max_in_flight_units = 2).await
}

#[tokio::test]
async fn a_pause_lets_what_has_begun_come_to_rest_and_begins_nothing() -> Result<()> {
    let stage = slow("paused").await?;
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    stage.edit(json!({"mode": Mode::Paused})).await?;
    stage.test.told(GROUP, HeldReason::Paused).await?;
    stage.test.told(GROUP, ReadyReason::Paused).await?;
    let no_unit_is_open = |pods: &Pods| {
        let (pay, promo) = (pods.standing("pay"), pods.standing("promo"));
        (pay.serving + promo.serving == 6 && pay.between + promo.between == 0).then_some(())
    };
    stage.test.pods_until("it has come to rest", no_unit_is_open).await?;
    stage.whole().await?;
    let before = stage.standing("promo");
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(stage.standing("promo") == before && before.serving < 6, "{before:?}");
    stage.edit(json!({"mode": Mode::Active})).await?;
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn a_group_that_is_deleted_in_mid_switch_leaves_every_pod_in_traffic_at_its_size() -> Result<()> {
    let stage = slow("deleted").await?;
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    stage.test.pods.now().let_serve();
    stage.test.delete(GROUP).await?;
    let pods = stage.test.pods.now();
    for member in ["pay", "promo"] {
        for pod in pods.sizes.of(member) {
            ensure!(serves(&pod.pod), "{} is left without traffic", pod.pod.name_any());
        }
    }
    let standing = (pods.standing("pay"), pods.standing("promo"));
    drop(pods);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let after = (stage.standing("pay"), stage.standing("promo"));
    ensure!(after.0.serving + after.1.serving == 12, "{after:?}");
    ensure!((after.0.at_valley, after.1.at_peak) == (standing.0.at_valley, standing.1.at_peak), "sizes stay");
    stage.test.verify()
}

#[tokio::test]
async fn a_member_that_is_removed_gets_its_traffic_and_gives_its_room_back() -> Result<()> {
    // With room for a pod of another member.
    let stage = Setting::new("removed", 3).room(200).start(&shared().await?.cluster, |_| {}).await?;
    stage.switch_to("promo").await?;
    stage.test.pods.now().let_serve();
    let mut members = stage.test.groups.now().get(GROUP).context("the group")?.spec.members.clone();
    // Nobody is in its place: two members are the least, so that another workload comes for it.
    let other = stage.pay.clone().named("other").replicas(1);
    members.retain(|member| member.name != "promo");
    members.push(other.member()?);
    stage.test.create::<Deployment>(other.manifest()).await?;
    stage.edit(json!({"members": members, "override": null})).await?;
    stage
        .test
        .pods_until("promo serves, and is small", |pods| {
            let promo = pods.standing("promo");
            (promo.serving == 3 && promo.at_valley == 3).then_some(())
        })
        .await?;
    stage.settled("pay").await?;
    stage.stand("pay", Standing::peak(3)).await?;
    stage.test.verify()
}
