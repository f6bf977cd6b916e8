//! Many more jobs at once than the kind is declared for: the last of them are to go as fast as the first.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_e2e::bench::stats::rates_of_tenths;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::Shared;
use crate::contender::{RAISED, RAISED_WORKERS};
use crate::generator::Generator;
use crate::manifests::{System, Task};
use crate::processes::{Meter, Spent};
use crate::throughput::BOUND;
use crate::watcher::{Jobs, Seen, Watcher, spans};

/// What stands before the numbers of its jobs.
const PREFIX: &str = "flood-";

/// How they went.
#[derive(Serialize, Deserialize)]
pub(crate) struct Flood {
    /// How many there were.
    pub(crate) jobs: usize,
    /// Jobs a second, from the start of the manager until all objects are gone.
    pub(crate) rate: f64,
    /// Pods that were gone a second, of each tenth of them, in the order in which they went.
    pub(crate) pods: Vec<f64>,
    /// The same of the jobs themselves.
    pub(crate) gone: Vec<f64>,
    /// What each process used.
    pub(crate) spent: Spent,
}

/// Creates so many jobs on a cluster of their own, starts a manager that takes as many when all are there, so that nothing
/// else asks for much of the server while they run, and waits until all are gone.
pub(crate) async fn measure(nodes: u16, jobs: usize) -> Result<Flood> {
    let Shared { cluster, namespaces } = Shared::start(nodes).await?;
    let generator = Generator::new(&cluster, &namespaces)?;
    let watcher = Watcher::start(&cluster, System::BatchJob, PREFIX, Jobs::Presence).await?;
    generator.create(System::BatchJob, PREFIX, jobs, |_| Task::of("0")).await?;
    eprintln!("      {jobs} jobs are there");
    let path = configure(&cluster, "flood", jobs, namespaces.len())?;
    let (factor, workers) = (RAISED.to_string(), RAISED_WORKERS.to_string());
    let args = ["--config", &path, "--write-budget-factor", &factor, "--workers", &workers];
    let start = Instant::now();
    let mut manager = Manager::start(&cluster, "manager-flood", &args).await?;
    let meter = Meter::start(&cluster, Some(&manager))?;
    manager.wait_ready().await?;
    watcher.until_all("gone", jobs, BOUND, |seen| seen.is_gone()).await?;
    let spent = meter.end()?;
    manager.stop()?;
    cluster.stop()?;
    let seen = watcher.all();
    let ends = |of: fn(&Seen) -> Option<Instant>| spans(&seen, |_, _| Some(start), of);
    let all = ends(Seen::gone);
    let rate = jobs as f64 / all.last().context("no job has gone")?;
    let tenths = |of| rates_of_tenths(&ends(of));
    Ok(Flood { jobs, rate, pods: tenths(|seen| seen.pod_gone), gone: tenths(|seen| seen.job_gone), spent })
}

/// Writes the configuration of a manager that takes so many jobs in so many namespaces, and gives its path.
pub(crate) fn configure(
    cluster: &LocalCluster,
    name: &str,
    jobs: usize,
    namespaces: usize,
) -> Result<String> {
    let path = cluster.folder().join(format!("{name}.yaml"));
    std::fs::write(&path, serde_yaml::to_string(&configuration(jobs, namespaces))?)?;
    Ok(path.to_str().context("the folder of the cluster")?.to_owned())
}

/// Takes all these jobs, with the twentieth that is kept free by ending the oldest finished ones early.
fn configuration(jobs: usize, namespaces: usize) -> Value {
    let with_room = |jobs: usize| jobs + jobs.div_ceil(10);
    json!({
        "apiVersion": "config.springtide.dev/v1alpha1",
        "kind": "ManagerConfiguration",
        "controllers": {"batchJob": {"settings": {
            "maxJobsPerNamespace": with_room(jobs.div_ceil(namespaces)),
            "maxJobsPerCluster": with_room(jobs),
        }}},
    })
}

impl Flood {
    /// The rate of the last tenth of the pods to that of the first; NaN of too few jobs.
    pub(crate) fn last_to_first(&self) -> f64 {
        match (self.pods.first(), self.pods.last()) {
            (Some(first), Some(last)) => last / first,
            (None, _) | (_, None) => f64::NAN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_jobs_are_taken_and_a_twentieth_is_free() {
        let settings = configuration(50_000, 8)["controllers"]["batchJob"]["settings"].clone();
        assert_eq!(settings, json!({"maxJobsPerNamespace": 6_875, "maxJobsPerCluster": 55_000}));
    }
}
