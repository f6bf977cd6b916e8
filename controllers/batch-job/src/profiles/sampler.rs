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
use springtide_plumbing::client::Reader;
use springtide_plumbing::pod_metrics::{POD_METRICS, PodMetrics, is_not_served};
use springtide_plumbing::projection::Projection;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Label of the pods that have a profile: its name.
pub const PROFILE_LABEL: &str = "springtide.dev/profile";

/// Time between two looks: the metrics server looks at the kubelets as often by default.
const INTERVAL: Duration = Duration::from_secs(15);
/// The same while the API is not served.
const ABSENT_INTERVAL: Duration = Duration::from_secs(300);

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
        let Some(pod) = self.stores.pods.get(&metrics.key).filter(|pod| is_sampled(pod)) else { return };
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
