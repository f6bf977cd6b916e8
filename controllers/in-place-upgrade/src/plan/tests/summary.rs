//! What the summary says: how far a run is, why a spec is not served, and what needs a person.

use super::conditions::planned_status;
use super::scenes::{Scene, draining, opened, pulling, without_images};
use super::world::World;
use crate::fixtures::{at, overlay};
use crate::plan::plan;
use crate::projections::upgrade::UpgradeView;
use crate::time_share::TimeShare;
use serde_json::{Value, json};
use springtide_crds::common::ConditionStatus;
use springtide_crds::in_place_upgrade::{
    AcceptedReason, InPlaceUpgradeStatus, ReadyReason, ReconcilingReason, RefusalReason, StalledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::{Action, Plan};
use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::claims::Claim;
use std::sync::Arc;

/// A plan's condition has the status and the reason; returns its message.
#[track_caller]
fn says<R: Reason>(plan: &Plan, reason: R) -> String {
    let status: InPlaceUpgradeStatus = serde_json::from_value(planned_status(plan).clone()).unwrap();
    let found = status.conditions.iter().find(|condition| condition.type_ == R::CONDITION);
    let found = found.unwrap_or_else(|| panic!("no {}: {:#?}", R::CONDITION, status.conditions));
    assert_eq!(
        (found.reason.as_str(), found.status),
        (reason.as_str(), reason.status()),
        "{}",
        found.message
    );
    found.message.clone()
}

/// The summary, what needs a person, and that both say the same; returns the message.
#[track_caller]
fn needs(plan: &Plan, ready: ReadyReason, stalled: StalledReason) -> String {
    let message = says(plan, stalled);
    assert_eq!(says(plan, ready), message);
    assert!(!has(plan, ReconcilingReason::CONDITION), "what needs a person does not go on by itself");
    message
}

fn has(plan: &Plan, condition: &str) -> bool {
    planned_status(plan)["conditions"].as_array().unwrap().iter().any(|found| found["type"] == condition)
}

fn count_writes(plan: &Plan) -> usize {
    plan.stages.iter().flatten().flat_map(|step| step.writes()).count()
}

#[test]
fn a_run_says_how_far_it_is() {
    let mut world = World::new(3, false, json!({}));
    let mut stages = Vec::new();
    world.run_until("UpToDate", |world| {
        let stage = (world.reason("Ready"), world.reason("Reconciling"), world.reason("Accepted"));
        if !stage.0.is_empty() && stages.last() != Some(&stage) {
            stages.push(stage);
        }
    });
    let stage = |ready: ReadyReason| {
        let reconciling = ReconcilingReason::of(ready).map_or("", |reason| reason.as_str());
        let accepted = AcceptedReason::Accepted;
        assert_eq!(accepted.status(), ConditionStatus::True);
        (ready.as_str().to_owned(), reconciling.to_owned(), accepted.as_str().to_owned())
    };
    let expected =
        [ReadyReason::Planning, ReadyReason::Upgrading, ReadyReason::Finalizing, ReadyReason::UpToDate];
    assert_eq!(stages, expected.map(stage));
}

#[test]
fn the_api_server_is_asked_before_a_run_opens() {
    let planned = plan(&World::new(3, false, json!({})).observe(), at(0));
    assert!(says(&planned, ReadyReason::Planning).contains("API server"));
    says(&planned, ReconcilingReason::Planning);
    assert!(says(&planned, AcceptedReason::Accepted).contains("served"));
    assert!(!has(&planned, StalledReason::CONDITION));
}

#[test]
fn a_run_counts_the_pods_that_are_as_they_are_wished() {
    let planned = plan(&opened(json!({})).observe(), at(0));
    assert_eq!(says(&planned, ReadyReason::Upgrading), "0 of 3 pods are as they are wished");
    says(&planned, ReconcilingReason::Upgrading);
}

#[test]
fn pods_that_wait_for_images_alone_say_so() {
    let planned = plan(&without_images(), at(0));
    assert_eq!(says(&planned, ReadyReason::PrePulling), "0 of 3 nodes have the images");
    says(&planned, ReconcilingReason::PrePulling);
    assert!(count_writes(&planned) > 0, "they are pulled");
}

#[test]
fn an_image_that_does_not_exist_needs_a_person_before_any_pod_is_touched() {
    let waiting = json!({"reason": "ErrImagePull", "message": "app:2: not found"});
    let observed = pulling(&json!({"waiting": waiting}), false);
    assert!(!observed.pullers.is_empty());
    let planned = plan(&observed, at(5));
    let message = needs(&planned, ReadyReason::Blocked, StalledReason::PrePullFailed);
    assert!(message.contains("node node-web-00") && message.contains("app:2: not found"), "{message}");
}

#[test]
fn a_mode_of_plan_is_named() {
    let mut world = World::new(3, false, json!({"mode": "Plan"}));
    world.run_until("PlanOnly", |_| {});
    let planned = plan(&world.observe(), at(world.now));
    assert!(says(&planned, ReadyReason::PlanOnly).contains("spec.mode is Plan"));
    assert!(!has(&planned, ReconcilingReason::CONDITION) && count_writes(&planned) == 0);
}

#[test]
fn a_workload_that_would_roll_blocks_and_the_message_names_its_field() {
    let mut world = World::new(3, false, json!({}));
    world.deployment["spec"]["paused"] = json!(false);
    let planned = plan(&world.observe(), at(0));
    let message = needs(&planned, ReadyReason::Blocked, StalledReason::NotLocked);
    assert!(message.contains("set spec.paused to true"), "{message}");
}

#[test]
fn a_run_that_went_wrong_and_stands_has_failed() {
    let mut world = World::new(4, false, json!({"rollback": {"onFailure": "Hold"}}));
    world.bad_images.push("app:2".to_owned());
    world.run_until("Failed", |_| {});
    let first = world.upgrade["status"]["conditions"].clone();
    let planned = plan(&world.observe(), at(world.now));
    let message = needs(&planned, ReadyReason::Failed, StalledReason::HealthFailed);
    assert!(first.to_string().contains(&message), "it stays as it was said first: {message}");
    assert_eq!(count_writes(&planned), 0);
}

#[test]
fn a_spec_that_is_not_served_names_field_or_object_and_remedy() {
    let seen = |spec: Value| World::new(3, false, spec).observe();
    let window = json!({"name": "w", "window": {"start": "08:00", "end": "09:00", "timeZone": "No/Where"}});
    let invalid = seen(json!({"freezeWindows": [window]}));
    let mut missing = seen(json!({}));
    missing.target = None;
    missing.target_missing_since = Some(at(-60));
    let mut taken = seen(json!({}));
    taken.rival = Some(ObjectKey::new("ns", "older"));
    let containers = json!([{"name": "app", "resources": {"requests": {"cpu": "1"}}}]);
    let mut conflicting = seen(json!({"source": {"type": "Inline", "inline": {"containers": containers}}}));
    let claim = Claim::of_stated([("app".into(), Amounts::read(&json!({"requests": {"cpu": "4"}})))]);
    conflicting.time_share = Some(TimeShare { group: "day-night".to_owned(), claim, ..TimeShare::default() });
    for (observed, reason, line, words) in [
        (
            invalid,
            RefusalReason::InvalidSpec,
            "Accepted=False InvalidSpec",
            ["freezeWindows[w].window", "No/Where"],
        ),
        (
            missing,
            RefusalReason::TargetNotFound,
            "Accepted=False TargetNotFound",
            ["there is no", "Deployment web"],
        ),
        (taken, RefusalReason::TargetTaken, "Accepted=False TargetTaken", ["older", "delete one of them"]),
        (
            conflicting,
            RefusalReason::ConflictsWithTimeShareGroup,
            "Accepted=False ConflictsWithTimeShareGroup",
            ["cpu or memory", "day-night"],
        ),
    ] {
        let planned = plan(&observed, at(0));
        let message = needs(&planned, ReadyReason::Blocked, StalledReason::Refused(reason));
        assert_eq!(says(&planned, AcceptedReason::Refused(reason)), message);
        let Action::Status { status, .. } = &planned.status.as_ref().unwrap().action else { panic!() };
        let conditions = status["conditions"].as_array().unwrap();
        let lines = conditions
            .iter()
            .map(|found| ["type", "status", "reason"].map(|name| found[name].as_str().unwrap()));
        let lines: Vec<_> =
            lines.map(|[type_, status, reason]| format!("{type_}={status} {reason}")).collect();
        assert!(lines.iter().any(|found| found == line), "{lines:?}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert_eq!(count_writes(&planned), 0);
    }
}

#[test]
fn a_spec_is_served_again_when_its_cause_is_gone() {
    let mut world = World::new(3, false, json!({}));
    let mut observed = world.observe();
    observed.rival = Some(ObjectKey::new("ns", "older"));
    let Action::Status { status, .. } = plan(&observed, at(0)).status.unwrap().action else { panic!() };
    world.upgrade["status"] = status;
    assert_eq!(
        (world.reason("Accepted"), world.reason("Stalled")),
        ("TargetTaken".into(), "TargetTaken".into())
    );
    let planned = plan(&world.observe(), at(1));
    says(&planned, AcceptedReason::Accepted);
    assert!(!has(&planned, StalledReason::CONDITION));
}

#[test]
fn a_run_that_stands_still_for_ten_minutes_needs_a_person() {
    // No node has the image, and nobody makes the pods that pull.
    let mut observed = without_images();
    observed.still_since = Some(at(100));
    let early = plan(&observed, at(699));
    says(&early, ReconcilingReason::PrePulling);
    assert!(!has(&early, StalledReason::CONDITION) && early.wake == Some(at(700)));
    let late = plan(&observed, at(700));
    says(&late, ReadyReason::PrePulling);
    let message = says(&late, StalledReason::NoProgress);
    assert!(message.contains("10 minutes") && message.contains("of 3 nodes"), "{message}");
    assert!(!has(&late, ReconcilingReason::CONDITION), "what needs a person does not go on by itself");
}

#[test]
fn who_was_held_or_has_just_begun_did_not_stand_still() {
    let mut observed = without_images();
    observed.still_since = Some(at(100));
    let mut upgrade = serde_json::to_value(&observed.upgrade.status).unwrap();
    let held = upgrade["conditions"].as_array_mut().unwrap();
    let held = held.iter_mut().find(|condition| condition["type"] == "Held").unwrap();
    overlay(held, json!({"status": "True", "reason": "FreezeWindow"}));
    let mut view = UpgradeView::clone(&observed.upgrade);
    view.status = serde_json::from_value(upgrade.clone()).unwrap();
    observed.upgrade = Arc::new(view.clone());
    assert!(!has(&plan(&observed, at(9000)), StalledReason::CONDITION), "its window has just been closed");
    upgrade["conditions"] = json!([]);
    upgrade["step"]["startTime"] = json!(at(8500).to_string());
    view.status = serde_json::from_value(upgrade).unwrap();
    observed.upgrade = Arc::new(view);
    assert!(!has(&plan(&observed, at(9000)), StalledReason::CONDITION), "its step has just begun");
    assert!(has(&plan(&observed, at(9100)), StalledReason::CONDITION));
}

#[test]
fn drains_that_lead_nowhere_one_after_the_other_need_a_person() {
    let mut world = draining(json!({}));
    let begun = json!({"conditions": [], "step": {"startTime": at(-2000).to_string()}});
    overlay(&mut world.upgrade, json!({"status": begun}));
    // One was given up, and is in traffic again.
    let conditions = &mut world.pods.get_mut("web-00").unwrap()["status"]["conditions"];
    for condition in conditions.as_array_mut().unwrap() {
        condition["status"] = json!("True");
    }
    let scene = Scene::of(world).with(|observed| {
        observed.still_since = Some(at(-1000));
        for (uid, evidence) in &mut observed.evidence {
            evidence.proved_since = None;
            evidence.exposure.listed_by.insert("shop".into());
            evidence.put_off_until = (&*uid.0 == "web-00").then(|| at(9000));
        }
    });
    let message = says(&scene.plan(), StalledReason::DrainFailed);
    let words = ["10 minutes", "web-01 leaves traffic", "shop", "EndpointSlices"];
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

#[test]
fn a_controller_that_does_not_come_to_see_the_end_needs_a_person() {
    let mut world = opened(json!({}));
    for _ in 0..2000 {
        world.pass(usize::MAX);
        if world.reason("Ready") == "Finalizing" {
            break;
        }
        world.others_act();
        world.now += 1;
    }
    // The Deployment's controller has not acted since.
    let mut observed = world.observe();
    let waits = plan(&observed, at(world.now));
    let what = says(&waits, ReadyReason::Finalizing);
    says(&waits, ReconcilingReason::Finalizing);
    assert!(!what.is_empty());
    observed.still_since = Some(at(world.now));
    let message = says(&plan(&observed, at(world.now + 600)), StalledReason::FinalizeFailed);
    assert!(message.contains("10 minutes") && message.contains(&what), "{message}");
}

#[test]
fn a_rollback_that_stands_still_or_has_lost_its_revision_needs_a_person() {
    let mut world = World::new(4, false, json!({}));
    world.bad_images.push("app:2".to_owned());
    world.run_until("RollingBack", |_| {});
    let mut observed = world.observe();
    observed.still_since = Some(at(world.now));
    let still = plan(&observed, at(world.now + 600));
    says(&still, ReadyReason::RollingBack);
    assert!(says(&still, StalledReason::RollbackFailed).contains("10 minutes"));
    let mut upgrade = world.upgrade.clone();
    upgrade["status"]["previous"]["revision"] = json!("gone");
    observed.upgrade = Arc::new(serde_json::from_value::<UpgradeView>(upgrade).unwrap());
    let lost = plan(&observed, at(world.now));
    let message = needs(&lost, ReadyReason::Failed, StalledReason::RollbackFailed);
    assert!(message.contains("revision"), "{message}");
    assert_eq!(count_writes(&lost), 0, "nobody knows what pods were");
}
