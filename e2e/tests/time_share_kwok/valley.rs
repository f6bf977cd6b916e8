//! Members that are off stage: native rollouts, scaling, drains of nodes and upgrades go on as with any workload.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::EvictParams;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::ReadyReason;
use springtide_crds::time_share_group::TrafficMode;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::upgrade::{Workload, image, native};

/// Makes a budget of the pods of `promo`, and evicts one of them once it lets that be.
async fn evicted_within(stage: &Stage<'_>, budget: Value) -> Result<()> {
    let mut spec = budget;
    spec["selector"] = json!({"matchLabels": {"app": "promo"}});
    let manifest = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "promo"}, "spec": spec,
    });
    stage.test.create::<PodDisruptionBudget>(manifest).await?;
    let name = stage.names("promo").into_iter().next().context("a pod")?;
    until_seen(PATIENCE, "it may be evicted", async || {
        let evicted = stage.test.api::<Pod>().evict(&name, &EvictParams::default()).await;
        Ok(evicted.map(drop).map_err(|error| error.to_string()))
    })
    .await
}

#[tokio::test]
async fn a_rollout_of_labelled_pods_off_stage_ends_and_they_are_scaled_and_evicted_as_ever() -> Result<()> {
    let stage = Setting::new("rollout", 3).room(400).start(&shared().await?.cluster, |_| {}).await?;
    let before = stage.names("promo");
    stage.test.roll("promo").await?;
    native::agrees(&stage.test, &Workload::deployment("promo", 3)).await?;
    ensure!(stage.names("promo").iter().all(|name| !before.contains(name)), "they are new");
    stage.stand("promo", Standing::valley(3)).await?;
    stage.scale("promo", 2).await?;
    native::agrees(&stage.test, &Workload::deployment("promo", 2)).await?;
    stage.scale("promo", 3).await?;
    native::agrees(&stage.test, &Workload::deployment("promo", 3)).await?;
    // The budget counts pods that are ready, as labelled ones are.
    evicted_within(&stage, json!({"maxUnavailable": 1})).await?;
    native::agrees(&stage.test, &Workload::deployment("promo", 3)).await?;
    stage.settled("pay").await?;
    stage.switch_to("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn gated_pods_off_stage_are_unready_for_their_deployment_and_a_budget_that_knows_of_it_lets_them_go()
-> Result<()> {
    let setting = Setting::new("unready", 3).each(|member| member.mode(TrafficMode::ReadinessGate));
    let stage = setting.start(&shared().await?.cluster, |_| {}).await?;
    until_seen(PATIENCE, "promo is unavailable", async || {
        let promo: Value = serde_json::to_value(stage.test.api::<Deployment>().get("promo").await?)?;
        let unavailable = promo["status"]["unavailableReplicas"].as_i64();
        Ok(if unavailable == Some(3) { Ok(()) } else { Err(promo["status"].to_string()) })
    })
    .await?;
    evicted_within(&stage, json!({"minAvailable": 2, "unhealthyPodEvictionPolicy": "AlwaysAllow"})).await?;
    stage.switch_to("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn an_upgrade_of_a_member_off_stage_changes_its_pods_in_place() -> Result<()> {
    let stage = Setting::new("offstage", 3).start(&shared().await?.cluster, |_| {}).await?;
    let promo = Workload::deployment("promo", 3);
    stage.test.patch_deployment("promo", json!({"spec": {"paused": true}})).await?;
    let before = stage.test.pods.now().sizes.identities("promo");
    let upgrades = stage.test.of_upgrades();
    upgrades.set_image(&promo, &image(2)).await?;
    upgrades.upgrade("upgrade", promo.upgrade()).await?;
    upgrades.told("upgrade", ReadyReason::UpToDate).await?;
    upgrades.running(&promo, &image(2), 3).await?;
    let now = stage.test.pods.now().sizes.identities("promo");
    ensure!(now == before, "{before:?} became {now:?}");
    stage.settled("pay").await?;
    stage.switch_to("promo").await?;
    stage.test.verify()
}
