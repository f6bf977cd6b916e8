//! Outcomes of containers that really run stand in the status after their pods are gone.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, CompleteReason, CompletionMode, FailedReason, OnOom, PodTemplate, Retry,
    TaskResult,
};
use springtide_crds::samples;
use springtide_e2e::batch::Testbed;
use springtide_e2e::manager::Manager;
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::write_count::Verb;
use tokio::time::Instant;

fn task(args: &[&str], memory: &str) -> PodTemplate {
    let template = json!({"spec": {"containers": [{
        "name": "main",
        "image": BOX_IMAGE,
        "args": args,
        "resources": {"requests": {"cpu": "10m", "memory": memory}, "limits": {"memory": memory}},
    }]}});
    match template {
        Value::Object(fields) => PodTemplate(fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            PodTemplate::default()
        }
    }
}

fn once(args: &[&str], memory: &str) -> BatchJobSpec {
    BatchJobSpec { backoff_limit: Some(0), ..BatchJobSpec::new(task(args, memory)) }
}

fn assert_result(result: &TaskResult, code: i32, reason: &str, message: &str) {
    assert_eq!((result.exit_code, result.reason.as_str()), (code, reason), "{result:?}");
    assert_eq!(result.message, message);
    assert_eq!(result.signal, if code == 137 { 9 } else { 0 });
    assert!(!result.node.is_empty() && result.finish_time.is_some(), "{result:?}");
}

#[tokio::test]
async fn outcomes_outlive_their_pods() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let cluster = NodeCluster::builder().start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let mut manager = Manager::start(plane, "manager", &[]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(plane, "outcomes").await?;

    test.submit("good", once(&["exit", "0", "all done"], "32Mi")).await?;
    test.submit("bad", once(&["exit", "42", "disk is full"], "32Mi")).await?;
    // 32Mi, then 64Mi, then 128Mi: enough.
    let on_oom = Some(OnOom { memory_percent: 200, ..OnOom::default() });
    let grows = BatchJobSpec {
        backoff_limit: Some(2),
        retry: Retry { initial_backoff_seconds: 0, on_oom, ..Retry::default() },
        ..once(&["alloc", "96Mi", "enough"], "32Mi")
    };
    test.submit("grows", grows).await?;
    test.submit("hungry", once(&["alloc", "256Mi", "growing"], "32Mi")).await?;
    let indexed = BatchJobSpec {
        completions: 6,
        parallelism: 3,
        completion_mode: CompletionMode::Indexed,
        ..once(&["sleep", "0.5"], "16Mi")
    };
    test.submit("indexed", indexed).await?;
    test.submit("drained", once(&["sleep", "100000", "started"], "16Mi")).await?;

    let names = ["good", "bad", "hungry", "indexed"];
    test.completed("good").await?;
    test.completed("indexed").await?;
    let grown = test.completed("grows").await?.status.context("status")?;
    assert_eq!((grown.succeeded, grown.failed), (1, 2), "{:?}", grown.exit_codes);
    test.no_pods("grows").await?;
    for name in ["bad", "hungry"] {
        test.failed(name, FailedReason::BackoffLimitExceeded).await?;
    }
    for name in names {
        test.no_pods(name).await?;
    }
    test.running("drained", 1).await?;
    test.edit("drained", json!({"spec": {"stopPolicy": "Drain", "interruption": {"graceSeconds": 1}}}))
        .await?;
    test.no_pods("drained").await?;
    test.reason("drained", CompleteReason::Suspended).await?;
    test.delete("drained").await?;
    test.gone("drained").await?;
    // Read back only now: the pods are gone, and their containers too.
    let deadline = Instant::now() + PATIENCE;
    while !cluster.containers(&test.namespace)?.is_empty() {
        ensure!(Instant::now() < deadline, "containers stay: {:?}", cluster.containers(&test.namespace)?);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (name, code, reason, message) in [
        ("good", 0, "Completed", "all done"),
        ("bad", 42, "Error", "disk is full"),
        ("hungry", 137, "OOMKilled", "growing"),
    ] {
        let job = test.api::<BatchJob>().get(name).await?;
        let status = job.status.context("status")?;
        assert_result(&status.result.context("result")?, code, reason, message);
        assert_eq!(status.exit_codes.len(), 1);
        assert_eq!((status.exit_codes[0].code, status.exit_codes[0].count), (code, 1));
    }
    test.pods.now().exactly_one_run("indexed", 6)?;
    manager.stop()?;
    test.verify()?;
    drop(test);
    cluster.stop()
}

/// Each pod of a job was there for as long as the job says, though its task ended sooner: by the API server's own times. What
/// it stamps an object with is the second in which it got the create, or a later one.
async fn stay_for_log_agents(test: &Testbed<'_>, job: &str) -> Result<()> {
    let spec = test.api::<BatchJob>().get(job).await?.spec;
    let least = SignedDuration::from_secs(spec.release.min_pod_age_seconds.into());
    ensure!(!least.is_zero(), "nothing is asked for");
    let writes = test.requests()?.writes().successful().of_resource("pods");
    let times = |verb: Verb| -> BTreeMap<String, Timestamp> {
        let of_verb = writes.of_verb(verb).filter(|write| write.resource == "pods");
        // The first of each.
        of_verb
            .requests()
            .iter()
            .rev()
            .filter_map(|write| Some((write.name.clone(), write.received?)))
            .collect()
    };
    let (made, deleted) = (times(Verb::Create), times(Verb::Delete));
    let names: Vec<String> = test.pods.now().of(job).into_iter().map(|life| life.name.clone()).collect();
    ensure!(names.len() == spec.completions as usize, "{names:?}");
    for name in names {
        let made = Timestamp::from_second(made.get(&name).context("no create")?.as_second())?;
        let age = deleted.get(&name).context("no delete")?.duration_since(made);
        ensure!(age >= least, "pod {name} went after {age:#}, before it was {least:#} old");
    }
    Ok(())
}

#[tokio::test]
async fn the_samples_end_as_they_say() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let cluster = NodeCluster::builder().start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let mut manager = Manager::start(plane, "manager", &[]).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(plane, "samples").await?;
    // The other one waits for somebody, in a queue beside which none of these would start.
    let all = || samples::batch_jobs().into_iter().filter(|sample| sample.file.starts_with("batchjob-"));
    for sample in all() {
        let mut object = sample.object;
        object["metadata"]["namespace"] = test.namespace.clone().into();
        plane.apply(&object.to_string()).await.context(sample.file)?;
    }
    for (name, succeeded) in [
        ("hello", 1),
        ("indexed", 12),
        ("more-than-fits", 16),
        ("gang", 3),
        ("recurring", 1),
        ("deadlines", 1),
        ("release", 2),
    ] {
        let status = test.completed(name).await?.status.context("status")?;
        assert_eq!((status.succeeded, status.failed), (succeeded, 0), "{name}");
        test.pods.now().exactly_one_run(name, succeeded)?;
    }
    test.failed("failure-policy", FailedReason::PodFailurePolicy).await?;
    assert_eq!(test.pods.now().of("failure-policy").len(), 1);
    let killed = test.failed("out-of-memory", FailedReason::BackoffLimitExceeded).await?;
    let status = killed.status.context("status")?;
    assert_eq!(status.failed, 2);
    let result = status.result.context("result")?;
    assert_eq!((result.exit_code, result.reason.as_str()), (137, "OOMKilled"));
    let by_number = test.failed("per-index", FailedReason::FailedIndexes).await?;
    let status = by_number.status.context("status")?;
    assert_eq!((status.succeeded, status.failed), (1, 5));
    assert_eq!(status.indexes.context("indexes")?.failed, "1-3");
    let enough = test.reason("success-policy", CompleteReason::SuccessPolicyMet).await?;
    let status = enough.status.context("status")?;
    assert!((4..=5).contains(&status.succeeded) && status.failed == 0, "{status:?}");
    {
        let pods = test.pods.now();
        assert!(pods.of("success-policy").len() <= 5, "what is not needed starts");
        // What is not needed any more may go before it has a node.
        let homeless = pods.all().find(|life| life.node.is_none() && life.job != "success-policy");
        assert!(homeless.is_none(), "a pod was created that did not fit: {homeless:?}");
    }
    for sample in all() {
        let name = sample.object["metadata"]["name"].as_str().context("a sample has a name")?;
        test.no_pods(name).await?;
    }
    stay_for_log_agents(&test, "release").await?;
    manager.stop()?;
    test.verify()?;
    drop(test);
    cluster.stop()
}
