//! What an InPlaceUpgrade does to pods that a real kubelet runs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::PrePullMode;
use springtide_e2e::manager::Manager;
use springtide_e2e::node::load::Load;
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::upgrade::cost::{GATED, ensure_each_pod_cost};
use springtide_e2e::upgrade::traffic::{PORT, Traffic, server_image, server_reference, server_text};
use springtide_e2e::upgrade::{Signal, Testbed, Workload, native};

/// Requests a second.
const RATE: u32 = 400;

#[tokio::test]
async fn a_gated_deployment_is_upgraded_and_no_request_is_lost() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let builder = NodeCluster::builder().image(server_image(1)?).image(server_image(2)?);
    let cluster = builder.start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let mut manager = Manager::start(plane, "manager", &[]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(plane, "traffic").await?;
    let web = Workload::deployment("web", 3).serving();
    let before = test.start_paused(&web).await?;
    let traffic = Traffic::start(&test, &web, RATE).await?;
    test.set_image(&web, &server_reference(2)).await?;
    let mark = test.mark()?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Int(1);
    spec.traffic.drain.min_seconds = 2;
    spec.pre_pull.mode = PrePullMode::None;
    test.upgrade("web", spec).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    let seen = traffic.end().await?;
    seen.ensure_none_failed()?;
    for half in [&seen.new, &seen.kept] {
        for version in [1, 2] {
            let answers = half.texts.get(&server_text(version)).copied().unwrap_or_default();
            ensure!(answers > 0, "no answer of version {version}: {half:?}");
        }
    }
    test.pods.now().ensure_same("web", &before)?;
    ensure!(test.pods.now().of("web").iter().all(|life| life.restarts() == 1 && life.drains == 1));
    ensure_each_pod_cost(&test.requests_since(mark)?, 3, GATED)?;
    test.verify()?;
    manager.stop().context("stop the manager")?;
    cluster.stop()
}

#[tokio::test]
async fn the_clients_count_what_is_answered_and_what_is_not() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let cluster = NodeCluster::builder().image(server_image(1)?).start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let test = Testbed::new(plane, "clients").await?;
    let web = Workload::deployment("web", 2).signal(Signal::None).serving();
    test.start(&web).await?;
    let traffic = Traffic::start(&test, &web, RATE).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen = traffic.end().await?;
    seen.ensure_none_failed()?;
    ensure!(seen.new.answered > u64::from(RATE) / 2 && seen.kept.answered > u64::from(RATE) / 2, "{seen:?}");
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
    cluster.stop()
}
