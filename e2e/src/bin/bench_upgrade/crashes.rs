//! I5: upgrades whose manager is killed at each of its writes, and that come to another end. It is the test of these
//! crashes that plays them, and counts.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::counted::{self, Count};
use springtide_e2e::crash::{CASE_VARIABLE, EACH_WRITE};

/// The test program and its test.
const PROGRAM: &str = "upgrade_crash";
const TEST: &str = "a_crash_at_any_write_changes_no_end";
/// What it counts, and the least that are all of them: of each scenario several writes.
const COUNTED: &str = "upgrade_crash-ends";
const LEAST: u64 = 100;

/// What was counted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Crashes {
    /// Cases, managers that were killed in them, and cases that ended in another way.
    pub(crate) ends: Count,
}

/// Plays them.
pub(crate) async fn measure() -> Result<Crashes> {
    of(&counted::run(&[PROGRAM], &[TEST], &[(CASE_VARIABLE, EACH_WRITE)]).await?)
}

fn of(counts: &[Count]) -> Result<Crashes> {
    Ok(Crashes { ends: counted::find(counts, COUNTED, LEAST)? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of so many cases some ended in another way.
    pub(crate) fn crashes(violations: u64) -> Crashes {
        Crashes { ends: Count { what: COUNTED.to_owned(), tries: 280, starts: 275, violations } }
    }

    #[test]
    fn crashes_count_if_they_are_all() {
        assert!(counted::is_test_of(PROGRAM, TEST));
        let mut count = crashes(1).ends;
        assert_eq!(of(std::slice::from_ref(&count)).unwrap().ends.violations, 1);
        count.tries = LEAST - 1;
        of(&[count]).map(drop).unwrap_err();
        of(&[]).map(drop).unwrap_err();
    }
}
