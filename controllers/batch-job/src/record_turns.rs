//! Which jobs may record now that they wait: no more than twenty in a second, all jobs of the process together. A full
//! queue must not become a write storm.
//!
//! Jobs ask at moments that are spread over time, but by chance many of them come at once, or come late together, as the
//! process was busy. Who finds no turn is told when its own comes, after all that were told so before; who asks again
//! until then is told the same.

use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::clock::after;
use std::collections::VecDeque;

/// Records in a second.
pub(crate) const PER_SECOND: usize = 20;
const SECOND: SignedDuration = SignedDuration::from_secs(1);
/// Between turns that are given in advance.
const STEP: SignedDuration = SignedDuration::from_millis(1000 / PER_SECOND as i64);

/// The turns of one process.
#[derive(Debug, Default)]
pub(crate) struct RecordTurns {
    /// When records were written in the last second.
    taken: VecDeque<Timestamp>,
    /// When the next turn is that is given in advance.
    next: Timestamp,
    /// When somebody asked last.
    asked: Timestamp,
}

impl RecordTurns {
    /// Takes a turn for a record that is written now. `told` is when the job was told to come; the answer is when it is
    /// to come (again), and `None` where it has its turn.
    pub(crate) fn take(&mut self, told: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        // Workers read the time and ask in another order. What is more than that comes of a clock that was put back.
        if after(now, SECOND) < self.asked {
            *self = Self::default();
        }
        self.asked = now;
        // What was told before the clock was put back lies beyond all turns.
        if let Some(at) = told.filter(|at| *at > now && *at < self.next) {
            return Some(at);
        }
        self.taken.retain(|at| after(*at, SECOND) > now);
        // Nobody passes those that were told to come.
        let is_next = self.next <= now || told.is_some_and(|at| at <= now);
        if is_next && self.taken.len() < PER_SECOND {
            self.taken.push_back(now);
            return None;
        }
        let free = self.taken.front().filter(|_| self.taken.len() >= PER_SECOND);
        let at = self.next.max(free.map_or(now, |oldest| after(*oldest, SECOND)));
        self.next = after(at, STEP);
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + milliseconds).unwrap()
    }

    struct Asking {
        from: i64,
        told: Option<Timestamp>,
        had: Option<i64>,
    }

    /// Jobs ask at these times, come again when they are told to, and ask now and then besides. Returns when each had
    /// its turn.
    fn play(asks: &[i64]) -> Vec<i64> {
        let mut turns = RecordTurns::default();
        let mut jobs: Vec<Asking> =
            asks.iter().map(|from| Asking { from: *from, told: None, had: None }).collect();
        let mut now = 0;
        while jobs.iter().any(|job| job.had.is_none()) {
            let asking = (0..).zip(&mut jobs).filter(|(_, job)| job.had.is_none() && job.from <= now);
            for (number, job) in asking {
                let is_curious = (now / 10) % 7 == number % 7;
                if is_curious || job.told.is_none_or(|told| told <= at(now)) {
                    job.told = turns.take(job.told, at(now));
                    assert!(job.told.is_none_or(|told| told > at(now)), "a time that is over");
                    job.had = job.told.is_none().then_some(now);
                }
            }
            now += 10;
        }
        jobs.into_iter().filter_map(|job| job.had).collect()
    }

    fn most_in_a_second(had: &[i64]) -> usize {
        let within = |from: &i64| had.iter().filter(|at| (*from..from + 1000).contains(*at)).count();
        had.iter().map(within).max().unwrap()
    }

    #[test]
    fn no_second_has_more_than_twenty_and_everybody_has_a_turn() {
        let all_at_once = vec![0; 300];
        let scattered = (0..300).map(|job| (job * 7919) % 15_000).collect::<Vec<i64>>();
        let late = (0..300).map(|job| if job % 2 == 0 { job * 50 } else { 9_000 }).collect::<Vec<i64>>();
        for asks in [all_at_once, scattered, late] {
            let had = play(&asks);
            assert!(most_in_a_second(&had) <= PER_SECOND, "{had:?}");
            let last = had.iter().max().unwrap();
            assert!(*last < 25_000, "300 take 15 s, and a little more as turns are missed: {last}");
        }
    }

    #[test]
    fn few_have_their_turn_at_once() {
        assert_eq!(play(&[0, 0, 500, 1000]), [0, 0, 500, 1000]);
    }

    #[test]
    fn who_asks_again_has_the_turn_that_it_was_told_of() {
        let mut turns = RecordTurns::default();
        for _ in 0..PER_SECOND {
            assert_eq!(turns.take(None, at(0)), None);
        }
        let first = turns.take(None, at(10));
        let second = turns.take(None, at(10));
        assert_eq!((first, second), (Some(at(1000)), Some(at(1050))));
        for _ in 0..10 {
            assert_eq!(turns.take(second, at(20)), second);
        }
        assert_eq!(turns.take(None, at(20)), Some(at(1100)), "they have cost nobody a turn");
        assert_eq!(turns.take(first, at(1000)), None);
    }

    #[test]
    fn a_clock_that_is_put_back_or_forward_makes_nobody_wait() {
        for hours in [-2, 2] {
            let mut turns = RecordTurns::default();
            let mut told = None;
            for _ in 0..100 {
                told = turns.take(None, at(0));
            }
            assert_eq!(told, Some(at(1000 + 79 * 50)));
            let later = at(0) + SignedDuration::from_hours(hours);
            assert_eq!(turns.take(told, later), None, "{hours} h");
        }
    }
}
