//! What peaks do to a job, as far as its status tells.

use crate::admission::{ReclaimCause, Verdict, Waiting};
use crate::plan::{Course, JobState};
use springtide_crds::batch_job::{QueuedReason, SuspendedReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::projection::Projection;

/// Why such a job has no pods.
pub(super) const WHY: &str =
    "a peak window of the job's queue is open or a load trigger on, or that has just ended";

/// Whether a peak has suspended a job that had started: it has no pods, and gets none for now. One that had not
/// started waits as ever.
pub(super) fn suspends(state: &JobState, waiting: Option<&Waiting>) -> bool {
    let is_open = match &state.course {
        Course::Open => true,
        Course::Deleting
        | Course::Finished
        | Course::Failing { .. }
        | Course::Completing(_)
        | Course::Stopped(_)
        | Course::Stuck { .. } => false,
    };
    // Its pods may have gone before any status told that they were there.
    let told = state.job.condition(SuspendedReason::CONDITION);
    let has_started = state.has_started()
        || state.facts.created
        || told.is_some_and(|told| told.is(SuspendedReason::PeakWindow));
    is_open
        && state.live() == 0
        && has_started
        && waiting.is_some_and(|waiting| {
            [QueuedReason::PeakWindow, QueuedReason::LoadTrigger].contains(&waiting.reason)
        })
}

/// Whether pods of the job end for a peak.
pub(super) fn drains(state: &JobState, verdict: Option<&Verdict>) -> bool {
    let Some(verdict) = verdict.filter(|verdict| verdict.drained) else { return false };
    let is_asked = verdict.reclaim.as_ref().is_some_and(|reclaim| reclaim.cause == ReclaimCause::PeakWindow);
    is_asked || state.pods.iter().any(|pod| pod.is_live() && pod.view.meta().is_deleting())
}
