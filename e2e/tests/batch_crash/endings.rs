//! What stays of a job and its pods after the end.

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use springtide_crds::batch_job::{BatchJobSpec, FailedReason, Release};
use springtide_crds::batch_queue::{Archive, ArchiveType, BatchQueueSpec, Retention};
use springtide_e2e::archive_sink::ArchiveSink;
use springtide_e2e::batch::{Task, Testbed, queues};
use springtide_e2e::oracle::pods::{Life, Pods};

use crate::plays::{QUEUE, at_least_once, queued, quota, strict};
use crate::scenarios::JOB;

/// Each manager writes a line to its standard output before it deletes the job; that of managers in this process is the
/// test's own. What stands in a line is held by the tests of the archive.
pub(crate) async fn archived(test: &Testbed<'_>) -> Result<()> {
    gone_by(test, Archive { type_: ArchiveType::Stdout, ..Archive::default() }).await?;
    Ok(())
}

/// Each manager posts a line before it deletes the job. Whoever finds the job of a line that was taken posts it once more.
pub(crate) async fn posted(test: &Testbed<'_>, sink: Option<&ArchiveSink>) -> Result<()> {
    let sink = sink.context("a sink")?;
    let archive = Archive { type_: ArchiveType::Http, url: Some(sink.url("127.0.0.1", "/")) };
    let uid = gone_by(test, archive).await?;
    ensure!(sink.taken().contains(&uid), "the job went without a line: {:?}", sink.posted());
    Ok(())
}

/// A job that goes soon after its end by way of this archive. Returns its UID.
async fn gone_by(test: &Testbed<'_>, archive: Archive) -> Result<String> {
    let retention = Retention { ttl_seconds_after_finished: 1, archive, ..Retention::default() };
    queues::open(test, QUEUE, BatchQueueSpec { retention, ..quota("1", None) }).await?;
    let quick = BatchJobSpec { template: Task::quick().template(), ..queued(1, 1) };
    let job = test.submit(JOB, at_least_once(quick)).await?;
    test.gone(JOB).await?;
    job.uid().context("a UID")
}

/// Of two pods that fail the first stays for a while and the second until the job goes.
pub(crate) async fn kept(test: &Testbed<'_>) -> Result<()> {
    let spec = strict(&Task::failing(3), 1, 1);
    let release = Release { keep_failed_pods: 1, hold_on_failure_seconds: 2, ..spec.release.clone() };
    test.submit(JOB, BatchJobSpec { release, backoff_limit: Some(1), ..spec }).await?;
    test.failed(JOB, FailedReason::BackoffLimitExceeded).await?;
    // That the other one is still there when all is at rest is a fact of the run.
    let older = |life: &&Life| life.name == "job-0-0" && life.gone.is_some();
    let is_gone = |pods: &Pods| pods.of(JOB).iter().any(older);
    test.pods.until("the end of the older pod", |pods| is_gone(pods).then_some(())).await
}
