//! T7: switches that begin late, some after a change of leader. It is their test that counts.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::counted::{self, Count};

/// The test program and its test.
const PROGRAM: &str = "time_share_windows";
const TEST: &str = "starts::a_switch_begins_with_its_lead_also_after_a_change_of_leader";
/// What it counts, and the least starts.
const COUNTED: &str = "time_share-starts";
const LEAST: u64 = 4;

/// What was counted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Starts {
    /// Switches, and those of them that began more than a second after window - lead.
    pub(crate) late: Count,
}

/// Waits for them.
pub(crate) async fn measure() -> Result<Starts> {
    of(&counted::run(&[PROGRAM], &[TEST], &[]).await?)
}

fn of(counts: &[Count]) -> Result<Starts> {
    Ok(Starts { late: counted::find(counts, COUNTED, LEAST)? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of some switches so many were late.
    pub(crate) fn starts(violations: u64) -> Starts {
        Starts { late: Count { what: COUNTED.to_owned(), tries: LEAST, starts: LEAST, violations } }
    }

    #[test]
    fn starts_count_if_they_are_all() {
        assert!(counted::is_test_of(PROGRAM, TEST));
        let mut count = starts(1).late;
        assert_eq!(of(std::slice::from_ref(&count)).unwrap().late, count);
        count.tries = LEAST - 1;
        of(&[count]).map(drop).unwrap_err();
    }
}
