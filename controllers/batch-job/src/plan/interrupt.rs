//! Ending pods that may still run: by the user's word, a deadline, a failed job, a lowered parallelism,
//! a claim of the queue.

use super::course::{Course, Stop, Success};
use super::state::{Attempt, JobState, count};
use super::success;
use super::{Draft, spread};
use crate::admission::Reclaim;
use crate::status;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_job::StalledReason;
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Action, Write, WriteClass};
use springtide_plumbing::projection::Projection;

/// Plans the deletion of live pods that have to go.
pub(super) fn live_pods(state: &JobState, reclaim: Option<&Reclaim>, draft: &mut Draft, now: Timestamp) {
    // The intent comes first: why the job fails stands in its status before the first pod is ended.
    let stands =
        |reason: &str| state.job.condition(StalledReason::CONDITION).is_some_and(|c| c.reason == reason);
    let all = match &state.course {
        Course::Failing { reason, .. } => stands(reason.as_str()),
        // Neither is the word that enough has succeeded; where all did, nothing is left that could run.
        Course::Completing(Success::Policy) => success::stands(&state.job, &state.indexes),
        Course::Completing(Success::AllTasks) | Course::Finished | Course::Stopped(Stop::Drain) => true,
        // Its pods go with it: that is the garbage collector's work.
        Course::Deleting => return,
        Course::Stopped(Stop::Hold) | Course::Stuck { .. } | Course::Open => false,
    };
    let staying: Vec<&Attempt> =
        state.pods.iter().filter(|pod| pod.is_live() && !pod.view.meta().is_deleting()).collect();
    if all {
        for pod in staying {
            end(state, pod, None, draft, now);
        }
        return;
    }
    let mut ending: Vec<&Attempt> = match &state.course {
        // Nothing starts any more, and these have not.
        Course::Stopped(_) => staying.iter().copied().filter(|pod| pod.view.node.is_none()).collect(),
        Course::Deleting
        | Course::Finished
        | Course::Failing { .. }
        | Course::Completing(_)
        | Course::Stuck { .. }
        | Course::Open => taken_back(state, &staying, draft, now),
    };
    // As with a failure: why pods end stands in the status first.
    let reclaim = reclaim.filter(|reclaim| status::is_told(&state.job, reclaim));
    let is_named = |pod: &&Attempt| reclaim.is_some_and(|it| it.pods.contains(&pod.view.meta().uid));
    let is_new = |pod: &&Attempt| !ending.iter().any(|other| std::ptr::eq(*other, *pod));
    let named: Vec<&Attempt> = staying.iter().copied().filter(is_named).filter(is_new).collect();
    ending.extend(named);
    let any = reclaim.filter(|reclaim| reclaim.pods.is_empty());
    let most = match status::ends_whole(state) {
        true => 0,
        false => any.map_or(u32::MAX, |any| any.keep).min(state.job.spec.parallelism) as usize,
    };
    let surplus = (staying.len() - ending.len()).saturating_sub(most);
    if surplus > 0 {
        let mut rest: Vec<&Attempt> = staying
            .into_iter()
            .filter(|pod| !ending.iter().any(|other| std::ptr::eq(*other, *pod)))
            .collect();
        // Those that lose the least: without a node first, then the newest.
        rest.sort_by_key(|pod| {
            std::cmp::Reverse((pod.view.node.is_none(), pod.view.meta().creation_time, pod.index))
        });
        ending.extend(rest.into_iter().take(surplus));
    }
    let until = reclaim.and_then(|reclaim| reclaim.until);
    for pod in ending {
        end(state, pod, until, draft, now);
    }
}

/// Pods that were not scheduled in time. With them go those of a gang that was left half-created: one
/// that is not much older than the pod it waits for would only hold its place.
fn taken_back<'a>(
    state: &JobState,
    staying: &[&'a Attempt],
    draft: &mut Draft,
    now: Timestamp,
) -> Vec<&'a Attempt> {
    let job = &state.job;
    for until in
        staying.iter().filter_map(|pod| pod.pending_until(job, &state.facts)).filter(|until| *until > now)
    {
        draft.wake_at(until);
    }
    let overdue: Vec<&Attempt> =
        staying.iter().copied().filter(|pod| pod.is_overdue(job, &state.facts, now)).collect();
    let Some(oldest) = overdue.iter().map(|pod| pod.view.meta().creation_time).min() else {
        return match half_gang_until(state, staying.len()) {
            Some(until) if until <= now => staying.to_vec(),
            Some(until) => {
                draft.wake_at(until);
                overdue
            }
            None => overdue,
        };
    };
    let bound = staying.len() - overdue.len();
    if bound >= job.spec.min_parallelism as usize {
        return overdue;
    }
    let deadline = SignedDuration::from_secs(job.spec.pending_deadline_seconds.into());
    let is_established = |pod: &Attempt| after(pod.view.meta().creation_time, deadline) < oldest;
    if staying.iter().any(|pod| is_established(pod)) { overdue } else { staying.to_vec() }
}

/// When the pods of a gang go of which the others cannot be created. Each gang has its own moment within
/// one more deadline: of two that keep each other from completion one gives way first.
fn half_gang_until(state: &JobState, staying: usize) -> Option<Timestamp> {
    let since = state.facts.gathering?;
    let spec = &state.job.spec;
    let needed = spec.min_parallelism.min(count(state.tally.indexes.open())) as usize;
    if staying >= needed || state.dispatch.startable.is_empty() {
        return None;
    }
    let seconds = spec.pending_deadline_seconds;
    let deadline = SignedDuration::from_secs(seconds.into());
    Some(since + deadline + spread(&state.job.meta().uid, seconds as usize))
}

/// `gone_by`: a longer grace is cut to the time that is left; not to none, with which the object would go before its
/// containers do.
fn end(state: &JobState, pod: &Attempt, gone_by: Option<Timestamp>, draft: &mut Draft, now: Timestamp) {
    if let Some(until) = state.unreleased_until(&pod.view, now) {
        draft.wake_at(until);
        return;
    }
    let meta = pod.view.meta();
    let grace = state.job.spec.interruption.grace_seconds;
    let left =
        gone_by.map(|gone_by| u32::try_from(gone_by.duration_since(now).as_secs()).unwrap_or(0).max(1));
    let action = Action::Delete {
        uid: meta.uid.clone(),
        // A precondition: a pod that ended meanwhile would be deleted with its outcome.
        resource_version: Some(meta.resource_version),
        grace_seconds: Some(left.map_or(grace, |left| grace.min(left))),
    };
    draft.end(Write { resource: Resource::POD, key: meta.key.clone(), class: WriteClass::Spec, action });
}
