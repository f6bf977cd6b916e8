//! How long answers take, against the best of the last minutes.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Answers whose median is looked at.
const SAMPLES: usize = 64;
/// A median above so many times the least one of [`MEMORY`] is a server that queues.
const INFLATED: u32 = 3;
/// How long the least median is remembered.
const MEMORY: Duration = Duration::from_secs(600);
/// The least median is noted per so long.
const STEP: Duration = Duration::from_secs(60);

/// The median of the last answers, and the least that it was in the last ten minutes.
///
/// A sliding minimum as BBR has it for round trips (Cardwell et al., 2016), over medians: single
/// answers differ by what was written.
#[derive(Debug, Default)]
pub(super) struct Latency {
    last: VecDeque<Duration>,
    median: Duration,
    /// The beginning of a step, and the least median in it.
    least: VecDeque<(Instant, Duration)>,
}

impl Latency {
    pub(super) fn record(&mut self, took: Duration, now: Instant) {
        self.last.push_back(took);
        if self.last.len() < SAMPLES {
            return;
        }
        self.last.truncate(SAMPLES);
        let mut sorted: Vec<_> = self.last.iter().copied().collect();
        let (_, median, _) = sorted.select_nth_unstable(SAMPLES / 2);
        self.median = *median;
        self.last.pop_front();
        while self.least.front().is_some_and(|(from, _)| *from + MEMORY <= now) {
            self.least.pop_front();
        }
        match self.least.back_mut() {
            Some((from, least)) if now < *from + STEP => *least = (*least).min(self.median),
            Some(_) | None => self.least.push_back((now, self.median)),
        }
    }

    /// Whether answers take so long that more requests at once would only wait for each other.
    pub(super) fn is_inflated(&self) -> bool {
        let least = self.least.iter().map(|(_, least)| *least).min();
        least.is_some_and(|least| self.median > least * INFLATED)
    }
}
