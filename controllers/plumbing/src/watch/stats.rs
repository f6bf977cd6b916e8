//! Counters of one watch.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::Instant;

/// What one watch has done so far; read by the metrics.
#[derive(Debug)]
pub struct WatchStats {
    created: Instant,
    /// Milliseconds after `created`.
    last_frame: AtomicU64,
    events: AtomicU64,
    restarts: AtomicU64,
    relists: AtomicU64,
    rv_regressions: AtomicU64,
    unreadable: AtomicU64,
}

impl Default for WatchStats {
    fn default() -> Self {
        Self {
            created: Instant::now(),
            last_frame: AtomicU64::new(0),
            events: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            relists: AtomicU64::new(0),
            rv_regressions: AtomicU64::new(0),
            unreadable: AtomicU64::new(0),
        }
    }
}

impl WatchStats {
    /// Events of single objects received, those of lists included, bookmarks not.
    pub fn events(&self) -> u64 {
        self.events.load(Relaxed)
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
    /// store was made, if none did yet.
    pub fn since_last_frame(&self) -> Duration {
        self.created.elapsed().saturating_sub(Duration::from_millis(self.last_frame.load(Relaxed)))
    }

    pub(crate) fn frame(&self) {
        // 64 bits of milliseconds outlast every process.
        let elapsed = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_frame.store(elapsed, Relaxed);
    }

    pub(crate) fn count_event(&self) {
        self.events.fetch_add(1, Relaxed);
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
