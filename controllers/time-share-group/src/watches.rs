//! What this controller watches, and which keys a change wakes.
//!
//! | kind | projection | index | wakes |
//! |---|---|---|---|
//! | TimeShareGroup | [`GroupView`] | [`GROUPS_BY_TARGET`] | itself; others, when it comes or goes or its members change |
//! | ReferenceGrant | of plumbing | - | groups of other namespaces with a member in its own |
//! | Pod | [`PodView`] | `PODS_BY_OWNER`, `PODS_BY_NODE` | the groups of its workload; those that may wait for room on its node, when it leaves some; itself, for gate and label |
//! | Deployment, StatefulSet | [views](springtide_plumbing::workloads::kinds) | - | the groups of it |
//! | ReplicaSet | [`ReplicaSetView`] | `REPLICA_SETS_BY_OWNER` | the groups of it, or of its Deployment |
//! | Service, EndpointSlice, ResourceQuota | of plumbing, [`resource_quota`](crate::projections::resource_quota) | - | groups that are not settled and have a member in the namespace |
//! | Node | [`NodeView`] | - | groups with pods on it, when its room changes |
//! | HorizontalPodAutoscaler | [`HorizontalPodAutoscalerView`] | [`AUTOSCALERS_BY_SCALED`] | the groups of its target, when it says something else |
//! | VerticalPodAutoscaler, if there is such a kind | [`VerticalPodAutoscalerView`] | `AUTOSCALERS_BY_TARGET` | the same |
//! | HTTPRoute, if there is such a kind | [`HttpRouteView`] | - | groups with a member whose traffic is by it |
//! | PodMetrics, if there is such a kind | of plumbing | - | not watched: [`usage`](crate::usage) asks for it |
//!
//! Indexes of kinds that other controllers read too are those of [`indexes`](springtide_plumbing::workloads::indexes).

#[cfg(test)]
pub(crate) mod rig;
mod stores;

use crate::projections::group::GroupView;
use crate::projections::horizontal_pod_autoscaler::HorizontalPodAutoscalerView;
use crate::projections::http_route::HttpRouteView;
use crate::{TimeShareGroupReconciler, lock};
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_crds::time_share_group::TrafficMode;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::{OwnerRef, Projection};
use springtide_plumbing::queue::{Priority, Urgency, WorkQueue};
use springtide_plumbing::store::{Change, Index, IndexKey};
use springtide_plumbing::workloads::indexes::workload_key;
use springtide_plumbing::workloads::kinds::{ReplicaSetView, target_kind};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::collections::BTreeSet;
use std::sync::Arc;

pub use stores::Stores;

/// Groups by the workloads of their members: see [`workload_key`].
pub const GROUPS_BY_TARGET: Index<GroupView> = Index::many("target", targets);
/// HorizontalPodAutoscalers by the workload that they scale: see [`workload_key`].
pub const AUTOSCALERS_BY_SCALED: Index<HorizontalPodAutoscalerView> = Index::new("target", |autoscaler| {
    let (kind, name) = autoscaler.target.as_ref()?;
    Some(workload_key(*kind, &autoscaler.meta().key.namespace, name))
});

fn targets(group: &GroupView) -> Vec<IndexKey> {
    let members = group.spec.members.iter().map(|member| {
        let workload = group.target_key(member);
        workload_key(member.target_ref.kind.into(), &workload.namespace, &workload.name)
    });
    members.collect()
}

impl TimeShareGroupReconciler {
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
        on!(stores.deployments, this, change => {
            this.workload_changed(TargetKind::Deployment, &change.object().meta().key, priority(change));
        });
        on!(stores.stateful_sets, this, change => {
            this.workload_changed(TargetKind::StatefulSet, &change.object().meta().key, priority(change));
        });
        on!(stores.services, this, change => this.wake_unsettled(&change.object().meta().key, priority(change)));
        on!(stores.slices, this, change => this.wake_unsettled(&change.object().meta().key, priority(change)));
        on!(stores.quotas, this, change => this.wake_unsettled(&change.object().meta().key, priority(change)));
        if let Some(nodes) = &stores.nodes {
            on!(nodes, this, change => this.node_changed(change));
        }
        on!(stores.horizontal, this, change => this.horizontal_changed(change));
        on!(stores.vertical, this, change => this.vertical_changed(change));
        on!(stores.routes, this, change => this.route_changed(change));
        on!(stores.grants, this, change => this.grant_changed(&change.object().meta().key, priority(change)));
        on!(stores.groups, this, change => this.group_changed(change));
    }

    fn group_changed(&self, change: &Change<GroupView>) {
        let group = change.object();
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
        self.wake(group.meta().key.clone(), priority, urgency);
        // Who has just come or gone, or names other workloads, may let another one have what it names itself, and leave it
        // room below the maxima.
        let is_news = match change {
            Change::Apply { initial: true, .. } => false,
            Change::Apply { old: Some(old), new, .. } => {
                old.meta().uid != new.meta().uid || targets(old) != targets(new)
            }
            Change::Apply { old: None, .. } | Change::Delete { .. } => true,
        };
        if is_news {
            self.wake_where(Priority::Low, |other| other.meta().key != group.meta().key);
        }
        if urgency == Urgency::BreaksBackoff {
            self.usage_asked.notify_one();
        }
    }

    fn pod_changed(&self, change: &Change<PodView>) {
        let pod = change.object();
        if let Some(owner) = &pod.meta().controller {
            self.wake_owner(&pod.meta().key.namespace, owner, priority(change));
        }
        if let Some(node) = leaves_room(change) {
            let is_there =
                |key: &ObjectKey| lock(&self.nodes).get(key).is_some_and(|nodes| nodes.contains(node));
            self.wake_where(priority(change), |group| !group.is_settled() && is_there(&group.meta().key));
        }
    }

    fn replica_set_changed(&self, change: &Change<ReplicaSetView>) {
        let meta = change.object().meta();
        match &meta.controller {
            Some(owner) => self.wake_owner(&meta.key.namespace, owner, priority(change)),
            None => self.workload_changed(TargetKind::ReplicaSet, &meta.key, priority(change)),
        }
    }

    /// Wakes the groups of a workload that owns something, or of the Deployment behind a ReplicaSet.
    fn wake_owner(&self, namespace: &Arc<str>, owner: &OwnerRef, priority: Priority) {
        let Some(kind) = target_kind(&owner.kind) else { return };
        let key = ObjectKey { namespace: Arc::clone(namespace), name: Arc::clone(&owner.name) };
        self.workload_changed(kind, &key, priority);
        if kind == TargetKind::ReplicaSet
            && let Some(set) = self.stores.replica_sets.get(&key)
            && let Some(deployment) = &set.meta().controller
        {
            let key = ObjectKey { namespace: Arc::clone(namespace), name: Arc::clone(&deployment.name) };
            self.workload_changed(TargetKind::Deployment, &key, priority);
        }
    }

    fn workload_changed(&self, kind: TargetKind, key: &ObjectKey, priority: Priority) {
        for group in self.stores.groups_of(kind, key) {
            self.wake(group.meta().key.clone(), priority, Urgency::Routine);
        }
    }

    fn horizontal_changed(&self, change: &Change<HorizontalPodAutoscalerView>) {
        if let Some((before, now)) = news(change, |old, new| old.says_the_same(new)) {
            let targets = [before, now].into_iter().flatten().filter_map(|one| one.target.as_ref());
            self.targets_changed(targets, change);
        }
    }

    fn vertical_changed(&self, change: &Change<VerticalPodAutoscalerView>) {
        if let Some((before, now)) = news(change, |old, new| old.says_the_same(new)) {
            let targets = [before, now].into_iter().flatten().filter_map(|one| one.target.as_ref());
            self.targets_changed(targets, change);
        }
    }

    /// One that has another target lets the workload go that it had.
    fn targets_changed<'a, P: Projection>(
        &self,
        targets: impl Iterator<Item = &'a (TargetKind, Arc<str>)>,
        change: &Change<P>,
    ) {
        for (kind, name) in targets.collect::<BTreeSet<_>>() {
            let namespace = Arc::clone(&change.object().meta().key.namespace);
            self.workload_changed(*kind, &ObjectKey { namespace, name: Arc::clone(name) }, priority(change));
        }
    }

    fn route_changed(&self, change: &Change<HttpRouteView>) {
        let route = &change.object().meta().key;
        if matches!(change, Change::Apply { old: Some(old), new, .. } if old.backends == new.backends) {
            return;
        }
        self.wake_where(priority(change), |group| {
            group.spec.members.iter().any(|member| {
                let is_named =
                    member.traffic.http_route.as_ref().is_some_and(|named| *named.name == *route.name);
                let is_by_route = match member.traffic.mode {
                    TrafficMode::HttpRoute => true,
                    TrafficMode::None | TrafficMode::ServiceLabel | TrafficMode::ReadinessGate => false,
                };
                is_by_route && is_named && group.target_key(member).namespace == route.namespace
            })
        });
    }

    /// Grants let groups of other namespaces in.
    fn grant_changed(&self, grant: &ObjectKey, priority: Priority) {
        self.wake_where(priority, |group| {
            group.meta().key.namespace != grant.namespace && has_member_in(group, &grant.namespace)
        });
    }

    fn node_changed(&self, change: &Change<NodeView>) {
        let has_news = match change {
            Change::Apply { initial: true, .. } => false,
            Change::Apply { old: Some(old), new, .. } => old.allocatable != new.allocatable,
            Change::Apply { old: None, .. } | Change::Delete { .. } => true,
        };
        if has_news {
            let node = &change.object().meta().key.name;
            self.wake_where(Priority::Low, |group| {
                lock(&self.nodes).get(&group.meta().key).is_some_and(|nodes| nodes.contains(node))
            });
        }
    }

    /// Wakes the groups that are not settled and have a member in the namespace of something that only these look at.
    fn wake_unsettled(&self, of: &ObjectKey, priority: Priority) {
        self.wake_where(priority, |group| !group.is_settled() && has_member_in(group, &of.namespace));
    }

    /// Wakes the groups of which something is so; there are a few hundred at most.
    pub(crate) fn wake_where(&self, priority: Priority, is_concerned: impl Fn(&GroupView) -> bool) {
        for group in self.stores.groups.list(None) {
            if is_concerned(&group) {
                self.wake(group.meta().key.clone(), priority, Urgency::Routine);
            }
        }
    }

    pub(crate) fn wake(&self, key: ObjectKey, priority: Priority, urgency: Urgency) {
        if let Some(queue) = self.queue.get() {
            queue.add(key, priority, urgency);
        }
    }
}

fn has_member_in(group: &GroupView, namespace: &str) -> bool {
    group.spec.members.iter().any(|member| *group.target_key(member).namespace == *namespace)
}

/// The node on which a pod takes less room than before.
fn leaves_room(change: &Change<PodView>) -> Option<&Arc<str>> {
    match change {
        Change::Apply { old: Some(old), new, .. } => {
            let takes_less = !new.takes_room()
                || new.requests.cpu < old.requests.cpu
                || new.requests.memory < old.requests.memory;
            old.node.as_ref().filter(|_| old.takes_room() && takes_less)
        }
        Change::Apply { old: None, .. } => None,
        Change::Delete { last } => last.node.as_ref(),
    }
}

/// An object as it was and as it is, if it says something else now.
type News<'a, P> = (Option<&'a Arc<P>>, Option<&'a Arc<P>>);

fn news<P>(change: &Change<P>, is_same: impl Fn(&P, &P) -> bool) -> Option<News<'_, P>> {
    match change {
        Change::Apply { old: Some(old), new, .. } if is_same(old, new) => None,
        Change::Apply { old, new, .. } => Some((old.as_ref(), Some(new))),
        Change::Delete { last } => Some((Some(last), None)),
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
