//! When a status is written: writes are the currency, so not every difference is worth one.
//!
//! A job with one task costs one write for its outcome, one more when it runs longer than two or three
//! seconds, and one when it waits; a Strict one that has waited says no more until its outcome. A
//! parallel job is written at most once per second.

use super::course::Course;
use super::spread;
use super::state::{Attempt, JobState};
use crate::admission::Verdict;
use crate::ceiling::Standing;
use crate::pods::tracking;
use crate::record_turns::PER_SECOND;
use crate::status::{self, FAILS, Outlook, STARTING};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::{
    AdmittedReason, BatchJobStatus, CompleteReason, CompletionTracking, DegradedReason, QueuedReason,
    StalledReason, SuspendedReason,
};
use springtide_crds::common::{ConditionStatus, condition};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::plan::WriteClass;
use springtide_plumbing::projection::Projection;

/// A task that ends sooner gets no record of its start: the outcome is near. Kubelets say when it began
/// in whole seconds, so that it has run for two at least.
const STARTED_RECORD_AFTER: SignedDuration = SignedDuration::from_secs(3);
/// A job that waits less gets no record of it.
const WAITING_RECORD_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// The same for a Strict job with one task, whose finalizer has cost a write already; early enough that
/// no job stands ten minutes without a word.
const WAITING_RECORD_AFTER_STRICT: SignedDuration = SignedDuration::from_secs(90);
/// Distance between two status writes of a parallel job.
const FLUSH_INTERVAL: SignedDuration = SignedDuration::from_secs(1);

/// When to write the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing in it is worth a write until something happens.
    Never,
    /// Now, at this class, and before anything is created or ended.
    Now(WriteClass),
    /// Now, unless pods are created or ended in this pass: what it says is about to change again.
    WhenQuiet(WriteClass),
    /// Not before this time, if it still differs then.
    At(Timestamp),
}

pub(super) fn due(state: &JobState, outlook: &Outlook, unfinished_jobs: usize, now: Timestamp) -> Due {
    match worth(state, outlook, now) {
        Worth::Due(due) => due,
        Worth::WaitingRecord => {
            let time = waiting_record_time(state, unfinished_jobs);
            let turn = state.facts.record_from.map_or(time, |turn| turn.max(time));
            at(turn, WriteClass::Low, now).when_quiet()
        }
    }
}

/// Whether nothing but its turn keeps a job from recording that it waits. To be asked with every look at a job, so what
/// is cheap to know comes first.
pub(crate) fn awaits_turn(
    state: &JobState,
    verdict: Option<&Verdict>,
    unfinished_jobs: usize,
    now: Timestamp,
) -> bool {
    let may_wait =
        match complete_reason(state.job.condition(CompleteReason::CONDITION).map(|said| &*said.reason)) {
            CompleteReason::Pending | CompleteReason::Admitted => !state.job.is_finished(),
            CompleteReason::Queued
            | CompleteReason::Running
            | CompleteReason::Draining
            | CompleteReason::Suspended
            | CompleteReason::Finishing
            | CompleteReason::Completed
            | CompleteReason::SuccessPolicyMet
            | CompleteReason::Failed(_) => false,
        };
    if !may_wait || waiting_record_time(state, unfinished_jobs) > now {
        return false;
    }
    let outlook = status::outlook(state, verdict, now);
    worth(state, &outlook, now) == Worth::WaitingRecord
}

/// What a status that differs from the stored one is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// A write of its own, or none.
    Due(Due),
    /// A record that the job waits, of which all jobs together have a few in a second.
    WaitingRecord,
}

fn worth(state: &JobState, outlook: &Outlook, now: Timestamp) -> Worth {
    let stored = &state.job.status.whole();
    let desired = &outlook.status;
    // So far beyond the maximum even the word that a job is not started would be a write too many.
    let is_silent = matches!(state.standing, Standing::FarBeyond { .. })
        && matches!(state.course, Course::Stuck { reason: StalledReason::LimitExceeded, .. });
    if desired == stored || is_silent {
        return Worth::Due(Due::Never);
    }
    if outcome_differs(stored, desired) || is_news(stored, desired, outlook) {
        return Worth::Due(paced(state, class(state), now));
    }
    match figures(state, stored, outlook, now) {
        Worth::Due(due) => Worth::Due(due.when_quiet()),
        Worth::WaitingRecord => Worth::WaitingRecord,
    }
}

impl Due {
    /// The same, but not while pods are created or ended.
    fn when_quiet(self) -> Self {
        match self {
            Self::Now(class) => Self::WhenQuiet(class),
            later @ (Self::Never | Self::WhenQuiet(_) | Self::At(_)) => later,
        }
    }
}

/// Pods that have ended wait for the record of that before they can go: behind all that is still to be created they
/// would pile up whenever the write budget is short.
fn class(state: &JobState) -> WriteClass {
    let waits = |pod: &Attempt| pod.has_outcome() && !state.is_counted(pod);
    if state.pods.iter().any(waits) { WriteClass::Protective } else { WriteClass::Status }
}

/// What a difference is worth that is neither an outcome nor news.
fn figures(state: &JobState, stored: &BatchJobStatus, outlook: &Outlook, now: Timestamp) -> Worth {
    let desired = &outlook.status;
    let single = state.job.is_single();
    let was = summary_of(stored);
    let same = was == outlook.summary;
    let due = match outlook.summary {
        CompleteReason::Running if single && same => Due::Never,
        CompleteReason::Running if single && is_strict(state) && has_waited(stored, was) => Due::Never,
        CompleteReason::Running if single => {
            let since = desired.running_since_time.as_ref().map_or(now, |since| since.0);
            at(after(since, STARTED_RECORD_AFTER), WriteClass::Status, now)
        }
        // All jobs of a tier would tell at once what the status of their queue tells.
        CompleteReason::Queued if was == CompleteReason::Pending && waits_for_peak(desired) => Due::Never,
        CompleteReason::Queued | CompleteReason::Admitted if was == CompleteReason::Pending => {
            if single || state.live() == 0 {
                return Worth::WaitingRecord;
            }
            paced(state, WriteClass::Status, now)
        }
        // Its pod is gone, and nobody knows when the next one comes.
        CompleteReason::Queued | CompleteReason::Admitted
            if state.live() == 0 && (was == CompleteReason::Running || says_last_pod_ends(stored, was)) =>
        {
            paced(state, WriteClass::Low, now)
        }
        // What keeps the first pods from starting is told once.
        CompleteReason::Admitted if same && state.live() > 0 && says_starting(stored, &outlook.message) => {
            return Worth::WaitingRecord;
        }
        CompleteReason::Running | CompleteReason::Queued | CompleteReason::Admitted => {
            if single || (same && !figures_differ(stored, desired)) {
                Due::Never
            } else {
                paced(state, WriteClass::Status, now)
            }
        }
        // Whatever else differs of these has been news already.
        CompleteReason::Pending
        | CompleteReason::Draining
        | CompleteReason::Suspended
        | CompleteReason::Finishing
        | CompleteReason::Completed
        | CompleteReason::SuccessPolicyMet
        | CompleteReason::Failed(_) => {
            if single || !figures_differ(stored, desired) {
                Due::Never
            } else {
                paced(state, WriteClass::Status, now)
            }
        }
    };
    Worth::Due(due)
}

/// Whether the status still says that all is well, and more is known.
fn says_starting(stored: &BatchJobStatus, message: &str) -> bool {
    let stored = condition(&stored.conditions, CompleteReason::CONDITION);
    message != STARTING && stored.is_some_and(|stored| stored.message == STARTING)
}

/// Whether the status still says that the last pod of a preempted job is ending.
fn says_last_pod_ends(stored: &BatchJobStatus, was: CompleteReason) -> bool {
    let suspended = condition(&stored.conditions, SuspendedReason::CONDITION);
    was == CompleteReason::Admitted && suspended.is_some_and(|said| said.is(SuspendedReason::Preempted))
}

fn paced(state: &JobState, class: WriteClass, now: Timestamp) -> Due {
    if state.job.is_single() {
        return Due::Now(class);
    }
    // The API server's clock may be hours ahead of ours.
    let born = state.job.meta().creation_time.min(state.facts.since);
    let last = state.facts.last_flush.unwrap_or(born);
    // Ours was put back since: nobody knows how long ago that was.
    if last > now {
        return Due::Now(class);
    }
    at(after(last, FLUSH_INTERVAL), class, now)
}

fn at(time: Timestamp, class: WriteClass, now: Timestamp) -> Due {
    if time <= now { Due::Now(class) } else { Due::At(time) }
}

/// Each job's own moment, spread so that all of them together keep within the rate on average: few have to wait for
/// their turn.
fn waiting_record_time(state: &JobState, unfinished_jobs: usize) -> Timestamp {
    let meta = state.job.meta();
    let wait = if is_strict(state) && state.job.is_single() {
        WAITING_RECORD_AFTER_STRICT
    } else {
        WAITING_RECORD_AFTER
    };
    let seconds = unfinished_jobs.div_ceil(PER_SECOND).max(1);
    // A new process meets many that have waited long: it spreads their records as well.
    after(meta.creation_time.max(state.facts.since), wait + spread(&meta.uid, seconds))
}

fn is_strict(state: &JobState) -> bool {
    match tracking(&state.job) {
        CompletionTracking::Strict => true,
        CompletionTracking::AtLeastOnce => false,
    }
}

/// Whether the stored status is the record of a wait before the first start.
fn has_waited(stored: &BatchJobStatus, was: CompleteReason) -> bool {
    matches!(was, CompleteReason::Queued | CompleteReason::Admitted) && stored.start_time.is_none()
}

fn outcome_differs(stored: &BatchJobStatus, desired: &BatchJobStatus) -> bool {
    stored.succeeded != desired.succeeded
        || stored.failed != desired.failed
        || stored.indexes != desired.indexes && desired.indexes.is_some()
        || stored.completion_time.is_some() != desired.completion_time.is_some()
}

/// What a user must learn at once: that the job needs somebody, stops, goes on, or heard of an edit.
fn is_news(stored: &BatchJobStatus, desired: &BatchJobStatus, outlook: &Outlook) -> bool {
    let summary = outlook.summary;
    let reason_of = |status: &BatchJobStatus, type_: &str| {
        condition(&status.conditions, type_).map(|condition| condition.reason.clone())
    };
    let differs = |type_| reason_of(stored, type_) != reason_of(desired, type_);
    let is_turn = |reason| match reason {
        CompleteReason::Draining
        | CompleteReason::Suspended
        | CompleteReason::Finishing
        | CompleteReason::Completed
        | CompleteReason::SuccessPolicyMet
        | CompleteReason::Failed(_) => true,
        CompleteReason::Pending
        | CompleteReason::Queued
        | CompleteReason::Admitted
        | CompleteReason::Running => false,
    };
    let was = summary_of(stored);
    // A peak ends the pods of all jobs of a tier: a word before and one after would double what each costs.
    let is_turn_to = !outlook.yields && is_turn(summary);
    let turned = was != summary && (is_turn_to || is_turn(was));
    let edited = stored.observed_generation != 0 && stored.observed_generation != desired.observed_generation;
    // Users are told at once, by whoever sees that a write fails; here, that it does so no longer.
    let fails = |status: &BatchJobStatus| {
        let stored = condition(&status.conditions, CompleteReason::CONDITION);
        stored.is_some_and(|stored| stored.message.starts_with(FAILS))
    };
    let recovered = fails(stored) != fails(desired);
    let tells = [StalledReason::CONDITION, SuspendedReason::CONDITION, DegradedReason::CONDITION];
    turned || edited || recovered || tells.into_iter().any(differs)
}

/// What `kubectl get` shows of a parallel job, besides outcomes.
fn figures_differ(stored: &BatchJobStatus, desired: &BatchJobStatus) -> bool {
    let status_of = |status: &BatchJobStatus, type_: &str| {
        condition(&status.conditions, type_).map(|condition| condition.status == ConditionStatus::True)
    };
    let differs = |type_| status_of(stored, type_) != status_of(desired, type_);
    let is_queued_anew = differs(QueuedReason::CONDITION) && !waits_for_peak(desired);
    stored.active != desired.active || is_queued_anew || differs(AdmittedReason::CONDITION)
}

/// Whether a peak is what the job waits for.
fn waits_for_peak(status: &BatchJobStatus) -> bool {
    let queued = condition(&status.conditions, QueuedReason::CONDITION);
    queued.is_some_and(|queued| queued.is(QueuedReason::PeakWindow) || queued.is(QueuedReason::LoadTrigger))
}

fn summary_of(status: &BatchJobStatus) -> CompleteReason {
    let said = condition(&status.conditions, CompleteReason::CONDITION);
    complete_reason(said.map(|said| &*said.reason))
}

/// What the reason of condition Complete says.
fn complete_reason(said: Option<&str>) -> CompleteReason {
    let known = |reason: &CompleteReason| said == Some(reason.as_str());
    CompleteReason::all().into_iter().find(known).unwrap_or(CompleteReason::Pending)
}
