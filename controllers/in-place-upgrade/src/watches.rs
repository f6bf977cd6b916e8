//! What this controller watches, and which keys a change wakes.
//!
//! | kind | projection | index | wakes |
//! |---|---|---|---|
//! | InPlaceUpgrade | [`UpgradeView`] | [`UPGRADES_BY_TARGET`] | itself; others of its target |
//! | Pod | [`PodView`] | `PODS_BY_OWNER` | the object of its workload, or whose puller it is; itself, for its gate |
//! | Deployment, StatefulSet, DaemonSet | [views](springtide_plumbing::workloads::kinds) | - | the object of it |
//! | ReplicaSet | [`ReplicaSetView`] | `REPLICA_SETS_BY_OWNER` | the object of it, or of its Deployment |
//! | ControllerRevision | [`ControllerRevisionView`](kinds::ControllerRevisionView) | `REVISIONS_BY_OWNER` | the object of its owner |
//! | PodDisruptionBudget, Service, EndpointSlice | of plumbing | - | objects of the namespace with an open run |
//! | Node | [`NodeView`] | - | objects with an open run, when its images change |
//! | VerticalPodAutoscaler, if there is such a kind | [`VerticalPodAutoscalerView`] | `AUTOSCALERS_BY_TARGET` | the object of its target, when it says something else |
//! | TimeShareGroup, if there is such a kind | [`TimeShareGroupView`] | `GROUPS_BY_WORKLOAD` | the objects of its members' workloads, when it says something else |
//! | ReferenceGrant, if there is such a kind | [`ReferenceGrantView`] | - | the objects of workloads of its namespace that groups of others have as members |
//!
//! Indexes of kinds that other controllers read too are those of [`indexes`](springtide_plumbing::workloads::indexes).

#[cfg(test)]
pub(crate) mod rig;
mod stores;

use crate::InPlaceUpgradeReconciler;
use crate::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::{OwnerRef, Projection};
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::store::{Change, Index};
use springtide_plumbing::time_share::{MemberView, ReferenceGrantView, TimeShareGroupView};
use springtide_plumbing::workloads::indexes::workload_key;
use springtide_plumbing::workloads::kinds::{self, ReplicaSetView};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::collections::BTreeSet;
use std::sync::Arc;

pub use stores::Stores;

/// Objects by their target: see [`workload_key`].
pub const UPGRADES_BY_TARGET: Index<UpgradeView> = Index::new("target", |upgrade| {
    let target = &upgrade.spec.target_ref;
    Some(workload_key(target.kind, &upgrade.meta().key.namespace, &target.name))
});

/// The kind of an owner that may be a target.
pub(crate) fn target_kind(owner: &OwnerRef) -> Option<TargetKind> {
    kinds::target_kind(&owner.kind)
}

impl InPlaceUpgradeReconciler {
    /// Lets the stores fill the queue, from the moment all of them are listed: before, a workload would look as if it
    /// had no pods. Nothing happens but by the future, which is done when that is so.
    pub fn wire(self: &Arc<Self>, queue: &WorkQueue<ObjectKey>) -> impl Future<Output = ()> + Send + use<> {
        // Only the first queue is taken; a reconciler has one.
        let _ = self.queue.set(queue.clone());
        let this = Arc::clone(self);
        async move {
            for view in this.stores.views() {
                view.wait_synced().await;
            }
            this.listen();
        }
    }

    /// Registers the listeners; each is told first of what its store holds.
    fn listen(self: &Arc<Self>) {
        macro_rules! on {
            ($store:expr, $this:ident, $change:ident => $act:expr) => {{
                let $this = Arc::clone(self);
                $store.on_change(Arc::new(move |$change| $act));
            }};
        }
        let stores = self.stores.clone();
        on!(stores.pods, this, change => this.pod_changed(change));
        on!(stores.replica_sets, this, change => this.replica_set_changed(change));
        on!(stores.revisions, this, change => {
            let meta = change.object().meta();
            if let Some(owner) = &meta.controller {
                this.wake_owner(&meta.key.namespace, owner, priority(change));
            }
        });
        on!(stores.deployments, this, change => {
            this.workload_changed(TargetKind::Deployment, &change.object().meta().key, priority(change));
        });
        on!(stores.stateful_sets, this, change => {
            this.workload_changed(TargetKind::StatefulSet, &change.object().meta().key, priority(change));
        });
        on!(stores.daemon_sets, this, change => {
            this.workload_changed(TargetKind::DaemonSet, &change.object().meta().key, priority(change));
        });
        on!(stores.budgets, this, change => {
            this.wake_runs(Some(&change.object().meta().key.namespace), priority(change));
        });
        on!(stores.services, this, change => {
            this.wake_runs(Some(&change.object().meta().key.namespace), priority(change));
        });
        on!(stores.slices, this, change => {
            this.wake_runs(Some(&change.object().meta().key.namespace), priority(change));
        });
        if let Some(nodes) = &stores.nodes {
            on!(nodes, this, change => this.node_changed(change));
        }
        on!(stores.autoscalers, this, change => this.autoscaler_changed(change));
        on!(stores.time_shares.groups, this, change => this.time_share_group_changed(change));
        on!(stores.time_shares.grants, this, change => this.grant_changed(change));
        on!(stores.upgrades, this, change => this.upgrade_changed(change));
    }

    fn upgrade_changed(&self, change: &Change<UpgradeView>) {
        let upgrade = change.object();
        let (priority, urgency) = match change {
            Change::Apply { initial: true, .. } => (Priority::Low, Urgency::Routine),
            Change::Apply { old: Some(old), new, .. }
                if old.meta().generation == new.meta().generation
                    && old.meta().is_deleting() == new.meta().is_deleting() =>
            {
                (Priority::Normal, Urgency::Routine)
            }
            Change::Apply { .. } | Change::Delete { .. } => (Priority::High, Urgency::BreaksBackoff),
        };
        self.wake(upgrade.meta().key.clone(), priority, urgency);
        // One that comes or goes may make another one the older of its target.
        let is_other = match change {
            Change::Apply { old: Some(old), new, .. } => old.meta().uid != new.meta().uid,
            Change::Apply { old: None, .. } | Change::Delete { .. } => true,
        };
        if is_other {
            let target = &upgrade.spec.target_ref;
            let key = ObjectKey::new(upgrade.meta().key.namespace.clone(), target.name.as_str());
            self.workload_changed(target.kind, &key, Priority::Low);
        }
    }

    fn pod_changed(&self, change: &Change<PodView>) {
        let pod = change.object();
        let Some(owner) = &pod.meta().controller else { return };
        let namespace = &pod.meta().key.namespace;
        if &*owner.kind == IN_PLACE_UPGRADE.kind {
            let key = ObjectKey { namespace: namespace.clone(), name: owner.name.clone() };
            self.wake(key, priority(change), Urgency::Routine);
            return;
        }
        self.wake_owner(namespace, owner, priority(change));
    }

    fn replica_set_changed(&self, change: &Change<ReplicaSetView>) {
        let meta = change.object().meta();
        match &meta.controller {
            Some(owner) => self.wake_owner(&meta.key.namespace, owner, priority(change)),
            None => self.workload_changed(TargetKind::ReplicaSet, &meta.key, priority(change)),
        }
    }

    /// Wakes the object of a workload that owns something, or of the Deployment behind a ReplicaSet.
    fn wake_owner(&self, namespace: &Arc<str>, owner: &OwnerRef, priority: Priority) {
        let Some(kind) = target_kind(owner) else { return };
        let key = ObjectKey { namespace: namespace.clone(), name: owner.name.clone() };
        self.workload_changed(kind, &key, priority);
        if kind == TargetKind::ReplicaSet
            && let Some(set) = self.stores.replica_sets.get(&key)
            && let Some(deployment) = &set.meta().controller
        {
            let key = ObjectKey { namespace: namespace.clone(), name: deployment.name.clone() };
            self.workload_changed(TargetKind::Deployment, &key, priority);
        }
    }

    fn workload_changed(&self, kind: TargetKind, key: &ObjectKey, priority: Priority) {
        let index = workload_key(kind, &key.namespace, &key.name);
        for upgrade in self.stores.upgrades.by_index(&UPGRADES_BY_TARGET, &index) {
            self.wake(upgrade.meta().key.clone(), priority, Urgency::Routine);
        }
    }

    fn autoscaler_changed(&self, change: &Change<VerticalPodAutoscalerView>) {
        let (before, now) = match change {
            Change::Apply { old: Some(old), new, .. } if old.says_the_same(new) => return,
            Change::Apply { old, new, .. } => (old.as_ref(), Some(new)),
            Change::Delete { last } => (Some(last), None),
        };
        // One that has another target lets the workload go that it had.
        let targets: BTreeSet<_> =
            [before, now].into_iter().flatten().filter_map(|one| one.target.as_ref()).collect();
        for (kind, name) in targets {
            let namespace = change.object().meta().key.namespace.clone();
            self.workload_changed(*kind, &ObjectKey { namespace, name: name.clone() }, priority(change));
        }
    }

    fn time_share_group_changed(&self, change: &Change<TimeShareGroupView>) {
        let (before, now) = match change {
            Change::Apply { old: Some(old), new, .. } if old.says_the_same(new) => return,
            Change::Apply { old, new, .. } => (old.as_ref(), Some(new)),
            Change::Delete { last } => (Some(last), None),
        };
        // One that has other members lets the workloads go that it had.
        let members: BTreeSet<_> = [before, now]
            .into_iter()
            .flatten()
            .flat_map(|group| &group.members)
            .map(|member| (TargetKind::from(member.kind), &member.workload))
            .collect();
        for (kind, workload) in members {
            self.workload_changed(kind, workload, priority(change));
        }
    }

    fn grant_changed(&self, change: &Change<ReferenceGrantView>) {
        let namespace = &change.object().meta().key.namespace;
        for group in self.stores.time_shares.groups.list(None) {
            let is_concerned = |member: &&MemberView| {
                member.workload.namespace == *namespace && group.meta().key.namespace != *namespace
            };
            for member in group.members.iter().filter(is_concerned) {
                self.workload_changed(TargetKind::from(member.kind), &member.workload, priority(change));
            }
        }
    }

    fn node_changed(&self, change: &Change<NodeView>) {
        let has_news = match change {
            Change::Apply { initial: true, .. } => false,
            Change::Apply { old: Some(old), new, .. } => old.images != new.images,
            Change::Apply { old: None, .. } | Change::Delete { .. } => true,
        };
        if has_news {
            self.wake_runs(None, Priority::Low);
        }
    }

    /// Wakes the objects with an open run, of one namespace or all: only these look at budgets, slices and nodes.
    fn wake_runs(&self, namespace: Option<&str>, priority: Priority) {
        for upgrade in self.stores.upgrades.list(namespace) {
            if upgrade.is_run_open() {
                self.wake(upgrade.meta().key.clone(), priority, Urgency::Routine);
            }
        }
    }

    pub(crate) fn wake(&self, key: ObjectKey, priority: Priority, urgency: Urgency) {
        if let Some(queue) = self.queue.get() {
            queue.add(key, priority, urgency);
        }
    }
}

/// What a first list tells can wait for what happens now.
fn priority<P>(change: &Change<P>) -> Priority {
    match change {
        Change::Apply { initial: true, .. } => Priority::Low,
        Change::Apply { .. } | Change::Delete { .. } => Priority::Normal,
    }
}

#[cfg(test)]
mod tests;
