//! T8: what fifty thousand pods of groups cost a manager in memory.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, PostParams};
use springtide_crds::time_share_group::{ReadyReason, TimeShareGroup, TrafficMode};
use springtide_e2e::batch::{GENERAL, pool};
use springtide_e2e::bench::at_rest::{Large, beside_many};
use springtide_e2e::bench::large::{self, create};
use springtide_e2e::polling::until_seen;
use springtide_e2e::time_share::node_stage::is_settled;
use springtide_e2e::upgrade::manager_configuration;

use crate::field::{DEFAULT, GROUP, OTHER, group, manifest, member};
use crate::switched::BUDGET;

/// Nodes, and the pods that each of them takes: as many as its range has addresses.
const NODES: usize = 220;
const PODS_PER_NODE: u32 = 254;
/// Pods of each member of a group.
const PER_MEMBER: u32 = 5_000;
/// Bound for all pods of a group to be there and to have their size.
const READY: Duration = Duration::from_secs(30 * 60);

/// Starts groups with so many pods in all; the one member of each has the peak.
pub(crate) async fn measure(pods: u32) -> Result<Large> {
    let builder = large::builder(pool(GENERAL, NODES, "500", PODS_PER_NODE));
    beside_many(pods, builder, manager_configuration(), BUDGET, async |managed| {
        for _ in 0..pods.div_ceil(2 * PER_MEMBER) {
            let namespace = managed.cluster.create_namespace("large").await?;
            let members = [DEFAULT, OTHER].map(|name| member(name, PER_MEMBER, TrafficMode::ServiceLabel));
            let groups: Api<TimeShareGroup> = Api::namespaced(managed.client.clone(), &namespace);
            groups.create(&PostParams::default(), &TimeShareGroup::new(GROUP, group(&members)?)).await?;
            let deployments: Api<Deployment> = Api::namespaced(managed.client.clone(), &namespace);
            for member in &members {
                create(&deployments, manifest(member)).await?;
            }
            until_seen(READY, "a group has all of its pods", async || {
                let group = groups.get(GROUP).await?;
                let status = group.status.as_ref();
                let pods = status.map(|status| status.members.iter().map(|member| member.pods).sum::<u32>());
                let is_there = pods == Some(2 * PER_MEMBER)
                    && is_settled(&group, Some(DEFAULT), &[ReadyReason::Settled]);
                Ok(if is_there { Ok(()) } else { Err(format!("{:?}", group.status)) })
            })
            .await?;
            eprintln!("      {} more pods: {:.0} MiB", 2 * PER_MEMBER, managed.resident_mib()?);
        }
        Ok(())
    })
    .await
}
