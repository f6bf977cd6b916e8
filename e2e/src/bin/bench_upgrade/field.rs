//! A workload of many pods on nodes that KWOK plays, a manager with a write budget, and an upgrade of it.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{InPlaceUpgrade, InPlaceUpgradeSpec, ReadyReason, RunResult};
use springtide_e2e::batch::{GENERAL, pool};
use springtide_e2e::bench::large::{self, Managed};
use springtide_e2e::bench::progress::until_all;
use springtide_e2e::local_cluster::Builder;
use springtide_e2e::polling::{until, until_seen};
use springtide_e2e::upgrade::native::replicas;
use springtide_e2e::upgrade::upgrades::says;
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{Signal, Workload, image, manager_configuration};

use crate::pods::PodFeed;

/// Nodes, and the pods that each of them takes: twice as many as there are.
pub(crate) const NODES: usize = 200;
const PODS_PER_NODE: u32 = 110;
/// Name of the workload and of its upgrade.
pub(crate) const WEB: &str = "web";
/// Bounds: for all pods to serve an image, and for the Deployment controller to follow.
const SERVED: Duration = Duration::from_secs(30 * 60);
const FOLLOWED: Duration = Duration::from_secs(300);

/// Options of a control plane for so many pods on each of its nodes.
pub(crate) fn builder(pods_per_node: u32) -> Builder {
    large::builder(pool(GENERAL, NODES, "32", pods_per_node))
}

/// Those that most parts have.
pub(crate) fn usual() -> Builder {
    builder(PODS_PER_NODE).with_fsync()
}

/// A workload, and who upgrades it.
pub(crate) struct Field {
    /// What was seen of its pods.
    pub(crate) pods: Arc<PodFeed>,
    workload: Workload,
    // Last, so that it ends last.
    pub(crate) managed: Managed,
}

impl Deref for Field {
    type Target = Managed;

    fn deref(&self) -> &Managed {
        &self.managed
    }
}

impl Field {
    /// A Deployment of so many pods that all serve their first image, and is paused then.
    pub(crate) async fn start(
        builder: Builder,
        signal: Signal,
        pods: u32,
        writes_per_second: u32,
    ) -> Result<Self> {
        let managed = Managed::start(builder, manager_configuration(), writes_per_second, "upgrade").await?;
        let watched = Api::namespaced(managed.cluster.client("bench-watcher")?, &managed.namespace);
        let pods_of_it = Arc::new(PodFeed::start(watched).await?);
        let workload = Workload::deployment(WEB, pods).signal(signal);
        managed.create(workload.manifest()).await?;
        let field = Self { pods: pods_of_it, workload, managed };
        field.all_serve(&image(1), "serve").await?;
        field.patch_workload(json!({"spec": {"paused": true}})).await?;
        Ok(field)
    }

    /// An upgrade to the template with nothing in the way: all pods may be unavailable at once.
    fn upgrade(&self) -> InPlaceUpgradeSpec {
        let mut spec = self.workload.upgrade();
        spec.strategy.max_unavailable = IntOrPercent::ALL;
        spec
    }

    /// Gives the template an image, and waits until the Deployment controller has seen it: it does nothing else.
    pub(crate) async fn wish(&self, image: &str) -> Result<()> {
        let containers = json!([{"name": CONTAINER, "image": image}]);
        self.patch_workload(json!({"spec": {"template": {"spec": {"containers": containers}}}})).await
    }

    /// Creates the upgrade; gives when that was asked for.
    pub(crate) async fn begin(&self) -> Result<Instant> {
        let upgrade = InPlaceUpgrade::new(WEB, self.upgrade());
        let began = Instant::now();
        self.api().create(&PostParams::default(), &upgrade).await.context("an upgrade")?;
        Ok(began)
    }

    /// Waits until all pods serve an image, and gives when each came to.
    pub(crate) async fn all_serve(&self, image: &str, what: &str) -> Result<Vec<Instant>> {
        until_all(what, self.workload.replicas as usize, SERVED, || self.pods.now().served(image).len())
            .await?;
        Ok(self.pods.now().served(image).to_vec())
    }

    /// Waits until the upgrade says that a run has succeeded and nothing is left to do.
    pub(crate) async fn finished(&self) -> Result<()> {
        let upgrades: Api<InPlaceUpgrade> = self.api();
        until_seen(SERVED, "the upgrade is done", async || {
            let upgrade = upgrades.get(WEB).await?;
            let run = upgrade.status.as_ref().and_then(|status| status.last_run.as_ref());
            let is_done = run.is_some_and(|run| run.result == RunResult::Succeeded)
                && says(&upgrade, &ReadyReason::UpToDate);
            Ok(if is_done { Ok(()) } else { Err(format!("{:?}", upgrade.status)) })
        })
        .await
    }

    /// UIDs of the ReplicaSets that are to have pods.
    pub(crate) async fn active_sets(&self) -> Result<BTreeSet<String>> {
        let sets = self.api::<ReplicaSet>().list(&ListParams::default()).await?;
        Ok(sets.iter().filter(|set| replicas(set) > 0).filter_map(ResourceExt::uid).collect())
    }

    /// The live pods: UID and name of each.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let pods = self.pods.now();
        pods.lives().map(|(uid, life)| (uid.clone(), life.name.clone())).collect()
    }

    /// Ends it all in order.
    pub(crate) fn stop(self) -> Result<()> {
        let Self { pods, managed, .. } = self;
        drop(pods);
        managed.stop()
    }

    async fn patch_workload(&self, change: Value) -> Result<()> {
        let deployments: Api<Deployment> = self.api();
        deployments.patch(WEB, &PatchParams::default(), &Patch::Strategic(change)).await?;
        until(FOLLOWED, "the Deployment controller has seen the change", async || {
            let deployment = deployments.get(WEB).await?;
            let observed = deployment.status.and_then(|status| status.observed_generation);
            Ok((observed >= deployment.metadata.generation).then_some(()))
        })
        .await
    }
}
