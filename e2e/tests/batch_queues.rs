//! What a BatchQueue does, seen by those who write it and by those whose jobs are in it, on a real control plane
//! with pods that KWOK plays. All tests share one cluster and one manager; each has a namespace.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use springtide_crds::batch_job::{
    AdmittedReason, BatchJobSpec, CompleteReason, DegradedReason, QueuedReason, StalledReason,
    SuspendedReason,
};
use springtide_crds::batch_queue::{self, BatchQueue, BatchQueueSpec, QuotaRow, ReadyReason, Retention};
use springtide_crds::common::{Quantity, Tier};
use springtide_e2e::batch::queues::{create, edit, open, queue, ready};
use springtide_e2e::batch::{POOL, Task, Testbed, pool, shared};
use springtide_e2e::oracle::jobs;

fn cpu(nominal: &str, max: Option<&str>) -> QuotaRow {
    QuotaRow { resource: "cpu".to_owned(), nominal: Quantity::new(nominal), max: max.map(Quantity::new) }
}

fn with_quota(nominal: &str, max: Option<&str>) -> BatchQueueSpec {
    BatchQueueSpec { quota: vec![cpu(nominal, max)], ..BatchQueueSpec::new() }
}

/// A job whose tasks take half a core each and do not end by themselves.
fn wide(tasks: u32, queue: Option<&str>) -> BatchJobSpec {
    let task = Task { cpu: "500m".into(), ..Task::endless() };
    BatchJobSpec {
        completions: tasks,
        parallelism: tasks,
        queue_name: queue.map(str::to_owned),
        ..BatchJobSpec::new(task.template())
    }
}

#[tokio::test]
async fn a_quota_bounds_what_runs_and_a_cut_takes_pods_back() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "quota").await?;
    create(&test, batch_queue::DEFAULT_QUEUE, with_quota("1", None)).await?;
    ready(&test, "default", ReadyReason::Admitting).await?;
    test.submit("job", wide(4, None)).await?;
    test.running("job", 2).await?;
    let job = test.reason("job", AdmittedReason::Granted).await?;
    ensure!(job.status.context("a status")?.queue.as_deref() == Some("default"));
    test.reason("job", QueuedReason::QuotaExceeded).await?;
    let shown = queue(&test, "default", "its figures", |queue| {
        queue.status.as_ref().is_some_and(|status| {
            status.running_pods == 2
                && status.used.get("cpu") == Some(&Quantity::new("1"))
                && status
                    .waiting
                    .iter()
                    .any(|class| class.reason == "QuotaExceeded" && class.resource == "cpu")
        })
    })
    .await?;
    ensure!(shown.status.context("a status")?.borrowed.is_empty());

    edit(&test, "default", json!({"spec": {"quota": [{"resource": "cpu", "nominal": "2"}]}})).await?;
    test.running("job", 4).await?;
    edit(&test, "default", json!({"spec": {"quota": [{"resource": "cpu", "nominal": "500m"}]}})).await?;
    test.reason("job", DegradedReason::QuotaShrunk).await?;
    let left = test.running("job", 1).await?;
    edit(&test, "default", json!({"spec": {"quota": [{"resource": "cpu", "nominal": "2"}]}})).await?;
    test.running("job", 4).await?;
    let job = test.reason("job", DegradedReason::FullParallelism).await?;
    let status = job.status.context("a status")?;
    ensure!(status.failed == 0, "a pod that is taken back has not failed: {status:?}");
    ensure!(
        test.running("job", 4).await?.iter().any(|life| life.uid == left[0].uid),
        "it went on all the time"
    );
    test.delete("job").await?;
    test.gone("job").await?;
    test.verify()
}

#[tokio::test]
async fn a_queue_that_is_missing_is_waited_for() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "missing").await?;
    let quick = BatchJobSpec::new(Task::quick().template());
    let named = |name: &str| BatchJobSpec { queue_name: Some(name.to_owned()), ..quick.clone() };
    test.submit("job", named("reports")).await?;
    test.reason("job", QueuedReason::QueueNotFound).await?;
    let stalled = test.reason("job", StalledReason::QueueNotFound).await?;
    ensure!(jobs::kstatus(&stalled) == jobs::Kstatus::Failed);
    create(&test, "reports", BatchQueueSpec::new()).await?;
    let job = test.completed("job").await?;
    ensure!(!jobs::has(&job, &StalledReason::QueueNotFound), "{:?}", job.status);
    ensure!(jobs::has(&job, &AdmittedReason::Granted), "{:?}", job.status);

    // No dodging of a quota: where there are queues, one has to be named, unless one is the default.
    test.submit("nameless", quick).await?;
    test.reason("nameless", QueuedReason::QueueNameRequired).await?;
    test.reason("nameless", StalledReason::QueueNameRequired).await?;
    create(&test, batch_queue::DEFAULT_QUEUE, BatchQueueSpec::new()).await?;
    let job = test.completed("nameless").await?;
    ensure!(job.status.context("a status")?.queue.as_deref() == Some("default"));
    test.verify()
}

#[tokio::test]
async fn a_job_stays_in_the_queue_that_let_it_start() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "stays").await?;
    test.submit("early", wide(2, None)).await?;
    let early = test.running("early", 2).await?;
    // The built-in queue lets it go on, also with further pods, whatever queue comes.
    create(&test, batch_queue::DEFAULT_QUEUE, with_quota("1", None)).await?;
    ready(&test, "default", ReadyReason::Admitting).await?;
    test.end_pod(&early[0], 1).await?;
    let again = test.running("early", 2).await?;
    test.submit("late", wide(2, None)).await?;
    test.running("late", 2).await?;
    let pods = test.api::<Pod>().list(&ListParams::default()).await?;
    let queue_of = |uid: &str| {
        let pod = pods.items.iter().find(|pod| pod.uid().as_deref() == Some(uid));
        pod.and_then(|pod| pod.labels().get("springtide.dev/queue").cloned())
    };
    for life in &again {
        ensure!(queue_of(&life.uid).as_deref() == Some(""), "{life:?}");
    }
    // Without its queue a job's pods finish, and nothing starts.
    let late = test.running("late", 2).await?;
    ensure!(late.iter().all(|life| queue_of(&life.uid).as_deref() == Some("default")), "{late:?}");
    test.api::<BatchQueue>().delete("default", &DeleteParams::default()).await?;
    test.end_pod(&late[0], 1).await?;
    test.reason("late", QueuedReason::QueueNotFound).await?;
    test.running("late", 1).await?;
    for job in ["early", "late"] {
        test.delete(job).await?;
        test.gone(job).await?;
    }
    test.verify()
}

#[tokio::test]
async fn a_tier_decides_on_class_and_labels_and_waits_for_a_class_that_is_missing() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "tiers").await?;
    let class = format!("low-{}", test.namespace);
    let mut spec = BatchQueueSpec::new();
    spec.tiers = serde_json::from_value(json!([{
        "name": "BestEffort", "priorityClassName": class, "podLabels": {"example.com/qos": "BE"},
    }]))?;
    create(&test, batch_queue::DEFAULT_QUEUE, spec).await?;
    ready(&test, "default", ReadyReason::Stalled(batch_queue::StalledReason::InvalidTier)).await?;
    let of_tier = |tier| BatchJobSpec { tier, ..BatchJobSpec::new(Task::endless().template()) };
    test.submit("low", of_tier(Tier::BestEffort)).await?;
    test.submit("usual", of_tier(Tier::Standard)).await?;
    test.submit("high", of_tier(Tier::Guaranteed)).await?;
    // That tier alone waits; the one above maxTier does in any case.
    test.running("usual", 1).await?;
    test.reason("low", StalledReason::TierNotAllowed).await?;
    let high = test.reason("high", StalledReason::TierNotAllowed).await?;
    ensure!(jobs::has(&high, &QueuedReason::TierNotAllowed), "{:?}", high.status);
    let classes: Api<PriorityClass> = Api::all(cluster.client("springtide-test")?);
    let object: PriorityClass = serde_json::from_value(json!({"metadata": {"name": class}, "value": -10}))?;
    classes.create(&PostParams::default(), &object).await?;
    test.running("low", 1).await?;
    ready(&test, "default", ReadyReason::Admitting).await?;
    let pods = test.api::<Pod>().list(&ListParams::default().labels("springtide.dev/job=low")).await?;
    let pod = pods.items.first().context("a pod")?;
    ensure!(pod.spec.as_ref().context("a spec")?.priority_class_name.as_deref() == Some(class.as_str()));
    let labels: BTreeMap<_, _> = pod.labels().clone();
    for (label, value) in [
        ("example.com/qos", "BE"),
        ("springtide.dev/queue", "default"),
        ("springtide.dev/tier", "BestEffort"),
    ] {
        ensure!(labels.get(label).map(String::as_str) == Some(value), "{labels:?}");
    }
    edit(&test, "default", json!({"spec": {"maxTier": "Guaranteed"}})).await?;
    test.running("high", 1).await?;
    for job in ["low", "usual", "high"] {
        test.delete(job).await?;
        test.gone(job).await?;
    }
    classes.delete(&class, &DeleteParams::default()).await?;
    test.verify()
}

#[tokio::test]
async fn a_queue_on_hold_starts_nothing_and_a_drained_one_ends_what_runs() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "stopped").await?;
    create(&test, batch_queue::DEFAULT_QUEUE, BatchQueueSpec::new()).await?;
    // A job that the manager sees first stays in the built-in queue.
    ready(&test, "default", ReadyReason::Admitting).await?;
    test.submit("running", wide(1, None)).await?;
    let first = test.running("running", 1).await?;
    edit(&test, "default", json!({"spec": {"stopPolicy": "Hold"}})).await?;
    ready(&test, "default", ReadyReason::Held).await?;
    test.submit("late", wide(1, None)).await?;
    test.reason("late", QueuedReason::QueueStopped).await?;
    ensure!(test.running("running", 1).await?[0].uid == first[0].uid, "Hold lets pods finish");
    edit(&test, "default", json!({"spec": {"stopPolicy": "Drain"}})).await?;
    let job = test.reason("running", SuspendedReason::QueueStopped).await?;
    test.no_pods("running").await?;
    test.reason("running", CompleteReason::Suspended).await?;
    ready(&test, "default", ReadyReason::Drained).await?;
    ensure!(job.status.context("a status")?.failed == 0);
    ensure!(test.pods.now().of("late").is_empty(), "it has never started");
    edit(&test, "default", json!({"spec": {"stopPolicy": "None"}})).await?;
    test.running("running", 1).await?;
    test.running("late", 1).await?;
    test.reason("running", SuspendedReason::Resumed).await?;
    for job in ["running", "late"] {
        test.delete(job).await?;
        test.gone(job).await?;
    }
    test.verify()
}

#[tokio::test]
async fn queues_of_a_cohort_lend_what_they_do_not_use() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "cohort").await?;
    for name in ["lender", "borrower", "stranger"] {
        let cohort = (name != "stranger").then(|| "idle".to_owned());
        create(&test, name, BatchQueueSpec { cohort, ..with_quota("500m", Some("1")) }).await?;
    }
    test.submit("borrows", wide(3, Some("borrower"))).await?;
    test.running("borrows", 2).await?;
    queue(&test, "borrower", "that it borrows", |queue| {
        let status = queue.status.as_ref();
        status.is_some_and(|status| status.borrowed.get("cpu") == Some(&Quantity::new("500m")))
    })
    .await?;
    // Alone there is nobody to lend.
    test.submit("alone", wide(2, Some("stranger"))).await?;
    test.running("alone", 1).await?;
    test.reason("alone", QueuedReason::QuotaExceeded).await?;
    for job in ["borrows", "alone"] {
        test.delete(job).await?;
        test.gone(job).await?;
    }
    test.verify()
}

#[tokio::test]
async fn jobs_run_on_the_resources_that_an_agent_offers_and_on_no_more_of_them() -> Result<()> {
    const CPU: &str = "kubernetes.io/batch-cpu";
    const MEMORY: &str = "kubernetes.io/batch-memory";
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "agent").await?;
    let kwok = cluster.kwok().context("KWOK")?;
    let node = kwok.add_nodes(cluster, &pool("agent", 1, "32", 110)).await?.remove(0);
    let nodes: Api<Node> = Api::all(cluster.client("springtide-test")?);
    let offer = async |millis: &str| {
        let amounts = json!({CPU: millis, MEMORY: "1Gi"});
        let status = json!({"status": {"allocatable": amounts, "capacity": amounts}});
        nodes.patch_status(&node, &PatchParams::default(), &Patch::Merge(status)).await
    };
    offer("1000").await?;
    let spec = BatchQueueSpec {
        capacity_source: serde_json::from_value(json!({
            "type": "ExtendedResource", "nodeSelector": {"matchLabels": {POOL: "agent"}},
        }))?,
        tiers: serde_json::from_value(json!([
            {"name": "BestEffort", "resourceNames": {"cpu": CPU, "memory": MEMORY}},
        ]))?,
        ..BatchQueueSpec::new()
    };
    open(&test, "colocated", spec).await?;
    let task = Task { cpu: "500m".into(), ..Task::endless().on("agent") };
    let three = wide(3, Some("colocated"));
    test.submit("job", BatchJobSpec { template: task.template(), ..three }).await?;
    let running = test.running("job", 2).await?;
    test.reason("job", QueuedReason::NoCapacity).await?;
    ensure!(test.pods.now().of("job").len() == 2, "a pod beyond what is offered");
    for life in &running {
        let pod = test.api::<Pod>().get(&life.name).await?;
        let resources = pod.spec.context("a spec")?.containers.remove(0).resources.context("resources")?;
        // The node has cpu and memory in plenty, of which the pods take none.
        let requests = json!({CPU: "500", MEMORY: "64Mi"});
        ensure!(json!(resources.requests) == requests && resources.limits.is_none(), "{resources:?}");
    }
    offer("1500").await?;
    test.running("job", 3).await?;
    test.delete("job").await?;
    test.gone("job").await?;
    test.verify()
}

#[tokio::test]
async fn a_queue_says_how_long_finished_jobs_stay_and_how_many() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "retention").await?;
    let keep = |ttl_seconds_after_finished, history_limit| BatchQueueSpec {
        retention: Retention { ttl_seconds_after_finished, history_limit, ..Retention::default() },
        ..BatchQueueSpec::new()
    };
    create(&test, "brief", keep(1, 100)).await?;
    create(&test, "few", keep(3600, 2)).await?;
    let quick = |queue: &str| BatchJobSpec {
        queue_name: Some(queue.to_owned()),
        ..BatchJobSpec::new(Task::quick().template())
    };
    test.submit("brief", quick("brief")).await?;
    test.submit("own", BatchJobSpec { ttl_seconds_after_finished: Some(3600), ..quick("brief") }).await?;
    test.completed("own").await?;
    test.gone("brief").await?;
    for number in 0..4 {
        let name = format!("few-{number}");
        test.submit(&name, quick("few")).await?;
        test.completed(&name).await?;
    }
    // Finished in this order, though two may have ended in the same second.
    test.jobs
        .until("the two newest are left", |jobs| {
            let left = (0..4).filter(|number| jobs.get(&format!("few-{number}")).is_some()).count();
            (left == 2).then_some(())
        })
        .await?;
    ensure!(test.listed().await?.iter().any(|name| name == "own"), "the job's own word counts");
    test.verify()
}

#[tokio::test]
async fn the_status_of_a_queue_is_written_seldom_and_reads_well() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "status").await?;
    let began = std::time::Instant::now();
    create(&test, batch_queue::DEFAULT_QUEUE, with_quota("4", None)).await?;
    let fresh = test.api::<BatchQueue>().get("default").await?;
    ensure!(fresh.status.is_some(), "a status before anybody wrote one");
    ready(&test, "default", ReadyReason::Admitting).await?;
    let spec = BatchJobSpec::new(Task::quick().template());
    test.submit_many("job", 60, &spec).await?;
    for number in 0..60 {
        test.completed(&format!("job-{number}")).await?;
    }
    queue(&test, "default", "nothing left in it", |queue| {
        let status = queue.status.as_ref();
        status.is_some_and(|status| {
            (status.pending_jobs, status.admitted_jobs, status.running_pods) == (0, 0, 0)
        })
    })
    .await?;
    let writes = test.requests()?.writes().of_resource("batchqueues/status");
    let most = 2 + began.elapsed().as_secs() / 5;
    ensure!(writes.requests().len() as u64 <= most, "at most {most}:\n{writes}");
    let table = test.kubectl(&["get", "bq"]).await?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(rows[0] == ["NAME", "READY", "COHORT", "PENDING", "RUNNING", "WINDOW", "AGE"], "{table}");
    ensure!(rows[1][..4] == ["default", "Admitting", "0", "0"], "{table}");
    test.verify()
}
