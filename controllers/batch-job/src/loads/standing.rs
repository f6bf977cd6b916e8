//! All load triggers of one queue, and what they add to its peak windows.

use super::{Hysteresis, MOST_AGE, Reading, Standing, Trigger};
use crate::peaks::{Action, Active, Drain, PeakState, Phase, Ramp, TIERS, jitter};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_queue::{BatchQueueStatus, PeakWindowActiveReason};
use springtide_crds::common::{Tier, condition};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::Uid;

/// How often the room of a ramp is looked at.
const RAMP_STEP: SignedDuration = SignedDuration::from_secs(1);

/// Where a trigger stands, for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerFigures {
    /// Its name.
    pub name: String,
    /// Whether it is on, by the last that was measured.
    pub is_on: bool,
    /// Whether the load is known.
    pub is_measured: bool,
}

/// What the status of a queue tells of its triggers to another process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredLoads {
    /// Those that are on.
    on: Vec<String>,
    /// Since when one is, at the latest.
    since: Option<Timestamp>,
    /// The one that went off last, if its ramp was going on, and when that was.
    ended: Option<(String, Timestamp)>,
}

impl StoredLoads {
    /// Reads it.
    #[must_use]
    pub fn of(status: &BatchQueueStatus) -> Self {
        let active = condition(&status.conditions, PeakWindowActiveReason::CONDITION);
        let since = active.filter(|active| active.is(PeakWindowActiveReason::LoadTrigger));
        // Of windows the start is known, too.
        let ended = status.active_window.as_ref().filter(|window| window.start_time.is_none());
        Self {
            on: status.active_load_triggers.clone(),
            since: since.map(|active| active.last_transition_time.0),
            ended: ended.and_then(|window| Some((window.name.clone(), window.end_time.as_ref()?.0))),
        }
    }
}

/// The memory of all triggers of a queue.
#[derive(Clone, Debug, Default)]
pub struct Loads {
    known: Vec<(Trigger, Hysteresis)>,
    /// What the status of the queue said before this process first looked.
    stored: StoredLoads,
}

impl Loads {
    /// Takes in what the status says. It counts for triggers that this process has not looked at yet.
    pub fn store(&mut self, stored: StoredLoads) {
        self.stored = stored;
    }

    /// Turns to these triggers: who keeps its name keeps its state.
    fn turn_to(&mut self, triggers: &[Trigger], now: Timestamp) {
        if self.known.iter().map(|(trigger, _)| trigger).eq(triggers) {
            return;
        }
        let mut before = std::mem::take(&mut self.known);
        self.known = triggers
            .iter()
            .map(|trigger| match before.iter().position(|(other, _)| other.name == trigger.name) {
                Some(place) => {
                    let (other, mut memory) = before.swap_remove(place);
                    if other != *trigger {
                        memory.measure_anew();
                    }
                    (trigger.clone(), memory)
                }
                None => {
                    let is_on = self.stored.on.contains(&trigger.name);
                    let ended = self.stored.ended.as_ref().filter(|(name, _)| *name == trigger.name);
                    let ended = ended.map(|(_, at)| *at);
                    let turned = if is_on { self.stored.since } else { ended };
                    (trigger.clone(), Hysteresis::new(is_on, turned, now))
                }
            })
            .collect();
    }

    /// Takes in a reading of the nodes. Returns whether that is news.
    pub fn observe(&mut self, triggers: &[Trigger], reading: Option<&Reading>, now: Timestamp) -> bool {
        self.turn_to(triggers, now);
        let Some(reading) = reading else { return false };
        let mut is_news = false;
        for (trigger, memory) in &mut self.known {
            is_news |= memory.observe(trigger, trigger.share(reading), reading.at);
        }
        is_news
    }

    /// Adds what the triggers mean to what the windows of the queue do. An override that lets no window have an effect
    /// counts for triggers as well.
    pub fn add_to(&self, state: &mut PeakState, queue: &Uid, now: Timestamp) {
        state.triggers = self.known.iter().map(|(trigger, memory)| figures(trigger, memory, now)).collect();
        let is_off = match state.reason {
            PeakWindowActiveReason::ForcedOff => true,
            PeakWindowActiveReason::Draining
            | PeakWindowActiveReason::Closed
            | PeakWindowActiveReason::Ramping
            | PeakWindowActiveReason::Forced
            | PeakWindowActiveReason::LoadTrigger
            | PeakWindowActiveReason::Idle
            | PeakWindowActiveReason::Unresolved => false,
        };
        let concerned = |(trigger, _): &&(Trigger, Hysteresis)| {
            TIERS.iter().any(|tier| trigger.action(*tier) != Action::None)
        };
        let mut acting: Vec<(&Trigger, Standing)> = Vec::new();
        let mut ramping: Vec<(&Trigger, Ramp)> = Vec::new();
        for (trigger, memory) in self.known.iter().filter(concerned).filter(|_| !is_off) {
            let standing = memory.standing(now);
            let ramp = match standing {
                Standing::Off => memory.ended().and_then(|ended| {
                    let jitter = jitter(queue, &trigger.name, ended, trigger.jitter_seconds);
                    Ramp::after(ended, jitter, trigger.ramp, now)
                }),
                Standing::On { .. } | Standing::Unmeasured { .. } => {
                    acting.push((trigger, standing));
                    None
                }
            };
            ramping.extend(ramp.map(|ramp| (trigger, ramp)));
            for tier in TIERS {
                apply(trigger, standing, ramp, tier, state);
            }
            let steps =
                ramp.iter().flat_map(|ramp| [ramp.begins, after(now, RAMP_STEP).max(ramp.begins), ramp.ends]);
            let edges = memory.edge(now).into_iter().chain(steps).filter(|edge| *edge > now);
            state.wake = state.wake.into_iter().chain(edges).min();
        }
        // What windows do goes before: their times are known.
        match state.phase {
            Phase::Draining | Phase::Closed => {}
            Phase::Idle | Phase::Ramping => tell(&acting, &ramping, state),
        }
    }
}

fn figures(trigger: &Trigger, memory: &Hysteresis, now: Timestamp) -> TriggerFigures {
    let (is_on, _) = memory.state();
    let is_measured = match memory.standing(now) {
        Standing::Off | Standing::On { .. } => true,
        Standing::Unmeasured { .. } => false,
    };
    TriggerFigures { name: trigger.name.clone(), is_on, is_measured }
}

fn apply(trigger: &Trigger, standing: Standing, ramp: Option<Ramp>, tier: Tier, state: &mut PeakState) {
    let action = trigger.action(tier);
    if action == Action::None {
        return;
    }
    let result = state.tier_mut(tier);
    let before = *result;
    match standing {
        Standing::Off => {}
        Standing::On { is_low: false, .. } => {
            let pods_per_second = trigger.pods_per_second;
            result.apply(action, Some(Drain { start: None, lead: SignedDuration::ZERO, pods_per_second }));
        }
        Standing::On { is_low: true, .. } => match action {
            Action::Drain | Action::Hold => result.apply(Action::Hold, None),
            Action::Degrade { .. } | Action::None => result.apply(action, None),
        },
        Standing::Unmeasured { .. } => result.apply(Action::Hold, None),
    }
    if let Some(ramp) = ramp {
        result.ramp = Some(ramp.slower(result.ramp));
    }
    let is_tighter =
        (result.action, result.percent, result.ramp) != (before.action, before.percent, before.ramp);
    result.by_load |= is_tighter;
}

/// Lets the state say what the triggers do.
fn tell(acting: &[(&Trigger, Standing)], ramping: &[(&Trigger, Ramp)], state: &mut PeakState) {
    let more = match acting.len() {
        0 | 1 => String::new(),
        all => format!("; and {} more", all - 1),
    };
    if let Some((trigger, standing)) = acting.first() {
        let Trigger { name, low_percent, high_percent, sustain, .. } = trigger;
        let (sustain, noun) = (sustain.as_secs(), trigger.noun());
        let (start, message) = match standing {
            Standing::On { since, .. } => (
                Some(*since),
                format!(
                    "load trigger {name}: {high_percent} % of {noun} was in use for {sustain} s; ends at \
                     {low_percent} %{more}"
                ),
            ),
            Standing::Unmeasured { last: Some(last) } => (
                Some(after(*last, MOST_AGE)),
                format!(
                    "load trigger {name}: metrics.k8s.io tells nothing new of most nodes since {last:.0}; its tiers \
                     hold{more}"
                ),
            ),
            Standing::Unmeasured { last: None } | Standing::Off => (
                None,
                format!(
                    "load trigger {name}: metrics.k8s.io tells nothing of most nodes; its tiers hold{more}"
                ),
            ),
        };
        state.phase = Phase::Closed;
        state.reason = PeakWindowActiveReason::LoadTrigger;
        state.active = Some(Active { name: name.clone(), start, end: Timestamp::MAX });
        state.message = message;
        return;
    }
    let slowest = ramping.iter().max_by_key(|(_, ramp)| ramp.ends);
    // That windows are unresolved matters more.
    if let Some((trigger, ramp)) = slowest.filter(|_| state.reason == PeakWindowActiveReason::Idle) {
        let name = &trigger.name;
        state.phase = Phase::Ramping;
        state.reason = PeakWindowActiveReason::Ramping;
        state.active = Some(Active { name: name.clone(), start: None, end: ramp.ended });
        state.message =
            format!("load trigger {name} went off at {:.0}; work comes back little by little", ramp.ended);
    }
}
