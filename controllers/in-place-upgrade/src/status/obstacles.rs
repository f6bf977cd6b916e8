//! What keeps pods from being changed, and what helps.

use super::standstill::is_put_off;
use crate::census::{Member, is_left_out};
use crate::machine::PodState;
use crate::message::{count, quoting};
use crate::plan::situation::Situation;
use crate::pre_pull::PrePull;
use crate::verdict::Verdict;
use springtide_crds::in_place_upgrade::{BlockedReason, PrePulledReason, StalledReason};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;
use std::collections::BTreeSet;

/// Which pods cannot be changed in place, for the reason that most of them have.
pub(super) fn blocked(situation: &Situation<'_>) -> String {
    let census = &situation.census;
    let Some(row) = census.plan.reasons.iter().find(|row| !is_left_out(row.reason, situation.ineligible))
    else {
        return format!("{} cannot be changed in place", count(census.pods.blocked, "pod"));
    };
    if row.reason == BlockedReason::AdmissionDenied
        && let Some(denial) = &situation.asked.denial
    {
        return denial.message();
    }
    let verdict = Verdict::Blocked(row.reason);
    let first = situation.members.iter().find(|member| member.judgement.verdict == verdict);
    let name = first.map(|member| &*member.pod.meta().key.name).unwrap_or_default();
    let before =
        format!("{} of {} cannot be changed in place, first ", row.count, count(census.pods.total, "pod"));
    let (why, remedy) = why(row.reason, situation, first);
    // What no pod could ever take on is not left out.
    let is_known = situation.goal.unknown_containers.is_empty();
    let policy = if is_known { ", or see spec.policy.ineligible" } else { "" };
    quoting(&before, name, &format!(": {why}; {remedy}{policy}"))
}

/// Why a pod cannot be changed, and what helps beside leaving it out.
fn why(reason: BlockedReason, situation: &Situation<'_>, member: Option<&Member>) -> (String, &'static str) {
    let (why, remedy) = match reason {
        BlockedReason::TemplateFieldNotInPlace => (
            "the wish changes more than images, cpu, memory, labels and annotations",
            "take that out of the wish",
        ),
        BlockedReason::QosClassWouldChange => {
            ("its QoS class would change", "wish requests and limits by which it stays")
        }
        BlockedReason::ResourceRemoved => {
            ("the wish takes a request or limit away", "state a value for it in the wish")
        }
        BlockedReason::ResizeUnsupported => (
            "it cannot be resized (Windows, resource claims, pod-level resources, or an old node)",
            "leave cpu and memory as they are",
        ),
        BlockedReason::ExceedsNodeAllocatable => {
            let node = member.and_then(|member| member.pod.node.as_deref()).unwrap_or_default();
            return (format!("it would request more than node {node} has"), "wish less cpu or memory");
        }
        BlockedReason::GateMissing => {
            let why =
                format!("it has not what spec.traffic.mode asks for, such as gate {}", UPGRADE_TRAFFIC.gate);
            return (why, "add it to the template, or use mode Auto");
        }
        BlockedReason::ContainerMissing => {
            let unknown = situation.goal.unknown_containers.first().map(String::as_str);
            let missing = member.and_then(|member| member.judgement.differences.missing.first());
            let name = unknown.or(missing.map(AsRef::as_ref)).unwrap_or_default();
            let remedy = "correct spec.source.inline.containers or spec.restart.containers";
            return (format!("it has no container {name} that could be changed so"), remedy);
        }
        BlockedReason::DigestUnknown => {
            ("the digest of a running image is not known", "name its image by a digest")
        }
        BlockedReason::AdmissionDenied => ("the API server refuses the change", "change what refuses it"),
        BlockedReason::StaticPod => ("a file of its node says what it is", "change that file"),
    };
    (why.to_owned(), remedy)
}

/// Why images cannot be had before a container is stopped, and what helps.
pub(super) fn not_pulled(pulled: &PrePull) -> String {
    let remedy = match pulled.reason {
        PrePulledReason::ImageNotFound => "; correct the image in the wish",
        PrePulledReason::PullDenied => "; correct the image, or the template's imagePullSecrets",
        PrePulledReason::TimedOut => "; see its registry, or raise spec.prePull.timeoutSeconds",
        PrePulledReason::PullerNotScheduled => "; see that pod's events, or set another spec.prePull.mode",
        PrePulledReason::NotObserved
        | PrePulledReason::AllNodes
        | PrePulledReason::NotNeeded
        | PrePulledReason::InProgress => "",
    };
    quoting("no container was stopped: ", &pulled.message, remedy)
}

/// Which pods do not leave traffic, and what helps; `None` while others can be changed.
///
/// Those that are put off get their traffic back and are tried again later. Once it was told it is so until one of them
/// has left.
pub(super) fn not_drained(situation: &Situation<'_>) -> Option<String> {
    let stored = situation.observed.upgrade.reason::<StalledReason>();
    let is_told = stored == Some(StalledReason::DrainFailed);
    let mut services: BTreeSet<&str> = BTreeSet::new();
    let mut stuck: Vec<&Member> = Vec::new();
    for member in &situation.members {
        match member.state() {
            PodState::NotDrained { waits_for } => {
                services.extend(waits_for.iter().map(AsRef::as_ref));
                stuck.push(member);
            }
            PodState::Draining { waits_for } if is_told => {
                services.extend(waits_for.iter().map(AsRef::as_ref));
                stuck.push(member);
            }
            PodState::Old if is_put_off(member) => stuck.push(member),
            PodState::Old
            | PodState::Resizing
            | PodState::Draining { .. }
            | PodState::Drained
            | PodState::Patched
            | PodState::Started
            | PodState::Renewed => return None,
            PodState::Updated | PodState::Unavailable | PodState::Failed(_) | PodState::Ineligible => {}
        }
    }
    let first = &stuck.first()?.pod.meta().key.name;
    let pods = count(u32::try_from(stuck.len()).unwrap_or(u32::MAX), "pod");
    let before =
        format!("{pods} did not leave traffic within spec.traffic.drain.timeoutSeconds, first {first}");
    let services = services.into_iter().collect::<Vec<&str>>().join(", ");
    let listed = if services.is_empty() { "" } else { ", listed by " };
    let remedy = "; see the EndpointSlices of its Services, or drain.onTimeout";
    Some(quoting(&format!("{before}{listed}"), &services, remedy))
}
