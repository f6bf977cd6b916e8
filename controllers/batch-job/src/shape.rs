//! The shape of a pod: everything by which the scheduler decides where it may run, as far as we model it.

use crate::projections::node::{NodeLabels, NodeView, Taint, TaintEffect};
use crate::queues::tier;
use springtide_plumbing::resources::{PodSpecRequests, ResourceList};
use serde::Deserialize;
use springtide_crds::batch_job::PodTemplate;
use springtide_crds::batch_queue::TierMapping;
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The taint that the scheduler sees on a cordoned node.
const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";

/// What decides where a pod fits. Equal shapes are equal in everything that admission looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Hash of the rest: it is compared first, and taken once instead of with every look into a table by shape.
    digest: u64,
    /// What it requests, at least 100m of cpu and 200Mi of memory, and one pod.
    pub requests: ResourceList,
    /// Whether only what is looked at here decides. Pod affinity, hard topology spread, volumes, resource
    /// claims and host ports are not modelled: a pod with one of them may fit here and not be scheduled.
    pub modelled: bool,
    constraints: Constraints,
}

impl Hash for Shape {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

/// How much a node's state speaks against a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It may run there now, if there is room.
    Eligible,
    /// Not now: cordoned, not ready or tainted.
    Later,
    /// Its own selector or affinity says no.
    Never,
}

/// What speaks against a node, its room aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit<'a> {
    /// The pod's own selector or affinity.
    Selector,
    /// It is cordoned.
    Cordoned,
    /// A taint that the pod does not tolerate.
    Taint(&'a Taint),
    /// Its kubelet does not say that it is ready.
    NotReady,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Constraints {
    node_selector: BTreeMap<String, String>,
    tolerations: Vec<Toleration>,
    scheduler_name: Option<String>,
    affinity: Affinity,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: NodeAffinity,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

/// Terms are alternatives; the requirements of one hold together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSelector {
    node_selector_terms: Vec<Term>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    match_expressions: Vec<Requirement>,
    match_fields: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
struct Requirement {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
struct Toleration {
    key: Option<String>,
    operator: TolerationOperator,
    value: Option<String>,
    effect: Option<TaintEffect>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
enum TolerationOperator {
    #[default]
    Equal,
    Exists,
    Gt,
    Lt,
}

/// What makes a pod one that is not modelled.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Unmodelled {
    affinity: UnmodelledAffinity,
    topology_spread_constraints: Vec<SpreadConstraint>,
    volumes: Vec<BTreeMap<String, serde::de::IgnoredAny>>,
    resource_claims: Vec<serde::de::IgnoredAny>,
    containers: Vec<HostPorts>,
    host_network: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UnmodelledAffinity {
    pod_affinity: PodAffinity,
    pod_anti_affinity: PodAffinity,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodAffinity {
    required_during_scheduling_ignored_during_execution: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpreadConstraint {
    when_unsatisfiable: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HostPorts {
    ports: Vec<HostPort>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HostPort {
    host_port: Option<i64>,
}

/// Volumes that bind a pod to some nodes; the others come with it wherever it runs.
const BINDING_VOLUMES: [&str; 3] = ["persistentVolumeClaim", "ephemeral", "csi"];

impl Shape {
    /// The shape of the pods of a template. What cannot be read in it is left to the API server to refuse.
    pub fn of_template(template: &PodTemplate) -> Self {
        let spec = template.spec().cloned().unwrap_or_default();
        Self::of_spec(spec, |requests| requests.charged())
    }

    /// The shape of the pods that a queue's tier makes of a template. A pod that requests another resource in
    /// the place of cpu is not charged for cpu it does not ask for; so with memory.
    pub fn of_mapped(template: &PodTemplate, mapping: &TierMapping) -> Self {
        let mut spec = template.spec().cloned().unwrap_or_default();
        tier::map_spec(&mut spec, mapping);
        let stands_in = |requests: &ResourceList, name: &str| {
            mapping.resource_names.get(name).is_some_and(|mapped| requests.get(mapped) > 0)
        };
        Self::of_spec(spec, |requests| {
            let mut charged = requests.clone().charged();
            if stands_in(&requests, "cpu") {
                charged.cpu = requests.cpu;
            }
            if stands_in(&requests, "memory") {
                charged.memory = requests.memory;
            }
            charged
        })
    }

    fn of_spec(
        spec: serde_json::Map<String, serde_json::Value>,
        charge: impl FnOnce(ResourceList) -> ResourceList,
    ) -> Self {
        let spec = serde_json::Value::Object(spec);
        let requests = charge(PodSpecRequests::deserialize(&spec).unwrap_or_default().of_template());
        let constraints = Constraints::deserialize(&spec);
        let modelled = constraints.is_ok()
            && Unmodelled::deserialize(&spec).is_ok_and(|unmodelled| !unmodelled.constrains());
        let constraints = constraints.unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        (&requests, modelled, &constraints).hash(&mut hasher);
        Self { digest: hasher.finish(), requests, modelled, constraints }
    }

    /// Where a node stands to this shape, its room aside.
    pub fn placement(&self, node: &NodeView) -> Placement {
        match self.unfit(node) {
            None => Placement::Eligible,
            Some(Unfit::Cordoned | Unfit::Taint(_) | Unfit::NotReady) => Placement::Later,
            Some(Unfit::Selector) => Placement::Never,
        }
    }

    /// What speaks against a node, its room aside; the first of several things.
    pub fn unfit<'a>(&self, node: &'a NodeView) -> Option<Unfit<'a>> {
        if !self.selects(&node.meta().labels, node.meta().key.name.as_ref()) {
            return Some(Unfit::Selector);
        }
        if node.unschedulable && !self.tolerates_cordon() {
            return Some(Unfit::Cordoned);
        }
        let taint = node.taints.iter().find(|taint| !self.tolerates(taint)).map(Unfit::Taint);
        taint.or((!node.ready).then_some(Unfit::NotReady))
    }

    fn selects(&self, labels: &NodeLabels, name: &str) -> bool {
        let selected = self
            .constraints
            .node_selector
            .iter()
            .all(|(key, value)| labels.get(key.as_str()).is_some_and(|held| held.as_ref() == value));
        let affinity =
            &self.constraints.affinity.node_affinity.required_during_scheduling_ignored_during_execution;
        selected
            && affinity.as_ref().is_none_or(|affinity| {
                affinity.node_selector_terms.iter().any(|term| term.matches(labels, name))
            })
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        taint.effect == TaintEffect::PreferNoSchedule
            || self.constraints.tolerations.iter().any(|toleration| toleration.covers(taint))
    }

    fn tolerates_cordon(&self) -> bool {
        let taint =
            Taint { key: UNSCHEDULABLE_TAINT.into(), value: "".into(), effect: TaintEffect::NoSchedule };
        self.constraints.tolerations.iter().any(|toleration| toleration.covers(&taint))
    }
}

impl Unmodelled {
    fn constrains(&self) -> bool {
        let affinity = [&self.affinity.pod_affinity, &self.affinity.pod_anti_affinity]
            .into_iter()
            .any(|affinity| !affinity.required_during_scheduling_ignored_during_execution.is_empty());
        let binds =
            self.volumes.iter().any(|volume| BINDING_VOLUMES.iter().any(|kind| volume.contains_key(*kind)));
        affinity
            || binds
            || self.host_network
            || !self.resource_claims.is_empty()
            || self
                .topology_spread_constraints
                .iter()
                .any(|spread| spread.when_unsatisfiable == "DoNotSchedule")
            || self
                .containers
                .iter()
                .flat_map(|container| &container.ports)
                .any(|port| port.host_port.is_some_and(|port| port != 0))
    }
}

impl Term {
    /// An empty term matches nothing, as the API documents it.
    fn matches(&self, labels: &NodeLabels, name: &str) -> bool {
        if self.match_expressions.is_empty() && self.match_fields.is_empty() {
            return false;
        }
        self.match_expressions
            .iter()
            .all(|requirement| requirement.holds(labels.get(requirement.key.as_str()).map(AsRef::as_ref)))
            && self.match_fields.iter().all(|requirement| {
                // The only field that the API allows.
                requirement.key == "metadata.name" && requirement.holds(Some(name))
            })
    }
}

impl Requirement {
    fn holds(&self, held: Option<&str>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let compare = |order: std::cmp::Ordering| {
            let wanted = self.values.first().and_then(|value| number(value));
            held.and_then(number).zip(wanted).is_some_and(|(held, wanted)| held.cmp(&wanted) == order)
        };
        match self.operator {
            Operator::In => held.is_some_and(|held| self.values.iter().any(|value| value == held)),
            Operator::NotIn => held.is_none_or(|held| self.values.iter().all(|value| value != held)),
            Operator::Exists => held.is_some(),
            Operator::DoesNotExist => held.is_none(),
            Operator::Gt => compare(std::cmp::Ordering::Greater),
            Operator::Lt => compare(std::cmp::Ordering::Less),
        }
    }
}

impl Toleration {
    fn covers(&self, taint: &Taint) -> bool {
        let key = self.key.as_deref().unwrap_or_default();
        let key_matches = match self.operator {
            // Without a key, Exists tolerates everything.
            TolerationOperator::Exists if key.is_empty() => true,
            TolerationOperator::Exists
            | TolerationOperator::Equal
            | TolerationOperator::Gt
            | TolerationOperator::Lt => key == taint.key.as_ref(),
        };
        let value = self.value.as_deref().unwrap_or_default();
        let compare = |order: std::cmp::Ordering| {
            let (taint, wanted) = (taint.value.parse::<i64>(), value.parse::<i64>());
            matches!((taint, wanted), (Ok(taint), Ok(wanted)) if taint.cmp(&wanted) == order)
        };
        let value_matches = match self.operator {
            TolerationOperator::Exists => true,
            TolerationOperator::Equal => value == taint.value.as_ref(),
            TolerationOperator::Gt => compare(std::cmp::Ordering::Greater),
            TolerationOperator::Lt => compare(std::cmp::Ordering::Less),
        };
        key_matches && value_matches && self.effect.is_none_or(|effect| effect == taint.effect)
    }
}
