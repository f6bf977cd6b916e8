//! What happens again and again is one event with a count.
//!
//! Events of one object, reason and action share a window of ten minutes. The first one opens it and is sent at
//! once. What follows in it with the same note is counted, and the count is sent when the window ends; of what
//! follows with another note the last one opens the next window.

use super::EventNote;
use crate::key::Uid;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Length of a window.
pub(super) const WINDOW: Duration = Duration::from_secs(600);
/// Windows that are kept; beyond that the one goes that was used longest ago, with its count.
pub(super) const MAX_WINDOWS: usize = 4096;
/// Of the object's name, as the event's own has more to say.
const MAX_NAME_BYTES: usize = 200;

/// What is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Publication {
    /// A new event.
    Create {
        name: Arc<str>,
        note: EventNote,
        time: Timestamp,
        /// How often it has happened by now, and when last, if more than once.
        repeated: Option<(u32, Timestamp)>,
    },
    /// How often one that was sent has happened by now, and when last.
    Repeat { name: Arc<str>, namespace: Arc<str>, uid: Uid, repeated: (u32, Timestamp) },
}

/// What events of one window have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct WindowKey {
    uid: Uid,
    reason: &'static str,
    action: &'static str,
}

#[derive(Debug)]
struct Window {
    name: Arc<str>,
    note: EventNote,
    ends: Instant,
    used: u64,
    tally: Tally,
    /// Of those with another note, the last, and how many.
    next: Option<(EventNote, Tally)>,
}

#[derive(Clone, Copy, Debug)]
struct Tally {
    first: Timestamp,
    last: Timestamp,
    count: u32,
}

impl Tally {
    fn one(time: Timestamp) -> Self {
        Self { first: time, last: time, count: 1 }
    }

    fn more(&mut self, time: Timestamp) {
        self.count = self.count.saturating_add(1);
        self.last = self.last.max(time);
    }

    fn repeated(&self) -> Option<(u32, Timestamp)> {
        (self.count > 1).then_some((self.count, self.last))
    }
}

/// The open windows.
#[derive(Debug, Default)]
pub(super) struct Series {
    windows: HashMap<WindowKey, Window>,
    by_end: BTreeSet<(Instant, WindowKey)>,
    by_use: BTreeMap<u64, WindowKey>,
    uses: u64,
}

impl Series {
    /// Something happened; what is to be sent of it now. Windows that have [ended](Self::ended) were
    /// taken out before.
    pub(super) fn happened(&mut self, note: EventNote, now: Instant, time: Timestamp) -> Option<Publication> {
        let key = WindowKey { uid: note.uid.clone(), reason: note.reason, action: note.action };
        let Some(window) = self.windows.get_mut(&key) else {
            return Some(self.open(key, note, Tally::one(time), now));
        };
        if note.note == window.note.note {
            window.tally.more(time);
        } else {
            match &mut window.next {
                Some((last, tally)) => {
                    tally.more(time);
                    *last = note;
                }
                none @ None => *none = Some((note, Tally::one(time))),
            }
        }
        self.by_use.remove(&window.used);
        window.used = self.uses;
        self.by_use.insert(self.uses, key);
        self.uses += 1;
        None
    }

    /// What is to be sent of windows that have ended; those that have another note go on with it.
    pub(super) fn ended(&mut self, now: Instant, time: Timestamp) -> Vec<Publication> {
        let mut due = Vec::new();
        while let Some((_, key)) = self.by_end.first().filter(|(ends, _)| *ends <= now) {
            let key = key.clone();
            let Some(window) = self.close(&key) else { continue };
            if let Some(repeated) = window.tally.repeated() {
                let EventNote { key, uid, .. } = window.note;
                due.push(Publication::Repeat { name: window.name, namespace: key.namespace, uid, repeated });
            }
            if let Some((note, tally)) = window.next {
                // The name bears the time at which the window opens.
                due.push(self.open(key, note, Tally { first: time.max(tally.first), ..tally }, now));
            }
        }
        due
    }

    /// When the next window ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.by_end.first().map(|(ends, _)| *ends)
    }

    fn open(&mut self, key: WindowKey, note: EventNote, tally: Tally, now: Instant) -> Publication {
        if self.windows.len() >= MAX_WINDOWS
            && let Some(oldest) = self.by_use.values().next().cloned()
        {
            self.close(&oldest);
        }
        let name = name(&note, tally.first);
        let ends = now + WINDOW;
        let used = self.uses;
        self.uses += 1;
        self.by_end.insert((ends, key.clone()));
        self.by_use.insert(used, key.clone());
        let publication = Publication::Create {
            name: name.clone(),
            note: note.clone(),
            time: tally.first,
            repeated: tally.repeated(),
        };
        self.windows.insert(key, Window { name, note, ends, used, tally, next: None });
        publication
    }

    fn close(&mut self, key: &WindowKey) -> Option<Window> {
        let window = self.windows.remove(key)?;
        self.by_end.remove(&(window.ends, key.clone()));
        self.by_use.remove(&window.used);
        Some(window)
    }

    /// Whether all parts tell of the same windows.
    #[cfg(test)]
    pub(super) fn is_consistent(&self) -> bool {
        self.windows.len() == self.by_end.len()
            && self.windows.len() == self.by_use.len()
            && self.windows.len() <= MAX_WINDOWS
    }
}

/// The name of an event: the same for whoever tells the same within the same ten minutes, so that a new process
/// does not tell it once more; what it tells otherwise is not lost.
fn name(note: &EventNote, opened: Timestamp) -> Arc<str> {
    let EventNote { key, uid, reason, action, note, .. } = note;
    let slot = opened.as_second().div_euclid(WINDOW.as_secs().cast_signed());
    let digest = Sha256::digest(format!("{uid}/{reason}/{action}/{slot}/{note}"));
    let digest = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{}.{digest:016x}", super::cut(&key.name, MAX_NAME_BYTES)).into()
}
