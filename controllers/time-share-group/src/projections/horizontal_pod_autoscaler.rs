//! HorizontalPodAutoscaler, as far as it says which requests it divides by: to whom a resize looks like a change of load.

use serde::Deserialize;
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_crds::time_share_group::{Member as MemberSpec, MemberContainer, MemoryPolicy};
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use springtide_plumbing::workloads::kinds::target_kind;
use std::sync::Arc;

/// `autoscaling/v2` HorizontalPodAutoscaler.
pub const HORIZONTAL_POD_AUTOSCALER: Resource = Resource {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    namespaced: true,
};

/// One HorizontalPodAutoscaler.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct HorizontalPodAutoscalerView {
    meta: Meta,
    /// The workload of its namespace that it scales; `None` where it is of no kind that can be a member.
    pub target: Option<(TargetKind, Arc<str>)>,
    /// Its metrics that are a utilization: use divided by request.
    pub utilizations: Vec<Utilization>,
}

/// A use that is divided by a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Utilization {
    /// Of which resource, like `cpu`.
    pub resource: Box<str>,
    /// Of which container; of all together where absent.
    pub container: Option<Box<str>>,
}

impl HorizontalPodAutoscalerView {
    /// Whether it divides by a request that is another one at peak than at valley of this member.
    pub fn divides_by_what_moves(&self, member: &MemberSpec) -> bool {
        self.utilizations.iter().any(|utilization| utilization.moves(member))
    }

    /// Whether it says the same as another version of it: its status is written every some seconds.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.target, &self.utilizations) == (&other.target, &other.utilizations)
    }
}

impl Utilization {
    fn moves(&self, member: &MemberSpec) -> bool {
        let states = |container: &MemberContainer| match &*self.resource {
            "cpu" => container.peak.cpu.is_some(),
            "memory" => container.peak.memory.is_some(),
            _ => false,
        };
        let resource_moves = match (&*self.resource, member.memory) {
            ("cpu", _) | ("memory", MemoryPolicy::Move) => true,
            (_, MemoryPolicy::Keep | MemoryPolicy::Move) => false,
        };
        let is_of =
            |container: &MemberContainer| self.container.as_deref().is_none_or(|name| container.name == name);
        resource_moves && member.containers.iter().any(|container| is_of(container) && states(container))
    }
}

impl Projection for HorizontalPodAutoscalerView {
    const RESOURCE: Resource = HORIZONTAL_POD_AUTOSCALER;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default)]
    spec: WireSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    scale_target_ref: Option<WireTarget>,
    metrics: Option<Vec<WireMetric>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireTarget {
    api_version: Option<Box<str>>,
    kind: Box<str>,
    name: Arc<str>,
}

/// Those that are about something else have neither field.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireMetric {
    resource: Option<WireResource>,
    container_resource: Option<WireResource>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireResource {
    name: Box<str>,
    container: Option<Box<str>>,
    target: WireMetricTarget,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireMetricTarget {
    #[serde(rename = "type")]
    type_: Box<str>,
}

impl From<Wire> for HorizontalPodAutoscalerView {
    fn from(Wire { metadata, spec }: Wire) -> Self {
        let metrics = spec.metrics.into_iter().flatten();
        let resources = metrics.flat_map(|metric| [metric.resource, metric.container_resource]).flatten();
        let utilizations = resources
            .filter(|resource| &*resource.target.type_ == "Utilization")
            .map(|WireResource { name, container, .. }| Utilization { resource: name, container });
        Self {
            meta: metadata,
            target: spec.scale_target_ref.and_then(target),
            utilizations: utilizations.collect(),
        }
    }
}

fn target(reference: WireTarget) -> Option<(TargetKind, Arc<str>)> {
    let group = reference.api_version.as_deref().and_then(|version| version.split_once('/'));
    // Others have a StatefulSet too.
    let is_of_apps = group.is_none_or(|(group, _)| group == "apps");
    let kind = target_kind(&reference.kind).filter(|_| is_of_apps)?;
    Some((kind, reference.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::group;
    use serde_json::{Value, json};

    fn autoscaler(metrics: Value) -> HorizontalPodAutoscalerView {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "pay"});
        let spec = json!({"scaleTargetRef": target, "metrics": metrics});
        serde_json::from_value(json!({"metadata": {"name": "pay"}, "spec": spec})).unwrap()
    }

    fn divides(metric: Value, over_member: Value) -> bool {
        let mut member = json!({"name": "pay"});
        crate::fixtures::overlay(&mut member, over_member);
        let group = group(json!({"spec": {"members": [member]}}));
        autoscaler(json!([metric])).divides_by_what_moves(&group.spec.members[0])
    }

    fn resource(name: &str, target: &str) -> Value {
        json!({"type": "Resource", "resource": {"name": name, "target": {"type": target}}})
    }

    #[test]
    fn only_a_utilization_of_what_moves_takes_a_resize_for_load() {
        assert!(divides(resource("cpu", "Utilization"), json!({})));
        assert!(!divides(resource("cpu", "AverageValue"), json!({})));
        assert!(!divides(resource("memory", "Utilization"), json!({})), "it is equal in peak and valley");
        assert!(divides(resource("memory", "Utilization"), json!({"memory": "Move"})));
        let pods =
            json!({"type": "Pods", "pods": {"metric": {"name": "qps"}, "target": {"type": "AverageValue"}}});
        assert!(!divides(pods, json!({})));
    }

    #[test]
    fn a_container_that_the_group_leaves_alone_is_no_matter() {
        let of = |container: &str| {
            let resource = json!({"name": "cpu", "container": container, "target": {"type": "Utilization"}});
            divides(json!({"type": "ContainerResource", "containerResource": resource}), json!({}))
        };
        assert!(of("app") && !of("proxy"));
    }

    #[test]
    fn its_target_is_a_workload_of_apps_and_its_status_is_no_news() {
        let view = autoscaler(json!([resource("cpu", "Utilization")]));
        assert_eq!(view.target, Some((TargetKind::Deployment, "pay".into())));
        assert!(view.says_the_same(&autoscaler(json!([resource("cpu", "Utilization")]))));
        assert!(!view.says_the_same(&autoscaler(json!([]))));
        let rollout = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Deployment", "name": "pay"});
        let other: HorizontalPodAutoscalerView =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"scaleTargetRef": rollout}}))
                .unwrap();
        assert_eq!((other.target, other.utilizations), (None, vec![]));
    }
}
