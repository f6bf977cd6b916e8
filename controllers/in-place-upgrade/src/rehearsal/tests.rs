use super::*;
use crate::fixtures::{at, deployment, overlay, pod, replica_set};
use crate::watches::rig::upgrade;
use serde_json::json;
use springtide_crds::in_place_upgrade::{HeldReason, LockedReason, StalledReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::error::{Refusal, WriteError};
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;

fn key() -> ObjectKey {
    ObjectKey::new("ns", "web")
}

/// A pod of ReplicaSet `old` with our gate, which is open.
fn gated(name: &str, over: Value) -> Arc<PodView> {
    let since = at(-3600).to_string();
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "old", "uid": "old", "controller": true}]);
    let mut whole = json!({
        "metadata": {"ownerReferences": owner},
        "spec": {"readinessGates": [{"conditionType": UPGRADE_TRAFFIC.gate}]},
        "status": {"conditions": [
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": since},
            {"type": "Ready", "status": "True", "lastTransitionTime": since},
            {"type": UPGRADE_TRAFFIC.gate, "status": "True", "lastTransitionTime": since},
        ]},
    });
    overlay(&mut whole, over);
    pod(name, whole)
}

/// A paused Deployment of three pods of `app:1`, whose template asks for `app:2`, and an object with this spec.
fn world(spec: Value) -> World {
    let mut over = json!({"spec": {"prePull": {"mode": "None"}}});
    overlay(&mut over, json!({"spec": spec}));
    World {
        upgrades: vec![upgrade("web", "Deployment", "web", false, over)],
        deployments: vec![deployment(3, "app:2", json!({}))],
        replica_sets: vec![replica_set("old", 1, 3, "app:1")],
        pods: ["web-1", "web-2", "web-3"].map(|name| gated(name, json!({}))).to_vec(),
        ..World::default()
    }
}

/// Gives the object this stored status.
fn with_status(world: &mut World, status: Value) {
    let changed = world.upgrades[0].with_status(serde_json::from_value(status).unwrap(), ResourceVersion(7));
    world.upgrades[0] = Arc::new(changed);
}

fn told(type_: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": "as it was told", "observedGeneration": 1,
        "lastTransitionTime": at(-60).to_string(),
    })
}

fn resources(writes: &[PlannedWrite]) -> Vec<String> {
    writes.iter().map(PlannedWrite::resource).collect()
}

#[test]
fn a_run_that_is_about_to_begin_is_planned_up_to_the_first_pods_and_nothing_is_kept_of_it() {
    let mut rehearsal =
        Rehearsal::new(world(json!({"strategy": {"maxUnavailable": 2, "maxInFlightPerNode": 10}})));
    let plan = rehearsal.plan(&key(), at(0)).unwrap();
    assert_eq!((plan.summary.reason.as_str(), plan.basis), ("Upgrading", Basis::Computed));
    assert_eq!(plan.target, "Deployment/web");
    let writes = resources(&plan.next_writes);
    // The finalizer, the run in the status, and two pods that leave traffic.
    assert_eq!(writes[..2], ["inplaceupgrade", "inplaceupgrade/status"]);
    assert_eq!(writes.iter().filter(|resource| *resource == "pod/status").count(), 2, "{writes:?}");
    assert_eq!(plan.next_writes[0].body[2]["path"], "/metadata/finalizers");
    let opened = &plan.next_writes[1].body;
    assert_eq!(opened["targetHash"], plan.target_hash.as_str());
    assert_eq!(opened["previous"]["revision"], "old");
    assert_eq!(rehearsal.plan(&key(), at(0)).unwrap(), plan, "it begins where the object is");
    let kept = rehearsal.reconciler.stores.upgrades.get(&key()).unwrap();
    assert!(!kept.is_held() && !kept.is_run_open());
}

#[test]
fn a_plan_has_for_each_pod_what_differs_and_every_write_on_its_way() {
    let plan = Rehearsal::new(world(json!({}))).plan(&key(), at(0)).unwrap();
    assert_eq!(plan.pods.len(), 3);
    for pod in &plan.pods {
        assert_eq!((pod.verdict.as_str(), pod.state.as_str()), ("InPlace", "Old"));
        assert_eq!(pod.differences, ["image of app: app:2"]);
        assert_eq!(resources(&pod.writes), ["pod/status", "pod", "pod/status"]);
        let [off, patch, on] = &pod.writes[..] else { panic!("{:?}", pod.writes) };
        assert_eq!(off.body["status"]["conditions"][0]["status"], "False");
        let image = json!({"op": "replace", "path": "/spec/containers/0/image", "value": "app:2"});
        assert!(patch.body.as_array().unwrap().contains(&image), "{}", patch.body);
        assert_eq!((patch.uid.as_str(), patch.form.as_str()), (pod.name.as_str(), "jsonPatch"));
        assert_eq!(on.body["status"]["conditions"][0]["status"], "True");
    }
    let explained = Rehearsal::new(world(json!({}))).explain(&key(), at(0)).unwrap();
    assert!(explained.pods.iter().all(|pod| pod.writes.is_empty()), "an explanation tells no writes of pods");
}

#[test]
fn the_lock_is_missed_before_anything_is_written_and_pods_are_judged_all_the_same() {
    let mut world = world(json!({}));
    world.deployments = vec![deployment(3, "app:2", json!({"spec": {"paused": false}}))];
    let mut rehearsal = Rehearsal::new(world);
    assert_eq!(rehearsal.questions(&key(), at(0)).len(), 1, "one of all pods of a template");
    let plan = rehearsal.plan(&key(), at(0)).unwrap();
    assert_eq!(plan.stalled.as_ref().map(|said| said.reason.as_str()), Some("NotLocked"));
    assert_eq!(resources(&plan.next_writes), ["inplaceupgrade/status"]);
    assert_eq!(plan.plan.in_place, 3);
    assert!(plan.remedies[0].contains("pause a Deployment"));
    let locked = plan.conditions.iter().find(|line| line.type_ == LockedReason::CONDITION).unwrap();
    assert_eq!((locked.status.as_str(), locked.reason.as_str()), ("False", "NotPaused"));
}

#[test]
fn what_the_api_server_refuses_in_a_dry_run_blocks_the_pods() {
    let mut rehearsal = Rehearsal::new(world(json!({})));
    let questions = rehearsal.questions(&key(), at(0));
    let message = "admission webhook images denied the request".to_owned();
    let refusal = Refusal { code: 403, reason: "Forbidden".to_owned(), message, fields: Vec::new() };
    let done = Done { dry_run: Some(Verdict::Refused(refusal)), ..Done::default() };
    let results = questions.into_iter().map(|write| WriteResult { write, outcome: Ok(done.clone()) });
    rehearsal.answer(&key(), results.collect(), at(0));
    let plan = rehearsal.plan(&key(), at(0)).unwrap();
    assert!(rehearsal.questions(&key(), at(0)).is_empty());
    assert_eq!((plan.plan.blocked, plan.pods[0].blocked_because.as_str()), (3, "AdmissionDenied"));
    assert!(plan.pods.iter().all(|pod| pod.writes.is_empty()));
}

#[test]
fn a_question_that_nobody_may_ask_counts_as_accepted() {
    let mut rehearsal = Rehearsal::new(world(json!({})));
    let questions = rehearsal.questions(&key(), at(0));
    let lost = |write| WriteResult { write, outcome: Err(WriteError::Unknown("reset".to_owned())) };
    rehearsal.answer(&key(), questions.into_iter().map(lost).collect(), at(0));
    assert!(rehearsal.has_assumed && rehearsal.questions(&key(), at(0)).is_empty());
    assert_eq!(rehearsal.plan(&key(), at(0)).unwrap().plan.in_place, 3);
}

#[test]
fn a_freeze_window_holds_a_run_that_would_begin_and_says_when_it_ends() {
    let window = json!({"start": "00:00", "end": "23:59", "timeZone": "UTC"});
    let frozen = world(json!({"freezeWindows": [{"name": "always", "window": window}]}));
    let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
    let explained = Rehearsal::new(frozen).explain(&key(), now).unwrap();
    assert_eq!(explained.summary.reason, "Held");
    let held = explained.held.unwrap();
    assert!(held.reason == "FreezeWindow" && held.message.contains("always"));
    assert_eq!(explained.until, Some("2026-11-23T23:59:00Z".parse().unwrap()));
    assert!(!explained.next_writes.iter().any(|write| write.kind == "Pod"));
}

#[test]
fn an_approval_is_spelled_out_with_the_hash() {
    let steps = json!([{"replicas": 1, "hold": {"type": "Approval"}}, {"replicas": "100%"}]);
    let mut held = world(json!({"strategy": {"steps": steps}}));
    let hash = Rehearsal::new(held.clone()).explain(&key(), at(0)).unwrap().target_hash;
    held.pods[0] = gated("web-1", json!({"spec": {"containers": [{"name": "app", "image": "app:2"}]}}));
    with_status(
        &mut held,
        json!({
            "observedGeneration": 1, "targetHash": hash, "previous": {"revision": "old"},
            "step": {"index": 1, "of": 2, "pods": 1, "startTime": at(-60).to_string()},
        }),
    );
    let explained = Rehearsal::new(held).explain(&key(), at(0)).unwrap();
    assert_eq!(explained.held.as_ref().map(|said| said.reason.as_str()), Some("ApprovalRequired"));
    let command = explained.remedies.last().unwrap();
    let patch = format!(r#"'{{"spec":{{"approval":{{"targetHash":"{hash}","throughStep":1}}}}}}'"#);
    assert!(command.contains("kubectl patch ipu web -n ns") && command.contains(&patch), "{command}");
    assert_eq!((explained.counts.updated, explained.step.unwrap().index), (1, 1));
}

#[test]
fn what_only_the_manager_knows_is_repeated_for_as_long_as_it_is_of_this_wish() {
    let hash = Rehearsal::new(world(json!({}))).explain(&key(), at(0)).unwrap().target_hash;
    let explained = |hash: &str, generation: i64| {
        let mut stalled = world(json!({}));
        let conditions = [told("Ready", "False", "Blocked"), told("Stalled", "True", "Forbidden")];
        let status = json!({"observedGeneration": generation, "targetHash": hash, "conditions": conditions});
        with_status(&mut stalled, status);
        Rehearsal::new(stalled).explain(&key(), at(0)).unwrap()
    };
    let repeated = explained(&hash, 1);
    assert_eq!(
        (repeated.basis, repeated.stalled.unwrap().message.as_str()),
        (Basis::Reported, "as it was told")
    );
    assert!(repeated.next_writes.is_empty());
    assert_eq!(repeated.reported.unwrap().since, at(-60));
    for other in [explained("000000000000", 1), explained(&hash, 0)] {
        assert_eq!((other.basis, other.stalled), (Basis::Computed, None));
    }
}

#[test]
fn an_object_without_a_target_says_so_and_one_that_is_not_there_says_nothing() {
    let mut lost = world(json!({}));
    lost.deployments.clear();
    let explained = Rehearsal::new(lost).explain(&key(), at(0)).unwrap();
    assert_eq!((explained.summary.reason.as_str(), explained.pods.len()), ("Planning", 0));
    assert_eq!(explained.until, Some(at(60)));
    let mut rehearsal = Rehearsal::new(world(json!({})));
    assert!(rehearsal.explain(&ObjectKey::new("ns", "none"), at(0)).is_none());
    assert!(rehearsal.questions(&ObjectKey::new("ns", "none"), at(0)).is_empty());
}

#[test]
fn the_hash_of_a_wish_is_that_of_its_workload() {
    let world = world(json!({}));
    let manifest = |image: &str| {
        json!({
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"template": crate::fixtures::template_json(image)},
        })
    };
    let hash = |image: &str| target_hash(&world.upgrades[0], manifest(image)).unwrap();
    assert_eq!(hash("app:2"), Rehearsal::new(world.clone()).explain(&key(), at(0)).unwrap().target_hash);
    assert_ne!(hash("app:2"), hash("app:3"));
    assert_eq!(target_hash(&world.upgrades[0], json!("no workload")), None);
}

#[test]
fn whatever_keeps_an_object_there_is_a_word_on_what_ends_it() {
    for stalled in StalledReason::all() {
        assert!(!advice::wakes_of_stall(stalled).is_empty(), "{}", stalled.as_str());
        assert!(!advice::remedies_of_stall(stalled).is_empty(), "{}", stalled.as_str());
    }
    for held in HeldReason::all() {
        let holds = held.status() == springtide_crds::common::ConditionStatus::True;
        assert_eq!(!advice::wakes_of_hold(held).is_empty(), holds, "{}", held.as_str());
    }
}

mod ways {
    use crate::census::Member;
    use crate::differences::Differences;
    use crate::fixtures::pod;
    use crate::machine::{PodState, PodWrite, Stand};
    use crate::rehearsal::way::way;
    use crate::verdict::{Judgement, Verdict};
    use serde_json::{Value, json};
    use springtide_plumbing::traffic::Lever;
    use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;
    use std::collections::BTreeMap;

    fn amounts() -> BTreeMap<std::sync::Arc<str>, springtide_plumbing::workloads::amounts::Amounts> {
        let amounts =
            springtide_plumbing::workloads::amounts::Amounts::read(&json!({"requests": {"cpu": "1"}}));
        BTreeMap::from([("app".into(), amounts)])
    }

    fn of(verdict: Verdict, differences: Differences, state: PodState, over: Value) -> Vec<PodWrite> {
        let lever = Some(Lever::ReadinessGate);
        way(&Member {
            pod: pod("web-1", over),
            judgement: Judgement { verdict, differences, lever },
            stand: Stand { state, wake: None },
            is_available: true,
            awaits_restart: false,
        })
    }

    fn gate(status: &str) -> Value {
        json!({
            "spec": {"readinessGates": [{"conditionType": UPGRADE_TRAFFIC.gate}]},
            "status": {"conditions": [{"type": UPGRADE_TRAFFIC.gate, "status": status, "message": "run=7c9f21ab04de"}]},
        })
    }

    #[test]
    fn a_pod_takes_as_many_writes_as_the_api_allows_it_to_be_done_in() {
        use PodWrite::{Patch, Resize, TrafficOff, TrafficOn};
        let images = || vec!["app".into()];
        let image = Differences { images: images(), ..Differences::default() };
        let resize = Differences { amounts: amounts(), ..Differences::default() };
        let restart = Differences { resize_restarts: true, ..resize.clone() };
        let both = Differences { images: images(), ..resize.clone() };
        let both_restart = Differences { images: images(), ..restart.clone() };
        let label = Differences { labels: [("a".into(), "b".into())].into(), ..Differences::default() };
        let old = |verdict, differences| of(verdict, differences, PodState::Old, gate("True"));
        assert_eq!(old(Verdict::InPlace, image.clone()), [TrafficOff, Patch, TrafficOn]);
        assert_eq!(old(Verdict::Resize, resize), [Resize]);
        assert_eq!(old(Verdict::Restart, restart), [TrafficOff, Resize, TrafficOn]);
        assert_eq!(old(Verdict::InPlace, both), [Resize, TrafficOff, Patch, TrafficOn]);
        assert_eq!(old(Verdict::InPlace, both_restart), [TrafficOff, Resize, Patch, TrafficOn]);
        assert_eq!(old(Verdict::Metadata, label), [Patch]);
        let pending =
            json!({"status": {"containerStatuses": [{"name": "app", "containerID": "", "imageID": ""}]}});
        assert_eq!(of(Verdict::InPlace, image.clone(), PodState::Old, pending), [Patch], "it has no traffic");

        let out = |differences, state| of(Verdict::InPlace, differences, state, gate("False"));
        assert_eq!(out(image.clone(), PodState::Drained), [Patch, TrafficOn]);
        assert_eq!(
            out(image.clone(), PodState::NotDrained { waits_for: Vec::new() })[..2],
            [TrafficOn, TrafficOff]
        );
        let resized = Differences { images: images(), is_resize_open: true, ..Differences::default() };
        assert_eq!(out(resized.clone(), PodState::Resizing), [Patch, TrafficOn]);
        let in_traffic = of(Verdict::InPlace, resized, PodState::Resizing, gate("True"));
        assert_eq!(in_traffic, [TrafficOff, Patch, TrafficOn]);
        assert_eq!(out(Differences::default(), PodState::Started), [TrafficOn]);
        assert!(of(Verdict::UpToDate, Differences::default(), PodState::Updated, gate("True")).is_empty());
    }
}
