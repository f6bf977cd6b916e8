//! CPU time of the admission's decision, without any API server.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use serde_json::json;
use springtide_batch_job::admission::{Admission, Demand};
use springtide_batch_job::projections::node::NodeView;
use springtide_batch_job::shape::Shape;
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

/// What one pass over all waiting jobs takes.
pub(crate) struct Decision {
    /// Of jobs whose pods are all of one shape.
    pub(crate) equal: Duration,
    /// Of jobs whose pods have each a shape of their own.
    pub(crate) distinct: Duration,
}

/// Measures both.
pub(crate) fn cpu_time() -> Result<Decision> {
    let equal = shape(100)?;
    Ok(Decision {
        equal: median(|_| Ok(Arc::clone(&equal)))?,
        distinct: median(|number| shape(100 + number))?,
    })
}

fn median(shape: impl Fn(usize) -> Result<Arc<Shape>>) -> Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(one(&shape)?);
    }
    times.sort();
    Ok(times[ROUNDS / 2])
}

/// One pass after all jobs have been offered to a cluster with room.
fn one(shape: &impl Fn(usize) -> Result<Arc<Shape>>) -> Result<Duration> {
    let mut admission = Admission::default();
    admission.set_ready(true, false);
    for number in 0..NODES {
        admission.node_changed(&node(number)?);
    }
    for number in 0..JOBS {
        let namespace = format!("bench-{}", number % NAMESPACES);
        admission.offer(Demand {
            job: ObjectKey::new(namespace, format!("job-{number}")),
            uid: Uid(format!("uid-{number}").into()),
            created: Timestamp::UNIX_EPOCH,
            priority: 0,
            shape: shape(number)?,
            target: 1,
            min_parallelism: 1,
        });
    }
    let before = thread_time()?;
    let granted = admission.pass(Timestamp::UNIX_EPOCH);
    let after = thread_time()?;
    anyhow::ensure!(!granted.is_empty(), "nothing was granted: that was no decision");
    Ok(after - before)
}

fn thread_time() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("the clock of this thread")?;
    Ok(Duration::from(time))
}

fn shape(cpu_millis: usize) -> Result<Arc<Shape>> {
    let requests = json!({"cpu": format!("{cpu_millis}m"), "memory": "64Mi"});
    let template = json!({"spec": {"containers": [{"name": "main", "resources": {"requests": requests}}]}});
    Ok(Arc::new(Shape::of_template(&serde_json::from_value(template)?)))
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
