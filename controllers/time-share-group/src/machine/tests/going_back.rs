//! Units that were given up, that are not reached, and pods in no unit.

use super::rig::{PAY, PROMO, Rig, marked, off, unready, written};
use crate::fixtures::{PEAK, at, on_stage, overlaid, pending, pod, serving, sized};
use crate::machine::*;
use crate::observed::{Attempt, Refused, RefusedBy};
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_crds::time_share_group::StuckReason;
use springtide_plumbing::plan::{Step, WriteClass};
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

const NONE: Vec<String> = Vec::new();

fn given_up(promo: Value, pay: Value) -> Rig {
    Rig::pair(promo, overlaid(pay, marked("Infeasible", 7, 5)))
}

fn back(rig: &Rig) -> (UnitState, Vec<String>) {
    (rig.stand_on(Side::Back).state, rig.written_on(Side::Back, Leave::GoOn))
}

#[test]
fn the_mark_of_this_switch_says_which_side_a_unit_is_driven_to() {
    let side_of =
        |rig: &Rig, is_reached| rig.judge(|court, units, _| side(&units.units[0], is_reached, court));
    let unmarked = Rig::pair(on_stage(), json!({}));
    assert_eq!((side_of(&unmarked, true), side_of(&unmarked, false)), (Side::To, Side::Stay));
    let mut marked = given_up(on_stage(), json!({}));
    assert_eq!((side_of(&marked, true), side_of(&marked, false)), (Side::Back, Side::Back));
    marked.heading.is_return = true;
    assert_eq!(side_of(&marked, true), Side::AsIs);
    marked.heading.id = 8;
    assert_eq!(side_of(&marked, true), Side::To, "a new switch tries again");
    let on_donor = Rig::pair(overlaid(on_stage(), super::rig::marked("NotReady", 7, 5)), json!({}));
    let found = on_donor.judge(|court, units, _| mark(&units.units[0], court)).unwrap();
    assert_eq!(
        (found.reason, on_donor.name(found.pod), found.since),
        (StuckReason::NotReady, "promo-1", Some(at(5)))
    );
}

#[test]
fn whoever_has_grown_shrinks_first_and_gives_its_room_back() {
    let infeasible = overlaid(sized("4", "200m"), pending("Infeasible", at(4)));
    let rig = given_up(off(7, 0), infeasible);
    let moves = rig.moves_on(Side::Back, Leave::GoOn).unwrap();
    assert_eq!(
        (written(Some(&moves)), moves.rank),
        (vec!["pay-1=200m -> promo-1=4".to_owned()], MoveRank::Protective)
    );
    let [Step::Chain(writes)] = &moves.steps[..] else { panic!("{moves:?}") };
    assert!(writes.iter().all(|write| write.class == WriteClass::Protective));
    let stand = rig.stand_on(Side::Back);
    assert_eq!((stand.state, stand.begun, stand.in_flight), (UnitState::Returning, true, true));
    assert_eq!(rig.moves_on(Side::Back, Leave::Rest), None);
}

#[test]
fn one_that_serves_is_drained_before_it_shrinks_and_goes_on_without_the_proof() {
    let rig = given_up(off(7, 0), on_stage());
    assert_eq!(back(&rig), (UnitState::Returning, vec!["pay-1 off".to_owned()]));
    let late = |now: i64| {
        let mut rig = given_up(off(7, 0), overlaid(on_stage(), off(7, 6))).at(now);
        rig.evidence(PAY).exposure.listed_by.insert("pay".into());
        rig.written_on(Side::Back, Leave::GoOn)
    };
    assert_eq!((late(65), late(66)), (NONE, vec!["pay-1=200m -> promo-1=4".to_owned()]));
}

#[test]
fn a_unit_has_come_back_when_its_donors_serve_again() {
    let waits = given_up(overlaid(sized("4", "200m"), off(7, 0)), json!({}));
    assert_eq!(back(&waits), (UnitState::Returning, NONE));
    let dark = given_up(overlaid(sized("4", "4"), off(7, 0)), json!({}));
    assert_eq!(back(&dark), (UnitState::Returning, vec!["promo-1 on".to_owned()]));
    let lit = given_up(on_stage(), json!({}));
    let stand = lit.stand_on(Side::Back);
    assert_eq!(
        (stand.state, stand.in_flight, lit.written_on(Side::Back, Leave::Start)),
        (UnitState::GivenUp, false, NONE)
    );
}

#[test]
fn of_a_chain_that_was_cut_the_rest_is_sent() {
    let mut rig = given_up(off(7, 0), json!({}));
    rig.fill(PEAK);
    assert_eq!(back(&rig), (UnitState::Returning, vec!["promo-1=4".to_owned()]));
    rig.fill(Demand::ZERO);
    assert_eq!(back(&rig), (UnitState::Returning, NONE), "never more than the node has");
    let mut grown = given_up(
        overlaid(sized("4", "200m"), overlaid(off(7, 0), pending("Deferred", at(8)))),
        overlaid(sized("4", "4"), off(7, 0)),
    );
    grown.evidence(PAY).proved_since = Some(at(0));
    assert_eq!(back(&grown), (UnitState::Returning, vec!["pay-1=200m".to_owned()]));
}

#[test]
fn one_that_does_not_come_back_in_time_is_told_of_and_goes_on() {
    let waits =
        given_up(overlaid(sized("4", "200m"), overlaid(off(7, 0), pending("Deferred", at(6)))), json!({}));
    assert_eq!(waits.stand_on(Side::Back).wake, Some(at(11)), "to be nudged");
    let late = waits.at(65);
    let stand = late.stand_on(Side::Back);
    let UnitState::Stuck(stuck) = &stand.state else { panic!("{stand:?}") };
    assert_eq!((stuck.reason, stuck.since, stand.in_flight), (StuckReason::Infeasible, at(65), false));
    assert!(stand.state.is_settled(Side::Back, true) && !stand.state.is_settled(Side::To, true));
    assert_eq!(late.written_on(Side::Back, Leave::GoOn), ["promo-1=200m -> promo-1=4"]);
}

#[test]
fn what_is_refused_on_the_way_back_is_not_tried_at_once() {
    let mut rig = given_up(off(7, 0), json!({}));
    rig.fill(PEAK);
    let what = Attempt::Resize(Level::Peak);
    let (why, message) = (RefusedBy::Quota, "no".into());
    rig.evidence(PROMO).refused = Some(Refused { what, why, message, at: at(8), retry_at: at(68) });
    assert_eq!(back(&rig), (UnitState::Returning, NONE));
    rig.now = at(68);
    assert_eq!(rig.written_on(Side::Back, Leave::GoOn), ["promo-1=4"]);
}

#[test]
fn a_unit_that_is_left_as_it_is_serves_where_it_is_at_peak() {
    let as_is = |promo: Value, pay: Value| {
        let rig = Rig::pair(promo, pay);
        (
            rig.stand_on(Side::AsIs).state,
            rig.written_on(Side::AsIs, Leave::Rest),
            rig.written_on(Side::AsIs, Leave::GoOn),
        )
    };
    let on = || vec!["promo-1 on".to_owned()];
    assert_eq!(as_is(overlaid(sized("4", "4"), off(7, 0)), json!({})), (UnitState::GivenUp, on(), on()));
    assert_eq!(as_is(overlaid(sized("4", "200m"), off(7, 0)), json!({})), (UnitState::GivenUp, NONE, NONE));
    assert_eq!(
        as_is(serving("true"), on_stage()),
        (UnitState::GivenUp, NONE, vec!["promo-1 off".to_owned()])
    );
}

#[test]
fn new_pods_of_who_has_the_peak_grow_where_a_unit_is_not_reached() {
    let stay = |promo: Value, leave, free| {
        let mut rig = Rig::pair(promo, json!({}));
        rig.fill(free);
        (rig.stand_on(Side::Stay).state, rig.written_on(Side::Stay, leave))
    };
    let still = |writes: &[&str]| {
        (UnitState::Still, writes.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(stay(json!({}), Leave::Start, PEAK), still(&["promo-1=4"]));
    assert_eq!(stay(json!({}), Leave::Start, Demand::ZERO), still(&[]));
    assert_eq!(stay(json!({}), Leave::GoOn, PEAK), still(&[]));
    assert_eq!(stay(sized("4", "200m"), Leave::Start, PEAK), still(&[]));
    assert_eq!(stay(sized("4", "4"), Leave::GoOn, PEAK), still(&["promo-1 on"]));
    assert_eq!(stay(overlaid(sized("4", "4"), off(6, -9)), Leave::Rest, PEAK), still(&["promo-1 on"]));
    assert_eq!(stay(overlaid(sized("4", "4"), unready(-9)), Leave::Start, PEAK), still(&["promo-1 on"]));
    assert_eq!(stay(on_stage(), Leave::Start, PEAK), still(&[]));
}

#[test]
fn of_several_new_pods_as_many_grow_as_fit() {
    let small = |name: &str| pod(name, "n1", json!({}));
    let promo: Vec<Arc<PodView>> = vec![small("promo-1"), small("promo-2"), pod("promo-3", "n1", on_stage())];
    let profile = |peak: i64| {
        crate::fixtures::profile(Demand { cpu: peak, memory: PEAK.memory }, crate::fixtures::VALLEY)
    };
    let mut rig = Rig::with(json!({}), promo, vec![small("pay-1")]);
    rig.profiles = vec![profile(11_600), profile(4000)];
    rig.fill(Demand { cpu: 3900, memory: 0 });
    assert_eq!(rig.written_on(Side::Stay, Leave::Start), ["promo-1=4"], "three of them are one unit");
}

#[test]
fn a_small_pod_that_is_to_serve_does_so_before_its_unit_is_reached() {
    let keep = json!({"members": [{"name": "pay", "traffic": {"mode": "ServiceLabel", "valley": "Keep"}}]});
    let rig = Rig::pair_of(keep, on_stage(), json!({}));
    assert_eq!(rig.written_on(Side::Stay, Leave::Rest), ["pay-1 on"]);
    assert_eq!(Rig::pair(on_stage(), json!({})).written_on(Side::Stay, Leave::Rest), NONE);
}

/// A pod of a third member.
fn third(over: Value, is_reached: bool, leave: Leave) -> (Stand, Vec<String>) {
    let games = json!({"members": [crate::fixtures::member("games")]});
    let mut rig = Rig::with(games.clone(), vec![], vec![]);
    rig.observed = crate::fixtures::observed(games, &[("games", vec![pod("games-1", "n1", over)])]);
    rig.profiles = crate::fixtures::profiles(&rig.observed);
    rig.observed.members[2].pods[0].evidence.proved_since = Some(at(0));
    rig.judge(|court, units, room| {
        let stray = &units.strays[0];
        let stand = super::super::stray(stray, is_reached, court);
        let mut waiting = Waiting::of(court, []);
        let moves = next_of_stray(stray, is_reached, &stand, leave, court, &mut room.clone(), &mut waiting);
        (stand, written(moves.as_ref()))
    })
}

#[test]
fn a_pod_in_no_unit_shrinks_out_of_traffic_when_it_is_reached() {
    let of = |over: Value| {
        let (stand, writes) = third(over, true, Leave::Start);
        (stand.state, writes)
    };
    assert_eq!(of(on_stage()), (UnitState::Idle, vec!["games-1 off".to_owned()]));
    assert_eq!(of(overlaid(on_stage(), off(7, 0))), (UnitState::Drained, vec!["games-1=200m".to_owned()]));
    assert_eq!(of(sized("200m", "4")), (UnitState::Resizing, NONE));
    assert_eq!(of(json!({})), (UnitState::Done, NONE));
    assert_eq!(third(on_stage(), true, Leave::GoOn).1, NONE);
}

#[test]
fn a_pod_in_no_unit_stays_as_it_is_before_it_is_reached() {
    let of = |over: Value| {
        let (stand, writes) = third(over, false, Leave::Start);
        (stand.state, writes)
    };
    assert_eq!(of(on_stage()), (UnitState::Still, NONE));
    assert_eq!(of(overlaid(sized("4", "4"), off(6, -9))), (UnitState::Still, vec!["games-1 on".to_owned()]));
    assert_eq!(of(serving("true")), (UnitState::Still, vec!["games-1 off".to_owned()]));
    assert_eq!(of(json!({})), (UnitState::Still, NONE));
}

#[test]
fn a_pod_in_no_unit_is_not_given_up_and_holds_nothing_up() {
    let late = overlaid(on_stage(), off(7, -100));
    let games = json!({"members": [crate::fixtures::member("games")]});
    let mut rig = Rig::with(games.clone(), vec![], vec![]);
    rig.observed = crate::fixtures::observed(games, &[("games", vec![pod("games-1", "n1", late)])]);
    rig.profiles = crate::fixtures::profiles(&rig.observed);
    rig.observed.members[2].pods[0].evidence.exposure.listed_by.insert("shop".into());
    rig.judge(|court, units, room| {
        let stand = super::super::stray(&units.strays[0], true, court);
        assert!(
            matches!(&stand.state, UnitState::Stuck(stuck) if stuck.reason == StuckReason::DrainTimedOut)
        );
        assert!(stand.state.is_settled(Side::AsIs, true) && !stand.in_flight);
        let mut waiting = Waiting::of(court, []);
        let moves = next_of_stray(
            &units.strays[0],
            true,
            &stand,
            Leave::Start,
            court,
            &mut room.clone(),
            &mut waiting,
        );
        assert_eq!(moves, None);
    });
}
