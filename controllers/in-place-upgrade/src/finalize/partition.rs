//! A StatefulSet: its pods bear the label of the new revision, and where it rolls by itself its partition is lowered past
//! them, as far as its controller has counted them.

use super::{Finalize, Terms};
use crate::target::Target;
use crate::wish::Wish;
use serde_json::json;
use springtide_plumbing::plan::{Action, Part, Step, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::kinds::{STATEFUL_SET, StatefulSetStrategy, StatefulSetView};
use springtide_plumbing::workloads::names::CONTROLLER_REVISION_HASH;
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

/// Field manager of the partition: what is applied with the template would else take it away.
const PARTITION_MANAGER: &str = "springtide-in-place-upgrade-partition";

/// What is next when all pods are as they are wished.
pub(super) fn finalize(set: &StatefulSetView, wish: &Wish, terms: &Terms<'_>) -> Finalize {
    let is_observed = set.observed_generation >= set.meta().generation;
    if wish.is_rollback {
        // Its partition was raised before the first pod went back, and stays there: the template is still the new one.
        return match is_observed {
            true => Finalize::agreed(),
            false => Finalize::waiting("the StatefulSet has not been looked at by its controller"),
        };
    }
    let partition = match set.strategy {
        StatefulSetStrategy::RollingUpdate { partition } => partition,
        StatefulSetStrategy::OnDelete | StatefulSetStrategy::Other => {
            // `currentRevision` follows from Kubernetes 1.37 on; before, it stays what it was.
            return counted(set, is_observed, terms.left_out);
        }
    };
    let recorded = terms.recorded_partition.unwrap_or(partition);
    let restored = (partition != recorded).then(|| {
        let step = apply(set, recorded, WriteClass::Spec);
        Finalize::write(vec![vec![step]], format!("the partition is {recorded} again"))
    });
    if terms.left_out > 0 {
        // Those would be made anew, were it lowered past them, and without them the new revision never becomes the current
        // one. So the lock is as it was, and whatever is made anew below it is changed by another run.
        return restored.unwrap_or_else(|| counted(set, is_observed, terms.left_out));
    }
    let is_current = set.current_revision == set.update_revision;
    if is_observed && is_current && set.updated_replicas == set.replicas {
        return restored.unwrap_or_else(Finalize::agreed);
    }
    if let Some(step) = lower(set, partition, terms.relabelled) {
        return Finalize::write(vec![vec![step]], "the partition is lowered past the changed pods");
    }
    Finalize::waiting(format!(
        "the StatefulSet's controller has {} of {} pods of the new revision, and takes it for the current one when all are \
         ready",
        set.updated_replicas, set.replicas
    ))
}

/// A pod that a StatefulSet's controller makes anew by itself, as it is not below the partition and not of the template.
#[derive(Clone, Copy, Debug)]
pub struct AtStake<'a> {
    /// The pod.
    pub pod: &'a PodView,
    /// Its number, counted from the first one.
    pub place: u32,
    /// The partition, counted in the same way.
    pub partition: u32,
    /// Whether it is of the current revision: no run has changed it.
    pub is_current: bool,
}

impl AtStake<'_> {
    /// Whether it is the last one above the partition: that which a run gives its controller to make anew.
    pub fn is_next(&self) -> bool {
        self.place == self.partition
    }
}

/// The pods that its controller makes anew as the partition is now; none of another kind of workload.
pub fn at_stake<'a>(target: &'a Target, pods: &'a [Arc<PodView>]) -> impl Iterator<Item = AtStake<'a>> {
    let rolling = match target {
        Target::StatefulSet { set, .. } => match set.strategy {
            StatefulSetStrategy::RollingUpdate { partition } => Some((set, partition)),
            StatefulSetStrategy::OnDelete | StatefulSetStrategy::Other => None,
        },
        Target::Deployment { .. } | Target::ReplicaSet(_) | Target::DaemonSet { .. } => None,
    };
    rolling.into_iter().flat_map(move |(set, partition)| {
        pods.iter().filter(|pod| pod.is_live()).filter_map(move |pod| {
            let place = target.ordinal(pod)?.checked_sub(set.first_ordinal)?;
            let is_of_template =
                target.template_of(pod).is_some_and(|template| template.whole == set.template.whole);
            let is_current = pod.meta().labels.get(CONTROLLER_REVISION_HASH) == Some(&set.current_revision);
            (place >= partition && place < set.replicas && !is_of_template).then_some(AtStake {
                pod,
                place,
                partition,
                is_current,
            })
        })
    })
}

/// The write that lowers the partition, as far as that is right; `None` where it is low enough, or not yet.
///
/// A pod that is below its partition and not of the new revision would be made anew. So it is lowered past pods alone
/// that are of the new revision and available in our store, from the last one down without a gap, and not before the
/// StatefulSet's controller has counted as many.
pub fn lower(set: &StatefulSetView, partition: u32, relabelled: &[u32]) -> Option<Step> {
    let end = set.first_ordinal.checked_add(set.replicas)?;
    let from_top = (set.first_ordinal..end).rev().take_while(|ordinal| relabelled.contains(ordinal));
    let reached = u32::try_from(from_top.count()).unwrap_or(u32::MAX);
    let next = set.replicas.saturating_sub(reached);
    (next < partition.min(set.replicas) && is_counted(set, relabelled))
        .then(|| apply(set, next, WriteClass::Spec))
}

/// The write that lowers the partition past a pod which is not of the new revision, so that the StatefulSet's controller
/// makes it anew; `None` where that is not right yet: it would make anew all above it that are not of the revision too.
pub fn lower_past(set: &StatefulSetView, relabelled: &[u32], ordinal: u32) -> Option<Step> {
    let StatefulSetStrategy::RollingUpdate { partition } = set.strategy else { return None };
    let place =
        ordinal.checked_sub(set.first_ordinal).filter(|place| *place < set.replicas.min(partition))?;
    let end = set.first_ordinal.checked_add(set.replicas)?;
    let are_above = (ordinal..end).skip(1).all(|above| relabelled.contains(&above));
    (are_above && is_counted(set, relabelled)).then(|| apply(set, place, WriteClass::Spec))
}

/// Whether the StatefulSet's controller has counted so many pods of the new revision, by a status of its present spec.
fn is_counted(set: &StatefulSetView, relabelled: &[u32]) -> bool {
    set.observed_generation >= set.meta().generation
        && u32::try_from(relabelled.len()).is_ok_and(|count| set.updated_replicas >= count)
}

/// The write that raises a partition again that we have lowered; `None` where it is as high as it was.
pub fn raise(set: &StatefulSetView, recorded: Option<u32>) -> Option<Step> {
    match (set.strategy, recorded) {
        (StatefulSetStrategy::RollingUpdate { partition }, Some(recorded)) if partition < recorded => {
            Some(apply(set, recorded, WriteClass::Protective))
        }
        (StatefulSetStrategy::RollingUpdate { .. }, _)
        | (StatefulSetStrategy::OnDelete | StatefulSetStrategy::Other, _) => None,
    }
}

fn counted(set: &StatefulSetView, is_observed: bool, left_out: u32) -> Finalize {
    if is_observed && set.updated_replicas.saturating_add(left_out) == set.replicas {
        return Finalize::agreed();
    }
    Finalize::waiting(format!(
        "the StatefulSet's controller counts {} of {} pods as updated",
        set.updated_replicas, set.replicas
    ))
}

fn apply(set: &StatefulSetView, partition: u32, class: WriteClass) -> Step {
    let strategy = json!({"rollingUpdate": {"partition": partition}});
    let action = Action::Apply {
        part: Part::Main,
        manager: PARTITION_MANAGER,
        uid: set.meta().uid.clone(),
        resource_version: None,
        fields: json!({"spec": {"updateStrategy": strategy}}),
        force: true,
    };
    Write { resource: STATEFUL_SET, key: set.meta().key.clone(), class, action }.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finalize::finalize as finalize_target;
    use crate::fixtures::{stateful_set, template};
    use proptest::prelude::*;
    use serde_json::Value;
    use springtide_crds::in_place_upgrade::{FieldOwnership, History, InPlaceUpgradeSpec, Lock, TargetKind};
    use springtide_plumbing::key::Uid;

    fn set(replicas: u32, partition: u32, status: Value) -> Arc<StatefulSetView> {
        let spec =
            json!({"updateStrategy": {"rollingUpdate": {"partition": partition}}, "ordinals": {"start": 5}});
        stateful_set(replicas, "app:2", spec, status)
    }

    fn applied(step: &Step) -> u64 {
        let Action::Apply { fields, force: true, manager: PARTITION_MANAGER, .. } = &step.writes()[0].action
        else {
            panic!("{step:?}")
        };
        fields["spec"]["updateStrategy"]["rollingUpdate"]["partition"].as_u64().unwrap()
    }

    fn next(set: Arc<StatefulSetView>, relabelled: &[u32]) -> Finalize {
        next_leaving(0, set, relabelled)
    }

    fn next_leaving(left_out: u32, set: Arc<StatefulSetView>, relabelled: &[u32]) -> Finalize {
        let wish =
            Wish::of(&InPlaceUpgradeSpec::new(TargetKind::StatefulSet, "db"), &template("app:2", json!({})));
        let uid = Uid("ipu".into());
        let terms = Terms {
            uid: &uid,
            lock: Lock::Require,
            history: History::Snapshot,
            ownership: FieldOwnership::Refuse,
            inline: None,
            recorded_partition: Some(100_000),
            relabelled,
            left_out,
        };
        finalize_target(&Target::stateful_set(set, Vec::new()), &wish, &terms)
    }

    #[test]
    fn the_partition_is_lowered_past_pods_without_a_gap_once_they_are_counted() {
        let counted = |updated: u32| set(4, 100_000, json!({"updatedReplicas": updated}));
        assert_eq!(applied(&lower(&counted(2), 100_000, &[7, 8]).unwrap()), 2);
        assert_eq!(applied(&lower(&counted(3), 100_000, &[5, 7, 8]).unwrap()), 2, "number 6 is missing");
        assert!(lower(&counted(1), 100_000, &[7, 8]).is_none(), "its controller has not seen both");
        assert!(lower(&counted(4), 2, &[7, 8]).is_none(), "it is there");
        assert!(lower(&counted(4), 100_000, &[5, 6, 7]).is_none(), "the last one is missing");
        let unseen = set(4, 100_000, json!({"updatedReplicas": 4, "observedGeneration": 0}));
        assert!(lower(&unseen, 100_000, &[7, 8]).is_none());
    }

    #[test]
    fn the_partition_is_lowered_past_a_pod_that_is_made_anew_once_all_above_it_are_done() {
        let counted = |updated: u32| set(4, 100_000, json!({"updatedReplicas": updated}));
        assert_eq!(applied(&lower_past(&counted(2), &[7, 8], 6).unwrap()), 1);
        assert_eq!(applied(&lower_past(&counted(0), &[], 8).unwrap()), 3, "it is the last one");
        assert!(lower_past(&counted(2), &[7, 8], 5).is_none(), "number 6 would be made anew as well");
        assert!(lower_past(&counted(1), &[7, 8], 6).is_none(), "its controller has not seen both");
        assert!(lower_past(&set(4, 1, json!({"updatedReplicas": 2})), &[7, 8], 6).is_none(), "it is there");
        assert!(lower_past(&counted(0), &[], 9).is_none() && lower_past(&counted(0), &[], 4).is_none());
    }

    #[test]
    fn the_end_is_that_the_new_revision_is_the_current_one_and_the_partition_what_it_was() {
        let all = [5, 6, 7];
        let lowered = next(
            set(3, 100_000, json!({"updatedReplicas": 3, "updateRevision": "b", "currentRevision": "a"})),
            &all,
        );
        let Finalize::Write { stages, .. } = lowered else { panic!() };
        assert_eq!(applied(&stages[0][0]), 0);
        let waiting = next(
            set(3, 0, json!({"updatedReplicas": 3, "updateRevision": "b", "currentRevision": "a"})),
            &all,
        );
        assert!(matches!(waiting, Finalize::Waiting { .. }));
        let current = json!({"updatedReplicas": 3, "updateRevision": "b", "currentRevision": "b"});
        let Finalize::Write { stages, .. } = next(set(3, 0, current.clone()), &all) else { panic!() };
        assert_eq!(applied(&stages[0][0]), 100_000);
        assert_eq!(next(set(3, 100_000, current), &all), Finalize::agreed());
    }

    #[test]
    fn on_delete_ends_by_the_count_alone() {
        let on_delete = |updated: u32| {
            let status = json!({"updatedReplicas": updated, "updateRevision": "b", "currentRevision": "a"});
            stateful_set(3, "app:2", json!({"updateStrategy": {"type": "OnDelete"}}), status)
        };
        assert_eq!(next(on_delete(3), &[0, 1, 2]), Finalize::agreed());
        assert!(matches!(next(on_delete(2), &[0, 1, 2]), Finalize::Waiting { .. }));
        assert_eq!(next_leaving(1, on_delete(2), &[0, 1]), Finalize::agreed(), "the third is left as it is");
    }

    #[test]
    fn a_partition_that_was_lowered_is_raised_before_pods_go_back() {
        assert_eq!(applied(&raise(&set(3, 1, json!({})), Some(100_000)).unwrap()), 100_000);
        assert!(raise(&set(3, 100_000, json!({})), Some(100_000)).is_none());
        assert!(raise(&set(3, 1, json!({})), None).is_none());
    }

    proptest! {
        /// Whatever is relabelled: no pod is left at or above the new partition that is not of the new revision.
        #[test]
        fn no_pod_that_is_not_relabelled_is_given_to_the_controller(
            replicas in 0..12u32,
            relabelled in proptest::collection::btree_set(0..20u32, 0..12),
            partition in 0..20u32,
            updated in 0..12u32,
        ) {
            let relabelled: Vec<u32> = relabelled.into_iter().collect();
            let set = set(replicas, partition, json!({"updatedReplicas": updated}));
            if let Some(step) = lower(&set, partition, &relabelled) {
                let next = applied(&step);
                prop_assert!(next < u64::from(partition));
                let end = 5 + u64::from(replicas);
                prop_assert!((5 + next..end).all(|ordinal| relabelled.iter().any(|one| u64::from(*one) == ordinal)));
            }
        }
    }
}
