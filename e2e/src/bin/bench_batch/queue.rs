//! G3 and G13: a full queue, what it costs in memory, and what becomes of it and of the tasks that end meanwhile
//! when the manager is killed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ListParams};
use serde::{Deserialize, Serialize};
use springtide_batch_job::projections::job::BATCH_JOB;
use springtide_crds::batch_job::{BatchJob, BatchJobStatus, CompleteReason};
use springtide_crds::common::{ConditionStatus, condition};
use springtide_crds::reason::Reason;
use springtide_e2e::batch::pool;
use springtide_e2e::bench::STRATEGIC;
use springtide_e2e::bench::scrape::Scrape;
use springtide_e2e::bench::usage;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::flood;
use crate::generator::Generator;
use crate::manifests::{self, System, Task};
use crate::watcher::{Jobs, Seen, Watcher};

/// Tasks that run. Together with those that wait they are more jobs than the kind declares for a cluster.
pub(crate) const RUNNING: usize = 500;
/// Jobs that wait.
pub(crate) const WAITING: usize = 10_000;
/// Namespaces that they are spread over: the built-in queue takes in 1 000 of each.
const NAMESPACES: usize = 12;
/// Name and label of the nodes, their number, and the pods that each has room for: those that run, exactly.
const POOL: &str = "busy";
const NODES: usize = 5;
const PODS_PER_NODE: u32 = 100;
/// Tasks that end while the manager is killed, and as many under the next one. The former is killed in the middle.
const ENDING: usize = 200;
/// Of them at once.
const ENDING_IN_FLIGHT: usize = 8;
/// Names of the jobs begin so; those that run first, and those that wait.
const PREFIX: &str = "queue-";
const RUNS: &str = "queue-runs-";
const WAITS: &str = "queue-waits-";
/// For the memory of a manager to settle.
const SETTLED: Duration = Duration::from_secs(3);
/// For the last requests of a killed manager to come to something.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// Bounds: for everything to be created, for the manager to take all in, for it to decide again, for outcomes.
const CREATED: Duration = Duration::from_secs(300);
const TAKEN_IN: Duration = Duration::from_secs(300);
const DECIDED: Duration = Duration::from_secs(120);
const RECORDED: Duration = Duration::from_secs(120);

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Queue {
    /// Resident memory of a manager without jobs, in MiB.
    pub(crate) idle_mib: f64,
    /// With all of them, in MiB.
    pub(crate) full_mib: f64,
    /// From the start of the next manager until all its stores are synced, in seconds.
    pub(crate) ready: f64,
    /// From its start until a job of those that waited had its pod, in seconds.
    pub(crate) decides: f64,
    /// Tasks that ended, some of them under no manager.
    pub(crate) ended: usize,
    /// Tasks that ended when no manager ran.
    pub(crate) unattended: usize,
    /// Tasks that ended, and whose job does not say so.
    pub(crate) lost: usize,
    /// Tasks that ran twice, or were counted twice, or for a failure.
    pub(crate) doubled: usize,
}

/// Fills the queue, ends tasks, kills the manager meanwhile, starts another, and ends more. The cluster is not
/// cleaned up.
pub(crate) async fn measure(cluster: &LocalCluster) -> Result<Queue> {
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool(POOL, NODES, "32", PODS_PER_NODE)).await?;
    let mut namespaces = Vec::new();
    for _ in 0..NAMESPACES {
        namespaces.push(cluster.create_namespace("queue").await?);
    }
    let generator = Generator::new(cluster, &namespaces)?;
    let watcher = Watcher::start(cluster, System::BatchJob, PREFIX, Jobs::Outcomes).await?;
    let config = flood::configure(cluster, "queue", WAITING + RUNNING, NAMESPACES)?;
    let mut manager = start(cluster, "manager-queue", &config).await?;
    manager.wait_ready().await?;
    tokio::time::sleep(SETTLED).await;
    let idle_mib = usage::resident_mib(manager.child().pid())?;

    let endless = Task { pool: Some(POOL), ..Task::of("never") };
    // They are to be read when all is over.
    let runs = Task { strict: true, ttl_seconds: None, ..endless.clone() };
    generator.create(System::BatchJob, RUNS, RUNNING, |_| runs.clone()).await?;
    watcher.until_all("run", RUNNING, CREATED, |seen| seen.pod_bound.is_some()).await?;
    generator.create(System::BatchJob, WAITS, WAITING, |_| endless.clone()).await?;
    all_taken_in(&manager).await?;
    tokio::time::sleep(SETTLED).await;
    let full_mib = usage::resident_mib(manager.child().pid())?;
    eprintln!("      {full_mib:.0} MiB with all of them, {idle_mib:.0} MiB without");

    let (ended, unattended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let killed = AtomicBool::new(false);
    let kill = async {
        while ended.load(Ordering::Relaxed) < ENDING / 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        manager.kill()?;
        killed.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let end_some = end_tasks(&generator, 0..ENDING, || {
        ended.fetch_add(1, Ordering::Relaxed);
        if killed.load(Ordering::Relaxed) {
            unattended.fetch_add(1, Ordering::Relaxed);
        }
    });
    tokio::try_join!(end_some, kill)?;
    tokio::time::sleep(STRAGGLERS).await;

    let began = Instant::now();
    let mut next = start(cluster, "manager-after-kill", &config).await?;
    next.wait_ready().await?;
    let ready = began.elapsed().as_secs_f64();
    let decides = decided(&watcher, began).await?;
    eprintln!("      after the kill: ready in {ready:.1} s, decides in {decides:.1} s");
    end_tasks(&generator, ENDING..2 * ENDING, || {}).await?;
    let Tally { lost, doubled } = tally(cluster, &generator, &watcher).await?;
    next.stop()?;
    Ok(Queue {
        idle_mib,
        full_mib,
        ready,
        decides,
        ended: 2 * ENDING,
        unattended: unattended.into_inner(),
        lost,
        doubled,
    })
}

/// Without election: a successor of a killed leader waits for the Lease, which is measured elsewhere.
async fn start(cluster: &LocalCluster, name: &str, config: &str) -> Result<Manager> {
    Manager::start(cluster, name, &["--no-leader-election", "--config", config]).await
}

/// Waits until the manager has looked at every job and none is left to be looked at. It does not come to
/// rest then: the records of waiting jobs are spread over minutes.
async fn all_taken_in(manager: &Manager) -> Result<()> {
    let deadline = Instant::now() + TAKEN_IN;
    loop {
        let scrape = Scrape::of(manager).await?;
        let passes = scrape.sum("controller_runtime_reconcile_total", &[]);
        let depth = scrape.sum("workqueue_depth", &[]);
        let stored = scrape.sum("springtide_store_objects", &[("resource", &BATCH_JOB.to_string())]);
        let all = (WAITING + RUNNING) as f64;
        if stored >= all && passes >= all && depth == 0.0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{stored} jobs are stored, {passes} passes were made, and {depth} keys wait");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Ends the tasks of these jobs well, as their kubelet would report it.
async fn end_tasks(generator: &Generator, numbers: std::ops::Range<usize>, ended: impl Fn()) -> Result<()> {
    let (status, ended) = (&manifests::succeeded(), &ended);
    futures::stream::iter(numbers)
        .map(|number| async move {
            let pods = manifests::pods(generator.namespace(number));
            let pod = format!("{pods}/{RUNS}{number}-0-0");
            generator.patch_status(&pod, status, STRATEGIC).await.with_context(|| format!("end {pod}"))?;
            ended();
            anyhow::Ok(())
        })
        .buffer_unordered(ENDING_IN_FLIGHT)
        .try_collect()
        .await
}

/// Seconds from `began` until the first pod of a job that had waited until then.
async fn decided(watcher: &Watcher, began: Instant) -> Result<f64> {
    loop {
        let of_waiting =
            |key: &str, seen: &Seen| seen.pod_added.filter(|added| *added > began && key.contains(WAITS));
        if let Some(first) = watcher.first(of_waiting) {
            return Ok((first - began).as_secs_f64());
        }
        if began.elapsed() > DECIDED {
            bail!("the next manager creates no pod in {} s", DECIDED.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What became of the tasks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    lost: usize,
    doubled: usize,
}

/// Counts them once all have their outcome, or when the time for that is over.
async fn tally(cluster: &LocalCluster, generator: &Generator, watcher: &Watcher) -> Result<Tally> {
    let deadline = Instant::now() + RECORDED;
    let jobs: Api<BatchJob> = Api::all(cluster.client("bench-generator")?);
    loop {
        let is_recorded = |number| {
            let seen = watcher.seen(&format!("{}/{RUNS}{number}", generator.namespace(number)));
            seen.is_some_and(|seen| seen.outcome.is_some() && seen.pod_gone.is_some())
        };
        if (0..2 * ENDING).all(is_recorded) || Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // One that is to stay ended would now run again.
    tokio::time::sleep(SETTLED).await;
    let stored = jobs.list(&ListParams::default()).await?.items;
    let mut tally = Tally::default();
    for number in 0..RUNNING {
        let (namespace, name) = (generator.namespace(number), format!("{RUNS}{number}"));
        let job = stored.iter().find(|job| {
            job.metadata.name.as_deref() == Some(&*name)
                && job.metadata.namespace.as_deref() == Some(namespace)
        });
        let pods = watcher.seen(&format!("{namespace}/{name}")).map_or(0, |seen| seen.pods);
        tally.add(job.and_then(|job| job.status.as_ref()), pods, number < 2 * ENDING);
    }
    Ok(tally)
}

impl Tally {
    /// Counts a job by its stored status, by how many pods of it were seen, and by whether its task has ended.
    fn add(&mut self, status: Option<&BatchJobStatus>, pods: usize, has_ended: bool) {
        let (succeeded, others) =
            status.map_or((0, 0), |status| (status.succeeded, status.failed + status.disrupted));
        if has_ended && !(succeeded == 1 && status.is_some_and(is_complete)) {
            self.lost += 1;
        }
        if pods > 1 || others > 0 || succeeded > u32::from(has_ended) {
            self.doubled += 1;
        }
    }
}

fn is_complete(status: &BatchJobStatus) -> bool {
    let complete = condition(&status.conditions, CompleteReason::CONDITION);
    complete.is_some_and(|complete| complete.status == ConditionStatus::True)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(succeeded: u32, failed: u32, complete: &str) -> BatchJobStatus {
        let condition = json!({
            "type": "Complete", "status": complete, "reason": "Completed", "message": "",
            "observedGeneration": 1, "lastTransitionTime": "2026-11-11T00:00:00Z",
        });
        serde_json::from_value(json!({"succeeded": succeeded, "failed": failed, "conditions": [condition]}))
            .unwrap()
    }

    fn tally(status: Option<&BatchJobStatus>, pods: usize, has_ended: bool) -> (usize, usize) {
        let mut tally = Tally::default();
        tally.add(status, pods, has_ended);
        (tally.lost, tally.doubled)
    }

    #[test]
    fn so_many_wait_as_the_kind_declares_and_the_built_in_queue_takes_in_all_of_them() {
        assert_eq!(WAITING, springtide_batch_job::Settings::default().max_per_cluster);
        let bound = springtide_crds::batch_queue::BatchQueueSpec::new().max_queued_jobs as usize;
        assert!((WAITING + RUNNING).div_ceil(NAMESPACES) <= bound);
        assert_eq!(RUNNING, NODES * PODS_PER_NODE as usize, "else the others would not wait");
    }

    #[test]
    fn an_outcome_is_neither_lost_nor_doubled_when_it_is_counted_once() {
        assert_eq!(tally(Some(&status(1, 0, "True")), 1, true), (0, 0));
        assert_eq!(tally(Some(&status(0, 0, "False")), 1, false), (0, 0), "one that runs");
        assert_eq!(tally(None, 1, false), (0, 0));
    }

    #[test]
    fn what_is_not_recorded_is_lost_and_what_runs_again_is_doubled() {
        assert_eq!(tally(None, 1, true), (1, 0));
        assert_eq!(tally(Some(&status(0, 0, "False")), 1, true), (1, 0));
        assert_eq!(tally(Some(&status(1, 0, "False")), 1, true), (1, 0), "counted, and still not complete");
        assert_eq!(tally(Some(&status(1, 0, "True")), 2, true), (0, 1));
        assert_eq!(tally(Some(&status(2, 0, "True")), 1, true), (1, 1));
        assert_eq!(tally(Some(&status(1, 1, "True")), 1, true), (0, 1), "also counted for a failure");
        assert_eq!(tally(Some(&status(1, 0, "True")), 1, false), (0, 1), "it has not ended");
    }
}
