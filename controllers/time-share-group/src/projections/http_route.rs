//! HTTPRoute of [Gateway API](https://gateway-api.sigs.k8s.io/), as far as it says how much of its traffic a Service gets. Not
//! every cluster has the kind.

use crate::observed::Backend;
use serde::Deserialize;
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use std::sync::Arc;

/// `gateway.networking.k8s.io/v1` HTTPRoute.
pub const HTTP_ROUTE: Resource = Resource {
    group: "gateway.networking.k8s.io",
    version: "v1",
    kind: "HTTPRoute",
    plural: "httproutes",
    namespaced: true,
};

/// What the API has for a weight that is not said.
const DEFAULT_WEIGHT: u32 = 1;

/// One HTTPRoute.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct HttpRouteView {
    meta: Meta,
    /// The Services of its own namespace that its rules send to, in order.
    pub backends: Vec<Backend>,
}

impl HttpRouteView {
    /// Where a Service is named.
    pub fn backends_of(&self, service: &str) -> Vec<Backend> {
        self.backends.iter().filter(|backend| &*backend.name == service).cloned().collect()
    }
}

impl Projection for HttpRouteView {
    const RESOURCE: Resource = HTTP_ROUTE;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn bytes(&self) -> usize {
        let backends: usize =
            self.backends.iter().map(|backend| size_of::<Backend>() + backend.name.len()).sum();
        size_of::<Self>() + self.meta.text_bytes() + backends
    }
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    #[serde(default)]
    spec: WireSpec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireSpec {
    rules: Option<Vec<WireRule>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireRule {
    backend_refs: Option<Vec<WireBackend>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireBackend {
    group: Option<Box<str>>,
    kind: Option<Box<str>>,
    namespace: Option<Box<str>>,
    name: Arc<str>,
    weight: Option<u32>,
}

impl WireBackend {
    /// Whether it is a Service of the route's own namespace.
    fn is_own_service(&self, namespace: &str) -> bool {
        self.group.as_deref().unwrap_or_default().is_empty()
            && self.kind.as_deref().is_none_or(|kind| kind == "Service")
            && self.namespace.as_deref().is_none_or(|other| other == namespace)
    }
}

impl From<Wire> for HttpRouteView {
    fn from(Wire { metadata, spec }: Wire) -> Self {
        let mut backends = Vec::new();
        for (rule, WireRule { backend_refs }) in spec.rules.into_iter().flatten().enumerate() {
            for (backend, found) in backend_refs.into_iter().flatten().enumerate() {
                if found.is_own_service(&metadata.key.namespace) {
                    let weight = found.weight.unwrap_or(DEFAULT_WEIGHT);
                    let is_stated = found.weight.is_some();
                    backends.push(Backend { rule, backend, name: found.name, weight, is_stated });
                }
            }
        }
        Self { meta: metadata, backends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_backend_is_known_by_its_place_and_a_weight_that_is_not_said_is_one() {
        let route: HttpRouteView = serde_json::from_value(json!({
            "metadata": {"name": "pay", "namespace": "shop"},
            "spec": {"rules": [
                {"matches": [{"path": {"value": "/"}}]},
                {"backendRefs": [
                    {"name": "promo", "port": 80, "weight": 90},
                    {"name": "pay", "namespace": "events", "port": 80, "weight": 5},
                    {"group": "example.com", "kind": "Bucket", "name": "pay"},
                    {"group": "", "kind": "Service", "name": "pay", "namespace": "shop", "port": 80, "weight": 0},
                ]},
                {"backendRefs": [{"name": "pay", "port": 80}]},
            ]},
        }))
        .unwrap();
        let backend = |rule, backend, weight, is_stated| Backend {
            rule,
            backend,
            name: "pay".into(),
            weight,
            is_stated,
        };
        assert_eq!(route.backends_of("pay"), [backend(1, 3, 0, true), backend(2, 0, 1, false)]);
        assert_eq!((route.backends_of("promo").len(), route.backends_of("gone").len()), (1, 0));
    }

    #[test]
    fn a_route_without_rules_has_no_backends() {
        let bare: HttpRouteView =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"rules": null}})).unwrap();
        assert_eq!(bare.backends, []);
    }
}
