//! A run that goes by what a Prometheus says. The manager may ask that one alone.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use springtide_crds::in_place_upgrade::{HealthyReason, HeldReason, RefusalReason, RunResult, StalledReason};
use springtide_e2e::manager::Manager;
use springtide_e2e::prometheus::{Prometheus, gate};
use springtide_e2e::upgrade::{Testbed, Workload, cluster, image, native};

use crate::approved_after;

#[tokio::test]
async fn a_metric_without_a_value_holds_a_run_and_one_beyond_its_bound_sends_it_back() -> Result<()> {
    let cluster = cluster().await?;
    let prometheus = Prometheus::start().await?;
    let file = prometheus.configuration(&cluster)?;
    let path = file.to_str().context("a path in UTF-8")?;
    let mut manager = Manager::start(&cluster, "manager", &["--config", path]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "metrics").await?;
    let web = Workload::deployment("web", 4);
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.one_by_one();
    spec.strategy.steps = approved_after(1);
    spec.health.metrics = vec![gate("errors", &prometheus.address, "0.5")?];
    test.upgrade("web", spec).await?;
    let upgrade = test.told("web", HeldReason::NoMetricData).await?;
    let conditions = upgrade.status.map(|status| status.conditions).unwrap_or_default();
    let held = conditions.iter().find(|condition| condition.is(HeldReason::NoMetricData));
    ensure!(held.is_some_and(|held| held.message.contains("errors")), "{held:?}");
    native::is_idle(&test).await?;
    ensure!(test.pods.now().changes().is_empty(), "nobody knows how it goes");

    prometheus.says("0.25");
    test.told("web", HeldReason::ApprovalRequired).await?;
    test.running(&web, &image(2), 1).await?;
    prometheus.says("0.75");
    test.told("web", HealthyReason::MetricBreached).await?;
    let upgrade = test.told("web", StalledReason::RolledBack).await?;
    let run = upgrade.status.and_then(|status| status.last_run).context("the run")?;
    ensure!(run.result == RunResult::RolledBack);
    test.running(&web, &image(1), 4).await?;
    test.all_in_traffic(&web).await?;
    test.pods.now().ensure_same("web", &before)?;
    let changes = test.pods.now().changes().len();
    ensure!(changes == 2, "one was changed forth and back: {changes}");

    // Another one, whom nobody has allowed.
    let elsewhere = gate("errors", "http://127.0.0.1:9", "0.5")?;
    test.edit("web", json!({"spec": {"attempt": 1, "health": {"metrics": [elsewhere]}}})).await?;
    let invalid = StalledReason::Refused(RefusalReason::InvalidSpec);
    let upgrade = test.told("web", invalid).await?;
    let conditions = upgrade.status.map(|status| status.conditions).unwrap_or_default();
    let stalled = conditions.iter().find(|condition| condition.is(invalid)).context("it is told")?;
    ensure!(stalled.message.contains("health.metrics[errors].prometheus.address"), "{}", stalled.message);
    test.verify()?;
    manager.stop()?;
    Ok(())
}
