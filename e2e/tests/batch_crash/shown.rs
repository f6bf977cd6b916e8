//! Pods that are made though no node has room for them, so that a node autoscaler sees them.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use springtide_batch_job::pods::UNFIT_LABEL;
use springtide_crds::batch_job::BatchJobSpec;
use springtide_crds::batch_queue::BatchQueueSpec;
use springtide_crds::common::Quantity;
use springtide_e2e::batch::{POOL, Task, Testbed, pool, queues};
use springtide_e2e::kwok::NodeSpec;
use springtide_e2e::oracle::pods::Pods;

use crate::plays::{QUEUE, end, queued};
use crate::scenarios::JOB;

/// The pool of the nodes of this scenario alone, which go with its namespace.
pub(crate) const NODES: &str = "shown";
/// What each of them has, and each task takes.
const CPU: &str = "1";

/// Of two pods the second one has no node until one is added, as an autoscaler would.
pub(crate) async fn until_there_is_a_node(test: &Testbed<'_>) -> Result<()> {
    add_node(test, "first").await?;
    let source = json!({"nodeSelector": {"matchLabels": {POOL: NODES}}, "maxPendingPods": 1});
    let spec = BatchQueueSpec { capacity_source: serde_json::from_value(source)?, ..BatchQueueSpec::new() };
    queues::open(test, QUEUE, spec).await?;
    // Before, the first pod would be one that fits nowhere as well.
    told(test, "1", 0).await?;
    let task = Task { cpu: CPU.to_owned(), ..Task::endless().on(NODES) };
    test.submit(JOB, BatchJobSpec { template: task.template(), ..queued(2, 2) }).await?;
    let is_shown = |pods: &Pods| {
        let mut lives = pods.of(JOB).into_iter();
        lives.any(|life| life.name == "job-1-0" && life.unschedulable).then_some(())
    };
    test.pods.until("the pod that the scheduler has no node for", is_shown).await?;
    let shown = test.api::<Pod>().get("job-1-0").await?;
    ensure!(shown.labels().contains_key(UNFIT_LABEL), "it was to fit: {:?}", shown.labels());
    test.running_pod("job-0-0").await?;
    add_node(test, "second").await?;
    test.running(JOB, 2).await?;
    // What it tells of the second node later would be told at rest.
    told(test, "2", 2).await?;
    end(test, 2).await?;
    test.completed(JOB).await?;
    Ok(())
}

/// Adds one that has room for one task.
async fn add_node(test: &Testbed<'_>, name: &str) -> Result<()> {
    // Nothing of a node that had the name before must be there.
    let name = format!("{}-{name}", test.namespace);
    let labels = [(POOL.to_owned(), NODES.to_owned())].into();
    let spec = NodeSpec { name, labels, ..pool(NODES, 1, CPU, 110) };
    test.cluster.kwok().context("KWOK")?.add_nodes(test.cluster, &spec).await?;
    Ok(())
}

/// Waits until the queue tells of so much capacity, and of so many pods.
async fn told(test: &Testbed<'_>, cpu: &str, pods: u32) -> Result<()> {
    let what = format!("{cpu} CPU and {pods} pods");
    queues::queue(test, QUEUE, &what, |queue| {
        let status = queue.status.as_ref();
        status.is_some_and(|status| {
            status.capacity.get("cpu") == Some(&Quantity::new(cpu)) && status.running_pods == pods
        })
    })
    .await?;
    Ok(())
}
