//! The way of a unit from one side to the other, by four rows: whether all that grow ask for peak, and whether all that
//! shrink ask for valley.
//!
//! | grow | shrink | what |
//! |---|---|---|
//! | no | no | those that shrink leave traffic, then all specs flip in one chain; or those that grow do so first, where there is room for both |
//! | yes | no | those that shrink leave traffic when the others serve, and shrink |
//! | no | yes | those that grow do so as soon as they fit |
//! | yes | yes | kubelets put it in force, pods are warmed up, traffic follows |
//!
//! Nothing but what the pods show says which row it is, so a unit is taken up where it was left after any write. Each row
//! looks anew at whether the unit fits and whether the API server would have it: who leaves traffic gets it back when that
//! is not so any more.

use super::evidence::Actor;
use super::look::Look;
use super::stuck::Trouble;
use super::waiting::Waiting;
use super::{Cannot, Court, Leave, MoveRank, Moves, Side, Stand, UnitState};
use crate::observed::PodIndex;
use crate::sizes::Demand;
use crate::union::Room;
use crate::units::{Stray, Unit};
use jiff::Timestamp;
use springtide_crds::time_share_group::{Order, Overlap, StuckReason};
use springtide_plumbing::clock::after;
use springtide_plumbing::plan::WriteClass;
use std::slice;

/// What a way is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The switch.
    Forth,
    /// To take back what was given up.
    Back,
    /// To have those at peak who have the peak.
    Upkeep,
}

/// Pods that grow, and those that shrink for them.
#[derive(Clone, Copy)]
pub(super) struct Play<'a> {
    /// What they are judged by.
    pub(super) court: &'a Court<'a>,
    /// Their node.
    pub(super) node: &'a str,
    /// Those that are to have their peak size.
    pub(super) grow: &'a [PodIndex],
    /// Those that are to have their valley size.
    pub(super) shrink: &'a [PodIndex],
    /// What for.
    pub(super) way: Way,
    /// Whether it is given up by a mark when it is stuck.
    marks: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Nothing, or to wait.
    None,
    /// Those that shrink are turned off.
    Drain,
    /// All are resized.
    Chain,
    /// Those that shrink are resized.
    Shrink,
    /// Those that grow are.
    Grow,
    /// Those that do not shrink after all get their traffic back.
    Restore,
    /// Small pods that serve are turned off.
    Dim,
    /// It is said that the unit is given up.
    Mark,
}

impl<'a> Play<'a> {
    /// A unit on its way to the side that the switch goes to.
    pub(super) fn forth(unit: &'a Unit, court: &'a Court<'_>) -> Self {
        let marks = court.rules.marks;
        Self { court, node: &unit.node, grow: &unit.to, shrink: &unit.from, way: Way::Forth, marks }
    }

    /// A unit that was given up on its way back.
    pub(super) fn back(unit: &'a Unit, court: &'a Court<'_>) -> Self {
        Self { court, node: &unit.node, grow: &unit.from, shrink: &unit.to, way: Way::Back, marks: false }
    }

    /// The pods of a unit that is not reached, of the member that has the peak.
    pub(super) fn upkeep(unit: &'a Unit, court: &'a Court<'_>) -> Self {
        Self { court, node: &unit.node, grow: &unit.from, shrink: &[], way: Way::Upkeep, marks: false }
    }

    /// A pod that is in no unit and shrinks.
    pub(super) fn stray(stray: &'a Stray, court: &'a Court<'_>) -> Self {
        let shrink = slice::from_ref(&stray.pod);
        Self { court, node: &stray.node, grow: &[], shrink, way: Way::Forth, marks: false }
    }

    /// Some of its pods.
    pub(super) fn actors(&self, pods: &'a [PodIndex]) -> impl Iterator<Item = Actor<'a>> + use<'a> {
        let court = self.court;
        pods.iter().filter_map(move |pod| Actor::of(court, *pod))
    }

    /// Whether pods are held to times: in a switch that goes on, for what it has done.
    pub(super) fn holds_to_times(&self) -> bool {
        self.way == Way::Forth && self.court.rules.is_open
    }

    /// The class of its resizes: what takes something back gives users what they had.
    pub(super) fn class(&self) -> WriteClass {
        if self.way == Way::Back || self.court.heading.is_return {
            WriteClass::Protective
        } else {
            WriteClass::Spec
        }
    }

    /// Where the unit stands with so much room left on its node.
    pub(super) fn stand(&self, side: Side, left: Demand) -> Stand {
        let mut look = Look::of(self);
        let (state, _) = self.judge(&look, left);
        if look.upgrading.is_some() {
            look.wake_at(self.upgraded_by(), self);
        }
        look.stand(state, side, look.begun, self.court.rules.is_open)
    }

    /// The state, and what is to be done.
    fn judge(&self, look: &Look, left: Demand) -> (UnitState, Act) {
        let rules = self.court.rules;
        let (state, act) = self.row(look, left);
        let is_hindered = look.refused.is_some() || look.denied.is_some() || look.upgrading.is_some();
        if let Some(trouble) = self.trouble(look) {
            let act = match (self.marks, is_hindered) {
                (true, _) => Act::Mark,
                (false, true) => Act::None,
                (false, false) => act,
            };
            return (UnitState::Stuck(trouble.told(self.court)), act);
        }
        if let Some((by, _)) = look.refused {
            return (UnitState::Cannot(Cannot::Refused(by)), Act::Restore);
        }
        if let Some((by, _)) = look.denied.filter(|_| !self.is_shrunk(look)) {
            return (UnitState::Cannot(Cannot::Refused(by)), Act::Restore);
        }
        if look.upgrading.is_some() {
            let waits = rules.is_open && self.court.now < self.upgraded_by();
            return match (look.begun, waits || self.is_resized(look)) {
                (true, true) => (state, Act::None),
                (false, true) if waits => (UnitState::Idle, Act::None),
                (_, _) => (UnitState::Cannot(Cannot::Upgrading), Act::Restore),
            };
        }
        (state, act)
    }

    /// For so long an upgrade of one of its pods is waited for.
    fn upgraded_by(&self) -> Timestamp {
        after(self.court.start, self.court.rules.unit_deadline)
    }

    /// Whether the spec of one of its pods asks for its new size already. Of one that shrinks that says something only where
    /// this switch has begun with the unit: new ones are born so.
    fn is_resized(&self, look: &Look) -> bool {
        self.grow.len() > look.ungrown || (look.begun && self.shrink.len() > look.unshrunk)
    }

    /// What is wrong with a unit that has to be given up for it. A refusal is that once something of the unit was changed: a
    /// write's as soon as it has begun, and that of a dry run when it is resized in part, so that nobody shrinks on. So is an
    /// upgrade that keeps the rest of it from being resized for too long.
    pub(super) fn trouble(&self, look: &Look) -> Option<Trouble> {
        let is_resized = self.is_resized(look);
        let refused = look.refused.filter(|_| look.begun || self.is_shrunk(look));
        let denied = look.denied.filter(|_| is_resized && look.unshrunk > 0);
        let since = self.upgraded_by();
        let is_late = is_resized && self.holds_to_times() && since <= self.court.now;
        let upgrading = look.upgrading.filter(|_| is_late);
        let upgrading = upgrading.map(|pod| Trouble { reason: StuckReason::Upgrading, pod, since });
        look.trouble.or(refused.or(denied).map(|(_, trouble)| trouble)).or(upgrading)
    }

    /// Whether all that shrink for others have done so. By whom is not to be told of pods that are turned by nothing; what the
    /// server thinks of the others it says when they are to grow.
    fn is_shrunk(&self, look: &Look) -> bool {
        let is_ours = look.begun || self.court.rules.is_open;
        is_ours && look.ungrown > 0 && look.unshrunk == 0 && !self.shrink.is_empty()
    }

    /// The row of the table; see the [module](self).
    pub(super) fn row(&self, look: &Look, left: Demand) -> (UnitState, Act) {
        let begun_or = |begun: UnitState| if look.begun { begun } else { UnitState::Idle };
        match (look.ungrown == 0, look.unshrunk == 0) {
            (true, true) => settling(look),
            (true, false) => {
                let is_time = look.deferred > 0 || look.is_drain_begun || is_up(look);
                if is_time { leaving(look, Act::Shrink) } else { settling(look) }
            }
            (false, true) => {
                if self.court.rules.order == Order::ShrinkFirst && look.shrinking > 0 {
                    (UnitState::Resizing, Act::None)
                } else if look.needed.fits(left) {
                    (begun_or(UnitState::Drained), Act::Grow)
                } else {
                    (UnitState::Cannot(Cannot::NoRoom), Act::None)
                }
            }
            (false, false) => {
                if self.overlaps() && !look.is_drain_begun && look.needed.fits(left) {
                    return (begun_or(UnitState::Resizing), Act::Grow);
                }
                if !look.needed.fits(left + look.freed) {
                    return (UnitState::Cannot(Cannot::NoRoom), Act::Restore);
                }
                if look.is_unasked {
                    let state = if look.begun {
                        leaving(look, Act::None).0
                    } else {
                        UnitState::Cannot(Cannot::Unasked)
                    };
                    return (state, Act::None);
                }
                let resize = match self.court.rules.order {
                    Order::Pipelined | Order::ClaimFirst => Act::Chain,
                    Order::ShrinkFirst => Act::Shrink,
                };
                leaving(look, resize)
            }
        }
    }

    fn overlaps(&self) -> bool {
        match (self.way, self.court.rules.overlap) {
            (Way::Forth, Overlap::WhenFree) => true,
            (Way::Forth, Overlap::Never) | (Way::Back | Way::Upkeep, _) => false,
        }
    }

    /// What is written next of a unit that stood so before this pass.
    pub(super) fn next(
        &self,
        stood: &UnitState,
        leave: Leave,
        room: &mut Room,
        waiting: &mut Waiting<'_>,
    ) -> Option<Moves> {
        if self.grow.first().is_some_and(|pod| waiting.is_taken(*pod)) {
            return None;
        }
        let look = Look::of(self);
        let (state, act) = self.judge(&look, room.left(self.node));
        let act = match (act, stood) {
            // Others have begun in this pass: it may fit again.
            (Act::Restore, UnitState::Cannot(_) | UnitState::Waiting) => Act::Restore,
            (Act::Restore, _) => Act::None,
            (act, _) => act,
        };
        let may = match leave {
            Leave::Start => true,
            Leave::GoOn => look.begun,
            Leave::Rest => false,
        };
        let asks = if may && is_to_ask(&state, &look) { self.questions() } else { Vec::new() };
        let moves = self.moves(&look, act, may, leave, room, waiting);
        match moves {
            Some(moves) => Some(Moves { asks, ..moves }),
            None => (!asks.is_empty()).then(|| Moves { asks, ..Moves::of(MoveRank::Drain, Vec::new()) }),
        }
    }
}

/// Whether all that grow have come to serve, as far as that is waited for.
fn is_up(look: &Look) -> bool {
    look.growing == 0 && look.cold == 0 && look.dark == 0
}

/// Specs are as they should be, of those that grow at least.
fn settling(look: &Look) -> (UnitState, Act) {
    let state = if look.deferred > 0 {
        UnitState::Deferred
    } else if look.growing > 0 || look.shrinking > 0 {
        UnitState::Resizing
    } else if look.cold > 0 {
        UnitState::Warming
    } else if look.dark > 0 || look.lit > 0 {
        UnitState::Turning
    } else {
        UnitState::Done
    };
    let act = if state == UnitState::Turning && look.lit > 0 { Act::Dim } else { Act::None };
    (state, act)
}

/// Those that shrink leave traffic, and what comes then.
fn leaving(look: &Look, then: Act) -> (UnitState, Act) {
    if look.serving > 0 {
        let state = if look.begun { UnitState::Draining } else { UnitState::Idle };
        let act = if then == Act::None { Act::None } else { Act::Drain };
        (state, act)
    } else if look.leaving > 0 {
        (UnitState::Draining, Act::None)
    } else {
        (if look.begun { UnitState::Drained } else { UnitState::Idle }, then)
    }
}

/// Whether questions are due: before it begins, and before it goes on where an answer was lost.
fn is_to_ask(state: &UnitState, look: &Look) -> bool {
    match state {
        UnitState::Cannot(Cannot::Unasked | Cannot::Refused(_)) => true,
        UnitState::Draining | UnitState::Drained => look.is_unasked && look.unshrunk > 0 && look.ungrown > 0,
        UnitState::Cannot(Cannot::NoRoom | Cannot::Upgrading)
        | UnitState::Still
        | UnitState::Idle
        | UnitState::Waiting
        | UnitState::Resizing
        | UnitState::Deferred
        | UnitState::Warming
        | UnitState::Turning
        | UnitState::Done
        | UnitState::Returning
        | UnitState::GivenUp
        | UnitState::Stuck(_) => false,
    }
}
