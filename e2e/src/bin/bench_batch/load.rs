//! G14: a steady load for minutes, with the retention that is shipped.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Api, DeleteParams, ListParams};
use serde::{Deserialize, Serialize};
use springtide_crds::batch_job::BatchJob;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::generator::Generator;
use crate::manifests::{System, Task};
use crate::processes::{Meter, Spent};
use crate::watcher::{Jobs, Watcher, spans};

/// Jobs a minute.
pub(crate) const JOBS_PER_MINUTE: usize = 1_000;
/// For the last ones to end.
const BOUND: Duration = Duration::from_secs(300);

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Load {
    /// Minutes that it took to create them all.
    pub(crate) minutes: usize,
    /// Create sent to pod seen, in seconds, sorted: the pod is what admission comes to.
    pub(crate) admission: Vec<f64>,
    /// Pod ended to outcome in the job's status, in seconds, sorted.
    pub(crate) exit_to_outcome: Vec<f64>,
    /// What each process used.
    pub(crate) spent: Spent,
    /// Jobs that were left at the end, finished.
    pub(crate) kept: usize,
}

impl Load {
    /// How much of a core the manager used, in per cent.
    pub(crate) fn core_percent(&self) -> Result<f64> {
        Ok(100.0 * self.spent.manager()?.cpu_seconds / self.spent.seconds)
    }
}

/// Creates jobs of one second each for so many minutes, and waits until all have ended. What is kept of them is
/// removed after that.
pub(crate) async fn measure(cluster: &LocalCluster, namespaces: &[String], minutes: usize) -> Result<Load> {
    let mut manager = Manager::start(cluster, "manager-load", &[]).await?;
    manager.wait_ready().await?;
    let (system, prefix, jobs) = (System::BatchJob, "load-", minutes * JOBS_PER_MINUTE);
    let watcher = Watcher::start(cluster, system, prefix, Jobs::Outcomes).await?;
    let generator = Generator::new(cluster, namespaces)?;
    let pace = Duration::from_secs(60) / JOBS_PER_MINUTE as u32;
    let task = Task { ttl_seconds: None, ..Task::of("1") };
    let meter = Meter::start(cluster, Some(&manager))?;
    let sent = {
        let create = generator.create_paced(system, prefix, jobs, pace, &task);
        // Says how far it is; a run that does not get on ends here.
        let ended = watcher.until_all("released", jobs, BOUND + pace * jobs as u32, |seen| {
            seen.outcome.is_some() && seen.pod_gone.is_some()
        });
        tokio::try_join!(create, ended)?.0
    };
    let spent = meter.end()?;
    let seen = watcher.all();
    let admission = spans(&seen, |key, _| sent.get(key).copied(), |seen| seen.pod_added);
    ensure!(admission.len() == jobs, "the pods of only {} of {jobs} jobs were seen", admission.len());
    let exit_to_outcome = spans(&seen, |_, seen| seen.pod_ended, |seen| seen.outcome);
    let kept = watcher.count(|seen| seen.job_gone.is_none());
    remove(cluster, namespaces).await?;
    manager.stop()?;
    Ok(Load { minutes, admission, exit_to_outcome, spent, kept })
}

/// Deletes all BatchJobs of these namespaces.
pub(crate) async fn remove(cluster: &LocalCluster, namespaces: &[String]) -> Result<()> {
    let client = cluster.client("bench-generator")?;
    let deadline = Instant::now() + BOUND;
    for namespace in namespaces {
        let jobs: Api<BatchJob> = Api::namespaced(client.clone(), namespace);
        let deleted = jobs.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
        deleted.with_context(|| format!("delete the jobs of {namespace}"))?;
        while !jobs.list_metadata(&ListParams::default().limit(1)).await?.items.is_empty() {
            if Instant::now() > deadline {
                bail!("jobs of {namespace} do not go");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::processes::MANAGER;
    use springtide_e2e::bench::processes::Process;

    /// A minute of it.
    pub(crate) fn load() -> Load {
        let manager =
            Process { name: MANAGER.to_owned(), cpu_seconds: 6.0, resident_mib: 30.0, peak_mib: 31.0 };
        let spent = Spent { seconds: 60.0, processes: vec![manager] };
        Load { minutes: 1, admission: vec![0.1; 1000], exit_to_outcome: vec![0.2; 1000], spent, kept: 1000 }
    }
}
