//! What the conditions of a job say when pods of it end for somebody who goes before it.
//!
//! They say so before the first pod is ended. So it stands there for a manager that takes over between two writes, and
//! nothing but the conditions has to remember why a job has fewer pods, or none.

use crate::admission::{Reclaim, ReclaimCause, Verdict};
use crate::plan::{Attempt, Course, JobState};
use crate::projections::job::JobView;
use springtide_crds::batch_job::{DegradedReason, SuspendedReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::projection::Projection;

/// What is said of a job that has lost all its pods.
pub(super) const WHY: &str =
    "its pods end for a job that goes before it; it waits at its old place, and starts again by itself";

/// Whether the stored conditions say what is claimed of a job, and why. What is claimed for a queue that is stopped, or
/// for a window, follows from the spec of the queue at any time.
pub(crate) fn is_told(job: &JobView, reclaim: &Reclaim) -> bool {
    let degraded = |reason| job.condition(DegradedReason::CONDITION).is_some_and(|stored| stored.is(reason));
    match reclaim.cause {
        ReclaimCause::QueueStopped | ReclaimCause::PeakWindow | ReclaimCause::Degraded => true,
        ReclaimCause::QuotaShrunk => degraded(DegradedReason::QuotaShrunk),
        ReclaimCause::Reclaimed | ReclaimCause::Preempted if shrinks(Some(reclaim)) => {
            degraded(DegradedReason::Reclaimed)
        }
        ReclaimCause::Reclaimed | ReclaimCause::Preempted => says_suspended(job),
    }
}

/// Whether a claim leaves the job some of its pods.
pub(super) fn shrinks(reclaim: Option<&Reclaim>) -> bool {
    reclaim.is_some_and(|reclaim| reclaim.keep > 0)
}

/// Whether all pods of a job that may go on end, or have ended, for somebody who goes before it.
pub(super) fn is_suspended(state: &JobState, verdict: Option<&Verdict>) -> bool {
    match &state.course {
        Course::Open | Course::Stuck { .. } => {}
        Course::Deleting
        | Course::Finished
        | Course::Failing { .. }
        | Course::Completing(_)
        | Course::Stopped(_) => return false,
    }
    let is_claimed =
        verdict.and_then(|verdict| verdict.reclaim.as_ref()).is_some_and(|reclaim| match reclaim.cause {
            ReclaimCause::Reclaimed | ReclaimCause::Preempted => reclaim.keep == 0,
            ReclaimCause::QueueStopped
            | ReclaimCause::PeakWindow
            | ReclaimCause::Degraded
            | ReclaimCause::QuotaShrunk => false,
        });
    let is_short = || !state.pods.iter().any(stays) || ends_whole(state);
    is_claimed || says_suspended(&state.job) && is_short()
}

/// Whether what is left of a gang goes after those of its pods that end for another job. Their room may be enough, so
/// that nobody asks for the rest any more; but it cannot run, and would hold its own room for nothing. That its pods
/// end stands in the status, so whoever leads goes on with it.
pub(crate) fn ends_whole(state: &JobState) -> bool {
    let needed = (state.job.spec.min_parallelism as usize).min(state.tally.indexes.open().count());
    let live = state.pods.iter().filter(|pod| pod.is_live()).count();
    let staying = state.pods.iter().filter(|pod| stays(pod)).count();
    needed > 1 && (1..needed.min(live)).contains(&staying) && says_suspended(&state.job)
}

fn stays(pod: &Attempt) -> bool {
    pod.is_live() && !pod.view.meta().is_deleting()
}

fn says_suspended(job: &JobView) -> bool {
    job.condition(SuspendedReason::CONDITION).is_some_and(|stored| stored.is(SuspendedReason::Preempted))
}
