//! G10: how long pods wait for a node where five times as much is to be run as there is room for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use springtide_e2e::batch::pool;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::generator::Generator;
use crate::manifests::{System, Task};
use crate::scrape::Scrape;
use crate::watcher::{Jobs, Seen, Watcher, spans};

/// Name and label of the nodes, their number, and the pods that each has room for.
const POOL: &str = "scarce";
const NODES: usize = 5;
const PODS_PER_NODE: u32 = 10;
/// Tasks for each place.
pub(crate) const OVERSUBSCRIBED: usize = 5;
/// Tasks run from so many seconds on, each a second longer than the one before, over so many lengths: they do not all
/// end together.
const SHORTEST: usize = 10;
const LENGTHS: usize = 11;
/// The longest that a run may take: about 80 s are usual.
const BOUND: Duration = Duration::from_secs(600);

/// What was measured of a system.
pub(crate) struct Pending {
    /// Tasks that were run.
    pub(crate) tasks: usize,
    /// Seconds from the pods' creation until they had a node, summed up.
    pub(crate) pod_seconds: f64,
    /// Pods of which the scheduler said that they fit nowhere.
    pub(crate) unschedulable: usize,
    /// Pods that there were.
    pub(crate) pods: usize,
    /// Until everything was gone.
    pub(crate) seconds: f64,
    /// What the manager's own metric says of `pod_seconds`.
    pub(crate) metric: Option<f64>,
}

/// Of both systems, one after the other on the same nodes.
pub(crate) async fn measure(cluster: &LocalCluster, namespaces: &[String]) -> Result<[Pending; 2]> {
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool(POOL, NODES, "32", PODS_PER_NODE)).await?;
    let mut manager = Manager::start(cluster, "manager-pending", &[]).await?;
    manager.wait_ready().await?;
    let ours = run(cluster, namespaces, System::BatchJob, Some(&manager)).await?;
    manager.stop()?;
    let theirs = run(cluster, namespaces, System::Job, None).await?;
    Ok([ours, theirs])
}

async fn run(
    cluster: &LocalCluster,
    namespaces: &[String],
    system: System,
    manager: Option<&Manager>,
) -> Result<Pending> {
    let (prefix, tasks) = ("scarce-", NODES * PODS_PER_NODE as usize * OVERSUBSCRIBED);
    let watcher = Watcher::start(cluster, system, prefix, Jobs::Presence).await?;
    let generator = Generator::new(cluster, namespaces)?;
    let task =
        |number: usize| Task { pool: Some(POOL), ..Task::of((SHORTEST + number % LENGTHS).to_string()) };
    let start = std::time::Instant::now();
    generator.create(system, prefix, tasks, task).await?;
    watcher.until_all(&format!("{}s gone", system.kind()), tasks, BOUND, Seen::is_gone).await?;
    let seconds = start.elapsed().as_secs_f64();
    let seen = watcher.all();
    let waits = spans(&seen, |_, seen| seen.pod_added, |seen| seen.pod_bound);
    ensure!(waits.len() == tasks, "of only {} of {tasks} pods it was seen how long they waited", waits.len());
    let metric = match manager {
        Some(manager) => {
            Some(Scrape::of(manager).await?.sum("springtide_batch_pending_pod_seconds_total", &[]))
        }
        None => None,
    };
    Ok(Pending {
        tasks,
        pod_seconds: waits.iter().sum(),
        unschedulable: watcher.count(|seen| seen.unschedulable),
        pods: seen.values().map(|seen| seen.pods).sum(),
        seconds,
        metric,
    })
}
