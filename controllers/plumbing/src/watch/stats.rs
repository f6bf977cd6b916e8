//! Counters of one watch.

use crate::clock::boot_time;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// What one watch has done so far; read by the metrics.
#[derive(Debug)]
pub struct WatchStats {
    created: Instant,
    /// Milliseconds after `created`.
    last_frame: AtomicU64,
    /// Time since boot: the clock of `created` stands still while the machine sleeps.
    boot_time: fn() -> Duration,
    /// The same moment as `last_frame`, in milliseconds since boot.
    last_frame_since_boot: AtomicU64,
    events: AtomicU64,
    spec_changes: AtomicU64,
    restarts: AtomicU64,
    relists: AtomicU64,
    rv_regressions: AtomicU64,
    unreadable: AtomicU64,
}

impl Default for WatchStats {
    fn default() -> Self {
        Self::new(boot_time)
    }
}

impl WatchStats {
    fn new(boot_time: fn() -> Duration) -> Self {
        Self {
            created: Instant::now(),
            last_frame: AtomicU64::new(0),
            boot_time,
            last_frame_since_boot: AtomicU64::new(millis(boot_time())),
            events: AtomicU64::new(0),
            spec_changes: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            relists: AtomicU64::new(0),
            rv_regressions: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        }
    }

    /// Events of single objects received, those of lists included, bookmarks not.
    pub fn events(&self) -> u64 {
        self.events.load(Relaxed)
    }

    /// Objects that came, went, or got another generation since the first list: what somebody asked for, as
    /// against a status that somebody wrote.
    pub fn spec_changes(&self) -> u64 {
        self.spec_changes.load(Relaxed)
    }

    /// Connections after the first, whatever ended the one before.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Relaxed)
    }

    /// Times that everything had to be listed anew: a 410, or an event that nobody could read.
    pub fn relists(&self) -> u64 {
        self.relists.load(Relaxed)
    }

    /// Frames that bore a lower resourceVersion than one seen before.
    pub fn rv_regressions(&self) -> u64 {
        self.rv_regressions.load(Relaxed)
    }

    /// Objects and events that could not be decoded.
    pub fn unreadable(&self) -> u64 {
        self.unreadable.load(Relaxed)
    }

    /// Time since an event, a bookmark or a complete list last brought the store forward; since the
    /// store was made, if none did yet. While the machine sleeps it goes on.
    pub fn since_last_frame(&self) -> Duration {
        let since = |last: &AtomicU64, now| millis(now).saturating_sub(last.load(Relaxed));
        let timers = since(&self.last_frame, self.created.elapsed());
        Duration::from_millis(timers.max(since(&self.last_frame_since_boot, (self.boot_time)())))
    }

    pub(crate) fn frame(&self) {
        self.last_frame.store(millis(self.created.elapsed()), Relaxed);
        self.last_frame_since_boot.store(millis((self.boot_time)()), Relaxed);
    }

    pub(crate) fn count_event(&self) {
        self.events.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_spec_changes(&self, changes: usize) {
        self.spec_changes.fetch_add(changes as u64, Relaxed);
    }

    pub(crate) fn count_restart(&self) {
        self.restarts.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_relist(&self) {
        self.relists.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_rv_regression(&self) {
        self.rv_regressions.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_unreadable(&self) {
        self.unreadable.fetch_add(1, Relaxed);
    }
}

/// 64 bits of milliseconds outlast every process.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_slept_finds_its_stores_old() {
        static BOOT: AtomicU64 = AtomicU64::new(1000);
        let stats = WatchStats::new(|| Duration::from_secs(BOOT.load(Relaxed)));
        assert_eq!(stats.since_last_frame(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(20)).await;
        BOOT.fetch_add(20, Relaxed);
        stats.frame();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(stats.since_last_frame(), Duration::from_secs(5));
        BOOT.fetch_add(3600, Relaxed);
        assert_eq!(stats.since_last_frame(), Duration::from_secs(3600));
        stats.frame();
        assert_eq!(stats.since_last_frame(), Duration::ZERO);
    }
}
