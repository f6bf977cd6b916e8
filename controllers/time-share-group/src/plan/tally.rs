//! Where the units of a transition stand, in numbers: what its steps, its guards and its end rest on.

use crate::machine::{Cannot, Side, Stand, UnitState};
use jiff::Timestamp;
use springtide_crds::time_share_group::UnitCounts;

/// Counts over units and strays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Units by where they stand, as the status has them.
    pub counts: UnitCounts,
    /// Units that failed: those that were given up, and those that are stuck.
    pub failed: u32,
    /// Units that did not begin as the API server refuses their resizes. That a node has no room, or that a pod is being
    /// upgraded, is no failure of the switch.
    pub refused: u32,
    /// Units that are stuck and were not given up yet.
    pub stuck_now: u32,
    /// Reached units that have not come to their end.
    pub unsettled_reached: u32,
    /// Strays that have not come to theirs.
    pub strays_open: u32,
    /// When to look again at one of them though nothing happens.
    pub wake: Option<Timestamp>,
}

impl Tally {
    /// Counts units, each with the side that it is driven to, and strays. While the transition `is_open` a stuck unit is one
    /// that something is to be done about; afterwards it is one that is told of.
    pub fn of<'a>(
        units: impl IntoIterator<Item = (Side, &'a Stand)>,
        strays: impl IntoIterator<Item = &'a Stand>,
        is_open: bool,
    ) -> Self {
        let mut tally = Self::default();
        for (side, stand) in units {
            tally.add(side, stand, is_open);
        }
        for stand in strays {
            tally.strays_open += u32::from(!stand.state.is_settled(Side::AsIs, is_open));
            tally.wake_at(stand.wake);
        }
        tally
    }

    fn add(&mut self, side: Side, stand: &Stand, is_open: bool) {
        let was_given_up = match side {
            Side::Back | Side::AsIs => true,
            Side::To | Side::Stay => false,
        };
        let is_reached = match side {
            Side::To | Side::Back | Side::AsIs => true,
            Side::Stay => false,
        };
        let (is_stuck, is_refused, is_left) = match &stand.state {
            UnitState::Stuck(_) => (true, false, false),
            UnitState::Cannot(Cannot::Refused(_)) => (false, true, true),
            UnitState::Cannot(Cannot::NoRoom | Cannot::Upgrading) => (false, false, true),
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
            | UnitState::GivenUp => (false, false, false),
        };
        let is_to = side == Side::To;
        let is_left = is_left && is_to;
        let counts = &mut self.counts;
        counts.total += 1;
        counts.done += u32::from(is_to && stand.state == UnitState::Done);
        counts.in_flight += u32::from(stand.in_flight);
        counts.deferred += u32::from(stand.deferred > 0);
        counts.infeasible += u32::from(stand.infeasible > 0);
        counts.skipped += u32::from(was_given_up || is_left);
        counts.reversed += u32::from(side == Side::Back && stand.state == UnitState::GivenUp);
        counts.stuck += u32::from(was_given_up || is_left || (is_stuck && is_to));
        self.failed += u32::from(was_given_up || (is_to && is_stuck));
        self.refused += u32::from(is_to && is_refused);
        self.stuck_now += u32::from(is_stuck && is_to);
        self.unsettled_reached += u32::from(is_reached && !stand.state.is_settled(side, is_open));
        self.wake_at(stand.wake);
    }

    fn wake_at(&mut self, at: Option<Timestamp>) {
        self.wake = [self.wake, at].into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::at;
    use crate::machine::Stuck;
    use crate::observed::{MemberIndex, PodIndex, RefusedBy};
    use springtide_crds::time_share_group::StuckReason;

    fn stand(state: UnitState) -> Stand {
        Stand { state, begun: true, in_flight: false, deferred: 0, infeasible: 0, wake: None }
    }

    fn stuck() -> UnitState {
        let pod = PodIndex { member: MemberIndex(1), pod: 0 };
        UnitState::Stuck(Stuck { reason: StuckReason::Deferred, pod, since: at(0), message: "".into() })
    }

    fn of(units: &[(Side, UnitState)], is_open: bool) -> Tally {
        let stands: Vec<_> = units.iter().map(|(side, state)| (*side, stand(state.clone()))).collect();
        Tally::of(stands.iter().map(|(side, stand)| (*side, stand)), [], is_open)
    }

    #[test]
    fn a_unit_is_settled_when_it_is_done_given_up_or_cannot_be_done() {
        for (side, state, settled) in [
            (Side::To, UnitState::Done, true),
            (Side::To, UnitState::Idle, false),
            (Side::To, UnitState::Waiting, false),
            (Side::To, UnitState::Warming, false),
            (Side::To, UnitState::Deferred, false),
            (Side::To, UnitState::Cannot(Cannot::NoRoom), true),
            (Side::To, UnitState::Cannot(Cannot::Refused(RefusedBy::Quota)), true),
            (Side::To, UnitState::Cannot(Cannot::Upgrading), true),
            (Side::To, UnitState::Cannot(Cannot::Unasked), false),
            (Side::To, stuck(), false),
            (Side::Back, UnitState::Returning, false),
            (Side::Back, UnitState::GivenUp, true),
            (Side::Back, stuck(), true),
            (Side::AsIs, stuck(), true),
            (Side::AsIs, UnitState::Still, true),
        ] {
            assert_eq!(of(&[(side, state.clone())], true).unsettled_reached == 0, settled, "{state:?}");
        }
        assert_eq!(of(&[(Side::To, stuck())], false).unsettled_reached, 0, "it is told of after the end");
        assert_eq!(of(&[(Side::Stay, UnitState::Resizing)], true).unsettled_reached, 0, "it is not reached");
    }

    #[test]
    fn units_are_counted_by_where_they_stand() {
        let units = [
            (Side::To, UnitState::Done),
            (Side::To, UnitState::Cannot(Cannot::NoRoom)),
            (Side::To, UnitState::Cannot(Cannot::Refused(RefusedBy::Admission))),
            (Side::To, stuck()),
            (Side::Back, UnitState::Returning),
            (Side::Back, UnitState::GivenUp),
            (Side::Stay, UnitState::Still),
        ];
        let tally = of(&units, true);
        let counts =
            UnitCounts { total: 7, done: 1, skipped: 4, reversed: 1, stuck: 5, ..UnitCounts::default() };
        assert_eq!(tally.counts, counts);
        assert_eq!((tally.failed, tally.refused, tally.stuck_now), (3, 1, 1), "no room is no failure");
        assert_eq!(tally.unsettled_reached, 2);
    }

    #[test]
    fn what_flies_waits_and_wakes_is_summed() {
        let waiting = Stand { in_flight: true, deferred: 2, wake: Some(at(9)), ..stand(UnitState::Deferred) };
        let never = Stand { in_flight: true, infeasible: 1, wake: Some(at(5)), ..stand(UnitState::Resizing) };
        let stray = Stand { wake: Some(at(7)), ..stand(UnitState::Draining) };
        let rests = stand(UnitState::Still);
        let tally = Tally::of([(Side::To, &waiting), (Side::To, &never)], [&stray, &rests], true);
        assert_eq!((tally.counts.in_flight, tally.counts.deferred, tally.counts.infeasible), (2, 1, 1));
        assert_eq!((tally.strays_open, tally.wake), (1, Some(at(5))));
    }
}
