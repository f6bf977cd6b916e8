//! Whether a load trigger is on, by readings and their times alone.

use super::Trigger;
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::clock::after;

/// Readings older than this say nothing any more.
pub const MOST_AGE: SignedDuration = SignedDuration::from_secs(60);

/// What a trigger means now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing.
    Off,
    /// Its actions.
    On {
        /// Since when.
        since: Timestamp,
        /// The load is as low as turns it off, though not for long enough: nothing starts, but to end more would be for
        /// nothing.
        is_low: bool,
    },
    /// Nobody knows the load: nothing of its tiers starts, and nothing is ended.
    Unmeasured {
        /// When it was last known, if ever.
        last: Option<Timestamp>,
    },
}

/// The memory of one trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hysteresis {
    is_on: bool,
    /// When it last went on or off.
    turned: Option<Timestamp>,
    /// Since when readings say without exception that it should turn.
    crossing: Option<Timestamp>,
    /// Whether the last reading is low; also where nobody knows, as its limits have changed since.
    is_low: bool,
    /// The time of the last reading.
    read: Option<Timestamp>,
    /// When the last reading was missed first, or what it did ended: work comes back from then on.
    ended: Option<Timestamp>,
    /// Since when readings are waited for.
    began: Timestamp,
}

impl Hysteresis {
    /// Of a trigger that is new, or that another process has left so; `turned` is when it last went on or off.
    #[must_use]
    pub fn new(is_on: bool, turned: Option<Timestamp>, now: Timestamp) -> Self {
        let turned = turned.map(|at| at.min(now));
        let ended = turned.filter(|_| !is_on);
        Self { is_on, turned, crossing: None, is_low: false, read: None, ended, began: now }
    }

    /// Takes in what was measured at a time, in thousandths. Returns whether that is news.
    pub fn observe(&mut self, trigger: &Trigger, share: u32, at: Timestamp) -> bool {
        if self.read == Some(at) {
            return false;
        }
        let was_measured = match self.standing(at) {
            Standing::Off | Standing::On { .. } => true,
            Standing::Unmeasured { .. } => false,
        };
        // What happened in a gap is not known, nor how long one was in which the clock was set back.
        let follows = self.read.is_some_and(|before| before < at && at.duration_since(before) < MOST_AGE);
        self.read = Some(at);
        self.is_low = share <= trigger.low_percent * 10;
        let wants_to_turn = match self.is_on {
            false => share >= trigger.high_percent * 10,
            true => self.is_low,
        };
        let crossing = self.crossing.filter(|since| follows && *since <= at).unwrap_or(at);
        self.crossing = wants_to_turn.then_some(crossing);
        if wants_to_turn && at.duration_since(crossing) >= trigger.sustain {
            self.is_on = !self.is_on;
            self.turned = Some(at);
            self.crossing = None;
            self.ended = Some(at).filter(|_| !self.is_on);
        } else if !was_measured && !self.is_on {
            self.ended = Some(at);
        }
        true
    }

    /// Its limits are others now: what was measured against the old ones says nothing.
    pub fn measure_anew(&mut self) {
        self.crossing = None;
        self.is_low = true;
    }

    /// What it means at a time.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        let is_known = match self.read {
            Some(read) => now.duration_since(read).abs() < MOST_AGE,
            // A new process, or a new queue, gives the first reading its time, unless there is something to keep up.
            None => !self.is_on && now.duration_since(self.began).abs() < MOST_AGE,
        };
        match (is_known, self.is_on) {
            (false, _) => Standing::Unmeasured { last: self.read },
            (true, true) => Standing::On { since: self.turned.unwrap_or(self.began), is_low: self.is_low },
            (true, false) => Standing::Off,
        }
    }

    /// When that changes without a further reading.
    #[must_use]
    pub fn edge(&self, now: Timestamp) -> Option<Timestamp> {
        let edge = match self.read {
            Some(read) => after(read, MOST_AGE),
            None => after(self.began, MOST_AGE),
        };
        Some(edge).filter(|edge| *edge > now)
    }

    /// When what it did last ended, if it is off.
    #[must_use]
    pub fn ended(&self) -> Option<Timestamp> {
        self.ended.filter(|_| !self.is_on)
    }

    /// Whether it is on by the last reading, and when it last went on or off.
    #[must_use]
    pub fn state(&self) -> (bool, Option<Timestamp>) {
        (self.is_on, self.turned)
    }
}
