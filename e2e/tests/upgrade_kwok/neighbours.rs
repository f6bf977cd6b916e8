//! Others who act on the same workload: autoscalers, evictions, nodes that are lost, owners of fields, deadlines of
//! rollouts.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams};
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{HeldReason, Lock, StalledReason};
use springtide_e2e::batch::pool;
use springtide_e2e::kwok::RESTART_SECONDS;
use springtide_e2e::upgrade::cost::{workload_writes, writes_by_pod};
use springtide_e2e::upgrade::pods::Life;
use springtide_e2e::upgrade::workload::inline;
use springtide_e2e::upgrade::{Testbed, Workload, image, native, shared};

use crate::runs::SLOW;
use crate::{approval, approved_after};

#[tokio::test]
async fn pods_that_are_added_in_mid_run_are_found_and_limits_kept() -> Result<()> {
    let test = Testbed::new(shared().await?, "scaled-up").await?;
    let web = Workload::deployment("web", 4).annotated(RESTART_SECONDS, "1");
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Int(1);
    test.upgrade("web", spec).await?;
    test.under_way(&web, &image(2)).await?;
    // Paused as it is, the Deployment scales, with the old image.
    test.patch(&web, json!({"spec": {"replicas": 6}})).await?;
    test.running(&web, &image(2), 6).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    let most = test.pods.now().most_out();
    ensure!(most == 1, "{most} were out");
    let now = test.pods.now().identities("web");
    ensure!(before.iter().all(|(name, pod)| now.get(name) == Some(pod)), "{before:?} became {now:?}");
    test.verify()
}

#[tokio::test]
async fn a_pod_that_is_evicted_in_mid_run_comes_again_and_is_changed() -> Result<()> {
    let test = Testbed::new(shared().await?, "evicted").await?;
    let web = Workload::deployment("web", 4).annotated(RESTART_SECONDS, SLOW);
    test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.one_by_one()).await?;
    test.under_way(&web, &image(2)).await?;
    let (waiting, in_flight) = {
        let pods = test.pods.now();
        let with = |wanted: &str| {
            let found = pods.of("web").into_iter().find(|life| life.image() == Some(wanted));
            found.map(|life| life.name()).context("a pod")
        };
        (with(&image(1))?, with(&image(2))?)
    };
    for evicted in [waiting, in_flight] {
        test.api::<Pod>().delete(&evicted, &DeleteParams::default()).await?;
    }
    test.running(&web, &image(2), 4).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    test.all_in_traffic(&web).await?;
    test.verify()
}

#[tokio::test]
async fn pods_of_a_node_that_is_lost_in_mid_run_come_elsewhere_and_are_changed() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "lost").await?;
    cluster.kwok().context("KWOK")?.add_nodes(cluster, &pool("lost", 3, "8", 110)).await?;
    let mut web = Workload::deployment("web", 6).annotated(RESTART_SECONDS, SLOW);
    web.pool = "lost".to_owned();
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.one_by_one()).await?;
    test.under_way(&web, &image(2)).await?;
    let lost = {
        let pods = test.pods.now();
        let waits = |life: &&Life| life.runs(&image(1));
        let found = pods.of("web").into_iter().find(waits).and_then(Life::identity);
        found.context("a pod that waits")?.node
    };
    Api::<Node>::all(test.client()).delete(&lost, &DeleteParams::default()).await?;
    // The native controllers take their time until they give its pods up.
    test.pods_until("the pods of the lost node are gone", |pods| {
        let is_there = |life: &&Life| life.identity().is_some_and(|pod| pod.node == lost);
        (!pods.of("web").iter().any(is_there)).then_some(())
    })
    .await?;
    test.running(&web, &image(2), 6).await?;
    test.succeeded("web", "").await?;
    native::agrees(&test, &web).await?;
    test.all_in_traffic(&web).await?;
    {
        let pods = test.pods.now();
        let now = pods.identities("web");
        let mut kept = before.iter().filter(|(_, pod)| pod.node != lost);
        ensure!(kept.all(|(name, pod)| now.get(name) == Some(pod)), "{before:?} became {now:?}");
        // One that came in the place of another may have been changed before its first start.
        ensure!(pods.of("web").iter().all(|life| life.restarts() <= 1), "{}", pods.of("web").len());
    }
    ensure!(native::replica_sets(&test, "web").await?.len() == 2);
    test.verify()
}

#[tokio::test]
async fn who_scales_down_spares_the_pods_that_were_changed() -> Result<()> {
    let test = Testbed::new(shared().await?, "scaled-down").await?;
    let web = Workload::deployment("web", 5);
    test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let mut spec = web.upgrade();
    spec.strategy.steps = approved_after(2);
    test.upgrade("web", spec).await?;
    test.told("web", HeldReason::ApprovalRequired).await?;
    let canaries = test.running(&web, &image(2), 2).await?;
    test.patch(&web, json!({"spec": {"replicas": 3}})).await?;
    test.ready(&web, 3).await?;
    ensure!(test.running(&web, &image(2), 2).await? == canaries, "those that were restarted go first");
    let hash = test.target_hash("web");
    test.edit("web", approval(&hash)).await?;
    test.succeeded("web", "").await?;
    test.running(&web, &image(2), 3).await?;
    test.verify()
}

#[tokio::test]
async fn a_field_that_another_manager_owns_is_left_to_it() -> Result<()> {
    let test = Testbed::new(shared().await?, "owned").await?;
    let web = Workload::deployment("web", 2);
    let before = test.start(&web).await?;
    let mark = test.mark()?;
    let mut spec = web.upgrade();
    spec.source = inline(&image(2));
    spec.policy.lock = Lock::Transient;
    test.upgrade("web", spec).await?;
    test.told("web", StalledReason::FieldOwnershipConflict).await?;
    native::is_idle(&test).await?;
    test.running(&web, &image(1), 2).await?;
    test.pods.now().ensure_same("web", &before)?;
    let requests = test.requests_since(mark)?;
    ensure!(writes_by_pod(&requests).is_empty(), "what cannot be written in the end is not begun");
    ensure!(workload_writes(&requests).successful().is_empty());
    test.verify()
}

#[tokio::test]
async fn the_deadline_of_a_rollout_does_not_run_in_an_upgrade() -> Result<()> {
    let test = Testbed::new(shared().await?, "deadline").await?;
    let web = Workload::deployment("web", 3)
        .annotated(RESTART_SECONDS, SLOW)
        .spec(json!({"progressDeadlineSeconds": 4}));
    let before = test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    test.upgrade("web", web.one_by_one()).await?;
    test.succeeded("web", "").await?;
    test.patch(&web, json!({"spec": {"paused": false}})).await?;
    let deployment = native::agrees(&test, &web).await?;
    native::is_idle(&test).await?;
    test.pods.now().ensure_same("web", &before)?;
    let conditions = deployment["status"]["conditions"].as_array().context("conditions")?;
    let failed = conditions.iter().find(|found| found["reason"] == "ProgressDeadlineExceeded");
    ensure!(failed.is_none(), "{failed:?}");
    test.verify()
}
