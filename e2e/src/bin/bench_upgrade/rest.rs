//! I9: what ten thousand pods, or fifty thousand, cost a manager in memory, and what it writes while nothing changes.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, Patch, PatchParams, PostParams};
use procfs::{Current, Meminfo};
use serde::{Deserialize, Serialize};
use serde_json::json;
use springtide_crds::in_place_upgrade::{InPlaceUpgrade, ReadyReason};
use springtide_e2e::bench::usage;
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::polling::until_seen;
use springtide_e2e::upgrade::upgrades::says;
use springtide_e2e::upgrade::{Signal, Workload};
use springtide_e2e::write_count::Mark;

use crate::field::{self, Field, WEB};

/// For the memory of a manager to settle, after its last pass over all pods.
const SETTLED: Duration = Duration::from_secs(30);
/// In which a manager that has just started would have written what it thinks is due.
const AFTER_START: Duration = Duration::from_secs(120);
/// Pods of each workload of the large run: an object takes 20 000 at most.
const PER_WORKLOAD: u32 = 10_000;
/// Pods that each node of the large run takes: as many as its range has addresses.
const LARGE_PODS_PER_NODE: u32 = 254;
/// Writes a second of its manager, which has to open the gates of all pods.
const LARGE_BUDGET: u32 = 300;
/// Bound for all of its pods to be ready.
const READY: Duration = Duration::from_secs(100 * 60);
/// Memory that the large run takes in all, in GiB: etcd, API server, controller manager, scheduler and KWOK each hold all
/// pods, and the former two some versions of each.
pub(crate) const LARGE_GIB: u64 = 16;

/// A manager beside ten thousand pods.
#[derive(Serialize, Deserialize)]
pub(crate) struct Rest {
    /// Pods that there were.
    pub(crate) pods: usize,
    /// Its resident memory with all of them, after an upgrade, in MiB.
    pub(crate) resident_mib: f64,
    /// The most that it was in that.
    pub(crate) peak_mib: f64,
    /// That of another manager, which has just started.
    pub(crate) fresh_mib: f64,
    /// For how many minutes nothing changed.
    pub(crate) minutes: u64,
    /// What it wrote then.
    pub(crate) writes: usize,
    /// What the other one wrote in its first minutes.
    pub(crate) writes_of_fresh: usize,
}

/// Looks at the manager of a field whose pods have been upgraded, and at another one in its place.
pub(crate) async fn measure(field: &mut Field, minutes: u64) -> Result<Rest> {
    tokio::time::sleep(SETTLED).await;
    let pid = field.manager()?.child().pid();
    let (resident_mib, peak_mib) = (usage::resident_mib(pid)?, usage::of(pid)?.peak_mib);
    let mark = field.cluster.audit_log()?.mark()?;
    eprintln!("      {resident_mib:.0} MiB; nothing is changed for {minutes} min");
    tokio::time::sleep(Duration::from_secs(60 * minutes)).await;
    let writes = written_since(field, mark)?;

    field.stop_manager()?;
    let mark = field.cluster.audit_log()?.mark()?;
    field.start_manager("manager-anew").await?;
    tokio::time::sleep(AFTER_START).await;
    let writes_of_fresh = written_since(field, mark)?;
    let fresh_mib = usage::resident_mib(field.manager()?.child().pid())?;
    let pods = field.names().len();
    Ok(Rest { pods, resident_mib, peak_mib, fresh_mib, minutes, writes, writes_of_fresh })
}

/// What managers have written since then, wherever.
fn written_since(field: &Field, mark: Mark) -> Result<usize> {
    let written = field.cluster.audit_log()?.since(mark)?.by_agent(USER_AGENT).writes();
    if !written.is_empty() {
        eprintln!("{written}");
    }
    Ok(written.len())
}

/// A manager beside fifty thousand pods.
#[derive(Serialize, Deserialize)]
pub(crate) struct Large {
    /// Pods that there were.
    pub(crate) pods: u32,
    /// Its resident memory without any of them, in MiB.
    pub(crate) idle_mib: f64,
    /// That with all of them.
    pub(crate) resident_mib: f64,
    /// The most that it was until then.
    pub(crate) peak_mib: f64,
}

/// How much memory this machine has now, in GiB, where that is too little for the large run.
pub(crate) fn too_small_for_many() -> Result<Option<u64>> {
    let memory = Meminfo::current().context("read how much memory there is")?;
    let free = memory.mem_available.unwrap_or(memory.mem_free) >> 30;
    Ok((free < LARGE_GIB).then_some(free))
}

/// Starts so many gated pods in several workloads, each with an upgrade that has nothing to do. No pod is watched by the
/// bench itself: it would take as much memory.
pub(crate) async fn with_many(pods: u32) -> Result<Large> {
    let cluster = field::builder(LARGE_PODS_PER_NODE).without_audit().start().await?;
    cluster.install_crds().await?;
    let config = field::configure(&cluster, LARGE_BUDGET)?;
    let manager = field::start_manager(&cluster, "manager-large", &config).await?;
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
