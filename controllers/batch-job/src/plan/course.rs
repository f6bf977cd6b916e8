//! Where a job is heading: everything that decides whether it starts pods, ends them, or is done.

use super::state::Attempt;
use super::success;
use super::tally::{Tally, seconds_between};
use crate::ceiling::Standing;
use crate::indexes::{IndexError, Indexes};
use crate::memory::{Facts, RefusalKind};
use crate::projections::job::JobView;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::{DEFAULT_BACKOFF_LIMIT, FailedReason, StalledReason, StopPolicy};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::projection::Projection;

/// What becomes of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// Deletion was asked for: nothing starts, no outcome matters.
    Deleting,
    /// Its outcome is recorded; it stays until its time is over.
    Finished,
    /// It has failed; its last pods are ended first.
    Failing {
        /// Why.
        reason: FailedReason,
        /// Why, for people.
        message: String,
    },
    /// Its success is certain; pods that are left are ended.
    Completing(Success),
    /// The user stopped it.
    Stopped(Stop),
    /// Nothing starts until somebody acts; what runs goes on.
    Stuck {
        /// Why.
        reason: StalledReason,
        /// Why, for people.
        message: String,
    },
    /// It may start pods.
    Open,
}

/// Why a job has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// All its tasks did.
    AllTasks,
    /// So many did as `spec.successPolicy` asks for.
    Policy,
}

/// How the user stopped the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Running pods finish.
    Hold,
    /// Running pods are ended.
    Drain,
}

impl Course {
    /// Whether the job's last status is near: nothing will start any more.
    pub fn is_ending(&self) -> bool {
        match self {
            Self::Failing { .. } | Self::Completing(_) => true,
            Self::Deleting | Self::Finished | Self::Stopped(_) | Self::Stuck { .. } | Self::Open => false,
        }
    }
}

pub(super) fn of(
    job: &JobView,
    pods: &[Attempt],
    stored: Result<&Indexes, &IndexError>,
    tally: &Tally,
    facts: &Facts,
    standing: Standing,
    now: Timestamp,
) -> Course {
    if job.meta().is_deleting() {
        return Course::Deleting;
    }
    if job.is_finished() {
        return Course::Finished;
    }
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => {
            return Course::Stuck { reason: StalledReason::InternalError, message: error.to_string() };
        }
    };
    if let Some(failing) = decided(job) {
        return failing;
    }
    // What stands in the status is decided; of what is new, failures come first, as in batch/v1.
    if success::stands(job, stored) {
        return Course::Completing(Success::Policy);
    }
    if let Some(failing) = failure(job, pods, tally, facts, now) {
        return failing;
    }
    if success::is_met(job, tally.succeeded, &tally.indexes) {
        return Course::Completing(Success::Policy);
    }
    if tally.indexes.all_closed() {
        return Course::Completing(Success::AllTasks);
    }
    match job.spec.stop_policy {
        StopPolicy::Hold => Course::Stopped(Stop::Hold),
        StopPolicy::Drain => Course::Stopped(Stop::Drain),
        StopPolicy::None => match stuck(job, pods, facts, standing) {
            Some((reason, message)) => Course::Stuck { reason, message },
            None => Course::Open,
        },
    }
}

/// The failure that stands in the status since an earlier pass: while the last pods end, condition
/// Stalled already says why the job fails, and nothing takes that back.
fn decided(job: &JobView) -> Option<Course> {
    let stalled = job.condition(StalledReason::CONDITION)?;
    let reason = FailedReason::all().into_iter().find(|reason| reason.as_str() == stalled.reason)?;
    Some(Course::Failing { reason, message: stalled.message.clone() })
}

fn failure(job: &JobView, pods: &[Attempt], tally: &Tally, facts: &Facts, now: Timestamp) -> Option<Course> {
    let spec = &job.spec;
    let failing = |reason, message| Some(Course::Failing { reason, message });
    if let Some(fatal) = &tally.fatal {
        let message = format!(
            "pod {} ended with exit code {}, which rule {} of spec.podFailurePolicy takes as the job's failure",
            fatal.pod, fatal.exit_code, fatal.rule
        );
        return failing(FailedReason::PodFailurePolicy, message);
    }
    if let Some(max) = spec.max_failed_indexes
        && tally.failed_indexes() > max
    {
        let message = format!("{} indexes failed, spec.maxFailedIndexes is {max}", tally.failed_indexes());
        return failing(FailedReason::MaxFailedIndexesExceeded, message);
    }
    if tally.indexes.all_closed() {
        return match tally.failed_indexes() {
            0 => None,
            failed => failing(
                FailedReason::FailedIndexes,
                format!("{failed} of {} indexes failed", spec.completions),
            ),
        };
    }
    let unlimited = spec.backoff_limit_per_index.is_some();
    let limit = spec.backoff_limit.or((!unlimited).then_some(DEFAULT_BACKOFF_LIMIT));
    if let Some(limit) = limit
        && tally.failed_in_all > limit
    {
        let message = format!("{} pods failed, spec.backoffLimit is {limit}", tally.failed_in_all);
        return failing(FailedReason::BackoffLimitExceeded, message);
    }
    if let Some(refusal) =
        facts.refusal.as_ref().filter(|refusal| refusal.generation == job.meta().generation)
        && refusal.kind == RefusalKind::InvalidTemplate
    {
        return failing(FailedReason::InvalidTemplate, refusal.message.clone());
    }
    if active_deadline(job, tally).is_some_and(|at| at <= now) {
        let limit = spec.active_deadline_seconds.unwrap_or_default();
        let message = format!("the job ran longer than spec.activeDeadlineSeconds, {limit} s");
        return failing(FailedReason::DeadlineExceeded, message);
    }
    if queue_deadline(job, pods, tally, now).is_some_and(|at| at <= now) {
        let limit = spec.queue_deadline_seconds.unwrap_or_default();
        let message = format!("the job did not start within spec.queueDeadlineSeconds, {limit} s");
        return failing(FailedReason::QueueDeadlineExceeded, message);
    }
    None
}

/// When the job will have run too long, if pods go on running; `None` while none runs.
pub(crate) fn active_deadline(job: &JobView, tally: &Tally) -> Option<Timestamp> {
    let limit = job.spec.active_deadline_seconds?;
    let since = tally.running_since.as_ref()?;
    let left = i64::from(limit) - i64::from(tally.running_seconds);
    Some(after(since.0, SignedDuration::from_secs(left)))
}

/// When the job will have waited too long for its first start; `None` once it started, and while the
/// user holds it.
pub(crate) fn queue_deadline(
    job: &JobView,
    pods: &[Attempt],
    tally: &Tally,
    now: Timestamp,
) -> Option<Timestamp> {
    let limit = job.spec.queue_deadline_seconds?;
    let started = tally.start_time.is_some()
        || tally.succeeded + tally.failed_in_all > 0
        || pods.iter().any(|pod| pod.is_live() && pod.view.node.is_some());
    if started || job.spec.stop_policy != StopPolicy::None {
        return None;
    }
    let stopped = job.status.suspended_seconds.saturating_add(seconds_stopped(job, now));
    let wait = SignedDuration::from_secs(i64::from(limit) + i64::from(stopped));
    Some(after(job.meta().creation_time, wait))
}

/// Seconds since the user stopped the job, as far as the status knows of it. One that was preempted waits as before.
pub(crate) fn seconds_stopped(job: &JobView, now: Timestamp) -> u32 {
    use springtide_crds::batch_job::SuspendedReason;
    let stopped = job.condition(SuspendedReason::CONDITION).filter(|_| job.holds(SuspendedReason::CONDITION));
    let stopped = stopped.filter(|stopped| !stopped.is(SuspendedReason::Preempted));
    let since = stopped.and_then(|_| job.status.since(SuspendedReason::CONDITION));
    since.map_or(0, |since| seconds_between(since, now))
}

/// Whether the job ever had a pod, as far as anybody knows.
pub(super) fn has_started(job: &JobView, pods: &[Attempt]) -> bool {
    let status = &job.status;
    !pods.is_empty() || status.start_time.is_some() || status.succeeded + status.failed > 0
}

fn stuck(
    job: &JobView,
    pods: &[Attempt],
    facts: &Facts,
    standing: Standing,
) -> Option<(StalledReason, String)> {
    let status = &job.status;
    let started_with = status.template_hash.as_deref().or(facts.template_hash.as_deref());
    if let Some(hash) = started_with
        && *hash != *job.template.hash
    {
        let message = "spec.template was edited after the job started: restore it, or create the job again";
        return Some((StalledReason::TemplateChanged, message.to_owned()));
    }
    if !has_started(job, pods)
        && let Some(message) = standing.refusal()
    {
        return Some((StalledReason::LimitExceeded, message));
    }
    let gated = pods
        .iter()
        .filter(|pod| pod.is_live())
        .find_map(|pod| Some((pod, pod.view.scheduling_gate.as_ref()?)));
    if let Some((pod, gate)) = gated {
        let message = format!(
            "pod {} got the scheduling gate {gate}: exempt the job's pods from it",
            pod.view.meta().key.name
        );
        return Some((StalledReason::ForeignSchedulingGate, message));
    }
    let refusal = facts.refusal.as_ref().filter(|refusal| refusal.generation == job.meta().generation)?;
    match refusal.kind {
        RefusalKind::NamespaceTerminating => Some((StalledReason::Forbidden, refusal.message.clone())),
        // The admission says when the next create is due; InvalidTemplate has failed the job before this
        // is asked.
        RefusalKind::Forbidden { .. }
        | RefusalKind::Quota
        | RefusalKind::InvalidTemplate
        | RefusalKind::Unanswered { .. } => None,
    }
}
