//! What kubectl shows.

use anyhow::Result;
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode, FailedReason};
use springtide_e2e::batch::{Task, Testbed, shared};
use springtide_e2e::oracle::jobs::{Kstatus, kstatus};

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
    test.job("runs", "three are active", |job| job.status.as_ref().is_some_and(|status| status.active == 3))
        .await?;

    let table = test.kubectl(&["get", "bj"]).await?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    let header = ["NAME", "COMPLETE", "TIER", "SUCCEEDED", "COMPLETIONS", "ACTIVE", "FAILED", "AGE"];
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

    let text = test.kubectl(&["describe", "bj", "bad"]).await?;
    for part in ["BackoffLimitExceeded", "Exit Code", "137", "OOMKilled", "growing", "Stalled"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let text = test.kubectl(&["describe", "bj", "good"]).await?;
    for part in ["42 rows written", "Completed", "Succeeded:", "Completion Time"] {
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
