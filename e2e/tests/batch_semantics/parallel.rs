//! Many tasks in one job: indexed or alike, more or fewer at a time.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode};
use springtide_e2e::batch::{Task, Testbed, shared};

fn indexed(completions: u32, parallelism: u32, task: &Task) -> BatchJobSpec {
    BatchJobSpec {
        completions,
        parallelism,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(task.template())
    }
}

#[tokio::test]
async fn each_index_runs_once_and_never_too_many_at_a_time() -> Result<()> {
    let test = Testbed::new(shared().await?, "indexed").await?;
    test.submit("job", indexed(25, 4, &Task::quick())).await?;
    let job = test.completed("job").await?;
    test.no_pods("job").await?;
    {
        let pods = test.pods.now();
        pods.exactly_one_run("job", 25)?;
        assert!((1..=4).contains(&pods.most_active("job")), "{} at a time", pods.most_active("job"));
    }
    let status = job.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.active), (25, 0, 0));
    let indexes = status.indexes.context("indexes")?;
    assert_eq!((indexes.closed_below, indexes.closed_bitmap.as_str()), (25, ""));
    assert_eq!(status.exit_codes.len(), 1);
    assert_eq!((status.exit_codes[0].code, status.exit_codes[0].count), (0, 25));
    test.verify()
}

#[tokio::test]
async fn a_task_finds_its_index_in_its_environment_and_its_hostname() -> Result<()> {
    let test = Testbed::new(shared().await?, "index").await?;
    test.submit("job", indexed(3, 3, &Task::endless())).await?;
    let running = test.running("job", 3).await?;
    for (index, life) in running.iter().enumerate() {
        assert_eq!(life.name, format!("job-{index}-0"));
        let pod = test.api::<Pod>().get(&life.name).await?;
        let labels = pod.metadata.labels.unwrap_or_default();
        assert_eq!(labels.get("springtide.dev/job").map(String::as_str), Some("job"));
        let spec = pod.spec.context("spec")?;
        assert_eq!(spec.hostname, Some(format!("job-{index}")));
        let env = spec.containers[0].env.clone().unwrap_or_default();
        let found = env.iter().find(|variable| variable.name == "JOB_COMPLETION_INDEX").context("env")?;
        let from = found.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        // Either the number itself or the downward API's way to it.
        match from {
            None => assert_eq!(found.value, Some(index.to_string())),
            Some(field) => assert!(field.field_path.contains("index"), "{field:?}"),
        }
        test.end_pod(life, 0).await?;
    }
    test.completed("job").await?;
    test.verify()
}

#[tokio::test]
async fn tasks_that_are_alike_need_no_index() -> Result<()> {
    let test = Testbed::new(shared().await?, "alike").await?;
    let spec = BatchJobSpec { completions: 7, parallelism: 3, ..BatchJobSpec::new(Task::quick().template()) };
    test.submit("job", spec).await?;
    let job = test.completed("job").await?;
    test.no_pods("job").await?;
    test.pods.now().exactly_one_run("job", 7)?;
    assert!(test.pods.now().most_active("job") <= 3);
    assert_eq!(job.status.context("status")?.succeeded, 7);
    test.verify()
}

#[tokio::test]
async fn parallelism_follows_an_edit_up_and_down() -> Result<()> {
    let test = Testbed::new(shared().await?, "parallelism").await?;
    test.submit("job", indexed(10, 2, &Task::endless())).await?;
    test.running("job", 2).await?;
    test.edit("job", json!({"spec": {"parallelism": 5}})).await?;
    test.running("job", 5).await?;
    test.edit("job", json!({"spec": {"parallelism": 1}})).await?;
    let left = test.running("job", 1).await?;
    // Who has run longest stays.
    assert_eq!(left[0].index, 0, "{left:?}");
    test.edit("job", json!({"spec": {"parallelism": 10}})).await?;
    for life in test.running("job", 10).await? {
        test.end_pod(&life, 0).await?;
    }
    let status = test.completed("job").await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed), (10, 0), "a shrink is no failure");
    assert!(status.disrupted >= 4, "four pods were taken back: {}", status.disrupted);
    test.no_pods("job").await?;
    test.verify()
}

#[tokio::test]
async fn fewer_are_left_than_may_run() -> Result<()> {
    let test = Testbed::new(shared().await?, "tail").await?;
    test.submit("job", indexed(5, 3, &Task::endless())).await?;
    for life in test.running("job", 3).await? {
        test.end_pod(&life, 0).await?;
    }
    // Not just any two: of the first three some may look alive for a moment more.
    let last = test
        .pods
        .until("indexes 3 and 4 run alone", |pods| {
            let running: Vec<_> =
                pods.of("job").into_iter().filter(|life| life.is_running()).cloned().collect();
            let indexes: std::collections::BTreeSet<u32> = running.iter().map(|life| life.index).collect();
            (indexes == [3, 4].into()).then_some(running)
        })
        .await?;
    for life in last {
        test.end_pod(&life, 0).await?;
    }
    test.completed("job").await?;
    test.pods.now().exactly_one_run("job", 5)?;
    test.verify()
}
