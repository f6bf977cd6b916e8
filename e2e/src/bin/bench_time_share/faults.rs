//! T4, T5 and T7: what the controller's own tests count, run in full: overcommit and theft in switches among faults, units
//! after aborts, and starts that are late.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::counted::{self, Count};

/// The test programs and their tests.
const PROGRAMS: [&str; 2] = ["time_share_random", "time_share_windows"];
const TESTS: [&str; 3] = [
    "switches_among_faults_overcommit_no_node_and_lose_no_room",
    "aborts_at_any_moment_leave_whole_units",
    "a_switch_begins_within_a_second_of_its_lead_also_after_a_change_of_leader",
];

/// Something that is counted.
pub(crate) struct Counted {
    /// What its test calls it.
    what: &'static str,
    /// The identifier of its goal.
    pub(crate) id: &'static str,
    /// What may never be, of what.
    pub(crate) text: &'static str,
    /// The least that are all of them.
    least: u64,
}

/// All of it, in the order of the goals.
pub(crate) const COUNTED: [Counted; 7] = [
    Counted {
        what: "time_share-overcommit-pipelined",
        id: "T4-overcommit-pipelined",
        text: "statuses with more allocated than a node has, switches among faults, Pipelined",
        least: 1000,
    },
    Counted {
        what: "time_share-overcommit-claim-first",
        id: "T4-overcommit-claim-first",
        text: "the same, ClaimFirst",
        least: 1000,
    },
    Counted {
        what: "time_share-overcommit-shrink-first",
        id: "T4-overcommit-shrink-first",
        text: "the same, ShrinkFirst",
        least: 1000,
    },
    Counted {
        what: "time_share-theft-pipelined",
        id: "T4-theft-pipelined",
        text: "pods of others that got room of a unit, Pipelined without delays of the API",
        least: 1,
    },
    Counted {
        what: "time_share-theft-claim-first",
        id: "T4-theft-claim-first",
        text: "the same, ClaimFirst among faults",
        least: 1,
    },
    Counted {
        what: "time_share-aborts",
        id: "T5-aborts",
        text: "units in part on either side, or pods at peak without traffic, after aborts at random moments",
        least: 1,
    },
    Counted {
        what: "time_share-starts",
        id: "T7-starts",
        text: "switches that began more than a second after window - lead, some after a change of leader",
        least: 1,
    },
];

/// What was counted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Faults {
    /// In the order of [`COUNTED`].
    pub(crate) counts: Vec<Count>,
}

/// Runs the tests.
pub(crate) async fn measure() -> Result<Faults> {
    of(&counted::run(&PROGRAMS, &TESTS).await?)
}

fn of(counts: &[Count]) -> Result<Faults> {
    let found = COUNTED.iter().map(|counted| {
        let count = counts.iter().find(|count| count.what == counted.what);
        let count = count.with_context(|| format!("no test has counted {}", counted.what))?;
        ensure!(count.tries >= counted.least, "those are not all: {count:?}");
        Ok(count.clone())
    });
    Ok(Faults { counts: found.collect::<Result<_>>()? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A thousand tries each, the last one with violations.
    pub(crate) fn faults(violations: u64) -> Faults {
        let mut counts: Vec<Count> = COUNTED
            .iter()
            .map(|counted| Count { what: counted.what.to_owned(), tries: 1000, starts: 900, violations: 0 })
            .collect();
        if let Some(last) = counts.last_mut() {
            last.violations = violations;
        }
        Faults { counts }
    }

    #[test]
    fn counts_are_taken_in_their_order_if_they_are_all() {
        let mut counts = faults(1).counts;
        counts.reverse();
        assert_eq!(of(&counts).unwrap().counts, faults(1).counts);
        counts.pop();
        of(&counts).map(drop).unwrap_err();
        let mut few = faults(0).counts;
        few[0].tries = COUNTED[0].least - 1;
        of(&few).map(drop).unwrap_err();
    }
}
