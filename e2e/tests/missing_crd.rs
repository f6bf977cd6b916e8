//! A manager whose kind is not served: it is not ready and says why, and goes on by itself when the CRD is there. Of a kind
//! of others that it can do without, it sees the objects from when their CRD is there.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use springtide_crds::batch_job::BatchJobSpec;
use springtide_crds::in_place_upgrade::{Mode, ReadyReason, RefusalReason, StalledReason};
use springtide_e2e::batch::{GENERAL, Task, Testbed, pool};
use springtide_e2e::foreign_crds::VERTICAL_POD_AUTOSCALER;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade;
use springtide_e2e::upgrade::workload::{CONTAINER, Workload};
use std::time::Duration;
use tokio::time::Instant;

const CRD: &str = "batchjobs.springtide.dev";

/// Waits until the manager is not ready and says that the kind is missing, and what helps.
async fn names_the_kind(manager: &Manager) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = manager.readiness().await?;
        let line =
            said.lines().find(|line| line.starts_with(&format!("[-] watch {CRD} in all namespaces: ")));
        if line.is_some_and(|line| line.contains("404") && line.contains("apply its CRD")) {
            ensure!(said.ends_with("not ready\n") && !manager.is_ready().await, "{said}");
            ensure!(said.contains("[-] controller batch-job waits for its stores"), "{said}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it does not say that {CRD} is missing:\n{said}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn completes_a_job(cluster: &LocalCluster) -> Result<()> {
    let test = Testbed::new(cluster, "served").await?;
    test.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("job").await?;
    test.no_pods("job").await?;
    test.verify()
}

#[tokio::test]
async fn a_manager_waits_for_its_crd_at_the_start_and_when_it_is_deleted() -> Result<()> {
    let cluster = LocalCluster::builder().kwok(pool(GENERAL, 2, "32", 110)).start().await?;
    let mut manager = Manager::start(&cluster, "manager", &[]).await?;
    names_the_kind(&manager).await?;
    cluster.install_crds().await?;
    manager.wait_ready().await?;
    completes_a_job(&cluster).await?;

    let deleted = cluster.kubectl(&["delete", "crd", CRD]).await?;
    ensure!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    names_the_kind(&manager).await?;
    cluster.install_crds().await?;
    // The same process: a wait for one that has ended fails.
    manager.wait_ready().await?;
    completes_a_job(&cluster).await?;
    let ended = manager.stop()?;
    ensure!(ended.success(), "{ended}");
    Ok(())
}

#[tokio::test]
async fn an_autoscaler_whose_kind_comes_while_the_manager_runs_is_respected_from_then_on() -> Result<()> {
    let cluster = upgrade::cluster().await?;
    // It does not wait for the kind.
    let manager = upgrade::manager(&cluster).await?;
    let test = upgrade::Testbed::new(&cluster, "autoscaled").await?;
    let web = Workload::deployment("web", 2);
    test.start_paused(&web).await?;
    let mut spec = web.upgrade();
    spec.mode = Mode::Paused;
    let container = json!({"name": CONTAINER, "resources": {"requests": {"cpu": "1"}}});
    spec.source = serde_json::from_value(json!({"type": "Inline", "inline": {"containers": [container]}}))?;
    test.upgrade("web", spec).await?;
    test.told("web", ReadyReason::Paused).await?;

    cluster.apply(VERTICAL_POD_AUTOSCALER).await?;
    let autoscaler = json!({
        "apiVersion": "autoscaling.k8s.io/v1", "kind": "VerticalPodAutoscaler",
        "metadata": {"name": "web", "namespace": test.namespace},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    let manifest = autoscaler.to_string();
    until_seen(PATIENCE, "the kind is served", async || {
        Ok(cluster.apply(&manifest).await.map_err(|error| format!("{error:#}")))
    })
    .await?;
    let conflict = StalledReason::Refused(RefusalReason::ConflictsWithVerticalPodAutoscaler);
    test.told("web", conflict).await?;

    let deleted = cluster
        .kubectl(&["delete", "crd", "verticalpodautoscalers.autoscaling.k8s.io"])
        .await
        .context("kubectl")?;
    ensure!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    test.told("web", ReadyReason::Paused).await?;
    ensure!(manager.is_ready().await, "{}", manager.readiness().await?);
    test.verify()
}
