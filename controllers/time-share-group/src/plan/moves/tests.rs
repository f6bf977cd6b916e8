use super::*;
use crate::fixtures::{at, fill, observed_of, on_stage, pod, serving, sized};
use crate::observed::{Answer, Guard, Observed};
use crate::plan::fixtures::{at_pay, both, found, looked_at, to_pay};
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_plumbing::key::{ObjectKey, Resource};
use springtide_plumbing::metric_query::MetricVerdict;
use springtide_plumbing::plan::{Action, Part};

/// A switch to pay in one step, with changes laid over its object, on so many nodes with one pod of either member: none of
/// its units has begun.
fn before(nodes: usize, over: Value) -> Observed {
    let all = json!({"spec": {"switch": {"steps": [{"percent": 100}]}}});
    found(to_pay(both(all, over)), &vec![json!({}); nodes], &vec![on_stage(); nodes])
}

fn switch(over: Value) -> Value {
    json!({"spec": {"switch": over}})
}

fn made(observed: &Observed, decision: &Decision) -> Made {
    let mut made = Made::default();
    looked_at(observed, |situation, _| made = moves(situation, decision));
    made
}

fn driven(observed: &Observed) -> Made {
    made(observed, &Decision::Drive)
}

fn part(step: &Step) -> Option<Part> {
    let action = &step.writes()[0].action;
    if matches!(action, Action::DryRun { .. }) {
        return None;
    }
    let Action::Patch { part, .. } = action else { panic!("{action:?}") };
    Some(*part)
}

/// The API server has accepted all resizes that could be asked for.
fn accepted(observed: &mut Observed) {
    let answer = Some(Answer { at: at(90), refused: None });
    for found in observed.members.iter_mut().flat_map(|member| &mut member.pods) {
        (found.evidence.asked.peak, found.evidence.asked.valley) = (answer.clone(), answer.clone());
    }
}

#[test]
fn no_more_units_begin_than_may_be_under_way() {
    let limit = |over| driven(&before(9, switch(over))).steps.len();
    assert_eq!(limit(json!({})), 9);
    assert_eq!(limit(json!({"maxInFlightUnits": 4})), 4);
    assert_eq!(limit(json!({"steps": [{"percent": 50}, {"percent": 100}]})), 5);
    let on_one = |name: &str, over: &Value| -> Vec<_> {
        (1..6).map(|number| pod(&format!("{name}-{number}"), "n1", over.clone())).collect()
    };
    let group = crate::fixtures::group(to_pay(switch(json!({"steps": [{"percent": 100}]}))));
    let crowded =
        observed_of(group, &[("pay", on_one("pay", &json!({}))), ("promo", on_one("promo", &on_stage()))]);
    assert_eq!(driven(&crowded).steps.len(), 2, "maxInFlightUnitsPerNode");
}

#[test]
fn units_under_way_count_against_the_limits() {
    let mut pay = vec![json!({}); 5];
    // Its resize is under way.
    pay[0] = sized("4", "200m");
    let over = json!({"maxInFlightUnits": 2, "steps": [{"percent": 100}]});
    let mut observed = found(to_pay(switch(over)), &pay, &vec![on_stage(); 5]);
    observed.members[0].pods[0].evidence.open_since = Some(at(95));
    let resized = driven(&observed).steps.into_iter().filter(|step| part(step) == Some(Part::Resize));
    assert_eq!(resized.count(), 1);
}

#[test]
fn a_plan_holds_two_hundred_writes_with_the_status() {
    let made = driven(&before(300, json!({})));
    let writes: usize = made.steps.iter().map(|step| step.writes().len()).sum();
    assert!(made.is_cut && writes == MOST_WRITES, "{writes}");
}

#[test]
fn pods_leave_traffic_only_when_the_server_would_have_the_others_grow() {
    let mut full = before(3, json!({}));
    fill(&mut full, Demand::ZERO);
    let asked = driven(&full);
    assert_eq!(asked.steps.iter().map(part).collect::<Vec<_>>(), [None; 3], "{asked:?}");
    assert!(asked.steps.iter().all(|step| step.writes()[0].class == WriteClass::Spec));
    accepted(&mut full);
    let drained = driven(&full);
    assert_eq!(drained.steps.iter().map(part).collect::<Vec<_>>(), [Some(Part::Main); 3], "{drained:?}");
}

#[test]
fn what_rests_begins_nothing_and_what_has_begun_comes_to_its_end() {
    let large = sized("4", "4");
    let observed = found(
        to_pay(switch(json!({"steps": [{"percent": 100}]}))),
        &[large, json!({})],
        &[json!({}), on_stage()],
    );
    let rests = made(&observed, &Decision::Rest);
    assert_eq!(rests.steps.len(), 1, "{rests:?}");
    assert_eq!(rests.steps[0].writes()[0].key.name.as_ref(), "pay-1");
    // Traffic comes before units that begin.
    let driven = driven(&observed);
    assert_eq!(driven.steps.iter().map(part).collect::<Vec<_>>(), [Some(Part::Main), Some(Part::Resize)]);
}

#[test]
fn what_guards_hold_does_not_begin() {
    let guarded = |verdict: MetricVerdict| {
        let mut observed = before(3, json!({}));
        observed.donor_load = Some(Guard { name: "qps".into(), verdict });
        driven(&observed).steps.len()
    };
    assert_eq!(guarded(MetricVerdict::Passing), 3);
    assert_eq!(guarded(MetricVerdict::Breached { failures: 1 }), 0);
    assert_eq!(guarded(MetricVerdict::NoData { problem: "refused".into() }), 0);
    let mut alone = found(to_pay(switch(json!({"steps": [{"percent": 100}]}))), &[json!({})], &[]);
    let verdict = MetricVerdict::Breached { failures: 1 };
    alone.donor_load = Some(Guard { name: "qps".into(), verdict });
    assert_eq!(driven(&alone).steps.len(), 1, "nobody shrinks for it");
}

#[test]
fn the_api_server_is_asked_once_more_about_the_first_of_several_steps() {
    let made_of = |steps: Value, step: u32, second: i64| {
        let step = json!({"status": {"transition": {"step": step}}});
        let mut observed = before(2, both(switch(json!({"steps": steps})), step));
        fill(&mut observed, Demand::ZERO);
        for found in &mut observed.members[0].pods {
            found.evidence.asked.peak = Some(Answer { at: at(second), refused: None });
        }
        driven(&observed).steps.iter().map(part).collect::<Vec<_>>()
    };
    let two = json!([{"percent": 50}, {"percent": 100}]);
    let drain = Some(Part::Main);
    assert_eq!(made_of(two.clone(), 1, -60), [None], "that was before the switch");
    assert_eq!(made_of(two.clone(), 1, 90), [drain]);
    assert_eq!(made_of(two, 2, -60), [drain; 2]);
    assert_eq!(made_of(json!([{"percent": 100}]), 1, -60), [drain; 2], "all are no canary");
}

#[test]
fn a_quota_bounds_who_begins() {
    let mut observed = before(5, json!({}));
    observed.members[0].quotas =
        vec![crate::observed::Quota { requests_cpu: Some(2 * 3800), ..crate::observed::Quota::default() }];
    assert_eq!(driven(&observed).steps.len(), 2);
}

#[test]
fn a_status_is_a_plan_of_its_own_and_observing_writes_nothing() {
    let observed = before(3, json!({}));
    let until = at(160);
    for decision in [Decision::Advance(2), Decision::Hold(until)] {
        assert_eq!(made(&observed, &decision), Made::default());
    }
    let watched = before(3, json!({"spec": {"mode": "Observe"}}));
    assert_eq!(made(&watched, &Decision::Wait(WaitFor::Mode)).steps, []);
}

#[test]
fn what_was_settled_is_kept_up_while_a_switch_waits() {
    // A new pod of the member that has the peak, and one that serves at valley size.
    let observed = found(at_pay(json!({})), &[json!({}), on_stage()], &[json!({}), serving("true")]);
    let kept_up = made(&observed, &Decision::Wait(WaitFor::RolledBack));
    let mut parts: Vec<_> = kept_up.steps.iter().map(part).collect();
    parts.sort();
    assert_eq!(parts, [Some(Part::Main), Some(Part::Resize)], "{kept_up:?}");
}

#[test]
fn the_most_urgent_come_first_and_a_chain_is_never_cut() {
    let write = |name: &str| {
        let action = Action::json_patch(json!([]));
        Write { resource: Resource::POD, key: ObjectKey::new("shop", name), class: WriteClass::Spec, action }
    };
    let singles = |count: usize| (0..count).map(|_| write("single"));
    let mut list = List::default();
    list.add_writes(Urgency::AskAhead, singles(1));
    list.add_writes(Urgency::Unit(MoveRank::Drain), [write("drain")]);
    list.0.push((Urgency::Unit(MoveRank::Chain), Step::Chain(vec![write("shrink"), write("grow")])));
    list.add_writes(Urgency::Unit(MoveRank::Protective), [write("on")]);
    let first = |step: &Step| step.writes()[0].key.name.to_string();
    let made = list.cut();
    assert!(!made.is_cut);
    assert_eq!(made.steps.iter().map(first).collect::<Vec<_>>(), ["on", "shrink", "drain", "single"]);
    let mut full = List::default();
    full.add_writes(Urgency::Unit(MoveRank::Protective), singles(MOST_WRITES - 1));
    full.0.push((Urgency::Unit(MoveRank::Chain), Step::Chain(vec![write("shrink"), write("grow")])));
    full.add_writes(Urgency::Ask, singles(5));
    let made = full.cut();
    assert!(made.is_cut);
    assert_eq!(made.steps.len(), MOST_WRITES - 1, "what comes after waits with it");
}
