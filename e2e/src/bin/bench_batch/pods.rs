//! One watch on the pods of a namespace, with the time at which each was seen to come and to go, however many of them
//! are of one job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use springtide_e2e::local_cluster::LocalCluster;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Bound for the first list.
const LISTED: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);

/// When what was seen of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// It appeared.
    pub(crate) added: Instant,
    /// Its containers ran.
    pub(crate) running: Option<Instant>,
    /// Its deletion had been asked for.
    pub(crate) ended: Option<Instant>,
    /// It was gone.
    pub(crate) gone: Option<Instant>,
}

impl Life {
    /// Whether it runs, and nobody has asked for its end.
    pub(crate) fn runs(&self) -> bool {
        self.running.is_some() && self.ended.is_none() && self.gone.is_none()
    }
}

/// What the watch has seen, by UID.
pub(crate) struct Pods {
    lives: Arc<Mutex<HashMap<String, Life>>>,
    _task: JoinSet<()>,
}

impl Pods {
    /// Watches the pods of a namespace. Those that are there are seen when this returns.
    pub(crate) async fn start(cluster: &LocalCluster, namespace: &str) -> Result<Self> {
        let lives = Arc::new(Mutex::new(HashMap::new()));
        let api: Api<Pod> = Api::namespaced(cluster.client("bench-watcher")?, namespace);
        let (listed, first_list) = oneshot::channel();
        let mut task = JoinSet::new();
        let seen = Arc::clone(&lives);
        task.spawn(async move {
            let mut listed = Some(listed);
            let mut events = watcher(api, Config::default()).default_backoff().boxed();
            while let Some(event) = events.next().await {
                let now = Instant::now();
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(Event::Apply(pod) | Event::InitApply(pod)) => note(&mut seen, &pod, now, false),
                    Ok(Event::Delete(pod)) => note(&mut seen, &pod, now, true),
                    Ok(Event::Init) => {}
                    Ok(Event::InitDone) => {
                        if let Some(listed) = listed.take() {
                            // Nobody waits any more where the run was given up.
                            let _ = listed.send(());
                        }
                    }
                    Err(error) => eprintln!("      the bench's own watch: {error}"),
                }
            }
        });
        let first_list = tokio::time::timeout(LISTED, first_list).await;
        first_list.context("the bench's own watch does not begin")?.context("the bench's own watch ends")?;
        Ok(Self { lives, _task: task })
    }

    /// A copy of everything seen.
    pub(crate) fn all(&self) -> Vec<Life> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many meet `met`.
    pub(crate) fn count(&self, met: impl Fn(&Life) -> bool) -> usize {
        let lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        lives.values().filter(|life| met(life)).count()
    }

    /// Waits until so many meet `met`.
    ///
    /// # Errors
    /// `bound` is over first.
    pub(crate) async fn until(
        &self,
        what: &str,
        pods: usize,
        bound: Duration,
        met: impl Fn(&Life) -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + bound;
        loop {
            let now = self.count(&met);
            if now >= pods {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{what}: only {now} of {pods} pods after {} s", bound.as_secs());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn note(seen: &mut HashMap<String, Life>, pod: &Pod, now: Instant, gone: bool) {
    let Some(uid) = pod.uid() else { return };
    let life = seen.entry(uid).or_insert_with(|| Life { added: now, running: None, ended: None, gone: None });
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if phase == Some("Running") {
        life.running.get_or_insert(now);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        life.ended.get_or_insert(now);
    }
    if gone {
        life.gone.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_first_time_of_each_thing_counts_for_each_pod() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let pod = |uid: &str, phase: &str, deleted: bool| -> Pod {
            let mut pod = json!({"metadata": {"name": "a-0-0", "uid": uid}, "status": {"phase": phase}});
            if deleted {
                pod["metadata"]["deletionTimestamp"] = json!("2026-11-11T00:00:00Z");
            }
            serde_json::from_value(pod).unwrap()
        };
        let mut seen = HashMap::new();
        note(&mut seen, &pod("u", "Pending", false), at(1), false);
        note(&mut seen, &pod("u", "Running", false), at(2), false);
        assert!(seen["u"].runs());
        for (time, gone) in [(3, false), (4, false), (5, true)] {
            note(&mut seen, &pod("u", "Running", true), at(time), gone);
        }
        note(&mut seen, &pod("v", "Pending", false), at(6), false);
        let life = &seen["u"];
        assert_eq!((life.added, life.running), (at(1), Some(at(2))));
        assert_eq!((life.ended, life.gone), (Some(at(3)), Some(at(5))));
        assert!(!life.runs() && !seen["v"].runs());
    }
}
