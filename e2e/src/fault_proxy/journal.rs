//! What the proxy has seen and done.

use std::time::Instant;

use super::faults::At;
use super::rules::RuleId;
use crate::write_count::Request;

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is on its way.
    Received,
    /// It is held here.
    Held(At),
    /// The client is being sent an answer; its code stands in the request.
    Answered,
    /// All of the answer has been handed to the client's connection, or the client has left meanwhile.
    Done,
    /// It got no answer: the connection to the API server failed, or a fault reset that of the client, or
    /// the client has given it up.
    Broken,
}

/// One request.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it came.
    pub at: Instant,
    /// When it was answered, or broke.
    pub ended: Option<Instant>,
    /// What it asks for; `code` is what the client was told, 0 as long as that is nothing.
    pub request: Request,
    /// Whether it came over HTTP/2.
    pub http2: bool,
    /// The fault that it met.
    pub fault: Option<RuleId>,
    /// What the API server answered, 0 as long as that is nothing: more than 0 is known to be committed.
    pub upstream: u16,
    /// How far it has come.
    pub stage: Stage,
}

impl Entry {
    /// Whether it is a write that the API server has stored.
    #[must_use]
    pub fn stored(&self) -> bool {
        self.request.is_write() && self.upstream / 100 == 2
    }
}

/// All requests, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: Vec<Entry>,
    /// Number of the first entry: those before it were forgotten.
    first: usize,
}

impl Journal {
    pub(super) fn push(&mut self, entry: Entry) -> usize {
        self.entries.push(entry);
        self.first + self.entries.len() - 1
    }

    pub(super) fn change(&mut self, number: usize, change: impl FnOnce(&mut Entry)) {
        let place = number.checked_sub(self.first);
        if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
            change(entry);
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn clear(&mut self) {
        self.first += self.entries.len();
        self.entries.clear();
    }
}
