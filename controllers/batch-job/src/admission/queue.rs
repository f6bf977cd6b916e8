//! What the admission is told of a queue, and what it tells of it.
//!
//! Plain data: who reads BatchQueues turns their spec into [`QueueRules`], and [`QueueFigures`] into their
//! status. Amounts are those of [`ResourceList`]: thousandths of a core, bytes, whole devices.

use super::peaks::PeakFigures;
use springtide_plumbing::resources::ResourceList;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use springtide_crds::batch_job::{QueuedReason, StopPolicy};
use springtide_crds::common::Tier;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Waiting jobs that a queue takes in unless told otherwise, and the built-in queue per namespace; further
/// ones wait outside.
pub const MAX_QUEUED_JOBS: usize = 1000;
/// Age of the view of nodes and pods from which on a queue grants nothing, unless told otherwise.
pub(super) const STALE_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Classes that [`QueueFigures::waiting`] tells of at most.
pub const WAITING_CLASSES: usize = 10;

/// Which queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QueueId {
    /// The one without an object: all nodes, no quota, and a line per namespace.
    #[default]
    BuiltIn,
    /// A BatchQueue, by namespace and name.
    Object(ObjectKey),
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("the built-in queue"),
            Self::Object(key) => write!(f, "queue {}", key.name),
        }
    }
}

/// The rules of one queue, as its spec states them; the default is a queue of live capacity alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRules {
    /// Queues of one cohort lend to each other what they do not use, as far as [`CohortScope`] goes; `None` is alone.
    pub cohort: Option<Arc<str>>,
    /// Share of borrowed capacity, from 1.
    pub weight: u32,
    /// Bounds by resource; what has no row is bounded by live capacity alone.
    pub quota: Vec<QuotaRow>,
    /// What is there at all.
    pub source: CapacitySource,
    /// Labels of the nodes whose load its triggers look at, also where its capacity does not depend on any.
    pub load_nodes: BTreeMap<Arc<str>, Arc<str>>,
    /// Resources of pods and nodes that count as another one, such as `kubernetes.io/batch-cpu` as `cpu`.
    pub counted_as: BTreeMap<Arc<str>, Arc<str>>,
    /// When the view of nodes and pods is older than this, nothing is granted.
    pub stale_after: SignedDuration,
    /// Who goes first.
    pub ordering: Ordering,
    /// Waiting jobs that it takes in; the newest beyond it wait outside.
    pub max_queued_jobs: usize,
    /// Jobs of a higher tier are not taken in.
    pub max_tier: Tier,
    /// Whether anything starts, and whether what runs may stay.
    pub stop: StopPolicy,
    /// What holds for the jobs of one tier.
    pub tiers: BTreeMap<Tier, TierRules>,
    /// Pods that may exist though no node has room for them, so that a node autoscaler sees them.
    pub max_pending: usize,
}

impl Default for QueueRules {
    fn default() -> Self {
        Self {
            cohort: None,
            weight: 1,
            quota: Vec::new(),
            source: CapacitySource::default(),
            load_nodes: BTreeMap::new(),
            counted_as: BTreeMap::new(),
            stale_after: STALE_AFTER,
            ordering: Ordering::default(),
            max_queued_jobs: MAX_QUEUED_JOBS,
            max_tier: Tier::Standard,
            stop: StopPolicy::None,
            tiers: BTreeMap::new(),
            max_pending: 0,
        }
    }
}

/// The bounds of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaRow {
    /// Its API name.
    pub resource: Arc<str>,
    /// Guaranteed to the queue.
    pub nominal: i64,
    /// Never exceeded; what is above `nominal` is borrowed from the cohort.
    pub max: i64,
}

/// Where a queue's capacity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CapacitySource {
    /// What the schedulable nodes have, less what pods request that belong to no BatchJob.
    NodeAllocatable(NodeShare),
    /// The quota alone.
    Static,
    /// The same as [`CapacitySource::NodeAllocatable`] of resources that an agent offers on the nodes: those
    /// which [`QueueRules::counted_as`] names. Resources without such a name are not bounded.
    ExtendedResource(NodeShare),
    /// As [`CapacitySource::NodeAllocatable`], less what other pods really use, where that is more than they request.
    NodeMetrics(NodeShare),
}

impl Default for CapacitySource {
    fn default() -> Self {
        Self::NodeAllocatable(NodeShare::default())
    }
}

/// Which queues lend to each other that name the same cohort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CohortScope {
    /// Those of one namespace.
    #[default]
    Namespace,
    /// Those of all namespaces that the manager serves.
    Cluster,
}

/// How much of which nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeShare {
    /// Labels that a node must have; none selects all of them.
    pub selector: BTreeMap<Arc<str>, Arc<str>>,
    /// Of the sum, from 1 to 100.
    pub percent: u8,
    /// Taken off what `percent` leaves.
    pub reserve: ResourceList,
}

impl Default for NodeShare {
    fn default() -> Self {
        Self { selector: BTreeMap::new(), percent: 100, reserve: ResourceList::default() }
    }
}

/// Who goes first among jobs of one tier and priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// The oldest of each class, and classes in turn: who does not fit holds up nobody else.
    #[default]
    PriorityFifo,
    /// The oldest: while it waits, all others do.
    StrictFifo,
}

/// What holds for the jobs of one tier of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TierRules {
    /// Tiers of the same queue for which its pods may be ended; empty is none.
    pub preemptible_by: Vec<Tier>,
    /// A pod is not ended for others before it has run so long.
    pub min_run: SignedDuration,
}

/// The figures of one queue, for its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueFigures {
    /// Jobs that wait and have no grant, those outside included.
    pub pending_jobs: usize,
    /// Jobs that have a grant.
    pub admitted_jobs: usize,
    /// Pods that have not ended.
    pub running_pods: usize,
    /// Classes of jobs.
    pub classes: usize,
    /// What its pods and grants hold.
    pub used: ResourceList,
    /// What of it is above the nominal quota.
    pub borrowed: ResourceList,
    /// What its source offers now; `None` where only quota counts, or nobody may see nodes.
    pub capacity: Option<ResourceList>,
    /// When that was known last.
    pub capacity_time: Option<Timestamp>,
    /// Whether the view of it is too old to grant anything.
    pub is_stale: bool,
    /// Whether that is so because the nodes were not measured lately.
    pub metrics_old: bool,
    /// Up to [`WAITING_CLASSES`] classes that wait, in the order of the queue.
    pub waiting: Vec<WaitingClass>,
    /// What its peak windows mean now; `None` of one without any.
    pub peak: Option<PeakFigures>,
}

/// A class of jobs that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingClass {
    /// Its tier.
    pub tier: Tier,
    /// Its priority.
    pub priority: i32,
    /// Four hexadecimal digits that tell its shape from others.
    pub shape: String,
    /// Why its oldest job waits.
    pub reason: QueuedReason,
    /// The resource that is short, where one is.
    pub resource: Option<Arc<str>>,
    /// Jobs of it that wait.
    pub jobs: usize,
    /// When its oldest waiting job was created.
    pub oldest: Timestamp,
}

/// Pods that a job must give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reclaim {
    /// Live pods that may stay, those aside that are being deleted already.
    pub keep: u32,
    /// Those that have to go, as it is their place that is needed; without any the job gives back those that lose the
    /// least.
    pub pods: BTreeSet<Uid>,
    /// For whom or what.
    pub cause: ReclaimCause,
    /// The pods must be gone by then, so that a longer grace is cut.
    pub until: Option<Timestamp>,
}

/// Why pods are taken back that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ReclaimCause {
    /// The queue's stopPolicy is Drain.
    QueueStopped,
    /// A peak is near or open, and its tier has to leave.
    PeakWindow,
    /// A window leaves its tier a smaller share of the queue.
    Degraded,
    /// The queue's max was cut below what it uses.
    QuotaShrunk,
    /// What was borrowed is claimed by its lender.
    Reclaimed,
    /// A higher tier or priority of the same queue needs the room.
    Preempted,
}
