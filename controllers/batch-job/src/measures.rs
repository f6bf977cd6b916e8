//! What this controller measures of its own. No label names an object.

use crate::admission::{DrainTotals, LoadTotals};
use crate::memory::Facts;
use jiff::{SignedDuration, Timestamp};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use springtide_plumbing::key::Uid;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

/// From a pod's POST to hours in a full queue.
const WAIT_SECONDS: [f64; 12] = [0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0];
/// From two writes to a policy that forbids them.
const RELEASE_SECONDS: [f64; 10] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0];

/// The metrics, all at zero at first.
#[derive(Debug)]
pub(crate) struct Measures {
    grants: Counter,
    disruptions: Counter,
    pending_pod_seconds: Counter<f64, AtomicU64>,
    queue_wait: Histogram,
    release: Histogram,
    drain_pods_left: Gauge,
    drains_at_risk: Gauge,
    windows_missed: Gauge,
    load_triggers_on: Gauge,
    load_triggers_unmeasured: Gauge,
    load_readings: Family<ReadingLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReadingLabels {
    result: &'static str,
}

/// What came of a look at the load of nodes.
const READINGS: [&str; 2] = ["served", "failed"];

impl Default for Measures {
    fn default() -> Self {
        Self {
            grants: Counter::default(),
            disruptions: Counter::default(),
            pending_pod_seconds: Counter::default(),
            queue_wait: Histogram::new(WAIT_SECONDS),
            release: Histogram::new(RELEASE_SECONDS),
            drain_pods_left: Gauge::default(),
            drains_at_risk: Gauge::default(),
            windows_missed: Gauge::default(),
            load_triggers_on: Gauge::default(),
            load_triggers_unmeasured: Gauge::default(),
            load_readings: Family::default(),
        }
    }
}

impl Measures {
    /// Makes them part of what is scraped.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "springtide_batch_grants",
            "Grants that became pods: pods of BatchJobs created",
            self.grants.clone(),
        );
        registry.register(
            "springtide_batch_disruptions",
            "Pods of BatchJobs that something else than their task ended",
            self.disruptions.clone(),
        );
        registry.register(
            "springtide_batch_pending_pod_seconds",
            "Seconds that pods of BatchJobs waited for a node, counted when the wait ends",
            self.pending_pod_seconds.clone(),
        );
        registry.register(
            "springtide_batch_queue_wait_seconds",
            "Time from the first sight of a BatchJob to its first pod",
            self.queue_wait.clone(),
        );
        registry.register(
            "springtide_batch_release_seconds",
            "Time from the first sight of a pod's end to its deletion",
            self.release.clone(),
        );
        registry.register(
            "springtide_batch_drain_pods_left",
            "Pods of BatchJobs that have to go for a peak window and are still there",
            self.drain_pods_left.clone(),
        );
        registry.register(
            "springtide_batch_drains_at_risk",
            "BatchQueues of which pods will still run when their peak window opens: DrainWillMiss is True",
            self.drains_at_risk.clone(),
        );
        registry.register(
            "springtide_batch_windows_missed",
            "BatchQueues whose peak window is open while pods that had to be gone by then are still there",
            self.windows_missed.clone(),
        );
        registry.register(
            "springtide_batch_load_triggers_on",
            "Load triggers of BatchQueues that are on",
            self.load_triggers_on.clone(),
        );
        registry.register(
            "springtide_batch_load_triggers_unmeasured",
            "Load triggers of BatchQueues whose tiers start nothing, as nobody knows the load of the nodes",
            self.load_triggers_unmeasured.clone(),
        );
        for result in READINGS {
            drop(self.load_readings.get_or_create(&ReadingLabels { result }));
        }
        registry.register(
            "springtide_batch_load_readings",
            "Lists of the nodes of metrics.k8s.io while a BatchQueue depends on their load, by result",
            self.load_readings.clone(),
        );
    }

    /// What all drains come to.
    pub(crate) fn drains(&self, totals: DrainTotals) {
        self.drain_pods_left.set(i64::try_from(totals.pods_left).unwrap_or(i64::MAX));
        self.drains_at_risk.set(i64::try_from(totals.at_risk).unwrap_or(i64::MAX));
        self.windows_missed.set(i64::try_from(totals.missed).unwrap_or(i64::MAX));
    }

    /// What all load triggers come to.
    pub(crate) fn loads(&self, totals: LoadTotals) {
        self.load_triggers_on.set(i64::try_from(totals.on).unwrap_or(i64::MAX));
        self.load_triggers_unmeasured.set(i64::try_from(totals.unmeasured).unwrap_or(i64::MAX));
    }

    /// metrics.k8s.io was asked for nodes.
    pub(crate) fn load_read(&self, answered: bool) {
        let [served, failed] = READINGS;
        let result = if answered { served } else { failed };
        self.load_readings.get_or_create(&ReadingLabels { result }).inc();
    }

    /// A pod was created.
    pub(crate) fn granted(&self) {
        self.grants.inc();
    }

    /// The first pod of a job was created, and the job had waited so long.
    pub(crate) fn waited(&self, wait: SignedDuration) {
        self.queue_wait.observe(seconds(wait));
    }

    /// An ended pod was deleted so long after its end was seen.
    pub(crate) fn released(&self, after: SignedDuration) {
        self.release.observe(seconds(after));
    }

    /// A job was looked at: how often it had been disrupted before, and which of its pods had waited for
    /// a node since when.
    pub(crate) fn looked(
        &self,
        disrupted: u32,
        pending: &BTreeMap<Uid, Timestamp>,
        after: &Facts,
        now: Timestamp,
    ) {
        self.disruptions.inc_by(u64::from(after.disrupted.saturating_sub(disrupted)));
        for (_, since) in pending.iter().filter(|(pod, _)| !after.pending.contains_key(*pod)) {
            self.pending_pod_seconds.inc_by(seconds(now.duration_since(*since)));
        }
    }
}

/// None where the clock was set back.
fn seconds(duration: SignedDuration) -> f64 {
    duration.as_secs_f64().max(0.0)
}
