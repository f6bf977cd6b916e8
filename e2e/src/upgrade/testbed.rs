//! A namespace of one test, with its oracles, native workloads and upgrades.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{
    InPlaceUpgrade, InPlaceUpgradeSpec, ReadyReason, RunResult, TargetKind,
};
use springtide_crds::reason::Reason;

use super::native;
use super::pods::{Identity, Life, PodFeed, Pods};
use super::upgrades::{UpgradeFeed, Upgrades, says};
use super::workload::{CONTAINER, Workload};
use crate::local_cluster::LocalCluster;
use crate::oracle::feed::{Fold, PATIENCE};
use crate::polling::until_seen;
use crate::write_count::{Mark, WriteCount};

/// User agent of a test's own requests.
const USER_AGENT: &str = "springtide-test";

/// A namespace of its own, watched from before the first pod.
pub struct Testbed<'a> {
    /// The cluster.
    pub cluster: &'a LocalCluster,
    /// The namespace.
    pub namespace: String,
    /// What was seen of its pods.
    pub pods: PodFeed,
    /// What was seen of its upgrades.
    pub upgrades: UpgradeFeed,
    client: kube::Client,
    mark: Mark,
}

impl<'a> Testbed<'a> {
    /// Makes a namespace `<prefix>-<random>` and starts its oracles.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn new(cluster: &'a LocalCluster, prefix: &str) -> Result<Self> {
        let mark = cluster.audit_log()?.mark()?;
        let namespace = cluster.create_namespace(prefix).await?;
        Ok(Self { mark, ..Self::of(cluster, &namespace).await? })
    }

    /// A namespace that is there already, with oracles that see it from now on.
    ///
    /// # Errors
    /// The API server refuses something.
    pub async fn of(cluster: &'a LocalCluster, namespace: &str) -> Result<Self> {
        let client = cluster.client(USER_AGENT)?;
        Ok(Self {
            cluster,
            namespace: namespace.to_owned(),
            pods: PodFeed::start(Api::namespaced(client.clone(), namespace)).await?,
            upgrades: UpgradeFeed::start(Api::namespaced(client.clone(), namespace)).await?,
            client,
            mark: cluster.audit_log()?.mark()?,
        })
    }

    /// An API of the namespace, for the test's own hands.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A client, for the test's own hands.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Creates an object of the namespace.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create<K>(&self, manifest: Value) -> Result<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let what = format!("create {} {}", manifest["kind"], manifest["metadata"]["name"]);
        let object: K = serde_json::from_value(manifest).with_context(|| what.clone())?;
        self.api::<K>().create(&PostParams::default(), &object).await.context(what)
    }

    /// Creates a workload, and waits until its controller says that all of its pods are there and ready. Gives what makes
    /// them the same pods. From then on the oracle counts anew.
    ///
    /// # Errors
    /// It is refused, or does not become ready.
    pub async fn start(&self, workload: &Workload) -> Result<BTreeMap<String, Identity>> {
        let manifest = workload.manifest();
        match workload.kind {
            TargetKind::Deployment => self.create::<Deployment>(manifest).await.map(drop)?,
            TargetKind::StatefulSet => self.create::<StatefulSet>(manifest).await.map(drop)?,
            TargetKind::DaemonSet => self.create::<DaemonSet>(manifest).await.map(drop)?,
            TargetKind::ReplicaSet => self.create::<ReplicaSet>(manifest).await.map(drop)?,
        }
        native::agrees(self, workload).await?;
        let started = self.ready(workload, workload.replicas as usize).await?;
        self.pods.now().count_anew();
        Ok(started)
    }

    /// As [`Testbed::start`] of a Deployment, and pauses it then.
    ///
    /// # Errors
    /// As [`Testbed::start`].
    pub async fn start_paused(&self, workload: &Workload) -> Result<BTreeMap<String, Identity>> {
        let started = self.start(workload).await?;
        self.patch(workload, json!({"spec": {"paused": true}})).await?;
        Ok(started)
    }

    /// Waits until a workload has so many pods, all ready, as the oracle sees them.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn ready(&self, workload: &Workload, count: usize) -> Result<BTreeMap<String, Identity>> {
        let what = format!("{count} ready pods of {}", workload.name);
        self.pods
            .until(&what, |pods| {
                let all = pods.of(&workload.name);
                let ready = all.len() == count && all.iter().all(|life| life.is_ready());
                ready.then(|| pods.identities(&workload.name))
            })
            .await
    }

    /// Merges `change` strategically into a workload, as its user.
    ///
    /// # Errors
    /// It is refused.
    pub async fn patch(&self, workload: &Workload, change: Value) -> Result<()> {
        let (name, params, patch) = (&workload.name, PatchParams::default(), Patch::Strategic(change));
        let patched = match workload.kind {
            TargetKind::Deployment => self.api::<Deployment>().patch(name, &params, &patch).await.map(drop),
            TargetKind::StatefulSet => self.api::<StatefulSet>().patch(name, &params, &patch).await.map(drop),
            TargetKind::DaemonSet => self.api::<DaemonSet>().patch(name, &params, &patch).await.map(drop),
            TargetKind::ReplicaSet => self.api::<ReplicaSet>().patch(name, &params, &patch).await.map(drop),
        };
        patched.with_context(|| format!("patch {name}"))
    }

    /// `kubectl set image` of the container that is upgraded.
    ///
    /// # Errors
    /// It is refused.
    pub async fn set_image(&self, workload: &Workload, image: &str) -> Result<()> {
        let containers = json!([{"name": CONTAINER, "image": image}]);
        self.patch(workload, json!({"spec": {"template": {"spec": {"containers": containers}}}})).await
    }

    /// Creates an upgrade.
    ///
    /// # Errors
    /// It is refused.
    pub async fn upgrade(&self, name: &str, spec: InPlaceUpgradeSpec) -> Result<InPlaceUpgrade> {
        let created = self.api().create(&PostParams::default(), &InPlaceUpgrade::new(name, spec)).await;
        created.with_context(|| format!("create the upgrade {name}"))
    }

    /// Merges `change` into an upgrade.
    ///
    /// # Errors
    /// It is refused.
    pub async fn edit(&self, name: &str, change: Value) -> Result<InPlaceUpgrade> {
        let edited = self.api().patch(name, &PatchParams::default(), &Patch::Merge(change)).await;
        edited.with_context(|| format!("edit the upgrade {name}"))
    }

    /// Deletes an upgrade, and waits until it is gone.
    ///
    /// # Errors
    /// It stays.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.api::<InPlaceUpgrade>().delete(name, &DeleteParams::default()).await?;
        let gone = |upgrades: &Upgrades| upgrades.get(name).is_none().then_some(());
        self.upgrades.until(&format!("{name} is gone"), gone).await
    }

    /// Waits until an upgrade is as `check` wants it.
    ///
    /// # Errors
    /// It does not become so.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&InPlaceUpgrade) -> bool,
    ) -> Result<InPlaceUpgrade> {
        let what = format!("{name}: {what}");
        let found = self
            .upgrades
            .until(&what, |upgrades| upgrades.get(name).filter(|upgrade| check(upgrade)).cloned())
            .await;
        // Where an upgrade stands is explained by where its pods do.
        found.with_context(|| format!("the pods:\n{}", self.pods.now().describe()))
    }

    /// Waits until an upgrade says this of its present generation.
    ///
    /// # Errors
    /// It does not.
    pub async fn told<R: Reason>(&self, name: &str, reason: R) -> Result<InPlaceUpgrade> {
        let what = format!("{} {}", R::CONDITION, reason.as_str());
        self.until(name, &what, |upgrade| says(upgrade, &reason)).await
    }

    /// The hash of an upgrade's wish as last seen; empty before it has one.
    #[must_use]
    pub fn target_hash(&self, name: &str) -> String {
        let upgrades = self.upgrades.now();
        let status = upgrades.get(name).and_then(|upgrade| upgrade.status.as_ref());
        status.map(|status| status.target_hash.clone()).unwrap_or_default()
    }

    /// Waits until an upgrade has another wish than the one of this hash, and gives the hash.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn another_wish(&self, name: &str, not: &str) -> Result<String> {
        let hash =
            |upgrade: &InPlaceUpgrade| upgrade.status.as_ref().map(|status| status.target_hash.clone());
        let other = |found: &String| !found.is_empty() && found != not;
        let upgrade =
            self.until(name, "another wish", |upgrade| hash(upgrade).is_some_and(|h| other(&h))).await?;
        hash(&upgrade).context("a status")
    }

    /// Waits until a run with another wish than the one of this hash has succeeded, and all is as it is wished.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn succeeded(&self, name: &str, not: &str) -> Result<InPlaceUpgrade> {
        self.until(name, "a run has succeeded", |upgrade| {
            let Some(status) = &upgrade.status else { return false };
            let run = status.last_run.as_ref().is_some_and(|run| {
                run.target_hash == status.target_hash && run.result == RunResult::Succeeded
            });
            run && status.target_hash != not && says(upgrade, &ReadyReason::UpToDate)
        })
        .await
    }

    /// Waits until pods are as `check` wants them.
    ///
    /// # Errors
    /// They do not become so.
    pub async fn pods_until<T>(&self, what: &str, check: impl FnMut(&Pods) -> Option<T>) -> Result<T> {
        self.pods.until(what, check).await
    }

    /// Waits until exactly `count` pods of a workload run an image and are ready, and gives their names.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn running(&self, workload: &Workload, image: &str, count: usize) -> Result<Vec<String>> {
        let what = format!("{count} ready pods of {} with {image}", workload.name);
        let runs = |life: &&Life| life.runs(image) && life.is_ready();
        let names = |pods: &Pods| pods.of(&workload.name).into_iter().filter(runs).map(Life::name).collect();
        self.pods
            .until(&what, |pods| Some(names(pods)).filter(|names: &Vec<String>| names.len() == count))
            .await
    }

    /// Waits until a pod of a workload has been given an image, and does not run it yet.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn under_way(&self, workload: &Workload, image: &str) -> Result<()> {
        let patched = |pods: &Pods| {
            let mut lives = pods.of(&workload.name).into_iter();
            lives.any(|life| life.image() == Some(image) && !life.runs(image)).then_some(())
        };
        self.pods.until("a pod in flight", patched).await
    }

    /// Waits until every pod of a workload is there, ready, and has its gate True where it has one.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn all_in_traffic(&self, workload: &Workload) -> Result<()> {
        let in_traffic = |pods: &Pods| {
            let lives = pods.of(&workload.name);
            let all = lives.iter().all(|life| life.is_ready() && !life.is_out);
            (all && lives.len() == workload.replicas as usize).then_some(())
        };
        self.pods.until(&format!("all pods of {} are in traffic", workload.name), in_traffic).await
    }

    /// Deletes a pod as its user, and waits until another one of its name is ready.
    ///
    /// # Errors
    /// There is none.
    pub async fn recreated(&self, name: &str) -> Result<Life> {
        let uid = self.pods.now().named(name).and_then(|life| life.pod.metadata.uid.clone());
        self.api::<Pod>().delete(name, &DeleteParams::default()).await?;
        self.pods
            .until(&format!("another pod {name}"), |pods| {
                let other = pods.named(name).filter(|life| life.pod.metadata.uid != uid);
                other.filter(|life| life.is_live() && life.is_ready()).cloned()
            })
            .await
    }

    /// Changes the status of a pod as its kubelet would.
    ///
    /// # Errors
    /// It is refused.
    pub async fn set_condition(&self, pod: &str, type_: &str, status: &str) -> Result<()> {
        let condition = json!({
            "type": type_, "status": status, "lastTransitionTime": jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
        });
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        self.api::<Pod>().patch_status(pod, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Changes the annotations of a pod; null takes one away.
    ///
    /// # Errors
    /// It is refused.
    pub async fn annotate(&self, pod: &str, annotations: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        self.api::<Pod>().patch(pod, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Deletes all upgrades and workloads while a manager runs, and waits until they are gone with their pods.
    ///
    /// # Errors
    /// They stay.
    pub async fn clear(&self) -> Result<()> {
        let (all, params) = (ListParams::default(), DeleteParams::default());
        self.api::<InPlaceUpgrade>().delete_collection(&params, &all).await?;
        self.api::<Deployment>().delete_collection(&params, &all).await?;
        self.api::<StatefulSet>().delete_collection(&params, &all).await?;
        self.api::<DaemonSet>().delete_collection(&params, &all).await?;
        self.api::<ReplicaSet>().delete_collection(&params, &all).await?;
        until_seen(PATIENCE, &format!("{} is empty", self.namespace), async || {
            let upgrades = self.api::<InPlaceUpgrade>().list(&all).await?.items.len();
            let pods = self.api::<Pod>().list(&all).await?.items.len();
            let left = format!("{upgrades} upgrades and {pods} pods stay");
            Ok(if (upgrades, pods) == (0, 0) { Ok(()) } else { Err(left) })
        })
        .await
    }

    /// All requests on objects of the namespace since it was made.
    ///
    /// # Errors
    /// The audit log cannot be read.
    pub fn requests(&self) -> Result<WriteCount> {
        Ok(self.cluster.audit_log()?.since(self.mark)?.in_namespace(&self.namespace))
    }

    /// A place in the audit log, for [`Testbed::requests_since`].
    ///
    /// # Errors
    /// The audit log cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        self.cluster.audit_log()?.mark()
    }

    /// All requests on objects of the namespace since a mark.
    ///
    /// # Errors
    /// The audit log cannot be read.
    pub fn requests_since(&self, mark: Mark) -> Result<WriteCount> {
        Ok(self.cluster.audit_log()?.since(mark)?.in_namespace(&self.namespace))
    }

    /// Runs kubectl in the namespace and gives what it prints.
    ///
    /// # Errors
    /// It fails.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl_in(&self.namespace, args).await
    }

    /// What must hold at the end of every test whose own hands changed no pod.
    ///
    /// # Errors
    /// An oracle has seen something that may never be.
    pub fn verify(&self) -> Result<()> {
        let mut wrong = self.upgrades.now().violations().to_vec();
        wrong.extend_from_slice(self.pods.now().violations());
        ensure!(wrong.is_empty(), "seen in {}:\n{}", self.namespace, wrong.join("\n"));
        Ok(())
    }
}
