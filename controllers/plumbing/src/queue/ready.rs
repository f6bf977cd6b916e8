//! The keys that can run now, in the order in which they will.

use super::Priority;
use std::collections::BTreeMap;

/// Every this many pops, the oldest key of a lower priority goes first.
const LOWER_TURN: u32 = 8;

/// A place in the queue: of one priority, the smaller `turn` goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) priority: Priority,
    turn: u64,
}

impl Place {
    /// The same turn, at this priority if it is higher.
    pub(super) fn raised_to(self, priority: Priority) -> Self {
        Self { priority: self.priority.max(priority), ..self }
    }
}

#[derive(Debug)]
pub(super) struct Ready<K> {
    high: BTreeMap<u64, K>,
    normal: BTreeMap<u64, K>,
    low: BTreeMap<u64, K>,
    next_turn: u64,
    /// Pops since a lower priority had its turn, counted only while one waits.
    passed_over: u32,
}

impl<K> Ready<K> {
    pub(super) fn new() -> Self {
        Self {
            high: BTreeMap::new(),
            normal: BTreeMap::new(),
            low: BTreeMap::new(),
            next_turn: 0,
            passed_over: 0,
        }
    }

    fn level(&self, priority: Priority) -> &BTreeMap<u64, K> {
        match priority {
            Priority::High => &self.high,
            Priority::Normal => &self.normal,
            Priority::Low => &self.low,
        }
    }

    fn level_mut(&mut self, priority: Priority) -> &mut BTreeMap<u64, K> {
        match priority {
            Priority::High => &mut self.high,
            Priority::Normal => &mut self.normal,
            Priority::Low => &mut self.low,
        }
    }

    /// The place behind all others of this priority.
    pub(super) fn last_place(&mut self, priority: Priority) -> Place {
        let turn = self.next_turn;
        self.next_turn += 1;
        Place { priority, turn }
    }

    pub(super) fn insert(&mut self, place: Place, key: K) {
        self.level_mut(place.priority).insert(place.turn, key);
    }

    pub(super) fn remove(&mut self, place: Place) -> Option<K> {
        self.level_mut(place.priority).remove(&place.turn)
    }

    pub(super) fn len(&self, priority: Priority) -> usize {
        self.level(priority).len()
    }

    pub(super) fn is_empty(&self) -> bool {
        Priority::ALL.into_iter().all(|priority| self.level(priority).is_empty())
    }

    /// Takes the key that is to run next.
    pub(super) fn pop(&mut self) -> Option<K> {
        let head = |priority| Some(Place { priority, turn: *self.level(priority).first_key_value()?.0 });
        let mut heads = Priority::ALL.into_iter().filter_map(head);
        let highest = heads.next()?;
        let oldest_lower = heads.min_by_key(|place| place.turn);
        let place = match oldest_lower {
            Some(lower) => {
                self.passed_over += 1;
                if self.passed_over < LOWER_TURN {
                    highest
                } else {
                    self.passed_over = 0;
                    lower
                }
            }
            None => highest,
        };
        self.remove(place)
    }
}
