//! The way of one unit: all writes that bring it from where its pods stand to the side that a switch goes to, when nothing
//! comes between.

use crate::machine::{resize, traffic};
use crate::memory_safety::widest;
use crate::observed::{Observed, PodIndex};
use crate::sizes::{Level, Profile, Size};
use crate::traffic::{TrafficGoal, due, goals};
use crate::units::Unit;
use jiff::Timestamp;
use springtide_crds::time_share_group::{Member as MemberSpec, Order};
use springtide_plumbing::plan::{Write, WriteClass};
use springtide_plumbing::workloads::pod::PodView;

/// One pod of a unit, and what it is to become.
struct Turn<'a> {
    spec: &'a MemberSpec,
    pod: &'a PodView,
    size: Size,
    goal: TrafficGoal,
}

/// The writes, in their order; `id` is the number of the switch.
pub(super) fn way(
    observed: &Observed,
    profiles: &[Profile],
    unit: &Unit,
    id: u32,
    now: Timestamp,
) -> Vec<Write> {
    let goals = goals(observed);
    let turns = |pods: &[PodIndex], level: Level| -> Vec<Turn<'_>> {
        let turn = |index: &PodIndex| {
            let spec = observed.group.spec.members.get(index.member.0)?;
            let size = profiles.get(index.member.0)?.sized(level, widest(spec.memory));
            Some(Turn { spec, pod: &observed.pod(*index)?.pod, size, goal: goals.of(*index, level) })
        };
        pods.iter().filter_map(turn).collect()
    };
    let (shrinking, growing) = (turns(&unit.from, Level::Valley), turns(&unit.to, Level::Peak));
    let resized = |turns: &[Turn<'_>]| -> Vec<Write> {
        let to_do = turns.iter().filter(|turn| !turn.size.is_asked_by(turn.pod));
        to_do.map(|turn| resize(turn.pod, &turn.size, WriteClass::Spec)).collect()
    };
    let turned = |turns: &[Turn<'_>]| -> Vec<Write> {
        let to_do = turns.iter().filter_map(|turn| {
            let (lever, is_on) = due(turn.spec, turn.pod, turn.goal)?;
            Some(traffic(turn.pod, lever, is_on, id, now))
        });
        to_do.collect()
    };
    let (first, second) = match observed.group.spec.switch.order {
        Order::Pipelined | Order::ShrinkFirst => (&shrinking, &growing),
        Order::ClaimFirst => (&growing, &shrinking),
    };
    [turned(&shrinking), resized(first), resized(second), turned(&growing)].concat()
}
