//! Reads what decisions about TimeShareGroups rest on: the namespace of the group, those of members elsewhere, and the nodes
//! with all that runs there.

use crate::cli::read::{Cluster, Refused, Unread, failure, optional};
use anyhow::Result;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::time_share::ReferenceGrantView;
use springtide_plumbing::traffic::{EndpointSliceView, ServiceView};
use springtide_plumbing::workloads::kinds::{DeploymentView, ReplicaSetView, StatefulSetView};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use springtide_time_share_group::projections::group::GroupView;
use springtide_time_share_group::projections::horizontal_pod_autoscaler::HorizontalPodAutoscalerView;
use springtide_time_share_group::projections::http_route::HttpRouteView;
use springtide_time_share_group::projections::resource_quota::ResourceQuotaView;
use springtide_time_share_group::rehearsal::World;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What could be read.
pub(super) struct Seen {
    pub(super) world: World,
    pub(super) unread: Vec<Unread>,
}

/// Everything that decisions about the groups of a namespace rest on, with those that take the place of what is there.
///
/// # Errors
/// The API server cannot be asked, or the caller may not read groups, pods and workloads there.
pub(super) async fn read(cluster: &Cluster, namespace: &str, changed: Vec<Arc<GroupView>>) -> Result<Seen> {
    let mut groups = cluster.list::<GroupView>(Some(namespace)).await.map_err(failure)?;
    groups.retain(|group| changed.iter().all(|new| new.meta().key != group.meta().key));
    groups.extend(changed);
    let places = Places::of(cluster, namespace, &groups);
    let scope = places.scope();
    let mut unread = Vec::new();
    let (deployments, replica_sets, stateful_sets) = tokio::join!(
        places.list::<DeploymentView>(),
        places.list::<ReplicaSetView>(),
        places.list::<StatefulSetView>(),
    );
    let (services, slices, quotas, grants) = tokio::join!(
        places.list::<ServiceView>(),
        places.list::<EndpointSliceView>(),
        places.list::<ResourceQuotaView>(),
        places.list::<ReferenceGrantView>(),
    );
    let (horizontal, vertical, routes) = tokio::join!(
        places.list::<HorizontalPodAutoscalerView>(),
        places.list::<VerticalPodAutoscalerView>(),
        places.list::<HttpRouteView>(),
    );
    let consequence = "pods that leave traffic are taken to be listed by no Service";
    let services = optional(services, &scope, &mut unread, consequence)?;
    let slices = optional(slices, &scope, &mut unread, consequence)?;
    let consequence = "no ResourceQuota is taken to bound the peak";
    let quotas = optional(quotas, &scope, &mut unread, consequence)?;
    let consequence = "no member of another namespace is taken to be granted";
    let grants = optional(grants, &scope, &mut unread, consequence)?;
    let consequence = "no autoscaler is taken to be in the way of the group";
    let horizontal = optional(horizontal, &scope, &mut unread, consequence)?;
    let vertical = optional(vertical, &scope, &mut unread, consequence)?;
    let consequence = "no weight of an HTTPRoute is known";
    let routes = optional(routes, &scope, &mut unread, consequence)?;
    let consequence = "what fits on the nodes is not computed";
    let nodes = optional(cluster.list::<NodeView>(None).await, "the cluster", &mut unread, consequence)?;
    let everywhere = optional(cluster.list::<PodView>(None).await, "the cluster", &mut unread, consequence)?;
    let (pods, nodes) = match everywhere {
        Some(pods) => (pods, nodes),
        // Without the pods of others nobody knows what room they leave.
        None => (places.list::<PodView>().await.map_err(failure)?, None),
    };
    let world = World {
        groups,
        grants: grants.unwrap_or_default(),
        pods,
        deployments: deployments.map_err(failure)?,
        replica_sets: replica_sets.map_err(failure)?,
        stateful_sets: stateful_sets.map_err(failure)?,
        services: services.unwrap_or_default(),
        slices: slices.unwrap_or_default(),
        quotas: quotas.unwrap_or_default(),
        horizontal: horizontal.unwrap_or_default(),
        vertical: vertical.unwrap_or_default(),
        routes: routes.unwrap_or_default(),
        nodes,
    };
    Ok(Seen { world, unread })
}

/// The namespaces of groups and of their members.
struct Places<'a> {
    cluster: &'a Cluster,
    namespaces: BTreeSet<String>,
}

impl<'a> Places<'a> {
    fn of(cluster: &'a Cluster, namespace: &str, groups: &[Arc<GroupView>]) -> Self {
        let members = groups.iter().flat_map(|group| &group.spec.members);
        let elsewhere = members.filter_map(|member| member.target_ref.namespace.clone());
        Self { cluster, namespaces: elsewhere.chain([namespace.to_owned()]).collect() }
    }

    fn scope(&self) -> String {
        let names: Vec<&str> = self.namespaces.iter().map(String::as_str).collect();
        format!("namespace {}", names.join(", "))
    }

    /// All objects of a kind there.
    async fn list<P: Projection>(&self) -> Result<Vec<Arc<P>>, Refused> {
        let mut found = Vec::new();
        for namespace in &self.namespaces {
            found.extend(self.cluster.list(Some(namespace)).await?);
        }
        Ok(found)
    }
}
