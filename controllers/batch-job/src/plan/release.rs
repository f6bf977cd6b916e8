//! Giving ended pods back: the finalizer once their outcome is recorded, the pod once nobody waits for it.

use super::Draft;
use super::state::{Attempt, JobState};
use crate::failure::Ending;
use crate::projections::pod::{PodView, TRACKING_FINALIZER};
use jiff::{SignedDuration, Timestamp};
use springtide_plumbing::clock::after;
use springtide_plumbing::key::Resource;
use springtide_plumbing::plan::{Action, Write, WriteClass, remove_finalizer};
use springtide_plumbing::projection::Projection;
use std::collections::HashSet;

/// Plans the release of every pod whose outcome is recorded or does not matter.
///
/// Returns whether pods stay that are only kept for a time.
pub(super) fn ended_pods(state: &JobState, draft: &mut Draft, now: Timestamp) -> bool {
    let kept = kept_failures(state);
    let mut held = false;
    for pod in &state.pods {
        let disrupted = match pod.ending {
            Some(Ending::Disrupted) => true,
            Some(Ending::Succeeded | Ending::Failed(_)) if state.is_counted(pod) => false,
            Some(Ending::Succeeded | Ending::Failed(_)) | None => continue,
        };
        if let Some(until) = state.unreleased_until(&pod.view, now) {
            held = true;
            draft.wake_at(until);
            continue;
        }
        release_finalizer(&pod.view, draft);
        if pod.view.meta().is_deleting() || kept.contains(pod.view.meta().key.name.as_ref()) {
            continue;
        }
        match hold_until(state, pod).filter(|until| *until > now && !disrupted) {
            Some(until) => {
                held = true;
                draft.wake_at(until);
            }
            None => draft.end(delete(&pod.view)),
        }
    }
    held
}

/// Plans the removal of our finalizer from a pod that holds it.
pub(super) fn release_finalizer(pod: &PodView, draft: &mut Draft) {
    let meta = pod.meta();
    if let Some(action) = remove_finalizer(&meta.uid, &meta.finalizers, TRACKING_FINALIZER) {
        draft.protect(Write {
            resource: Resource::POD,
            key: meta.key.clone(),
            class: WriteClass::Protective,
            action,
        });
    }
}

/// It has ended and cannot come back, so any version of it may go; the server takes no grace for it. What gives back goes
/// before what takes.
fn delete(pod: &PodView) -> Write {
    let meta = pod.meta();
    let action = Action::Delete { uid: meta.uid.clone(), resource_version: None, grace_seconds: None };
    Write { resource: Resource::POD, key: meta.key.clone(), class: WriteClass::Protective, action }
}

/// Until when a recorded pod stays.
fn hold_until(state: &JobState, pod: &Attempt) -> Option<Timestamp> {
    let release = &state.job.spec.release;
    let seconds = |seconds: u32| (seconds > 0).then(|| SignedDuration::from_secs(seconds.into()));
    let created = pod.view.meta().creation_time;
    let for_scrapers = seconds(release.min_pod_age_seconds).map(|age| after(created, age));
    let ended = pod.finished().unwrap_or(created);
    let for_debugging = seconds(release.hold_on_failure_seconds)
        .filter(|_| matches!(pod.ending, Some(Ending::Failed(_))))
        .map(|hold| after(ended, hold));
    for_scrapers.max(for_debugging)
}

/// Names of the newest failed pods, which stay until the job goes.
fn kept_failures(state: &JobState) -> HashSet<&str> {
    let keep = state.job.spec.release.keep_failed_pods as usize;
    let mut failed: Vec<&Attempt> = state
        .pods
        .iter()
        .filter(|pod| matches!(pod.ending, Some(Ending::Failed(_))) && !pod.view.meta().is_deleting())
        .collect();
    failed.sort_by_key(|pod| {
        std::cmp::Reverse((pod.finished(), pod.view.meta().creation_time, pod.index, pod.attempt))
    });
    failed.into_iter().take(keep).map(|pod| pod.view.meta().key.name.as_ref()).collect()
}
