//! BatchQueue, as its own controller and that of BatchJob read it.

use crate::peaks::Peaks;
use serde::Deserialize;
use springtide_crds::batch_job::StopPolicy;
use springtide_crds::batch_queue::{BatchQueueSpec, BatchQueueStatus, TierMapping};
use springtide_crds::common::{Condition, ConditionStatus, GROUP, Tier, VERSION, condition};
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use std::sync::Arc;

/// `springtide.dev/v1alpha1` BatchQueue.
pub const BATCH_QUEUE: Resource =
    Resource { group: GROUP, version: VERSION, kind: "BatchQueue", plural: "batchqueues", namespaced: true };

/// One BatchQueue.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct QueueView {
    meta: Meta,
    /// The spec, but for its tiers, which are empty here: see [`QueueView::tier`].
    pub spec: BatchQueueSpec,
    /// The status as stored.
    pub status: BatchQueueStatus,
    /// Shared with the jobs of the queue.
    tiers: Vec<Arc<TierMapping>>,
    /// Its peak windows, checked.
    pub peaks: Arc<Peaks>,
}

impl QueueView {
    /// What the pods of a tier get, if the spec says so.
    pub fn tier(&self, tier: Tier) -> Option<&Arc<TierMapping>> {
        self.tiers.iter().find(|mapping| mapping.name == tier)
    }

    /// What the pods of all tiers get of which the spec says so.
    pub fn tiers(&self) -> &[Arc<TierMapping>] {
        &self.tiers
    }

    /// How far it is stopped. One that is being deleted starts nothing any more; its pods finish.
    pub fn stop(&self) -> StopPolicy {
        match self.spec.stop_policy {
            StopPolicy::None if self.meta.is_deleting() => StopPolicy::Hold,
            policy @ (StopPolicy::None | StopPolicy::Hold | StopPolicy::Drain) => policy,
        }
    }

    /// The stored condition of a type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        condition(&self.status.conditions, type_)
    }

    /// Whether the stored condition of a type is true.
    pub fn holds(&self, type_: &str) -> bool {
        self.condition(type_).is_some_and(|condition| condition.status == ConditionStatus::True)
    }
}

impl Projection for QueueView {
    const RESOURCE: Resource = BATCH_QUEUE;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    spec: BatchQueueSpec,
    #[serde(default)]
    status: BatchQueueStatus,
}

impl From<Wire> for QueueView {
    fn from(mut wire: Wire) -> Self {
        let tiers = std::mem::take(&mut wire.spec.tiers).into_iter().map(Arc::new).collect();
        let (windows, forced) = (&wire.spec.peak_windows, wire.spec.override_peak.as_ref());
        let peaks =
            Arc::new(Peaks::new(&wire.metadata.uid, windows, forced).with_triggers(&wire.spec.load_triggers));
        Self { meta: wire.metadata, spec: wire.spec, status: wire.status, tiers, peaks }
    }
}
