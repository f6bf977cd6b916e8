//! How much is under way in each of several places.

use std::collections::HashMap;
use std::hash::Hash;

/// Counts what is under way by place (a node, a zone), and bounds it in each.
#[derive(Clone, Debug)]
pub struct InFlight<K> {
    max: usize,
    counts: HashMap<K, usize>,
}

impl<K: Eq + Hash> InFlight<K> {
    /// Nothing is under way; at most `max` may be in one place.
    pub fn new(max: usize) -> Self {
        Self { max, counts: HashMap::new() }
    }

    /// One more is under way, whether there is room for it or not.
    pub fn count(&mut self, place: K) {
        *self.counts.entry(place).or_default() += 1;
    }

    /// Whether one more may be.
    pub fn has_room(&self, place: &K) -> bool {
        self.counts.get(place).copied().unwrap_or(0) < self.max
    }

    /// How much is under way everywhere.
    pub fn total(&self) -> usize {
        self.counts.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_own_bound_and_what_is_above_it_counts_too() {
        let mut nodes = InFlight::new(2);
        assert!(nodes.has_room(&"a"));
        nodes.count("a");
        assert!(nodes.has_room(&"a"));
        nodes.count("a");
        nodes.count("a");
        assert!(!nodes.has_room(&"a") && nodes.has_room(&"b"));
        assert_eq!(nodes.total(), 3);
        assert!(!InFlight::new(0).has_room(&"a"));
    }
}
