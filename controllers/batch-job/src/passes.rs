//! How often the admission looks at everything.
//!
//! Every pod that comes, is bound or goes asks for a pass, and a pass looks at all classes that wait and at the pods that
//! may have to go for them. With a hundred classes it takes milliseconds, so one for each of hundreds of events a second
//! would keep a core busy to find out what one pass for all of them finds out as well.

use crate::admission::Admission;
use crate::{BatchJobReconciler, lock, watches};
use jiff::Timestamp;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::queue::{Priority, Urgency};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

/// After a pass the next one waits for so many times as long as that one took: passes take a quarter of a core at most.
const PAUSE: u32 = 3;
/// Who waits for a grant does not wait longer for that.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// A pause is not worth a timer below this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// When the next pass may begin.
#[derive(Debug, Default)]
pub(crate) struct Passes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    not_before: Option<Instant>,
    /// Somebody comes again then.
    is_awaited: bool,
    /// When the next pass is due though nothing happens.
    due: Option<Timestamp>,
}

/// Whether a pass may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Now.
    Now,
    /// Not before then. The caller must come again, for all that ask meanwhile.
    Later(Instant),
    /// Somebody else comes again for it.
    Awaited,
}

impl Passes {
    /// Asks for a pass.
    pub(crate) fn ask(&self, now: Instant) -> Ask {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.not_before.filter(|at| *at > now) {
            None => {
                state.is_awaited = false;
                Ask::Now
            }
            Some(_) if state.is_awaited => Ask::Awaited,
            Some(at) => {
                state.is_awaited = true;
                Ask::Later(at)
            }
        }
    }

    /// A pass has ended that took so long.
    pub(crate) fn took(&self, time: Duration, now: Instant) {
        let pause = Some((time * PAUSE).min(LONGEST_PAUSE)).filter(|pause| *pause >= SHORTEST_PAUSE);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (state.not_before, state.is_awaited) = (pause.map(|pause| now + pause), false);
    }

    /// The next pass is due then by time alone. Returns whether that is sooner than was said before.
    fn set_due(&self, due: Option<Timestamp>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut state.due, due);
        due.is_some_and(|due| before.is_none_or(|before| due < before))
    }

    /// When the next pass is due by time alone.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).due
    }
}

impl BatchJobReconciler {
    /// One round of admission for whatever changed on the nodes; a moment later, and once for all who ask until then,
    /// where the last one took long.
    pub(crate) fn admit(&self, now: Timestamp) {
        match self.passes.ask(Instant::now()) {
            Ask::Now => {}
            Ask::Awaited => return,
            Ask::Later(at) => {
                if let (Some(queue), Ok(runtime)) = (self.queue.get().cloned(), Handle::try_current()) {
                    runtime.spawn(async move {
                        sleep_until(at).await;
                        queue.add(watches::admission(), Priority::High, Urgency::Routine);
                    });
                    return;
                }
            }
        }
        let granted = {
            let mut admission = lock(&self.admission);
            self.ready(&mut admission, now);
            let began = Instant::now();
            let granted = self.pass(&mut admission, now);
            let ended = Instant::now();
            self.passes.took(ended - began, ended);
            granted
        };
        for job in granted {
            self.wake(job, Priority::Normal, Urgency::Routine);
        }
    }

    /// A pass, whoever asks for it. What is due later by time alone is left to the admission's own key, which comes
    /// again for that: no job need be looked at for it.
    pub(crate) fn pass(&self, admission: &mut Admission, now: Timestamp) -> Vec<ObjectKey> {
        let granted = admission.pass(now);
        if self.passes.set_due(admission.due(now)) {
            self.wake(watches::admission(), Priority::High, Urgency::Routine);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn cheap_passes_follow_each_other_at_once() {
        let (passes, now) = (Passes::default(), Instant::now());
        for _ in 0..3 {
            assert_eq!(passes.ask(now), Ask::Now);
            passes.took(MILLI / 10, now);
        }
    }

    #[test]
    fn after_a_long_one_there_is_one_for_all_who_ask_meanwhile() {
        let (passes, now) = (Passes::default(), Instant::now());
        assert_eq!(passes.ask(now), Ask::Now);
        passes.took(10 * MILLI, now);
        let due = now + 30 * MILLI;
        assert_eq!(passes.ask(now + MILLI), Ask::Later(due));
        assert_eq!(passes.ask(now + 2 * MILLI), Ask::Awaited);
        assert_eq!(passes.ask(due), Ask::Now);
        passes.took(10 * MILLI, due);
        assert_eq!(passes.ask(due), Ask::Later(due + 30 * MILLI), "the next pause has a timer of its own");
    }

    #[test]
    fn no_pause_is_long() {
        let (passes, now) = (Passes::default(), Instant::now());
        passes.took(1000 * MILLI, now);
        assert_eq!(passes.ask(now), Ask::Later(now + LONGEST_PAUSE));
        assert_eq!(passes.ask(now + LONGEST_PAUSE), Ask::Now);
    }
}
