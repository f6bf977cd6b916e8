//! BatchQueue: how much of a namespace's capacity its batch jobs may use, and how.

mod archive;
pub mod loads;
pub mod peaks;
mod peaks_reasons;
mod preemption;
mod reasons;
mod rules;
mod status;

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use archive::{Archive, ArchiveType, URL_MAX_LENGTH as ARCHIVE_URL_MAX_LENGTH};
use loads::{LOAD_TRIGGERS_MAX, LoadTrigger};
use peaks::{PEAK_WINDOWS_MAX, PeakOverride, PeakWindow};
pub use peaks_reasons::{DrainWillMissReason, PeakWindowActiveReason};
pub use preemption::{MAX_PENDING_PODS, Preemptible};
pub use reasons::{
    ArchiveFailingReason, CapacityStaleReason, GangSchedulingReason, OvercommittedReason, ReadyReason,
    ReconcilingReason, StalledReason, all as all_reasons,
};
pub use rules::IMMUTABLE_FIELDS;
pub use status::{
    BatchQueueStatus, COUNT_MAX, MESSAGE_MAX_BYTES, SHAPE_MAX_LENGTH, WAITING_MAX, WAITING_REASON_MAX_LENGTH,
    WaitingClass,
};

use crate::batch_job::StopPolicy;
use crate::batch_task_profile::ProfileMode;
use crate::common::{Quantity, RESOURCE_NAME_MAX_LENGTH, Tier};
use crate::schema;

/// Longest queue name: it is the value of a pod label.
pub const NAME_MAX_LENGTH: usize = 63;
/// Most queues in one namespace.
pub const MAX_PER_NAMESPACE: u32 = 20;
/// Most queues in a cluster.
pub const MAX_PER_CLUSTER: u32 = 500;
/// Most resources with a quota.
pub const QUOTA_ROWS_MAX: usize = 16;
/// Name of the queue that takes the jobs of its namespace which name none.
pub const DEFAULT_QUEUE: &str = "default";

/// How much batch jobs may use, and how they start.
// Each printer column has a `type_`, which clippy takes for one attribute said twice.
#[allow(clippy::duplicated_attributes)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "springtide.dev",
    version = "v1alpha1",
    kind = "BatchQueue",
    plural = "batchqueues",
    shortname = "bq",
    category = "springtide",
    namespaced,
    status = "BatchQueueStatus",
    derive = "PartialEq",
    doc = "The administrator's side of batch jobs: quota, the capacity it is held against, tiers, and how long \
           finished jobs stay. A queue called default takes the jobs that name none.",
    selectable = ".spec.cohort",
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "What the queue does: reason of condition Ready.",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Cohort",
        type_ = "string",
        description = "Queues of one cohort lend to each other.",
        json_path = ".spec.cohort"
    ),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        description = "Jobs that wait for their first grant.",
        json_path = ".status.pendingJobs"
    ),
    printcolumn(
        name = "Running",
        type_ = "integer",
        description = "Pods that exist and have not ended.",
        json_path = ".status.runningPods"
    ),
    printcolumn(
        name = "Window",
        type_ = "string",
        description = "The peak window that is near, open or just over, or the load trigger that is on.",
        json_path = ".status.activeWindow.name"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        description = "Time since the queue was created.",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BatchQueueSpec {
    /// Who admits the jobs. Builtin is this controller.
    #[serde(default)]
    pub engine: Engine,
    /// None starts jobs; Hold starts nothing and lets running pods finish; Drain ends running pods too.
    #[serde(default)]
    pub stop_policy: StopPolicy,
    /// Queues of the same cohort and namespace lend each other what they do not use. Absent = the queue is alone.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cohort: Option<String>,
    /// Share of what the cohort lends, in proportion to the weights of the others.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "one")]
    pub weight: u32,
    /// Guaranteed and highest amounts by resource; a resource without a row is bounded by the capacity alone.
    #[schemars(
        length(max = QUOTA_ROWS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["resource"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quota: Vec<QuotaRow>,
    /// Where the live capacity comes from that the jobs must fit into, beside the quota.
    #[serde(default)]
    pub capacity_source: CapacitySource,
    /// PriorityFIFO lets a job start past one that does not fit; in StrictFIFO the first that waits blocks all
    /// others.
    #[serde(default)]
    pub ordering: Ordering,
    /// Most jobs that wait in the queue; more are not refused but taken in when others leave it.
    #[schemars(range(min = 1, max = 10_000))]
    #[serde(default = "max_queued_jobs")]
    pub max_queued_jobs: u32,
    /// Highest tier of a job that runs here.
    #[serde(default = "max_tier")]
    pub max_tier: Tier,
    /// PodGroup has the scheduler place the pods of a gang all at once or not at all, where the cluster serves
    /// PodGroups of scheduling.k8s.io/v1beta1; with None it starts when as many pods fit as it needs.
    #[serde(default)]
    pub gang_scheduler: GangScheduler,
    /// What the pods of a tier get. A tier without an entry runs as the template says.
    #[schemars(
        length(max = 3),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<TierMapping>,
    /// Hours in which batch work shrinks, waits or leaves, as the machines belong to online services. Where windows
    /// overlap, each tier gets the strongest action.
    #[schemars(
        length(max = PEAK_WINDOWS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peak_windows: Vec<PeakWindow>,
    /// Measured loads of the nodes at which batch work shrinks, waits or leaves. Beside peak windows each tier gets the
    /// strongest action.
    #[schemars(
        length(max = LOAD_TRIGGERS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub load_triggers: Vec<LoadTrigger>,
    /// Opens or closes all peak windows for a while, such as in an incident. Absent = they follow the clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_peak: Option<PeakOverride>,
    /// What a job gets whose spec.profile has a key and no mode: Off does nothing, Observe learns from its runs, Initial
    /// also fills in requests that its template leaves out, Auto also replaces the template's own.
    #[serde(default)]
    pub default_profile_mode: ProfileMode,
    /// How long finished jobs stay.
    #[serde(default)]
    pub retention: Retention,
}

impl BatchQueueSpec {
    /// A queue with every field at its default: all schedulable nodes, no quota.
    #[must_use]
    pub fn new() -> Self {
        Self { weight: one(), max_queued_jobs: max_queued_jobs(), max_tier: max_tier(), ..Self::default() }
    }
}

/// Who admits the jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Engine {
    /// This controller.
    #[default]
    Builtin,
}

/// The quota of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::max_at_least_nominal(), rules::nominal_not_negative()]))]
#[serde(rename_all = "camelCase")]
pub struct QuotaRow {
    /// Name of the resource, such as cpu, memory or nvidia.com/gpu; pods bounds the number of pods.
    #[schemars(length(min = 1, max = RESOURCE_NAME_MAX_LENGTH), regex(pattern = RESOURCE_NAME))]
    pub resource: String,
    /// The amount the queue can always count on; others of the cohort may use it until it is asked for.
    pub nominal: Quantity,
    /// The amount the queue never exceeds, with what it borrows. Absent = nominal: it borrows nothing.
    // `with`: an optional value of no one type would become an `anyOf` with null.
    #[schemars(with = "Quantity")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Quantity>,
}

/// The form of a resource's name, with or without a domain.
const RESOURCE_NAME: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$";

/// Where live capacity comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct CapacitySource {
    /// NodeAllocatable is what the nodes' allocatable leaves beside all other pods; Static is the quota alone,
    /// whatever the nodes have; ExtendedResource is NodeAllocatable in the resources the tiers map to; NodeMetrics is
    /// NodeAllocatable less what all other pods really use, where that is more than they request.
    #[serde(rename = "type")]
    pub type_: CapacityType,
    /// Nodes that count, by their labels. Absent = all that are schedulable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<NodeSelector>,
    /// Part of the capacity that batch may use.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u32,
    /// Amounts by resource taken off the sum over all nodes.
    #[schemars(extend("maxProperties" = 16))]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reserve: BTreeMap<String, Quantity>,
    /// When the view of the nodes, or what NodeMetrics measures, is older than so many seconds, nothing starts.
    #[schemars(range(min = 10, max = 3600))]
    pub stale_after_seconds: u32,
    /// Most pods that exist though no node has room for them, so that a node autoscaler sees them. Each is taken back
    /// after 600 seconds, or after spec.pendingDeadlineSeconds of its job if that is longer.
    #[schemars(range(max = MAX_PENDING_PODS))]
    pub max_pending_pods: u32,
}

impl Default for CapacitySource {
    fn default() -> Self {
        Self {
            type_: CapacityType::default(),
            node_selector: None,
            percent: 100,
            reserve: BTreeMap::new(),
            stale_after_seconds: 60,
            max_pending_pods: 0,
        }
    }
}

/// What capacity is measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum CapacityType {
    /// Allocatable of the nodes without the requests of pods that are not of batch jobs.
    #[default]
    NodeAllocatable,
    /// The quota alone.
    Static,
    /// As NodeAllocatable, in extended resources that an agent on the nodes publishes.
    ExtendedResource,
    /// Allocatable of each node without the requests of pods that are not of batch jobs or, where that is more, without
    /// what they use by metrics.k8s.io.
    NodeMetrics,
}

/// Nodes by their labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Labels a node must have, all of them.
    #[schemars(extend(
        "minProperties" = 1, "maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63},
    ))]
    pub match_labels: BTreeMap<String, String>,
}

/// What order jobs start in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Ordering {
    /// By tier, priority and age; what does not fit is passed.
    #[default]
    #[serde(rename = "PriorityFIFO")]
    PriorityFifo,
    /// By tier, priority and age; what does not fit blocks what comes after it.
    #[serde(rename = "StrictFIFO")]
    StrictFifo,
}

/// Who sees to it that all pods of a gang are placed, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum GangScheduler {
    /// The count of what fits, at the moment when the gang starts.
    #[default]
    None,
    /// The scheduler as well, by a PodGroup.
    PodGroup,
}

/// What the pods of one tier get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::yields_to_no_lower_tier()]))]
#[serde(rename_all = "camelCase")]
pub struct TierMapping {
    /// The tier.
    pub name: Tier,
    /// PriorityClass of the pods, instead of the template's. Absent = none.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_NAME))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority_class_name: Option<String>,
    /// Scheduler of the pods. Absent = the template's.
    #[schemars(length(min = 1, max = 253), regex(pattern = DNS_NAME))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_name: Option<String>,
    /// Labels of the pods beside those of the template, whose place they take.
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_labels: BTreeMap<String, String>,
    /// Extended resources in place of requests and limits, such as kubernetes.io/batch-cpu for cpu; in place of
    /// cpu they count in thousandths of a core.
    #[schemars(extend("maxProperties" = 8, "additionalProperties" = {
        "type": "string", "minLength": 1, "maxLength": RESOURCE_NAME_MAX_LENGTH, "pattern": RESOURCE_NAME,
    }))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub resource_names: BTreeMap<String, String>,
    /// For whom its pods may be ended, beside the queue that has lent what they use. Absent = for nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemptible: Option<Preemptible>,
}

/// The form of an object's name.
const DNS_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// How long finished jobs stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct Retention {
    /// A finished job that says nothing else is deleted after so many seconds.
    #[schemars(range(max = 604_800))]
    pub ttl_seconds_after_finished: u32,
    /// Most finished jobs that are kept; the oldest go first.
    #[schemars(range(max = 5000))]
    pub history_limit: u32,
    /// Where a finished job is written down before it is deleted.
    pub archive: Archive,
}

impl Default for Retention {
    fn default() -> Self {
        Self { ttl_seconds_after_finished: 900, history_limit: 400, archive: Archive::default() }
    }
}

/// The CustomResourceDefinition as it is installed: what the derive gives,
/// with rules, default status and bounded, documented fields.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let crd = schema::finish(BatchQueue::crd(), &IMMUTABLE_FIELDS, |root| {
        rules::add(root);
        root["properties"]["status"]["default"] = crate::common::never_seen("Ready", "queue");
    });
    crate::labelled(crate::with_maxima(crd, MAX_PER_NAMESPACE, MAX_PER_CLUSTER))
}

fn one() -> u32 {
    1
}

fn max_queued_jobs() -> u32 {
    1000
}

fn max_tier() -> Tier {
    Tier::Standard
}
