//! How often the admission looks at everything.
//!
//! Every pod that comes, is bound or goes asks for a pass, and a pass looks at all classes that wait and at the pods that
//! may have to go for them. With a hundred classes it takes milliseconds, so one for each of hundreds of events a second
//! would keep a core busy to find out what one pass for all of them finds out as well. Jobs that ask ask for one likewise.
//! Where passes are cheap, or none was made for a moment, each is made at once.

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
    /// Nobody waits.
    is_hurried: bool,
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
        match state.not_before.filter(|at| *at >= now + SHORTEST_PAUSE && !state.is_hurried) {
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

    /// Lets each pass be made at once: where no time passes, nobody would come again.
    pub(crate) fn hurry(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_hurried = true;
    }

    /// A pass has ended that took so long. Its pause is added to what is left of the one before: many cheap passes in a
    /// row cost as much as a long one.
    pub(crate) fn took(&self, time: Duration, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = state.not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
        let pause = (left + time * PAUSE).min(LONGEST_PAUSE);
        (state.not_before, state.is_awaited) = (Some(now + pause), false);
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
        self.note_asking(&watches::admission());
        if !self.may_pass() {
            return;
        }
        let granted = {
            let mut admission = lock(&self.admission);
            self.ready(&mut admission, now);
            self.pass(&mut admission, now)
        };
        for job in granted {
            self.wake(job, Priority::Normal, Urgency::Routine);
        }
    }

    /// Whether a pass may be made now, as the last one did not take long or was long ago. Else the admission's own key
    /// comes again for all who have asked, a moment later.
    pub(crate) fn may_pass(&self) -> bool {
        match self.passes.ask(Instant::now()) {
            Ask::Now => true,
            Ask::Awaited => false,
            Ask::Later(at) => match (self.queue.get().cloned(), Handle::try_current()) {
                (Some(queue), Ok(runtime)) => {
                    runtime.spawn(async move {
                        sleep_until(at).await;
                        queue.add(watches::admission(), Priority::High, Urgency::Routine);
                    });
                    false
                }
                (None, _) | (_, Err(_)) => true,
            },
        }
    }

    /// A pass, whoever asks for it. What is due later by time alone is left to the admission's own key, which comes
    /// again for that: no job need be looked at for it.
    pub(crate) fn pass(&self, admission: &mut Admission, now: Timestamp) -> Vec<ObjectKey> {
        let began = Instant::now();
        let granted = admission.pass(now);
        let ended = Instant::now();
        self.passes.took(ended - began, ended);
        if self.passes.set_due(admission.due(now)) {
            self.wake(watches::admission(), Priority::High, Urgency::Routine);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use serde_json::json;
    use springtide_plumbing::controller::Reconciler;
    use springtide_plumbing::key::{ResourceVersion, Uid};
    use springtide_plumbing::queue::{Next, WorkQueue};
    use springtide_plumbing::store::Store;
    use std::collections::BTreeMap;

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
    fn very_many_cheap_passes_in_a_row_pause_like_a_long_one() {
        let (passes, now) = (Passes::default(), Instant::now());
        for _ in 0..10 {
            passes.took(MILLI / 10, now);
        }
        let due = now + 3 * MILLI;
        assert_eq!(passes.ask(now), Ask::Later(due));
        assert_eq!(passes.ask(due), Ask::Now);
        passes.took(MILLI / 10, due);
        assert_eq!(passes.ask(due), Ask::Now, "what has been paused for counts no more");
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

    /// Looks at all keys that are queued.
    fn work(reconciler: &BatchJobReconciler, queue: &WorkQueue<ObjectKey>, now: Timestamp) {
        while let Some(item) = queue.next().now_or_never().flatten() {
            drop(reconciler.observe(&item.key, None, now));
            queue.done(&item.key, Next::Success);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_is_decided_at_once_unless_passes_are_costly_and_then_soon() {
        let (jobs, mut job_writer) = Store::new(&[watches::JOBS_BY_PROFILE]);
        let (profiles, mut no_profiles) = Store::new(&[]);
        let (pods, mut no_pods) = Store::new(&[watches::PODS_BY_JOB]);
        let (nodes, mut node_writer) = Store::new(&[]);
        let (queues, mut no_queues) = Store::new(&[]);
        let stores =
            watches::Stores { jobs, pods, profiles, nodes: Some(nodes), queues, priority_classes: None };
        let reconciler = BatchJobReconciler::new(stores);
        let queue = WorkQueue::new(1);
        let _ = reconciler.queue.set(queue.clone());
        reconciler.listen();
        let version = ResourceVersion(1);
        job_writer.replace(BTreeMap::new(), version);
        no_profiles.replace(BTreeMap::new(), version);
        no_pods.replace(BTreeMap::new(), version);
        no_queues.replace(BTreeMap::new(), version);
        node_writer.replace(BTreeMap::new(), version);
        let node = json!({
            "metadata": {"name": "n", "uid": "n", "resourceVersion": "2"},
            "status": {
                "allocatable": {"cpu": "64", "memory": "64Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        node_writer.apply(serde_json::from_value(node).expect("a node"));
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().expect("a time");
        work(&reconciler, &queue, now);
        // Several tasks each, and none is like another.
        for number in 1..=3_u32 {
            let name = format!("j{number}");
            let requests = json!({"cpu": number.to_string()});
            let job = json!({
                "metadata": {"namespace": "ns", "name": name, "uid": name, "resourceVersion": (2 + number).to_string(),
                    "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"completions": 2, "parallelism": 2, "template": {"spec": {"containers": [
                    {"name": "main", "image": "app", "resources": {"requests": requests}}]}}},
            });
            job_writer.apply(serde_json::from_value(job).expect("a job"));
        }
        let granted = |number: u32| {
            let uid = Uid(format!("j{number}").into());
            lock(&reconciler.admission).verdict(&uid).granted
        };
        let ask = |number: u32| {
            let key = ObjectKey::new("ns", format!("j{number}").as_str());
            reconciler.observe_job(&key, None, now).and_then(|it| it.verdict).map(|verdict| verdict.granted)
        };
        assert_eq!(ask(1), Some(1), "nothing else happens");
        reconciler.passes.took(10 * MILLI, Instant::now());
        assert_eq!(ask(2), Some(0), "the last pass took long");
        work(&reconciler, &queue, now);
        assert_eq!(granted(2), 0);
        tokio::time::sleep(31 * MILLI).await;
        work(&reconciler, &queue, now);
        assert_eq!(granted(2), 1, "somebody has come again for it");
        assert_eq!(granted(3), 1);
    }
}
