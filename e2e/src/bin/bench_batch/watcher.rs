//! One watch on pods and one on jobs, with the time at which each thing was first seen.

use anyhow::Result;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use springtide_crds::batch_job::BatchJob;
use springtide_e2e::local_cluster::LocalCluster;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// When what was seen of one job, by its namespace and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Its pod appeared.
    pub(crate) pod_added: Option<Instant>,
    /// Its pod had ended.
    pub(crate) pod_ended: Option<Instant>,
    /// Its outcome stood in its status.
    pub(crate) outcome: Option<Instant>,
    /// Its pod was gone.
    pub(crate) pod_gone: Option<Instant>,
    /// It was gone itself.
    pub(crate) job_gone: Option<Instant>,
}

/// What the watches have seen.
pub(crate) struct Watcher {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
    changed: Arc<Notify>,
    _tasks: JoinSet<Result<()>>,
}

impl Watcher {
    /// Starts the watches. `outcomes` also decodes each job's status, which costs the machine more.
    pub(crate) fn start(cluster: &LocalCluster, outcomes: bool) -> Result<Self> {
        let seen = Arc::new(Mutex::new(HashMap::<String, Seen>::new()));
        let changed = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        let client = cluster.client("bench-watcher")?;

        let note = {
            let (seen, changed) = (seen.clone(), changed.clone());
            move |key: String, note: &dyn Fn(&mut Seen)| {
                note(lock(&seen).entry(key).or_default());
                changed.notify_waiters();
            }
        };
        let pods = watcher(Api::<Pod>::all(client.clone()), Config::default().labels("springtide.dev/job"));
        let pods = pods.default_backoff();
        let on_pod = note.clone();
        tasks.spawn(async move {
            pods.try_for_each(|event| {
                let now = Instant::now();
                match &event {
                    Event::Apply(pod) | Event::InitApply(pod) => on_pod(job_of(pod), &|seen| {
                        seen.pod_added.get_or_insert(now);
                        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                        if matches!(phase, Some("Succeeded" | "Failed")) {
                            seen.pod_ended.get_or_insert(now);
                        }
                    }),
                    Event::Delete(pod) => on_pod(job_of(pod), &|seen| {
                        seen.pod_gone.get_or_insert(now);
                    }),
                    Event::Init | Event::InitDone => {}
                }
                async { Ok(()) }
            })
            .await?;
            Ok(())
        });
        let on_job = note;
        if outcomes {
            let jobs = watcher(Api::<BatchJob>::all(client), Config::default()).default_backoff();
            tasks.spawn(async move {
                jobs.try_for_each(|event| {
                    let now = Instant::now();
                    match &event {
                        Event::Apply(job) | Event::InitApply(job) => {
                            if job.status.as_ref().is_some_and(|status| status.result.is_some()) {
                                on_job(key(&job.metadata), &|seen| {
                                    seen.outcome.get_or_insert(now);
                                });
                            }
                        }
                        Event::Delete(job) => on_job(key(&job.metadata), &|seen| {
                            seen.job_gone.get_or_insert(now);
                        }),
                        Event::Init | Event::InitDone => {}
                    }
                    async { Ok(()) }
                })
                .await?;
                Ok(())
            });
        } else {
            let jobs = watcher(Api::<PartialObjectMeta<BatchJob>>::all(client), Config::default());
            let jobs = jobs.default_backoff();
            tasks.spawn(async move {
                jobs.try_for_each(|event: Event<PartialObjectMeta<BatchJob>>| {
                    let now = Instant::now();
                    if let Event::Delete(job) = &event {
                        on_job(key(&job.metadata), &|seen| {
                            seen.job_gone.get_or_insert(now);
                        });
                    }
                    async { Ok(()) }
                })
                .await?;
                Ok(())
            });
        }
        Ok(Self { seen, changed, _tasks: tasks })
    }

    /// Waits until `met` holds for what was seen of a job.
    pub(crate) async fn until(&self, key: &str, met: impl Fn(&Seen) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if lock(&self.seen).get(key).is_some_and(&met) {
                return;
            }
            changed.await;
        }
    }

    /// A copy of everything seen.
    pub(crate) fn all(&self) -> HashMap<String, Seen> {
        lock(&self.seen).clone()
    }

    /// How many jobs of those seen meet `met`.
    pub(crate) fn count(&self, met: impl Fn(&Seen) -> bool) -> usize {
        lock(&self.seen).values().filter(|seen| met(seen)).count()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(metadata: &kube::api::ObjectMeta) -> String {
    format!(
        "{}/{}",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default()
    )
}

fn job_of(pod: &Pod) -> String {
    let job = pod.metadata.labels.as_ref().and_then(|labels| labels.get("springtide.dev/job"));
    format!(
        "{}/{}",
        pod.metadata.namespace.as_deref().unwrap_or_default(),
        job.map(String::as_str).unwrap_or_default()
    )
}
