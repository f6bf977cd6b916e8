//! Who goes first when there is not room for all: tiers, priorities and lenders, seen by those whose pods end and by
//! those for whom they do; and pods that wait for a node that is still to come. On a real control plane with pods that
//! KWOK plays. All tests share one cluster and one manager; each has a namespace.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use springtide_crds::batch_job::{
    AdmittedReason, BatchJobSpec, CompleteReason, DegradedReason, QueuedReason, SuspendedReason,
};
use springtide_crds::batch_queue::{self, BatchQueue, BatchQueueSpec};
use springtide_crds::common::Tier;
use springtide_e2e::batch::queues::open;
use springtide_e2e::batch::{Task, Testbed, next_second, pool, shared};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::oracle::jobs;

/// A queue of so many CPUs, whose lower tiers yield to the highest, and each tier to its higher priorities.
fn yielding(cpu: &str, min_run_seconds: u32) -> Result<BatchQueueSpec> {
    let of = |name: &str, by: &[&str]| json!({"name": name, "preemptible": {"by": by, "minRunSeconds": min_run_seconds}});
    Ok(BatchQueueSpec {
        quota: serde_json::from_value(json!([{"resource": "cpu", "nominal": cpu}]))?,
        max_tier: Tier::Guaranteed,
        tiers: serde_json::from_value(json!([
            of("BestEffort", &["BestEffort", "Guaranteed"]),
            of("Standard", &["Standard", "Guaranteed"]),
        ]))?,
        ..BatchQueueSpec::new()
    })
}

/// A job of a tier whose tasks take half a core each and do not end by themselves.
fn job(tier: Tier, tasks: u32) -> BatchJobSpec {
    let task = Task { cpu: "500m".into(), ..Task::endless() };
    BatchJobSpec { tier, completions: tasks, parallelism: tasks, ..BatchJobSpec::new(task.template()) }
}

async fn edit(test: &Testbed<'_>, name: &str, change: Value) -> Result<()> {
    test.api::<BatchQueue>().patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    Ok(())
}

async fn end(test: &Testbed<'_>, names: &[&str]) -> Result<()> {
    for name in names {
        test.delete(name).await?;
        test.gone(name).await?;
    }
    test.verify()
}

/// Waits for an event on a job.
async fn event(test: &Testbed<'_>, job: &str, reason: &str) -> Result<()> {
    let fields = format!("involvedObject.name={job},reason={reason}");
    let found = async {
        while test.api::<Event>().list(&ListParams::default().fields(&fields)).await?.items.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        Ok::<_, kube::Error>(())
    };
    tokio::time::timeout(PATIENCE, found).await.with_context(|| format!("event {reason} on {job}"))??;
    Ok(())
}

#[tokio::test]
async fn an_elastic_job_of_a_lower_tier_shrinks_for_a_higher_one_and_grows_again() -> Result<()> {
    let test = Testbed::new(shared().await?, "shrinks").await?;
    open(&test, batch_queue::DEFAULT_QUEUE, yielding("1", 0)?).await?;
    test.submit("low", job(Tier::BestEffort, 2)).await?;
    let before = test.running("low", 2).await?;
    // It has no right to the room of its own tier and priority.
    test.submit("equal", job(Tier::BestEffort, 1)).await?;
    test.reason("equal", QueuedReason::QuotaExceeded).await?;
    test.delete("equal").await?;
    test.gone("equal").await?;

    test.submit("high", job(Tier::Guaranteed, 1)).await?;
    let high = test.running("high", 1).await?;
    let left = test.running("low", 1).await?;
    ensure!(before.iter().any(|life| life.uid == left[0].uid), "one goes on: {left:?}");
    let shrunk = test.reason("low", DegradedReason::Reclaimed).await?;
    ensure!(jobs::has(&shrunk, &CompleteReason::Running), "{:?}", shrunk.status);
    event(&test, "low", "Reclaimed").await?;
    test.end_pod(&high[0], 0).await?;
    test.completed("high").await?;
    test.running("low", 2).await?;
    let grown = test.reason("low", DegradedReason::FullParallelism).await?;
    let status = grown.status.context("a status")?;
    ensure!((status.failed, status.disrupted) == (0, 1), "{status:?}");
    end(&test, &["low"]).await
}

#[tokio::test]
async fn a_job_that_loses_its_pod_says_so_waits_at_its_place_and_ends_well() -> Result<()> {
    let test = Testbed::new(shared().await?, "suspended").await?;
    open(&test, batch_queue::DEFAULT_QUEUE, yielding("500m", 0)?).await?;
    test.submit("low", job(Tier::Standard, 1)).await?;
    let before = test.running("low", 1).await?;
    next_second().await;
    test.submit("later", job(Tier::Standard, 1)).await?;
    test.submit("high", job(Tier::Guaranteed, 1)).await?;
    let high = test.running("high", 1).await?;
    test.reason("low", SuspendedReason::Preempted).await?;
    let waiting = test.reason("low", AdmittedReason::Preempted).await?;
    ensure!(jobs::has(&waiting, &CompleteReason::Queued), "{:?}", waiting.status);
    ensure!(jobs::has(&waiting, &QueuedReason::QuotaExceeded), "{:?}", waiting.status);
    ensure!(jobs::kstatus(&waiting) == jobs::Kstatus::InProgress);
    event(&test, "low", "Preempted").await?;
    // Nobody does anything, and it goes before who has come after it.
    test.end_pod(&high[0], 0).await?;
    let again = test.running_again(&before[0]).await?;
    let resumed = test.reason("low", SuspendedReason::Resumed).await?;
    ensure!(resumed.status.context("a status")?.suspended_seconds == 0, "its deadlines do not stand still");
    ensure!(test.pods.now().of("later").is_empty());
    test.end_pod(&again, 0).await?;
    let ended = test.completed("low").await?;
    ensure!(ended.status.context("a status")?.failed == 0);
    test.running("later", 1).await?;
    end(&test, &["later"]).await
}

#[tokio::test]
async fn a_higher_priority_of_the_tier_goes_first_and_the_youngest_yields() -> Result<()> {
    let test = Testbed::new(shared().await?, "priority").await?;
    open(&test, batch_queue::DEFAULT_QUEUE, yielding("1", 0)?).await?;
    for name in ["old", "young"] {
        test.submit(name, job(Tier::Standard, 1)).await?;
        test.running(name, 1).await?;
        next_second().await;
    }
    test.submit("urgent", BatchJobSpec { priority: 5, ..job(Tier::Standard, 1) }).await?;
    test.running("urgent", 1).await?;
    test.reason("young", AdmittedReason::Preempted).await?;
    test.running("old", 1).await?;
    // What waits becomes urgent itself by an edit.
    test.edit("young", json!({"spec": {"priority": 6}})).await?;
    test.running("young", 1).await?;
    test.reason("old", AdmittedReason::Preempted).await?;
    end(&test, &["young", "urgent", "old"]).await
}

#[tokio::test]
async fn pods_are_left_alone_for_as_long_as_their_tier_is_promised() -> Result<()> {
    let test = Testbed::new(shared().await?, "promised").await?;
    open(&test, batch_queue::DEFAULT_QUEUE, yielding("500m", 3600)?).await?;
    test.submit("low", job(Tier::BestEffort, 1)).await?;
    let before = test.running("low", 1).await?;
    test.submit("high", job(Tier::Guaranteed, 1)).await?;
    test.reason("high", QueuedReason::QuotaExceeded).await?;
    ensure!(test.running("low", 1).await?[0].uid == before[0].uid);
    let none = yielding("500m", 0)?;
    edit(&test, batch_queue::DEFAULT_QUEUE, json!({"spec": {"tiers": none.tiers}})).await?;
    test.running("high", 1).await?;
    test.reason("low", SuspendedReason::Preempted).await?;
    end(&test, &["high", "low"]).await
}

#[tokio::test]
async fn a_lender_has_back_what_it_needs_and_the_borrower_goes_on_with_its_own() -> Result<()> {
    let test = Testbed::new(shared().await?, "lender").await?;
    for name in ["lender", "borrower"] {
        let quota = serde_json::from_value(json!([{"resource": "cpu", "nominal": "500m", "max": "1"}]))?;
        open(&test, name, BatchQueueSpec { cohort: Some("idle".to_owned()), quota, ..BatchQueueSpec::new() })
            .await?;
    }
    let of =
        |queue: &str, tier, tasks| BatchJobSpec { queue_name: Some(queue.to_owned()), ..job(tier, tasks) };
    // The tier of the one is nothing to the other.
    test.submit("loan", of("borrower", Tier::Standard, 2)).await?;
    test.running("loan", 2).await?;
    test.submit("own", of("lender", Tier::BestEffort, 2)).await?;
    let own = test.running("own", 1).await?;
    test.reason("loan", DegradedReason::Reclaimed).await?;
    test.running("loan", 1).await?;
    test.reason("own", QueuedReason::QuotaExceeded).await?;
    // What the lender does not need is lent again.
    test.edit("own", json!({"spec": {"stopPolicy": "Hold"}})).await?;
    test.end_pod(&own[0], 0).await?;
    test.running("loan", 2).await?;
    test.reason("loan", DegradedReason::FullParallelism).await?;
    end(&test, &["own", "loan"]).await
}

#[tokio::test]
async fn many_pods_may_go_for_one_that_is_entitled() -> Result<()> {
    let test = Testbed::new(shared().await?, "many").await?;
    open(&test, batch_queue::DEFAULT_QUEUE, yielding("8", 0)?).await?;
    test.submit("low", job(Tier::BestEffort, 16)).await?;
    test.running("low", 16).await?;
    // More at once than may be deleted in a namespace without a warrant.
    test.submit("gang", BatchJobSpec { min_parallelism: 16, ..job(Tier::Guaranteed, 16) }).await?;
    test.running("gang", 16).await?;
    test.reason("low", AdmittedReason::Preempted).await?;
    test.delete("gang").await?;
    test.gone("gang").await?;
    test.running("low", 16).await?;
    end(&test, &["low"]).await
}

#[tokio::test]
async fn a_pod_that_fits_nowhere_is_shown_and_a_new_node_takes_it() -> Result<()> {
    let cluster = shared().await?;
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool("grows", 1, "1", 110)).await?;
    let test = Testbed::new(cluster, "grows").await?;
    let spec = json!({"capacitySource": {"maxPendingPods": 1}});
    open(&test, batch_queue::DEFAULT_QUEUE, serde_json::from_value(spec)?).await?;
    let task = Task { cpu: "1".into(), ..Task::endless().on("grows") };
    let wide = BatchJobSpec { completions: 3, parallelism: 3, ..BatchJobSpec::new(task.template()) };
    test.submit("job", wide).await?;
    let shown = test
        .pods
        .until("a pod that is not scheduled", |pods| {
            pods.of("job").into_iter().find(|life| life.unschedulable).cloned()
        })
        .await?;
    test.running("job", 1).await?;
    // One at a time, of all jobs of the queue together.
    next_second().await;
    test.submit("late", BatchJobSpec::new(task.template())).await?;
    test.reason("late", QueuedReason::NoCapacity).await?;
    ensure!(test.pods.now().of("late").is_empty());
    ensure!(test.pods.now().of("job").len() == 2);
    // As a node autoscaler would.
    let mut more = pool("grows", 1, "2", 110);
    more.name = "grows-more".into();
    kwok.add_nodes(cluster, &more).await?;
    let running = test.running("job", 3).await?;
    ensure!(
        running.iter().any(|life| life.uid == shown.uid),
        "the pod that was shown runs there: {running:?}"
    );
    for life in &running {
        test.end_pod(life, 0).await?;
    }
    test.completed("job").await?;
    test.running("late", 1).await?;
    end(&test, &["late"]).await
}
