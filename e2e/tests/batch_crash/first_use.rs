//! A BatchTaskProfile that is made at its first use, and learns.

use anyhow::Result;
use serde_json::json;
use springtide_crds::batch_job::{BatchJobSpec, JobProfile, Release};
use springtide_crds::batch_task_profile::{BatchTaskProfile, ProfileMode, ReadyReason};
use springtide_e2e::batch::profiles::{profile, says};
use springtide_e2e::batch::{Task, Testbed};

use crate::plays::strict;
use crate::profile::NAME;
use crate::scenarios::JOB;

/// The job makes the profile, which says at once that it knows nothing, and a minute later what the run has taught. The pod
/// stays until it does: whoever goes on learns from it what nobody has written.
pub(crate) async fn teaches(test: &Testbed<'_>) -> Result<()> {
    let task = Task {
        run_seconds: "1".to_owned(),
        message: Some("usage: cpu=70m memory=96Mi".to_owned()),
        ..Task::quick()
    };
    let spec = strict(&task, 1, 1);
    let release = Release { min_pod_age_seconds: 3600, ..spec.release.clone() };
    let of_key = JobProfile { key: Some(NAME.to_owned()), mode: Some(ProfileMode::Observe) };
    test.submit(JOB, BatchJobSpec { release, profile: Some(of_key), ..spec }).await?;
    profile(test, NAME, "made", |_| true).await?;
    test.completed(JOB).await?;
    let is_taught = |profile: &BatchTaskProfile| {
        let known = profile.status.as_ref().is_some_and(|status| status.samples == 1);
        known && says(profile, &ReadyReason::TooFewSamples)
    };
    profile(test, NAME, "taught", is_taught).await?;
    test.edit(JOB, json!({"spec": {"release": {"minPodAgeSeconds": 0}}})).await?;
    Ok(())
}
