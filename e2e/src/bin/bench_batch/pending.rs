//! G10: how long pods wait for a node where five times as much is to be run as there is room for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::api::{Api, PostParams};
use kube::runtime::wait::await_condition;
use serde::{Deserialize, Serialize};
use springtide_crds::batch_queue::{
    BatchQueue, BatchQueueSpec, CapacitySource, CapacityType, DEFAULT_QUEUE, QuotaRow, ReadyReason,
};
use springtide_crds::common::Quantity;
use springtide_e2e::batch::pool;
use springtide_e2e::batch::queues::says;
use springtide_e2e::bench::scrape::Scrape;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::generator::Generator;
use crate::manifests::{System, Task};
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
/// The longest until a new queue admits.
const QUEUE_READY: Duration = Duration::from_secs(60);

/// What was measured of a system.
#[derive(Serialize, Deserialize)]
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

/// Of BatchJob, of Job, and of BatchJob in a queue whose quota is what the nodes have room for and which knows nothing
/// else of them: one after the other on the same nodes.
pub(crate) async fn measure(cluster: &LocalCluster, namespaces: &[String]) -> Result<[Pending; 3]> {
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool(POOL, NODES, "32", PODS_PER_NODE)).await?;
    let mut manager = Manager::start(cluster, "manager-pending", &[]).await?;
    manager.wait_ready().await?;
    let ours = run(cluster, namespaces, "scarce-", System::BatchJob, Some(&manager)).await?;
    let queued = cluster.create_namespace("quota").await?;
    queue(cluster, &queued).await?;
    let by_quota = run(cluster, &[queued], "quota-", System::BatchJob, Some(&manager)).await?;
    manager.stop()?;
    let theirs = run(cluster, namespaces, "scarce-", System::Job, None).await?;
    Ok([ours, theirs, by_quota])
}

/// Creates the default queue of a namespace, and waits until it admits.
async fn queue(cluster: &LocalCluster, namespace: &str) -> Result<()> {
    let queues: Api<BatchQueue> = Api::namespaced(cluster.client("bench-generator")?, namespace);
    let queue = BatchQueue::new(DEFAULT_QUEUE, quota());
    queues.create(&PostParams::default(), &queue).await.context("create a queue")?;
    let admits = |queue: Option<&BatchQueue>| queue.is_some_and(|queue| says(queue, &ReadyReason::Admitting));
    let admits = await_condition(queues, DEFAULT_QUEUE, admits);
    tokio::time::timeout(QUEUE_READY, admits).await.context("the queue does not admit")??;
    Ok(())
}

/// As many pods as the nodes have room for, whatever the nodes say.
fn quota() -> BatchQueueSpec {
    let pods = NODES * PODS_PER_NODE as usize;
    let row = QuotaRow { resource: "pods".to_owned(), nominal: Quantity::new(pods.to_string()), max: None };
    BatchQueueSpec {
        quota: vec![row],
        capacity_source: CapacitySource { type_: CapacityType::Static, ..CapacitySource::default() },
        ..BatchQueueSpec::new()
    }
}

async fn run(
    cluster: &LocalCluster,
    namespaces: &[String],
    prefix: &str,
    system: System,
    manager: Option<&Manager>,
) -> Result<Pending> {
    let tasks = NODES * PODS_PER_NODE as usize * OVERSUBSCRIBED;
    let watcher = Watcher::start(cluster, system, prefix, Jobs::Presence).await?;
    let before = match manager {
        Some(manager) => pod_seconds(manager).await?,
        None => 0.0,
    };
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
        Some(manager) => Some(pod_seconds(manager).await? - before),
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

async fn pod_seconds(manager: &Manager) -> Result<f64> {
    Ok(Scrape::of(manager).await?.sum("springtide_batch_pending_pod_seconds_total", &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quota_is_the_room_of_the_nodes_and_all_that_bounds() {
        let spec = serde_json::to_value(quota()).unwrap();
        assert_eq!(spec["quota"], serde_json::json!([{"resource": "pods", "nominal": "50"}]));
        assert_eq!(spec["capacitySource"]["type"], "Static");
    }
}
