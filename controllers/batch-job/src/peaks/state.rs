//! What the peak windows mean at one time.

use super::ramp::jitter;
use super::times::{Times, known_start};
use super::{Action, Interruption, Peak, PeakProblem, Peaks, Ramp, TIERS, seconds, slot};
use crate::loads::TriggerFigures;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_queue::PeakWindowActiveReason;
use springtide_crds::batch_queue::peaks::{ActiveWindow, NextWindow, PeakOverride, PeakOverrideMode};
use springtide_crds::common::{Tier, whole_seconds};
use springtide_plumbing::clock::after;
use springtide_plumbing::window::Occurrence;

/// What `status.activeWindow` calls the override; no window can have this name.
pub const OVERRIDE_NAME: &str = "overridePeak";
/// From so long before a peak on it is foretold whether the drain will be done in time.
const FORECAST: SignedDuration = SignedDuration::from_hours(1);
/// How often the room of a ramp is looked at.
const RAMP_STEP: SignedDuration = SignedDuration::from_secs(1);

/// Where a queue stands between two peaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No peak has an effect.
    Idle,
    /// A peak is near: pods are ending.
    Draining,
    /// A peak is on.
    Closed,
    /// A peak is over: work comes back.
    Ramping,
}

/// By when pods have to be gone, and how fast they may be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When the peak starts; `None`: nobody could foresee it, and they go at once, with their whole grace.
    pub start: Option<Timestamp>,
    /// How long before the start the first may be ended.
    pub lead: SignedDuration,
    /// Most pods that are ended in a second.
    pub pods_per_second: u32,
}

/// What the peaks mean for one tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierPeak {
    /// The strongest action of all peaks that are on.
    pub action: Action,
    /// The least part of the queue's capacity that any of them leaves the tier, in percent; also besides a stronger
    /// action.
    pub percent: Option<u32>,
    /// How those are ended that have to go: all, by Drain; else what exceeds [`percent`](Self::percent).
    pub drain: Option<Drain>,
    /// After a peak: how much may start.
    pub ramp: Option<Ramp>,
    /// When pods will next be ended.
    pub interruption: Option<Interruption>,
    /// Whether a load trigger leaves it less than the windows alone would.
    pub by_load: bool,
    /// The action that [`drain`](Self::drain) is of.
    drained_by: Action,
}

impl TierPeak {
    /// Whether anything may start; how much, [`percent`](Self::percent) and [`ramp`](Self::ramp) say.
    #[must_use]
    pub fn may_start(&self) -> bool {
        match self.action {
            Action::None | Action::Degrade { .. } => true,
            Action::Hold | Action::Drain => false,
        }
    }

    /// Adds what a peak does that is on. Degrade beside Hold still counts for what runs.
    pub(crate) fn apply(&mut self, action: Action, drain: Option<Drain>) {
        self.action = self.action.strongest(action);
        if let Action::Degrade { percent } = action {
            self.percent = Some(self.percent.map_or(percent, |least| least.min(percent)));
        }
        let Some(drain) = drain.filter(|_| action.ends_pods()) else { return };
        // The strongest decides what has to go, and so by when.
        self.drain = match self.drain {
            Some(other) if self.drained_by == action => Some(sooner(other, drain)),
            Some(other) if self.drained_by.strongest(action) == self.drained_by => Some(other),
            Some(_) | None => Some(drain),
        };
        self.drained_by = self.drained_by.strongest(action);
    }
}

/// The drain that has to be done first; of two at one time the faster.
fn sooner(a: Drain, b: Drain) -> Drain {
    let order = |drain: &Drain| (drain.start, std::cmp::Reverse(drain.pods_per_second));
    if order(&b) < order(&a) { b } else { a }
}

/// A peak that is near, on, or just over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// Name of the window, or [`OVERRIDE_NAME`].
    pub name: String,
    /// When it starts or has started; `None` for the override, and where nobody knows.
    pub start: Option<Timestamp>,
    /// When it ends or has ended; [`Timestamp::MAX`] where nobody knows.
    pub end: Timestamp,
}

impl Active {
    /// As it stands in the status.
    #[must_use]
    pub fn status(&self, pods_left: u32) -> ActiveWindow {
        ActiveWindow {
            name: self.name.clone(),
            start_time: self.start.map(whole_seconds),
            end_time: Some(self.end).filter(|end| *end < Timestamp::MAX).map(whole_seconds),
            pods_left,
        }
    }
}

/// The next peak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upcoming {
    /// Name of the window.
    pub name: String,
    /// When it is.
    pub occurrence: Occurrence,
}

impl Upcoming {
    /// As it stands in the status.
    #[must_use]
    pub fn status(&self) -> NextWindow {
        NextWindow {
            name: self.name.clone(),
            start_time: whole_seconds(self.occurrence.start),
            end_time: whole_seconds(self.occurrence.end),
        }
    }
}

/// A drain that is due within the hour, or is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Name of the window.
    pub name: String,
    /// When the peak starts.
    pub start: Timestamp,
    /// When pods are first ended.
    pub lead: SignedDuration,
    /// Most pods that are ended in a second.
    pub pods_per_second: u32,
    /// The tiers whose pods all have to go.
    pub tiers: Vec<Tier>,
}

/// What the peak windows of a queue mean at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeakState {
    /// Where the queue stands.
    pub phase: Phase,
    /// Reason of condition PeakWindowActive.
    pub reason: PeakWindowActiveReason,
    /// Message of that condition.
    pub message: String,
    /// The peak that the phase is about.
    pub active: Option<Active>,
    /// The next peak to start.
    pub next: Option<Upcoming>,
    /// Drains to foretell, the soonest first.
    pub ahead: Vec<Ahead>,
    /// When the state changes next; drain steps come on top.
    pub wake: Option<Timestamp>,
    /// Where each load trigger stands.
    pub triggers: Vec<TriggerFigures>,
    tiers: [TierPeak; TIERS.len()],
}

impl PeakState {
    /// What holds for a tier.
    #[must_use]
    pub fn tier(&self, tier: Tier) -> &TierPeak {
        &self.tiers[slot(tier)]
    }

    pub(crate) fn tier_mut(&mut self, tier: Tier) -> &mut TierPeak {
        &mut self.tiers[slot(tier)]
    }
}

/// One window at one time.
struct View<'a> {
    peak: &'a Peak,
    open: Option<Occurrence>,
    /// Near enough that pods are ended for it.
    near: Option<Occurrence>,
    next: Option<Occurrence>,
    ramp: Option<(Occurrence, Ramp)>,
}

/// The first of these times after `now`; the end of time is none.
fn first_after(now: Timestamp, edges: impl IntoIterator<Item = Timestamp>) -> Option<Timestamp> {
    edges.into_iter().filter(|edge| *edge > now && *edge < Timestamp::MAX).min()
}

impl Peaks {
    /// What holds at a time. `stored` is `status.activeWindow`; it is read for the end of a ForceOn that was lifted
    /// before its time, and for nothing else.
    #[must_use]
    pub fn at(&self, now: Timestamp, stored: Option<&ActiveWindow>) -> PeakState {
        let views: Vec<View<'_>> = self.views(now).collect();
        let mut state = match self.forced.as_ref().and_then(|it| Some((it, it.in_force(now)?))) {
            Some((forced, PeakOverrideMode::ForceOff)) => forced_off(forced),
            Some((forced, PeakOverrideMode::ForceOn)) => self.forced_on(forced),
            None => self.by_windows(&views, now, stored),
        };
        state.next = views
            .iter()
            .filter_map(|view| Some(Upcoming { name: view.peak.name.clone(), occurrence: view.next? }))
            .min_by_key(|upcoming| upcoming.occurrence.start);
        for tier in TIERS {
            state.tiers[slot(tier)].interruption = self.interruption(tier, now);
        }
        state
    }

    /// When what holds changes next, after `now`; the steps of a ramp aside.
    pub(super) fn edge(&self, now: Timestamp) -> Option<Timestamp> {
        match self.forced.as_ref().filter(|forced| forced.in_force(now).is_some()) {
            Some(forced) => first_after(now, [forced.until_time.0]),
            None => first_after(now, self.views(now).flat_map(|view| view.edges())),
        }
    }

    /// How all windows stand that do anything, and whose times are known.
    fn views(&self, now: Timestamp) -> impl Iterator<Item = View<'_>> {
        let effective = self.windows.iter().filter(|peak| peak.has_effect());
        effective.filter_map(move |peak| Some(self.view(peak, peak.schedule.as_ref().ok()?, now)))
    }

    fn view<'a>(&self, peak: &'a Peak, schedule: &Times, now: Timestamp) -> View<'a> {
        let open = schedule.occurrence_at(now);
        let next = schedule.next_after(now);
        let near = next.filter(|next| after(next.start, -peak.lead()) <= now);
        let longest = peak.ramp + seconds(peak.jitter_seconds);
        let ended = if open.is_none() { schedule.last_ended(now, longest) } else { None };
        let ramp = ended.and_then(|ended| {
            let jitter = jitter(&self.queue, &peak.name, ended.end, peak.jitter_seconds);
            Some((ended, Ramp::after(ended.end, jitter, peak.ramp, now)?))
        });
        View { peak, open, near, next, ramp }
    }

    fn by_windows(&self, views: &[View<'_>], now: Timestamp, stored: Option<&ActiveWindow>) -> PeakState {
        let mut tiers = [TierPeak::default(); TIERS.len()];
        for tier in TIERS {
            let result = &mut tiers[slot(tier)];
            for peak in self.windows.iter().filter(|peak| peak.schedule.is_err()) {
                match peak.actions[slot(tier)] {
                    Action::Hold | Action::Drain => result.apply(Action::Hold, None),
                    Action::None | Action::Degrade { .. } => {}
                }
            }
            for view in views {
                view.apply(tier, result);
            }
        }
        let lifted = self.lifted(now, stored);
        if let Some(end) = lifted {
            for (tier, ramp) in
                TIERS.iter().filter_map(|tier| Some((tier, self.ramp_of_override(*tier, end, now)?)))
            {
                let result = &mut tiers[slot(*tier)];
                result.ramp = Some(ramp.slower(result.ramp));
            }
        }
        let (phase, active) = self.standing(views, lifted, now);
        let reason = match phase {
            Phase::Draining => PeakWindowActiveReason::Draining,
            Phase::Closed => PeakWindowActiveReason::Closed,
            Phase::Ramping => PeakWindowActiveReason::Ramping,
            Phase::Idle if self.problems().next().is_some() => PeakWindowActiveReason::Unresolved,
            Phase::Idle => PeakWindowActiveReason::Idle,
        };
        let message = message(phase, active.as_ref(), self.problems().next());
        let ramps = tiers.iter().filter_map(|tier| tier.ramp);
        let steps = ramps.flat_map(|ramp| [ramp.begins, ramp.ends, after(now, RAMP_STEP).max(ramp.begins)]);
        let wake = first_after(now, views.iter().flat_map(View::edges).chain(steps));
        let mut ahead: Vec<Ahead> = views.iter().filter_map(|view| view.ahead(now)).collect();
        ahead.sort_by_key(|ahead| ahead.start);
        PeakState { phase, reason, message, active, next: None, ahead, wake, triggers: Vec::new(), tiers }
    }

    /// The phase of the queue, and the peak it is about. Draining is what happens, so it goes before Closed.
    fn standing(
        &self,
        views: &[View<'_>],
        lifted: Option<Timestamp>,
        now: Timestamp,
    ) -> (Phase, Option<Active>) {
        let active = |name: &str, occurrence: Occurrence| Active {
            name: name.to_owned(),
            start: known_start(&occurrence),
            end: occurrence.end,
        };
        let of = |occurrence: fn(&View<'_>) -> Option<Occurrence>| {
            views.iter().filter_map(move |view| Some((&*view.peak.name, occurrence(view)?)))
        };
        if let Some((name, near)) = of(|view| view.near).min_by_key(|(_, near)| near.start) {
            return (Phase::Draining, Some(active(name, near)));
        }
        if let Some((name, open)) = of(|view| view.open).max_by_key(|(_, open)| open.end) {
            return (Phase::Closed, Some(active(name, open)));
        }
        let is_ramping =
            |end: &Timestamp| TIERS.iter().any(|tier| self.ramp_of_override(*tier, *end, now).is_some());
        if let Some(end) = lifted.filter(is_ramping) {
            let active = Active { name: OVERRIDE_NAME.to_owned(), start: None, end };
            return (Phase::Ramping, Some(active));
        }
        let ramping = views.iter().filter_map(|view| Some((&*view.peak.name, view.ramp?)));
        match ramping.max_by_key(|(_, (_, ramp))| ramp.ends) {
            Some((name, (ended, _))) => (Phase::Ramping, Some(active(name, ended))),
            None => (Phase::Idle, None),
        }
    }

    /// When a ForceOn ended that is no longer in force. Once it has been lifted only the status knows.
    fn lifted(&self, now: Timestamp, stored: Option<&ActiveWindow>) -> Option<Timestamp> {
        let stored = stored.filter(|stored| stored.name == OVERRIDE_NAME);
        let stored = stored.and_then(|stored| Some(stored.end_time.as_ref()?.0));
        let expired = self.forced.as_ref().filter(|forced| forced.mode == PeakOverrideMode::ForceOn);
        let expired = expired.map(|forced| forced.until_time.0).filter(|until| *until <= now);
        Some(stored.or(expired)?.min(now))
    }

    /// The slowest of the ramps that windows have which affect the tier.
    fn ramp_of_override(&self, tier: Tier, end: Timestamp, now: Timestamp) -> Option<Ramp> {
        let affecting = self.windows.iter().filter(|peak| peak.actions[slot(tier)] != Action::None);
        affecting
            .filter_map(|peak| {
                let jitter = jitter(&self.queue, OVERRIDE_NAME, end, peak.jitter_seconds);
                Ramp::after(end, jitter, peak.ramp, now)
            })
            .reduce(|slowest, ramp| ramp.slower(Some(slowest)))
    }

    fn forced_on(&self, forced: &PeakOverride) -> PeakState {
        let mut tiers = [TierPeak::default(); TIERS.len()];
        for (tier, peak) in TIERS.iter().flat_map(|tier| self.windows.iter().map(move |peak| (tier, peak))) {
            let drain =
                Drain { start: None, lead: SignedDuration::ZERO, pods_per_second: peak.pods_per_second };
            tiers[slot(*tier)].apply(peak.actions[slot(*tier)], Some(drain));
        }
        let until = forced.until_time.0;
        let active = Active { name: OVERRIDE_NAME.to_owned(), start: None, end: until };
        PeakState {
            phase: Phase::Closed,
            reason: PeakWindowActiveReason::Forced,
            message: format!("overridePeak is ForceOn until {until}: {}", forced.reason),
            active: Some(active),
            next: None,
            ahead: Vec::new(),
            wake: Some(until),
            triggers: Vec::new(),
            tiers,
        }
    }
}

fn forced_off(forced: &PeakOverride) -> PeakState {
    let until = forced.until_time.0;
    PeakState {
        phase: Phase::Idle,
        reason: PeakWindowActiveReason::ForcedOff,
        message: format!("overridePeak is ForceOff until {until}: {}", forced.reason),
        active: None,
        next: None,
        ahead: Vec::new(),
        wake: Some(until),
        triggers: Vec::new(),
        tiers: [TierPeak::default(); TIERS.len()],
    }
}

impl View<'_> {
    fn apply(&self, tier: Tier, result: &mut TierPeak) {
        let action = self.peak.actions[slot(tier)];
        if action == Action::None {
            return;
        }
        let drain = |occurrence: Occurrence| Drain {
            start: known_start(&occurrence),
            lead: self.peak.lead(),
            pods_per_second: self.peak.pods_per_second,
        };
        if let Some(open) = self.open {
            result.apply(action, Some(drain(open)));
        }
        if let Some(near) = self.near.filter(|_| action.ends_pods()) {
            result.apply(action, Some(drain(near)));
        }
        if let Some((_, ramp)) = self.ramp {
            result.ramp = Some(ramp.slower(result.ramp));
        }
    }

    /// Times at which what the window means changes.
    fn edges(&self) -> Vec<Timestamp> {
        let mut edges: Vec<Timestamp> = self.open.iter().map(|open| open.end).collect();
        if let Some(next) = self.next {
            let lead = self.peak.lead();
            edges.extend([after(next.start, -lead), next.start]);
            if self.drained().next().is_some() {
                edges.push(after(next.start, -lead.max(FORECAST)));
            }
        }
        edges.extend(self.ramp.iter().flat_map(|(_, ramp)| [ramp.begins, ramp.ends]));
        edges
    }

    fn drained(&self) -> impl Iterator<Item = Tier> {
        TIERS.into_iter().filter(|tier| self.peak.actions[slot(*tier)] == Action::Drain)
    }

    fn ahead(&self, now: Timestamp) -> Option<Ahead> {
        let lead = self.peak.lead();
        let soon = self.next.filter(|next| after(next.start, -lead.max(FORECAST)) <= now);
        let tiers: Vec<Tier> = self.drained().collect();
        let occurrence = self.open.or(soon).filter(|_| !tiers.is_empty())?;
        // Pods that go at once are never late.
        known_start(&occurrence)?;
        Some(Ahead {
            name: self.peak.name.clone(),
            start: occurrence.start,
            lead,
            pods_per_second: self.peak.pods_per_second,
            tiers,
        })
    }
}

fn message(phase: Phase, active: Option<&Active>, problem: Option<&PeakProblem>) -> String {
    match (phase, active) {
        (Phase::Idle, _) | (_, None) => match problem {
            Some(problem) => problem.to_string(),
            None => "no peak window is open or near".to_owned(),
        },
        (Phase::Draining, Some(active)) => {
            let start = active.start.unwrap_or(active.end);
            format!("peak {} starts at {start}; the pods that have to go are ending", active.name)
        }
        (Phase::Closed, Some(active)) if active.end == Timestamp::MAX => {
            format!("peak {} lasts for more than a year", active.name)
        }
        (Phase::Closed, Some(active)) => format!("peak {} lasts until {}", active.name, active.end),
        (Phase::Ramping, Some(active)) => {
            format!("peak {} ended at {}; work comes back little by little", active.name, active.end)
        }
    }
}
