//! A workload of many pods on nodes that KWOK plays, a manager with a write budget, and an upgrade of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{InPlaceUpgrade, InPlaceUpgradeSpec, ReadyReason, RunResult};
use springtide_e2e::batch::{GENERAL, pool};
use springtide_e2e::bench::at_rest::Managed;
use springtide_e2e::bench::large::{self, start_manager};
use springtide_e2e::bench::progress::until_all;
use springtide_e2e::local_cluster::{Builder, LocalCluster};
use springtide_e2e::manager::Manager;
use springtide_e2e::polling::{until, until_seen};
use springtide_e2e::upgrade::upgrades::says;
use springtide_e2e::upgrade::workload::CONTAINER;
use springtide_e2e::upgrade::{Signal, Workload, image, manager_configuration};

use crate::pods::PodFeed;

/// Nodes, and the pods that each of them takes: twice as many as there are.
pub(crate) const NODES: usize = 200;
const PODS_PER_NODE: u32 = 110;
/// Name of the workload and of its upgrade.
pub(crate) const WEB: &str = "web";
/// Bounds: for all pods to be there, for the Deployment controller to follow, and for an upgrade.
const CREATED: Duration = Duration::from_secs(60 * 60);
const FOLLOWED: Duration = Duration::from_secs(300);
const UPGRADED: Duration = Duration::from_secs(60 * 60);

/// Options of a control plane for so many pods on each of its nodes.
pub(crate) fn builder(pods_per_node: u32) -> Builder {
    large::builder(pool(GENERAL, NODES, "32", pods_per_node))
}

/// Writes the configuration of a manager that writes so much a second, and gives its path.
pub(crate) fn configure(cluster: &LocalCluster, writes_per_second: u32) -> Result<String> {
    large::configure(cluster, manager_configuration(), writes_per_second)
}

/// A workload, and who upgrades it.
pub(crate) struct Field {
    /// What was seen of its pods.
    pub(crate) pods: Arc<PodFeed>,
    /// The bench's own hands.
    pub(crate) client: Client,
    /// Where the workload is.
    pub(crate) namespace: String,
    workload: Workload,
    manager: Option<Manager>,
    config: String,
    // Last, so that it ends last.
    pub(crate) cluster: LocalCluster,
}

impl Field {
    /// A Deployment of so many pods that all serve their first image, and is paused then.
    pub(crate) async fn start(
        builder: Builder,
        signal: Signal,
        pods: u32,
        writes_per_second: u32,
    ) -> Result<Self> {
        let cluster = builder.start().await?;
        cluster.install_crds().await?;
        let config = configure(&cluster, writes_per_second)?;
        let manager = Some(start_manager(&cluster, "manager", &config).await?);
        let client = cluster.client("bench-generator")?;
        let namespace = cluster.create_namespace("upgrade").await?;
        let feed = PodFeed::start(Api::namespaced(cluster.client("bench-watcher")?, &namespace)).await?;
        let workload = Workload::deployment(WEB, pods).signal(signal);
        let field = Self { pods: Arc::new(feed), client, namespace, workload, manager, config, cluster };
        let manifest: Deployment = serde_json::from_value(field.workload.manifest())?;
        field.api::<Deployment>().create(&PostParams::default(), &manifest).await.context("a Deployment")?;
        field.all_serve(&image(1), "serve").await?;
        field.patch_workload(json!({"spec": {"paused": true}})).await?;
        Ok(field)
    }

    /// An API of its namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An upgrade to the template with nothing in the way: all pods may be unavailable at once.
    pub(crate) fn upgrade(&self) -> InPlaceUpgradeSpec {
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
        let bound = CREATED.max(UPGRADED);
        until_all(what, self.workload.replicas as usize, bound, || self.pods.now().served(image).len())
            .await?;
        Ok(self.pods.now().served(image).to_vec())
    }

    /// Waits until the upgrade says that a run has succeeded and nothing is left to do.
    pub(crate) async fn finished(&self) -> Result<()> {
        let upgrades: Api<InPlaceUpgrade> = self.api();
        until_seen(UPGRADED, "the upgrade is done", async || {
            let upgrade = upgrades.get(WEB).await?;
            let run = upgrade.status.as_ref().and_then(|status| status.last_run.as_ref());
            let is_done = run.is_some_and(|run| run.result == RunResult::Succeeded)
                && says(&upgrade, &ReadyReason::UpToDate);
            Ok(if is_done { Ok(()) } else { Err(format!("{:?}", upgrade.status)) })
        })
        .await
    }

    /// The live pods: UID and name of each.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let pods = self.pods.now();
        pods.lives().map(|(uid, life)| (uid.clone(), life.name.clone())).collect()
    }

    /// Path of a pod.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("/api/v1/namespaces/{}/pods/{name}", self.namespace)
    }

    /// Ends it all in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.stop_manager()?;
        let Self { pods, cluster, .. } = self;
        drop(pods);
        cluster.stop()
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

impl Managed for Field {
    fn cluster(&self) -> &LocalCluster {
        &self.cluster
    }

    fn manager(&self) -> Result<&Manager> {
        self.manager.as_ref().context("no manager runs")
    }

    fn stop_manager(&mut self) -> Result<()> {
        if let Some(manager) = self.manager.take() {
            manager.stop()?;
        }
        Ok(())
    }

    async fn start_manager(&mut self, name: &str) -> Result<()> {
        self.manager = Some(start_manager(&self.cluster, name, &self.config).await?);
        Ok(())
    }
}

/// The options of the control plane that most parts have.
pub(crate) fn usual() -> Builder {
    builder(PODS_PER_NODE)
}
