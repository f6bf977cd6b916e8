//! Dry runs of resizes: their names, and what the answers mean.

use crate::memory::pause;
use crate::memory_safety::widest;
use crate::observed::{Member, MemberPod, RefusedBy};
use crate::sizes::{Level, Profile};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::{Member as MemberSpec, PreflightFailure};
use springtide_plumbing::clock::after;
use springtide_plumbing::error::Refusal;
use springtide_plumbing::key::{Resource, Uid};
use springtide_plumbing::plan::{Write, WriteClass};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::pod::PodView;
use springtide_plumbing::workloads::resize;
use std::sync::Arc;

/// A unit begins by answers that are no older: quotas and policies change.
pub const ANSWER_AGE: SignedDuration = SignedDuration::from_hours(1);

/// HTTP 422: the API server's own validation.
const INVALID: u16 = 422;
/// HTTP 403: admission.
const FORBIDDEN: u16 = 403;
/// What the API server says of a pod that requests more than its node has in all.
const NODE_TOO_SMALL: &str = "didn't have enough allocatable resources";

/// The name of the question whether a pod may be resized to a level.
pub fn question(uid: &Uid, level: Level) -> Arc<str> {
    format!("{uid}/{}", level.as_str()).into()
}

/// Which pod and level a question is about; `None` for one that is not of [`question`].
pub fn read_question(text: &str) -> Option<(Uid, Level)> {
    let (uid, level) = text.rsplit_once('/')?;
    let level = [Level::Valley, Level::Peak].into_iter().find(|known| known.as_str() == level)?;
    (!uid.is_empty()).then(|| (Uid(uid.into()), level))
}

/// Asks the API server whether a pod may be resized to a level, whatever its version: all of the size that may ever move,
/// as it depends on usage and room, which change, how much will.
pub fn ask(spec: &MemberSpec, pod: &PodView, profile: &Profile, level: Level, class: WriteClass) -> Write {
    let size = profile.size(level).scoped(widest(spec.memory));
    let action = resize::patch(pod, size.containers(), None).dry_run(question(&pod.meta().uid, level));
    Write { resource: Resource::POD, key: pod.meta().key.clone(), class, action }
}

/// Who refuses a resize, as far as the answer tells. The words are those of `ValidatePodResize` in
/// [validation.go](https://github.com/kubernetes/kubernetes/blob/v1.37.0/pkg/apis/core/validation/validation.go), and of the
/// admission plugin
/// [PodResizeValidator](https://github.com/kubernetes/kubernetes/blob/v1.37.0/plugin/pkg/admission/podresize/admission.go).
pub fn refused_by(refusal: &Refusal) -> RefusedBy {
    let says = |code: u16, words: &str| refusal.code == code && refusal.message.contains(words);
    let is_ineligible = says(INVALID, "cannot be resized")
        || says(INVALID, "without support for resize")
        || says(FORBIDDEN, NODE_TOO_SMALL)
        || says(FORBIDDEN, "pod resize is only supported on linux nodes");
    if refusal.is_quota() {
        RefusedBy::Quota
    } else if says(INVALID, "QOS Class may not change") {
        RefusedBy::QosClass
    } else if is_ineligible {
        RefusedBy::Ineligible
    } else {
        RefusedBy::Admission
    }
}

/// Why a unit fails of which the API server refuses a resize, in these words.
pub(super) fn failure_of(by: RefusedBy, words: &str) -> PreflightFailure {
    match by {
        RefusedBy::Quota => PreflightFailure::QuotaExceeded,
        RefusedBy::QosClass => PreflightFailure::QoSClassWouldChange,
        RefusedBy::Ineligible if words.contains(NODE_TOO_SMALL) => PreflightFailure::NodeDoesNotFit,
        RefusedBy::Ineligible => PreflightFailure::DryRunRefused,
        RefusedBy::Admission => {
            let (reason, message) = ("Forbidden".to_owned(), words.to_owned());
            let refusal = Refusal { code: FORBIDDEN, reason, message, fields: Vec::new() };
            if refusal.is_limit_range() {
                PreflightFailure::QuotaExceeded
            } else {
                PreflightFailure::DryRunRefused
            }
        }
    }
}

/// Whether a refusal says something about a unit. What a quota has room for changes with each unit that is under way, and
/// each pod is held against it alone: where our own count knows all quotas, it judges.
pub(super) fn counts(member: &Member, by: RefusedBy) -> bool {
    match by {
        RefusedBy::Quota => member.quotas.is_empty() || member.quotas.iter().any(|quota| quota.is_scoped),
        RefusedBy::QosClass | RefusedBy::Admission | RefusedBy::Ineligible => true,
    }
}

/// What is known of a resize that is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It is to be asked for: it never was, or too long ago.
    Unasked,
    /// It would be stored.
    Accepted,
    /// It would not.
    Refused {
        /// By whom.
        by: RefusedBy,
        /// From then on it is worth another question.
        again: Timestamp,
    },
}

/// What the API server has answered to a pod's resize to a level; consents from before `from` do not count. A refusal is
/// worth another question after as long as a write that was refused.
pub fn answered(
    member: &Member,
    found: &MemberPod,
    level: Level,
    from: Timestamp,
    now: Timestamp,
) -> Answered {
    let asked = &found.evidence.asked;
    let Some(answer) = asked.of(level) else { return Answered::Unasked };
    match &answer.refused {
        Some((by, _)) if counts(member, *by) => {
            Answered::Refused { by: *by, again: after(answer.at, pause(asked.refusals)) }
        }
        Some(_) | None if now < after(answer.at, ANSWER_AGE) && answer.at >= from => Answered::Accepted,
        Some(_) | None => Answered::Unasked,
    }
}
