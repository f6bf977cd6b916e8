//! The status of a job and its conditions, as a pure function of what was observed.

mod failing;
mod peak;
mod preempted;
mod stalled;

pub(crate) use failing::{FAILS, of_failing};
pub(crate) use preempted::{ends_whole, is_told};
use stalled::stalled;
pub(crate) use stalled::{stalling_time, stalls_later};

use crate::admission::{QueueId, ReclaimCause, Verdict, Waiting};
use crate::memory::RefusalKind;
use crate::plan::{Attempt, Course, JobState, Stop, Success, seconds_stopped};
use crate::profiles::fitting::Fitting;
use crate::projections::job::JobView;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use springtide_crds::batch_job::{
    AdmittedReason, BatchJobStatus, CompleteReason, DegradedReason, IndexStatus, MESSAGE_MAX_BYTES,
    QueuedReason, ReconcilingReason, StalledReason, StopPolicy, SuspendedReason,
};
use springtide_crds::common::{ConditionStatus, ConditionWriter, remove_condition, whole_seconds};
use springtide_crds::reason::Reason;
use springtide_plumbing::failing::TRANSIENT_PASSES;
use springtide_plumbing::projection::Projection;

/// What is said while pods start as they should.
pub(crate) const STARTING: &str = "the first pods are starting";

/// The status a job should have now.
#[derive(Clone, Debug)]
pub struct Outlook {
    /// The status.
    pub status: BatchJobStatus,
    /// The reason of its condition Complete.
    pub summary: CompleteReason,
    /// The message of its condition Complete.
    pub message: String,
    /// Its pods end for a peak, of which the status of its queue tells.
    pub yields: bool,
}

/// The status that follows from what was observed.
pub fn outlook(state: &JobState, verdict: Option<&Verdict>, now: Timestamp) -> Outlook {
    let job = &state.job;
    let writer = ConditionWriter {
        observed_generation: job.meta().generation,
        now,
        message_max_bytes: MESSAGE_MAX_BYTES,
    };
    if state.course == Course::Finished {
        return finished(state);
    }
    let waiting = waiting(verdict);
    let yields = peak::drains(state, verdict);
    let (summary, mut message) = summary(state, waiting, yields);
    let mut status = job.status.whole();
    status.observed_generation = job.meta().generation;
    if !has_unreadable_record(state) {
        progress(state, verdict, &mut status, now);
    }
    let is_final = match summary {
        CompleteReason::Completed | CompleteReason::SuccessPolicyMet | CompleteReason::Failed(_) => true,
        CompleteReason::Pending
        | CompleteReason::Queued
        | CompleteReason::Admitted
        | CompleteReason::Running
        | CompleteReason::Draining
        | CompleteReason::Suspended
        | CompleteReason::Finishing => false,
    };
    if is_final {
        status.completion_time = Some(whole_seconds(now));
        status.granted = 0;
        status.active = 0;
    }
    if let (false, Some(failure)) = (is_final, failing::passing(state)) {
        message = failure;
    }
    let conditions = &mut status.conditions;
    writer.set(conditions, summary, &message);
    let stalled = stalled(state, waiting, now);
    // A job that needs a person, and of which nothing runs, is not on its way: tools that wait for it are
    // to say so at once.
    let goes_on = state.course.is_ending() || state.pods.iter().any(Attempt::is_running);
    let is_on_its_way = !is_final && (stalled.is_none() || goes_on);
    if is_on_its_way {
        writer.set(conditions, ReconcilingReason(summary), &message);
    } else {
        remove_condition(conditions, ReconcilingReason::CONDITION);
    }
    if let CompleteReason::Failed(reason) = summary {
        writer.set(conditions, reason, &message);
    }
    match stalled {
        Some((reason, message)) => writer.set(conditions, reason, &message),
        None => remove_condition(conditions, StalledReason::CONDITION),
    }
    let (reason, why) = queued(state, waiting, is_final);
    writer.set(conditions, reason, &why);
    let (reason, why) = admitted(state, verdict, status.admitted_time.as_ref(), is_final);
    writer.set(conditions, reason, &with_profile(state, reason, why));
    if let Some((reason, why)) = suspended(state, verdict) {
        writer.set(conditions, reason, why);
    }
    if let Some((reason, why)) = degraded(state, verdict) {
        writer.set(conditions, reason, why);
    }
    Outlook { status, summary, message, yields }
}

/// A finished job has heard of an edit, and that is all that can still happen to its status.
fn finished(state: &JobState) -> Outlook {
    let mut status = state.job.status.whole();
    status.observed_generation = state.job.meta().generation;
    for condition in &mut status.conditions {
        condition.observed_generation = status.observed_generation;
    }
    let message = state.job.condition(CompleteReason::CONDITION).map(|stored| stored.message.clone());
    let summary = stored_summary(&state.job).unwrap_or(CompleteReason::Completed);
    Outlook { status, summary, message: message.unwrap_or_default(), yields: false }
}

fn stored_summary(job: &JobView) -> Option<CompleteReason> {
    let stored = job.condition(CompleteReason::CONDITION)?;
    CompleteReason::all().into_iter().find(|reason| stored.is(*reason))
}

fn has_unreadable_record(state: &JobState) -> bool {
    matches!(state.course, Course::Stuck { reason: StalledReason::InternalError, .. })
}

/// Everything in the status but conditions.
fn progress(state: &JobState, verdict: Option<&Verdict>, status: &mut BatchJobStatus, now: Timestamp) {
    let (job, tally) = (&state.job, &state.tally);
    let live = state.live();
    if status.admitted_time.is_none() {
        let first = state.pods.iter().map(|pod| pod.view.meta().creation_time).min();
        status.admitted_time = first.map(whole_seconds);
    }
    if status.template_hash.is_none() && status.admitted_time.is_some() {
        let hash = state.facts.template_hash.as_ref().unwrap_or(&job.template.hash);
        status.template_hash = Some(hash.to_string());
    }
    status.queue = state.placement.queue_name().map(str::to_owned);
    status.start_time.clone_from(&tally.start_time);
    status.running_since_time.clone_from(&tally.running_since);
    status.running_seconds = tally.running_seconds;
    let is_suspended = is_suspended_by_queue(state) || peak::suspends(state, waiting(verdict));
    if job.spec.stop_policy == StopPolicy::None && !is_suspended {
        status.suspended_seconds = status.suspended_seconds.saturating_add(seconds_stopped(job, now));
    }
    status.active = live;
    status.granted = verdict.map_or(live, |verdict| verdict.granted.max(live));
    status.succeeded = tally.succeeded;
    status.failed = tally.failed;
    // Another process may have counted further, while it led.
    status.disrupted = status.disrupted.max(state.facts.disrupted);
    let indexes = tally.indexes.encode();
    if !job.is_single() && (indexes != IndexStatus::default() || status.indexes.is_some()) {
        status.indexes = Some(indexes);
    }
    status.exit_codes.clone_from(&tally.exit_codes);
    status.result.clone_from(&tally.result);
    status.last_failures.clone_from(&tally.last_failures);
    // What another process gave to pods stays as it was written, unless nothing was.
    let is_news = state.facts.fitted.is_some() || (live > 0 && status.profile.is_none());
    if let Some(profile) = given(state).status().filter(|_| is_news) {
        status.profile = Some(profile);
    }
}

fn summary(state: &JobState, waiting: Option<&Waiting>, yields: bool) -> (CompleteReason, String) {
    let job = &state.job;
    let live = state.live();
    match &state.course {
        Course::Failing { reason, message } if live == 0 => {
            (CompleteReason::Failed(*reason), message.clone())
        }
        Course::Failing { message, .. } => (CompleteReason::Finishing, message.clone()),
        Course::Completing(Success::Policy) if live == 0 => {
            let message = format!(
                "{} of {} tasks succeeded, which is enough by spec.successPolicy",
                state.tally.succeeded, job.spec.completions
            );
            (CompleteReason::SuccessPolicyMet, message)
        }
        Course::Completing(Success::AllTasks) | Course::Finished if live == 0 => {
            let message = match job.spec.completions {
                1 => "the task succeeded".to_owned(),
                tasks => format!("all {tasks} tasks succeeded"),
            };
            (CompleteReason::Completed, message)
        }
        Course::Completing(_) | Course::Finished => {
            (CompleteReason::Finishing, "the result is certain; the last pods are ending".to_owned())
        }
        Course::Deleting => (CompleteReason::Draining, "the job is being deleted".to_owned()),
        Course::Stopped(Stop::Drain) if live > 0 => {
            (CompleteReason::Draining, "spec.stopPolicy is Drain; the pods are ending".to_owned())
        }
        Course::Stopped(_) if live == 0 => {
            let policy = job.spec.stop_policy;
            (CompleteReason::Suspended, format!("spec.stopPolicy is {policy:?}; set it to None to go on"))
        }
        Course::Stuck { .. } | Course::Open if is_suspended_by_queue(state) => {
            let queue = state.placement.queue_name().unwrap_or_default();
            if live > 0 {
                let message = format!("spec.stopPolicy of queue {queue} is Drain; the pods are ending");
                (CompleteReason::Draining, message)
            } else {
                (CompleteReason::Suspended, format!("spec.stopPolicy of queue {queue} is Drain"))
            }
        }
        Course::Stuck { .. } | Course::Open if yields => {
            (CompleteReason::Draining, "a peak window is near or open; the pods are ending".to_owned())
        }
        Course::Open if peak::suspends(state, waiting) => {
            (CompleteReason::Suspended, waiting.map(|waiting| waiting.message.clone()).unwrap_or_default())
        }
        Course::Stopped(_) | Course::Stuck { .. } | Course::Open => {
            let running = state.pods.iter().filter(|pod| pod.is_running()).count();
            if running > 0 {
                return (CompleteReason::Running, format!("pods running: {running}"));
            }
            if live > 0 {
                let obstacle = obstacle(state).or_else(|| unfit(state));
                return (CompleteReason::Admitted, obstacle.unwrap_or_else(|| STARTING.to_owned()));
            }
            idle(state, waiting)
        }
    }
}

/// Why the first pod that cannot start does not.
fn obstacle(state: &JobState) -> Option<String> {
    state.pods.iter().filter(|pod| pod.is_live()).find_map(|pod| {
        let obstacle = pod.view.task.as_deref()?.obstacle.as_deref()?;
        Some(format!("pod {}: {obstacle}", pod.view.meta().key.name))
    })
}

/// What the first pod waits for that was made though no node had room for it.
fn unfit(state: &JobState) -> Option<String> {
    let pod = state.pods.iter().find(|pod| pod.waits_for_node() && pod.view.meta().labels.unfit.0)?;
    Some(format!("no node has room for pod {}: it waits for a new one", pod.view.meta().key.name))
}

/// What an unfinished job without pods waits for.
fn idle(state: &JobState, waiting: Option<&Waiting>) -> (CompleteReason, String) {
    if let Course::Stuck { reason, message } = &state.course {
        let summary = match reason {
            StalledReason::LimitExceeded
            | StalledReason::Forbidden
            | StalledReason::QueueNotFound
            | StalledReason::QueueNameRequired
            | StalledReason::TierNotAllowed => CompleteReason::Queued,
            StalledReason::NeverFits
            | StalledReason::NameConflict
            | StalledReason::ForeignSchedulingGate
            | StalledReason::TemplateChanged
            | StalledReason::InternalError
            | StalledReason::Failed(_) => CompleteReason::Admitted,
        };
        return (summary, message.clone());
    }
    let dispatch = &state.dispatch;
    if let Some((_, message)) = waits_for(state, waiting) {
        return (CompleteReason::Queued, message);
    }
    if !dispatch.startable.is_empty() {
        return (CompleteReason::Admitted, "the first pods are being created".to_owned());
    }
    if let Some(conflict) = conflict_message(state) {
        return (CompleteReason::Admitted, conflict);
    }
    if let Some(pod) = &dispatch.held_by {
        return (CompleteReason::Queued, name_held(pod));
    }
    match dispatch.next_retry {
        Some((index, at)) => (CompleteReason::Admitted, format!("task {index} is tried again at {at:.0}")),
        None => (CompleteReason::Admitted, "the last pod is ending".to_owned()),
    }
}

/// What the job waits for, by the admission's word or by what the API server refused.
fn waits_for(state: &JobState, waiting: Option<&Waiting>) -> Option<(QueuedReason, String)> {
    match waiting {
        Some(waiting) if waiting.reason != QueuedReason::ClassBackoff => {
            Some((waiting.reason, waiting.message.clone()))
        }
        Some(waiting) => {
            let refusal = refusal(state).unwrap_or_else(|| waiting.message.clone());
            Some((QueuedReason::ClassBackoff, refusal))
        }
        // The next try is a try: until a pod could be created, it waits as before.
        None if state.dispatch.startable.is_empty() => None,
        None => refusal(state).map(|refusal| (QueuedReason::ClassBackoff, refusal)),
    }
}

/// How the API server refused the last pod, of which none could be created since: as this process
/// remembers it, else as the status says.
fn refusal(state: &JobState) -> Option<String> {
    let job = &state.job;
    if let Some(refusal) = &state.facts.refusal {
        let is_told = match refusal.kind {
            RefusalKind::Unanswered { attempts } => attempts >= TRANSIENT_PASSES,
            RefusalKind::InvalidTemplate
            | RefusalKind::Quota
            | RefusalKind::Forbidden { .. }
            | RefusalKind::NamespaceTerminating => true,
        };
        return (is_told && refusal.generation == job.meta().generation).then(|| refusal.message.clone());
    }
    let stored = job.condition(QueuedReason::CONDITION)?;
    (stored.is(QueuedReason::ClassBackoff) && !state.facts.created).then(|| stored.message.clone())
}

fn name_held(pod: &str) -> String {
    format!("pod {pod} of an earlier job of this name is still ending")
}

fn conflict_message(state: &JobState) -> Option<String> {
    let conflict = state.conflicts.first()?;
    let owner = if conflict.owner.is_empty() { "nobody" } else { conflict.owner.as_str() };
    Some(format!("pod {} belongs to {owner}, and this job needs its name: delete it", conflict.pod.name))
}

fn queued(state: &JobState, waiting: Option<&Waiting>, is_final: bool) -> (QueuedReason, String) {
    if is_final {
        return (QueuedReason::Finished, "the job has ended".to_owned());
    }
    match &state.course {
        Course::Stopped(_) => return (QueuedReason::Suspended, "spec.stopPolicy holds the job".to_owned()),
        Course::Stuck { reason: StalledReason::LimitExceeded, message } => {
            return (QueuedReason::QueueFull, message.clone());
        }
        Course::Stuck { reason: StalledReason::Forbidden, message } => {
            return (QueuedReason::ClassBackoff, message.clone());
        }
        Course::Deleting
        | Course::Finished
        | Course::Failing { .. }
        | Course::Completing(_)
        | Course::Stuck { .. }
        | Course::Open => {}
    }
    match (waits_for(state, waiting), &state.dispatch.held_by) {
        (Some(waits), _) => waits,
        (None, Some(pod)) => (QueuedReason::NameHeld, name_held(pod)),
        (None, None) => (QueuedReason::Admitted, "every pod the job may have now is granted".to_owned()),
    }
}

fn admitted(
    state: &JobState,
    verdict: Option<&Verdict>,
    admitted_time: Option<&Time>,
    is_final: bool,
) -> (AdmittedReason, &'static str) {
    const WAITS: (AdmittedReason, &str) =
        (AdmittedReason::Waiting, "condition Queued says what the job waits for");
    let granted = match &state.placement.queue {
        Some(QueueId::Object(_)) => (AdmittedReason::Granted, "the job's queue granted capacity"),
        Some(QueueId::BuiltIn) | None => {
            (AdmittedReason::BuiltInQueue, "the built-in queue granted capacity")
        }
    };
    if is_final {
        return if admitted_time.is_some() {
            granted
        } else {
            (AdmittedReason::Waiting, "the job never started")
        };
    }
    if state.live() > 0 {
        return granted;
    }
    let waiting = verdict.and_then(|verdict| verdict.waiting.as_ref());
    match &state.course {
        Course::Stopped(_) => (AdmittedReason::Suspended, "spec.stopPolicy holds the job"),
        Course::Open if waiting.is_some() && preempted::is_suspended(state, verdict) => {
            (AdmittedReason::Preempted, preempted::WHY)
        }
        Course::Stuck { reason: StalledReason::LimitExceeded | StalledReason::Forbidden, .. } => WAITS,
        Course::Open if waiting.is_some() && state.facts.pending_deadline => {
            (AdmittedReason::PendingDeadline, "pods were not scheduled in time, and were taken back")
        }
        Course::Open if waits_for(state, waiting).is_some() || is_held(state) => WAITS,
        Course::Deleting
        | Course::Finished
        | Course::Failing { .. }
        | Course::Completing(_)
        | Course::Stuck { .. }
        | Course::Open => granted,
    }
}

/// What was granted, and what the profile made of it. Of pods that another process created the stored message tells: the
/// profile has learned since, and each job would be written for that.
fn with_profile(state: &JobState, reason: AdmittedReason, why: &str) -> String {
    let stored = state.job.condition(AdmittedReason::CONDITION).filter(|stored| stored.is(reason));
    if let Some(stored) = stored.filter(|_| state.facts.fitted.is_none() && state.has_started())
        && stored.message.strip_prefix(why).is_some_and(|note| note.starts_with("; "))
    {
        return stored.message.clone();
    }
    let note = &given(state).note;
    match reason.status() {
        ConditionStatus::True if !note.is_empty() => format!("{why}; {note}"),
        ConditionStatus::True | ConditionStatus::False | ConditionStatus::Unknown => why.to_owned(),
    }
}

/// What the profile gave to the last pods, as far as this process created them, else what it gives now.
fn given(state: &JobState) -> &Fitting {
    state.facts.fitted.as_deref().unwrap_or(&state.fitting)
}

fn is_held(state: &JobState) -> bool {
    state.dispatch.held_by.is_some() && state.dispatch.startable.is_empty()
}

fn suspended(state: &JobState, verdict: Option<&Verdict>) -> Option<(SuspendedReason, &'static str)> {
    let waiting = verdict.and_then(|verdict| verdict.waiting.as_ref());
    // The end of the job does not change that it was stopped.
    let is_stopped = matches!(state.course, Course::Stopped(_));
    match state.job.spec.stop_policy {
        StopPolicy::Hold => is_stopped.then_some((SuspendedReason::UserHold, "spec.stopPolicy is Hold")),
        StopPolicy::Drain => is_stopped.then_some((SuspendedReason::UserDrain, "spec.stopPolicy is Drain")),
        StopPolicy::None if is_suspended_by_queue(state) => {
            Some((SuspendedReason::QueueStopped, "spec.stopPolicy of the job's queue is Drain"))
        }
        StopPolicy::None if peak::suspends(state, waiting) => Some((SuspendedReason::PeakWindow, peak::WHY)),
        StopPolicy::None if preempted::is_suspended(state, verdict) => {
            Some((SuspendedReason::Preempted, preempted::WHY))
        }
        StopPolicy::None => {
            let stored = state.job.condition(SuspendedReason::CONDITION)?;
            let was_in_peak = stored.is(SuspendedReason::PeakWindow);
            let why = if was_in_peak { "the peak is over" } else { "nothing stops the job" };
            Some((SuspendedReason::Resumed, why))
        }
    }
}

/// Whether the queue has stopped a job that had started: one that had not waits as ever.
fn is_suspended_by_queue(state: &JobState) -> bool {
    state.is_drained() && state.has_started()
}

fn waiting(verdict: Option<&Verdict>) -> Option<&Waiting> {
    verdict.and_then(|verdict| verdict.waiting.as_ref())
}

/// Whether the job has fewer pods than it had been granted, for another's sake.
fn degraded(state: &JobState, verdict: Option<&Verdict>) -> Option<(DegradedReason, &'static str)> {
    let reclaim = verdict.and_then(|verdict| verdict.reclaim.as_ref());
    let shrinks = preempted::shrinks(reclaim);
    match reclaim.map(|reclaim| reclaim.cause).or(state.facts.taken) {
        Some(ReclaimCause::QuotaShrunk) => {
            return Some((DegradedReason::QuotaShrunk, "the quota of the job's queue was cut"));
        }
        Some(ReclaimCause::Reclaimed) if shrinks => {
            return Some((DegradedReason::Reclaimed, "the queue that had lent its quota needs it itself"));
        }
        Some(ReclaimCause::Preempted) if shrinks => {
            return Some((
                DegradedReason::Reclaimed,
                "a higher tier or priority of its queue needs the room",
            ));
        }
        Some(ReclaimCause::Degraded) => {
            return Some((
                DegradedReason::PeakWindow,
                "a peak window or load trigger leaves the job's tier less",
            ));
        }
        // Of what ends all pods of the job condition Suspended tells.
        Some(
            ReclaimCause::Reclaimed
            | ReclaimCause::Preempted
            | ReclaimCause::QueueStopped
            | ReclaimCause::PeakWindow,
        )
        | None => {}
    }
    let was_degraded = state.job.holds(DegradedReason::CONDITION);
    // What is still on its way out counts as its own to the admission.
    let has_all = verdict.is_none_or(|verdict| verdict.waiting.is_none())
        && !state.pods.iter().any(|pod| pod.view.meta().is_deleting());
    (was_degraded && has_all)
        .then_some((DegradedReason::FullParallelism, "the job has every pod that it may have"))
}
