//! What this controller may destroy: pods that pulled images, pods of workloads that a run makes anew (these it evicts,
//! and nothing else may become of them), and its own finalizer. Derived from the stores alone, by code that no planner
//! calls.

mod evictions;

use crate::pre_pull::PULLER_PREFIX;
use crate::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use crate::watches::Stores;
use evictions::Evictions;
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::IndexKey;
use springtide_plumbing::warrant::{PROTECTION_LABEL, Target, Warrant, Warrants};
use springtide_plumbing::workloads::indexes::PODS_BY_OWNER;

/// Warrants of the InPlaceUpgrade controller.
#[derive(Clone, Debug)]
pub struct InPlaceUpgradeWarrants {
    stores: Stores,
    evictions: Evictions,
}

impl InPlaceUpgradeWarrants {
    /// Warrants by these stores.
    pub fn new(stores: Stores) -> Self {
        Self { stores, evictions: Evictions::default() }
    }

    /// A pod that one of our objects owns, and that bears a name as we give it, which no pod of a workload does; else a pod
    /// that a run makes anew.
    fn of_pod(&self, target: &Target<'_>) -> Option<Warrant> {
        let pod = self.stores.pods.get(target.key)?;
        let owner = pod.meta().controller.as_ref()?;
        let is_puller = &*owner.kind == IN_PLACE_UPGRADE.kind && target.key.name.starts_with(PULLER_PREFIX);
        if !is_puller {
            return self.evictions.warrant(&self.stores, &pod);
        }
        let key = ObjectKey { namespace: target.key.namespace.clone(), name: owner.name.clone() };
        let upgrade = self.stores.upgrades.get(&key).filter(|upgrade| upgrade.meta().uid == owner.uid);
        match upgrade {
            Some(upgrade) if !upgrade.meta().is_deleting() => Some(Warrant::Finished),
            Some(_) | None => Some(Warrant::OwnerGone),
        }
    }

    /// The finalizer holds an object while a run is open or it is being deleted with something to give back.
    fn of_finalizer(&self, target: &Target<'_>) -> Option<Warrant> {
        let upgrade = self.stores.upgrades.get(target.key)?;
        let is_over = |upgrade: &UpgradeView| !upgrade.is_run_open() || upgrade.meta().is_deleting();
        is_over(&upgrade).then_some(Warrant::Declared)
    }
}

impl Warrants for InPlaceUpgradeWarrants {
    fn warrant(&self, target: &Target<'_>) -> Option<Warrant> {
        if target.resource == Resource::POD && target.is_delete {
            self.of_pod(target)
        } else if target.resource == IN_PLACE_UPGRADE && !target.is_delete {
            self.of_finalizer(target)
        } else {
            None
        }
    }

    fn is_protected(&self, target: &Target<'_>) -> bool {
        let pod = (target.resource == Resource::POD).then(|| self.stores.pods.get(target.key)).flatten();
        pod.is_some_and(|pod| pod.meta().labels.contains_key(PROTECTION_LABEL))
    }

    fn live(&self, resource: Resource, namespace: Option<&str>) -> usize {
        if resource != Resource::POD {
            return self.stores.upgrades.list(namespace).len();
        }
        let upgrades = self.stores.upgrades.list(namespace);
        let pullers = upgrades.iter().map(|upgrade| {
            self.stores.pods.by_index(&PODS_BY_OWNER, &IndexKey::from(&upgrade.meta().uid)).len()
        });
        pullers.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{deployment, pod, replica_set};
    use crate::watches::rig::{Rig, put, upgrade};
    use serde_json::{Value, json};

    fn owned_by(kind: &str, name: &str, uid: &str) -> Value {
        let owner = json!({"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true});
        json!({"metadata": {"ownerReferences": [owner]}})
    }

    fn warrant(rig: &Rig, resource: Resource, name: &str, is_delete: bool) -> Option<Warrant> {
        let key = ObjectKey::new("ns", name);
        let target = Target { resource, key: &key, uid: None, is_delete };
        InPlaceUpgradeWarrants::new(rig.stores.clone()).warrant(&target)
    }

    fn of_pod(rig: &Rig, name: &str) -> Option<Warrant> {
        warrant(rig, Resource::POD, name, true)
    }

    fn of_finalizer(rig: &Rig, name: &str) -> Option<Warrant> {
        warrant(rig, IN_PLACE_UPGRADE, name, false)
    }

    fn deleting() -> Value {
        let held = ["springtide.dev/in-place-upgrade"];
        json!({"metadata": {"deletionTimestamp": "2026-11-23T10:00:00Z", "finalizers": held}})
    }

    #[test]
    fn no_pod_of_a_workload_may_go_whatever_its_name_but_by_a_run_that_makes_pods_anew() {
        let mut rig = Rig::new();
        put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", true, json!({})));
        put(&mut rig.deployments, &deployment(4, "app:2", json!({})));
        put(&mut rig.replica_sets, &replica_set("rs", 1, 4, "app:1"));
        put(&mut rig.pods, &pod("web-1", json!({})));
        put(&mut rig.pods, &pod("ipu-pull-of-a-set", json!({})));
        put(&mut rig.pods, &pod("ipu-pull-of-nobody", json!({"metadata": {"ownerReferences": []}})));
        put(&mut rig.pods, &pod("web-of-ours", owned_by("InPlaceUpgrade", "web", "web")));
        for name in ["web-1", "ipu-pull-of-a-set", "ipu-pull-of-nobody", "web-of-ours", "not-there"] {
            assert_eq!(of_pod(&rig, name), None, "{name}");
        }
        let over = json!({
            "metadata": {"resourceVersion": "2"},
            "spec": {"policy": {"ineligible": "Recreate"}, "strategy": {"maxUnavailable": "100%"}},
        });
        put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", true, over));
        for name in ["web-1", "ipu-pull-of-a-set"] {
            assert_eq!(of_pod(&rig, name), Some(Warrant::Declared), "{name}");
            assert_eq!(warrant(&rig, Resource::POD, name, false), None, "it bears no finalizer of ours");
        }
        for name in ["ipu-pull-of-nobody", "web-of-ours", "not-there"] {
            assert_eq!(of_pod(&rig, name), None, "{name}");
        }
    }

    #[test]
    fn a_puller_may_go_when_it_has_pulled_or_its_object_is_gone() {
        let mut rig = Rig::new();
        put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", true, json!({})));
        put(&mut rig.upgrades, &upgrade("leaving", "Deployment", "leaving", true, deleting()));
        for (name, owner, uid, expected) in [
            ("ipu-pull-1", "web", "web", Warrant::Finished),
            ("ipu-pull-2", "web", "an-earlier-one", Warrant::OwnerGone),
            ("ipu-pull-3", "gone", "gone", Warrant::OwnerGone),
            ("ipu-pull-4", "leaving", "leaving", Warrant::OwnerGone),
        ] {
            put(&mut rig.pods, &pod(name, owned_by("InPlaceUpgrade", owner, uid)));
            assert_eq!(of_pod(&rig, name), Some(expected), "{name}");
            assert_eq!(warrant(&rig, Resource::POD, name, false), None, "it bears no finalizer of ours");
        }
    }

    #[test]
    fn a_finalizer_goes_with_the_run_or_with_the_object_and_the_object_itself_never() {
        let mut rig = Rig::new();
        put(&mut rig.upgrades, &upgrade("running", "Deployment", "a", true, json!({})));
        put(&mut rig.upgrades, &upgrade("resting", "Deployment", "b", false, json!({})));
        put(&mut rig.upgrades, &upgrade("leaving", "Deployment", "c", true, deleting()));
        assert_eq!(of_finalizer(&rig, "running"), None);
        assert_eq!(of_finalizer(&rig, "resting"), Some(Warrant::Declared));
        assert_eq!(of_finalizer(&rig, "leaving"), Some(Warrant::Declared));
        assert_eq!(of_finalizer(&rig, "not-there"), None);
        assert_eq!(warrant(&rig, IN_PLACE_UPGRADE, "resting", true), None);
        assert_eq!(warrant(&rig, Resource::NODE, "resting", true), None, "nothing else is ours to destroy");
    }

    #[test]
    fn a_puller_with_the_label_is_protected() {
        let mut rig = Rig::new();
        let mut marked = owned_by("InPlaceUpgrade", "web", "web");
        marked["metadata"]["labels"] = json!({PROTECTION_LABEL: ""});
        put(&mut rig.pods, &pod("ipu-pull-1", marked));
        put(&mut rig.pods, &pod("ipu-pull-2", owned_by("InPlaceUpgrade", "web", "web")));
        let warrants = InPlaceUpgradeWarrants::new(rig.stores.clone());
        let is_protected = |resource: Resource, name: &str| {
            let key = ObjectKey::new("ns", name);
            warrants.is_protected(&Target { resource, key: &key, uid: None, is_delete: true })
        };
        assert!(is_protected(Resource::POD, "ipu-pull-1"));
        assert!(!is_protected(Resource::POD, "ipu-pull-2") && !is_protected(Resource::POD, "not-there"));
        assert!(!is_protected(IN_PLACE_UPGRADE, "ipu-pull-1"), "it is another kind");
    }

    #[test]
    fn caps_are_measured_by_pullers_and_objects_and_not_by_the_pods_of_workloads() {
        let mut rig = Rig::new();
        put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", true, json!({})));
        put(&mut rig.upgrades, &upgrade("idle", "Deployment", "idle", false, json!({})));
        let elsewhere = json!({"metadata": {"namespace": "other", "uid": "elsewhere"}});
        put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", false, elsewhere));
        put(&mut rig.pods, &pod("web-1", json!({})));
        put(&mut rig.pods, &pod("ipu-pull-1", owned_by("InPlaceUpgrade", "web", "web")));
        put(&mut rig.pods, &pod("ipu-pull-2", owned_by("InPlaceUpgrade", "web", "web")));
        let warrants = InPlaceUpgradeWarrants::new(rig.stores.clone());
        let live =
            |resource| [Some("ns"), Some("other"), None].map(|namespace| warrants.live(resource, namespace));
        assert_eq!(live(Resource::POD), [2, 0, 2]);
        assert_eq!(live(IN_PLACE_UPGRADE), [2, 1, 3]);
    }
}
