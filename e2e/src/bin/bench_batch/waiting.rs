//! A full queue: what it costs in memory, and how long a new manager takes to be ready with it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use kube::api::{Api, DeleteParams, ListParams};
use springtide_crds::batch_job::{BatchJob, BatchJobSpec};
use springtide_e2e::batch::{Task, pool};
use springtide_e2e::bench::{post, usage};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::manifests;
use futures::{StreamExt, TryStreamExt};

/// Jobs that run, of the 10 000 that the kind declares as the most in a cluster.
pub(crate) const RUNNING: usize = 500;
/// Jobs that wait beside them.
pub(crate) const WAITING: usize = 9_500;
/// Name and label of a node without room.
const FULL: &str = "full";
/// Name and label of the node of those that run.
const ROOMY: &str = "roomy";
/// Bound for the manager to take in all jobs, and for all of them to go.
const BOUND: Duration = Duration::from_secs(600);

/// What was measured.
pub(crate) struct Waiting {
    /// Resident memory of a manager without jobs, in MiB.
    pub(crate) idle_mib: f64,
    /// With all of them, in MiB.
    pub(crate) full_mib: f64,
    /// From the start of a new manager, after a SIGKILL of the former, until it is ready, in seconds.
    pub(crate) ready_after_kill: f64,
}

/// Fills the queue, kills the manager, starts another, and removes all jobs.
pub(crate) async fn measure(cluster: &LocalCluster, namespaces: &[String]) -> Result<Waiting> {
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool(FULL, 1, "1", 2)).await?;
    kwok.add_nodes(cluster, &pool(ROOMY, 5, "32", 110)).await?;
    let mut manager = Manager::start(cluster, "manager-waiting", &["--no-leader-election"]).await?;
    manager.wait_ready().await?;
    let idle_mib = usage::resident_mib(manager.child().pid())?;

    let filler = Task { cpu: "1".into(), ..Task::endless().on(FULL) };
    create(cluster, namespaces, "filler", 1, &filler).await?;
    wait_for(cluster, 1).await?;
    create(cluster, namespaces, "runs", RUNNING - 1, &Task::endless().on(ROOMY)).await?;
    create(cluster, namespaces, "waits", WAITING, &Task::endless().on(FULL)).await?;
    wait_for(cluster, RUNNING).await?;
    all_taken_in(&manager).await?;
    let full_mib = usage::resident_mib(manager.child().pid())?;

    manager.kill()?;
    let start = Instant::now();
    let mut next = Manager::start(cluster, "manager-after-kill", &["--no-leader-election"]).await?;
    next.wait_ready().await?;
    let ready_after_kill = start.elapsed().as_secs_f64();

    let client = cluster.client("bench-generator")?;
    for namespace in namespaces {
        let jobs: Api<BatchJob> = Api::namespaced(client.clone(), namespace);
        jobs.delete_collection(&DeleteParams::default(), &ListParams::default()).await?;
    }
    wait_for(cluster, 0).await?;
    next.stop()?;
    Ok(Waiting { idle_mib, full_mib, ready_after_kill })
}

async fn create(
    cluster: &LocalCluster,
    namespaces: &[String],
    prefix: &str,
    count: usize,
    task: &Task,
) -> Result<()> {
    let client = cluster.client("bench-generator")?;
    let spec = serde_json::to_value(BatchJobSpec::new(task.template()))?;
    futures::stream::iter(0..count)
        .map(|number| {
            let namespace = &namespaces[number % namespaces.len()];
            let job = serde_json::json!({
                "apiVersion": "springtide.dev/v1alpha1",
                "kind": "BatchJob",
                "metadata": {"namespace": namespace, "name": format!("{prefix}-{number}")},
                "spec": spec,
            });
            let client = client.clone();
            async move { post(&client, &manifests::jobs(namespace), &job).await.map(drop) }
        })
        .buffer_unordered(64)
        .try_collect()
        .await
}

/// Waits until so many pods of jobs run and no other one is there.
async fn wait_for(cluster: &LocalCluster, running: usize) -> Result<()> {
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::all(cluster.client("bench-generator")?);
    let params = ListParams::default().labels("springtide.dev/job").match_any();
    let deadline = Instant::now() + BOUND;
    loop {
        let listed = pods.list(&params).await?.items;
        let is_running = |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        };
        if listed.len() == running && listed.iter().all(is_running) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{} pods after {} s, of {running}", listed.len(), BOUND.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Waits until the manager has looked at every job and none is left to be looked at. It does not come to
/// rest then: the records of waiting jobs are spread over minutes.
async fn all_taken_in(manager: &Manager) -> Result<()> {
    let deadline = Instant::now() + BOUND;
    loop {
        let text = manager.metrics().await?;
        let passes = sum(&text, "controller_runtime_reconcile_total");
        let depth = sum(&text, "workqueue_depth");
        if passes >= (WAITING + RUNNING) as f64 && depth == 0.0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{passes} passes, and {depth} keys wait");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Sum over all label sets of a metric.
fn sum(text: &str, metric: &str) -> f64 {
    let lines = text.lines().filter(|line| line.starts_with(metric));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
