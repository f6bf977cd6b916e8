//! I9: what fifty thousand pods cost a manager in memory.

use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use springtide_crds::in_place_upgrade::{InPlaceUpgrade, ReadyReason};
use springtide_e2e::bench::at_rest::{Large, beside_many};
use springtide_e2e::bench::large::create;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::upgrades::says;
use springtide_e2e::upgrade::{Signal, Workload, manager_configuration};

use crate::field::{self, WEB};
use crate::throughput::BUDGET;

/// Pods of each workload: an object takes 20 000 at most.
const PER_WORKLOAD: u32 = 10_000;
/// Pods that each node takes: as many as its range has addresses.
const PODS_PER_NODE: u32 = 254;
/// Bound for the pods of a workload to be ready.
const READY: Duration = Duration::from_secs(30 * 60);

/// Starts so many pods in several workloads, each with an upgrade that has nothing to do. They have the label, which
/// somebody else need not set: what a manager holds of a pod is the same with the gate.
pub(crate) async fn measure(pods: u32) -> Result<Large> {
    let builder = field::builder(PODS_PER_NODE);
    beside_many(pods, builder, manager_configuration(), BUDGET, async |managed| {
        for number in 0..pods.div_ceil(PER_WORKLOAD) {
            let namespace = managed.cluster.create_namespace("large").await?;
            let replicas = PER_WORKLOAD.min(pods - number * PER_WORKLOAD);
            let web = Workload::deployment(WEB, replicas).signal(Signal::Label);
            let deployments: Api<Deployment> = Api::namespaced(managed.client.clone(), &namespace);
            create(&deployments, web.manifest()).await?;
            until_seen(READY, &format!("{replicas} pods are ready"), async || {
                let status = deployments.get(WEB).await?.status;
                let ready = status.and_then(|status| status.ready_replicas).unwrap_or_default();
                let is_ready = u32::try_from(ready).is_ok_and(|ready| ready >= replicas);
                Ok(if is_ready { Ok(()) } else { Err(format!("{ready} of them")) })
            })
            .await?;
            let pause = Patch::Merge(json!({"spec": {"paused": true}}));
            deployments.patch(WEB, &PatchParams::default(), &pause).await?;
            let upgrades: Api<InPlaceUpgrade> = Api::namespaced(managed.client.clone(), &namespace);
            upgrades.create(&PostParams::default(), &InPlaceUpgrade::new(WEB, web.upgrade())).await?;
            until_seen(READY, "an upgrade that has nothing to do says so", async || {
                let upgrade = upgrades.get(WEB).await?;
                let is_done = says(&upgrade, &ReadyReason::UpToDate);
                Ok(if is_done { Ok(()) } else { Err(format!("{:?}", upgrade.status)) })
            })
            .await?;
            eprintln!("      {replicas} more pods: {:.0} MiB", managed.resident_mib()?);
        }
        Ok(())
    })
    .await
}
