//! What a BatchJob comes to when its manager is killed, away, or not there yet.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, CompleteReason, CompletionMode, CompletionTracking, FailedReason, Release, Retry,
};
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::jobs::{self, Kstatus, kstatus};
use tokio::sync::{Mutex, OnceCell};

/// A manager acts on the whole cluster: one test at a time has one.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
static CLUSTER: OnceCell<LocalCluster> = OnceCell::const_new();

async fn cluster() -> Result<&'static LocalCluster> {
    CLUSTER.get_or_try_init(batch::cluster).await
}

/// Without election: the next manager need not wait for the lease of the one that
/// was killed. There is never a second one at a time.
async fn manager(cluster: &LocalCluster, number: usize) -> Result<Manager> {
    Manager::start(cluster, &format!("manager-{number}"), &["--no-leader-election"]).await
}

async fn ready_manager(cluster: &LocalCluster, number: usize) -> Result<Manager> {
    let mut manager = manager(cluster, number).await?;
    manager.wait_ready().await?;
    Ok(manager)
}

fn tracked(tracking: CompletionTracking, spec: BatchJobSpec) -> BatchJobSpec {
    BatchJobSpec {
        release: Release { completion_tracking: Some(tracking), ..Release::default() },
        retry: Retry { initial_backoff_seconds: 0, max_backoff_seconds: 0, ..Retry::default() },
        ..spec
    }
}

fn indexed(completions: u32, parallelism: u32, task: &Task) -> BatchJobSpec {
    BatchJobSpec {
        completions,
        parallelism,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(task.template())
    }
}

/// The end of a job of which each index had exactly one outcome, each counted once.
fn counted_once(job: &BatchJob, succeeded: u32, failed: u32) -> Result<()> {
    let status = job.status.as_ref().context("status")?;
    let outcomes: u32 = status.exit_codes.iter().map(|row| row.count).sum();
    ensure!(
        (status.succeeded, status.failed, outcomes) == (succeeded, failed, succeeded + failed),
        "{succeeded} succeeded and {failed} failed, but the status says {status:?}"
    );
    Ok(())
}

#[tokio::test]
async fn sigkill_at_any_moment_loses_and_doubles_no_outcome() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let (kills, completions, singles) = if batch::long() { (10, 600, 60) } else { (3, 150, 15) };
    let seed: u64 = 20_261_124;
    let mut random = StdRng::seed_from_u64(seed);
    let test = Testbed::new(cluster().await?, "kills").await?;
    let strict = |spec| tracked(CompletionTracking::Strict, spec);
    test.submit("many", strict(indexed(completions, 20, &Task::quick()))).await?;
    test.submit_many("single", singles, &strict(BatchJobSpec::new(Task::quick().template()))).await?;
    // Each index fails twice, then for good.
    let failing =
        BatchJobSpec { backoff_limit_per_index: Some(1), ..indexed(completions / 5, 10, &Task::failing(3)) };
    test.submit("failing", strict(failing)).await?;

    // The moments are spread over the run by what has happened, not by time, so
    // that each of them is within it; within its stretch each is random.
    let total = completions as usize + singles + 2 * (completions as usize / 5);
    let mut running = manager(test.cluster, 0).await?;
    for kill in 1..=kills {
        let at = total * (kill - 1) / (kills + 1) + random.random_range(0..total / (kills + 1));
        let what = format!("{at} pods that ended, before kill {kill} of seed {seed}");
        test.pods
            .until(&what, |pods| (pods.all().filter(|life| life.ended.is_some()).count() >= at).then_some(()))
            .await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
        running.kill()?;
        running = manager(test.cluster, kill).await?;
    }
    ensure!(test.jobs.now().finished() < singles + 2, "all was over before the last kill");

    counted_once(&test.completed("many").await?, completions, 0)?;
    for number in 0..singles {
        counted_once(&test.completed(&format!("single-{number}")).await?, 1, 0)?;
    }
    let failed = test.failed("failing", FailedReason::FailedIndexes).await?;
    counted_once(&failed, 0, 2 * (completions / 5))?;
    for job in ["many", "failing"] {
        test.no_pods(job).await?;
    }
    {
        let pods = test.pods.now();
        pods.exactly_one_run("many", completions)?;
        for number in 0..singles {
            pods.exactly_one_run(&format!("single-{number}"), 1)?;
        }
        let mut attempts: Vec<_> = pods.of("failing").iter().map(|life| (life.index, life.attempt)).collect();
        attempts.sort_unstable();
        let expected: Vec<_> = (0..completions / 5).flat_map(|index| [(index, 0), (index, 1)]).collect();
        assert_eq!(attempts, expected);
    }
    running.stop()?;
    test.verify()
}

#[tokio::test]
async fn pods_that_vanish_unseen_run_again_unless_tracking_is_strict() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let test = Testbed::new(cluster().await?, "unseen").await?;
    let first = ready_manager(test.cluster, 100).await?;
    let names = ["strict", "strict-many", "once", "once-many"];
    let specs = [BatchJobSpec::new(Task::endless().template()), indexed(3, 3, &Task::endless())];
    for (name, (tracking, spec)) in names.iter().zip([
        (CompletionTracking::Strict, &specs[0]),
        (CompletionTracking::Strict, &specs[1]),
        (CompletionTracking::AtLeastOnce, &specs[0]),
        (CompletionTracking::AtLeastOnce, &specs[1]),
    ]) {
        test.submit(name, tracked(tracking, spec.clone())).await?;
    }
    let mut old = Vec::new();
    for (name, count) in names.iter().zip([1, 3, 1, 3]) {
        old.extend(test.running(name, count).await?);
    }
    first.kill()?;
    // They succeed, and somebody removes them before anyone has looked.
    for life in &old {
        test.end_pod(life, 0).await?;
        test.force_delete(life).await?;
    }
    for name in ["once", "once-many"] {
        test.no_pods(name).await?;
    }
    let second = ready_manager(test.cluster, 101).await?;
    for (name, completions) in [("strict", 1), ("strict-many", 3)] {
        counted_once(&test.completed(name).await?, completions, 0)?;
        test.no_pods(name).await?;
        test.pods.now().exactly_one_run(name, completions)?;
    }
    for (name, count) in [("once", 1), ("once-many", 3)] {
        let again = test.running(name, count).await?;
        for life in &again {
            assert_eq!(life.attempt, 0, "it was no failure");
            assert!(old.iter().all(|old| old.uid != life.uid));
            test.end_pod(life, 0).await?;
        }
        let job = test.completed(name).await?;
        counted_once(&job, u32::try_from(count)?, 0)?;
    }
    second.stop()?;
    test.verify()
}

#[tokio::test]
async fn what_was_deleted_meanwhile_is_let_go_at_the_start() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let test = Testbed::new(cluster().await?, "meanwhile").await?;
    let first = ready_manager(test.cluster, 200).await?;
    let strict = tracked(CompletionTracking::Strict, indexed(2, 2, &Task::endless()));
    test.submit("deleted", strict.clone()).await?;
    test.submit("replaced", strict).await?;
    test.running("deleted", 2).await?;
    let old = test.running("replaced", 2).await?;
    first.kill()?;
    test.delete("deleted").await?;
    test.delete("replaced").await?;
    test.gone("deleted").await?;
    test.gone("replaced").await?;
    test.submit("replaced", tracked(CompletionTracking::Strict, indexed(2, 2, &Task::quick()))).await?;
    let held = test.api::<Pod>().get(&old[0].name).await?;
    assert!(held.metadata.finalizers.is_some(), "nobody but the manager releases it");
    let second = ready_manager(test.cluster, 201).await?;
    test.no_pods("deleted").await?;
    let job = test.completed("replaced").await?;
    counted_once(&job, 2, 0)?;
    test.no_pods("replaced").await?;
    second.stop()?;
    test.verify()
}

#[tokio::test]
async fn a_job_is_in_progress_before_any_manager_has_seen_it() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let test = Testbed::new(cluster().await?, "unborn").await?;
    test.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    let fresh = test.job("job", "it is there", |_| true).await?;
    assert_eq!(kstatus(&fresh), Kstatus::InProgress);
    assert!(jobs::has(&fresh, &CompleteReason::Pending), "{:?}", fresh.status);
    assert!(!jobs::is_finished(&fresh));
    let pending = "--for=jsonpath={.status.conditions[?(@.type==\"Complete\")].reason}=Pending";
    test.kubectl(&["wait", pending, "bj/job", "--timeout=100s"]).await?;
    let row = test.kubectl(&["get", "bj", "job", "--no-headers"]).await?;
    assert!(row.contains("Pending"), "{row}");
    let manager = ready_manager(test.cluster, 300).await?;
    let done = test.completed("job").await?;
    assert_eq!(kstatus(&done), Kstatus::Current);
    manager.stop()?;
    test.verify()
}

#[tokio::test]
async fn jobs_that_finished_before_are_left_as_they_are() -> Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let test = Testbed::new(cluster().await?, "finished").await?;
    let first = ready_manager(test.cluster, 400).await?;
    test.submit("good", BatchJobSpec::new(Task::quick().template())).await?;
    let failing = BatchJobSpec { backoff_limit: Some(0), ..BatchJobSpec::new(Task::failing(1).template()) };
    test.submit("bad", failing).await?;
    let good = test.completed("good").await?;
    let bad = test.failed("bad", FailedReason::BackoffLimitExceeded).await?;
    test.no_pods("good").await?;
    test.no_pods("bad").await?;
    first.stop()?;
    let second = ready_manager(test.cluster, 401).await?;
    // Another job shows that the manager works.
    test.submit("next", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("next").await?;
    for before in [good, bad] {
        let name = before.metadata.name.clone().context("name")?;
        let now = test.api::<BatchJob>().get(&name).await?;
        assert_eq!(now.metadata.resource_version, before.metadata.resource_version, "{:?}", now.status);
        test.api::<BatchJob>().delete(&name, &DeleteParams::default()).await?;
    }
    second.stop()?;
    test.verify()
}
