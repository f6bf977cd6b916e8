//! A sink that is out of order: since when it is, which lines are given up for that, and which queues are told.

use super::{Changes, FailureKind, Outbox, State, Way};
use crate::archive::Sink;
use springtide_plumbing::key::{ObjectKey, Uid};
use std::time::Duration;
use tokio::time::Instant;

/// A sink that has taken nothing for so long, though something was sent, is out of order: before, the lines that it
/// refuses wait, however many they are.
pub const OUTAGE_AFTER: Duration = Duration::from_secs(15);

/// How a queue's archive fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Lines are taken, or none is due.
    #[default]
    Well,
    /// The sink is out of order.
    Failing {
        /// Why, for people.
        problem: String,
        /// What the last failure said.
        kind: FailureKind,
        /// Whether jobs of the queue were deleted without a line since it is.
        dropping: bool,
    },
}

impl Way {
    /// Whether it is out of order.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.failing_since.is_some_and(|since| now.saturating_duration_since(since) >= OUTAGE_AFTER)
    }
}

impl Outbox {
    /// How a queue's archive fares.
    pub fn health(&self, queue: &ObjectKey, sink: &Sink) -> Health {
        let Some(way) = self.ways.get(sink).filter(|way| way.told.contains(queue)) else {
            return Health::Well;
        };
        Health::Failing {
            problem: way.failure.problem.clone(),
            kind: way.failure.kind,
            dropping: self.crowds.get(queue).is_some_and(|crowd| crowd.dropping),
        }
    }

    /// Gives up the oldest lines of a queue beyond what it keeps while its sink is out of order.
    pub(super) fn shed(&mut self, queue: &ObjectKey, now: Instant, changes: &mut Changes) {
        let Some(crowd) = self.crowds.get(queue) else { return };
        if !self.ways.get(&crowd.sink).is_some_and(|way| way.is_out(now)) {
            return;
        }
        let too_many = crowd.history.len().saturating_sub(crowd.history_limit);
        let beyond = crowd.history.iter().take(too_many).chain(&crowd.room);
        let is_waiting = |uid: &Uid| {
            self.entries.get(uid).is_some_and(|entry| matches!(entry.state, State::Waiting { .. }))
        };
        let dropped: Vec<Uid> = beyond.map(|(_, uid)| uid.clone()).filter(is_waiting).collect();
        if dropped.is_empty() {
            return;
        }
        changes.dropped += dropped.len();
        if let Some(crowd) = self.crowds.get_mut(queue)
            && !std::mem::replace(&mut crowd.dropping, true)
        {
            changes.queues.push(queue.clone());
        }
        for uid in dropped {
            self.settle(&uid, changes);
        }
    }

    /// Notes that a queue is to be told of an outage, once.
    pub(super) fn tell(&mut self, queue: &ObjectKey, now: Instant, changes: &mut Changes) {
        let Some(crowd) = self.crowds.get(queue) else { return };
        if let Some(way) = self.ways.get_mut(&crowd.sink)
            && way.is_out(now)
            && way.told.insert(queue.clone())
            && !changes.queues.contains(queue)
        {
            changes.queues.push(queue.clone());
        }
    }
}
