//! Managers with nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{
    FieldOwnership, HeldReason, Hold, HoldType, InPlaceUpgradeSpec, Mode, ReadyReason, StalledReason, Step,
};
use springtide_e2e::batch::{long, pool};
use springtide_e2e::kwok::{IMAGE_OUTCOMES, ImageOutcome, image_outcomes};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::upgrade::workload::inline;
use springtide_e2e::upgrade::{Signal, Testbed, Workload, cluster, image, manager_through, native};
use springtide_e2e::write_count::{Mark, WriteCount};

/// Pool of the nodes of a DaemonSet.
const POOL: &str = "rest";
/// So long without a write, all has come to rest: what is told late is told by then.
const QUIET: Duration = Duration::from_secs(15);
/// How long nothing may be written: in the long run, ...
const WATCHED: Duration = Duration::from_secs(300);
/// ... and in the sample.
const WATCHED_SAMPLE: Duration = Duration::from_secs(20);
/// Between two looks at the log.
const PAUSE: Duration = Duration::from_secs(1);

/// What the managers have written since then, leases apart.
fn writes(test: &Testbed<'_>, mark: Mark) -> Result<WriteCount> {
    let since = test.cluster.audit_log()?.since(mark)?;
    Ok(since.by_agent(USER_AGENT).writes().without_leases())
}

/// Waits until nothing has been written for [`QUIET`].
async fn is_quiet(test: &Testbed<'_>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let (mut mark, mut since) = (test.mark()?, Instant::now());
    while since.elapsed() < QUIET {
        ensure!(Instant::now() < deadline, "it goes on:\n{}", writes(test, mark)?);
        tokio::time::sleep(PAUSE).await;
        if !writes(test, mark)?.is_empty() {
            (mark, since) = (test.mark()?, Instant::now());
        }
    }
    Ok(())
}

/// Workloads of each kind that were upgraded, and upgrades that wait for somebody.
async fn settled(test: &Testbed<'_>) -> Result<()> {
    let web = Workload::deployment("web", 3);
    test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.upgrade()).await?;

    let own = Workload::deployment("own", 2).signal(Signal::Label);
    test.start(&own).await?;
    test.upgrade("own", own.transient(&image(2))).await?;

    let db = Workload::stateful_set("db", 3);
    let log = Workload::stateful_set("log", 2).on_delete();
    let agent = Workload::daemon_set("agent", POOL, 2);
    for workload in [&db, &log, &agent] {
        test.start(workload).await?;
        test.set_image(workload, &image(2)).await?;
        test.upgrade(&workload.name, workload.upgrade()).await?;
    }
    let bare = Workload::replica_set("bare", 2);
    test.start(&bare).await?;
    let mut spec = bare.upgrade();
    spec.source = inline(&image(2));
    spec.policy.field_ownership = FieldOwnership::Force;
    test.upgrade("bare", spec).await?;
    for workload in [&web, &own, &db, &log, &agent, &bare] {
        test.succeeded(&workload.name, "").await?;
    }

    let held = Workload::deployment("held", 3);
    test.start_paused(&held).await?;
    test.set_image(&held, &image(2)).await?;
    let mut spec = held.upgrade();
    let hold = Hold { type_: HoldType::Approval, duration_seconds: None };
    spec.strategy.steps = vec![
        Step { replicas: IntOrPercent::Int(1), hold: Some(hold) },
        Step { replicas: IntOrPercent::ALL, hold: None },
    ];
    test.upgrade("held", spec).await?;
    test.told("held", HeldReason::ApprovalRequired).await?;

    let failed = Workload::stateful_set("failed", 2).on_delete();
    test.start(&failed).await?;
    let missing = image_outcomes(&[(&image(2), ImageOutcome::Missing)]);
    test.annotate("failed-1", json!({IMAGE_OUTCOMES: missing})).await?;
    test.set_image(&failed, &image(2)).await?;
    test.upgrade("failed", failed.one_by_one()).await?;
    test.told("failed", StalledReason::RolledBack).await?;

    let unlocked = Workload::deployment("unlocked", 1);
    test.start(&unlocked).await?;
    let mut spec = unlocked.upgrade();
    spec.source = inline(&image(2));
    test.upgrade("unlocked", spec).await?;
    test.told("unlocked", StalledReason::NotLocked).await?;

    let paused = Workload::deployment("paused", 1);
    test.start_paused(&paused).await?;
    test.set_image(&paused, &image(2)).await?;
    test.upgrade("paused", InPlaceUpgradeSpec { mode: Mode::Paused, ..paused.upgrade() }).await?;
    test.told("paused", ReadyReason::Paused).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn at_rest_and_at_a_restart_nothing_is_written() -> Result<()> {
    let watched = if long() { WATCHED } else { WATCHED_SAMPLE };
    let cluster = cluster().await?;
    let nodes = pool(POOL, 2, "8", 110);
    cluster.kwok().context("KWOK")?.add_nodes(&cluster, &nodes).await?;
    let way = cluster.kubeconfig_path();
    let args = ["--no-leader-election"];
    let first = manager_through(&cluster, &way, "first", &args).await?;
    let test = Testbed::new(&cluster, "rest").await?;
    settled(&test).await?;
    is_quiet(&test).await?;

    let mark = test.mark()?;
    tokio::time::sleep(watched).await;
    let at_rest = writes(&test, mark)?;
    ensure!(at_rest.is_empty(), "written at rest:\n{at_rest}\n{:?}", at_rest.requests());

    first.kill()?;
    let mark = test.mark()?;
    let second = manager_through(&cluster, &way, "second", &args).await?;
    tokio::time::sleep(watched).await;
    let after = writes(&test, mark)?;
    ensure!(after.is_empty(), "written for a restart:\n{after}\n{:?}", after.requests());
    // It is at work all the same.
    let (web, hash) = (Workload::deployment("web", 3), test.target_hash("web"));
    test.set_image(&web, &image(3)).await?;
    test.succeeded("web", &hash).await?;
    native::agrees(&test, &web).await?;
    test.verify()?;
    second.stop()?;
    Ok(())
}
