//! The explanation of a group, as data: its JSON form is stable within its apiVersion.

use super::day::Day;
use jiff::Timestamp;
use serde::Serialize;
use springtide_crds::time_share_group::{
    LastTransition, MemberStatus, NextTransition, PreflightStatus, StuckPod, Transition, UnionBudget,
};
use springtide_plumbing::rehearsal::{Basis, ConditionLine, PlannedWrite, Reported, Said};

/// Why a group is where it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Namespace of the group.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `metadata.generation`.
    pub generation: i64,
    /// What the answer rests on.
    pub basis: Basis,
    /// The reason of its condition Ready, as it should be now.
    pub summary: Said,
    /// What needs a person, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stalled: Option<Said>,
    /// What keeps further units from starting, if anything does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Said>,
    /// What lets it go on; empty where nothing is left to do.
    pub wakes: String,
    /// When it is looked at again by time alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What a person can do, most useful first; empty where waiting is all.
    pub remedies: Vec<String>,
    /// The member that has the peak; absent while nobody has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active_member: Option<String>,
    /// The member that is to have it; absent when nobody is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_member: Option<String>,
    /// By what: `Override`, `Window` or `Default`; empty while the schedule cannot be followed.
    pub cause: String,
    /// The next switch that the schedule asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_transition: Option<NextTransition>,
    /// The present switch, or the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transition: Option<Transition>,
    /// Number of steps of a switch.
    pub steps: u32,
    /// The pods of each member by where they stand.
    pub members: Vec<MemberStatus>,
    /// What the members need of their nodes together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub union: Option<UnionBudget>,
    /// What is known of the next switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preflight: Option<PreflightStatus>,
    /// The other conditions.
    pub conditions: Vec<ConditionLine>,
    /// The units: all of a plan, else up to 20, those first that something is told of.
    pub units: Vec<UnitLine>,
    /// Pods of units that did not come through.
    pub stuck: Vec<StuckPod>,
    /// Switches that ended, the last one first.
    pub last_transitions: Vec<LastTransition>,
    /// The coming 24 hours.
    pub day: Day,
    /// What the manager would write now, until a pod, a kubelet or a person has to do something.
    pub next_writes: Vec<PlannedWrite>,
    /// What the manager said last, in condition Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported: Option<Reported>,
}

/// One unit: pods of a node that switch together.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitLine {
    /// Its node.
    pub node: String,
    /// Pods that shrink.
    pub shrinking: Vec<String>,
    /// Pods that grow.
    pub growing: Vec<String>,
    /// Which side it is driven to: `To` where the switch goes, `Back` as it was given up, `AsIs` as it was given up on the
    /// way back, `Stay` as it is not reached yet; `Ahead` for a unit of a switch that has not begun.
    pub side: String,
    /// Where it stands: `Still`, `Idle`, `Waiting`, `Draining`, `Drained`, `Resizing`, `Deferred`, `Warming`, `Turning`,
    /// `Done`, `Returning`, `GivenUp`, `Cannot` or `Stuck`.
    pub state: String,
    /// What it waits for, or why it does not come through; empty where the state says all.
    pub detail: String,
    /// When time alone may change where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The writes that bring it from where its pods stand to the other side, in their order; of a plan alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<PlannedWrite>,
}
