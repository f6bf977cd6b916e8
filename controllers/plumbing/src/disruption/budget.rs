//! PodDisruptionBudget, counted with what is out by our own hand.

use crate::key::Resource;
use crate::label_selector::LabelSelector;
use crate::projection::{Meta, NoLabels, Projection};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// `policy/v1` PodDisruptionBudget.
pub const POD_DISRUPTION_BUDGET: Resource = Resource {
    group: "policy",
    version: "v1",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    namespaced: true,
};

/// One PodDisruptionBudget.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct DisruptionBudgetView {
    meta: Meta,
    selector: Option<LabelSelector>,
    observed_generation: i64,
    desired_healthy: usize,
    /// Names of pods whose eviction was allowed, and whose end its controller has not seen yet.
    disrupted: BTreeSet<Arc<str>>,
}

impl DisruptionBudgetView {
    /// Whether it is about a pod, of which `label` gives the value of a label. A budget without a selector is about none.
    pub fn selects<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.selects(label))
    }

    /// How many of its ready pods may be taken out of service beside those that are out already.
    ///
    /// `in_service` are the names of the pods that it selects, that are Ready now, and that no drain was sent for: what
    /// is on its way out does not count, though it is still ready. So does none whose eviction was allowed. `disruptionsAllowed`
    /// is not looked at, since it learns late of pods that we drain.
    ///
    /// Nothing may be while its controller has not seen its spec, which may ask for more than its status says.
    pub fn room<'a>(&self, in_service: impl IntoIterator<Item = &'a str>) -> usize {
        if self.observed_generation < self.meta.generation {
            return 0;
        }
        let in_service = in_service.into_iter().filter(|name| !self.disrupted.contains(*name)).count();
        in_service.saturating_sub(self.desired_healthy)
    }
}

impl Projection for DisruptionBudgetView {
    const RESOURCE: Resource = POD_DISRUPTION_BUDGET;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }

    fn bytes(&self) -> usize {
        let selector = self.selector.as_ref().map_or(0, LabelSelector::text_bytes);
        size_of::<Self>() + self.meta.text_bytes() + selector
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
#[serde(default)]
struct WireSpec {
    selector: Option<LabelSelector>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireStatus {
    observed_generation: i64,
    desired_healthy: i64,
    disrupted_pods: Option<BTreeMap<Arc<str>, IgnoredAny>>,
}

impl From<Wire> for DisruptionBudgetView {
    fn from(wire: Wire) -> Self {
        let WireStatus { observed_generation, desired_healthy, disrupted_pods } = wire.status;
        Self {
            meta: wire.metadata,
            selector: wire.spec.selector,
            observed_generation,
            desired_healthy: usize::try_from(desired_healthy).unwrap_or(0),
            disrupted: disrupted_pods.unwrap_or_default().into_keys().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn budget(spec: Value, status: Value) -> DisruptionBudgetView {
        let metadata = json!({"namespace": "ns", "name": "web", "generation": 2});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap()
    }

    fn web(observed: i64, disrupted: Value) -> DisruptionBudgetView {
        let spec = json!({"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 3});
        // Of pods that have just been drained the status does not know.
        let status = json!({"observedGeneration": observed, "desiredHealthy": 3, "disruptionsAllowed": 9,
            "currentHealthy": 12, "disruptedPods": disrupted});
        budget(spec, status)
    }

    #[test]
    fn what_is_in_service_beyond_what_has_to_be_healthy_is_room() {
        let budget = web(2, Value::Null);
        assert_eq!(budget.room(["a", "b", "c", "d", "e"]), 2);
        assert_eq!(budget.room(["a", "b", "c"]), 0);
        assert_eq!(budget.room(["a"]), 0);
    }

    #[test]
    fn pods_whose_eviction_was_allowed_are_taken_off_once_and_only_if_they_are_in_service() {
        let budget = web(2, json!({"a": "2026-11-11T00:00:00Z", "gone": "2026-11-11T00:00:00Z"}));
        assert_eq!(budget.room(["a", "b", "c", "d", "e"]), 1);
        assert_eq!(budget.room(["b", "c", "d", "e"]), 1);
    }

    #[test]
    fn a_status_of_an_older_spec_gives_no_room() {
        assert_eq!(web(1, Value::Null).room(["a", "b", "c", "d"]), 0);
        let unseen = budget(json!({"selector": {}}), json!({}));
        assert_eq!(unseen.room(["a"]), 0);
    }

    #[test]
    fn a_budget_is_about_what_it_selects_and_one_without_a_selector_about_nothing() {
        let label = |key: &str| (key == "app").then_some("web");
        assert!(web(2, Value::Null).selects(label));
        assert!(!web(2, Value::Null).selects(|_| None));
        assert!(budget(json!({"selector": {}}), json!({})).selects(label));
        assert!(!budget(json!({}), json!({})).selects(label));
    }
}
