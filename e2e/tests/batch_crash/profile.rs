//! A BatchTaskProfile that has learned, without the minutes that this takes.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use springtide_batch_job::profiles::learned::{ContainerRun, Run, SAMPLES_NEEDED};
use springtide_batch_job::profiles::status::{UsageApi, next};
use springtide_batch_job::profiles::usage::Usage;
use springtide_batch_job::projections::profile::ProfileView;
use springtide_crds::batch_task_profile::{BatchTaskProfile, RecommendedRequests};
use springtide_e2e::batch::{Testbed, profiles};

/// Its name, which is the key of the jobs.
pub(crate) const NAME: &str = "etl";
/// One that is of no job.
const LATER: &str = "later";

/// Makes the profile with the status that a manager would have written after enough runs, so that the one that is there
/// has nothing to write. Returns what it recommends.
pub(crate) async fn learned(test: &Testbed<'_>) -> Result<RecommendedRequests> {
    // First the manager tells that it has seen the profile: whether it does would else be chance.
    let made = profiles::create(test, NAME).await?;
    let view: ProfileView = serde_json::from_value(serde_json::to_value(&made)?)?;
    let now = Timestamp::now();
    let used = Usage { cpu: Some(70), memory: Some(96 << 20) };
    let container = ContainerRun { name: "main".into(), usage: used, killed_at: None };
    let run = Run { finished: now, seconds: Some(2.0), containers: vec![container] };
    let status = next(&view, &vec![run; SAMPLES_NEEDED as usize], UsageApi::NotAsked, now);
    let recommended = status.containers.first().context("a container")?.recommended.clone();
    ensure!(recommended.cpu.is_some() && recommended.memory.is_some(), "{status:?}");
    let change = Patch::Merge(json!({"status": status}));
    test.api::<BatchTaskProfile>().patch_status(NAME, &PatchParams::default(), &change).await?;
    // A job may come to the manager sooner than this: its pods would be as if nothing were learned.
    profiles::create(test, LATER).await?;
    Ok(recommended)
}
