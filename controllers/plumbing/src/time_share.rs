//! TimeShareGroup and ReferenceGrant, as those controllers see them that a group concerns: whose pods it sizes, when its
//! members have their peaks, and whether it switches at present.
//!
//! - [`TimeShareGroupView`] is one group. Its [calendar](TimeShareGroupView::calendar) is made when it is decoded.
//! - [`ReferenceGrantView`] lets objects of other namespaces name what is in its own: see [`is_granted`].
//! - [`TimeShares`] are the stores of both, which controllers share.

mod stores;
#[cfg(test)]
mod tests;

pub use stores::{GROUPS_BY_WORKLOAD, TimeShares};

use crate::key::{ObjectKey, Resource};
use crate::projection::{Meta, NoLabels, Projection};
use crate::window::calendar::{Calendar, CalendarProblem, Desired, PeakTimes};
use crate::workloads::amounts::{Amounts, Pair};
use crate::workloads::claims::Claim;
use jiff::Timestamp;
use serde::Deserialize;
use springtide_crds::common::{ConditionStatus, GROUP, ResourceAmounts, VERSION, condition};
use springtide_crds::in_place_upgrade::TargetKind;
use springtide_crds::reason::Reason;
use springtide_crds::reference_grant::{FromKind, ReferenceGrantSpec, ToKind};
use springtide_crds::time_share_group::{
    AcceptedReason, LimitsPolicy, Member, MemberKind, Mode, Override, RefusalReason, TimeShareGroupSpec,
    TimeShareGroupStatus,
};
use std::sync::Arc;

/// `springtide.dev/v1alpha1` TimeShareGroup.
pub const TIME_SHARE_GROUP: Resource = Resource {
    group: GROUP,
    version: VERSION,
    kind: "TimeShareGroup",
    plural: "timesharegroups",
    namespaced: true,
};

/// `springtide.dev/v1alpha1` ReferenceGrant.
pub const REFERENCE_GRANT: Resource = Resource {
    group: GROUP,
    version: VERSION,
    kind: "ReferenceGrant",
    plural: "referencegrants",
    namespaced: true,
};

/// One TimeShareGroup.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Wire")]
pub struct TimeShareGroupView {
    meta: Meta,
    /// Whether it switches pods at all.
    pub mode: Mode,
    /// Its members, in the order of the spec.
    pub members: Vec<MemberView>,
    /// `spec.override`, whether or not its time has come.
    pub forced: Option<Override>,
    /// When its members have their peaks, or why nobody knows.
    pub calendar: Result<Arc<Calendar>, CalendarProblem>,
    /// Why its schedule is not followed, where its controller says so of this generation: windows of members meet.
    pub refused: Option<Arc<str>>,
    /// Whether a switch is under way.
    pub is_switching: bool,
}

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// Its name.
    pub name: Arc<str>,
    /// Kind of its workload.
    pub kind: MemberKind,
    /// Namespace and name of its workload. That of another namespace counts only while it [is granted](is_granted).
    pub workload: ObjectKey,
    /// Which cpu and memory of its pods the group decides: what the sizes of its containers state, and the limits that
    /// follow them.
    pub claim: Claim,
}

impl TimeShareGroupView {
    /// The member whose workload this is. Whether a grant is needed and there, the caller sees to.
    pub fn member_of(&self, kind: TargetKind, workload: &ObjectKey) -> Option<&MemberView> {
        self.members
            .iter()
            .find(|member| TargetKind::from(member.kind) == kind && member.workload == *workload)
    }

    /// Why nobody knows when its members have their peaks, for people.
    pub fn schedule_problem(&self) -> Option<String> {
        match &self.calendar {
            Err(problem) => Some(problem.to_string()),
            Ok(_) => self.refused.as_ref().map(ToString::to_string),
        }
    }

    /// Who is to be at peak; `None` where the schedule cannot be read.
    pub fn desired(&self, now: Timestamp) -> Option<Desired> {
        Some(self.calendar.as_ref().ok()?.desired(self.forced.as_ref(), now))
    }

    /// The peaks of one member, or of all of them together; `None` where there is no such member, or the schedule cannot
    /// be read.
    pub fn peaks(&self, member: Option<&str>) -> Option<PeakTimes> {
        self.calendar.as_ref().ok()?.peaks(member, self.forced.as_ref())
    }

    /// Whether its members have their peaks at the same times as by another version of it.
    pub fn has_same_peaks(&self, other: &Self) -> bool {
        let rests_on = |group: &Self| (group.meta.uid.clone(), group.meta.generation, group.refused.clone());
        rests_on(self) == rests_on(other)
    }

    /// Whether it says the same as another version of it: in a switch its status is written every second.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let says = |group: &Self| {
            let meta = &group.meta;
            (meta.uid.clone(), meta.generation, meta.is_deleting(), group.is_switching, group.refused.clone())
        };
        says(self) == says(other)
    }
}

impl Projection for TimeShareGroupView {
    const RESOURCE: Resource = TIME_SHARE_GROUP;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// One ReferenceGrant.
#[derive(Clone, Debug, Deserialize)]
pub struct ReferenceGrantView {
    metadata: Meta,
    /// Who may name what.
    pub spec: ReferenceGrantSpec,
}

impl Projection for ReferenceGrantView {
    const RESOURCE: Resource = REFERENCE_GRANT;
    type Labels = NoLabels;

    fn meta(&self) -> &Meta {
        &self.metadata
    }
}

/// Whether objects of a kind in a namespace may name that object: it is in their own namespace, or a grant of its
/// namespace says so.
pub fn is_granted<'g>(
    grants: impl IntoIterator<Item = &'g ReferenceGrantView>,
    (from_kind, from_namespace): (FromKind, &str),
    (to_kind, to): (ToKind, &ObjectKey),
) -> bool {
    *to.namespace == *from_namespace
        || grants.into_iter().any(|grant| {
            grant.metadata.key.namespace == to.namespace
                && grant.spec.allows((from_kind, from_namespace), (to_kind, &to.name))
        })
}

#[derive(Deserialize)]
struct Wire {
    metadata: Meta,
    spec: TimeShareGroupSpec,
    #[serde(default)]
    status: TimeShareGroupStatus,
}

impl From<Wire> for TimeShareGroupView {
    fn from(Wire { metadata, spec, status }: Wire) -> Self {
        let names = spec.members.iter().map(|member| member.name.as_str());
        let calendar = Calendar::parse(&spec.schedule, names).map(Arc::new);
        let members = spec.members.iter().map(|member| MemberView::of(member, &metadata.key.namespace));
        Self {
            members: members.collect(),
            mode: spec.mode,
            forced: spec.override_,
            calendar,
            refused: refused(&metadata, &status),
            is_switching: status.transition.is_some_and(|transition| transition.completion_time.is_none()),
            meta: metadata,
        }
    }
}

/// What the controller says of the schedule, where it does not follow it.
fn refused(meta: &Meta, status: &TimeShareGroupStatus) -> Option<Arc<str>> {
    let refused = AcceptedReason::Refused(RefusalReason::InvalidSchedule);
    let said = condition(&status.conditions, AcceptedReason::CONDITION)?;
    let is_so = said.status == ConditionStatus::False
        && said.is(refused)
        && said.observed_generation == meta.generation;
    is_so.then(|| Arc::from(said.message.as_str()))
}

impl MemberView {
    fn of(member: &Member, namespace: &Arc<str>) -> Self {
        let target = &member.target_ref;
        let namespace = target.namespace.as_deref().map_or_else(|| Arc::clone(namespace), Arc::from);
        let sizes = member.containers.iter().map(|container| {
            let requests = pair(&container.peak);
            let limits = match container.limits {
                LimitsPolicy::EqualRequests | LimitsPolicy::KeepRatio => requests,
                LimitsPolicy::Keep => Pair::default(),
            };
            (Arc::from(container.name.as_str()), Amounts { requests, limits })
        });
        Self {
            name: Arc::from(member.name.as_str()),
            kind: target.kind,
            workload: ObjectKey { namespace, name: Arc::from(target.name.as_str()) },
            claim: Claim::of_stated(sizes),
        }
    }
}

/// Which of both are stated; what is no quantity counts as none, as everywhere.
fn pair(amounts: &ResourceAmounts) -> Pair {
    Pair::read(&serde_json::to_value(amounts).unwrap_or_default())
}
