//! Native controllers that see late what an upgrade has done, or are shown the past by an API server that lags: a run goes on
//! by what they say, so it takes longer, and no pod is replaced. And changes whose answers are wrong.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

mod answers;
mod failover;
mod late;

use anyhow::{Result, ensure};
use serde_json::Value;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::{Testbed, Workload, image, native};

/// Waits until the ReplicaSet with the pods of a Deployment has the second image.
async fn is_flipped(test: &Testbed<'_>, deployment: &str) -> Result<()> {
    until_seen(PATIENCE, &format!("the ReplicaSet of {deployment} has the wish"), async || {
        let found = native::image_of(&native::active(test, deployment).await?)?;
        Ok(if found == image(2) { Ok(()) } else { Err(found) })
    })
    .await
}

/// A Deployment that its controller takes for one whose pods are old, and which is paused for that time.
async fn waits_in_its_pause(test: &Testbed<'_>, workload: &Workload) -> Result<()> {
    let object = native::object(test, workload).await?;
    ensure!(is_paused(&object), "the pause has ended before {} was counted: {object}", workload.name);
    let counted = object["status"]["updatedReplicas"].as_u64().unwrap_or_default();
    ensure!(counted == 0, "{} is not late: {object}", workload.name);
    Ok(())
}

fn is_paused(deployment: &Value) -> bool {
    deployment["spec"]["paused"].as_bool().unwrap_or_default()
}
