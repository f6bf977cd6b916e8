//! The stores behind the plans of this controller.

use super::{AUTOSCALERS_BY_SCALED, GROUPS_BY_TARGET};
use crate::observed::Workload;
use crate::projections::group::GroupView;
use crate::projections::horizontal_pod_autoscaler::HorizontalPodAutoscalerView;
use crate::projections::http_route::HttpRouteView;
use crate::projections::resource_quota::ResourceQuotaView;
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_crds::reference_grant::{FromKind, ToKind};
use springtide_crds::time_share_group::MemberKind;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::{IndexKey, Store, StoreView};
use springtide_plumbing::time_share::{ReferenceGrantView, is_granted};
use springtide_plumbing::traffic::{EndpointSliceView, ServiceView};
use springtide_plumbing::watch::{RegistrationError, Scope, Selector, WatchSet};
use springtide_plumbing::workloads::indexes::{
    AUTOSCALERS_BY_TARGET, PODS_BY_NODE, PODS_BY_OWNER, REPLICA_SETS_BY_OWNER, workload_key,
};
use springtide_plumbing::workloads::kinds::{DeploymentView, ReplicaSetView, StatefulSetView};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::sync::Arc;

/// The stores this controller reads.
#[derive(Clone, Debug)]
pub struct Stores {
    /// All TimeShareGroups of the scope; empty where the server has no such kind.
    pub groups: Store<GroupView>,
    /// All ReferenceGrants of the scope; empty where the server has no such kind.
    pub grants: Store<ReferenceGrantView>,
    /// All pods of the scope: any may have our gate or label, and takes room on its node.
    pub pods: Store<PodView>,
    /// All Deployments of the scope.
    pub deployments: Store<DeploymentView>,
    /// All ReplicaSets of the scope.
    pub replica_sets: Store<ReplicaSetView>,
    /// All StatefulSets of the scope.
    pub stateful_sets: Store<StatefulSetView>,
    /// All Services of the scope.
    pub services: Store<ServiceView>,
    /// All EndpointSlices of the scope.
    pub slices: Store<EndpointSliceView>,
    /// All ResourceQuotas of the scope.
    pub quotas: Store<ResourceQuotaView>,
    /// All HorizontalPodAutoscalers of the scope.
    pub horizontal: Store<HorizontalPodAutoscalerView>,
    /// All VerticalPodAutoscalers of the scope; empty where the server has no such kind.
    pub vertical: Store<VerticalPodAutoscalerView>,
    /// All HTTPRoutes of the scope; empty where the server has no such kind.
    pub routes: Store<HttpRouteView>,
    /// All nodes; absent where only some namespaces are watched, as a node belongs to none. Then nobody knows what room
    /// there is.
    pub nodes: Option<Store<NodeView>>,
}

impl Stores {
    /// Registers the watches of the [table](crate::watches); what other controllers read too it shares with them.
    ///
    /// # Errors
    /// When one of them overlaps another watch of its kind, or may not be.
    pub fn register(watches: &mut WatchSet, scope: &Scope) -> Result<Self, RegistrationError> {
        let all = Selector::default;
        Ok(Self {
            groups: watches.add_optional(scope.clone(), all(), &[GROUPS_BY_TARGET])?,
            grants: watches.share_optional(scope.clone(), all(), &[])?,
            pods: watches.share(scope.clone(), all(), &[PODS_BY_OWNER, PODS_BY_NODE])?,
            deployments: watches.share(scope.clone(), all(), &[])?,
            replica_sets: watches.share(scope.clone(), all(), &[REPLICA_SETS_BY_OWNER])?,
            stateful_sets: watches.share(scope.clone(), all(), &[])?,
            services: watches.share(scope.clone(), all(), &[])?,
            slices: watches.share(scope.clone(), all(), &[])?,
            quotas: watches.add(scope.clone(), all(), &[])?,
            horizontal: watches.add(scope.clone(), all(), &[AUTOSCALERS_BY_SCALED])?,
            vertical: watches.share_optional(scope.clone(), all(), &[AUTOSCALERS_BY_TARGET])?,
            routes: watches.add_optional(scope.clone(), all(), &[])?,
            nodes: match scope {
                Scope::All => Some(watches.share(Scope::All, all(), &[])?),
                Scope::Namespaces(_) => None,
            },
        })
    }

    /// All of them, for the gate: these and no others are behind a plan of this controller.
    pub fn views(&self) -> Vec<Arc<dyn StoreView>> {
        let mut views: Vec<Arc<dyn StoreView>> = vec![
            Arc::new(self.groups.clone()),
            Arc::new(self.grants.clone()),
            Arc::new(self.pods.clone()),
            Arc::new(self.deployments.clone()),
            Arc::new(self.replica_sets.clone()),
            Arc::new(self.stateful_sets.clone()),
            Arc::new(self.services.clone()),
            Arc::new(self.slices.clone()),
            Arc::new(self.quotas.clone()),
            Arc::new(self.horizontal.clone()),
            Arc::new(self.vertical.clone()),
            Arc::new(self.routes.clone()),
        ];
        views.extend(self.nodes.clone().map(|nodes| Arc::new(nodes) as Arc<dyn StoreView>));
        views
    }

    /// The groups that name a workload as a member's, whether or not they are let.
    pub fn groups_of(&self, kind: impl Into<TargetKind>, workload: &ObjectKey) -> Vec<Arc<GroupView>> {
        let key = workload_key(kind.into(), &workload.namespace, &workload.name);
        self.groups.by_index(&GROUPS_BY_TARGET, &key)
    }

    /// The group whose member a workload is: of those that are let name it, the oldest.
    pub fn group_of(&self, kind: impl Into<TargetKind>, workload: &ObjectKey) -> Option<Arc<GroupView>> {
        let kind = kind.into();
        let is_let = |group: &Arc<GroupView>| {
            let mut kinds = group.spec.members.iter().map(|member| member.target_ref.kind);
            let named = kinds.find(|named| TargetKind::from(*named) == kind);
            named.is_some_and(|named| self.is_granted(group, named, workload))
        };
        let groups = self.groups_of(kind, workload).into_iter().filter(is_let);
        groups.min_by_key(|group| (group.meta().creation_time, group.meta().uid.clone()))
    }

    /// Whether a group may name a workload: it is in its own namespace, or a ReferenceGrant of that of the workload lets it.
    pub fn is_granted(&self, group: &GroupView, kind: MemberKind, workload: &ObjectKey) -> bool {
        let namespace = &group.meta().key.namespace;
        let is_own = workload.namespace == *namespace;
        let grants = if is_own { Vec::new() } else { self.grants.list(Some(&workload.namespace)) };
        let from = (FromKind::TimeShareGroup, &**namespace);
        is_granted(grants.iter().map(AsRef::as_ref), from, (ToKind::from(kind), workload))
    }

    /// A workload; `None` where there is none, and for a ReplicaSet that somebody owns: it is its owner that has the pods.
    pub fn workload(&self, kind: MemberKind, key: &ObjectKey) -> Option<Workload> {
        match kind {
            MemberKind::Deployment => self.deployments.get(key).map(|found| of_deployment(&found)),
            MemberKind::StatefulSet => self.stateful_sets.get(key).map(|found| of_stateful_set(&found)),
            MemberKind::ReplicaSet => self.replica_sets.get(key).and_then(|found| of_replica_set(&found)),
        }
    }

    /// The workload of a UID. It looks through all that there are.
    pub fn workload_of(&self, uid: &Uid) -> Option<Workload> {
        let deployment = || {
            let all = self.deployments.list(None);
            all.iter().find(|found| found.meta().uid == *uid).map(|found| of_deployment(found))
        };
        let stateful_set = || {
            let all = self.stateful_sets.list(None);
            all.iter().find(|found| found.meta().uid == *uid).map(|found| of_stateful_set(found))
        };
        let replica_set = || {
            let all = self.replica_sets.list(None);
            all.iter().find(|found| found.meta().uid == *uid).and_then(|found| of_replica_set(found))
        };
        deployment().or_else(stateful_set).or_else(replica_set)
    }

    /// Live pods of a workload, the oldest first and then by name.
    pub fn pods_of(&self, workload: &Workload) -> Vec<Arc<PodView>> {
        let owner = IndexKey::from(&workload.uid);
        let owners = match workload.kind {
            MemberKind::Deployment => {
                let sets = self.replica_sets.by_index(&REPLICA_SETS_BY_OWNER, &owner);
                sets.iter().map(|set| IndexKey::from(&set.meta().uid)).collect()
            }
            MemberKind::StatefulSet | MemberKind::ReplicaSet => vec![owner],
        };
        let pods = owners.iter().flat_map(|owner| self.pods.by_index(&PODS_BY_OWNER, owner));
        let mut pods: Vec<_> = pods.filter(|pod| pod.is_live()).collect();
        pods.sort_by(|a, b| {
            let age = |pod: &Arc<PodView>| pod.meta().creation_time;
            age(a).cmp(&age(b)).then_with(|| a.meta().key.name.cmp(&b.meta().key.name))
        });
        pods
    }
}

fn of_deployment(found: &DeploymentView) -> Workload {
    Workload {
        kind: MemberKind::Deployment,
        key: found.meta().key.clone(),
        uid: found.meta().uid.clone(),
        replicas: found.replicas,
        selector: found.selector.clone(),
        template: Arc::clone(&found.template),
    }
}

fn of_stateful_set(found: &StatefulSetView) -> Workload {
    Workload {
        kind: MemberKind::StatefulSet,
        key: found.meta().key.clone(),
        uid: found.meta().uid.clone(),
        replicas: found.replicas,
        selector: found.selector.clone(),
        template: Arc::clone(&found.template),
    }
}

fn of_replica_set(found: &ReplicaSetView) -> Option<Workload> {
    found.meta().controller.is_none().then(|| Workload {
        kind: MemberKind::ReplicaSet,
        key: found.meta().key.clone(),
        uid: found.meta().uid.clone(),
        replicas: found.replicas,
        selector: found.selector.clone(),
        template: Arc::clone(&found.template),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RIGHTS;
    use crate::fixtures::{group, overlay, pod};
    use crate::watches::rig::{Rig, bare, deployment, owned_by, put, replica_set};
    use serde_json::{Value, json};

    #[test]
    fn a_plan_rests_on_every_store_of_this_controller_and_on_no_other() {
        for (scope, kinds) in [(Scope::All, 13), (Scope::of(["a", "b"]), 12)] {
            let mut watches = WatchSet::new(1).within([RIGHTS]);
            let stores = Stores::register(&mut watches, &scope).expect("one watch each");
            assert_eq!(stores.views().len(), kinds);
            assert_eq!(format!("{watches:?}").matches(" in ").count(), kinds, "{watches:?}");
        }
    }

    fn named(pods: &[Arc<PodView>]) -> Vec<&str> {
        pods.iter().map(|pod| &*pod.meta().key.name).collect()
    }

    #[test]
    fn the_pods_of_a_deployment_are_those_of_all_its_replica_sets_the_oldest_first() {
        let mut rig = Rig::new();
        put(&mut rig.deployments, &deployment("pay", json!({})));
        put(&mut rig.replica_sets, &replica_set("pay-1", Some("pay")));
        put(&mut rig.replica_sets, &replica_set("pay-2", Some("pay")));
        let of_set = |name: &str, set: &str, created: &str, over: Value| {
            let mut whole = json!({"metadata": {"creationTimestamp": created}});
            if set != "pay-1" {
                overlay(&mut whole, owned_by(name, "ReplicaSet", set));
            }
            overlay(&mut whole, over);
            pod(name, "n1", whole)
        };
        put(&mut rig.pods, &of_set("pay-b", "pay-1", "2026-11-23T10:00:00Z", json!({})));
        put(&mut rig.pods, &of_set("pay-a", "pay-1", "2026-11-23T10:00:00Z", json!({})));
        put(&mut rig.pods, &of_set("pay-c", "pay-2", "2026-11-23T09:00:00Z", json!({})));
        let ended = json!({"status": {"phase": "Failed"}});
        put(&mut rig.pods, &of_set("pay-d", "pay-2", "2026-11-23T08:00:00Z", ended));
        put(&mut rig.pods, &of_set("other-1", "other", "2026-11-23T08:00:00Z", json!({})));
        let workload = rig.stores.workload(MemberKind::Deployment, &ObjectKey::new("shop", "pay")).unwrap();
        assert_eq!(named(&rig.stores.pods_of(&workload)), ["pay-c", "pay-a", "pay-b"]);
        assert_eq!(rig.stores.workload_of(&workload.uid).unwrap().key, workload.key);
        assert!(rig.stores.workload_of(&Uid("gone".into())).is_none());
    }

    #[test]
    fn a_replica_set_that_somebody_owns_is_no_workload() {
        let mut rig = Rig::new();
        put(&mut rig.replica_sets, &replica_set("pay-1", Some("pay")));
        put(&mut rig.replica_sets, &replica_set("bare", None));
        let found =
            |name: &str| rig.stores.workload(MemberKind::ReplicaSet, &ObjectKey::new("shop", name)).is_some();
        assert!(!found("pay-1") && found("bare"));
        assert!(rig.stores.workload_of(&Uid("pay-1".into())).is_none());
    }

    #[test]
    fn a_workload_is_of_the_oldest_group_that_is_let_name_it() {
        let mut rig = Rig::new();
        let named = |name: &str, created: &str, namespace: &str| {
            let over = json!({
                "metadata": {"name": name, "uid": name, "namespace": namespace, "creationTimestamp": created},
                "spec": {"members": [{"name": "pay", "targetRef": {"namespace": "shop"}}]},
            });
            group(over)
        };
        put(&mut rig.groups, &named("young", "2026-11-23T10:00:00Z", "shop"));
        put(&mut rig.groups, &named("foreign", "2026-11-23T08:00:00Z", "events"));
        let pay = ObjectKey::new("shop", "pay");
        let of_pay = |rig: &Rig| {
            rig.stores.group_of(TargetKind::Deployment, &pay).map(|group| group.meta().key.to_string())
        };
        assert_eq!(rig.stores.groups_of(MemberKind::Deployment, &pay).len(), 2);
        assert_eq!(of_pay(&rig).as_deref(), Some("shop/young"));
        let grant = json!({
            "spec": {"from": [{"kind": "TimeShareGroup", "namespace": "events"}], "to": [{"kind": "Deployment"}]},
        });
        put(&mut rig.grants, &bare("shop", "grant", grant));
        assert_eq!(of_pay(&rig).as_deref(), Some("events/foreign"));
        assert!(rig.stores.group_of(TargetKind::StatefulSet, &pay).is_none());
        assert!(rig.stores.group_of(TargetKind::Deployment, &ObjectKey::new("shop", "gone")).is_none());
    }
}
