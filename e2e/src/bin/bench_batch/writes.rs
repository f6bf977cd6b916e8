//! G2: writes a job, counted by the audit log of a cluster of their own: never in a timed run.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use springtide_crds::batch_job::{BatchJobSpec, CompletionTracking};
use springtide_e2e::batch::{self, Cost, Task};
use springtide_e2e::bench::of_budget;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{Manager, USER_AGENT};
use springtide_e2e::write_count::WriteCount;

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

/// The most that all components may write for the PodGroup of a gang.
pub(crate) const POD_GROUP_BUDGET: u32 = 4;
/// Gangs whose PodGroups are counted, and the pods of each.
pub(crate) const GANGS: usize = 50;
const GANG_SIZE: u32 = 4;

/// A row of the write chain.
#[derive(Serialize, Deserialize)]
pub(crate) struct Writes {
    /// Which jobs.
    pub(crate) what: String,
    /// For identifiers.
    pub(crate) id: String,
    /// Writes of the manager a job.
    pub(crate) own: f64,
    /// What they are to be. They are no fewer: a row is about jobs of which each waits, or runs, so long that one
    /// more is due.
    pub(crate) own_budget: u32,
    /// Writes of all components a job, as far as they are [of the budget](of_budget).
    pub(crate) all: f64,
    /// Beside those.
    pub(crate) events: Events,
}

/// Writes on Events a job, by who tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Events {
    /// The scheduler.
    pub(crate) scheduler: f64,
    /// The kubelet, or KWOK in its place.
    pub(crate) node: f64,
    /// The manager or, of Jobs, the controller manager.
    pub(crate) controller: f64,
}

impl Events {
    /// Of the writes on Events for so many jobs.
    pub(crate) fn of(events: &WriteCount, jobs: usize) -> Self {
        let a_job = |agents: &[&str]| {
            let count: usize = agents.iter().map(|agent| events.by_agent(agent).len()).sum();
            count as f64 / jobs as f64
        };
        Self {
            scheduler: a_job(&["kube-scheduler"]),
            node: a_job(&["kubelet", "kwok"]),
            controller: a_job(&[USER_AGENT, "kube-controller-manager"]),
        }
    }
}

/// The rows of BatchJob, and what all components write for a Job.
#[derive(Serialize, Deserialize)]
pub(crate) struct Counted {
    pub(crate) rows: Vec<Writes>,
    /// Of Jobs of Kubernetes, without and with Events.
    pub(crate) job: f64,
    pub(crate) job_events: Events,
    /// On the PodGroup of a gang: writes of the manager, and of all components.
    pub(crate) pod_group: [f64; 2],
}

/// Counts them for short and long jobs of both completion trackings, for some that wait, and for gangs.
pub(crate) async fn per_job() -> Result<Counted> {
    let cluster = batch::cluster().await?;
    let mut manager = Manager::start(&cluster, "manager-writes", &[]).await?;
    manager.wait_ready().await?;
    let long = || Task { run_seconds: LONG.to_owned(), ..Task::quick() };
    let at_least_once = CompletionTracking::AtLeastOnce;
    let mut rows = Vec::new();
    for (tracking, task, waits, what, id, own_budget) in [
        (at_least_once, Task::quick(), false, "short, AtLeastOnce", "at-least-once", 4),
        (CompletionTracking::Strict, Task::quick(), false, "short, Strict", "strict", 5),
        (at_least_once, long(), false, "long, AtLeastOnce", "long", 5),
        (CompletionTracking::Strict, long(), false, "long, Strict", "long-strict", 6),
        (at_least_once, Task::quick(), true, "waited and said so, short, AtLeastOnce", "waited", 5),
        (at_least_once, long(), true, "waited and said so, long, AtLeastOnce", "waited-long", 6),
        (
            CompletionTracking::Strict,
            Task::quick(),
            true,
            "waited and said so, short, Strict",
            "waited-strict",
            6,
        ),
        (
            CompletionTracking::Strict,
            long(),
            true,
            "waited and said so, long, Strict",
            "waited-long-strict",
            6,
        ),
    ] {
        let mut spec = BatchJobSpec::new(task.template());
        spec.release.completion_tracking = Some(tracking);
        let Cost { own, all, events } = if waits {
            batch::cost_of_waiting_jobs(&cluster, JOBS, spec).await?
        } else {
            batch::cost_of_jobs(&cluster, JOBS, spec).await?
        };
        must_be_complete(what, own.len(), own_budget)?;
        let a_job = |count: usize| count as f64 / JOBS as f64;
        let events = Events::of(&events, JOBS);
        let row = Writes {
            what: what.to_owned(),
            id: id.to_owned(),
            own: a_job(own.len()),
            own_budget,
            all: a_job(of_budget(&all, USER_AGENT).len()),
            events,
        };
        eprintln!("      {what}: {:.2} writes of the manager, {:.2} of all", row.own, row.all);
        rows.push(row);
    }
    manager.stop()?;
    let (job, job_events) = of_jobs(&cluster).await?;
    eprintln!("      Kubernetes Job: {job:.2} writes of all");
    cluster.stop()?;
    let pod_group = of_pod_groups().await?;
    eprintln!("      the PodGroup of a gang: {:.2} writes of all", pod_group[1]);
    Ok(Counted { rows, job, job_events, pod_group })
}

/// Whether so many writes of the manager are all that the jobs of a row are due.
///
/// # Errors
/// They are fewer: some of the jobs were not what the row is about.
fn must_be_complete(what: &str, own: usize, each: u32) -> Result<()> {
    let due = JOBS * each as usize;
    ensure!(own >= due, "{what}: {own} writes of the manager for {JOBS} jobs, which are due {due}");
    Ok(())
}

/// Writes of all components for a short Job of Kubernetes, from its creation until all its objects are gone, and
/// those on its Events.
async fn of_jobs(cluster: &LocalCluster) -> Result<(f64, Events)> {
    let namespace = cluster.create_namespace("count").await?;
    let log = cluster.audit_log()?;
    let mark = log.mark()?;
    let (system, prefix) = (System::Job, "count-");
    let watcher = Watcher::start(cluster, system, prefix, Jobs::Presence).await?;
    let generator = Generator::new(cluster, std::slice::from_ref(&namespace))?;
    generator.create(system, prefix, JOBS, |_| manifests::Task::of("0.2")).await?;
    watcher.until_all("gone", JOBS, BOUND, Seen::is_gone).await?;
    let writes = of_budget(&log.since(mark)?.in_namespace(&namespace).writes(), "kube-controller-manager");
    let of_jobs = |resource: &str| resource.starts_with("pods") || resource.starts_with("jobs");
    let events = Events::of(&writes.of_resource("events"), JOBS);
    Ok((writes.filter(|request| of_jobs(&request.resource)).len() as f64 / JOBS as f64, events))
}

/// Writes on the PodGroup of a gang, on a cluster that serves PodGroups.
async fn of_pod_groups() -> Result<[f64; 2]> {
    let cluster = batch::cluster_with_pod_groups().await?;
    let mut manager = Manager::start(&cluster, "manager-gangs", &[]).await?;
    manager.wait_ready().await?;
    let counted = batch::writes_of_pod_groups(&cluster, GANGS, GANG_SIZE).await?;
    manager.stop()?;
    cluster.stop()?;
    Ok(counted.map(|writes| of_budget(&writes, USER_AGENT).len() as f64 / GANGS as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_that_lack_the_write_that_their_row_is_about_are_no_measurement() {
        // As many as those take that never waited.
        let error = must_be_complete("waited", 4 * JOBS, 5).unwrap_err().to_string();
        assert!(error.contains("800 writes of the manager for 200 jobs, which are due 1000"), "{error}");
        must_be_complete("waited", 5 * JOBS - 1, 5).unwrap_err();
        must_be_complete("waited", 5 * JOBS, 5).unwrap();
        // What is refused and sent again counts too, and misses the goal.
        must_be_complete("waited", 5 * JOBS + 3, 5).unwrap();
    }
}
