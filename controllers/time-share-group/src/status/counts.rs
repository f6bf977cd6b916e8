//! The figures and rows of a status, cut to what it may hold.

use crate::deletion::is_let_go;
use crate::machine::{Cannot, Side, UnitState, given_up};
use crate::memory_safety::Scopes;
use crate::observed::{Member, MemberIndex, PodIndex};
use crate::plan::decision::Decision;
use crate::plan::situation::Situation;
use crate::sizes::{Demand, Level, Profile, Scope, Size};
use crate::traffic::{closed, serves};
use crate::union::Union;
use jiff::Timestamp;
use springtide_crds::common::{Quantity, ResourceAmounts, bounded_text, whole_seconds};
use springtide_crds::time_share_group::{
    COUNT_MAX, MEMBERS_MAX, Member as MemberSpec, MemberStatus, NAME_MAX_LENGTH, PreflightRow,
    PreflightStatus, STUCK_MAX, StuckPod, StuckReason, UnionBudget,
};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::quantity::quantity_text;

/// A figure as far as a status has room for it.
fn bounded(count: u32) -> u32 {
    count.min(COUNT_MAX)
}

fn number(length: usize) -> u32 {
    bounded(u32::try_from(length).unwrap_or(u32::MAX))
}

/// A name as far as a status has room for it.
fn short(name: &str) -> String {
    bounded_text(name, NAME_MAX_LENGTH)
}

/// The pods of each member, and those of removed members that still have a size to give up: only by the status is it known
/// whose they are. Where there is no room for all rows, it is figures that are missing.
pub(super) fn members(situation: &Situation<'_>) -> Vec<MemberStatus> {
    let observed = situation.observed;
    let removed: Vec<MemberStatus> =
        observed.removed.iter().filter(|member| !is_let_go(member)).map(removed).collect();
    let court = situation.court();
    let of_spec = observed.group.spec.members.iter().zip(&observed.members).zip(&situation.profiles);
    let rows = of_spec.enumerate().map(|(place, ((spec, member), profile))| {
        let unpaired = situation.unpaired.get(place).copied().unwrap_or_default();
        Row { place: MemberIndex(place), spec, member, scopes: court.scopes, unpaired }
            .told(situation, profile)
    });
    let room = MEMBERS_MAX.saturating_sub(removed.len());
    let mut rows: Vec<MemberStatus> = rows.take(room).collect();
    rows.extend(removed);
    rows.truncate(MEMBERS_MAX);
    rows
}

struct Row<'a> {
    place: MemberIndex,
    spec: &'a MemberSpec,
    member: &'a Member,
    scopes: &'a Scopes,
    unpaired: u32,
}

impl Row<'_> {
    fn told(&self, situation: &Situation<'_>, profile: &Profile) -> MemberStatus {
        let Self { place, spec, member, scopes, unpaired } = self;
        let sizes = Sizes::of(profile);
        let mut row = MemberStatus {
            name: spec.name.clone(),
            workload_uid: workload_uid(situation, member),
            pods: number(member.pods.len()),
            unpaired: bounded(*unpaired),
            ..MemberStatus::default()
        };
        for (pod, found) in member.pods.iter().enumerate() {
            let index = PodIndex { member: *place, pod };
            let has = |level| sizes.at(level, scopes.of(index, level)).is_in_force(&found.pod);
            row.at_peak += u32::from(has(Level::Peak));
            row.at_valley += u32::from(has(Level::Valley));
            row.traffic_on += u32::from(serves(spec, &found.pod));
            row.upgrading += u32::from(found.evidence.is_upgrading);
        }
        MemberStatus {
            at_peak: bounded(row.at_peak),
            at_valley: bounded(row.at_valley),
            traffic_on: bounded(row.traffic_on),
            upgrading: bounded(row.upgrading),
            ..row
        }
    }
}

/// The UID of a member's workload, or the one that it had last.
fn workload_uid(situation: &Situation<'_>, member: &Member) -> String {
    if let Some(workload) = &member.workload {
        return workload.uid.0.to_string();
    }
    let stored = situation.observed.group.status.members.iter().find(|row| *row.name == *member.name);
    stored.map(|row| row.workload_uid.clone()).unwrap_or_default()
}

fn removed(member: &Member) -> MemberStatus {
    let serving = member.pods.iter().filter(|found| closed(found.time_share()).next().is_none());
    MemberStatus {
        name: member.name.to_string(),
        workload_uid: member.workload.as_ref().map(|workload| workload.uid.0.to_string()).unwrap_or_default(),
        pods: number(member.pods.len()),
        traffic_on: number(serving.count()),
        ..MemberStatus::default()
    }
}

/// The sizes that pods of one member may be to have: they are the same for all of them.
struct Sizes([[Size; SCOPES.len()]; 2]);

const SCOPES: [Scope; 3] = [Scope::Whole, Scope::Cpu, Scope::MemoryBack];

impl Sizes {
    fn of(profile: &Profile) -> Self {
        Self([Level::Valley, Level::Peak].map(|level| SCOPES.map(|scope| profile.sized(level, scope))))
    }

    fn at(&self, level: Level, scope: Scope) -> &Size {
        let [valley, peak] = &self.0;
        let [whole, cpu, memory_back] = match level {
            Level::Valley => valley,
            Level::Peak => peak,
        };
        match scope {
            Scope::Whole => whole,
            Scope::Cpu => cpu,
            Scope::MemoryBack => memory_back,
        }
    }
}

/// What the members need of their nodes.
pub(super) fn union(union: &Union) -> UnionBudget {
    UnionBudget {
        nodes: bounded(union.nodes),
        nodes_over_budget: number(union.over_budget.len()),
        budget: amounts(union.budget),
        sum_of_peaks: amounts(union.sum_of_peaks),
        saved: amounts(union.saved),
    }
}

fn amounts(demand: Demand) -> ResourceAmounts {
    let quantity = |resource, amount: i64| Some(Quantity::new(quantity_text(resource, amount.max(0))));
    ResourceAmounts { cpu: quantity("cpu", demand.cpu), memory: quantity("memory", demand.memory) }
}

/// What is known of the next switch. While a switch is open it is what was known of that one.
pub(super) fn preflight(situation: &Situation<'_>, now: Timestamp) -> Option<PreflightStatus> {
    let known = &situation.preflight;
    if !known.is_due && !known.is_complete {
        return situation.observed.group.status.preflight.clone();
    }
    let rows = known.failures.iter().map(|failure| PreflightRow {
        node: short(&failure.node),
        pod: short(&failure.pod),
        reason: failure.reason,
    });
    Some(PreflightStatus {
        member: known.member.as_deref().map(str::to_owned),
        completion_time: known.is_complete.then(|| whole_seconds(known.completed.unwrap_or(now))),
        units: bounded(known.units),
        passed: bounded(known.passed),
        failures: rows.collect(),
    })
}

/// The rows that a status has with this decision: what a switch was taken back for stays told.
pub(super) fn kept_stuck(
    situation: &Situation<'_>,
    decision: &Decision,
    stuck: Vec<StuckPod>,
) -> Vec<StuckPod> {
    match decision {
        Decision::Open(_) | Decision::Supersede { .. } => Vec::new(),
        Decision::Fail { .. }
        | Decision::Settled
        | Decision::Advance(_)
        | Decision::Hold(_)
        | Decision::Close(_)
        | Decision::Drive
        | Decision::Rest
        | Decision::Wait(_) => {
            if stuck.is_empty() && situation.is_rollback() {
                situation.observed.group.status.stuck.clone()
            } else {
                stuck
            }
        }
    }
}

/// Pods whose units do not come through, those that are stuck longest first: units that were given up, those that are
/// stuck now, and those that cannot begin.
pub(super) fn stuck(situation: &Situation<'_>) -> Vec<StuckPod> {
    let begun = situation.transition().map_or(situation.now, |transition| transition.start_time.0);
    let mut found: Vec<(Timestamp, PodIndex, StuckReason)> = Vec::new();
    if situation.transition().is_some() {
        let marks = given_up(situation.observed, situation.heading.id);
        found.extend(marks.into_iter().map(|mark| (mark.since.unwrap_or(begun), mark.pod, mark.reason)));
    }
    found.extend(situation.stuck_now().map(|stuck| (stuck.since, stuck.pod, stuck.reason)));
    let units = situation.units.units.iter().zip(&situation.sides).zip(&situation.stands);
    found.extend(units.filter_map(|((unit, side), stand)| {
        let reason = left(&stand.state).filter(|_| *side == Side::To)?;
        Some((begun, unit.lead()?, reason))
    }));
    let mut rows: Vec<_> = found
        .into_iter()
        .filter_map(|(since, pod, reason)| {
            let pod = &situation.observed.pod(pod)?.pod;
            Some((since, &pod.meta().key, pod.node.as_deref().unwrap_or_default(), reason))
        })
        .collect();
    // Which of them are cut does not change from pass to pass.
    rows.sort_by_key(|(since, key, ..)| (*since, *key));
    rows.dedup_by_key(|(_, key, ..)| *key);
    rows.truncate(STUCK_MAX);
    rows.into_iter()
        .map(|(since, key, node, reason)| StuckPod {
            pod: short(&key.name),
            node: short(node),
            reason,
            since_time: whole_seconds(since),
        })
        .collect()
}

/// Why a unit is left as it is for now.
fn left(state: &UnitState) -> Option<StuckReason> {
    match state {
        UnitState::Cannot(Cannot::NoRoom) => Some(StuckReason::Deferred),
        UnitState::Cannot(Cannot::Refused(_)) => Some(StuckReason::AdmissionDenied),
        UnitState::Cannot(Cannot::Upgrading) => Some(StuckReason::Upgrading),
        UnitState::Cannot(Cannot::Unasked)
        | UnitState::Still
        | UnitState::Idle
        | UnitState::Waiting
        | UnitState::Draining
        | UnitState::Drained
        | UnitState::Resizing
        | UnitState::Deferred
        | UnitState::Warming
        | UnitState::Turning
        | UnitState::Done
        | UnitState::Returning
        | UnitState::GivenUp
        | UnitState::Stuck(_) => None,
    }
}
