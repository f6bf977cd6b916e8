//! Whether a task will be done before a peak interrupts it.

use super::{Action, Peak, PeakState, Peaks, slot};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_queue::peaks::PeakOverrideMode;
use springtide_crds::common::Tier;
use springtide_plumbing::clock::after;

/// When pods of a tier will next be ended for a peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interruption {
    /// When the lead of the peak begins.
    pub at: Timestamp,
    /// How long the lead is.
    pub lead: SignedDuration,
}

impl Interruption {
    /// Whether a task that starts now has ended by then, if it takes as long as expected. A task of which nobody
    /// knows how long it takes does not start within the length of the lead before.
    #[must_use]
    pub fn is_after(&self, expected: Option<SignedDuration>, now: Timestamp) -> bool {
        match expected {
            Some(expected) => after(now, expected) <= self.at,
            None => now < after(self.at, -self.lead),
        }
    }
}

impl PeakState {
    /// Whether a pod of a job with interruption policy FinishOrDontStart will not be interrupted when it starts
    /// now. `expected` is the learned 95th percentile, else what the job declares, else its deadline.
    #[must_use]
    pub fn would_finish(&self, tier: Tier, expected: Option<SignedDuration>, now: Timestamp) -> bool {
        self.tier(tier).interruption.is_none_or(|interruption| interruption.is_after(expected, now))
    }
}

impl Peaks {
    /// The next time that pods of the tier are ended.
    pub(super) fn interruption(&self, tier: Tier, now: Timestamp) -> Option<Interruption> {
        // While the windows are off nothing is ended; what they do then is what they do at its end.
        let off = self.forced.as_ref().filter(|forced| {
            forced.in_force(now).is_some_and(|mode| match mode {
                PeakOverrideMode::ForceOff => true,
                PeakOverrideMode::ForceOn => false,
            })
        });
        let from = off.map_or(now, |off| off.until_time.0);
        let windows = self.windows.iter().filter_map(|peak| peak.interruption(tier, from, off.is_some()));
        windows.min_by_key(|interruption| (interruption.at, interruption.lead))
    }
}

impl Peak {
    /// `anew`: what is on at `from` begins only then.
    fn interruption(&self, tier: Tier, from: Timestamp, anew: bool) -> Option<Interruption> {
        let action = self.actions[slot(tier)];
        let schedule = self.schedule.as_ref().ok().filter(|_| action.ends_pods())?;
        let lead = self.lead();
        let begins = |start| after(start, -lead);
        let next = schedule.next_after(from);
        let is_on =
            schedule.occurrence_at(from).is_some() || next.is_some_and(|next| begins(next.start) <= from);
        if is_on && (anew || action == Action::Drain) {
            return Some(Interruption { at: from, lead });
        }
        // What runs within the part that is left is not cut once more by the same peak.
        let next = next.and_then(|next| {
            if begins(next.start) <= from { schedule.next_after(next.start) } else { Some(next) }
        })?;
        Some(Interruption { at: begins(next.start).max(from), lead })
    }
}
