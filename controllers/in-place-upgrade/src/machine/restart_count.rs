//! How often a changed container has ended since its patch, by its own doing.
//!
//! `restartCount` counts whatever has started a container anew: the patch itself, the end of the old version just before
//! its kubelet saw the patch, and a node or a runtime that ended with all that ran on it. None of these says anything
//! about the new version. What the status tells of the container that ran before says which it was.

use jiff::Timestamp;
use springtide_plumbing::done_rule::Record;
use springtide_plumbing::workloads::pod::{ContainerState, ContainerView, PodView};

/// Its ends beyond the one that the patch asks for. One that is about to start again has ended already.
///
/// An end that comes of the pod's sandbox takes all ends before with it: what had been too many has been told. In doubt
/// one is left out, such as the first one in a new sandbox, whose time is that of the status that tells of it.
pub(super) fn count(pod: &PodView, container: &ContainerView, record: &Record) -> u32 {
    let Some(status) = &container.status else { return 0 };
    let ends = ends(container, record);
    let last = match &status.state {
        ContainerState::Running { .. } | ContainerState::Waiting { .. } => status.last,
        ContainerState::Terminated(ended) => Some(*ended),
    };
    let Some(last) = last.filter(|_| ends > 0) else { return ends };
    let has_run_since_before = |time: Timestamp| last.started.is_some_and(|started| started <= time);
    if last.is_lost || has_run_since_before(record.at) {
        return 0;
    }
    match pod.sandbox_since.filter(|since| *since > record.at) {
        None => ends,
        Some(since) if has_run_since_before(since) => 0,
        // One of them at least is that of the sandbox before.
        Some(_) => ends.saturating_sub(1).max(1),
    }
}

/// Since when a changed container that has ended again is on its way: since its pod is not ready, or, where that is ready
/// again, since it runs. `None` of one that has not.
pub(super) fn begun_again(pod: &PodView, container: &ContainerView, record: &Record) -> Option<Timestamp> {
    let ready = pod.containers_ready.filter(|_| ends(container, record) > 0)?;
    if !ready.holds {
        return ready.since;
    }
    match container.status.as_ref()?.state {
        ContainerState::Running { started } => started,
        ContainerState::Waiting { .. } | ContainerState::Terminated(_) => None,
    }
}

/// All its ends beyond the one that the patch asks for.
fn ends(container: &ContainerView, record: &Record) -> u32 {
    let Some(status) = &container.status else { return 0 };
    let pending = match status.state {
        ContainerState::Running { .. } => 0,
        ContainerState::Waiting { .. } | ContainerState::Terminated(_) => 1,
    };
    record.further_restarts(&container.name, status.restarts.saturating_add(pending))
}
