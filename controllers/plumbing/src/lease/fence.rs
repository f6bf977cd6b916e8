//! The fence: the last check before a write leaves, on a clock that a pause cannot stop.

use crate::clock::boot_time;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A monotonic clock as time since some fixed start.
pub type MonotonicClock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Time since boot, suspension included: a leader that was suspended past its lease finds its fence closed.
pub fn boot_clock() -> MonotonicClock {
    Arc::new(boot_time)
}

/// Says, right before each send, whether this process may still write.
///
/// It closes by itself a renew deadline after the *start* of the last successful renewal. With the
/// 10 s deadline of a write that is before a successor may begin (30 s after the renewal).
#[derive(Clone)]
pub struct Fence {
    clock: MonotonicClock,
    /// Milliseconds on `clock` at which it closes; 0 is closed.
    closes_at: Arc<AtomicU64>,
}

impl Fence {
    /// A closed fence.
    pub fn closed(clock: MonotonicClock) -> Self {
        Self { clock, closes_at: Arc::new(AtomicU64::new(0)) }
    }

    /// A fence that never closes, for a single process without leader election.
    pub fn always_open() -> Self {
        Self { clock: Arc::new(|| Duration::ZERO), closes_at: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Whether a write may leave now.
    pub fn is_open(&self) -> bool {
        millis((self.clock)()) < self.closes_at.load(Ordering::Acquire)
    }

    /// The clock's time now.
    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }

    /// Keeps the fence open until the given time on its clock.
    pub(crate) fn open_until(&self, at: Duration) {
        self.closes_at.store(millis(at), Ordering::Release);
    }

    /// Closes it at once.
    pub(crate) fn close(&self) {
        self.closes_at.store(0, Ordering::Release);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn it_closes_by_itself_and_on_demand() {
        let now = Arc::new(Mutex::new(Duration::from_secs(100)));
        let clock = {
            let now = now.clone();
            Arc::new(move || *now.lock().unwrap())
        };
        let fence = Fence::closed(clock);
        assert!(!fence.is_open());
        fence.open_until(Duration::from_secs(120));
        assert!(fence.is_open());
        *now.lock().unwrap() = Duration::from_secs(120);
        assert!(!fence.is_open(), "the deadline itself is outside");
        fence.open_until(Duration::from_secs(140));
        fence.close();
        assert!(!fence.is_open());
    }

    #[test]
    fn the_boot_clock_moves() {
        let clock = boot_clock();
        assert!(clock() > Duration::ZERO && clock() < Duration::MAX);
    }
}
