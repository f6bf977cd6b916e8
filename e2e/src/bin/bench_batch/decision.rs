//! CPU time of the admission's decision, without any API server.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_batch_job::admission::{Admission, Demand, Interruptibility, QueueId, Staleness};
use springtide_batch_job::projections::node::NodeView;
use springtide_batch_job::projections::pod::PodView;
use springtide_batch_job::shape::Shape;
use springtide_crds::common::Tier;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::store::Change;

/// Jobs that wait.
pub(crate) const JOBS: usize = 10_000;
/// Namespaces that they are spread over: the built-in queue takes in 1 000 of each.
const NAMESPACES: usize = 10;
/// Nodes, each as large as those of the other runs.
const NODES: usize = 200;
/// Decisions of which the median counts.
const ROUNDS: usize = 5;

/// What the passes take by which all waiting jobs are granted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Decision {
    /// Of jobs whose pods are all of one shape.
    pub(crate) equal: Duration,
    /// Of jobs whose pods have each a shape of their own.
    pub(crate) distinct: Duration,
}

/// Measures both.
pub(crate) fn cpu_time() -> Result<Decision> {
    Ok(Decision { equal: median(|_| 0)?, distinct: median(|number| number)? })
}

/// `bytes` gives by the number of a job what its pod is larger by.
fn median(bytes: impl Fn(usize) -> usize) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(one(&bytes)?);
    }
    times.sort();
    Ok(times[ROUNDS / 2])
}

/// The passes of the admission until each job has its grant; between two of them the pods exist. A class
/// of which nothing is known starts with one grant, and doubles.
fn one(bytes: &impl Fn(usize) -> usize) -> Result<Duration> {
    // As in a manager, equal ones are one.
    let mut shapes: BTreeMap<usize, Arc<Shape>> = BTreeMap::new();
    let mut admission = Admission::default();
    admission.set_ready(true, Staleness::Nowhere);
    for number in 0..NODES {
        admission.node_changed(&node(number)?);
    }
    for number in 0..JOBS {
        let shape = match shapes.entry(bytes(number)) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(new) => Arc::clone(new.insert(shape(bytes(number))?)),
        };
        admission.offer(Demand {
            job: key(number),
            uid: uid(number),
            created: Timestamp::UNIX_EPOCH,
            queue: QueueId::BuiltIn,
            tier: Tier::BestEffort,
            priority: 0,
            shape,
            target: 1,
            min_parallelism: 1,
            interruption: Interruptibility::default(),
        });
    }
    let mut waiting: BTreeSet<usize> = (0..JOBS).collect();
    let mut spent = Duration::ZERO;
    while !waiting.is_empty() {
        let before = thread_time()?;
        let woken = admission.pass(Timestamp::UNIX_EPOCH);
        spent += thread_time()? - before;
        ensure!(!woken.is_empty(), "{} jobs wait, and nothing is granted", waiting.len());
        let granted: Vec<usize> =
            waiting.iter().copied().filter(|number| admission.verdict(&uid(*number)).granted > 0).collect();
        for number in granted {
            waiting.remove(&number);
            admission.pod_changed(&pod(number, bytes(number))?);
        }
    }
    Ok(spent)
}

fn key(number: usize) -> ObjectKey {
    ObjectKey::new(format!("bench-{}", number % NAMESPACES), format!("job-{number}"))
}

fn uid(number: usize) -> Uid {
    Uid(format!("uid-{number}").into())
}

fn thread_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("the clock of this thread")?;
    Ok(Duration::from(time))
}

/// Requests of 100 millicores, and of so many bytes beyond 64 MiB.
fn shape(bytes: usize) -> Result<Arc<Shape>> {
    let template = json!({"spec": spec(bytes)});
    Ok(Arc::new(Shape::of_template(&serde_json::from_value(template)?)))
}

fn spec(bytes: usize) -> Value {
    let memory = (64 << 20) + bytes;
    json!({"containers": [
        {"name": "main", "resources": {"requests": {"cpu": "100m", "memory": memory.to_string()}}},
    ]})
}

/// The pod of a job, not bound yet, as large as its shape.
fn pod(number: usize, bytes: usize) -> Result<Change<PodView>> {
    let ObjectKey { namespace, name } = key(number);
    let owner = json!({
        "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": &*name, "uid": uid(number), "controller": true,
    });
    let pod = json!({
        "metadata": {
            "namespace": &*namespace, "name": format!("{name}-0-0"), "uid": format!("pod-{number}"),
            "resourceVersion": "1", "ownerReferences": [owner],
        },
        "spec": spec(bytes),
        "status": {"phase": "Pending"},
    });
    Ok(Change::Apply { old: None, new: Arc::new(serde_json::from_value(pod)?), initial: false })
}

fn node(number: usize) -> Result<Change<NodeView>> {
    let name = format!("kwok-{number}");
    let node = json!({
        "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "32", "memory": "128Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    Ok(Change::Apply { old: None, new: Arc::new(serde_json::from_value(node)?), initial: false })
}
