//! The rows of the table of [`flow`](crate::machine), from the first write to the last.

use super::rig::{PAY, PROMO, Rig, off, unready, written};
use crate::fixtures::{PEAK, at, on_stage, overlaid, pending, pod, serving, sized};
use crate::machine::*;
use crate::observed::{Answer, RefusedBy};
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_crds::time_share_group::StuckReason;
use springtide_plumbing::plan::{Step, WriteClass};

const NONE: Vec<String> = Vec::new();

/// `promo` has lost its traffic at `at(0)`, and that was proved at once.
fn drained(spec: Value, pay: Value) -> Rig {
    let mut rig = Rig::pair_of(spec, overlaid(on_stage(), off(7, 0)), pay);
    rig.evidence(PROMO).proved_since = Some(at(0));
    rig
}

/// `pay` at peak and `promo` at valley, by their specs and by their kubelets.
fn resized(pay: Value) -> Rig {
    Rig::pair(off(7, 0), overlaid(sized("4", "4"), pay))
}

#[test]
fn who_shrinks_leaves_traffic_first_and_only_where_the_unit_may_begin() {
    let rig = Rig::pair(on_stage(), json!({}));
    let stand = rig.stand();
    assert_eq!((stand.state, stand.begun, stand.in_flight), (UnitState::Idle, false, false));
    let moves = rig.moves(Leave::Start).unwrap();
    assert_eq!((written(Some(&moves)), moves.rank), (vec!["promo-1 off".to_owned()], MoveRank::Drain));
    assert_eq!((rig.moves(Leave::GoOn), rig.moves(Leave::Rest)), (None, None));
}

#[test]
fn a_drain_is_waited_for_and_then_all_sizes_flip_in_one_chain() {
    let mut rig = drained(json!({}), json!({})).at(2);
    rig.evidence(PROMO).exposure.listed_by.insert("promo".into());
    let stand = rig.stand();
    assert_eq!((&stand.state, stand.begun, stand.in_flight), (&UnitState::Draining, true, true));
    assert_eq!((stand.wake, rig.written()), (Some(at(60)), NONE));
    rig.evidence(PROMO).exposure = Default::default();
    assert_eq!(rig.stand().wake, Some(at(5)), "proxies learn of it later");
    let rig = rig.at(5);
    assert_eq!(rig.state(), UnitState::Drained);
    let moves = rig.moves(Leave::GoOn).unwrap();
    assert_eq!(written(Some(&moves)), ["promo-1=200m -> pay-1=4"]);
    assert_eq!((moves.rank, moves.asks.len()), (MoveRank::Chain, 0));
    let [Step::Chain(writes)] = &moves.steps[..] else { panic!("{moves:?}") };
    for write in writes {
        assert!(write.action.resource_version().is_some() && write.class == WriteClass::Spec, "{write:?}");
    }
    assert_eq!(rig.written_on(Side::To, Leave::Rest), ["promo-1 on"], "nothing but traffic");
}

#[test]
fn the_order_of_a_chain_is_the_specs() {
    let order = |order: &str| json!({"switch": {"order": order}});
    assert_eq!(drained(order("ClaimFirst"), json!({})).written(), ["pay-1=4 -> promo-1=200m"]);
    let rig = drained(order("ShrinkFirst"), json!({}));
    assert_eq!(rig.written(), ["promo-1=200m"]);
    let small = |in_force: &str| {
        Rig::pair_of(order("ShrinkFirst"), overlaid(sized("200m", in_force), off(7, 0)), json!({}))
    };
    let mut shrinking = small("4");
    shrinking.fill(PEAK);
    assert_eq!((shrinking.state(), shrinking.written()), (UnitState::Resizing, NONE));
    let mut shrunk = small("200m");
    shrunk.fill(PEAK);
    assert_eq!((shrunk.state(), shrunk.written()), (UnitState::Drained, vec!["pay-1=4".to_owned()]));
}

#[test]
fn a_unit_that_does_not_fit_takes_no_traffic_and_gives_back_what_it_has_taken() {
    let mut rig = Rig::pair(on_stage(), json!({}));
    rig.fill(Demand { cpu: -1, memory: 0 });
    assert_eq!((rig.state(), rig.written()), (UnitState::Cannot(Cannot::NoRoom), NONE));
    let mut rig = drained(json!({}), json!({}));
    rig.fill(Demand { cpu: -1, memory: 0 });
    let stand = rig.stand();
    assert_eq!((stand.state, stand.in_flight), (UnitState::Cannot(Cannot::NoRoom), true));
    let moves = rig.moves(Leave::Start).unwrap();
    assert_eq!((written(Some(&moves)), moves.rank), (vec!["promo-1 on".to_owned()], MoveRank::Protective));
}

#[test]
fn nobody_shrinks_for_a_pod_that_the_api_server_was_not_asked_about() {
    let mut rig = Rig::pair(on_stage(), json!({}));
    rig.evidence(PAY).asked.peak = None;
    assert_eq!(rig.state(), UnitState::Cannot(Cannot::Unasked));
    let moves = rig.moves(Leave::Start).unwrap();
    let asked: Vec<_> = moves.asks.iter().map(|(pod, level)| (rig.name(*pod), *level)).collect();
    assert_eq!((asked, moves.steps), (vec![("pay-1", Level::Peak)], vec![]));
    assert_eq!(rig.moves(Leave::GoOn), None);
    // A new leader has lost the answer.
    let mut rig = drained(json!({}), json!({}));
    rig.evidence(PAY).asked.peak = None;
    assert_eq!(rig.state(), UnitState::Drained);
    let moves = rig.moves(Leave::GoOn).unwrap();
    assert_eq!((moves.steps.len(), moves.asks.len()), (0, 1));
}

#[test]
fn nobody_shrinks_for_a_pod_that_the_api_server_would_not_let_grow() {
    let refused = UnitState::Cannot(Cannot::Refused(RefusedBy::Admission));
    let mut rig = Rig::pair(on_stage(), json!({}));
    rig.answer(Some(RefusedBy::Admission), 5);
    assert_eq!((rig.state(), rig.moves(Leave::Start)), (refused.clone(), None));
    let mut rig = drained(json!({}), json!({}));
    rig.answer(Some(RefusedBy::Admission), 5);
    assert_eq!((rig.state(), rig.written()), (refused.clone(), vec!["promo-1 on".to_owned()]));
    let mut rig = Rig::pair(on_stage(), json!({})).at(10_000);
    rig.answer(Some(RefusedBy::Admission), 5);
    let moves = rig.moves(Leave::Start).unwrap();
    assert_eq!(
        (rig.state(), moves.asks.len(), moves.steps.len()),
        (refused.clone(), 1, 0),
        "it is asked again"
    );
    // So is what was refused to the one that would shrink.
    let mut rig = Rig::pair(on_stage(), json!({}));
    let no = Some((RefusedBy::Admission, "no".into()));
    rig.evidence(PROMO).asked.valley = Some(Answer { at: at(5), refused: no });
    assert_eq!((rig.state(), rig.stand().wake, rig.moves(Leave::Start)), (refused, Some(at(65)), None));
    let rig = rig.at(65);
    let asks = rig.moves(Leave::Start).unwrap().asks;
    let asked: Vec<_> = asks.iter().map(|(pod, level)| (rig.name(*pod), *level)).collect();
    assert_eq!(asked, [("promo-1", Level::Valley)]);
}

#[test]
fn where_there_is_room_for_both_the_one_that_grows_goes_first() {
    let mut rig = Rig::pair(on_stage(), json!({}));
    rig.fill(PEAK);
    assert_eq!((rig.state(), rig.written()), (UnitState::Idle, vec!["pay-1=4".to_owned()]));
    rig.rules.overlap = springtide_crds::time_share_group::Overlap::Never;
    assert_eq!(rig.written(), ["promo-1 off"]);

    let waits = Rig::pair(on_stage(), sized("4", "200m"));
    let stand = waits.stand();
    assert_eq!((stand.state, stand.begun, waits.written()), (UnitState::Resizing, true, NONE));
    let serves = |pay: Value| Rig::pair(on_stage(), overlaid(sized("4", "4"), pay));
    let dark = serves(json!({}));
    assert_eq!((dark.state(), dark.written()), (UnitState::Turning, vec!["pay-1 on".to_owned()]));
    let lit = serves(serving("true"));
    assert_eq!((lit.state(), lit.written()), (UnitState::Draining, vec!["promo-1 off".to_owned()]));
    let mut gone = Rig::pair(overlaid(on_stage(), off(7, 0)), overlaid(sized("4", "4"), serving("true")));
    gone.evidence(PROMO).proved_since = Some(at(0));
    assert_eq!((gone.state(), gone.written()), (UnitState::Drained, vec!["promo-1=200m".to_owned()]));
}

#[test]
fn who_shrinks_goes_at_once_when_the_one_that_grew_first_has_no_room_after_all() {
    let deferred = overlaid(sized("4", "200m"), pending("Deferred", at(8)));
    let rig = Rig::pair(on_stage(), deferred.clone());
    let stand = rig.stand();
    assert_eq!((stand.state, stand.deferred), (UnitState::Draining, 1));
    assert_eq!(rig.written(), ["promo-1 off"]);
    // It waits for the drain of the other: that is not held against it.
    let late = Rig::pair(overlaid(on_stage(), off(7, 9)), deferred).at(100);
    assert_eq!(late.state(), UnitState::Draining);
}

#[test]
fn after_a_crash_in_a_chain_the_rest_of_it_is_sent_without_a_question() {
    let mut rig = Rig::pair(off(7, 0), json!({}));
    rig.evidence(PAY).asked.peak = None;
    rig.fill(Demand { cpu: 3800, memory: 0 });
    assert_eq!((rig.state(), rig.written()), (UnitState::Drained, vec!["pay-1=4".to_owned()]));
    rig.fill(Demand { cpu: 3799, memory: 0 });
    assert_eq!((rig.state(), rig.written()), (UnitState::Cannot(Cannot::NoRoom), NONE));
}

#[test]
fn sizes_are_put_in_force_then_pods_are_warmed_up_and_then_they_serve() {
    let chained =
        |pay: Value| Rig::pair(overlaid(sized("200m", "4"), off(7, 0)), overlaid(sized("4", "200m"), pay));
    assert_eq!(chained(json!({})).state(), UnitState::Resizing);
    let deferred = chained(pending("Deferred", at(9)));
    assert_eq!(
        (deferred.state(), deferred.stand().deferred, deferred.written()),
        (UnitState::Deferred, 1, NONE)
    );

    let warm_up = json!({"members": [{"name": "pay", "warmUpSeconds": 15}]});
    let mut rig = Rig::pair_of(warm_up, off(7, 0), sized("4", "4"));
    rig.evidence(PAY).warm_since = Some(at(1));
    assert_eq!((rig.state(), rig.stand().wake, rig.written()), (UnitState::Warming, Some(at(16)), NONE));
    let rig = rig.at(16);
    let moves = rig.moves(Leave::GoOn).unwrap();
    assert_eq!((rig.state(), written(Some(&moves))), (UnitState::Turning, vec!["pay-1 on".to_owned()]));
    assert_eq!(moves.rank, MoveRank::Protective);
    let done = resized(serving("true"));
    let stand = done.stand();
    assert_eq!((stand.state, stand.begun, stand.in_flight), (UnitState::Done, true, false));
    assert_eq!((done.moves(Leave::Start), stand.wake), (None, None));
}

#[test]
fn traffic_follows_the_size_whatever_else_is_held() {
    let dark = resized(json!({}));
    for leave in [Leave::Start, Leave::GoOn, Leave::Rest] {
        assert_eq!(dark.written_on(Side::To, leave), ["pay-1 on"], "{leave:?}");
    }
}

#[test]
fn a_pod_that_was_not_ready_before_the_switch_is_not_waited_for() {
    let before = resized(unready(-100));
    assert_eq!((before.state(), before.written()), (UnitState::Turning, vec!["pay-1 on".to_owned()]));
    assert_eq!(resized(overlaid(serving("true"), unready(-100))).state(), UnitState::Done);
}

#[test]
fn a_pod_that_starts_in_a_switch_is_waited_for_but_not_for_ever() {
    let new = |pay: Value| {
        let made = json!({"metadata": {"creationTimestamp": at(5).to_string()}});
        resized(overlaid(overlaid(made, pay), unready(6)))
    };
    let young = new(json!({}));
    assert_eq!((young.state(), young.stand().wake), (UnitState::Warming, Some(at(66))));
    let old = new(json!({})).at(66);
    assert_eq!((old.state(), old.moves(Leave::Start)), (UnitState::Done, None), "it serves when it is ready");
}

#[test]
fn without_a_donor_a_pod_grows_where_its_node_has_room() {
    let alone = |pay: Value| Rig::with(json!({}), vec![], vec![pod("pay-1", "n1", pay)]);
    let mut rig = alone(json!({}));
    rig.evidence(PAY).asked.peak = None;
    assert_eq!(
        (rig.state(), rig.written()),
        (UnitState::Idle, vec!["pay-1=4".to_owned()]),
        "the write is the question"
    );
    assert_eq!(rig.moves(Leave::GoOn), None);
    rig.fill(Demand::ZERO);
    assert_eq!((rig.state(), rig.written()), (UnitState::Cannot(Cannot::NoRoom), NONE));
    let mut rig = alone(json!({}));
    rig.answer(Some(RefusedBy::Quota), 5);
    assert_eq!((rig.state(), rig.written()), (UnitState::Cannot(Cannot::Refused(RefusedBy::Quota)), NONE));
    assert_eq!(alone(sized("4", "200m")).state(), UnitState::Resizing);
    assert_eq!(alone(on_stage()).state(), UnitState::Done);
}

#[test]
fn a_donor_that_nobody_needs_shrinks_out_of_traffic() {
    let alone = |promo: Value| {
        let mut rig = Rig::with(json!({}), vec![pod("promo-1", "n1", promo)], vec![]);
        rig.evidence(PROMO).proved_since = Some(at(0));
        rig
    };
    let serves = alone(on_stage());
    assert_eq!((serves.state(), serves.written()), (UnitState::Idle, vec!["promo-1 off".to_owned()]));
    assert_eq!(serves.moves(Leave::GoOn), None);
    let gone = alone(overlaid(on_stage(), off(7, 0)));
    assert_eq!((gone.state(), gone.written()), (UnitState::Drained, vec!["promo-1=200m".to_owned()]));
    assert_eq!(alone(overlaid(sized("200m", "4"), off(7, 0))).state(), UnitState::Resizing);
    assert_eq!(alone(json!({})).state(), UnitState::Done);
}

#[test]
fn a_pod_that_is_turned_by_nothing_is_resized_at_once_and_never_drained() {
    let by = |traffic: Value| json!({"members": [{"name": "promo", "traffic": traffic}]});
    let none =
        Rig::pair_of(by(json!({"mode": "None"})), overlaid(sized("4", "4"), serving("true")), json!({}));
    assert_eq!((none.state(), none.written()), (UnitState::Idle, vec!["promo-1=200m -> pay-1=4".to_owned()]));
    let keep = Rig::pair_of(by(json!({"mode": "ServiceLabel", "valley": "Keep"})), on_stage(), json!({}));
    assert_eq!(keep.written(), ["promo-1=200m -> pay-1=4"]);
}

#[test]
fn a_label_that_was_never_true_needs_no_drain() {
    let born = Rig::pair(overlaid(sized("4", "4"), serving("false")), json!({}));
    assert_eq!((born.state(), born.written()), (UnitState::Idle, vec!["promo-1=200m -> pay-1=4".to_owned()]));
    let mut listed = Rig::pair(overlaid(sized("4", "4"), serving("false")), json!({}));
    listed.evidence(PROMO).exposure.listed_by.insert("promo".into());
    assert_eq!(
        listed.written(),
        ["promo-1 off"],
        "a Service sends to it all the same: it is told since when it should not"
    );
}

#[test]
fn what_an_earlier_switch_has_drained_is_out_but_has_not_begun() {
    let mut rig = Rig::pair(overlaid(on_stage(), off(6, -100)), json!({}));
    rig.evidence(PROMO).proved_since = Some(at(-90));
    let stand = rig.stand();
    assert_eq!(
        (stand.state, stand.begun, rig.written()),
        (UnitState::Idle, false, vec!["promo-1=200m -> pay-1=4".to_owned()])
    );
    assert_eq!(rig.written_on(Side::To, Leave::GoOn), ["promo-1 on"], "until its turn comes it serves");
}

#[test]
fn a_small_pod_that_somebody_has_turned_on_is_turned_off_again() {
    let rig = Rig::pair(serving("true"), overlaid(sized("4", "4"), serving("true")));
    let moves = rig.moves(Leave::GoOn).unwrap();
    assert_eq!(
        (rig.state(), written(Some(&moves)), moves.rank),
        (UnitState::Turning, vec!["promo-1 off".to_owned()], MoveRank::Drain)
    );
    let keep = json!({"members": [{"name": "promo", "traffic": {"mode": "ServiceLabel", "valley": "Keep"}}]});
    let born = Rig::pair_of(keep, json!({}), overlaid(sized("4", "4"), serving("true")));
    assert_eq!(
        (born.state(), born.written()),
        (UnitState::Turning, vec!["promo-1 on".to_owned()]),
        "it keeps its traffic"
    );
}

#[test]
fn a_gate_of_another_mode_is_opened_at_any_size() {
    let gated = json!({"spec": {"readinessGates": [{"conditionType": "springtide.dev/traffic"}]}});
    let rig = Rig::pair(overlaid(on_stage(), gated), json!({}));
    assert_eq!(rig.written(), ["promo-1 gate True"]);
    for side in [Side::Back, Side::AsIs, Side::Stay] {
        assert_eq!(rig.written_on(side, Leave::Rest), ["promo-1 gate True"], "{side:?}");
    }
}

#[test]
fn a_pod_in_an_upgrade_is_not_resized_and_its_unit_waits_for_a_while() {
    let mut rig = Rig::pair(on_stage(), json!({}));
    rig.evidence(PAY).is_upgrading = true;
    assert_eq!((rig.state(), rig.stand().wake, rig.written()), (UnitState::Idle, Some(at(60)), NONE));
    let rig = rig.at(60);
    assert_eq!((rig.state(), rig.written()), (UnitState::Cannot(Cannot::Upgrading), NONE));
    let mut rig = drained(json!({}), json!({})).at(59);
    rig.evidence(PROMO).is_upgrading = true;
    assert_eq!(
        (rig.state(), rig.stand().wake),
        (UnitState::Drained, Some(at(60))),
        "one that has begun waits"
    );
    assert_eq!(rig.written(), NONE);
    let rig = rig.at(60);
    assert_eq!(
        (rig.state(), rig.written()),
        (UnitState::Cannot(Cannot::Upgrading), vec!["promo-1 on".to_owned()]),
        "and serves then, as nothing was resized"
    );
    let mut done = resized(overlaid(serving("true"), unready(20))).at(100);
    done.evidence(PAY).is_upgrading = true;
    assert_eq!(done.state(), UnitState::Done, "that it is not ready is the upgrade's doing");
}

#[test]
fn a_unit_that_an_upgrade_keeps_half_way_is_given_up_when_its_time_is_over() {
    let mut rig = Rig::pair(off(7, 0), json!({})).at(59);
    rig.fill(PEAK);
    rig.evidence(PAY).is_upgrading = true;
    assert_eq!((rig.state(), rig.stand().wake, rig.written()), (UnitState::Drained, Some(at(60)), NONE));
    let mut rig = rig.at(60);
    assert!(
        matches!(rig.state(), UnitState::Stuck(stuck) if stuck.reason == StuckReason::Upgrading && stuck.since == at(60))
    );
    assert_eq!(rig.written(), ["pay-1 given up: Upgrading"]);
    rig.rules.marks = false;
    assert_eq!(rig.moves(Leave::Start), None, "it is not resized meanwhile");
    rig.rules.is_open = false;
    assert_eq!(
        (rig.state(), rig.moves(Leave::Start)),
        (UnitState::Drained, None),
        "after the switch it waits"
    );
}

/// What to lay over a pod whose container is restarted by a resize of this.
fn restarts(resource: &str) -> Value {
    let policy = json!([{"resourceName": resource, "restartPolicy": "RestartContainer"}]);
    json!({"spec": {"containers": [{"name": "app", "resizePolicy": policy}]}})
}

#[test]
fn a_pod_that_a_resize_would_restart_is_left_alone() {
    let refused = UnitState::Cannot(Cannot::Refused(RefusedBy::Ineligible));
    for (promo, pay) in [(restarts("cpu"), json!({})), (json!({}), restarts("cpu"))] {
        let rig = Rig::pair(overlaid(on_stage(), promo), pay);
        assert_eq!((rig.state(), rig.written()), (refused.clone(), NONE));
    }
    let memory = Rig::pair(on_stage(), restarts("memory"));
    assert_eq!(memory.written(), ["promo-1 off"], "its memory does not move");
    let mut new = Rig::pair(restarts("cpu"), json!({}));
    new.fill(PEAK);
    assert_eq!(new.written_on(Side::Stay, Leave::Start), NONE, "nor is it raised where it is new");
}

#[test]
fn a_pod_without_the_gate_of_its_mode_is_not_made_small_under_its_traffic() {
    let gated = |name: &str| json!({"members": [{"name": name, "traffic": {"mode": "ReadinessGate"}}]});
    let refused = UnitState::Cannot(Cannot::Refused(RefusedBy::Ineligible));
    for name in ["promo", "pay"] {
        let rig = Rig::pair_of(gated(name), on_stage(), serving("true"));
        assert_eq!((rig.state(), rig.written()), (refused.clone(), NONE), "{name}");
    }
    let mut new = Rig::pair_of(gated("promo"), serving("true"), json!({}));
    new.fill(PEAK);
    assert_eq!(new.written_on(Side::Stay, Leave::Start), ["promo-1=4"], "it serves, so it may grow");
}

#[test]
fn a_pod_without_the_container_is_not_tried() {
    let other = json!({"spec": {"containers": []}, "status": {"containerStatuses": []}});
    let rig = Rig::pair(overlaid(on_stage(), other), json!({}));
    assert_eq!(
        (rig.state(), rig.written()),
        (UnitState::Cannot(Cannot::Refused(RefusedBy::Ineligible)), NONE)
    );
}
