//! A manager whose kind is not served: it is not ready and says why, and goes on by itself when the CRD is there.

use anyhow::{Result, ensure};
use springtide_crds::batch_job::BatchJobSpec;
use springtide_e2e::batch::{GENERAL, Task, Testbed, pool};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::feed::PATIENCE;
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
