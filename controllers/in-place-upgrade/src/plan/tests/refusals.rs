//! What the API server refuses in a dry run: it is told in its words, asked again, and undoes nothing.

use super::scenes::{Scene, answer, draining, message_of, refusal, status_of};
use super::world::World;
use crate::fixtures::{at, overlay};
use crate::observed::Observed;
use crate::plan::plan;
use crate::plan::preflight::is_outdated;
use crate::projections::upgrade::UpgradeView;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{HealthyReason, ReadyReason, StalledReason};
use springtide_plumbing::dry_run::{Answer, Answers, Verdict};
use springtide_plumbing::error::{FieldConflict, Refusal, WriteError};
use springtide_plumbing::executor::WriteResult;
use springtide_plumbing::plan::{Action, Plan, Write};
use std::sync::Arc;

const WORDS: &str = "admission webhook \"images.example\" denied the request: app:2 is not signed";

fn denied(_question: &str) -> Verdict<()> {
    refusal(WORDS)
}

fn accepted(_question: &str) -> Verdict<()> {
    Verdict::Accepted(())
}

/// Stores the status of a plan, as the API server would.
fn store(observed: &mut Observed, plan: &Plan) {
    let mut upgrade = UpgradeView::clone(&observed.upgrade);
    upgrade.status = status_of(plan).unwrap();
    observed.upgrade = Arc::new(upgrade);
}

fn writes(plan: &Plan) -> Vec<&Write> {
    plan.stages.iter().flatten().flat_map(|step| step.writes()).collect()
}

#[track_caller]
fn assert_denied(plan: &Plan) {
    let stalled = message_of(plan, &StalledReason::PodsBlocked).expect("it needs a person");
    let healthy = message_of(plan, &HealthyReason::AdmissionDenied).expect("it says why");
    let ready = message_of(plan, &ReadyReason::Blocked).expect("it is blocked");
    assert!([&stalled, &healthy, &ready].iter().all(|message| message.contains(WORDS)), "{stalled}");
    assert!(stalled.contains("asked again"), "{stalled}");
}

#[test]
fn a_refusal_is_asked_for_again_after_pauses_that_double_up_to_ten_minutes() {
    let mut observed = Scene::of(World::new(3, false, json!({}))).observed;
    let (mut now, mut pauses) = (0, Vec::new());
    for turn in 0..8 {
        if turn > 0 {
            let asking = plan(&observed, at(now));
            assert_denied(&asking);
            assert_eq!(writes(&asking).len(), 1, "while it is asked it stays as it was");
        }
        assert_eq!(answer(&mut observed, now, denied), 1);
        let told = plan(&observed, at(now));
        assert_denied(&told);
        assert!(writes(&told).is_empty());
        let again = told.wake.unwrap();
        assert_eq!(status_of(&told).unwrap().next_attempt_time.unwrap().0, again);
        store(&mut observed, &told);
        pauses.push(again.duration_since(at(now)).as_secs());
        now += pauses[turn];
    }
    assert_eq!(pauses, [60, 60, 120, 240, 480, 600, 600, 600]);
}

#[test]
fn a_run_begins_once_it_is_not_refused_any_more() {
    let mut world = World::new(3, false, json!({}));
    world.upgrade["metadata"]["finalizers"] = json!(["springtide.dev/in-place-upgrade"]);
    let mut observed = world.observe();
    answer(&mut observed, 0, denied);
    let told = plan(&observed, at(0));
    store(&mut observed, &told);
    assert_eq!(answer(&mut observed, 60, accepted), 1);
    let opened = status_of(&plan(&observed, at(60))).unwrap();
    assert!(opened.previous.is_some() && opened.next_attempt_time.is_none());
}

#[test]
fn admission_that_refuses_in_mid_run_stops_it_and_undoes_nothing() {
    let mut world = World::new(3, false, json!({}));
    while !world.images().contains(&"app:2") {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    let mut observed = world.observe();
    // Another process begins to lead, and a policy has come meanwhile.
    observed.answers = Answers::new();
    let now = world.now;
    assert_eq!(answer(&mut observed, now, denied), 1);
    for second in 0..3 {
        let planned = plan(&observed, at(now + second));
        assert_denied(&planned);
        assert!(writes(&planned).is_empty(), "{planned:#?}");
        assert_eq!(message_of(&planned, &ReadyReason::RollingBack), None);
        store(&mut observed, &planned);
    }
    assert!(observed.upgrade.is_run_open());
    assert_eq!(answer(&mut observed, now + 60, accepted), 1);
    let on = plan(&observed, at(now + 60));
    assert!(message_of(&on, &ReadyReason::Upgrading).is_some(), "{:#?}", status_of(&on));
    assert_eq!(writes(&on).len(), 1, "the next pod");
}

#[test]
fn who_is_out_of_traffic_comes_back_while_admission_refuses() {
    let mut world = draining(json!({}));
    let out = world.out_of_traffic();
    let mut observed = world.observe();
    observed.answers = Answers::new();
    let now = world.now;
    assert_eq!(answer(&mut observed, now, denied), 1);
    let planned = plan(&observed, at(now));
    assert_denied(&planned);
    let text: Vec<String> = writes(&planned).iter().map(|write| format!("{:?}", write.action)).collect();
    assert!(text.len() >= out, "{text:#?}");
    assert!(text.iter().all(|write| write.contains("\"True\"")), "{text:#?}");
}

#[test]
fn a_field_that_may_be_taken_by_force_is_asked_for_anew_at_once() {
    let inline = json!({"containers": [{"name": "app", "image": "app:3"}]});
    let mut world = World::new(3, false, json!({"source": {"type": "Inline", "inline": inline}}));
    let mut observed = world.observe();
    let held = FieldConflict { manager: "kubectl".to_owned(), field: ".spec.template".to_owned() };
    let asked = answer(&mut observed, 0, |question| {
        if question.starts_with("template/") {
            Verdict::FieldConflict(vec![held.clone()])
        } else {
            Verdict::Accepted(())
        }
    });
    assert_eq!(asked, 2);
    let told = plan(&observed, at(1));
    assert!(message_of(&told, &StalledReason::FieldOwnershipConflict).is_some());
    assert_eq!((writes(&told).len(), told.wake), (0, Some(at(60))));
    overlay(&mut world.upgrade, json!({"spec": {"policy": {"fieldOwnership": "Force"}}}));
    observed.upgrade = world.observe().upgrade;
    assert_eq!(answer(&mut observed, 1, accepted), 1);
}

#[test]
fn who_leaves_out_pods_that_cannot_be_changed_waits_for_those_that_admission_refuses() {
    let mut world = World::new(3, false, json!({"policy": {"ineligible": "Ignore"}}));
    world.upgrade["metadata"]["finalizers"] = json!(["springtide.dev/in-place-upgrade"]);
    let mut observed = world.observe();
    assert_eq!(answer(&mut observed, 0, denied), 1);
    let told = plan(&observed, at(0));
    assert_denied(&told);
    let status = status_of(&told).unwrap();
    assert_eq!((status.pods.blocked, status.pods.updated, status.plan.up_to_date), (3, 0, 0));
    assert_eq!((writes(&told).len(), told.wake), (0, Some(at(60))));
    store(&mut observed, &told);
    assert_eq!(answer(&mut observed, 60, accepted), 1);
    assert!(status_of(&plan(&observed, at(60))).unwrap().previous.is_some(), "it begins by itself");
}

/// A patch of a pod, or the making of one, that the API server has refused.
fn refused(action: Action) -> WriteResult {
    let mut world = World::new(1, false, json!({}));
    let observed = world.observe();
    let asked = plan(&observed, at(0));
    let mut write = writes(&asked)[0].clone();
    write.action = action;
    let refusal = Refusal { code: 403, reason: String::new(), message: WORDS.to_owned(), fields: Vec::new() };
    WriteResult { write, outcome: Err(WriteError::Refused(refusal)) }
}

#[test]
fn what_was_accepted_long_ago_is_asked_anew_once_a_write_is_refused() {
    let answered = |verdict| -> Answers<()> { [("patch".into(), Answer { at: at(0), verdict })].into() };
    let patch = || Action::json_patch(json!([]));
    let is_outdated =
        |action: Action, now: i64| is_outdated(&answered(Verdict::Accepted(())), &[refused(action)], at(now));
    assert!(is_outdated(patch(), 60));
    assert!(!is_outdated(patch(), 59), "it has just been accepted: that is told as a write that fails");
    let manifest: Value = json!({});
    assert!(!is_outdated(Action::Create { manifest }, 60), "no pod that is changed");
    assert!(!is_outdated(patch().dry_run("patch"), 60), "an answer is no write");
}
