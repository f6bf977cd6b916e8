//! Where one unit stands, and what is written next.
//!
//! All of it is derived from the API: sizes that specs ask for and that kubelets report, gates and labels, and the mark of
//! a unit that was given up. So a new leader goes on where the last one stopped, whichever write was the last. What a
//! process remembers ([`Evidence`](crate::observed::Evidence)) makes waits longer when it is lost, and nothing else.
//!
//! - `evidence` is what one pod shows, `look` what those of a unit show together.
//! - `flow` is the way of a unit from one side to the other, `back` what becomes of one that was given up, that is not
//!   reached yet, and of pods in no unit; `moves` is what is written for that.
//! - `nudges` has resizes looked at again that a kubelet has put off.
//! - `stuck` is when a unit does not come through, and the mark that says so.
//! - `waiting` is who waits for room on a node.
//! - `writes` are the writes to one pod.

mod back;
mod evidence;
mod flow;
mod look;
mod moves;
mod nudges;
mod stuck;
mod waiting;
mod writes;

pub use stuck::{Mark, Stuck, given_up, mark};
pub use waiting::{Waiting, await_room};
pub use writes::{allocated, mark_write, resize, resize_unpinned, traffic};

use crate::memory_safety::Scopes;
use crate::observed::{Observed, PodIndex, RefusedBy};
use crate::sizes::{Level, Profile};
use crate::traffic::TrafficGoals;
use crate::union::Room;
use crate::units::{Heading, Stray, Unit};
use evidence::Actor;
use flow::Play;
use jiff::{SignedDuration, Timestamp};
use springtide_crds::time_share_group::{OnStuck, Order, Overlap, TimeShareGroupSpec};
use springtide_plumbing::plan::Step;

/// Which side of a switch a unit is driven to, as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The one that the switch goes to.
    To,
    /// The one that it comes from, as the unit was given up.
    Back,
    /// Where its pods are: it was given up on the way back. Who has the peak serves.
    AsIs,
    /// The one that it comes from, as it is not reached yet: nobody shrinks, and new pods of the member that has the peak
    /// grow.
    Stay,
}

/// What units are judged by.
#[derive(Clone, Copy)]
pub struct Court<'a> {
    /// What is known of the group.
    pub observed: &'a Observed,
    /// Sizes of the members' pods, in the order of the members.
    pub profiles: &'a [Profile],
    /// What of them moves.
    pub scopes: &'a Scopes,
    /// Who is to serve.
    pub traffic: &'a TrafficGoals,
    /// Which way the group goes.
    pub heading: &'a Heading,
    /// What the spec says of one unit's way.
    pub rules: &'a Rules,
    /// When the switch began.
    pub start: Timestamp,
    /// Since when the API server has to have been asked about a resize.
    pub asked_from: Timestamp,
    /// Now.
    pub now: Timestamp,
}

/// What the spec says of one unit's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Who is resized first.
    pub order: Order,
    /// Whether a pod may grow before another one shrinks.
    pub overlap: Overlap,
    /// How long a kubelet puts a resize off before it is asked anew.
    pub nudge_after: SignedDuration,
    /// How long a resize may take.
    pub unit_deadline: SignedDuration,
    /// Whether the switch goes on; after it nobody is held to times, and what has come to be otherwise is set right.
    pub is_open: bool,
    /// Whether a unit that is stuck is given up by itself.
    pub marks: bool,
}

impl Rules {
    /// What a spec says. On the way back a stuck unit is always given up by itself: that way has none back.
    pub fn of(spec: &TimeShareGroupSpec, heading: &Heading, is_open: bool) -> Self {
        let switch = &spec.switch;
        let seconds = |seconds: u32| SignedDuration::from_secs(seconds.into());
        let skips = match switch.on_stuck {
            OnStuck::Skip => true,
            OnStuck::Rollback | OnStuck::Pause => heading.is_return,
        };
        Self {
            order: switch.order,
            overlap: switch.overlap,
            nudge_after: seconds(switch.nudge_after_seconds),
            unit_deadline: seconds(switch.unit_deadline_seconds),
            is_open,
            marks: is_open && skips,
        }
    }
}

/// Where a unit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// It is not reached.
    Still,
    /// It can begin.
    Idle,
    /// Its node has no room for it, and others there are on their way; see [`await_room`].
    Waiting,
    /// Pods leave traffic.
    Draining,
    /// They have left it, and are to be resized.
    Drained,
    /// Specs ask for the new sizes, and kubelets have yet to put them in force.
    Resizing,
    /// A kubelet has put a resize off, as it has no room yet.
    Deferred,
    /// Pods have their size, and are not ready for long enough.
    Warming,
    /// They are, and traffic is yet to be turned to them.
    Turning,
    /// All of it is as it should be.
    Done,
    /// It was given up, and goes back.
    Returning,
    /// It was given up, and has come to rest.
    GivenUp,
    /// It cannot begin.
    Cannot(Cannot),
    /// It does not come through.
    Stuck(Stuck),
}

impl UnitState {
    /// Whether nothing more is waited for before the switch goes on: it is done, was given up, or cannot be done for now. A
    /// unit that is stuck on its way waits for what becomes of it as long as the switch `is_open`; one that does not come
    /// back, and a pod that is in no unit, hold nothing up.
    pub fn is_settled(&self, side: Side, is_open: bool) -> bool {
        match self {
            Self::Still | Self::Done | Self::GivenUp => true,
            Self::Cannot(Cannot::NoRoom | Cannot::Refused(_) | Cannot::Upgrading) => true,
            Self::Stuck(_) => match side {
                Side::Back | Side::AsIs => true,
                Side::To | Side::Stay => !is_open,
            },
            Self::Cannot(Cannot::Unasked)
            | Self::Idle
            | Self::Waiting
            | Self::Draining
            | Self::Drained
            | Self::Resizing
            | Self::Deferred
            | Self::Warming
            | Self::Turning
            | Self::Returning => false,
        }
    }

    /// Whether something of it is under way. Of one that cannot go on, as long as it has begun; of one that is stuck, as
    /// long as something becomes of it.
    fn is_in_flight(&self, begun: bool, side: Side, is_open: bool) -> bool {
        match self {
            Self::Still | Self::Idle | Self::Waiting | Self::Done | Self::GivenUp => false,
            Self::Draining
            | Self::Drained
            | Self::Resizing
            | Self::Deferred
            | Self::Warming
            | Self::Turning
            | Self::Returning => true,
            Self::Cannot(_) => begun,
            Self::Stuck(_) => match side {
                Side::To => is_open,
                Side::Back | Side::AsIs | Side::Stay => false,
            },
        }
    }
}

/// Why a unit cannot begin. Nothing of it was changed, and it is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cannot {
    /// Its node has no room, by what specs ask for.
    NoRoom,
    /// The API server refuses a resize.
    Refused(RefusedBy),
    /// An InPlaceUpgrade is at work on a pod of it.
    Upgrading,
    /// The API server is to be asked first.
    Unasked,
}

/// A unit's state and what goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stand {
    /// The state.
    pub state: UnitState,
    /// Whether the switch has changed something of it, as far as the API shows; see [`begun`].
    pub begun: bool,
    /// Whether it counts as under way.
    pub in_flight: bool,
    /// Pods whose kubelet has no room yet.
    pub deferred: u32,
    /// Pods whose kubelet says that there never will be.
    pub infeasible: u32,
    /// When to look again though nothing happens.
    pub wake: Option<Timestamp>,
}

/// Whether a unit was begun by this switch: a pod of it that grows asks for more than its valley, or one that shrinks was
/// turned off by this very switch. That a pod that shrinks is small already says nothing: new ones are born so.
pub fn begun(unit: &Unit, court: &Court<'_>) -> bool {
    let any = |pods: &[PodIndex], is: fn(&Actor<'_>) -> bool| {
        pods.iter().filter_map(|pod| Actor::of(court, *pod)).any(|actor| is(&actor))
    };
    any(&unit.to, |actor| actor.is_above_valley()) || any(&unit.from, |actor| actor.is_off_by_this_run())
}

/// Which side a unit is driven to: units that were given up in this switch stay so until the next.
pub fn side(unit: &Unit, is_reached: bool, court: &Court<'_>) -> Side {
    match mark(unit, court) {
        Some(_) if court.heading.is_return => Side::AsIs,
        Some(_) => Side::Back,
        None if is_reached => Side::To,
        None => Side::Stay,
    }
}

/// Where a unit stands. Whether it fits is told by the room of its node alone: [`await_room`] tells those that only wait
/// for others.
pub fn stand(unit: &Unit, side: Side, court: &Court<'_>, room: &Room) -> Stand {
    let left = room.left(&unit.node);
    match side {
        Side::To => Play::forth(unit, court).stand(side, left),
        Side::Back => back::stand(unit, court, left),
        Side::AsIs => back::as_is(unit, court),
        Side::Stay => back::stay(unit, court),
    }
}

/// What a unit may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leave {
    /// It may begin.
    Start,
    /// It may go on, if it has begun.
    GoOn,
    /// Nothing but to let pods serve that have their peak size.
    Rest,
}

/// What is written next.
#[derive(Clone, Debug, PartialEq)]
pub struct Moves {
    /// Steps that are independent of each other.
    pub steps: Vec<Step>,
    /// What they are.
    pub rank: MoveRank,
    /// Dry runs that are wanted before it can go on.
    pub asks: Vec<(PodIndex, Level)>,
    /// How many of the steps are nudges.
    pub nudged: u32,
}

/// Kinds of moves, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MoveRank {
    /// Traffic on, marks, and the way back.
    Protective,
    /// Resizes.
    Chain,
    /// Resizes that are asked for anew.
    Nudge,
    /// Traffic off, and questions.
    Drain,
}

/// What is written of a unit next; `None` where something is waited for, or nothing is left. `room` is what this pass has
/// left on the nodes, and is taken of; those that are under way come first, as they keep the room that they will need.
pub fn next(
    unit: &Unit,
    side: Side,
    stand: &Stand,
    leave: Leave,
    court: &Court<'_>,
    room: &mut Room,
    waiting: &mut Waiting<'_>,
) -> Option<Moves> {
    match side {
        Side::To => Play::forth(unit, court).next(&stand.state, leave, room, waiting),
        Side::Back => back::next(unit, leave, court, room, waiting),
        Side::AsIs => back::next_as_is(unit, leave, court),
        Side::Stay => back::next_to_stay(unit, leave, court, room, waiting),
    }
}

/// Where a pod stands that is in no unit. One that is reached shrinks; any other stays as it is.
pub fn stray(stray: &Stray, is_reached: bool, court: &Court<'_>) -> Stand {
    back::stray(stray, is_reached, court)
}

/// What is written to it next. It never grows, and is not given up: what is stuck waits.
pub fn next_of_stray(
    stray: &Stray,
    is_reached: bool,
    stand: &Stand,
    leave: Leave,
    court: &Court<'_>,
    room: &mut Room,
    waiting: &mut Waiting<'_>,
) -> Option<Moves> {
    back::next_of_stray(stray, is_reached, stand, leave, court, room, waiting)
}

#[cfg(test)]
mod tests;
