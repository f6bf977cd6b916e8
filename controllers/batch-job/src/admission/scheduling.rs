//! How many pods of a class may wait for the scheduler where nobody can say whether they fit: ten, and twice as many
//! each time that it has placed as many, all of them within a second. As soon as one takes longer it is ten again: what
//! the scheduler finds no place for at once must not pile up in front of it.

use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::key::ObjectKey;
use std::collections::HashMap;

/// Pods that may wait at first, and after one that has waited for long.
const FEW: usize = 10;
/// More are never asked for.
const MOST: usize = 1 << 20;
/// A pod that waits longer waits for long.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// The pods of one class that wait for a node.
#[derive(Debug)]
pub(super) struct Scheduling {
    /// When the first pass was after a pod was seen; `None` before that one. Unlike the times that the API server and
    /// the scheduler give to pods these are of our own clock, and not whole seconds.
    waiting: HashMap<ObjectKey, Option<Timestamp>>,
    /// The same of those that were placed since the last pass.
    placed: Vec<Option<Timestamp>>,
    /// How many may wait.
    limit: usize,
    /// Pods that were placed soon since that has changed.
    soon: usize,
}

impl Scheduling {
    /// Of a class that has no pods yet.
    pub(super) fn new() -> Self {
        Self { waiting: HashMap::new(), placed: Vec::new(), limit: FEW, soon: 0 }
    }

    /// How many pods wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many more may come where so many are granted that do not exist yet.
    pub(super) fn room(&self, in_flight: usize) -> usize {
        self.limit.saturating_sub(self.waiting() + in_flight)
    }

    /// A pod is there and waits.
    pub(super) fn waits(&mut self, pod: ObjectKey) {
        self.waiting.insert(pod, None);
    }

    /// A pod was placed.
    pub(super) fn placed(&mut self, pod: &ObjectKey) {
        self.placed.extend(self.waiting.remove(pod));
    }

    /// A pod has gone without having been placed.
    pub(super) fn gone(&mut self, pod: &ObjectKey) {
        self.waiting.remove(pod);
    }

    /// What was learned of the scheduler says nothing any more.
    pub(super) fn begin_anew(&mut self) {
        (self.limit, self.soon) = (FEW, 0);
    }

    /// Judges what has happened since the last pass; to be asked at the begin of each. Where it is known what fits
    /// (`is_modelled`) nothing depends on it.
    pub(super) fn look(&mut self, is_modelled: bool, now: Timestamp) {
        let placed = std::mem::take(&mut self.placed);
        if is_modelled {
            return;
        }
        // What was seen and placed between two passes took no time. A time that lies ahead was noted before the clock
        // was put back.
        let is_late = |since: &Option<Timestamp>| since.is_some_and(|since| now.duration_since(since) > SOON);
        if placed.iter().chain(self.waiting.values()).any(is_late) {
            self.begin_anew();
        } else {
            self.soon += placed.len();
            if self.soon >= self.limit {
                (self.limit, self.soon) = (self.limit.saturating_mul(2).min(MOST), 0);
            }
        }
        for since in self.waiting.values_mut() {
            since.get_or_insert(now);
        }
    }
}
