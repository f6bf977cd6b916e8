//! Stores that a test fills as the watches would.

use super::{AUTOSCALERS_BY_SCALED, GROUPS_BY_TARGET, Stores};
use crate::fixtures::{NAMESPACE, overlay};
use crate::projections::group::GroupView;
use crate::projections::horizontal_pod_autoscaler::HorizontalPodAutoscalerView;
use crate::projections::http_route::HttpRouteView;
use crate::projections::resource_quota::ResourceQuotaView;
use serde_json::{Value, json};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::{Index, Store, StoreWriter};
use springtide_plumbing::time_share::ReferenceGrantView;
use springtide_plumbing::traffic::{EndpointSliceView, ServiceView};
use springtide_plumbing::workloads::indexes::{
    AUTOSCALERS_BY_TARGET, PODS_BY_NODE, PODS_BY_OWNER, REPLICA_SETS_BY_OWNER,
};
use springtide_plumbing::workloads::kinds::{DeploymentView, ReplicaSetView, StatefulSetView};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::sync::Arc;

/// All stores of the controller, and a writer to each.
pub(crate) struct Rig {
    pub(crate) stores: Stores,
    pub(crate) groups: StoreWriter<GroupView>,
    pub(crate) grants: StoreWriter<ReferenceGrantView>,
    pub(crate) pods: StoreWriter<PodView>,
    pub(crate) deployments: StoreWriter<DeploymentView>,
    pub(crate) replica_sets: StoreWriter<ReplicaSetView>,
    pub(crate) stateful_sets: StoreWriter<StatefulSetView>,
    pub(crate) services: StoreWriter<ServiceView>,
    pub(crate) slices: StoreWriter<EndpointSliceView>,
    pub(crate) quotas: StoreWriter<ResourceQuotaView>,
    pub(crate) horizontal: StoreWriter<HorizontalPodAutoscalerView>,
    pub(crate) vertical: StoreWriter<VerticalPodAutoscalerView>,
    pub(crate) routes: StoreWriter<HttpRouteView>,
    pub(crate) nodes: StoreWriter<NodeView>,
}

fn store<P: Projection>(indexes: &[Index<P>]) -> (Store<P>, StoreWriter<P>) {
    Store::new(indexes)
}

impl Rig {
    pub(crate) fn new() -> Self {
        let (groups, of_groups) = store(&[GROUPS_BY_TARGET]);
        let (grants, of_grants) = store(&[]);
        let (pods, of_pods) = store(&[PODS_BY_OWNER, PODS_BY_NODE]);
        let (deployments, of_deployments) = store(&[]);
        let (replica_sets, of_replica_sets) = store(&[REPLICA_SETS_BY_OWNER]);
        let (stateful_sets, of_stateful_sets) = store(&[]);
        let (services, of_services) = store(&[]);
        let (slices, of_slices) = store(&[]);
        let (quotas, of_quotas) = store(&[]);
        let (horizontal, of_horizontal) = store(&[AUTOSCALERS_BY_SCALED]);
        let (vertical, of_vertical) = store(&[AUTOSCALERS_BY_TARGET]);
        let (routes, of_routes) = store(&[]);
        let (nodes, of_nodes) = store(&[]);
        Self {
            stores: Stores {
                groups,
                grants,
                pods,
                deployments,
                replica_sets,
                stateful_sets,
                services,
                slices,
                quotas,
                horizontal,
                vertical,
                routes,
                nodes: Some(nodes),
            },
            groups: of_groups,
            grants: of_grants,
            pods: of_pods,
            deployments: of_deployments,
            replica_sets: of_replica_sets,
            stateful_sets: of_stateful_sets,
            services: of_services,
            slices: of_slices,
            quotas: of_quotas,
            horizontal: of_horizontal,
            vertical: of_vertical,
            routes: of_routes,
            nodes: of_nodes,
        }
    }
}

/// Stores what a fixture made.
pub(crate) fn put<P: Projection>(writer: &mut StoreWriter<P>, object: &Arc<P>) {
    writer.apply(P::clone(object));
}

/// An object of any kind; its UID is its name.
pub(crate) fn bare<P: Projection>(namespace: &str, name: &str, over: Value) -> Arc<P> {
    let mut whole =
        json!({"metadata": {"name": name, "namespace": namespace, "uid": name, "resourceVersion": "1"}});
    overlay(&mut whole, over);
    Arc::new(serde_json::from_value(whole).unwrap())
}

/// What to lay over a pod of this name to have it owned by something else than the ReplicaSet that it has as a fixture.
pub(crate) fn owned_by(pod: &str, kind: &str, owner: &str) -> Value {
    let member = pod.rsplit_once('-').map_or(pod, |(member, _)| member);
    let owners = json!([
        {"name": format!("{member}-1"), "controller": false},
        {"apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": owner, "controller": true},
    ]);
    json!({"metadata": {"ownerReferences": owners}})
}

/// A Deployment of the members' namespace with a template at valley size; its UID is its name.
pub(crate) fn deployment(name: &str, over: Value) -> Arc<DeploymentView> {
    let resources = json!({"requests": {"cpu": "200m", "memory": "1Gi"}});
    let mut whole = json!({"spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": name}},
        "template": {
            "metadata": {"labels": {"app": name, "springtide.dev/traffic-serving": "false"}},
            "spec": {"containers": [{"name": "app", "image": "app:1", "resources": resources}]},
        },
    }});
    overlay(&mut whole, over);
    bare(NAMESPACE, name, whole)
}

/// A ReplicaSet of a Deployment of this name and UID, or of nobody; its UID is its name.
pub(crate) fn replica_set(name: &str, deployment: Option<&str>) -> Arc<ReplicaSetView> {
    let owners = deployment.map(|owner| {
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": owner, "uid": owner, "controller": true}])
    });
    let owners = owners.unwrap_or_else(|| json!([]));
    bare(NAMESPACE, name, json!({"metadata": {"ownerReferences": owners}, "spec": {"replicas": 1}}))
}
