//! How long a finished job stays.

use super::state::JobState;
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::clock::after;

/// How long a finished job stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Until then.
    Until(Timestamp),
    /// Its time is over.
    Over,
}

/// How long a job stays, by its own word, its queue's, or the manager's settings; `None` for one that has not finished.
pub fn stay(state: &JobState, exceeds_history: bool, now: Timestamp) -> Option<Stay> {
    let job = &state.job;
    let completion = job.status.completion_time.as_ref().filter(|_| job.is_finished())?.0;
    if exceeds_history {
        return Some(Stay::Over);
    }
    let ttl = job.spec.ttl_seconds_after_finished.or(state.placement.ttl_seconds);
    let ttl = ttl.unwrap_or(state.settings.ttl_seconds);
    let over = after(completion, SignedDuration::from_secs(ttl.into()));
    Some(if over > now { Stay::Until(over) } else { Stay::Over })
}
