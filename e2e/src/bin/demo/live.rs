//! Jobs and pods while they come and go, as an independent watcher sees them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use springtide_crds::batch_job::{BatchJob, QueuedReason};
use springtide_crds::common::{ConditionStatus, condition};
use springtide_crds::reason::Reason;

use super::scenario::{Expected, NAMESPACE, has_ended, state};

/// One thing that happened.
pub(crate) enum Change {
    /// To a job.
    Job(Box<Event<BatchJob>>),
    /// To a pod.
    Pod(Box<Event<Pod>>),
}

/// What happens to jobs and pods from now on. A broken watch starts again by itself.
pub(crate) fn changes(client: &Client) -> impl Stream<Item = Result<Change, watcher::Error>> + use<> {
    let jobs: Api<BatchJob> = Api::namespaced(client.clone(), NAMESPACE);
    let pods: Api<Pod> = Api::all(client.clone());
    let jobs = watcher(jobs, watcher::Config::default()).default_backoff();
    let pods = watcher(pods, watcher::Config::default()).default_backoff();
    futures::stream::select(
        jobs.map(|event| event.map(|event| Change::Job(Box::new(event)))),
        pods.map(|event| event.map(|event| Change::Pod(Box::new(event)))),
    )
    .boxed()
}

/// What the nodes offer to pods, in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// CPU in millicores.
    pub(crate) cpu_millis: u64,
}

impl Capacity {
    /// Asks the API.
    ///
    /// # Errors
    /// It does not answer, or a node offers no CPU.
    pub(crate) async fn of_nodes(client: &Client) -> Result<Self> {
        let nodes =
            Api::<Node>::all(client.clone()).list(&ListParams::default()).await.context("list nodes")?;
        let mut cpu_millis = 0;
        for node in nodes {
            let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
            let cpu = allocatable.and_then(|allocatable| allocatable.get("cpu"));
            cpu_millis +=
                millicores(cpu.with_context(|| format!("node {} offers no CPU", node.name_any()))?)?;
        }
        Ok(Self { cpu_millis })
    }
}

/// CPU quantities are written in cores, with or without a fraction, or in millicores.
fn millicores(quantity: &Quantity) -> Result<u64> {
    let text = quantity.0.as_str();
    let parsed = match text.strip_suffix('m') {
        Some(millis) => millis.parse().ok(),
        None => text.parse::<f64>().ok().map(|cores| cores * 1000.0),
    };
    let millis = parsed.with_context(|| format!("{text:?} is not a CPU quantity"))?;
    ensure!((0.0..1e12).contains(&millis), "{text:?} is not a CPU quantity");
    // Within the range above, and whole but for what no scheduler counts.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(millis.round() as u64)
}

/// The most that was there at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peak {
    /// Pods that had not ended.
    pub(crate) pods: usize,
    /// CPU that pods asked for that had not ended, in millicores.
    pub(crate) cpu_millis: u64,
    /// Those of each job.
    pub(crate) pods_of: BTreeMap<String, usize>,
}

/// Jobs and pods as they are now, and the most that was there.
#[derive(Debug, Default)]
pub(crate) struct Live {
    jobs: Mirror<BatchJob>,
    pods: Mirror<Pod>,
    peak: Peak,
}

impl Live {
    /// Takes a change in.
    ///
    /// # Errors
    /// A pod asks for CPU by something that is not a quantity.
    pub(crate) fn see(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Job(event) => self.jobs.see(*event),
            Change::Pod(event) => {
                self.pods.see(*event);
                let mut pods_of: BTreeMap<String, usize> = BTreeMap::new();
                for pod in self.pods.now.values().filter(|pod| !is_over(pod)) {
                    *pods_of.entry(owner(pod).to_owned()).or_default() += 1;
                }
                self.peak.pods = self.peak.pods.max(pods_of.values().sum());
                self.peak.cpu_millis = self.peak.cpu_millis.max(self.cpu_millis()?);
                for (job, pods) in pods_of {
                    let peak = self.peak.pods_of.entry(job).or_default();
                    *peak = pods.max(*peak);
                }
            }
        }
        Ok(())
    }

    /// CPU that pods ask for that have not ended, in millicores.
    ///
    /// # Errors
    /// As [`Live::see`].
    pub(crate) fn cpu_millis(&self) -> Result<u64> {
        self.pods.now.values().filter(|pod| !is_over(pod)).map(requested).sum()
    }

    /// Number of pods that exist.
    pub(crate) fn pods(&self) -> usize {
        self.pods.now.len()
    }

    /// The most that was there.
    pub(crate) fn peak(&self) -> &Peak {
        &self.peak
    }

    /// Whether every expected job has ended and no pod is left.
    pub(crate) fn is_over(&self, jobs: &[Expected]) -> bool {
        let ended = |expected: &Expected| self.jobs.now.get(&expected.job).is_some_and(has_ended);
        self.pods.now.is_empty() && jobs.iter().all(ended)
    }

    /// A row for each expected job.
    pub(crate) fn rows(&self, jobs: &[Expected]) -> Vec<Row> {
        jobs.iter()
            .map(|expected| {
                let job = self.jobs.now.get(&expected.job);
                let status = job.and_then(|job| job.status.as_ref());
                let queued = status.and_then(|status| condition(&status.conditions, QueuedReason::CONDITION));
                let waits = queued.filter(|queued| queued.status == ConditionStatus::True);
                Row {
                    job: expected.job.clone(),
                    state: state(job).unwrap_or_default().to_owned(),
                    succeeded: status.map_or(0, |status| status.succeeded),
                    completions: expected.completions,
                    active: status.map_or(0, |status| status.active),
                    failed: status.map_or(0, |status| status.failed),
                    waits: waits.map(|queued| queued.reason.clone()).unwrap_or_default(),
                    pods: self
                        .pods
                        .now
                        .values()
                        .filter(|pod| owner(pod) == expected.job)
                        .map(shown)
                        .collect(),
                }
            })
            .collect()
    }
}

/// A job in the live table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) job: String,
    /// Reason of its condition Complete.
    pub(crate) state: String,
    /// Completions so far.
    pub(crate) succeeded: u32,
    /// Completions it asks for.
    pub(crate) completions: u32,
    /// Pods that have not ended, as the status says.
    pub(crate) active: u32,
    /// Pods that failed.
    pub(crate) failed: u32,
    /// Reason of its condition Queued, while that is true.
    pub(crate) waits: String,
    /// The pods that exist, without the job's name; in parentheses while not started,
    /// with a stroke when ended.
    pub(crate) pods: Vec<String>,
}

/// The objects of one kind by their names, which are unique in this cluster.
#[derive(Debug)]
struct Mirror<K> {
    now: BTreeMap<String, K>,
    /// A new list that is not complete yet.
    incoming: Option<BTreeMap<String, K>>,
}

impl<K> Default for Mirror<K> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), incoming: None }
    }
}

impl<K: ResourceExt> Mirror<K> {
    fn see(&mut self, event: Event<K>) {
        match event {
            Event::Init => self.incoming = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                self.incoming.get_or_insert_default().insert(object.name_any(), object);
            }
            Event::InitDone => self.now = self.incoming.take().unwrap_or_default(),
            Event::Apply(object) => {
                self.now.insert(object.name_any(), object);
            }
            Event::Delete(object) => {
                self.now.remove(&object.name_any());
            }
        }
    }
}

/// The job to which a pod belongs; empty for a pod of nobody.
fn owner(pod: &Pod) -> &str {
    let owners = pod.metadata.owner_references.iter().flatten();
    owners
        .filter(|owner| owner.kind == "BatchJob")
        .map(|owner| owner.name.as_str())
        .next()
        .unwrap_or_default()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_over(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// CPU that a pod asks for, in millicores.
fn requested(pod: &Pod) -> Result<u64> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .filter_map(|container| container.resources.as_ref()?.requests.as_ref()?.get("cpu"))
        .map(millicores)
        .sum()
}

/// A pod in the table: what its name says beyond that of its job, and whether it runs.
fn shown(pod: &Pod) -> String {
    let name = pod.name_any();
    let number = name.strip_prefix(owner(pod)).and_then(|rest| rest.strip_prefix('-')).unwrap_or(&name);
    match phase(pod) {
        "Running" => number.to_owned(),
        "Succeeded" | "Failed" => format!("-{number}-"),
        _ => format!("({number})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(job: &str, number: &str, phase: &str, cpu: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("{job}-{number}"),
                "ownerReferences": [
                    { "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": job, "uid": "u" },
                ],
            },
            "spec": { "containers": [{ "name": "main", "resources": { "requests": { "cpu": cpu } } }] },
            "status": { "phase": phase },
        }))
        .unwrap()
    }

    fn see(live: &mut Live, event: Event<Pod>) {
        live.see(Change::Pod(Box::new(event))).unwrap();
    }

    #[test]
    fn cpu_is_read_in_every_notation() {
        for (text, millis) in [("2", 2000), ("100m", 100), ("0.5", 500), ("1900m", 1900)] {
            assert_eq!(millicores(&Quantity(text.into())).unwrap(), millis);
        }
        for text in ["", "-1", "2Gi", "NaN"] {
            assert!(millicores(&Quantity(text.into())).is_err(), "{text}");
        }
    }

    #[test]
    fn the_peak_counts_what_was_there_at_once() {
        let mut live = Live::default();
        see(&mut live, Event::Init);
        see(&mut live, Event::InitApply(pod("a", "0-0", "Running", "500m")));
        assert_eq!(live.pods(), 0, "a list counts when it is complete");
        see(&mut live, Event::InitDone);
        see(&mut live, Event::Apply(pod("a", "1-0", "Pending", "500m")));
        see(&mut live, Event::Apply(pod("a", "0-0", "Succeeded", "500m")));
        see(&mut live, Event::Apply(pod("b", "0-0", "Running", "300m")));
        see(&mut live, Event::Delete(pod("a", "0-0", "Succeeded", "500m")));
        assert_eq!((live.pods(), live.cpu_millis().unwrap()), (2, 800));
        let pods_of = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert_eq!(*live.peak(), Peak { pods: 2, cpu_millis: 1000, pods_of });
    }

    #[test]
    fn a_list_after_a_broken_watch_replaces_everything() {
        let mut live = Live::default();
        see(&mut live, Event::Apply(pod("a", "0-0", "Running", "1")));
        see(&mut live, Event::Init);
        see(&mut live, Event::InitApply(pod("a", "1-0", "Running", "1")));
        see(&mut live, Event::InitDone);
        let names: Vec<String> = live.pods.now.values().map(shown).collect();
        assert_eq!(names, ["1-0"]);
    }
}
