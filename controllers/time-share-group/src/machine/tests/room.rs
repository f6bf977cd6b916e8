//! Room of a node between the units on it.

use super::rig::{Rig, off, written};
use crate::fixtures::{VALLEY, on_stage, overlaid, pod, profile, sized};
use crate::machine::*;
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

const CORES: i64 = 1000;

/// What all units write in one pass, those that have begun first; each may begin, and each is reached.
fn all(rig: &Rig) -> Vec<String> {
    rig.judge(|court, units, room| {
        let stands: Vec<Stand> = units.units.iter().map(|unit| stand(unit, Side::To, court, room)).collect();
        let (mut room, mut waiting) = (room.clone(), Waiting::of(court, &units.units));
        let mut steps = Vec::new();
        for begun in [true, false] {
            for (unit, stand) in units.units.iter().zip(&stands).filter(|(_, stand)| stand.begun == begun) {
                steps.extend(written(
                    next(unit, Side::To, stand, Leave::Start, court, &mut room, &mut waiting).as_ref(),
                ));
            }
        }
        steps
    })
}

fn pods(names: &[&str], over: Value) -> Vec<Arc<PodView>> {
    names.iter().map(|name| pod(name, "n1", over.clone())).collect()
}

#[test]
fn room_is_given_out_once_in_a_pass() {
    let mut rig = Rig::with(json!({}), vec![], pods(&["pay-1", "pay-2", "pay-3"], json!({})));
    rig.fill(Demand { cpu: 2 * 3800, memory: 0 });
    assert_eq!(all(&rig).len(), 2);
}

#[test]
fn those_that_leave_traffic_keep_the_room_that_they_will_need() {
    // Two that grow by 2 cores each for one that shrinks by 3.
    let promo = vec![pod("promo-1", "n1", on_stage())];
    let mut rig = Rig::with(json!({}), promo, pods(&["pay-1", "pay-2", "pay-3"], sized("1", "1")));
    let demand = |cpu| Demand { cpu: cpu * CORES, memory: VALLEY.memory };
    rig.profiles = vec![profile(demand(3), demand(1)), profile(demand(4), demand(1))];
    rig.rules.overlap = springtide_crds::time_share_group::Overlap::Never;
    rig.fill(Demand { cpu: 2 * CORES, memory: 0 });
    assert_eq!(all(&rig), ["promo-1 off"], "else the third one would take a core of theirs");
    rig.fill(Demand { cpu: 3 * CORES, memory: 0 });
    assert_eq!(all(&rig), ["promo-1 off", "pay-3=3"]);
}

#[test]
fn who_shrinks_for_nobody_has_one_grow_that_waits() {
    let games = json!({"members": [crate::fixtures::member("games")]});
    let mut rig = Rig::with(games.clone(), vec![], vec![]);
    let pay = pods(&["pay-1", "pay-2"], json!({}));
    let stray = overlaid(on_stage(), off(7, 0));
    rig.observed = crate::fixtures::observed(games, &[("pay", pay), ("games", pods(&["games-1"], stray))]);
    rig.observed.members[2].pods[0].evidence.proved_since = Some(crate::fixtures::at(0));
    rig.profiles = crate::fixtures::profiles(&rig.observed);
    rig.fill(Demand { cpu: 100, memory: 0 });
    let moves = |rig: &Rig| {
        rig.judge(|court, units, room| {
            let (mut room, mut waiting) = (room.clone(), Waiting::of(court, &units.units));
            let strays = &units.strays;
            let of_stray = stray_stand(&strays[0], court);
            let mut steps = written(
                next_of_stray(&strays[0], true, &of_stray, Leave::Start, court, &mut room, &mut waiting)
                    .as_ref(),
            );
            for unit in &units.units {
                let stand = stand(unit, Side::To, court, &room);
                steps.extend(written(
                    next(unit, Side::To, &stand, Leave::Start, court, &mut room, &mut waiting).as_ref(),
                ));
            }
            steps
        })
    };
    let first = rig.judge(|_, units, _| rig.name(units.units[0].to[0]).to_owned());
    assert_eq!(moves(&rig), [format!("games-1=200m -> {first}=4")]);
    rig.rules.order = springtide_crds::time_share_group::Order::ClaimFirst;
    assert_eq!(moves(&rig), [format!("{first}=4 -> games-1=200m")]);
    rig.rules.order = springtide_crds::time_share_group::Order::ShrinkFirst;
    assert_eq!(moves(&rig), ["games-1=200m"]);
}

fn stray_stand(which: &Stray, court: &Court<'_>) -> Stand {
    stray(which, true, court)
}

#[test]
fn a_unit_without_room_waits_for_those_on_its_node_that_are_on_their_way() {
    let promo = vec![pod("promo-1", "n1", on_stage())];
    let mut rig = Rig::with(json!({}), promo, pods(&["pay-1", "pay-2"], json!({})));
    rig.fill(Demand::ZERO);
    let states = |rig: &Rig, is_open| {
        rig.judge(|court, units, room| {
            let sides = vec![Side::To; units.units.len()];
            let mut stands: Vec<Stand> =
                units.units.iter().map(|unit| stand(unit, Side::To, court, room)).collect();
            await_room(&units.units, &sides, &mut stands, &[], &[], is_open);
            stands.into_iter().map(|stand| stand.state).collect::<Vec<_>>()
        })
    };
    assert_eq!(states(&rig, true), [UnitState::Idle, UnitState::Waiting]);
    rig.fill(Demand { cpu: -1, memory: 0 });
    let none = UnitState::Cannot(Cannot::NoRoom);
    assert_eq!(states(&rig, true), [none.clone(), none]);
}
