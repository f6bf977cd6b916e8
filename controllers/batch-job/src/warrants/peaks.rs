//! Whether a peak window asks for the end of a pod: by the spec of its queue, the clock and the stores alone.

use super::claims::{charged, held};
use super::{BatchJobWarrants, Seen};
use crate::admission::{CapacitySource, QueueRules};
use crate::projections::job::JobView;
use crate::projections::node::NodeView;
use crate::projections::pod::PodView;
use crate::projections::queue::QueueView;
use crate::queues::rules;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_queue::BatchQueueSpec;
use springtide_crds::batch_queue::peaks::{PeakAction, PeakOverrideMode, PeakWindow, TimeShareGroupPeak};
use springtide_crds::common::Tier;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::Uid;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::resources::ResourceList;
use springtide_plumbing::window::Schedule;
use springtide_plumbing::window::calendar::PeakTimes;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What peaks ask of the pods of a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Nothing.
    Nothing,
    /// The end of those beyond so many percent of the queue's capacity.
    Beyond(u32),
    /// The end of all.
    All,
}

impl Asks {
    /// What asks for more.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (Self::Beyond(one), Self::Beyond(other)) => Self::Beyond(one.min(other)),
            (some @ Self::Beyond(_), Self::Nothing) | (Self::Nothing, some) => some,
        }
    }
}

/// What the windows of a queue ask of a tier now. `group` knows the peaks of the groups that they follow.
pub(super) fn asks(
    spec: &BatchQueueSpec,
    tier: Tier,
    now: Timestamp,
    group: impl Fn(&TimeShareGroupPeak) -> Option<PeakTimes>,
) -> Asks {
    let forced =
        spec.override_peak.as_ref().filter(|forced| now < forced.until_time.0).map(|forced| forced.mode);
    let counts = |window: &&PeakWindow| match forced {
        Some(PeakOverrideMode::ForceOff) => false,
        Some(PeakOverrideMode::ForceOn) => true,
        None => ends_pods_now(window, now, &group),
    };
    let mut asks = Asks::Nothing;
    let actions = spec.peak_windows.iter().filter(counts).flat_map(|window| &window.actions);
    for entry in actions.filter(|entry| entry.tier == tier) {
        asks = match (entry.action, asks, entry.percent) {
            (PeakAction::Drain, _, _) | (_, Asks::All, _) => Asks::All,
            (PeakAction::Degrade, Asks::Beyond(least), Some(percent)) => Asks::Beyond(least.min(percent)),
            (PeakAction::Degrade, Asks::Nothing, Some(percent)) => Asks::Beyond(percent),
            (PeakAction::Degrade, other, None) | (PeakAction::None | PeakAction::Hold, other, _) => other,
        };
    }
    asks
}

/// Whether a window is open, or near enough to end pods.
fn ends_pods_now(
    window: &PeakWindow,
    now: Timestamp,
    group: impl Fn(&TimeShareGroupPeak) -> Option<PeakTimes>,
) -> bool {
    let own = window.window.as_ref().and_then(|window| Schedule::parse(window).ok());
    let followed = window.from_time_share_group.as_ref().and_then(group);
    let (open, next) = match (own, followed) {
        (Some(schedule), None) => (schedule.occurrence_at(now), schedule.next_after(now)),
        (None, Some(peaks)) => (peaks.occurrence_at(now), peaks.next_after(now)),
        (None, None) | (Some(_), Some(_)) => return false,
    };
    let lead = SignedDuration::from_secs(window.lead_seconds.into());
    open.is_some() || next.is_some_and(|next| after(next.start, -lead) <= now)
}

impl BatchJobWarrants {
    /// Whether a peak asks for the end of a pod. `going`: pods that are warranted to go already.
    pub(super) fn yields_to_peak(
        &self,
        queue: &QueueView,
        job: &JobView,
        pod: &PodView,
        going: &HashSet<Uid>,
        now: Timestamp,
    ) -> bool {
        let tier = pod.meta().labels.tier.0;
        let group =
            |named: &TimeShareGroupPeak| self.stores.peaks_of_group(&queue.meta().key.namespace, named).ok();
        match asks(&queue.spec, tier, now, group).or(self.load_asks(queue, tier, now)) {
            Asks::Nothing => false,
            Asks::All => true,
            Asks::Beyond(percent) => {
                self.exceeds_share(queue, pod, percent, going) || self.is_of_broken_gang(job, going)
            }
        }
    }

    /// Whether the pods of a tier that stay use more of anything that this one uses than its part.
    fn exceeds_share(&self, queue: &QueueView, pod: &PodView, percent: u32, going: &HashSet<Uid>) -> bool {
        let rules = rules::rules(queue);
        let meta = pod.meta();
        let mut staying = ResourceList::default();
        for other in self.stores.pods.list(Some(&meta.key.namespace)) {
            let its = other.meta();
            let is_of_tier = its.labels.queue == meta.labels.queue && its.labels.tier == meta.labels.tier;
            if is_of_tier
                && other.job_owner().is_some()
                && other.may_run()
                && !its.is_deleting()
                && !going.contains(&its.uid)
            {
                staying.add(&charged(Some(&rules), &other));
            }
        }
        let own = charged(Some(&rules), pod);
        let part =
            |whole: i64| i64::try_from(i128::from(whole.max(0)) * i128::from(percent) / 100).unwrap_or(whole);
        let offered = self.offered(&rules);
        let exceeds_row = rules.quota.iter().any(|row| {
            let most = if rules.cohort.is_some() { row.max } else { row.max.min(row.nominal) };
            let whole = ceiling(&rules, &offered, &row.resource).map_or(most, |ceiling| ceiling.min(most));
            held(&rules, Some(&own), row) > 0 && held(&rules, Some(&staying), row) > part(whole)
        });
        let is_counted = |name: &str| {
            let base = rules.counted_as.get(name).map_or(name, |base| &**base);
            rules.quota.iter().any(|row| &*row.resource == base)
        };
        exceeds_row
            || own.iter().filter(|(name, amount)| *amount > 0 && !is_counted(name)).any(|(name, _)| {
                ceiling(&rules, &offered, name).is_some_and(|ceiling| staying.get(name) > part(ceiling))
            })
    }

    /// Whether a job cannot run any more, as pods of it go without which it has too few.
    pub(super) fn is_of_broken_gang(&self, job: &JobView, going: &HashSet<Uid>) -> bool {
        let pods = self.pods_of(job);
        let live = || pods.iter().filter(|pod| pod.may_run());
        let goes = |pod: &&Arc<PodView>| pod.meta().is_deleting() || going.contains(&pod.meta().uid);
        let leaving = live().filter(goes).count();
        let open = job.spec.completions.saturating_sub(job.status.succeeded);
        leaving > 0 && live().count() - leaving < job.spec.min_parallelism.min(open) as usize
    }

    /// What the nodes of a queue leave beside all that is requested by what is no batch work. What that really uses is
    /// looked at for what starts alone.
    fn offered(&self, rules: &QueueRules) -> ResourceList {
        let share = match &rules.source {
            CapacitySource::Static => return ResourceList::default(),
            CapacitySource::NodeAllocatable(share)
            | CapacitySource::ExtendedResource(share)
            | CapacitySource::NodeMetrics(share) => share,
        };
        let counts = |node: &NodeView| {
            let labels = &node.meta().labels;
            let is_selected = share.selector.iter().all(|(name, value)| labels.get(name) == Some(value));
            node.ready && !node.unschedulable && is_selected
        };
        let nodes = self.stores.nodes.iter().flat_map(|nodes| nodes.list(None));
        let mut left: BTreeMap<Arc<str>, ResourceList> = nodes
            .filter(|node| counts(node))
            .map(|node| (Arc::clone(&node.meta().key.name), node.allocatable.clone()))
            .collect();
        for pod in self.stores.pods.list(None).iter().filter(|pod| pod.job_owner().is_none() && pod.may_run())
        {
            if let Some(left) = pod.node.as_ref().and_then(|node| left.get_mut(node)) {
                left.subtract(&pod.requests);
            }
        }
        let mut offered = ResourceList::default();
        for left in left.into_values() {
            offered.add(&left.without_debts());
        }
        offered
    }
}

/// What a queue may use of a resource of its nodes; `None` is without bound.
fn ceiling(rules: &QueueRules, offered: &ResourceList, name: &str) -> Option<i64> {
    let (share, reserved) = match &rules.source {
        CapacitySource::Static => return None,
        CapacitySource::NodeAllocatable(share) | CapacitySource::NodeMetrics(share) => {
            (share, share.reserve.get(name))
        }
        CapacitySource::ExtendedResource(share) => {
            let base = rules.counted_as.get(name)?;
            (share, share.reserve.get(base) + share.reserve.get(name))
        }
    };
    let whole = i128::from(offered.get(name)) * i128::from(share.percent) / 100;
    Some((i64::try_from(whole).unwrap_or(i64::MAX) - reserved).max(0))
}

/// Pods that were warranted to go, of all jobs.
pub(super) fn going<'a>(seen: &'a Seen, own: &'a super::declared::Leaving) -> HashSet<Uid> {
    seen.leaving.values().chain([own]).flat_map(super::declared::Leaving::pods).cloned().collect()
}
