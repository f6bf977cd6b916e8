//! Pod, as those controllers read it that change live pods. Of pods that no workload of ours can own only that is kept by
//! which gates, PodDisruptionBudgets and the room of a node are judged.

mod wire;

use crate::workloads::amounts::{Amounts, Pair};
use crate::workloads::content::{Digest, Metadata, QosClass, Role};
use crate::workloads::trace::Trace;
use jiff::Timestamp;
use serde::Deserialize;
use crate::done_rule::ContainerNow;
use crate::key::{Resource, Uid};
use crate::projection::{Meta, Projection};
use crate::traffic::Signals;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Annotation of the pods that a kubelet runs from a file of its own: the API shows them, and changes nothing.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Kinds whose pods are changed, and ours, whose pods pull images.
const OWNER_KINDS: [&str; 4] = ["ReplicaSet", "StatefulSet", "DaemonSet", "InPlaceUpgrade"];
/// Longest annotation that is kept as it is; of a longer one its digest tells whether it is as it should be.
const VALUE_MAX_BYTES: usize = 1024;
/// Longest message of a container that waits, and of a resize that does, as kept: what a registry says comes last, after
/// the image's name three times over.
const MESSAGE_MAX_BYTES: usize = 1024;
/// Condition by which a kubelet says whether a pod has its sandbox.
const SANDBOX: &str = "PodReadyToStartContainers";
/// Reasons of an ended container of which nobody has seen the end: containerd's
/// ([helpers.go](https://github.com/containerd/containerd/blob/v2.1.0/internal/cri/server/helpers.go)), as after a loss of
/// power, and [the kubelet's](https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/kubelet/container/runtime.go).
const LOST: [&str; 2] = ["Unknown", "ContainerStatusUnknown"];
/// What a pod has where its spec does not say.
const DEFAULT_GRACE_SECONDS: u32 = 30;

/// One pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "wire::Wire")]
pub struct PodView {
    meta: Meta<Metadata>,
    /// Annotations, but for that of our record.
    pub annotations: BTreeMap<Arc<str>, AnnotationValue>,
    /// Our record.
    pub trace: Trace,
    /// `spec.nodeName`: the node it is bound to.
    pub node: Option<Arc<str>>,
    /// `status.phase`.
    pub phase: PodPhase,
    /// `status.qosClass`.
    pub qos: Option<QosClass>,
    /// `status.observedGeneration`: the generation that the status is of.
    pub observed_generation: i64,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace_seconds: u32,
    /// All containers but ephemeral ones, in the order of the spec, init containers first.
    pub containers: Vec<ContainerView>,
    /// Whether an image is a volume of it.
    pub has_image_volumes: bool,
    /// Gate and label of upgrades.
    pub signals: Signals,
    /// Gate and label of time sharing.
    pub time_share: Signals,
    /// Condition [`SKIPPED`](crate::workloads::names::SKIPPED), where it is false.
    pub skipped: Option<Skipped>,
    /// What it holds on its node, or would, as the scheduler counts it: the whole pod, and of a resize the highest of what
    /// is asked for, allocated and in force. Both amounts are stated.
    pub requests: Pair,
    /// `spec.priority`: who is higher goes before.
    pub priority: i32,
    /// Whether room may be made for it by pods of lower priority (`spec.preemptionPolicy` is not `Never`).
    pub preempts: bool,
    /// Condition ContainersReady.
    pub containers_ready: Option<Since>,
    /// Condition Ready.
    pub ready: Option<Since>,
    /// Since when it has its sandbox, or has it no more, as far as its kubelet says: a node that starts again makes it
    /// anew, and with it every container.
    pub sandbox_since: Option<Timestamp>,
    /// Condition PodResizePending, where it is true.
    pub resize_pending: Option<ResizePending>,
    /// Condition PodResizeInProgress, where it is true.
    pub resize_in_progress: Option<ResizeInProgress>,
    /// What keeps it from being changed.
    pub traits: Traits,
}

/// What a pod is that decides whether it can be changed in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    /// It runs from a file of its kubelet.
    pub is_static: bool,
    /// It runs on Windows.
    pub is_windows: bool,
    /// It has claims of dynamic resource allocation.
    pub has_claims: bool,
    /// It has readiness gates beside that of upgrades. That of time sharing is one of them: whether it is open is no
    /// matter of an upgrade's.
    pub has_foreign_gates: bool,
    /// It has requests or limits as a whole.
    pub has_pod_level_resources: bool,
}

/// A condition and since when it has its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// Whether it is true.
    pub holds: bool,
    /// `lastTransitionTime`.
    pub since: Option<Timestamp>,
}

/// A resize that its node has not begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizePending {
    /// Whether the node can never carry it out; else it waits for room.
    pub is_infeasible: bool,
    /// The kubelet's words.
    pub message: Box<str>,
    /// `lastTransitionTime`.
    pub since: Option<Timestamp>,
}

/// A resize that is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizeInProgress {
    /// The error at which it fails, in the kubelet's words.
    pub error: Option<Box<str>>,
    /// `lastTransitionTime`.
    pub since: Option<Timestamp>,
}

/// What a TimeShareGroup says of a pod that it has given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Why.
    pub reason: Box<str>,
    /// In which switch, and why for people.
    pub message: Box<str>,
    /// `lastTransitionTime`.
    pub since: Option<Timestamp>,
}

/// Value of an annotation; of a long one the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnnotationValue {
    /// The value itself.
    Text(Arc<str>),
    /// What it is known by.
    Digest(Digest),
}

impl AnnotationValue {
    /// A value, long ones as their digest.
    pub fn new(text: &str) -> Self {
        if text.len() > VALUE_MAX_BYTES { Self::Digest(Digest::of(text)) } else { Self::Text(text.into()) }
    }

    /// Whether the annotation has this value.
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::Text(own) => **own == *text,
            Self::Digest(own) => text.len() > VALUE_MAX_BYTES && *own == Digest::of(text),
        }
    }

    /// The value, if it is short.
    pub fn text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) => Some(text),
            Self::Digest(_) => None,
        }
    }
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

/// One container and how it fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// Its name.
    pub name: Arc<str>,
    /// What it is.
    pub role: Role,
    /// Its image, as the spec has it.
    pub image: Arc<str>,
    /// Its cpu and memory, as the spec has them.
    pub amounts: Amounts,
    /// Whether a resize of its cpu restarts it.
    pub cpu_restarts: bool,
    /// Whether a resize of its memory restarts it.
    pub memory_restarts: bool,
    /// Its status; absent before its kubelet has reported it.
    pub status: Option<Box<ContainerStatus>>,
}

/// What a kubelet reports of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerStatus {
    /// Its place in the list of the status.
    pub place: u16,
    /// `containerID`; empty before the first start.
    pub container_id: Box<str>,
    /// `imageID`; empty before the first start.
    pub image_id: Box<str>,
    /// `restartCount`.
    pub restarts: u32,
    /// `ready`.
    pub is_ready: bool,
    /// `state`.
    pub state: ContainerState,
    /// The container that ran before, as far as one is known.
    pub last: Option<EndedContainer>,
    /// The amounts that are in force (`resources`); absent where the kubelet does not report them.
    pub amounts: Option<Amounts>,
    /// The requests that its node has admitted (`allocatedResources`); absent where the kubelet does not report them.
    pub allocated: Option<Pair>,
}

/// `state` of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// It does not run yet, or not any more.
    Waiting {
        /// Why, such as `ImagePullBackOff`.
        reason: Box<str>,
        /// Why, for people.
        message: Box<str>,
    },
    /// It runs.
    Running {
        /// Since when.
        started: Option<Timestamp>,
    },
    /// It has ended.
    Terminated(EndedContainer),
}

/// A container that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedContainer {
    /// Since when it ran.
    pub started: Option<Timestamp>,
    /// Whether nobody knows how it ended: its node or its runtime did so with it.
    pub is_lost: bool,
}

impl PodView {
    /// Whether it counts as one of its workload's pods: native controllers leave out what ends and what has ended.
    pub fn is_live(&self) -> bool {
        !self.meta.is_deleting()
            && match self.phase {
                PodPhase::Succeeded | PodPhase::Failed => false,
                PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => true,
            }
    }

    /// UID of its controlling owner.
    pub fn owner(&self) -> Option<&Uid> {
        self.meta.controller.as_ref().map(|owner| &owner.uid)
    }

    /// The container of a name.
    pub fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|container| &*container.name == name)
    }

    /// Whether its kubelet has never started a container of it.
    pub fn has_not_started(&self) -> bool {
        self.node.is_none()
            || self.containers.iter().all(|container| {
                container.status.as_ref().is_none_or(|status| status.container_id.is_empty())
            })
    }

    /// Whether it takes room on a node: it does until its containers have ended, also while it is being deleted.
    pub fn takes_room(&self) -> bool {
        self.node.is_some()
            && match self.phase {
                PodPhase::Succeeded | PodPhase::Failed => false,
                PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => true,
            }
    }

    /// Whether condition ContainersReady is true.
    pub fn are_containers_ready(&self) -> bool {
        self.containers_ready.is_some_and(|condition| condition.holds)
    }

    /// Whether condition Ready is true.
    pub fn is_ready(&self) -> bool {
        self.ready.is_some_and(|condition| condition.holds)
    }
}

/// A container as the done rule looks at it.
pub fn container_now<'a>(pod: &PodView, container: &'a ContainerView) -> ContainerNow<'a> {
    let status = container.status.as_deref();
    ContainerNow {
        observed_generation: pod.observed_generation,
        container_id: status.map_or("", |status| &*status.container_id),
        image_id: status.map_or("", |status| &*status.image_id),
        running_since: status.and_then(|status| match status.state {
            // A node that does not say since when still says that it runs.
            ContainerState::Running { started } => Some(started.unwrap_or(Timestamp::UNIX_EPOCH)),
            ContainerState::Waiting { .. } | ContainerState::Terminated(_) => None,
        }),
    }
}

impl Projection for PodView {
    const RESOURCE: Resource = Resource::POD;
    type Labels = Metadata;

    fn meta(&self) -> &Meta<Metadata> {
        &self.meta
    }

    fn bytes(&self) -> usize {
        let pair = 2 * size_of::<Arc<str>>();
        let labels: usize = self.meta.labels.iter().map(|(key, value)| pair + key.len() + value.len()).sum();
        let annotations: usize = self
            .annotations
            .iter()
            .map(|(key, value)| pair + key.len() + value.text().map_or(16, |text| text.len()))
            .sum();
        let containers: usize = self
            .containers
            .iter()
            .map(|container| {
                let status = container.status.as_ref().map_or(0, |status| {
                    size_of::<ContainerStatus>() + status.container_id.len() + status.image_id.len()
                });
                size_of::<ContainerView>() + container.name.len() + container.image.len() + status
            })
            .sum();
        size_of::<Self>() + self.meta.text_bytes() + labels + annotations + containers + self.trace.bytes()
    }
}

#[cfg(test)]
mod tests;
