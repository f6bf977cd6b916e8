//! What users do with BatchJobs, each time to the same end.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use springtide_crds::batch_job::{
    BatchJob, BatchJobSpec, CompleteReason, CompletionMode, CompletionTracking, ExitCodeOperator,
    FailedReason, JobProfile, OnExitCodes, OnOom, PodFailureAction, PodFailurePolicy, PodFailureRule,
    QueuedReason, Release, Retry, SuccessPolicy, SuccessRule, SuspendedReason,
};
use springtide_crds::batch_queue::{
    BatchQueue, BatchQueueSpec, CapacitySource, CapacityType, GangScheduler, QuotaRow,
};
use springtide_crds::batch_task_profile::ProfileMode;
use springtide_crds::common::Quantity;
use springtide_e2e::archive_sink::ArchiveSink;
use springtide_e2e::batch::{POOL, Task, Testbed, queues};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::pods::{Life, Pods};

use crate::scenarios::{Batch, JOB, OTHER, STRANGER};
use crate::{endings, first_use, loads, profile, shown, windows};

/// The queue of the job, and another one of its cohort.
pub(crate) const QUEUE: &str = "queue";
const LENDER: &str = "lender";
/// Label of the stranger beside which the gang does not want to be.
const BLOCKS: &str = "example.com/blocks";

/// Finalizer of somebody else.
pub(crate) const HOLD: &str = "example.com/hold";

pub(crate) fn strict(task: &Task, completions: u32, parallelism: u32) -> BatchJobSpec {
    BatchJobSpec {
        completions,
        parallelism,
        completion_mode: CompletionMode::Indexed,
        release: Release { completion_tracking: Some(CompletionTracking::Strict), ..Release::default() },
        retry: Retry { initial_backoff_seconds: 0, max_backoff_seconds: 0, ..Retry::default() },
        ..BatchJobSpec::new(task.template())
    }
}

/// The same without a finalizer on its pods, as a job of tier BestEffort has it by default.
pub(crate) fn at_least_once(spec: BatchJobSpec) -> BatchJobSpec {
    BatchJobSpec { release: Release::default(), ..spec }
}

/// The same in the queue.
pub(crate) fn queued(completions: u32, parallelism: u32) -> BatchJobSpec {
    let queue_name = Some(QUEUE.to_owned());
    BatchJobSpec { queue_name, ..strict(&Task::endless(), completions, parallelism) }
}

/// A queue with a quota of CPU, of which each task takes 100m.
pub(crate) fn quota(nominal: &str, max: Option<&str>) -> BatchQueueSpec {
    BatchQueueSpec {
        cohort: max.map(|_| "idle".to_owned()),
        quota: vec![QuotaRow {
            resource: "cpu".to_owned(),
            nominal: Quantity::new(nominal),
            max: max.map(Quantity::new),
        }],
        capacity_source: CapacitySource { type_: CapacityType::Static, ..CapacitySource::default() },
        ..BatchQueueSpec::new()
    }
}

/// Waits until so many pods of the job run, and its status says so: what the manager makes of what comes next depends on
/// whether it has seen them.
async fn running_as_told(test: &Testbed<'_>, count: u32) -> Result<()> {
    test.running(JOB, count as usize).await?;
    let tells = |job: &BatchJob| job.status.as_ref().is_some_and(|status| status.active == count);
    test.job(JOB, "a status that tells of its pods", tells).await?;
    Ok(())
}

/// A running pod of nobody's, which keeps those away from all nodes of its pool that avoid its label.
async fn place_stranger(test: &Testbed<'_>) -> Result<()> {
    let task = serde_json::to_value(Task::endless().template())?;
    let mut pod = json!({"metadata": task["metadata"], "spec": task["spec"]});
    pod["metadata"]["name"] = STRANGER.into();
    pod["metadata"]["labels"] = json!({BLOCKS: "true"});
    pod["spec"]["restartPolicy"] = "Never".into();
    let pods = test.api::<Pod>();
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let bound = |pod: Option<&Pod>| {
        pod.is_some_and(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()))
    };
    let waited = tokio::time::timeout(PATIENCE, await_condition(pods, STRANGER, bound)).await;
    waited.context("the stranger has no node")??;
    Ok(())
}

/// Removes it, if it is there.
pub(crate) async fn remove_stranger(test: &Testbed<'_>) -> Result<()> {
    let now = DeleteParams::default().grace_period(0);
    match test.api::<Pod>().delete(STRANGER, &now).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// Plays a scenario up to the end of its pods. Each play is a future by itself: together they would be larger than the
/// stack of a thread.
pub(crate) async fn play(scenario: Batch, test: &Testbed<'_>, sink: Option<&ArchiveSink>) -> Result<()> {
    match scenario {
        Batch::Single => Box::pin(async {
            test.submit(JOB, BatchJobSpec::new(Task::quick().template())).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Indexed => Box::pin(async {
            test.submit(JOB, strict(&Task::quick(), 4, 2)).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Failing => Box::pin(async {
            let spec = BatchJobSpec { backoff_limit: Some(2), ..strict(&Task::failing(3), 1, 1) };
            test.submit(JOB, spec).await?;
            test.failed(JOB, FailedReason::BackoffLimitExceeded).await?;
            anyhow::Ok(())
        }).await?,
        Batch::DrainAndResume => Box::pin(async {
            test.submit(JOB, strict(&Task::endless(), 2, 2)).await?;
            test.running(JOB, 2).await?;
            test.edit(JOB, json!({"spec": {"stopPolicy": "Drain"}})).await?;
            test.reason(JOB, CompleteReason::Suspended).await?;
            test.no_pods(JOB).await?;
            test.edit(JOB, json!({"spec": {"stopPolicy": "None"}})).await?;
            end(test, 2).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Scale => Box::pin(async {
            test.submit(JOB, strict(&Task::endless(), 4, 1)).await?;
            test.running(JOB, 1).await?;
            for parallelism in [3, 1, 4] {
                test.edit(JOB, json!({"spec": {"parallelism": parallelism}})).await?;
                test.running(JOB, parallelism).await?;
                // KWOK removes a pod by its name, perhaps twice: one that is new could be hit.
                only(test, parallelism).await?;
            }
            end(test, 4).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Delete => Box::pin(async {
            test.submit(JOB, strict(&Task::endless(), 3, 3)).await?;
            test.running(JOB, 3).await?;
            test.delete(JOB).await?;
            test.gone(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::TimeToLive => Box::pin(async {
            let spec = BatchJobSpec { ttl_seconds_after_finished: Some(1), ..strict(&Task::quick(), 1, 1) };
            test.submit(JOB, spec).await?;
            test.gone(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Deadline => Box::pin(async {
            // Time enough for the manager that follows a crash to make the second pod.
            let spec = BatchJobSpec { active_deadline_seconds: Some(20), ..strict(&Task::endless(), 2, 2) };
            test.submit(JOB, spec).await?;
            test.failed(JOB, FailedReason::DeadlineExceeded).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Mixed => Box::pin(async {
            let spec = BatchJobSpec { backoff_limit_per_index: Some(1), ..strict(&Task::endless(), 3, 2) };
            test.submit(JOB, spec).await?;
            // Index 0 fails once, index 1 for good, index 2 not at all.
            for (name, code) in
                [("job-0-0", 4), ("job-1-0", 5), ("job-0-1", 0), ("job-1-1", 6), ("job-2-0", 0)]
            {
                test.end_pod(&test.running_pod(name).await?, code).await?;
            }
            test.failed(JOB, FailedReason::FailedIndexes).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Gang => Box::pin(async {
            test.submit(JOB, BatchJobSpec { min_parallelism: 4, ..strict(&Task::endless(), 4, 4) }).await?;
            let first = test.running(JOB, 4).await?;
            test.end_pod(&first[2], 4).await?;
            let again = test.running_pod("job-2-1").await?;
            for life in [&first[0], &first[1], &again, &first[3]] {
                test.end_pod(life, 0).await?;
            }
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::HoldAndResume => Box::pin(async {
            test.submit(JOB, strict(&Task::endless(), 4, 2)).await?;
            test.running(JOB, 2).await?;
            test.edit(JOB, json!({"spec": {"stopPolicy": "Hold"}})).await?;
            test.reason(JOB, SuspendedReason::UserHold).await?;
            end(test, 2).await?;
            test.reason(JOB, CompleteReason::Suspended).await?;
            test.edit(JOB, json!({"spec": {"stopPolicy": "None"}})).await?;
            end(test, 2).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Policy => Box::pin(async {
            let codes =
                OnExitCodes { container_name: None, operator: ExitCodeOperator::In, values: vec![42] };
            let rule = PodFailureRule {
                action: PodFailureAction::FailJob,
                on_exit_codes: Some(codes),
                on_pod_conditions: Vec::new(),
            };
            let pod_failure_policy = Some(PodFailurePolicy { rules: vec![rule] });
            test.submit(JOB, BatchJobSpec { pod_failure_policy, ..strict(&Task::endless(), 3, 3) }).await?;
            let first = test.running(JOB, 3).await?;
            test.end_pod(&first[1], 42).await?;
            test.failed(JOB, FailedReason::PodFailurePolicy).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Disrupted => Box::pin(async {
            let spec = BatchJobSpec { backoff_limit: Some(0), ..strict(&Task::endless(), 1, 1) };
            test.submit(JOB, spec).await?;
            let first = test.running_pod("job-0-0").await?;
            let evicted = json!({"conditions": [
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
            ]});
            test.end_pod_with(&first, 143, evicted).await?;
            test.end_pod(&test.running_again(&first).await?, 0).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::DeleteHeld => Box::pin(async {
            test.submit(JOB, strict(&Task::endless(), 3, 2)).await?;
            test.end_pod(&test.running_pod("job-0-0").await?, 0).await?;
            let (held, _) = (test.running_pod("job-1-0").await?, test.running_pod("job-2-0").await?);
            let pods = test.api::<Pod>();
            let hold = Patch::Strategic(json!({"metadata": {"finalizers": [HOLD]}}));
            pods.patch(&held.name, &PatchParams::default(), &hold).await?;
            test.api::<BatchJob>().delete(JOB, &DeleteParams::foreground()).await?;
            let others = |life: &&Life| life.uid != held.uid;
            let gone = |pods: &Pods| pods.of(JOB).iter().filter(|l| others(l)).all(|l| l.gone.is_some());
            test.pods.until("the end of the other pods", |pods| gone(pods).then_some(())).await?;
            pods.patch(&held.name, &PatchParams::default(), &release()).await?;
            test.gone(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Recreate => Box::pin(async {
            test.submit(JOB, strict(&Task::endless(), 1, 1)).await?;
            test.running(JOB, 1).await?;
            test.delete(JOB).await?;
            test.gone(JOB).await?;
            // KWOK removes a pod by its name, perhaps twice: one that is new could be hit.
            test.no_pods(JOB).await?;
            test.submit(JOB, strict(&Task::quick(), 1, 1)).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::QuotaCut => Box::pin(async {
            queues::open(test, QUEUE, quota("300m", None)).await?;
            test.submit(JOB, queued(3, 3)).await?;
            test.running(JOB, 3).await?;
            // One is left, as of the other two it is chance which is the newest.
            let cpu = |nominal: &str| json!({"spec": {"quota": [{"resource": "cpu", "nominal": nominal}]}});
            queues::edit(test, QUEUE, cpu("100m")).await?;
            test.running(JOB, 1).await?;
            // KWOK removes a pod by its name, perhaps twice: one that is new could be hit.
            only(test, 1).await?;
            queues::edit(test, QUEUE, cpu("300m")).await?;
            test.running(JOB, 3).await?;
            end(test, 3).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::QueueDrain => Box::pin(async {
            queues::open(test, QUEUE, quota("1", None)).await?;
            test.submit(JOB, queued(2, 2)).await?;
            running_as_told(test, 2).await?;
            queues::edit(test, QUEUE, json!({"spec": {"stopPolicy": "Drain"}})).await?;
            test.reason(JOB, CompleteReason::Suspended).await?;
            test.no_pods(JOB).await?;
            queues::edit(test, QUEUE, json!({"spec": {"stopPolicy": "None"}})).await?;
            end(test, 2).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Cohort => Box::pin(async {
            queues::open(test, QUEUE, quota("100m", Some("200m"))).await?;
            queues::open(test, LENDER, quota("100m", Some("100m"))).await?;
            test.submit(JOB, queued(2, 2)).await?;
            running_as_told(test, 2).await?;
            let lender = Some(LENDER.to_owned());
            let back = BatchJobSpec { queue_name: lender, ..strict(&Task::endless(), 1, 1) };
            test.submit(OTHER, back).await?;
            let back = test.running(OTHER, 1).await?;
            test.running(JOB, 1).await?;
            only(test, 1).await?;
            test.end_pod(&back[0], 0).await?;
            test.completed(OTHER).await?;
            test.running(JOB, 2).await?;
            end(test, 2).await?;
            test.completed(JOB).await?;
            test.no_pods(OTHER).await?;
            anyhow::Ok(())
        }).await?,
        Batch::QueueGang => Box::pin(async {
            place_stranger(test).await?;
            queues::open(test, QUEUE, quota("300m", None)).await?;
            let template = Task::endless().template_with(|template| {
                let avoids = json!([{"topologyKey": POOL, "labelSelector": {"matchLabels": {BLOCKS: "true"}}}]);
                template["spec"]["affinity"]["podAntiAffinity"]
                    ["requiredDuringSchedulingIgnoredDuringExecution"] = avoids;
            });
            // Time enough to hold the queue before they are taken back.
            let gang =
                BatchJobSpec { template, min_parallelism: 3, pending_deadline_seconds: 15, ..queued(3, 3) };
            test.submit(JOB, gang).await?;
            let all = |pods: &Pods| (pods.of(JOB).len() >= 3).then_some(());
            test.pods.until("all pods of the gang", all).await?;
            // What is taken back stays away until all is well again: else it would be chance how often it comes.
            queues::edit(test, QUEUE, json!({"spec": {"stopPolicy": "Hold"}})).await?;
            test.no_pods(JOB).await?;
            test.reason(JOB, QueuedReason::QueueStopped).await?;
            remove_stranger(test).await?;
            queues::edit(test, QUEUE, json!({"spec": {"stopPolicy": "None"}})).await?;
            end(test, 3).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::QueueDeleted => Box::pin(async {
            queues::open(test, QUEUE, quota("200m", None)).await?;
            test.submit(JOB, queued(3, 3)).await?;
            let first = test.running(JOB, 2).await?;
            test.api::<BatchQueue>().delete(QUEUE, &DeleteParams::default()).await?;
            test.end_pod(&first[0], 0).await?;
            test.job(JOB, "one succeeded", |job| {
                job.status.as_ref().is_some_and(|status| status.succeeded == 1)
            })
            .await?;
            test.reason(JOB, QueuedReason::QueueNotFound).await?;
            queues::create(test, QUEUE, quota("200m", None)).await?;
            end(test, 2).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::Preempted => Box::pin(async {
            queues::open(test, QUEUE, yielding("100m")?).await?;
            test.submit(JOB, queued(1, 1)).await?;
            test.running(JOB, 1).await?;
            test.submit(OTHER, BatchJobSpec { priority: 5, ..queued(1, 1) }).await?;
            let urgent = test.running(OTHER, 1).await?;
            test.no_pods(JOB).await?;
            test.reason(JOB, SuspendedReason::Preempted).await?;
            test.end_pod(&urgent[0], 0).await?;
            test.completed(OTHER).await?;
            test.running(JOB, 1).await?;
            end(test, 1).await?;
            test.completed(JOB).await?;
            test.no_pods(OTHER).await?;
            anyhow::Ok(())
        }).await?,
        Batch::PeakForced => Box::pin(windows::forced(test)).await?,
        Batch::OutOfMemory => Box::pin(async {
            let spec = strict(&Task::endless(), 2, 2);
            let on_oom = Some(OnOom { max_steps: 2, ..OnOom::default() });
            let retry = Retry { on_oom, ..spec.retry.clone() };
            test.submit(JOB, BatchJobSpec { retry, backoff_limit_per_index: Some(3), ..spec }).await?;
            test.running(JOB, 2).await?;
            for (name, memory) in [("job-1-0", "64Mi"), ("job-1-1", "96Mi")] {
                let life = test.running_pod(name).await?;
                requests(test, name, "memory", memory).await?;
                run_out_of_memory(test, &life).await?;
            }
            // A failure of another kind makes no step.
            for (name, code) in [("job-1-2", 4), ("job-1-3", 0), ("job-0-0", 0)] {
                let life = test.running_pod(name).await?;
                let memory = if name == "job-0-0" { "64Mi" } else { "144Mi" };
                requests(test, name, "memory", memory).await?;
                test.end_pod(&life, code).await?;
            }
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::SuccessPolicy => Box::pin(async {
            let rule = SuccessRule { succeeded_indexes: Some("1-2".to_owned()), succeeded_count: Some(1) };
            let success_policy = Some(SuccessPolicy { rules: vec![rule] });
            test.submit(JOB, BatchJobSpec { success_policy, ..strict(&Task::endless(), 3, 3) }).await?;
            let first = test.running(JOB, 3).await?;
            test.end_pod(&first[1], 0).await?;
            test.reason(JOB, CompleteReason::SuccessPolicyMet).await?;
            anyhow::Ok(())
        }).await?,
        Batch::ProfileInitial => Box::pin(async {
            let learned = profile::learned(test).await?;
            let template = Task::endless().template_with(|template| {
                // What is requested already is not filled in.
                template["spec"]["containers"][0]["resources"] = json!({});
            });
            let profile =
                Some(JobProfile { key: Some(profile::NAME.to_owned()), mode: Some(ProfileMode::Initial) });
            let all = strict(&Task::endless(), 2, 2);
            let spec = BatchJobSpec { template, profile, backoff_limit_per_index: Some(1), ..all };
            test.submit(JOB, spec).await?;
            // What fails teaches nothing, so that the profile stays as it is.
            for (name, code) in [("job-0-0", 4), ("job-0-1", 4), ("job-1-0", 5), ("job-1-1", 6)] {
                let life = test.running_pod(name).await?;
                for (resource, amount) in [("cpu", &learned.cpu), ("memory", &learned.memory)] {
                    let amount = amount.as_ref().context("a recommendation")?;
                    requests(test, name, resource, amount).await?;
                }
                test.end_pod(&life, code).await?;
            }
            test.failed(JOB, FailedReason::FailedIndexes).await?;
            anyhow::Ok(())
        }).await?,
        Batch::AtLeastOnceIndexed => Box::pin(async {
            test.submit(JOB, at_least_once(strict(&Task::quick(), 3, 2))).await?;
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::PodGroup => Box::pin(async {
            let asks = BatchQueueSpec { gang_scheduler: GangScheduler::PodGroup, ..quota("200m", None) };
            queues::open(test, QUEUE, asks).await?;
            test.submit(JOB, BatchJobSpec { min_parallelism: 2, ..at_least_once(queued(2, 2)) }).await?;
            let running = test.running(JOB, 2).await?;
            // With these figures it says who places its gangs, where the manager that has asked for the group lives.
            queues::queue(test, QUEUE, "two pods", |queue| {
                queue.status.as_ref().is_some_and(|status| status.running_pods == 2)
            })
            .await?;
            for life in running {
                let group = test.api::<Pod>().get(&life.name).await?.spec.and_then(|spec| spec.scheduling_group);
                ensure!(group.is_some_and(|group| group.pod_group_name.is_some()), "{life:?} is in no group");
                test.end_pod(&life, 0).await?;
            }
            test.completed(JOB).await?;
            anyhow::Ok(())
        }).await?,
        Batch::ArchivedTtl => Box::pin(endings::archived(test)).await?,
        Batch::Degraded => Box::pin(windows::degraded(test)).await?,
        Batch::WindowByClock => Box::pin(windows::by_the_clock(test)).await?,
        Batch::KeptPods => Box::pin(endings::kept(test)).await?,
        Batch::LoadTrigger => Box::pin(loads::gave_way(test)).await?,
        Batch::ArchivedHttp => Box::pin(endings::posted(test, sink)).await?,
        Batch::Shown => Box::pin(shown::until_there_is_a_node(test)).await?,
        Batch::ProfileFirstUse => Box::pin(first_use::teaches(test)).await?,
    }
    // One of them stays where one is to be kept.
    if scenario.keeps_pods() { Ok(()) } else { test.no_pods(JOB).await }
}

/// The same quota, of which a job has back what it needs from those of lower priority.
fn yielding(nominal: &str) -> Result<BatchQueueSpec> {
    let preemptible = json!({"by": ["BestEffort"], "minRunSeconds": 0});
    let tiers = serde_json::from_value(json!([{"name": "BestEffort", "preemptible": preemptible}]))?;
    Ok(BatchQueueSpec { tiers, ..quota(nominal, None) })
}

/// The stored pod of this name must request so much.
async fn requests(test: &Testbed<'_>, pod: &str, resource: &str, amount: &str) -> Result<()> {
    let stored = test.api::<Pod>().get(pod).await?;
    let resources = stored.spec.context("a spec")?.containers[0].resources.clone();
    let requested = resources.and_then(|resources| resources.requests?.get(resource).cloned());
    let is_right = requested.as_ref().is_some_and(|requested| requested.0 == amount);
    ensure!(is_right, "pod {pod} requests {requested:?} of {resource}, not {amount}");
    Ok(())
}

/// Ends a pod as its kubelet would report that it has exceeded its memory.
async fn run_out_of_memory(test: &Testbed<'_>, pod: &Life) -> Result<()> {
    let now = Timestamp::now();
    let killed = json!({"exitCode": 137, "reason": "OOMKilled", "startedAt": now, "finishedAt": now});
    let container = json!({
        "name": "main", "image": "example.com/task:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": killed},
    });
    test.end_pod_with(pod, 137, json!({"containerStatuses": [container]})).await
}

/// Takes [`HOLD`] from a pod.
pub(crate) fn release() -> Patch<Value> {
    Patch::Strategic(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [HOLD]}}))
}

/// Ends the pods that run, when there are so many.
pub(crate) async fn end(test: &Testbed<'_>, count: usize) -> Result<()> {
    for life in test.running(JOB, count).await? {
        test.end_pod(&life, 0).await?;
    }
    Ok(())
}

/// Waits until no other pods than so many are there.
pub(crate) async fn only(test: &Testbed<'_>, count: usize) -> Result<()> {
    test.pods
        .until(&format!("{count} pods and no more"), |pods| {
            (pods.of(JOB).iter().filter(|life| life.gone.is_none()).count() == count).then_some(())
        })
        .await
}
