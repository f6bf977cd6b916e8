//! Finished jobs are written down before they are deleted, seen by the sinks that take the lines. All tests share
//! one cluster and one manager, which may post to 127.0.0.1 and to nothing else that is internal; each has a namespace.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJobSpec, CompleteReason, FailedReason};
use springtide_crds::batch_queue::{
    Archive, ArchiveFailingReason, ArchiveType, BatchQueue, BatchQueueSpec, Retention,
};
use springtide_crds::reason::Reason;
use springtide_e2e::archive_sink::{Answer, ArchiveSink, manager_configuration};
use springtide_e2e::batch::queues::open;
use springtide_e2e::batch::{Task, Testbed, cluster};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::jobs;
use tokio::sync::OnceCell;

static SHARED: OnceCell<(LocalCluster, Manager)> = OnceCell::const_new();

async fn shared() -> Result<&'static (LocalCluster, Manager)> {
    SHARED
        .get_or_try_init(async || {
            let cluster = cluster().await?;
            let config = cluster.folder().join("archive.yaml");
            std::fs::write(&config, manager_configuration(cluster.pki()).to_string())?;
            let args = ["--config", config.to_str().context("a path in UTF-8")?];
            let mut manager = Manager::start(&cluster, "manager", &args).await?;
            manager.wait_ready().await?;
            Ok((cluster, manager))
        })
        .await
}

fn http(url: String) -> Archive {
    Archive { type_: ArchiveType::Http, url: Some(url) }
}

async fn create(test: &Testbed<'_>, ttl: u32, history_limit: u32, archive: Archive) -> Result<()> {
    let retention = Retention { ttl_seconds_after_finished: ttl, history_limit, archive };
    open(test, "default", BatchQueueSpec { retention, ..BatchQueueSpec::new() }).await
}

/// Submits jobs that succeed at once, one after the other, and gives their UIDs by name.
async fn run(test: &Testbed<'_>, prefix: &str, count: usize) -> Result<BTreeMap<String, String>> {
    let mut uids = BTreeMap::new();
    for number in 0..count {
        let name = format!("{prefix}-{number}");
        let job = test.submit(&name, BatchJobSpec::new(Task::quick().template())).await?;
        uids.insert(name, job.uid().context("a uid")?);
    }
    // The first of them may be gone by now.
    for name in uids.keys() {
        let job = test.ended(name).await?;
        ensure!(jobs::has(&job, &CompleteReason::Completed), "{name} failed: {:?}", job.status);
    }
    Ok(uids)
}

/// Waits until the queue says this of its archive as the spec has it now.
async fn archive_is(test: &Testbed<'_>, reason: ArchiveFailingReason) -> Result<String> {
    let find = |queue: Option<&BatchQueue>| {
        let mut conditions = queue?.status.as_ref()?.conditions.iter();
        let generation = queue?.metadata.generation;
        let found = conditions.find(|condition| condition.is(reason))?;
        (Some(found.observed_generation) == generation).then(|| found.message.clone())
    };
    let waited = await_condition(test.api::<BatchQueue>(), "default", |queue: Option<&BatchQueue>| {
        find(queue).is_some()
    });
    let queue = tokio::time::timeout(PATIENCE, waited).await.with_context(|| reason.as_str())??;
    find(queue.as_ref()).context("the condition")
}

/// The lines that the manager has written to its standard output, of jobs of this namespace. Its log is in the
/// same file, as both streams lead there.
fn written(cluster: &LocalCluster, namespace: &str) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(cluster.folder().join("manager.log"))?;
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| line.starts_with(r#"{"archive":"#)) {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if line["namespace"] == namespace {
            lines.push(line);
        }
    }
    Ok(lines)
}

#[tokio::test]
async fn on_the_standard_output_each_finished_job_has_one_whole_line() -> Result<()> {
    let (cluster, _) = shared().await?;
    let test = Testbed::new(cluster, "stdout").await?;
    create(&test, 1, 400, Archive { type_: ArchiveType::Stdout, url: None }).await?;
    let mut uids = run(&test, "job", 20).await?;
    let failing = BatchJobSpec {
        backoff_limit: Some(0),
        ..BatchJobSpec::new(Task { message: Some("no such customer".into()), ..Task::failing(3) }.template())
    };
    let failed = test.submit("failed", failing).await?;
    let ended = test.ended("failed").await?;
    ensure!(jobs::has(&ended, &FailedReason::BackoffLimitExceeded), "{:?}", ended.status);
    uids.insert("failed".to_owned(), failed.uid().context("a uid")?);
    for name in uids.keys() {
        test.gone(name).await?;
    }
    let lines = written(cluster, &test.namespace)?;
    let found: BTreeMap<String, String> = lines
        .iter()
        .map(|line| (line["name"].as_str().unwrap().to_owned(), line["uid"].as_str().unwrap().to_owned()))
        .collect();
    ensure!(found == uids && lines.len() == uids.len(), "{lines:?}");
    for line in &lines {
        ensure!(line["archive"] == "springtide.dev/batchjob/v1" && line["queue"] == "default", "{line}");
        let outcome = if line["name"] == "failed" { "Failed" } else { "Complete" };
        ensure!(line["outcome"] == outcome, "{line}");
    }
    let line = lines.iter().find(|line| line["name"] == "failed").context("its line")?;
    ensure!(line["reason"] == "BackoffLimitExceeded" && line["status"]["result"]["exitCode"] == 3, "{line}");
    ensure!(line["status"]["result"]["message"] == "no such customer", "{line}");
    archive_is(&test, ArchiveFailingReason::Delivering).await?;
    test.verify()
}

#[tokio::test]
async fn a_job_is_deleted_only_after_2xx_and_an_outage_loses_nothing_below_the_bound() -> Result<()> {
    let (cluster, manager) = shared().await?;
    let test = Testbed::new(cluster, "http").await?;
    let sink = ArchiveSink::start(cluster.pki(), Answer::Status(204)).await?;
    create(&test, 1, 50, http(sink.url("127.0.0.1", "/batch?cluster=a"))).await?;
    let before = run(&test, "before", 3).await?;
    for name in before.keys() {
        test.gone(name).await?;
    }
    let posted = sink.posted();
    ensure!(posted.len() == 3, "{posted:?}");
    for line in &posted {
        ensure!(line.path == "/batch?cluster=a" && line.content_type == "application/json", "{line:?}");
        ensure!(line.line["uid"] == line.key && line.line["namespace"] == test.namespace, "{line:?}");
        ensure!(before.values().any(|uid| *uid == line.key), "{line:?}");
    }
    // The sink is down, in three ways one after the other.
    sink.answer(Answer::Status(500));
    let mut uids = run(&test, "error", 4).await?;
    sink.until("an error", |posted| {
        posted.iter().any(|line| line.answer == Answer::Status(500)).then_some(())
    })
    .await?;
    let message = archive_is(&test, ArchiveFailingReason::NotTaken).await?;
    ensure!(
        message.contains("127.0.0.1") && message.contains("500") && !message.contains("/batch"),
        "{message}"
    );
    let elsewhere = ArchiveSink::start(cluster.pki(), Answer::Status(204)).await?;
    sink.answer(Answer::Redirect(elsewhere.url("127.0.0.1", "/")));
    uids.extend(run(&test, "redirect", 4).await?);
    sink.until("a redirect", |posted| {
        posted.iter().any(|line| matches!(line.answer, Answer::Redirect(_))).then_some(())
    })
    .await?;
    sink.answer(Answer::Silence);
    uids.extend(run(&test, "silence", 4).await?);
    sink.until("silence", |posted| posted.iter().any(|line| line.answer == Answer::Silence).then_some(()))
        .await?;
    let listed = test.listed().await?;
    ensure!(uids.keys().all(|name| listed.contains(name)), "deleted without a line: {listed:?}");
    ensure!(elsewhere.connections() == 0, "a redirect was followed");
    let events = test.api::<Event>().list(&ListParams::default()).await?;
    let told = |event: &Event| event.reason.as_deref() == Some(ArchiveFailingReason::NotTaken.as_str());
    ensure!(events.items.iter().any(told), "{:?}", events.items);

    sink.answer(Answer::Status(200));
    for name in uids.keys() {
        test.gone(name).await?;
    }
    let taken: BTreeSet<String> = sink.taken().into_iter().collect();
    let wanted: BTreeSet<String> = uids.values().chain(before.values()).cloned().collect();
    ensure!(taken == wanted, "{taken:?}\n{wanted:?}");
    ensure!(sink.taken().len() == wanted.len(), "a line that was taken went out again: {:?}", sink.taken());
    archive_is(&test, ArchiveFailingReason::Delivering).await?;
    let metrics = manager.metrics().await?;
    ensure!(metrics.contains("springtide_batch_archive_failures_total{sink=\"http\"}"), "{metrics}");
    test.verify()
}

#[tokio::test]
async fn in_an_outage_a_queue_keeps_twice_its_history_and_counts_what_goes_beyond() -> Result<()> {
    let (cluster, manager) = shared().await?;
    let test = Testbed::new(cluster, "bound").await?;
    let sink = ArchiveSink::start(cluster.pki(), Answer::Status(503)).await?;
    create(&test, 3600, 3, http(sink.url("localhost", "/"))).await?;
    // One after the other, so that their order is certain.
    let mut uids = Vec::new();
    for number in 0..10 {
        let name = format!("job-{number}");
        let job = test.submit(&name, BatchJobSpec::new(Task::quick().template())).await?;
        uids.push(job.uid().context("a uid")?);
        test.completed(&name).await?;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    archive_is(&test, ArchiveFailingReason::Dropping).await?;
    for number in 0..4 {
        test.gone(&format!("job-{number}")).await?;
    }
    let left: BTreeSet<String> = test.listed().await?.into_iter().collect();
    ensure!(left == (4..10).map(|number| format!("job-{number}")).collect(), "{left:?}");
    ensure!(sink.taken().is_empty());
    // No other test drops any.
    let metrics = manager.metrics().await?;
    ensure!(metrics.contains("springtide_batch_archive_dropped_total 4\n"), "{metrics}");

    sink.answer(Answer::Status(201));
    for number in 4..7 {
        test.gone(&format!("job-{number}")).await?;
    }
    let taken = sink.taken();
    ensure!(taken.first() == uids.get(4), "the oldest first: {taken:?}");
    ensure!(taken.iter().collect::<BTreeSet<_>>() == uids[4..7].iter().collect(), "{taken:?}");
    archive_is(&test, ArchiveFailingReason::Delivering).await?;
    let left: BTreeSet<String> = test.listed().await?.into_iter().collect();
    ensure!(left == (7..10).map(|number| format!("job-{number}")).collect(), "{left:?}");
    test.verify()
}

#[tokio::test]
async fn no_internal_address_is_posted_to_unless_it_is_allowed() -> Result<()> {
    let (cluster, _) = shared().await?;
    let test = Testbed::new(cluster, "inside").await?;
    let sink = ArchiveSink::start(cluster.pki(), Answer::Status(200)).await?;
    create(&test, 1, 50, http(sink.url("127.0.0.2", "/"))).await?;
    let uids = run(&test, "job", 2).await?;
    let message = archive_is(&test, ArchiveFailingReason::AddressRefused).await?;
    ensure!(message.contains("loopback") && message.contains("archive.allowedCidrs"), "{message}");
    ensure!(sink.connections() == 0, "it was connected to");
    // The mapped form is no way around, and what is allowed is reached: what waited goes there.
    let edit = async |url: String| {
        let change = json!({"spec": {"retention": {"archive": {"url": url}}}});
        test.api::<BatchQueue>().patch("default", &PatchParams::default(), &Patch::Merge(change)).await
    };
    edit(sink.url("[::ffff:127.0.0.2]", "/")).await?;
    archive_is(&test, ArchiveFailingReason::AddressRefused).await?;
    for refused in ["http://127.0.0.1/", "https://user:word@127.0.0.1/", "https://127.0.0.1/#a", "ftp://a"] {
        ensure!(edit(refused.to_owned()).await.is_err(), "{refused} is taken");
    }
    ensure!(sink.connections() == 0, "it was connected to");
    edit(sink.url("localhost", "/")).await?;
    for name in uids.keys() {
        test.gone(name).await?;
    }
    ensure!(sink.taken().into_iter().collect::<BTreeSet<_>>() == uids.values().cloned().collect());
    test.verify()
}
