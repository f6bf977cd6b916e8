//! What the kubelets of a cluster do about sizes, whose nodes KWOK plays: KWOK has no account of what a node has. By
//! [`Kubelet`] each node gives its pods what it has and no more; what does not fit waits, and a pod for which there is no
//! room is turned away. A cluster that has them is one of [`Stages::Unsized`](crate::kwok::Stages::Unsized).
//!
//! | annotation | meaning |
//! |---|---|
//! | [`RESIZE_OUTCOME`] | [`ResizeOutcome::InProgress`]: nothing that was allocated is put in force; [`ResizeOutcome::Infeasible`]: it is allocated no more than it has, and the status says why |
//! | [`OLD`] | the status says nothing of sizes, as those of kubelets that know no resizes |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use serde_json::{Value, json};
use springtide_time_share_group::allocator::kubelet::Kubelet;
use springtide_time_share_group::sizes::Demand;
use tokio::runtime::Runtime;

use super::sizes::{PodSize, demand};
use crate::kwok::{RESIZE_OUTCOME, ResizeOutcome};
use crate::local_cluster::LocalCluster;

/// Annotation: the pod's kubelet knows no resizes, whatever the value.
pub const OLD: &str = "kwok.springtide.dev/old-kubelet";
/// User agent of what they write.
const USER_AGENT: &str = "springtide-test-kubelets";
/// From a resize to its size in force, where nobody says otherwise: as on a quiet node.
const USUAL: Duration = Duration::from_millis(100);
/// Longest time without a look at what waits.
const PAUSE: Duration = Duration::from_secs(1);

/// How kubelets behave.
#[derive(Clone, Debug)]
pub struct Habits {
    /// From the time that a size is allocated until it is in force, at least, ...
    pub least: Duration,
    /// ... and at most.
    pub most: Duration,
    /// Of a hundred pods that get smaller, so many are not noticed.
    pub deaf_percent: u32,
}

impl Default for Habits {
    fn default() -> Self {
        Self { least: USUAL, most: USUAL, deaf_percent: 0 }
    }
}

#[derive(Default)]
struct Shared {
    habits: Mutex<Habits>,
    /// Pods that were bound to a node without room for them, as namespace and name.
    turned_away: Mutex<Vec<(String, String)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kubelets of a cluster, until they are dropped. They have a runtime of their own, so that tests on different ones
/// share them.
pub struct Kubelets {
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be waited for on another one's thread.
            runtime.shutdown_background();
        }
    }
}

impl Kubelets {
    /// Starts them.
    ///
    /// # Errors
    /// There is no client of the cluster, or no runtime.
    pub fn start(cluster: &LocalCluster) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("kubelets")
            .enable_all()
            .build()
            .context("the kubelets' runtime")?;
        let client = {
            // A client belongs to the runtime that it was made in.
            let _inside = runtime.enter();
            cluster.client(USER_AGENT)?
        };
        let shared = Arc::new(Shared::default());
        runtime.spawn(run(Nodes::new(client, Arc::clone(&shared))));
        Ok(Self { shared, runtime: Some(runtime) })
    }

    /// From now on they behave so.
    pub fn behave(&self, habits: Habits) {
        *lock(&self.shared.habits) = habits;
    }

    /// Pods of a namespace that were bound to a node without room for them.
    #[must_use]
    pub fn turned_away(&self, namespace: &str) -> Vec<String> {
        let turned_away = lock(&self.shared.turned_away);
        let own = turned_away.iter().filter(|(own, _)| own == namespace);
        own.map(|(_, name)| name.clone()).collect()
    }
}

/// All nodes, and the newest version of each of their pods.
struct Nodes {
    client: kube::Client,
    shared: Arc<Shared>,
    kubelets: BTreeMap<String, Kubelet>,
    pods: BTreeMap<String, Value>,
    /// What is put in force when: by time, node and UID.
    due: BTreeSet<(Instant, String, String)>,
    random: StdRng,
}

/// The watch ends only with the runtime: after errors it goes on where it was.
async fn run(mut nodes: Nodes) {
    let events = watcher(Api::<Pod>::all(nodes.client.clone()), Config::default()).default_backoff();
    futures::pin_mut!(events);
    loop {
        let next = tokio::time::Instant::from_std(nodes.next_look());
        tokio::select! {
            event = events.next() => match event {
                Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) => nodes.apply(&pod).await,
                Some(Ok(Event::Delete(pod))) => nodes.gone(&pod).await,
                Some(Ok(Event::Init | Event::InitDone)) => {}
                // A restarted API server: the watcher tries again after a pause.
                Some(Err(error)) => tracing::debug!(%error, "the kubelets' watch broke"),
                None => return,
            },
            () = tokio::time::sleep_until(next) => nodes.look().await,
        }
    }
}

impl Nodes {
    fn new(client: kube::Client, shared: Arc<Shared>) -> Self {
        Self {
            client,
            shared,
            kubelets: BTreeMap::new(),
            pods: BTreeMap::new(),
            due: BTreeSet::new(),
            random: StdRng::seed_from_u64(1),
        }
    }

    fn next_look(&self) -> Instant {
        let soon = Instant::now() + PAUSE;
        self.due.first().map_or(soon, |(at, _, _)| soon.min(*at))
    }

    async fn apply(&mut self, pod: &Pod) {
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { return };
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return self.gone(pod).await;
        }
        let (Ok(value), Some(uid)) = (serde_json::to_value(pod), pod.metadata.uid.clone()) else { return };
        if !self.knows(&node).await {
            return;
        }
        let now = Timestamp::now();
        let is_admitted = match (self.kubelets.get_mut(&node), outcome(&value)) {
            (Some(kubelet), Some(ResizeOutcome::Infeasible)) if asks_for_more(kubelet, pod) => true,
            (Some(kubelet), _) => kubelet.look(&value, now),
            (None, _) => return,
        };
        self.pods.insert(uid.clone(), value);
        if is_admitted {
            self.follow(&node).await;
        } else {
            self.turn_away(&uid).await;
        }
    }

    async fn gone(&mut self, pod: &Pod) {
        let Some(uid) = &pod.metadata.uid else { return };
        if self.pods.remove(uid).is_none() {
            return;
        }
        self.due.retain(|(_, _, other)| other != uid);
        let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) else { return };
        if let Some(kubelet) = self.kubelets.get_mut(&node) {
            kubelet.remove(uid);
            kubelet.look_again(Timestamp::now());
            self.follow(&node).await;
        }
    }

    /// Puts in force what is due, and looks again at what waits.
    async fn look(&mut self) {
        let now = Instant::now();
        let mut due = std::mem::take(&mut self.due);
        self.due = due.split_off(&(now, String::new(), String::new()));
        let mut touched: BTreeSet<String> = BTreeSet::new();
        for (_, node, uid) in due {
            if self.put_in_force(&node, &uid) {
                touched.insert(node);
            }
        }
        for (name, kubelet) in &mut self.kubelets {
            if !kubelet.look_again(Timestamp::now()).is_empty() {
                touched.insert(name.clone());
            }
        }
        for node in touched {
            self.follow(&node).await;
        }
    }

    fn put_in_force(&mut self, node: &str, uid: &str) -> bool {
        let is_deaf = {
            let percent = lock(&self.shared.habits).deaf_percent;
            self.random.random_range(0..100) < percent
        };
        let Some(kubelet) = self.kubelets.get_mut(node) else { return false };
        if !kubelet.put_in_force(uid) {
            return false;
        }
        if is_deaf {
            kubelet.miss_news();
        }
        kubelet.look_again(Timestamp::now());
        true
    }

    /// Has what was allocated put in force in time, and tells of all pods of a node what has changed: of those that got
    /// smaller first, so that what all are told to have is never more than the node has.
    async fn follow(&mut self, node: &str) {
        let Some(kubelet) = self.kubelets.get(node) else { return };
        let is_stuck = |uid: &str| {
            self.pods.get(uid).and_then(outcome) == Some(ResizeOutcome::InProgress)
                || self.due.iter().any(|(_, _, other)| other == uid)
        };
        let begun: Vec<String> = kubelet.under_way().into_iter().filter(|uid| !is_stuck(uid)).collect();
        let (mut smaller, mut others) = (Vec::new(), Vec::new());
        for uid in kubelet.pods() {
            let Some(pod) = self.pods.get(uid).filter(|pod| pod["status"]["phase"] == "Running") else {
                continue;
            };
            let status = status(kubelet, pod);
            if pod["status"] != status {
                let is_smaller = allocated(&status).fits(allocated(&pod["status"]));
                let list = if is_smaller { &mut smaller } else { &mut others };
                list.push((uid.to_owned(), status));
            }
        }
        for uid in begun {
            let Habits { least, most, .. } = lock(&self.shared.habits).clone();
            let delay = least + most.saturating_sub(least).mul_f64(self.random.random());
            self.due.insert((Instant::now() + delay, node.to_owned(), uid));
        }
        let mut are_told = true;
        for (uid, status) in smaller {
            are_told &= self.tell(&uid, &status).await;
        }
        if !are_told {
            // The version that came between is looked at next, and the others are told of then.
            return;
        }
        for (uid, status) in others {
            self.tell(&uid, &status).await;
        }
    }

    /// Writes a pod's status; whether that went through. Of a version that is no more, nothing is written: the one that is
    /// will be looked at.
    async fn tell(&mut self, uid: &str, status: &Value) -> bool {
        let Some(pod) = self.pods.get(uid) else { return true };
        let mut change = json!({"metadata": {"resourceVersion": pod["metadata"]["resourceVersion"]}});
        for field in ["observedGeneration", "conditions", "containerStatuses", "initContainerStatuses"] {
            if let Some(value) = status.get(field) {
                change["status"][field] = value.clone();
            }
        }
        let [Some(namespace), Some(name)] =
            ["namespace", "name"].map(|field| pod["metadata"][field].as_str().map(str::to_owned))
        else {
            return true;
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let patched = pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(change)).await;
        match patched.map(|pod| serde_json::to_value(&pod)) {
            Ok(Ok(pod)) => {
                self.pods.insert(uid.to_owned(), pod);
                return true;
            }
            Ok(Err(error)) => tracing::debug!(%error, %name, "a pod that is no JSON"),
            Err(error) => tracing::debug!(%error, %name, "a status was refused"),
        }
        false
    }

    async fn turn_away(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        let [Some(namespace), Some(name)] =
            ["namespace", "name"].map(|field| pod["metadata"][field].as_str().map(str::to_owned))
        else {
            return;
        };
        let status = json!({
            "phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu",
        });
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &namespace);
        let patch = Patch::Merge(json!({"status": status}));
        if let Err(error) = pods.patch_status(&name, &PatchParams::default(), &patch).await {
            tracing::debug!(%error, %name, "a pod could not be turned away");
        }
        lock(&self.shared.turned_away).push((namespace, name));
    }

    /// Whether a node is there, and known from now on.
    async fn knows(&mut self, name: &str) -> bool {
        if self.kubelets.contains_key(name) {
            return true;
        }
        let Ok(Some(node)) = Api::<Node>::all(self.client.clone()).get_opt(name).await else { return false };
        let Some(allocatable) = node.status.and_then(|status| status.allocatable) else { return false };
        self.kubelets.insert(name.to_owned(), Kubelet::new(demand(&allocatable)));
        true
    }
}

/// What a pod's annotation says of its resizes.
fn outcome(pod: &Value) -> Option<ResizeOutcome> {
    let value = pod["metadata"]["annotations"][RESIZE_OUTCOME].as_str()?;
    [ResizeOutcome::Deferred, ResizeOutcome::Infeasible, ResizeOutcome::InProgress]
        .into_iter()
        .find(|outcome| outcome.name() == value)
}

/// What a status says to be allocated to the containers of a pod.
fn allocated(status: &Value) -> Demand {
    let containers = status["containerStatuses"].as_array().into_iter().flatten();
    let amounts = containers.filter_map(|container| {
        let list = container["allocatedResources"].clone();
        serde_json::from_value::<BTreeMap<String, Quantity>>(list).ok()
    });
    amounts.map(|list| demand(&list)).sum()
}

fn conditions(status: &Value) -> impl Iterator<Item = &Value> {
    status["conditions"].as_array().into_iter().flatten()
}

/// The status of a pod by its kubelet, and by its annotation.
fn status(kubelet: &Kubelet, pod: &Value) -> Value {
    let mut status = kubelet.status(pod);
    if !pod["metadata"]["annotations"][OLD].is_null() {
        for container in status["containerStatuses"].as_array_mut().into_iter().flatten() {
            if let Some(fields) = container.as_object_mut() {
                fields.remove("resources");
                fields.remove("allocatedResources");
            }
        }
        return status;
    }
    let is_more = || Pod::deserialize(pod).is_ok_and(|pod| asks_for_more(kubelet, &pod));
    if outcome(pod) == Some(ResizeOutcome::Infeasible) && is_more() {
        let since = conditions(&pod["status"])
            .find(|found| found["type"] == "PodResizePending")
            .map(|found| found["lastTransitionTime"].clone());
        let now = || json!(Timestamp::now().strftime("%FT%TZ").to_string());
        let condition = json!({
            "type": "PodResizePending", "status": "True", "reason": "Infeasible",
            "message": "as the pod's annotation says", "lastTransitionTime": since.unwrap_or_else(now),
            "observedGeneration": pod["metadata"]["generation"],
        });
        if let Some(conditions) = status["conditions"].as_array_mut() {
            conditions.push(condition);
        }
    }
    status
}

/// Whether a pod that its kubelet knows asks for more than was allocated to it.
fn asks_for_more(kubelet: &Kubelet, pod: &Pod) -> bool {
    let known = pod.metadata.uid.as_ref().and_then(|uid| kubelet.node().pod(uid));
    known.is_some_and(|known| !PodSize::of(pod).asked.fits(known.allocated))
}
