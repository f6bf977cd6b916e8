//! The state of a work queue: plain transitions at a given time, without waiting.

use super::ready::{Place, Ready};
use super::{Item, Next, Priority, Stats, Urgency};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// The first backoff, where the class of the error asks for no longer one; it doubles with every further
/// failed pass.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// The longest backoff, jitter included.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// Backoffs are spread over ± this share, so that keys that failed together do not return together.
const JITTER: f64 = 0.25;
/// Conflicting passes in a row from which on a backoff applies: the store has had its chances.
const CONFLICTS_BEFORE_BACKOFF: u32 = 5;
/// How often in a row a key may step aside and keep its place. Then it goes behind the others: a
/// key that is refused for ever must not go before younger ones for ever.
const KEPT_PLACES: u8 = 3;

#[derive(Debug)]
pub(super) struct State<K> {
    /// Every key that is queued, running or waiting. A key at rest has no entry.
    keys: HashMap<K, Entry>,
    ready: Ready<K>,
    /// When a key in backoff, throttled or asleep becomes ready; at most one per key.
    timers: BTreeSet<(Instant, K)>,
    adds: u64,
    retries: u64,
    rng: SmallRng,
    pub(super) closed: bool,
}

#[derive(Debug)]
struct Entry {
    phase: Phase,
    /// Failed passes in a row.
    failures: u32,
    /// Conflicting passes in a row.
    conflicts: u32,
    /// How often in a row it stepped aside and kept its place.
    kept: u8,
}

impl Entry {
    fn new(phase: Phase) -> Self {
        Self { phase, failures: 0, conflicts: 0, kept: 0 }
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Queued { place: Place, since: Instant },
    Running { place: Place, since: Instant, again: Option<Again>, released: bool, resumed: bool },
    Backoff { priority: Priority, until: Instant },
    Throttled { place: Place, until: Instant },
    Gated { place: Place },
    Asleep { until: Instant },
}

/// The events that came during a run, as one.
#[derive(Clone, Copy, Debug)]
struct Again {
    priority: Priority,
    urgency: Urgency,
}

impl<K: Clone + Ord + Hash + Debug> State<K> {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            keys: HashMap::new(),
            ready: Ready::new(),
            timers: BTreeSet::new(),
            adds: 0,
            retries: 0,
            rng: SmallRng::seed_from_u64(seed),
            closed: false,
        }
    }

    pub(super) fn add(&mut self, key: K, priority: Priority, urgency: Urgency, now: Instant) {
        let Some(entry) = self.keys.get_mut(&key) else {
            self.queue_last(key, priority, now);
            return;
        };
        match &mut entry.phase {
            Phase::Queued { place, .. } => {
                if priority > place.priority {
                    self.ready.remove(*place);
                    *place = place.raised_to(priority);
                    self.ready.insert(*place, key);
                }
            }
            Phase::Running { again, .. } => match again {
                Some(again) => {
                    again.priority = again.priority.max(priority);
                    again.urgency = again.urgency.max(urgency);
                }
                None => *again = Some(Again { priority, urgency }),
            },
            Phase::Backoff { priority: held, until } => {
                *held = priority.max(*held);
                match urgency {
                    Urgency::Routine => {}
                    Urgency::BreaksBackoff => {
                        let (priority, timer) = (*held, (*until, key));
                        self.timers.remove(&timer);
                        self.queue_last(timer.1, priority, now);
                    }
                }
            }
            Phase::Throttled { place, .. } | Phase::Gated { place } => *place = place.raised_to(priority),
            Phase::Asleep { until } => {
                let timer = (*until, key);
                self.timers.remove(&timer);
                self.queue_last(timer.1, priority, now);
            }
        }
    }

    /// Makes the keys ready whose time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.timers.first().is_some_and(|(at, _)| *at <= now) {
            let Some((at, key)) = self.timers.pop_first() else { return };
            let Some(entry) = self.keys.get(&key) else { continue };
            match entry.phase {
                Phase::Backoff { priority, .. } => self.queue_last(key, priority, at),
                Phase::Throttled { place, .. } => self.queue_at(key, place, at),
                Phase::Asleep { .. } => self.queue_last(key, Priority::Normal, at),
                Phase::Queued { .. } | Phase::Running { .. } | Phase::Gated { .. } => {}
            }
        }
    }

    pub(super) fn pop(&mut self, now: Instant) -> Option<Item<K>> {
        let key = self.ready.pop()?;
        let entry = self.keys.get_mut(&key)?;
        let Phase::Queued { place, since } = entry.phase else { return None };
        entry.phase = Phase::Running { place, since: now, again: None, released: false, resumed: false };
        let waited = now.saturating_duration_since(since);
        Some(Item { priority: place.priority, waited, failures: entry.failures, key })
    }

    pub(super) fn done(&mut self, key: &K, next: Next, now: Instant) {
        let Some(Entry { phase: Phase::Running { place, again, released, resumed, .. }, .. }) =
            self.keys.get(key)
        else {
            tracing::error!(?key, "a pass was reported for a key that is not running");
            return;
        };
        // A gate that opened during the run was closed by it, so the run did not see what opened it.
        let released = released.then_some(Again { priority: Priority::Normal, urgency: Urgency::Routine });
        let (again, resumed) = (*again, *resumed);
        let place = again.map_or(*place, |again| place.raised_to(again.priority));
        match next {
            Next::Success => self.rest(key, again.or(released), None, now),
            Next::WakeAt(at) => self.rest(key, again.or(released), Some(at), now),
            Next::Failed { min } => self.retry(key, place.priority, again, min, now),
            Next::Conflict => self.conflict(key, place.priority, again, now),
            Next::Throttled { .. } if resumed => {
                let place = self.step_aside(key, place);
                self.queue_at(key.clone(), place, now);
            }
            Next::Throttled { until } => {
                let place = self.step_aside(key, place);
                self.set_timer(key, Phase::Throttled { place, until }, until);
            }
            Next::Gated if released.is_some() => {
                let place = self.step_aside(key, place);
                self.queue_at(key.clone(), place, now);
            }
            Next::Gated => {
                let place = self.step_aside(key, place);
                self.set_phase(key, Phase::Gated { place });
            }
        }
    }

    pub(super) fn release(&mut self, key: &K, now: Instant) {
        match self.keys.get_mut(key).map(|entry| &mut entry.phase) {
            Some(Phase::Gated { place }) => {
                let place = *place;
                self.queue_at(key.clone(), place, now);
            }
            Some(Phase::Running { released, .. }) => *released = true,
            None | Some(Phase::Asleep { .. }) => {
                self.add(key.clone(), Priority::Normal, Urgency::Routine, now);
            }
            Some(Phase::Queued { .. } | Phase::Backoff { .. } | Phase::Throttled { .. }) => {}
        }
    }

    pub(super) fn resume(&mut self, key: &K, now: Instant) {
        match self.keys.get_mut(key).map(|entry| &mut entry.phase) {
            Some(Phase::Throttled { place, until }) => {
                let (place, timer) = (*place, (*until, key.clone()));
                self.timers.remove(&timer);
                self.queue_at(timer.1, place, now);
            }
            Some(Phase::Running { resumed, .. }) => *resumed = true,
            None
            | Some(
                Phase::Queued { .. } | Phase::Backoff { .. } | Phase::Gated { .. } | Phase::Asleep { .. },
            ) => {}
        }
    }

    /// After a pass that did not fail.
    fn rest(&mut self, key: &K, again: Option<Again>, wake: Option<Instant>, now: Instant) {
        self.keys.remove(key);
        match (again, wake) {
            (Some(again), _) => self.queue_last(key.clone(), again.priority, now),
            (None, Some(until)) => self.set_timer(key, Phase::Asleep { until }, until),
            (None, None) => {}
        }
    }

    /// After a failed pass.
    fn retry(&mut self, key: &K, priority: Priority, again: Option<Again>, min: Duration, now: Instant) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        entry.failures = entry.failures.saturating_add(1);
        entry.conflicts = 0;
        entry.kept = 0;
        let failures = entry.failures;
        self.retries += 1;
        self.back_off(key, priority, again, failures, min, now);
    }

    /// After a pass that was decided on an old view.
    fn conflict(&mut self, key: &K, priority: Priority, again: Option<Again>, now: Instant) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        entry.conflicts = entry.conflicts.saturating_add(1);
        entry.kept = 0;
        let conflicts = entry.conflicts;
        self.retries += 1;
        match conflicts.saturating_sub(CONFLICTS_BEFORE_BACKOFF - 1) {
            0 => self.queue_last(key.clone(), priority, now),
            past => self.back_off(key, priority, again, past, Duration::ZERO, now),
        }
    }

    /// Backoff after the `failures`-th failed pass in a row, unless what it failed at has changed since.
    fn back_off(
        &mut self,
        key: &K,
        priority: Priority,
        again: Option<Again>,
        failures: u32,
        min: Duration,
        now: Instant,
    ) {
        match again.map(|again| again.urgency) {
            Some(Urgency::BreaksBackoff) => self.queue_last(key.clone(), priority, now),
            Some(Urgency::Routine) | None => {
                let until = now + self.backoff(failures, min);
                self.set_timer(key, Phase::Backoff { priority, until }, until);
            }
        }
    }

    /// The delay after the `failures`-th failed pass in a row.
    fn backoff(&mut self, failures: u32, min: Duration) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let nominal = (FIRST_BACKOFF.max(min.min(MAX_BACKOFF)) * (1 << doublings)).min(MAX_BACKOFF);
        let longest = nominal.mul_f64(1.0 + JITTER).min(MAX_BACKOFF);
        self.rng.random_range(nominal.mul_f64(1.0 - JITTER)..=longest)
    }

    /// The place of a key that steps aside without having run.
    fn step_aside(&mut self, key: &K, place: Place) -> Place {
        let Some(entry) = self.keys.get_mut(key) else { return place };
        entry.kept += 1;
        if entry.kept <= KEPT_PLACES {
            return place;
        }
        entry.kept = 0;
        self.ready.last_place(place.priority)
    }

    fn queue_last(&mut self, key: K, priority: Priority, now: Instant) {
        let place = self.ready.last_place(priority);
        self.queue_at(key, place, now);
    }

    fn queue_at(&mut self, key: K, place: Place, now: Instant) {
        self.adds += 1;
        self.set_phase(&key, Phase::Queued { place, since: now });
        self.ready.insert(place, key);
    }

    fn set_timer(&mut self, key: &K, phase: Phase, until: Instant) {
        self.timers.insert((until, key.clone()));
        self.set_phase(key, phase);
    }

    fn set_phase(&mut self, key: &K, phase: Phase) {
        match self.keys.get_mut(key) {
            Some(entry) => entry.phase = phase,
            None => {
                self.keys.insert(key.clone(), Entry::new(phase));
            }
        }
    }

    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.keys.is_empty() && self.timers.is_empty() && self.ready.is_empty()
    }

    pub(super) fn depth(&self, priority: Priority) -> usize {
        self.ready.len(priority)
    }

    pub(super) fn stats(&self, now: Instant) -> Stats {
        let mut stats = Stats {
            depth: Priority::ALL.map(|priority| self.ready.len(priority)),
            adds: self.adds,
            retries: self.retries,
            ..Stats::default()
        };
        for entry in self.keys.values() {
            match entry.phase {
                Phase::Queued { .. } | Phase::Asleep { .. } => {}
                Phase::Running { since, .. } => {
                    let age = now.saturating_duration_since(since);
                    stats.running += 1;
                    stats.longest_run = stats.longest_run.max(age);
                    stats.unfinished += age;
                }
                Phase::Backoff { .. } => stats.in_backoff += 1,
                Phase::Throttled { .. } => stats.throttled += 1,
                Phase::Gated { .. } => stats.gated += 1,
            }
        }
        stats
    }
}
