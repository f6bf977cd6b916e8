//! Since when something has been seen to hold without a break: for waits whose start no object of the API says.
//!
//! It is kept by the process alone. A new leader starts anew, so such a wait only gets longer.

use jiff::Timestamp;
use std::collections::HashMap;
use std::hash::Hash;

/// Since when something has been seen to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// The first look at which it held.
    pub since: Timestamp,
    /// Whether a look before that one showed that it did not hold yet; else it may have held for long.
    pub saw_begin: bool,
}

/// Since when one thing has been as it is, for who keeps other things of it too.
#[derive(Clone, Debug)]
pub struct Seen<V = ()> {
    known: Option<(V, Sighting)>,
    was_looked_at: bool,
}

impl<V> Default for Seen<V> {
    fn default() -> Self {
        Self { known: None, was_looked_at: false }
    }
}

impl<V> Seen<V> {
    /// What the last look said.
    pub fn last(&self) -> Option<Sighting> {
        self.known.as_ref().map(|(_, sighting)| *sighting)
    }
}

impl<V: PartialEq> Seen<V> {
    /// Takes in how it is now, and says since when it has been so, as far as was looked. `None` as its state does not hold
    /// anything; another state than before begins anew.
    ///
    /// A clock that was put back makes no wait longer than it would be from now on.
    pub fn look(&mut self, state: Option<V>, now: Timestamp) -> Option<Sighting> {
        let saw_begin = std::mem::replace(&mut self.was_looked_at, true);
        let Some(state) = state else {
            self.known = None;
            return None;
        };
        match &mut self.known {
            Some((held, sighting)) if *held == state => {
                sighting.since = now.min(sighting.since);
                Some(*sighting)
            }
            Some(_) | None => {
                let sighting = Sighting { since: now, saw_begin };
                self.known = Some((state, sighting));
                Some(sighting)
            }
        }
    }
}

/// Since when each of many things has been as it is. Part of what a controller observes, never of a planner.
#[derive(Clone, Debug)]
pub struct FirstSeen<K, V = ()>(HashMap<K, Seen<V>>);

impl<K, V> Default for FirstSeen<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash, V: PartialEq> FirstSeen<K, V> {
    /// Takes in how `what` is now, see [`Seen::look`].
    pub fn look(&mut self, what: K, state: Option<V>, now: Timestamp) -> Option<Sighting> {
        self.0.entry(what).or_default().look(state, now)
    }

    /// Keeps what is still of interest.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&K) -> bool) {
        self.0.retain(|what, _| is_kept(what));
    }

    /// How many things have been looked at.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing has been looked at.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn since(second: i64, saw_begin: bool) -> Option<Sighting> {
        Some(Sighting { since: at(second), saw_begin })
    }

    #[test]
    fn a_break_starts_the_time_anew_and_is_known_as_a_begin() {
        let mut seen = FirstSeen::default();
        assert_eq!(seen.look("a", Some(()), at(10)), since(10, false));
        assert_eq!(seen.look("a", Some(()), at(20)), since(10, false));
        assert_eq!(seen.look("b", Some(()), at(20)), since(20, false));
        assert_eq!(seen.look("a", None, at(30)), None);
        assert_eq!(seen.look("a", Some(()), at(40)), since(40, true));
        let mut one = Seen::default();
        assert_eq!((one.look(Some(()), at(50)), one.last()), (since(50, false), since(50, false)));
        assert_eq!((one.look(None, at(60)), one.last()), (None, None));
    }

    #[test]
    fn another_state_begins_anew() {
        let mut seen = FirstSeen::default();
        assert_eq!(seen.look("a", Some(1), at(10)), since(10, false));
        assert_eq!(seen.look("a", Some(2), at(20)), since(20, true));
        assert_eq!(seen.look("a", Some(2), at(30)), since(20, true));
    }

    #[test]
    fn a_clock_that_is_put_back_leaves_no_start_in_the_future() {
        let mut seen = FirstSeen::default();
        seen.look("a", Some(()), at(1000));
        assert_eq!(seen.look("a", Some(()), at(10)), since(10, false));
        assert_eq!(seen.look("a", Some(()), at(20)), since(10, false));
    }

    #[test]
    fn what_is_of_no_interest_is_forgotten() {
        let mut seen = FirstSeen::default();
        seen.look("a", Some(()), at(1));
        seen.look("b", Some(()), at(1));
        seen.retain(|what| *what == "b");
        assert_eq!((seen.len(), seen.is_empty()), (1, false));
        assert_eq!(seen.look("a", Some(()), at(9)), since(9, false));
        assert_eq!(seen.look("b", Some(()), at(9)), since(1, false));
    }
}
