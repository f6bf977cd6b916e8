//! Jobs and pods that take too long.

use anyhow::{Context, Result};
use springtide_crds::batch_job::{AdmittedReason, BatchJobSpec, FailedReason, QueuedReason};
use springtide_e2e::batch::{Task, Testbed, pool, shared};
use springtide_e2e::write_count::Verb;

#[tokio::test]
async fn a_job_that_runs_too_long_fails() -> Result<()> {
    let test = Testbed::new(shared().await?, "active").await?;
    // Time enough for both pods to be made.
    let spec = BatchJobSpec {
        active_deadline_seconds: Some(10),
        completions: 2,
        parallelism: 2,
        ..BatchJobSpec::new(Task::endless().template())
    };
    test.submit("job", spec).await?;
    let status = test.failed("job", FailedReason::DeadlineExceeded).await?.status.context("status")?;
    test.no_pods("job").await?;
    assert_eq!((status.succeeded, status.failed, status.active), (0, 0, 0));
    assert_eq!(test.pods.now().of("job").len(), 2);
    test.verify()
}

#[tokio::test]
async fn a_job_that_waits_too_long_fails_without_a_pod() -> Result<()> {
    let cluster = shared().await?;
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool("one-slot", 1, "1", 10)).await?;
    let test = Testbed::new(cluster, "queue-deadline").await?;
    let task = Task { cpu: "1".into(), ..Task::endless().on("one-slot") };
    test.submit("first", BatchJobSpec::new(task.template())).await?;
    let first = test.running("first", 1).await?;
    let spec = BatchJobSpec { queue_deadline_seconds: Some(2), ..BatchJobSpec::new(task.template()) };
    test.submit("second", spec).await?;
    test.failed("second", FailedReason::QueueDeadlineExceeded).await?;
    assert!(test.pods.now().of("second").is_empty());
    test.end_pod(&first[0], 0).await?;
    test.completed("first").await?;
    test.verify()
}

#[tokio::test]
async fn a_pod_that_nobody_schedules_is_taken_back_and_its_class_waits() -> Result<()> {
    let test = Testbed::new(shared().await?, "pending").await?;
    let template = Task::quick().template_with(|template| {
        template["spec"]["schedulerName"] = "nobody".into();
    });
    let spec = BatchJobSpec {
        pending_deadline_seconds: 5,
        completions: 5,
        parallelism: 5,
        ..BatchJobSpec::new(template)
    };
    test.submit("job", spec).await?;
    test.pods
        .until("pods taken back", |pods| pods.of("job").iter().any(|life| life.gone.is_some()).then_some(()))
        .await?;
    test.reason("job", QueuedReason::ClassBackoff).await?;
    let waiting = test.reason("job", AdmittedReason::PendingDeadline).await?;
    let status = waiting.status.context("status")?;
    assert_eq!((status.succeeded, status.failed), (0, 0), "a pod that never ran is no failure");
    // It is tried again, with as many pods as a first try has.
    test.pods.until("a second try", |pods| (pods.of("job").len() > 5).then_some(())).await?;
    test.delete("job").await?;
    test.no_pods("job").await?;
    let creates = test.requests()?.by_agent("springtide/").of_resource("pods").of_verb(Verb::Create);
    assert!(creates.len() <= 20, "{creates}");
    test.verify()
}
