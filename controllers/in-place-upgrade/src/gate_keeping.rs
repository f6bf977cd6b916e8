//! Gate keeping: a pod that lists our gate is in traffic, unless a run that goes on has taken it out.

use crate::RIGHTS;
use crate::projections::upgrade::UpgradeView;
use crate::traffic::closed_by_run;
use crate::watches::{Stores, UPGRADES_BY_TARGET};
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::rights::Rights;
use springtide_plumbing::store::{Change, Store, StoreView};
use springtide_plumbing::traffic::{Lever, Names, Signals};
use springtide_plumbing::workloads::gate_keeping::{self, Gates, LookThrough};
use springtide_plumbing::workloads::indexes::workload_key;
use springtide_plumbing::workloads::kinds::ReplicaSetView;
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

/// The controller of gates. Its keys are those of pods.
pub type GateKeeper = gate_keeping::GateKeeper<UpgradeGates>;

/// Who may have taken a pod out of traffic: an object with an open run.
#[derive(Clone, Debug)]
pub struct UpgradeGates {
    stores: Stores,
}

impl From<Stores> for UpgradeGates {
    fn from(stores: Stores) -> Self {
        Self { stores }
    }
}

impl Gates for UpgradeGates {
    const NAME: &'static str = "in-place-upgrade-gates";
    const RIGHTS: Rights = RIGHTS;
    const NAMES: Names = UPGRADE_TRAFFIC;

    fn signals(pod: &PodView) -> &Signals {
        &pod.signals
    }

    /// A gate that no run has closed is opened in mid-run too. A label needs nobody, as its template says `"true"`, but
    /// where a run has ended that had turned it off: of a pod that has failed, and recovers.
    fn forgotten(signals: &Signals, is_held: impl FnOnce() -> bool) -> Option<Lever> {
        if signals.is_gate_forgotten(|_| true) {
            return Some(Lever::ReadinessGate);
        }
        closed_by_run(signals).next().filter(|_| !is_held())
    }

    fn holds(&self, kind: TargetKind, workload: &ObjectKey) -> bool {
        let index = workload_key(kind, &workload.namespace, &workload.name);
        let upgrades = self.stores.upgrades.by_index(&UPGRADES_BY_TARGET, &index);
        upgrades.iter().any(|upgrade| upgrade.is_run_open())
    }

    fn pods(&self) -> &Store<PodView> {
        &self.stores.pods
    }

    fn replica_sets(&self) -> &Store<ReplicaSetView> {
        &self.stores.replica_sets
    }

    fn views(&self) -> Vec<Arc<dyn StoreView>> {
        self.stores.views()
    }

    fn listen(&self, look_through: LookThrough) {
        self.stores.upgrades.on_change(Arc::new(move |change| {
            if has_ended(change) {
                look_through(&change.object().meta().key.namespace);
            }
        }));
    }
}

/// What a run has left out of traffic is found when it ends.
fn has_ended(change: &Change<UpgradeView>) -> bool {
    match change {
        Change::Apply { old: Some(old), new, .. } => old.is_run_open() && !new.is_run_open(),
        Change::Apply { old: None, .. } => false,
        Change::Delete { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod, replica_set};
    use crate::watches::rig::{Rig, put, upgrade};
    use serde_json::{Value, json};
    use springtide_plumbing::controller::Reconciler;

    /// Writes to a pod of the ReplicaSet `rs` of Deployment `web`, which is in a run or not.
    fn writes(over: Value, is_in_run: bool) -> usize {
        let mut rig = Rig::new();
        put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", is_in_run, json!({})));
        put(&mut rig.replica_sets, &replica_set("rs", 1, 1, "app:1"));
        put(&mut rig.pods, &pod("web-1", over));
        let keeper = GateKeeper::new(rig.stores.clone());
        let gated = keeper.observe(&ObjectKey::new("ns", "web-1"), None, at(0)).unwrap();
        keeper.plan(&gated, at(0)).writes()
    }

    fn gate(condition: Value) -> Value {
        json!({
            "spec": {"readinessGates": [{"conditionType": UPGRADE_TRAFFIC.gate}]},
            "status": {"conditions": condition},
        })
    }

    #[test]
    fn a_gate_that_nobody_has_set_is_opened_with_or_without_a_run() {
        assert_eq!((writes(gate(json!([])), false), writes(gate(json!([])), true)), (1, 1));
        assert_eq!(writes(json!({}), false), 0, "it has none");
    }

    #[test]
    fn a_gate_that_a_run_has_closed_is_left_to_it_for_as_long_as_it_goes_on() {
        let closed = || {
            gate(json!([{"type": UPGRADE_TRAFFIC.gate, "status": "False", "message": "run=7c9f21ab04de"}]))
        };
        assert_eq!((writes(closed(), true), writes(closed(), false)), (0, 1));
        let open = gate(json!([{"type": UPGRADE_TRAFFIC.gate, "status": "True"}]));
        assert_eq!(writes(open, false), 0);
    }

    #[test]
    fn a_label_that_a_run_has_turned_off_is_turned_on_when_it_is_over_and_one_of_the_users_is_left_alone() {
        let labelled = |value: &str| json!({"metadata": {"labels": {UPGRADE_TRAFFIC.label: value}}});
        let of_run = || {
            let note = json!({UPGRADE_TRAFFIC.annotation: "run=7c9f21ab04de,since=2026-11-23T10:00:00Z"});
            let mut closed = labelled("false");
            closed["metadata"]["annotations"] = note;
            closed
        };
        assert_eq!((writes(of_run(), true), writes(of_run(), false)), (0, 1));
        assert_eq!(writes(labelled("false"), false), 0, "somebody has it so on purpose");
        assert_eq!(writes(labelled("true"), false), 0);
    }

    #[test]
    fn a_run_that_ends_or_goes_has_its_namespace_looked_through_and_one_that_begins_has_not() {
        let (open, over) = (
            upgrade("web", "Deployment", "web", true, json!({})),
            upgrade("web", "Deployment", "web", false, json!({})),
        );
        let apply = |old: Option<&Arc<UpgradeView>>, new: &Arc<UpgradeView>| {
            has_ended(&Change::Apply { old: old.cloned(), new: Arc::clone(new), initial: false })
        };
        assert!(apply(Some(&open), &over) && has_ended(&Change::Delete { last: Arc::clone(&open) }));
        assert!(!apply(Some(&over), &open) && !apply(Some(&open), &open) && !apply(None, &over));
    }
}
