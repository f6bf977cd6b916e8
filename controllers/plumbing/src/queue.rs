//! The work queue of a controller: events become keys, a key is queued once and runs once at a time.
//!
//! - FIFO within a priority; every 8th pop takes the oldest key of a lower one, so nothing starves.
//! - An event during a run causes exactly one more run.
//! - Backoff is per key and counts failed passes, never enqueues. Events do not shorten it, except
//!   a change of `generation` or a deletion (kubernetes#132805 tells what happens otherwise).
//! - A key without write budget, or whose read-your-writes gate is closed, steps aside and comes
//!   back at its old place, so no worker ever waits for it.
//!
//! kube-runtime's scheduler is not used: under a concurrency limit it starves keys (35 of 40 never
//! ran), and it has neither priorities nor a backoff per key (kube-rs#1916).

#[cfg(test)]
mod model_test;
mod ready;
#[cfg(test)]
mod resume_test;
mod state;
#[cfg(test)]
mod tests;

use state::State;
use std::fmt::Debug;
use std::hash::Hash;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Why a key is in the queue; keys of a higher priority run first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Work from an initial list or a resync.
    Low,
    /// Ordinary events, and points in time that a plan asked for.
    Normal,
    /// A change of `generation`, a deletion, protective work.
    High,
}

impl Priority {
    /// All priorities, highest first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The label value in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// Whether an event may end a running backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// It waits for the backoff: every event but those below, protective ones too.
    Routine,
    /// A change of `generation` or a deletion: the failed attempt was made for something else.
    BreaksBackoff,
}

/// How a pass ended, and so when the key runs next.
///
/// An event that came during the pass brings one more run in every case; that run is under the
/// backoff, throttle or gate that is said here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Done until an event comes; clears the failures. Also when the object is gone.
    Success,
    /// As [`Next::Success`], and run again at this point in time if nothing runs it before.
    WakeAt(Instant),
    /// A failed pass: run again after the backoff, which is at least about `min`.
    Failed {
        /// From where the backoff doubles, as the class of the error asks for; zero for no more than the
        /// ordinary one.
        min: Duration,
    },
    /// Decided on an old view, or without knowing what this pass has taught the controller: run again
    /// as soon as the gate lets it, from the fifth such pass in a row on with backoff.
    Conflict,
    /// No write budget, or no right to write for now. Neither failure nor success; back at its place at
    /// this point in time, or when [`WorkQueue::resume`] says so. Events do not bring that forward, as what
    /// they ask for would be refused as well.
    Throttled {
        /// When a write may have a chance again.
        until: Instant,
    },
    /// The stores have not caught up with the key's own writes. No failure; back at its place when
    /// [`WorkQueue::release`] says so.
    Gated,
}

/// A key handed to a worker, which owes a [`WorkQueue::done`] for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<K> {
    /// The key to run.
    pub key: K,
    /// The priority at which it was queued.
    pub priority: Priority,
    /// How long it was ready and waited for a worker; backoff and throttling are not in it.
    pub waited: Duration,
    /// Failed passes in a row before this one, conflicts not counted.
    pub failures: u32,
}

/// Figures of a queue, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys ready to run, in the order of [`Priority::ALL`].
    pub depth: [usize; 3],
    /// Keys in backoff.
    pub in_backoff: usize,
    /// Keys that wait for write budget.
    pub throttled: usize,
    /// Keys that wait for the stores to show their own writes.
    pub gated: usize,
    /// Keys that are running.
    pub running: usize,
    /// Age of the longest run.
    pub longest_run: Duration,
    /// Sum of the ages of all runs.
    pub unfinished: Duration,
    /// Times a key became ready, since the start.
    pub adds: u64,
    /// Failed and conflicting passes since the start.
    pub retries: u64,
}

/// The queue; clones share it.
#[derive(Debug)]
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

#[derive(Debug)]
struct Shared<K> {
    state: Mutex<State<K>>,
    /// Woken once for a key that became ready, and for all when the next timer moved forward.
    wake: Notify,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K: Clone + Ord + Hash + Debug> WorkQueue<K> {
    /// An empty queue; `seed` feeds the jitter of backoffs.
    pub fn new(seed: u64) -> Self {
        Self { shared: Arc::new(Shared { state: Mutex::new(State::new(seed)), wake: Notify::new() }) }
    }

    /// Notes that `key` should run. A key that is queued already keeps its place, in the higher of
    /// both priorities.
    pub fn add(&self, key: K, priority: Priority, urgency: Urgency) {
        self.change(|state, now| state.add(key, priority, urgency, now));
    }

    /// The next key to run, as soon as there is one; `None` once the queue is closed.
    ///
    /// Any number of workers may wait here. Dropping the future loses nothing.
    pub async fn next(&self) -> Option<Item<K>> {
        loop {
            // Listens before it looks, so that nothing between the two is missed.
            let mut woken = pin!(self.shared.wake.notified());
            woken.as_mut().enable();
            let timer = {
                let mut state = self.lock();
                if state.closed {
                    return None;
                }
                let now = Instant::now();
                state.expire(now);
                if let Some(item) = state.pop(now) {
                    if state.has_ready() {
                        self.shared.wake.notify_one();
                    }
                    return Some(item);
                }
                state.next_timer()
            };
            match timer {
                Some(at) => tokio::select! {
                    () = woken => {}
                    () = sleep_until(at) => {}
                },
                None => woken.await,
            }
        }
    }

    /// Reports how the pass of `key` ended. Only for a key that [`WorkQueue::next`] handed out.
    pub fn done(&self, key: &K, next: Next) {
        self.change(|state, now| state.done(key, next, now));
    }

    /// Says that the gate of `key` has opened: a key that waits for it comes back at its place, and one
    /// at rest runs too, as what opened the gate may have been no event (an object that is missing after
    /// a relist). During a run it is remembered, so that what crosses it is not lost.
    pub fn release(&self, key: &K) {
        self.change(|state, now| state.release(key, now));
    }

    /// Says that `key` was granted a write: if it waits for budget it comes back at its place. During a run
    /// it is remembered, as the run may just be ending for want of budget. A key that waits for anything
    /// else, or for nothing, is left alone.
    pub fn resume(&self, key: &K) {
        self.change(|state, now| state.resume(key, now));
    }

    /// Stops handing out keys. Passes under way end by themselves.
    pub fn close(&self) {
        self.lock().closed = true;
        self.shared.wake.notify_waiters();
    }

    /// Number of keys ready to run.
    pub fn len(&self) -> usize {
        Priority::ALL.into_iter().map(|priority| self.depth(priority)).sum()
    }

    /// Whether no key is ready to run.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of keys of one priority that are ready to run.
    pub fn depth(&self, priority: Priority) -> usize {
        self.lock().depth(priority)
    }

    /// The figures of this moment. Walks over all keys, so it is for scrapes, not for the hot path.
    pub fn stats(&self) -> Stats {
        self.lock().stats(Instant::now())
    }

    /// Runs a change of the state and wakes whom it concerns.
    fn change(&self, change: impl FnOnce(&mut State<K>, Instant)) {
        let mut state = self.lock();
        let timer = state.next_timer();
        change(&mut state, Instant::now());
        let earlier = match (state.next_timer(), timer) {
            (Some(new), Some(old)) => new < old,
            (Some(_), None) => true,
            (None, _) => false,
        };
        let ready = state.has_ready();
        drop(state);
        if earlier {
            // Whoever sleeps until the old timer would sleep too long.
            self.shared.wake.notify_waiters();
        }
        if ready {
            self.shared.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // No panic can leave the state half changed in a way that a lock would mend.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
