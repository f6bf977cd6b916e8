//! Gate keeping: a pod that has a gate or a label of ours is in traffic, unless an object of ours holds it back.
//!
//! Every pod of the scope is looked at, also where no object of ours is for its workload: one that nobody sets the gate of
//! would never be Ready. Each controller keeps its own ([`Gates`]); how pods are looked at is the same for all.

#[cfg(test)]
mod tests;

use super::kinds::{ReplicaSetView, target_kind};
use super::pod::PodView;
use crate::clock::after;
use crate::controller::{Reconciler, Settled};
use crate::executor::WriteResult;
use crate::failing::{Failing, Telling};
use crate::key::{ObjectKey, Resource};
use crate::plan::{Action, Outcome, Patch, Plan, Write, WriteClass};
use crate::projection::Projection;
use crate::queue::{Priority, Urgency, WorkQueue};
use crate::rights::Rights;
use crate::store::{Store, StoreView};
use crate::traffic::{Lever, Names, Signals};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::in_place_upgrade::TargetKind;
use std::sync::Arc;

/// A ReplicaSet that has not been seen is looked for again after this: its pods may have been told of first.
const OWNER_PAUSE: SignedDuration = SignedDuration::from_secs(2);

/// The gates and labels of one controller.
pub trait Gates: Send + Sync + 'static {
    /// Name of the loop that keeps them.
    const NAME: &'static str;
    /// What that may ask of the API server.
    const RIGHTS: Rights;
    /// By which names traffic is turned.
    const NAMES: Names;

    /// What a pod says of them.
    fn signals(pod: &PodView) -> &Signals;

    /// A lever that is to be turned on; the next one is looked for when that is done. `is_held` says whether an object of
    /// ours that is for the pod's workload may hold it back, and is asked only where it matters.
    fn forgotten(signals: &Signals, is_held: impl FnOnce() -> bool) -> Option<Lever>;

    /// Whether an object of ours holds pods of a workload back.
    fn holds(&self, kind: TargetKind, workload: &ObjectKey) -> bool;

    /// All pods of the scope.
    fn pods(&self) -> &Store<PodView>;

    /// All ReplicaSets of the scope, by which a pod's Deployment is known.
    fn replica_sets(&self) -> &Store<ReplicaSetView>;

    /// All stores that the answers rest on, pods and ReplicaSets included.
    fn views(&self) -> Vec<Arc<dyn StoreView>>;

    /// Registers who sees objects of ours let workloads go: their namespaces are looked through. Called once, when all
    /// stores have been listed.
    fn listen(&self, look_through: LookThrough);
}

/// Looks for forgotten pods in a namespace.
pub type LookThrough = Arc<dyn Fn(&str) + Send + Sync>;

/// The controller of gates. Its keys are those of pods.
#[derive(Debug)]
pub struct GateKeeper<G> {
    gates: G,
}

/// A pod, and what nobody holds back of it.
#[derive(Clone, Debug)]
pub struct Forgotten {
    pod: Arc<PodView>,
    lever: Option<Lever>,
    /// Whether its owner is to be looked for again.
    is_owner_unseen: bool,
}

/// Who may hold a pod back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// Nobody does.
    Nobody,
    /// An object of ours does.
    Ours,
    /// Its owner has not been seen yet.
    Unseen,
}

impl<G: Gates> GateKeeper<G> {
    /// A controller of these gates.
    pub fn new(gates: impl Into<G>) -> Arc<Self> {
        Arc::new(Self { gates: gates.into() })
    }

    /// Lets the stores fill the queue, from the moment all of them are listed.
    pub fn wire(self: &Arc<Self>, queue: &WorkQueue<ObjectKey>) -> impl Future<Output = ()> + Send + use<G> {
        let (this, queue) = (Arc::clone(self), queue.clone());
        async move {
            for view in this.gates.views() {
                view.wait_synced().await;
            }
            let pods = queue.clone();
            this.gates.pods().on_change(Arc::new(move |change| {
                if let Some(pod) = change.present() {
                    look_at::<G>(pod, &pods);
                }
            }));
            let store = this.gates.pods().clone();
            this.gates.listen(Arc::new(move |namespace: &str| {
                for pod in store.list(Some(namespace)) {
                    look_at::<G>(&pod, &queue);
                }
            }));
        }
    }

    /// The stores that its plans rest on, for the gate of the loop.
    pub fn views(&self) -> Vec<Arc<dyn StoreView>> {
        vec![Arc::new(self.gates.pods().clone())]
    }

    /// Who holds back pods of this one's workload: of its owner, or of the Deployment behind that.
    fn holder(&self, pod: &PodView) -> Holder {
        let namespace = &pod.meta().key.namespace;
        let Some(owner) = &pod.meta().controller else { return Holder::Nobody };
        let Some(kind) = target_kind(&owner.kind) else { return Holder::Nobody };
        let key = |name: &Arc<str>| ObjectKey { namespace: Arc::clone(namespace), name: Arc::clone(name) };
        let owner = key(&owner.name);
        let is_held = self.gates.holds(kind, &owner)
            || match kind {
                TargetKind::ReplicaSet => {
                    let Some(set) = self.gates.replica_sets().get(&owner) else { return Holder::Unseen };
                    set.meta().controller.as_ref().is_some_and(|deployment| {
                        target_kind(&deployment.kind) == Some(TargetKind::Deployment)
                            && self.gates.holds(TargetKind::Deployment, &key(&deployment.name))
                    })
                }
                TargetKind::Deployment | TargetKind::StatefulSet | TargetKind::DaemonSet => false,
            };
        if is_held { Holder::Ours } else { Holder::Nobody }
    }
}

/// Almost all pods end here.
fn look_at<G: Gates>(pod: &PodView, queue: &WorkQueue<ObjectKey>) {
    if G::forgotten(G::signals(pod), || false).is_some() {
        queue.add(pod.meta().key.clone(), Priority::Normal, Urgency::Routine);
    }
}

/// The plan for one pod.
fn plan(names: &Names, signals: &Signals, forgotten: &Forgotten, now: Timestamp) -> Plan {
    let mut plan = Plan::idle(Outcome::Converged);
    let Forgotten { pod, lever, is_owner_unseen } = forgotten;
    if !pod.is_live() {
        return plan;
    }
    if let Some(lever) = lever {
        let meta = pod.meta();
        let mut action = names.turn_on(*lever, &meta.uid, signals, now);
        if let Action::Patch { patch: Patch::Strategic(fields), .. } = &mut action {
            // It is turned as nobody has it: if that is no longer so, it is to be looked at again.
            fields.resource_version = Some(meta.resource_version);
        }
        let key = meta.key.clone();
        let write = Write { resource: Resource::POD, key, class: WriteClass::Protective, action };
        plan.stages = vec![vec![write.into()]];
        plan.outcome = Outcome::Progressing;
    } else if *is_owner_unseen {
        plan.wake = Some(after(now, OWNER_PAUSE));
        plan.outcome = Outcome::Waiting;
    }
    plan
}

impl<G: Gates> Reconciler for GateKeeper<G> {
    const NAME: &'static str = G::NAME;
    const RIGHTS: Rights = G::RIGHTS;
    type Observed = Forgotten;

    fn observe(&self, key: &ObjectKey, _: Option<&Failing>, _: Timestamp) -> Option<Forgotten> {
        let pod = self.gates.pods().get(key)?;
        let mut holder = Holder::Nobody;
        let lever = G::forgotten(G::signals(&pod), || {
            holder = self.holder(&pod);
            holder != Holder::Nobody
        });
        Some(Forgotten { pod, lever, is_owner_unseen: holder == Holder::Unseen })
    }

    fn plan(&self, observed: &Forgotten, now: Timestamp) -> Plan {
        plan(&G::NAMES, G::signals(&observed.pod), observed, now)
    }

    fn tell(&self, key: &ObjectKey, failing: &Failing, _: Timestamp) -> Option<Telling> {
        let pod = self.gates.pods().get(key)?;
        let event = failing.note(Resource::POD, key.clone(), pod.meta().uid.clone())?;
        // A pod's status has no place for it.
        Some(Telling { event, status: None })
    }

    fn settle(&self, _: &ObjectKey, _: &[WriteResult], _: Timestamp) -> Settled {
        Settled::Default
    }
}
