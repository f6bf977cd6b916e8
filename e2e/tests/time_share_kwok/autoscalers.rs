//! Autoscalers of members: those that divide by what a switch changes are told of, those that resize are refused, and those
//! that scale in mid-switch are borne.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use springtide_crds::time_share_group::{
    AutoscalerConflictReason, Autoscalers, RefusalReason, StalledReason,
};
use springtide_e2e::foreign_crds::VERTICAL_POD_AUTOSCALER;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::{cluster, manager, shared};

/// An autoscaler of `pay` by this target of its cpu.
async fn autoscaler(stage: &Stage<'_>, target: Value) -> Result<()> {
    stage
        .test
        .create::<HorizontalPodAutoscaler>(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "scaler"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "pay"},
                "minReplicas": 1, "maxReplicas": 10,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            },
        }))
        .await?;
    Ok(())
}

#[tokio::test]
async fn an_autoscaler_by_utilization_is_told_of_or_refused_and_one_by_amounts_is_neither() -> Result<()> {
    let stage = Setting::new("utilization", 2).start(&shared().await?.cluster, |_| {}).await?;
    autoscaler(&stage, json!({"type": "Utilization", "averageUtilization": 60})).await?;
    let reason = AutoscalerConflictReason::HorizontalPodAutoscalerUtilization;
    let group = stage.test.told(GROUP, reason).await?;
    let conditions = group.status.context("a status")?.conditions;
    let conflict =
        conditions.iter().find(|found| found.type_ == "AutoscalerConflict").context("the condition")?;
    ensure!(conflict.message.contains("scaler"), "{}", conflict.message);
    stage.switch_to("promo").await?;
    stage.edit(json!({"autoscalers": Autoscalers::Refuse})).await?;
    stage.test.told(GROUP, StalledReason::Refused(RefusalReason::AutoscalerRefused)).await?;
    stage.test.api::<HorizontalPodAutoscaler>().delete("scaler", &DeleteParams::default()).await?;
    autoscaler_by_amounts(&stage).await?;
    stage.test.told(GROUP, AutoscalerConflictReason::None).await?;
    stage.switch_to("pay").await?;
    stage.test.verify()
}

async fn autoscaler_by_amounts(stage: &Stage<'_>) -> Result<()> {
    // One of the same name is being deleted until it is gone.
    until(PATIENCE, "the name is free", async || {
        Ok(stage.test.api::<HorizontalPodAutoscaler>().get_opt("scaler").await?.is_none().then_some(()))
    })
    .await?;
    autoscaler(stage, json!({"type": "AverageValue", "averageValue": "2"})).await
}

#[tokio::test]
async fn members_that_are_scaled_in_mid_switch_come_to_the_same_end() -> Result<()> {
    let stage = Setting::new("scaled", 4)
        .room(4200)
        .start(&shared().await?.cluster, |spec| spec.switch.max_in_flight_units = 1)
        .await?;
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    stage.scale("promo", 8).await?;
    stage.scale("pay", 2).await?;
    stage.settled("promo").await?;
    stage.stand("promo", Standing::peak(8)).await?;
    stage.stand("pay", Standing::valley(2)).await?;
    stage.test.verify()
}

#[tokio::test]
async fn an_autoscaler_that_resizes_pods_itself_is_refused_until_it_only_tells() -> Result<()> {
    let bounded = cluster().await?;
    bounded.cluster.apply(VERTICAL_POD_AUTOSCALER).await?;
    let manager = manager(&bounded.cluster).await?;
    let stage = Setting::new("vertical", 1).start(&bounded.cluster, |_| {}).await?;
    let autoscaler = |mode: &str| {
        json!({
            "apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
            "metadata": {"name": "sizer", "namespace": stage.test.namespace},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "pay"},
                "updatePolicy": {"updateMode": mode},
            },
        })
        .to_string()
    };
    bounded.cluster.apply(&autoscaler("InPlaceOrRecreate")).await?;
    stage.test.told(GROUP, AutoscalerConflictReason::VerticalPodAutoscaler).await?;
    stage.test.told(GROUP, StalledReason::Refused(RefusalReason::AutoscalerRefused)).await?;
    stage.stand("pay", Standing::peak(1)).await?;
    bounded.cluster.apply(&autoscaler("Off")).await?;
    stage.test.told(GROUP, AutoscalerConflictReason::None).await?;
    stage.switch_to("promo").await?;
    stage.test.verify()?;
    manager.stop()?;
    Ok(())
}
