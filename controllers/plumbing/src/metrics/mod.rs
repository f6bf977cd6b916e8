//! Metrics of the process: controller-runtime's names and labels where it has them, so that existing
//! dashboards and alerts work, and `springtide_*` for what is our own.
//!
//! Families that a controller owns start at zero, so a rate over them never misses the first event.
//! Values that a queue or a store holds anyway are read at scrape time ([`scrape`]).

pub mod catalogue;
mod census;
#[cfg(test)]
mod exposition_test;
mod guard_source;
mod process;
mod rest_client;
mod scrape;

pub use census::{Census, Population};
pub use guard_source::GuardSource;
pub use rest_client::{CountedBody, MeasureRequests, MeasuredRequests};
pub use scrape::{BudgetSource, LeaderSource, StoreSource};

use crate::error::ErrorClass;
use crate::guard::Passage;
use crate::key::ObjectKey;
use crate::queue::WorkQueue;
use crate::warrant::Warrant;
use census::Populations;
use process::ProcessSource;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use rest_client::{BODY_BYTES, REQUEST_SECONDS, RequestLabels, VerbLabels};
use scrape::Queues;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Buckets of reconcile times, in seconds; controller-runtime's.
const RECONCILE_SECONDS: [f64; 34] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25,
    1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0,
];
/// Buckets of queue times, in seconds; controller-runtime's powers of ten.
const QUEUE_SECONDS: [f64; 12] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0];

/// How a pass ended, as `controller_runtime_reconcile_total` counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReconcileResult {
    /// Nothing more to do until an event.
    Success,
    /// Planned again at once.
    Requeue,
    /// Planned again at a known time: a wake time, or no write budget.
    RequeueAfter,
    /// Failed; terminal when another try alone cannot help.
    Error {
        /// Whether only a change of something else can help.
        terminal: bool,
    },
}

impl ReconcileResult {
    const LABELS: [&'static str; 4] = ["success", "requeue", "requeue_after", "error"];

    /// The label value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Requeue => "requeue",
            Self::RequeueAfter => "requeue_after",
            Self::Error { .. } => "error",
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReconcileLabels {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueueLabels {
    name: &'static str,
    controller: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WriteLabels {
    controller: &'static str,
    class: &'static str,
    resource: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabels {
    controller: &'static str,
    class: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct WarrantLabels {
    controller: &'static str,
    warrant: &'static str,
}

/// Label of what is destroyed without a warrant.
const NO_WARRANT: &str = "none";

/// A histogram family needs a constructor of one type, not a closure.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All metrics of one process.
pub struct Metrics {
    registry: Mutex<Registry>,
    reconciles: Family<ReconcileLabels, Counter>,
    errors: Family<ControllerLabel, Counter>,
    terminal_errors: Family<ControllerLabel, Counter>,
    panics: Family<ControllerLabel, Counter>,
    timeouts: Family<ControllerLabel, Counter>,
    reconcile_seconds: Histograms<ControllerLabel>,
    max_concurrent: Family<ControllerLabel, Gauge>,
    active_workers: Family<ControllerLabel, Gauge>,
    queue_seconds: Histograms<QueueLabels>,
    work_seconds: Histograms<QueueLabels>,
    writes: Family<WriteLabels, Counter>,
    noop_writes: Family<ControllerLabel, Counter>,
    write_errors: Family<ErrorLabels, Counter>,
    stale_skips: Family<ControllerLabel, Counter>,
    fence_refusals: Family<ControllerLabel, Counter>,
    events_dropped: Family<ControllerLabel, Counter>,
    warrants: Family<WarrantLabels, Counter>,
    field_conflicts: Family<ControllerLabel, Counter>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histograms<VerbLabels>,
    request_bytes: Histograms<VerbLabels>,
    response_bytes: Histograms<VerbLabels>,
    queues: Queues,
    populations: Populations,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// The metrics of a process that runs these controllers, all at zero.
    pub fn new(controllers: &[&'static str]) -> Self {
        let mut registry = Registry::default();
        let (queues, populations) = (Queues::default(), Populations::default());
        registry.register_collector(Box::new(queues.clone()));
        registry.register_collector(Box::new(populations.clone()));
        registry.register_collector(Box::new(ProcessSource));
        let mut into = Registering(&mut registry);
        let metrics = Self {
            reconciles: into.add("controller_runtime_reconcile", "Reconcile passes by result"),
            errors: into.add("controller_runtime_reconcile_errors", "Reconcile passes that failed"),
            terminal_errors: into.add(
                "controller_runtime_terminal_reconcile_errors",
                "Reconcile passes that failed where another try alone cannot help",
            ),
            panics: into.add("controller_runtime_reconcile_panics", "Reconcile passes that panicked"),
            timeouts: into.add(
                "controller_runtime_reconcile_timeouts",
                "Always zero: a pass has no time limit as a whole, each of its requests has one",
            ),
            reconcile_seconds: into.histogram(
                "controller_runtime_reconcile_time_seconds",
                "Time of a reconcile pass, its writes included",
                || Histogram::new(RECONCILE_SECONDS),
            ),
            max_concurrent: into
                .add("controller_runtime_max_concurrent_reconciles", "Keys that may be worked on at once"),
            active_workers: into.add("controller_runtime_active_workers", "Keys worked on now"),
            queue_seconds: into.histogram(
                "workqueue_queue_duration_seconds",
                "Time a key was ready and waited for a worker",
                || Histogram::new(QUEUE_SECONDS),
            ),
            work_seconds: into.histogram(
                "workqueue_work_duration_seconds",
                "Time a key was worked on",
                || Histogram::new(QUEUE_SECONDS),
            ),
            writes: into.add("springtide_writes", "Writes by what came of them"),
            noop_writes: into.add("springtide_noop_writes", "Writes not sent as nothing would have changed"),
            write_errors: into.add("springtide_errors", "Failed passes by class of error"),
            stale_skips: into
                .add("springtide_stale_skips", "Passes put off until the stores show the key's own writes"),
            fence_refusals: into
                .add("springtide_fence_refusals", "Writes not sent as this process does not hold the lease"),
            events_dropped: into.add(
                "springtide_events_dropped",
                "Events that were never sent, under pressure or when refused",
            ),
            warrants: into.add("springtide_warrants", "Destructive writes sent, by what entitles to them"),
            field_conflicts: into.add(
                "springtide_field_conflicts",
                "Writes that another client keeps undoing, from the third time on",
            ),
            requests: into.add("rest_client_requests", "Requests to the API server by code of the answer"),
            request_seconds: into.histogram(
                "rest_client_request_duration_seconds",
                "Time from a request to the head of its answer",
                || Histogram::new(REQUEST_SECONDS),
            ),
            request_bytes: into.histogram(
                "rest_client_request_size_bytes",
                "Size of the body of a request",
                || Histogram::new(BODY_BYTES),
            ),
            response_bytes: into.histogram(
                "rest_client_response_size_bytes",
                "Size of the body of an answer, as far as it was read; watches do not count",
                || Histogram::new(BODY_BYTES),
            ),
            queues,
            populations,
            registry: Mutex::new(registry),
        };
        for controller in controllers {
            metrics.start_at_zero(controller);
        }
        metrics
    }

    fn start_at_zero(&self, controller: &'static str) {
        for result in ReconcileResult::LABELS {
            drop(self.reconciles.get_or_create(&ReconcileLabels { controller, result }));
        }
        for class in ErrorClass::ALL {
            drop(self.write_errors.get_or_create(&ErrorLabels { controller, class: class.as_str() }));
        }
        for warrant in Warrant::ALL.map(Warrant::as_str).into_iter().chain([NO_WARRANT]) {
            drop(self.warrants.get_or_create(&WarrantLabels { controller, warrant }));
        }
        let of = ControllerLabel { controller };
        for counter in [
            &self.errors,
            &self.terminal_errors,
            &self.panics,
            &self.timeouts,
            &self.noop_writes,
            &self.stale_skips,
            &self.fence_refusals,
            &self.events_dropped,
            &self.field_conflicts,
        ] {
            drop(counter.get_or_create(&of));
        }
        drop(self.reconcile_seconds.get_or_create(&of));
        drop(self.max_concurrent.get_or_create(&of));
        drop(self.active_workers.get_or_create(&of));
        let of = QueueLabels { name: controller, controller };
        drop(self.queue_seconds.get_or_create(&of));
        drop(self.work_seconds.get_or_create(&of));
    }

    /// A worker has taken a key that waited so long.
    pub fn pass_started(&self, controller: &'static str, waited: Duration) {
        self.active_workers.get_or_create(&ControllerLabel { controller }).inc();
        self.queue_seconds
            .get_or_create(&QueueLabels { name: controller, controller })
            .observe(waited.as_secs_f64());
    }

    /// A pass has ended.
    pub fn pass_ended(&self, controller: &'static str, result: ReconcileResult, took: Duration) {
        let of = ControllerLabel { controller };
        self.active_workers.get_or_create(&of).dec();
        self.reconciles.get_or_create(&ReconcileLabels { controller, result: result.label() }).inc();
        if let ReconcileResult::Error { terminal } = result {
            self.errors.get_or_create(&of).inc();
            if terminal {
                self.terminal_errors.get_or_create(&of).inc();
            }
        }
        self.reconcile_seconds.get_or_create(&of).observe(took.as_secs_f64());
        self.work_seconds
            .get_or_create(&QueueLabels { name: controller, controller })
            .observe(took.as_secs_f64());
    }

    /// A pass failed with this class of error.
    pub fn pass_failed(&self, controller: &'static str, class: ErrorClass) {
        self.write_errors.get_or_create(&ErrorLabels { controller, class: class.as_str() }).inc();
    }

    /// A planner panicked.
    pub fn pass_panicked(&self, controller: &'static str) {
        self.panics.get_or_create(&ControllerLabel { controller }).inc();
    }

    /// How many keys a controller works on at once.
    pub fn max_concurrent_reconciles(&self, controller: &'static str, workers: usize) {
        let workers = i64::try_from(workers).unwrap_or(i64::MAX);
        self.max_concurrent.get_or_create(&ControllerLabel { controller }).set(workers);
    }

    /// A key was put off, as the stores do not show its own writes yet.
    pub fn stale_skip(&self, controller: &'static str) {
        self.stale_skips.get_or_create(&ControllerLabel { controller }).inc();
    }

    /// A write came to `outcome`.
    pub fn write(
        &self,
        controller: &'static str,
        class: &'static str,
        resource: &'static str,
        outcome: &'static str,
    ) {
        self.writes.get_or_create(&WriteLabels { controller, class, resource, outcome }).inc();
    }

    /// A write was not sent, as nothing would have changed.
    pub fn noop_write(&self, controller: &'static str) {
        self.noop_writes.get_or_create(&ControllerLabel { controller }).inc();
    }

    /// A write was not sent, as the fence is closed.
    pub fn fence_refusal(&self, controller: &'static str) {
        self.fence_refusals.get_or_create(&ControllerLabel { controller }).inc();
    }

    /// So many events were never sent.
    pub fn events_dropped(&self, controller: &'static str, count: usize) {
        self.events_dropped.get_or_create(&ControllerLabel { controller }).inc_by(count as u64);
    }

    /// The guard let a write pass, and so did all that comes after it.
    pub fn passed(&self, controller: &'static str, passage: Passage) {
        let warrant = match passage {
            Passage::Harmless => return,
            Passage::Warranted(warrant) => warrant.as_str(),
            Passage::Unwarranted => NO_WARRANT,
        };
        self.warrants.get_or_create(&WarrantLabels { controller, warrant }).inc();
    }

    /// A write was made once more that another client keeps undoing.
    pub fn field_conflict(&self, controller: &'static str) {
        self.field_conflicts.get_or_create(&ControllerLabel { controller }).inc();
    }

    /// Measures the requests to the API server at `host`, for the clients that it is laid around.
    pub fn measure_requests(&self, host: &str) -> MeasureRequests {
        let measure = MeasureRequests {
            requests: self.requests.clone(),
            seconds: self.request_seconds.clone(),
            request_bytes: self.request_bytes.clone(),
            response_bytes: self.response_bytes.clone(),
            host: Arc::from(host),
        };
        measure.start_at_zero();
        measure
    }

    /// Shows the queue of a controller.
    pub fn add_queue(&self, controller: &'static str, queue: WorkQueue<ObjectKey>) {
        self.queues.add(controller, queue);
    }

    /// Shows how many objects of a kind there are.
    pub fn add_population(&self, population: Arc<dyn Population>) {
        self.populations.add(population);
    }

    /// Adds metrics of a controller's own.
    pub fn register(&self, register: impl FnOnce(&mut Registry)) {
        register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// All metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// Never in practice: the target is a string.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(text)
    }
}

/// Registers a family and gives the handle to it. The registry appends `_total` to counters.
struct Registering<'a>(&'a mut Registry);

impl Registering<'_> {
    fn add<M>(&mut self, name: &'static str, help: &'static str) -> M
    where
        M: prometheus_client::registry::Metric + Clone + Default,
    {
        let metric = M::default();
        self.0.register(name, help, metric.clone());
        metric
    }

    fn histogram<L>(
        &mut self,
        name: &'static str,
        help: &'static str,
        new: fn() -> Histogram,
    ) -> Histograms<L>
    where
        L: EncodeLabelSet + Clone + std::hash::Hash + Eq + fmt::Debug + Send + Sync + 'static,
    {
        let family = Family::new_with_constructor(new);
        self.0.register(name, help, family.clone());
        family
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_bear_the_names_of_controller_runtime_and_start_at_zero() {
        let metrics = Metrics::new(&["batch-job"]);
        let text = metrics.encode().unwrap();
        for line in [
            r#"controller_runtime_reconcile_total{controller="batch-job",result="requeue_after"} 0"#,
            r#"controller_runtime_terminal_reconcile_errors_total{controller="batch-job"} 0"#,
            r#"controller_runtime_reconcile_panics_total{controller="batch-job"} 0"#,
            r#"controller_runtime_active_workers{controller="batch-job"} 0"#,
            r#"controller_runtime_reconcile_time_seconds_count{controller="batch-job"} 0"#,
            r#"workqueue_queue_duration_seconds_count{name="batch-job",controller="batch-job"} 0"#,
            r#"springtide_noop_writes_total{controller="batch-job"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }

    #[test]
    fn a_terminal_error_counts_in_all_three_places() {
        let metrics = Metrics::new(&["c"]);
        metrics.pass_started("c", Duration::from_millis(1));
        metrics.pass_ended("c", ReconcileResult::Error { terminal: true }, Duration::from_millis(2));
        let text = metrics.encode().unwrap();
        for line in [
            r#"controller_runtime_reconcile_total{controller="c",result="error"} 1"#,
            r#"controller_runtime_reconcile_errors_total{controller="c"} 1"#,
            r#"controller_runtime_terminal_reconcile_errors_total{controller="c"} 1"#,
            r#"controller_runtime_active_workers{controller="c"} 0"#,
        ] {
            assert!(text.contains(line), "{line} is missing");
        }
    }
}
