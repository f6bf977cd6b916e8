//! When a peak is: by a window of its own, or by a TimeShareGroup.

use jiff::{SignedDuration, Timestamp};
use springtide_crds::batch_queue::StalledReason;
use springtide_crds::batch_queue::peaks::TimeShareGroupPeak;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::time_share::TimeShareGroupView;
use springtide_plumbing::window::calendar::PeakTimes;
use springtide_plumbing::window::{Occurrence, Schedule};
use std::sync::Arc;

/// When a peak is.
#[derive(Clone, Debug)]
pub(super) enum Times {
    /// By a window.
    Window(Schedule),
    /// Whenever a TimeShareGroup has one.
    Group(PeakTimes),
}

impl Times {
    pub(super) fn occurrence_at(&self, now: Timestamp) -> Option<Occurrence> {
        match self {
            Self::Window(schedule) => schedule.occurrence_at(now),
            Self::Group(peaks) => peaks.occurrence_at(now),
        }
    }

    pub(super) fn next_after(&self, now: Timestamp) -> Option<Occurrence> {
        match self {
            Self::Window(schedule) => schedule.next_after(now),
            Self::Group(peaks) => peaks.next_after(now),
        }
    }

    pub(super) fn last_ended(&self, now: Timestamp, within: SignedDuration) -> Option<Occurrence> {
        match self {
            Self::Window(schedule) => schedule.last_ended(now, within),
            Self::Group(peaks) => peaks.last_ended(now, within),
        }
    }
}

/// When a peak has begun; `None` where nobody knows, as it is by the override of a TimeShareGroup, or has lasted for more
/// than a year.
pub(super) fn known_start(peak: &Occurrence) -> Option<Timestamp> {
    Some(peak.start).filter(|start| *start > Timestamp::UNIX_EPOCH)
}

/// Why the peaks of a TimeShareGroup are not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupProblem {
    /// No ReferenceGrant lets the queue name a group of that namespace. Whether there is one it is not told.
    #[error(
        "no ReferenceGrant in namespace {namespace} lets BatchQueues of this one name TimeShareGroup {name}"
    )]
    NotGranted {
        /// The namespace.
        namespace: String,
        /// Name of the group.
        name: String,
    },
    /// There is no such group.
    #[error("there is no TimeShareGroup {0}; create it, or give window instead")]
    NotFound(String),
    /// The group has no such member.
    #[error("there is no member {member} in TimeShareGroup {group}; name one of {members}, or none")]
    NoMember {
        /// The group.
        group: String,
        /// The member.
        member: String,
        /// Those that it has.
        members: String,
    },
    /// The schedule of the group cannot be used.
    #[error("TimeShareGroup {group}: {problem}")]
    Schedule {
        /// The group.
        group: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl GroupProblem {
    /// As it stands in condition Stalled of the queue.
    #[must_use]
    pub fn reason(&self) -> StalledReason {
        match self {
            Self::NotGranted { .. } | Self::NotFound(_) | Self::NoMember { .. } => {
                StalledReason::TimeShareGroupNotFound
            }
            Self::Schedule { .. } => StalledReason::InvalidWindow,
        }
    }

    /// That there is no group of the name.
    pub(super) fn not_found(named: &TimeShareGroupPeak) -> Self {
        Self::NotFound(described(named))
    }
}

/// Which group a queue of this namespace names.
#[must_use]
pub fn group_key(namespace: &Arc<str>, named: &TimeShareGroupPeak) -> ObjectKey {
    let other = named.namespace.as_deref();
    let namespace = other.map_or_else(|| Arc::clone(namespace), Arc::from);
    ObjectKey { namespace, name: Arc::from(named.name.as_str()) }
}

/// The peaks that a queue follows: those of this group, if it is there and the queue may name it.
///
/// # Errors
/// Why they are not known.
pub fn peaks_of(
    named: &TimeShareGroupPeak,
    group: Option<&TimeShareGroupView>,
    is_granted: bool,
) -> Result<PeakTimes, GroupProblem> {
    if let Some(namespace) = named.namespace.clone().filter(|_| !is_granted) {
        return Err(GroupProblem::NotGranted { namespace, name: named.name.clone() });
    }
    let group = group.ok_or_else(|| GroupProblem::not_found(named))?;
    let member = named.member.as_deref();
    match (group.schedule_problem(), group.peaks(member)) {
        (None, Some(peaks)) => Ok(peaks),
        (None, None) => {
            let members: Vec<&str> = group.members.iter().map(|member| &*member.name).collect();
            Err(GroupProblem::NoMember {
                group: group_text(named),
                member: member.unwrap_or_default().to_owned(),
                members: members.join(", "),
            })
        }
        (Some(problem), _) => Err(GroupProblem::Schedule { group: group_text(named), problem }),
    }
}

/// A group as it is called in messages.
fn group_text(named: &TimeShareGroupPeak) -> String {
    match &named.namespace {
        Some(namespace) => format!("{namespace}/{}", named.name),
        None => named.name.clone(),
    }
}

/// The same with the member whose peaks are meant.
fn described(named: &TimeShareGroupPeak) -> String {
    match &named.member {
        Some(member) => format!("{} with member {member}", group_text(named)),
        None => group_text(named),
    }
}
