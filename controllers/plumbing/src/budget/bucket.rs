//! One token bucket by the generic cell rate algorithm (ITU-T I.371): a single point in time says
//! how full it is.

use super::BucketConfig;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// The theoretical arrival time: when the bucket will be full again.
    full_at: Instant,
    /// Tokens in it that are kept for grants. They are taken when the write goes out and not before: what
    /// is taken early and sent late would pass beside the tokens that come meanwhile.
    pub(super) kept: u32,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now, kept: 0 }
    }

    /// How long until so many tokens are there if none is taken; zero when they are. No more than a full
    /// bucket holds ever are.
    pub(super) fn wait(&self, config: &BucketConfig, tokens: u32, now: Instant) -> Duration {
        let full_at = self.full_at.max(now) + config.interval() * tokens;
        full_at.saturating_duration_since(now + config.interval() * config.burst)
    }

    /// The tokens that are there, parts of one included; less than none after a chain longer than the bucket.
    pub(super) fn tokens(&self, config: &BucketConfig, now: Instant) -> f64 {
        f64::from(config.burst) - self.missing(config, now)
    }

    fn missing(&self, config: &BucketConfig, now: Instant) -> f64 {
        self.full_at.saturating_duration_since(now).div_duration_f64(config.interval())
    }

    /// Takes one token; the caller has seen that it is there.
    pub(super) fn take(&mut self, config: &BucketConfig, now: Instant) {
        self.full_at = self.full_at.max(now) + config.interval();
    }

    /// Goes on under another rate and size: as many tokens as were missing still are.
    pub(super) fn reconfigure(&mut self, old: &BucketConfig, new: &BucketConfig, now: Instant) {
        self.full_at = now + new.interval().mul_f64(self.missing(old, now));
    }

    /// Full, and nothing is kept in it: it can be forgotten.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.full_at <= now && self.kept == 0
    }
}
