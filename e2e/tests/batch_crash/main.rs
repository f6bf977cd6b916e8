//! BatchJob survives a crash of its manager at every write.
//!
//! `SPRINGTIDE_LONG=1` runs every case, without it a fixed sample runs. `SPRINGTIDE_CRASH_CASE` names the
//! one case to run, as a failure prints it, or a scenario of which to run all.

mod endings;
mod loads;
mod plays;
mod profile;
mod scenarios;
mod shown;
mod windows;

use anyhow::Result;
use scenarios::Batch;
use springtide_e2e::archive_sink::manager_configuration;
use springtide_e2e::batch;
use springtide_e2e::crash::{Lane, run};

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_changes_no_end() -> Result<()> {
    run("batch_crash", &Batch::ALL, async || {
        let cluster = batch::cluster_with_pod_groups().await?;
        loads::serve(&cluster).await?;
        let configuration = manager_configuration(cluster.pki());
        Lane::new(cluster, &configuration)
    })
    .await
}
