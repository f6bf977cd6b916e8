//! What kubectl shows.

use std::time::Duration;

use anyhow::Result;
use springtide_crds::batch_job::{
    BatchJobSpec, CompleteReason, CompletionMode, FailedReason, StopPolicy, SuspendedReason,
};
use springtide_e2e::batch::{self, Task, Testbed, shared};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::oracle::jobs::{Kstatus, kstatus};

/// Bound for the end of a job of many tasks.
const BOUND: Duration = Duration::from_secs(600);

#[tokio::test]
async fn kubectl_wait_get_and_describe_read_well() -> Result<()> {
    let test = Testbed::new(shared().await?, "view").await?;
    let message = Task { message: Some("42 rows written".into()), ..Task::quick() };
    test.submit("good", BatchJobSpec::new(message.template())).await?;
    let many = BatchJobSpec {
        completions: 3,
        parallelism: 3,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(Task::endless().template())
    };
    test.submit("runs", many).await?;
    let killed =
        Task { reason: Some("OOMKilled".into()), message: Some("growing".into()), ..Task::failing(137) };
    test.submit("bad", BatchJobSpec { backoff_limit: Some(0), ..BatchJobSpec::new(killed.template()) })
        .await?;
    test.kubectl(&["wait", "--for=condition=Complete", "bj/good", "--timeout=200s"]).await?;
    test.kubectl(&["wait", "--for=condition=Failed", "batchjob/bad", "--timeout=200s"]).await?;
    let running = test.running("runs", 3).await?;
    test.reason("runs", CompleteReason::Running).await?;
    test.job("runs", "three are active", |job| job.status.as_ref().is_some_and(|status| status.active == 3))
        .await?;

    let table = test.kubectl(&["get", "bj"]).await?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let header = ["NAME", "COMPLETE", "QUEUE", "TIER", "SUCCEEDED", "COMPLETIONS", "ACTIVE", "FAILED", "AGE"];
    assert_eq!(rows[0], header, "{table}");
    let row = |name: &str| rows.iter().find(|row| row[0] == name).map(|row| row[..7].to_vec());
    assert_eq!(
        row("good").as_deref(),
        Some(&["good", "Completed", "BestEffort", "1", "1", "0", "0"][..]),
        "{table}"
    );
    assert_eq!(
        row("runs").as_deref(),
        Some(&["runs", "Running", "BestEffort", "0", "3", "3", "0"][..]),
        "{table}"
    );
    let failed = ["bad", "BackoffLimitExceeded", "BestEffort", "0", "1", "0", "1"];
    assert_eq!(row("bad").as_deref(), Some(&failed[..]), "{table}");
    assert!(test.kubectl(&["get", "springtide"]).await?.contains("good"), "the category lists them");

    // An event goes out behind the status that it tells of.
    test.kubectl(&[
        "wait",
        "--for=jsonpath={.reason}=BackoffLimitExceeded",
        "events",
        "--field-selector",
        "reason=BackoffLimitExceeded",
        "--timeout=100s",
    ])
    .await?;
    let text = test.kubectl(&["describe", "bj", "bad"]).await?;
    let events = text.split("Events:").nth(1).unwrap_or_default();
    assert!(events.contains("Warning") && events.contains("BackoffLimitExceeded"), "{text}");
    for part in ["BackoffLimitExceeded", "Exit Code", "137", "OOMKilled", "growing", "Stalled"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let text = test.kubectl(&["describe", "bj", "good"]).await?;
    for part in ["42 rows written", "Completed", "Succeeded:", "Completion Time", "<none>"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let good = test.completed("good").await?;
    assert_eq!(kstatus(&good), Kstatus::Current);
    let bad = test.failed("bad", FailedReason::BackoffLimitExceeded).await?;
    assert_eq!(kstatus(&bad), Kstatus::Failed);
    let runs = test.job("runs", "it is there", |_| true).await?;
    assert_eq!(kstatus(&runs), Kstatus::InProgress);
    for life in running {
        test.end_pod(&life, 0).await?;
    }
    test.kubectl(&["wait", "--for=condition=Complete", "bj", "runs", "--timeout=200s"]).await?;
    test.verify()
}

/// Of the writes of a job at most this share may be events (one in so many).
const WRITES_PER_EVENT: usize = 20;

#[tokio::test]
async fn a_job_of_many_failing_pods_is_told_of_in_few_events() -> Result<()> {
    let test = Testbed::new(shared().await?, "events").await?;
    let tasks = if batch::long() { 1000 } else { 100 };
    let spec = BatchJobSpec {
        completions: tasks,
        parallelism: tasks.min(100),
        completion_mode: CompletionMode::Indexed,
        backoff_limit_per_index: Some(0),
        ..BatchJobSpec::new(Task::failing(1).template())
    };
    test.submit("many", spec).await?;
    test.jobs.until_within(BOUND, "the end of the job", |seen| (seen.finished() == 1).then_some(())).await?;
    test.failed("many", FailedReason::FailedIndexes).await?;
    let held = BatchJobSpec { stop_policy: StopPolicy::Hold, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit("held", held).await?;
    test.reason("held", SuspendedReason::UserHold).await?;
    for reason in ["FailedIndexes", "UserHold"] {
        let wanted = format!("--for=jsonpath={{.reason}}={reason}");
        let field = format!("reason={reason}");
        test.kubectl(&["wait", &wanted, "events", "--field-selector", &field, "--timeout=100s"]).await?;
    }
    let own = test.requests()?.by_agent(USER_AGENT).writes();
    let events = own.of_resource("events");
    assert_eq!(events.successful().len(), 2, "one for each turn:\n{own}");
    assert!(events.len() * WRITES_PER_EVENT <= own.len(), "{own}");
    test.verify()
}

#[tokio::test]
async fn kubectl_explains_every_field_it_shows() -> Result<()> {
    let test = Testbed::new(shared().await?, "explain").await?;
    let text = test.kubectl(&["explain", "bj.spec"]).await?;
    for part in
        ["completions", "How many tasks must succeed", "stopPolicy", "ttlSecondsAfterFinished", "template"]
    {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let text = test.kubectl(&["explain", "bj.status.result.message"]).await?;
    assert!(text.contains("termination message"), "{text}");
    let text = test.kubectl(&["explain", "bj"]).await?;
    assert!(text.contains("Runs finite tasks"), "{text}");
    test.verify()
}
