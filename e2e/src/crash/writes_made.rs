//! How many writes a run has cost.

use std::time::Duration;

use super::write_id::is_status;
use crate::fault_proxy::Entry;
use crate::write_count::WriteCount;

/// Writes of each sort that a crash may cost beyond those of a run without one.
const PER_CRASH: usize = 3;

/// The writes by their sorts.
#[derive(Debug, Clone)]
pub(super) struct WritesMade {
    /// Statuses that were stored.
    statuses: usize,
    /// Others that were stored.
    others: usize,
    /// Of both, those that were refused: most have lost a race with a user of the scenario.
    refused: usize,
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
            refused: log.len() - successful.len(),
            told_for: first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first),
            table: log.to_string(),
        }
    }

    /// The more of each.
    pub(super) fn most(&self, other: &Self) -> Self {
        Self {
            statuses: self.statuses.max(other.statuses),
            others: self.others.max(other.others),
            refused: self.refused.max(other.refused),
            told_for: self.told_for.max(other.told_for),
            table: self.table.clone(),
        }
    }

    /// What is too much after so many crashes, by runs without one. A status is written once a second at most:
    /// as many more may be as seconds were told of beyond those of such a run, for what follows a crash comes
    /// later and further apart. In any run each write may lose a race with a kubelet once before it is stored. A run
    /// in which no crash came has room for what one costs, too: two undisturbed runs differ by as much.
    pub(super) fn excess(&self, undisturbed: &Self, crashes: usize) -> Option<String> {
        let longer = self.told_for.saturating_sub(undisturbed.told_for);
        // A part of a second has room for one as well.
        let seconds = usize::try_from(longer.as_millis().div_ceil(1000)).unwrap_or(usize::MAX);
        let most = |undisturbed: usize| undisturbed + PER_CRASH * crashes.max(1);
        let statuses = most(undisturbed.statuses).saturating_add(seconds);
        let others = most(undisturbed.others);
        let refused = most(undisturbed.refused.max(undisturbed.others));
        let is_too_much = self.statuses > statuses || self.others > others || self.refused > refused;
        is_too_much.then(|| {
            format!(
                "{} statuses, {} other writes and {} refused, at most {statuses}, {others} and {refused} were to be:\n{}",
                self.statuses, self.others, self.refused, self.table
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(statuses: usize, others: usize, refused: usize, seconds: u64) -> WritesMade {
        let told_for = Duration::from_millis(seconds * 1000);
        WritesMade { statuses, others, refused, told_for, table: String::new() }
    }

    #[test]
    fn a_crash_may_cost_three_writes_of_each_sort_and_a_further_second_one_status() {
        let undisturbed = made(2, 8, 1, 4);
        for (run, crashes, is_too_much) in [
            (made(2, 8, 8, 4), 0, false),
            (made(5, 11, 11, 2), 1, false),
            (made(5, 11, 11, 4), 0, false),
            (made(6, 11, 11, 4), 0, true),
            (made(6, 11, 11, 4), 1, true),
            (made(6, 11, 11, 5), 1, false),
            (made(5, 12, 0, 9), 1, true),
            (made(5, 11, 12, 9), 1, true),
            (made(10, 14, 10, 6), 2, false),
            (made(5, 14, 15, 4), 2, true),
        ] {
            assert_eq!(
                run.excess(&undisturbed, crashes).is_some(),
                is_too_much,
                "{run:?}, {crashes} crashes"
            );
        }
        let both = made(0, 10, 0, 9).most(&made(2, 8, 1, 4));
        assert!(made(5, 13, 4, 9).excess(&both, 0).is_none());
        assert!(made(6, 13, 4, 9).excess(&both, 0).is_some());
    }
}
