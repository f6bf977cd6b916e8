//! As many jobs and indexes as are declared: each ends Complete, each index ran once.
//!
//! The full figures (2 000 jobs, a job of 5 000 indexes) run with `SPRINGTIDE_LONG=1`.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::time::Duration;

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode, CompletionTracking, Release};
use springtide_e2e::batch::{self, Task, Testbed, shared};
use springtide_e2e::oracle::jobs;
use tokio::sync::Mutex;

/// Bound for the end of everything: the machine may be shared with compilers.
const BOUND: Duration = Duration::from_secs(1500);
/// Finished jobs that the built-in queue keeps in a namespace.
const HISTORY_LIMIT: usize = 400;
/// Each test fills the cluster by itself.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn tracked(tracking: CompletionTracking, spec: BatchJobSpec) -> BatchJobSpec {
    BatchJobSpec { release: Release { completion_tracking: Some(tracking), ..Release::default() }, ..spec }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_of_many_runs_once_and_completes() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let (namespaces, jobs) = if batch::long() { (4, 500) } else { (3, 100) };
    let cluster = shared().await?;
    let mut tests = Vec::new();
    for number in 0..namespaces {
        tests.push(Testbed::new(cluster, &format!("many-{number}")).await?);
    }
    let spec = |tracking| tracked(tracking, BatchJobSpec::new(Task::quick().template()));
    let submitted = tests.iter().enumerate().map(|(number, test)| async move {
        let tracking = match number % 2 {
            0 => CompletionTracking::Strict,
            _ => CompletionTracking::AtLeastOnce,
        };
        test.submit_many("job", jobs, &spec(tracking)).await
    });
    try_join_all(submitted).await?;
    for test in &tests {
        test.jobs
            .until_within(BOUND, "the end of all jobs", |seen| (seen.finished() == jobs).then_some(()))
            .await?;
        test.pods
            .until("the end of all pods", |pods| pods.all().all(|life| life.gone.is_some()).then_some(()))
            .await?;
        let (pods, seen) = (test.pods.now(), test.jobs.now());
        for number in 0..jobs {
            let name = format!("job-{number}");
            pods.exactly_one_run(&name, 1)?;
            let complete = seen.history(&name).map(|history| jobs::complete(&history.job).cloned());
            let reason = complete.flatten().map(|condition| condition.reason);
            ensure!(reason.as_deref() == Some("Completed"), "{name}: {reason:?}");
        }
        drop((pods, seen));
        test.verify()?;
    }
    for test in &tests {
        // The oldest go when there are more than the history holds.
        test.jobs
            .until("the trimmed history", |seen| (seen.present().count() <= HISTORY_LIMIT).then_some(()))
            .await?;
    }
    Ok(())
}

async fn every_index_of_many_runs_once(tracking: CompletionTracking) -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let (completions, parallelism) = if batch::long() { (5_000, 500) } else { (500, 100) };
    let test = Testbed::new(shared().await?, "indexes").await?;
    let spec = BatchJobSpec {
        completions,
        parallelism,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::quick().template())
    };
    test.submit("job", tracked(tracking, spec)).await?;
    test.jobs.until_within(BOUND, "the end of the job", |seen| (seen.finished() == 1).then_some(())).await?;
    let job = test.completed("job").await?;
    test.no_pods("job").await?;
    test.pods.now().exactly_one_run("job", completions)?;
    let most = test.pods.now().most_active("job");
    ensure!(most <= parallelism as usize, "{most} pods at a time");
    let indexes = job.status.and_then(|status| status.indexes).unwrap_or_default();
    assert_eq!(indexes.closed_below, completions);
    test.verify()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_index_of_a_strict_job_runs_once() -> Result<()> {
    every_index_of_many_runs_once(CompletionTracking::Strict).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_index_of_an_at_least_once_job_runs_once() -> Result<()> {
    every_index_of_many_runs_once(CompletionTracking::AtLeastOnce).await
}
