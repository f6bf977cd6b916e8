//! Units that do not go where the switch goes: those that were given up, those that are not reached yet, and pods that are
//! in no unit.

use super::evidence::Actor;
use super::flow::{Act, Play};
use super::look::Look;
use super::moves::{dark, light};
use super::stuck::Trouble;
use super::waiting::Waiting;
use super::{Court, Leave, MoveRank, Moves, Side, Stand, UnitState, begun, mark};
use crate::observed::PodIndex;
use crate::sizes::Demand;
use crate::union::Room;
use crate::units::{Stray, Unit};
use springtide_crds::time_share_group::StuckReason;
use springtide_plumbing::clock::after;
use springtide_plumbing::plan::{Step, WriteClass};
use std::slice;

/// Where a unit stands that was given up. One that does not come back in time is told of, and goes on.
pub(super) fn stand(unit: &Unit, court: &Court<'_>, left: Demand) -> Stand {
    let play = Play::back(unit, court);
    let mut look = Look::of(&play);
    let (state, _) = judge(unit, &play, &mut look, left);
    look.stand(state, Side::Back, begun(unit, court), court.rules.is_open)
}

/// What is written to it next.
pub(super) fn next(
    unit: &Unit,
    leave: Leave,
    court: &Court<'_>,
    room: &mut Room,
    waiting: &mut Waiting<'_>,
) -> Option<Moves> {
    let play = Play::back(unit, court);
    let mut look = Look::of(&play);
    let (_, act) = judge(unit, &play, &mut look, room.left(&unit.node));
    play.moves(&look, act, leave != Leave::Rest, leave, room, waiting)
}

fn judge(unit: &Unit, play: &Play<'_>, look: &mut Look, left: Demand) -> (UnitState, Act) {
    let court = play.court;
    let (state, act) = play.row(look, left);
    let act = if look.refused.is_some() || look.upgrading.is_some() { without_resize(act) } else { act };
    if state == UnitState::Done {
        return (UnitState::GivenUp, act);
    }
    let mark = mark(unit, court);
    let since = mark.and_then(|mark| mark.since).unwrap_or(court.start).min(court.now);
    let until = after(since, court.rules.unit_deadline);
    if court.now < until {
        look.wake_at(until, play);
        return (UnitState::Returning, act);
    }
    let reason = mark.map_or(StuckReason::DeadlineExceeded, |mark| mark.reason);
    let stuck = mark.map(|mark| mark.pod).or(unit.lead());
    let stuck = stuck.map(|pod| Trouble { reason, pod, since: until }.told(court));
    (stuck.map_or(UnitState::Returning, UnitState::Stuck), act)
}

fn without_resize(act: Act) -> Act {
    match act {
        Act::Drain | Act::Chain | Act::Shrink | Act::Grow => Act::None,
        Act::None | Act::Restore | Act::Dim | Act::Mark => act,
    }
}

/// Where a unit stands that was given up on the way back: where it is.
pub(super) fn as_is(unit: &Unit, court: &Court<'_>) -> Stand {
    let look = Look::of(&Play::forth(unit, court));
    look.stand(UnitState::GivenUp, Side::AsIs, look.begun, court.rules.is_open)
}

/// What is written to it next.
pub(super) fn next_as_is(unit: &Unit, leave: Leave, court: &Court<'_>) -> Option<Moves> {
    let pods: Vec<PodIndex> = unit.pods().collect();
    at_rest(&pods, leave, court)
}

/// Where a unit stands that is not reached.
pub(super) fn stay(unit: &Unit, court: &Court<'_>) -> Stand {
    let look = Look::of(&Play::upkeep(unit, court));
    look.stand(UnitState::Still, Side::Stay, begun(unit, court), court.rules.is_open)
}

/// What is written to it next: new pods of the member that has the peak grow, where their node has room, and serve.
pub(super) fn next_to_stay(
    unit: &Unit,
    leave: Leave,
    court: &Court<'_>,
    room: &mut Room,
    waiting: &mut Waiting<'_>,
) -> Option<Moves> {
    let to = unit.to.iter().filter_map(|pod| Actor::of(court, *pod));
    let others: Vec<Step> = to.flat_map(|actor| light(&actor, actor.due_off_stage())).collect();
    if !others.is_empty() {
        return Some(Moves::of(MoveRank::Protective, others));
    }
    let play = Play::upkeep(unit, court);
    let look = Look::of(&play);
    let act = if look.ungrown > 0 { Act::Grow } else { Act::None };
    play.moves(&look, act, leave == Leave::Start, leave, room, waiting)
}

/// Where a pod stands that is in no unit.
pub(super) fn stray(stray: &Stray, is_reached: bool, court: &Court<'_>) -> Stand {
    let play = Play::stray(stray, court);
    if is_reached {
        // Nothing of it is held against the room of its node.
        return play.stand(Side::AsIs, Demand::ZERO);
    }
    let look = Look::of(&play);
    look.stand(UnitState::Still, Side::AsIs, look.begun, court.rules.is_open)
}

/// What is written to it next.
pub(super) fn next_of_stray(
    stray: &Stray,
    is_reached: bool,
    stand: &Stand,
    leave: Leave,
    court: &Court<'_>,
    room: &mut Room,
    waiting: &mut Waiting<'_>,
) -> Option<Moves> {
    if is_reached {
        return Play::stray(stray, court).next(&stand.state, leave, room, waiting);
    }
    at_rest(slice::from_ref(&stray.pod), leave, court)
}

/// Pods that keep their sizes: who is at peak serves, and who is at valley as is due there.
fn at_rest(pods: &[PodIndex], leave: Leave, court: &Court<'_>) -> Option<Moves> {
    let actors = || pods.iter().filter_map(move |pod| Actor::of(court, *pod));
    let lever =
        |actor: &Actor<'_>| if actor.is_on_stage() { actor.due_on_stage() } else { actor.due_off_stage() };
    let lights: Vec<Step> = actors().flat_map(|actor| light(&actor, lever(&actor))).collect();
    if !lights.is_empty() {
        return Some(Moves::of(MoveRank::Protective, lights));
    }
    if leave == Leave::Rest {
        return None;
    }
    let off = |actor: Actor<'_>| {
        actor
            .lever_to_dim()
            .filter(|_| !actor.is_on_stage())
            .and_then(|lever| dark(&actor, lever, court, WriteClass::Spec))
    };
    Moves::some(MoveRank::Drain, actors().filter_map(off).collect())
}
