//! ResourceQuota, as far as it bounds cpu and memory of pods.

use crate::observed::Quota;
use serde::Deserialize;
use serde::de::IgnoredAny;
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::{Meta, NoLabels, Projection};
use springtide_plumbing::quantity::parse_amount;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Core `v1` ResourceQuota.
pub const RESOURCE_QUOTA: Resource =
    Resource { group: "", version: "v1", kind: "ResourceQuota", plural: "resourcequotas", namespaced: true };

/// One ResourceQuota.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct ResourceQuotaView {
    meta: Meta,
    /// What it leaves.
    pub quota: Quota,
}

impl ResourceQuotaView {
    /// Whether it bounds anything that a resize changes.
    pub fn bounds_resizes(&self) -> bool {
        let Quota { name: _, requests_cpu, requests_memory, limits_cpu, limits_memory, is_scoped: _ } =
            &self.quota;
        [requests_cpu, requests_memory, limits_cpu, limits_memory].into_iter().any(Option::is_some)
    }
}

impl Projection for ResourceQuotaView {
    const RESOURCE: Resource = RESOURCE_QUOTA;
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
    #[serde(default)]
    status: WireStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireSpec {
    scopes: Option<Vec<IgnoredAny>>,
    scope_selector: Option<IgnoredAny>,
}

/// By what the API server judges: what the spec says counts once the status says it too.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WireStatus {
    hard: Option<BTreeMap<Arc<str>, Box<str>>>,
    used: Option<BTreeMap<Arc<str>, Box<str>>>,
}

impl WireStatus {
    /// `hard` less `used` of the tightest of these names that there is.
    fn free(&self, resource: &str, names: &[&str]) -> Option<i64> {
        let amount = |list: &Option<BTreeMap<Arc<str>, Box<str>>>, name: &str| {
            list.as_ref().and_then(|list| list.get(name)).and_then(|text| parse_amount(resource, text))
        };
        let free = names.iter().filter_map(|name| {
            let hard = amount(&self.hard, name)?;
            Some(hard.saturating_sub(amount(&self.used, name).unwrap_or_default()))
        });
        free.min()
    }
}

impl From<Wire> for ResourceQuotaView {
    fn from(Wire { metadata, spec, status }: Wire) -> Self {
        let quota = Quota {
            name: Arc::clone(&metadata.key.name),
            requests_cpu: status.free("cpu", &["requests.cpu", "cpu"]),
            requests_memory: status.free("memory", &["requests.memory", "memory"]),
            limits_cpu: status.free("cpu", &["limits.cpu"]),
            limits_memory: status.free("memory", &["limits.memory"]),
            is_scoped: spec.scopes.is_some_and(|scopes| !scopes.is_empty()) || spec.scope_selector.is_some(),
        };
        Self { meta: metadata, quota }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn view(spec: Value, status: Value) -> ResourceQuotaView {
        let metadata = json!({"name": "team", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    #[test]
    fn what_is_left_is_hard_less_used_by_the_status() {
        let status = json!({
            "hard": {"requests.cpu": "10", "cpu": "9500m", "limits.memory": "1Gi", "pods": "10"},
            "used": {"requests.cpu": "9", "cpu": "9", "limits.memory": "2Gi"},
        });
        let view = view(json!({"hard": {"requests.cpu": "100", "requests.memory": "1Gi"}}), status);
        let expected = Quota {
            name: "team".into(),
            requests_cpu: Some(500),
            limits_memory: Some(-(1 << 30)),
            ..Quota::default()
        };
        assert_eq!((&view.quota, view.bounds_resizes()), (&expected, true));
    }

    #[test]
    fn a_quota_of_other_things_is_none_and_scopes_are_told() {
        let status = || json!({"hard": {"pods": "10"}, "used": {"pods": "3"}});
        assert!(!view(json!({}), status()).bounds_resizes());
        let scoped = json!({"scopes": ["NotTerminating"]});
        assert!(
            view(scoped, status()).quota.is_scoped && !view(json!({"scopes": []}), status()).quota.is_scoped
        );
        let selected = json!({"scopeSelector": {"matchExpressions": []}});
        assert!(view(selected, status()).quota.is_scoped);
    }
}
