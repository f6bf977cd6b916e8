//! Which pods of workloads may be evicted: an open run declares that those are made anew which cannot be changed, and by how
//! many less of them the workload may be at a time.

use crate::projections::upgrade::UpgradeView;
use crate::watches::{Stores, UPGRADES_BY_TARGET, target_kind};
use springtide_crds::in_place_upgrade::{Ineligible, Mode, TargetKind};
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::{OwnerRef, Projection};
use springtide_plumbing::store::IndexKey;
use springtide_plumbing::warrant::Warrant;
use springtide_plumbing::workloads::indexes::{PODS_BY_OWNER, workload_key};
use springtide_plumbing::workloads::pod::PodView;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Pods that were warranted to go, by their owner, as long as the stores may not show it yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Evictions {
    given: Arc<Mutex<HashMap<Uid, HashSet<Uid>>>>,
}

/// A workload, as far as the count of its pods goes.
struct Workload {
    kind: TargetKind,
    name: Arc<str>,
    replicas: u32,
}

impl Evictions {
    /// Why a pod of a workload may be evicted; `None` where nothing says so.
    pub(super) fn warrant(&self, stores: &Stores, pod: &PodView) -> Option<Warrant> {
        let owner = pod.meta().controller.as_ref()?;
        let workload = workload(stores, &pod.meta().key.namespace, owner)?;
        let index = workload_key(workload.kind, &pod.meta().key.namespace, &workload.name);
        let upgrades = stores.upgrades.by_index(&UPGRADES_BY_TARGET, &index);
        let upgrade = upgrades.iter().find(|upgrade| declares(upgrade))?;
        let siblings = stores.pods.by_index(&PODS_BY_OWNER, &IndexKey::from(&owner.uid));
        let live: HashSet<&Uid> =
            siblings.iter().filter(|pod| pod.is_live()).map(|pod| &pod.meta().uid).collect();
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = given.entry(owner.uid.clone()).or_default();
        gone.retain(|uid| live.contains(uid));
        let is_in_service =
            |pod: &PodView| pod.is_live() && pod.is_ready() && !gone.contains(&pod.meta().uid);
        // One that is in no service takes nothing from anybody, and one that was let go is let go.
        if is_in_service(pod) {
            let in_service = siblings.iter().filter(|pod| is_in_service(pod)).count();
            let in_service = u32::try_from(in_service).unwrap_or(u32::MAX);
            let most = upgrade.spec.strategy.max_unavailable.round_down(workload.replicas).max(1);
            if workload.replicas.saturating_sub(in_service) >= most {
                return None;
            }
        }
        gone.insert(pod.meta().uid.clone());
        Some(Warrant::Declared)
    }
}

/// Whether an open run makes pods anew.
fn declares(upgrade: &UpgradeView) -> bool {
    let policy = match upgrade.spec.policy.ineligible {
        Ineligible::Recreate => true,
        Ineligible::Block | Ineligible::Ignore => false,
    };
    let acts = match upgrade.spec.mode {
        Mode::Apply => true,
        Mode::Plan | Mode::Paused => false,
    };
    policy && acts && upgrade.is_run_open() && !upgrade.meta().is_deleting()
}

/// The workload that a pod is of, by the owner of the pod: of a ReplicaSet that a Deployment owns it is that.
fn workload(stores: &Stores, namespace: &Arc<str>, owner: &OwnerRef) -> Option<Workload> {
    let key = |name: &Arc<str>| ObjectKey { namespace: namespace.clone(), name: name.clone() };
    let kind = target_kind(owner)?;
    let name = owner.name.clone();
    let replicas = match kind {
        // No pod is of one.
        TargetKind::Deployment => return None,
        TargetKind::ReplicaSet => {
            let set = stores.replica_sets.get(&key(&name)).filter(|set| set.meta().uid == owner.uid)?;
            if let Some(owner) = &set.meta().controller {
                let kind = target_kind(owner)?;
                let found = stores.deployments.get(&key(&owner.name));
                let found = found.filter(|deployment| deployment.meta().uid == owner.uid)?;
                return Some(Workload { kind, name: owner.name.clone(), replicas: found.replicas });
            }
            set.replicas
        }
        TargetKind::StatefulSet => {
            let set = stores.stateful_sets.get(&key(&name)).filter(|set| set.meta().uid == owner.uid)?;
            set.replicas
        }
        TargetKind::DaemonSet => {
            let set = stores.daemon_sets.get(&key(&name)).filter(|set| set.meta().uid == owner.uid)?;
            set.desired
        }
    };
    Some(Workload { kind, name, replicas })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{daemon_set, deployment, overlay, pod, replica_set, stateful_set};
    use crate::watches::rig::{Rig, bare, put, upgrade};
    use serde_json::{Value, json};

    fn policy(policy: &str, max_unavailable: u32) -> Value {
        json!({"spec": {"policy": {"ineligible": policy}, "strategy": {"maxUnavailable": max_unavailable}}})
    }

    /// A Deployment of four pods, all in service.
    fn rig(has_run: bool, over: Value) -> Rig {
        let mut rig = Rig::new();
        put(&mut rig.upgrades, &upgrade("web", "Deployment", "web", has_run, over));
        put(&mut rig.deployments, &deployment(4, "app:2", json!({})));
        put(&mut rig.replica_sets, &replica_set("rs", 1, 4, "app:1"));
        for name in ["a", "b", "c", "d"] {
            put(&mut rig.pods, &pod(name, json!({})));
        }
        rig
    }

    fn given(evictions: &Evictions, rig: &Rig, names: &[&str]) -> Vec<bool> {
        let pod = |name: &str| rig.stores.pods.get(&ObjectKey::new("ns", name)).unwrap();
        names.iter().map(|name| evictions.warrant(&rig.stores, &pod(name)).is_some()).collect()
    }

    /// A version of a pod, as the store takes no version twice.
    fn version(name: &str, version: u32, over: Value) -> Arc<PodView> {
        let mut whole = json!({"metadata": {"resourceVersion": version.to_string()}});
        overlay(&mut whole, over);
        pod(name, whole)
    }

    #[test]
    fn no_more_pods_of_a_run_are_let_go_than_may_be_unavailable_before_the_stores_show_it() {
        let mut rig = rig(true, policy("Recreate", 2));
        let evictions = Evictions::default();
        assert_eq!(given(&evictions, &rig, &["a", "b", "c", "a"]), [true, true, false, true]);
        let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        put(&mut rig.pods, &version("d", 11, unready));
        assert_eq!(given(&evictions, &rig, &["d"]), [true], "it is in no service");
        // What came in the place of the first two is in service.
        let deleting = json!({"metadata": {"deletionTimestamp": "2026-11-23T10:00:00Z"}});
        for (old, new) in [("a", "e"), ("b", "f"), ("d", "g")] {
            put(&mut rig.pods, &version(old, 12, deleting.clone()));
            put(&mut rig.pods, &pod(new, json!({})));
        }
        assert_eq!(given(&evictions, &rig, &["c", "e"]), [true, true]);
        assert_eq!(given(&evictions, &rig, &["f"]), [false]);
    }

    #[test]
    fn nothing_else_lets_a_pod_of_a_workload_go() {
        let none = |rig: &Rig| given(&Evictions::default(), rig, &["a"]) == [false];
        assert!(none(&rig(false, policy("Recreate", 2))), "no run is open");
        assert!(none(&rig(true, policy("Block", 2))) && none(&rig(true, policy("Ignore", 2))));
        let mut paused = policy("Recreate", 2);
        overlay(&mut paused, json!({"spec": {"mode": "Paused"}}));
        assert!(none(&rig(true, paused)));
        let mut other = rig(true, policy("Recreate", 2));
        let mut moved = policy("Recreate", 2);
        overlay(&mut moved, json!({"metadata": {"resourceVersion": "2"}}));
        put(&mut other.upgrades, &upgrade("web", "Deployment", "another", true, moved));
        assert!(none(&other), "it is of another workload");
        let mut orphans = rig(true, policy("Recreate", 2));
        let before = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "x", "controller": true}]);
        put(&mut orphans.pods, &version("a", 11, json!({"metadata": {"ownerReferences": before}})));
        assert!(none(&orphans), "its owner is another one of the name");
    }

    #[test]
    fn pods_of_every_kind_of_workload_are_known() {
        let mut rig = Rig::new();
        put(&mut rig.stateful_sets, &stateful_set(1, "app:2", json!({}), json!({})));
        put(&mut rig.daemon_sets, &daemon_set(1, "app:2", true));
        put(&mut rig.replica_sets, &bare("ns", "bare", json!({"spec": {"replicas": 1}})));
        for (kind, name) in [("StatefulSet", "db"), ("DaemonSet", "log"), ("ReplicaSet", "bare")] {
            put(&mut rig.upgrades, &upgrade(name, kind, name, true, policy("Recreate", 1)));
            let owner = json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "controller": true}]);
            let pod_name = format!("{name}-0");
            put(&mut rig.pods, &pod(&pod_name, json!({"metadata": {"ownerReferences": owner}})));
            assert_eq!(given(&Evictions::default(), &rig, &[&pod_name]), [true], "{kind}");
        }
    }
}
