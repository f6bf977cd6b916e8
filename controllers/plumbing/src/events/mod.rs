//! Events (`events.k8s.io/v1`) of a controller: what became of its objects, for people.
//!
//! They are the first to be dropped under pressure. [`publish`](EventSink::publish) never waits and never fails: what happens again
//! is [counted in memory](series), so that one kind of event of one object costs at most two writes in ten
//! minutes, and what cannot be sent waits in a queue whose oldest go first.

mod series;
#[cfg(test)]
mod tests;

use crate::budget::Throttled;
use crate::clock::Clock;
use crate::error::WriteError;
use crate::executor::Executor;
use crate::guard::Withheld;
use crate::key::{ObjectKey, Resource, Uid};
use crate::metrics::Metrics;
use crate::plan::{Action, Outcome, Plan, Write, WriteClass};
use jiff::Timestamp;
use serde_json::{Value, json};
use series::{Publication, Series};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The most bytes of a note; the API allows 1024.
pub const MAX_NOTE_BYTES: usize = 1000;
/// Events that wait to be sent.
const MAX_QUEUED: usize = 1000;
/// The API allows so many bytes of `reportingInstance`.
const MAX_INSTANCE_BYTES: usize = 128;
/// Attempts at one event.
const ATTEMPTS: usize = 5;
/// Pause after an attempt of which nobody knows what became.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long what is left may take at the end: the Lease waits for it, and whoever takes it over is to work within
/// two seconds of the signal.
const FAREWELL: Duration = Duration::from_millis(500);

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Worth knowing.
    Normal,
    /// Something does not go as it was asked for.
    Warning,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Something that happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventNote {
    /// Resource type of the object.
    pub resource: Resource,
    /// The object; an event lives in its namespace.
    pub key: ObjectKey,
    /// Its incarnation.
    pub uid: Uid,
    /// How much it matters.
    pub severity: Severity,
    /// Why, CamelCase; one of the documented reasons.
    pub reason: &'static str,
    /// What was being done, CamelCase.
    pub action: &'static str,
    /// A sentence for people, cut at [`MAX_NOTE_BYTES`].
    pub note: String,
}

/// Where a controller says what happened. Clones share one queue.
#[derive(Clone)]
pub struct EventSink(Arc<Inner>);

struct Inner {
    controller: &'static str,
    /// Name of this process.
    instance: String,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    series: Series,
    queue: VecDeque<Publication>,
    /// By key, what is told if it turns out that the writes of its last pass were stored.
    untold: HashMap<ObjectKey, Vec<EventNote>>,
}

/// Whether the writes that events tell of were stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// All of them.
    Yes,
    /// Nobody knows: the next pass over the key will, as it waits until the stores do.
    Unknown,
    /// Not all, and they are planned again.
    No,
}

impl EventSink {
    /// The sink of a controller in the process of this name.
    pub fn new(controller: &'static str, instance: &str, metrics: Arc<Metrics>) -> Self {
        let instance = cut(instance, MAX_INSTANCE_BYTES).to_owned();
        Self(Arc::new(Inner {
            controller,
            instance,
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Says that something happened at this time. Never waits.
    pub fn publish(&self, mut note: EventNote, time: Timestamp) {
        note.note.truncate(cut(&note.note, MAX_NOTE_BYTES).len());
        let now = Instant::now();
        self.with(|state| {
            let mut due = state.series.ended(now, time);
            due.extend(state.series.happened(note, now, time));
            self.queue(state, due);
        });
        self.0.changed.notify_one();
    }

    /// A pass over `key` was to tell these. What an earlier pass was to tell is told now, unless this one has planned it
    /// again: then the writes of the earlier one were lost.
    pub(crate) fn passed(&self, key: &ObjectKey, planned: Vec<EventNote>, stored: Stored, time: Timestamp) {
        let is_planned = |note: &EventNote| {
            planned.iter().any(|again| again.uid == note.uid && again.reason == note.reason)
        };
        let mut notes = self.with(|state| state.untold.remove(key)).unwrap_or_default();
        notes.retain(|note| !is_planned(note));
        match stored {
            Stored::Yes => {
                notes.into_iter().chain(planned).for_each(|note| self.publish(note, time));
                return;
            }
            Stored::Unknown => notes.extend(planned),
            Stored::No => {}
        }
        if !notes.is_empty() {
            self.with(|state| state.untold.insert(key.clone(), notes));
        }
    }

    /// Sends what is due until `stop`, then what is left: for half a second, with one attempt each.
    pub async fn run(&self, executor: &Executor, clock: &Clock, stop: &CancellationToken) {
        let farewell = async {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        tokio::select! {
            () = self.send_all(executor, clock, stop) => {}
            () = farewell => {
                let left = self.with(|state| state.queue.len());
                self.0.metrics.events_dropped(self.0.controller, left);
            }
        }
    }

    async fn send_all(&self, executor: &Executor, clock: &Clock, stop: &CancellationToken) {
        loop {
            let (next, wake) = self.with(|state| {
                let due = state.series.ended(Instant::now(), clock.now());
                self.queue(state, due);
                (state.queue.pop_front(), state.series.next_end())
            });
            match next {
                Some(publication) => self.deliver(&publication, executor, stop).await,
                None if stop.is_cancelled() => return,
                None => tokio::select! {
                    () = self.0.changed.notified() => {}
                    () = stop.cancelled() => {}
                    () = sleep_until(wake) => {}
                },
            }
        }
    }

    async fn deliver(&self, publication: &Publication, executor: &Executor, stop: &CancellationToken) {
        let write = self.write(publication);
        // Not that of an object: a key that waits for a token must not lose its turn to its own event.
        let owner = ObjectKey::new("", "events");
        let mut attempts = 0;
        loop {
            let plan = Plan { stages: vec![vec![write.clone().into()]], ..Plan::idle(Outcome::Progressing) };
            let outcome = executor.perform(&owner, plan).await.pop().map(|result| result.outcome);
            let again = match outcome {
                // Its name is its own, so who made it before was this process, or the one before it.
                None | Some(Ok(_) | Err(WriteError::AlreadyExists | WriteError::Gone)) => return,
                Some(Err(WriteError::Throttled(Throttled { until, .. }))) => until,
                Some(Err(WriteError::Busy { retry_after })) => Instant::now() + retry_after,
                Some(Err(WriteError::NotSent(_) | WriteError::Unknown(_))) => Instant::now() + RETRY_AFTER,
                Some(Err(WriteError::Withheld(Withheld::Observing))) => return,
                Some(Err(
                    WriteError::NotLeading
                    | WriteError::StaleStore(_)
                    | WriteError::Withheld(
                        Withheld::Braked(_)
                        | Withheld::Unread(_)
                        | Withheld::Protected
                        | Withheld::BreakerOpen { .. },
                    )
                    | WriteError::Contested { .. }
                    | WriteError::Skipped
                    | WriteError::Conflict(_)
                    | WriteError::FieldConflict(_)
                    | WriteError::DisruptionBudget(_)
                    | WriteError::Refused(_),
                )) => break,
            };
            attempts += 1;
            if attempts == ATTEMPTS {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep_until(again) => {}
                () = stop.cancelled() => break,
            }
        }
        tracing::debug!(controller = self.0.controller, event = %write.key, "event not sent");
        self.0.metrics.events_dropped(self.0.controller, 1);
    }

    fn queue(&self, state: &mut State, due: Vec<Publication>) {
        state.queue.extend(due);
        let beyond = state.queue.len().saturating_sub(MAX_QUEUED);
        if beyond > 0 {
            state.queue.drain(..beyond);
            self.0.metrics.events_dropped(self.0.controller, beyond);
        }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, publication: &Publication) -> Write {
        let (namespace, name, action) = match publication {
            Publication::Create { name, note, time, repeated } => {
                let manifest = self.manifest(name, note, *time, repeated.map(series));
                (&note.key.namespace, name, Action::Create { manifest })
            }
            Publication::Repeat { name, namespace, uid, repeated } => {
                let operations = json!([
                    {"op": "test", "path": "/regarding/uid", "value": uid},
                    {"op": "add", "path": "/series", "value": series(*repeated)},
                ]);
                (namespace, name, Action::json_patch(operations))
            }
        };
        let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
        Write { resource: Resource::EVENT, key, class: WriteClass::Event, action }
    }

    fn manifest(&self, name: &str, note: &EventNote, time: Timestamp, series: Option<Value>) -> Value {
        let EventNote { resource, key, uid, severity, reason, action, note } = note;
        let mut manifest = json!({
            "apiVersion": Resource::EVENT.api_version(),
            "kind": Resource::EVENT.kind,
            "metadata": {"namespace": key.namespace, "name": name},
            "eventTime": micro_time(time),
            "reportingController": format!("springtide.dev/{}", self.0.controller),
            "reportingInstance": self.0.instance,
            "regarding": {
                "apiVersion": resource.api_version(), "kind": resource.kind,
                "namespace": key.namespace, "name": key.name, "uid": uid,
            },
            "type": severity.as_str(),
            "reason": reason,
            "action": action,
            "note": note,
        });
        if let Some(series) = series {
            manifest["series"] = series;
        }
        manifest
    }
}

fn series((count, last): (u32, Timestamp)) -> Value {
    json!({"count": count, "lastObservedTime": micro_time(last)})
}

/// `MicroTime` of the API: always six digits.
fn micro_time(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// The longest beginning of at most so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
