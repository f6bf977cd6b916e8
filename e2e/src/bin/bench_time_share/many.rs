//! T8: what fifty thousand pods of groups cost a manager in memory.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, PostParams};
use springtide_crds::time_share_group::{ReadyReason, TimeShareGroup, TrafficMode};
use springtide_e2e::batch::{GENERAL, pool};
use springtide_e2e::bench::at_rest::{Large, SETTLED};
use springtide_e2e::bench::large::{self, start_manager};
use springtide_e2e::bench::usage;
use springtide_e2e::polling::until_seen;
use springtide_e2e::time_share::node_member::group_of;
use springtide_e2e::time_share::node_stage::is_settled;
use springtide_e2e::upgrade::manager_configuration;

use crate::field::{DEFAULT, OTHER, manifest, member};
use crate::switched::BUDGET;

/// Nodes, and the pods that each of them takes: as many as its range has addresses.
const NODES: usize = 220;
const PODS_PER_NODE: u32 = 254;
/// Pods of each member of a group.
const PER_MEMBER: u32 = 5_000;
/// Bound for all pods of a group to be there and to have their size.
const READY: Duration = Duration::from_secs(100 * 60);

/// Starts groups with so many pods in all; the one member of each has the peak. No pod is watched by the bench itself: it
/// would take as much memory.
pub(crate) async fn measure(pods: u32) -> Result<Large> {
    let nodes = pool(GENERAL, NODES, "500", PODS_PER_NODE);
    let cluster = large::builder(nodes).without_audit().start().await?;
    cluster.install_crds().await?;
    let config = large::configure(&cluster, manager_configuration(), BUDGET)?;
    let manager = start_manager(&cluster, "manager-large", &config).await?;
    tokio::time::sleep(SETTLED).await;
    let pid = manager.child().pid();
    let idle_mib = usage::resident_mib(pid)?;
    let client = cluster.client("bench-generator")?;
    for _ in 0..pods.div_ceil(2 * PER_MEMBER) {
        let namespace = cluster.create_namespace("large").await?;
        let members = [DEFAULT, OTHER].map(|name| member(name, PER_MEMBER, TrafficMode::ServiceLabel));
        let mut spec = group_of(&[&members[0], &members[1]])?;
        spec.schedule.default_member = Some(DEFAULT.to_owned());
        spec.switch.deadline_seconds = 86_400;
        let groups: Api<TimeShareGroup> = Api::namespaced(client.clone(), &namespace);
        groups.create(&PostParams::default(), &TimeShareGroup::new("share", spec)).await?;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
        for member in &members {
            let deployment: Deployment = serde_json::from_value(manifest(member))?;
            deployments.create(&PostParams::default(), &deployment).await.context("a Deployment")?;
        }
        until_seen(READY, "a group has all of its pods", async || {
            let group = groups.get("share").await?;
            let status = group.status.as_ref();
            let counts = status.map(|status| status.members.iter().map(|member| member.pods).sum::<u32>());
            let is_there =
                counts == Some(2 * PER_MEMBER) && is_settled(&group, Some(DEFAULT), &[ReadyReason::Settled]);
            Ok(if is_there { Ok(()) } else { Err(format!("{:?}", group.status)) })
        })
        .await?;
        eprintln!("      {} more pods: {:.0} MiB", 2 * PER_MEMBER, usage::resident_mib(pid)?);
    }
    tokio::time::sleep(SETTLED).await;
    let (resident_mib, peak_mib) = (usage::resident_mib(pid)?, usage::of(pid)?.peak_mib);
    manager.stop()?;
    cluster.stop()?;
    Ok(Large { pods, idle_mib, resident_mib, peak_mib })
}
