//! Requests through a Service while its pods are upgraded: none is lost, but for those that nothing is done for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use springtide_crds::in_place_upgrade::{PrePullMode, RunResult, StalledReason, TrafficMode};
use springtide_e2e::node::load::Load;
use springtide_e2e::upgrade::cost::{GATED, ensure_each_pod_cost};
use springtide_e2e::upgrade::real_node::CRASHING;
use springtide_e2e::upgrade::slices::SliceFeed;
use springtide_e2e::upgrade::traffic::{PORT, Traffic, server, server_reference, server_text};
use springtide_e2e::upgrade::{Signal, Testbed, Workload, native};
use tokio::time::Instant;

use super::{TURN, ensure_lines, shared};

/// Requests a second.
const RATE: u32 = 800;
/// Requests of which none may be lost.
const REQUESTS: u64 = 100_000;
/// For so long at least they are sent, a tenth more than it takes.
const TIME: Duration = Duration::from_secs(138);

#[tokio::test]
async fn two_upgrades_and_a_rollback_lose_none_of_a_hundred_thousand_requests() -> Result<()> {
    let _turn = TURN.write().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "traffic").await?;
    let web = Workload::deployment("web", 3).serving();
    let before = test.start_paused(&web).await?;
    let traffic = Traffic::start(&test, &web, RATE).await?;
    let enough = Instant::now() + TIME;
    let mark = test.mark()?;
    let mut spec = web.one_by_one();
    spec.traffic.drain.min_seconds = 5;
    spec.pre_pull.mode = PrePullMode::Auto;
    test.set_image(&web, &server_reference(2)).await?;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    ensure_each_pod_cost(&test.requests_since(mark)?.successful(), 3, GATED)?;

    let first = test.target_hash("web");
    test.set_image(&web, &server_reference(3)).await?;
    test.succeeded("web", &first).await?;
    native::agrees(&test, &web).await?;

    test.set_image(&web, CRASHING).await?;
    let upgrade = test.told("web", StalledReason::RolledBack).await?;
    let run = upgrade.status.and_then(|status| status.last_run).context("the run")?;
    ensure!(run.result == RunResult::RolledBack);
    test.running(&web, &server_reference(3), 3).await?;
    test.all_in_traffic(&web).await?;

    tokio::time::sleep_until(enough).await;
    let seen = traffic.end().await?;
    println!(
        "{} requests at {} a second, {} of them on new connections; slowest {} and {} µs",
        seen.answered() + seen.failed(),
        seen.rate(),
        seen.new.answered,
        seen.new.slowest_micros,
        seen.kept.slowest_micros
    );
    seen.ensure_none_failed()?;
    ensure!(seen.answered() >= REQUESTS, "{seen:?}");
    ensure!(seen.new.answered.abs_diff(seen.kept.answered) < u64::from(RATE), "{seen:?}");
    ensure!(seen.new.connections == seen.new.answered, "{seen:?}");
    for half in [&seen.new, &seen.kept] {
        for version in [1, 2, 3] {
            let answers = half.texts.get(&server_text(version)).copied().unwrap_or_default();
            ensure!(answers > 0, "no answer of version {version}: {half:?}");
        }
    }
    {
        let pods = test.pods.now();
        pods.ensure_same("web", &before)?;
        let tried =
            pods.of("web").iter().filter(|life| life.images.iter().any(|image| image == CRASHING)).count();
        ensure!(tried == 1, "the version that crashes was given to {tried} pods");
    }
    native::is_idle(&test).await?;
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn without_a_drain_the_same_clients_lose_requests() -> Result<()> {
    let _turn = TURN.write().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "control").await?;
    let web = Workload::deployment("web", 3).signal(Signal::None).serving();
    let before = test.start_paused(&web).await?;
    let traffic = Traffic::start(&test, &web, RATE).await?;
    test.set_image(&web, &server_reference(2)).await?;
    let mut spec = web.one_by_one();
    spec.traffic.mode = TrafficMode::None;
    spec.pre_pull.mode = PrePullMode::Auto;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    let seen = traffic.end().await?;
    println!("{} of {} requests failed", seen.failed(), seen.answered() + seen.failed());
    ensure!(seen.failed() > 0 && seen.ensure_none_failed().is_err(), "{seen:?}");
    test.pods.now().ensure_same("web", &before)?;
    ensure_lines(bed, &test, &web, &["v1", "v2"])?;
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn a_pod_whose_image_is_pulled_gets_no_request() -> Result<()> {
    const SLOW: &str = "localhost/slow:v2";
    let _turn = TURN.write().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "pulling").await?;
    bed.registry.push(&server(SLOW, "slow")?)?;
    bed.registry.slow_down("localhost/slow", Duration::from_secs(4));
    let web = Workload::deployment("web", 2).serving();
    let before = test.start_paused(&web).await?;
    let traffic = Traffic::start(&test, &web, RATE).await?;
    let slices = SliceFeed::start(test.api()).await?;
    test.set_image(&web, SLOW).await?;
    // The kubelet stops the container first, and pulls then.
    let mut spec = web.one_by_one();
    spec.traffic.drain.min_seconds = 5;
    spec.pre_pull.mode = PrePullMode::None;
    test.upgrade("web", spec).await?;
    let (uid, is_ready) = test
        .pods_until("a container is stopped, and the next one is not there", |pods| {
            let lives = pods.of("web");
            let life = lives.into_iter().find(|life| {
                let state = life.container().and_then(|container| container.state.as_ref());
                life.image() == Some(SLOW) && state.is_some_and(|state| state.running.is_none())
            })?;
            Some((life.identity()?.uid, life.is_ready()))
        })
        .await?;
    ensure!(
        !is_ready && !slices.now().ready("web").contains(&uid),
        "it is in traffic while it has no server"
    );
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    let changes = test.pods.now().changes().to_vec();
    ensure!(changes.len() == 2 && slices.now().gaps() == 0, "{changes:?}");
    for change in &changes {
        ensure!(slices.now().listing(change, &["web"]).is_empty(), "{change:?} was in traffic");
    }
    traffic.end().await?.ensure_none_failed()?;
    test.pods.now().ensure_same("web", &before)?;
    ensure_lines(bed, &test, &web, &["v1", "slow"])?;
    test.verify()?;
    test.clear().await
}

#[tokio::test]
async fn the_clients_count_what_is_answered_and_what_is_not() -> Result<()> {
    let _turn = TURN.write().await;
    let Some(bed) = shared().await? else { return Ok(()) };
    let test = Testbed::new(bed.plane(), "clients").await?;
    let web = Workload::deployment("web", 2).signal(Signal::None).serving();
    test.start(&web).await?;
    let traffic = Traffic::start_for(&test, &web, RATE, 3).await?;
    let seen = traffic.all_sent().await?;
    seen.ensure_none_failed()?;
    ensure!(seen.new.answered == seen.kept.answered && seen.answered() == u64::from(RATE) * 3, "{seen:?}");
    ensure!(seen.kept.connections <= 8, "they keep theirs: {seen:?}");
    ensure!(seen.new.connections == seen.new.answered, "each has its own: {seen:?}");

    // A server that is ended in traffic, at the end of no drain.
    let address =
        format!("{}:{PORT}", test.pods.now().identities("web").values().next().context("a pod")?.ip);
    let load = Load::start(test.client(), &test.namespace, "direct", &address, RATE).await?;
    test.patch(&web, serde_json::json!({"spec": {"replicas": 0}})).await?;
    test.ready(&web, 0).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = load.end().await?;
    ensure!(seen.answered() > 0 && seen.ensure_none_failed().is_err(), "{seen:?}");
    test.clear().await
}
