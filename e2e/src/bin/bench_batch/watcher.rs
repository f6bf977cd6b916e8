//! One watch on pods and one on jobs, with the time at which each thing was first seen.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use serde::de::DeserializeOwned;
use springtide_crds::batch_job::BatchJob;
use springtide_e2e::bench::progress::until_all;
use springtide_e2e::bench::stats::sorted;
use springtide_e2e::local_cluster::LocalCluster;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use crate::kueue;
use crate::manifests::System;

/// Those who wait for something of a job share as many bells, by a hash of its key: not everybody is woken by
/// every event.
const BELLS: usize = 256;
/// Bound for the first lists.
const LISTED: Duration = Duration::from_secs(60);

/// When what was seen of one job, by its namespace and name. Times of pods are those of the first one, unless said
/// otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// How many pods of it were seen, one after the other.
    pub(crate) pods: usize,
    /// UID of the last one.
    pub(crate) pod: Option<String>,
    /// Its pod appeared.
    pub(crate) pod_added: Option<Instant>,
    /// The last one did.
    pub(crate) last_pod_added: Option<Instant>,
    /// Its pod had a node.
    pub(crate) pod_bound: Option<Instant>,
    /// The scheduler said that no node has room for its pod.
    pub(crate) unschedulable: bool,
    /// Its pod had ended.
    pub(crate) pod_ended: Option<Instant>,
    /// Its outcome stood in its status.
    pub(crate) outcome: Option<Instant>,
    /// Its pod was gone.
    pub(crate) pod_gone: Option<Instant>,
    /// It was gone itself.
    pub(crate) job_gone: Option<Instant>,
    /// What its system keeps of it beside.
    pub(crate) record: Record,
}

/// An object that a queueing system makes for each job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Record {
    /// The system makes none.
    #[default]
    None,
    /// There is one, or will be.
    Kept,
    /// It was gone.
    Gone(Instant),
}

impl Seen {
    /// Nothing is left of it.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone().is_some()
    }

    /// When the last of its objects was gone.
    pub(crate) fn gone(&self) -> Option<Instant> {
        let gone = self.pod_gone?.max(self.job_gone?);
        match self.record {
            Record::None => Some(gone),
            Record::Kept => None,
            Record::Gone(at) => Some(gone.max(at)),
        }
    }

    /// What is known of a job of a system before anything of it was seen.
    fn unseen(system: System) -> Self {
        let record = match system {
            System::BatchJob | System::Job => Record::None,
            System::KueueJob => Record::Kept,
        };
        Self { record, ..Self::default() }
    }

    fn pod_is(&mut self, pod: &Pod, now: Instant) {
        if self.pod.as_ref() != pod.metadata.uid.as_ref() {
            self.pod.clone_from(&pod.metadata.uid);
            self.pods += 1;
            self.last_pod_added = Some(now);
        }
        self.pod_added.get_or_insert(now);
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            self.pod_bound.get_or_insert(now);
        }
        let Some(status) = &pod.status else { return };
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            self.pod_ended.get_or_insert(now);
        }
        self.unschedulable |= status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
        });
    }
}

/// The spans between two of the times, in seconds to the microsecond, in ascending order. `since` gives the first,
/// `until` the second; a span that would be negative counts as zero.
pub(crate) fn spans(
    seen: &HashMap<String, Seen>,
    since: impl Fn(&str, &Seen) -> Option<Instant>,
    until: impl Fn(&Seen) -> Option<Instant>,
) -> Vec<f64> {
    let span = |(key, seen): (&String, &Seen)| {
        // Stored with all its digits a span would take twice the room, and no watch is as exact.
        Some(until(seen)?.saturating_duration_since(since(key, seen)?).as_micros() as f64 / 1e6)
    };
    sorted(seen.iter().filter_map(span))
}

/// What is watched of the jobs themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Jobs {
    /// Whether they are there.
    Presence,
    /// Their outcomes too, of BatchJobs, which costs the machine more.
    Outcomes,
}

/// What the watches have seen of the jobs of a run.
#[derive(Clone)]
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    _tasks: Arc<JoinSet<()>>,
}

struct Shared {
    /// With what the names of its jobs begin: those of other runs are none of its business.
    prefix: String,
    /// What is known of a job before anything of it was seen.
    unseen: Seen,
    seen: Mutex<HashMap<String, Seen>>,
    bells: [Notify; BELLS],
}

impl Watcher {
    /// Watches the jobs of a system whose names begin with `prefix`, and their pods. What is there already is
    /// seen when this returns.
    pub(crate) async fn start(
        cluster: &LocalCluster,
        system: System,
        prefix: &str,
        jobs: Jobs,
    ) -> Result<Self> {
        Self::start_telling(cluster, system, prefix, jobs, |_| {}).await
    }

    /// As [`Watcher::start`], and tells `tell` of every pod as it is, each time that it has changed. It must be brief.
    pub(crate) async fn start_telling(
        cluster: &LocalCluster,
        system: System,
        prefix: &str,
        jobs: Jobs,
        tell: impl Fn(&Pod) + Send + 'static,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            prefix: prefix.to_owned(),
            unseen: Seen::unseen(system),
            seen: Mutex::default(),
            bells: std::array::from_fn(|_| Notify::new()),
        });
        let client = cluster.client("bench-watcher")?;
        let mut tasks = JoinSet::new();
        let label = system.job_label();
        let (pods, records) = (Api::<Pod>::all(client.clone()), client.clone());
        let key_of_pod = move |pod: &Pod| key(pod, pod.labels().get(label)?);
        let see_pod = move |seen: &mut Seen, pod: &Pod, now| {
            seen.pod_is(pod, now);
            tell(pod);
        };
        let pod_goes = |seen: &mut Seen, now| {
            seen.pod_gone.get_or_insert(now);
        };
        let config = Config::default().labels(label);
        let pods_listed = follow(&mut tasks, &shared, pods, config, key_of_pod, see_pod, pod_goes);
        let job_goes = |seen: &mut Seen, now| {
            seen.job_gone.get_or_insert(now);
        };
        let config = Config::default();
        let jobs_listed = match (system, jobs) {
            (System::BatchJob, Jobs::Outcomes) => {
                let see = |seen: &mut Seen, job: &BatchJob, now| {
                    if job.status.as_ref().is_some_and(|status| status.result.is_some()) {
                        seen.outcome.get_or_insert(now);
                    }
                };
                follow(&mut tasks, &shared, Api::<BatchJob>::all(client), config, key_of_job, see, job_goes)
            }
            (System::BatchJob, Jobs::Presence) => {
                let api = Api::<PartialObjectMeta<BatchJob>>::all(client);
                follow(&mut tasks, &shared, api, config, key_of_job, |_, _, _| {}, job_goes)
            }
            (System::Job | System::KueueJob, Jobs::Presence | Jobs::Outcomes) => {
                let api = Api::<PartialObjectMeta<Job>>::all(client);
                follow(&mut tasks, &shared, api, config, key_of_job, |_, _, _| {}, job_goes)
            }
        };
        match system {
            System::BatchJob | System::Job => {}
            System::KueueJob => {
                let goes = |seen: &mut Seen, now| seen.record = Record::Gone(now);
                let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(records, &kueue::workloads());
                let listed =
                    follow(&mut tasks, &shared, api, Config::default(), key_of_workload, |_, _, _| {}, goes);
                within_bound(listed).await?;
            }
        }
        let listed = async {
            pods_listed.await?;
            jobs_listed.await
        };
        within_bound(listed).await?;
        Ok(Self { shared, _tasks: Arc::new(tasks) })
    }

    /// Waits until `met` holds for what was seen of a job.
    pub(crate) async fn until(&self, key: &str, met: impl Fn(&Seen) -> bool) {
        let bell = self.shared.bell(key);
        loop {
            let rung = bell.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            if self.shared.lock().get(key).is_some_and(&met) {
                return;
            }
            rung.await;
        }
    }

    /// Waits until `met` holds for so many jobs, and says every few seconds how many there are.
    ///
    /// # Errors
    /// `bound` is over, or there was none more for fifteen minutes.
    pub(crate) async fn until_all(
        &self,
        what: &str,
        jobs: usize,
        bound: Duration,
        met: impl Fn(&Seen) -> bool,
    ) -> Result<()> {
        // It looks now and then; the times themselves are those of the events.
        until_all(what, jobs, bound, || self.count(&met)).await
    }

    /// A copy of everything seen.
    pub(crate) fn all(&self) -> HashMap<String, Seen> {
        self.shared.lock().clone()
    }

    /// What was seen of one job.
    pub(crate) fn seen(&self, key: &str) -> Option<Seen> {
        self.shared.lock().get(key).cloned()
    }

    /// The first of these times of all jobs.
    pub(crate) fn first(&self, time: impl Fn(&str, &Seen) -> Option<Instant>) -> Option<Instant> {
        self.shared.lock().iter().filter_map(|(key, seen)| time(key, seen)).min()
    }

    /// How many jobs of those seen meet `met`.
    pub(crate) fn count(&self, met: impl Fn(&Seen) -> bool) -> usize {
        self.shared.lock().values().filter(|seen| met(seen)).count()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bell(&self, key: &str) -> &Notify {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        &self.bells[hasher.finish() as usize % BELLS]
    }

    fn is_of_run(&self, key: &str) -> bool {
        key.split_once('/').is_some_and(|(_, job)| job.starts_with(&self.prefix))
    }

    fn note(&self, key: &str, note: impl FnOnce(&mut Seen)) {
        let mut seen = self.lock();
        match seen.get_mut(key) {
            Some(seen) => note(seen),
            None => note(seen.entry(key.to_owned()).or_insert_with(|| self.unseen.clone())),
        }
        drop(seen);
        self.bell(key).notify_waiters();
    }
}

/// Follows one kind. The receiver learns of the end of the first list; a list after that also tells of what has
/// gone unseen.
fn follow<K>(
    tasks: &mut JoinSet<()>,
    shared: &Arc<Shared>,
    api: Api<K>,
    config: Config,
    key_of: impl Fn(&K) -> Option<String> + Send + 'static,
    see: impl Fn(&mut Seen, &K, Instant) + Send + 'static,
    goes: impl Fn(&mut Seen, Instant) + Send + 'static,
) -> oneshot::Receiver<()>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let shared = Arc::clone(shared);
    let (listed, first_list) = oneshot::channel();
    tasks.spawn(async move {
        let mut listed = Some(listed);
        let (mut present, mut listing) = (HashSet::new(), HashSet::new());
        let mut events = watcher(api, config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            let now = Instant::now();
            let key_of = |object: &K| key_of(object).filter(|key| shared.is_of_run(key));
            match event {
                Ok(Event::Apply(object)) => {
                    if let Some(key) = key_of(&object) {
                        shared.note(&key, |seen| see(seen, &object, now));
                        present.insert(key);
                    }
                }
                Ok(Event::InitApply(object)) => {
                    if let Some(key) = key_of(&object) {
                        shared.note(&key, |seen| see(seen, &object, now));
                        listing.insert(key);
                    }
                }
                Ok(Event::Delete(object)) => {
                    if let Some(key) = key_of(&object) {
                        shared.note(&key, |seen| goes(seen, now));
                        present.remove(&key);
                    }
                }
                Ok(Event::Init) => listing.clear(),
                Ok(Event::InitDone) => {
                    for key in present.difference(&listing) {
                        shared.note(key, |seen| goes(seen, now));
                    }
                    present = std::mem::take(&mut listing);
                    if let Some(listed) = listed.take() {
                        // Nobody waits any more where the run was given up.
                        let _ = listed.send(());
                    }
                }
                // It tries again by itself; who waits for what it does not show gives up in time.
                Err(error) => eprintln!("      the bench's own watch: {error}"),
            }
        }
    });
    first_list
}

async fn within_bound(
    listed: impl Future<Output = std::result::Result<(), oneshot::error::RecvError>>,
) -> Result<()> {
    let listed = tokio::time::timeout(LISTED, listed).await;
    listed.context("the bench's own watches do not begin")?.context("the bench's own watches end")
}

fn key_of_workload<K: ResourceExt>(workload: &K) -> Option<String> {
    let owner = workload.owner_references().iter().find(|owner| owner.kind == "Job")?;
    key(workload, &owner.name)
}

fn key_of_job<K: ResourceExt>(job: &K) -> Option<String> {
    key(job, &job.name_any())
}

fn key<K: ResourceExt>(object: &K, job: &str) -> Option<String> {
    Some(format!("{}/{job}", object.namespace()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(uid: &str, spec: Value, status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn the_first_time_of_each_thing_counts() {
        let (containers, start) = (json!({"containers": []}), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let full =
            json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]});
        let bound = json!({"containers": [], "nodeName": "n"});
        let mut seen = Seen::default();
        seen.pod_is(&pod("u", containers, full), at(1));
        assert!(seen.unschedulable && seen.pod_bound.is_none());
        for (status, time) in
            [(json!({}), 2), (json!({"phase": "Succeeded"}), 3), (json!({"phase": "Succeeded"}), 4)]
        {
            seen.pod_is(&pod("u", bound.clone(), status), at(time));
        }
        assert_eq!([seen.pod_added, seen.pod_bound, seen.pod_ended], [Some(at(1)), Some(at(2)), Some(at(3))]);
        assert_eq!(seen.pods, 1);
        seen.pod_is(&pod("v", bound, json!({})), at(5));
        assert_eq!((seen.pods, seen.pod_added), (2, Some(at(1))), "the task runs once more");
        assert_eq!(seen.last_pod_added, Some(at(5)));
        assert!(seen.unschedulable, "it is not forgotten that it was");
    }

    #[test]
    fn a_job_is_gone_with_the_last_of_its_objects() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let both = |seen: Seen| Seen { pod_gone: Some(at(2)), job_gone: Some(at(1)), ..seen };
        assert_eq!(both(Seen::unseen(System::Job)).gone(), Some(at(2)));
        let mut queued = both(Seen::unseen(System::KueueJob));
        assert!(!queued.is_gone(), "its Workload is still there");
        queued.record = Record::Gone(at(3));
        assert_eq!(queued.gone(), Some(at(3)));
        queued.pod_gone = None;
        assert!(!queued.is_gone());
    }

    #[test]
    fn a_workload_is_of_the_job_that_owns_it() {
        let workload: PartialObjectMeta<DynamicObject> = serde_json::from_value(json!({
            "metadata": {
                "namespace": "ns", "name": "job-a-0-1f2e3",
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "a-0", "uid": "u"}],
            },
        }))
        .unwrap();
        assert_eq!(key_of_workload(&workload).as_deref(), Some("ns/a-0"));
    }

    #[test]
    fn spans_are_sorted_and_never_negative() {
        let start = Instant::now();
        let seen = |from, to| Seen {
            pod_ended: Some(start + Duration::from_secs(from)),
            pod_gone: Some(start + Duration::from_secs(to)),
            ..Seen::default()
        };
        let all = HashMap::from([
            ("a".to_owned(), seen(1, 4)),
            ("b".to_owned(), seen(3, 2)),
            ("c".to_owned(), Seen::default()),
            ("d".to_owned(), seen(1, 2)),
        ]);
        assert_eq!(spans(&all, |_, seen| seen.pod_ended, |seen| seen.pod_gone), [0.0, 1.0, 3.0]);
    }
}
