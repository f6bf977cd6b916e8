//! TimeShareGroup: workloads that share one set of nodes, at most one of them at its peak size at a time.

mod guards;
mod members;
mod reasons;
mod rules;
mod schedule;
mod status;
mod switch;
mod traffic;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use guards::{Autoscalers, Guards, OnBreach, OnPreflightFailure, Preflight};
pub use members::{LimitsPolicy, Member, MemberContainer, MemberKind, MemberRef, MemoryPolicy};
pub use reasons::{
    AcceptedReason, AutoscalerConflictReason, CapacitySafeReason, GuardsPassingReason, HeldReason,
    PreflightFailure, PreflightPassedReason, ReadyReason, ReconcilingReason, RefusalReason,
    ScheduleValidReason, StalledReason, all as all_reasons,
};
pub use rules::IMMUTABLE_FIELDS;
pub use schedule::{
    MemberWindow, OVERRIDE_REASON_MAX_LENGTH, Override, SKIP_DATES_MAX, Schedule, WINDOWS_MAX,
};
pub use status::{
    COUNT_MAX, LAST_TRANSITIONS_MAX, LastTransition, MAX_DURATION_SECONDS, MAX_TRANSITION_ID,
    MESSAGE_MAX_BYTES, MemberStatus, NAME_MAX_LENGTH, NextTransition, PREFLIGHT_ROWS_MAX, PreflightRow,
    PreflightStatus, STUCK_MAX, StuckPod, StuckReason, TimeShareGroupStatus, Transition, TransitionCause,
    TransitionResult, UnionBudget, UnitCounts,
};
pub use switch::{OnStuck, Order, Overlap, Pairing, STEPS_MAX, Step, Switch, Unpaired};
pub use traffic::{HttpRoute, MAX_WEIGHT, Traffic, TrafficMode, ValleyTraffic};

use crate::schema;

/// Most objects in one namespace; what is beyond is not served.
pub const MAX_PER_NAMESPACE: u32 = 20;
/// Most objects in a cluster; what is beyond is not served.
pub const MAX_PER_CLUSTER: u32 = 200;
/// Fewest members of a group.
pub const MEMBERS_MIN: usize = 2;
/// Most members of a group.
pub const MEMBERS_MAX: usize = 8;
/// Most pods of a group, all members together; a larger one is not served.
pub const MAX_PODS: u32 = 20_000;
/// Most pods of all groups of a cluster; a group that would exceed it is not served.
pub const MAX_PODS_PER_CLUSTER: u32 = 50_000;
/// Most containers of one member that change their size.
pub const CONTAINERS_MAX: usize = 8;
/// Longest name of a member. A status names members some twenty times, and stays small.
pub const MEMBER_NAME_MAX_LENGTH: usize = 40;

/// Which workloads share their nodes, who of them has the peak and when, and how it changes hands.
// Each printer column has a `type_`, which clippy takes for one attribute said twice.
#[allow(clippy::duplicated_attributes)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "springtide.dev",
    version = "v1alpha1",
    kind = "TimeShareGroup",
    plural = "timesharegroups",
    shortname = "tsg",
    category = "springtide",
    namespaced,
    status = "TimeShareGroupStatus",
    derive = "PartialEq",
    doc = "Workloads whose peaks do not overlap share one set of nodes: one member's pods have their peak size and the \
           traffic, those of the others stay warm at valley size. A switch moves cpu, memory and traffic between live \
           pods, in steps and behind guards; nothing is scheduled, restarted or evicted.",
    selectable = ".spec.mode",
    selectable = ".status.activeMember",
    printcolumn(
        name = "Active",
        type_ = "string",
        description = "The member that has the peak; empty while nobody has it.",
        json_path = ".status.activeMember"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        description = "Where the group stands: reason of condition Ready.",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        description = "When the next switch begins; empty when none is known.",
        json_path = ".status.nextTransition.startTime"
    ),
    printcolumn(
        name = "Done",
        type_ = "integer",
        description = "Units of the present or last switch that are done.",
        json_path = ".status.transition.units.done"
    ),
    printcolumn(
        name = "Units",
        type_ = "integer",
        description = "Units of that switch.",
        json_path = ".status.transition.units.total"
    ),
    printcolumn(
        name = "Stuck",
        type_ = "integer",
        description = "Units of that switch that did not come through.",
        json_path = ".status.transition.units.stuck"
    ),
    printcolumn(
        name = "Saved-CPU",
        type_ = "string",
        description = "Cores that the nodes need less than if every member had its peak size at once.",
        json_path = ".status.union.saved.cpu"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        description = "Time since the object was created.",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TimeShareGroupSpec {
    /// Active switches; Observe says in the status what would be done, and writes nothing else; Paused starts nothing
    /// further, and units in flight come to rest.
    #[serde(default)]
    pub mode: Mode,
    /// The workloads that share the nodes. A workload is a member of one group: of two groups, the older one has it.
    #[schemars(
        length(min = MEMBERS_MIN, max = MEMBERS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub members: Vec<Member>,
    /// Which pods grow where nobody shrinks for them.
    #[serde(default)]
    pub pairing: Pairing,
    /// Who has the peak, and when.
    #[serde(default)]
    pub schedule: Schedule,
    /// Gives the peak to one member for a while, whatever the schedule says. Absent = the schedule decides.
    // The word alone is reserved in Rust.
    #[serde(rename = "override", default, skip_serializing_if = "Option::is_none")]
    pub override_: Option<Override>,
    /// How the peak changes hands.
    #[serde(default)]
    pub switch: Switch,
    /// What is proved before a switch, and when one has gone wrong.
    #[serde(default)]
    pub guards: Guards,
    /// Report shows a HorizontalPodAutoscaler that scales a member by its utilization, which each switch disturbs, in
    /// condition AutoscalerConflict; Refuse serves no group that has such a member. A VerticalPodAutoscaler that resizes
    /// a member's pods is always refused.
    #[serde(default)]
    pub autoscalers: Autoscalers,
}

impl TimeShareGroupSpec {
    /// A group of these members, everything else at its default: nobody has the peak.
    #[must_use]
    pub fn new(members: Vec<Member>) -> Self {
        Self {
            mode: Mode::default(),
            members,
            pairing: Pairing::default(),
            schedule: Schedule::default(),
            override_: None,
            switch: Switch::default(),
            guards: Guards::default(),
            autoscalers: Autoscalers::default(),
        }
    }
}

/// Whether pods are switched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Mode {
    /// They are.
    #[default]
    Active,
    /// They are not, and the status says what would be done.
    Observe,
    /// No further one is.
    Paused,
}

/// The CustomResourceDefinition as it is installed: what the derive gives,
/// with rules, default status and bounded, documented fields.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let crd = schema::finish(TimeShareGroup::crd(), &IMMUTABLE_FIELDS, |root| {
        rules::add(root);
        root["properties"]["status"]["default"] = crate::common::never_seen("Ready", "group");
    });
    crate::labelled(crate::with_maxima(crd, MAX_PER_NAMESPACE, MAX_PER_CLUSTER))
}
