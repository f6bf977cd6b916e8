//! Peak windows: a pure function of a queue's spec and the time.
//!
//! - [`Peaks`] is the checked form of `peakWindows` and `overridePeak`; [`Peaks::at`] says what holds now.
//! - A window may follow a TimeShareGroup: [`Peaks::following`] takes its peaks in, which [`peaks_of`] finds.
//! - [`PeakState`] is the answer: phase, and for each tier what may start, what has to go and when it must be gone.
//! - [`degrade`] says which pods exceed what a peak leaves their tier.
//! - [`drain`] says which pods to end by now, and whether all will be gone in time.
//!
//! A window goes from Idle over Draining (its lead) and Closed (the peak) to Ramping. Where windows overlap, each
//! tier gets the strongest of all in every respect: what starts is limited by the most restrictive, and what has
//! to go is what the strongest ends. Nothing is stored but the end of a ForceOn that was lifted early, in
//! `status.activeWindow`.

pub mod degrade;
pub mod drain;
mod finish;
mod opening;
mod ramp;
mod state;
#[cfg(test)]
mod tests;
mod times;

pub use finish::Interruption;
pub use ramp::Ramp;
pub(crate) use ramp::jitter;
pub use state::{Active, Ahead, Drain, OVERRIDE_NAME, PeakState, Phase, TierPeak, Upcoming};
pub use times::{GroupProblem, group_key, peaks_of};

use crate::loads::Trigger;
use jiff::SignedDuration;
use springtide_crds::batch_queue::StalledReason;
use springtide_crds::batch_queue::loads::LoadTrigger;
use springtide_crds::batch_queue::peaks::{
    PeakAction, PeakOverride, PeakWindow, TierAction, TimeShareGroupPeak,
};
use springtide_crds::common::Tier;
use springtide_plumbing::key::Uid;
use springtide_plumbing::window::calendar::PeakTimes;
use springtide_plumbing::window::{Schedule, WindowError};
use times::Times;

/// What a window does to a tier, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing.
    #[default]
    None,
    /// The tier may use a part of the queue's capacity.
    Degrade {
        /// The part, in percent.
        percent: u32,
    },
    /// Nothing starts.
    Hold,
    /// Nothing starts, and what runs has to go.
    Drain,
}

impl Action {
    /// The stronger of two; of two degradations the one that leaves less.
    #[must_use]
    pub fn strongest(self, other: Self) -> Self {
        match (self, other) {
            (Self::Drain, _) | (_, Self::Drain) => Self::Drain,
            (Self::Hold, _) | (_, Self::Hold) => Self::Hold,
            (Self::Degrade { percent: a }, Self::Degrade { percent: b }) => {
                Self::Degrade { percent: a.min(b) }
            }
            (some @ Self::Degrade { .. }, Self::None) | (Self::None, some @ Self::Degrade { .. }) => some,
            (Self::None, Self::None) => Self::None,
        }
    }

    /// Whether pods are ended for it, during the lead.
    fn ends_pods(self) -> bool {
        match self {
            Self::Drain | Self::Degrade { .. } => true,
            Self::Hold | Self::None => false,
        }
    }
}

/// Why it is not known when a window opens. The tiers that it would hold or drain start nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeakProblem {
    /// The window cannot be evaluated.
    #[error("peak window {name}: {error}")]
    InvalidWindow {
        /// Name of the peak window.
        name: String,
        /// What is wrong, with the remedy.
        error: WindowError,
    },
    /// The entry of the list is not whole.
    #[error("peak window {name}: {detail}")]
    InvalidEntry {
        /// Name of the peak window.
        name: String,
        /// What is wrong, with the remedy.
        detail: &'static str,
    },
    /// The peaks are not known of the group that it follows.
    #[error("peak window {name}: {problem}")]
    TimeShareGroup {
        /// Name of the peak window.
        name: String,
        /// What is wrong, with the remedy.
        problem: GroupProblem,
    },
}

impl PeakProblem {
    /// As it stands in condition Stalled of the queue.
    #[must_use]
    pub fn reason(&self) -> StalledReason {
        match self {
            Self::InvalidWindow { .. } | Self::InvalidEntry { .. } => StalledReason::InvalidWindow,
            Self::TimeShareGroup { problem, .. } => problem.reason(),
        }
    }
}

/// The peak windows of one queue, checked.
#[derive(Clone, Debug)]
pub struct Peaks {
    queue: Uid,
    windows: Vec<Peak>,
    forced: Option<PeakOverride>,
    triggers: Vec<Trigger>,
}

#[derive(Clone, Debug)]
struct Peak {
    name: String,
    schedule: Result<Times, PeakProblem>,
    /// The group that it follows; of an entry that is not whole, none.
    follows: Option<TimeShareGroupPeak>,
    actions: [Action; TIERS.len()],
    lead: SignedDuration,
    pods_per_second: u32,
    ramp: SignedDuration,
    jitter_seconds: u32,
}

/// All tiers, from the first to yield.
pub(crate) const TIERS: [Tier; 3] = [Tier::BestEffort, Tier::Standard, Tier::Guaranteed];

/// Place of a tier in [`TIERS`].
fn slot(tier: Tier) -> usize {
    match tier {
        Tier::BestEffort => 0,
        Tier::Standard => 1,
        Tier::Guaranteed => 2,
    }
}

impl Peaks {
    /// Checks the windows of a queue. What is wrong with one stops itself only: see [`problems`](Self::problems).
    #[must_use]
    pub fn new(queue: &Uid, windows: &[PeakWindow], forced: Option<&PeakOverride>) -> Self {
        let windows = windows.iter().map(Peak::new).collect();
        Self { queue: queue.clone(), windows, forced: forced.cloned(), triggers: Vec::new() }
    }

    /// With these load triggers. What they mean follows from what is measured: see [`Loads`](crate::loads::Loads).
    #[must_use]
    pub fn with_triggers(mut self, triggers: &[LoadTrigger]) -> Self {
        self.triggers = triggers.iter().map(Trigger::new).collect();
        self
    }

    /// Its load triggers.
    #[must_use]
    pub fn triggers(&self) -> &[Trigger] {
        &self.triggers
    }

    /// The TimeShareGroups that its windows follow.
    pub fn groups(&self) -> impl Iterator<Item = &TimeShareGroupPeak> {
        self.windows.iter().filter_map(|peak| peak.follows.as_ref())
    }

    /// The same, with the peaks of the groups that its windows follow; until it has them, they count as not there.
    #[must_use]
    pub fn following(&self, find: impl Fn(&TimeShareGroupPeak) -> Result<PeakTimes, GroupProblem>) -> Self {
        let mut peaks = self.clone();
        for peak in &mut peaks.windows {
            if let Some(named) = &peak.follows {
                peak.schedule = find(named).map(Times::Group).map_err(|problem| peak.without(problem));
            }
        }
        peaks
    }

    /// What keeps windows from being known when they follow the groups that are found so.
    pub fn problems_with(
        &self,
        find: impl Fn(&TimeShareGroupPeak) -> Result<PeakTimes, GroupProblem>,
    ) -> impl Iterator<Item = PeakProblem> {
        self.windows.iter().filter_map(move |peak| match &peak.follows {
            Some(named) => find(named).err().map(|problem| peak.without(problem)),
            None => peak.schedule.as_ref().err().cloned(),
        })
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &Uid {
        &self.queue
    }

    /// Whether there is anything that could ever have an effect.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.forced.is_none() && self.triggers.is_empty()
    }

    /// What keeps windows from being known; empty when all is well.
    pub fn problems(&self) -> impl Iterator<Item = &PeakProblem> {
        self.windows.iter().filter_map(|peak| peak.schedule.as_ref().err())
    }
}

impl Peak {
    fn new(window: &PeakWindow) -> Self {
        let name = &window.name;
        let incomplete = |detail| Err(PeakProblem::InvalidEntry { name: name.clone(), detail });
        let schedule = match (&window.window, &window.from_time_share_group) {
            (Some(window), None) => Schedule::parse(window)
                .map(Times::Window)
                .map_err(|error| PeakProblem::InvalidWindow { name: name.clone(), error }),
            (None, Some(group)) => {
                let problem = GroupProblem::not_found(group);
                Err(PeakProblem::TimeShareGroup { name: name.clone(), problem })
            }
            (None, None) | (Some(_), Some(_)) => incomplete("give either window or fromTimeShareGroup"),
        };
        let mut actions = [Action::None; TIERS.len()];
        for entry in &window.actions {
            let stronger = action(entry).map(|action| actions[slot(entry.tier)].strongest(action));
            // Without its percent nobody knows what it would leave.
            actions[slot(entry.tier)] = stronger.unwrap_or(Action::Hold);
        }
        let unclear = window.actions.iter().any(|entry| action(entry).is_none());
        let schedule = if unclear { incomplete("action Degrade needs percent, 1 to 99") } else { schedule };
        let is_whole = !unclear && window.window.is_none();
        Self {
            name: name.clone(),
            schedule,
            follows: window.from_time_share_group.clone().filter(|_| is_whole),
            actions,
            lead: seconds(window.lead_seconds),
            pods_per_second: window.drain_pods_per_second.max(1),
            ramp: seconds(window.resume.ramp_seconds),
            jitter_seconds: window.resume.jitter_seconds,
        }
    }

    /// How long before the peak it begins to act: not at all where no pods are to go.
    fn lead(&self) -> SignedDuration {
        if self.actions.iter().any(|action| action.ends_pods()) { self.lead } else { SignedDuration::ZERO }
    }

    fn without(&self, problem: GroupProblem) -> PeakProblem {
        PeakProblem::TimeShareGroup { name: self.name.clone(), problem }
    }

    fn has_effect(&self) -> bool {
        self.actions.iter().any(|action| *action != Action::None)
    }
}

/// What an entry says; `None` where it is not whole.
pub(crate) fn action(entry: &TierAction) -> Option<Action> {
    match entry.action {
        PeakAction::None => Some(Action::None),
        PeakAction::Degrade => entry.percent.map(|percent| Action::Degrade { percent }),
        PeakAction::Hold => Some(Action::Hold),
        PeakAction::Drain => Some(Action::Drain),
    }
}

fn seconds(seconds: u32) -> SignedDuration {
    SignedDuration::from_secs(seconds.into())
}
