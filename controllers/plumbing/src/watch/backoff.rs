//! How long one watch waits after failures in a row.

use rand::{Rng, RngExt};
use std::time::Duration;

/// The first wait and the longest one, as client-go's reflector has them.
const MIN: Duration = Duration::from_millis(800);
const MAX: Duration = Duration::from_secs(30);

/// Doubles with every failure; half of each step is random, so that watches cut at the same moment
/// do not come back at the same moment.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The first wait, where nothing has failed yet: long enough for watches that were cut together to spread.
    pub(super) fn first(rng: &mut impl Rng) -> Duration {
        Self::default().next(rng)
    }

    /// The wait after one more failure.
    pub(super) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let doubled = MIN * (2 << self.failures);
        if doubled < MAX {
            self.failures += 1;
        }
        let ceiling = doubled.min(MAX);
        rng.random_range(ceiling / 2..=ceiling)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn waits_double_from_the_minimum_to_the_maximum_and_start_anew_after_a_reset() {
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut backoff = Backoff::default();
            for step in 0..12 {
                let wait = backoff.next(&mut rng);
                let ceiling = MAX.min(MIN * 2 * 2_u32.pow(step));
                assert!(wait >= MIN && wait >= ceiling / 2 && wait <= ceiling, "step {step}: {wait:?}");
            }
            backoff.reset();
            assert!(backoff.next(&mut rng) <= MIN * 2);
        }
    }
}
