//! T4 and T5: what the controller's own tests count: overcommit and theft in switches among faults, and units after aborts.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::counted::{self, Count};

/// The test program and its tests.
const PROGRAM: &str = "time_share_random";
const TESTS: [&str; 2] = [
    "switches_among_faults_overcommit_no_node_and_lose_no_room",
    "aborts::aborts_at_any_moment_leave_whole_units",
];
/// Tells the first of them how many rounds it has.
const ROUNDS_VARIABLE: &str = "SPRINGTIDE_TIME_SHARE_ROUNDS";
/// Rounds, every other one of them without late writes.
pub(crate) const ROUNDS: u64 = 4;
/// Rounds in which there are a thousand switches of each order.
pub(crate) const SPECIFIED_ROUNDS: u64 = 12;
/// Switches of each order in a round.
const SWITCHES: u64 = 84;
/// Aborts of all orders.
const ABORTS: u64 = 150;

/// Something that is counted.
pub(crate) struct Counted {
    /// What its test calls it.
    what: &'static str,
    /// The identifier of its goal.
    pub(crate) id: &'static str,
    /// What may never be, of what.
    pub(crate) text: &'static str,
    /// Tries in two rounds.
    of_two_rounds: u64,
}

/// All of it, in the order of the goals.
pub(crate) const COUNTED: [Counted; 6] = [
    Counted {
        what: "time_share-overcommit-pipelined",
        id: "T4-overcommit-pipelined",
        text: "nodes with more allocated at a time than they have, switches among faults, Pipelined",
        of_two_rounds: 2 * SWITCHES,
    },
    Counted {
        what: "time_share-overcommit-claim-first",
        id: "T4-overcommit-claim-first",
        text: "the same, ClaimFirst",
        of_two_rounds: 2 * SWITCHES,
    },
    Counted {
        what: "time_share-overcommit-shrink-first",
        id: "T4-overcommit-shrink-first",
        text: "the same, ShrinkFirst",
        of_two_rounds: 2 * SWITCHES,
    },
    Counted {
        what: "time_share-theft-pipelined",
        id: "T4-theft-pipelined",
        text: "pods of others that got room of a unit, Pipelined without delays of the API",
        of_two_rounds: SWITCHES,
    },
    Counted {
        what: "time_share-theft-claim-first",
        id: "T4-theft-claim-first",
        text: "the same, ClaimFirst among faults",
        of_two_rounds: 2 * SWITCHES,
    },
    Counted {
        what: "time_share-aborts",
        id: "T5-aborts",
        text: "units in part on either side, or pods at peak without traffic, after aborts at random moments",
        of_two_rounds: 0,
    },
];

/// What was counted.
#[derive(Serialize, Deserialize)]
pub(crate) struct Faults {
    /// In the order of [`COUNTED`].
    pub(crate) counts: Vec<Count>,
}

/// Runs the tests, so many rounds of the first one.
pub(crate) async fn measure(rounds: u64) -> Result<Faults> {
    let environment = [(ROUNDS_VARIABLE, &*rounds.to_string())];
    of(&counted::run(&[PROGRAM], &TESTS, &environment).await?, rounds)
}

fn of(counts: &[Count], rounds: u64) -> Result<Faults> {
    let found = COUNTED.iter().map(|Counted { what, of_two_rounds, .. }| {
        let least = if *of_two_rounds == 0 { ABORTS } else { of_two_rounds * (rounds / 2) };
        counted::find(counts, what, least)
    });
    Ok(Faults { counts: found.collect::<Result<_>>()? })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As many tries as there are to be, the last one with violations.
    pub(crate) fn faults(violations: u64) -> Faults {
        let tries = SWITCHES * ROUNDS;
        let mut counts: Vec<Count> = COUNTED
            .iter()
            .map(|counted| Count { what: counted.what.to_owned(), tries, starts: 900, violations: 0 })
            .collect();
        if let Some(last) = counts.last_mut() {
            last.violations = violations;
        }
        Faults { counts }
    }

    #[test]
    fn counts_are_taken_in_their_order_if_they_are_all() {
        assert!(TESTS.iter().all(|test| counted::is_test_of(PROGRAM, test)));
        let mut counts = faults(1).counts;
        counts.reverse();
        assert_eq!(of(&counts, ROUNDS).unwrap().counts, faults(1).counts);
        of(&counts, ROUNDS + 2).map(drop).unwrap_err();
        counts.pop();
        of(&counts, ROUNDS).map(drop).unwrap_err();
        let mut few = faults(0).counts;
        few[0].tries -= 1;
        of(&few, ROUNDS).map(drop).unwrap_err();
        const { assert!(SWITCHES * SPECIFIED_ROUNDS >= 1000 && ROUNDS.is_multiple_of(2)) };
    }
}
