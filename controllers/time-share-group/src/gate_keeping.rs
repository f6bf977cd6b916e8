//! Gate keeping: a pod that has our gate or label is in traffic, unless its workload is a member of a group.
//!
//! A member's pods are their group's alone, whatever state that is in: one at valley size has no traffic for hours, and its
//! gate may never have been set. Pods of a workload that no group has, or has any more, get traffic here.

use crate::RIGHTS;
use crate::projections::group::GroupView;
use crate::traffic::closed;
use crate::watches::Stores;
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_crds::time_share_group::MemberKind;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::rights::Rights;
use springtide_plumbing::store::{Change, Store, StoreView};
use springtide_plumbing::time_share::ReferenceGrantView;
use springtide_plumbing::traffic::{Lever, Names, Signals};
use springtide_plumbing::workloads::gate_keeping::{self, Gates, LookThrough};
use springtide_plumbing::workloads::kinds::ReplicaSetView;
use springtide_plumbing::workloads::names::TIME_SHARE_TRAFFIC;
use springtide_plumbing::workloads::pod::PodView;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The controller of gates and labels. Its keys are those of pods.
pub type GateKeeper = gate_keeping::GateKeeper<TimeShareGates>;

/// Whose pods may be without traffic: those of groups' members. A group of another namespace has one only by a grant of
/// the workload's, so that nobody closes gates where he has no say.
#[derive(Clone, Debug)]
pub struct TimeShareGates {
    stores: Stores,
}

impl From<Stores> for TimeShareGates {
    fn from(stores: Stores) -> Self {
        Self { stores }
    }
}

impl Gates for TimeShareGates {
    const NAME: &'static str = "time-share-group-gates";
    const RIGHTS: Rights = RIGHTS;
    const NAMES: Names = TIME_SHARE_TRAFFIC;

    fn signals(pod: &PodView) -> &Signals {
        &pod.time_share
    }

    /// Templates say `"false"` of the label, so it is kept as the gate is.
    fn forgotten(signals: &Signals, is_held: impl FnOnce() -> bool) -> Option<Lever> {
        closed(signals).next().filter(|_| !is_held())
    }

    fn holds(&self, kind: TargetKind, workload: &ObjectKey) -> bool {
        self.stores.group_of(kind, workload).is_some()
    }

    fn pods(&self) -> &Store<PodView> {
        &self.stores.pods
    }

    fn replica_sets(&self) -> &Store<ReplicaSetView> {
        &self.stores.replica_sets
    }

    fn views(&self) -> Vec<Arc<dyn StoreView>> {
        let Stores { groups, grants, pods, replica_sets, .. } = &self.stores;
        vec![
            Arc::new(groups.clone()),
            Arc::new(grants.clone()),
            Arc::new(pods.clone()),
            Arc::new(replica_sets.clone()),
        ]
    }

    fn listen(&self, look_through: LookThrough) {
        let look = Arc::clone(&look_through);
        self.stores.groups.on_change(Arc::new(move |change| {
            for namespace in let_go(change) {
                look(&namespace);
            }
        }));
        self.stores.grants.on_change(Arc::new(move |change| {
            if may_take_back(change) {
                look_through(&change.object().meta().key.namespace);
            }
        }));
    }
}

/// Namespaces of the workloads that a group has no more.
fn let_go(change: &Change<GroupView>) -> BTreeSet<Arc<str>> {
    let (old, new) = match change {
        // In a switch its status is written every second.
        Change::Apply { old: Some(old), new, .. } if old.meta().generation == new.meta().generation => {
            return BTreeSet::new();
        }
        Change::Apply { old: Some(old), new, .. } => (workloads(old), workloads(new)),
        Change::Apply { old: None, .. } => return BTreeSet::new(),
        Change::Delete { last } => (workloads(last), BTreeSet::new()),
    };
    old.difference(&new).map(|(_, workload)| Arc::clone(&workload.namespace)).collect()
}

fn workloads(group: &GroupView) -> BTreeSet<(MemberKind, ObjectKey)> {
    group.spec.members.iter().map(|member| (member.target_ref.kind, group.target_key(member))).collect()
}

/// Whether a change of a grant may take a workload from a group.
fn may_take_back(change: &Change<ReferenceGrantView>) -> bool {
    match change {
        Change::Apply { old: Some(old), new, .. } => old.meta().generation != new.meta().generation,
        Change::Apply { old: None, .. } => false,
        Change::Delete { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{NAMESPACE, at, group, member, overlay, pod, serving};
    use crate::watches::rig::{Rig, bare, put, replica_set};
    use serde_json::{Value, json};
    use springtide_plumbing::controller::Reconciler;

    /// A group in a namespace, of this generation, with members that lie over [`member`]: in the place of those that the
    /// fixture has.
    fn sharing(namespace: &str, generation: i64, members: &[Value]) -> Arc<GroupView> {
        let mut whole = GroupView::clone(&group(json!({
            "metadata": {"namespace": namespace, "generation": generation},
        })));
        let members = members.iter().map(|over| {
            let mut whole = member(over["name"].as_str().unwrap());
            overlay(&mut whole, over.clone());
            serde_json::from_value(whole).unwrap()
        });
        whole.spec.members = members.collect();
        Arc::new(whole)
    }

    fn named(names: &[&str]) -> Vec<Value> {
        names.iter().map(|name| json!({"name": name})).collect()
    }

    fn grant(generation: i64) -> Arc<ReferenceGrantView> {
        let from = json!([{"kind": "TimeShareGroup", "namespace": "capacity"}]);
        let spec = json!({"from": from, "to": [{"kind": "Deployment", "name": "pay"}]});
        bare(NAMESPACE, "shares", json!({"metadata": {"generation": generation}, "spec": spec}))
    }

    /// Writes to pod `pay-1` of Deployment `pay`.
    fn writes(over: Value, groups: &[Arc<GroupView>], grants: &[Arc<ReferenceGrantView>]) -> usize {
        let mut rig = Rig::new();
        put(&mut rig.pods, &pod("pay-1", "n1", over));
        put(&mut rig.replica_sets, &replica_set("pay-1", Some("pay")));
        groups.iter().for_each(|group| put(&mut rig.groups, group));
        grants.iter().for_each(|grant| put(&mut rig.grants, grant));
        let keeper = GateKeeper::new(rig.stores.clone());
        let found = keeper.observe(&ObjectKey::new(NAMESPACE, "pay-1"), None, at(0)).unwrap();
        keeper.plan(&found, at(0)).writes()
    }

    fn gated() -> Value {
        let mut over = json!({"spec": {"readinessGates": [{"conditionType": TIME_SHARE_TRAFFIC.gate}]}});
        overlay(&mut over, serving("true"));
        over
    }

    #[test]
    fn gate_and_label_of_a_pod_of_no_group_are_turned_on_whoever_has_turned_them_off() {
        let closed = {
            let mut over = gated();
            let condition = json!({"type": TIME_SHARE_TRAFFIC.gate, "status": "False", "message": "run=7"});
            overlay(&mut over, json!({"status": {"conditions": [condition]}}));
            over
        };
        for over in [serving("false"), serving("by hand"), gated(), closed] {
            let promo = [sharing(NAMESPACE, 1, &named(&["promo"]))];
            let both = [sharing(NAMESPACE, 1, &named(&["promo", "pay"]))];
            assert_eq!(writes(over.clone(), &[], &[]), 1, "{over}");
            assert_eq!(writes(over.clone(), &promo, &[]), 1, "{over}");
            assert_eq!(writes(over, &both, &[]), 0);
        }
        assert_eq!(writes(serving("true"), &[], &[]), 0);
    }

    #[test]
    fn a_group_of_another_namespace_holds_a_pod_by_grant_alone() {
        let theirs = json!({"name": "pay", "targetRef": {"namespace": NAMESPACE}});
        let groups = [sharing("capacity", 1, &[theirs])];
        assert_eq!(writes(serving("false"), &groups, &[]), 1);
        assert_eq!(writes(serving("false"), &groups, &[grant(1)]), 0);
    }

    #[test]
    fn a_namespace_is_looked_through_when_a_group_lets_a_workload_of_it_go() {
        let elsewhere = json!({"name": "promo", "targetRef": {"namespace": "events"}});
        let both = sharing(NAMESPACE, 1, &[json!({"name": "pay"}), elsewhere]);
        let one = sharing(NAMESPACE, 2, &named(&["pay"]));
        let apply = |old: Option<&Arc<GroupView>>, new: &Arc<GroupView>| {
            let_go(&Change::Apply { old: old.cloned(), new: Arc::clone(new), initial: false })
        };
        assert_eq!(apply(Some(&both), &one), BTreeSet::from(["events".into()]));
        assert!(apply(Some(&one), &both).is_empty() && apply(Some(&both), &both).is_empty());
        assert!(apply(None, &both).is_empty());
        let gone = let_go(&Change::Delete { last: both });
        assert_eq!(gone, BTreeSet::from(["events".into(), NAMESPACE.into()]));
    }

    #[test]
    fn a_namespace_is_looked_through_when_a_grant_of_it_is_changed_or_goes() {
        let apply = |old: Option<i64>, new: i64| {
            let old = old.map(grant);
            may_take_back(&Change::Apply { old, new: grant(new), initial: false })
        };
        assert!(apply(Some(1), 2) && may_take_back(&Change::Delete { last: grant(1) }));
        assert!(!apply(Some(1), 1) && !apply(None, 1));
    }
}
