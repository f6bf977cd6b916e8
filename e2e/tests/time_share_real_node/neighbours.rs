//! What others do to a member that is at valley size: rollouts, scaling, node drains, upgrades in place.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, EvictParams, PostParams};
use serde_json::json;
use springtide_crds::in_place_upgrade::{
    InPlaceUpgrade, InPlaceUpgradeSpec, PrePullMode, RunResult, TargetKind, TrafficMode as UpgradeTraffic,
};
use springtide_crds::time_share_group::TrafficMode;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::time_share::node_member::{CONTAINER, NodeMember};
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::sizes::Sizes;
use springtide_e2e::upgrade::pods::is_true;
use springtide_e2e::upgrade::real_node::NodeBed;
use springtide_e2e::upgrade::traffic::server_reference;
use springtide_time_share_group::sizes::Level;

use super::{TURN, shared, told};

/// HTTP status of an eviction that a budget does not allow.
const TOO_MANY_REQUESTS: u16 = 429;

/// Two members of two pods on a node with room for one pod more at peak; the first one has it. `promo` is at valley.
async fn stage(
    bed: &'static NodeBed,
    prefix: &str,
    promo: &NodeMember,
) -> Result<(NodeStage<'static>, NodeMember)> {
    let stage = NodeStage::new(&bed.cluster, prefix).await?;
    let pay = NodeMember::new("pay", 2, "300m", "50m").mode(promo.mode);
    stage.start(&pay).await?;
    stage.start(promo).await?;
    stage.fill(850).await?;
    stage.group(&[&pay, promo], |_| {}).await?;
    stage.switch_to(Some("pay")).await?;
    Ok((stage, pay))
}

/// Whether the rollout ends within so many seconds.
async fn is_rolled_out(stage: &NodeStage<'_>, seconds: u32) -> bool {
    let timeout = format!("--timeout={seconds}s");
    stage.test.kubectl(&["rollout", "status", "deployment/promo", &timeout]).await.is_ok()
}

#[tokio::test]
async fn a_member_at_valley_with_the_label_is_rolled_out_scaled_and_evicted_as_any_other_workload()
-> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let promo = NodeMember::new("promo", 2, "300m", "50m");
    let (stage, pay) = stage(bed, "label", &promo).await?;
    let before = stage.sizes.now().identities("pay");
    let first = stage.sizes.now().identities("promo");
    stage.test.roll("promo").await?;
    ensure!(is_rolled_out(&stage, 120).await, "the rollout of a member at valley waits");
    stage.all(&promo, Level::Valley).await?;
    stage.settled(Some("pay")).await?;
    ensure!(stage.sizes.now().identities("promo").keys().all(|pod| !first.contains_key(pod)), "they are new");
    stage.ensure_at(&pay, Level::Peak)?;

    stage.test.kubectl(&["scale", "deployment", "promo", "--replicas=1"]).await?;
    let one = |sizes: &Sizes| (sizes.of("promo").len() == 1).then_some(());
    stage.sizes.until("one pod is left", one).await?;
    stage.switch_to(Some("promo")).await?;
    stage.all(&promo.clone().replicas(1), Level::Peak).await?;
    stage.ensure_at(&pay, Level::Valley)?;
    stage.test.kubectl(&["scale", "deployment", "promo", "--replicas=2"]).await?;
    // It is born small, and raised.
    stage.all(&promo, Level::Peak).await?;
    stage.switch_to(Some("pay")).await?;

    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "promo"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "promo"}}},
    });
    stage.test.create::<PodDisruptionBudget>(budget).await?;
    let evicted = evict(&stage).await?;
    ensure!(evicted.is_none(), "ready pods of a member at valley are evicted: {evicted:?}");
    stage.all(&promo, Level::Valley).await?;
    stage.settled(Some("pay")).await?;
    stage.sizes.now().ensure_same("pay", &before)?;
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    stage.test.clear().await
}

/// Evicts a pod of `promo` once its budget has counted all pods; gives the HTTP status of a refusal.
async fn evict(stage: &NodeStage<'_>) -> Result<Option<u16>> {
    let budgets: Api<PodDisruptionBudget> = stage.test.api();
    until_seen(PATIENCE, "the budget has counted all pods", async || {
        let budget = budgets.get("promo").await?;
        let status = budget.status.as_ref();
        let is_counted = status.is_some_and(|status| {
            status.observed_generation == budget.metadata.generation && status.expected_pods == Some(2)
        });
        Ok(if is_counted { Ok(()) } else { Err(format!("{status:?}")) })
    })
    .await?;
    let name = stage.sizes.now().of("promo").first().map(|pod| pod.name()).context("a pod")?;
    let pods: Api<Pod> = stage.test.api();
    match pods.evict(&name, &EvictParams::default()).await {
        Ok(_) => {
            let gone = |sizes: &Sizes| sizes.named(&name).is_none().then_some(());
            stage.sizes.until(&format!("{name} is gone"), gone).await?;
            Ok(None)
        }
        Err(kube::Error::Api(refusal)) => Ok(Some(refusal.code)),
        Err(error) => Err(error).context("evict a pod"),
    }
}

#[tokio::test]
async fn a_member_at_valley_with_the_gate_waits_with_its_rollout_until_it_has_the_peak() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let promo = NodeMember::new("promo", 2, "300m", "50m").mode(TrafficMode::ReadinessGate);
    let (stage, pay) = stage(bed, "gate", &promo).await?;
    let before = stage.sizes.now().identities("pay");
    let budget = json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "promo"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "promo"}}},
    });
    stage.test.create::<PodDisruptionBudget>(budget).await?;
    let refused = evict(&stage).await?;
    ensure!(refused == Some(TOO_MANY_REQUESTS), "unready pods keep a budget from its minimum: {refused:?}");
    let always = json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}).to_string();
    stage
        .test
        .kubectl(&["patch", "poddisruptionbudget", "promo", "--type=merge", "--patch", &always])
        .await?;
    let evicted = evict(&stage).await?;
    ensure!(evicted.is_none(), "{evicted:?}");
    stage.all(&promo, Level::Valley).await?;

    stage.test.roll("promo").await?;
    ensure!(!is_rolled_out(&stage, 15).await, "a rollout of unready pods does not wait");
    stage.ask_for(Some("promo")).await?;
    ensure!(is_rolled_out(&stage, 180).await, "the rollout goes on when its pods have the peak");
    let group = stage.settled(Some("promo")).await?;
    stage.all(&promo, Level::Peak).await.with_context(|| told(&group))?;
    let are_ready = |sizes: &Sizes| {
        let pods = sizes.of("promo");
        (pods.len() == 2 && pods.iter().all(|pod| is_true(&pod.pod, "Ready"))).then_some(())
    };
    stage.sizes.until("they have their traffic", are_ready).await?;
    stage.ensure_at(&pay, Level::Valley)?;
    stage.sizes.now().ensure_same("pay", &before)?;
    stage.ensure_never_overcommitted().await?;
    stage.test.verify()?;
    stage.test.clear().await
}

#[tokio::test]
async fn a_member_at_valley_is_upgraded_in_place_and_then_takes_its_turn_with_the_same_pods() -> Result<()> {
    let _turn = TURN.lock().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let image = |version| json!({"name": CONTAINER, "image": server_reference(version), "args": null});
    let promo = NodeMember::new("promo", 2, "300m", "50m").container(image(1));
    let (stage, pay) = stage(bed, "upgraded", &promo).await?;
    let before = stage.sizes.now().identities("promo");
    stage.test.patch_deployment("promo", json!({"spec": {"paused": true}})).await?;
    let set = format!("{CONTAINER}={}", server_reference(2));
    stage.test.kubectl(&["set", "image", "deployment/promo", &set]).await?;
    let mut spec = InPlaceUpgradeSpec::new(TargetKind::Deployment, "promo");
    spec.traffic.mode = UpgradeTraffic::None;
    spec.pre_pull.mode = PrePullMode::Auto;
    let upgrades: Api<InPlaceUpgrade> = stage.test.api();
    upgrades.create(&PostParams::default(), &InPlaceUpgrade::new("promo", spec)).await?;
    until_seen(PATIENCE, "the upgrade is done", async || {
        let status = upgrades.get("promo").await?.status;
        let run = status.as_ref().and_then(|status| status.last_run.as_ref());
        let is_done = run.is_some_and(|run| run.result == RunResult::Succeeded);
        Ok(if is_done { Ok(()) } else { Err(format!("{status:?}")) })
    })
    .await?;
    stage.all(&promo, Level::Valley).await?;
    stage.switch_to(Some("promo")).await?;
    stage.ensure_at(&promo, Level::Peak)?;
    stage.ensure_at(&pay, Level::Valley)?;
    {
        let sizes = stage.sizes.now();
        let after = sizes.identities("promo");
        ensure!(after == before, "{before:?} became {after:?}");
        let restarts: Vec<i32> = sizes.of("promo").iter().map(|pod| pod.restarts()).collect();
        ensure!(restarts == [1, 1], "{restarts:?}");
    }
    stage.test.verify()?;
    stage.test.api::<InPlaceUpgrade>().delete("promo", &DeleteParams::default()).await?;
    stage.test.clear().await
}
