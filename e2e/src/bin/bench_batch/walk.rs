//! G15, and G11 under clocks at random: how often what may never be was, in very many random steps. It is the controller's
//! own tests that walk, with their long loops, and count.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::counted::{self, Count};

/// Random steps of the admission, and clocks under which a process goes through a peak window.
pub(crate) const STEPS: u64 = 1_000_000;
pub(crate) const CLOCKS: u64 = 1_000;
/// The tests, and the test program that the second one is in.
const TESTS: [&str; 2] = [
    "admission::tests::long::no_quota_and_no_node_is_exceeded_in_many_random_steps",
    "windows::no_pod_starts_inside_a_window_whatever_the_clock_shows",
];
const PROGRAM: &str = "simulation";

/// What was counted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Walk {
    /// Grants in the steps by which a queue used more than its max, or its cohort or its capacity more than there is.
    pub(crate) above_max: Count,
    /// Grants in the steps while a window or a load trigger kept the tier from starting.
    pub(crate) inside: Count,
    /// Pods that were created inside a window, under the clocks.
    pub(crate) inside_by_clock: Count,
}

impl Walk {
    /// All of them.
    pub(crate) fn all(&self) -> [&Count; 3] {
        [&self.above_max, &self.inside, &self.inside_by_clock]
    }
}

/// Walks.
pub(crate) async fn measure() -> Result<Walk> {
    of(&counted::run(&[PROGRAM], &TESTS, &[]).await?)
}

fn of(counts: &[Count]) -> Result<Walk> {
    Ok(Walk {
        above_max: counted::find(counts, "walk-used-above-max", STEPS)?,
        inside: counted::find(counts, "walk-starts-inside", STEPS)?,
        inside_by_clock: counted::find(counts, "clocks-starts-inside", CLOCKS)?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn counted(what: &str, tries: u64, violations: u64) -> Count {
        Count { what: what.to_owned(), tries, starts: 4_711, violations }
    }

    /// A walk in which the clocks alone have shown something.
    pub(crate) fn walk() -> Walk {
        Walk {
            above_max: counted("walk-used-above-max", STEPS, 0),
            inside: counted("walk-starts-inside", STEPS, 0),
            inside_by_clock: counted("clocks-starts-inside", CLOCKS, 3),
        }
    }

    #[test]
    fn a_walk_counts_if_it_is_whole() {
        let mut counts: Vec<Count> = walk().all().into_iter().cloned().collect();
        assert_eq!(of(&counts).unwrap().inside_by_clock.violations, 3);
        counts[0].tries = 20_000;
        of(&counts).map(drop).unwrap_err();
        counts.remove(0);
        let error = of(&counts).map(drop).unwrap_err().to_string();
        assert!(error.contains("no test has counted walk-used-above-max"), "{error}");
    }
}
