//! Many more jobs at once than the kind is declared for: the last of them are to go as fast as the first.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::Shared;
use crate::contender::{RAISED, RAISED_WORKERS};
use crate::generator::Generator;
use crate::manifests::System;
use crate::processes::Beside;
use crate::throughput::{self, Run};

/// Creates so many jobs at once, on a cluster of their own, under a manager that takes as many, and waits until all are
/// gone.
pub(crate) async fn measure(nodes: u16, jobs: usize) -> Result<Run> {
    let Shared { cluster, namespaces } = Shared::start(nodes).await?;
    let path = configure(&cluster, "flood", jobs, namespaces.len())?;
    let (factor, workers) = (RAISED.to_string(), RAISED_WORKERS.to_string());
    let args = ["--config", &path, "--write-budget-factor", &factor, "--workers", &workers];
    let mut manager = Manager::start(&cluster, "manager-flood", &args).await?;
    manager.wait_ready().await?;
    let generator = Generator::new(&cluster, &namespaces)?;
    let beside = Beside::Manager(&manager);
    let run = throughput::run(&cluster, &generator, System::BatchJob, "flood-", jobs, beside).await?;
    manager.stop()?;
    cluster.stop()?;
    Ok(run)
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

/// The rate of the last tenth to that of the first; NaN of too few jobs.
pub(crate) fn last_to_first(run: &Run) -> f64 {
    match (run.tenths.first(), run.tenths.last()) {
        (Some(first), Some(last)) => last / first,
        (None, _) | (_, None) => f64::NAN,
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
