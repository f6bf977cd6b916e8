//! The status of a TimeShareGroup.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::reasons::{CONDITION_TYPES, PreflightFailure};
use super::switch::STEPS_MAX;
use super::{MEMBER_NAME_MAX_LENGTH, MEMBERS_MAX};
use crate::common::{Condition, MAX_GENERATION, ResourceAmounts, conditions_schema, time_schema};

/// Longest condition message of a TimeShareGroup, in bytes of its JSON form.
pub const MESSAGE_MAX_BYTES: usize = 150;
/// Longest name of a pod or a node that is kept; a longer one is cut.
pub const NAME_MAX_LENGTH: usize = 63;
/// Most rows of [`TimeShareGroupStatus::last_transitions`].
pub const LAST_TRANSITIONS_MAX: usize = 8;
/// Longest UID: 32 hexadecimal digits and four dashes.
const UID_MAX_LENGTH: usize = 36;
/// Most rows of [`TimeShareGroupStatus::stuck`].
pub const STUCK_MAX: usize = 5;
/// Most rows of [`PreflightStatus::failures`].
pub const PREFLIGHT_ROWS_MAX: usize = 5;
/// Bound of each counter. No group that is served has as many pods; what is beyond is said as this.
pub const COUNT_MAX: u32 = 99_999;
/// Highest [`Transition::id`].
pub const MAX_TRANSITION_ID: u32 = 999_999_999;
/// Longest [`LastTransition::duration_seconds`], three years; what is beyond is said as this.
pub const MAX_DURATION_SECONDS: u32 = 99_999_999;

/// What the controller last observed and decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TimeShareGroupStatus {
    /// The metadata.generation this status was computed for; 0 before the controller has seen the object.
    #[schemars(range(min = 0, max = MAX_GENERATION))]
    #[serde(default)]
    pub observed_generation: i64,
    /// Where the group stands.
    #[schemars(schema_with = "conditions")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The member that has the peak; it changes when a switch ends. Absent while nobody has it.
    #[schemars(length(max = MEMBER_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_member: Option<String>,
    /// The member that is to have the peak, by override, window or default. Absent when nobody is.
    #[schemars(length(max = MEMBER_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_member: Option<String>,
    /// The next switch that the schedule asks for; absent when none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_transition: Option<NextTransition>,
    /// The present switch, or the last one; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<Transition>,
    /// The pods of each member, those that are ending or have ended left out; also of members that were taken out of the
    /// spec, until these have the size that their workload makes them with.
    #[schemars(
        length(max = MEMBERS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<MemberStatus>,
    /// What the members need of their nodes together; absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub union: Option<UnionBudget>,
    /// The last preflight; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preflight: Option<PreflightStatus>,
    /// Switches that ended, the last one first.
    #[schemars(
        length(max = LAST_TRANSITIONS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["id"])
    )]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_transitions: Vec<LastTransition>,
    /// Pods of units that did not come through in the present or last switch, those that are stuck longest first; how many
    /// units there are is in transition.units.stuck.
    #[schemars(length(max = STUCK_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stuck: Vec<StuckPod>,
}

/// A switch to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct NextTransition {
    /// The member that gets the peak; absent when nobody does.
    #[schemars(length(max = MEMBER_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// When the switch begins: the lead of a window before its start, or its end.
    #[schemars(schema_with = "time_schema")]
    pub start_time: Time,
}

/// A switch, as far as it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// Its number, one above that of the switch before. The order of its units follows from it.
    #[schemars(range(min = 1, max = MAX_TRANSITION_ID))]
    pub id: u32,
    /// The member that gives the peak up; absent when nobody had it.
    #[schemars(length(max = MEMBER_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The member that gets the peak; absent when nobody does.
    #[schemars(length(max = MEMBER_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What asks for it.
    pub cause: TransitionCause,
    /// When it began.
    #[schemars(schema_with = "time_schema")]
    pub start_time: Time,
    /// When it ended; absent while it goes on.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Number of its step in spec.switch.steps, from 1.
    #[schemars(range(min = 1, max = STEPS_MAX))]
    pub step: u32,
    /// When the hold of that step ends; absent before it has begun.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_until_time: Option<Time>,
    /// Its units by where they stand.
    #[serde(default)]
    pub units: UnitCounts,
    /// Resizes that were withdrawn and asked for again.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub nudges: u32,
}

/// What asks for a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TransitionCause {
    /// A window opens, or another one does at its end.
    Window,
    /// No window is open any more.
    Default,
    /// spec.override.
    Override,
    /// The switch before it has gone wrong, and is taken back.
    Rollback,
}

/// Units by where they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitCounts {
    /// All of them.
    #[schemars(range(max = COUNT_MAX))]
    pub total: u32,
    /// Those whose pods have their new sizes and traffic.
    #[schemars(range(max = COUNT_MAX))]
    pub done: u32,
    /// Those that have begun and are not done.
    #[schemars(range(max = COUNT_MAX))]
    pub in_flight: u32,
    /// Those of them whose node has no room yet, by its kubelet.
    #[schemars(range(max = COUNT_MAX))]
    pub deferred: u32,
    /// Those whose node can never have the room, by its kubelet.
    #[schemars(range(max = COUNT_MAX))]
    pub infeasible: u32,
    /// Those that were given up in this switch.
    #[schemars(range(max = COUNT_MAX))]
    pub skipped: u32,
    /// Those whose pods have their old sizes and traffic again.
    #[schemars(range(max = COUNT_MAX))]
    pub reversed: u32,
    /// Those that did not come through, whether they still wait, were skipped or were taken back; status.stuck names some.
    #[schemars(range(max = COUNT_MAX))]
    pub stuck: u32,
}

/// The pods of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// Name of the member.
    #[schemars(length(max = MEMBER_NAME_MAX_LENGTH))]
    pub name: String,
    /// UID of its workload, by which its pods are known when the member is taken out of the spec; absent before the
    /// workload was found.
    #[schemars(length(max = UID_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workload_uid: String,
    /// All of them.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub pods: u32,
    /// Those that have their peak size, by what their kubelets report.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub at_peak: u32,
    /// Those that have their valley size, by what their kubelets report.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub at_valley: u32,
    /// Those that may get traffic.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub traffic_on: u32,
    /// Those on nodes where no pod of the other members could shrink for them.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub unpaired: u32,
    /// Those that an InPlaceUpgrade changes, and that are left alone meanwhile.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub upgrading: u32,
}

/// What the members need of their nodes, summed over the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct UnionBudget {
    /// Nodes that have pods of members.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub nodes: u32,
    /// Those of them that cannot hold the largest peak of their members beside all else that runs there.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub nodes_over_budget: u32,
    /// Requests with the largest peak of each node, the others at valley size.
    pub budget: ResourceAmounts,
    /// Requests with all members at their peak.
    pub sum_of_peaks: ResourceAmounts,
    /// The difference of the two.
    pub saved: ResourceAmounts,
}

/// What a preflight has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct PreflightStatus {
    /// The member that the peak is to go to; absent when it goes to nobody.
    #[schemars(length(max = MEMBER_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// When it ended; absent while it goes on.
    #[schemars(schema_with = "time_schema")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
    /// Units of that switch.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub units: u32,
    /// Those of them that could be done.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub passed: u32,
    /// Pods of those that could not, by node and name; how many units there are is units less passed.
    #[schemars(length(max = PREFLIGHT_ROWS_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<PreflightRow>,
}

/// A pod whose resize would not come through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct PreflightRow {
    /// Node it is on.
    #[schemars(length(max = NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Name of the pod.
    #[schemars(length(max = NAME_MAX_LENGTH))]
    pub pod: String,
    /// Why.
    pub reason: PreflightFailure,
}

/// A switch that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct LastTransition {
    /// Its number.
    #[schemars(range(min = 1, max = MAX_TRANSITION_ID))]
    pub id: u32,
    /// The member that was to get the peak; absent when nobody was.
    #[schemars(length(max = MEMBER_NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// What asked for it.
    pub cause: TransitionCause,
    /// When it ended.
    #[schemars(schema_with = "time_schema")]
    pub completion_time: Time,
    /// How long it took, holds included.
    #[schemars(range(max = MAX_DURATION_SECONDS))]
    #[serde(default)]
    pub duration_seconds: u32,
    /// Its units.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub units: u32,
    /// Those of them that were given up.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub skipped: u32,
    /// Resizes that were withdrawn and asked for again.
    #[schemars(range(max = COUNT_MAX))]
    #[serde(default)]
    pub nudges: u32,
    /// How it ended.
    pub result: TransitionResult,
}

/// How a switch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TransitionResult {
    /// Each unit is done, or was skipped.
    Succeeded,
    /// It went wrong, and another one takes it back.
    RolledBack,
    /// Another one took its place, as the schedule or the override changed.
    Superseded,
}

/// A pod of a unit that did not come through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(rename_all = "camelCase")]
pub struct StuckPod {
    /// Name of the pod.
    #[schemars(length(max = NAME_MAX_LENGTH))]
    pub pod: String,
    /// Node it is on.
    #[schemars(length(max = NAME_MAX_LENGTH))]
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Why.
    pub reason: StuckReason,
    /// Since when.
    #[schemars(schema_with = "time_schema")]
    pub since_time: Time,
}

/// Why a unit does not come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum StuckReason {
    /// Its kubelet has had no room for the pod in time.
    Deferred,
    /// Its kubelet says that there will never be room for the pod, or that it cannot resize it.
    Infeasible,
    /// Its kubelet has begun with the resize and failed.
    ResizeFailed,
    /// The API server refuses the resize, or the change of traffic.
    AdmissionDenied,
    /// The pod does not leave traffic in time.
    DrainTimedOut,
    /// The pod is not ready at its new size.
    NotReady,
    /// An InPlaceUpgrade changes the pod.
    Upgrading,
    /// It has taken too long for another reason.
    DeadlineExceeded,
}

impl StuckReason {
    /// The reason as it stands in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deferred => "Deferred",
            Self::Infeasible => "Infeasible",
            Self::ResizeFailed => "ResizeFailed",
            Self::AdmissionDenied => "AdmissionDenied",
            Self::DrainTimedOut => "DrainTimedOut",
            Self::NotReady => "NotReady",
            Self::Upgrading => "Upgrading",
            Self::DeadlineExceeded => "DeadlineExceeded",
        }
    }
}

fn conditions(_: &mut SchemaGenerator) -> Schema {
    conditions_schema(CONDITION_TYPES, MESSAGE_MAX_BYTES)
}
