mod mishaps;

use super::*;
use crate::change::Change;
use crate::fixtures::{at, overlay, pod, template};
use crate::verdict::{Court, judge as verdict_of};
use crate::wish::Wish;
use proptest::prelude::*;
use serde_json::{Value, json};
use springtide_crds::common::OnTimeout;
use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, Ineligible, TargetKind, TrafficMode};
use springtide_plumbing::workloads::names::{RECORD_ANNOTATION, UPGRADE_TRAFFIC};
use springtide_plumbing::workloads::template::Template;

fn spec() -> InPlaceUpgradeSpec {
    InPlaceUpgradeSpec::new(TargetKind::Deployment, "web")
}

fn pace() -> Pace {
    Pace::of(&spec(), 0)
}

/// A run from one template to another, and one pod of it.
struct Run {
    old: Arc<Template>,
    wish: Wish,
    evidence: Evidence,
    pace: Pace,
}

impl Run {
    fn new(new: Arc<Template>) -> Self {
        let wish = Wish::of(&spec(), &new);
        Self { old: template("app:1", json!({})), wish, evidence: Evidence::default(), pace: pace() }
    }

    fn images() -> Self {
        Self::new(template("app:2", json!({})))
    }

    fn judgement(&self, pod: &PodView) -> Judgement {
        let change = Change::between(&self.old, &self.wish.template);
        let court = Court {
            wish: &self.wish,
            change: &change,
            revision: None,
            is_strict_on_amounts: true,
            claims: &[],
            traffic: TrafficMode::Auto,
            ineligible: Ineligible::Block,
            is_denied: false,
        };
        verdict_of(pod, None, &court)
    }

    fn stand(&self, over: Value, now: i64) -> Stand {
        let pod = pod("web-1", over);
        stand(&pod, &self.judgement(&pod), self.wish.hash.as_str(), &self.pace, &self.evidence, at(now))
    }

    fn state(&self, over: Value, now: i64) -> PodState {
        self.stand(over, now).state
    }

    fn write(&self, over: Value, now: i64, leave: Leave) -> Option<PodWrite> {
        let pod = pod("web-1", over);
        let judgement = self.judgement(&pod);
        let stand = stand(&pod, &judgement, self.wish.hash.as_str(), &self.pace, &self.evidence, at(now));
        next_write(&pod, &judgement, &stand.state, leave)
    }

    fn gate(&self, status: &str, run: &str, since: i64) -> Value {
        let run = if run == "this" { self.wish.hash.as_str() } else { run };
        json!({
            "spec": {"readinessGates": [{"conditionType": UPGRADE_TRAFFIC.gate}]},
            "status": {"conditions": [
                {"type": "ContainersReady", "status": "True", "lastTransitionTime": at(-100).to_string()},
                {"type": "Ready", "status": status, "lastTransitionTime": at(since).to_string()},
                {"type": UPGRADE_TRAFFIC.gate, "status": status, "message": format!("run={run}"),
                 "lastTransitionTime": at(since).to_string()},
            ]},
        })
    }

    /// After the patch at second 0 of a container that had ID 1.
    fn patched(&self, container: Value) -> Value {
        let base = [(
            Arc::from("app"),
            springtide_plumbing::done_rule::Base::of("containerd://1", "reg/app@sha256:1"),
        )];
        let run = Arc::from(self.wish.hash.as_str());
        let record = Record {
            run,
            at: at(0),
            generation: 1,
            base: base.into(),
            restarted: None,
            renamed: std::collections::BTreeSet::new(),
            added: std::collections::BTreeSet::new(),
        };
        let mut status = json!({
            "name": "app", "containerID": "containerd://2", "imageID": "reg/app@sha256:2", "ready": true,
            "state": {"running": {"startedAt": at(5).to_string()}}, "resources": {},
        });
        overlay(&mut status, container);
        json!({
            "metadata": {"generation": 2, "annotations": {RECORD_ANNOTATION: record.encode().unwrap()}},
            "spec": {"containers": [{"name": "app", "image": "app:2"}]},
            "status": {"observedGeneration": 2, "containerStatuses": [status]},
        })
    }
}

fn both(mut one: Value, other: Value) -> Value {
    overlay(&mut one, other);
    one
}

fn readiness(holds: bool, since: i64) -> Value {
    let status = if holds { "True" } else { "False" };
    let condition =
        |type_| json!({"type": type_, "status": status, "lastTransitionTime": at(since).to_string()});
    json!({"status": {"conditions": [condition("ContainersReady"), condition("Ready")]}})
}

#[test]
fn a_pod_without_a_lever_is_patched_at_once_and_done_when_another_container_is_ready() {
    let run = Run::images();
    assert_eq!(run.state(json!({}), 0), PodState::Old);
    assert_eq!(run.write(json!({}), 0, Leave::GoOn), None, "it has not been started");
    assert_eq!(run.write(json!({}), 0, Leave::Start), Some(PodWrite::Patch));
    let early = both(run.patched(json!({"containerID": "containerd://1"})), readiness(true, -100));
    assert_eq!(run.state(early, 3), PodState::Patched, "the old container is still ready");
    let restarted = both(run.patched(json!({"ready": false})), readiness(false, 4));
    assert_eq!(run.state(restarted, 6), PodState::Patched);
    let ready = both(run.patched(json!({})), readiness(true, 8));
    assert_eq!(run.state(ready, 8), PodState::Updated);
}

#[test]
fn a_gated_pod_goes_out_of_traffic_first_and_into_it_last() {
    let mut run = Run::images();
    let on = run.gate("True", "", -100);
    assert_eq!(run.write(on, 0, Leave::Start), Some(PodWrite::TrafficOff));
    let off = run.gate("False", "this", 0);
    run.evidence.exposure.listed_by.insert("web".into());
    assert_eq!(run.state(off.clone(), 1), PodState::Draining { waits_for: vec!["web".into()] });
    run.evidence.exposure = Exposure::default();
    run.evidence.proved_since = Some(at(2));
    assert!(matches!(run.state(off.clone(), 3), PodState::Draining { .. }), "proxies learn later");
    assert_eq!(run.stand(off.clone(), 3).wake, Some(at(7)));
    assert_eq!(run.state(off.clone(), 7), PodState::Drained);
    assert_eq!(run.write(off.clone(), 7, Leave::GoOn), Some(PodWrite::Patch));
    let mut gone_off = off;
    gone_off["status"]["conditions"][0]["lastTransitionTime"] = json!(at(20).to_string());
    let done = both(run.patched(json!({})), gone_off);
    assert_eq!(run.state(done.clone(), 21), PodState::Started);
    assert_eq!(run.write(done, 21, Leave::GoOn), Some(PodWrite::TrafficOn));
    let back = both(run.patched(json!({})), run.gate("True", "", 22));
    assert_eq!(run.state(back, 23), PodState::Updated);
}

#[test]
fn a_drain_that_is_not_proved_is_given_up_gone_on_from_or_a_failure() {
    let mut run = Run::images();
    run.evidence.exposure.listed_by.insert("web".into());
    let off = run.gate("False", "this", 0);
    let with = |run: &mut Run, on_timeout| {
        run.pace.drain.on_timeout = on_timeout;
        run.state(run.gate("False", "this", 0), 60)
    };
    assert!(matches!(with(&mut run, OnTimeout::Skip), PodState::NotDrained { .. }));
    assert_eq!(run.write(off.clone(), 60, Leave::GoOn), Some(PodWrite::TrafficOn));
    assert!(matches!(with(&mut run, OnTimeout::Fail), PodState::Failed(Failure::DrainTimedOut { .. })));
    assert_eq!(run.write(off, 60, Leave::GoOn), Some(PodWrite::TrafficOn));
    assert_eq!(with(&mut run, OnTimeout::Proceed), PodState::Drained);
    run.evidence.put_off_until = Some(at(100));
    let on = run.gate("True", "", 61);
    assert_eq!(run.stand(on, 62), Stand { state: PodState::Old, wake: Some(at(100)) });
}

#[test]
fn what_an_earlier_run_left_is_no_start_of_this_one() {
    let run = Run::images();
    let stale = run.gate("False", "000000000000", -1000);
    assert_eq!(run.state(stale.clone(), 0), PodState::Old);
    assert_eq!(run.write(stale.clone(), 0, Leave::GoOn), Some(PodWrite::TrafficOn));
    assert_eq!(run.write(stale, 0, Leave::Start), Some(PodWrite::TrafficOff), "under this run's name");
}

#[test]
fn a_resize_comes_before_the_image_and_is_waited_for() {
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let containers = |image: &str, cpu: &str| json!({"containers": [{"name": "app", "image": image, "resources": resources(cpu)}]});
    let mut run = Run::new(template("app:2", json!({"spec": containers("app:2", "2")})));
    run.old = template("app:1", json!({"spec": containers("app:1", "1")}));
    let of = |spec: &str, in_force: &str| {
        let status = json!({"name": "app", "containerID": "containerd://1", "imageID": "i", "resources": resources(in_force)});
        json!({"spec": containers("app:1", spec), "status": {"containerStatuses": [status], "qosClass": "Burstable"}})
    };
    let gated = |over| both(run.gate("True", "", -100), over);
    assert_eq!(run.write(gated(of("1", "1")), 0, Leave::Start), Some(PodWrite::Resize));
    assert_eq!(run.state(gated(of("2", "1")), 0), PodState::Resizing);
    assert_eq!(run.write(gated(of("2", "1")), 0, Leave::Start), None, "never the image before");
    assert_eq!(run.write(gated(of("2", "2")), 0, Leave::Start), Some(PodWrite::TrafficOff));
    let deferred = |reason: &str| {
        let mut pod = of("2", "1");
        pod["status"]["conditions"] = json!([
            {"type": "PodResizePending", "status": "True", "reason": reason, "message": "full", "lastTransitionTime": at(0).to_string()},
        ]);
        pod
    };
    assert_eq!(
        run.stand(deferred("Deferred"), 299),
        Stand { state: PodState::Resizing, wake: Some(at(300)) }
    );
    assert!(matches!(
        run.state(deferred("Deferred"), 300),
        PodState::Failed(Failure::ResizeTimedOut { is_deferred: true, .. })
    ));
    assert!(matches!(
        run.state(deferred("Infeasible"), 0),
        PodState::Failed(Failure::ResizeInfeasible { .. })
    ));
    run.evidence.resizing_since = Some(at(0));
    assert!(
        matches!(run.state(of("2", "1"), 300), PodState::Failed(Failure::ResizeTimedOut { .. })),
        "a kubelet that says nothing"
    );
}

#[test]
fn a_resize_that_restarts_is_made_out_of_traffic() {
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let policy = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    let containers = |cpu: &str| json!({"containers": [{"name": "app", "image": "app:1", "resources": resources(cpu), "resizePolicy": policy}]});
    let mut run = Run::new(template("app:1", json!({"spec": containers("2")})));
    run.old = template("app:1", json!({"spec": containers("1")}));
    let of = |spec: &str, in_force: &str, gate: Value| {
        let status = json!({"name": "app", "containerID": "containerd://1", "imageID": "i", "resources": resources(in_force)});
        both(gate, json!({"spec": containers(spec), "status": {"containerStatuses": [status]}}))
    };
    assert_eq!(
        run.write(of("1", "1", run.gate("True", "", -9)), 0, Leave::Start),
        Some(PodWrite::TrafficOff)
    );
    run.evidence.proved_since = Some(at(0));
    let off = || run.gate("False", "this", 0);
    assert_eq!(run.write(of("1", "1", off()), 9, Leave::GoOn), Some(PodWrite::Resize));
    assert_eq!(run.state(of("2", "1", off()), 9), PodState::Resizing);
    assert_eq!(run.write(of("2", "2", off()), 9, Leave::GoOn), Some(PodWrite::TrafficOn));
}

#[test]
fn a_pod_fails_by_what_its_kubelet_says_or_by_its_deadline_and_may_recover() {
    let run = Run::images();
    let waiting = |reason: &str| {
        let state = json!({"running": null, "waiting": {"reason": reason, "message": "not found"}});
        both(run.patched(json!({"state": state, "ready": false})), readiness(false, 1))
    };
    let PodState::Failed(failure) = run.state(waiting("ImagePullBackOff"), 10) else { panic!() };
    assert_eq!((failure.reason(), failure.since()), ("ImagePullBackOff", at(0)));
    assert_eq!(run.state(waiting("ContainerCreating"), 10), PodState::Patched);
    assert_eq!(run.stand(waiting("ContainerCreating"), 10).wake, Some(at(300)));
    assert!(matches!(
        run.state(waiting("ContainerCreating"), 300),
        PodState::Failed(Failure::DeadlineExceeded { .. })
    ));
    let late = both(run.patched(json!({})), readiness(true, 400));
    assert_eq!(run.state(late, 400), PodState::Updated);
}

#[test]
fn a_container_that_restarts_beyond_the_upgrades_own_fails() {
    let mut run = Run::images();
    let restarted =
        |run: &Run, count: u32| both(run.patched(json!({"restartCount": count})), readiness(true, 8));
    assert_eq!(run.state(restarted(&run, 1), 9), PodState::Updated);
    let PodState::Failed(failure) = run.state(restarted(&run, 2), 9) else { panic!() };
    assert_eq!(failure.reason(), "TooManyRestarts");
    run.pace.max_restarts = 1;
    assert_eq!(run.state(restarted(&run, 2), 9), PodState::Updated);
}

#[test]
fn readiness_is_lost_only_by_who_was_in_traffic_again() {
    let run = Run::images();
    let unready = |gate: Value| {
        let mut pod = both(run.patched(json!({})), gate);
        pod["status"]["conditions"][0]["status"] = json!("False");
        pod
    };
    assert_eq!(run.state(unready(run.gate("False", "this", 0)), 100), PodState::Patched);
    assert_eq!(run.state(unready(run.gate("True", "", 50)), 100), PodState::Patched);
    assert!(matches!(
        run.state(unready(run.gate("True", "", 50)), 500),
        PodState::Failed(Failure::ReadinessLost { .. })
    ));
}

#[test]
fn a_pod_is_available_only_when_it_has_been_ready_for_long_enough() {
    let mut run = Run::images();
    run.pace.min_ready = SignedDuration::from_secs(30);
    let ready = both(run.patched(json!({})), readiness(true, 10));
    assert_eq!(run.stand(ready.clone(), 39), Stand { state: PodState::Patched, wake: Some(at(40)) });
    assert_eq!(run.state(ready, 40), PodState::Updated);
    let flapping = both(run.patched(json!({})), readiness(true, 325));
    assert!(matches!(run.state(flapping, 330), PodState::Failed(Failure::DeadlineExceeded { .. })));
}

#[test]
fn a_pod_is_about_to_stop_from_its_patch_until_its_kubelet_has_acted() {
    let run = Run::images();
    let is_about_to = |over: Value| is_about_to_stop(&pod("web-1", over), at(3));
    assert!(!is_about_to(json!({})));
    let unseen = json!({"status": {"observedGeneration": 1}});
    assert!(is_about_to(both(run.patched(json!({"containerID": "containerd://1"})), unseen)));
    assert!(is_about_to(run.patched(json!({"containerID": "containerd://1"}))), "it has its grace period");
    assert!(!is_about_to(run.patched(json!({}))), "another one runs");
}

#[test]
fn a_resize_that_restarts_is_about_to_stop_its_container_unless_its_node_puts_it_off() {
    let cpu = |cpu: &str| json!({"requests": {"cpu": cpu}});
    let resized = |policy: &str, in_force: &str| {
        json!({
            "spec": {"containers": [{
                "name": "app", "image": "app:1", "resources": cpu("2"),
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}],
            }]},
            "status": {"containerStatuses": [
                {"name": "app", "containerID": "containerd://1", "imageID": "i", "resources": cpu(in_force)},
            ]},
        })
    };
    let is_going = |over: &Value, state| super::is_going(&pod("web-1", over.clone()), &state, at(0));
    let restarts = resized("RestartContainer", "1");
    assert!(is_going(&restarts, PodState::Updated) && is_going(&restarts, PodState::Resizing));
    assert!(!is_going(&resized("NotRequired", "1"), PodState::Resizing));
    assert!(!is_going(&resized("RestartContainer", "2"), PodState::Updated));
    let deferred = json!([{"type": "PodResizePending", "status": "True", "reason": "Deferred"}]);
    let deferred = both(restarts, json!({"status": {"conditions": deferred}}));
    assert!(!is_going(&deferred, PodState::Updated), "another one's may be put off for as long as it likes");
    assert!(is_going(&deferred, PodState::Resizing), "ours may begin at any time");
    assert!(is_going(&json!({}), PodState::Renewed) && is_going(&json!({}), PodState::Patched));
}

#[test]
fn a_pod_that_is_about_to_start_is_left_alone_for_as_long_as_it_may_take() {
    let until = |over: Value, now: i64| {
        let created = json!({"metadata": {"creationTimestamp": at(0).to_string()}});
        about_to_start(&pod("web-1", both(created, over)), &pace(), at(now))
    };
    let bound = |state: Value| json!({"status": {"containerStatuses": [{"name": "app", "state": state}]}});
    let creating = || bound(json!({"waiting": {"reason": "ContainerCreating"}}));
    assert_eq!(until(creating(), 1), Some(at(300)));
    assert_eq!(until(creating(), 300), None, "its node may be gone");
    assert_eq!(until(bound(json!({"waiting": {"reason": "ImagePullBackOff"}})), 1), None, "it never will");
    assert_eq!(until(both(creating(), json!({"spec": {"nodeName": null}})), 1), None, "no kubelet has it");
    assert_eq!(until(json!({}), 1), None, "it runs");
}

#[test]
fn images_that_somebody_writes_otherwise_are_not_written_again_and_again() {
    let run = Run::images();
    let mut pod = run.patched(json!({}));
    pod["spec"]["containers"][0]["image"] = json!("mirror/app:2");
    assert!(matches!(run.state(pod.clone(), 10), PodState::Failed(Failure::Overridden { .. })));
    assert_eq!(run.write(pod, 10, Leave::Start), None);
}

#[test]
fn a_pod_that_was_born_as_it_is_wished_is_updated_or_waited_for() {
    let run = Run::images();
    let born = |conditions: Value| {
        both(json!({"spec": {"containers": [{"name": "app", "image": "app:2"}]}}), conditions)
    };
    assert_eq!(run.state(born(readiness(true, -10)), 0), PodState::Updated);
    assert_eq!(run.state(born(readiness(false, -10)), 0), PodState::Unavailable);
    let ungated = both(
        run.gate("True", "", 0),
        born(json!({"status": {"conditions": [
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": at(-10).to_string()},
        ]}})),
    );
    assert_eq!(run.write(ungated, 0, Leave::GoOn), Some(PodWrite::TrafficOn), "nobody has set its gate yet");
}

#[test]
fn a_pod_that_is_made_anew_is_evicted_when_it_starts_and_not_while_it_is_put_off() {
    let mut run = Run::images();
    let pod = pod("web-1", json!({}));
    let judgement = Judgement { verdict: Verdict::Recreate, ..run.judgement(&pod) };
    let old = machine_stand(&pod, &judgement, &run, 0);
    assert_eq!(old, Stand::at(PodState::Old));
    assert_eq!(next_write(&pod, &judgement, &old.state, Leave::Start), Some(PodWrite::Evict));
    assert_eq!(next_write(&pod, &judgement, &old.state, Leave::GoOn), None);
    run.evidence.put_off_until = Some(at(15));
    let stand = |now| machine_stand(&pod, &judgement, &run, now);
    assert_eq!((stand(0).wake, stand(15).wake), (Some(at(15)), None));
}

fn machine_stand(pod: &PodView, judgement: &Judgement, run: &Run, now: i64) -> Stand {
    stand(pod, judgement, run.wish.hash.as_str(), &run.pace, &run.evidence, at(now))
}

#[test]
fn who_was_made_anew_is_on_its_way_until_it_is_available_and_fails_by_the_deadline() {
    let created = json!({"metadata": {"creationTimestamp": at(0).to_string()}});
    let pod = pod("web-1", created);
    let of = |state: PodState, now| renewed(&pod, Stand::at(state), &pace(), at(now));
    assert_eq!(of(PodState::Unavailable, 1), Stand::until(PodState::Renewed, at(300)));
    assert!(PodState::Renewed.is_in_flight());
    assert!(matches!(
        of(PodState::Unavailable, 300).state,
        PodState::Failed(Failure::DeadlineExceeded { .. })
    ));
    for other in [PodState::Updated, PodState::Started] {
        assert_eq!(of(other.clone(), 999).state, other);
    }
}

proptest! {
    /// Whatever a pod looks like: who comes to rest gets its traffic back unless it is being changed, and nothing is ever
    /// begun with it.
    #[test]
    fn who_comes_to_rest_is_left_in_traffic_and_changed_no_further(
        gate in prop_oneof![Just("True"), Just("False")],
        by in prop_oneof![Just("this"), Just("000000000000")],
        is_patched in any::<bool>(),
        has_started in any::<bool>(),
        now in 0..400i64,
    ) {
        let run = Run::images();
        let mut pod = run.gate(gate, by, 0);
        if is_patched {
            let id = if has_started { "containerd://2" } else { "containerd://1" };
            pod = both(pod, run.patched(json!({"containerID": id})));
        }
        let write = run.write(pod, now, Leave::Rest);
        prop_assert!(matches!(write, None | Some(PodWrite::TrafficOn)));
        if gate == "False" && (!is_patched || has_started) {
            prop_assert_eq!(write, Some(PodWrite::TrafficOn));
        }
    }
}
