//! What pods use while they run, by the API of the metrics server: for tasks that say nothing of it themselves.
//!
//! The API is asked only while pods with a profile run, for those pods alone, and where it is not served the
//! controller does without. What it tells of cpu is an average over some 15 s, of memory the working set at one
//! moment; of both the highest of a run counts, so that of runs shorter than that nothing is known.

use super::controller::ProfileReconciler;
use super::measures::Reading;
use super::status::UsageApi;
use super::usage::Usage;
use crate::RIGHTS;
use crate::projections::pod::{PodPhase, PodView};
use crate::resources::ResourceList;
use jiff::Timestamp;
use serde::Deserialize;
use springtide_plumbing::client::{ReadError, Reader};
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::projection::Projection;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// `metrics.k8s.io/v1beta1` PodMetrics. Its plural is that of pods.
pub const POD_METRICS: Resource = Resource {
    group: "metrics.k8s.io",
    version: "v1beta1",
    kind: "PodMetrics",
    plural: "pods",
    namespaced: true,
};

/// Label of the pods that have a profile: its name.
pub const PROFILE_LABEL: &str = "springtide.dev/profile";

/// Time between two looks: the metrics server looks at the kubelets as often by default.
const INTERVAL: Duration = Duration::from_secs(15);
/// The same while the API is not served.
const ABSENT_INTERVAL: Duration = Duration::from_secs(300);

/// What the API tells of one pod.
#[derive(Clone, Debug, Deserialize)]
pub struct PodMetrics {
    metadata: Name,
    #[serde(default)]
    timestamp: Option<Timestamp>,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Clone, Debug, Deserialize)]
struct Name {
    namespace: Arc<str>,
    name: Arc<str>,
}

#[derive(Clone, Debug, Deserialize)]
struct ContainerMetrics {
    name: Box<str>,
    #[serde(default)]
    usage: ResourceList,
}

impl PodMetrics {
    /// Which pod, and what all its containers use.
    pub(crate) fn total(self) -> (ObjectKey, ResourceList) {
        let mut total = ResourceList::default();
        for container in &self.containers {
            total.add(&container.usage);
        }
        (ObjectKey { namespace: self.metadata.namespace, name: self.metadata.name }, total)
    }
}

impl ProfileReconciler {
    /// Looks at the usage of pods for as long as the process runs, while it leads.
    pub async fn sample(self: Arc<Self>, reader: Reader, mut leading: watch::Receiver<bool>) {
        let mut pause = INTERVAL;
        loop {
            tokio::time::sleep(pause).await;
            if leading.wait_for(|leading| *leading).await.is_err() {
                // Nobody can lead any more: the process is ending.
                return std::future::pending().await;
            }
            pause = self.look(&reader).await;
        }
    }

    /// One look. Returns when the next is due.
    async fn look(&self, reader: &Reader) -> Duration {
        for namespace in self.sampled_namespaces() {
            match reader.list::<PodMetrics>(RIGHTS, POD_METRICS, namespace.as_deref(), PROFILE_LABEL).await {
                Ok(pods) => {
                    self.usage_api(UsageApi::Served, Reading::Served);
                    pods.into_iter().for_each(|pod| self.take(pod));
                }
                Err(error) if is_not_served(&error) => {
                    // Once, not each time.
                    if self.usage_api(UsageApi::NotServed, Reading::NotServed) {
                        tracing::info!(
                            %error,
                            "metrics.k8s.io is not served: profiles learn usage only from tasks that tell it"
                        );
                    }
                    return ABSENT_INTERVAL;
                }
                Err(error) => {
                    self.read_failed();
                    tracing::debug!(%error, "metrics.k8s.io did not answer");
                }
            }
        }
        INTERVAL
    }

    /// Where pods with a profile run: the cluster, or in namespaced mode these namespaces.
    pub(super) fn sampled_namespaces(&self) -> Vec<Option<Arc<str>>> {
        let pods = self.stores.pods.list(None);
        let sampled =
            pods.iter().filter(|pod| is_sampled(pod)).map(|pod| Arc::clone(&pod.meta().key.namespace));
        let namespaces: BTreeSet<Arc<str>> = sampled.collect();
        match &self.stores.nodes {
            Some(_) if namespaces.is_empty() => Vec::new(),
            Some(_) => vec![None],
            None => namespaces.into_iter().map(Some).collect(),
        }
    }

    /// Takes in what is told of one pod; of an earlier pod of its name it is not.
    pub(super) fn take(&self, metrics: PodMetrics) {
        let key = ObjectKey { namespace: metrics.metadata.namespace, name: metrics.metadata.name };
        let Some(pod) = self.stores.pods.get(&key).filter(|pod| is_sampled(pod)) else { return };
        let started = pod.task.as_deref().and_then(|task| task.started);
        if metrics.timestamp.zip(started).is_some_and(|(at, started)| at < started) {
            return;
        }
        let containers = metrics.containers.into_iter().map(|container| {
            // Whatever runs has memory; without it nothing was measured, and no cpu either.
            let usage =
                Some(container.usage).filter(|usage| usage.memory > 0).map_or_else(Usage::default, |usage| {
                    Usage { cpu: Some(usage.cpu), memory: Some(usage.memory) }
                });
            (container.name, usage)
        });
        self.measured(&pod.meta().uid, containers);
    }
}

fn is_sampled(pod: &PodView) -> bool {
    pod.phase == PodPhase::Running && pod.meta().labels.profile.is_some() && pod.job_owner().is_some()
}

/// Whether the server says that there is no such API, that what stands behind it is out of order, or that it may not be
/// asked: neither changes within seconds.
fn is_not_served(error: &ReadError) -> bool {
    match error {
        ReadError::Refused(status) => matches!(status.code, 401 | 403 | 404 | 405 | 503),
        ReadError::NotGranted(_) => true,
        ReadError::NoAnswer(_) | ReadError::NotAnObject => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_metrics_server_sends_is_read_in_whole_units() {
        let pod: PodMetrics = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a-0-0", "namespace": "ns", "creationTimestamp": "2026-11-11T00:00:20Z",
                "labels": {"springtide.dev/profile": "etl"}},
            "timestamp": "2026-11-11T00:00:11Z", "window": "10.062s",
            "containers": [{"name": "main", "usage": {"cpu": "12345678n", "memory": "20172Ki"}}],
        }))
        .unwrap();
        assert_eq!((&*pod.metadata.name, &*pod.containers[0].name), ("a-0-0", "main"));
        let usage = &pod.containers[0].usage;
        assert_eq!((usage.cpu, usage.memory), (13, 20172 << 10), "cpu is rounded up to thousandths");
        assert_eq!(pod.timestamp.unwrap().to_string(), "2026-11-11T00:00:11Z");
    }

    #[test]
    fn what_is_not_there_is_told_from_what_does_not_answer() {
        let refused = |code| {
            let status = kube_status(code);
            ReadError::Refused(Box::new(status))
        };
        for code in [403, 404, 503] {
            assert!(is_not_served(&refused(code)), "{code}");
        }
        for code in [429, 500] {
            assert!(!is_not_served(&refused(code)), "{code}");
        }
        assert!(!is_not_served(&ReadError::NoAnswer("cut".to_owned())));
    }

    fn kube_status(code: u16) -> springtide_plumbing::client::Status {
        serde_json::from_value(
            serde_json::json!({"code": code, "status": "Failure", "message": "", "reason": ""}),
        )
        .unwrap()
    }
}
