//! Who sends traffic to a pod, as EndpointSlices have it.

use super::lever::Lever;
use crate::key::{ObjectKey, Resource, Uid};
use crate::projection::{Meta, NoLabels, Projection};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// `discovery.k8s.io/v1` EndpointSlice.
pub const ENDPOINT_SLICE: Resource = Resource {
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    plural: "endpointslices",
    namespaced: true,
};

/// Core `v1` Service.
pub const SERVICE: Resource =
    Resource { group: "", version: "v1", kind: "Service", plural: "services", namespaced: true };

/// The labels of an EndpointSlice that are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SliceLabels {
    /// Name of its Service.
    #[serde(rename = "kubernetes.io/service-name", default)]
    pub service: Option<Arc<str>>,
}

/// One EndpointSlice.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "SliceWire")]
pub struct EndpointSliceView {
    meta: Meta<SliceLabels>,
    /// UIDs of the pods that it lists as ready.
    pub ready: Vec<Uid>,
}

impl EndpointSliceView {
    /// The Service that it is for; the slice's own name where it has none.
    pub fn service(&self) -> ObjectKey {
        let key = &self.meta.key;
        let name = self.meta.labels.service.as_ref().unwrap_or(&key.name);
        ObjectKey { namespace: Arc::clone(&key.namespace), name: Arc::clone(name) }
    }
}

impl Projection for EndpointSliceView {
    const RESOURCE: Resource = ENDPOINT_SLICE;
    type Labels = SliceLabels;

    fn meta(&self) -> &Meta<SliceLabels> {
        &self.meta
    }

    fn bytes(&self) -> usize {
        let service = self.meta.labels.service.as_ref().map_or(0, |service| service.len());
        let ready: usize = self.ready.iter().map(|uid| size_of::<Uid>() + uid.0.len()).sum();
        size_of::<Self>() + self.meta.text_bytes() + service + ready
    }
}

/// One Service.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "ServiceWire")]
pub struct ServiceView {
    meta: Meta,
    /// Whether its EndpointSlices list pods as ready that are not.
    pub publishes_not_ready: bool,
    /// `spec.selector`.
    pub selector: BTreeMap<Box<str>, Box<str>>,
}

impl Projection for ServiceView {
    const RESOURCE: Resource = SERVICE;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn bytes(&self) -> usize {
        let selector = self.selector.iter();
        let selector: usize =
            selector.map(|(key, value)| 2 * size_of::<Box<str>>() + key.len() + value.len()).sum();
        size_of::<Self>() + self.meta.text_bytes() + selector
    }
}

/// Which Services send traffic to a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Names of the Services that list it as ready, in order.
    pub listed_by: BTreeSet<Arc<str>>,
    /// Names of those that list it whether it is ready or not (`publishNotReadyAddresses`), in order: they prove nothing,
    /// and whoever sends by them finds the pod while it restarts.
    pub left_out: BTreeSet<Arc<str>>,
}

impl Exposure {
    /// Whether nothing that can be proved is left.
    pub fn is_clear(&self) -> bool {
        self.listed_by.is_empty()
    }
}

/// Which Services send traffic to pods, by UID: what all slices of the pods' namespace say, looked through once. A pod
/// that no slice lists is not among them.
///
/// `lever_of` says by what traffic of a pod is turned off, and is `None` for one that is of no interest. `label` is the
/// key of the label: a Service that selects by it drops a pod without the label even where it publishes those that are
/// not ready, so that its slices prove something after all.
pub fn exposures<'a>(
    slices: impl IntoIterator<Item = &'a EndpointSliceView>,
    service_of: impl Fn(&ObjectKey) -> Option<Arc<ServiceView>>,
    lever_of: impl Fn(&Uid) -> Option<Lever>,
    label: &str,
) -> HashMap<Uid, Exposure> {
    let mut exposures: HashMap<Uid, Exposure> = HashMap::new();
    for slice in slices {
        let key = slice.service();
        // Asked for only when it matters.
        let mut service: Option<Option<Arc<ServiceView>>> = None;
        for uid in &slice.ready {
            let Some(lever) = lever_of(uid) else { continue };
            let service = service.get_or_insert_with(|| service_of(&key));
            let proves_nothing = service.as_ref().is_some_and(|service| {
                service.publishes_not_ready
                    && match lever {
                        Lever::ReadinessGate => true,
                        Lever::ServiceLabel => !service.selector.contains_key(label),
                    }
            });
            let exposure = exposures.entry(uid.clone()).or_default();
            let services = if proves_nothing { &mut exposure.left_out } else { &mut exposure.listed_by };
            services.insert(Arc::clone(&key.name));
        }
    }
    exposures
}

#[derive(Deserialize)]
struct SliceWire {
    metadata: Meta<SliceLabels>,
    #[serde(default)]
    endpoints: Option<Vec<EndpointWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointWire {
    #[serde(default)]
    conditions: Option<EndpointConditions>,
    #[serde(default)]
    target_ref: Option<TargetRef>,
}

#[derive(Deserialize)]
struct EndpointConditions {
    #[serde(default)]
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct TargetRef {
    #[serde(default)]
    kind: Option<Box<str>>,
    #[serde(default)]
    uid: Option<Uid>,
}

impl From<SliceWire> for EndpointSliceView {
    fn from(wire: SliceWire) -> Self {
        // What is not said is to be taken as true (EndpointConditions of discovery.k8s.io/v1).
        let is_ready = |endpoint: &EndpointWire| {
            endpoint.conditions.as_ref().and_then(|found| found.ready).unwrap_or(true)
        };
        let endpoints = wire.endpoints.into_iter().flatten();
        let ready = endpoints
            .filter(is_ready)
            .filter_map(|endpoint| {
                let target = endpoint.target_ref?;
                target.uid.filter(|_| target.kind.as_deref() == Some("Pod"))
            })
            .collect();
        Self { meta: wire.metadata, ready }
    }
}

#[derive(Deserialize)]
struct ServiceWire {
    metadata: Meta,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    publish_not_ready_addresses: bool,
    selector: Option<BTreeMap<Box<str>, Box<str>>>,
}

impl From<ServiceWire> for ServiceView {
    fn from(wire: ServiceWire) -> Self {
        let ServiceSpec { publish_not_ready_addresses, selector } = wire.spec;
        Self {
            meta: wire.metadata,
            publishes_not_ready: publish_not_ready_addresses,
            selector: selector.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const LABEL: &str = "example.com/serving";

    fn uid(text: &str) -> Uid {
        Uid(text.into())
    }

    fn slice(name: &str, service: Option<&str>, endpoints: Value) -> EndpointSliceView {
        let labels = service.map(|service| json!({"kubernetes.io/service-name": service}));
        let metadata = json!({"namespace": "ns", "name": name, "labels": labels.unwrap_or(json!({}))});
        serde_json::from_value(json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints}))
            .unwrap()
    }

    fn endpoint(pod: &str, ready: Value) -> Value {
        json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready, "serving": true},
               "targetRef": {"kind": "Pod", "name": pod, "uid": pod}})
    }

    fn service(name: &str, publishes: bool, selector: Value) -> Arc<ServiceView> {
        let spec = json!({"publishNotReadyAddresses": publishes, "selector": selector});
        let metadata = json!({"namespace": "ns", "name": name});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
    }

    fn names(services: &BTreeSet<Arc<str>>) -> Vec<&str> {
        services.iter().map(AsRef::as_ref).collect()
    }

    #[test]
    fn only_pods_that_are_ready_are_read_and_what_is_not_said_counts_as_ready() {
        let view = slice(
            "a",
            Some("web"),
            json!([
                endpoint("yes", json!(true)),
                endpoint("no", json!(false)),
                endpoint("unsaid", Value::Null),
                {"addresses": ["10.0.0.2"], "targetRef": {"kind": "Pod", "uid": "bare"}},
                {"addresses": ["10.0.0.3"], "targetRef": {"kind": "Node", "uid": "node"}},
                {"addresses": ["10.0.0.4"]},
            ]),
        );
        assert_eq!(view.ready, ["yes", "unsaid", "bare"].map(uid));
        assert!(slice("a", None, Value::Null).ready.is_empty());
        assert_eq!(slice("a", None, Value::Null).service(), ObjectKey::new("ns", "a"));
    }

    #[test]
    fn every_service_that_lists_a_pod_is_named_once_and_others_are_not_looked_for() {
        let ready = || json!([endpoint("p", json!(true)), endpoint("q", json!(true))]);
        let slices = [
            slice("v4", Some("web"), ready()),
            slice("v6", Some("web"), ready()),
            slice("b", Some("admin"), ready()),
            slice("c", Some("gone"), json!([endpoint("p", json!(false))])),
        ];
        let found = exposures(
            &slices,
            |key| Some(service(&key.name, false, json!({}))),
            |pod| (*pod == uid("p")).then_some(Lever::ReadinessGate),
            LABEL,
        );
        assert_eq!(found.len(), 1);
        assert_eq!(names(&found[&uid("p")].listed_by), ["admin", "web"]);
        assert!(!found[&uid("p")].is_clear());
    }

    #[test]
    fn services_that_publish_what_is_not_ready_are_left_out_unless_the_label_drops_the_pod() {
        let slices = [
            slice("a", Some("peers"), json!([endpoint("p", json!(true))])),
            slice("b", Some("by-label"), json!([endpoint("p", json!(true))])),
            slice("c", None, json!([endpoint("p", json!(true))])),
        ];
        let services = |key: &ObjectKey| match &*key.name {
            "peers" => Some(service("peers", true, json!({"app": "web"}))),
            "by-label" => Some(service("by-label", true, json!({"app": "web", LABEL: "true"}))),
            _ => None,
        };
        let exposure =
            |lever| exposures(&slices, services, |_| Some(lever), LABEL).remove(&uid("p")).unwrap();
        let gate = exposure(Lever::ReadinessGate);
        assert_eq!(names(&gate.left_out), ["by-label", "peers"]);
        // A slice without a Service has what its maker says.
        assert_eq!(names(&gate.listed_by), ["c"]);
        let label = exposure(Lever::ServiceLabel);
        assert_eq!((names(&label.left_out), names(&label.listed_by)), (vec!["peers"], vec!["by-label", "c"]));
    }
}
