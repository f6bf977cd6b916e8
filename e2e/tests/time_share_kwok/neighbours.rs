//! Upgrades in place of members' pods.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use springtide_crds::in_place_upgrade::{HeldReason, ReadyReason};
use springtide_crds::time_share_group::{TimeShareGroup, TrafficMode};
use springtide_e2e::kwok::RESTART_SECONDS;
use springtide_e2e::time_share::node_member::CONTAINER;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::{GATE, shared};
use springtide_e2e::upgrade::pods::is_true;
use springtide_e2e::upgrade::upgrades::says;
use springtide_e2e::upgrade::{GATE as UPGRADE_GATE, Workload, image};

/// A paused `promo` whose pods have both gates and take seconds to start anew.
async fn paused_with_both_gates(stage: &Stage<'_>) -> Result<()> {
    let template = json!({"metadata": {"annotations": {RESTART_SECONDS: "3"}}, "spec": {
        "readinessGates": [{"conditionType": UPGRADE_GATE}],
    }});
    stage.test.patch_deployment("promo", json!({"spec": {"template": template}})).await?;
    stage
        .test
        .pods_until("pods with the gate are there", |pods| {
            let own = pods.sizes.of("promo");
            let has_gate = own.iter().all(|pod| {
                let gates = pod.pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
                gates.is_some_and(|gates| gates.iter().any(|gate| gate.condition_type == UPGRADE_GATE))
            });
            (has_gate && pods.standing("promo").at_valley == own.len() && own.len() == 3).then_some(())
        })
        .await?;
    stage.test.patch_deployment("promo", json!({"spec": {"paused": true}})).await
}

#[tokio::test]
async fn a_pod_that_is_upgraded_is_not_resized_and_an_upgrade_holds_while_a_switch_goes_on() -> Result<()> {
    let stage = Setting::new("upgrading", 3).room(400).start(&shared().await?.cluster, |_| {}).await?;
    paused_with_both_gates(&stage).await?;
    stage.settled("pay").await?;
    let upgrades = stage.test.of_upgrades();
    let promo = Workload::deployment("promo", 3);
    upgrades.set_image(&promo, &image(2)).await?;
    upgrades.upgrade("upgrade", promo.one_by_one()).await?;
    upgrades.under_way(&promo, &image(2)).await?;
    stage.give("promo").await?;
    let counts_it = |group: &TimeShareGroup| {
        let members = group.status.iter().flat_map(|status| &status.members);
        members.into_iter().any(|member| member.name == "promo" && member.upgrading == 1)
    };
    stage.test.until(GROUP, "it leaves the pod alone", counts_it).await?;
    // It is promo's peak too.
    let reasons = [HeldReason::TimeShareSwitch, HeldReason::TimeSharePeak];
    upgrades
        .until("upgrade", "it is held", |upgrade| reasons.iter().any(|reason| says(upgrade, reason)))
        .await?;
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    // Its turn comes when the group has settled, or the peak is over.
    stage.test.override_to(GROUP, Some("pay")).await?;
    stage.settled("pay").await?;
    upgrades.told("upgrade", ReadyReason::UpToDate).await?;
    let pods = stage.test.pods.now();
    for pod in pods.sizes.of("promo") {
        let containers = pod.pod.spec.as_ref().map(|spec| spec.containers.clone()).unwrap_or_default();
        let app = containers.iter().find(|container| container.name == CONTAINER).context("the container")?;
        ensure!(app.image == Some(image(2)), "{}: {:?}", pod.name(), app.image);
        ensure!(is_true(&pod.pod, UPGRADE_GATE) && is_true(&pod.pod, "Ready"), "{}", pod.name());
    }
    drop(pods);
    stage.test.verify()
}

#[tokio::test]
async fn a_pod_with_both_gates_is_ready_only_when_both_are_open() -> Result<()> {
    let setting = Setting::new("gates", 2).each(|member| {
        let gates = json!([{"conditionType": GATE}, {"conditionType": UPGRADE_GATE}]);
        member.mode(TrafficMode::ReadinessGate).pod(json!({"readinessGates": gates}))
    });
    let stage = setting.start(&shared().await?.cluster, |_| {}).await?;
    stage.switch_to("promo").await?;
    let pods = stage.test.pods.now();
    for (member, ready) in [("promo", true), ("pay", false)] {
        for pod in pods.sizes.of(member) {
            let states = [UPGRADE_GATE, GATE, "Ready"].map(|type_| is_true(&pod.pod, type_));
            ensure!(states == [true, ready, ready], "{}: {states:?}", pod.name());
        }
    }
    drop(pods);
    stage.test.verify()
}
