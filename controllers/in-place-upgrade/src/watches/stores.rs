//! The stores behind the plans of this controller.

use super::UPGRADES_BY_TARGET;
use crate::projections::upgrade::UpgradeView;
use springtide_plumbing::disruption::DisruptionBudgetView;
use springtide_plumbing::store::{Store, StoreView};
use springtide_plumbing::time_share::TimeShares;
use springtide_plumbing::traffic::{EndpointSliceView, ServiceView};
use springtide_plumbing::watch::{RegistrationError, Scope, Selector, WatchSet};
use springtide_plumbing::workloads::indexes::{
    AUTOSCALERS_BY_TARGET, PODS_BY_OWNER, REPLICA_SETS_BY_OWNER, REVISIONS_BY_OWNER,
};
use springtide_plumbing::workloads::kinds::{
    ControllerRevisionView, DaemonSetView, DeploymentView, ReplicaSetView, StatefulSetView,
};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::sync::Arc;

/// The stores this controller reads.
#[derive(Clone, Debug)]
pub struct Stores {
    /// All InPlaceUpgrades of the scope.
    pub upgrades: Store<UpgradeView>,
    /// All pods of the scope: any may have our gate, and count for a PodDisruptionBudget.
    pub pods: Store<PodView>,
    /// All Deployments of the scope.
    pub deployments: Store<DeploymentView>,
    /// All ReplicaSets of the scope.
    pub replica_sets: Store<ReplicaSetView>,
    /// All StatefulSets of the scope.
    pub stateful_sets: Store<StatefulSetView>,
    /// All DaemonSets of the scope.
    pub daemon_sets: Store<DaemonSetView>,
    /// All ControllerRevisions of the scope.
    pub revisions: Store<ControllerRevisionView>,
    /// All PodDisruptionBudgets of the scope.
    pub budgets: Store<DisruptionBudgetView>,
    /// All Services of the scope.
    pub services: Store<ServiceView>,
    /// All EndpointSlices of the scope.
    pub slices: Store<EndpointSliceView>,
    /// All nodes; absent where only some namespaces are watched, as a node belongs to none. Then nothing is pulled ahead.
    pub nodes: Option<Store<NodeView>>,
    /// All VerticalPodAutoscalers of the scope; empty where the server has no such kind.
    pub autoscalers: Store<VerticalPodAutoscalerView>,
    /// All TimeShareGroups of the scope, and the grants by which they have members elsewhere; empty where the server has no
    /// such kinds.
    pub time_shares: TimeShares,
}

impl Stores {
    /// Registers the watches of the [table](crate::watches); what other controllers of live pods read too it shares with
    /// them.
    ///
    /// # Errors
    /// When one of them overlaps another watch of its kind, or may not be.
    pub fn register(watches: &mut WatchSet, scope: &Scope) -> Result<Self, RegistrationError> {
        let all = Selector::default;
        Ok(Self {
            upgrades: watches.add(scope.clone(), all(), &[UPGRADES_BY_TARGET])?,
            pods: watches.share(scope.clone(), all(), &[PODS_BY_OWNER])?,
            deployments: watches.share(scope.clone(), all(), &[])?,
            replica_sets: watches.share(scope.clone(), all(), &[REPLICA_SETS_BY_OWNER])?,
            stateful_sets: watches.share(scope.clone(), all(), &[])?,
            daemon_sets: watches.add(scope.clone(), all(), &[])?,
            revisions: watches.add(scope.clone(), all(), &[REVISIONS_BY_OWNER])?,
            budgets: watches.add(scope.clone(), all(), &[])?,
            services: watches.share(scope.clone(), all(), &[])?,
            slices: watches.share(scope.clone(), all(), &[])?,
            nodes: match scope {
                Scope::All => Some(watches.share(Scope::All, all(), &[])?),
                Scope::Namespaces(_) => None,
            },
            autoscalers: watches.share_optional(scope.clone(), all(), &[AUTOSCALERS_BY_TARGET])?,
            time_shares: TimeShares::register(watches, scope)?,
        })
    }

    /// All of them, for the gate: these and no others are behind a plan of this controller.
    pub fn views(&self) -> Vec<Arc<dyn StoreView>> {
        let mut views: Vec<Arc<dyn StoreView>> = vec![
            Arc::new(self.upgrades.clone()),
            Arc::new(self.pods.clone()),
            Arc::new(self.deployments.clone()),
            Arc::new(self.replica_sets.clone()),
            Arc::new(self.stateful_sets.clone()),
            Arc::new(self.daemon_sets.clone()),
            Arc::new(self.revisions.clone()),
            Arc::new(self.budgets.clone()),
            Arc::new(self.services.clone()),
            Arc::new(self.slices.clone()),
            Arc::new(self.autoscalers.clone()),
        ];
        views.extend(self.nodes.clone().map(|nodes| Arc::new(nodes) as Arc<dyn StoreView>));
        views.extend(self.time_shares.views());
        views
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RIGHTS;

    #[test]
    fn a_plan_rests_on_every_store_of_this_controller_and_on_no_other() {
        for (scope, kinds) in [(Scope::All, 14), (Scope::of(["a", "b"]), 13)] {
            let mut watches = WatchSet::new(1).within([RIGHTS]);
            let stores = Stores::register(&mut watches, &scope).expect("one watch each");
            assert_eq!(stores.views().len(), kinds);
            assert_eq!(format!("{watches:?}").matches(" in ").count(), kinds, "{watches:?}");
        }
    }
}
