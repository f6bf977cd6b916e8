//! I9: what fifty thousand pods cost a manager in memory.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use springtide_crds::in_place_upgrade::{InPlaceUpgrade, ReadyReason};
use springtide_e2e::bench::at_rest::{Large, SETTLED};
use springtide_e2e::bench::large::start_manager;
use springtide_e2e::bench::usage;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::upgrades::says;
use springtide_e2e::upgrade::{Signal, Workload};

use crate::field::{self, WEB};

/// Pods of each workload of the large run: an object takes 20 000 at most.
const PER_WORKLOAD: u32 = 10_000;
/// Pods that each node of the large run takes: as many as its range has addresses.
const LARGE_PODS_PER_NODE: u32 = 254;
/// Writes a second of its manager, which has to open the gates of all pods.
const LARGE_BUDGET: u32 = 300;
/// Bound for all of its pods to be ready.
const READY: Duration = Duration::from_secs(100 * 60);

/// Starts so many gated pods in several workloads, each with an upgrade that has nothing to do. No pod is watched by the
/// bench itself: it would take as much memory.
pub(crate) async fn with_many(pods: u32) -> Result<Large> {
    let cluster = field::builder(LARGE_PODS_PER_NODE).without_audit().start().await?;
    cluster.install_crds().await?;
    let config = field::configure(&cluster, LARGE_BUDGET)?;
    let manager = start_manager(&cluster, "manager-large", &config).await?;
    tokio::time::sleep(SETTLED).await;
    let pid = manager.child().pid();
    let idle_mib = usage::resident_mib(pid)?;
    let client = cluster.client("bench-generator")?;
    for number in 0..pods.div_ceil(PER_WORKLOAD) {
        let namespace = cluster.create_namespace("large").await?;
        let replicas = PER_WORKLOAD.min(pods - number * PER_WORKLOAD);
        let web = Workload::deployment(WEB, replicas).signal(Signal::Gate);
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
        let manifest: Deployment = serde_json::from_value(web.manifest())?;
        deployments.create(&PostParams::default(), &manifest).await.context("a Deployment")?;
        until_seen(READY, &format!("{replicas} pods are ready"), async || {
            let status = deployments.get(WEB).await?.status;
            let ready = status.and_then(|status| status.ready_replicas).unwrap_or_default();
            let is_ready = u32::try_from(ready).is_ok_and(|ready| ready >= replicas);
            Ok(if is_ready { Ok(()) } else { Err(format!("{ready} of them")) })
        })
        .await?;
        let pause = Patch::Merge(json!({"spec": {"paused": true}}));
        deployments.patch(WEB, &PatchParams::default(), &pause).await?;
        let upgrades: Api<InPlaceUpgrade> = Api::namespaced(client.clone(), &namespace);
        upgrades.create(&PostParams::default(), &InPlaceUpgrade::new(WEB, web.upgrade())).await?;
        until_seen(READY, "an upgrade that has nothing to do says so", async || {
            let upgrade = upgrades.get(WEB).await?;
            let is_done = says(&upgrade, &ReadyReason::UpToDate);
            Ok(if is_done { Ok(()) } else { Err(format!("{:?}", upgrade.status)) })
        })
        .await?;
        eprintln!("      {replicas} more pods: {:.0} MiB", usage::resident_mib(pid)?);
    }
    tokio::time::sleep(SETTLED).await;
    let (resident_mib, peak_mib) = (usage::resident_mib(pid)?, usage::of(pid)?.peak_mib);
    manager.stop()?;
    cluster.stop()?;
    Ok(Large { pods, idle_mib, resident_mib, peak_mib })
}
