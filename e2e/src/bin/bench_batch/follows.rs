//! How soon capacity follows nodes that come, are cordoned and are uncordoned (kueue#3210), and how soon a job is told
//! of that names a queue which is not there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::wait::await_condition;
use kube::runtime::watcher::{Config, Event, watcher};
use serde::{Deserialize, Serialize};
use serde_json::json;
use springtide_crds::batch_job::{BatchJob, StalledReason};
use springtide_e2e::batch::{self, pool};
use springtide_e2e::bench::stats::sorted;
use springtide_e2e::bench::{STRATEGIC, post};
use springtide_e2e::kwok::{NodeSpec, usable};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::generator::Generator;
use crate::load;
use crate::manifests::{self, System, Task};
use crate::watcher::{Jobs, Seen, Watcher};

/// How often each thing is measured.
pub(crate) const TRIES: usize = 10;
/// Label and names of the nodes, each of which has room for one pod.
const POOL: &str = "follows";
/// Jobs that wait for them: one for the first node, and one for each time that a node takes pods, with some to spare.
const JOBS: usize = 2 * TRIES + 5;
const PREFIX: &str = "follows-";
/// Jobs on a queue that is not there, and its name.
const LOST: &str = "lost-";
const MISSING: &str = "missing";
/// From the cordon of a node to the end of its pod: by then the manager is to know.
pub(crate) const FOLLOWED: Duration = Duration::from_secs(1);
/// From then on, with nothing that may start.
pub(crate) const QUIET: Duration = Duration::from_secs(3);
/// For anything that is waited for.
const BOUND: Duration = Duration::from_secs(120);
/// Between two looks; the times themselves are those of events.
const POLL: Duration = Duration::from_millis(20);

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Follows {
    /// From when a new node took pods.
    pub(crate) new_node: Spans,
    /// From when a node that had been cordoned took pods.
    pub(crate) uncordoned: Spans,
    /// Pods that were made while the only node with room was cordoned.
    pub(crate) on_cordoned: usize,
    /// From the create of a job to its condition Stalled, in seconds, sorted.
    pub(crate) missing_queue: Vec<f64>,
}

/// Times of several tries, in seconds, sorted.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Spans {
    /// Until the first pod appeared.
    pub(crate) pod: Vec<f64>,
    /// Until that pod had a node.
    pub(crate) bound: Vec<f64>,
}

impl Spans {
    fn add(&mut self, open: Instant, pod: &NewPod) {
        let since = |at: Instant| at.saturating_duration_since(open).as_secs_f64();
        self.pod.push(since(pod.added));
        self.bound.push(since(pod.bound));
    }

    fn sorted(self) -> Self {
        Self { pod: sorted(self.pod), bound: sorted(self.bound) }
    }
}

/// Measures all of it, in a namespace of its own, with nodes that go at the end.
pub(crate) async fn measure(cluster: &LocalCluster) -> Result<Follows> {
    let namespace = cluster.create_namespace("follows").await?;
    let mut manager = Manager::start(cluster, "manager-follows", &[]).await?;
    manager.wait_ready().await?;
    let missing_queue = missing_queue(cluster, &namespace).await?;
    let nodes = Nodes::start(cluster)?;
    let watcher = Watcher::start(cluster, System::BatchJob, PREFIX, Jobs::Presence).await?;
    let generator = Generator::new(cluster, std::slice::from_ref(&namespace))?;
    let bench = Bench { cluster, nodes, watcher, generator };
    let (uncordoned, on_cordoned) = bench.cordons().await?;
    let new_node = bench.new_nodes().await?;
    load::remove(cluster, std::slice::from_ref(&namespace)).await?;
    let left_nothing = |seen: &Seen| seen.pod_added.is_none() || seen.pod_gone.is_some();
    bench.watcher.until_all("pods gone", JOBS, BOUND, left_nothing).await?;
    bench.remove_nodes().await?;
    manager.stop()?;
    Ok(Follows { new_node, uncordoned, on_cordoned, missing_queue })
}

/// Seconds until jobs on a queue that is not there say so, one after the other.
async fn missing_queue(cluster: &LocalCluster, namespace: &str) -> Result<Vec<f64>> {
    let client = cluster.client("bench-generator")?;
    let jobs: Api<BatchJob> = Api::namespaced(cluster.client("bench-watcher")?, namespace);
    let is_stalled = |job: Option<&BatchJob>| {
        let conditions = job.and_then(|job| job.status.as_ref()).map(|status| &status.conditions);
        conditions.into_iter().flatten().any(|condition| condition.is(StalledReason::QueueNotFound))
    };
    let mut spans = Vec::new();
    for number in 0..TRIES {
        let name = format!("{LOST}{number}");
        let mut job = System::BatchJob.job(namespace, &name, &Task::of("0"));
        job["spec"]["queueName"] = json!(MISSING);
        let sent = Instant::now();
        post(&client, &System::BatchJob.jobs(namespace), &job).await.with_context(|| name.clone())?;
        let told = timeout(BOUND, await_condition(jobs.clone(), &name, is_stalled)).await;
        told.with_context(|| format!("{name} does not say that its queue is missing"))??;
        spans.push(sent.elapsed().as_secs_f64());
    }
    Ok(sorted(spans))
}

/// A pod that has come: of which job, and when it appeared and had a node.
struct NewPod {
    job: String,
    added: Instant,
    bound: Instant,
}

struct Bench<'a> {
    cluster: &'a LocalCluster,
    nodes: Nodes,
    watcher: Watcher,
    generator: Generator,
}

impl Bench<'_> {
    /// The only node is cordoned, loses its pod, and is uncordoned, again and again.
    async fn cordons(&self) -> Result<(Spans, usize)> {
        let node = self.add_node(0).await?;
        let task = Task { pool: Some(POOL), ..Task::of("never") };
        self.generator.create(System::BatchJob, PREFIX, JOBS, |_| task.clone()).await?;
        let mut holder = self.newest(1).await?.job;
        let (mut spans, mut on_cordoned) = (Spans::default(), 0);
        for _ in 0..TRIES {
            let before = self.appeared();
            self.cordon(&node, true).await?;
            sleep(FOLLOWED).await;
            self.end(&holder).await?;
            sleep(QUIET).await;
            let early = self.appeared() - before;
            self.cordon(&node, false).await?;
            let pod = self.newest(before + early.max(1)).await?;
            // One that was there already has not followed the node.
            if early == 0 {
                spans.add(self.nodes.opened(&node).await?, &pod);
            }
            on_cordoned += early;
            holder = pod.job;
        }
        Ok((spans.sorted(), on_cordoned))
    }

    /// Nodes come, one after the other.
    async fn new_nodes(&self) -> Result<Spans> {
        let mut spans = Spans::default();
        for number in 1..=TRIES {
            let before = self.appeared();
            let node = self.add_node(number).await?;
            let pod = self.newest(before + 1).await?;
            spans.add(self.nodes.opened(&node).await?, &pod);
        }
        Ok(spans.sorted())
    }

    /// Adds a node with room for one pod.
    async fn add_node(&self, number: usize) -> Result<String> {
        let kwok = self.cluster.kwok().context("KWOK")?;
        let spec = NodeSpec { name: format!("{POOL}-{number}"), ..pool(POOL, 1, "32", 1) };
        let names = kwok.add_nodes(self.cluster, &spec).await?;
        names.into_iter().next().context("a set without nodes")
    }

    async fn remove_nodes(&self) -> Result<()> {
        for number in 0..=TRIES {
            let name = format!("{POOL}-{number}-0");
            let deleted = self.nodes.api.delete(&name, &DeleteParams::default()).await;
            deleted.with_context(|| format!("delete node {name}"))?;
        }
        Ok(())
    }

    async fn cordon(&self, node: &str, cordoned: bool) -> Result<()> {
        let change = Patch::Merge(json!({"spec": {"unschedulable": cordoned}}));
        let patched = self.nodes.api.patch(node, &PatchParams::default(), &change).await;
        patched.map(drop).with_context(|| format!("cordon node {node}: {cordoned}"))
    }

    /// Ends the pod of a job well, as its kubelet would report it, and waits until it is gone.
    async fn end(&self, job: &str) -> Result<()> {
        let (namespace, name) = job.split_once('/').context("a job without namespace")?;
        let pod = format!("{}/{name}-0-0", manifests::pods(namespace));
        self.generator
            .patch_status(&pod, &manifests::succeeded(), STRATEGIC)
            .await
            .with_context(|| format!("end {pod}"))?;
        let gone = self.watcher.until(job, |seen| seen.pod_gone.is_some());
        timeout(BOUND, gone).await.with_context(|| format!("{pod} does not go"))
    }

    /// How many pods have appeared.
    fn appeared(&self) -> usize {
        self.watcher.count(|seen| seen.pod_added.is_some())
    }

    /// Waits until so many pods have had a node, and gives the newest.
    async fn newest(&self, count: usize) -> Result<NewPod> {
        self.watcher.until_all("pods on nodes", count, BOUND, |seen| seen.pod_bound.is_some()).await?;
        let pods =
            self.watcher.all().into_iter().filter_map(|(job, seen)| {
                Some(NewPod { job, added: seen.pod_added?, bound: seen.pod_bound? })
            });
        pods.max_by_key(|pod| pod.added).context("no pod on a node")
    }
}

/// Since when each node takes pods, as a watch has shown it.
struct Nodes {
    api: Api<Node>,
    open: Arc<Mutex<HashMap<String, Instant>>>,
    _task: JoinSet<()>,
}

impl Nodes {
    fn start(cluster: &LocalCluster) -> Result<Self> {
        let api: Api<Node> = Api::all(cluster.client("bench-watcher")?);
        let open = Arc::new(Mutex::new(HashMap::new()));
        let (watched, seen) = (api.clone(), Arc::clone(&open));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let config = Config::default().labels(&format!("{}={POOL}", batch::POOL));
            let mut events = watcher(watched, config).default_backoff().boxed();
            while let Some(event) = events.next().await {
                let now = Instant::now();
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(Event::Apply(node) | Event::InitApply(node)) => note(&mut seen, &node, now),
                    Ok(Event::Delete(node)) => {
                        seen.remove(&node.name_any());
                    }
                    Ok(Event::Init | Event::InitDone) => {}
                    Err(error) => eprintln!("      the bench's own watch: {error}"),
                }
            }
        });
        Ok(Self { api, open, _task: task })
    }

    /// Waits until a node is seen to take pods, and gives since when.
    async fn opened(&self, node: &str) -> Result<Instant> {
        let deadline = Instant::now() + BOUND;
        loop {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied();
            if let Some(open) = open {
                return Ok(open);
            }
            if Instant::now() > deadline {
                bail!("node {node} was not seen to take pods");
            }
            sleep(POLL).await;
        }
    }
}

fn note(open: &mut HashMap<String, Instant>, node: &Node, now: Instant) {
    let is_cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    if usable(node) && !is_cordoned {
        open.entry(node.name_any()).or_insert(now);
    } else {
        open.remove(&node.name_any());
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Times that meet their goals.
    pub(crate) fn follows() -> Follows {
        let spans = || Spans { pod: vec![0.02, 0.05, 0.3], bound: vec![0.03, 0.1, 1.4] };
        Follows {
            new_node: spans(),
            uncordoned: spans(),
            on_cordoned: 0,
            missing_queue: vec![3.05, 3.4, 4.9],
        }
    }

    #[test]
    fn a_node_takes_pods_from_when_nothing_keeps_them_away_until_something_does() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let node = |ready: &str, taints: serde_json::Value, cordoned: bool| -> Node {
            serde_json::from_value(json!({
                "metadata": {"name": "n"},
                "spec": {"taints": taints, "unschedulable": cordoned},
                "status": {"conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let taint = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
        let mut open = HashMap::new();
        note(&mut open, &node("False", taint.clone(), false), at(1));
        note(&mut open, &node("True", taint, false), at(2));
        assert_eq!(open.get("n"), None, "its taint is still there");
        for second in [3, 4] {
            note(&mut open, &node("True", json!([]), false), at(second));
        }
        assert_eq!(open.get("n"), Some(&at(3)));
        note(&mut open, &node("True", json!([]), true), at(5));
        assert_eq!(open.get("n"), None, "it is cordoned");
        note(&mut open, &node("True", json!([]), false), at(6));
        assert_eq!(open.get("n"), Some(&at(6)));
    }

    #[test]
    fn a_pod_that_was_seen_before_its_node_has_taken_no_time() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut spans = Spans::default();
        for (added, bound) in [(90, 140), (300, 310)] {
            spans.add(at(100), &NewPod { job: "ns/a".to_owned(), added: at(added), bound: at(bound) });
        }
        let spans = spans.sorted();
        assert_eq!((spans.pod, spans.bound), (vec![0.0, 0.2], vec![0.04, 0.21]));
    }
}
