//! Pod, as the ledger and the planner of BatchJobs read it.

use crate::profiles::usage::{self, Usage};
use springtide_plumbing::resources::{
    ContainerRequests, ContainerStatusRequests, PodSpecRequests, PodStatusRequests, ResourceList, Resources,
};
use jiff::Timestamp;
use serde::de::IgnoredAny;
use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::{Deserialize, Deserializer};
use springtide_crds::batch_job::{MESSAGE_MAX_BYTES, RESULT_MESSAGE_MAX_BYTES};
use springtide_crds::common::{ConditionStatus, REASON_MAX_LENGTH, Tier, bounded_text};
use springtide_plumbing::key::{Resource, ResourceVersion};
use springtide_plumbing::projection::{Meta, OwnerRef, Projection};
use springtide_plumbing::warrant::Protection;
use std::sync::Arc;

/// The finalizer that keeps a pod of a Strict job until its outcome stands in the job's status.
pub const TRACKING_FINALIZER: &str = "springtide.dev/job-tracking";
/// Kind of the owner by which a pod is known to belong to a BatchJob.
const OWNER_KIND: &str = "BatchJob";

/// One pod. Pods that belong to no BatchJob are kept for the ledger only, without [`PodView::task`].
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct PodView {
    meta: Meta<PodLabels>,
    /// `spec.nodeName`: the node it is bound to.
    pub node: Option<Arc<str>>,
    /// `status.phase`.
    pub phase: PodPhase,
    /// What it holds on its node, as the scheduler counts it.
    pub requests: ResourceList,
    /// Name of the first of `spec.schedulingGates`.
    pub scheduling_gate: Option<Arc<str>>,
    /// Whether the scheduler places it with others of a group (`spec.schedulingGroup`).
    pub is_grouped: bool,
    /// How its task fares; only of pods that belong to a BatchJob.
    pub task: Option<Arc<TaskView>>,
}

/// The labels of a pod that somebody reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PodLabels {
    /// Name of the BatchJob. Orphaning a job's pods takes the owner reference, but not this.
    #[serde(rename = "springtide.dev/job", default)]
    pub job: Option<Arc<str>>,
    /// Name of the BatchQueue that it is counted in; absent or empty for the built-in queue.
    #[serde(rename = "springtide.dev/queue", default, deserialize_with = "unless_empty")]
    pub queue: Option<Arc<str>>,
    /// Tier of its job.
    #[serde(rename = "springtide.dev/tier", default)]
    pub tier: TierLabel,
    /// Whether it was made though no node had room for it.
    #[serde(rename = "springtide.dev/unfit", default)]
    pub unfit: UnfitLabel,
    /// Whether it is never deleted.
    #[serde(rename = "springtide.dev/delete-protection", default)]
    pub protection: Protection,
    /// Name of the BatchTaskProfile that learns of it.
    #[serde(rename = "springtide.dev/profile", default)]
    pub profile: Option<Arc<str>>,
}

/// A label that says it by being there, whatever its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnfitLabel(pub bool);

impl<'de> Deserialize<'de> for UnfitLabel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// A tier in a label. Labels are anybody's: what is none counts as the lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierLabel(pub Tier);

impl<'de> Deserialize<'de> for TierLabel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Box::<str>::deserialize(deserializer)?;
        Ok(Self(Tier::deserialize(StrDeserializer::<ValueError>::new(&text)).unwrap_or_default()))
    }
}

fn unless_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<str>>, D::Error> {
    Ok(Option::<Arc<str>>::deserialize(deserializer)?.filter(|name| !name.is_empty()))
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum PodPhase {
    /// Accepted; not all containers have started.
    #[default]
    Pending,
    /// Bound, and at least one container runs or is starting.
    Running,
    /// All containers ended with 0.
    Succeeded,
    /// All containers ended, one of them not with 0.
    Failed,
    /// The node does not report.
    #[serde(other)]
    Unknown,
}

/// What the planner reads of the status of a BatchJob's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskView {
    /// `status.reason`, such as `Evicted`.
    pub reason: Option<Box<str>>,
    /// `status.message`, cut and freed of control characters.
    pub message: Option<Box<str>>,
    /// `status.conditions`.
    pub conditions: Vec<PodCondition>,
    /// Containers that ended, init containers first; those that run beside the others (sidecars) are
    /// left out, as their end says nothing about the task.
    pub ended: Vec<EndedContainer>,
    /// When its first container began to run.
    pub started: Option<Timestamp>,
    /// When its last container ended.
    pub finished: Option<Timestamp>,
    /// Why its first container that cannot start does not, in the kubelet's words.
    pub obstacle: Option<Box<str>>,
}

/// One of `status.conditions` of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PodCondition {
    /// Its type, such as `DisruptionTarget`.
    #[serde(rename = "type")]
    pub type_: Box<str>,
    /// Whether it holds.
    pub status: ConditionStatus,
}

/// A container that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedContainer {
    /// Its name in the template.
    pub name: Box<str>,
    /// Exit code.
    pub exit_code: i32,
    /// Reason of the runtime, such as `OOMKilled`.
    pub reason: Box<str>,
    /// Termination message, cut and freed of control characters.
    pub message: Box<str>,
    /// What it says that it has used, in the last line of its termination message.
    pub usage: Option<Usage>,
    /// Its limit of memory in bytes, else its request; 0 where it has neither.
    pub memory: i64,
    /// When it ended.
    pub finished: Option<Timestamp>,
}

impl PodView {
    /// The controlling BatchJob.
    pub fn job_owner(&self) -> Option<&OwnerRef> {
        self.meta.controller.as_deref().filter(|owner| owner.kind.as_ref() == OWNER_KIND)
    }

    /// Name of the BatchJob this pod belongs to; of a pod whose owner reference was taken away while
    /// it still holds our finalizer, the name in its label.
    pub fn job_name(&self) -> Option<&Arc<str>> {
        match self.job_owner() {
            Some(owner) => Some(&owner.name),
            None if self.is_tracked() => self.meta.labels.job.as_ref(),
            None => None,
        }
    }

    /// Whether it ended for good.
    pub fn is_terminal(&self) -> bool {
        match self.phase {
            PodPhase::Succeeded | PodPhase::Failed => true,
            PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => false,
        }
    }

    /// Whether it is being deleted before it had a node: no kubelet will run it, or report its end.
    pub fn will_never_run(&self) -> bool {
        self.node.is_none() && self.meta.is_deleting()
    }

    /// Whether it has not ended, and a kubelet runs it or may.
    pub fn may_run(&self) -> bool {
        !self.is_terminal() && !self.will_never_run()
    }

    /// Whether it holds [`TRACKING_FINALIZER`].
    pub fn is_tracked(&self) -> bool {
        self.meta.finalizers.iter().any(|held| held.as_ref() == TRACKING_FINALIZER)
    }

    /// Whether nothing about it has changed that a decision about its job rests on: a pod on its way to
    /// Running sends half a dozen events, most of which say nothing new.
    pub fn is_same_for_job(&self, other: &Self) -> bool {
        let start = |pod: &Self| {
            pod.task.as_deref().map(|task| (task.started, task.obstacle.is_some())).unwrap_or_default()
        };
        let same_task = match self.is_terminal() {
            true => self.task == other.task,
            false => start(self) == start(other),
        };
        let (a, b) = (&self.meta, &other.meta);
        same_task
            && self.phase == other.phase
            && self.node == other.node
            && self.scheduling_gate == other.scheduling_gate
            && (&a.deletion_time, &a.finalizers, &a.controller, &a.labels)
                == (&b.deletion_time, &b.finalizers, &b.controller, &b.labels)
    }

    /// Index and attempt, as its name says: `<job>-<index>-<attempt>`.
    pub fn attempt(&self) -> Option<(u32, u32)> {
        let (index, attempt) =
            self.meta.key.name.strip_prefix(self.job_name()?.as_ref())?.strip_prefix('-')?.split_once('-')?;
        Some((index.parse().ok()?, attempt.parse().ok()?))
    }
}

/// What a write makes of a pod, for who performs writes in memory alone.
impl PodView {
    /// The pod when its deletion was asked for, in another version of it.
    pub(crate) fn deleted(&self, gone_by: Timestamp, version: ResourceVersion) -> Self {
        let meta = Meta { deletion_time: Some(gone_by), resource_version: version, ..self.meta.clone() };
        Self { meta, ..self.clone() }
    }

    /// The pod without [`TRACKING_FINALIZER`], in another version of it.
    pub(crate) fn untracked(&self, version: ResourceVersion) -> Self {
        let mut meta = Meta { resource_version: version, ..self.meta.clone() };
        meta.finalizers.retain(|held| held.as_ref() != TRACKING_FINALIZER);
        Self { meta, ..self.clone() }
    }
}

impl Projection for PodView {
    const RESOURCE: Resource = Resource::POD;
    type Labels = PodLabels;

    fn meta(&self) -> &Meta<PodLabels> {
        &self.meta
    }

    fn share_identity(&mut self, old: &Self) {
        self.meta.share_identity(&old.meta);
    }

    fn bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let task = self.task.as_deref().map_or(0, |task| {
            let conditions: usize =
                task.conditions.iter().map(|found| size_of::<PodCondition>() + found.type_.len()).sum();
            let ended = task.ended.iter().map(|ended| {
                size_of::<EndedContainer>() + ended.name.len() + ended.reason.len() + ended.message.len()
            });
            let texts = text(&task.reason) + text(&task.message) + text(&task.obstacle);
            size_of::<TaskView>() + conditions + ended.sum::<usize>() + texts
        });
        let node = self.node.as_ref().map_or(0, |node| node.len());
        size_of::<Self>() + self.meta.text_bytes() + node + task
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta<PodLabels>,
    #[serde(default)]
    spec: WireSpec,
    #[serde(default)]
    status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    node_name: Option<Arc<str>>,
    scheduling_gates: Vec<WireGate>,
    scheduling_group: Option<IgnoredAny>,
    containers: Vec<ContainerRequests>,
    init_containers: Vec<ContainerRequests>,
    overhead: Option<ResourceList>,
    resources: Resources,
}

#[derive(Deserialize)]
struct WireGate {
    name: Arc<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    phase: PodPhase,
    reason: Option<Box<str>>,
    message: Option<Box<str>>,
    start_time: Option<Timestamp>,
    conditions: Vec<WireCondition>,
    init_container_statuses: Vec<WireContainerStatus>,
    container_statuses: Vec<WireContainerStatus>,
    allocated_resources: Option<ResourceList>,
    resources: Resources,
}

#[derive(Deserialize)]
struct WireCondition {
    #[serde(flatten)]
    condition: PodCondition,
    #[serde(default)]
    reason: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireContainerStatus {
    name: Box<str>,
    #[serde(default)]
    allocated_resources: Option<ResourceList>,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    state: WireContainerState,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireContainerState {
    waiting: Option<WireWaiting>,
    running: Option<WireRunning>,
    terminated: Option<WireTerminated>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireWaiting {
    reason: Box<str>,
    message: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireRunning {
    started_at: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireTerminated {
    exit_code: i32,
    reason: Box<str>,
    message: Box<str>,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

impl From<Wire> for PodView {
    fn from(wire: Wire) -> Self {
        let (spec, mut status) = (wire.spec, wire.status);
        let containers = status.container_statuses.iter_mut().chain(&mut status.init_container_statuses);
        let in_force = PodStatusRequests {
            containers: containers.map(WireContainerStatus::take_requests).collect(),
            allocated_resources: status.allocated_resources.take(),
            resources: std::mem::take(&mut status.resources),
            is_resize_infeasible: status.conditions.iter().any(WireCondition::is_infeasible_resize),
        };
        let asked = PodSpecRequests {
            containers: spec.containers,
            init_containers: spec.init_containers,
            overhead: spec.overhead,
            resources: spec.resources,
        };
        let mut pod = Self {
            meta: wire.metadata,
            node: spec.node_name,
            phase: status.phase,
            requests: asked.of_pod(&in_force),
            scheduling_gate: spec.scheduling_gates.into_iter().next().map(|gate| gate.name),
            is_grouped: spec.scheduling_group.is_some(),
            task: None,
        };
        if pod.job_owner().is_some() {
            pod.task = Some(Arc::new(task(pod.phase, &asked, status)));
        }
        pod
    }
}

impl WireContainerStatus {
    fn take_requests(&mut self) -> ContainerStatusRequests {
        ContainerStatusRequests {
            name: self.name.clone(),
            allocated_resources: self.allocated_resources.take(),
            resources: std::mem::take(&mut self.resources),
        }
    }

    /// Why it does not start, other than that its turn is still to come.
    fn obstacle(&self) -> Option<Box<str>> {
        let WireWaiting { reason, message } = self.state.waiting.as_ref()?;
        match &**reason {
            "" | "ContainerCreating" | "PodInitializing" => None,
            reason => {
                let sentence = format!("container {} waits: {reason}: {message}", self.name);
                Some(text(&sentence, MESSAGE_MAX_BYTES))
            }
        }
    }
}

impl WireCondition {
    /// The node can never carry out the resize that the spec asks for.
    fn is_infeasible_resize(&self) -> bool {
        self.condition.status == ConditionStatus::True
            && &*self.condition.type_ == "PodResizePending"
            && self.reason.as_deref() == Some("Infeasible")
    }
}

fn task(phase: PodPhase, asked: &PodSpecRequests, status: WireStatus) -> TaskView {
    let init_containers = &asked.init_containers;
    let is_sidecar = |name: &str| init_containers.iter().any(|init| &*init.name == name && init.is_sidecar());
    let memory = |name: &str| {
        let container =
            asked.containers.iter().chain(init_containers).find(|container| &*container.name == name);
        let lists = container.map(|container| [&container.resources.limits, &container.resources.requests]);
        let amounts = lists.into_iter().flatten().flatten().map(|list| list.memory);
        amounts.into_iter().find(|amount| *amount > 0).unwrap_or(0)
    };
    let has_started = match phase {
        PodPhase::Running | PodPhase::Succeeded | PodPhase::Failed => true,
        PodPhase::Pending | PodPhase::Unknown => false,
    };
    let started = status
        .container_statuses
        .iter()
        .filter_map(|container| match (&container.state.running, &container.state.terminated) {
            (Some(running), _) => running.started_at,
            (None, Some(terminated)) => terminated.started_at,
            (None, None) => None,
        })
        .min()
        .or(status.start_time.filter(|_| has_started));
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses);
    let obstacle = containers.filter_map(WireContainerStatus::obstacle).next();
    let mut ended = Vec::new();
    let mut finished = None;
    for container in status.init_container_statuses.into_iter().chain(status.container_statuses) {
        let Some(terminated) = container.state.terminated else { continue };
        if is_sidecar(&container.name) {
            continue;
        }
        finished = finished.max(terminated.finished_at);
        ended.push(EndedContainer {
            memory: memory(&container.name),
            usage: usage::parse(&terminated.message),
            name: container.name,
            exit_code: terminated.exit_code,
            reason: text(&terminated.reason, REASON_MAX_LENGTH),
            message: text(&terminated.message, RESULT_MESSAGE_MAX_BYTES),
            finished: terminated.finished_at,
        });
    }
    TaskView {
        reason: status.reason.map(|reason| text(&reason, REASON_MAX_LENGTH)),
        message: status.message.map(|message| text(&message, RESULT_MESSAGE_MAX_BYTES)),
        conditions: status.conditions.into_iter().map(|wire| wire.condition).collect(),
        ended,
        started,
        finished,
        obstacle,
    }
}

fn text(foreign: &str, max_bytes: usize) -> Box<str> {
    bounded_text(foreign, max_bytes).into_boxed_str()
}
