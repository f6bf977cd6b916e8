//! A class: jobs of one queue, tier and priority whose pods have the same shape.

use super::line::LineId;
use super::scheduling::Scheduling;
use super::{Demand, Place, QueueId, Trouble};
use crate::shape::Shape;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::InterruptionPolicy;
use springtide_crds::common::Tier;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::ObjectKey;
use std::collections::BTreeSet;
use std::sync::Arc;

/// First pause after a refusal; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// Longest pause.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// How long a task takes, to a power of two: jobs of one class have about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ExpectedTime {
    /// Nobody knows.
    Unknown,
    /// At least two to this power seconds, and less than twice as long.
    Log2(u32),
}

impl ExpectedTime {
    fn of(expected: Option<SignedDuration>) -> Self {
        let seconds = expected.and_then(|expected| u64::try_from(expected.as_secs()).ok());
        seconds.map_or(Self::Unknown, |seconds| Self::Log2(seconds.max(1).ilog2()))
    }

    /// The shortest that a job of the class takes.
    pub(super) fn at_least(self) -> Option<SignedDuration> {
        match self {
            Self::Unknown => None,
            // The first power holds what takes no time, too.
            Self::Log2(0) => Some(SignedDuration::ZERO),
            Self::Log2(power) => Some(SignedDuration::from_secs(1_i64 << power.min(40))),
        }
    }
}

/// What makes two jobs alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClassKey {
    pub(super) line: LineId,
    pub(super) tier: Tier,
    pub(super) priority: i32,
    /// Pods that must fit at once; 1 for most jobs.
    pub(super) gang: u32,
    /// About how long its tasks take that do not start where a peak would interrupt them.
    pub(super) finishes: Option<ExpectedTime>,
    pub(super) shape: Arc<Shape>,
}

impl ClassKey {
    pub(super) fn of(demand: &Demand) -> Self {
        Self {
            line: LineId::of(demand),
            // Nobody has said which tiers may run in a queue without an object.
            tier: match demand.queue {
                QueueId::BuiltIn => Tier::BestEffort,
                QueueId::Object(_) => demand.tier,
            },
            priority: demand.priority,
            gang: demand.min_parallelism,
            finishes: match demand.interruption.policy {
                InterruptionPolicy::FinishOrDontStart => Some(ExpectedTime::of(demand.interruption.expected)),
                InterruptionPolicy::Interruptible => None,
            },
            shape: Arc::clone(&demand.shape),
        }
    }
}

impl ClassKey {
    /// The higher goes first.
    pub(super) fn rank(&self) -> (Tier, i32) {
        (self.tier, self.priority)
    }
}

/// One class.
#[derive(Debug)]
pub(super) struct Class {
    /// Its key, which its jobs share.
    pub(super) key: Arc<ClassKey>,
    /// Jobs of it, waiting or not.
    pub(super) jobs: usize,
    /// Those that want more than they have, oldest first.
    pub(super) waiting: BTreeSet<Place>,
    /// Grants of it whose pods do not exist yet.
    pub(super) in_flight: usize,
    /// Grants in flight it may have: 1, 2, 4, ... as creates succeed, so that a quota that refuses
    /// costs one call.
    credit: usize,
    confirmed: usize,
    /// Pods created and not bound yet.
    pub(super) scheduling: Scheduling,
    /// Nothing is granted until then.
    pub(super) paused_until: Option<Timestamp>,
    until_a_pod_ends: bool,
    /// Pods of it were not scheduled: what proves that it does well again is a bound pod.
    unschedulable: bool,
    refusals: u32,
    /// Until then its refusals are remembered, even when no job of it is left.
    remembered_until: Option<Timestamp>,
    /// Then pods that it may have ended have run as long as they are promised.
    pub(super) preempts_at: Option<Timestamp>,
    /// The pass in which it was last served, or made.
    pub(super) served: u64,
    /// Since when no node has room for its first job, though its quota has.
    pub(super) starved: Option<Timestamp>,
    /// When a node should be kept for it.
    pub(super) keeps_at: Option<Timestamp>,
}

impl Class {
    /// A class that is new in this pass: it comes after those that wait already.
    pub(super) fn new(key: &ClassKey, turn: u64) -> Self {
        Self {
            key: Arc::new(key.clone()),
            jobs: 0,
            waiting: BTreeSet::new(),
            in_flight: 0,
            credit: 1,
            confirmed: 0,
            scheduling: Scheduling::new(),
            paused_until: None,
            until_a_pod_ends: false,
            unschedulable: false,
            refusals: 0,
            remembered_until: None,
            preempts_at: None,
            served: turn,
            starved: None,
            keeps_at: None,
        }
    }

    /// Grants it may get now by its own history.
    pub(super) fn allowance(&self, modelled: bool) -> usize {
        let pending = if self.unschedulable { self.scheduling.waiting() } else { 0 };
        let credit = self.credit.saturating_sub(self.in_flight + pending);
        if modelled {
            return credit;
        }
        credit.min(self.scheduling.room(self.in_flight))
    }

    /// A granted pod exists.
    pub(super) fn confirm(&mut self) {
        if !self.unschedulable {
            self.grow();
        }
    }

    fn grow(&mut self) {
        self.refusals = 0;
        self.remembered_until = None;
        self.confirmed += 1;
        if self.confirmed >= self.credit {
            self.confirmed = 0;
            self.credit = self.credit.saturating_mul(2).min(1 << 20);
        }
    }

    /// A pod of it was bound to a node.
    pub(super) fn bind(&mut self, pod: &ObjectKey) {
        if self.unschedulable {
            self.unschedulable = false;
            self.grow();
        }
        self.scheduling.placed(pod);
    }

    /// Something went wrong. Returns whether that is news: what goes wrong while it pauses belongs to
    /// the try that ended in the pause.
    pub(super) fn pause(&mut self, trouble: Trouble, now: Timestamp) -> bool {
        let until_a_pod_ends = trouble == Trouble::Quota;
        let unschedulable = trouble == Trouble::Schedule;
        if self.paused_until.is_some_and(|until| until > now) {
            self.until_a_pod_ends &= until_a_pod_ends;
            self.unschedulable |= unschedulable;
            return false;
        }
        self.unschedulable = unschedulable;
        let doubled = FIRST_PAUSE.checked_mul(1 << self.refusals.min(6)).unwrap_or(LONGEST_PAUSE);
        self.paused_until = now.checked_add(doubled.min(LONGEST_PAUSE)).ok();
        self.until_a_pod_ends = until_a_pod_ends;
        self.remembered_until = self.paused_until.and_then(|until| until.checked_add(LONGEST_PAUSE).ok());
        self.refusals += 1;
        self.credit = 1;
        self.confirmed = 0;
        self.scheduling.begin_anew();
        true
    }

    /// Whether something went wrong, and nothing has gone well since.
    pub(super) fn is_on_trial(&self) -> bool {
        self.refusals > 0
    }

    /// A pod of the namespace has ended: quota may be free again.
    pub(super) fn pod_ended(&mut self) {
        if self.until_a_pod_ends {
            self.paused_until = None;
        }
    }

    /// Ends a pause that is over; returns when it ends otherwise. One that ends later than any can was begun before
    /// the clock was put back.
    pub(super) fn resume(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.paused_until.is_some_and(|until| until <= now || until > after(now, LONGEST_PAUSE)) {
            self.paused_until = None;
        }
        self.paused_until
    }

    /// Whether nobody needs it any more. A job that was taken back may leave and come again: its class
    /// must not forget the pause meanwhile.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.jobs == 0
            && self.scheduling.waiting() == 0
            && self.remembered_until.is_none_or(|until| until <= now)
    }
}
