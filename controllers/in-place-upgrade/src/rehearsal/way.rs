//! The way of one pod: all writes that bring it from where it stands to the wish, when nothing comes between.

use crate::census::Member;
use crate::machine::{PodState, PodWrite, is_off};
use crate::verdict::Verdict;

/// The writes, in their order. Those of a pod that is not changed in place are at most its traffic's.
pub(super) fn way(member: &Member) -> Vec<PodWrite> {
    let back = is_off(&member.pod, member.judgement.lever).then_some(PodWrite::TrafficOn);
    match member.state() {
        PodState::Old if member.judgement.verdict == Verdict::Recreate => vec![PodWrite::Evict],
        PodState::Old => from_start(member),
        // Its traffic goes on until it is tried again.
        PodState::NotDrained { .. } => back.into_iter().chain(from_start(member)).collect(),
        PodState::Draining { .. } | PodState::Drained => {
            changes(member).chain([PodWrite::TrafficOn]).collect()
        }
        PodState::Resizing if back.is_some() => changes(member).chain(back).collect(),
        PodState::Resizing => {
            if member.judgement.differences.needs_patch() {
                patching(member)
            } else {
                Vec::new()
            }
        }
        PodState::Patched | PodState::Started | PodState::Ineligible => back.into_iter().collect(),
        PodState::Failed(failure) => back.into_iter().filter(|_| failure.leaves_pod_as_it_was()).collect(),
        PodState::Updated | PodState::Unavailable | PodState::Renewed => Vec::new(),
    }
}

fn from_start(member: &Member) -> Vec<PodWrite> {
    let differences = &member.judgement.differences;
    let resizes_first = !differences.amounts.is_empty() && !differences.resize_restarts;
    if resizes_first {
        let patch = differences.needs_patch().then(|| patching(member));
        return [PodWrite::Resize].into_iter().chain(patch.into_iter().flatten()).collect();
    }
    if drains(member) && member.judgement.verdict.restarts() {
        return [PodWrite::TrafficOff]
            .into_iter()
            .chain(changes(member))
            .chain([PodWrite::TrafficOn])
            .collect();
    }
    changes(member).collect()
}

/// Resize and patch, as far as each is needed.
fn changes(member: &Member) -> impl Iterator<Item = PodWrite> {
    let differences = &member.judgement.differences;
    let resize = (!differences.amounts.is_empty()).then_some(PodWrite::Resize);
    let patch = differences.needs_patch().then_some(PodWrite::Patch);
    resize.into_iter().chain(patch)
}

/// The patch that follows a resize, out of traffic where it restarts something.
fn patching(member: &Member) -> Vec<PodWrite> {
    if drains(member) && member.judgement.differences.restarting().next().is_some() {
        vec![PodWrite::TrafficOff, PodWrite::Patch, PodWrite::TrafficOn]
    } else {
        vec![PodWrite::Patch]
    }
}

/// Whether it is taken out of traffic before its containers stop.
fn drains(member: &Member) -> bool {
    member.judgement.lever.is_some() && !member.pod.has_not_started()
}
