//! What conditions say of a run: which reason, and in the message what is so and why.

use super::world::World;
use crate::fixtures::{at, node, overlay};
use crate::health::{Metric, MetricState};
use crate::observed::Observed;
use crate::plan::plan;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{
    DriftedReason, FinalizedReason, HealthyReason, HeldReason, PrePulledReason,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::dry_run::{Answer, Verdict};
use springtide_plumbing::error::Refusal;
use springtide_plumbing::plan::{Action, Plan};
use std::sync::Arc;

/// The condition of a reason is so, and its message has all of these words.
#[track_caller]
fn assert_told<R: Reason>(status: &Value, expected: R, holds: &str, words: &[&str]) {
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == R::CONDITION).unwrap();
    assert_eq!(
        (found["reason"].as_str(), found["status"].as_str()),
        (Some(expected.as_str()), Some(holds)),
        "{found}"
    );
    let message = found["message"].as_str().unwrap();
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

pub(super) fn planned_status(plan: &Plan) -> &Value {
    let Action::Status { status, .. } = &plan.status.as_ref().unwrap().action else { panic!("{plan:?}") };
    status
}

fn writes_of_pods(plan: &Plan) -> usize {
    let writes = plan.stages.iter().flatten().flat_map(|step| step.writes());
    writes.filter(|write| write.resource.kind == "Pod").count()
}

/// Lets everybody act until something is so.
fn go_on_until(world: &mut World, is_so: impl Fn(&World) -> bool) {
    for _ in 0..500 {
        if is_so(world) {
            return;
        }
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    panic!("not so: {:#}", world.upgrade["status"]);
}

/// A run that is open, and has not changed any pod yet.
fn opened(replicas: usize, spec: Value) -> World {
    let mut world = World::new(replicas, false, spec);
    for _ in 0..10 {
        if !world.upgrade["status"]["previous"].is_null() {
            return world;
        }
        world.pass(usize::MAX);
    }
    panic!("not opened: {:#}", world.upgrade["status"]);
}

#[test]
fn a_node_that_takes_no_puller_is_named_once_its_time_is_over() {
    let mut world = opened(2, json!({"prePull": {"mode": "ImageVolume", "timeoutSeconds": 60}}));
    let mut observed = world.observe();
    observed.tools_image = "springtide:1".into();
    for name in ["node-web-00", "node-web-01"] {
        observed.nodes.insert(name.into(), node(name, &[], json!({})));
    }
    let now = world.now;
    let planned = plan(&observed, at(now));
    let pullers = planned.stages.iter().flatten().flat_map(|step| step.writes()).map(|write| {
        let Action::Create { manifest } = &write.action else { panic!("{write:?}") };
        let mut puller = manifest.clone();
        let stored = json!({
            "metadata": {
                "uid": write.key.name.to_string(), "resourceVersion": "7",
                "creationTimestamp": at(now).to_string(),
            },
            "status": {"phase": "Pending"},
        });
        overlay(&mut puller, stored);
        Arc::new(serde_json::from_value(puller).unwrap())
    });
    observed.pullers = pullers.collect();
    assert_eq!(observed.pullers.len(), 2);
    let early = plan(&observed, at(now + 59));
    assert_told(planned_status(&early), PrePulledReason::InProgress, "False", &["0 of 2 nodes"]);
    let late = plan(&observed, at(now + 60));
    let words = ["node-web-00", "does not take the pod that pulls"];
    assert_told(planned_status(&late), PrePulledReason::PullerNotScheduled, "False", &words);
    assert_eq!(writes_of_pods(&late), 0, "no container is touched");
}

#[test]
fn a_step_that_is_over_tells_when_the_next_one_begins() {
    let steps =
        json!([{"replicas": 1, "hold": {"type": "Duration", "durationSeconds": 900}}, {"replicas": "100%"}]);
    let mut world = World::new(4, false, json!({"strategy": {"steps": steps}}));
    world.run_until("Held", |_| {});
    let until = world.upgrade["status"]["step"]["holdUntilTime"].as_str().unwrap().to_owned();
    assert_told(&world.upgrade["status"], HeldReason::StepHold, "True", &["step 1 is done", &until]);
    world.now += 901;
    world.pass(usize::MAX);
    let words = ["nothing keeps further pods from starting"];
    assert_told(&world.upgrade["status"], HeldReason::Free, "False", &words);
}

#[test]
fn an_open_freeze_window_is_named_with_its_end() {
    let clock = |seconds: i64| at(seconds).to_string()[11..16].to_owned();
    let window = json!({"start": clock(-3600), "end": clock(3600), "timeZone": "UTC"});
    let freeze = json!({"freezeWindows": [{"name": "sale", "window": window}]});
    let mut world = World::new(3, false, freeze);
    world.run_until("Held", |_| {});
    let end = format!("{}:00Z", &at(3600).to_string()[..16]);
    let words = ["freeze window sale", end.as_str()];
    assert_told(&world.upgrade["status"], HeldReason::FreezeWindow, "True", &words);
    assert_eq!(world.images(), ["app:1"; 3]);
}

#[test]
fn pods_that_are_missing_by_nobody_of_ours_hold_and_are_counted() {
    let mut world = opened(4, json!({"strategy": {"maxUnavailable": 1}}));
    world.pods.remove("web-03");
    let planned = plan(&world.observe(), at(world.now));
    let words = ["1 pods are unavailable or missing", "of 1 that may be", "none by this run"];
    assert_told(planned_status(&planned), HeldReason::Unavailable, "True", &words);
    assert_eq!(writes_of_pods(&planned), 0);
}

#[test]
fn a_metric_without_a_value_holds_and_is_named() {
    let mut world = opened(4, json!({}));
    let with = |world: &mut World, state| {
        let mut observed = world.observe();
        observed.metrics = vec![Metric { name: "errors".to_owned(), state }];
        plan(&observed, at(world.now))
    };
    let held = with(&mut world, MetricState::NoData);
    let words = ["metric errors has no value"];
    assert_told(planned_status(&held), HeldReason::NoMetricData, "True", &words);
    assert_eq!(writes_of_pods(&held), 0);
    let free = with(&mut world, MetricState::Passing);
    assert_told(planned_status(&free), HeldReason::Free, "False", &["nothing keeps"]);
    assert!(writes_of_pods(&free) > 0);
}

#[test]
fn what_admission_refuses_is_told_in_its_words_when_it_is_asked_again() {
    let mut world = World::new(2, false, json!({}));
    let mut observed: Observed = world.observe();
    let asked = plan(&observed, at(0));
    let mut count = 0;
    for write in asked.stages.iter().flatten().flat_map(|step| step.writes()) {
        let Action::DryRun { question, .. } = &write.action else { panic!("{write:?}") };
        let refusal = Refusal {
            code: 403,
            reason: "Forbidden".to_owned(),
            message: "policy images: app:2 is not signed".to_owned(),
            fields: Vec::new(),
        };
        observed.answers.insert(question.clone(), Answer { at: at(0), verdict: Verdict::Refused(refusal) });
        count += 1;
    }
    assert_eq!(count, 1, "pods of one template are one question");
    let again = plan(&observed, at(60));
    let words = ["policy images: app:2 is not signed"];
    assert_told(planned_status(&again), HealthyReason::AdmissionDenied, "False", &words);
}

#[test]
fn the_workloads_controller_agrees_only_once_all_pods_are_changed() {
    let mut world = World::new(3, false, json!({}));
    go_on_until(&mut world, |world| world.images().contains(&"app:2"));
    let words = ["pods are still to be changed"];
    assert_told(&world.upgrade["status"], FinalizedReason::WaitingForPods, "False", &words);
    go_on_until(&mut world, |world| world.reason("Finalized") == "WaitingForHandshake");
    assert_eq!(world.images(), ["app:2"; 3]);
    let words = ["ReplicaSet"];
    assert_told(&world.upgrade["status"], FinalizedReason::WaitingForHandshake, "False", &words);
    world.run_until("UpToDate", |_| {});
}

#[test]
fn a_hotfix_of_pods_alone_needs_nobody_to_agree() {
    let inline = json!({"persist": "PodsOnly", "containers": [{"name": "app", "image": "app:3"}]});
    let source = json!({"type": "Inline", "inline": inline});
    let mut world = World::new(3, false, json!({"source": source}));
    world.run_until("UpToDate", |_| {});
    assert_eq!(world.images(), ["app:3"; 3]);
    let words = ["the workload's controller has no say in it"];
    assert_told(&world.upgrade["status"], FinalizedReason::Unneeded, "True", &words);
}

#[test]
fn a_pod_that_is_edited_after_its_run_is_named_as_drift() {
    let mut world = World::new(3, false, json!({}));
    world.run_until("UpToDate", |_| {});
    let words = ["no pod differs outside of a run"];
    assert_told(&world.upgrade["status"], DriftedReason::NoDrift, "False", &words);
    world.pods.get_mut("web-01").unwrap()["spec"]["containers"][0]["image"] = json!("app:9");
    world.others_act();
    world.pass(usize::MAX);
    world.pass(usize::MAX);
    let words = ["differ from what the last run made them", "web-01"];
    assert_told(&world.upgrade["status"], DriftedReason::PodsDiffer, "True", &words);
    assert_eq!(world.images(), ["app:2", "app:9", "app:2"], "it is left alone");
}

#[test]
fn a_changed_container_that_restarts_too_often_fails_the_run_and_is_named() {
    let mut world = World::new(4, false, json!({"health": {"maxRestarts": 1}}));
    go_on_until(&mut world, |world| world.images().contains(&"app:2"));
    let name = world
        .pods
        .iter()
        .find(|(_, pod)| pod["spec"]["containers"][0]["image"] == "app:2")
        .unwrap()
        .0
        .clone();
    // One restart is the upgrade's own.
    world.pods.get_mut(&name).unwrap()["status"]["containerStatuses"][0]["restartCount"] = json!(3);
    let planned = plan(&world.observe(), at(world.now));
    let words = ["1 pod failed, of 0 that may", name.as_str(), "TooManyRestarts"];
    assert_told(planned_status(&planned), HealthyReason::TooManyRestarts, "False", &words);
}

#[test]
fn a_container_that_its_node_has_started_again_is_no_failure_of_the_version() {
    let mut world = World::new(4, false, json!({}));
    go_on_until(&mut world, |world| world.images().contains(&"app:2"));
    let pod = world.pods.values_mut().find(|pod| pod["spec"]["containers"][0]["image"] == "app:2").unwrap();
    let lost = json!({"exitCode": 255, "reason": "Unknown", "startedAt": at(world.now).to_string()});
    let again =
        json!({"containerID": "containerd://again", "restartCount": 2, "lastState": {"terminated": lost}});
    overlay(&mut pod["status"]["containerStatuses"][0], again);
    world.run_until("UpToDate", |world| assert_ne!(world.reason("Healthy"), "TooManyRestarts"));
    assert_eq!(world.images(), ["app:2"; 4]);
}
