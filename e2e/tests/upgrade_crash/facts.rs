//! What a run of a scenario comes to, in comparable form, and what may be in none.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::Value;
use springtide_crds::common::condition;
use springtide_crds::in_place_upgrade::{InPlaceUpgrade, TargetKind};
use springtide_e2e::crash::{Facts, World};
use springtide_e2e::upgrade::pods::{Life, is_false};
use springtide_e2e::upgrade::{GATE, PULLER_PREFIX, REVISION_LABEL, Testbed, native};
use springtide_e2e::write_count::Verb;

use crate::scenarios::Upgrading;

/// Fields of a status that differ between runs by nature: names that the API server has made, and what is said in words.
const BY_NATURE: [&str; 4] = ["message", "pod", "node", "observedGeneration"];

/// A namespace, and what is played in it.
pub(crate) struct Namespace<'a> {
    pub(crate) test: Testbed<'a>,
    pub(crate) scenario: Upgrading,
}

impl Namespace<'_> {
    async fn upgrades(&self) -> Result<Vec<InPlaceUpgrade>> {
        Ok(self.test.api::<InPlaceUpgrade>().list(&ListParams::default()).await?.items)
    }

    async fn pods(&self) -> Result<Vec<Pod>> {
        Ok(self.test.api::<Pod>().list(&ListParams::default()).await?.items)
    }

    /// What stands of the native objects: images, replicas and locks, with names left out that follow from contents.
    async fn add_native(&self, facts: &mut Facts) -> Result<()> {
        let workload = self.scenario.workload();
        let object = native::object(&self.test, &workload).await?;
        facts.add("template", native::template_image(&object));
        facts.add("paused", &object["spec"]["paused"]);
        facts.add("update strategy", &object["spec"]["updateStrategy"]);
        facts.add("annotations of the workload", native_annotations(&object));
        if workload.kind == TargetKind::Deployment {
            let mut sets = Vec::new();
            for set in native::replica_sets(&self.test, &workload.name).await? {
                sets.push(format!("{} of {}", native::replicas(&set), native::image_of(&set)?));
            }
            // The same ones, whatever their names.
            sets.sort();
            facts.add("replica sets", sets.join(", "));
        }
        Ok(())
    }
}

/// Those that are not the native controller's own.
fn native_annotations(object: &Value) -> String {
    let all = object["metadata"]["annotations"].as_object();
    let foreign =
        all.into_iter().flatten().filter(|(name, _)| !name.starts_with("deployment.kubernetes.io/"));
    foreign.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",")
}

/// A pod without its name: what it runs, how it has come to that, and whose it is.
fn shown(life: &Life) -> String {
    format!(
        "images {:?}, {} restarts, {} drains, ready {}, revision {}, labels {:?}",
        life.images,
        life.restarts(),
        life.drains,
        life.is_ready(),
        life.revision(),
        life.pod.labels().keys().filter(|key| *key != REVISION_LABEL).collect::<Vec<_>>(),
    )
}

impl World for Namespace<'_> {
    fn namespace(&self) -> &str {
        &self.test.namespace
    }

    fn resources(&self) -> [&'static str; 2] {
        ["inplaceupgrades", "pods"]
    }

    async fn observed(&self) -> Result<bool> {
        let at_rest = |upgrade: &InPlaceUpgrade| {
            upgrade.status.as_ref().is_some_and(|status| {
                Some(status.observed_generation) == upgrade.metadata.generation
                    && condition(&status.conditions, "Reconciling").is_none()
            })
        };
        Ok(self.upgrades().await?.iter().all(at_rest))
    }

    async fn facts(&self) -> Result<Facts> {
        let mut facts = Facts::default();
        for upgrade in self.upgrades().await? {
            let path = upgrade.name_any();
            facts.add_document(&path, &serde_json::to_value(&upgrade.spec)?, &[]);
            facts.add_document(&path, &serde_json::to_value(&upgrade.status)?, &BY_NATURE);
            facts.add(format!("{path}.finalizers"), upgrade.finalizers().join(","));
        }
        self.add_native(&mut facts).await?;
        let name = self.scenario.workload().name;
        let mut lives: Vec<String> = self.test.pods.now().of(&name).into_iter().map(shown).collect();
        lives.sort();
        for (number, life) in lives.into_iter().enumerate() {
            facts.add(format!("pod {number}"), life);
        }
        Ok(facts)
    }

    async fn wrong(&self, _: usize) -> Result<Vec<String>> {
        let mut wrong = self.test.upgrades.now().violations().to_vec();
        wrong.extend_from_slice(self.test.pods.now().violations());
        let ended = native::replacements(&self.test.requests()?).of_verb(Verb::Delete);
        if !ended.is_empty() && !self.scenario.rolls_before() {
            wrong.push(format!("pods were ended:\n{ended}"));
        }
        let made = self.test.requests()?.writes().successful().of_resource("pods/eviction");
        if !made.is_empty() {
            wrong.push(format!("pods were evicted:\n{made}"));
        }
        for pod in self.pods().await? {
            if pod.name_any().starts_with(PULLER_PREFIX) {
                wrong.push(format!("{} is left", pod.name_any()));
            }
            if is_false(&pod, GATE) {
                wrong.push(format!("{} is left without traffic", pod.name_any()));
            }
        }
        Ok(wrong)
    }

    async fn clear(&self) -> Result<()> {
        self.test.clear().await
    }
}
