//! Tasks that fail: limits, policies, disruptions.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use springtide_crds::batch_job::{
    BatchJobSpec, BatchJobStatus, CompleteReason, CompletionMode, ExitCodeOperator, FailedReason,
    NodeAvoidance, OnExitCodes, OnOom, PodConditionPattern, PodFailureAction, PodFailurePolicy,
    PodFailureRule, Retry, SuccessPolicy, SuccessRule,
};
use springtide_crds::common::ConditionStatus;
use springtide_e2e::batch::{Task, Testbed, shared};
use springtide_e2e::oracle::jobs;
use springtide_e2e::oracle::pods::Life;

/// Retries at once: pauses are not what these tests are about.
fn at_once() -> Retry {
    Retry { initial_backoff_seconds: 0, max_backoff_seconds: 0, ..Retry::default() }
}

fn single(task: &Task) -> BatchJobSpec {
    BatchJobSpec { retry: at_once(), ..BatchJobSpec::new(task.template()) }
}

fn indexed(completions: u32, task: &Task) -> BatchJobSpec {
    BatchJobSpec {
        completions,
        parallelism: completions,
        completion_mode: CompletionMode::Indexed,
        backoff_limit_per_index: Some(1),
        ..single(task)
    }
}

fn on_codes(action: PodFailureAction, values: &[i32]) -> PodFailureRule {
    let codes = OnExitCodes { container_name: None, operator: ExitCodeOperator::In, values: values.to_vec() };
    PodFailureRule { action, on_exit_codes: Some(codes), on_pod_conditions: Vec::new() }
}

fn on_condition(action: PodFailureAction, type_: &str) -> PodFailureRule {
    let pattern = PodConditionPattern { type_: type_.to_owned(), status: ConditionStatus::True };
    PodFailureRule { action, on_exit_codes: None, on_pod_conditions: vec![pattern] }
}

fn policy(rules: Vec<PodFailureRule>) -> Option<PodFailurePolicy> {
    Some(PodFailurePolicy { rules })
}

async fn attempts(test: &Testbed<'_>, job: &str) -> Vec<(u32, u32)> {
    let pods = test.pods.now();
    pods.of(job)
        .into_iter()
        .filter(|life| life.ran.is_some())
        .map(|life| (life.index, life.attempt))
        .collect()
}

fn codes(status: &BatchJobStatus) -> Vec<(i32, &str, u32)> {
    status.exit_codes.iter().map(|row| (row.code, row.reason.as_str(), row.count)).collect()
}

#[tokio::test]
async fn the_backoff_limit_counts_failed_pods() -> Result<()> {
    let test = Testbed::new(shared().await?, "backoff").await?;
    let task = Task { message: Some("disk is full".into()), ..Task::failing(3) };
    test.submit("job", BatchJobSpec { backoff_limit: Some(2), ..single(&task) }).await?;
    let status = test.failed("job", FailedReason::BackoffLimitExceeded).await?.status.context("status")?;
    test.no_pods("job").await?;
    assert_eq!(attempts(&test, "job").await, [(0, 0), (0, 1), (0, 2)]);
    assert_eq!((status.succeeded, status.failed, status.active), (0, 3, 0));
    assert_eq!(codes(&status), [(3, "Error", 3)]);
    let result = status.result.context("result")?;
    assert_eq!((result.exit_code, result.reason.as_str()), (3, "Error"));
    assert_eq!(result.message, "disk is full");
    assert!(!result.node.is_empty() && result.finish_time.is_some(), "{result:?}");
    assert_eq!(status.last_failures.iter().map(|row| row.attempt).collect::<Vec<_>>(), [0, 1, 2]);
    test.verify()
}

#[tokio::test]
async fn a_task_may_fail_and_then_succeed() -> Result<()> {
    let test = Testbed::new(shared().await?, "retry").await?;
    test.submit("job", single(&Task::endless())).await?;
    test.end_pod(&test.running_pod("job-0-0").await?, 1).await?;
    test.end_pod(&test.running_pod("job-0-1").await?, 0).await?;
    let status = test.completed("job").await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed), (1, 1));
    assert_eq!(codes(&status), [(1, "Error", 1), (0, "Completed", 1)]);
    assert_eq!(status.result.context("result")?.exit_code, 0);
    test.no_pods("job").await?;
    test.verify()
}

#[tokio::test]
async fn one_index_fails_for_good_and_the_others_go_on() -> Result<()> {
    let test = Testbed::new(shared().await?, "per-index").await?;
    test.submit("job", indexed(4, &Task::endless())).await?;
    let first = test.running("job", 4).await?;
    test.end_pod(&first[1], 1).await?;
    test.end_pod(&test.running_pod("job-1-1").await?, 1).await?;
    let status =
        test.job("job", "index 1 failed", |job| job.status.as_ref().is_some_and(|status| status.failed == 2));
    let status = status.await?.status.context("status")?;
    assert_eq!(status.indexes.context("indexes")?.failed, "1");
    for index in [0, 2, 3] {
        test.end_pod(&first[index], 0).await?;
    }
    let status = test.failed("job", FailedReason::FailedIndexes).await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed), (3, 2));
    assert_eq!(status.indexes.context("indexes")?.failed, "1");
    test.no_pods("job").await?;
    test.verify()
}

#[tokio::test]
async fn too_many_failed_indexes_end_the_job() -> Result<()> {
    let test = Testbed::new(shared().await?, "max-failed").await?;
    let spec = BatchJobSpec {
        backoff_limit_per_index: Some(0),
        max_failed_indexes: Some(1),
        ..indexed(4, &Task::endless())
    };
    test.submit("job", spec).await?;
    let first = test.running("job", 4).await?;
    test.end_pod(&first[0], 1).await?;
    test.end_pod(&first[3], 1).await?;
    let job = test.failed("job", FailedReason::MaxFailedIndexesExceeded).await?;
    test.no_pods("job").await?;
    let status = job.status.context("status")?;
    assert_eq!((status.succeeded, status.active), (0, 0));
    assert_eq!(status.indexes.context("indexes")?.failed, "0,3");
    test.verify()
}

#[tokio::test]
async fn the_policy_gives_up_an_index_without_a_retry() -> Result<()> {
    let test = Testbed::new(shared().await?, "fail-index").await?;
    let spec = BatchJobSpec {
        backoff_limit_per_index: Some(6),
        pod_failure_policy: policy(vec![on_codes(PodFailureAction::FailIndex, &[9])]),
        ..indexed(2, &Task::endless())
    };
    test.submit("job", spec).await?;
    let first = test.running("job", 2).await?;
    test.end_pod(&first[0], 9).await?;
    test.end_pod(&first[1], 0).await?;
    let status = test.failed("job", FailedReason::FailedIndexes).await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed), (1, 1));
    assert_eq!(attempts(&test, "job").await.len(), 2);
    test.verify()
}

#[tokio::test]
async fn the_policy_fails_the_job_and_ends_its_other_pods() -> Result<()> {
    let test = Testbed::new(shared().await?, "fail-job").await?;
    let spec = BatchJobSpec {
        pod_failure_policy: policy(vec![
            on_codes(PodFailureAction::Count, &[41]),
            on_codes(PodFailureAction::FailJob, &[41, 42]),
        ]),
        ..indexed(3, &Task::endless())
    };
    test.submit("job", spec).await?;
    let first = test.running("job", 3).await?;
    // The first rule that matches decides: 41 counts.
    test.end_pod(&first[0], 41).await?;
    let again = test.running_pod("job-0-1").await?;
    test.end_pod(&again, 42).await?;
    let status = test.failed("job", FailedReason::PodFailurePolicy).await?.status.context("status")?;
    test.no_pods("job").await?;
    assert_eq!((status.failed, status.active), (2, 0), "pods that we ended are no failures");
    let failed = springtide_crds::common::condition(&status.conditions, "Failed").context("Failed")?;
    assert!(failed.message.contains("42"), "{}", failed.message);
    test.verify()
}

#[tokio::test]
async fn what_the_policy_ignores_runs_again_under_its_name() -> Result<()> {
    let test = Testbed::new(shared().await?, "ignore").await?;
    let spec = BatchJobSpec {
        backoff_limit: Some(0),
        pod_failure_policy: policy(vec![
            on_codes(PodFailureAction::Ignore, &[7]),
            on_condition(PodFailureAction::FailJob, "example.com/Broken"),
        ]),
        ..single(&Task::endless())
    };
    test.submit("job", spec.clone()).await?;
    let first = test.running_pod("job-0-0").await?;
    test.end_pod(&first, 7).await?;
    let second = test.running_again(&first).await?;
    test.end_pod(&second, 0).await?;
    let status = test.completed("job").await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.disrupted), (1, 0, 1));

    test.submit("other", spec).await?;
    let broken = json!({"conditions": [{"type": "example.com/Broken", "status": "True"}]});
    test.end_pod_with(&test.running_pod("other-0-0").await?, 1, broken).await?;
    test.failed("other", FailedReason::PodFailurePolicy).await?;
    test.verify()
}

#[tokio::test]
async fn a_disruption_is_no_failure() -> Result<()> {
    let test = Testbed::new(shared().await?, "disruption").await?;
    test.submit("job", BatchJobSpec { backoff_limit: Some(0), ..single(&Task::endless()) }).await?;
    let first = test.running_pod("job-0-0").await?;
    let preempted = json!({"conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"},
    ]});
    test.end_pod_with(&first, 143, preempted).await?;
    let second = test.running_again(&first).await?;
    // Deleted by a user, with grace: that is none either.
    test.kubectl(&["delete", "pod", "job-0-0", "--wait=false"]).await?;
    let third = test.running_again(&second).await?;
    test.end_pod(&third, 0).await?;
    let status = test.completed("job").await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.disrupted), (1, 0, 2));
    test.no_pods("job").await?;
    test.verify()
}

#[tokio::test]
async fn a_success_policy_completes_the_job_and_ends_its_other_pods() -> Result<()> {
    let test = Testbed::new(shared().await?, "success-policy").await?;
    let rule = SuccessRule { succeeded_indexes: Some("1,3-4".into()), succeeded_count: Some(2) };
    let spec = BatchJobSpec {
        success_policy: Some(SuccessPolicy { rules: vec![rule] }),
        backoff_limit_per_index: None,
        ..indexed(5, &Task::endless())
    };
    test.submit("job", spec).await?;
    let first = test.running("job", 5).await?;
    // Index 0 is none of those that matter.
    for index in [0, 1, 4] {
        test.end_pod(&first[index], 0).await?;
    }
    let job = test.job("job", "its end", jobs::is_finished).await?;
    assert!(jobs::has(&job, &CompleteReason::SuccessPolicyMet), "{:?}", job.status);
    test.no_pods("job").await?;
    let status = job.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.active), (3, 0, 0));
    assert_eq!(test.pods.now().of("job").len(), 5, "nothing starts again");
    test.verify()
}

/// Nodes that the stored pod prefers to avoid.
async fn avoided(test: &Testbed<'_>, pod: &Life) -> Result<Vec<String>> {
    let pod = test.api::<Pod>().get(&pod.name).await?;
    let affinity = pod.spec.and_then(|spec| spec.affinity).and_then(|affinity| affinity.node_affinity);
    let terms = affinity.and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution);
    let fields = terms.into_iter().flatten().filter_map(|term| term.preference.match_fields).flatten();
    Ok(fields.filter_map(|field| field.values).flatten().collect())
}

#[tokio::test]
async fn a_task_is_tried_again_on_another_node() -> Result<()> {
    let test = Testbed::new(shared().await?, "avoidance").await?;
    test.submit("job", single(&Task::endless())).await?;
    let first = test.running_pod("job-0-0").await?;
    assert_eq!(avoided(&test, &first).await?, [] as [String; 0]);
    test.end_pod(&first, 1).await?;
    let second = test.running_pod("job-0-1").await?;
    assert_eq!(avoided(&test, &second).await?, [first.node.clone().context("a node")?]);
    assert_ne!(second.node, first.node, "the pool has more than one node with room");
    test.end_pod(&second, 0).await?;
    test.completed("job").await?;

    let retry = Retry { node_avoidance: NodeAvoidance::None, ..at_once() };
    test.submit("other", BatchJobSpec { retry, ..single(&Task::endless()) }).await?;
    test.end_pod(&test.running_pod("other-0-0").await?, 1).await?;
    let again = test.running_pod("other-0-1").await?;
    assert_eq!(avoided(&test, &again).await?, [] as [String; 0]);
    test.verify()
}

#[tokio::test]
async fn a_task_that_ran_out_of_memory_gets_more() -> Result<()> {
    let test = Testbed::new(shared().await?, "on-oom").await?;
    let retry = Retry { on_oom: Some(OnOom { max_steps: 1, ..OnOom::default() }), ..at_once() };
    let spec = BatchJobSpec { retry, backoff_limit_per_index: Some(6), ..indexed(2, &Task::endless()) };
    test.submit("job", spec).await?;
    let first = test.running("job", 2).await?;
    let oom = json!({"containerStatuses": [{
        "name": "main", "image": "example.com/task:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
    }]});
    let mut pod = first[1].clone();
    for (next, memory) in [("job-1-1", "96Mi"), ("job-1-2", "96Mi")] {
        test.end_pod_with(&pod, 137, oom.clone()).await?;
        pod = test.running_pod(next).await?;
        let stored = test.api::<Pod>().get(next).await?;
        let requests = stored.spec.context("spec")?.containers[0].resources.clone().context("resources")?;
        assert_eq!(requests.requests.context("requests")?["memory"].0, memory, "{next}");
    }
    let job = test.job("job", "the steps in its status", |job| {
        let indexes = job.status.as_ref().and_then(|status| status.indexes.as_ref());
        indexes.is_some_and(|indexes| indexes.retries == "1:2/2")
    });
    job.await?;
    test.end_pod(&pod, 0).await?;
    test.end_pod(&first[0], 0).await?;
    let status = test.completed("job").await?.status.context("status")?;
    assert!(codes(&status).contains(&(137, "OOMKilled", 2)), "{:?}", status.exit_codes);
    test.verify()
}
