//! Whether a spec is served at all.

use super::selection::loses_pods;
use super::situation::Course;
use crate::message::quoting;
use crate::observed::Observed;
use crate::spec_rules::{self, Freeze};
use crate::target::Target;
use crate::wish::Wish;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::in_place_upgrade::{MAX_PODS, RefusalReason, TargetKind};
use springtide_plumbing::clock::after;
use springtide_plumbing::plan::Outcome;
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::claims::Claim;
use springtide_plumbing::workloads::pod::PodView;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A target that does not show up within this time counts as missing: who applies a manifest may apply both at once.
const TARGET_GRACE: SignedDuration = SignedDuration::from_secs(60);

/// Why a spec is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It needs a person.
    For {
        /// The reason.
        reason: RefusalReason,
        /// For people.
        message: String,
    },
    /// Its target may still show up.
    TargetAwaited {
        /// When it counts as missing.
        until: Timestamp,
    },
}

impl Refused {
    fn new(reason: RefusalReason, message: impl Into<String>) -> Self {
        Self::For { reason, message: message.into() }
    }

    /// Where the object stands.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::For { .. } => Outcome::Blocked,
            Self::TargetAwaited { .. } => Outcome::Waiting,
        }
    }

    /// When to look again.
    pub(crate) fn wake(&self) -> Option<Timestamp> {
        match self {
            Self::For { .. } => None,
            Self::TargetAwaited { until } => Some(*until),
        }
    }
}

/// The target and the windows of a spec that is served.
///
/// # Errors
/// Why it is not.
pub(crate) fn accept(observed: &Observed, now: Timestamp) -> Result<(&Target, Vec<Freeze>), Refused> {
    let spec = &observed.upgrade.spec;
    let refuses = |address: &str| observed.refused_addresses.get(address).cloned();
    let freezes = spec_rules::check(spec, refuses)
        .map_err(|invalid| Refused::new(RefusalReason::InvalidSpec, invalid.message()))?;
    if let Some(excess) = &observed.excess {
        let message = format!("{excess}: delete those that nobody needs, as the oldest are served first");
        return Err(Refused::new(RefusalReason::LimitExceeded, message));
    }
    if let Some(rival) = &observed.rival {
        let message = format!(
            "InPlaceUpgrade {} is older and has the same spec.targetRef: delete one of them",
            rival.name
        );
        return Err(Refused::new(RefusalReason::TargetTaken, message));
    }
    let Some(target) = &observed.target else {
        let until = after(observed.target_missing_since.unwrap_or(now), TARGET_GRACE);
        if now < until {
            return Err(Refused::TargetAwaited { until });
        }
        return Err(Refused::new(RefusalReason::TargetNotFound, missing(observed)));
    };
    let pods = observed.pods.len();
    if u32::try_from(pods).is_ok_and(|pods| pods > MAX_PODS) {
        let message = format!(
            "the target has {pods} pods, of {MAX_PODS} at most: scale it down, or split it into several workloads"
        );
        return Err(Refused::new(RefusalReason::LimitExceeded, message));
    }
    if let Some(problem) = loses_pods(observed, target) {
        return Err(Refused::new(RefusalReason::InvalidSpec, problem));
    }
    match conflict(observed, target) {
        Some(conflict) => Err(conflict),
        None => Ok((target, freezes)),
    }
}

/// That there is no target, and what helps.
fn missing(observed: &Observed) -> String {
    let reference = &observed.upgrade.spec.target_ref;
    let namespace = &observed.upgrade.meta().key.namespace;
    let (kind, name) = (reference.kind.as_str(), &reference.name);
    let what = match reference.kind {
        TargetKind::Deployment | TargetKind::StatefulSet | TargetKind::DaemonSet => "",
        // One that a Deployment owns is changed by way of that.
        TargetKind::ReplicaSet => " that has no owner",
    };
    let remedy = "create it, or delete this upgrade, as its spec.targetRef cannot be changed";
    quoting(&format!("there is no {kind} "), name, &format!(" in namespace {namespace}{what}: {remedy}"))
}

/// Who else decides cpu or memory that the wish changes.
fn conflict(observed: &Observed, target: &Target) -> Option<Refused> {
    let group = observed.time_share.as_ref().map(|share| {
        let reason = RefusalReason::ConflictsWithTimeShareGroup;
        (reason, format!("TimeShareGroup {}", share.group), share.claim.clone())
    });
    let autoscaler = observed.autoscaler.as_ref().map(|autoscaler| {
        let reason = RefusalReason::ConflictsWithVerticalPodAutoscaler;
        let name = &autoscaler.meta().key.name;
        (reason, format!("VerticalPodAutoscaler {name}"), autoscaler.claim.clone())
    });
    let others: Vec<_> = [group, autoscaler].into_iter().flatten().collect();
    if others.is_empty() {
        return None;
    }
    let wish = Wish::of(&observed.upgrade.spec, target.template());
    match Course::of(&observed.upgrade, &wish) {
        // What is claimed is left alone, and the rest has to come to its end.
        Course::Back | Course::Finalizing => return None,
        Course::Closed | Course::RolledBack | Course::Superseded | Course::Forward | Course::Stopped => {}
    }
    others.into_iter().find_map(|(reason, who, claim)| {
        let container = contested(observed, target, &wish, &claim)?;
        let message = format!(
            "the wish changes cpu or memory of container {container}, which {who} decides: leave its resources in the \
             wish as they are in what the pods are made from"
        );
        Some(Refused::new(reason, message))
    })
}

/// The container of which the wish changes what is claimed, held against what pods are made from: what they have become
/// is the doing of whoever claims it.
fn contested(observed: &Observed, target: &Target, wish: &Wish, claim: &Claim) -> Option<Arc<str>> {
    let made_from = |pod: &PodView| match target {
        // What its pods were made from nobody knows; only an inline wish says what it changes.
        Target::ReplicaSet(set) => Some(Arc::clone(&set.template)),
        Target::Deployment { .. } | Target::StatefulSet { .. } | Target::DaemonSet { .. } => {
            target.template_of(pod).cloned()
        }
    };
    let mut looked_at = BTreeSet::new();
    let templates = observed.pods.iter().filter_map(|pod| made_from(pod));
    let mut templates = templates.filter(|template| looked_at.insert(template.whole));
    templates.find_map(|old| claim.contested(&old.content, &wish.template.content).cloned())
}
