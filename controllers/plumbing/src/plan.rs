//! Plans: every write a controller wants, as data, before anything is sent.
//!
//! A planner is a pure function from what was observed to a [`Plan`]. It is idempotent (planning
//! again after its effects gives an empty plan) and correct after a crash between any two writes:
//! what must not be forgotten stands in a deterministic name or in the stored status.

mod action;

pub use action::{Action, Fields, Part, Patch, remove_finalizer};

use crate::events::EventNote;
use crate::key::{ObjectKey, Resource};
use jiff::Timestamp;

/// The most writes of one pass, so that no key holds a worker and the budget for long. The executor
/// leaves what is beyond it to the next plan.
pub const MAX_WRITES: usize = 200;
/// The most bytes of a status as JSON; the executor sends no larger one. Every watcher of the kind
/// gets it with every change.
pub const MAX_STATUS_BYTES: usize = 10_000;

/// What one reconcile pass will do, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Writes in order: the steps of one stage are independent and may be in flight together; a stage
    /// starts when the one before it has succeeded as a whole.
    pub stages: Vec<Vec<Step>>,
    /// The status write of the owner, sent last, and only when it differs.
    pub status: Option<Write>,
    /// When to plan again without an event.
    pub wake: Option<Timestamp>,
    /// Where the object stands.
    pub outcome: Outcome,
    /// The decisions in words, for explanations and logs.
    pub why: Vec<Why>,
    /// What users are told once all writes have succeeded.
    pub events: Vec<EventNote>,
}

impl Plan {
    /// A plan that writes nothing.
    pub fn idle(outcome: Outcome) -> Self {
        Self { stages: Vec::new(), status: None, wake: None, outcome, why: Vec::new(), events: Vec::new() }
    }

    /// Number of writes, the status included.
    pub fn writes(&self) -> usize {
        let staged = self.stages.iter().flatten().map(|step| step.writes().len());
        staged.sum::<usize>() + usize::from(self.status.is_some())
    }

    /// Makes the wake time the earlier of its own and `at`.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }
}

/// One element of a stage. A write becomes one by `into`.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// One write.
    One(Write),
    /// Writes that are sent back to back, each when the one before it is answered: the write budget has
    /// room for all of them before the first goes out. One that does not succeed stops the rest.
    Chain(Vec<Write>),
}

impl Step {
    /// Its writes, in order.
    pub fn writes(&self) -> &[Write] {
        match self {
            Self::One(write) => std::slice::from_ref(write),
            Self::Chain(writes) => writes,
        }
    }

    /// Its writes, in order.
    pub fn into_writes(self) -> Vec<Write> {
        match self {
            Self::One(write) => vec![write],
            Self::Chain(writes) => writes,
        }
    }
}

impl From<Write> for Step {
    fn from(write: Write) -> Self {
        Self::One(write)
    }
}

/// Where an object stands after a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The world is as the spec asks; nothing is left to do.
    Converged,
    /// Work is under way; an event of its own objects brings the next pass.
    Progressing,
    /// Something that comes by itself is awaited (capacity, a point in time).
    Waiting,
    /// A person has to change something first.
    Blocked,
}

/// One decision of a planner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The documented reason, CamelCase.
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
}

/// Which kind of pressure a write may be shed under: the write budget sheds from the bottom.
///
/// Leases are not here: they never pass the budget, and go out on a client of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriteClass {
    /// Gives something back or keeps users from harm: finalizer release, rollback, traffic restored.
    Protective,
    /// Creates, deletes and changes of spec.
    Spec,
    /// Status of our own objects.
    Status,
    /// What can wait: history trimming, waiting records, work found by an initial list.
    Low,
    /// Events; dropped first.
    Event,
}

impl WriteClass {
    /// All classes, most important first.
    pub const ALL: [Self; 5] = [Self::Protective, Self::Spec, Self::Status, Self::Low, Self::Event];

    /// Whether writes of this class give way under pressure: events are dropped, others put off.
    pub fn is_shed(self) -> bool {
        match self {
            Self::Low | Self::Event => true,
            Self::Protective | Self::Spec | Self::Status => false,
        }
    }

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protective => "protective",
            Self::Spec => "spec",
            Self::Status => "status",
            Self::Low => "low",
            Self::Event => "event",
        }
    }
}

/// One write, complete with the precondition that makes it safe on a stale view.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Resource type of the object written.
    pub resource: Resource,
    /// The object written.
    pub key: ObjectKey,
    /// Budget class.
    pub class: WriteClass,
    /// What is done to it.
    pub action: Action,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_wake_wins() {
        let mut plan = Plan::idle(Outcome::Waiting);
        plan.wake_at(Timestamp::from_second(20).unwrap());
        plan.wake_at(Timestamp::from_second(10).unwrap());
        plan.wake_at(Timestamp::from_second(30).unwrap());
        assert_eq!(plan.wake, Some(Timestamp::from_second(10).unwrap()));
    }
}
