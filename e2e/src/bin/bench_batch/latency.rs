//! G4 to G6: how soon things happen to single-pod jobs that come at a steady pace, on KWOK's nodes and with real
//! containers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::on_a_node;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::node::NodeCluster;

use crate::generator::Generator;
use crate::manifests::{System, Task};
use crate::processes::{Meter, Spent};
use crate::watcher::{Jobs, Watcher, spans};
use crate::writes::Events;

/// Jobs a second on KWOK's nodes.
pub(crate) const JOBS_PER_SECOND: usize = 10;
/// Jobs of the run on a real node, and their distance: containers start on the same cores.
pub(crate) const CONTAINER_JOBS: usize = 40;
const CONTAINER_PACE: Duration = Duration::from_millis(500);
/// For the last jobs to go.
const BOUND: Duration = Duration::from_secs(300);
/// Events are sent behind all else.
const EVENTS_WRITTEN: Duration = Duration::from_secs(3);

/// Latencies of a run, in seconds, sorted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Latency {
    /// Create sent to pod seen.
    pub(crate) create_to_pod: Vec<f64>,
    /// Pod ended to outcome in the job's status.
    pub(crate) exit_to_outcome: Vec<f64>,
    /// Pod ended to pod gone.
    pub(crate) exit_to_gone: Vec<f64>,
    /// What each process used.
    pub(crate) spent: Spent,
    /// Writes on Events a job, of a run with an audit log.
    pub(crate) events: Option<Events>,
}

/// On KWOK's nodes, for so many seconds.
pub(crate) async fn on_kwok(
    cluster: &LocalCluster,
    namespaces: &[String],
    seconds: usize,
) -> Result<Latency> {
    let mut manager = Manager::start(cluster, "manager-latency", &[]).await?;
    manager.wait_ready().await?;
    let pace = Duration::from_secs(1) / JOBS_PER_SECOND as u32;
    let latency = paced(cluster, namespaces, &manager, seconds * JOBS_PER_SECOND, pace).await?;
    manager.stop()?;
    Ok(latency)
}

/// With a kubelet and containers; none where no node can run and `SPRINGTIDE_NODE=off` says so.
pub(crate) async fn on_a_real_node() -> Result<Option<Latency>> {
    let Some((cluster, manager)) = on_a_node(|| Ok(NodeCluster::builder())).await? else { return Ok(None) };
    let plane = cluster.control_plane();
    let namespace = plane.create_namespace("bench").await?;
    let log = plane.audit_log()?;
    let mark = log.mark()?;
    let here = std::slice::from_ref(&namespace);
    let mut latency = paced(plane, here, &manager, CONTAINER_JOBS, CONTAINER_PACE).await?;
    tokio::time::sleep(EVENTS_WRITTEN).await;
    let events = log.since(mark)?.in_namespace(&namespace).writes().of_resource("events");
    latency.events = Some(Events::of(&events, CONTAINER_JOBS));
    manager.stop()?;
    cluster.stop()?;
    Ok(Some(latency))
}

/// Creates jobs of one second each, one every `pace`, and waits until they are gone.
async fn paced(
    cluster: &LocalCluster,
    namespaces: &[String],
    manager: &Manager,
    jobs: usize,
    pace: Duration,
) -> Result<Latency> {
    let (system, prefix) = (System::BatchJob, "paced-");
    let watcher = Watcher::start(cluster, system, prefix, Jobs::Outcomes).await?;
    let generator = Generator::new(cluster, namespaces)?;
    let meter = Meter::start(cluster, Some(manager))?;
    let sent = generator.create_paced(system, prefix, jobs, pace, &Task::of("1")).await?;
    watcher.until_all("gone", jobs, BOUND, |seen| seen.is_gone()).await?;
    let spent = meter.end()?;
    let seen = watcher.all();
    let created = |key: &str| -> Option<Instant> { sent.get(key).copied() };
    let latency = Latency {
        create_to_pod: spans(&seen, |key, _| created(key), |seen| seen.pod_added),
        exit_to_outcome: spans(&seen, |_, seen| seen.pod_ended, |seen| seen.outcome),
        exit_to_gone: spans(&seen, |_, seen| seen.pod_ended, |seen| seen.pod_gone),
        spent,
        events: None,
    };
    for (what, spans) in [
        ("creation", &latency.create_to_pod),
        ("outcome", &latency.exit_to_outcome),
        ("release", &latency.exit_to_gone),
    ] {
        ensure!(spans.len() == jobs, "the {what} of only {} of {jobs} jobs was seen", spans.len());
    }
    Ok(latency)
}
