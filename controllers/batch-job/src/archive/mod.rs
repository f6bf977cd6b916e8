//! Finished jobs are written down before they are deleted: one line of JSON each (`docs/archive.md`).
//!
//! - [`line`] is what is written, a pure function of the job.
//! - [`outbox`] decides, without clock and I/O, which lines go out, when they are tried again, and which are given up.
//! - [`delivery`] does what is left: a task of its own, started by the manager, that writes and posts.
//!
//! The loop over jobs offers a job whose time is over, and its plan deletes the job when the outbox says that nothing stands in
//! the way any more. What was taken is known to the process alone: a line may be written again by a successor that
//! finds the job still there, under the same `uid`.

pub mod delivery;
pub mod line;
pub mod outbox;
pub mod sink;

#[cfg(test)]
mod tests;

pub use delivery::{Delivery, DeliverySettings};
pub use outbox::{Excess, Health, Standing};
pub use sink::Sink;

use crate::admission::QueueId;
use crate::plan::{JobState, Stay, stay};
use crate::{BatchJobReconciler, lock};
use jiff::Timestamp;
use outbox::{Changes, Failure, Offer, Outbox, Parcel};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use springtide_crds::batch_queue;
use springtide_plumbing::key::{ObjectKey, Uid};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::queue::{Priority, Urgency};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tokio::time::Instant;

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SinkLabel {
    sink: &'static str,
}

/// What is measured. No label names a sink: URLs are anybody's.
#[derive(Debug, Default)]
struct Measures {
    lines: Family<SinkLabel, Counter>,
    failures: Family<SinkLabel, Counter>,
    dropped: Counter,
    waiting: Gauge,
}

/// The [`Outbox`], for those who share it.
#[derive(Debug)]
pub(crate) struct Archive {
    outbox: Mutex<Outbox>,
    /// Something may go out.
    news: Notify,
    measures: Measures,
}

impl Default for Archive {
    fn default() -> Self {
        Self {
            // It differs from process to process.
            outbox: Mutex::new(Outbox::new(RandomState::new().hash_one(()))),
            news: Notify::new(),
            measures: Measures::default(),
        }
    }
}

impl Archive {
    /// Makes the metrics part of what is scraped.
    pub(crate) fn register(&self, registry: &mut Registry) {
        for sink in ["stdout", "http"] {
            drop(self.measures.lines.get_or_create(&SinkLabel { sink }));
            drop(self.measures.failures.get_or_create(&SinkLabel { sink }));
        }
        registry.register(
            "springtide_batch_archive_lines",
            "Lines of finished BatchJobs that a sink has taken",
            self.measures.lines.clone(),
        );
        registry.register(
            "springtide_batch_archive_failures",
            "Attempts to have a line of a finished BatchJob taken that came to nothing",
            self.measures.failures.clone(),
        );
        registry.register(
            "springtide_batch_archive_dropped",
            "Finished BatchJobs deleted without a line, as their sink was out of order for too long",
            self.measures.dropped.clone(),
        );
        registry.register(
            "springtide_batch_archive_waiting",
            "Finished BatchJobs that stay until their line is taken",
            self.measures.waiting.clone(),
        );
    }

    /// How the archive of a queue fares; `None` where it has none.
    pub(crate) fn health(&self, queue: &ObjectKey, archive: &batch_queue::Archive) -> Option<Health> {
        let sink = Sink::of(archive)?;
        Some(lock(&self.outbox).health(queue, &sink))
    }

    /// A job is gone.
    pub(crate) fn forget(&self, job: &Uid) {
        let mut outbox = lock(&self.outbox);
        outbox.forget(job);
        self.count(&outbox);
    }

    /// A queue is gone.
    pub(crate) fn forget_queue(&self, queue: &ObjectKey) {
        lock(&self.outbox).forget_queue(queue);
    }

    fn count(&self, outbox: &Outbox) {
        self.measures.waiting.set(i64::try_from(outbox.waiting()).unwrap_or(i64::MAX));
    }

    /// What may go out now; else when something may.
    fn next(&self, now: Instant) -> Result<Parcel, Option<Instant>> {
        let mut outbox = lock(&self.outbox);
        outbox.next(now).ok_or_else(|| outbox.wake(now))
    }
}

impl BatchJobReconciler {
    /// What stands between a job and its deletion, once its time is over.
    pub(crate) fn archive_standing(&self, state: &JobState, excess: Excess, now: Timestamp) -> Standing {
        let meta = state.job.meta();
        let is_over = matches!(stay(state, excess != Excess::None, now), Some(Stay::Over));
        let sink = state.placement.archive.as_ref().and_then(Sink::of);
        let (Some(sink), Some(QueueId::Object(queue))) = (sink, state.placement.queue.clone()) else {
            self.archive.forget(&meta.uid);
            return Standing::Clear;
        };
        // What nobody will delete is not written down.
        if !is_over || meta.labels.protection.0 {
            return Standing::Waiting;
        }
        let offer = Offer {
            job: Arc::clone(&state.job),
            queue,
            sink,
            history_limit: state.placement.history_limit,
            excess,
        };
        let (standing, changes) = {
            let mut outbox = lock(&self.archive.outbox);
            let offered = outbox.offer(offer, Instant::now());
            self.archive.count(&outbox);
            offered
        };
        if standing == Standing::Waiting {
            self.archive.news.notify_one();
        }
        self.archive_changed(changes);
        standing
    }

    /// A line came to something.
    fn archived(&self, parcel: &Parcel, outcome: Result<(), Failure>) {
        let label = SinkLabel { sink: parcel.sink.kind() };
        let measures = &self.archive.measures;
        let changes = {
            let mut outbox = lock(&self.archive.outbox);
            let changes = match outcome {
                Ok(()) => {
                    measures.lines.get_or_create(&label).inc();
                    let changes = outbox.taken(parcel);
                    if !changes.queues.is_empty() {
                        tracing::info!(sink = %parcel.sink, "lines of finished jobs are taken again");
                    }
                    changes
                }
                Err(failure) => {
                    measures.failures.get_or_create(&label).inc();
                    let problem = failure.problem.clone();
                    let changes = outbox.failed(parcel, failure, Instant::now());
                    if !changes.queues.is_empty() {
                        tracing::warn!(
                            sink = %parcel.sink, problem, "lines of finished jobs are not taken; the jobs stay for now"
                        );
                    }
                    changes
                }
            };
            self.archive.count(&outbox);
            changes
        };
        self.archive_changed(changes);
    }

    fn archive_changed(&self, changes: Changes) {
        let Changes { jobs, queues, dropped } = changes;
        self.archive.measures.dropped.inc_by(dropped as u64);
        for job in jobs {
            self.wake(job, Priority::Low, Urgency::Routine);
        }
        for queue in queues {
            self.wake_queue(queue, Urgency::Routine);
        }
    }
}
