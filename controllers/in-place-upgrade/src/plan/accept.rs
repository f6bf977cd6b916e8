//! Whether a spec is served at all.

use crate::amounts::Amounts;
use crate::content::Content;
use crate::observed::{Observed, Resizer};
use crate::previous;
use crate::spec_rules::{self, Freeze};
use crate::target::Target;
use crate::wish::Wish;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::in_place_upgrade::{MAX_PODS, RefusalReason};
use springtide_plumbing::clock::after;
use springtide_plumbing::plan::Outcome;

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
        .map_err(|invalid| Refused::new(RefusalReason::InvalidSpec, invalid.to_string()))?;
    if let Some(excess) = &observed.excess {
        return Err(Refused::new(RefusalReason::LimitExceeded, excess.clone()));
    }
    if let Some(rival) = &observed.rival {
        let message =
            format!("InPlaceUpgrade {} is older and has the same target: delete one of them", rival.name);
        return Err(Refused::new(RefusalReason::TargetTaken, message));
    }
    let Some(target) = &observed.target else {
        let until = after(observed.target_missing_since.unwrap_or(now), TARGET_GRACE);
        if now < until {
            return Err(Refused::TargetAwaited { until });
        }
        let reference = &spec.target_ref;
        let message = format!("there is no {} {}", reference.kind.as_str(), reference.name);
        return Err(Refused::new(RefusalReason::TargetNotFound, message));
    };
    let pods = observed.pods.len();
    if u32::try_from(pods).is_ok_and(|pods| pods > MAX_PODS) {
        let message = format!("the target has {pods} pods, of {MAX_PODS} at most");
        return Err(Refused::new(RefusalReason::LimitExceeded, message));
    }
    if let Some(resizer) = &observed.resizer
        && resizes(observed, target)
    {
        let (reason, name) = match resizer {
            Resizer::TimeShareGroup(name) => (RefusalReason::ConflictsWithTimeShareGroup, name),
            Resizer::VerticalPodAutoscaler(name) => (RefusalReason::ConflictsWithVerticalPodAutoscaler, name),
        };
        let message = format!("the wish changes cpu or memory, which {name} decides for these pods");
        return Err(Refused::new(reason, message));
    }
    Ok((target, freezes))
}

/// Whether the wish changes cpu or memory of what pods are made from: what it leaves is nobody's concern.
fn resizes(observed: &Observed, target: &Target) -> bool {
    let wish = Wish::of(&observed.upgrade.spec, target.template());
    let amounts = |content: &Content| -> Vec<Amounts> {
        content.containers.values().map(|container| container.amounts).collect()
    };
    let wished = amounts(&wish.template.content);
    let of_bare = match target {
        Target::ReplicaSet(set) => Some(previous::content_of_pods(set, &observed.pods)),
        Target::Deployment { .. } | Target::StatefulSet { .. } | Target::DaemonSet { .. } => None,
    };
    observed.pods.iter().any(|pod| {
        let old = of_bare.as_ref().or_else(|| target.template_of(pod));
        old.is_some_and(|old| amounts(&old.content) != wished)
    })
}
