//! Gate keeping: a pod that lists our gate is in traffic, unless a run that goes on has taken it out.
//!
//! Every pod of the scope is looked at, with or without an InPlaceUpgrade: one that nobody sets the gate of would never be
//! Ready.

use crate::RIGHTS;
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;
use crate::patch::pinned;
use springtide_plumbing::workloads::pod::PodView;
use crate::projections::upgrade::UpgradeView;
use crate::watches::{Stores, UPGRADES_BY_TARGET, target_kind, upgrades_of};
use jiff::Timestamp;
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_plumbing::controller::{Reconciler, Settled};
use springtide_plumbing::executor::WriteResult;
use springtide_plumbing::failing::{Failing, Telling};
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::plan::{Outcome, Plan, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::rights::Rights;
use springtide_plumbing::store::{Change, StoreView};
use springtide_plumbing::traffic::Lever;
use std::sync::Arc;

/// The controller of gates. Its keys are those of pods.
#[derive(Debug)]
pub struct GateKeeper {
    stores: Stores,
}

/// A pod, and whether a run that goes on may have taken it out of traffic.
#[derive(Clone, Debug)]
pub struct Gated {
    pod: Arc<PodView>,
    is_in_run: bool,
}

impl GateKeeper {
    /// A controller over these stores.
    pub fn new(stores: Stores) -> Arc<Self> {
        Arc::new(Self { stores })
    }

    /// Lets the stores fill the queue, from the moment all of them are listed.
    pub fn wire(self: &Arc<Self>, queue: &WorkQueue<ObjectKey>) -> impl Future<Output = ()> + Send + use<> {
        let (this, queue) = (Arc::clone(self), queue.clone());
        async move {
            for view in this.stores.views() {
                view.wait_synced().await;
            }
            let pods = queue.clone();
            this.stores.pods.on_change(Arc::new(move |change| {
                let Some(pod) = change.present() else { return };
                // Almost all pods end here.
                if pod.signals.is_gate_forgotten(|_| false) {
                    pods.add(pod.meta().key.clone(), Priority::Normal, Urgency::Routine);
                }
            }));
            let keeper = Arc::clone(&this);
            this.stores.upgrades.on_change(Arc::new(move |change| keeper.upgrade_changed(change, &queue)));
        }
    }

    /// What a run has left out of traffic is found when it ends.
    fn upgrade_changed(&self, change: &Change<UpgradeView>, queue: &WorkQueue<ObjectKey>) {
        let has_ended = match change {
            Change::Apply { old: Some(old), new, .. } => old.is_run_open() && !new.is_run_open(),
            Change::Apply { old: None, .. } => false,
            Change::Delete { .. } => true,
        };
        if !has_ended {
            return;
        }
        for pod in self.stores.pods.list(Some(&change.object().meta().key.namespace)) {
            if pod.signals.is_gate_forgotten(|_| false) {
                queue.add(pod.meta().key.clone(), Priority::Normal, Urgency::Routine);
            }
        }
    }

    /// The stores that its plans rest on, for the gate of the loop.
    pub fn views(&self) -> Vec<Arc<dyn StoreView>> {
        vec![Arc::new(self.stores.pods.clone())]
    }

    /// Whether an object with an open run has this pod's workload as its target.
    fn is_in_run(&self, pod: &PodView) -> bool {
        let namespace = &pod.meta().key.namespace;
        let Some(owner) = &pod.meta().controller else { return false };
        let has_run = |kind: TargetKind, name: &str| {
            let index = upgrades_of(kind, namespace, name);
            let upgrades = self.stores.upgrades.by_index(&UPGRADES_BY_TARGET, &index);
            upgrades.iter().any(|upgrade| upgrade.is_run_open())
        };
        let Some(kind) = target_kind(owner) else { return false };
        if has_run(kind, &owner.name) {
            return true;
        }
        let key = ObjectKey { namespace: namespace.clone(), name: owner.name.clone() };
        let set = (kind == TargetKind::ReplicaSet).then(|| self.stores.replica_sets.get(&key)).flatten();
        let deployment = set.as_ref().and_then(|set| set.meta().controller.as_ref());
        deployment.is_some_and(|deployment| has_run(TargetKind::Deployment, &deployment.name))
    }
}

/// The plan for one pod.
fn plan(gated: &Gated, now: Timestamp) -> Plan {
    let mut plan = Plan::idle(Outcome::Converged);
    let Gated { pod, is_in_run } = gated;
    if pod.is_live() && pod.signals.is_gate_forgotten(|_| *is_in_run) {
        let action = UPGRADE_TRAFFIC.turn_on(Lever::ReadinessGate, &pod.meta().uid, &pod.signals, now);
        let key = pod.meta().key.clone();
        let write = Write { resource: Resource::POD, key, class: WriteClass::Protective, action };
        plan.stages = vec![vec![pinned(write, pod).into()]];
        plan.outcome = Outcome::Progressing;
    }
    plan
}

impl Reconciler for GateKeeper {
    const NAME: &'static str = "in-place-upgrade-gates";
    const RIGHTS: Rights = RIGHTS;
    type Observed = Gated;

    fn observe(&self, key: &ObjectKey, _: Option<&Failing>, _: Timestamp) -> Option<Gated> {
        let pod = self.stores.pods.get(key)?;
        Some(Gated { is_in_run: self.is_in_run(&pod), pod })
    }

    fn plan(&self, observed: &Gated, now: Timestamp) -> Plan {
        plan(observed, now)
    }

    fn tell(&self, key: &ObjectKey, failing: &Failing, _: Timestamp) -> Option<Telling> {
        let pod = self.stores.pods.get(key)?;
        let event = failing.note(Resource::POD, key.clone(), pod.meta().uid.clone())?;
        // A pod's status has no place for it.
        Some(Telling { event, status: None })
    }

    fn settle(&self, _: &ObjectKey, _: &[WriteResult], _: Timestamp) -> Settled {
        Settled::Default
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, pod};
    use serde_json::{Value, json};

    fn writes(over: Value, is_in_run: bool) -> usize {
        plan(&Gated { pod: pod("web-1", over), is_in_run }, at(0)).writes()
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
        let closed =
            || gate(json!([{"type": UPGRADE_TRAFFIC.gate, "status": "False", "message": "run=7c9f21ab04de"}]));
        assert_eq!((writes(closed(), true), writes(closed(), false)), (0, 1));
        let open = gate(json!([{"type": UPGRADE_TRAFFIC.gate, "status": "True"}]));
        assert_eq!(writes(open, false), 0);
    }
}
