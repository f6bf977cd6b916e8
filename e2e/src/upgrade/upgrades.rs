//! Every status of every upgrade of a namespace, and what may never be.

use std::collections::BTreeMap;

use kube::ResourceExt;
use springtide_crds::common::condition;
use springtide_crds::in_place_upgrade::{InPlaceUpgrade, InPlaceUpgradeStatus, all_reasons};
use springtide_crds::reason::Reason;

use crate::oracle::feed::{Feed, Fold};
use crate::oracle::statuses::{self, Told};

/// A watch on the upgrades of one namespace.
pub type UpgradeFeed = Feed<Upgrades>;

/// All upgrades of a namespace, by name.
#[derive(Debug, Default)]
pub struct Upgrades {
    present: BTreeMap<String, InPlaceUpgrade>,
    /// Reasons of condition Ready by name, in their order, repetitions left out.
    reasons: BTreeMap<String, Vec<String>>,
    violations: Vec<String>,
}

impl Upgrades {
    /// The upgrade of a name, if it is there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&InPlaceUpgrade> {
        self.present.get(name)
    }

    /// Reasons of its condition Ready, in their order, repetitions left out.
    #[must_use]
    pub fn reasons(&self, name: &str) -> &[String] {
        self.reasons.get(name).map_or(&[], Vec::as_slice)
    }

    /// What may never be seen, whatever a test does.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    fn judge(&mut self, before: Option<&InPlaceUpgrade>, upgrade: &InPlaceUpgrade) {
        let none = InPlaceUpgradeStatus::default();
        let status = upgrade.status.as_ref().unwrap_or(&none);
        let same = before.filter(|before| before.uid() == upgrade.uid());
        let earlier = same.and_then(|before| before.status.as_ref());
        let json = serde_json::to_string(status).unwrap_or_default();
        let told = Told {
            generation: upgrade.metadata.generation.unwrap_or_default(),
            observed_generation: status.observed_generation,
            observed_before: earlier.map(|earlier| earlier.observed_generation),
            conditions: &status.conditions,
            json: &json,
            documented: &all_reasons(),
        };
        let mut wrong = told.wrong();
        let pods = &status.pods;
        if pods.updated_ready > pods.updated {
            wrong.push("more pods are updated and ready than are updated".to_owned());
        }
        if pods.draining > pods.in_flight {
            wrong.push("more pods drain than are in flight".to_owned());
        }
        let name = upgrade.name_any();
        self.violations.extend(wrong.into_iter().map(|what| format!("{name}: {what}: {json}")));
    }
}

/// Whether an upgrade has a condition with this reason, about its present generation.
#[must_use]
pub fn says<R: Reason>(upgrade: &InPlaceUpgrade, reason: &R) -> bool {
    let conditions = upgrade.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    statuses::says(conditions, upgrade.metadata.generation, reason)
}

impl Fold for Upgrades {
    type Object = InPlaceUpgrade;

    fn apply(&mut self, upgrade: InPlaceUpgrade) {
        let name = upgrade.name_any();
        let before = self.present.remove(&name);
        self.judge(before.as_ref(), &upgrade);
        let conditions =
            upgrade.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let reason = condition(conditions, "Ready").map(|ready| ready.reason.clone()).unwrap_or_default();
        let reasons = self.reasons.entry(name.clone()).or_default();
        if reasons.last() != Some(&reason) {
            reasons.push(reason);
        }
        self.present.insert(name, upgrade);
    }

    fn delete(&mut self, upgrade: &InPlaceUpgrade) {
        self.present.remove(&upgrade.name_any());
    }

    fn relisted(&mut self, present: &[InPlaceUpgrade]) {
        self.present.retain(|name, _| present.iter().any(|upgrade| upgrade.name_any() == *name));
    }

    fn describe(&self) -> String {
        let shown = |(name, upgrade): (&String, &InPlaceUpgrade)| {
            let status = serde_json::to_string(&upgrade.status).unwrap_or_default();
            format!(
                "{name}: {:?}, generation {:?}: {status}\n",
                self.reasons(name),
                upgrade.metadata.generation
            )
        };
        self.present.iter().map(shown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn upgrade(status: &Value) -> InPlaceUpgrade {
        serde_json::from_value(json!({
            "apiVersion": "springtide.dev/v1alpha1", "kind": "InPlaceUpgrade",
            "metadata": {"name": "web", "uid": "1", "generation": 2},
            "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
            "status": status,
        }))
        .unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> Value {
        json!({
            "type": type_, "status": status, "reason": reason, "message": "", "observedGeneration": 2,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    }

    #[test]
    fn what_no_status_may_say_is_kept() {
        let mut upgrades = Upgrades::default();
        upgrades.apply(upgrade(&json!({
            "observedGeneration": 2, "conditions": [condition("Ready", "True", "UpToDate")],
            "pods": {"total": 2, "updated": 2, "updatedReady": 2},
        })));
        assert_eq!(upgrades.violations(), [""; 0]);
        for (status, what) in [
            (json!({"observedGeneration": 1}), "went back"),
            (json!({"observedGeneration": 3}), "ahead"),
            (json!({"observedGeneration": 3, "pods": {"updatedReady": 1}}), "updated and ready"),
            (
                json!({"observedGeneration": 3, "conditions": [condition("Ready", "True", "Held")]}),
                "not documented",
            ),
            (
                json!({"observedGeneration": 3, "conditions": [
                    condition("Ready", "True", "UpToDate"), condition("Stalled", "True", "NotLocked"),
                ]}),
                "Ready and Stalled",
            ),
        ] {
            upgrades.apply(upgrade(&status));
            assert!(upgrades.violations().iter().any(|found| found.contains(what)), "{what}");
        }
        assert_eq!(upgrades.reasons("web")[..2], ["UpToDate", ""]);
    }
}
