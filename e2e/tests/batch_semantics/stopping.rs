//! A user stops a job, and lets it go on.

use anyhow::{Context, Result};
use serde_json::json;
use springtide_crds::batch_job::{BatchJobSpec, CompleteReason, CompletionMode, StopPolicy, SuspendedReason};
use springtide_e2e::batch::{Task, Testbed, shared};
use springtide_e2e::oracle::jobs;

fn indexed(completions: u32, parallelism: u32) -> BatchJobSpec {
    BatchJobSpec {
        completions,
        parallelism,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::endless().template())
    }
}

#[tokio::test]
async fn hold_starts_nothing_and_lets_pods_finish() -> Result<()> {
    let test = Testbed::new(shared().await?, "hold").await?;
    test.submit("job", indexed(4, 2)).await?;
    let first = test.running("job", 2).await?;
    test.edit("job", json!({"spec": {"stopPolicy": "Hold"}})).await?;
    test.reason("job", SuspendedReason::UserHold).await?;
    test.end_pod(&first[0], 0).await?;
    test.end_pod(&first[1], 0).await?;
    let held = test.reason("job", CompleteReason::Suspended).await?;
    assert_eq!(held.status.context("status")?.succeeded, 2);
    assert_eq!(test.pods.now().of("job").len(), 2, "nothing has started");

    test.edit("job", json!({"spec": {"stopPolicy": "None"}})).await?;
    for life in test.running("job", 2).await? {
        test.end_pod(&life, 0).await?;
    }
    let job = test.completed("job").await?;
    assert!(!jobs::has(&job, &SuspendedReason::UserHold), "{:?}", job.status);
    test.pods.now().exactly_one_run("job", 4)?;
    test.verify()
}

#[tokio::test]
async fn drain_ends_pods_and_their_indexes_run_again() -> Result<()> {
    let test = Testbed::new(shared().await?, "drain").await?;
    test.submit("job", indexed(3, 3)).await?;
    let first = test.running("job", 3).await?;
    test.end_pod(&first[2], 0).await?;
    test.job("job", "index 2 is done", |job| job.status.as_ref().is_some_and(|status| status.succeeded == 1))
        .await?;
    test.edit("job", json!({"spec": {"stopPolicy": "Drain"}})).await?;
    test.reason("job", SuspendedReason::UserDrain).await?;
    test.no_pods("job").await?;
    let drained = test.reason("job", CompleteReason::Suspended).await?.status.context("status")?;
    assert_eq!((drained.succeeded, drained.failed, drained.active), (1, 0, 0));

    test.edit("job", json!({"spec": {"stopPolicy": "None"}})).await?;
    let again = test.running("job", 2).await?;
    assert_eq!(again.iter().map(|life| (life.index, life.attempt)).collect::<Vec<_>>(), [(0, 0), (1, 0)]);
    for life in again {
        test.end_pod(&life, 0).await?;
    }
    let status = test.completed("job").await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.disrupted), (3, 0, 2));
    test.no_pods("job").await?;
    test.verify()
}

#[tokio::test]
async fn a_job_born_on_hold_waits_without_a_pod() -> Result<()> {
    let test = Testbed::new(shared().await?, "born-held").await?;
    let spec = BatchJobSpec { stop_policy: StopPolicy::Hold, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit("job", spec).await?;
    test.reason("job", CompleteReason::Suspended).await?;
    assert!(test.pods.now().of("job").is_empty());
    test.edit("job", json!({"spec": {"stopPolicy": "None"}})).await?;
    test.completed("job").await?;
    test.pods.now().exactly_one_run("job", 1)?;
    test.verify()
}

#[tokio::test]
async fn a_held_job_lets_its_pod_go_that_a_user_deletes() -> Result<()> {
    let test = Testbed::new(shared().await?, "held-delete").await?;
    test.submit("job", indexed(1, 1)).await?;
    test.running("job", 1).await?;
    test.edit("job", json!({"spec": {"stopPolicy": "Hold"}})).await?;
    test.reason("job", SuspendedReason::UserHold).await?;
    test.kubectl(&["delete", "pod", "job-0-0"]).await?;
    test.reason("job", CompleteReason::Suspended).await?;
    assert_eq!(test.pods.now().of("job").len(), 1, "it stays away on Hold");
    test.edit("job", json!({"spec": {"stopPolicy": "None"}})).await?;
    test.end_pod(&test.running("job", 1).await?[0], 0).await?;
    test.completed("job").await?;
    test.verify()
}
