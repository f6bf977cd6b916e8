//! What the status of a job says of writes that fail, beside those of its pods.

use super::{MESSAGE_MAX_BYTES, stored_summary};
use crate::plan::JobState;
use crate::projections::job::JobView;
use jiff::Timestamp;
use springtide_crds::batch_job::{BatchJobStatus, ReconcilingReason, StalledReason};
use springtide_crds::common::{ConditionWriter, remove_condition};
use springtide_crds::reason::Reason;
use springtide_plumbing::failing::{Failing, Told};
use springtide_plumbing::projection::Projection;

/// How the message of Complete begins while writes fail that are tried again by themselves.
pub(crate) const FAILS: &str = "writes fail: ";

/// What a failing write means to the conditions of a job that has not ended.
enum Failure {
    /// It goes on by itself: the message of Complete.
    Passing(String),
    /// It needs a person.
    Stalling(StalledReason, String),
}

fn failure(failing: &Failing) -> Option<Failure> {
    let message = failing.message.clone();
    Some(match failing.told()? {
        Told::NotReady => Failure::Passing(format!("{FAILS}{message}")),
        Told::Forbidden => Failure::Stalling(StalledReason::Forbidden, message),
        Told::InternalError => Failure::Stalling(StalledReason::InternalError, message),
    })
}

/// The stored status of a job that has not ended, and that it fails in it. `runs` is whether pods of it do.
pub(crate) fn of_failing(
    job: &JobView,
    runs: bool,
    failing: &Failing,
    now: Timestamp,
) -> Option<BatchJobStatus> {
    let writer = ConditionWriter {
        observed_generation: job.meta().generation,
        now,
        message_max_bytes: MESSAGE_MAX_BYTES,
    };
    let mut status = job.status.whole();
    let conditions = &mut status.conditions;
    match failure(failing)? {
        Failure::Passing(message) => {
            let summary = stored_summary(job)?;
            writer.set(conditions, summary, &message);
            if job.condition(ReconcilingReason::CONDITION).is_some() {
                writer.set(conditions, ReconcilingReason(summary), &message);
            }
        }
        // A graver reason stands there already, and stays.
        Failure::Stalling(..) if job.condition(StalledReason::CONDITION).is_some() => return None,
        Failure::Stalling(reason, message) => {
            writer.set(conditions, reason, &message);
            if !runs {
                remove_condition(conditions, ReconcilingReason::CONDITION);
            }
        }
    }
    Some(status)
}

/// What the message of Complete is instead of what it would be, while writes fail that are tried again.
pub(super) fn passing(state: &JobState) -> Option<String> {
    match failure(state.failing.as_ref()?)? {
        Failure::Passing(message) => Some(message),
        Failure::Stalling(..) => None,
    }
}

/// What else the job fails at, if it needs a person for that.
pub(super) fn stalling(state: &JobState) -> Option<(StalledReason, String)> {
    match failure(state.failing.as_ref()?)? {
        Failure::Passing(_) => None,
        Failure::Stalling(reason, message) => Some((reason, message)),
    }
}
