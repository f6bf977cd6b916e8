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
    /// It has all that it needs, or is the chain that collects it, and leaves the line.
    Granted,
    /// It cannot have what these need.
    Blocked(Reach),
    /// It cannot have what it alone needs, and leaves the line for a time.
    Aside,
}

/// Who cannot have what a ticket was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Its lane in its namespace.
    Lane,
    /// The same lane of every namespace.
    Lanes,
    /// All of its controller.
    Controller,
    /// Everybody.
    All,
}

#[derive(Debug, Default)]
pub(super) struct Turns {
    classes: [ClassTurns; CLASSES],
    /// Grants to others since a class had its share.
    passed_over: [u32; CLASSES],
    waiting: Waiting,
}

/// How many tickets wait in each lane, over all classes and namespaces: few lanes, however many namespaces.
#[derive(Debug, Default)]
struct Waiting(Vec<(Lane, usize)>);

impl Waiting {
    fn enter(&mut self, lane: Lane) {
        match self.0.iter_mut().find(|(held, _)| *held == lane) {
            Some((_, tickets)) => *tickets += 1,
            None => self.0.push((lane, 1)),
        }
    }

    fn leave(&mut self, lane: Lane) {
        if let Some(at) = self.0.iter().position(|(held, _)| *held == lane) {
            self.0[at].1 -= 1;
            if self.0[at].1 == 0 {
                self.0.swap_remove(at);
            }
        }
    }
}

/// Offers all that is free. Who is known to get nothing is not asked: with a thousand namespaces in line
/// behind one empty bucket, one is.
struct Round<'a, O> {
    offer: O,
    waiting: &'a mut Waiting,
    refused: Vec<(Lane, Reach)>,
}

impl<O: FnMut(&Caller) -> Verdict> Round<'_, O> {
    fn offer(&mut self, lane: Lane, caller: &Caller) -> Verdict {
        let verdict = (self.offer)(caller);
        match verdict {
            Verdict::Granted | Verdict::Aside => self.waiting.leave(lane),
            Verdict::Blocked(Reach::Lane) => {}
            Verdict::Blocked(reach @ (Reach::Lanes | Reach::Controller | Reach::All)) => {
                self.refused.push((lane, reach));
            }
        }
        verdict
    }

    fn is_refused(&self, lane: &Lane) -> bool {
        self.refused.iter().any(|(refused, reach)| match reach {
            Reach::Lane => false,
            Reach::Lanes => refused == lane,
            Reach::Controller => refused.controller == lane.controller,
            Reach::All => true,
        })
    }

    /// Nobody in line can get anything.
    fn is_over(&self) -> bool {
        self.waiting.0.iter().all(|(lane, _)| self.is_refused(lane))
    }
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
        self.waiting.enter(lane);
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
        let tickets = line.lanes.iter_mut().find(|(lane, _)| *lane == place.lane);
        if tickets.and_then(|(_, tickets)| tickets.remove(&place.number)).is_some() {
            self.waiting.leave(place.lane);
        }
        line.lanes.retain(|(_, tickets)| !tickets.is_empty());
        if line.lanes.is_empty() {
            class.namespaces.remove(&place.namespace);
            class.ring.retain(|namespace| *namespace != place.namespace);
        }
    }

    /// Offers all that is free to those whose turn it is, until nobody can use any of it. What an offer
    /// refuses it must go on refusing until this returns.
    pub(super) fn serve(&mut self, offer: impl FnMut(&Caller) -> Verdict) {
        let mut done = [false; CLASSES];
        let mut skipped: [Vec<Arc<str>>; CLASSES] = Default::default();
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut round = Round { offer, waiting: &mut waiting, refused: Vec::new() };
        while let Some(class) = self.next_class(&done) {
            if self.classes[class].serve(&mut round, &mut skipped[class]) {
                self.count(class, &done);
            } else {
                done[class] = true;
            }
        }
        self.waiting = waiting;
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
    /// One grant. A namespace that can use nothing now goes to `skipped`.
    fn serve(
        &mut self,
        round: &mut Round<'_, impl FnMut(&Caller) -> Verdict>,
        skipped: &mut Vec<Arc<str>>,
    ) -> bool {
        while !round.is_over() {
            let Some(namespace) = self.ring.pop_front() else { return false };
            let Some(line) = self.namespaces.get_mut(&namespace) else { continue };
            let served = line.serve(round);
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
    fn serve(&mut self, round: &mut Round<'_, impl FnMut(&Caller) -> Verdict>) -> bool {
        self.lanes.sort_unstable_by_key(|(_, tickets)| tickets.first_key_value().map(|(number, _)| *number));
        let mut served = false;
        for (lane, tickets) in &mut self.lanes {
            while let Some(first) = tickets.first_entry().filter(|_| !round.is_refused(lane)) {
                match round.offer(*lane, first.get()) {
                    Verdict::Granted => {
                        first.remove();
                        served = true;
                    }
                    Verdict::Blocked(_) => {}
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
