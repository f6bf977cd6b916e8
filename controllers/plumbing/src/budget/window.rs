//! How many requests of one priority level may be under way: a window by additive increase and
//! multiplicative decrease (Chiu and Jain, 1989).

use super::Limit;
use super::buckets::Lack;
use super::latency::Latency;
use rand::RngExt;
use rand::rngs::SmallRng;
use std::time::Duration;
use tokio::time::Instant;

/// The window at first: what the server lets a client of moderate weight have at once.
const START: f64 = 16.0;
const FLOOR: f64 = 1.0;
const CEILING: f64 = 64.0;
/// A 429 leaves this much of the window.
const AFTER_REFUSAL: f64 = 0.5;
/// A 503, a 504 or a time-out leaves this much.
const AFTER_OVERLOAD: f64 = 0.7;
/// Hold after a 429 that names none, or none to speak of.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
/// The longest hold that a 429 can ask for, like the longest backoff.
const LONGEST_HOLD: Duration = Duration::from_secs(300);
/// What was learned of a level that nothing is written to any more is kept for so long.
const REMEMBERED: Duration = Duration::from_secs(600);
/// A hold is longer than asked for by up to this share, so that clients do not return together.
const HOLD_JITTER: f64 = 0.25;

/// What became of a request, as far as it tells how the server bears its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// An answer on the merits: success, or a refusal that is about the request.
    Answered,
    /// 429.
    TooManyRequests {
        /// The server's Retry-After, where it named one.
        retry_after: Option<Duration>,
    },
    /// 503, 504, or no answer in time.
    Overloaded,
    /// Any other 5xx, a broken connection, or no connection at all.
    Unclear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Requests go out as the window lets them.
    Open,
    /// None goes out until then; after that, one.
    Until(Instant),
    /// The one that goes out after a hold has its slot, and its answer is awaited: the probe of this number.
    Probing(u32),
}

#[derive(Debug)]
pub(super) struct Window {
    limit: f64,
    /// Requests under way.
    in_flight: u32,
    /// Slots of grants that are not claimed yet.
    reserved: u32,
    hold: Hold,
    probes: u32,
    /// The last decrease. What is answered to an older request belongs to the same congestion: the window
    /// is cut once for it, as TCP does once per window of data (RFC 6582).
    cut: Option<Instant>,
    latency: Latency,
    /// The last answer.
    heard: Option<Instant>,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            limit: START,
            in_flight: 0,
            reserved: 0,
            hold: Hold::Open,
            probes: 0,
            cut: None,
            latency: Latency::default(),
            heard: None,
        }
    }
}

impl Window {
    /// Requests that may be under way.
    pub(super) fn slots(&self) -> u32 {
        self.limit as u32
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether it can be forgotten: nothing is under way, and what it has learned is old.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let heard = self.heard.is_some_and(|heard| now < heard + REMEMBERED);
        self.in_flight + self.reserved == 0 && !heard
    }

    /// What keeps a further request from going out.
    pub(super) fn lack(&self, now: Instant) -> Option<Lack> {
        match self.hold {
            Hold::Until(until) if now < until => Some(Lack { limit: Limit::Hold, until: Some(until) }),
            Hold::Probing(_) => Some(Lack { limit: Limit::Hold, until: None }),
            Hold::Open | Hold::Until(_) => (self.in_flight + self.reserved >= self.slots())
                .then_some(Lack { limit: Limit::Window, until: None }),
        }
    }

    /// Reserves a slot, of which the caller has seen that there is one. After a hold, the number of the
    /// probe that it is for.
    pub(super) fn reserve(&mut self) -> Option<u32> {
        self.reserved += 1;
        match self.hold {
            Hold::Open => None,
            Hold::Until(_) | Hold::Probing(_) => {
                self.probes += 1;
                self.hold = Hold::Probing(self.probes);
                Some(self.probes)
            }
        }
    }

    /// Whether a reserved slot may still be used: a hold or a cut may have come in between.
    pub(super) fn may_claim(&self, probe: Option<u32>) -> bool {
        (self.hold == Hold::Open || self.is_decisive(probe)) && self.in_flight < self.slots()
    }

    /// Whether the hold ends or goes on by what becomes of this request.
    fn is_decisive(&self, probe: Option<u32>) -> bool {
        probe.is_some_and(|probe| self.hold == Hold::Probing(probe))
    }

    /// How long a request in a slot of this window is not to go out, if it is held and this is not its probe.
    pub(super) fn held(&self, probe: Option<u32>, now: Instant) -> Option<Duration> {
        match self.hold {
            Hold::Open => None,
            // The probe decides, and it is another one.
            Hold::Probing(_) => (!self.is_decisive(probe)).then_some(SHORTEST_HOLD),
            Hold::Until(until) => Some(until.saturating_duration_since(now).max(SHORTEST_HOLD)),
        }
    }

    pub(super) fn claim(&mut self) {
        self.reserved -= 1;
        self.in_flight += 1;
    }

    /// Gives a reserved slot back.
    pub(super) fn give_back(&mut self, probe: Option<u32>, now: Instant) {
        self.reserved -= 1;
        self.probe_again(probe, now);
    }

    /// A request is no longer under way.
    pub(super) fn finish(&mut self, probe: Option<u32>, now: Instant) {
        self.in_flight -= 1;
        self.probe_again(probe, now);
    }

    /// A probe that has told nothing leaves its place to another.
    fn probe_again(&mut self, probe: Option<u32>, now: Instant) {
        if self.is_decisive(probe) {
            self.hold = Hold::Until(now);
        }
    }

    /// Learns from what became of a request that is still counted as under way. For a 429, how long
    /// nothing goes out.
    pub(super) fn learn(
        &mut self,
        signal: Signal,
        sent: Instant,
        probe: Option<u32>,
        rng: &mut SmallRng,
        now: Instant,
    ) -> Option<Duration> {
        self.heard = Some(now);
        let news = self.cut.is_none_or(|cut| cut < sent);
        let decisive = self.is_decisive(probe);
        match signal {
            Signal::Answered => {
                self.latency.record(now.duration_since(sent), now);
                if decisive {
                    self.hold = Hold::Open;
                }
                let half_used = f64::from(self.in_flight) >= self.limit / 2.0;
                // What a refusal has taken comes back however slow the server is: at its beginning no window
                // is too large for that.
                let may_grow = self.limit < START || !self.latency.is_inflated();
                if news && half_used && self.hold == Hold::Open && may_grow {
                    self.limit = (self.limit + 1.0 / self.limit).min(CEILING);
                }
                None
            }
            Signal::TooManyRequests { retry_after } => {
                if news {
                    self.cut_to(AFTER_REFUSAL, now);
                }
                let asked = retry_after.unwrap_or_default().clamp(SHORTEST_HOLD, LONGEST_HOLD);
                let until = now + asked.mul_f64(1.0 + rng.random_range(0.0..=HOLD_JITTER));
                let until = match self.hold {
                    Hold::Until(longer) => longer.max(until),
                    Hold::Open | Hold::Probing(_) => until,
                };
                self.hold = Hold::Until(until);
                Some(until.duration_since(now))
            }
            Signal::Overloaded => {
                if news {
                    self.cut_to(AFTER_OVERLOAD, now);
                }
                if decisive {
                    self.hold = Hold::Open;
                }
                None
            }
            Signal::Unclear => None,
        }
    }

    fn cut_to(&mut self, share: f64, now: Instant) {
        self.limit = (self.limit * share).max(FLOOR);
        self.cut = Some(now);
    }
}
