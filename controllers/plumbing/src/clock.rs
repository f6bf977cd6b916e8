//! The clocks of the system, read in one place, so that planners never do.

use jiff::{SignedDuration, Timestamp};
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

/// The time so long after another one, no later than times can be: what an object says may lie in the year 9999.
pub fn after(time: Timestamp, wait: SignedDuration) -> Timestamp {
    let bound = if wait.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
    time.checked_add(wait).unwrap_or(bound)
}

/// `CLOCK_BOOTTIME`: unlike `CLOCK_MONOTONIC`, which timers follow, it goes on while the machine sleeps.
pub(crate) fn boot_time() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map_or(Duration::MAX, |time| Duration::new(time.tv_sec().unsigned_abs(), time.tv_nsec() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_the_end_of_time_nothing_comes_after() {
        let (hour, start) = (SignedDuration::from_hours(1), Timestamp::UNIX_EPOCH);
        assert_eq!(after(start, hour), start + hour);
        assert_eq!(after(Timestamp::MAX, hour), Timestamp::MAX);
        assert_eq!(after(Timestamp::MIN, -hour), Timestamp::MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn the_past_is_now_and_the_future_keeps_its_distance() {
        let second = |s| Timestamp::from_second(s).unwrap();
        let clock = Clock::from_fn(move || second(100));
        assert_eq!(clock.instant_of(second(90)), Instant::now());
        assert_eq!(clock.instant_of(second(130)), Instant::now() + Duration::from_secs(30));
    }
}
