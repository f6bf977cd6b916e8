//! What the peak windows of a queue mean, as of the last pass.

use super::{Queue, Queues, ceiling, counted, share_of, whole};
use crate::admission::line::LineId;
use crate::admission::peaks::{LoadTotals, PeakFigures};
use crate::loads::{Loads, Reading, StoredLoads};
use crate::peaks::drain::{Forecast, Load};
use crate::peaks::{PeakState, Peaks, TierPeak};
use springtide_plumbing::resources::ResourceList;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::QueuedReason;
use springtide_crds::batch_queue::peaks::ActiveWindow;
use springtide_crds::common::Tier;
use springtide_plumbing::key::ObjectKey;
use std::sync::Arc;

/// The peak windows of one queue.
#[derive(Debug)]
pub(in crate::admission) struct QueuePeak {
    peaks: Arc<Peaks>,
    /// The status of the queue, as far as it is read.
    stored: Option<ActiveWindow>,
    /// Its load triggers.
    loads: Loads,
    /// What they mean, and when that was asked.
    state: Option<(Timestamp, PeakState)>,
    /// Whether that was asked of what is known now. Until it is asked again, what was said holds.
    is_fresh: bool,
    /// What tiers that come back after a peak have taken into use since it ended.
    pub(super) started: ResourceList,
    drains: Drains,
}

/// What came of the last look at the pods that have to go.
#[derive(Debug, Default)]
pub(in crate::admission) struct Drains {
    /// Pods that have to go and are still there.
    pub(in crate::admission) pods_left: u32,
    /// Whether the peak has begun for which some of them have to go.
    pub(in crate::admission) is_late: bool,
    /// Whether all will be gone in time; `None` where none has to go before long.
    pub(in crate::admission) forecast: Option<Forecast>,
    /// When to look again; `None` where nobody has to go.
    pub(in crate::admission) due: Option<Timestamp>,
    /// What is to be deleted before long, besides what other queues have to.
    pub(in crate::admission) loads: Vec<Load>,
}

/// What a tier may use of a resource of its queue in a peak.
#[derive(Debug)]
pub(in crate::admission) struct Share {
    resource: Arc<str>,
    /// Whether that is a resource of the quota, or else of the nodes.
    in_quota: bool,
    /// The amount.
    pub(in crate::admission) limit: u64,
}

/// As what the wait of a tier is told that a peak keeps from starting.
pub(super) fn reason(peak: &TierPeak) -> QueuedReason {
    if peak.by_load { QueuedReason::LoadTrigger } else { QueuedReason::PeakWindow }
}

impl QueuePeak {
    /// Brings it up to date. Returns whether it may mean something else than before.
    pub(super) fn refresh(&mut self, now: Timestamp) -> bool {
        let holds =
            |(at, state): &(Timestamp, PeakState)| *at <= now && state.wake.is_none_or(|wake| now < wake);
        if self.is_fresh && self.state.as_ref().is_some_and(holds) {
            return false;
        }
        let mut state = self.peaks.at(now, self.stored.as_ref());
        self.loads.add_to(&mut state, self.peaks.queue(), now);
        self.state = Some((now, state));
        self.is_fresh = true;
        self.drains.due = Some(now);
        true
    }

    fn state(&self) -> Option<&PeakState> {
        Some(&self.state.as_ref()?.1)
    }

    /// Whether it depends on the load of nodes.
    pub(super) fn has_triggers(&self) -> bool {
        !self.peaks.triggers().is_empty()
    }

    /// Takes in what was measured.
    pub(super) fn observe(&mut self, reading: Option<&Reading>, now: Timestamp) {
        if self.loads.observe(self.peaks.triggers(), reading, now) {
            self.is_fresh = false;
        }
    }

    /// What holds for a tier.
    pub(super) fn tier(&self, tier: Tier) -> Option<&TierPeak> {
        Some(self.state()?.tier(tier))
    }

    /// Pods are granted that the last count does not know.
    pub(super) fn starts(&mut self, tier: Tier, amount: &ResourceList) {
        if self.tier(tier).is_some_and(|tier| tier.ramp.is_some()) {
            self.started.add(amount);
        }
    }

    pub(super) fn figures(&self) -> Option<PeakFigures> {
        let state = self.state()?.clone();
        let Drains { pods_left, is_late: _, forecast, due, loads: _ } = &self.drains;
        let wake = state.wake.into_iter().chain(*due).min();
        Some(PeakFigures { state, pods_left: *pods_left, forecast: forecast.clone(), wake })
    }
}

impl Queues {
    /// Takes in the peak windows of a queue that has rules.
    pub(in crate::admission) fn set_peaks(
        &mut self,
        key: &ObjectKey,
        peaks: Option<Arc<Peaks>>,
        stored: Option<ActiveWindow>,
    ) {
        // Whatever the windows before have asked for is asked anew, or not any more.
        self.turned.push(key.clone());
        let Some(queue) = self.by_key.get_mut(key) else { return };
        let (state, loads) = queue.peak.take().map(|before| (before.state, before.loads)).unwrap_or_default();
        queue.peak = peaks.filter(|peaks| !peaks.is_empty()).map(|peaks| QueuePeak {
            peaks,
            stored,
            loads,
            state,
            is_fresh: false,
            started: ResourceList::default(),
            drains: Drains::default(),
        });
    }

    /// Takes in what the status of a queue says. Returns whether that was news.
    pub(in crate::admission) fn set_stored_peak(
        &mut self,
        key: &ObjectKey,
        stored: Option<&ActiveWindow>,
    ) -> bool {
        let Some(peak) = self.by_key.get_mut(key).and_then(|queue| queue.peak.as_mut()) else { return false };
        // How many pods are left is our own word.
        let name_and_end = |window: Option<&ActiveWindow>| {
            window.map(|window| (window.name.clone(), window.end_time.clone()))
        };
        if name_and_end(peak.stored.as_ref()) == name_and_end(stored) {
            return false;
        }
        peak.stored = stored.cloned();
        peak.is_fresh = false;
        true
    }

    /// Takes in what the status of a queue says of its load triggers.
    pub(in crate::admission) fn set_stored_loads(&mut self, key: &ObjectKey, stored: StoredLoads) {
        if let Some(peak) = self.by_key.get_mut(key).and_then(|queue| queue.peak.as_mut()) {
            peak.loads.store(stored);
        }
    }

    /// Takes in what is in use on the nodes.
    pub(in crate::admission) fn set_usage(&mut self, usage: Arc<crate::loads::Usage>) {
        self.usage = usage;
    }

    /// What all load triggers come to.
    pub(in crate::admission) fn load_totals(&self) -> LoadTotals {
        let states = self.by_key.values().filter_map(|queue| queue.peak.as_ref()?.state());
        let mut totals = LoadTotals::default();
        for trigger in states.flat_map(|state| &state.triggers) {
            totals.on += u64::from(trigger.is_on);
            totals.unmeasured += u64::from(!trigger.is_measured);
        }
        totals
    }

    /// Queues whose windows mean something else since this was last asked.
    pub(in crate::admission) fn take_turned(&mut self) -> Vec<ObjectKey> {
        std::mem::take(&mut self.turned)
    }

    /// What the windows of the queue of a line mean.
    pub(in crate::admission) fn peak(&self, line: &LineId) -> Option<&PeakState> {
        self.peak_of(&line.queue()?)
    }

    /// What the windows of a queue mean.
    pub(in crate::admission) fn peak_of(&self, key: &ObjectKey) -> Option<&PeakState> {
        self.by_key.get(key)?.peak.as_ref()?.state()
    }

    /// Whether a peak leaves the tier a part of the queue only, or it comes back after one.
    pub(in crate::admission) fn is_limited_by_peak(&self, line: &LineId, tier: Tier) -> bool {
        self.peak(line).is_some_and(|state| {
            let peak = state.tier(tier);
            peak.percent.is_some() || peak.ramp.is_some()
        })
    }

    /// As what the wait of a tier is told that a peak leaves less.
    pub(in crate::admission) fn peak_reason(&self, line: &LineId, tier: Tier) -> QueuedReason {
        self.peak(line).map_or(QueuedReason::PeakWindow, |state| reason(state.tier(tier)))
    }

    /// Whether a task that starts now has ended before a peak ends it.
    pub(in crate::admission) fn would_finish(
        &self,
        line: &LineId,
        tier: Tier,
        expected: Option<SignedDuration>,
        now: Option<Timestamp>,
    ) -> bool {
        let (Some(state), Some(now)) = (self.peak(line), now) else { return true };
        state.would_finish(tier, expected, now)
    }

    /// When the ramp ends that alone keeps a tier from starting as it likes.
    pub(in crate::admission) fn ramp_ends(&self, line: &LineId, tier: Tier) -> Option<Timestamp> {
        let peak = self.peak(line)?.tier(tier);
        let ramps = peak.may_start() && peak.percent.is_none();
        peak.ramp.filter(|_| ramps).map(|ramp| ramp.ends)
    }

    /// When, after `now`, the windows of the queue of a line let a tier start as it likes, ramps and load triggers aside,
    /// and it is as `is_fine` wants it besides; see [`Peaks::opens`].
    pub(in crate::admission) fn opens(
        &self,
        line: &LineId,
        tier: Tier,
        now: Timestamp,
        is_fine: impl Fn(&PeakState, Timestamp) -> bool,
    ) -> Option<Timestamp> {
        let peak = self.by_key.get(&line.queue()?)?.peak.as_ref()?;
        peak.peaks.opens(tier, now, peak.stored.as_ref(), is_fine)
    }

    /// What a ramping queue has taken into use since its peak.
    pub(in crate::admission) fn set_started(&mut self, key: &ObjectKey, started: ResourceList) {
        if let Some(peak) = self.by_key.get_mut(key).and_then(|queue| queue.peak.as_mut()) {
            peak.started = started;
        }
    }

    /// Queues whose pods that have to go are to be looked at.
    pub(in crate::admission) fn drains_due(&self, now: Timestamp) -> Vec<ObjectKey> {
        let is_due = |queue: &Queue| {
            let due = queue.peak.as_ref().and_then(|peak| peak.drains.due);
            due.is_some_and(|due| due <= now)
        };
        self.by_key.iter().filter(|(_, queue)| is_due(queue)).map(|(key, _)| key.clone()).collect()
    }

    /// Takes in what came of that look.
    pub(in crate::admission) fn set_drains(&mut self, key: &ObjectKey, drains: Drains) {
        if let Some(peak) = self.by_key.get_mut(key).and_then(|queue| queue.peak.as_mut()) {
            peak.drains = drains;
        }
    }

    /// What came of the last looks at all queues.
    pub(in crate::admission) fn drains(&self) -> impl Iterator<Item = (&ObjectKey, &Drains)> {
        self.by_key.iter().filter_map(|(key, queue)| Some((key, &queue.peak.as_ref()?.drains)))
    }

    /// What a tier may use of a queue of which so many percent are left to it: what runs is held against that.
    pub(in crate::admission) fn shares(&self, key: &ObjectKey, percent: u32) -> Vec<Share> {
        let Some(queue) = self.by_key.get(key) else { return Vec::new() };
        let Some(rules) = queue.rules.as_deref() else { return Vec::new() };
        let running = queue.offered_to_running();
        let limit = |whole: i64| u64::try_from(share_of(whole.max(0), percent.into(), 100)).unwrap_or(0);
        let rows = rules.quota.iter().map(|row| Share {
            resource: Arc::clone(&row.resource),
            in_quota: true,
            limit: limit(whole(rules, running, row)),
        });
        let others = running.into_iter().flat_map(ResourceList::iter).filter_map(|(name, _)| {
            let base = rules.counted_as.get(name).map_or(name, |base| &**base);
            let is_counted = rules.quota.iter().any(|row| &*row.resource == base);
            let ceiling = ceiling(rules, running, name).filter(|_| !is_counted)?;
            Some(Share { resource: Arc::from(name), in_quota: false, limit: limit(ceiling) })
        });
        rows.chain(others).collect()
    }

    /// How much of these shares an amount is.
    pub(in crate::admission) fn uses(
        &self,
        key: &ObjectKey,
        shares: &[Share],
        amount: &ResourceList,
    ) -> Vec<u64> {
        let rules = self.rules(key).map(AsRef::as_ref);
        let of = |share: &Share| match share.in_quota {
            true => counted(rules, amount, &share.resource),
            false => amount.get(&share.resource),
        };
        shares.iter().map(|share| u64::try_from(of(share)).unwrap_or(0)).collect()
    }
}
