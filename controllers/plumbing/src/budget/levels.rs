//! One window per priority level of the server's flow control (API Priority and Fairness), learned from its answers.

use super::buckets::Lack;
use super::window::{Signal, Window};
use crate::plan::Write;
use rand::rngs::SmallRng;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The window of all that no answer has named a level for yet.
const COMMON: &str = "common";

/// UID of a priority level, or [`COMMON`].
pub(super) type LevelId = Arc<str>;

/// What the server's flow control tells requests of one user apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// The verb, as the audit log names it.
    pub verb: &'static str,
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Plural of the resource.
    pub resource: &'static str,
    /// Sub-resource, empty for the object itself.
    pub subresource: &'static str,
}

impl Route {
    /// The route of a write.
    pub fn of(write: &Write) -> Self {
        Self {
            verb: write.action.verb(),
            group: write.resource.group,
            resource: write.resource.plural,
            subresource: write.action.subresource(),
        }
    }
}

/// What is told of one request when it has ended.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Its route.
    pub route: Route,
    /// The level that the answer names (`X-Kubernetes-PF-PriorityLevel-UID`).
    pub level: Option<&'a str>,
    /// What became of it.
    pub signal: Signal,
    /// When it was sent.
    pub sent: Instant,
}

/// A place in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    level: LevelId,
    /// Number of the probe that it is for, after a hold.
    probe: Option<u32>,
}

#[derive(Debug)]
pub(super) struct Levels {
    of_route: HashMap<Route, LevelId>,
    windows: HashMap<LevelId, Window>,
    common: LevelId,
}

impl Levels {
    pub(super) fn new() -> Self {
        let common: LevelId = COMMON.into();
        Self {
            of_route: HashMap::new(),
            windows: HashMap::from([(Arc::clone(&common), Window::default())]),
            common,
        }
    }

    /// Reserves a slot in the window of each level among these routes, or none.
    pub(super) fn reserve(&mut self, routes: &[Route], now: Instant) -> Result<Vec<Slot>, Lack> {
        let mut levels: Vec<LevelId> = Vec::with_capacity(1);
        for route in routes {
            let level = self.level_of(route);
            if !levels.contains(level) {
                levels.push(Arc::clone(level));
            }
        }
        let lack = |level| self.windows.get(level).and_then(|window| window.lack(now));
        if let Some(lack) = levels.iter().find_map(lack) {
            return Err(lack);
        }
        let reserve = |level: LevelId| {
            let probe = self.windows.entry(Arc::clone(&level)).or_default().reserve();
            Slot { level, probe }
        };
        Ok(levels.into_iter().map(reserve).collect())
    }

    pub(super) fn may_claim(&self, slots: &[Slot]) -> bool {
        let may =
            |slot: &Slot| self.windows.get(&slot.level).is_some_and(|window| window.may_claim(slot.probe));
        slots.iter().all(may)
    }

    /// How long nothing of this route is to go out in these slots, if it is held.
    pub(super) fn held(&self, route: Route, slots: &[Slot], now: Instant) -> Option<Duration> {
        let level = self.level_of(&route);
        self.windows.get(level)?.held(probe_of(level, slots), now)
    }

    pub(super) fn claim(&mut self, slots: &[Slot]) {
        self.each(slots, |window, _| window.claim());
    }

    pub(super) fn give_back(&mut self, slots: &[Slot], now: Instant) {
        self.each(slots, |window, probe| window.give_back(probe, now));
    }

    pub(super) fn finish(&mut self, slots: &[Slot], now: Instant) {
        self.each(slots, |window, probe| window.finish(probe, now));
    }

    fn each(&mut self, slots: &[Slot], act: impl Fn(&mut Window, Option<u32>)) {
        for slot in slots {
            if let Some(window) = self.windows.get_mut(&slot.level) {
                act(window, slot.probe);
            }
        }
    }

    /// Learns from a request under way in these slots. For a 429, how long nothing goes out on its level.
    pub(super) fn learn(
        &mut self,
        report: &Report<'_>,
        slots: &[Slot],
        rng: &mut SmallRng,
        now: Instant,
    ) -> Option<Duration> {
        let level = match report.level {
            Some(uid) => self.belongs(report.route, uid, now),
            None => Arc::clone(self.level_of(&report.route)),
        };
        let probe = probe_of(&level, slots);
        let window = self.windows.entry(level).or_default();
        window.learn(report.signal, report.sent, probe, rng, now)
    }

    /// The level that answers have named for a route last.
    fn level_of(&self, route: &Route) -> &LevelId {
        self.of_route.get(route).unwrap_or(&self.common)
    }

    /// The level of a route is this one, from now on. Windows that no route leads to for long are dropped.
    fn belongs(&mut self, route: Route, uid: &str, now: Instant) -> LevelId {
        if let Some(level) = self.of_route.get(&route).filter(|level| ***level == *uid) {
            return Arc::clone(level);
        }
        let known = self.windows.get_key_value(uid).map(|(level, _)| Arc::clone(level));
        let level = known.unwrap_or_else(|| uid.into());
        self.windows.entry(Arc::clone(&level)).or_default();
        self.of_route.insert(route, Arc::clone(&level));
        let (common, routes) = (&self.common, &self.of_route);
        self.windows.retain(|level, window| {
            level == common || !window.is_idle(now) || routes.values().any(|used| used == level)
        });
        level
    }

    /// Each level with the requests under way and how many may be.
    pub(super) fn figures(&self) -> Vec<(LevelId, u32, u32)> {
        let figures =
            |(level, window): (&LevelId, &Window)| (Arc::clone(level), window.in_flight(), window.slots());
        let mut all: Vec<_> = self.windows.iter().map(figures).collect();
        all.sort_unstable();
        all
    }
}

/// The number of the probe that the slot of a level is for, if there is such a slot and it is for one.
fn probe_of(level: &LevelId, slots: &[Slot]) -> Option<u32> {
    slots.iter().find(|slot| slot.level == *level)?.probe
}
