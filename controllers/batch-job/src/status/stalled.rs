//! What needs a person about a job.

use super::{conflict_message, failing};
use crate::admission::Waiting;
use crate::memory::RefusalKind;
use crate::plan::{Course, JobState};
use crate::projections::job_status::StoredCondition;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::{QueuedReason, StalledReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::projection::Projection;

/// How old a job must be before it needs a person that no node is large enough, or that there is no queue for it:
/// a node may just be coming up, and objects are applied in any order.
const STALLED_AFTER: SignedDuration = SignedDuration::from_secs(3);

/// Creates that are forbidden in a row, after which it needs a person.
const FORBIDDEN_ATTEMPTS: u32 = 3;

pub(super) fn stalled(
    state: &JobState,
    waiting: Option<&Waiting>,
    now: Timestamp,
) -> Option<(StalledReason, String)> {
    match &state.course {
        Course::Failing { reason, message } => {
            return Some((StalledReason::Failed(*reason), message.clone()));
        }
        Course::Stuck { reason, message } => return Some((*reason, message.clone())),
        Course::Stopped(_) => return unreleased(state).or_else(|| failing::stalling(state)),
        Course::Open => {}
        Course::Deleting | Course::Finished | Course::Completing(_) => return None,
    }
    if let Some(message) = conflict_message(state) {
        return Some((StalledReason::NameConflict, message));
    }
    if let Some(waiting) = waiting
        && let Some((reason, at_once)) = waiting_stalls(waiting.reason)
        && (at_once || stalling_time(state) <= now)
    {
        return Some((reason, waiting.message.clone()));
    }
    if let Some(message) = forbidden(state) {
        return Some((StalledReason::Forbidden, message));
    }
    if let Some(unreleased) = unreleased(state) {
        return Some(unreleased);
    }
    if let Some(failure) = failing::stalling(state) {
        return Some(failure);
    }
    let stored = state.job.condition(StalledReason::CONDITION)?;
    still_forbidden(state, stored).then(|| (StalledReason::Forbidden, stored.message.clone()))
}

/// Whether a job that waits for this needs a person from [`stalling_time`] on.
pub(crate) fn stalls_later(reason: QueuedReason) -> bool {
    waiting_stalls(reason).is_some_and(|(_, at_once)| !at_once)
}

/// From when on a job needs a person for which there is no queue, or no node.
pub(crate) fn stalling_time(state: &JobState) -> Timestamp {
    after(state.job.meta().creation_time, STALLED_AFTER)
}

/// As what a wait needs a person, and whether it does at once.
fn waiting_stalls(reason: QueuedReason) -> Option<(StalledReason, bool)> {
    match reason {
        QueuedReason::NeverFits => Some((StalledReason::NeverFits, false)),
        QueuedReason::QueueNotFound => Some((StalledReason::QueueNotFound, false)),
        QueuedReason::QueueNameRequired => Some((StalledReason::QueueNameRequired, false)),
        QueuedReason::TierNotAllowed => Some((StalledReason::TierNotAllowed, true)),
        QueuedReason::QuotaExceeded
        | QueuedReason::NoCapacity
        | QueuedReason::HeadBlocked
        | QueuedReason::ClassBackoff
        | QueuedReason::CapacityStale
        | QueuedReason::QueueStopped
        | QueuedReason::PeakWindow
        | QueuedReason::LoadTrigger
        | QueuedReason::WouldNotFinish
        | QueuedReason::NameHeld
        | QueuedReason::Admitted
        | QueuedReason::QueueFull
        | QueuedReason::Suspended
        | QueuedReason::Finished => None,
    }
}

/// What the API server says to creates that it forbids again and again. Once or twice may be an object
/// that is applied after the job.
fn forbidden(state: &JobState) -> Option<String> {
    let refusal = state.facts.refusal.as_ref()?;
    let holds = refusal.generation == state.job.meta().generation
        && match refusal.kind {
            RefusalKind::Forbidden { attempts } => attempts >= FORBIDDEN_ATTEMPTS,
            RefusalKind::InvalidTemplate
            | RefusalKind::Quota
            | RefusalKind::NamespaceTerminating
            | RefusalKind::Unanswered { .. } => false,
        };
    holds.then(|| refusal.message.clone())
}

/// What the API server says of a pod that it does not let us delete, or free of our finalizer.
fn unreleased(state: &JobState) -> Option<(StalledReason, String)> {
    let (pod, refusal) = state.facts.unreleased.first_key_value()?;
    Some((StalledReason::Forbidden, format!("pod {pod} cannot be released: {}", refusal.message)))
}

/// What was forbidden stays so until a pod of the job could be created: the next try is a try.
fn still_forbidden(state: &JobState, stored: &StoredCondition) -> bool {
    stored.is(StalledReason::Forbidden) && !state.facts.created && state.pods.is_empty()
}
