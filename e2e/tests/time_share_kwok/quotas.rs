//! ResourceQuotas and LimitRanges of the members' namespace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{LimitRange, ResourceQuota};
use kube::api::{Api, DeleteParams};
use serde_json::json;
use springtide_crds::time_share_group::{CapacitySafeReason, Order, PreflightFailure, PreflightPassedReason};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::shared;
use springtide_e2e::time_share::stage::{Setting, Stage};
use springtide_e2e::time_share::windows::far_window;

/// Units of the stages here.
const UNITS: u32 = 6;

/// A quota with room for so many thousandths of a core more than all pods ask for, once its controller has counted them.
async fn quota(stage: &Stage<'_>, room: u32) -> Result<()> {
    let used = UNITS * 4200;
    let hard = json!({"requests.cpu": format!("{}m", used + room)});
    stage
        .test
        .create::<ResourceQuota>(json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "compute"}, "spec": {"hard": hard},
        }))
        .await?;
    let quotas: Api<ResourceQuota> = stage.test.api();
    until_seen(PATIENCE, "the quota has counted", async || {
        let status = quotas.get("compute").await?.status.unwrap_or_default();
        let used = status.used.unwrap_or_default().get("requests.cpu").map(|used| used.0.clone());
        Ok(if used.is_some() { Ok(()) } else { Err(format!("{used:?}")) })
    })
    .await
}

#[tokio::test]
async fn as_many_units_are_under_way_as_a_quota_has_room_for_and_no_resize_is_refused() -> Result<()> {
    let stage = Setting::new("quota", UNITS).start(&shared().await?.cluster, |_| {}).await?;
    quota(&stage, 3 * 3800).await?;
    let mark = stage.test.mark()?;
    let group = stage.switch_to("promo").await?;
    let id = group.status.and_then(|status| status.transition).context("a transition")?.id;
    let most = stage.test.groups.now().most_in_flight(GROUP, id);
    ensure!(most <= 3, "{most} units were under way");
    let requests = stage.test.requests_since(mark)?.by_agent(USER_AGENT).writes().of_resource("pods/resize");
    let refused = requests.filter(|request| request.code == 403);
    ensure!(refused.is_empty(), "refused:\n{refused}");
    ensure!(requests.len() >= 2 * UNITS as usize);
    stage.ensure_each_pod_cost(mark, 2)?;
    stage.test.verify()
}

#[tokio::test]
async fn a_quota_without_room_for_one_is_told_and_shrinking_first_needs_none() -> Result<()> {
    let stage = Setting::new("no-quota", UNITS).start(&shared().await?.cluster, |_| {}).await?;
    quota(&stage, 3000).await?;
    stage.give("promo").await?;
    stage.test.told(GROUP, CapacitySafeReason::QuotaTooSmall).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.stand("pay", Standing::peak(UNITS as usize)).await?;
    stage.edit(json!({"switch": {"order": Order::ShrinkFirst}})).await?;
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;
    stage.test.verify()
}

#[tokio::test]
async fn a_limit_range_that_lets_nobody_grow_is_named_before_the_switch_and_no_donor_shrinks() -> Result<()> {
    let stage = Setting::new("range", 2).start(&shared().await?.cluster, |_| {}).await?;
    let range: LimitRange = stage
        .test
        .create(json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "bounds"},
            "spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]},
        }))
        .await?;
    let mark = stage.test.mark()?;
    stage.edit(json!({"guards": {"failureThresholdPercent": 100}})).await?;
    stage.give("promo").await?;
    let group = stage.settled_with_skips("promo").await?;
    let status = group.status.context("a status")?;
    stage.stand("pay", Standing::peak(2)).await?;
    let requests = stage.test.requests_since(mark)?.by_agent(USER_AGENT).writes().of_resource("pods/resize");
    ensure!(requests.is_empty(), "it was asked, and not tried:\n{requests}");
    ensure!(status.stuck.len() <= 2);
    // What it would be named as ahead of the next switch.
    stage.test.override_to(GROUP, Some("pay")).await?;
    stage.settled("pay").await?;
    stage.edit(json!({"override": null, "schedule": {"windows": [far_window("promo")]}})).await?;
    let group =
        stage.test.told(GROUP, PreflightPassedReason::Failed(PreflightFailure::QuotaExceeded)).await?;
    let preflight = group.status.and_then(|status| status.preflight).context("a preflight")?;
    ensure!((preflight.units, preflight.passed) == (2, 0), "{preflight:?}");
    ensure!(
        preflight.failures.iter().all(|row| row.reason == PreflightFailure::QuotaExceeded),
        "{preflight:?}"
    );
    let name = range.metadata.name.context("a name")?;
    stage.test.api::<LimitRange>().delete(&name, &DeleteParams::default()).await?;
    stage.test.verify()
}
