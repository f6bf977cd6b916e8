//! The clocks of the system, read in one place, so that planners never do.

use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Where the loop reads the time that it hands to planners.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Arc::new(Timestamp::now))
    }

    /// A clock of the caller's, for tests.
    pub fn from_fn(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }

    /// The timer instant of a point in wall-clock time; now when it has passed.
    pub fn instant_of(&self, at: Timestamp) -> Instant {
        let wait = Duration::try_from(at.duration_since(self.now())).unwrap_or(Duration::ZERO);
        Instant::now() + wait
    }
}

/// `CLOCK_BOOTTIME`: unlike `CLOCK_MONOTONIC`, which timers follow, it goes on while the machine sleeps.
pub(crate) fn boot_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_or(Duration::MAX, |time| Duration::new(time.tv_sec().unsigned_abs(), time.tv_nsec() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_past_is_now_and_the_future_keeps_its_distance() {
        let second = |s| Timestamp::from_second(s).unwrap();
        let clock = Clock::from_fn(move || second(100));
        assert_eq!(clock.instant_of(second(90)), Instant::now());
        assert_eq!(clock.instant_of(second(130)), Instant::now() + Duration::from_secs(30));
    }
}
