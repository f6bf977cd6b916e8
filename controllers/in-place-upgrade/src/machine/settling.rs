//! Where a pod stands to which nothing is left to write: the kubelet and time do the rest.

use super::failure::{self, Trouble};
use super::{Evidence, Failure, Pace, PodState, Stand, container_now, is_off, restart_count};
use crate::verdict::Judgement;
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::clock::after;
use springtide_plumbing::done_rule::{DoneVerdict, NotYet, Record};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::pod::{ContainerView, PodView};

/// A kubelet that has just been restarted may say of containers with a probe that they are not ready, until it has probed
/// them: so long that is no news.
const UNREADY_MARGIN: SignedDuration = SignedDuration::from_secs(10);
/// Longer than the [done rule](springtide_plumbing::done_rule) takes beyond the grace period to be sure of a container
/// whose image is the one from before.
const SURE_MARGIN: SignedDuration = SignedDuration::from_secs(65);

/// Where it stands in the run of this name.
pub(super) fn settling(
    pod: &PodView,
    judgement: &Judgement,
    run: &str,
    pace: &Pace,
    evidence: &Evidence,
    now: Timestamp,
) -> Stand {
    let record = pod.trace.of_run(run);
    let is_off = is_off(pod, judgement.lever);
    if let Some(record) = record {
        let undone =
            pod.containers.iter().find_map(|container| match judge(pod, container, record, evidence, now) {
                DoneVerdict::Done => None,
                DoneVerdict::NotYet { reason, wake } => Some((container, reason, wake)),
            });
        if let Some((container, reason, wake)) = undone {
            return starting(pod, container, record, pace, (reason, wake), now);
        }
        if let Some(failure) = failure::of_restarts(pod, record, pace.max_restarts) {
            return Stand::at(PodState::Failed(failure));
        }
    }
    // Of a patch that restarts nothing its containers know nothing.
    let record = record.filter(|record| !record.base.is_empty());
    let in_flight = if record.is_some() || is_off { PodState::Patched } else { PodState::Unavailable };
    if let Some(ready) = pod.containers_ready.filter(|condition| condition.holds) {
        let available = after(ready.since.map_or(now, |since| since.min(now)), pace.min_ready);
        return match (now >= available, is_off, record) {
            (true, false, _) => Stand::at(PodState::Updated),
            (true, true, _) => Stand::at(PodState::Started),
            // It has to be ready by its deadline, and then stay so: one that comes and goes fails too.
            (false, _, Some(record)) => {
                let time = pace.pod_deadline.saturating_add(pace.min_ready);
                failed_or(None, after(begun(pod, record, now), time), Some(available), now)
            }
            (false, _, None) => Stand::until(in_flight, available),
        };
    }
    let trouble = |since| pod.containers.iter().find_map(|container| failure::of_container(container, since));
    let Some(record) = record else {
        return Stand::at(match trouble(pod.meta().creation_time) {
            Some(Trouble { failure, may_pass: false }) => PodState::Failed(failure),
            Some(Trouble { may_pass: true, .. }) | None => in_flight,
        });
    };
    let trouble = trouble(record.at);
    let unready_since = pod.containers_ready.and_then(|condition| condition.since);
    let in_time = after(begun(pod, record, now), pace.pod_deadline);
    let deadline = unready_since.map_or(in_time, |since| in_time.max(after(since.min(now), UNREADY_MARGIN)));
    // In traffic again: it was available once. Without a lever nothing tells, and the deadline does.
    let had_traffic = judgement.lever.is_some() && !is_off;
    if trouble.is_none() && had_traffic && now >= deadline {
        return Stand::at(PodState::Failed(Failure::ReadinessLost { since: unready_since.unwrap_or(now) }));
    }
    failed_or(trouble, deadline, None, now)
}

/// Where a pod stands one of whose changed containers does not run as it is to yet, or does not run again.
fn starting(
    pod: &PodView,
    container: &ContainerView,
    record: &Record,
    pace: &Pace,
    (reason, wake): (NotYet, Option<Timestamp>),
    now: Timestamp,
) -> Stand {
    let (trouble, time) = match reason {
        // What its status says is of before the patch.
        NotYet::NotObserved => (None, pace.pod_deadline),
        NotYet::NotRunning | NotYet::OldContainer => {
            (failure::of_changed(pod, container, record, pace.max_restarts), pace.pod_deadline)
        }
        // That it takes so long to be sure of what runs is not the pod's doing.
        NotYet::SameImage => {
            let sure = grace(pod).saturating_add(SURE_MARGIN);
            (failure::of_changed(pod, container, record, pace.max_restarts), pace.pod_deadline.max(sure))
        }
    };
    failed_or(trouble, after(begun(pod, record, now), time), wake, now)
}

/// From when on a pod has its time to become available: from its patch, or from what has ended its containers since though
/// it may.
fn begun(pod: &PodView, record: &Record, now: Timestamp) -> Timestamp {
    let again =
        pod.containers.iter().filter_map(|container| restart_count::begun_again(pod, container, record));
    let latest = again.chain(pod.sandbox_since).max();
    // The node's clock may be ahead.
    latest.map_or(record.at, |latest| record.at.max(latest.min(now)))
}

/// Failed by what its container says or by its deadline; else changed and not there yet.
fn failed_or(
    trouble: Option<Trouble>,
    deadline: Timestamp,
    wake: Option<Timestamp>,
    now: Timestamp,
) -> Stand {
    let is_late = now >= deadline;
    match trouble {
        Some(Trouble { failure, may_pass }) if is_late || !may_pass => Stand::at(PodState::Failed(failure)),
        Some(_) | None if is_late => {
            Stand::at(PodState::Failed(Failure::DeadlineExceeded { since: deadline }))
        }
        Some(_) | None => Stand::until(PodState::Patched, wake.map_or(deadline, |wake| wake.min(deadline))),
    }
}

/// Whether a container has been started anew since this run's patch.
fn judge(
    pod: &PodView,
    container: &ContainerView,
    record: &Record,
    evidence: &Evidence,
    now: Timestamp,
) -> DoneVerdict {
    let seen = evidence.candidates.get(&container.name).copied();
    record.judge(&container.name, &container_now(pod, container), grace(pod), seen, now)
}

fn grace(pod: &PodView) -> SignedDuration {
    SignedDuration::from_secs(pod.grace_seconds.into())
}
