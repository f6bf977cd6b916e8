//! Takes lines to their sinks. It is a task of its own: no pass of a controller waits for it.

mod https;
mod stdout;

pub use https::HttpsSettings as DeliverySettings;

use super::line;
use super::outbox::{Failure, FailureKind, Parcel};
use super::sink::Sink;
use crate::BatchJobReconciler;
use https::Https;
use springtide_plumbing::brake::Brake;
use springtide_plumbing::controller::Reconciler;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use stdout::Stdout;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// Lines of all sinks together that are on their way at once.
const IN_FLIGHT_MAX: usize = 32;
/// How long a sink may take over one line, all told.
const DEADLINE: Duration = Duration::from_secs(10);

/// Takes lines to their sinks.
pub struct Delivery {
    jobs: Arc<BatchJobReconciler>,
    leading: watch::Receiver<bool>,
    brake: Brake,
    sinks: Arc<Sinks>,
}

struct Sinks {
    https: Https,
    stdout: Stdout,
}

impl Delivery {
    /// For the finished jobs of this controller, as long as the process leads and nothing brakes the controller: a
    /// process that may delete no job has no line to write.
    pub fn new(
        jobs: Arc<BatchJobReconciler>,
        settings: DeliverySettings,
        leading: watch::Receiver<bool>,
        brake: Brake,
    ) -> Self {
        let sinks = Sinks { https: Https::new(settings), stdout: Stdout::default() };
        Self { jobs, leading, brake, sinks: Arc::new(sinks) }
    }

    /// Runs for ever. Dropped, it leaves lines on their way; those whose outcome it has not heard are written again by
    /// whoever comes next.
    pub async fn run(mut self) {
        let mut out = JoinSet::new();
        loop {
            if self.leading.wait_for(|leading| *leading).await.is_err() {
                // Nobody can lead any more; the process is about to end.
                return pending().await;
            }
            self.brake.wait_for(BatchJobReconciler::NAME, false).await;
            let archive = &self.jobs.archive;
            let mut wake = None;
            while out.len() < IN_FLIGHT_MAX {
                match archive.next(Instant::now()) {
                    Ok(parcel) => {
                        let sinks = Arc::clone(&self.sinks);
                        out.spawn(async move {
                            let outcome = sinks.deliver(&parcel).await;
                            (parcel, outcome)
                        });
                    }
                    Err(at) => {
                        wake = at;
                        break;
                    }
                }
            }
            tokio::select! {
                Some(done) = out.join_next() => match done {
                    Ok((parcel, outcome)) => self.jobs.archived(&parcel, outcome),
                    // A defect: the line counts as on its way until a successor takes over, and its job stays.
                    Err(error) => tracing::error!(%error, "a line of a finished job was not delivered"),
                },
                () = archive.news.notified() => {}
                () = async {
                    match wake {
                        Some(at) => sleep_until(at).await,
                        None => pending().await,
                    }
                } => {}
            }
        }
    }
}

impl Sinks {
    async fn deliver(&self, parcel: &Parcel) -> Result<(), Failure> {
        // An outbox takes finished jobs alone.
        let Some(text) = line::line(&parcel.job) else { return Ok(()) };
        let delivering = async {
            match &parcel.sink {
                Sink::Stdout => self.stdout.write(text).await,
                Sink::Http(url) => self.https.post(url, parcel.uid(), text).await,
            }
        };
        timeout(DEADLINE, delivering).await.unwrap_or_else(|_| {
            let problem = format!("no answer within {} s", DEADLINE.as_secs());
            Err(Failure { problem, kind: FailureKind::Unavailable, retry_after: None })
        })
    }
}
