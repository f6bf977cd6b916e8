//! The reconcile loop: key, gate, observe, plan, perform, settle, and the decorator that alone
//! measures and logs a pass.

use crate::clock::Clock;
use crate::error::{ErrorClass, WriteError};
use crate::executor::{Executor, WriteResult};
use crate::gate::Gate;
use crate::key::ObjectKey;
use crate::metrics::{Metrics, ReconcileResult};
use crate::panic_text::panic_text;
use crate::plan::{Outcome, Plan};
use crate::queue::{Item, Next, Priority, Urgency, WorkQueue};
use jiff::Timestamp;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Keys worked on at once by one controller.
pub const DEFAULT_WORKERS: usize = 8;
/// A pass that found itself not leading looks again after this; leadership wakes workers anyway.
const NOT_LEADING_PAUSE: Duration = Duration::from_secs(1);

/// What one controller is, to the loop: pure decisions between a look at the stores and the executor.
pub trait Reconciler: Send + Sync + 'static {
    /// Name in logs, metrics, budget and field managers, like `batch-job`.
    const NAME: &'static str;
    /// Plain data about one key.
    type Observed: Send;

    /// Gathers what the stores know of a key; `None` when nothing of that name is left to care for.
    fn observe(&self, key: &ObjectKey, now: Timestamp) -> Option<Self::Observed>;

    /// Decides. Pure: no client, no clock, no randomness.
    fn plan(&self, observed: &Self::Observed, now: Timestamp) -> Plan;

    /// Takes in what the writes of a pass came to, before the key is planned again.
    fn settle(&self, key: &ObjectKey, results: &[WriteResult], now: Timestamp) -> Settled;
}

/// Who looks after the failures of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The loop: the key backs off by the class of the error.
    Default,
    /// The controller: it holds the refusal in its own memory and plans for it, so the key is
    /// planned again at once and no backoff counts.
    Handled,
}

/// One controller, ready to run.
pub struct Controller<R> {
    /// Its decisions.
    pub reconciler: Arc<R>,
    /// Its keys.
    pub queue: WorkQueue<ObjectKey>,
    /// Read-your-writes.
    pub gate: Arc<Gate>,
    /// Its writer.
    pub executor: Executor,
    /// Whether workers may take keys.
    pub leading: watch::Receiver<bool>,
    /// Wall-clock time for planners.
    pub clock: Clock,
    /// Measures each pass.
    pub metrics: Arc<Metrics>,
    /// Keys worked on at once.
    pub workers: usize,
}

impl<R: Reconciler> Controller<R> {
    /// Runs until `shutdown`, then lets the passes under way end.
    ///
    /// # Panics
    /// Passes a worker's panic on: a defect outside of a pass must not leave a controller that
    /// looks alive.
    pub async fn run(self, shutdown: CancellationToken) {
        self.metrics.max_concurrent_reconciles(R::NAME, self.workers);
        let this = Arc::new(self);
        let mut workers = JoinSet::new();
        for _ in 0..this.workers {
            let worker = this.clone();
            let shutdown = shutdown.clone();
            workers.spawn(async move { worker.work(shutdown).await });
        }
        shutdown.cancelled().await;
        this.queue.close();
        while let Some(ended) = workers.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
    }

    async fn work(&self, shutdown: CancellationToken) {
        let mut leading = self.leading.clone();
        loop {
            tokio::select! {
                // The sender lives as long as the elector; without one nobody will lead again.
                led = leading.wait_for(|leading| *leading) => if led.is_err() { return },
                () = shutdown.cancelled() => return,
            }
            let Some(item) = self.queue.next().await else { return };
            let next = self.pass(&item).await;
            self.queue.done(&item.key, next);
        }
    }

    /// One pass over one key, measured.
    async fn pass(&self, item: &Item<ObjectKey>) -> Next {
        let key = &item.key;
        if !self.gate.is_open(key) {
            // The gate releases the key when the stores have caught up.
            self.metrics.stale_skip(R::NAME);
            return Next::Gated;
        }
        let started = Instant::now();
        self.metrics.pass_started(R::NAME, item.waited);
        let span = tracing::debug_span!("reconcile", controller = R::NAME, %key);
        let (next, result) = async {
            let now = self.clock.now();
            match self.decide(key, now) {
                Decision::Nothing => (Next::Success, ReconcileResult::Success),
                Decision::Plan(plan) => {
                    let sketch = Sketch::of(&plan);
                    let results = self.executor.perform(key, plan).await;
                    let settled = self.reconciler.settle(key, &results, self.clock.now());
                    let (next, result) = self.next(key, &sketch, &results, settled);
                    log_pass(R::NAME, key, &sketch, &results);
                    (next, result)
                }
                Decision::Panicked(message) => {
                    tracing::error!(controller = R::NAME, %key, message, "a planner panicked");
                    self.metrics.pass_panicked(R::NAME);
                    self.metrics.pass_failed(R::NAME, ErrorClass::Bug);
                    let class = ErrorClass::Bug;
                    (Next::Failed { min: class.backoff_floor() }, ReconcileResult::Error { terminal: true })
                }
            }
        }
        .instrument(span)
        .await;
        self.metrics.pass_ended(R::NAME, result, started.elapsed());
        next
    }

    fn decide(&self, key: &ObjectKey, now: Timestamp) -> Decision {
        // A panic is a defect with one object; the others go on.
        let decided = catch_unwind(AssertUnwindSafe(|| {
            self.reconciler.observe(key, now).map(|observed| self.reconciler.plan(&observed, now))
        }));
        match decided {
            Ok(None) => Decision::Nothing,
            Ok(Some(plan)) => Decision::Plan(plan),
            Err(panic) => Decision::Panicked(panic_text(panic.as_ref())),
        }
    }

    fn next(
        &self,
        key: &ObjectKey,
        sketch: &Sketch,
        results: &[WriteResult],
        settled: Settled,
    ) -> (Next, ReconcileResult) {
        let failure = results.iter().find_map(|result| match &result.outcome {
            Ok(_) | Err(WriteError::Gone | WriteError::Skipped) => None,
            Err(error) => Some(error),
        });
        let Some(error) = failure else {
            return match sketch.wake {
                Some(at) => (Next::WakeAt(self.clock.instant_of(at)), ReconcileResult::RequeueAfter),
                None => (Next::Success, ReconcileResult::Success),
            };
        };
        match error {
            WriteError::Throttled(throttled) => {
                (Next::Throttled { until: throttled.until }, ReconcileResult::RequeueAfter)
            }
            WriteError::Busy { retry_after } => {
                (Next::Throttled { until: Instant::now() + *retry_after }, ReconcileResult::RequeueAfter)
            }
            WriteError::NotLeading => {
                (Next::WakeAt(Instant::now() + NOT_LEADING_PAUSE), ReconcileResult::RequeueAfter)
            }
            // Planned again as soon as the store shows what we did not know.
            WriteError::AlreadyExists | WriteError::Conflict(_) => (Next::Conflict, ReconcileResult::Requeue),
            WriteError::Gone | WriteError::Skipped => (Next::Success, ReconcileResult::Success),
            WriteError::Refused(_) | WriteError::NotSent(_) | WriteError::Unknown(_) => match settled {
                Settled::Handled => {
                    // An event during the run: it brings the next one.
                    self.queue.add(key.clone(), Priority::Normal, Urgency::Routine);
                    (Next::Success, ReconcileResult::Requeue)
                }
                Settled::Default => {
                    let class = error.class().unwrap_or(ErrorClass::Bug);
                    self.metrics.pass_failed(R::NAME, class);
                    let terminal = match class {
                        ErrorClass::Transient | ErrorClass::Conflict | ErrorClass::Forbidden => false,
                        ErrorClass::UserConfig | ErrorClass::TooLarge | ErrorClass::Bug => true,
                    };
                    (Next::Failed { min: class.backoff_floor() }, ReconcileResult::Error { terminal })
                }
            },
        }
    }
}

enum Decision {
    Nothing,
    Plan(Plan),
    Panicked(String),
}

/// What is remembered of a plan once the executor has taken it.
struct Sketch {
    outcome: Outcome,
    wake: Option<Timestamp>,
    why: Vec<crate::plan::Why>,
}

impl Sketch {
    fn of(plan: &Plan) -> Self {
        Self { outcome: plan.outcome, wake: plan.wake, why: plan.why.clone() }
    }
}

fn log_pass(controller: &str, key: &ObjectKey, sketch: &Sketch, results: &[WriteResult]) {
    for result in results {
        if let Err(error) = &result.outcome {
            let write = &result.write;
            match error {
                WriteError::Refused(_) | WriteError::NotSent(_) | WriteError::Unknown(_) => tracing::warn!(
                    controller, %key, verb = write.action.verb(), resource = %write.resource,
                    object = %write.key, %error, "write failed"
                ),
                WriteError::Throttled(_)
                | WriteError::Busy { .. }
                | WriteError::NotLeading
                | WriteError::Skipped
                | WriteError::AlreadyExists
                | WriteError::Gone
                | WriteError::Conflict(_) => tracing::debug!(
                    controller, %key, verb = write.action.verb(), resource = %write.resource,
                    object = %write.key, %error, "write not done"
                ),
            }
        }
    }
    let sent = results.iter().filter(|result| matches!(&result.outcome, Ok(done) if !done.noop)).count();
    let why = sketch.why.first();
    tracing::debug!(
        controller, %key, outcome = ?sketch.outcome, writes = sent,
        reason = why.map(|why| why.reason), message = why.map(|why| why.message.as_str()),
        wake = sketch.wake.map(|at| at.to_string()), "reconciled"
    );
}
