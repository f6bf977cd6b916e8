//! Which keys fail, at what, and what their users are told: the classes of [errors](crate::error) as conditions.
//!
//! The loop keeps one record for each key that fails, and hands it to the planner, which is pure and puts it into
//! the status that it plans anyway. What is news is told at once, past the backoff of the key: one status write and
//! one event when class or write change, none for each further pass that fails alike. The record ends when
//! such a write succeeds, or is not wanted any more.
//!
//! A failure that the controller holds in its own memory ([`Settled::Handled`](crate::controller::Settled)) is told
//! by the controller itself and does not stand here.

#[cfg(test)]
mod tests;

use crate::dry_run::Verdict;
use crate::error::{ErrorClass, Refusal, WriteError};
use crate::events::{EventNote, Severity};
use crate::executor::WriteResult;
use crate::key::{ObjectKey, Resource, Uid};
use crate::plan::{Write, WriteClass};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Passes in a row that fail for want of an answer before users are told: once or twice is the everyday life of a
/// network.
pub const TRANSIENT_PASSES: u32 = 3;

/// What a key fails at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// The class of its error.
    pub class: ErrorClass,
    /// Passes in a row that failed like this.
    pub passes: u32,
    /// The write that fails; `None` where the pass itself did, by a defect of ours.
    pub attempt: Option<Attempt>,
    /// What is wrong and what helps, for people.
    pub message: String,
}

/// The kind of write that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Resource type.
    pub resource: Resource,
    /// Sub-resource, empty for the object itself.
    pub subresource: &'static str,
    /// The verb.
    pub verb: &'static str,
}

impl Attempt {
    fn of(write: &Write) -> Self {
        let (verb, subresource) = (write.action.verb(), write.action.subresource());
        Self { resource: write.resource, subresource, verb }
    }
}

/// What a failure means to the object's conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It goes on by itself: the summary condition (`Ready`) is not True, and its message says this.
    NotReady,
    /// It needs a person: condition `Stalled` with the reason `Forbidden`.
    Forbidden,
    /// It needs a person: condition `Stalled` with the reason `InternalError`.
    InternalError,
}

impl Told {
    /// The reason in conditions and events.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotReady => "WriteFails",
            Self::Forbidden => "Forbidden",
            Self::InternalError => "InternalError",
        }
    }
}

impl Failing {
    /// What users are told of it; `None` while there is nothing to tell.
    pub fn told(&self) -> Option<Told> {
        match self.class {
            ErrorClass::Transient => (self.passes >= TRANSIENT_PASSES).then_some(Told::NotReady),
            ErrorClass::Conflict => None,
            ErrorClass::Forbidden => Some(Told::Forbidden),
            // What a spec of the user's asks for and the server finds invalid is for its controller to
            // handle: that knows the field. What is left is a write of our own making.
            ErrorClass::UserConfig | ErrorClass::TooLarge | ErrorClass::Bug => Some(Told::InternalError),
        }
    }

    /// Whether it is a status that fails: of an object whose status cannot be written its status cannot tell.
    pub fn is_of_status(&self) -> bool {
        self.attempt.is_some_and(|attempt| attempt.subresource == "status")
    }

    /// The event that tells of it, on the object that is worked on.
    pub fn note(&self, resource: Resource, key: ObjectKey, uid: Uid) -> Option<EventNote> {
        let reason = self.told()?.reason();
        let (severity, action) = (Severity::Warning, "Reconciling");
        Some(EventNote { resource, key, uid, severity, reason, action, note: self.message.clone() })
    }
}

/// How a controller tells of a failure.
#[derive(Clone, Debug)]
pub struct Telling {
    /// The event.
    pub event: EventNote,
    /// The status write with the condition in it; `None` where the object's status has no place for it.
    pub status: Option<Write>,
}

/// What a pass has changed in the record of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing that users must learn.
    None,
    /// This is to be told.
    Tell(Failing),
    /// What was told is over: the status is to be planned anew.
    Over,
}

/// The keys of one controller that fail.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<ObjectKey, Record>>);

#[derive(Debug)]
struct Record {
    failing: Failing,
    is_told: bool,
}

impl Failures {
    /// What a key fails at, if it does.
    pub(crate) fn of(&self, key: &ObjectKey) -> Option<Failing> {
        self.lock().get(key).map(|record| record.failing.clone())
    }

    /// A pass over the key has ended, and the loop looks after what failed in it.
    pub(crate) fn passed(&self, key: &ObjectKey, results: &[WriteResult]) -> Turn {
        match gravest(results) {
            Some((class, write, error)) => {
                self.failed(key, class, Some(Attempt::of(write)), || describe(write, error))
            }
            None => self.settled(key, results),
        }
    }

    /// A pass over the key has ended, and the controller itself looks after what failed in it.
    pub(crate) fn handled(&self, key: &ObjectKey, results: &[WriteResult]) -> Turn {
        match gravest(results) {
            Some(_) => Turn::None,
            None => self.settled(key, results),
        }
    }

    /// A pass over the key has panicked.
    pub(crate) fn panicked(&self, key: &ObjectKey, panic: &str) -> Turn {
        let message = || {
            let panic = panic.lines().next().unwrap_or_default();
            format!("a defect of the controller, to be reported with the lines of its log: {panic}")
        };
        self.failed(key, ErrorClass::Bug, None, message)
    }

    /// It has been told.
    pub(crate) fn told(&self, key: &ObjectKey) {
        if let Some(record) = self.lock().get_mut(key) {
            record.is_told = true;
        }
    }

    /// There is nothing of that name any more.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn failed(
        &self,
        key: &ObjectKey,
        class: ErrorClass,
        attempt: Option<Attempt>,
        message: impl FnOnce() -> String,
    ) -> Turn {
        let mut records = self.lock();
        let alike = |record: &&mut Record| record.failing.class == class && record.failing.attempt == attempt;
        let record = match records.get_mut(key).filter(alike) {
            Some(record) => {
                record.failing.passes = record.failing.passes.saturating_add(1);
                // Every answer may be worded otherwise: what is told stays as it is.
                if !record.is_told {
                    record.failing.message = message();
                }
                record
            }
            None => {
                let failing = Failing { class, passes: 1, attempt, message: message() };
                // What was told before is no longer so, whether or not this is worth telling.
                let was_told = records.remove(key).is_some_and(|record| record.is_told);
                let record = Record { failing, is_told: false };
                let record = records.entry(key.clone()).insert_entry(record).into_mut();
                if was_told && record.failing.told().is_none() {
                    return Turn::Over;
                }
                record
            }
        };
        match record.failing.told() {
            Some(_) if !record.is_told => Turn::Tell(record.failing.clone()),
            Some(_) | None => Turn::None,
        }
    }

    /// No write was refused or lost.
    fn settled(&self, key: &ObjectKey, results: &[WriteResult]) -> Turn {
        let mut records = self.lock();
        let Some(record) = records.get(key) else { return Turn::None };
        let is_over = match record.failing.attempt {
            None => true,
            Some(attempt) => {
                let mut like_it = results.iter().filter(|result| Attempt::of(&result.write) == attempt);
                // A dry run that is denied is answered, and says nothing of a write that fails.
                let succeeds = |result: &WriteResult| match &result.outcome {
                    Ok(done) => done.dry_run.as_ref().is_none_or(Verdict::is_accepted),
                    Err(error) => matches!(error, WriteError::Gone),
                };
                // Where something else was written that comes first, the next plan tells.
                let is_idle = results.iter().all(|result| matches!(&result.outcome, Ok(done) if done.noop));
                is_idle || like_it.any(succeeds)
            }
        };
        if !is_over {
            return Turn::None;
        }
        match records.remove(key) {
            Some(Record { is_told: true, .. }) => Turn::Over,
            Some(Record { is_told: false, .. }) | None => Turn::None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Record>> {
        // Nothing that can panic leaves it half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of what was refused or lost, the first of the class that asks for the longest backoff.
fn gravest(results: &[WriteResult]) -> Option<(ErrorClass, &Write, &WriteError)> {
    results
        .iter()
        .filter(|result| result.write.class != WriteClass::Event)
        .filter_map(|WriteResult { write, outcome }| {
            let error = outcome.as_ref().err()?;
            let class = error.class().filter(|class| *class != ErrorClass::Conflict)?;
            Some((class, write, error))
        })
        .reduce(
            |gravest, next| if next.0.backoff_floor() > gravest.0.backoff_floor() { next } else { gravest },
        )
}

/// What was refused or lost, and what helps.
fn describe(write: &Write, error: &WriteError) -> String {
    let attempt = || format!("cannot {} {}", write.action.verb(), object(write));
    let WriteError::Refused(refusal) = error else {
        return format!("{}, and tries again: {error}", attempt());
    };
    if refusal.code == 401 || refusal.is_missing_right() {
        explain(write, refusal)
    } else {
        format!("{}: {}", attempt(), refusal.message)
    }
}

/// What a refusal means to whoever reads it on the object: what may not be done, where, and what helps. What a
/// quota or a policy says is quoted as it is, as these name themselves.
pub fn explain(write: &Write, refusal: &Refusal) -> String {
    let verb = write.action.verb();
    let path = match write.action.subresource() {
        "" => write.resource.to_string(),
        subresource => format!("{}/{subresource}", write.resource),
    };
    if refusal.code == 401 {
        return format!(
            "the API server does not know the manager any more (401): renew its token; {}",
            refusal.message
        );
    }
    if refusal.is_missing_right() {
        let place = match &*write.key.namespace {
            "" => "in the cluster".to_owned(),
            namespace => format!("in namespace {namespace}"),
        };
        return format!(
            "may not {verb} {path} {place}: grant it to the manager as this release's roles do; {}",
            refusal.message
        );
    }
    refusal.message.clone()
}

fn object(write: &Write) -> String {
    let kind = write.resource.kind;
    match write.action.subresource() {
        "" => format!("{kind} {}", write.key.name),
        subresource => format!("the {subresource} of {kind} {}", write.key.name),
    }
}
