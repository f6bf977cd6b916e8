//! Reads what decisions about InPlaceUpgrades rest on: everything is in one namespace, but for nodes.

use crate::cli::read::{Cluster, Unread, failure, optional};
use anyhow::Result;
use springtide_in_place_upgrade::projections::upgrade::UpgradeView;
use springtide_in_place_upgrade::rehearsal::World;
use springtide_plumbing::disruption::DisruptionBudgetView;
use springtide_plumbing::time_share::TimeShareGroupView;
use springtide_plumbing::traffic::{EndpointSliceView, ServiceView};
use springtide_plumbing::workloads::kinds::{
    ControllerRevisionView, DaemonSetView, DeploymentView, ReplicaSetView, StatefulSetView,
};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::vertical_pod_autoscaler::VerticalPodAutoscalerView;
use std::sync::Arc;

/// What could be read.
pub(super) struct Seen {
    pub(super) world: World,
    pub(super) unread: Vec<Unread>,
}

/// Everything that decisions about the upgrades of a namespace rest on.
///
/// # Errors
/// The API server cannot be asked, or the caller may not read upgrades, pods and workloads there.
pub(super) async fn read(cluster: &Cluster, namespace: &str, tools_image: Arc<str>) -> Result<Seen> {
    let there = Some(namespace);
    let (upgrades, pods, deployments, replica_sets, stateful_sets, daemon_sets, revisions) = tokio::join!(
        cluster.list::<UpgradeView>(there),
        cluster.list::<PodView>(there),
        cluster.list::<DeploymentView>(there),
        cluster.list::<ReplicaSetView>(there),
        cluster.list::<StatefulSetView>(there),
        cluster.list::<DaemonSetView>(there),
        cluster.list::<ControllerRevisionView>(there),
    );
    let (budgets, services, slices, autoscalers, groups, nodes) = tokio::join!(
        cluster.list::<DisruptionBudgetView>(there),
        cluster.list::<ServiceView>(there),
        cluster.list::<EndpointSliceView>(there),
        cluster.list::<VerticalPodAutoscalerView>(there),
        cluster.list::<TimeShareGroupView>(there),
        cluster.list::<NodeView>(None),
    );
    let scope = format!("namespace {namespace}");
    let mut unread = Vec::new();
    let consequence = "PodDisruptionBudgets are taken to allow that any pod starts";
    let budgets = optional(budgets, &scope, &mut unread, consequence)?;
    let consequence = "pods that leave traffic are taken to be listed by no Service";
    let services = optional(services, &scope, &mut unread, consequence)?;
    let slices = optional(slices, &scope, &mut unread, consequence)?;
    let consequence = "no VerticalPodAutoscaler is taken to decide cpu and memory of pods";
    let autoscalers = optional(autoscalers, &scope, &mut unread, consequence)?;
    let consequence = "no TimeShareGroup is taken to switch or size pods";
    let groups = optional(groups, &scope, &mut unread, consequence)?;
    let consequence = "which images nodes have, and how much pods may request there, is not computed";
    let nodes = optional(nodes, "the cluster", &mut unread, consequence)?;
    let world = World {
        upgrades: upgrades.map_err(failure)?,
        pods: pods.map_err(failure)?,
        deployments: deployments.map_err(failure)?,
        replica_sets: replica_sets.map_err(failure)?,
        stateful_sets: stateful_sets.map_err(failure)?,
        daemon_sets: daemon_sets.map_err(failure)?,
        revisions: revisions.map_err(failure)?,
        budgets: budgets.unwrap_or_default(),
        services: services.unwrap_or_default(),
        slices: slices.unwrap_or_default(),
        autoscalers: autoscalers.unwrap_or_default(),
        time_share_groups: groups.unwrap_or_default(),
        nodes,
        tools_image,
    };
    Ok(Seen { world, unread })
}
