//! Writes a job, counted by the audit log of a cluster of their own: never in a timed run.

use anyhow::Result;
use springtide_crds::batch_job::BatchJobSpec;
use springtide_crds::common::Tier;
use springtide_e2e::batch::{self, Task};
use springtide_e2e::manager::Manager;

/// Jobs of each row.
const JOBS: usize = 200;

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

/// Counts them for short jobs of both completion trackings.
pub(crate) async fn per_job() -> Result<Vec<Writes>> {
    let cluster = batch::cluster().await?;
    let mut manager = Manager::start(&cluster, "manager-writes", &[]).await?;
    manager.wait_ready().await?;
    let mut rows = Vec::new();
    for (tier, what, id, own_budget) in
        [(Tier::BestEffort, "AtLeastOnce", "at-least-once", 4), (Tier::Standard, "Strict", "strict", 5)]
    {
        let spec = BatchJobSpec { tier, ..BatchJobSpec::new(Task::quick().template()) };
        let [own, all] = batch::writes_of_jobs(&cluster, JOBS, spec).await?;
        let a_job = |count: usize| count as f64 / JOBS as f64;
        rows.push(Writes { what, id, own: a_job(own.len()), own_budget, all: a_job(all.len()) });
    }
    manager.stop()?;
    cluster.stop()?;
    Ok(rows)
}
