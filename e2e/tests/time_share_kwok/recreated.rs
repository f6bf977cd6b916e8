//! Pods that are evicted, lose their node, or are rolled in mid-switch: new ones come at valley size and are raised, and the
//! switch goes on meanwhile.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, EvictParams};
use springtide_e2e::batch::pool;
use springtide_e2e::kwok::NodeSpec;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::Setting;

#[tokio::test]
async fn pods_that_are_evicted_in_mid_switch_come_again_and_end_where_they_belong() -> Result<()> {
    let stage = Setting::new("evicted", 4)
        .start(&shared().await?.cluster, |spec| spec.switch.max_in_flight_units = 1)
        .await?;
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    for member in ["pay", "promo"] {
        let names = stage.names(member);
        for name in names.iter().step_by(2) {
            stage.test.api::<Pod>().evict(name, &EvictParams::default()).await?;
        }
    }
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    let gone = stage.names("promo").first().context("a pod")?.clone();
    stage.test.api::<Pod>().delete(&gone, &DeleteParams::default()).await?;
    // It is born small, and raised as soon as it is bound.
    stage
        .test
        .pods_until("another one has the peak", |pods| {
            let is_gone = pods.sizes.named(&gone).is_none();
            (is_gone && pods.standing("promo") == Standing::peak(4)).then_some(())
        })
        .await?;
    stage.settled("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn a_node_that_is_lost_in_mid_switch_keeps_nobody_from_its_end() -> Result<()> {
    let cluster = &shared().await?.cluster;
    let mut setting = Setting::new("lost", 4);
    setting.spread = "ScheduleAnyway";
    let stage = setting
        .start(cluster, |spec| {
            spec.switch.max_in_flight_units = 1;
            // As long as a pod of the lost node is there, the API server refuses its resize.
            spec.guards.failure_threshold_percent = 30;
        })
        .await?;
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    let node = format!("{}-3", stage.test.namespace);
    Api::<Node>::all(stage.test.client()).delete(&node, &DeleteParams::default()).await?;
    // Its pods have no place elsewhere: the other nodes are full.
    let group = stage
        .test
        .until(GROUP, "the switch ends", |group| {
            let status = group.status.as_ref();
            status.is_some_and(|status| status.active_member.as_deref() == Some("promo"))
        })
        .await?;
    let transition = group.status.and_then(|status| status.transition).context("a transition")?;
    ensure!(transition.completion_time.is_some() && transition.units.done >= 3, "{transition:?}");
    let again = pool(&stage.test.namespace, 1, "4200m", 110);
    let again = NodeSpec { name: format!("{}-again", stage.test.namespace), ..again };
    cluster.kwok().context("KWOK")?.add_nodes(cluster, &again).await?;
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn a_workload_that_is_rolled_in_mid_switch_gets_new_pods_that_are_raised() -> Result<()> {
    let stage = Setting::new("rolled", 4)
        .room(400)
        .start(&shared().await?.cluster, |spec| spec.switch.max_in_flight_units = 1)
        .await?;
    let before = stage.names("promo");
    stage.give("promo").await?;
    stage.at_peak("promo", 1).await?;
    stage.test.roll("promo").await?;
    stage
        .test
        .pods_until("new pods have the peak", |pods| {
            let none_old = before.iter().all(|name| pods.sizes.named(name).is_none());
            (none_old && pods.standing("promo") == Standing::peak(4)).then_some(())
        })
        .await?;
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    stage.test.verify()
}
