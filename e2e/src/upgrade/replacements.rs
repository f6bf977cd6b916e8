//! Every ReplicaSet that is made, and every pod that is made or ended, while pods are only to be changed: watched from the
//! first to the last, whoever does it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::PULLER_PREFIX;
use super::testbed::Testbed;
use crate::oracle::feed::{Feed, Fold};

/// Field managers of what a manager makes begin so.
const OURS: &str = "springtide-";

/// What native controllers make and end when they replace pods.
pub trait Replaceable:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static
{
    /// Whether one that was not there at the beginning, made by this field manager, replaces nothing.
    fn replaces_nothing(&self, maker: &str) -> bool;

    /// Whether one that was there at the beginning may go.
    fn may_go(&self) -> bool;
}

impl Replaceable for ReplicaSet {
    /// One that keeps an old template has no pods.
    fn replaces_nothing(&self, maker: &str) -> bool {
        maker.starts_with(OURS) && is_empty(self)
    }

    /// The history is trimmed.
    fn may_go(&self) -> bool {
        is_empty(self)
    }
}

impl Replaceable for Pod {
    fn replaces_nothing(&self, maker: &str) -> bool {
        maker.starts_with(OURS) && self.name_any().starts_with(PULLER_PREFIX)
    }

    fn may_go(&self) -> bool {
        false
    }
}

fn is_empty(set: &ReplicaSet) -> bool {
    set.spec.replicas == Some(0)
}

/// One object from its first version on.
#[derive(Debug)]
struct Life {
    /// Who has made it.
    maker: String,
    /// Whether it was there at the beginning.
    is_old: bool,
    /// Whether something was said against it: once is enough.
    is_told: bool,
    /// As far as that one is harmless: see [`Replaceable::may_go`].
    may_go: bool,
    name: String,
}

/// All objects of a kind seen so far.
#[derive(Debug)]
pub struct Seen<K> {
    lists: usize,
    lives: BTreeMap<String, Life>,
    /// Whether from now on nothing is to be made or ended.
    has_begun: bool,
    violations: Vec<String>,
    _kind: std::marker::PhantomData<fn() -> K>,
}

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self {
            lists: 0,
            lives: BTreeMap::new(),
            has_begun: false,
            violations: Vec::new(),
            _kind: std::marker::PhantomData,
        }
    }
}

impl<K: Replaceable> Seen<K> {
    /// What is there now is what is to stay.
    pub fn begin(&mut self) {
        self.has_begun = true;
        self.lives.values_mut().for_each(|life| life.is_old = true);
    }

    /// What was made or ended since then, a line each, and whether something may have been missed.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let gaps = self.lists.saturating_sub(1);
        let gap = (gaps > 0).then(|| format!("the oracle has missed events: it relisted {gaps} times"));
        self.violations.iter().cloned().chain(gap).collect()
    }

    fn gone(&mut self, uid: &str) {
        let Some(life) = self.lives.remove(uid) else { return };
        if self.has_begun && life.is_old && !life.may_go && !life.is_told {
            self.violations.push(format!("{} {} is gone", K::kind(&()), life.name));
        }
    }
}

impl<K: Replaceable> Fold for Seen<K> {
    type Object = K;

    fn apply(&mut self, object: K) {
        let Some(uid) = object.uid() else { return };
        let (name, kind) = (object.name_any(), K::kind(&()));
        let is_new = !self.lives.contains_key(&uid);
        let life = self.lives.entry(uid).or_insert_with(|| {
            // The first version has the entry of its maker alone.
            let maker = object.managed_fields().first().and_then(|entry| entry.manager.clone());
            let maker = maker.unwrap_or_default();
            Life { maker, is_old: !self.has_begun, is_told: false, may_go: false, name }
        });
        life.may_go = object.may_go();
        if !self.has_begun || life.is_told {
            return;
        }
        let is_ending = object.meta().deletion_timestamp.is_some();
        let what = match life.is_old {
            true if is_ending && !life.may_go => "is being deleted",
            false if is_new && !object.replaces_nothing(&life.maker) => "was made",
            false if !object.replaces_nothing(&life.maker) => "has pods",
            true | false => return,
        };
        life.is_told = true;
        self.violations.push(format!("{kind} {}, made by {}, {what}", life.name, life.maker));
    }

    fn delete(&mut self, object: &K) {
        if let Some(uid) = object.uid() {
            self.gone(&uid);
        }
    }

    fn relisted(&mut self, present: &[K]) {
        self.lists += 1;
        let present: BTreeSet<String> = present.iter().filter_map(ResourceExt::uid).collect();
        let missing: Vec<String> = self.lives.keys().filter(|uid| !present.contains(*uid)).cloned().collect();
        missing.iter().for_each(|uid| self.gone(uid));
    }

    fn describe(&self) -> String {
        self.lives.values().map(|life| format!("{life:?}\n")).collect()
    }
}

/// The oracle of one namespace.
pub struct Replacements {
    sets: Feed<Seen<ReplicaSet>>,
    pods: Feed<Seen<Pod>>,
}

impl Replacements {
    /// Starts to watch a namespace in which all workloads that are to be changed have their pods: from now on none is to be
    /// made or ended.
    ///
    /// # Errors
    /// The watches do not begin.
    pub async fn watch(test: &Testbed<'_>) -> Result<Self> {
        let seen = Self { sets: Feed::start(test.api()).await?, pods: Feed::start(test.api()).await? };
        seen.sets.now().begin();
        seen.pods.now().begin();
        Ok(seen)
    }

    /// What native controllers have made or ended, a line each.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let mut all = self.sets.now().violations();
        all.extend(self.pods.now().violations());
        all
    }

    /// # Errors
    /// A ReplicaSet was made by somebody else than a manager, or has got pods beside the one that had them; or a pod was
    /// made or ended.
    pub fn ensure_none(&self) -> Result<()> {
        let violations = self.violations();
        ensure!(violations.is_empty(), "pods were replaced, or about to be:\n{}", violations.join("\n"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<K: DeserializeOwned>(uid: &str, maker: &str, spec: Value) -> K {
        serde_json::from_value(json!({
            "metadata": {
                "name": format!("web-{uid}"), "uid": uid,
                "managedFields": [{"manager": maker, "operation": "Update"}],
            },
            "spec": spec,
        }))
        .unwrap()
    }

    fn set(uid: &str, maker: &str, replicas: i32) -> ReplicaSet {
        let selector = json!({"matchLabels": {"app": "web"}});
        object(uid, maker, json!({"replicas": replicas, "selector": selector}))
    }

    fn pod(uid: &str) -> Pod {
        object(uid, "kube-controller-manager", json!({"containers": []}))
    }

    fn begun<K: Replaceable>(there: impl IntoIterator<Item = K>) -> Seen<K> {
        let mut seen = Seen::default();
        seen.relisted(&[]);
        there.into_iter().for_each(|object| seen.apply(object));
        seen.begin();
        seen
    }

    #[test]
    fn a_replica_set_of_the_native_controller_is_one_too_many_and_one_that_keeps_a_template_is_not() {
        let mut seen = begun([set("1", "kube-controller-manager", 3)]);
        seen.apply(set("1", "kube-controller-manager", 3));
        seen.apply(set("2", "springtide-in-place-upgrade", 0));
        seen.delete(&set("2", "springtide-in-place-upgrade", 0));
        assert_eq!(seen.violations(), [""; 0]);
        seen.apply(set("3", "kube-controller-manager", 0));
        seen.apply(set("3", "kube-controller-manager", 1));
        assert_eq!(seen.violations(), ["ReplicaSet web-3, made by kube-controller-manager, was made"]);
        let mut seen = begun([set("1", "kube-controller-manager", 3)]);
        seen.apply(set("2", "springtide-in-place-upgrade", 0));
        seen.apply(set("2", "springtide-in-place-upgrade", 1));
        assert_eq!(seen.violations(), ["ReplicaSet web-2, made by springtide-in-place-upgrade, has pods"]);
    }

    #[test]
    fn a_pod_that_is_made_or_ended_is_a_replacement_and_the_history_may_be_trimmed() {
        let mut seen = begun([pod("1"), pod("2")]);
        seen.apply(pod("1"));
        assert_eq!(seen.violations(), [""; 0]);
        seen.delete(&pod("1"));
        seen.apply(pod("3"));
        assert_eq!(seen.violations().len(), 2, "{:?}", seen.violations());
        let mut missed = begun([pod("1")]);
        missed.relisted(&[]);
        assert_eq!(missed.violations().len(), 2, "one is gone, and others may have come and gone");
        let mut trimmed = begun([set("1", "kube-controller-manager", 0)]);
        trimmed.delete(&set("1", "kube-controller-manager", 0));
        assert_eq!(trimmed.violations(), [""; 0]);
    }
}
