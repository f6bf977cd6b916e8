//! The members of a group: their workloads, and the two sizes of their pods.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::traffic::Traffic;
use super::{CONTAINERS_MAX, MEMBER_NAME_MAX_LENGTH, rules};
use crate::common::ResourceAmounts;
use crate::in_place_upgrade::TargetKind;

/// The form of a member's name, and of a container's.
pub(super) const NAME_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A workload whose pods have a peak size and a valley size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [rules::memory_equal_unless_move()]))]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// Name of the member, for schedule, override and status.
    #[schemars(length(min = 1, max = MEMBER_NAME_MAX_LENGTH), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// The workload whose pods are switched. Its template has them at valley size.
    pub target_ref: MemberRef,
    /// Containers that change their size; others are left alone.
    #[schemars(
        length(min = 1, max = CONTAINERS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub containers: Vec<MemberContainer>,
    /// Keep leaves the memory of pods alone, which is equal in peak and valley; Move shrinks that of a pod once each of its
    /// containers uses less than nine tenths of its valley limit, and needs a metrics server.
    #[serde(default)]
    pub memory: MemoryPolicy,
    /// A pod has its peak size for so many seconds before it gets traffic.
    #[schemars(range(max = 3600))]
    #[serde(default)]
    pub warm_up_seconds: u32,
    /// How pods get traffic at their peak size, and lose it before they shrink.
    #[serde(default)]
    pub traffic: Traffic,
}

/// A workload, of the group's namespace or of one that grants it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct MemberRef {
    /// API version of the workload; apps/v1 for each kind that there is.
    #[schemars(length(max = 253), regex(pattern = "^apps/v1$"))]
    pub api_version: String,
    /// Kind of the workload. A ReplicaSet must have no Deployment that owns it.
    pub kind: MemberKind,
    /// Name of the workload.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the workload. Absent = that of the group; another one only while a ReferenceGrant there lets
    /// TimeShareGroups of the group's namespace name the workload.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Kind of a member's workload: one whose pods are alike and share nodes with those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum MemberKind {
    /// Deployment of apps/v1.
    Deployment,
    /// StatefulSet of apps/v1.
    StatefulSet,
    /// ReplicaSet of apps/v1 without an owner.
    ReplicaSet,
}

impl MemberKind {
    /// The kind as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        TargetKind::from(self).as_str()
    }
}

impl From<MemberKind> for TargetKind {
    fn from(kind: MemberKind) -> Self {
        match kind {
            MemberKind::Deployment => Self::Deployment,
            MemberKind::StatefulSet => Self::StatefulSet,
            MemberKind::ReplicaSet => Self::ReplicaSet,
        }
    }
}

/// The two sizes of one container: its requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline, extend("x-kubernetes-validations" = [
    rules::same_keys(), rules::peak_at_least_valley(), rules::valley_not_negative(),
]))]
#[serde(rename_all = "camelCase")]
pub struct MemberContainer {
    /// Name of the container in the workload's template.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,
    /// What it requests while its member has the peak.
    pub peak: ResourceAmounts,
    /// What it requests at any other time, and in the workload's template.
    pub valley: ResourceAmounts,
    /// EqualRequests makes each limit that the container has equal to its request; KeepRatio keeps limit and request in the
    /// ratio that they have in the template; Keep leaves limits alone.
    #[serde(default)]
    pub limits: LimitsPolicy,
}

/// What becomes of a container's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum LimitsPolicy {
    /// They are what it requests.
    #[default]
    EqualRequests,
    /// They grow and shrink as its requests do.
    KeepRatio,
    /// They stay.
    Keep,
}

/// Whether memory moves between members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum MemoryPolicy {
    /// It does not.
    #[default]
    Keep,
    /// It does, when it is safe.
    Move,
}
