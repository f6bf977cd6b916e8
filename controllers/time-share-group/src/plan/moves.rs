//! The writes of one pass: which units begin, what each of them does next, and which writes come first where there are more
//! than one plan holds.

use super::decision::{Decision, WaitFor};
use super::situation::{Situation, StrayNow};
use crate::deletion::let_go;
use crate::guards::Guarding;
use crate::limits::{Candidate, Limits, Started, starts};
use crate::machine::{self, Cannot, Leave, MoveRank, Moves, Side, Stand, UnitState, Waiting};
use crate::observed::PodIndex;
use crate::preflight::ask;
use crate::sizes::Level;
use crate::transition::Course;
use springtide_crds::time_share_group::Mode;
use springtide_plumbing::plan::{MAX_WRITES, Step, Write, WriteClass};

/// A status is one more.
const MOST_WRITES: usize = MAX_WRITES - 1;

/// What is written to pods and routes now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Made {
    /// The writes, the most urgent first; those of different steps are independent of each other.
    pub steps: Vec<Step>,
    /// Whether there are more than one plan holds.
    pub is_cut: bool,
}

/// Kinds of writes in the order in which they come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    Unit(MoveRank),
    /// A dry run that a unit waits for.
    Ask,
    /// A dry run ahead of a switch.
    AskAhead,
}

/// What units may do by a decision; `None`: nothing at all.
fn leave(situation: &Situation<'_>, decision: &Decision) -> Option<Leave> {
    match decision {
        Decision::Drive | Decision::Settled => match situation.observed.group.spec.mode {
            Mode::Active => Some(Leave::Start),
            Mode::Paused => Some(Leave::GoOn),
            Mode::Observe => None,
        },
        // What the last transition has left is kept up.
        Decision::Wait(WaitFor::RolledBack | WaitFor::Preflight | WaitFor::PreflightFailed) => {
            situation.course.heading().map(|_| Leave::Start)
        }
        Decision::Rest => situation.course.heading().map(|_| Leave::GoOn),
        Decision::Wait(WaitFor::Mode | WaitFor::Schedule)
        | Decision::Open(_)
        | Decision::Supersede { .. }
        | Decision::Fail { .. }
        | Decision::Advance(_)
        | Decision::Hold(_)
        | Decision::Close(_) => None,
    }
}

/// The writes of a pass.
pub fn moves(situation: &Situation<'_>, decision: &Decision) -> Made {
    if decision.is_of_status() {
        return Made::default();
    }
    let mut list = List::default();
    if let Some(leave) = leave(situation, decision) {
        of_routes(situation, leave, &mut list);
        of_units(situation, leave, &mut list);
        if leave == Leave::Start {
            list.add_writes(Urgency::Unit(MoveRank::Protective), let_go(situation.observed, situation.now));
        }
    }
    // They store nothing, and are wanted in any mode.
    list.add_writes(Urgency::AskAhead, situation.preflight.questions.iter().cloned());
    list.cut()
}

fn of_routes(situation: &Situation<'_>, leave: Leave, list: &mut List) {
    let route = &situation.route;
    list.add_writes(Urgency::Unit(MoveRank::Protective), route.after.iter().cloned());
    match leave {
        Leave::Start => list.add_writes(Urgency::Unit(MoveRank::Drain), route.before.iter().cloned()),
        // They fall only for units that begin.
        Leave::GoOn | Leave::Rest => {}
    }
}

/// Units that are under way come before strays, and those before units that begin: each keeps the room that it needs.
fn of_units(situation: &Situation<'_>, leave: Leave, list: &mut List) {
    let (units, stands) = (&situation.units.units, &situation.stands);
    let started = match leave {
        Leave::Start => begins(situation),
        Leave::GoOn | Leave::Rest => Started::default(),
    };
    let mut begins_now = vec![false; units.len() + situation.strays.len()];
    for rank in started.ranks {
        if let Some(begins) = begins_now.get_mut(rank) {
            *begins = true;
        }
    }
    let (begins_now, strays_begin) = begins_now.split_at(units.len());
    let court = situation.court();
    let mut room = situation.room.clone();
    let all = || units.iter().zip(stands).zip(situation.sides.iter().zip(begins_now));
    // Who only waits for room takes nobody out of traffic: it gets what another one lets go of, whatever the limits are, or
    // others would.
    let may_join = situation.headroom.units.is_none() && leave == Leave::Start && may_begin(situation, false);
    let may_grow = all().filter(|((_, stand), (side, begins))| {
        let joins = may_join && stand.state == UnitState::Waiting;
        **side == Side::To && (stand.begun || **begins || joins)
    });
    let mut waiting = Waiting::of(&court, may_grow.map(|((unit, _), _)| unit));
    for is_for_begun in [true, false] {
        for ((unit, stand), (side, begins)) in all().filter(|((_, stand), _)| stand.begun == is_for_begun) {
            let leave = match (leave, side) {
                (Leave::Start, Side::To) if !begins => Leave::GoOn,
                (
                    Leave::Start | Leave::GoOn | Leave::Rest,
                    Side::To | Side::Back | Side::AsIs | Side::Stay,
                ) => leave,
            };
            let moves = machine::next(unit, *side, stand, leave, &court, &mut room, &mut waiting);
            list.add(situation, moves);
        }
        if is_for_begun {
            for (StrayNow { stray, is_reached, stand }, begins) in situation.strays.iter().zip(strays_begin) {
                let leave = match leave {
                    Leave::Start if *is_reached && !begins => Leave::GoOn,
                    Leave::Start | Leave::GoOn | Leave::Rest => leave,
                };
                let moves =
                    machine::next_of_stray(stray, *is_reached, stand, leave, &court, &mut room, &mut waiting);
                list.add(situation, moves);
            }
        }
    }
}

/// What begins now: units by their rank, and strays by their place behind all of these. Strays go first, as they have room
/// that units may need. Those that wait come last: they begin only when what they wait for is there, and keep nobody from it.
fn begins(situation: &Situation<'_>) -> Started {
    let switch = &situation.observed.group.spec.switch;
    let limits = Limits {
        group: switch.max_in_flight_units,
        per_node: switch.max_in_flight_units_per_node,
        quota: situation.headroom.units,
    };
    let units = || situation.units.units.iter().zip(&situation.stands).zip(&situation.sides).enumerate();
    let candidates = |wanted: Readiness| {
        let found = units().filter(move |(_, ((unit, stand), side))| {
            **side == Side::To
                && !stand.begun
                && readiness(situation, unit.pods(), &stand.state) == wanted
                && may_begin(situation, !unit.from.is_empty())
        });
        found.map(|(rank, ((unit, _), _))| Candidate { rank, node: &unit.node, grows: !unit.to.is_empty() })
    };
    let strays = |wanted: Readiness| {
        let all = (situation.units.units.len()..).zip(&situation.strays);
        let found = all.filter(move |(_, StrayNow { stray, is_reached, stand })| {
            *is_reached
                && !stand.begun
                && readiness(situation, [stray.pod], &stand.state) == wanted
                && may_begin(situation, true)
        });
        found.map(|(rank, found)| Candidate { rank, node: &found.stray.node, grows: false })
    };
    let flies = |stand: &Stand| stand.in_flight && stand.begun;
    let in_flight = units().filter(|(_, ((_, stand), _))| flies(stand));
    let in_flight = in_flight.map(|(_, ((unit, _), _))| &*unit.node);
    let strays_in_flight = situation.strays.iter().filter(|found| flies(&found.stand));
    let in_flight = in_flight.chain(strays_in_flight.map(|found| &*found.stray.node));
    let ready = strays(Readiness::Ready).chain(candidates(Readiness::Ready));
    let waits = candidates(Readiness::Waits).chain(strays(Readiness::Waits));
    starts(ready.chain(waits), in_flight, limits)
}

/// Whether a unit could begin, as far as its own pods and its node go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readiness {
    /// It could.
    Ready,
    /// It could if somebody made room on its node, an upgrade came to its end, or the API server, asked anew, thought
    /// otherwise.
    Waits,
    /// It could not, or has nothing to do.
    Not,
}

/// Pods of a unit that has not begun may have left traffic already, or be small: by another switch, or as they are new.
fn readiness(
    situation: &Situation<'_>,
    pods: impl IntoIterator<Item = PodIndex>,
    state: &UnitState,
) -> Readiness {
    match state {
        UnitState::Idle
        | UnitState::Draining
        | UnitState::Drained
        | UnitState::Resizing
        | UnitState::Deferred
        | UnitState::Warming
        | UnitState::Turning
        | UnitState::Cannot(Cannot::Unasked) => {
            let of = |pod| situation.observed.pod(pod).is_some_and(|found| found.evidence.is_upgrading);
            if pods.into_iter().any(of) { Readiness::Waits } else { Readiness::Ready }
        }
        UnitState::Waiting | UnitState::Cannot(Cannot::Refused(_)) => Readiness::Waits,
        UnitState::Still
        | UnitState::Done
        | UnitState::Returning
        | UnitState::GivenUp
        | UnitState::Stuck(_)
        | UnitState::Cannot(Cannot::NoRoom | Cannot::Upgrading) => Readiness::Not,
    }
}

/// Whether guards and routes let pods begin, of which one `shrinks` or not.
fn may_begin(situation: &Situation<'_>, shrinks: bool) -> bool {
    let is_guarded = match &situation.guarding {
        Guarding::Passing => false,
        Guarding::DonorBusy => shrinks,
        Guarding::NoData(_) | Guarding::Breached(_) => true,
    };
    let is_drained = !shrinks || situation.route.is_settled;
    match situation.course {
        Course::Open(_) | Course::Ended(_) => !is_guarded && is_drained,
        Course::Fresh => false,
    }
}

/// Writes of different kinds, before they are put in order.
#[derive(Default)]
struct List(Vec<(Urgency, Step)>);

impl List {
    fn add_writes(&mut self, urgency: Urgency, writes: impl IntoIterator<Item = Write>) {
        self.0.extend(writes.into_iter().map(|write| (urgency, Step::from(write))));
    }

    fn add(&mut self, situation: &Situation<'_>, moves: Option<Moves>) {
        let Some(Moves { steps, rank, asks, .. }) = moves else { return };
        self.0.extend(steps.into_iter().map(|step| (Urgency::Unit(rank), step)));
        let questions = asks.into_iter().filter_map(|(pod, level)| question(situation, pod, level));
        self.add_writes(Urgency::Ask, questions);
    }

    /// In order, and no more than one plan holds. A chain is never cut; where the next step has no place, none behind it
    /// goes before it.
    fn cut(mut self) -> Made {
        self.0.sort_by_key(|(urgency, _)| *urgency);
        let mut left = MOST_WRITES;
        let mut made = Made::default();
        for (_, step) in self.0 {
            let Some(rest) = left.checked_sub(step.writes().len()) else {
                made.is_cut = true;
                break;
            };
            left = rest;
            made.steps.push(step);
        }
        made
    }
}

fn question(situation: &Situation<'_>, pod: PodIndex, level: Level) -> Option<Write> {
    let observed = situation.observed;
    let spec = observed.group.spec.members.get(pod.member.0)?;
    let profile = situation.profiles.get(pod.member.0)?;
    Some(ask(spec, &observed.pod(pod)?.pod, profile, level, WriteClass::Spec))
}

#[cfg(test)]
mod tests;
