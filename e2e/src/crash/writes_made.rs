//! How many writes a run has cost.

use std::time::Duration;

use crate::fault_proxy::Entry;
use crate::write_count::WriteCount;

/// Writes of either sort that a crash may cost beyond those of a run without one.
const PER_CRASH: usize = 3;

/// The writes that succeeded. Of the refused ones most lost a race with a user of the scenario.
#[derive(Debug, Clone)]
pub(super) struct WritesMade {
    statuses: usize,
    others: usize,
    /// From the first status to the last.
    told_for: Duration,
    /// In words.
    table: String,
}

impl WritesMade {
    /// Those of the log, with the times of those in the journal.
    pub(super) fn of(log: &WriteCount, journal: &[&Entry]) -> Self {
        let successful = log.successful();
        let statuses = successful.requests().iter().filter(|request| is_status(&request.resource)).count();
        let told = journal.iter().filter(|entry| is_status(&entry.request.resource)).map(|entry| entry.at);
        let (first, last) = (told.clone().min(), told.max());
        Self {
            statuses,
            others: successful.len() - statuses,
            told_for: first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first),
            table: log.to_string(),
        }
    }

    /// The more of both.
    pub(super) fn most(&self, other: &Self) -> Self {
        let (statuses, others) = (self.statuses.max(other.statuses), self.others.max(other.others));
        Self { statuses, others, ..self.clone() }
    }

    /// What is too much after so many crashes, by a run without one. A status is written once a second at most:
    /// as many more may be as that took seconds, for the same changes can come closer together or not.
    pub(super) fn excess(&self, undisturbed: &Self, crashes: usize) -> Option<String> {
        let seconds = usize::try_from(self.told_for.as_secs()).unwrap_or(usize::MAX);
        let statuses = (undisturbed.statuses + PER_CRASH * crashes).saturating_add(seconds);
        let others = undisturbed.others + PER_CRASH * crashes;
        (self.statuses > statuses || self.others > others).then(|| {
            format!(
                "{} statuses and {} other writes, at most {statuses} and {others} were to be:\n{}",
                self.statuses, self.others, self.table
            )
        })
    }
}

fn is_status(resource: &str) -> bool {
    resource.ends_with("/status")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_may_cost_three_writes_of_either_sort_and_a_second_one_status() {
        let made = |statuses, others, seconds: u64| {
            let told_for = Duration::from_millis(seconds * 1000 + 900);
            WritesMade { statuses, others, told_for, table: String::new() }
        };
        let undisturbed = made(2, 8, 4);
        for (run, crashes, is_too_much) in [
            (made(2, 8, 0), 0, false),
            (made(2, 9, 9), 0, true),
            (made(3, 8, 0), 0, true),
            (made(7, 11, 2), 1, false),
            (made(8, 11, 2), 1, true),
            (made(5, 12, 9), 1, true),
            (made(8, 14, 0), 2, false),
        ] {
            assert_eq!(
                run.excess(&undisturbed, crashes).is_some(),
                is_too_much,
                "{run:?}, {crashes} crashes"
            );
        }
        assert!(made(1, 10, 0).excess(&undisturbed.most(&made(0, 10, 0)), 0).is_none());
    }
}
