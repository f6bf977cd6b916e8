//! One token bucket by the generic cell rate algorithm (ITU-T I.371): a single point in time says
//! how full it is.

use super::BucketConfig;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// The theoretical arrival time: when the bucket will be full again.
    full_at: Instant,
    /// When the next refused caller is asked to come again.
    next_promise: Instant,
}

impl Bucket {
    pub(super) fn full(now: Instant) -> Self {
        Self { full_at: now, next_promise: now }
    }

    /// How long until one token is there; zero when it is.
    pub(super) fn wait(&self, config: &BucketConfig, now: Instant) -> Duration {
        let full_at = self.full_at.max(now) + config.interval();
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

    /// A time not before `earliest` that no other refused caller was given.
    pub(super) fn promise(&mut self, config: &BucketConfig, earliest: Instant) -> Instant {
        let at = self.next_promise.max(earliest);
        self.next_promise = at + config.interval();
        at
    }

    /// Full, and nobody was told to come again later: it can be forgotten.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.full_at <= now && self.next_promise <= now
    }
}
