//! What jobs cost the API server, from its audit log.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use springtide_crds::batch_job::{
    BatchJobSpec, CompleteReason, CompletionMode, FailedReason, QueuedReason, StopPolicy,
};
use springtide_crds::common::Tier;
use springtide_e2e::batch::{self, Cost, Task, Testbed, pool};
use springtide_e2e::bench::of_budget;
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::{Manager, USER_AGENT};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::write_count::{AuditLog, Mark, Verb, WriteCount};
use tokio::time::Instant;

async fn manager(cluster: &LocalCluster, name: &str) -> Result<Manager> {
    let mut manager = Manager::start(cluster, name, &["--no-leader-election"]).await?;
    manager.wait_ready().await?;
    Ok(manager)
}

/// Pods that were there for the 3 s after which the start of a task is recorded.
fn long_lived(own: &WriteCount) -> usize {
    let of_pods = own.of_resource("pods").successful();
    let times = |verb: Verb| -> BTreeMap<String, Timestamp> {
        let of_verb = of_pods.of_verb(verb);
        of_verb.requests().iter().filter_map(|of| Some((of.name.clone(), of.received?))).collect()
    };
    let gone = times(Verb::Delete);
    let lives =
        times(Verb::Create).into_iter().filter_map(|(pod, made)| Some(gone.get(&pod)?.duration_since(made)));
    lives.filter(|life| *life >= SignedDuration::from_secs(3)).count()
}

#[tokio::test]
async fn a_single_pod_job_takes_four_writes_of_ours_five_when_strict_or_long_six_when_both() -> Result<()> {
    const JOBS: usize = 60;
    /// Writes of all components for a job, by whatever road.
    const ALL: usize = 10;
    let cluster = batch::cluster().await?;
    let manager = manager(&cluster, "manager").await?;
    let short = Task::quick();
    // Long enough for a record of its start.
    let long = Task { run_seconds: "6".into(), ..Task::quick() };
    for (tier, task, most) in [
        (Tier::BestEffort, &short, 4),
        (Tier::Standard, &short, 5),
        (Tier::BestEffort, &long, 5),
        (Tier::Standard, &long, 6),
    ] {
        let spec = BatchJobSpec { tier, ..BatchJobSpec::new(task.template()) };
        let Cost { own, all, events } = batch::cost_of_jobs(&cluster, JOBS, spec).await?;
        let what = format!("{JOBS} jobs, {tier:?}, {} s", task.run_seconds);
        no_events_of_ours(&what, &events)?;
        // Where the machine was slow, some of the short ones were not.
        let slow = if task.run_seconds == short.run_seconds { long_lived(&own) } else { 0 };
        ensure!(
            own.len() <= most * JOBS + slow,
            "{what}: {} own writes, {slow} pods were slow:\n{own}",
            own.len()
        );
        let counted = of_budget(&all, USER_AGENT);
        ensure!(counted.len() <= ALL * JOBS, "{what}: {} writes:\n{all}", counted.len());
        eprintln!("{what}:\n{all}");
    }
    tokio::try_join!(
        one_more_when_it_waited(&cluster, &short, 5),
        one_more_when_it_waited(&cluster, &long, 6)
    )?;
    manager.stop()?;
    Ok(())
}

/// Jobs that have waited for another one take the record of that besides, and nothing else: so many writes of ours
/// each.
async fn one_more_when_it_waited(cluster: &LocalCluster, task: &Task, each: usize) -> Result<()> {
    const JOBS: usize = 20;
    let spec = BatchJobSpec { tier: Tier::BestEffort, ..BatchJobSpec::new(task.template()) };
    let Cost { own, all: _, events } = batch::cost_of_waiting_jobs(cluster, JOBS, spec).await?;
    let what = format!("{JOBS} jobs that waited, {} s", task.run_seconds);
    no_events_of_ours(&what, &events)?;
    // Those that run long have that record in any case.
    let slow = if task.run_seconds == Task::quick().run_seconds { long_lived(&own) } else { 0 };
    ensure!(own.len() >= each * JOBS, "{what}: only {} own writes:\n{own}", own.len());
    ensure!(
        own.len() <= each * JOBS + slow,
        "{what}: {} own writes, {slow} pods were slow:\n{own}",
        own.len()
    );
    Ok(())
}

/// What goes as it should is no news.
fn no_events_of_ours(what: &str, events: &WriteCount) -> Result<()> {
    let own = events.by_agent(USER_AGENT);
    ensure!(own.is_empty(), "{what}: {} Events of our own:\n{own}", own.len());
    // Not vacuous: those of the scheduler are in the log.
    ensure!(!events.is_empty(), "{what}: nobody has written an Event");
    Ok(())
}

/// Waits until nobody of ours has written for a while; then the time in which
/// nothing may be written begins.
async fn at_rest(log: &AuditLog) -> Result<Mark> {
    let deadline = Instant::now() + PATIENCE;
    let mut mark = log.mark()?;
    loop {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let written = own_writes(log, mark)?;
        if written.is_empty() {
            return Ok(mark);
        }
        mark = log.mark()?;
        ensure!(Instant::now() < deadline, "the manager does not come to rest:\n{written}");
    }
}

fn own_writes(log: &AuditLog, since: Mark) -> Result<WriteCount> {
    Ok(log.since(since)?.by_agent(USER_AGENT).writes().without_leases())
}

/// A watch that ended although nobody had stopped it, as the server closes those of a kind that it has just begun
/// to serve.
struct WatchEnd {
    /// Plural name of the kind.
    resource: String,
    /// The list was cut before it was whole, and begins anew. What was whole once goes on where it was.
    cuts_list: bool,
}

/// What the manager's log says of watches that ended.
fn watch_ends(manager: &Manager) -> Result<Vec<WatchEnd>> {
    let log = std::fs::read_to_string(manager.child().log_path())?;
    let mut ends = Vec::new();
    let mut synced = false;
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        synced |= line["message"] == "all stores are synced";
        if line["message"] == "watch ended" {
            let says = |field: &str| line[field].as_str().unwrap_or_default();
            let resource = says("resource").split('.').next().unwrap_or_default().to_owned();
            // What was refused is no list.
            let cuts_list =
                !synced && says("next").starts_with("List") && !says("why").starts_with("answered");
            ends.push(WatchEnd { resource, cuts_list });
        }
    }
    Ok(ends)
}

/// No requests but watches, each begun by one streaming list.
fn only_watches(own: &WriteCount, manager: &Manager) -> Result<()> {
    let ends = watch_ends(manager)?;
    let lists = own.of_verb(Verb::List);
    ensure!(lists.is_empty(), "lists:\n{lists}");
    // While a watch is closed, what was written is confirmed by a read.
    let was_closed = |resource: &str| ends.iter().any(|end| end.resource == resource);
    let gets = own.of_verb(Verb::Get);
    let gets = gets.filter(|request| !request.name.is_empty() && !was_closed(&request.resource));
    ensure!(gets.is_empty(), "gets of objects:\n{gets}");
    // Each watch begins with a streaming list, once. What the server closes (it does so when a CRD becomes
    // established) goes on where it ended, and lists nothing again.
    let mut lists: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    // A server refuses while it prepares a new kind (429).
    let watches = own.of_verb(Verb::Watch).successful();
    for request in watches.requests() {
        ensure!(!request.asks("limit="), "a paged list: {}", request.query);
        let list = request.asks("sendInitialEvents=true");
        let resumes = request.asks("resourceVersion=") && !request.asks("resourceVersion=0");
        ensure!(list || resumes, "{}", request.query);
        // Two objects of a kind may each be watched by name.
        *lists.entry((&request.resource, request.field_selector())).or_default() += usize::from(list);
    }
    ensure!(lists.contains_key(&("pods", "")) && lists.contains_key(&("batchjobs", "")), "{lists:?}");
    let cut = |resource: &str| ends.iter().filter(|end| end.cuts_list && end.resource == resource).count();
    let once = |((resource, _), count): (&(&str, &str), &usize)| (1..=1 + cut(resource)).contains(count);
    ensure!(lists.iter().all(once), "not one list of each kind, those aside that were cut: {lists:?}");
    Ok(())
}

/// The lines of the manager's log on watches that ended.
fn ends_of_watches(manager: &Manager) -> String {
    let log = std::fs::read_to_string(manager.child().log_path()).unwrap_or_default();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("watch ended")).collect();
    format!("the manager's log says:\n{}", lines.join("\n"))
}

/// 500 jobs, as they stand in a cluster on a quiet evening.
async fn mixed(test: &Testbed<'_>) -> Result<()> {
    let long_ttl = |spec| BatchJobSpec { ttl_seconds_after_finished: Some(86_400), ..spec };
    let full = Task { cpu: "1".into(), ..Task::endless().on("full") };
    test.submit("fills", BatchJobSpec::new(full.template())).await?;
    test.running("fills", 1).await?;
    test.submit_many("waits", 150, &BatchJobSpec::new(full.template())).await?;
    let huge = Task { cpu: "64".into(), ..full };
    test.submit_many("never", 20, &BatchJobSpec::new(huge.template())).await?;
    let held = BatchJobSpec { stop_policy: StopPolicy::Hold, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit_many("held", 80, &held).await?;
    test.submit_many("runs", 60, &BatchJobSpec::new(Task::endless().template())).await?;
    let strict = BatchJobSpec {
        tier: Tier::Standard,
        completions: 5,
        parallelism: 2,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::endless().template())
    };
    test.submit_many("wide", 20, &strict).await?;
    test.submit_many("done", 100, &long_ttl(BatchJobSpec::new(Task::quick().template()))).await?;
    let failing = BatchJobSpec { backoff_limit: Some(0), ..BatchJobSpec::new(Task::failing(1).template()) };
    test.submit_many("failed", 69, &long_ttl(failing)).await?;
    for number in 0..150 {
        test.reason(&format!("waits-{number}"), QueuedReason::NoCapacity).await?;
    }
    for number in 0..20 {
        test.reason(&format!("never-{number}"), QueuedReason::NeverFits).await?;
    }
    for number in 0..80 {
        test.reason(&format!("held-{number}"), CompleteReason::Suspended).await?;
    }
    for number in 0..60 {
        test.reason(&format!("runs-{number}"), CompleteReason::Running).await?;
    }
    for number in 0..20 {
        test.running(&format!("wide-{number}"), 2).await?;
    }
    for number in 0..100 {
        test.completed(&format!("done-{number}")).await?;
    }
    for number in 0..69 {
        test.failed(&format!("failed-{number}"), FailedReason::BackoffLimitExceeded).await?;
    }
    assert_eq!(test.listed().await?.len(), 500);
    Ok(())
}

#[tokio::test]
async fn jobs_at_rest_cost_nothing_not_even_a_restart() -> Result<()> {
    // Longer than the 30 s after which a new manager would write that a job waits, were that not known.
    let quiet = Duration::from_secs(if batch::long() { 120 } else { 45 });
    let cluster = batch::cluster().await?;
    let log = cluster.audit_log()?;
    cluster.kwok().context("KWOK")?.add_nodes(&cluster, &pool("full", 1, "1", 10)).await?;
    let first = manager(&cluster, "first").await?;
    let test = Testbed::new(&cluster, "rest").await?;
    mixed(&test).await?;
    let mark = at_rest(&log).await?;
    tokio::time::sleep(quiet).await;
    let written = own_writes(&log, mark)?;
    ensure!(written.is_empty(), "written at rest:\n{written}");
    let read = log.since(mark)?.by_agent(USER_AGENT).of_verb(Verb::Get).filter(|read| !read.name.is_empty());
    ensure!(read.is_empty(), "read at rest:\n{read}");
    only_watches(&log.all()?.by_agent(USER_AGENT).filter(|request| !request.verb.is_write()), &first)
        .with_context(|| ends_of_watches(&first))?;
    first.stop()?;

    let mark = log.mark()?;
    let second = manager(&cluster, "second").await?;
    tokio::time::sleep(quiet).await;
    let written = own_writes(&log, mark)?;
    ensure!(written.is_empty(), "written after a restart:\n{written}");
    only_watches(&log.since(mark)?.by_agent(USER_AGENT), &second)
        .with_context(|| ends_of_watches(&second))?;
    second.stop()?;
    test.verify()
}
