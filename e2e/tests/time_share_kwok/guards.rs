//! Switches that go by what a Prometheus says. The manager may ask that one alone.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use springtide_crds::common::condition;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    GuardsPassingReason, HeldReason, OnBreach, RefusalReason, StalledReason, TransitionResult,
};
use springtide_e2e::manager::Manager;
use springtide_e2e::prometheus::{Prometheus, gate};
use springtide_e2e::time_share::cluster;
use springtide_e2e::time_share::node_stage::GROUP;
use springtide_e2e::time_share::pods::Standing;
use springtide_e2e::time_share::stage::{Setting, Stage};

/// Ensures that no pod of `pay` has begun to shrink since so many had.
fn ensure_none_shrinks(stage: &Stage<'_>, before: usize) -> Result<()> {
    let shrinks = stage.test.pods.now().sizes.shrinks("pay");
    ensure!(shrinks.len() == before, "{shrinks:?}");
    Ok(())
}

#[tokio::test]
async fn a_switch_waits_for_what_is_measured_and_is_taken_back_or_held_by_it() -> Result<()> {
    let bounded = cluster().await?;
    let prometheus = Prometheus::start().await?;
    let file = prometheus.configuration(&bounded.cluster)?;
    let path = file.to_str().context("a path in UTF-8")?;
    let mut manager = Manager::start(&bounded.cluster, "manager", &["--config", path]).await?;
    manager.wait_ready().await?;
    let errors = gate("errors", &prometheus.address, "0.5")?;
    let stage = Setting::new("metrics", 4).start(&bounded.cluster, |_| {}).await?;
    let steps = json!([{"percent": 25, "holdSeconds": 3600}, {"percent": 100}]);
    stage.edit(json!({"guards": {"metrics": [errors]}, "switch": {"steps": steps}})).await?;
    stage.settled("pay").await?;

    // Nobody knows.
    stage.give("promo").await?;
    let group = stage.test.told(GROUP, HeldReason::NoMetricData).await?;
    stage.test.told(GROUP, GuardsPassingReason::NoMetricData).await?;
    let conditions = group.status.context("a status")?.conditions;
    let held = condition(&conditions, HeldReason::CONDITION).context("Held")?;
    ensure!(held.message.contains("errors"), "{}", held.message);
    ensure_none_shrinks(&stage, 0)?;

    // It is well, and then it is not.
    prometheus.says("0.25");
    stage.test.told(GROUP, HeldReason::StepHold).await?;
    stage.test.told(GROUP, GuardsPassingReason::Passing).await?;
    stage.stand("promo", Standing::split(1, 3)).await?;
    prometheus.says("0.75");
    let group = stage.test.told(GROUP, StalledReason::RolledBack).await?;
    stage.test.told(GROUP, GuardsPassingReason::MetricBreached).await?;
    stage.ensure_peak("pay").await?;
    ensure_none_shrinks(&stage, 1)?;
    let status = group.status.context("a status")?;
    let results: Vec<_> = status.last_transitions.iter().take(2).map(|last| last.result).collect();
    ensure!(results == [TransitionResult::Succeeded, TransitionResult::RolledBack], "{results:?}");

    // Where it is to stop, it stays for a person.
    prometheus.says("0.25");
    stage.edit(json!({"guards": {"onBreach": OnBreach::Pause}})).await?;
    stage.test.told(GROUP, HeldReason::StepHold).await?;
    prometheus.says("0.75");
    stage.test.told(GROUP, StalledReason::GuardBreached).await?;
    stage.whole().await?;
    stage.stand("promo", Standing::split(1, 3)).await?;

    // Pods that lose the peak are busy, and the first has it already.
    let load = gate("load", &prometheus.address, "0.5")?;
    let shrunk = stage.test.pods.now().sizes.shrinks("pay").len();
    stage
        .edit(json!({
            "guards": {"metrics": [], "donorMaxLoad": load}, "switch": {"steps": [{"percent": 100}]},
        }))
        .await?;
    stage.test.told(GROUP, HeldReason::DonorBusy).await?;
    stage.test.told(GROUP, GuardsPassingReason::DonorBusy).await?;
    ensure_none_shrinks(&stage, shrunk)?;
    prometheus.says("0.25");
    stage.settled("promo").await?;
    stage.ensure_peak("promo").await?;

    // Another one, whom nobody has allowed.
    let elsewhere = gate("load", "http://127.0.0.1:9", "0.5")?;
    stage.edit(json!({"guards": {"donorMaxLoad": elsewhere}})).await?;
    let invalid = StalledReason::Refused(RefusalReason::InvalidSpec);
    let group = stage.test.told(GROUP, invalid).await?;
    let conditions = group.status.context("a status")?.conditions;
    let stalled = condition(&conditions, StalledReason::CONDITION).context("Stalled")?;
    ensure!(stalled.message.contains("guards.donorMaxLoad.prometheus.address"), "{}", stalled.message);
    stage.ensure_peak("promo").await?;
    stage.test.verify()?;
    manager.stop()?;
    Ok(())
}
