//! What has to be done to a pod to make it as it is wished, or why it cannot be.

use crate::change::Change;
use crate::differences::{Against, Differences, differences};
use crate::restarts;
use crate::wish::Wish;
use springtide_crds::in_place_upgrade::{BlockedReason, Ineligible, TrafficMode};
use springtide_plumbing::traffic::Lever;
use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::claims::Claim;
use springtide_plumbing::workloads::content::{Role, qos_class};
use springtide_plumbing::workloads::node::NodeView;
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

/// What is to be done to one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    UpToDate,
    /// Labels and annotations: without a drain.
    Metadata,
    /// A resize that restarts nothing: without a drain.
    Resize,
    /// Images.
    InPlace,
    /// A restart that is not for another image.
    Restart,
    /// The image of a plain init container: it has effect when the pod restarts.
    NextRestart,
    /// A new pod in its place.
    Recreate,
    /// Nothing can be.
    Blocked(BlockedReason),
}

impl Verdict {
    /// Whether containers stop, so that traffic is taken away first and images are to be there.
    pub fn restarts(self) -> bool {
        match self {
            Self::InPlace | Self::Restart => true,
            Self::UpToDate
            | Self::Metadata
            | Self::Resize
            | Self::NextRestart
            | Self::Recreate
            | Self::Blocked(_) => false,
        }
    }

    /// Whether the pod is changed by us, now or later.
    pub fn changes_in_place(self) -> bool {
        match self {
            Self::Metadata | Self::Resize | Self::InPlace | Self::Restart | Self::NextRestart => true,
            Self::UpToDate | Self::Recreate | Self::Blocked(_) => false,
        }
    }
}

/// What pods of one template are judged by.
#[derive(Clone, Copy, Debug)]
pub struct Court<'a> {
    /// The wish.
    pub wish: &'a Wish,
    /// What it changes of the template that the pod was made from.
    pub change: &'a Change,
    /// The revision that the pod is to name.
    pub revision: Option<&'a Arc<str>>,
    /// See [`Against::is_strict_on_amounts`].
    pub is_strict_on_amounts: bool,
    /// See [`Against::claims`].
    pub claims: &'a [Claim],
    /// `traffic.mode`.
    pub traffic: TrafficMode,
    /// `policy.ineligible`, but for pods that would not become as they are wished by being made anew.
    pub ineligible: Ineligible,
    /// Whether the API server has refused this change in a dry run.
    pub is_denied: bool,
}

/// A verdict and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// In what the pod differs.
    pub differences: Differences,
    /// By what its traffic is turned off; `None` where that is left alone.
    pub lever: Option<Lever>,
}

/// Judges one pod. `node` is the node that it is on, as far as nodes are seen.
pub fn judge(pod: &PodView, node: Option<&NodeView>, court: &Court<'_>) -> Judgement {
    let Court { wish, change, revision, is_strict_on_amounts, claims, .. } = *court;
    let against = Against { wish: &wish.template, change, revision, is_strict_on_amounts, claims };
    let mut differences = differences(pod, &against);
    restarts::add(pod, wish, &mut differences);
    let lever = pod.signals.lever(court.traffic);
    let verdict = verdict(pod, node, court, &differences, lever.is_err());
    Judgement { verdict, differences, lever: lever.ok().flatten() }
}

fn verdict(
    pod: &PodView,
    node: Option<&NodeView>,
    court: &Court<'_>,
    differences: &Differences,
    lacks_lever: bool,
) -> Verdict {
    let Court { wish, change, .. } = *court;
    if !wish.unknown_containers.is_empty() {
        return Verdict::Blocked(BlockedReason::ContainerMissing);
    }
    let is_changed = !differences.is_content_equal()
        || differences.keeps_amounts
        || differences.is_digest_unknown
        || change.rest;
    if !is_changed {
        return if differences.is_resize_open { resize_verdict(differences) } else { Verdict::UpToDate };
    }
    if pod.traits.is_static {
        return Verdict::Blocked(BlockedReason::StaticPod);
    }
    let obstacle = if change.rest {
        Some(BlockedReason::TemplateFieldNotInPlace)
    } else if !differences.missing.is_empty() {
        Some(BlockedReason::ContainerMissing)
    } else if differences.keeps_amounts {
        Some(BlockedReason::ResourceRemoved)
    } else if differences.is_digest_unknown {
        Some(BlockedReason::DigestUnknown)
    } else if !differences.amounts.is_empty() {
        resize_obstacle(pod, node, differences)
    } else {
        None
    };
    if let Some(reason) = obstacle {
        return match court.ineligible {
            Ineligible::Recreate => Verdict::Recreate,
            Ineligible::Block | Ineligible::Ignore => Verdict::Blocked(reason),
        };
    }
    if court.is_denied {
        return Verdict::Blocked(BlockedReason::AdmissionDenied);
    }
    let restarts = differences.restarting().next().is_some() || differences.resize_restarts;
    if restarts && lacks_lever && !pod.has_not_started() {
        return Verdict::Blocked(BlockedReason::GateMissing);
    }
    if !differences.images.is_empty() {
        Verdict::InPlace
    } else if !differences.flips.is_empty() {
        Verdict::Restart
    } else if !differences.amounts.is_empty() || differences.is_resize_open {
        resize_verdict(differences)
    } else if !differences.init_images.is_empty() {
        Verdict::NextRestart
    } else {
        Verdict::Metadata
    }
}

fn resize_verdict(differences: &Differences) -> Verdict {
    if differences.resize_restarts { Verdict::Restart } else { Verdict::Resize }
}

/// Why the pod's node or kubelet could not carry the resize out, as far as that is known before.
fn resize_obstacle(
    pod: &PodView,
    node: Option<&NodeView>,
    differences: &Differences,
) -> Option<BlockedReason> {
    let traits = &pod.traits;
    let is_unreported = differences.amounts.keys().any(|name| {
        let status = pod.container(name).and_then(|container| container.status.as_ref());
        // Before its first start there is nothing in force.
        status.is_some_and(|status| !status.container_id.is_empty() && status.amounts.is_none())
    });
    if traits.is_windows || traits.has_claims || traits.has_pod_level_resources || is_unreported {
        return Some(BlockedReason::ResizeUnsupported);
    }
    let after = amounts_after(pod, differences);
    let before: Vec<Amounts> = pod.containers.iter().map(|container| container.amounts).collect();
    if qos_class(&before) != qos_class(&after) {
        return Some(BlockedReason::QosClassWouldChange);
    }
    let allocatable = node.map(|node| node.allocatable)?;
    let total = |of: fn(&Amounts) -> Option<i64>| {
        let running = pod.containers.iter().zip(&after).filter(|(container, _)| match container.role {
            Role::Main | Role::Sidecar => true,
            Role::Init => false,
        });
        running.filter_map(|(_, amounts)| of(amounts)).fold(0_i64, i64::saturating_add)
    };
    let cpu = total(|amounts| amounts.requests.cpu.or(amounts.limits.cpu));
    let memory = total(|amounts| amounts.requests.memory.or(amounts.limits.memory));
    let exceeds = |total: i64, room: Option<i64>| room.is_some_and(|room| total > room);
    (exceeds(cpu, allocatable.cpu) || exceeds(memory, allocatable.memory))
        .then_some(BlockedReason::ExceedsNodeAllocatable)
}

/// Amounts of all containers once those that differ are as they are wished.
fn amounts_after(pod: &PodView, differences: &Differences) -> Vec<Amounts> {
    let after = pod.containers.iter().map(|container| {
        let wished = differences.amounts.get(&container.name).copied();
        container.amounts.overlaid(wished.unwrap_or_default())
    });
    after.collect()
}

#[cfg(test)]
mod tests;
