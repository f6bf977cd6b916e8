//! Measured load of nodes: load triggers, and capacity by what is really in use.
//!
//! - [`Usage`] is what metrics.k8s.io last told of the nodes; [`Reading`] sums up the nodes of one queue.
//! - [`Trigger`] is the checked form of one of `loadTriggers`.
//! - [`Hysteresis`] decides, as a pure function of readings and their times, whether a trigger is on.
//! - [`Loads`] are all triggers of a queue, and what they add to the meaning of its peak windows.
//! - [`sampler`] asks metrics.k8s.io, as long as a queue wants to know.
//!
//! A trigger acts as an open peak window does: tiers that it degrades or drains lose pods, at once and with their
//! whole grace, and when it goes off they come back over `resume`. It never ends a pod on data older than
//! [`MOST_AGE`]: without younger data it only holds, that is to say nothing of its tiers starts. So it does while the
//! load is low, but has not been so for long enough to turn it off.
//!
//! Of what a manager knew that is gone its successor reads in the status which triggers were on
//! (`status.activeLoadTriggers`; since PeakWindowActive's last transition at the latest, if that has the reason
//! LoadTrigger), and of the one that went off last when that was (`status.activeWindow`), and so how far its ramp has
//! come. A trigger that was on holds until there is data. What the status does not tell, as that manager died within
//! seconds of a turn or of the first high readings, is measured anew: a trigger turns up to `sustainSeconds` later then,
//! never earlier.

mod hysteresis;
pub mod sampler;
mod standing;
#[cfg(test)]
mod tests;
mod usage;

pub use hysteresis::{Hysteresis, MOST_AGE, Standing};
pub use standing::{Loads, StoredLoads, TriggerFigures};
pub use usage::{NodeLoad, NodeMetrics, Reading, Usage};

use crate::peaks::Action;
use jiff::SignedDuration;
use springtide_crds::batch_queue::loads::{LoadResource, LoadTrigger};
use springtide_crds::batch_queue::peaks::TierAction;
use springtide_crds::common::Tier;

/// A load trigger, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// What it looks at.
    pub resource: LoadResource,
    /// It goes on at so many percent, or more.
    pub high_percent: u32,
    /// It goes off at so many percent, or less.
    pub low_percent: u32,
    /// For so long the load must stay there before it turns.
    pub sustain: SignedDuration,
    /// Most pods that are ended in a second.
    pub pods_per_second: u32,
    /// How long it takes until all is back.
    pub ramp: SignedDuration,
    /// Most seconds by which that begins late.
    pub jitter_seconds: u32,
    actions: Vec<TierAction>,
}

impl Trigger {
    /// Of the spec.
    #[must_use]
    pub fn new(trigger: &LoadTrigger) -> Self {
        let seconds = |seconds: u32| SignedDuration::from_secs(seconds.into());
        Self {
            name: trigger.name.clone(),
            resource: trigger.resource,
            high_percent: trigger.high_percent,
            // The schema lets nothing else pass; with no distance it would turn at every reading.
            low_percent: trigger.low_percent.min(trigger.high_percent.saturating_sub(1)),
            sustain: seconds(trigger.sustain_seconds),
            pods_per_second: trigger.drain_pods_per_second.max(1),
            ramp: seconds(trigger.resume.ramp_seconds),
            jitter_seconds: trigger.resume.jitter_seconds,
            actions: trigger.actions.clone(),
        }
    }

    /// What it does to a tier while it is on.
    #[must_use]
    pub fn action(&self, tier: Tier) -> Action {
        let of_tier = self.actions.iter().filter(|entry| entry.tier == tier);
        // Without its percent nobody knows what Degrade would leave.
        of_tier.fold(Action::None, |strongest, entry| {
            strongest.strongest(crate::peaks::action(entry).unwrap_or(Action::Hold))
        })
    }

    /// The load that it looks at, in thousandths.
    fn share(&self, reading: &Reading) -> u32 {
        match self.resource {
            LoadResource::Cpu => reading.cpu,
            LoadResource::Memory => reading.memory,
        }
    }

    /// As its resource is called in messages.
    fn noun(&self) -> &'static str {
        match self.resource {
            LoadResource::Cpu => "cpu",
            LoadResource::Memory => "memory",
        }
    }
}
