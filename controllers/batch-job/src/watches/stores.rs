//! The stores behind the plans of this controller, and how far they can be relied on.

use super::{JOBS_BY_PROFILE, PODS_BY_JOB};
use crate::admission::Staleness;
use crate::peaks::{GroupProblem, Peaks, group_key, peaks_of};
use crate::projections::job::JobView;
use crate::projections::node::NodeView;
use crate::projections::pod::PodView;
use crate::projections::priority_class::PriorityClassView;
use crate::projections::profile::ProfileView;
use crate::projections::queue::QueueView;
use springtide_crds::batch_queue::peaks::TimeShareGroupPeak;
use springtide_crds::reference_grant::{FromKind, ToKind};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::store::{Store, StoreView};
use springtide_plumbing::time_share::TimeShares;
use springtide_plumbing::watch::{RegistrationError, Scope, Selector, WatchSet};
use springtide_plumbing::window::calendar::PeakTimes;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The stores this controller reads.
#[derive(Clone, Debug)]
pub struct Stores {
    /// All BatchJobs of the scope.
    pub jobs: Store<JobView>,
    /// All pods of the scope.
    pub pods: Store<PodView>,
    /// All BatchTaskProfiles of the scope.
    pub profiles: Store<ProfileView>,
    /// All nodes; absent where only some namespaces are watched, as a node belongs to none. Nobody knows then
    /// what is free: see [`Admission::without_nodes`](crate::admission::Admission::without_nodes).
    pub nodes: Option<Store<NodeView>>,
    /// All BatchQueues of the scope.
    pub queues: Store<QueueView>,
    /// All PriorityClasses; absent where only some namespaces are watched. Then the API server refuses the pods
    /// for which there is none.
    pub priority_classes: Option<Store<PriorityClassView>>,
    /// All TimeShareGroups of the scope, whose peaks queues may follow, and the grants by which those of other namespaces
    /// do; empty where the server has no such kinds.
    pub time_shares: TimeShares,
}

impl Stores {
    /// Registers the watches of the [table](crate::watches).
    ///
    /// # Errors
    /// When one of the kinds is watched already, or may not be watched.
    pub fn register(watches: &mut WatchSet, scope: &Scope) -> Result<Self, RegistrationError> {
        Ok(Self {
            jobs: watches.add(scope.clone(), Selector::default(), &[JOBS_BY_PROFILE])?,
            pods: watches.add(scope.clone(), Selector::default(), &[PODS_BY_JOB])?,
            profiles: watches.add(scope.clone(), Selector::default(), &[])?,
            nodes: match scope {
                Scope::All => Some(watches.add(Scope::All, Selector::default(), &[])?),
                Scope::Namespaces(_) => None,
            },
            queues: watches.add(scope.clone(), Selector::default(), &[])?,
            priority_classes: match scope {
                Scope::All => Some(watches.add(Scope::All, Selector::default(), &[])?),
                Scope::Namespaces(_) => None,
            },
            time_shares: TimeShares::register(watches, scope)?,
        })
    }

    /// All of them, for the gate: these and no others are behind a plan of this controller.
    pub fn views(&self) -> Vec<Arc<dyn StoreView>> {
        let mut views: Vec<Arc<dyn StoreView>> =
            vec![Arc::new(self.jobs.clone()), Arc::new(self.pods.clone()), Arc::new(self.profiles.clone())];
        views.extend(self.nodes.clone().map(|nodes| Arc::new(nodes) as Arc<dyn StoreView>));
        views.push(Arc::new(self.queues.clone()));
        views.extend(self.priority_classes.clone().map(|classes| Arc::new(classes) as Arc<dyn StoreView>));
        views.extend(self.time_shares.views());
        views
    }

    /// The peaks that a queue of this namespace follows.
    ///
    /// # Errors
    /// Why they are not known.
    pub(crate) fn peaks_of_group(
        &self,
        namespace: &Arc<str>,
        named: &TimeShareGroupPeak,
    ) -> Result<PeakTimes, GroupProblem> {
        let key = group_key(namespace, named);
        let (from, to) = ((FromKind::BatchQueue, &**namespace), (ToKind::TimeShareGroup, &key));
        peaks_of(named, self.time_shares.groups.get(&key).as_deref(), self.time_shares.is_granted(from, to))
    }

    /// The peak windows of a queue, with the peaks of the groups that they follow.
    pub(crate) fn peaks_of_queue(&self, queue: &QueueView) -> Arc<Peaks> {
        if queue.peaks.groups().next().is_none() {
            return Arc::clone(&queue.peaks);
        }
        let namespace = &queue.meta().key.namespace;
        Arc::new(queue.peaks.following(|named| self.peaks_of_group(namespace, named)))
    }

    /// Whether all of them have been listed.
    pub fn are_synced(&self) -> bool {
        self.jobs.is_synced()
            && self.pods.is_synced()
            && self.profiles.is_synced()
            && self.nodes.as_ref().is_none_or(|nodes| nodes.is_synced())
            && self.queues.is_synced()
            && self.priority_classes.as_ref().is_none_or(|classes| classes.is_synced())
            && self.time_shares.are_synced()
    }

    /// Where what there is room for may be other than they say.
    pub fn staleness(&self) -> Staleness {
        match &self.nodes {
            Some(nodes) if self.pods.is_stale() || nodes.is_stale() => Staleness::Everywhere,
            Some(_) => Staleness::Nowhere,
            None => {
                let stale = self.pods.parts().iter().filter(|part| part.is_stale());
                let stale: BTreeSet<_> = stale.filter_map(|part| part.namespace().cloned()).collect();
                if stale.is_empty() { Staleness::Nowhere } else { Staleness::In(stale) }
            }
        }
    }

    /// When nodes and pods were last known to be current. A watch may be silent for as long as it takes to be
    /// told from a dead one: until then it counts as current.
    pub fn seen_at(&self, now: jiff::Timestamp) -> jiff::Timestamp {
        let pods = self.pods.parts().iter();
        let parts = pods.chain(self.nodes.iter().flat_map(|nodes| nodes.parts()));
        let silence = parts.filter(|part| part.is_stale()).map(|part| part.stats().since_last_frame()).max();
        silence.map_or(now, |silence| now.checked_sub(silence).unwrap_or(jiff::Timestamp::MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RIGHTS;
    use springtide_plumbing::time_share::{ReferenceGrantView, TimeShareGroupView};

    #[test]
    fn a_plan_rests_on_every_store_of_this_controller_and_on_no_other() {
        let everywhere = [
            JobView::RESOURCE,
            PodView::RESOURCE,
            ProfileView::RESOURCE,
            NodeView::RESOURCE,
            QueueView::RESOURCE,
            PriorityClassView::RESOURCE,
            TimeShareGroupView::RESOURCE,
            ReferenceGrantView::RESOURCE,
        ];
        let within = [
            JobView::RESOURCE,
            PodView::RESOURCE,
            ProfileView::RESOURCE,
            QueueView::RESOURCE,
            TimeShareGroupView::RESOURCE,
            ReferenceGrantView::RESOURCE,
        ];
        for (scope, expected) in [(Scope::All, &everywhere[..]), (Scope::of(["a", "b"]), &within[..])] {
            let mut watches = WatchSet::new(1).within([RIGHTS]);
            let stores = Stores::register(&mut watches, &scope).expect("one watch each");
            let kinds: Vec<_> = stores.views().iter().map(|view| view.resource()).collect();
            assert_eq!(kinds, expected);
            assert_eq!(format!("{watches:?}").matches(" in ").count(), kinds.len(), "{watches:?}");
        }
    }
}
