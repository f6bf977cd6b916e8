//! Resizes that are withdrawn and asked for again.

use super::rig::{PAY, Rig, off, written};
use crate::fixtures::{PEAK, at, overlaid, pending, pod, sized};
use crate::machine::*;
use crate::observed::{Attempt, Nudges, Refused, RefusedBy};
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_plumbing::plan::Step;

const NONE: Vec<String> = Vec::new();

fn deferred(since: i64) -> Value {
    overlaid(sized("4", "200m"), pending("Deferred", at(since)))
}

/// `pay` waits since `at(4)` although `promo` has shrunk.
fn waiting() -> Rig {
    Rig::pair(off(7, 0), deferred(4))
}

#[test]
fn a_resize_that_is_put_off_although_there_is_room_is_withdrawn_and_asked_for_again() {
    let rig = waiting().at(8);
    assert_eq!((rig.stand().wake, rig.written()), (Some(at(9)), NONE));
    let rig = rig.at(9);
    let moves = rig.moves(Leave::GoOn).unwrap();
    assert_eq!(written(Some(&moves)), ["pay-1=200m -> pay-1=4"]);
    assert_eq!((moves.rank, moves.nudged), (MoveRank::Nudge, 1));
    let [Step::Chain(writes)] = &moves.steps[..] else { panic!("{moves:?}") };
    let pinned: Vec<_> = writes.iter().map(|write| write.action.resource_version().is_some()).collect();
    assert_eq!(pinned, [true, false], "the second one follows the first");
    assert_eq!(rig.moves(Leave::Rest), None);
}

#[test]
fn nobody_is_nudged_more_than_three_times_nor_twice_at_a_time() {
    let nudged = |count, last| {
        let mut rig = waiting().at(20);
        rig.evidence(PAY).nudges = Nudges { count, last: Some(at(last)) };
        rig.written()
    };
    assert_eq!(nudged(2, 15), ["pay-1=200m -> pay-1=4"]);
    assert_eq!((nudged(2, 16), nudged(3, 10)), (NONE, NONE));
}

#[test]
fn nobody_is_nudged_whom_its_node_has_no_room_for() {
    let mut rig = waiting().at(20);
    rig.fill(Demand { cpu: -1, memory: 0 });
    assert_eq!(rig.written(), NONE);
    // Another pod holds the room still, by what its node reports.
    let pods = vec![pod("promo-1", "n1", off(7, 0)), pod("promo-2", "n1", sized("200m", "4"))];
    let mut rig = Rig::with(json!({}), pods, vec![pod("pay-1", "n1", deferred(4))]).at(20);
    rig.fill(Demand { cpu: 3799, memory: 0 });
    assert_eq!(rig.written(), NONE);
    rig.fill(Demand { cpu: 3800, memory: 0 });
    assert_eq!(rig.written(), ["pay-1=200m -> pay-1=4"]);
}

#[test]
fn nobody_is_nudged_while_its_donor_shrinks_or_what_it_asks_for_is_refused() {
    let mut rig = Rig::pair(overlaid(sized("200m", "4"), off(7, 0)), deferred(4)).at(20);
    rig.fill(PEAK);
    assert_eq!(rig.written(), NONE);
    let mut rig = waiting().at(20);
    rig.evidence(PAY).is_upgrading = true;
    assert_eq!(rig.written(), NONE);
    let mut rig = waiting().at(20);
    let what = Attempt::Resize(Level::Peak);
    let (why, message) = (RefusedBy::Quota, "no".into());
    rig.evidence(PAY).refused = Some(Refused { what, why, message, at: at(8), retry_at: at(68) });
    assert_eq!(rig.written(), NONE);
}

#[test]
fn of_one_node_one_pod_is_nudged_at_a_time() {
    let pods = || {
        let pay = |name: &str| pod(name, "n1", deferred(4));
        let promo = |name: &str| pod(name, "n1", off(7, 0));
        Rig::with(json!({}), vec![promo("promo-1"), promo("promo-2")], vec![pay("pay-1"), pay("pay-2")])
            .at(20)
    };
    let all = |rig: &Rig| {
        rig.judge(|court, units, room| {
            let (mut room, mut waiting) = (room.clone(), Waiting::of(court, []));
            let mut nudged = |unit| {
                let stand = stand(unit, Side::To, court, &room);
                next(unit, Side::To, &stand, Leave::Start, court, &mut room, &mut waiting)
            };
            units.units.iter().filter_map(&mut nudged).map(|moves| moves.nudged).sum::<u32>()
        })
    };
    assert_eq!(all(&pods()), 1);
    let mut rig = pods();
    rig.observed.members[0].pods[1].evidence.nudges = Nudges { count: 1, last: Some(at(16)) };
    assert_eq!(all(&rig), 0, "one of them was a moment ago");
    rig.now = at(21);
    assert_eq!(all(&rig), 1);
}

#[test]
fn one_that_was_given_up_is_nudged_on_its_way_back_too() {
    let rig = Rig::pair(deferred(4), json!({})).at(20);
    let moves = rig.moves_on(Side::Back, Leave::GoOn).unwrap();
    assert_eq!((written(Some(&moves)), moves.nudged), (vec!["promo-1=200m -> promo-1=4".to_owned()], 1));
}
