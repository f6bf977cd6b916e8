//! Asks metrics.k8s.io for what is in use on the nodes: one list of nodes every 15 s, and one of the pods of batch jobs
//! where a queue's capacity is NodeMetrics. It cannot be watched. While no queue wants to know, nobody is asked.

use super::Usage;
pub use super::usage::NODE_METRICS;
use crate::pods::JOB_LABEL;
use crate::projections::queue::QueueView;
use springtide_plumbing::resources::ResourceList;
use crate::watches::admission as admission_key;
use crate::{BatchJobReconciler, RIGHTS, lock};
use springtide_crds::batch_queue::CapacityType;
use springtide_plumbing::client::{ReadError, Reader};
use springtide_plumbing::clock::Clock;
use springtide_plumbing::pod_metrics::{POD_METRICS, PodMetrics};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time between two looks: the metrics server looks at the kubelets as often by default.
const INTERVAL: Duration = Duration::from_secs(15);
/// A queue that has just come need not wait for the next look; but edits in quick succession get one only.
const LEAST_INTERVAL: Duration = Duration::from_secs(2);

/// Whether a queue depends on what is in use on nodes.
pub(crate) fn asks(queue: &QueueView) -> bool {
    !queue.spec.load_triggers.is_empty() || is_measured(queue)
}

fn is_measured(queue: &QueueView) -> bool {
    match queue.spec.capacity_source.type_ {
        CapacityType::NodeMetrics => true,
        CapacityType::NodeAllocatable | CapacityType::Static | CapacityType::ExtendedResource => false,
    }
}

impl BatchJobReconciler {
    /// Looks at the load of nodes for as long as the process runs, while it leads.
    pub async fn sample_load(
        self: Arc<Self>,
        reader: Reader,
        clock: Clock,
        mut leading: watch::Receiver<bool>,
    ) {
        loop {
            if leading.wait_for(|leading| *leading).await.is_err() {
                // Nobody can lead any more: the process is ending.
                return std::future::pending().await;
            }
            self.look_at_load(&reader, &clock).await;
            tokio::time::sleep(LEAST_INTERVAL).await;
            tokio::select! {
                () = tokio::time::sleep(INTERVAL - LEAST_INTERVAL) => {}
                () = self.load_asked.notified() => {}
            }
        }
    }

    /// One look, if any queue asks.
    async fn look_at_load(&self, reader: &Reader, clock: &Clock) {
        let queues = self.stores.queues.list(None);
        let asking: Vec<&Arc<QueueView>> = queues.iter().filter(|queue| asks(queue)).collect();
        // Where no node is seen, nobody knows how much of it the load is.
        if asking.is_empty() || self.stores.nodes.is_none() {
            return;
        }
        let with_pods = asking.iter().any(|queue| is_measured(queue));
        match self.read_load(reader, with_pods, clock).await {
            Ok(usage) => {
                self.measures.load_read(true);
                self.take_load(usage);
            }
            Err(error) => {
                self.measures.load_read(false);
                tracing::debug!(%error, "metrics.k8s.io does not tell of nodes");
            }
        }
        // Also when nothing was told: what is known grows too old.
        self.wake(admission_key(), Priority::High, Urgency::Routine);
        for queue in asking {
            self.wake_queue(queue.meta().key.clone(), Urgency::Routine);
        }
    }

    async fn read_load(&self, reader: &Reader, with_pods: bool, clock: &Clock) -> Result<Usage, ReadError> {
        // All of them: every label.
        let nodes = reader.list(RIGHTS, NODE_METRICS, None, "").await?;
        let pods = match with_pods {
            true => reader.list::<PodMetrics>(RIGHTS, POD_METRICS, None, JOB_LABEL).await?,
            false => Vec::new(),
        };
        Ok(self.load_usage().next(nodes, &self.by_batch(pods), clock.now()))
    }

    /// What pods of BatchJobs use, by node. One that is not measured yet counts as nothing, so that what it uses seems to
    /// be used by others, and less is offered rather than more.
    fn by_batch(&self, measured: Vec<PodMetrics>) -> HashMap<Arc<str>, ResourceList> {
        let mut by_node: HashMap<Arc<str>, ResourceList> = HashMap::new();
        for metrics in measured {
            let usage = metrics.total();
            let pod = self.stores.pods.get(&metrics.key).filter(|pod| pod.job_owner().is_some());
            if let Some(node) = pod.and_then(|pod| pod.node.clone()) {
                by_node.entry(node).or_default().add(&usage);
            }
        }
        by_node
    }

    /// Takes in what was told, and lets the admission act on it.
    pub fn take_load(&self, usage: Usage) {
        let usage = Arc::new(usage);
        *lock(&self.usage) = Arc::clone(&usage);
        lock(&self.admission).usage_changed(usage);
        self.wake(admission_key(), Priority::High, Urgency::Routine);
    }

    /// What is in use on the nodes, as it was told last.
    pub fn load_usage(&self) -> Arc<Usage> {
        Arc::clone(&lock(&self.usage))
    }
}
