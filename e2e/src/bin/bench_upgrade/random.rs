//! I6: ReplicaSets that a native controller makes and pods that it ends in a thousand upgrades at random, beside
//! controllers that see late what changes and are replaced. It is their test that counts.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::counted::{self, Count};

/// The test program and its test.
const PROGRAM: &str = "upgrade_random";
const TEST: &str = "upgrades_at_random_beside_controllers_that_are_late_and_replaced_replace_no_pod";
/// What it counts, and the upgrades that it runs.
const COUNTED: &str = "upgrade_random-replacements";
const UPGRADES: u64 = 1000;

/// What was counted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Random {
    /// Upgrades, what was done to controllers meanwhile, and what may not be.
    pub(crate) replacements: Count,
}

/// Runs them.
pub(crate) async fn measure() -> Result<Random> {
    of(&counted::run(&[PROGRAM], &[TEST], &[]).await?)
}

fn of(counts: &[Count]) -> Result<Random> {
    Ok(Random { replacements: counted::find(counts, COUNTED, UPGRADES)? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A thousand upgrades, in which something was so often that may not be.
    pub(crate) fn random(violations: u64) -> Random {
        let what = COUNTED.to_owned();
        Random { replacements: Count { what, tries: UPGRADES, starts: 340, violations } }
    }

    #[test]
    fn a_thousand_upgrades_are_asked_for() {
        assert!(counted::is_test_of(PROGRAM, TEST));
        let mut count = random(0).replacements;
        assert_eq!(of(std::slice::from_ref(&count)).unwrap().replacements, count);
        count.tries = UPGRADES - 1;
        of(&[count]).map(drop).unwrap_err();
    }
}
