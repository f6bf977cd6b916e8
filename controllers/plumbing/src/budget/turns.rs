//! Whose turn it is: deficit round robin over namespaces within a class (Shreedhar and Varghese, 1996),
//! and a share of the grants for each lower class.

use super::Route;
use crate::key::ObjectKey;
use crate::plan::WriteClass;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Grants that a namespace gets before it is the next one's turn.
pub(super) const QUANTUM: u32 = 4;
/// Of so many grants a class that waits behind a higher one gets one.
pub(super) const LOWER_SHARE: u32 = 16;

const CLASSES: usize = WriteClass::ALL.len();

/// A key of a controller.
pub(super) type Caller = (&'static str, ObjectKey);

/// Where a ticket stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) class: WriteClass,
    pub(super) namespace: Arc<str>,
    pub(super) lane: Lane,
    /// In the order of arrival.
    pub(super) number: u64,
}

/// Tickets of a class and namespace that need the same, the bucket of their object apart: when the first
/// one cannot have it, none can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    pub(super) controller: &'static str,
    pub(super) route: Route,
    pub(super) chain: bool,
}

/// What came of the offer to a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has all that it needs, and leaves the line.
    Granted,
    /// It has what it needs for one more write of its chain.
    Partly,
    /// It cannot have what its whole lane needs.
    Blocked,
    /// It cannot have what it alone needs, and leaves the line for a time.
    Aside,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    classes: [ClassTurns; CLASSES],
    /// Grants to others since a class had its share.
    passed_over: [u32; CLASSES],
}

#[derive(Debug, Default)]
struct ClassTurns {
    ring: VecDeque<Arc<str>>,
    namespaces: HashMap<Arc<str>, NamespaceTurns>,
}

#[derive(Debug)]
struct NamespaceTurns {
    /// Grants left before the next namespace's turn.
    deficit: u32,
    lanes: Vec<(Lane, BTreeMap<u64, Caller>)>,
}

impl Turns {
    pub(super) fn insert(&mut self, place: Place, caller: Caller) {
        let Place { class, namespace, lane, number } = place;
        let class = &mut self.classes[class as usize];
        let line = class.namespaces.entry(namespace).or_insert_with_key(|namespace| {
            class.ring.push_back(Arc::clone(namespace));
            NamespaceTurns { deficit: QUANTUM, lanes: Vec::new() }
        });
        match line.lanes.iter_mut().find(|(held, _)| *held == lane) {
            Some((_, tickets)) => drop(tickets.insert(number, caller)),
            None => line.lanes.push((lane, BTreeMap::from([(number, caller)]))),
        }
    }

    pub(super) fn remove(&mut self, place: &Place) {
        let class = &mut self.classes[place.class as usize];
        let Some(line) = class.namespaces.get_mut(&place.namespace) else { return };
        if let Some((_, tickets)) = line.lanes.iter_mut().find(|(lane, _)| *lane == place.lane) {
            tickets.remove(&place.number);
        }
        line.lanes.retain(|(_, tickets)| !tickets.is_empty());
        if line.lanes.is_empty() {
            class.namespaces.remove(&place.namespace);
            class.ring.retain(|namespace| *namespace != place.namespace);
        }
    }

    /// Offers all that is free to those whose turn it is, until nobody can use any of it. What an offer
    /// refuses it must go on refusing until this returns.
    pub(super) fn serve(&mut self, mut offer: impl FnMut(&Caller) -> Verdict) {
        let mut done = [false; CLASSES];
        let mut skipped: [Vec<Arc<str>>; CLASSES] = Default::default();
        while let Some(class) = self.next_class(&done) {
            if self.classes[class].serve(&mut offer, &mut skipped[class]) {
                self.count(class, &done);
            } else {
                done[class] = true;
            }
        }
        for (class, skipped) in self.classes.iter_mut().zip(skipped) {
            // Those that could not use their turn have it still.
            skipped.into_iter().rev().for_each(|namespace| class.ring.push_front(namespace));
        }
    }

    /// The highest class that waits, unless a lower one is due.
    fn next_class(&self, done: &[bool; CLASSES]) -> Option<usize> {
        let waits = |class: &usize| !done[*class] && !self.classes[*class].ring.is_empty();
        let highest = (0..CLASSES).find(waits)?;
        let due = |class: &usize| waits(class) && self.passed_over[*class] >= LOWER_SHARE - 1;
        Some((highest + 1..CLASSES).find(due).unwrap_or(highest))
    }

    fn count(&mut self, granted: usize, done: &[bool; CLASSES]) {
        self.passed_over[granted] = 0;
        for (class, passed_over) in self.passed_over.iter_mut().enumerate() {
            if self.classes[class].namespaces.is_empty() {
                *passed_over = 0;
            } else if class != granted && !done[class] {
                *passed_over += 1;
            }
        }
    }
}

impl ClassTurns {
    /// One grant, or one write of a chain. A namespace that can use nothing now goes to `skipped`.
    fn serve(&mut self, offer: &mut impl FnMut(&Caller) -> Verdict, skipped: &mut Vec<Arc<str>>) -> bool {
        while let Some(namespace) = self.ring.pop_front() {
            let Some(line) = self.namespaces.get_mut(&namespace) else { continue };
            let served = line.serve(offer);
            if line.lanes.is_empty() {
                self.namespaces.remove(&namespace);
            } else if !served {
                skipped.push(namespace);
            } else {
                line.deficit -= 1;
                if line.deficit == 0 {
                    line.deficit = QUANTUM;
                    self.ring.push_back(namespace);
                } else {
                    self.ring.push_front(namespace);
                }
            }
            if served {
                return true;
            }
        }
        false
    }
}

impl NamespaceTurns {
    /// Offers to the first of each lane, the oldest first.
    fn serve(&mut self, offer: &mut impl FnMut(&Caller) -> Verdict) -> bool {
        self.lanes.sort_unstable_by_key(|(_, tickets)| tickets.first_key_value().map(|(number, _)| *number));
        let mut served = false;
        for (_, tickets) in &mut self.lanes {
            while let Some(first) = tickets.first_entry() {
                match offer(first.get()) {
                    Verdict::Granted => {
                        first.remove();
                        served = true;
                    }
                    Verdict::Partly => served = true,
                    Verdict::Blocked => {}
                    Verdict::Aside => {
                        first.remove();
                        continue;
                    }
                }
                break;
            }
            if served {
                break;
            }
        }
        self.lanes.retain(|(_, tickets)| !tickets.is_empty());
        served
    }
}
