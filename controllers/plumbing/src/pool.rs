//! Values that are alike are kept once, as those that a projection has in common with others. Ten thousand objects are often
//! of one template, one spec and one status but for times, and each is read anew with every change of its status.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Weak};

/// Entries from which on those that nobody uses are looked for.
const FIRST_SWEEP: usize = 64;

/// Values in use, by a hash of each. It keeps none of them alive.
#[derive(Debug)]
pub struct Pool<K, T> {
    by_hash: HashMap<K, Weak<T>>,
    /// Entries after the last sweep.
    left: usize,
}

impl<K, T> Default for Pool<K, T> {
    fn default() -> Self {
        Self { by_hash: HashMap::new(), left: 0 }
    }
}

impl<K: Hash + Eq, T> Pool<K, T> {
    /// The value of this hash that is the wanted one; `make` makes one that is not there yet.
    pub fn get(&mut self, hash: K, is_wanted: impl FnOnce(&T) -> bool, make: impl FnOnce() -> T) -> Arc<T> {
        match self.find(&hash, is_wanted) {
            Some(known) => known,
            None => self.insert(hash, make()),
        }
    }

    fn find(&self, hash: &K, is_wanted: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        self.by_hash.get(hash).and_then(Weak::upgrade).filter(|known| is_wanted(known))
    }

    fn insert(&mut self, hash: K, value: T) -> Arc<T> {
        let made = Arc::new(value);
        self.by_hash.insert(hash, Arc::downgrade(&made));
        // Each time that they have doubled: a constant cost for each.
        if self.by_hash.len() >= FIRST_SWEEP.max(2 * self.left) {
            self.by_hash.retain(|_, value| value.strong_count() > 0);
            self.by_hash.shrink_to(FIRST_SWEEP.max(2 * self.by_hash.len()));
            self.left = self.by_hash.len();
        }
        made
    }
}

impl<T: PartialEq> Pool<u64, T> {
    /// This value, or one that equals it. `json` says the same of equal values.
    pub fn equal(&mut self, json: &[u8], value: T) -> Arc<T> {
        let mut hasher = DefaultHasher::new();
        hasher.write(json);
        let hash = hasher.finish();
        match self.find(&hash, |known| *known == value) {
            Some(known) => known,
            None => self.insert(hash, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_another_value_under_the_same_hash_is_not_shared() {
        let mut pool = Pool::<u64, &str>::default();
        let mut get = |text| pool.get(1, |known| *known == text, || text);
        let (one, other) = (get("one"), get("other"));
        assert_eq!((*one, *other), ("one", "other"));
        assert!(Arc::ptr_eq(&other, &get("other")));
    }

    #[test]
    fn values_that_nobody_uses_any_more_are_forgotten() {
        let mut pool = Pool::<usize, usize>::default();
        let mut get = |number: usize| {
            let got = pool.get(number, |known| *known == number, || number);
            (got, pool.by_hash.len())
        };
        let (used, _) = get(0);
        let most = (1..1000).map(|number| get(number).1).max();
        assert!(most < Some(2 * FIRST_SWEEP), "{most:?}");
        assert!(Arc::ptr_eq(&used, &get(0).0), "one that is used stays");
    }
}
