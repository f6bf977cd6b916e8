//! Pod, as the API server serves it.

use super::{
    AnnotationValue, ContainerState, ContainerStatus, ContainerView, DEFAULT_GRACE_SECONDS, EndedContainer,
    LOST, MESSAGE_MAX_BYTES, MIRROR, OWNER_KINDS, PodPhase, PodView, ResizeInProgress, ResizePending,
    SANDBOX, Since, Skipped, Traits,
};
use crate::resources::{
    ContainerRequests, ContainerStatusRequests, PodSpecRequests, PodStatusRequests, ResourceList, Resources,
};
use crate::traffic::{Names, PodCondition, Signals};
use crate::workloads::Annotated;
use crate::workloads::amounts::{Amounts, Pair};
use crate::workloads::content::{Metadata, QosClass, Role};
use crate::workloads::names::{RECORD_ANNOTATION, SKIPPED, TIME_SHARE_TRAFFIC, UPGRADE_TRAFFIC};
use crate::workloads::trace::Trace;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use springtide_crds::common::{ConditionStatus, bounded_text};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Deserialize)]
pub(super) struct Wire {
    metadata: Annotated<Metadata, BTreeMap<Arc<str>, Box<str>>>,
    #[serde(default)]
    spec: WireSpec,
    #[serde(default)]
    status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    node_name: Option<Arc<str>>,
    termination_grace_period_seconds: Option<u32>,
    containers: Vec<WireContainer>,
    init_containers: Vec<WireContainer>,
    readiness_gates: Vec<WireGate>,
    resource_claims: Vec<IgnoredAny>,
    resources: Value,
    overhead: Option<ResourceList>,
    priority: i32,
    preemption_policy: Option<Box<str>>,
    os: Option<WireOs>,
    volumes: Vec<WireVolume>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireVolume {
    image: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireGate {
    condition_type: Box<str>,
}

#[derive(Deserialize)]
struct WireOs {
    name: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireContainer {
    name: Arc<str>,
    #[serde(default)]
    image: Option<Arc<str>>,
    #[serde(default)]
    resources: Value,
    #[serde(default)]
    resize_policy: Vec<WireResizePolicy>,
    #[serde(default)]
    restart_policy: Option<Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireResizePolicy {
    resource_name: Box<str>,
    restart_policy: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    phase: PodPhase,
    qos_class: Option<Box<str>>,
    observed_generation: i64,
    conditions: Vec<WireCondition>,
    container_statuses: Vec<WireContainerStatus>,
    init_container_statuses: Vec<WireContainerStatus>,
    allocated_resources: Option<ResourceList>,
    resources: Option<Value>,
}

#[derive(Deserialize)]
struct WireCondition {
    #[serde(flatten)]
    condition: PodCondition,
    #[serde(default)]
    reason: Box<str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireContainerStatus {
    name: Box<str>,
    #[serde(default, rename = "containerID")]
    container_id: Box<str>,
    #[serde(default, rename = "imageID")]
    image_id: Box<str>,
    #[serde(default)]
    restart_count: u32,
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    state: WireState,
    #[serde(default)]
    last_state: WireState,
    #[serde(default)]
    resources: Option<Value>,
    #[serde(default)]
    allocated_resources: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireState {
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
    reason: Box<str>,
    started_at: Option<Timestamp>,
}

impl From<WireTerminated> for EndedContainer {
    fn from(wire: WireTerminated) -> Self {
        Self { started: wire.started_at, is_lost: LOST.contains(&&*wire.reason) }
    }
}

impl From<Wire> for PodView {
    fn from(wire: Wire) -> Self {
        let Wire { metadata: Annotated { meta, annotations }, spec, status } = wire;
        let requests = requests(&spec, &status);
        let signals = |names: &Names| {
            let gates = spec.readiness_gates.iter().map(|gate| &*gate.condition_type);
            let gate = find(&status.conditions, names.gate).map(|found| found.condition.clone());
            let label = meta.labels.get(names.label).cloned();
            let annotation = annotations.get(names.annotation).map(|text| Arc::from(&**text));
            names.signals(gates, gate.as_slice(), label, annotation)
        };
        let [upgrade, time_share]: [Signals; 2] = [&UPGRADE_TRAFFIC, &TIME_SHARE_TRAFFIC].map(signals);
        let since = |type_| {
            let found = find(&status.conditions, type_)?;
            Some(Since {
                holds: found.condition.status == ConditionStatus::True,
                since: found.condition.last_transition_time,
            })
        };
        let is = |type_, wanted: ConditionStatus| {
            find(&status.conditions, type_).filter(|found| found.condition.status == wanted)
        };
        let held = |type_| is(type_, ConditionStatus::True);
        let mut pod = Self {
            annotations: BTreeMap::new(),
            trace: Trace::read(annotations.get(RECORD_ANNOTATION).map(|text| &**text)),
            node: spec.node_name,
            phase: status.phase,
            qos: status.qos_class.as_deref().and_then(qos),
            observed_generation: status.observed_generation,
            grace_seconds: spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS),
            containers: Vec::new(),
            has_image_volumes: spec.volumes.iter().any(|volume| volume.image.is_some()),
            signals: upgrade,
            time_share,
            skipped: is(SKIPPED, ConditionStatus::False).map(|found| Skipped {
                reason: bounded_text(&found.reason, MESSAGE_MAX_BYTES).into_boxed_str(),
                message: message(found),
                since: found.condition.last_transition_time,
            }),
            requests,
            priority: spec.priority,
            preempts: spec.preemption_policy.as_deref() != Some("Never"),
            containers_ready: since("ContainersReady"),
            ready: since("Ready"),
            sandbox_since: since(SANDBOX).and_then(|condition| condition.since),
            resize_pending: held("PodResizePending").map(|found| ResizePending {
                is_infeasible: &*found.reason == "Infeasible",
                message: message(found),
                since: found.condition.last_transition_time,
            }),
            resize_in_progress: held("PodResizeInProgress").map(|found| ResizeInProgress {
                error: (&*found.reason == "Error").then(|| message(found)),
                since: found.condition.last_transition_time,
            }),
            traits: Traits {
                is_static: annotations.contains_key(MIRROR),
                is_windows: spec.os.is_some_and(|os| &*os.name == "windows"),
                has_claims: !spec.resource_claims.is_empty(),
                has_foreign_gates: spec
                    .readiness_gates
                    .iter()
                    .any(|gate| *gate.condition_type != *UPGRADE_TRAFFIC.gate),
                has_pod_level_resources: !Amounts::read(&spec.resources).is_empty(),
            },
            meta,
        };
        let kind = pod.meta.controller.as_ref().map(|owner| &*owner.kind);
        if kind.is_some_and(|kind| OWNER_KINDS.contains(&kind)) {
            let texts = annotations.into_iter().filter(|(key, _)| **key != *RECORD_ANNOTATION);
            pod.annotations = texts.map(|(key, text)| (key, AnnotationValue::new(&text))).collect();
            let (init, main) = (status.init_container_statuses, status.container_statuses);
            pod.containers = containers(spec.init_containers, init, true)
                .chain(containers(spec.containers, main, false))
                .collect();
        }
        pod
    }
}

/// See [`PodView::requests`].
fn requests(spec: &WireSpec, status: &WireStatus) -> Pair {
    let asked = |containers: &[WireContainer]| containers.iter().map(WireContainer::requests).collect();
    let asked = PodSpecRequests {
        containers: asked(&spec.containers),
        init_containers: asked(&spec.init_containers),
        overhead: spec.overhead.clone(),
        resources: read_resources(Some(&spec.resources)),
    };
    let statuses = status.container_statuses.iter().chain(&status.init_container_statuses);
    let pending = find(&status.conditions, "PodResizePending");
    let in_force = PodStatusRequests {
        containers: statuses.map(WireContainerStatus::requests).collect(),
        allocated_resources: status.allocated_resources.clone(),
        resources: read_resources(status.resources.as_ref()),
        is_resize_infeasible: pending.is_some_and(|found| {
            found.condition.status == ConditionStatus::True && &*found.reason == "Infeasible"
        }),
    };
    let ResourceList { cpu, memory, .. } = asked.of_pod(&in_force);
    Pair { cpu: Some(cpu), memory: Some(memory) }
}

/// `resources` of a container, of its status or of a pod. What the API server would not store counts as nothing.
fn read_resources(resources: Option<&Value>) -> Resources {
    resources.and_then(|resources| Option::deserialize(resources).ok()).flatten().unwrap_or_default()
}

impl WireContainer {
    fn requests(&self) -> ContainerRequests {
        ContainerRequests {
            name: Box::from(&*self.name),
            restart_policy: self.restart_policy.clone(),
            resources: read_resources(Some(&self.resources)),
        }
    }
}

fn find<'a>(conditions: &'a [WireCondition], type_: &str) -> Option<&'a WireCondition> {
    conditions.iter().find(|found| &*found.condition.type_ == type_)
}

fn message(condition: &WireCondition) -> Box<str> {
    bounded_text(condition.condition.message.as_deref().unwrap_or_default(), MESSAGE_MAX_BYTES)
        .into_boxed_str()
}

fn qos(text: &str) -> Option<QosClass> {
    match text {
        "Guaranteed" => Some(QosClass::Guaranteed),
        "Burstable" => Some(QosClass::Burstable),
        "BestEffort" => Some(QosClass::BestEffort),
        _ => None,
    }
}

fn containers(
    specs: Vec<WireContainer>,
    statuses: Vec<WireContainerStatus>,
    is_init: bool,
) -> impl Iterator<Item = ContainerView> {
    let places = 0..=u16::MAX;
    let mut statuses: BTreeMap<Box<str>, (u16, WireContainerStatus)> =
        places.zip(statuses).map(|(place, status)| (status.name.clone(), (place, status))).collect();
    specs.into_iter().map(move |spec| {
        let role = match (is_init, spec.restart_policy.as_deref()) {
            (false, _) => Role::Main,
            (true, Some("Always")) => Role::Sidecar,
            (true, Some(_) | None) => Role::Init,
        };
        let restarts = |resource: &str| {
            spec.resize_policy.iter().any(|policy| {
                &*policy.resource_name == resource && &*policy.restart_policy == "RestartContainer"
            })
        };
        ContainerView {
            role,
            image: spec.image.unwrap_or_default(),
            amounts: Amounts::read(&spec.resources),
            cpu_restarts: restarts("cpu"),
            memory_restarts: restarts("memory"),
            status: statuses.remove(&*spec.name).map(|(place, status)| Box::new(status.at(place))),
            name: spec.name,
        }
    })
}

impl WireContainerStatus {
    fn requests(&self) -> ContainerStatusRequests {
        let allocated = self.allocated_resources.as_ref();
        ContainerStatusRequests {
            name: self.name.clone(),
            allocated_resources: allocated.and_then(|list| Option::deserialize(list).ok()).flatten(),
            resources: read_resources(self.resources.as_ref()),
        }
    }

    fn at(self, place: u16) -> ContainerStatus {
        let wire = self;
        let state = match (wire.state.running, wire.state.terminated, wire.state.waiting) {
            (Some(running), _, _) => ContainerState::Running { started: running.started_at },
            (None, Some(ended), _) => ContainerState::Terminated(ended.into()),
            (None, None, waiting) => {
                let WireWaiting { reason, message } = waiting.unwrap_or_default();
                let message = bounded_text(&message, MESSAGE_MAX_BYTES).into_boxed_str();
                ContainerState::Waiting { reason, message }
            }
        };
        ContainerStatus {
            place,
            container_id: wire.container_id,
            image_id: wire.image_id,
            restarts: wire.restart_count,
            is_ready: wire.ready,
            state,
            last: wire.last_state.terminated.map(EndedContainer::from),
            amounts: wire.resources.filter(|value| !value.is_null()).map(|value| Amounts::read(&value)),
            allocated: wire
                .allocated_resources
                .filter(|value| !value.is_null())
                .map(|value| Pair::read(&value)),
        }
    }
}
