//! What this controller may destroy: pods that pulled images, and its own finalizer. Derived from the stores alone, by
//! code that no planner calls.

use crate::pre_pull::PULLER_PREFIX;
use crate::projections::upgrade::{IN_PLACE_UPGRADE, UpgradeView};
use crate::watches::{PODS_BY_OWNER, Stores};
use springtide_plumbing::key::Resource;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::IndexKey;
use springtide_plumbing::warrant::{PROTECTION_LABEL, Target, Warrant, Warrants};

/// Warrants of the InPlaceUpgrade controller.
#[derive(Clone, Debug)]
pub struct InPlaceUpgradeWarrants {
    stores: Stores,
}

impl InPlaceUpgradeWarrants {
    /// Warrants by these stores.
    pub fn new(stores: Stores) -> Self {
        Self { stores }
    }

    /// A pod that one of our objects owns, and that bears a name as we give it: no pod of a workload is either.
    fn of_pod(&self, target: &Target<'_>) -> Option<Warrant> {
        let pod = self.stores.pods.get(target.key)?;
        let owner = pod.meta().controller.as_ref()?;
        let is_puller = &*owner.kind == IN_PLACE_UPGRADE.kind && target.key.name.starts_with(PULLER_PREFIX);
        if !is_puller {
            return None;
        }
        let key = springtide_plumbing::key::ObjectKey {
            namespace: target.key.namespace.clone(),
            name: owner.name.clone(),
        };
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
