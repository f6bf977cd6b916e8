//! Stores that a test fills as the watches would.

use super::{Stores, UPGRADES_BY_TARGET};
use crate::fixtures::overlay;
use crate::projections::upgrade::UpgradeView;
use serde_json::{Value, json};
use springtide_plumbing::disruption::DisruptionBudgetView;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::{Store, StoreWriter};
use springtide_plumbing::time_share::{
    GROUPS_BY_WORKLOAD, ReferenceGrantView, TimeShareGroupView, TimeShares,
};
use springtide_plumbing::traffic::{EndpointSliceView, ServiceView};
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

/// All stores of the controller, and a writer to each.
pub(crate) struct Rig {
    pub(crate) stores: Stores,
    pub(crate) upgrades: StoreWriter<UpgradeView>,
    pub(crate) pods: StoreWriter<PodView>,
    pub(crate) deployments: StoreWriter<DeploymentView>,
    pub(crate) replica_sets: StoreWriter<ReplicaSetView>,
    pub(crate) stateful_sets: StoreWriter<StatefulSetView>,
    pub(crate) daemon_sets: StoreWriter<DaemonSetView>,
    pub(crate) revisions: StoreWriter<ControllerRevisionView>,
    pub(crate) budgets: StoreWriter<DisruptionBudgetView>,
    pub(crate) services: StoreWriter<ServiceView>,
    pub(crate) slices: StoreWriter<EndpointSliceView>,
    pub(crate) nodes: StoreWriter<NodeView>,
    pub(crate) autoscalers: StoreWriter<VerticalPodAutoscalerView>,
    pub(crate) groups: StoreWriter<TimeShareGroupView>,
    pub(crate) grants: StoreWriter<ReferenceGrantView>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let (upgrades, of_upgrades) = Store::new(&[UPGRADES_BY_TARGET]);
        let (pods, of_pods) = Store::new(&[PODS_BY_OWNER]);
        let (deployments, of_deployments) = Store::new(&[]);
        let (replica_sets, of_replica_sets) = Store::new(&[REPLICA_SETS_BY_OWNER]);
        let (stateful_sets, of_stateful_sets) = Store::new(&[]);
        let (daemon_sets, of_daemon_sets) = Store::new(&[]);
        let (revisions, of_revisions) = Store::new(&[REVISIONS_BY_OWNER]);
        let (budgets, of_budgets) = Store::new(&[]);
        let (services, of_services) = Store::new(&[]);
        let (slices, of_slices) = Store::new(&[]);
        let (nodes, of_nodes) = Store::new(&[]);
        let (autoscalers, of_autoscalers) = Store::new(&[AUTOSCALERS_BY_TARGET]);
        let (groups, of_groups) = Store::new(&[GROUPS_BY_WORKLOAD]);
        let (grants, of_grants) = Store::new(&[]);
        Self {
            stores: Stores {
                upgrades,
                pods,
                deployments,
                replica_sets,
                stateful_sets,
                daemon_sets,
                revisions,
                budgets,
                services,
                slices,
                nodes: Some(nodes),
                autoscalers,
                time_shares: TimeShares { groups, grants },
            },
            upgrades: of_upgrades,
            pods: of_pods,
            deployments: of_deployments,
            replica_sets: of_replica_sets,
            stateful_sets: of_stateful_sets,
            daemon_sets: of_daemon_sets,
            revisions: of_revisions,
            budgets: of_budgets,
            services: of_services,
            slices: of_slices,
            nodes: of_nodes,
            autoscalers: of_autoscalers,
            groups: of_groups,
            grants: of_grants,
        }
    }
}

/// Stores what a fixture made.
pub(crate) fn put<P: Projection>(writer: &mut StoreWriter<P>, object: &Arc<P>) {
    writer.apply(P::clone(object));
}

/// An InPlaceUpgrade of a workload; its UID is its name. With a run open if it is to have one.
pub(crate) fn upgrade(name: &str, kind: &str, target: &str, has_run: bool, over: Value) -> Arc<UpgradeView> {
    let mut whole = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "generation": 1, "resourceVersion": "1"},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": target}},
    });
    if has_run {
        whole["status"] = json!({"previous": {"revision": "before"}});
    }
    overlay(&mut whole, over);
    Arc::new(serde_json::from_value(whole).unwrap())
}

/// An object of any kind that has nothing but its name.
pub(crate) fn bare<P: Projection>(namespace: &str, name: &str, over: Value) -> Arc<P> {
    let mut whole =
        json!({"metadata": {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1"}});
    overlay(&mut whole, over);
    Arc::new(serde_json::from_value(whole).unwrap())
}
