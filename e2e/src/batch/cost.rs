//! What jobs cost the API server.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::scheduling::v1beta1::PodGroup;
use kube::api::{Api, ListParams};
use serde_json::json;
use springtide_crds::batch_job::{BatchJobSpec, CompletionMode, QueuedReason};
use springtide_crds::batch_queue::{BatchQueueSpec, DEFAULT_QUEUE, GangScheduler, QuotaRow, ReadyReason};
use springtide_crds::common::Quantity;

use super::{Task, Testbed, queues};
use crate::local_cluster::LocalCluster;
use crate::manager::USER_AGENT;
use crate::oracle::feed::PATIENCE;
use crate::polling::until;
use crate::write_count::WriteCount;

/// Pods of the job that others wait for.
const IN_THE_WAY: u32 = 10;
const BLOCKER: &str = "blocker";

/// The writes that whole lives of some jobs took.
#[derive(Debug)]
pub struct Cost {
    /// Those of the manager, on jobs and pods.
    pub own: WriteCount,
    /// Those of all components, on jobs and pods.
    pub all: WriteCount,
    /// Those of all components on Events.
    pub events: WriteCount,
}

impl Cost {
    /// Of the writes in a namespace; those on the job that is in the way are no cost of the others.
    fn of(writes: &WriteCount) -> Self {
        let writes = writes.filter(|request| !request.name.starts_with(BLOCKER));
        // The namespace's own beginning is no cost of jobs.
        let of_jobs = |kind: &str| kind.starts_with("pods") || kind.starts_with("batchjobs");
        let all = writes.filter(|request| of_jobs(&request.resource));
        Self { own: all.by_agent(USER_AGENT), all, events: writes.of_resource("events") }
    }
}

/// The writes that whole lives of jobs with one task take, from their creation until every object is
/// gone: those of the manager, and those of all components. Events apart: those of scheduler and
/// kubelet are the same for every batch system. Refused requests count; the jobs get a TTL of 0.
///
/// # Errors
/// A job does not end, an oracle has seen something that may never be, or there is no audit log.
pub async fn cost_of_jobs(cluster: &LocalCluster, jobs: usize, spec: BatchJobSpec) -> Result<Cost> {
    let test = Testbed::new(cluster, "count").await?;
    let prepared = test.requests()?.writes().len();
    let spec = BatchJobSpec { ttl_seconds_after_finished: Some(0), ..spec };
    test.submit_many("job", jobs, &spec).await?;
    ended(&test, jobs, 1).await?;
    test.verify()?;
    ensure!(prepared < 10, "a namespace that is being used: {prepared} writes");
    Ok(Cost::of(&test.requests()?.writes()))
}

/// As [`cost_of_jobs`], of jobs that have to wait for others so long that each has a record of it: they are in a
/// queue whose quota another job uses up, and is raised when each of them says in its status that it waits for that.
///
/// # Errors
/// As [`cost_of_jobs`], or a job never says that it waits.
pub async fn cost_of_waiting_jobs(cluster: &LocalCluster, jobs: usize, spec: BatchJobSpec) -> Result<Cost> {
    let test = Testbed::new(cluster, "count").await?;
    let quota = vec![QuotaRow {
        resource: "pods".to_owned(),
        nominal: Quantity::new(IN_THE_WAY.to_string()),
        max: None,
    }];
    queues::create(&test, DEFAULT_QUEUE, BatchQueueSpec { quota, ..BatchQueueSpec::new() }).await?;
    queues::ready(&test, DEFAULT_QUEUE, ReadyReason::Admitting).await?;
    let blocker = BatchJobSpec {
        completions: IN_THE_WAY,
        parallelism: IN_THE_WAY,
        ..BatchJobSpec::new(Task::endless().template())
    };
    test.submit(BLOCKER, blocker).await?;
    test.running(BLOCKER, IN_THE_WAY as usize).await?;
    let spec = BatchJobSpec { ttl_seconds_after_finished: Some(0), ..spec };
    test.submit_many("job", jobs, &spec).await?;
    for number in 0..jobs {
        // Not merely some condition: the schema gives each job two before anybody has seen it.
        test.reason(&format!("job-{number}"), QueuedReason::QuotaExceeded).await?;
    }
    let room = (jobs + IN_THE_WAY as usize).to_string();
    let quota = json!({"spec": {"quota": [{"resource": "pods", "nominal": room}]}});
    queues::edit(&test, DEFAULT_QUEUE, quota).await?;
    ended(&test, jobs, 1).await?;
    test.delete(BLOCKER).await?;
    test.gone(BLOCKER).await?;
    test.verify()?;
    Ok(Cost::of(&test.requests()?.writes()))
}

/// The writes of the manager, and of all components, on the PodGroups of so many gangs of `size` pods each, from their
/// creation until every group is gone. The cluster must serve PodGroups.
///
/// # Errors
/// As [`cost_of_jobs`], or no group was made, or one stays.
pub async fn writes_of_pod_groups(
    cluster: &LocalCluster,
    gangs: usize,
    size: u32,
) -> Result<[WriteCount; 2]> {
    let test = Testbed::new(cluster, "gangs").await?;
    let asks = BatchQueueSpec { gang_scheduler: GangScheduler::PodGroup, ..BatchQueueSpec::new() };
    queues::create(&test, DEFAULT_QUEUE, asks).await?;
    queues::ready(&test, DEFAULT_QUEUE, ReadyReason::Admitting).await?;
    let spec = BatchJobSpec {
        completions: size,
        parallelism: size,
        min_parallelism: size,
        completion_mode: CompletionMode::Indexed,
        ttl_seconds_after_finished: Some(0),
        ..BatchJobSpec::new(Task::quick().template())
    };
    test.submit_many("job", gangs, &spec).await?;
    ended(&test, gangs, size).await?;
    let groups: Api<PodGroup> = test.api();
    until(PATIENCE, "no PodGroup stays", async || {
        let left = groups.list(&ListParams::default()).await.context("list PodGroups")?;
        Ok(left.items.is_empty().then_some(()))
    })
    .await?;
    test.verify()?;
    let all = test.requests()?.writes().of_resource("podgroups");
    ensure!(all.len() >= gangs, "{} writes on the PodGroups of {gangs} gangs", all.len());
    Ok([all.by_agent(USER_AGENT), all])
}

/// Waits until the jobs `job-0` and so on, of so many tasks each, have run once and are gone.
async fn ended(test: &Testbed<'_>, jobs: usize, tasks: u32) -> Result<()> {
    for number in 0..jobs {
        let name = format!("job-{number}");
        test.gone(&name).await?;
        test.no_pods(&name).await?;
        test.pods.now().exactly_one_run(&name, tasks)?;
    }
    Ok(())
}
