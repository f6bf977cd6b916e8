//! Units that do not come through: why, since when, and the mark that says so.

use super::rig::{PAY, PROMO, Rig, condition, off, unready, written};
use crate::fixtures::{PEAK, VALLEY, at, on_stage, overlaid, pending, pod, profile, serving, sized};
use crate::machine::*;
use crate::observed::{Answer, Attempt, Refused, RefusedBy};
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_crds::time_share_group::StuckReason;

/// Both were resized, and `promo` is at valley.
fn chained(pay: Value) -> Rig {
    Rig::pair(off(7, 0), overlaid(sized("4", "200m"), pay))
}

fn stuck(rig: &Rig) -> Stuck {
    let state = rig.state();
    let UnitState::Stuck(stuck) = state else { panic!("{state:?}") };
    stuck
}

fn reason(rig: &Rig) -> (StuckReason, Timestamp, String) {
    let Stuck { reason, since, message, .. } = stuck(rig);
    (reason, since, message.into())
}

fn refused(what: Attempt) -> Refused {
    let message = "exceeded quota".into();
    Refused { what, why: RefusedBy::Quota, message, at: at(8), retry_at: at(68) }
}

#[test]
fn what_can_never_be_is_given_up_at_once() {
    let rig = chained(pending("Infeasible", at(4)));
    let words = "Node didn't have enough resource: cpu".to_owned();
    assert_eq!(reason(&rig), (StuckReason::Infeasible, at(4), words));
    let stand = rig.stand();
    assert_eq!((stand.infeasible, stand.in_flight, rig.name(stuck(&rig).pod)), (1, true, "pay-1"));
    let moves = rig.moves(Leave::GoOn).unwrap();
    assert_eq!(written(Some(&moves)), ["pay-1 given up: Infeasible"]);
    assert_eq!((moves.rank, rig.moves(Leave::Rest)), (MoveRank::Protective, None));
}

#[test]
fn what_the_kubelet_says_of_an_earlier_size_is_not_said_of_this_one() {
    let unseen = json!({"metadata": {"generation": 2}});
    let rig = chained(overlaid(pending("Infeasible", at(-100)), unseen));
    assert_eq!((rig.state(), rig.stand().infeasible), (UnitState::Resizing, 0));
}

#[test]
fn a_resize_has_the_deadline_of_a_unit_from_the_later_of_its_pods() {
    let deferred = |now| chained(pending("Deferred", at(4))).at(now);
    assert_eq!((deferred(63).state(), deferred(63).stand().wake), (UnitState::Deferred, Some(at(64))));
    let words = "Node didn't have enough resource: cpu".to_owned();
    assert_eq!(reason(&deferred(64)), (StuckReason::Deferred, at(64), words));

    let failing = |error| chained(condition("PodResizeInProgress", "True", error, 2)).at(62);
    assert_eq!(reason(&failing("Error")), (StuckReason::ResizeFailed, at(62), "words on Error".into()));
    assert_eq!(reason(&failing("")), (StuckReason::DeadlineExceeded, at(62), "DeadlineExceeded".into()));

    let mut rig = Rig::pair(overlaid(sized("200m", "4"), off(7, 0)), sized("4", "200m")).at(62);
    rig.evidence(PROMO).open_since = Some(at(30));
    rig.evidence(PAY).open_since = Some(at(1));
    assert_eq!((rig.state(), rig.stand().wake), (UnitState::Resizing, Some(at(90))));
    rig.evidence(PAY).open_since = None;
    assert_eq!(rig.stand().wake, Some(at(62 + 60)), "what was never seen begins now");
}

#[test]
fn a_drain_that_is_not_proved_in_time_is_given_up_and_never_shrunk() {
    let mut rig = Rig::pair(overlaid(on_stage(), off(7, 0)), json!({})).at(60);
    rig.evidence(PROMO).exposure.listed_by.insert("shop".into());
    let words = "listed as ready by shop".to_owned();
    assert_eq!(reason(&rig), (StuckReason::DrainTimedOut, at(60), words));
    assert_eq!(rig.written(), ["pay-1 given up: DrainTimedOut"]);
    let proceed = json!({"members": [{"name": "promo", "traffic": {"drain": {"onTimeout": "Proceed"}}}]});
    let mut rig = Rig::pair_of(proceed, overlaid(on_stage(), off(7, 0)), json!({})).at(60);
    rig.evidence(PROMO).exposure.listed_by.insert("shop".into());
    assert_eq!(rig.written(), ["promo-1=200m -> pay-1=4"]);
}

#[test]
fn a_pod_that_is_not_ready_at_its_new_size_is_given_up_after_a_while() {
    let of = |promo: Value, pay: Value, now| {
        Rig::pair(overlaid(off(7, 0), promo), overlaid(on_stage(), pay)).at(now)
    };
    for (promo, pay, name) in [(unready(5), json!({}), "promo-1"), (json!({}), unready(5), "pay-1")] {
        let early = of(promo.clone(), pay.clone(), 24);
        assert_eq!((early.state(), early.stand().wake), (UnitState::Warming, Some(at(25))));
        let late = of(promo, pay, 25);
        assert_eq!(reason(&late), (StuckReason::NotReady, at(25), "NotReady".into()));
        assert_eq!(
            (late.name(stuck(&late).pod), late.written()),
            (name, vec!["pay-1 given up: NotReady".to_owned()])
        );
    }
}

#[test]
fn a_write_that_was_refused_gives_up_what_has_begun_and_leaves_what_has_not() {
    let mut idle = Rig::pair(on_stage(), json!({}));
    for what in [Attempt::Traffic, Attempt::Resize(Level::Valley)] {
        idle.evidence(PROMO).refused = Some(refused(what));
        let stand = idle.stand();
        assert_eq!(stand.state, UnitState::Cannot(Cannot::Refused(RefusedBy::Quota)), "{what:?}");
        assert_eq!((stand.wake, idle.moves(Leave::Start)), (Some(at(68)), None));
    }
    idle.evidence(PROMO).refused = Some(refused(Attempt::Resize(Level::Peak)));
    assert_eq!(idle.state(), UnitState::Idle, "that was another time");
    idle.evidence(PROMO).refused = Some(Refused { retry_at: at(10), ..refused(Attempt::Traffic) });
    assert_eq!(idle.written(), ["promo-1 off"], "it is tried again");

    let words = "exceeded quota".to_owned();
    let mut shrunk = Rig::pair(off(7, 0), json!({}));
    shrunk.evidence(PAY).refused = Some(refused(Attempt::Resize(Level::Peak)));
    assert_eq!(reason(&shrunk), (StuckReason::AdmissionDenied, at(8), words.clone()));
    assert_eq!(shrunk.written(), ["pay-1 given up: AdmissionDenied"]);
    let mut dark = Rig::pair(off(7, 0), sized("4", "4"));
    dark.evidence(PAY).refused = Some(refused(Attempt::Traffic));
    assert_eq!(reason(&dark), (StuckReason::AdmissionDenied, at(8), words));
}

#[test]
fn a_donor_without_a_lever_that_has_shrunk_is_known_by_the_refusal_of_its_receiver() {
    let none = json!({"members": [{"name": "promo", "traffic": {"mode": "None"}}]});
    let mut rig = Rig::pair_of(none, serving("true"), json!({}));
    rig.evidence(PAY).refused = Some(refused(Attempt::Resize(Level::Peak)));
    assert_eq!(rig.written(), ["pay-1 given up: AdmissionDenied"]);
    rig.rules.is_open = false;
    rig.rules.marks = false;
    assert_eq!(
        (rig.state(), rig.moves(Leave::Start)),
        (UnitState::Cannot(Cannot::Refused(RefusedBy::Quota)), None)
    );
}

#[test]
fn nobody_shrinks_on_for_a_unit_of_which_the_api_server_would_not_have_the_rest() {
    let pay =
        vec![pod("pay-1", "n1", overlaid(sized("4", "4"), serving("true"))), pod("pay-2", "n1", json!({}))];
    let mut rig = Rig::with(json!({}), vec![pod("promo-1", "n1", on_stage())], pay);
    rig.profiles[1] = profile(Demand { cpu: 7800, memory: PEAK.memory }, VALLEY);
    rig.fill(PEAK);
    assert_eq!(rig.state(), UnitState::Resizing);
    rig.observed.members[0].pods[1].evidence.asked.peak =
        Some(Answer { at: at(7), refused: Some((RefusedBy::Admission, "no".into())) });
    assert_eq!(reason(&rig), (StuckReason::AdmissionDenied, at(7), "no".into()));
    assert_eq!(rig.written(), ["pay-1 given up: AdmissionDenied"]);
    rig.rules.marks = false;
    assert_eq!(rig.moves(Leave::Start).map(|moves| moves.steps), None);
}

#[test]
fn of_two_things_that_are_wrong_the_one_is_told_that_never_passes() {
    let rig = Rig::pair(
        overlaid(off(7, 0), unready(1)),
        overlaid(sized("4", "200m"), pending("Infeasible", at(4))),
    )
    .at(50);
    assert_eq!(stuck(&rig).reason, StuckReason::Infeasible);
}

#[test]
fn only_a_switch_that_skips_marks_its_units_and_the_way_back_always_does() {
    let spec = |on_stuck: &str| {
        let rig = Rig::pair_of(json!({"switch": {"onStuck": on_stuck}}), json!({}), json!({}));
        rig.observed.group.spec.clone()
    };
    let forth = Heading { id: 7, from: Some(PROMO), to: Some(PAY), is_return: false };
    let back = Heading { is_return: true, ..forth };
    let marks = |on_stuck, heading: &Heading, is_open| Rules::of(&spec(on_stuck), heading, is_open).marks;
    assert!(marks("Skip", &forth, true) && !marks("Skip", &forth, false));
    for on_stuck in ["Rollback", "Pause"] {
        assert!(!marks(on_stuck, &forth, true) && marks(on_stuck, &back, true), "{on_stuck}");
    }
    let mut rig = chained(pending("Infeasible", at(4)));
    rig.rules.marks = false;
    assert_eq!((stuck(&rig).reason, rig.moves(Leave::Start)), (StuckReason::Infeasible, None));
}

#[test]
fn after_a_switch_nobody_is_held_to_be_ready() {
    let mut rig = Rig::pair(off(7, 0), overlaid(on_stage(), unready(5))).at(50);
    rig.rules = Rules::of(&rig.observed.group.spec, &rig.heading, false);
    assert_eq!(rig.state(), UnitState::Warming);
    let rig = rig.at(65);
    assert_eq!((rig.state(), rig.moves(Leave::Start)), (UnitState::Done, None));
    let mut rig = chained(pending("Deferred", at(4))).at(100);
    rig.rules = Rules::of(&rig.observed.group.spec, &rig.heading, false);
    let stand = rig.stand();
    assert_eq!((stuck(&rig).reason, stand.in_flight), (StuckReason::Deferred, false), "it is told of");
    assert!(rig.state().is_settled(Side::To, false) && !rig.state().is_settled(Side::To, true));
}
