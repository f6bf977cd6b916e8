//! An online server on a real node: how long its answers take alone, beside batch pods that keep every core busy, and
//! while those are drained.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_crds::batch_queue::BatchQueue;
use springtide_e2e::bench::post;
use springtide_e2e::bench::report::quantile;
use springtide_e2e::manager::Manager;
use springtide_e2e::node::load::latencies;
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{NodeCluster, required_or_skipped};

use crate::manifests::{self, System};
use crate::pods::{Life, Pods};
use crate::stats::sorted;

/// Requests a second, and seconds of each measurement.
pub(crate) const RATE: u32 = 200;
pub(crate) const SECONDS: u32 = 20;
/// Rounds of arithmetic of a request: some 0.2 ms of a core.
const ROUNDS: u32 = 100_000;
const PORT: u16 = 8080;
/// Seconds before any request counts.
const WARM_UP: u32 = 3;
/// Batch pods that are wanted, more than there is room for, and the fewest that fill the node.
const WANTED: u32 = 100;
const FEWEST: usize = 4;
/// Seconds for which a batch pod goes on after SIGTERM.
pub(crate) const GRACE: u32 = 5;
/// Pods that are drained in a second.
const DRAINED_PER_SECOND: u32 = 1;
/// For no further pod to start.
const SETTLED: Duration = Duration::from_secs(5);
/// From the beginning of the requests to that of the drain.
const UNTIL_DRAIN: Duration = Duration::from_secs(1);
/// Bounds: for a pod to run, for all of batch to be gone.
const RUNNING: Duration = Duration::from_secs(120);
const GONE: Duration = Duration::from_secs(300);

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Online {
    /// Latencies in ms, ascending.
    pub(crate) alone: Vec<f64>,
    pub(crate) beside: Vec<f64>,
    pub(crate) draining: Vec<f64>,
    /// Batch pods that ran.
    pub(crate) batch: usize,
    /// Of them, those that were gone when the last request of the drain was answered.
    pub(crate) drained: usize,
}

impl Online {
    /// The p99 of a phase, to that alone.
    pub(crate) fn times_alone(&self, phase: &[f64]) -> f64 {
        quantile(phase, 0.99) / quantile(&self.alone, 0.99)
    }
}

/// Measures all three; `None` where no node can run and `SPRINGTIDE_NODE=off` says so.
pub(crate) async fn measure() -> Result<Option<Online>> {
    if !required_or_skipped().await? {
        return Ok(None);
    }
    let cluster = NodeCluster::builder().start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let (online, batch) = (plane.create_namespace("online").await?, plane.create_namespace("batch").await?);
    let client = plane.client("bench-generator")?;
    post(&client, &manifests::pods(&online), &server(&online)).await.context("create the server")?;
    let seen = Pods::start(plane, &online).await?;
    seen.until("the server runs", 1, RUNNING, Life::runs).await?;
    let server = Api::<Pod>::namespaced(client.clone(), &online).get(SERVER).await?;
    let address = server.status.and_then(|status| status.pod_ip).context("the address of the server")?;
    let address = format!("{address}:{PORT}");
    let mut manager = Manager::start(plane, "manager-online", &[]).await?;
    manager.wait_ready().await?;

    ask(&cluster, &address, WARM_UP)?;
    let alone = ask(&cluster, &address, SECONDS)?;
    eprintln!("      p99 alone: {:.2} ms", quantile(&alone, 0.99));

    let path = format!("/apis/springtide.dev/v1alpha1/namespaces/{batch}/batchqueues");
    post(&client, &path, &queue(&batch)).await.context("create the queue")?;
    let pods = Pods::start(plane, &batch).await?;
    post(&client, &System::BatchJob.jobs(&batch), &job(&batch)).await.context("create the job")?;
    pods.until("batch fills the node", FEWEST, RUNNING, Life::runs).await?;
    let count = settled(&pods).await?;
    let beside = ask(&cluster, &address, SECONDS)?;
    eprintln!("      p99 beside {count} batch pods: {:.2} ms", quantile(&beside, 0.99));

    let queues: Api<BatchQueue> = Api::namespaced(client, &batch);
    let drain = async move {
        tokio::time::sleep(UNTIL_DRAIN).await;
        let until = Timestamp::now() + SignedDuration::from_hours(1);
        let until = until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let force = json!({"mode": "ForceOn", "untilTime": until, "reason": "bench"});
        let patch = Patch::Merge(json!({"spec": {"overridePeak": force}}));
        queues.patch(QUEUE, &PatchParams::default(), &patch).await.context("force the drain")?;
        let stored = serde_json::to_value(queues.get(QUEUE).await?.spec)?;
        ensure!(stored["overridePeak"].is_object(), "this BatchQueue has no overridePeak: {stored}");
        anyhow::Ok(())
    };
    // The requests hold this thread, so the drain has a task of its own.
    let drain = tokio::spawn(drain);
    let draining = ask(&cluster, &address, SECONDS)?;
    drain.await??;
    let drained = pods.count(|life| life.gone.is_some());
    eprintln!("      p99 during the drain: {:.2} ms, {drained} gone", quantile(&draining, 0.99));
    pods.until("are gone", count, GONE, |life| life.gone.is_some()).await?;
    manager.stop()?;
    cluster.stop()?;
    Ok(Some(Online { alone, beside, draining, batch: count, drained }))
}

/// Latencies of requests from the node, in ms, ascending. Holds the thread; other tasks go on.
fn ask(cluster: &NodeCluster, address: &str, seconds: u32) -> Result<Vec<f64>> {
    tokio::task::block_in_place(|| latencies(cluster, address, RATE, seconds)).map(sorted)
}

/// Waits until no further pod starts, and gives how many run.
async fn settled(pods: &Pods) -> Result<usize> {
    let deadline = Instant::now() + RUNNING;
    let mut count = pods.count(Life::runs);
    loop {
        tokio::time::sleep(SETTLED).await;
        let now = pods.count(Life::runs);
        if now == count {
            return Ok(count);
        }
        ensure!(Instant::now() < deadline, "batch pods go on starting: {now}");
        count = now;
    }
}

const SERVER: &str = "server";
const QUEUE: &str = "default";

fn server(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": SERVER},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": BOX_IMAGE,
                "args": ["serve", PORT.to_string(), ROUNDS.to_string()],
                "resources": {"requests": {"cpu": "500m", "memory": "32Mi"}},
            }],
        },
    })
}

/// All that the node leaves, and a peak in a year without harm that can be forced.
fn queue(namespace: &str) -> Value {
    json!({
        "apiVersion": "springtide.dev/v1alpha1",
        "kind": "BatchQueue",
        "metadata": {"namespace": namespace, "name": QUEUE},
        "spec": {
            "peakWindows": [{
                "name": "bench",
                "window": {"start": "00:00", "end": "00:01", "timeZone": "Etc/UTC", "dates": ["2099-12-31"]},
                "actions": [{"tier": "BestEffort", "action": "Drain"}],
                "drainPodsPerSecond": DRAINED_PER_SECOND,
            }],
        },
    })
}

/// Pods without requests, which are of the kubelet's class BestEffort and count with 100m of cpu each.
fn job(namespace: &str) -> Value {
    json!({
        "apiVersion": "springtide.dev/v1alpha1",
        "kind": "BatchJob",
        "metadata": {"namespace": namespace, "name": "burn"},
        "spec": {
            "completions": WANTED,
            "parallelism": WANTED,
            "tier": "BestEffort",
            "interruption": {"graceSeconds": GRACE},
            "template": {"spec": {"containers": [{"name": "main", "image": BOX_IMAGE, "args": ["burn"]}]}},
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_held_against_the_server_alone() {
        let online =
            Online { alone: vec![1.0], beside: vec![1.2], draining: vec![1.5], batch: 14, drained: 14 };
        assert_eq!(online.times_alone(&online.beside), 1.2);
    }

    #[test]
    fn the_batch_pods_ask_for_nothing_so_that_online_pods_go_before_them() {
        let job: springtide_crds::batch_job::BatchJob = serde_json::from_value(job("ns")).unwrap();
        let template = serde_json::to_value(&job.spec.template).unwrap();
        assert!(template["spec"]["containers"][0].get("resources").is_none());
        let pod: Pod = serde_json::from_value(server("ns")).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some(SERVER));
    }
}
