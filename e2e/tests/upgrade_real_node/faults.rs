//! A node whose parts are restarted, and that loses its power, during an upgrade and after it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, PrePullMode, ReadyReason};
use springtide_e2e::node::program::BOX_IMAGE;
use springtide_e2e::node::{NodeCluster, required_or_skipped};
use springtide_e2e::oracle::feed::PATIENCE;
use springtide_e2e::upgrade::pods::{Identity, Life, Pods, is_false};
use springtide_e2e::upgrade::real_node::NodeBed;
use springtide_e2e::upgrade::traffic::{lines, server_reference, server_text};
use springtide_e2e::upgrade::{GATE, RECORD, Testbed, Workload, native};

use super::{TURN, container_ids};

const NAME: &str = "web";
const REPLICAS: usize = 2;

/// A Deployment that is upgraded from version to version.
struct Versions<'a> {
    bed: &'a NodeBed,
    test: &'a Testbed<'a>,
    web: &'a Workload,
    version: u32,
    before: BTreeMap<String, Identity>,
}

impl Versions<'_> {
    /// Wishes the next version, and gives the hash of the wish before.
    async fn wish(&mut self) -> Result<String> {
        let earlier = self.test.target_hash(NAME);
        self.version += 1;
        self.test.set_image(self.web, &server_reference(self.version)).await?;
        Ok(earlier)
    }

    /// As [`Versions::wish`], and returns when a pod has been given it that does not run it yet.
    async fn begin(&mut self) -> Result<String> {
        let earlier = self.wish().await?;
        self.test.under_way(self.web, &server_reference(self.version)).await?;
        Ok(earlier)
    }

    /// Waits until all pods have it and the native controller agrees; holds that they are the same pods on the same
    /// volumes, on which all versions have run one after the other, and that each says by which run it was changed.
    async fn end(&self, earlier: &str) -> Result<()> {
        let image = server_reference(self.version);
        let upgrade = self.test.succeeded(NAME, earlier).await?;
        native::agrees(self.test, self.web).await?;
        self.test.running(self.web, &image, REPLICAS).await?;
        self.test.all_in_traffic(self.web).await?;
        let hash = upgrade.status.context("a status")?.target_hash;
        self.ensure_kept(&hash)
    }

    fn ensure_kept(&self, hash: &str) -> Result<()> {
        let (pods, records) = {
            let pods = self.test.pods.now();
            let records: Vec<Option<String>> = pods.of(NAME).into_iter().map(run_of).collect();
            (pods.identities(NAME), records)
        };
        let same = |pods: &BTreeMap<String, Identity>| -> BTreeSet<(String, String)> {
            pods.values().map(|pod| (pod.uid.clone(), pod.node.clone())).collect()
        };
        ensure!(same(&pods) == same(&self.before), "{:?} became {pods:?}", self.before);
        ensure!(records.iter().all(|run| run.as_deref() == Some(hash)), "not of run {hash}: {records:?}");
        let expected: Vec<String> = (1..=self.version).map(server_text).collect();
        for (name, pod) in pods {
            let mut kept = lines(&self.bed.cluster, &pod.ip)?;
            // A version that was restarted has said so twice.
            kept.dedup();
            ensure!(kept == expected, "the volume of {name} has kept {kept:?}");
        }
        Ok(())
    }
}

/// The run that a pod's record names.
fn run_of(life: &Life) -> Option<String> {
    let record: Value = serde_json::from_str(life.pod.annotations().get(RECORD)?).ok()?;
    record["run"].as_str().map(str::to_owned)
}

/// Waits until the node starts containers.
async fn works(test: &Testbed<'_>, name: &str) -> Result<()> {
    test.create::<Pod>(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": BOX_IMAGE, "args": ["sleep", "100000"]}]},
    }))
    .await?;
    let runs = await_condition(test.api::<Pod>(), name, conditions::is_pod_running());
    tokio::time::timeout(PATIENCE, runs).await.context("the node starts no container")??;
    Ok(())
}

/// A pod that has left traffic, and whose image is not changed yet.
fn drained(pods: &Pods, image: &str) -> Option<(String, String)> {
    let lives = pods.of(NAME);
    let life = lives.iter().find(|life| {
        life.runs(image) && life.image() == Some(image) && is_false(&life.pod, GATE) && !life.is_ready()
    })?;
    Some((life.name(), life.container()?.container_id.clone()?))
}

fn spec(web: &Workload) -> InPlaceUpgradeSpec {
    let mut spec = web.one_by_one();
    spec.traffic.drain.min_seconds = 3;
    spec.pre_pull.mode = PrePullMode::Auto;
    // What starts again with its node is no restart of the version.
    spec.health.max_restarts = 0;
    spec
}

#[tokio::test]
async fn versions_and_volumes_outlive_restarts_of_kubelet_containerd_and_node() -> Result<()> {
    let _turn = TURN.write().await;
    if !required_or_skipped().await? {
        return Ok(());
    }
    let bed = NodeBed::start(NodeCluster::builder()).await?;
    let test = Testbed::new(bed.plane(), "faults").await?;
    let web = Workload::deployment(NAME, 2).serving();
    let before = test.start_paused(&web).await?;
    test.upgrade(NAME, spec(&web)).await?;
    test.told(NAME, ReadyReason::UpToDate).await?;
    let mut versions = Versions { bed: &bed, test: &test, web: &web, version: 1, before: before.clone() };

    let earlier = versions.begin().await?;
    bed.cluster.restart_kubelet().await?;
    versions.end(&earlier).await?;
    let earlier = versions.begin().await?;
    bed.cluster.restart_containerd().await?;
    versions.end(&earlier).await?;
    ensure!(test.pods.now().of(NAME).iter().all(|life| life.restarts() == 2), "one restart a version");

    // A container that ends by itself when its pod is about to be changed, which its kubelet says too late.
    let old = server_reference(versions.version);
    let earlier = versions.wish().await?;
    let wished = server_reference(versions.version);
    let (name, id) = test.pods_until("a pod is out of traffic", |pods| drained(pods, &old)).await?;
    bed.cluster.pause_kubelet().await?;
    bed.cluster.kill_container(&id)?;
    let patched = |pods: &Pods| pods.named(&name)?.image().filter(|image| *image == wished).map(|_| ());
    test.pods_until("it is changed", patched).await?;
    bed.cluster.resume_kubelet().await?;
    versions.end(&earlier).await?;

    // After the upgrade nobody restarts anything.
    let ids = container_ids(&test, &web);
    bed.cluster.restart_kubelet().await?;
    bed.cluster.restart_containerd().await?;
    works(&test, "works").await?;
    native::is_idle(&test).await?;
    test.all_in_traffic(&web).await?;
    ensure!(container_ids(&test, &web) == ids, "containers were restarted");
    test.pods.now().ensure_same(NAME, &before)?;
    versions.ensure_kept(&test.target_hash(NAME))?;
    // From now on pods get other addresses.
    test.verify()?;

    let earlier = versions.begin().await?;
    bed.cluster.reboot().await?;
    versions.end(&earlier).await?;
    let ids = container_ids(&test, &web);
    bed.cluster.reboot().await?;
    let all_new = |pods: &Pods| {
        let lives = pods.of(NAME);
        let is_new = |life: &&&Life| {
            let id = life.container().and_then(|container| container.container_id.clone());
            life.is_ready() && id.is_some_and(|id| !ids.values().any(|old| *old == id))
        };
        (lives.iter().filter(is_new).count() == REPLICAS).then_some(())
    };
    test.pods_until("every container runs again", all_new).await?;
    test.running(&web, &server_reference(versions.version), REPLICAS).await?;
    test.told(NAME, ReadyReason::UpToDate).await?;
    native::agrees(&test, &web).await?;
    versions.ensure_kept(&test.target_hash(NAME))?;
    native::is_idle(&test).await?;
    drop(versions);
    drop(test);
    bed.stop()
}
