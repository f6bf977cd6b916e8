//! An online server on a real node: how long its answers take alone, beside batch pods that keep every core busy, and
//! while those are drained; on CPUs that all share, and with one of its own.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_crds::batch_queue::BatchQueue;
use springtide_e2e::bench::post;
use springtide_e2e::bench::report::quantile;
use springtide_e2e::bench::stats::sorted;
use springtide_e2e::manager::Manager;
use springtide_e2e::node::cpus::{Cpus, Pinned};
use springtide_e2e::node::load::latencies;
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{NodeCluster, required_or_skipped};

use crate::manifests::{self, System};
use crate::pods::{Life, Pods};

/// Requests a second, and seconds of each measurement.
pub(crate) const RATE: u32 = 200;
pub(crate) const SECONDS: u32 = 40;
/// Rounds of arithmetic of a request: some 0.2 ms of a core.
const ROUNDS: u32 = 100_000;
const PORT: u16 = 8080;
/// Seconds before any request counts.
const WARM_UP: u32 = 3;
/// Batch pods that are wanted, more than there is room for, and the fewest that fill the node.
const WANTED: u32 = 100;
const FEWEST: usize = 4;
/// What runs a command ahead of all that has no such priority (`sched(7)`, SCHED_FIFO; Debian package util-linux).
const AHEAD: [&str; 3] = ["chrt", "--fifo", "50"];
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
    /// With a CPU of its own.
    pub(crate) own: Phases,
    /// Whether the requests to that one were sent ahead of all else on their CPU.
    pub(crate) is_ahead: bool,
    /// On CPUs that all share.
    pub(crate) shared: Phases,
}

/// Latencies of a server in ms, ascending.
#[derive(Serialize, Deserialize)]
pub(crate) struct Phases {
    pub(crate) alone: Vec<f64>,
    pub(crate) beside: Vec<f64>,
    pub(crate) draining: Vec<f64>,
    /// Batch pods that ran.
    pub(crate) batch: usize,
    /// Of them, those that were gone when the last request of the drain was answered.
    pub(crate) drained: usize,
}

impl Phases {
    /// The p99 of a phase, to that alone.
    pub(crate) fn times_alone(&self, phase: &[f64]) -> f64 {
        quantile(phase, 0.99) / quantile(&self.alone, 0.99)
    }
}

/// Who may run where.
#[derive(Clone, Debug)]
enum Split {
    /// All run on all CPUs.
    Shared,
    /// The server has one of them to itself, and all else runs on others.
    Own {
        server: usize,
        /// All CPUs but that one.
        reserved: Cpus,
        /// Those of them that this process may use.
        others: Cpus,
    },
}

impl Split {
    /// The last CPU for the server.
    ///
    /// # Errors
    /// There are not two that this process may use.
    fn own() -> Result<Self> {
        let allowed = Cpus::allowed()?;
        let server = allowed.last().context("no CPU may be used")?;
        let others = allowed.without(server);
        ensure!(!others.is_empty(), "a CPU of its own for a server takes one more than {allowed}");
        Ok(Self::Own { server, reserved: Cpus::online()?.without(server), others })
    }

    /// How the report calls the server.
    fn title(&self) -> &str {
        match self {
            Self::Shared => "on shared CPUs",
            Self::Own { .. } => "with a CPU of its own",
        }
    }
}

/// Measures both; `None` where no node can run and `SPRINGTIDE_NODE=off` says so.
pub(crate) async fn measure() -> Result<Option<Online>> {
    if !required_or_skipped().await? {
        return Ok(None);
    }
    let own = Split::own()?;
    let (shared, _) = phases(&Split::Shared).await?;
    let (own, is_ahead) = phases(&own).await?;
    Ok(Some(Online { own, is_ahead, shared }))
}

/// Measures one, on a cluster of its own. Beside it stands whether the requests are sent ahead of all else.
async fn phases(split: &Split) -> Result<(Phases, bool)> {
    let (builder, pinned) = match split {
        Split::Shared => (NodeCluster::builder(), None),
        // All that is started from here on inherits it; the kubelet gives containers theirs.
        Split::Own { reserved, others, .. } => {
            (NodeCluster::builder().reserved_cpus(reserved.clone()), Some(Pinned::to(others)?))
        }
    };
    let cluster = builder.start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let (online, batch) = (plane.create_namespace("online").await?, plane.create_namespace("batch").await?);
    let client = plane.client("bench-generator")?;
    post(&client, &manifests::pods(&online), &server(&online, split)).await.context("create the server")?;
    let seen = Pods::start(plane, &online).await?;
    seen.until("the server runs", 1, RUNNING, Life::runs).await?;
    let server = Api::<Pod>::namespaced(client.clone(), &online).get(SERVER).await?;
    let address = server.status.and_then(|status| status.pod_ip).context("the address of the server")?;
    is_where_it_belongs(split)?;
    let address = format!("{address}:{PORT}");
    let asker = Asker::new(&cluster, &address, split);
    let mut manager = Manager::start(plane, "manager-online", &[]).await?;
    manager.wait_ready().await?;

    asker.ask(WARM_UP)?;
    let alone = asker.ask(SECONDS)?;
    let title = split.title();
    eprintln!("      {title}: p99 alone: {:.2} ms", quantile(&alone, 0.99));

    let path = format!("/apis/springtide.dev/v1alpha1/namespaces/{batch}/batchqueues");
    post(&client, &path, &queue(&batch)).await.context("create the queue")?;
    let pods = Pods::start(plane, &batch).await?;
    post(&client, &System::BatchJob.jobs(&batch), &job(&batch)).await.context("create the job")?;
    pods.until("batch fills the node", FEWEST, RUNNING, Life::runs).await?;
    let count = settled(&pods).await?;
    let beside = asker.ask(SECONDS)?;
    eprintln!("      {title}: p99 beside {count} batch pods: {:.2} ms", quantile(&beside, 0.99));

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
    let draining = asker.ask(SECONDS)?;
    drain.await??;
    let drained = pods.count(|life| life.gone.is_some());
    eprintln!("      {title}: p99 during the drain: {:.2} ms, {drained} gone", quantile(&draining, 0.99));
    pods.until("are gone", count, GONE, |life| life.gone.is_some()).await?;
    let is_ahead = asker.is_ahead;
    manager.stop()?;
    cluster.stop()?;
    drop(pinned);
    Ok((Phases { alone, beside, draining, batch: count, drained }, is_ahead))
}

/// # Errors
/// A server that is to have a CPU of its own is not there alone: the kubelet has another policy.
fn is_where_it_belongs(split: &Split) -> Result<()> {
    let Split::Own { server, .. } = split else { return Ok(()) };
    let args = serve();
    let of_server = |line: &[String]| line.ends_with(&args);
    for process in procfs::process::all_processes().context("list processes")?.flatten() {
        // Processes that have ended meanwhile are none that are looked for.
        if process.cmdline().is_ok_and(|line| of_server(&line)) {
            let cpus = process.status()?.cpus_allowed_list.context("the CPUs of a process")?;
            let own = u32::try_from(*server)?;
            ensure!(cpus == [(own, own)], "the server is to run on CPU {own} alone, and runs on {cpus:?}");
            return Ok(());
        }
    }
    bail!("no process has the arguments {args:?}")
}

/// Who sends requests to the server.
struct Asker<'a> {
    cluster: &'a NodeCluster,
    address: &'a str,
    is_ahead: bool,
}

impl<'a> Asker<'a> {
    /// One that shares its CPU with batch pods and the system goes before them, if it can: what is asked of it is how
    /// long the server takes.
    fn new(cluster: &'a NodeCluster, address: &'a str, split: &Split) -> Self {
        let is_ahead = match split {
            Split::Shared => false,
            Split::Own { .. } => {
                let tried = cluster.run_inside(AHEAD[0], &[&AHEAD[1..], &["true"]].concat());
                tried.inspect_err(|why| eprintln!("      requests have no priority: {why:#}")).is_ok()
            }
        };
        Self { cluster, address, is_ahead }
    }

    /// Latencies of requests from the node, in ms, ascending. Holds the thread; other tasks go on.
    fn ask(&self, seconds: u32) -> Result<Vec<f64>> {
        let by = if self.is_ahead { &AHEAD[..] } else { &[] };
        let asked = tokio::task::block_in_place(|| latencies(self.cluster, by, self.address, RATE, seconds));
        asked.map(sorted)
    }
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

/// What the server is run with.
fn serve() -> [String; 3] {
    ["serve".to_owned(), PORT.to_string(), ROUNDS.to_string()]
}

/// With a CPU of its own, of the kubelet's class Guaranteed.
fn server(namespace: &str, split: &Split) -> Value {
    let resources = match split {
        Split::Shared => json!({"requests": {"cpu": "500m", "memory": "32Mi"}}),
        Split::Own { .. } => json!({"limits": {"cpu": "1", "memory": "32Mi"}}),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": namespace, "name": SERVER},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": BOX_IMAGE,
                "args": serve(),
                "resources": resources,
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
        let phases =
            Phases { alone: vec![1.0], beside: vec![1.2], draining: vec![1.5], batch: 14, drained: 14 };
        assert_eq!(phases.times_alone(&phases.beside), 1.2);
    }

    #[test]
    fn the_batch_pods_ask_for_nothing_so_that_online_pods_go_before_them() {
        let job: springtide_crds::batch_job::BatchJob = serde_json::from_value(job("ns")).unwrap();
        let template = serde_json::to_value(&job.spec.template).unwrap();
        assert!(template["spec"]["containers"][0].get("resources").is_none());
        let pod: Pod = serde_json::from_value(server("ns", &Split::Shared)).unwrap();
        assert_eq!(pod.metadata.name.as_deref(), Some(SERVER));
    }

    #[test]
    fn a_server_with_a_cpu_of_its_own_is_guaranteed() {
        let cpus = |list: &str| list.parse::<Cpus>().unwrap();
        let own = Split::Own { server: 3, reserved: cpus("0-2"), others: cpus("1-2") };
        let container = |split| server("ns", split)["spec"]["containers"][0]["resources"].clone();
        // Requests that are not told are the limits.
        assert_eq!(container(&own), json!({"limits": {"cpu": "1", "memory": "32Mi"}}));
        assert_eq!(container(&Split::Shared)["requests"]["cpu"], "500m");
        let queue: BatchQueue = serde_json::from_value(queue("ns")).unwrap();
        assert!(queue.spec.quota.is_empty());
    }
}
