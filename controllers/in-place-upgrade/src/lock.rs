//! Whether the workload's own controller leaves pods alone that do not match its template.

use crate::target::Target;
use springtide_crds::common::ConditionStatus;
use springtide_crds::in_place_upgrade::{Lock, LockedReason, Persist};
use springtide_crds::reason::Reason;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::kinds::StatefulSetStrategy;

/// A verdict and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockVerdict {
    /// Reason of condition Locked.
    pub reason: LockedReason,
    /// For people.
    pub message: String,
}

impl LockVerdict {
    fn new(reason: LockedReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// Whether pods may be changed.
    pub fn is_locked(&self) -> bool {
        self.reason.status() == ConditionStatus::True
    }
}

/// What the lock depends on beside the workload.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// `policy.lock`.
    pub lock: Lock,
    /// Whether the wish is a hotfix, that never comes into the workload.
    pub persist: Persist,
    /// Whether a run is open: what was locked when it began is to stay so.
    pub is_run_open: bool,
    /// Whether the lock was taken away in the open run, and nobody has changed our object since.
    pub was_unlocked: bool,
    /// UID of our object, by which a pause of ours is known.
    pub uid: &'a str,
    /// Whether a StatefulSet's partition is one that the open run has found and looks after: it lowers it past pods that
    /// are done, and others may scale the workload past it.
    pub has_recorded_partition: bool,
    /// Whether somebody else has lowered it past pods that are still to be changed, so that they are made anew.
    pub is_lowered_by_others: bool,
}

/// Whether the workload is locked.
pub fn lock(target: &Target, terms: &Terms<'_>) -> LockVerdict {
    let verdict = of_kind(target, terms);
    // Anything else that is missing was missing before, or has been taken away: then no pod is changed any more.
    let was_taken = match verdict.reason {
        LockedReason::NotPaused | LockedReason::PartitionTooLow | LockedReason::StrategyNotLockable => true,
        LockedReason::MultipleActiveReplicaSets => true,
        LockedReason::NotObserved
        | LockedReason::Paused
        | LockedReason::Partition
        | LockedReason::OnDelete
        | LockedReason::Unneeded
        | LockedReason::UnlockedDuringRun => false,
    };
    if terms.is_run_open && was_taken {
        return LockVerdict::new(
            LockedReason::UnlockedDuringRun,
            format!("{}: no further pod is changed until it is back", verdict.message),
        );
    }
    verdict
}

fn of_kind(target: &Target, terms: &Terms<'_>) -> LockVerdict {
    match target {
        Target::ReplicaSet(_) => {
            LockVerdict::new(LockedReason::Unneeded, "a ReplicaSet never compares its pods with its template")
        }
        Target::Deployment { deployment, .. } => {
            let active = target.active().len();
            // Its controller will not roll, and has no pods to tell from others.
            let is_empty = target.awaits_scaling() || target.has_lost_its_replica_sets();
            if active != 1 && !(is_empty && deployment.is_paused) {
                let message = match active {
                    0 => "the Deployment has no ReplicaSet yet: let it roll out once before it is paused"
                        .to_owned(),
                    active => {
                        format!("{active} ReplicaSets of the Deployment have pods: let its rollout end first")
                    }
                };
                return LockVerdict::new(LockedReason::MultipleActiveReplicaSets, message);
            }
            let is_ours = deployment.paused_by.as_deref() == Some(terms.uid);
            let leaves_template = match (terms.lock, terms.persist) {
                (Lock::Transient, _) | (Lock::Require, Persist::PodsOnly) => true,
                (Lock::Require, Persist::Template) => false,
            };
            // A controller that has not seen the pause may still be rolling by the template before it. Once a run is open
            // it had seen it, and anybody's change of something else is no reason to stop.
            let is_seen = target.is_observed() || terms.is_run_open;
            if deployment.is_paused && is_seen {
                return LockVerdict::new(LockedReason::Paused, "the Deployment is paused");
            }
            if deployment.is_paused {
                let message = "the Deployment's controller has not seen that it is paused yet";
                return LockVerdict::new(LockedReason::NotPaused, message);
            }
            // Once its controller has rolled in mid-run, what pods are is no longer what the run began with.
            if leaves_template && !is_ours && terms.is_run_open && terms.was_unlocked {
                return LockVerdict::new(
                    LockedReason::NotPaused,
                    "the Deployment was rolled out in mid-run: pause it, or change the upgrade",
                );
            }
            if leaves_template && !is_ours {
                // Its pods are of its template, and stay so for its controller.
                let of_template = target
                    .one_active()
                    .is_some_and(|active| active.template.whole == deployment.template.whole && is_seen);
                return if of_template {
                    LockVerdict::new(
                        LockedReason::Unneeded,
                        "its template stays as it is until pods are changed",
                    )
                } else {
                    LockVerdict::new(
                        LockedReason::NotPaused,
                        "the Deployment's rollout has not ended: wait for it, or pause the Deployment",
                    )
                };
            }
            LockVerdict::new(
                LockedReason::NotPaused,
                "the Deployment is not paused: set spec.paused to true where its manifest is kept",
            )
        }
        Target::StatefulSet { set, .. } => match set.strategy {
            StatefulSetStrategy::OnDelete => {
                LockVerdict::new(LockedReason::OnDelete, "the update strategy is OnDelete")
            }
            StatefulSetStrategy::Other => LockVerdict::new(
                LockedReason::StrategyNotLockable,
                "the update strategy has no lock: use RollingUpdate with a partition, or OnDelete",
            ),
            StatefulSetStrategy::RollingUpdate { partition } => {
                let is_ours =
                    terms.is_run_open && terms.has_recorded_partition && !terms.is_lowered_by_others;
                if partition >= set.replicas || is_ours {
                    LockVerdict::new(LockedReason::Partition, format!("the partition is {partition}"))
                } else {
                    LockVerdict::new(
                        LockedReason::PartitionTooLow,
                        format!(
                            "the partition is {partition} with {} replicas: raise \
                             spec.updateStrategy.rollingUpdate.partition above them",
                            set.replicas
                        ),
                    )
                }
            }
        },
        Target::DaemonSet { set, .. } if set.is_on_delete => {
            LockVerdict::new(LockedReason::OnDelete, "the update strategy is OnDelete")
        }
        Target::DaemonSet { set, .. } => LockVerdict::new(
            LockedReason::StrategyNotLockable,
            format!("set spec.updateStrategy.type of DaemonSet {} to OnDelete", set.meta().key.name),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{daemon_set, deployment, replica_set, stateful_set};
    use serde_json::{Value, json};

    const TERMS: Terms<'static> = Terms {
        lock: Lock::Require,
        persist: Persist::Template,
        is_run_open: false,
        was_unlocked: false,
        uid: "ipu",
        has_recorded_partition: false,
        is_lowered_by_others: false,
    };

    fn web(image: &str, over: Value) -> Target {
        Target::deployment(deployment(3, image, over), vec![replica_set("rs", 1, 3, "app:1")])
    }

    #[test]
    fn a_deployment_is_locked_once_its_controller_has_seen_the_pause() {
        let reason = |over| lock(&web("app:2", over), &TERMS).reason;
        assert_eq!(reason(json!({})), LockedReason::Paused);
        assert_eq!(reason(json!({"spec": {"paused": false}})), LockedReason::NotPaused);
        assert_eq!(reason(json!({"status": {"observedGeneration": 0}})), LockedReason::NotPaused);
    }

    #[test]
    fn a_deployment_in_mid_rollout_is_not_locked() {
        let sets = vec![replica_set("a", 1, 1, "app:1"), replica_set("b", 2, 2, "app:2")];
        let target = Target::deployment(deployment(3, "app:2", json!({})), sets);
        let verdict = lock(&target, &TERMS);
        assert_eq!(verdict.reason, LockedReason::MultipleActiveReplicaSets);
        assert!(!verdict.is_locked());
    }

    #[test]
    fn a_paused_deployment_whose_replica_sets_are_empty_or_gone_is_locked_if_it_was_ever_rolled_out() {
        let reason =
            |over: Value, sets| lock(&Target::deployment(deployment(3, "app:2", over), sets), &TERMS).reason;
        let rolled_out = || json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "4"}}});
        assert_eq!(reason(rolled_out(), Vec::new()), LockedReason::Paused);
        let empty = || vec![replica_set("a", 1, 0, "app:1"), replica_set("b", 2, 0, "app:2")];
        assert_eq!(reason(rolled_out(), empty()), LockedReason::Paused, "one is yet to be scaled up");
        assert_eq!(reason(json!({}), Vec::new()), LockedReason::MultipleActiveReplicaSets);
        let mut unpaused = rolled_out();
        unpaused["spec"] = json!({"paused": false});
        assert_eq!(reason(unpaused, Vec::new()), LockedReason::MultipleActiveReplicaSets);
    }

    #[test]
    fn a_transient_lock_and_a_hotfix_need_no_pause_while_the_template_is_that_of_the_pods() {
        let unpaused = || json!({"spec": {"paused": false}});
        for terms in [Terms { lock: Lock::Transient, ..TERMS }, Terms { persist: Persist::PodsOnly, ..TERMS }]
        {
            assert_eq!(lock(&web("app:1", unpaused()), &terms).reason, LockedReason::Unneeded);
            assert_eq!(lock(&web("app:2", unpaused()), &terms).reason, LockedReason::NotPaused);
        }
    }

    #[test]
    fn a_rollout_in_the_midst_of_a_transient_run_ends_it_until_somebody_says_so() {
        let unpaused = || web("app:1", json!({"spec": {"paused": false}}));
        let open = Terms { lock: Lock::Transient, is_run_open: true, ..TERMS };
        assert!(lock(&unpaused(), &open).is_locked());
        let rolled = Terms { was_unlocked: true, ..open };
        assert_eq!(lock(&unpaused(), &rolled).reason, LockedReason::UnlockedDuringRun);
        assert!(lock(&web("app:1", json!({})), &rolled).is_locked(), "it is paused");
    }

    #[test]
    fn a_lock_that_is_taken_away_in_mid_run_is_told_from_one_that_was_never_there() {
        let open = Terms { is_run_open: true, ..TERMS };
        let verdict = lock(&web("app:2", json!({"spec": {"paused": false}})), &open);
        assert_eq!(verdict.reason, LockedReason::UnlockedDuringRun);
        assert!(!verdict.is_locked() && verdict.message.contains("spec.paused"), "{}", verdict.message);
    }

    #[test]
    fn a_strategy_that_is_changed_in_mid_run_is_a_lock_that_is_taken_away() {
        let open = Terms { is_run_open: true, ..TERMS };
        let rolling = json!({"updateStrategy": {"rollingUpdate": {"partition": 0}}});
        for target in [
            Target::stateful_set(stateful_set(3, "app:2", rolling, json!({})), Vec::new()),
            Target::daemon_set(daemon_set(3, "app:2", false), Vec::new()),
        ] {
            assert_eq!(lock(&target, &open).reason, LockedReason::UnlockedDuringRun, "{:?}", target.kind());
        }
    }

    #[test]
    fn a_partition_is_a_lock_at_or_above_the_replicas_and_below_only_where_a_run_looks_after_it() {
        let reason = |partition: u32, terms: &Terms<'_>| {
            let strategy = json!({"updateStrategy": {"rollingUpdate": {"partition": partition}}});
            let set = stateful_set(3, "app:2", strategy, json!({}));
            lock(&Target::stateful_set(set, Vec::new()), terms).reason
        };
        assert_eq!(reason(3, &TERMS), LockedReason::Partition);
        assert_eq!(reason(2, &TERMS), LockedReason::PartitionTooLow);
        let open = Terms { is_run_open: true, has_recorded_partition: true, ..TERMS };
        assert_eq!(reason(2, &open), LockedReason::Partition);
        let lowered = Terms { is_lowered_by_others: true, ..open };
        assert_eq!(reason(2, &lowered), LockedReason::UnlockedDuringRun);
        assert_eq!(reason(3, &lowered), LockedReason::Partition, "no pod is above it");
        let other = stateful_set(3, "app:2", json!({"updateStrategy": {"type": "Recreate"}}), json!({}));
        let verdict = lock(&Target::stateful_set(other, Vec::new()), &TERMS);
        assert_eq!(verdict.reason, LockedReason::StrategyNotLockable);
    }

    #[test]
    fn on_delete_is_a_lock_and_a_bare_replica_set_needs_none() {
        let daemon = |is_on_delete| Target::daemon_set(daemon_set(3, "app:2", is_on_delete), Vec::new());
        assert_eq!(lock(&daemon(true), &TERMS).reason, LockedReason::OnDelete);
        assert_eq!(lock(&daemon(false), &TERMS).reason, LockedReason::StrategyNotLockable);
        assert_eq!(
            lock(&Target::ReplicaSet(replica_set("rs", 1, 3, "app:1")), &TERMS).reason,
            LockedReason::Unneeded
        );
    }
}
