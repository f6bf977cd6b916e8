//! All that follows from what was observed, before anything is decided.
//!
//! | condition | is told by |
//! |---|---|
//! | `Ready`, `Reconciling` | the decision, [`Situation::course`], [`Situation::tally`], [`Situation::hold`] |
//! | `Stalled` | [`Situation::lost`], [`Situation::schedule_problem`], [`Situation::stop`], [`Situation::is_barred`], [`Situation::deadline`], [`Situation::stands_still_from`], `observed.failing` |
//! | `Accepted` | [`Situation::lost`], [`Situation::schedule_problem`]; a [`Refusal`](super::accept::Refusal) has no situation |
//! | `ScheduleValid` | [`schedule_problem`], which also tells of what is followed for now; `observed.calendar` (windows at all, whether they are over) |
//! | `PreflightPassed` | [`Situation::preflight`] |
//! | `CapacitySafe` | [`Situation::union`], [`Situation::at_valley`], [`Situation::headroom`], [`Situation::priorities`] |
//! | `GuardsPassing` | [`Situation::guarding`]; the stored reason while [`Situation::keeps_verdict`] |
//! | `Held` | [`Situation::hold`] |
//! | `AutoscalerConflict` | [`Situation::autoscalers`] |
//!
//! `desiredMember` and `nextTransition` are told by [`Situation::desired`], `members` by observed pods, profiles and
//! [`Situation::unpaired`], `stuck` by [`given_up`](crate::machine::given_up) and by units that are
//! [stuck](UnitState::Stuck) now.

use super::accept::{Accepted, Refusal};
use super::decision::Decision;
use super::schedule::{desired, refused_schedule};
use super::tally::Tally;
use crate::autoscalers::AutoscalerVerdict;
use crate::guards::{Guarding, guards};
use crate::machine::{self, Court, Rules, Side, Stand, UnitState};
use crate::memory_safety::{Scopes, scopes};
use crate::observed::Observed;
use crate::placement::{priorities_differ, unpaired};
use crate::preflight::{Preflight, preflight, upcoming};
use crate::profiles::template_at_valley;
use crate::quota::{Headroom, headroom};
use crate::rollback;
use crate::sizes::Profile;
use crate::steps::{self, Reach, reach};
use crate::traffic::route::{self, RouteMoves};
use crate::traffic::{TrafficGoals, goals};
use crate::transition::{Course, Opening, opens};
use crate::union::{Room, Union, union};
use crate::units::{Heading, Stray, Units, units};
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::{
    GuardsPassingReason, Mode, OnBreach, OnStuck, StalledReason, Transition, TransitionCause,
};
use springtide_plumbing::clock::after;
use springtide_plumbing::window::calendar::{CalendarProblem, Desired};
use std::collections::HashSet;
use std::sync::Arc;

pub use super::schedule::schedule_problem;

/// Nothing has moved for so long although something was to: a person is asked to look.
const NO_PROGRESS: SignedDuration = SignedDuration::from_mins(10);

/// What follows from what was observed of a group that is served.
#[derive(Debug)]
pub struct Situation<'a> {
    /// What was observed.
    pub observed: &'a Observed,
    /// The time of the pass.
    pub now: Timestamp,
    /// Sizes by member.
    pub profiles: Vec<Profile>,
    /// What autoscalers mean for the group.
    pub autoscalers: AutoscalerVerdict,
    /// That a member's grant has gone in mid-switch: what is open is taken back, and then the group is refused.
    pub lost: Option<Refusal>,
    /// Who is to have the peak, and what comes next; `None` while the schedule is not followed and there is no override: then
    /// nothing opens, and what is open goes on.
    pub desired: Option<Desired>,
    /// Whether there is a transition, and which way it leads.
    pub course: Course,
    /// The way that units are of: that of the course; from nobody to nobody before the first transition.
    pub heading: Heading,
    /// How a transition to whoever is desired would open; `None` where the present one leads there.
    pub opening: Option<Opening>,
    /// Whether what is desired was rolled back, and is not tried again.
    pub is_barred: bool,
    /// The units in their order, and the pods that are in none.
    pub units: Units,
    /// By unit: the side that it is driven to.
    pub sides: Vec<Side>,
    /// By unit: where it stands.
    pub stands: Vec<Stand>,
    /// Pods in no unit that are on a node: those that have no part, and those that are left as nobody shrinks for them.
    pub strays: Vec<StrayNow>,
    /// How far the transition has come.
    pub reach: Reach,
    /// Where units and strays stand, in numbers.
    pub tally: Tally,
    /// Weights of routes.
    pub route: RouteMoves,
    /// What the guards say.
    pub guarding: Guarding,
    /// What keeps units from beginning until a person has looked, if something does.
    pub stop: Option<Stop>,
    /// What quotas have room for.
    pub headroom: Headroom,
    /// What is known ahead of the next switch; not due while one is open.
    pub preflight: Preflight,
    /// What the members need of their nodes.
    pub union: Union,
    /// By member: pods that find nobody on their nodes who could shrink for them.
    pub unpaired: Vec<u32>,
    /// By member: whether its template has its pods at valley size.
    pub at_valley: Vec<bool>,
    /// What of members' priorities is unsafe with the spec's order, for people.
    pub priorities: Option<String>,
    /// When the switch that is open is late.
    pub deadline: Option<Timestamp>,
    pub(super) room: Room,
    scopes: Scopes,
    traffic: TrafficGoals,
    rules: Rules,
    asked_from: Timestamp,
}

/// A pod in no unit.
#[derive(Clone, Debug, PartialEq)]
pub struct StrayNow {
    /// Which, and where.
    pub stray: Stray,
    /// Whether the switch has come to it: it is to be at valley size. Else it stays as it is.
    pub is_reached: bool,
    /// Where it stands.
    pub stand: Stand,
}

/// What keeps units from beginning until a person has looked; what has begun goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// A guard was breached, and `guards.onBreach` is Pause. It stays so until the spec is another one.
    GuardBreached,
    /// A unit is stuck, and `switch.onStuck` is Pause. It is over when no unit is under way any more.
    UnitStuck,
}

/// What keeps units from beginning for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The step is over, and is looked at until then.
    Step(Timestamp),
    /// The mode is Paused.
    Paused,
    /// What was asked ahead does not come through, or not all of it is known, and `guards.preflight.onFailure` is Hold.
    Preflight,
    /// Those that lose the peak are busy.
    DonorBusy,
    /// A measured value is not known. Its name.
    NoData(Arc<str>),
}

impl<'a> Situation<'a> {
    /// Derives all that follows for a group that is served and goes this way.
    pub fn new(observed: &'a Observed, accepted: Accepted, course: Course, now: Timestamp) -> Self {
        let spec = &observed.group.spec;
        let Accepted { profiles, autoscalers, lost } = accepted;
        let transition = observed.group.status.transition.as_ref();
        let desired = desired(observed, now);
        let opening = desired.as_ref().and_then(|desired| opens(observed, &course, desired));
        let is_barred = desired.as_ref().is_some_and(|desired| rollback::is_barred(observed, desired));
        let nowhere = Heading { id: 0, from: None, to: None, is_return: false };
        let heading = course.heading().copied().unwrap_or(nowhere);
        let units = units(observed, &heading, &profiles);
        let room = Room::of(observed);
        let scopes = scopes(observed, &profiles, &units, &room, now);
        let traffic = goals(observed);
        let rules = Rules::of(spec, &heading, course.is_open());
        let total = number(units.units.len());
        let is_whole = match course {
            Course::Open(heading) => heading.is_return,
            Course::Fresh | Course::Ended(_) => true,
        };
        let reach = transition.map_or_else(Reach::default, |own| reach(spec, own, total, is_whole));
        let asked_from = transition.map_or(Timestamp::MIN, |own| asked_from(own, &reach, now));
        let court = Court {
            observed,
            profiles: &profiles,
            scopes: &scopes,
            traffic: &traffic,
            heading: &heading,
            rules: &rules,
            start: transition.map_or(now, |transition| transition.start_time.0),
            asked_from,
            now,
        };
        let (sides, mut stands) = judged(&units, &reach, &court, &room);
        let strays = strays(&units, &sides, &reach, &court);
        let (which, where_): (Vec<Stray>, Vec<Stand>) =
            strays.iter().map(|found| (found.stray.clone(), found.stand.clone())).unzip();
        machine::await_room(&units.units, &sides, &mut stands, &which, &where_, course.is_open());
        let tally = Tally::of(
            sides.iter().copied().zip(&stands),
            strays.iter().map(|found| &found.stand),
            course.is_open(),
        );
        let settled_percent = match course {
            Course::Ended(_) => 100,
            Course::Fresh | Course::Open(_) if tally.unsettled_reached == 0 => reach.percent,
            Course::Fresh | Course::Open(_) => reach.percent_before,
        };
        let route = match course {
            Course::Fresh => RouteMoves { is_settled: true, ..RouteMoves::default() },
            Course::Open(_) | Course::Ended(_) => {
                route::moves(observed, &heading, &reach, settled_percent, now)
            }
        };
        let guarding = guards(observed, &course, &reach, &tally);
        let stop = stop(observed, &course, &guarding, &tally);
        let headroom = headroom(observed, &heading, &units.units, &stands, &profiles);
        let next = match course {
            Course::Open(_) => None,
            Course::Fresh | Course::Ended(_) => desired
                .as_ref()
                .and_then(|desired| upcoming(observed, course.heading(), desired, is_barred, now)),
        };
        let preflight = preflight(observed, &profiles, next.as_ref(), now);
        let members = observed.members.iter().zip(&profiles);
        let at_valley = members.map(|(member, profile)| template_at_valley(member, profile)).collect();
        let deadline = match course {
            Course::Open(heading) => transition.map(|own| deadline(observed, own, &heading)),
            Course::Fresh | Course::Ended(_) => None,
        };
        Self {
            observed,
            now,
            autoscalers,
            lost,
            desired,
            course,
            heading,
            opening,
            is_barred,
            sides,
            stands,
            strays,
            reach,
            tally,
            route,
            guarding,
            stop,
            headroom,
            preflight,
            union: union(observed, &profiles),
            unpaired: unpaired(observed, &profiles),
            at_valley,
            priorities: priorities_differ(observed),
            deadline,
            room,
            scopes,
            traffic,
            rules,
            asked_from,
            units,
            profiles,
        }
    }

    /// What units are judged by.
    pub fn court(&self) -> Court<'_> {
        Court {
            observed: self.observed,
            profiles: &self.profiles,
            scopes: &self.scopes,
            traffic: &self.traffic,
            heading: &self.heading,
            rules: &self.rules,
            start: self.transition().map_or(self.now, |transition| transition.start_time.0),
            asked_from: self.asked_from,
            now: self.now,
        }
    }

    /// The present transition, or the last one.
    pub fn transition(&self) -> Option<&'a Transition> {
        self.observed.group.status.transition.as_ref()
    }

    /// Whether the transition takes back one that has gone wrong.
    pub fn is_rollback(&self) -> bool {
        self.transition().is_some_and(|transition| match transition.cause {
            TransitionCause::Rollback => true,
            TransitionCause::Window | TransitionCause::Default | TransitionCause::Override => false,
        })
    }

    /// Why the schedule is not followed. What is wrong with one that still is, [`schedule_problem`] says.
    pub fn schedule_problem(&self) -> Option<&'a CalendarProblem> {
        refused_schedule(self.observed, self.now)
    }

    /// Whether condition GuardsPassing stays what it is in the stored status: of a switch that was rolled back, or stopped,
    /// it says why.
    pub fn keeps_verdict(&self) -> bool {
        let is_stopped = match self.stop {
            Some(Stop::GuardBreached) => self.guarding == Guarding::Passing,
            Some(Stop::UnitStuck) | None => false,
        };
        is_stopped || self.is_barred || (self.is_rollback() && self.course.is_open())
    }

    /// Whether each reached unit has come to its end, and each weight with it. That of the last step includes strays.
    pub fn is_step_over(&self) -> bool {
        let are_strays_over = !self.reach.is_last || self.tally.strays_open == 0;
        self.tally.unsettled_reached == 0 && are_strays_over && self.route.after.is_empty()
    }

    /// Whether all is where the last transition leads, or cannot get there for now.
    pub fn is_at_rest(&self) -> bool {
        self.is_step_over() && self.reach.is_last && self.route.before.is_empty()
    }

    /// What keeps further units from beginning, with this decision; `None`: nothing does, or there is nothing to begin.
    pub fn hold(&self, decision: &Decision) -> Option<Hold> {
        match decision {
            Decision::Rest if !is_active(self.observed.group.spec.mode) => Some(Hold::Paused),
            Decision::Wait(wait) => wait.hold(),
            Decision::Hold(until) => Some(Hold::Step(*until)),
            Decision::Drive => match &self.guarding {
                Guarding::NoData(name) => Some(Hold::NoData(Arc::clone(name))),
                Guarding::DonorBusy => Some(Hold::DonorBusy),
                Guarding::Passing | Guarding::Breached(_) => self.held_until().map(Hold::Step),
            },
            Decision::Rest
            | Decision::Settled
            | Decision::Open(_)
            | Decision::Supersede { .. }
            | Decision::Fail { .. }
            | Decision::Advance(_)
            | Decision::Close(_) => None,
        }
    }

    /// When the hold of the step ends, while it is over and held.
    pub fn held_until(&self) -> Option<Timestamp> {
        let until = self.transition()?.hold_until_time.as_ref()?.0;
        let is_held = self.course.is_open() && self.is_step_over() && self.reach.hold.is_some();
        (is_held && until > self.now).then_some(until)
    }

    /// From when on it is said that nothing moves, with this decision; `None` while nothing is to move, or something holds.
    pub fn stands_still_from(&self, decision: &Decision) -> Option<Timestamp> {
        let is_to_move = match decision {
            Decision::Drive => self.hold(decision).is_none() && !self.is_at_rest(),
            Decision::Rest
            | Decision::Wait(_)
            | Decision::Settled
            | Decision::Open(_)
            | Decision::Supersede { .. }
            | Decision::Fail { .. }
            | Decision::Advance(_)
            | Decision::Hold(_)
            | Decision::Close(_) => false,
        };
        let since = self.observed.still_since.filter(|_| is_to_move)?;
        let begun = self.transition().map(|transition| transition.start_time.0);
        Some(after(begun.map_or(since, |begun| begun.max(since)), NO_PROGRESS))
    }

    /// Whether units stand so that they are told of: they do not come through, and were not given up.
    pub fn stuck_now(&self) -> impl Iterator<Item = &machine::Stuck> {
        self.stands.iter().filter_map(|stand| match &stand.state {
            UnitState::Stuck(stuck) => Some(stuck),
            UnitState::Still
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
            | UnitState::Cannot(_) => None,
        })
    }
}

/// The API server is asked once more about the first of several steps, however much is known ahead: a canary is to show
/// what the others would come to.
fn asked_from(transition: &Transition, reach: &Reach, now: Timestamp) -> Timestamp {
    let start = transition.start_time.0;
    let is_canary = transition.step <= 1 && !reach.is_last;
    // By a clock that is behind that of who began, no answer would ever be late enough.
    if is_canary && start <= now { start } else { Timestamp::MIN }
}

/// Side and stand of each unit.
fn judged(units: &Units, reach: &Reach, court: &Court<'_>, room: &Room) -> (Vec<Side>, Vec<Stand>) {
    let mut sides = Vec::with_capacity(units.units.len());
    let mut stands = Vec::with_capacity(units.units.len());
    for (rank, unit) in (0..).zip(&units.units) {
        let is_reached = reach.has(rank, machine::begun(unit, court));
        let side = machine::side(unit, is_reached, court);
        sides.push(side);
        stands.push(machine::stand(unit, side, court, room));
    }
    (sides, stands)
}

/// Strays are reached with the first unit of their node, and by the last step wherever they are. Pods that are left alone
/// never are.
fn strays(units: &Units, sides: &[Side], reach: &Reach, court: &Court<'_>) -> Vec<StrayNow> {
    let reached = units.units.iter().zip(sides).filter(|(_, side)| match side {
        Side::To | Side::Back | Side::AsIs => true,
        Side::Stay => false,
    });
    let nodes: HashSet<&str> = reached.map(|(unit, _)| &*unit.node).collect();
    let own = units.strays.iter().map(|stray| {
        let is_reached = reach.is_last || nodes.contains(&*stray.node);
        (stray.clone(), is_reached)
    });
    let left = units.left.iter().filter_map(|pod| {
        let node = court.observed.pod(*pod)?.pod.node.clone()?;
        Some((Stray { node, pod: *pod }, false))
    });
    own.chain(left)
        .map(|(stray, is_reached)| {
            let stand = machine::stray(&stray, is_reached, court);
            StrayNow { stray, is_reached, stand }
        })
        .collect()
}

/// What keeps units from beginning until a person has looked.
fn stop(observed: &Observed, course: &Course, guarding: &Guarding, tally: &Tally) -> Option<Stop> {
    let Course::Open(heading) = course else { return None };
    if heading.is_return {
        return None;
    }
    let spec = &observed.group.spec;
    let told = rollback::stalled(observed);
    let is_breached = match guarding {
        Guarding::Breached(_) => true,
        Guarding::Passing | Guarding::NoData(_) | Guarding::DonorBusy => false,
    };
    // Another trouble may have taken the place of the reason meanwhile, as a member that was missing.
    let was_breached =
        told.is_some_and(|reason| reason == StalledReason::GuardBreached || is_told_of_breach(observed));
    match spec.guards.on_breach {
        OnBreach::Pause if is_breached || was_breached => return Some(Stop::GuardBreached),
        OnBreach::Pause | OnBreach::Rollback => {}
    }
    // Since when a unit is stuck, a new process has to learn first: until all that is under way is done, it stays told.
    let is_stuck =
        tally.stuck_now > 0 || (told == Some(StalledReason::UnitStuck) && tally.counts.in_flight > 0);
    match spec.switch.on_stuck {
        OnStuck::Pause if is_stuck => Some(Stop::UnitStuck),
        OnStuck::Pause | OnStuck::Skip | OnStuck::Rollback => None,
    }
}

/// Whether the stored status says that a guard was breached.
fn is_told_of_breach(observed: &Observed) -> bool {
    observed.group.reason().is_some_and(|reason| match reason {
        GuardsPassingReason::TooManyFailures | GuardsPassingReason::MetricBreached => true,
        GuardsPassingReason::NotObserved
        | GuardsPassingReason::NoMetricData
        | GuardsPassingReason::Passing
        | GuardsPassingReason::DonorBusy => false,
    })
}

/// When a switch is late: its holds do not count. A return has none.
fn deadline(observed: &Observed, transition: &Transition, heading: &Heading) -> Timestamp {
    let spec = &observed.group.spec;
    let holds = if heading.is_return {
        SignedDuration::ZERO
    } else {
        let is_held = transition.hold_until_time.is_some();
        steps::holds_before(spec, transition.step.saturating_add(u32::from(is_held)))
    };
    let seconds = SignedDuration::from_secs(spec.switch.deadline_seconds.into());
    after(transition.start_time.0, seconds.saturating_add(holds))
}

fn number(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Whether the mode lets anything be opened or begun.
pub(super) fn is_active(mode: Mode) -> bool {
    match mode {
        Mode::Active => true,
        Mode::Observe | Mode::Paused => false,
    }
}
