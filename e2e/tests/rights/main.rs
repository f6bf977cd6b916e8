//! The manager under exactly the roles that are installed with it: enough, and no more.

mod namespaced;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::json;
use springtide_crds::batch_job::{
    BatchJobSpec, CompletionTracking, FailedReason, JobProfile, Release, StopPolicy,
};
use springtide_crds::batch_queue::{
    BatchQueue, BatchQueueSpec, CapacitySource, CapacityType, DEFAULT_QUEUE, QuotaRow, ReadyReason,
};
use springtide_crds::batch_task_profile::BatchTaskProfile;
use springtide_crds::common::Quantity;
use springtide_e2e::batch::{Task, Testbed};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::polling::until;
use springtide_e2e::rights::{ACCOUNT, Seldom, Triple, findings, installed, used};
use springtide_plumbing::breaker::{CONFIG_MAP, RESET_ANNOTATION};
use tokio::time::Instant;

/// What no quiet run uses. Managers with no other rights make PodGroups in `batch_pod_groups`, and list metrics in
/// `batch_usage` and `batch_load`.
const SELDOM: &[Seldom] = &[
    list("springtide.dev", "batchjobs"),
    list("springtide.dev", "batchqueues"),
    list("scheduling.k8s.io", "priorityclasses"),
    list("springtide.dev", "batchtaskprofiles"),
    Seldom {
        verb: "list",
        group: "metrics.k8s.io",
        resource: "pods",
        when: "a pod with a profile runs for more than a few seconds, or a queue is by NodeMetrics",
    },
    Seldom {
        verb: "list",
        group: "metrics.k8s.io",
        resource: "nodes",
        when: "a queue has load triggers, or is by NodeMetrics",
    },
    list("", "pods"),
    list("", "nodes"),
    list("coordination.k8s.io", "leases"),
    list("", "configmaps"),
    get("", "configmaps", "a write of the breaker's record went out and no answer came"),
    get("springtide.dev", "batchjobs", "a write of it went out and no answer came"),
    get("springtide.dev", "batchqueues", "a write of it went out and no answer came"),
    get("springtide.dev", "batchtaskprofiles", "a write of it went out and no answer came"),
    get("", "pods", "a write of it went out and no answer came"),
    get("scheduling.k8s.io", "podgroups", "a write of it went out and no answer came"),
    Seldom {
        verb: "create",
        group: "scheduling.k8s.io",
        resource: "podgroups",
        when: "a gang starts in a queue that asks for it",
    },
    get("coordination.k8s.io", "leases", "a renewal met another version"),
    Seldom {
        verb: "patch",
        group: "events.k8s.io",
        resource: "events",
        when: "the same has happened again, and ten minutes are over",
    },
    Seldom {
        verb: "update",
        group: "springtide.dev",
        resource: "batchjobs/finalizers",
        when: "an admission plugin asks for it while a pod is created; the log has no request for that",
    },
];

const fn list(group: &'static str, resource: &'static str) -> Seldom {
    Seldom { verb: "list", group, resource, when: "a server cannot stream the first list of a watch" }
}

const fn get(group: &'static str, resource: &'static str, when: &'static str) -> Seldom {
    Seldom { verb: "get", group, resource, when }
}

/// All that a BatchJob can come to: pods with and without the finalizer, pods that are stopped, a failure that is
/// told as an event, a job that goes by its time to live. All of them are in a BatchQueue, whose status is written.
async fn every_course(test: &Testbed<'_>) -> Result<()> {
    let plenty = QuotaRow { resource: "cpu".to_owned(), nominal: Quantity::new("1000"), max: None };
    let queue = BatchQueueSpec {
        // The only one that works without a sight of the nodes.
        capacity_source: CapacitySource { type_: CapacityType::Static, ..CapacitySource::default() },
        quota: vec![plenty],
        ..BatchQueueSpec::new()
    };
    test.api().create(&PostParams::default(), &BatchQueue::new(DEFAULT_QUEUE, queue)).await?;
    let is_ready = |queue: Option<&BatchQueue>| {
        let conditions = queue.and_then(|queue| queue.status.as_ref()).map(|status| &status.conditions);
        conditions.into_iter().flatten().any(|condition| condition.is(ReadyReason::Admitting))
    };
    // Before the jobs: one that the manager sees first is in the built-in queue.
    let ready = await_condition(test.api::<BatchQueue>(), DEFAULT_QUEUE, is_ready);
    tokio::time::timeout(PATIENCE, ready).await??;
    let quick = BatchJobSpec::new(Task::quick().template());
    let strict = Release { completion_tracking: Some(CompletionTracking::Strict), ..Release::default() };
    test.submit("strict", BatchJobSpec { release: strict, ..quick.clone() }).await?;
    test.submit("brief", BatchJobSpec { ttl_seconds_after_finished: Some(1), ..quick }).await?;
    // Held, so that nothing of it runs that could be measured.
    let learning = BatchJobSpec {
        stop_policy: StopPolicy::Hold,
        profile: Some(JobProfile { key: Some("learning".to_owned()), mode: None }),
        ..BatchJobSpec::new(Task::quick().template())
    };
    test.submit("learning", learning).await?;
    profile_is_seen(test).await?;
    let once = BatchJobSpec { backoff_limit: Some(0), ..BatchJobSpec::new(Task::failing(1).template()) };
    test.submit("failing", once).await?;
    test.failed("failing", FailedReason::BackoffLimitExceeded).await?;
    test.submit("stopped", BatchJobSpec::new(Task::endless().template())).await?;
    test.running("stopped", 1).await?;
    test.delete("stopped").await?;
    test.completed("strict").await?;
    for name in ["brief", "stopped"] {
        test.gone(name).await?;
    }
    Ok(())
}

/// An incident of the breaker, which a manager before has left: the record of it is lost and made again, an event tells
/// of it, and it is closed by hand.
async fn incident(cluster: &LocalCluster, namespace: &str) -> Result<()> {
    const ID: &str = "batch-job-0badcafe";
    let client = cluster.client("springtide-test")?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), ACCOUNT.namespace);
    let incident = json!({
        "controller": "batch-job", "namespace": namespace, "opened": Timestamp::now(), "message": "a test",
    });
    let record: ConfigMap = serde_json::from_value(json!({
        "metadata": {"name": CONFIG_MAP}, "data": {ID: incident.to_string()},
    }))?;
    let left = maps.create(&PostParams::default(), &record).await?;
    // Whoever takes the record away closes nothing.
    maps.delete(CONFIG_MAP, &DeleteParams::default()).await?;
    until(PATIENCE, "the record is made again", async || {
        let found = maps.get_opt(CONFIG_MAP).await?;
        let made = found.filter(|found| found.metadata.uid != left.metadata.uid);
        Ok(made.filter(|made| made.data.as_ref().is_some_and(|data| data.contains_key(ID))))
    })
    .await?;
    let events: Api<Event> = Api::namespaced(client, ACCOUNT.namespace);
    until(PATIENCE, "an event tells of it", async || {
        let told = |event: &Event| {
            event.reason.as_deref() == Some("BreakerOpened")
                && event.note.as_deref().is_some_and(|note| note.contains(ID))
        };
        Ok(events.list(&ListParams::default()).await?.items.iter().any(told).then_some(()))
    })
    .await?;
    let reset = json!({"metadata": {"annotations": {RESET_ANNOTATION: ID}}});
    maps.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(reset)).await?;
    until(PATIENCE, "the record is cleared", async || {
        Ok(maps.get(CONFIG_MAP).await?.data.is_none_or(|data| data.is_empty()).then_some(()))
    })
    .await
}

/// Waits until the profile of the held job is made, and has a status.
async fn profile_is_seen(test: &Testbed<'_>) -> Result<()> {
    let profiles = test.api::<BatchTaskProfile>();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = profiles.get_opt("learning").await?;
        let status = found.and_then(|profile| profile.status);
        if status.is_some_and(|status| status.observed_generation == 1) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the profile is not made, or has no status");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn the_installed_roles_are_enough_and_nothing_in_them_is_idle() -> Result<()> {
    let cluster = installed("rbac", &[]).await?;
    let log = cluster.audit_log()?;
    let (start, user) = (log.mark()?, ACCOUNT.user());
    let kubeconfig = cluster.kubeconfig_for(&user, "system:serviceaccounts")?;
    let args = ["--lease-namespace", ACCOUNT.namespace];
    let mut first = Manager::start_with(&cluster, &kubeconfig, "first", &args).await?;
    first.wait_ready().await?;
    let mut standby = Manager::start_with(&cluster, &kubeconfig, "standby", &args).await?;
    standby.wait_ready().await?;
    let test = Testbed::new(&cluster, "rights").await?;
    every_course(&test).await?;
    incident(&cluster, &test.namespace).await?;
    // The lease is given back and taken.
    first.stop()?;
    test.submit("after", BatchJobSpec::new(Task::quick().template())).await?;
    test.completed("after").await?;
    standby.stop()?;

    let requests = log.since(start)?.by_user(&user);
    let forbidden = requests.filter(|request| request.code == 403);
    ensure!(forbidden.is_empty(), "the roles lack something:\n{forbidden}");
    let granted = ACCOUNT.granted(&cluster.client("springtide-test")?).await?;
    let findings = findings(&granted, &used(&requests), SELDOM);
    ensure!(findings.is_empty(), "{}\n{requests}", findings.join("\n"));
    // Not vacuous: the log was that of this account, and the roles were found.
    let writes: BTreeSet<Triple> = used(&requests.writes());
    ensure!(granted.is_superset(&writes) && writes.len() >= 6, "{writes:?}");
    test.verify()
}

#[tokio::test]
async fn without_a_right_the_server_refuses_what_a_test_with_all_rights_would_not_see() -> Result<()> {
    let cluster = installed("rbac", &[]).await?;
    ACCOUNT.lose(&cluster, "update", "batchjobs/finalizers").await?;
    let log = cluster.audit_log()?;
    let (start, user) = (log.mark()?, ACCOUNT.user());
    let kubeconfig = cluster.kubeconfig_for(&user, "system:serviceaccounts")?;
    let args = ["--lease-namespace", ACCOUNT.namespace];
    let mut manager = Manager::start_with(&cluster, &kubeconfig, "manager", &args).await?;
    manager.wait_ready().await?;
    let test = Testbed::new(&cluster, "lacking").await?;
    test.submit("job", BatchJobSpec::new(Task::quick().template())).await?;
    let refused = |job: &springtide_crds::batch_job::BatchJob| {
        let conditions = job.status.iter().flat_map(|status| &status.conditions);
        conditions.into_iter().any(|condition| condition.message.contains("blockOwnerDeletion"))
    };
    test.job("job", "a condition that says what is not allowed", refused).await?;
    let forbidden = log.since(start)?.by_user(&user).filter(|request| request.code == 403);
    ensure!(forbidden.requests().iter().all(|request| request.resource == "pods"), "{forbidden}");
    manager.stop()?;
    Ok(())
}
