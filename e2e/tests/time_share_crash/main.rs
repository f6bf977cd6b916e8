//! TimeShareGroup survives a crash of its manager at every write.
//!
//! `SPRINGTIDE_LONG=1` runs every case, without it a fixed sample runs. `SPRINGTIDE_CRASH_CASE` names the
//! one case to run, as a failure prints it, or a scenario of which to run all.

mod facts;
mod scenarios;

use anyhow::Result;
use scenarios::Sharing;
use springtide_e2e::crash::{Lane, run};
use springtide_e2e::foreign_crds::HTTP_ROUTE;
use springtide_e2e::upgrade;

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_changes_no_end() -> Result<()> {
    let lane = async || {
        // KWOK's own kubelets do: what a node has is no matter here.
        let cluster = upgrade::cluster().await?;
        cluster.apply(HTTP_ROUTE).await?;
        Lane::new(cluster, &upgrade::manager_configuration())
    };
    run("time_share_crash", &Sharing::ALL, lane).await
}
