//! How many pods a queue may still be given: its quota, what its cohort lends, what its source offers.

use super::{Queues, counted, most, rank, share_of};
use crate::admission::line::LineId;
use crate::peaks::Ramp;
use springtide_plumbing::resources::ResourceList;
use springtide_crds::common::Tier;
use std::sync::Arc;

/// How far a queue may be filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admission) enum Fill {
    /// Up to what is its own.
    Nominal,
    /// Up to its max, as far as its cohort lends.
    Borrowed,
}

/// How many pods a queue may still be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::admission) struct Room {
    pub(in crate::admission) pods: usize,
    /// What bounds it: the resource, and by what it is bounded.
    pub(in crate::admission) short: Option<(Arc<str>, Bound)>,
}

impl Room {
    /// So much is free of a resource, and a pod wants so much of it.
    fn limit(&mut self, free: i64, wanted: i64, bound: Bound, resource: &dyn Fn() -> Arc<str>) {
        let pods = usize::try_from(free.max(0) / wanted).unwrap_or(usize::MAX);
        if pods < self.pods {
            *self = Self { pods, short: Some((resource(), bound)) };
        }
    }
}

/// What bounds a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admission) enum Bound {
    /// Its own quota.
    Quota,
    /// What its cohort has left.
    Cohort,
    /// What its source offers.
    Source,
    /// The share of the tier in a window.
    Tier,
    /// What may be taken into use by now after a peak.
    Ramp,
}

/// How much more may be taken into use of what is free.
fn ramp_room(ramp: Ramp, free: i64, started: i64) -> i64 {
    let amount = |amount: i64| u64::try_from(amount).unwrap_or(0);
    i64::try_from(ramp.room(amount(free), amount(started))).unwrap_or(i64::MAX)
}

impl Queues {
    /// How many pods of these requests a line may still be given.
    pub(in crate::admission) fn room(
        &self,
        line: &LineId,
        tier: Tier,
        requests: &ResourceList,
        fill: Fill,
    ) -> Room {
        let room = self.room_by_quota(line, tier, requests, fill);
        self.room_by_source(line, tier, requests, room)
    }

    /// The same, whatever the source offers: a node that is still to come would add to it.
    pub(in crate::admission) fn room_by_quota(
        &self,
        line: &LineId,
        tier: Tier,
        requests: &ResourceList,
        fill: Fill,
    ) -> Room {
        let unbounded = Room { pods: usize::MAX, short: None };
        let Some(key) = line.queue() else { return unbounded };
        let none = Room { pods: 0, short: None };
        let Some(queue) = self.by_key.get(&key) else { return none };
        let Some(rules) = queue.rules.as_deref() else { return none };
        let mut room = unbounded;
        let cohort = self.cohort_of(&key, rules).and_then(|id| self.cohorts.get(&id));
        let degraded = queue.percent(tier);
        let ramp = queue.peak.as_ref().and_then(|peak| Some((peak.tier(tier)?.ramp?, &peak.started)));
        for row in &rules.quota {
            let resource = &row.resource;
            let wanted = counted(Some(rules), requests, resource);
            if wanted <= 0 {
                continue;
            }
            let name = || Arc::clone(resource);
            let used = queue.counted(resource);
            let most = most(rules, row);
            let bound = match fill {
                Fill::Nominal => row.nominal.min(most),
                Fill::Borrowed => most,
            };
            room.limit(bound - used, wanted, Bound::Quota, &name);
            if let Some(cohort) = cohort {
                let left = cohort.nominal.get(resource) - cohort.used.get(resource);
                room.limit(left, wanted, Bound::Cohort, &name);
            }
            if let Some((ramp, started)) = ramp {
                let started = counted(Some(rules), started, resource);
                room.limit(
                    ramp_room(ramp, queue.whole(rules, row) - used, started),
                    wanted,
                    Bound::Ramp,
                    &name,
                );
            }
            if let Some(percent) = degraded {
                let most = share_of(queue.whole(rules, row), percent, 100);
                let used = counted(Some(rules), &queue.used[rank(tier)], resource);
                room.limit(most - used, wanted, Bound::Tier, &name);
            }
        }
        room
    }

    fn room_by_source(&self, line: &LineId, tier: Tier, requests: &ResourceList, mut room: Room) -> Room {
        let Some(queue) = line.queue().and_then(|key| self.by_key.get(&key)) else { return room };
        let Some(rules) = queue.rules.as_deref() else { return room };
        let degraded = queue.percent(tier);
        let ramp = queue.peak.as_ref().and_then(|peak| Some((peak.tier(tier)?.ramp?, &peak.started)));
        for (name, wanted) in requests.iter().filter(|(_, wanted)| *wanted > 0) {
            let Some(ceiling) = queue.ceiling(rules, name) else { continue };
            let resource = || rules.counted_as.get(name).cloned().unwrap_or_else(|| Arc::from(name));
            room.limit(ceiling - queue.used(name), wanted, Bound::Source, &resource);
            let has_row = || rules.quota.iter().any(|row| row.resource == resource());
            if let Some((ramp, started)) = ramp.filter(|_| !has_row()) {
                let open = ramp_room(ramp, ceiling - queue.used(name), started.get(name));
                room.limit(open, wanted, Bound::Ramp, &resource);
            }
            if let Some(percent) = degraded.filter(|_| !has_row()) {
                let used = queue.used[rank(tier)].get(name);
                room.limit(share_of(ceiling, percent, 100) - used, wanted, Bound::Tier, &resource);
            }
        }
        room
    }

    /// How far a line is filled in the end.
    pub(in crate::admission) fn last_fill(&self, line: &LineId) -> Fill {
        if self.borrows(line) { Fill::Borrowed } else { Fill::Nominal }
    }

    /// How much of a resource of its quota a line uses, and the most that it may.
    pub(in crate::admission) fn use_of(&self, line: &LineId, resource: &str) -> (i64, i64) {
        let Some(key) = line.queue() else { return (0, 0) };
        let Some(queue) = self.by_key.get(&key) else { return (0, 0) };
        let Some(rules) = queue.rules.as_deref() else { return (0, 0) };
        let row = rules.quota.iter().find(|row| &*row.resource == resource);
        (queue.counted(resource), row.map_or(0, |row| most(rules, row)))
    }

    /// Whether so many pods exceed the quota of a line even when it is empty; the resource that does.
    pub(in crate::admission) fn exceeds_max(
        &self,
        line: &LineId,
        requests: &ResourceList,
        pods: u32,
    ) -> Option<Arc<str>> {
        let rules = self.rules_of(line)?;
        let row = rules.quota.iter().find(|row| {
            let wanted = counted(Some(rules), requests, &row.resource).saturating_mul(i64::from(pods));
            wanted > 0 && wanted > most(rules, row)
        })?;
        Some(Arc::clone(&row.resource))
    }

    /// Whether a queue may use more than what is its own.
    pub(in crate::admission) fn borrows(&self, line: &LineId) -> bool {
        self.rules_of(line).is_some_and(|rules| {
            rules.cohort.is_some() && rules.quota.iter().any(|row| row.max > row.nominal)
        })
    }

    /// What a queue has borrowed, as the highest share of any resource of what its cohort has, by its weight:
    /// the dominant share (Ghodsi et al., Dominant Resource Fairness, NSDI 2011) of what is above nominal.
    /// In parts per billion.
    pub(in crate::admission) fn borrowed_share(&self, line: &LineId) -> u64 {
        let Some(key) = line.queue() else { return 0 };
        let Some(queue) = self.by_key.get(&key) else { return 0 };
        let Some(rules) = queue.rules.as_deref() else { return 0 };
        let Some(id) = self.cohort_of(&key, rules) else { return 0 };
        let Some(cohort) = self.cohorts.get(&id) else { return 0 };
        let shares = rules.quota.iter().filter_map(|row| {
            let borrowed = queue.counted(&row.resource) - row.nominal;
            let whole = cohort.nominal.get(&row.resource);
            (borrowed > 0 && whole > 0).then(|| share_of(borrowed, 1_000_000_000, whole))
        });
        u64::try_from(shares.max().unwrap_or(0)).unwrap_or(0) / u64::from(rules.weight.max(1))
    }
}
