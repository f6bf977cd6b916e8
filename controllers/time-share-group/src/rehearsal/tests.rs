use super::*;
use crate::fixtures::{at, group, on_stage, overlay, pod, switching};
use crate::plan::fixtures::{at_pay, both};
use crate::watches::rig::{bare, deployment, replica_set};
use serde_json::json;
use springtide_plumbing::dry_run::Verdict as Answered;
use springtide_plumbing::error::Refusal;

fn key() -> ObjectKey {
    ObjectKey::new("shop", "double11")
}

/// A node of 100 cores, a group, and its pods: of pay those, of promo these.
fn world(object: Value, pay: &[Value], promo: &[Value]) -> World {
    let pods = |member: &str, over: &[Value]| -> Vec<Arc<PodView>> {
        let numbered = over.iter().zip(1..);
        numbered.map(|(over, number)| pod(&format!("{member}-{number}"), "n1", over.clone())).collect()
    };
    let members = ["pay", "promo"];
    World {
        groups: vec![group(object)],
        pods: [pods("pay", pay), pods("promo", promo)].concat(),
        deployments: members.map(|member| deployment(member, json!({}))).into(),
        replica_sets: members.map(|member| replica_set(&format!("{member}-1"), Some(member))).into(),
        nodes: Some(vec![bare(
            "",
            "n1",
            json!({"status": {"allocatable": {"cpu": "100", "memory": "1Ti"}}}),
        )]),
        ..World::default()
    }
}

/// promo has the peak, and pay is to have it.
fn due() -> Value {
    let mut ended = switching(7, None, Some("promo"));
    overlay(
        &mut ended,
        json!({"activeMember": "promo", "transition": {"completionTime": at(10).to_string()}}),
    );
    json!({
        "metadata": {"finalizers": ["springtide.dev/time-share-group"]},
        "spec": {"schedule": {"defaultMember": "pay"}, "switch": {"overlap": "Never"}},
        "status": ended,
    })
}

fn resources(writes: &[PlannedWrite]) -> Vec<String> {
    writes.iter().map(PlannedWrite::resource).collect()
}

#[test]
fn a_group_at_rest_is_computed_and_has_nothing_to_write_to_anybody_else() {
    let object =
        both(at_pay(json!({})), json!({"metadata": {"finalizers": ["springtide.dev/time-share-group"]}}));
    let mut rehearsal = Rehearsal::new(world(object, &[on_stage()], &[json!({})]));
    let told = rehearsal.explain(&key(), at(100)).unwrap();
    assert_eq!((told.basis, told.summary.reason.as_str()), (Basis::Computed, "Settled"), "{told:?}");
    assert_eq!((told.active_member.as_deref(), told.desired_member.as_deref()), (Some("pay"), Some("pay")));
    assert_eq!((told.cause.as_str(), told.remedies.len(), told.wakes.as_str()), ("Default", 0, ""));
    let states: Vec<&str> = told.units.iter().map(|unit| unit.state.as_str()).collect();
    assert_eq!(states, ["Done"]);
    assert!(told.next_writes.iter().all(|write| write.kind == "TimeShareGroup"), "{:?}", told.next_writes);
    assert!(rehearsal.explain(&ObjectKey::new("shop", "other"), at(100)).is_none());
}

#[test]
fn a_switch_that_is_due_is_told_up_to_the_first_write_to_a_pod() {
    let mut rehearsal = Rehearsal::new(world(due(), &[json!({})], &[on_stage()]));
    let told = rehearsal.explain(&key(), at(100)).unwrap();
    assert_eq!((told.basis, told.summary.reason.as_str()), (Basis::Computed, "Switching"), "{told:?}");
    assert_eq!(told.transition.as_ref().map(|open| open.id), Some(8));
    let written = resources(&told.next_writes);
    assert_eq!(written.first().map(String::as_str), Some("timesharegroup/status"), "the switch opens first");
    assert!(written.contains(&"pod".to_owned()), "promo-1 is turned off by its label: {written:?}");
    assert!(!written.contains(&"pod/resize".to_owned()), "it is drained first: {written:?}");
    // In memory alone: the next look begins where the first one did.
    assert_eq!(rehearsal.explain(&key(), at(100)).unwrap(), told);
}

#[test]
fn a_plan_tells_each_unit_of_the_switch_that_comes_and_all_writes_to_it() {
    let mut rehearsal = Rehearsal::new(world(due(), &[json!({}), json!({})], &[on_stage()]));
    let told = rehearsal.plan(&key(), at(100)).unwrap();
    let units: Vec<_> = told
        .units
        .iter()
        .map(|unit| {
            (unit.side.as_str(), unit.shrinking.as_slice(), unit.growing.as_slice(), resources(&unit.writes))
        })
        .collect();
    let pair = units.iter().find(|(_, shrinking, ..)| !shrinking.is_empty()).unwrap();
    assert_eq!((pair.0, pair.1, pair.2), ("Ahead", &["promo-1".to_owned()][..], &["pay-1".to_owned()][..]));
    assert_eq!(pair.3, ["pod", "pod/resize", "pod/resize", "pod"]);
    let alone = units.iter().find(|(_, shrinking, ..)| shrinking.is_empty()).unwrap();
    assert_eq!(
        (alone.2, &alone.3),
        (&["pay-2".to_owned()][..], &vec!["pod/resize".to_owned(), "pod".to_owned()])
    );
}

#[test]
fn who_grows_first_by_the_spec_is_written_first() {
    let mut object = due();
    object["spec"]["switch"]["order"] = json!("ClaimFirst");
    let mut rehearsal = Rehearsal::new(world(object, &[json!({})], &[on_stage()]));
    let told = rehearsal.plan(&key(), at(100)).unwrap();
    let names: Vec<&str> = told.units[0].writes.iter().map(|write| write.name.as_str()).collect();
    assert_eq!(names, ["promo-1", "pay-1", "promo-1", "pay-1"]);
}

#[test]
fn the_server_is_asked_for_pods_of_the_switch_that_comes_and_what_it_refuses_is_told() {
    let mut rehearsal = Rehearsal::new(world(due(), &[json!({})], &[on_stage()]));
    let questions = rehearsal.questions(&key(), at(100));
    let names: Vec<&str> = questions.iter().map(|write| &*write.key.name).collect();
    assert_eq!(names, ["pay-1", "promo-1"]);
    let refusal = Refusal {
        code: 403,
        reason: "Forbidden".to_owned(),
        message: "policy: too large".to_owned(),
        fields: Vec::new(),
    };
    let results = questions.into_iter().map(|write| {
        let dry_run = (&*write.key.name == "pay-1").then(|| Answered::Refused(refusal.clone()));
        WriteResult { write, outcome: Ok(Done { dry_run, ..Done::default() }) }
    });
    rehearsal.answer(&key(), results.collect(), at(100));
    assert_eq!(rehearsal.questions(&key(), at(100)).len(), 0, "what was not answered counts as accepted");
    let told = rehearsal.explain(&key(), at(100)).unwrap();
    assert!(told.stuck.iter().any(|row| row.pod == "pay-1"), "{told:?}");
}

#[test]
fn where_nodes_are_not_seen_the_managers_word_stands() {
    let settled = json!([{
        "type": "Ready", "status": "True", "reason": "Settled", "message": "pay has the peak", "observedGeneration": 1,
        "lastTransitionTime": at(50).to_string(),
    }]);
    let object = both(
        at_pay(json!({"status": {"conditions": settled}})),
        json!({
            "metadata": {"finalizers": ["springtide.dev/time-share-group"]},
        }),
    );
    let unseen = World { nodes: None, ..world(object, &[on_stage(), json!({})], &[json!({})]) };
    let told = Rehearsal::new(unseen).explain(&key(), at(100)).unwrap();
    assert_eq!((told.basis, told.summary.reason.as_str()), (Basis::Reported, "Settled"));
    assert!(told.next_writes.is_empty());
}

#[test]
fn a_group_that_is_not_served_says_what_is_wrong_and_what_helps() {
    let mut seen = world(due(), &[json!({})], &[on_stage()]);
    seen.deployments.truncate(1);
    let told = Rehearsal::new(seen).explain(&key(), at(100)).unwrap();
    assert_eq!(told.summary.reason, "Pending", "{told:?}");
    assert!(told.units.is_empty() && told.summary.message.contains("member promo"), "{told:?}");
}
