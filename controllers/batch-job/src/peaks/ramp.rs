//! How batch work comes back after a peak.

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use springtide_plumbing::clock::after;
use springtide_plumbing::key::Uid;

/// How far the capacity that was free at a peak's end may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ramp {
    /// When the peak ended: what started since counts against the ramp.
    pub ended: Timestamp,
    /// When the ramp leaves zero.
    pub begins: Timestamp,
    /// When all may be used again.
    pub ends: Timestamp,
    elapsed: SignedDuration,
}

impl Ramp {
    /// The ramp after a peak that ended then. `None` once it is over.
    pub(crate) fn after(
        ended: Timestamp,
        jitter: SignedDuration,
        ramp: SignedDuration,
        now: Timestamp,
    ) -> Option<Self> {
        let begins = after(ended, jitter);
        let ends = after(begins, ramp);
        let elapsed = now.duration_since(begins).max(SignedDuration::ZERO);
        (now < ends).then_some(Self { ended, begins, ends, elapsed })
    }

    /// How much more may be taken into use, of `free`, when pods that were created since
    /// [`ended`](Self::ended) use `started` already; in any unit.
    ///
    /// Both together are what was free at the end, so that the use grows by an even slope, however often this is
    /// asked. Who has not asked for a while, as nobody was there or nothing waited, has at once what the slope has come
    /// to meanwhile, and never more.
    #[must_use]
    pub fn room(&self, free: u64, started: u64) -> u64 {
        let total = self.ends.duration_since(self.begins).as_millis();
        if total <= 0 {
            return 0;
        }
        let all = u128::from(free) + u128::from(started);
        let slope = all * self.elapsed.as_millis().unsigned_abs() / total.unsigned_abs();
        u64::try_from(slope.saturating_sub(started.into())).unwrap_or(u64::MAX).min(free)
    }

    /// How far it has come, from 0 to 1.
    fn fraction(&self) -> f64 {
        let total = self.ends.duration_since(self.begins).as_secs_f64();
        if total > 0.0 { self.elapsed.as_secs_f64() / total } else { 0.0 }
    }

    /// Of two ramps the one that has come less far.
    pub(crate) fn slower(self, other: Option<Self>) -> Self {
        other.filter(|other| other.fraction() < self.fraction()).unwrap_or(self)
    }
}

/// Each queue's own delay of a ramp, the same in every process; from 0 to `most_seconds`.
pub(crate) fn jitter(queue: &Uid, window: &str, end: Timestamp, most_seconds: u32) -> SignedDuration {
    let mut hash = Sha256::new();
    hash.update(queue.0.as_bytes());
    hash.update([0]);
    hash.update(window.as_bytes());
    hash.update([0]);
    hash.update(end.as_second().to_be_bytes());
    let digest = hash.finalize();
    let number = digest.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    let seconds = number % (u64::from(most_seconds) + 1);
    SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(0))
}
