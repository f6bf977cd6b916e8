//! G2: writes a job, counted by the audit log of a cluster of their own: never in a timed run.

use std::time::Duration;

use anyhow::Result;
use springtide_crds::batch_job::{BatchJobSpec, CompletionTracking};
use springtide_e2e::batch::{self, Task};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::generator::Generator;
use crate::manifests::{self, System};
use crate::watcher::{Jobs, Seen, Watcher};

/// Jobs of each row.
pub(crate) const JOBS: usize = 200;
/// Seconds that the longer tasks run: long enough for the record of their start.
const LONG: &str = "6";
/// For the Jobs to go.
const BOUND: Duration = Duration::from_secs(300);
/// The most that all components may write for a job.
pub(crate) const ALL_BUDGET: u32 = 10;

/// A row of the write chain.
pub(crate) struct Writes {
    /// Which jobs.
    pub(crate) what: &'static str,
    /// For identifiers.
    pub(crate) id: &'static str,
    /// Writes of the manager a job.
    pub(crate) own: f64,
    /// The most that the specification allows of them.
    pub(crate) own_budget: u32,
    /// Writes of all components a job.
    pub(crate) all: f64,
}

/// The rows of BatchJob, and what all components write for a Job.
pub(crate) struct Counted {
    pub(crate) rows: Vec<Writes>,
    pub(crate) job: f64,
}

/// Counts them for short and long jobs of both completion trackings.
pub(crate) async fn per_job() -> Result<Counted> {
    let cluster = batch::cluster().await?;
    let mut manager = Manager::start(&cluster, "manager-writes", &[]).await?;
    manager.wait_ready().await?;
    let long = || Task { run_seconds: LONG.to_owned(), ..Task::quick() };
    let mut rows = Vec::new();
    for (tracking, task, what, id, own_budget) in [
        (CompletionTracking::AtLeastOnce, Task::quick(), "short, AtLeastOnce", "at-least-once", 4),
        (CompletionTracking::Strict, Task::quick(), "short, Strict", "strict", 5),
        (CompletionTracking::AtLeastOnce, long(), "long, AtLeastOnce", "long", 5),
        (CompletionTracking::Strict, long(), "long, Strict", "long-strict", 6),
    ] {
        let mut spec = BatchJobSpec::new(task.template());
        spec.release.completion_tracking = Some(tracking);
        let [own, all] = batch::writes_of_jobs(&cluster, JOBS, spec).await?;
        let a_job = |count: usize| count as f64 / JOBS as f64;
        let row = Writes { what, id, own: a_job(own.len()), own_budget, all: a_job(all.len()) };
        eprintln!("      {what}: {:.2} writes of the manager, {:.2} of all", row.own, row.all);
        rows.push(row);
    }
    manager.stop()?;
    let job = of_jobs(&cluster).await?;
    eprintln!("      Kubernetes Job: {job:.2} writes of all");
    cluster.stop()?;
    Ok(Counted { rows, job })
}

/// Writes of all components for a short Job of Kubernetes, from its creation until all its objects are gone.
async fn of_jobs(cluster: &LocalCluster) -> Result<f64> {
    let namespace = cluster.create_namespace("count").await?;
    let log = cluster.audit_log()?;
    let mark = log.mark()?;
    let (system, prefix) = (System::Job, "count-");
    let watcher = Watcher::start(cluster, system, prefix, Jobs::Presence).await?;
    let generator = Generator::new(cluster, std::slice::from_ref(&namespace))?;
    generator.create(system, prefix, JOBS, |_| manifests::Task::of("0.2")).await?;
    watcher.until_all("gone", JOBS, BOUND, Seen::is_gone).await?;
    let writes = log.since(mark)?.in_namespace(&namespace).writes();
    let of_jobs = |resource: &str| resource.starts_with("pods") || resource.starts_with("jobs");
    Ok(writes.filter(|request| of_jobs(&request.resource)).len() as f64 / JOBS as f64)
}
