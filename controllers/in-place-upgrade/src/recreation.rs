//! Pods that cannot be changed in place and are made anew: whether their controller would make them as they are wished,
//! and who has to act first.

use crate::target::Target;
use crate::wish::Wish;
use springtide_crds::in_place_upgrade::{Lock, Persist};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::warrant::PROTECTION_LABEL;
use springtide_plumbing::workloads::kinds::{StatefulSetStrategy, StatefulSetView};
use springtide_plumbing::workloads::names::CONTROLLER_REVISION_HASH;
use springtide_plumbing::workloads::pod::PodView;

/// How a pod comes to be made anew as it is wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// It is evicted: what its controller makes in its place is as it is wished.
    Eviction,
    /// Its controller deletes it by itself.
    Controller,
    /// The workload is changed first: else the same would come again.
    AfterWorkload,
}

/// How a pod is made anew as it is wished; `None` where nothing that may be done leads there.
///
/// `has_inline` says whether the wish is written into the workload by us, where it is not there yet.
pub fn renewal(target: &Target, goal: &Wish, lock: Lock, has_inline: bool, pod: &PodView) -> Option<Renewal> {
    // A hotfix is nowhere that a pod is made from, and what is protected is not for us to end.
    if goal.persist == Persist::PodsOnly || pod.meta().labels.contains_key(PROTECTION_LABEL) {
        return None;
    }
    let comes = target.template().whole == goal.whole();
    let comes_later = !goal.is_rollback && has_inline;
    match target {
        Target::Deployment { .. } => {
            let active = target.one_active()?;
            // A transient lock leaves the template alone until the end, and with it what pods are made from.
            let may_flip = match lock {
                Lock::Require => goal.is_rollback || comes || comes_later,
                Lock::Transient => false,
            };
            let is_of_active = pod.owner() == Some(&active.meta().uid);
            let is_flipped = active.template.whole == goal.whole() && !active.earlier.is_open();
            match (is_of_active && is_flipped, may_flip) {
                (true, _) => Some(Renewal::Eviction),
                (false, true) => Some(Renewal::AfterWorkload),
                (false, false) => None,
            }
        }
        Target::ReplicaSet(_) if comes => Some(Renewal::Eviction),
        // In a rollback the template is what its owner, or we, have made it: the same would come again.
        Target::ReplicaSet(_) => comes_later.then_some(Renewal::AfterWorkload),
        Target::StatefulSet { set, .. } => of_stateful_set(target, set, goal, comes_later, pod),
        Target::DaemonSet { set, .. } => match (set.is_on_delete, comes, target.is_template_observed()) {
            (true, true, true) => Some(Renewal::Eviction),
            (true, true, false) => Some(Renewal::AfterWorkload),
            (true, false, _) => comes_later.then_some(Renewal::AfterWorkload),
            (false, _, _) => None,
        },
    }
}

fn of_stateful_set(
    target: &Target,
    set: &StatefulSetView,
    goal: &Wish,
    comes_later: bool,
    pod: &PodView,
) -> Option<Renewal> {
    let partition = match set.strategy {
        StatefulSetStrategy::Other => return None,
        StatefulSetStrategy::OnDelete => None,
        StatefulSetStrategy::RollingUpdate { partition } => Some(partition),
    };
    let comes = set.template.whole == goal.whole();
    let newest = match (target.update_revision(), comes) {
        (Some(newest), true) => Some(newest),
        // Its controller has yet to make the revision, or the wish is yet to be written.
        (None, true) => None,
        (_, false) if comes_later => None,
        (_, false) => {
            // Below the partition pods are of the current revision, which may be the one that a rollback goes back to.
            let place = target.ordinal(pod)?.checked_sub(set.first_ordinal)?;
            let current = target.revision(&set.current_revision)?;
            return match (current.whole == goal.whole(), partition) {
                (true, Some(partition)) if place < partition => Some(Renewal::Eviction),
                (true, Some(_)) => Some(Renewal::AfterWorkload),
                (true, None) | (false, _) => None,
            };
        }
    };
    let Some(newest) = newest else { return Some(Renewal::AfterWorkload) };
    let Some(partition) = partition else { return Some(Renewal::Eviction) };
    let place = target.ordinal(pod)?.checked_sub(set.first_ordinal)?;
    let is_of_newest = pod.meta().labels.get(CONTROLLER_REVISION_HASH) == Some(newest.pod_label());
    if place < partition && set.current_revision != set.update_revision {
        Some(Renewal::AfterWorkload)
    } else if place < partition || is_of_newest {
        Some(Renewal::Eviction)
    } else {
        Some(Renewal::Controller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{at, daemon_set, deployment, pod, replica_set, revision, stateful_set, template};
    use serde_json::{Value, json};
    use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, TargetKind};
    use springtide_plumbing::workloads::earlier::EarlierTemplates;
    use springtide_plumbing::workloads::kinds::ReplicaSetView;
    use std::sync::Arc;

    fn forth() -> Wish {
        Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), &template("app:2", json!({})))
    }

    fn back() -> Wish {
        forth().back_to(&template("app:1", json!({})))
    }

    fn of(target: &Target, goal: &Wish, over: Value) -> Option<Renewal> {
        renewal(target, goal, Lock::Require, false, &pod("web-1", over))
    }

    fn web(image: &str, earlier: EarlierTemplates) -> Target {
        let mut set = ReplicaSetView::clone(&replica_set("rs", 1, 3, image));
        set.earlier = earlier;
        Target::deployment(deployment(3, "app:2", json!({})), vec![Arc::new(set)])
    }

    #[test]
    fn a_replica_set_gets_its_template_before_its_pods_are_evicted() {
        let none = EarlierTemplates::default;
        assert_eq!(of(&web("app:1", none()), &forth(), json!({})), Some(Renewal::AfterWorkload));
        let open = none().opened(&template("app:1", json!({})));
        assert_eq!(of(&web("app:2", open.clone()), &forth(), json!({})), Some(Renewal::AfterWorkload));
        let closed = open.closed(Some(at(0)));
        assert_eq!(of(&web("app:2", closed.clone()), &forth(), json!({})), Some(Renewal::Eviction));
        assert_eq!(of(&web("app:2", closed), &back(), json!({})), Some(Renewal::AfterWorkload));
        assert_eq!(
            of(&web("app:1", none()), &back(), json!({})),
            Some(Renewal::Eviction),
            "it was never flipped"
        );
        let pod = pod("web-1", json!({}));
        assert_eq!(renewal(&web("app:1", none()), &forth(), Lock::Transient, true, &pod), None);
    }

    #[test]
    fn what_is_protected_or_a_hotfix_is_not_made_anew() {
        let labels = json!({"metadata": {"labels": {PROTECTION_LABEL: ""}}});
        assert_eq!(of(&web("app:2", EarlierTemplates::default()), &forth(), labels), None);
        let hotfix = Wish { persist: Persist::PodsOnly, ..forth() };
        assert_eq!(of(&web("app:2", EarlierTemplates::default()), &hotfix, json!({})), None);
    }

    #[test]
    fn a_bare_replica_set_is_written_first_where_that_is_ours() {
        let bare = |image| Target::ReplicaSet(replica_set("rs", 1, 3, image));
        assert_eq!(of(&bare("app:2"), &forth(), json!({})), Some(Renewal::Eviction));
        assert_eq!(of(&bare("app:1"), &forth(), json!({})), None);
        let pod = pod("web-1", json!({}));
        let with_inline = |goal: &Wish| renewal(&bare("app:1"), goal, Lock::Require, true, &pod);
        assert_eq!(with_inline(&forth()), Some(Renewal::AfterWorkload));
        assert_eq!(renewal(&bare("app:2"), &back(), Lock::Require, true, &pod), None);
    }

    fn db(partition: u32, current: &str) -> Target {
        let spec = json!({"updateStrategy": {"rollingUpdate": {"partition": partition}}});
        let status = json!({"currentRevision": current, "updateRevision": "db-b"});
        let revisions = vec![revision("db-a", 1, "app:1"), revision("db-b", 2, "app:2")];
        Target::stateful_set(stateful_set(3, "app:2", spec, status), revisions)
    }

    fn of_db(target: &Target, goal: &Wish, label: &str) -> Option<Renewal> {
        let over = json!({"metadata": {"labels": {CONTROLLER_REVISION_HASH: label}}});
        renewal(target, goal, Lock::Require, false, &pod("db-1", over))
    }

    #[test]
    fn a_stateful_set_makes_anew_by_itself_what_is_not_below_its_partition() {
        assert_eq!(of_db(&db(100_000, "db-a"), &forth(), "db-a"), Some(Renewal::AfterWorkload));
        assert_eq!(of_db(&db(2, "db-a"), &forth(), "db-a"), Some(Renewal::AfterWorkload));
        assert_eq!(of_db(&db(1, "db-a"), &forth(), "db-a"), Some(Renewal::Controller));
        assert_eq!(of_db(&db(1, "db-a"), &forth(), "db-b"), Some(Renewal::Eviction), "it is of the revision");
        assert_eq!(
            of_db(&db(100_000, "db-b"), &forth(), "db-b"),
            Some(Renewal::Eviction),
            "there is no other"
        );
    }

    #[test]
    fn a_rollback_of_a_stateful_set_makes_anew_what_is_below_the_partition_and_of_the_current_revision() {
        assert_eq!(of_db(&db(100_000, "db-a"), &back(), "db-b"), Some(Renewal::Eviction));
        assert_eq!(
            of_db(&db(1, "db-a"), &back(), "db-b"),
            Some(Renewal::AfterWorkload),
            "it is raised first"
        );
        assert_eq!(of_db(&db(100_000, "db-b"), &back(), "db-b"), None, "the same would come again");
    }

    #[test]
    fn what_is_made_anew_only_by_its_template_cannot_go_back() {
        let revisions = || vec![revision("log-a", 1, "app:1"), revision("log-b", 2, "app:2")];
        let daemon = |is_on_delete| Target::daemon_set(daemon_set(3, "app:2", is_on_delete), revisions());
        assert_eq!(of(&daemon(true), &forth(), json!({})), Some(Renewal::Eviction));
        assert_eq!(of(&daemon(true), &back(), json!({})), None);
        assert_eq!(of(&daemon(false), &forth(), json!({})), None);
        let strategy = json!({"updateStrategy": {"type": "OnDelete"}});
        let status = json!({"currentRevision": "db-a", "updateRevision": "db-b"});
        let revisions = vec![revision("db-a", 1, "app:1"), revision("db-b", 2, "app:2")];
        let on_delete = Target::stateful_set(stateful_set(3, "app:2", strategy, status), revisions);
        assert_eq!(of_db(&on_delete, &forth(), "db-a"), Some(Renewal::Eviction));
        assert_eq!(of_db(&on_delete, &back(), "db-b"), None);
    }
}
