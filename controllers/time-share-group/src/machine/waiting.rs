//! Who waits for room on a node: told from what will not fit, and served by whoever shrinks there.

use super::flow::Play;
use super::look::Look;
use super::{Cannot, Court, Side, Stand, UnitState, nudges};
use crate::observed::PodIndex;
use crate::sizes::Demand;
use crate::units::{Stray, Unit};
use springtide_plumbing::plan::Write;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// Tells units that only wait from those whose node has no room: while another unit that is reached, or a pod that is in no
/// unit, is on its way on the node, there may be room by the end of that.
pub fn await_room(
    units: &[Unit],
    sides: &[Side],
    stands: &mut [Stand],
    strays: &[Stray],
    of_strays: &[Stand],
    is_open: bool,
) {
    let of_units = units.iter().zip(sides).zip(&*stands);
    let moving_units = of_units
        .filter(|((_, side), stand)| **side != Side::Stay && !stand.state.is_settled(**side, is_open))
        .map(|((unit, _), _)| &*unit.node);
    let moving_strays = strays
        .iter()
        .zip(of_strays)
        .filter(|(_, stand)| !stand.state.is_settled(Side::AsIs, is_open))
        .map(|(stray, _)| &*stray.node);
    let moving: HashSet<&str> = moving_units.chain(moving_strays).collect();
    for ((unit, side), stand) in units.iter().zip(sides).zip(stands) {
        let waits = *side == Side::To && stand.state == UnitState::Cannot(Cannot::NoRoom);
        if waits && moving.contains(&*unit.node) {
            stand.state = UnitState::Waiting;
        }
    }
}

/// By node: units whose pods can grow as soon as there is room, and whether a pod was nudged.
#[derive(Default)]
pub struct Waiting<'a> {
    receivers: HashMap<&'a str, VecDeque<&'a Unit>>,
    taken: HashSet<PodIndex>,
    nudged: HashSet<Arc<str>>,
}

impl<'a> Waiting<'a> {
    /// Those of some units that wait for room alone: nobody has to shrink for them any more. The units are those that may
    /// begin, in their order.
    pub fn of(court: &Court<'_>, units: impl IntoIterator<Item = &'a Unit>) -> Self {
        let mut waiting = Self::default();
        for unit in units {
            let look = Look::of(&Play::forth(unit, court));
            if look.unshrunk == 0 && look.is_free_to_grow() {
                waiting.receivers.entry(&unit.node).or_default().push_back(unit);
            }
        }
        for known in court.observed.members.iter().flat_map(|member| &member.pods) {
            if let (Some(node), true) = (&known.pod.node, nudges::is_recent(&known.evidence, court)) {
                waiting.nudged.insert(Arc::clone(node));
            }
        }
        waiting
    }

    /// The resizes of the first unit on a node that fits into so much, and how much of it they take. It is not given out
    /// again.
    pub(super) fn take(
        &mut self,
        node: &str,
        room: Demand,
        court: &Court<'_>,
    ) -> Option<(Vec<Write>, Demand)> {
        let units = self.receivers.get_mut(node)?;
        let taken = &self.taken;
        let found = units.iter().enumerate().find_map(|(place, unit)| {
            let play = Play::forth(unit, court);
            let needed = Look::of(&play).needed;
            let is_free = unit.to.first().is_some_and(|pod| !taken.contains(pod));
            (is_free && needed.fits(room)).then(|| (place, play.grows(), needed))
        });
        let (place, writes, needed) = found?;
        let unit = units.remove(place)?;
        self.taken.extend(unit.to.first());
        Some((writes, needed))
    }

    /// Whether a unit with this pod has been served in this pass.
    pub(super) fn is_taken(&self, pod: PodIndex) -> bool {
        self.taken.contains(&pod)
    }

    /// That a unit with this pod is.
    pub(super) fn taken(&mut self, pod: PodIndex) {
        self.taken.insert(pod);
    }

    /// Whether a pod on this node was nudged a moment ago.
    pub(super) fn is_nudged(&self, node: &str) -> bool {
        self.nudged.contains(node)
    }

    /// That one is.
    pub(super) fn nudged(&mut self, node: &str) {
        self.nudged.insert(node.into());
    }
}

impl Look {
    /// Whether nothing but room keeps pods from growing.
    fn is_free_to_grow(&self) -> bool {
        self.ungrown > 0
            && self.shrinking == 0
            && self.denied.is_none()
            && self.refused.is_none()
            && self.upgrading.is_none()
    }
}
