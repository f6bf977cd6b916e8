//! Pods exist only when they fit, and capacity is what the nodes have now.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJob, BatchJobSpec, CompletionMode, QueuedReason, StalledReason};
use springtide_e2e::batch::{Task, Testbed, pool, shared};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::oracle::jobs;
use springtide_e2e::oracle::pods::Life;

async fn add_pool(cluster: &LocalCluster, name: &str, count: usize, cpu: &str) -> Result<()> {
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool(name, count, cpu, 110)).await?;
    Ok(())
}

async fn edit_node(cluster: &LocalCluster, name: &str, change: Value) -> Result<()> {
    let nodes: Api<Node> = Api::all(cluster.client("springtide-test")?);
    nodes.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    Ok(())
}

fn wide(completions: u32, task: &Task) -> BatchJobSpec {
    BatchJobSpec {
        completions,
        parallelism: completions,
        completion_mode: CompletionMode::Indexed,
        ..BatchJobSpec::new(task.template())
    }
}

/// There were never more pods than slots for them, and each pod got a node. That the scheduler never said it had none is not
/// asked for: it may hear of a slot that became free, or of a new node, after the manager.
fn always_fitted(test: &Testbed<'_>, slots: usize) {
    let pods = test.pods.now();
    assert!(pods.most_at_once() <= slots, "{} pods at once", pods.most_at_once());
    let homeless: Vec<_> = pods.all().filter(|life| life.node.is_none()).collect();
    assert!(homeless.is_empty(), "no node for {homeless:?}");
}

#[tokio::test]
async fn more_work_than_fits_waits_without_pods() -> Result<()> {
    let cluster = shared().await?;
    add_pool(cluster, "tight", 2, "1").await?;
    let test = Testbed::new(cluster, "tight").await?;
    let task = Task { cpu: "500m".into(), ..Task::endless().on("tight") };
    test.submit("job", wide(9, &task)).await?;
    let mut running = test.running("job", 4).await?;
    test.submit("late", wide(1, &task)).await?;
    let waiting = test.reason("late", QueuedReason::NoCapacity).await?;
    assert!(test.pods.now().of("late").is_empty());
    assert_eq!(waiting.status.context("status")?.active, 0);
    // A pod of somebody else takes a slot that becomes free: nothing starts in its place.
    let foreign: Pod = serde_json::from_value(json!({
        "metadata": {"name": "foreign", "annotations": {"kwok.springtide.dev/run-seconds": "never"}},
        "spec": {
            "nodeName": running[0].node,
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "example.com/task:1", "resources": {"requests": {"cpu": "500m"}}}],
        },
    }))?;
    test.api::<Pod>().create(&PostParams::default(), &foreign).await?;
    test.end_pod(&running[0], 0).await?;
    running = test.running("job", 3).await?;
    test.job("job", "one succeeded", |job| job.status.as_ref().is_some_and(|status| status.succeeded == 1))
        .await?;
    assert_eq!(test.pods.now().of("job").len(), 4, "a pod was made without a slot");
    test.api::<Pod>().delete("foreign", &DeleteParams::default().grace_period(0)).await?;
    // Whenever a slot is free another pod starts in it.
    while test.jobs.now().finished() < 2 {
        for life in &running {
            test.end_pod(life, 0).await?;
        }
        let old: Vec<String> = running.iter().map(|life| life.uid.clone()).collect();
        running = test
            .pods
            .until("further pods, or the end", |pods| {
                let new = pods.all().filter(|life| life.is_running() && !old.contains(&life.uid));
                let new: Vec<_> = new.cloned().collect();
                (!new.is_empty() || test.jobs.now().finished() == 2).then_some(new)
            })
            .await?;
    }
    test.completed("job").await?;
    test.completed("late").await?;
    assert_eq!(test.pods.now().most_active("job"), 4);
    test.pods.now().exactly_one_run("job", 9)?;
    always_fitted(&test, 4);
    test.verify()
}

#[tokio::test]
async fn a_task_larger_than_any_node_is_stalled_until_a_larger_one_comes() -> Result<()> {
    let cluster = shared().await?;
    add_pool(cluster, "small", 1, "1").await?;
    let test = Testbed::new(cluster, "never-fits").await?;
    let task = Task { cpu: "4".into(), ..Task::quick().on("small") };
    test.submit("job", BatchJobSpec::new(task.template())).await?;
    test.reason("job", QueuedReason::NeverFits).await?;
    let stalled = test.reason("job", StalledReason::NeverFits).await?;
    assert_eq!(jobs::kstatus(&stalled), jobs::Kstatus::Failed);
    assert!(test.pods.now().of("job").is_empty());
    let kwok = cluster.kwok().context("KWOK")?;
    let mut larger = pool("small", 1, "8", 110);
    larger.name = "small-no-more".into();
    kwok.add_nodes(cluster, &larger).await?;
    let job = test.completed("job").await?;
    assert!(!jobs::has(&job, &StalledReason::NeverFits), "{:?}", job.status);
    always_fitted(&test, 1);
    test.verify()
}

#[tokio::test]
async fn capacity_follows_nodes_that_are_cordoned_added_and_removed() -> Result<()> {
    let cluster = shared().await?;
    add_pool(cluster, "moving", 2, "1").await?;
    let test = Testbed::new(cluster, "moving").await?;
    edit_node(cluster, "moving-1", json!({"spec": {"unschedulable": true}})).await?;
    // Jobs come to the manager by another watch than nodes: when it knows a node that is newer, it knows of this.
    add_pool(cluster, "newer", 1, "1").await?;
    let known = Testbed::new(cluster, "newer").await?;
    known.submit("job", BatchJobSpec::new(Task::quick().on("newer").template())).await?;
    known.completed("job").await?;
    let task = Task { cpu: "1".into(), ..Task::endless().on("moving") };
    test.submit("job", wide(4, &task)).await?;
    let first = test.running("job", 1).await?;
    assert_eq!(first[0].node.as_deref(), Some("moving-0"));
    assert_eq!(test.pods.now().most_at_once(), 1, "a pod for a node that is cordoned");
    edit_node(cluster, "moving-1", json!({"spec": {"unschedulable": false}})).await?;
    test.running("job", 2).await?;
    assert_eq!(test.pods.now().most_at_once(), 2, "a pod without a node");
    let mut third = pool("moving", 1, "1", 110);
    third.name = "moving-third".into();
    cluster.kwok().context("KWOK")?.add_nodes(cluster, &third).await?;
    let three = test.running("job", 3).await?;
    // The node goes. After a quarantine of 40 s Kubernetes collects its pod, as one that no kubelet will tell of.
    let nodes: Api<Node> = Api::all(cluster.client("springtide-test")?);
    nodes.delete("moving-third-0", &DeleteParams::default()).await?;
    let lost = three.iter().find(|life| life.node.as_deref() == Some("moving-third-0")).context("its pod")?;
    let is_collected = |life: &&Life| life.uid == lost.uid && life.gone.is_some();
    let collected = test
        .pods
        .until("the end of the pod of the node that is gone", |pods| pods.all().find(is_collected).cloned())
        .await?;
    assert!(collected.disrupted, "the collector marks it before it takes it: {collected:?}");
    let two = test.running("job", 2).await?;
    for life in &two {
        test.end_pod(life, 0).await?;
    }
    for life in test.running("job", 2).await? {
        test.end_pod(&life, 0).await?;
    }
    let status = test.completed("job").await?.status.context("status")?;
    assert_eq!((status.succeeded, status.failed, status.disrupted), (4, 0, 1));
    always_fitted(&test, 3);
    test.verify()
}

#[tokio::test]
async fn a_gang_starts_together_or_not_at_all() -> Result<()> {
    let cluster = shared().await?;
    add_pool(cluster, "gang", 3, "1").await?;
    let test = Testbed::new(cluster, "gang").await?;
    let task = Task { cpu: "1".into(), ..Task::endless().on("gang") };
    let spec = BatchJobSpec { min_parallelism: 4, ..wide(4, &task) };
    test.submit("gang", spec).await?;
    // Smaller work passes it by, and shows that the gang was looked at.
    test.submit("solo", BatchJobSpec { priority: -1, ..BatchJobSpec::new(task.template()) }).await?;
    let solo = test.running("solo", 1).await?;
    test.end_pod(&solo[0], 0).await?;
    test.completed("solo").await?;
    assert!(test.pods.now().of("gang").is_empty(), "a gang that does not fit has no pod");
    let mut fourth = pool("gang", 1, "1", 110);
    fourth.name = "gang-fourth".into();
    cluster.kwok().context("KWOK")?.add_nodes(cluster, &fourth).await?;
    for life in test.running("gang", 4).await? {
        test.end_pod(&life, 0).await?;
    }
    test.completed("gang").await?;
    always_fitted(&test, 4);
    test.verify()
}

#[tokio::test]
async fn a_higher_priority_goes_first() -> Result<()> {
    let cluster = shared().await?;
    add_pool(cluster, "single", 1, "1").await?;
    let test = Testbed::new(cluster, "priority").await?;
    let task = Task { cpu: "1".into(), ..Task::endless().on("single") };
    let spec = |priority| BatchJobSpec { priority, ..BatchJobSpec::new(task.template()) };
    test.submit("blocker", spec(0)).await?;
    let blocker = test.running("blocker", 1).await?;
    test.submit("low", spec(-5)).await?;
    test.submit("middle", spec(0)).await?;
    test.submit("high", spec(5)).await?;
    let seen = |job: &BatchJob| job.status.as_ref().is_some_and(|status| status.observed_generation > 0);
    for name in ["low", "middle", "high"] {
        test.job(name, "it is seen", seen).await?;
    }
    test.end_pod(&blocker[0], 0).await?;
    for name in ["high", "middle", "low"] {
        test.end_pod(&test.running(name, 1).await?[0], 0).await?;
    }
    let order: Vec<String> = {
        let pods = test.pods.now();
        let mut lives: Vec<_> = pods.all().collect();
        lives.sort_by_key(|life| life.created);
        lives.iter().map(|life| life.job.clone()).collect()
    };
    assert_eq!(order, ["blocker", "high", "middle", "low"]);
    always_fitted(&test, 1);
    test.verify()
}
