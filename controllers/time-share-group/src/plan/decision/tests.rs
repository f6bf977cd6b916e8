use super::*;
use crate::fixtures::{at, group, on_stage, overlay, pending, sized, switching};
use crate::guards::Breach;
use crate::observed::{Guard, Observed};
use crate::plan::fixtures::{at_pay, both, found, looked_at, to_pay};
use crate::plan::situation::{Hold, Stop};
use serde_json::{Value, json};
use springtide_crds::time_share_group::{TransitionCause, UnitCounts};
use springtide_plumbing::metric_query::MetricVerdict;
use std::slice;

fn decided(observed: &Observed) -> Decision {
    let mut decided = None;
    looked_at(observed, |_, decision| decided = Some(decision));
    decided.unwrap()
}

fn asks_for(member: &str) -> Value {
    let until = at(1000).to_string();
    json!({"spec": {"override": {"member": member, "untilTime": until, "reason": "INC-1"}}})
}

fn stalled(reason: &str) -> Value {
    json!({"status": {"conditions": [{"type": "Stalled", "status": "True", "reason": reason, "message": "",
        "observedGeneration": 1, "lastTransitionTime": at(50).to_string()}]}})
}

/// A pod that is where it was before the switch to pay.
fn before() -> (Value, Value) {
    (json!({}), on_stage())
}

fn done() -> (Vec<Value>, Vec<Value>) {
    (vec![on_stage(); 2], vec![json!({}); 2])
}

/// pay-1 is grown as far as its spec goes, and its node never has the room; promo-1 is small.
fn stuck(object: Value) -> Observed {
    let never = both(sized("4", "200m"), pending("Infeasible", at(50)));
    found(object, &[never, json!({})], &[json!({}), on_stage()])
}

#[test]
fn the_first_transition_leads_from_nobody() {
    let Decision::Open(first) = decided(&found(json!({}), &[], &[])) else { panic!() };
    assert_eq!((first.id, first.from, first.to, first.cause), (1, None, None, TransitionCause::Default));
    let scheduled = json!({"spec": {"schedule": {"defaultMember": "pay"}}});
    let Decision::Open(first) = decided(&found(scheduled, &[], &[])) else { panic!() };
    assert_eq!((first.from, first.to.as_deref()), (None, Some("pay")));
}

#[test]
fn a_step_is_driven_held_left_and_the_last_one_closes_the_transition() {
    let (small, large) = before();
    let half = [on_stage(), small.clone()];
    let begun = found(to_pay(json!({})), &[small.clone(), small], &[large.clone(), large.clone()]);
    assert_eq!(decided(&begun), Decision::Drive);
    // One unit of two is done: which one is the canary, its order says.
    let over = |status: Value| {
        let (pay, promo) = done();
        found(to_pay(json!({"status": {"transition": status}})), &pay, &promo)
    };
    assert_eq!(decided(&over(json!({}))), Decision::Hold(at(160)));
    let held = over(json!({"holdUntilTime": at(130).to_string()}));
    looked_at(&held, |situation, decision| {
        assert_eq!(decision, Decision::Drive);
        assert_eq!(situation.hold(&decision), Some(Hold::Step(at(130))));
        assert_eq!(situation.stands_still_from(&decision), None);
    });
    let left = over(json!({"holdUntilTime": at(100).to_string()}));
    assert_eq!(decided(&left), Decision::Advance(3), "10 % of two are one, as 1 % are");
    let Decision::Close(kept) = decided(&over(json!({"step": 3}))) else { panic!() };
    assert_eq!((kept.id, kept.units, kept.result), (7, 2, TransitionResult::Succeeded));
    assert_eq!(kept.duration_seconds, 100);
    let unfinished =
        found(to_pay(json!({"status": {"transition": {"step": 3}}})), &half, &[json!({}), large]);
    assert_eq!(decided(&unfinished), Decision::Drive);
}

#[test]
fn another_member_that_is_asked_for_takes_the_place_of_the_present_one() {
    let (pay, promo) = done();
    let back = found(to_pay(asks_for("promo")), &pay, &promo);
    let Decision::Supersede { next, kept } = decided(&back) else { panic!() };
    assert_eq!((next.id, next.from.as_deref(), next.to.as_deref()), (8, Some("pay"), Some("promo")));
    assert_eq!(next.cause, TransitionCause::Override);
    assert_eq!((kept.id, kept.result), (7, TransitionResult::Superseded));
    let settled = found(at_pay(asks_for("promo")), &pay, &promo);
    let Decision::Open(next) = decided(&settled) else { panic!() };
    assert_eq!((next.id, next.from.as_deref(), next.to.as_deref()), (8, Some("pay"), Some("promo")));
}

#[test]
fn modes_open_nothing() {
    let (pay, promo) = done();
    let mode = |mode: &str| json!({"spec": {"mode": mode}});
    for (name, expected) in [("Paused", Decision::Rest), ("Observe", Decision::Wait(WaitFor::Mode))] {
        let open = found(to_pay(mode(name)), &pay, &promo);
        let asked = found(at_pay(both(mode(name), asks_for("promo"))), &pay, &promo);
        let fresh = found(mode(name), &pay, &promo);
        for observed in [open, asked, fresh] {
            assert_eq!(decided(&observed), expected, "{name}");
        }
        assert_eq!(decided(&found(at_pay(mode(name)), &pay, &promo)), Decision::Settled, "{name}");
    }
    let paused = found(to_pay(mode("Paused")), &pay, &promo);
    looked_at(&paused, |situation, decision| {
        assert_eq!(situation.hold(&decision), Some(Hold::Paused));
    });
}

#[test]
fn what_is_settled_is_kept_up() {
    let (pay, promo) = done();
    assert_eq!(decided(&found(at_pay(json!({})), &pay, &promo)), Decision::Settled);
    let recreated = found(at_pay(json!({})), &[on_stage(), json!({})], &promo);
    assert_eq!(decided(&recreated), Decision::Drive);
}

#[test]
fn guards_that_are_breached_take_the_switch_back_or_stop_it() {
    let (small, large) = before();
    let breached = |over: Value| {
        let mut observed = found(to_pay(over), slice::from_ref(&small), slice::from_ref(&large));
        let verdict = MetricVerdict::Breached { failures: 1 };
        observed.metrics = vec![Guard { name: "errors".into(), verdict }];
        observed
    };
    let Decision::Fail { back, kept } = decided(&breached(json!({}))) else { panic!() };
    assert_eq!((back.id, back.cause), (8, TransitionCause::Rollback));
    assert_eq!((back.from.as_deref(), back.to.as_deref()), (Some("pay"), Some("promo")));
    assert_eq!((kept.id, kept.result), (7, TransitionResult::RolledBack));
    let pauses = json!({"spec": {"guards": {"onBreach": "Pause"}}});
    looked_at(&breached(pauses.clone()), |situation, decision| {
        assert_eq!((decision, situation.stop), (Decision::Rest, Some(Stop::GuardBreached)));
        assert_eq!(situation.guarding, Guarding::Breached(Breach::MetricBreached("errors".into())));
    });
    // The value is good again: a person has to look all the same.
    let told = to_pay(both(pauses, stalled("GuardBreached")));
    looked_at(&found(told, slice::from_ref(&small), slice::from_ref(&large)), |situation, decision| {
        assert_eq!((decision, situation.stop), (Decision::Rest, Some(Stop::GuardBreached)));
        assert!(situation.keeps_verdict());
    });
    // Another trouble has taken the place of the reason, and is over.
    let guards = json!({"type": "GuardsPassing", "status": "False", "reason": "TooManyFailures", "message": "",
        "observedGeneration": 1, "lastTransitionTime": at(50).to_string()});
    let over = json!({"spec": {"guards": {"onBreach": "Pause"}}, "status": {"conditions": [guards]}});
    let told = to_pay(both(over, stalled("MemberNotFound")));
    looked_at(&found(told, slice::from_ref(&small), slice::from_ref(&large)), |situation, decision| {
        assert_eq!((decision, situation.stop), (Decision::Rest, Some(Stop::GuardBreached)));
    });
    let mut returns = json!({"spec": {"schedule": {"defaultMember": "promo"}}});
    overlay(&mut returns, json!({"status": switching(8, Some("promo"), Some("pay"))}));
    returns["status"]["transition"]["cause"] = json!("Rollback");
    let mut observed = breached(json!({}));
    observed.group = group(returns);
    assert_eq!(decided(&observed), Decision::Drive, "there is nothing to go back to");
}

#[test]
fn a_unit_that_is_stuck_is_skipped_taken_back_with_all_others_or_stops_the_switch() {
    let on_stuck = |policy: &str| json!({"spec": {"switch": {"onStuck": policy}, "guards": {"failureThresholdPercent": 100}}});
    looked_at(&stuck(to_pay(on_stuck("Skip"))), |situation, decision| {
        assert_eq!((decision, situation.tally.stuck_now), (Decision::Drive, 1));
        assert_eq!(situation.stuck_now().count(), 1);
    });
    assert!(matches!(decided(&stuck(to_pay(on_stuck("Rollback")))), Decision::Fail { .. }));
    looked_at(&stuck(to_pay(on_stuck("Pause"))), |situation, decision| {
        assert_eq!((decision, situation.stop), (Decision::Rest, Some(Stop::UnitStuck)));
    });
    let (small, large) = before();
    let told = found(to_pay(both(on_stuck("Pause"), stalled("UnitStuck"))), &[small], &[large]);
    assert_eq!(decided(&told), Decision::Drive, "nothing is under way any more");
}

#[test]
fn more_stuck_units_than_are_tolerated_take_the_switch_back() {
    assert!(matches!(decided(&stuck(to_pay(json!({})))), Decision::Fail { .. }));
}

#[test]
fn a_grant_that_goes_in_mid_switch_takes_it_back() {
    let (small, large) = before();
    let lose = |mut observed: Observed| {
        observed.members[0].is_granted = false;
        observed.members[0].workload = None;
        observed.members[0].pods.clear();
        observed
    };
    let lost = lose(found(to_pay(json!({})), slice::from_ref(&small), slice::from_ref(&large)));
    assert!(matches!(decided(&lost), Decision::Fail { .. }));
    let mut back = json!({"status": switching(8, Some("pay"), Some("promo"))});
    back["status"]["transition"]["cause"] = json!("Rollback");
    let going = lose(found(back, &[], &[json!({})]));
    assert_eq!(decided(&going), Decision::Drive, "promo gets its size back");
}

#[test]
fn what_was_rolled_back_is_not_tried_again() {
    let (pay, promo) = (vec![json!({})], vec![on_stage()]);
    let mut object = both(asks_for("pay"), stalled("RolledBack"));
    let mut status = switching(8, Some("pay"), Some("promo"));
    overlay(
        &mut status,
        json!({"activeMember": "promo",
        "transition": {"cause": "Rollback", "completionTime": at(50).to_string()}}),
    );
    overlay(&mut object, json!({"status": status}));
    looked_at(&found(object.clone(), &pay, &promo), |situation, decision| {
        assert!(situation.is_barred && situation.keeps_verdict());
        assert_eq!(decision, Decision::Wait(WaitFor::RolledBack));
    });
    let another = both(object, json!({"metadata": {"generation": 2}}));
    assert!(matches!(decided(&found(another, &pay, &promo)), Decision::Open(_)));
}

#[test]
fn a_schedule_that_cannot_be_followed_opens_nothing_and_what_is_open_goes_on() {
    let zone = json!({"spec": {"schedule": {"windows": [{"name": "night", "member": "promo", "window":
        {"cron": "0 0 * * *", "durationSeconds": 3600, "timeZone": "Nowhere/Never"}}]}}});
    let (small, large) = before();
    looked_at(&found(to_pay(zone.clone()), &[small], &[large]), |situation, decision| {
        assert_eq!((decision, &situation.desired), (Decision::Drive, &None));
        assert!(situation.schedule_problem().is_some());
    });
    let (pay, promo) = done();
    assert_eq!(decided(&found(at_pay(zone.clone()), &pay, &promo)), Decision::Settled);
    assert_eq!(decided(&found(zone, &pay, &promo)), Decision::Wait(WaitFor::Schedule));
}

#[test]
fn what_is_decided_stands_in_the_status_and_nothing_else_does() {
    let tally =
        Tally { counts: UnitCounts { total: 2, done: 1, ..UnitCounts::default() }, ..Tally::default() };
    let kept = |decision: &Decision| {
        let mut status = group(to_pay(json!({}))).status.clone();
        decision.keep(&mut status, &tally, 3);
        status
    };
    let (pay, promo) = done();
    let supersede = decided(&found(to_pay(asks_for("promo")), &pay, &promo));
    let status = kept(&supersede);
    let next = status.transition.unwrap();
    assert_eq!((next.id, next.units, next.nudges), (8, UnitCounts::default(), 0));
    assert_eq!((status.last_transitions[0].id, status.active_member.as_deref()), (7, Some("promo")));

    let close = decided(&found(to_pay(json!({"status": {"transition": {"step": 3}}})), &pay, &promo));
    let status = kept(&close);
    let ended = status.transition.unwrap();
    assert_eq!((ended.id, ended.units.total, ended.nudges), (7, 2, 3));
    assert_eq!(ended.completion_time.map(|time| time.0), Some(at(100)));
    assert_eq!((status.active_member.as_deref(), status.last_transitions.len()), (Some("pay"), 1));

    let held = kept(&Decision::Hold(at(160))).transition.unwrap();
    assert_eq!((held.step, held.hold_until_time.map(|time| time.0)), (1, Some(at(160))));
    let next = kept(&Decision::Advance(3)).transition.unwrap();
    assert_eq!((next.step, next.hold_until_time), (3, None));
    let driven = kept(&Decision::Drive);
    assert_eq!((driven.transition.unwrap().units.done, driven.active_member.as_deref()), (1, Some("promo")));
}

#[test]
fn the_list_of_transitions_is_bounded_and_the_last_one_comes_first() {
    let mut status = group(to_pay(json!({}))).status.clone();
    let open = status.transition.clone().unwrap();
    for id in 1..=20 {
        let of = Transition { id, ..open.clone() };
        let kept = record(&of, &UnitCounts::default(), 0, TransitionResult::Succeeded, at(id.into()));
        Decision::Close(kept).keep(&mut status, &Tally::default(), 0);
    }
    let ids: Vec<_> = status.last_transitions.iter().map(|kept| kept.id).collect();
    assert_eq!((ids.len(), ids[0], ids[1]), (LAST_TRANSITIONS_MAX, 20, 19));
}
