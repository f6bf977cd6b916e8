//! Load triggers and capacity by measured use, on a real node with a metrics server: the load that counts is that of pods
//! which really hold memory and keep processors busy.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::Request;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJobSpec, Interruption, PodTemplate, QueuedReason, SuspendedReason};
use springtide_crds::batch_queue::{
    BatchQueue, BatchQueueSpec, CapacityStaleReason, PeakWindowActiveReason, ReadyReason,
};
use springtide_crds::common::{ConditionStatus, Tier, condition};
use springtide_crds::reason::Reason;
use springtide_crds::samples::batch_queues;
use springtide_e2e::batch::Testbed;
use springtide_e2e::batch::queues::{create, edit, events_tell, open, queue, says};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::node::metrics_server::MetricsServer;
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::{polling, rights};

const QUEUE: &str = "default";
const ALL_NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
/// A measure is taken every 15 seconds.
const BOUND: Duration = Duration::from_secs(120);

/// Tasks that hold a little memory and do not end by themselves.
fn tasks(count: u32, tier: Tier) -> BatchJobSpec {
    let container = json!({
        "name": "main", "image": BOX_IMAGE, "args": ["sleep", "100000"],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    });
    BatchJobSpec {
        completions: count,
        parallelism: count,
        tier,
        interruption: Interruption { grace_seconds: 2, ..Interruption::default() },
        ..BatchJobSpec::new(PodTemplate(
            json!({"spec": {"containers": [container]}}).as_object().unwrap().clone(),
        ))
    }
}

/// An amount of memory as the API has it, in bytes.
fn bytes(quantity: &str) -> u64 {
    let digits = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &quantity[digits.len()..] {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        other => panic!("{other} is no unit of memory that a node or a metrics server uses"),
    };
    digits.parse::<u64>().unwrap() * unit
}

/// What the node may give to pods.
async fn allocatable(plane: &LocalCluster) -> Result<BTreeMap<String, Quantity>> {
    let nodes = Api::<Node>::all(plane.client("springtide-test")?).list(&ListParams::default()).await?;
    let node = nodes.items.into_iter().next().context("a node")?;
    node.status.context("a status")?.allocatable.context("allocatable")
}

/// Its processors, where the last may be a part of one.
async fn processors(plane: &LocalCluster) -> Result<u64> {
    let cpu = allocatable(plane).await?["cpu"].0.clone();
    let millis = match cpu.strip_suffix('m') {
        Some(millis) => millis.parse::<u64>()?,
        None => cpu.parse::<u64>()? * 1000,
    };
    Ok(millis.div_ceil(1000))
}

/// How much memory it may give to pods, and how much is in use, as the metrics server says.
async fn memory(plane: &LocalCluster) -> Result<(u64, u64)> {
    let allocatable = bytes(&allocatable(plane).await?["memory"].0);
    let used = bytes(measured(plane).await?["usage"]["memory"].as_str().context("a measure")?);
    Ok((allocatable, used))
}

/// What the metrics server says of the node.
async fn measured(plane: &LocalCluster) -> Result<Value> {
    let client = plane.client("springtide-test")?;
    let mut told: Value = client.request(Request::get(ALL_NODES).body(Vec::new())?).await?;
    Ok(told["items"][0].take())
}

/// The same, after the kernel has dropped its caches where they are most of the machine's memory: a node counts files that
/// were lately read twice, as a build's are, as memory in use.
async fn memory_without_caches(plane: &LocalCluster) -> Result<(u64, u64)> {
    let (allocatable, used) = memory(plane).await?;
    if used <= allocatable / 2 || std::fs::write("/proc/sys/vm/drop_caches", "1").is_err() {
        return Ok((allocatable, used));
    }
    let dropped = Timestamp::now();
    let anew = async || {
        let told = measured(plane).await?;
        let time: Timestamp = told["timestamp"].as_str().context("when it was measured")?.parse()?;
        Ok((time > dropped).then_some(()))
    };
    polling::until(BOUND, "a measure after caches were dropped", anew).await?;
    memory(plane).await
}

/// How much memory a pod has in use, as the metrics server says, if it has measured it.
async fn memory_of(test: &Testbed<'_>, pod: &str) -> Result<Option<u64>> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods/{pod}", test.namespace);
    let client = test.cluster.client("springtide-test")?;
    let told = client.request::<Value>(Request::get(path).body(Vec::new())?).await;
    let told = match told {
        Ok(told) => told,
        Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(told["containers"][0]["usage"]["memory"].as_str().map(bytes))
}

/// A pod that belongs to no job and holds so much memory.
async fn hold(test: &Testbed<'_>, bytes: u64) -> Result<()> {
    online(test, "online", "hold", bytes).await
}

/// The same, which keeps a processor busy where `verb` is "burn".
async fn online(test: &Testbed<'_>, name: &str, verb: &str, bytes: u64) -> Result<()> {
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": BOX_IMAGE, "args": [verb, bytes.to_string(), "100000"]}],
                 "terminationGracePeriodSeconds": 1, "restartPolicy": "Never"},
    });
    test.api::<Pod>().create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    Ok(())
}

fn trigger(high: u64, low: u64, action: &str) -> Value {
    json!({
        "name": "full", "resource": "memory", "highPercent": high, "lowPercent": low, "sustainSeconds": 15,
        "actions": [{"tier": "BestEffort", "action": action}], "resume": {"rampSeconds": 5, "jitterSeconds": 0},
    })
}

/// One that is on whatever else the machine does, where half of its processors are kept busy.
fn busy() -> Value {
    json!({
        "name": "busy", "resource": "cpu", "highPercent": 40, "lowPercent": 20, "sustainSeconds": 10,
        "actions": [{"tier": "BestEffort", "action": "Hold"}],
    })
}

fn ever(test: &Testbed<'_>, job: &str) -> BTreeSet<String> {
    test.pods.now().of(job).into_iter().map(|life| life.uid.clone()).collect()
}

fn message<R: Reason + Copy>(queue: &BatchQueue, reason: &R) -> String {
    let conditions = queue.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|condition| condition.is(*reason)).map(|condition| condition.message.clone()).collect()
}

#[tokio::test]
async fn batch_work_gives_way_to_real_load_comes_back_after_it_and_waits_where_nobody_knows() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let cluster = NodeCluster::builder().start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let metrics = MetricsServer::start(&cluster).await?;
    let manager = rights::manager(plane, "manager").await?;
    let test = Testbed::new(plane, "load").await?;
    let (allocatable, used) = memory_without_caches(plane).await?;
    let percent = used * 100 / allocatable;
    // Far enough from what other programs of the machine do meanwhile.
    let (high, low) = (percent + 16, percent + 12);
    let online_bytes = allocatable * 25 / 100;
    ensure!(percent + 25 < 95, "the machine has no memory to spare: {percent} % are in use");
    let triggers = json!([trigger(high, low, "Hold")]);
    let spec = BatchQueueSpec { load_triggers: serde_json::from_value(triggers)?, ..BatchQueueSpec::new() };
    open(&test, QUEUE, spec).await?;
    test.submit("low", tasks(3, Tier::BestEffort)).await?;
    test.running("low", 3).await?;

    // It holds: what runs goes on, what comes waits, and another tier is not concerned.
    hold(&test, online_bytes).await?;
    // A second trigger comes now, as the machine may be busy before: then nothing would run.
    let burners: Vec<String> =
        (0..processors(plane).await?.div_ceil(2)).map(|number| format!("burner-{number}")).collect();
    for name in &burners {
        online(&test, name, "burn", 0).await?;
    }
    edit(&test, QUEUE, json!({"spec": {"loadTriggers": [trigger(high, low, "Hold"), busy()]}})).await?;
    let on = |queue: &BatchQueue| says(queue, &PeakWindowActiveReason::LoadTrigger);
    // Nobody knows for a while, where the server is slow to measure: that holds as well, but is not it.
    let both = |queue: &BatchQueue| {
        let told = queue.status.as_ref().map(|status| status.active_load_triggers.as_slice());
        on(queue) && told.is_some_and(|told| told == ["full", "busy"])
    };
    let held = queue(&test, QUEUE, "held by the load", both).await?;
    let now = DeleteParams::default().grace_period(0);
    for name in &burners {
        test.api::<Pod>().delete(name, &now).await?;
    }
    ensure!(says(&held, &ReadyReason::Closed), "{:?}", held.status);
    let told = message(&held, &PeakWindowActiveReason::LoadTrigger);
    ensure!(told.starts_with("load trigger full:"), "{told}");
    test.submit("late", tasks(1, Tier::BestEffort)).await?;
    test.submit("usual", tasks(1, Tier::Standard)).await?;
    test.running("usual", 1).await?;
    test.running("low", 3).await?;
    ensure!(ever(&test, "late").is_empty(), "a pod of a held tier has started");
    let waits = |queue: &BatchQueue| {
        let waiting = queue.status.iter().flat_map(|status| &status.waiting);
        waiting.into_iter().any(|class| class.reason == QueuedReason::LoadTrigger.as_str())
    };
    queue(&test, QUEUE, "telling what waits", waits).await?;

    // It drains, as soon as that is what the trigger says: its state stays. The other one is not there any more.
    let before = ever(&test, "low");
    edit(&test, QUEUE, json!({"spec": {"loadTriggers": [trigger(high, low, "Drain")]}})).await?;
    test.no_pods("low").await?;
    let job = test.reason("low", SuspendedReason::PeakWindow).await?;
    ensure!(job.status.context("a status")?.failed == 0, "what was drained has not failed");
    ensure!(ever(&test, "low") == before && ever(&test, "late").is_empty(), "a pod has started");
    test.running("usual", 1).await?;

    // The load goes, and all come back.
    test.api::<Pod>().delete("online", &now).await?;
    queue(&test, QUEUE, "open again", |queue| says(queue, &PeakWindowActiveReason::Idle)).await?;
    test.running("low", 3).await?;
    test.running("late", 1).await?;
    events_tell(&test, &["LoadTrigger", "Idle"]).await?;

    // Nobody knows the load: nothing of the tier starts, and nothing is ended.
    metrics.stop()?;
    let blind = queue(&test, QUEUE, "held as nobody knows", on).await?;
    let told = message(&blind, &PeakWindowActiveReason::LoadTrigger);
    ensure!(told.contains("metrics.k8s.io tells nothing new"), "{told}");
    test.submit("later", tasks(1, Tier::BestEffort)).await?;
    test.submit("usual-later", tasks(1, Tier::Standard)).await?;
    test.running("usual-later", 1).await?;
    test.running("low", 3).await?;
    ensure!(ever(&test, "later").is_empty(), "a pod of a held tier has started");
    // Another manager holds as well.
    manager.stop()?;
    let second = rights::manager(plane, "second").await?;
    let metrics = MetricsServer::start(&cluster).await?;
    test.running("later", 1).await?;
    queue(&test, QUEUE, "open again", |queue| says(queue, &PeakWindowActiveReason::Idle)).await?;
    for job in ["low", "late", "later", "usual", "usual-later"] {
        test.delete(job).await?;
        test.gone(job).await?;
    }
    second.stop()?;
    metrics.stop()?;
    rights::nothing_forbidden(plane)?;
    test.verify()?;
    drop(test);
    cluster.stop()
}

#[tokio::test]
async fn capacity_by_metrics_follows_what_is_used_and_grants_nothing_without_a_measure() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let cluster = NodeCluster::builder().start().await?;
    let plane = cluster.control_plane();
    plane.install_crds().await?;
    let manager = rights::manager(plane, "manager").await?;
    let test = Testbed::new(plane, "measured").await?;
    let source = json!({"type": "NodeMetrics"});
    let spec = BatchQueueSpec { capacity_source: serde_json::from_value(source)?, ..BatchQueueSpec::new() };
    create(&test, QUEUE, spec).await?;
    let old = |queue: &BatchQueue| says(queue, &CapacityStaleReason::MetricsOld);
    let unknown = queue(&test, QUEUE, "without a measure", old).await?;
    ensure!(says(&unknown, &ReadyReason::CapacityStale), "{:?}", unknown.status);
    test.submit("first", tasks(1, Tier::Standard)).await?;
    test.reason("first", QueuedReason::CapacityStale).await?;
    ensure!(ever(&test, "first").is_empty(), "a pod has started without a measure");

    let metrics = MetricsServer::start(&cluster).await?;
    test.running("first", 1).await?;
    let capacity = |queue: &BatchQueue| {
        let status = queue.status.as_ref()?;
        Some(bytes(status.capacity.get("memory")?.as_str()))
    };
    let known = |queue: &BatchQueue| {
        says(queue, &CapacityStaleReason::Fresh) && capacity(queue).is_some_and(|bytes| bytes > 0)
    };
    let free = queue(&test, QUEUE, "measured", known).await?;
    let before = capacity(&free).context("a capacity")?;
    // So does the one of the samples, whatever its triggers say.
    let sample = batch_queues().into_iter().find(|sample| sample.file == "batchqueue-load").context("it")?;
    let sample: BatchQueue = serde_json::from_value(sample.object)?;
    create(&test, "sample", sample.spec).await?;
    let is_ready = |queue: &BatchQueue| {
        let status = queue.status.as_ref();
        let ready = status.and_then(|status| condition(&status.conditions, ReadyReason::CONDITION));
        says(queue, &CapacityStaleReason::Fresh)
            && ready.is_some_and(|ready| ready.status == ConditionStatus::True)
    };
    queue(&test, "sample", "the sample is ready", is_ready).await?;
    let (allocatable, used) = memory_without_caches(plane).await?;
    ensure!(before < allocatable, "the machine itself uses memory that nobody requests");
    // A pod that requests nothing takes from it all the same. Other programs of the machine take and give back
    // meanwhile: what is left is compared with what the server measured, and the pod holds four times the tolerance.
    let online = allocatable / 8;
    ensure!(used + online < allocatable * 9 / 10, "the machine has no memory to spare: {used} B are in use");
    hold(&test, online).await?;
    let agrees = async || {
        if memory_of(&test, "online").await?.is_none_or(|used| used < online) {
            return Ok(None);
        }
        let left = capacity(&queue(&test, QUEUE, "measured", known).await?).context("a capacity")?;
        let (_, used) = memory(plane).await?;
        Ok((left.abs_diff(allocatable.saturating_sub(used)) <= online / 4).then_some(()))
    };
    polling::until(BOUND, "a capacity that is what the server measures as unused", agrees).await?;

    metrics.stop()?;
    queue(&test, QUEUE, "without a fresh measure", old).await?;
    test.submit("second", tasks(1, Tier::Standard)).await?;
    test.reason("second", QueuedReason::CapacityStale).await?;
    test.running("first", 1).await?;
    ensure!(ever(&test, "second").is_empty(), "a pod has started on an old measure");
    for job in ["first", "second"] {
        test.delete(job).await?;
        test.gone(job).await?;
    }
    manager.stop()?;
    rights::nothing_forbidden(plane)?;
    test.verify()?;
    drop(test);
    cluster.stop()
}
