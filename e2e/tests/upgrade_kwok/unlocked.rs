//! Workloads whose own controller begins to roll in mid-run, by somebody else's hand: it has the pods from then on.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{LockedReason, StalledReason};
use springtide_e2e::batch::pool;
use springtide_e2e::kwok::RESTART_SECONDS;
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::upgrade::cost::workload_writes;
use springtide_e2e::upgrade::workload::LOCKED_PARTITION;
use springtide_e2e::upgrade::{Testbed, Workload, image, native, shared};
use springtide_e2e::write_count::Mark;

use crate::runs::SLOW;

/// Holds that since then the manager has set gates of pods and nothing else.
fn only_gates_are_set(test: &Testbed<'_>, told: Mark) -> Result<()> {
    let since = test.requests_since(told)?.by_agent(USER_AGENT).writes();
    let on_pods = since.filter(|request| request.resource == "pods" || request.resource == "pods/resize");
    ensure!(on_pods.is_empty(), "{on_pods}");
    let written = workload_writes(&since);
    ensure!(written.is_empty(), "{written}");
    Ok(())
}

/// Waits until the rollout is over that somebody has begun, and holds that since then the manager has set gates of pods
/// and nothing else, and no ReplicaSet at all since the run began.
async fn only_the_rollout_goes_on(
    test: &Testbed<'_>,
    web: &Workload,
    image: &str,
    began: Mark,
    told: Mark,
) -> Result<()> {
    let deployment = native::agrees(test, web).await?;
    test.running(web, image, web.replicas as usize).await?;
    // Two ReplicaSets of one template would have the second one's hash changed.
    ensure!(deployment["status"]["collisionCount"].is_null(), "{}", deployment["status"]);
    only_gates_are_set(test, told)?;
    let sets = workload_writes(&test.requests_since(began)?).of_resource("replicasets");
    ensure!(sets.is_empty(), "a ReplicaSet of a Deployment that rolls is patched:\n{sets}");
    Ok(())
}

#[tokio::test]
async fn a_deployment_that_is_let_go_in_mid_run_is_its_own_controllers() -> Result<()> {
    let test = Testbed::new(shared().await?, "unpaused").await?;
    let web = Workload::deployment("web", 4).annotated(RESTART_SECONDS, SLOW);
    test.start_paused(&web).await?;
    test.set_image(&web, &image(2)).await?;
    let began = test.mark()?;
    test.upgrade("web", web.one_by_one()).await?;
    test.under_way(&web, &image(2)).await?;
    test.patch(&web, json!({"spec": {"paused": false}})).await?;
    test.told("web", LockedReason::UnlockedDuringRun).await?;
    test.told("web", StalledReason::NotLocked).await?;
    let told = test.mark()?;
    only_the_rollout_goes_on(&test, &web, &image(2), began, told).await
}

#[tokio::test]
async fn a_template_that_another_writes_in_a_transient_run_is_rolled_out_as_ever() -> Result<()> {
    let test = Testbed::new(shared().await?, "restarted").await?;
    let web = Workload::deployment("web", 4).annotated(RESTART_SECONDS, SLOW);
    test.start(&web).await?;
    let began = test.mark()?;
    let mut spec = web.transient(&image(2));
    spec.strategy.max_unavailable = IntOrPercent::Int(1);
    test.upgrade("web", spec).await?;
    test.under_way(&web, &image(2)).await?;
    // `kubectl rollout restart`.
    let annotations = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
    test.patch(&web, json!({"spec": {"template": {"metadata": {"annotations": annotations}}}})).await?;
    let upgrade = test.told("web", LockedReason::UnlockedDuringRun).await?;
    let told = test.mark()?;
    // Its pods are the template's again.
    only_the_rollout_goes_on(&test, &web, &image(1), began, told).await?;
    ensure!(upgrade.status.context("a status")?.last_run.is_none(), "nothing has succeeded");
    Ok(())
}

#[tokio::test]
async fn sets_whose_strategy_is_changed_in_mid_run_are_their_own_controllers() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "unlocked").await?;
    cluster.kwok().context("KWOK")?.add_nodes(cluster, &pool("unlocked", 4, "8", 110)).await?;
    let db = Workload::stateful_set("db", 4).on_delete().annotated(RESTART_SECONDS, SLOW);
    let agent = Workload::daemon_set("agent", "unlocked", 4).annotated(RESTART_SECONDS, SLOW);
    for workload in [&db, &agent] {
        let name = &workload.name;
        test.start(workload).await?;
        test.set_image(workload, &image(2)).await?;
        test.upgrade(name, workload.one_by_one()).await?;
        test.under_way(workload, &image(2)).await?;
        test.patch(workload, json!({"spec": {"updateStrategy": {"type": "RollingUpdate"}}})).await?;
        test.told(name, LockedReason::UnlockedDuringRun).await?;
        test.told(name, StalledReason::NotLocked).await?;
        let told = test.mark()?;
        // The pod that the run has out of traffic comes back into it: the controller of an ordered set would else wait for
        // it for ever.
        native::agrees(&test, workload).await?;
        test.running(workload, &image(2), workload.replicas as usize).await?;
        test.all_in_traffic(workload).await?;
        only_gates_are_set(&test, told)?;
    }
    Ok(())
}

#[tokio::test]
async fn pods_that_another_lowers_a_partition_past_are_their_own_controllers() -> Result<()> {
    let test = Testbed::new(shared().await?, "lowered").await?;
    let db = Workload::stateful_set("db", 4).annotated(RESTART_SECONDS, SLOW);
    test.start(&db).await?;
    test.set_image(&db, &image(2)).await?;
    test.upgrade("db", db.one_by_one()).await?;
    test.under_way(&db, &image(2)).await?;
    let strategy = json!({"rollingUpdate": {"partition": 0}});
    test.patch(&db, json!({"spec": {"updateStrategy": strategy}})).await?;
    test.told("db", LockedReason::UnlockedDuringRun).await?;
    test.told("db", StalledReason::NotLocked).await?;
    let told = test.mark()?;
    native::agrees(&test, &db).await?;
    test.running(&db, &image(2), 4).await?;
    // Nothing is left to do but to lock it again.
    test.succeeded("db", "").await?;
    let set = native::object(&test, &db).await?;
    let partition = &set["spec"]["updateStrategy"]["rollingUpdate"]["partition"];
    ensure!(*partition == LOCKED_PARTITION, "{partition}");
    let since = test.requests_since(told)?.by_agent(USER_AGENT).writes();
    let on_pods = since.filter(|request| request.resource == "pods" || request.resource == "pods/resize");
    ensure!(on_pods.is_empty(), "{on_pods}");
    let written = workload_writes(&since).successful();
    ensure!(written.len() == 1, "the partition, once:\n{written}");
    Ok(())
}
