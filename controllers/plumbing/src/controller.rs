//! The reconcile loop: key, gate, observe, plan, perform, settle, and the decorator that alone
//! measures and logs a pass.

use crate::clock::Clock;
use crate::error::{ErrorClass, WriteError};
use crate::events::Stored;
use crate::executor::{Executor, WriteResult};
use crate::failing::{Failing, Failures, Telling, Turn};
use crate::gate::Gate;
use crate::guard::Withheld;
use crate::key::ObjectKey;
use crate::metrics::{Metrics, ReconcileResult};
use crate::panic_text::panic_text;
use crate::plan::{Outcome, Plan};
use crate::queue::{Item, Next, WorkQueue};
use crate::rights::Rights;
use futures::FutureExt;
use jiff::Timestamp;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span};

/// Name of the span of a pass. Its fields: `controller` and `key`, the `generation` of the object that was planned
/// (absent where it has none), the `outcome` of its plan and the first `reason` of it, the number of `writes` that were
/// sent and succeeded, and the `result` as in `controller_runtime_reconcile_total`.
pub const PASS_SPAN: &str = "reconcile";
/// Keys worked on at once by one controller.
pub const DEFAULT_WORKERS: usize = 8;
/// A pass that found itself not leading looks again after this; leadership wakes workers anyway.
const NOT_LEADING_PAUSE: Duration = Duration::from_secs(1);
/// A pass that may destroy nothing, as a store is stale, looks again after this. It sends nothing.
const STALE_PAUSE: Duration = Duration::from_secs(5);
/// A pass whose eviction a PodDisruptionBudget did not allow looks again after this: as long as kube-apiserver names
/// where the budget lags (`createTooManyRequestsError`). An event of the budget brings that forward.
const BUDGET_PAUSE: Duration = Duration::from_secs(10);
/// A wake time that lies in the past, or is reached within the pass, must not make a key spin.
const SHORTEST_WAKE: Duration = Duration::from_millis(100);

/// What one controller is, to the loop: pure decisions between a look at the stores and the executor.
pub trait Reconciler: Send + Sync + 'static {
    /// Name in logs, metrics, budget and field managers, like `batch-job`.
    const NAME: &'static str;
    /// What it may ask of the API server.
    const RIGHTS: Rights;
    /// Plain data about one key.
    type Observed: Send;

    /// Gathers what the stores know of a key, and what its writes fail at; `None` when nothing of that name is
    /// left to care for.
    fn observe(&self, key: &ObjectKey, failing: Option<&Failing>, now: Timestamp) -> Option<Self::Observed>;

    /// The `metadata.generation` of what was observed, for traces; `None` where there is no such object.
    fn generation(_observed: &Self::Observed) -> Option<i64> {
        None
    }

    /// Decides. Pure: no client, no clock, no randomness.
    fn plan(&self, observed: &Self::Observed, now: Timestamp) -> Plan;

    /// How users are told that the key fails, past the backoff that it is in: the status as it is stored, and in it the
    /// conditions that a plan under this failure would have. `None` where nobody looks.
    fn tell(&self, key: &ObjectKey, failing: &Failing, now: Timestamp) -> Option<Telling>;

    /// Takes in what the writes of a pass came to, before the key is planned again. Called after each
    /// pass, also one without writes; its answer matters only where a write was refused or lost.
    fn settle(&self, key: &ObjectKey, results: &[WriteResult], now: Timestamp) -> Settled;
}

/// Who looks after the failures of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The loop: the key backs off by the class of the error.
    Default,
    /// The controller: it holds the refusal in its own memory and plans for it, so the key is
    /// planned again at once. Five such passes in a row back off all the same, as after conflicts: a
    /// controller that plans the same write for ever must not send it for ever.
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
    /// Which keys fail, and whether users were told.
    pub failures: Failures,
    /// Keys worked on at once.
    pub workers: usize,
}

impl<R: Reconciler> Controller<R> {
    /// Runs until `shutdown`, then lets the passes under way end. Ends before that when nobody can lead
    /// any more, as the sender of `leading` is gone and last said no.
    ///
    /// # Panics
    /// Passes a worker's panic on, once the other workers have ended: a defect outside of a pass must
    /// not leave a controller that looks alive.
    pub async fn run(self, shutdown: CancellationToken) {
        self.metrics.max_concurrent_reconciles(R::NAME, self.workers);
        let this = Arc::new(self);
        let quiet = CancellationToken::new();
        let mut teller = JoinSet::new();
        teller.spawn({
            let (this, quiet) = (this.clone(), quiet.clone());
            async move { this.executor.events.run(&this.executor, &this.clock, &quiet).await }
        });
        let mut workers = JoinSet::new();
        for _ in 0..this.workers {
            let worker = this.clone();
            let shutdown = shutdown.clone();
            workers.spawn(async move { worker.work(shutdown).await });
        }
        let mut panic = None;
        let mut ended = tokio::select! {
            () = shutdown.cancelled() => None,
            ended = workers.join_next() => ended,
        };
        this.queue.close();
        loop {
            if let Some(Err(error)) = ended {
                panic = error.try_into_panic().ok().or(panic);
            }
            ended = workers.join_next().await;
            if ended.is_none() {
                break;
            }
        }
        quiet.cancel();
        if let Some(Err(error)) = teller.join_next().await {
            panic = error.try_into_panic().ok().or(panic);
        }
        if let Some(panic) = panic {
            std::panic::resume_unwind(panic);
        }
    }

    async fn work(&self, shutdown: CancellationToken) {
        let mut leading = self.leading.clone();
        loop {
            // In this order: a worker that becomes free at the shutdown takes no further key.
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                led = leading.wait_for(|leading| *leading) => if led.is_err() { return },
            }
            // While nothing may be written there is no use in plans.
            let brake = &self.executor.guard.brake;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = brake.wait_for(R::NAME, false) => {}
            }
            let item = tokio::select! {
                biased;
                () = no_longer(&mut leading) => continue,
                () = brake.wait_for(R::NAME, true) => continue,
                item = self.queue.next() => item,
            };
            let Some(item) = item else { return };
            let next = self.pass(&item).await;
            self.queue.done(&item.key, next);
        }
    }

    /// One pass over one key, measured. A panic in it is a defect with one object; the others go on.
    async fn pass(&self, item: &Item<ObjectKey>) -> Next {
        let key = &item.key;
        if !self.gate.is_open(key) {
            // The gate releases the key when the stores have caught up.
            self.metrics.stale_skip(R::NAME);
            return Next::Gated;
        }
        let started = Instant::now();
        self.metrics.pass_started(R::NAME, item.waited);
        let span = pass_span(R::NAME, key);
        let pass = AssertUnwindSafe(self.reconcile(key, &span)).catch_unwind().instrument(span.clone());
        let (next, result) = match pass.await {
            Ok(ended) => ended,
            Err(panic) => {
                let message = panic_text(panic.as_ref());
                tracing::error!(controller = R::NAME, %key, message, "a pass panicked");
                span.record("otel.status_description", message.as_str());
                self.metrics.pass_panicked(R::NAME);
                if let Turn::Tell(failing) = self.failures.panicked(key, &message) {
                    // Who cannot plan may not be able to tell either.
                    let _ = AssertUnwindSafe(self.tell(key, &failing)).catch_unwind().await;
                }
                self.failed(ErrorClass::Bug, Duration::ZERO)
            }
        };
        span.record("result", result.label());
        self.metrics.pass_ended(R::NAME, result, started.elapsed());
        next
    }

    async fn reconcile(&self, key: &ObjectKey, span: &Span) -> (Next, ReconcileResult) {
        let now = self.clock.now();
        let failing = self.failures.of(key);
        let Some(observed) = self.reconciler.observe(key, failing.as_ref(), now) else {
            self.failures.forget(key);
            self.executor.events.passed(key, Vec::new(), Stored::Yes, now);
            return (Next::Success, ReconcileResult::Success);
        };
        let mut plan = self.reconciler.plan(&observed, now);
        span.record("generation", R::generation(&observed));
        drop(observed);
        let sketch = Sketch::of(&plan);
        let events = std::mem::take(&mut plan.events);
        let results = self.executor.perform(key, plan).await;
        self.executor.events.passed(key, events, stored(&results), now);
        log_pass(R::NAME, key, &sketch, &results);
        let settled = self.reconciler.settle(key, &results, self.clock.now());
        let turn = match settled {
            Settled::Default => self.failures.passed(key, &results),
            Settled::Handled => self.failures.handled(key, &results),
        };
        let (next, result) = self.next(&sketch, &results, settled);
        record_pass(span, &sketch, &results, result);
        match (turn, next) {
            (Turn::Tell(failing), next) => {
                self.tell(key, &failing).await;
                (next, result)
            }
            (Turn::Over, Next::Success | Next::WakeAt(_)) => {
                (Next::WakeAt(Instant::now()), ReconcileResult::RequeueAfter)
            }
            (Turn::None | Turn::Over, next) => (next, result),
        }
    }

    /// Tells users at what a key fails. What does not succeed is tried again after the next pass that fails.
    async fn tell(&self, key: &ObjectKey, failing: &Failing) {
        let now = self.clock.now();
        let Some(Telling { event, status }) = self.reconciler.tell(key, failing, now) else {
            return;
        };
        self.executor.events.publish(event, now);
        // The server has just refused such a write, or not answered it.
        let is_futile = match failing.class {
            ErrorClass::Transient | ErrorClass::Forbidden => failing.is_of_status(),
            ErrorClass::Conflict | ErrorClass::UserConfig | ErrorClass::TooLarge | ErrorClass::Bug => false,
        };
        let status = status.filter(|_| !is_futile);
        let results = self.executor.perform(key, Plan { status, ..Plan::idle(Outcome::Blocked) }).await;
        if results.iter().all(|result| result.outcome.is_ok()) {
            self.failures.told(key);
        }
    }

    /// The next pass, by all that went wrong in this one.
    fn next(&self, sketch: &Sketch, results: &[WriteResult], settled: Settled) -> (Next, ReconcileResult) {
        let now = Instant::now();
        let trouble = Trouble::of(results, now);
        let refused = trouble.gravest.filter(|_| settled == Settled::Default);
        // As soon as the store shows what the plan did not know, or the controller remembers.
        let again = trouble.conflict || trouble.gravest.is_some() || trouble.answered;
        let at = |at| (Next::WakeAt(at), ReconcileResult::RequeueAfter);
        // Neither failure nor success, so the failures before still count.
        let aside = |until| (Next::Throttled { until }, ReconcileResult::RequeueAfter);
        match (refused, trouble.in_line.or(trouble.not_before)) {
            (Some(class), _) => {
                self.failed(class, trouble.not_before.map_or(Duration::ZERO, |at| at.duration_since(now)))
            }
            (None, Some(until)) => aside(until),
            (None, None) if trouble.not_leading => aside(now + NOT_LEADING_PAUSE),
            (None, None) if trouble.stale => aside(now + STALE_PAUSE),
            (None, None) if again || (trouble.withheld.is_some() && settled == Settled::Handled) => {
                (Next::Conflict, ReconcileResult::Requeue)
            }
            (None, None) if let Some(pause) = trouble.withheld => aside(now + pause),
            (None, None) if trouble.skipped && trouble.later.is_none() => at(now),
            (None, None) => {
                let wake = sketch.wake.map(|wake| self.clock.instant_of(wake).max(now + SHORTEST_WAKE));
                // An event brings the next pass all the same: what else there is to do is not contested.
                match wake.into_iter().chain(trouble.later).min() {
                    Some(wake) => at(wake),
                    None => (Next::Success, ReconcileResult::Success),
                }
            }
        }
    }

    /// A failed pass, planned again after the backoff of its class and after `min`.
    fn failed(&self, class: ErrorClass, min: Duration) -> (Next, ReconcileResult) {
        self.metrics.pass_failed(R::NAME, class);
        let terminal = match class {
            ErrorClass::Transient | ErrorClass::Conflict | ErrorClass::Forbidden => false,
            ErrorClass::UserConfig | ErrorClass::TooLarge | ErrorClass::Bug => true,
        };
        (Next::Failed { min: class.backoff_floor().max(min) }, ReconcileResult::Error { terminal })
    }
}

/// Resolves when this process leads no longer. Without election nobody ever says so.
async fn no_longer(leading: &mut watch::Receiver<bool>) {
    if leading.wait_for(|leading| !*leading).await.is_err() {
        std::future::pending().await
    }
}

/// What did not succeed in a pass.
#[derive(Default)]
struct Trouble {
    /// Of refusals and lost answers, the class that asks for the longest backoff.
    gravest: Option<ErrorClass>,
    /// When the server wants to hear from us again.
    not_before: Option<Instant>,
    /// In line for budget: when to look there at the latest.
    in_line: Option<Instant>,
    not_leading: bool,
    stale: bool,
    /// Writes were withheld, and are worth another try after this.
    withheld: Option<Duration>,
    /// When a write may go out that somebody undoes again and again, or that a disruption budget did not allow.
    later: Option<Instant>,
    conflict: bool,
    /// A dry run was answered: the next plan knows more.
    answered: bool,
    /// Writes were left for the next plan.
    skipped: bool,
}

impl Trouble {
    fn of(results: &[WriteResult], now: Instant) -> Self {
        let is_answer = |result: &WriteResult| matches!(&result.outcome, Ok(done) if done.dry_run.is_some());
        let mut trouble = Self { answered: results.iter().any(is_answer), ..Self::default() };
        for error in results.iter().filter_map(|result| result.outcome.as_ref().err()) {
            match error {
                WriteError::Throttled(throttled) => {
                    trouble.in_line = trouble.in_line.max(Some(throttled.until));
                }
                WriteError::Busy { retry_after } => {
                    trouble.not_before = trouble.not_before.max(Some(now + *retry_after));
                }
                WriteError::NotLeading => trouble.not_leading = true,
                WriteError::Withheld(withheld) => trouble.withheld = trouble.withheld.max(withheld.pause()),
                WriteError::StaleStore(_) => trouble.stale = true,
                WriteError::Contested { until } => {
                    trouble.later = trouble.later.max(Some(*until));
                }
                WriteError::DisruptionBudget(_) => {
                    trouble.later = trouble.later.max(Some(now + BUDGET_PAUSE));
                }
                WriteError::AlreadyExists | WriteError::Conflict(_) => trouble.conflict = true,
                WriteError::Skipped => trouble.skipped = true,
                WriteError::Gone => {}
                WriteError::FieldConflict(_)
                | WriteError::Refused(_)
                | WriteError::NotSent(_)
                | WriteError::Unknown(_) => {
                    trouble.gravest = trouble
                        .gravest
                        .into_iter()
                        .chain(error.class())
                        .max_by_key(|class| class.backoff_floor());
                }
            }
        }
        trouble
    }
}

/// Whether what the plan tells of has come about.
fn stored(results: &[WriteResult]) -> Stored {
    let errors: Vec<_> = results.iter().filter_map(|result| result.outcome.as_ref().err()).collect();
    let is_unknown = |error: &&WriteError| matches!(error, WriteError::Unknown(_));
    // What was skipped behind it is left for the next plan, which tells of it too.
    let may_be = |error: &&WriteError| is_unknown(error) || matches!(error, WriteError::Skipped);
    if errors.is_empty() {
        Stored::Yes
    } else if errors.iter().any(is_unknown) && errors.iter().all(may_be) {
        Stored::Unknown
    } else {
        Stored::No
    }
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

/// The span of a pass; what is known only later is recorded then.
fn pass_span(controller: &str, key: &ObjectKey) -> Span {
    tracing::debug_span!(
        PASS_SPAN,
        controller,
        %key,
        generation = Empty,
        outcome = Empty,
        reason = Empty,
        writes = Empty,
        result = Empty,
        // Makes the status of OpenTelemetry's span an error.
        otel.status_description = Empty,
    )
}

fn record_pass(span: &Span, sketch: &Sketch, results: &[WriteResult], result: ReconcileResult) {
    if span.is_disabled() {
        return;
    }
    span.record("outcome", tracing::field::debug(sketch.outcome));
    span.record("reason", sketch.why.first().map(|why| why.reason));
    span.record("writes", sent(results));
    match result {
        ReconcileResult::Error { .. } => {
            let errors = results.iter().filter_map(|result| result.outcome.as_ref().err());
            let gravest = errors.max_by_key(|error| error.class().map(ErrorClass::backoff_floor));
            span.record("otel.status_description", gravest.map(tracing::field::display));
        }
        ReconcileResult::Success | ReconcileResult::Requeue | ReconcileResult::RequeueAfter => {}
    }
}

/// Writes that were sent and succeeded. Signed, as other numbers are text in OpenTelemetry's attributes.
fn sent(results: &[WriteResult]) -> i64 {
    results
        .iter()
        .map(|result| i64::from(matches!(&result.outcome, Ok(done) if !done.noop && done.dry_run.is_none())))
        .sum()
}

fn log_pass(controller: &str, key: &ObjectKey, sketch: &Sketch, results: &[WriteResult]) {
    for result in results {
        if let Err(error) = &result.outcome {
            let write = &result.write;
            match error {
                WriteError::FieldConflict(_)
                | WriteError::Refused(_)
                | WriteError::NotSent(_)
                | WriteError::Unknown(_) => tracing::warn!(
                    controller, %key, verb = write.action.verb(), resource = %write.resource,
                    object = %write.key, %error, "write failed"
                ),
                // A user wonders why the object is still there.
                WriteError::Withheld(Withheld::Protected) => tracing::info!(
                    controller, %key, verb = write.action.verb(), resource = %write.resource,
                    object = %write.key, %error, "write withheld"
                ),
                WriteError::Throttled(_)
                | WriteError::Busy { .. }
                | WriteError::NotLeading
                | WriteError::Withheld(
                    Withheld::Braked(_)
                    | Withheld::Observing
                    | Withheld::Unread(_)
                    | Withheld::BreakerOpen { .. },
                )
                | WriteError::StaleStore(_)
                | WriteError::Contested { .. }
                | WriteError::Skipped
                | WriteError::AlreadyExists
                | WriteError::Gone
                | WriteError::DisruptionBudget(_)
                | WriteError::Conflict(_) => tracing::debug!(
                    controller, %key, verb = write.action.verb(), resource = %write.resource,
                    object = %write.key, %error, "write not done"
                ),
            }
        }
    }
    let why = sketch.why.first();
    tracing::debug!(
        controller, %key, outcome = ?sketch.outcome, writes = sent(results),
        reason = why.map(|why| why.reason), message = why.map(|why| why.message.as_str()),
        wake = sketch.wake.map(|at| at.to_string()), "reconciled"
    );
}
