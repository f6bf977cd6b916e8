//! Who waited when this process began to act.
//!
//! Jobs ask one after the other, and what is free is given to whoever asks. In the first moments of a process most have not
//! asked yet, so that capacity would go to who comes first: a borrower in place of who lends it, or one of low priority,
//! which would have to end again for the one whose it is. So nothing is given until all have asked that waited already.

use crate::BatchJobReconciler;
use crate::projections::job::JobView;
use crate::watches::admission;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Those that waited then and have not asked yet.
#[derive(Debug, Default)]
pub(crate) struct Takeover(Mutex<State>);

#[derive(Debug, Default)]
enum State {
    /// The process does not act: it stands by, or has just started.
    #[default]
    Before,
    /// These have not asked; in the end none.
    Since(HashSet<ObjectKey>),
}

impl Takeover {
    /// Somebody asks, or is gone; the first time, these are all that wait. Each of them must come here once, and does, as
    /// each has a key in the queue. Returns whether that was the last one.
    pub(crate) fn asks(&self, key: &ObjectKey, waiting: impl FnOnce() -> HashSet<ObjectKey>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut silent, is_first) = match std::mem::take(&mut *state) {
            State::Before => (waiting(), true),
            State::Since(silent) => (silent, false),
        };
        let was_silent = silent.remove(key);
        let is_last = silent.is_empty() && (was_silent || is_first);
        *state = State::Since(silent);
        is_last
    }

    /// Whether all have asked.
    pub(crate) fn is_over(&self) -> bool {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Before => false,
            State::Since(silent) => silent.is_empty(),
        }
    }
}

/// Whether a job has nothing that runs, as far as its status says.
pub(crate) fn waits(job: &JobView) -> bool {
    !job.is_finished() && job.status.active == 0
}

impl BatchJobReconciler {
    /// Notes that this key is looked at. After the last one the admission looks at all of them.
    pub(crate) fn note_asking(&self, key: &ObjectKey) {
        let waiting = || {
            let jobs = self.stores.jobs.list(None);
            jobs.iter().filter(|job| waits(job)).map(|job| job.meta().key.clone()).collect()
        };
        if self.takeover.asks(key, waiting) {
            self.wake(admission(), Priority::High, Urgency::Routine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    #[test]
    fn it_is_over_when_all_have_asked_that_waited_at_the_first_look() {
        let takeover = Takeover::default();
        assert!(!takeover.is_over(), "nobody has looked at who waits");
        let waiting = || HashSet::from([key("a"), key("b"), key("c")]);
        assert!(!takeover.asks(&key("a"), waiting));
        assert!(!takeover.asks(&key("other"), || HashSet::from([key("later")])));
        assert!(!takeover.asks(&key("c"), HashSet::new) && !takeover.is_over());
        assert!(takeover.asks(&key("b"), HashSet::new) && takeover.is_over());
        assert!(!takeover.asks(&key("b"), HashSet::new), "once");
        let alone = Takeover::default();
        assert!(alone.asks(&key("a"), HashSet::new) && alone.is_over());
    }
}
