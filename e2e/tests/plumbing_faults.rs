//! Two managers and a server that fails: the same end, and nothing written by one
//! that does not lead. Each manager has a user of its own, so that the audit log
//! tells them apart, whatever they call themselves.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use springtide_crds::batch_job::{
    BatchJobSpec, CompletionMode, CompletionTracking, FailedReason, Release, Retry,
};
use springtide_e2e::batch::{self, Task, Testbed};
use springtide_e2e::fault_proxy::{Class, EventFault, FaultProxy, Protocols, When};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{LEASE_NAME, Manager};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::leadership::Terms;
use tokio::time::Instant;

const USERS: [&str; 2] = ["manager-a", "manager-b"];
const COMPLETIONS: u32 = 40;
/// Pods at once of the job that runs while the server is away, beside one of another job.
const TOGETHER: u32 = 4;

async fn manager(cluster: &LocalCluster, user: &str) -> Result<Manager> {
    Manager::start_as(cluster, user, "system:masters", &[]).await
}

/// Waits until `user` has taken the lease.
async fn leads(cluster: &LocalCluster, user: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while Terms::of(&USERS, &cluster.audit_log()?.all()?).leaders.last().map(String::as_str) != Some(user) {
        ensure!(Instant::now() < deadline, "{user} has not taken the lease {LEASE_NAME}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Waits until the managers have written nothing but leases for a while.
async fn quiet(cluster: &LocalCluster) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let written = || -> Result<usize> {
        let all = cluster.audit_log()?.all()?.without_leases().writes();
        Ok(all.filter(|request| USERS.contains(&request.user.as_str())).len())
    };
    let mut before = written()?;
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = written()?;
        if now == before {
            return Ok(());
        }
        before = now;
        ensure!(Instant::now() < deadline, "the managers do not come to rest");
    }
}

fn work(task: &Task, parallelism: u32) -> BatchJobSpec {
    BatchJobSpec {
        completions: COMPLETIONS,
        parallelism,
        completion_mode: CompletionMode::Indexed,
        release: Release { completion_tracking: Some(CompletionTracking::Strict), ..Release::default() },
        retry: Retry { initial_backoff_seconds: 0, max_backoff_seconds: 0, ..Retry::default() },
        ..BatchJobSpec::new(task.template())
    }
}

/// The end that a run without faults has.
async fn same_end(test: &Testbed<'_>, job: &str) -> Result<()> {
    let status = test.completed(job).await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.disrupted, status.active), (COMPLETIONS, 0, 0, 0));
    test.no_pods(job).await?;
    test.pods.now().exactly_one_run(job, COMPLETIONS)?;
    test.verify()
}

fn only_leaders_wrote(cluster: &LocalCluster, leaders: &[&str]) -> Result<()> {
    let terms = Terms::of(&USERS, &cluster.audit_log()?.all()?);
    assert_eq!(terms.leaders, leaders);
    ensure!(terms.without_lease.is_empty(), "written without the lease: {:#?}", terms.without_lease);
    Ok(())
}

#[tokio::test]
async fn a_standby_goes_on_where_a_killed_leader_stopped() -> Result<()> {
    let cluster = batch::cluster().await?;
    let leader = manager(&cluster, USERS[0]).await?;
    leads(&cluster, USERS[0]).await?;
    let standby = manager(&cluster, USERS[1]).await?;
    let test = Testbed::new(&cluster, "killed").await?;
    test.submit("job", work(&Task::quick(), 4)).await?;
    test.pods
        .until("ten pods that ended", |pods| {
            (pods.of("job").iter().filter(|life| life.ended.is_some()).count() >= 10).then_some(())
        })
        .await?;
    leader.kill()?;
    leads(&cluster, USERS[1]).await?;
    same_end(&test, "job").await?;
    only_leaders_wrote(&cluster, &USERS)?;
    // Asked to end, a leader gives the lease back: the next one need not wait for it.
    standby.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_was_paused_past_its_lease_writes_nothing_more() -> Result<()> {
    let cluster = batch::cluster().await?;
    let paused = manager(&cluster, USERS[0]).await?;
    leads(&cluster, USERS[0]).await?;
    let standby = manager(&cluster, USERS[1]).await?;
    let test = Testbed::new(&cluster, "paused").await?;
    test.submit("job", work(&Task::endless(), COMPLETIONS)).await?;
    let running = test.running("job", COMPLETIONS as usize).await?;
    quiet(&cluster).await?;
    paused.child().pause()?;
    // There is work from here on, also for one that does not know of its pause.
    let (first, second) = running.split_at(running.len() / 2);
    for life in first {
        test.end_pod(life, 0).await?;
    }
    test.submit("next", work(&Task::quick(), 10)).await?;
    leads(&cluster, USERS[1]).await?;
    paused.child().resume()?;
    for life in second {
        test.end_pod(life, 0).await?;
    }
    test.submit("last", work(&Task::quick(), 10)).await?;
    for job in ["job", "next", "last"] {
        same_end(&test, job).await?;
    }
    ensure!(paused.child().is_running(), "it stays as a standby");
    only_leaders_wrote(&cluster, &USERS)?;
    standby.stop()?;
    // It is of use again.
    leads(&cluster, USERS[0]).await?;
    test.submit("again", work(&Task::quick(), 10)).await?;
    same_end(&test, "again").await?;
    only_leaders_wrote(&cluster, &[USERS[0], USERS[1], USERS[0]])?;
    paused.stop()?;
    Ok(())
}

#[tokio::test]
async fn work_goes_on_after_the_api_server_has_been_away() -> Result<()> {
    let mut cluster = batch::cluster().await?;
    let leader = manager(&cluster, USERS[0]).await?;
    leads(&cluster, USERS[0]).await?;
    let standby = manager(&cluster, USERS[1]).await?;
    let namespace = {
        let test = Testbed::new(&cluster, "restarted").await?;
        test.submit("job", work(&Task { run_seconds: "1".into(), ..Task::quick() }, TOGETHER)).await?;
        test.submit("failing", BatchJobSpec { backoff_limit: Some(2), ..work(&Task::failing(3), 1) }).await?;
        test.pods
            .until("pods that ended", |pods| {
                (pods.of("job").iter().filter(|life| life.ended.is_some()).count() >= 4).then_some(())
            })
            .await?;
        test.namespace.clone()
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        cluster.restart_api_server(signal).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // The oracles' watches could not see what went on meanwhile; the audit log could.
    let test = Testbed::of(&cluster, &namespace).await?;
    let status = test.completed("job").await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.disrupted), (COMPLETIONS, 0, 0));
    let failed = test.failed("failing", FailedReason::BackoffLimitExceeded).await?;
    assert_eq!(failed.status.context("status")?.failed, 3);
    for job in ["job", "failing"] {
        test.no_pods(job).await?;
    }
    let all = cluster.audit_log()?.all()?;
    let created = all.in_namespace(&namespace).of_resource("pods").successful();
    let created = created.filter(|request| request.verb.name() == "create" && request.resource == "pods");
    let mut names: Vec<_> = created.requests().iter().map(|request| request.name.as_str()).collect();
    names.sort_unstable();
    assert!(names.is_sorted_by(|a, b| a < b), "no pod was created twice: {names:?}");
    let mut expected: Vec<_> = (0..COMPLETIONS).map(|index| format!("job-{index}-0")).collect();
    expected.extend((0..3).map(|attempt| format!("failing-0-{attempt}")));
    assert!(names.iter().all(|name| expected.iter().any(|one| one == name)), "no other pod: {names:?}");
    // A killed server keeps what it has committed and logs no answer that it did not give: creates of pods
    // that may exist together can be under way together, and unrecorded.
    let unrecorded = expected.len() - names.len();
    assert!(unrecorded <= TOGETHER as usize + 1, "{unrecorded} pods that nobody created: {names:?}");
    let terms = Terms::of(&USERS, &all);
    ensure!(terms.without_lease.is_empty(), "written without the lease: {:#?}", terms.without_lease);
    test.verify()?;
    leader.stop()?;
    standby.stop()?;
    Ok(())
}

#[tokio::test]
async fn a_pod_watch_that_is_five_seconds_late_changes_no_end() -> Result<()> {
    let cluster = batch::cluster().await?;
    let late = FaultProxy::start(&cluster, Protocols::All)?;
    let delay = EventFault::Delay(Duration::from_secs(5));
    late.event_fault(Class::any().resource("pods"), &[], When::Always, delay);
    let mut manager = Manager::start_with(&cluster, late.kubeconfig(), "late", &[]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "late").await?;
    test.submit("job", work(&Task::quick(), 20)).await?;
    test.submit("failing", BatchJobSpec { backoff_limit: Some(1), ..work(&Task::failing(3), 1) }).await?;
    let once = BatchJobSpec { release: Release::default(), ..work(&Task::quick(), 20) };
    test.submit("once", once).await?;
    test.submit_many("single", 10, &BatchJobSpec::new(Task::quick().template())).await?;
    same_end(&test, "job").await?;
    same_end(&test, "once").await?;
    let failed = test.failed("failing", FailedReason::BackoffLimitExceeded).await?;
    assert_eq!(failed.status.context("status")?.failed, 2);
    for number in 0..10 {
        let name = format!("single-{number}");
        test.completed(&name).await?;
        test.no_pods(&name).await?;
        test.pods.now().exactly_one_run(&name, 1)?;
    }
    manager.stop()?;
    test.verify()
}
