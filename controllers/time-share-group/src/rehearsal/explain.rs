//! Finds out why a group is where it is.

use super::advice;
use super::day::{cause, day};
use super::explanation::{Explanation, UnitLine};
use super::way::way;
use super::{Ahead, Basis, ConditionLine, Passed, PlannedWrite, Rehearsal, Reported, Said, ahead};
use crate::machine::{Cannot, Side, Stand, Stuck, UnitState};
use crate::observed::{Observed, PodIndex, RefusedBy};
use crate::plan::accept::accept;
use crate::plan::situation::Situation;
use crate::projections::group::{GroupView, TIME_SHARE_GROUP};
use crate::transition::course;
use crate::units::Unit;
use jiff::Timestamp;
use springtide_crds::common::{ConditionStatus, condition, holds};
use springtide_crds::reason::{Reason, said};
use springtide_crds::time_share_group::{
    AcceptedReason, AutoscalerConflictReason, CapacitySafeReason, GuardsPassingReason, HeldReason,
    PreflightPassedReason, ReadyReason, ScheduleValidReason, StalledReason, TimeShareGroupStatus,
};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::{Action, Write};
use springtide_plumbing::projection::Projection;

/// Units of an explanation that are told of one by one.
const UNITS_TOLD: usize = 20;
/// The conditions beside Ready, Reconciling, Stalled and Held.
const OTHER_CONDITIONS: [&str; 6] = [
    AcceptedReason::CONDITION,
    ScheduleValidReason::CONDITION,
    PreflightPassedReason::CONDITION,
    CapacitySafeReason::CONDITION,
    GuardsPassingReason::CONDITION,
    AutoscalerConflictReason::CONDITION,
];

impl Rehearsal {
    /// Why a group is where it is; `None` where there is none of this name.
    pub fn explain(&mut self, key: &ObjectKey, now: Timestamp) -> Option<Explanation> {
        let passed = self.run(key, now)?;
        let mut explanation = self.told(&passed, now)?;
        let mut units = standing(&passed.observed, now);
        // Those of one kind stay in the order of the switch.
        units.sort_by_key(interest);
        units.truncate(UNITS_TOLD);
        explanation.units = units;
        Some(explanation)
    }

    /// The same with all units of the switch that is open, or comes next, and all writes to each on its way.
    pub fn plan(&mut self, key: &ObjectKey, now: Timestamp) -> Option<Explanation> {
        // Of a switch that is yet to come it is not what a plan opens, but what stands in the way of it.
        let before = self.reconciler.stores.groups.get(key)?;
        let passed = self.run(key, now)?;
        let mut explanation = self.told(&passed, now)?;
        let observed = Observed { group: before, ..passed.observed };
        explanation.units = planned(&observed, now);
        Some(explanation)
    }

    /// What is told of a group, without its units.
    fn told(&self, passed: &Passed, now: Timestamp) -> Option<Explanation> {
        let Passed { observed, told, writes: planned } = passed;
        // What was planned has changed it in memory.
        let planned_for = &observed.group;
        let stored = self.reconciler.stores.groups.get(&planned_for.meta().key)?;
        let computed = match told.status.as_ref().map(|write| &write.action) {
            Some(Action::Status { status, .. }) => serde_json::from_value(status.clone()).ok()?,
            Some(
                Action::Create { .. }
                | Action::Delete { .. }
                | Action::Patch { .. }
                | Action::Apply { .. }
                | Action::Evict { .. }
                | Action::DryRun { .. },
            )
            | None => planned_for.status.clone(),
        };
        let is_reported = self.is_known_to_the_manager(&stored, &computed, planned);
        let status = if is_reported { &stored.status } else { &computed };
        let mut explanation = of_status(&stored, status, now);
        if is_reported {
            explanation.basis = Basis::Reported;
        } else {
            explanation.until = told.wake.filter(|wake| *wake > now);
            explanation.next_writes = planned.iter().map(PlannedWrite::of).collect();
        }
        if stored.meta().is_deleting() {
            let message = told.why.first().map(|why| why.message.clone()).unwrap_or_default();
            explanation.summary = Said::of(ReadyReason::Deleting, &message);
            explanation.wakes = advice::wakes_of(ReadyReason::Deleting).to_owned();
        }
        let surveyed = observed.calendar.as_ref().ok();
        let desired = surveyed.map(|surveyed| surveyed.calendar.desired(stored.spec.override_.as_ref(), now));
        explanation.cause = desired.map_or("", |desired| cause(desired.cause)).to_owned();
        Some(explanation)
    }

    /// Whether the stored status says something of the group as it is now that no snapshot shows. Where the manager has
    /// nothing to write but figures, its word is the better one: it has looked on for longer.
    fn is_known_to_the_manager(
        &self,
        stored: &GroupView,
        computed: &TimeShareGroupStatus,
        planned: &[Write],
    ) -> bool {
        let told = &stored.status;
        let is_seen = stored.reason::<ReadyReason>().is_some_and(|reason| reason != ReadyReason::Pending);
        let is_current = is_seen && told.observed_generation == stored.meta().generation;
        if !is_current || stored.meta().is_deleting() || holds(&computed.conditions, StalledReason::CONDITION)
        {
            return false;
        }
        if let Some(stalled) = stored.reason::<StalledReason>() {
            return advice::is_known_to_the_manager(stalled) || !self.sees_nodes;
        }
        let reasons = |status: &TimeShareGroupStatus| {
            let conditions = &status.conditions;
            let ready = said::<ReadyReason>(conditions).map(|(reason, _)| reason);
            let held = said::<HeldReason>(conditions).map(|(reason, _)| reason);
            (ready, held, said::<GuardsPassingReason>(conditions).map(|(reason, _)| reason))
        };
        if reasons(told) == reasons(computed) {
            return false;
        }
        let is_measured = match stored.reason::<GuardsPassingReason>() {
            Some(
                GuardsPassingReason::NoMetricData
                | GuardsPassingReason::MetricBreached
                | GuardsPassingReason::DonorBusy,
            ) => true,
            Some(
                GuardsPassingReason::NotObserved
                | GuardsPassingReason::Passing
                | GuardsPassingReason::TooManyFailures,
            )
            | None => false,
        };
        let way = |status: &TimeShareGroupStatus| {
            let transition = status.transition.as_ref();
            transition.map(|own| (own.id, own.step, own.completion_time.clone(), own.hold_until_time.clone()))
        };
        let is_same = way(told) == way(computed) && told.desired_member == computed.desired_member;
        let has_nothing_to_write = planned.iter().all(|write| write.resource == TIME_SHARE_GROUP);
        is_measured || (is_same && (has_nothing_to_write || !self.sees_nodes))
    }
}

/// What a status says of its group.
fn of_status(group: &GroupView, status: &TimeShareGroupStatus, now: Timestamp) -> Explanation {
    let meta = group.meta();
    let ready = said::<ReadyReason>(&status.conditions).unwrap_or((ReadyReason::Pending, ""));
    let stalled = said::<StalledReason>(&status.conditions);
    let held = said::<HeldReason>(&status.conditions);
    let held = held.filter(|(reason, _)| reason.status() == ConditionStatus::True);
    let (wakes, remedies) = match (&stalled, &held) {
        (Some((stalled, _)), _) => (advice::wakes_of_stall(*stalled), advice::remedies_of_stall(*stalled)),
        (None, Some((held, _))) => (advice::wakes_of_hold(*held), advice::remedies_of_hold(*held)),
        (None, None) => (advice::wakes_of(ready.0), advice::remedies_of(ready.0)),
    };
    let hold_until = status.transition.as_ref().and_then(|transition| transition.hold_until_time.as_ref());
    let told = group.condition(ReadyReason::CONDITION);
    Explanation {
        namespace: meta.key.namespace.to_string(),
        name: meta.key.name.to_string(),
        generation: meta.generation,
        basis: Basis::Computed,
        summary: Said::of(ready.0, ready.1),
        stalled: stalled.map(|(reason, message)| Said::of(reason, message)),
        held: held.map(|(reason, message)| Said::of(reason, message)),
        wakes: wakes.to_owned(),
        until: hold_until.map(|until| until.0).filter(|until| *until > now),
        remedies: remedies.iter().map(|remedy| (*remedy).to_owned()).collect(),
        active_member: status.active_member.clone(),
        desired_member: status.desired_member.clone(),
        cause: String::new(),
        next_transition: status.next_transition.clone(),
        transition: status.transition.clone(),
        steps: u32::try_from(group.spec.switch.steps.len()).unwrap_or(u32::MAX),
        members: status.members.clone(),
        union: status.union.clone(),
        preflight: status.preflight.clone(),
        conditions: OTHER_CONDITIONS
            .into_iter()
            .filter_map(|type_| condition(&status.conditions, type_).map(ConditionLine::of))
            .collect(),
        units: Vec::new(),
        stuck: status.stuck.clone(),
        last_transitions: status.last_transitions.clone(),
        day: day(&group.spec, now),
        next_writes: Vec::new(),
        reported: told.map(|told| Reported::of(told, meta.generation)),
    }
}

/// The units of the present transition by where they stand; none where the spec is not served.
fn standing(observed: &Observed, now: Timestamp) -> Vec<UnitLine> {
    let course = course(observed);
    if observed.group.meta().is_deleting() || course.heading().is_none() {
        return Vec::new();
    }
    let Ok(accepted) = accept(observed, &course, now) else { return Vec::new() };
    let situation = Situation::new(observed, accepted, course, now);
    let units = situation.units.units.iter().zip(&situation.sides).zip(&situation.stands);
    units.map(|((unit, side), stand)| line(observed, unit, side_word(*side), Some(stand))).collect()
}

/// The units of the switch that is open, or comes next, with the writes on their way.
fn planned(observed: &Observed, now: Timestamp) -> Vec<UnitLine> {
    let Some(ahead) = ahead(observed, now).filter(|_| !observed.group.meta().is_deleting()) else {
        return Vec::new();
    };
    let Ahead { profiles, heading, is_ahead, .. } = &ahead;
    let mut lines = if *is_ahead {
        ahead.iter().map(|unit| line(observed, unit, "Ahead", None)).collect()
    } else {
        standing(observed, now)
    };
    for (line, unit) in lines.iter_mut().zip(ahead.iter()) {
        let writes = way(observed, profiles, unit, heading.id, now);
        line.writes = writes.iter().map(PlannedWrite::of).collect();
    }
    lines
}

fn side_word(side: Side) -> &'static str {
    match side {
        Side::To => "To",
        Side::Back => "Back",
        Side::AsIs => "AsIs",
        Side::Stay => "Stay",
    }
}

fn line(observed: &Observed, unit: &Unit, side: &str, stand: Option<&Stand>) -> UnitLine {
    let names = |pods: &[PodIndex]| {
        let name = |pod: &PodIndex| Some(observed.pod(*pod)?.pod.meta().key.name.to_string());
        pods.iter().filter_map(name).collect()
    };
    let (state, detail) = stand.map_or(("Still", String::new()), |stand| state(&stand.state));
    UnitLine {
        node: unit.node.to_string(),
        shrinking: names(&unit.from),
        growing: names(&unit.to),
        side: side.to_owned(),
        state: state.to_owned(),
        detail,
        until: stand.and_then(|stand| stand.wake),
        writes: Vec::new(),
    }
}

/// A state in one word, and what it waits for or fails at.
fn state(state: &UnitState) -> (&'static str, String) {
    match state {
        UnitState::Still => ("Still", String::new()),
        UnitState::Idle => ("Idle", "it begins as limits and guards let it".to_owned()),
        UnitState::Waiting => ("Waiting", "others of its node make room first".to_owned()),
        UnitState::Draining => ("Draining", "Services have yet to stop sending traffic".to_owned()),
        UnitState::Drained => ("Drained", "it is resized next".to_owned()),
        UnitState::Resizing => ("Resizing", "kubelets have yet to put the sizes in force".to_owned()),
        UnitState::Deferred => ("Deferred", "its kubelet has no room yet".to_owned()),
        UnitState::Warming => ("Warming", "pods are not ready at their size for long enough".to_owned()),
        UnitState::Turning => ("Turning", "its traffic is turned next".to_owned()),
        UnitState::Done => ("Done", String::new()),
        UnitState::Returning => ("Returning", "it was given up, and gets its old sizes back".to_owned()),
        UnitState::GivenUp => ("GivenUp", "it has its old sizes until the next switch".to_owned()),
        UnitState::Cannot(why) => ("Cannot", cannot(*why).to_owned()),
        UnitState::Stuck(Stuck { reason, message, .. }) => {
            ("Stuck", format!("{}: {message}", reason.as_str()))
        }
    }
}

fn cannot(why: Cannot) -> &'static str {
    match why {
        Cannot::NoRoom => "its node has no room, by what specs ask for",
        Cannot::Refused(RefusedBy::Quota) => "a ResourceQuota has no room",
        Cannot::Refused(RefusedBy::QosClass) => "its QoS class would change",
        Cannot::Refused(RefusedBy::Admission) => "the API server refuses the resize",
        Cannot::Refused(RefusedBy::Ineligible) => "pod or node cannot be resized at all",
        Cannot::Upgrading => "an InPlaceUpgrade is at work on a pod of it",
        Cannot::Unasked => "the API server is asked first, by a dry run",
    }
}

/// What is told first: what went wrong, what is on its way, what is still to be done.
fn interest(unit: &UnitLine) -> u8 {
    match unit.state.as_str() {
        "Stuck" => 0,
        "Cannot" | "GivenUp" | "Returning" => 1,
        "Waiting" | "Draining" | "Drained" | "Resizing" | "Deferred" | "Warming" | "Turning" => 2,
        "Done" => 4,
        _ => 3,
    }
}
