//! One token bucket by the generic cell rate algorithm (ITU-T I.371): a single point in time says
//! how full it is.

use super::BucketConfig;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// The theoretical arrival time: when the bucket will be full again.
    full_at: Instant,
    /// Tokens, of those that are there or will come, that are kept for refused callers.
    pub(super) kept: u32,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now, kept: 0 }
    }

    /// How long until so many tokens would be there if none were taken; zero when they are. More than
    /// a full bucket holds stand for those that are taken in the meantime.
    pub(super) fn wait(&self, config: &BucketConfig, tokens: u32, now: Instant) -> Duration {
        let full_at = self.full_at.max(now) + config.interval() * tokens;
        full_at.saturating_duration_since(now + config.interval() * config.burst)
    }

    /// The tokens that are there, parts of one included.
    pub(super) fn tokens(&self, config: &BucketConfig, now: Instant) -> f64 {
        let missing = self.full_at.saturating_duration_since(now).div_duration_f64(config.interval());
        f64::from(config.burst) - missing
    }

    /// Takes one token; the caller has seen that it is there.
    pub(super) fn take(&mut self, config: &BucketConfig, now: Instant) {
        self.full_at = self.full_at.max(now) + config.interval();
    }

    /// Full, and nothing is kept in it: it can be forgotten.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.full_at <= now && self.kept == 0
    }
}
