//! What happens to a changed pod that says nothing about the new version, and what does.

use super::*;

fn failure(state: PodState) -> String {
    let PodState::Failed(failure) = state else { panic!("{state:?}") };
    failure.reason().to_owned()
}

/// The end of a container that ran from this second on.
fn ended(reason: &str, from: i64) -> Value {
    json!({"exitCode": 1, "reason": reason, "startedAt": at(from).to_string()})
}

/// A changed pod that is ready, and whose container has been started so often, last after this end.
fn restarted(run: &Run, count: u32, last: Value) -> Value {
    let container = json!({"restartCount": count, "lastState": {"terminated": last}});
    both(run.patched(container), readiness(true, 8))
}

/// The same pod since it has its sandbox, or has it no more.
fn in_sandbox_since(mut pod: Value, second: i64) -> Value {
    let since = at(second).to_string();
    let sandbox = json!({"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": since});
    pod["status"]["conditions"].as_array_mut().unwrap().push(sandbox);
    pod
}

/// A changed pod that is not ready since this second, with its container in this state.
fn down(run: &Run, count: u32, since: i64, state: Value) -> Value {
    let mut container = json!({"restartCount": count, "ready": false, "state": {"running": null}});
    overlay(&mut container, json!({"state": state}));
    both(run.patched(container), readiness(false, since))
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({"waiting": {"reason": reason, "message": message}})
}

#[test]
fn an_end_that_comes_of_the_node_or_the_runtime_is_not_the_versions() {
    let mut run = Run::images();
    for reason in ["Unknown", "ContainerStatusUnknown"] {
        assert_eq!(run.state(restarted(&run, 2, ended(reason, 5)), 99), PodState::Updated, "{reason}");
    }
    let crashed = || restarted(&run, 2, ended("Error", 5));
    assert_eq!(failure(run.state(crashed(), 99)), "TooManyRestarts");
    assert_eq!(run.state(in_sandbox_since(crashed(), 60), 99), PodState::Updated, "it went with its sandbox");
    assert_eq!(failure(run.state(in_sandbox_since(crashed(), -60), 99)), "TooManyRestarts");
    // It was started in the new sandbox, and has ended there.
    let again = in_sandbox_since(restarted(&run, 3, ended("Error", 70)), 60);
    assert_eq!(failure(run.state(again.clone(), 99)), "TooManyRestarts");
    run.pace.max_restarts = 1;
    assert_eq!(run.state(again, 99), PodState::Updated, "the other one is that of the sandbox");
}

#[test]
fn an_end_of_the_old_version_just_before_its_kubelet_saw_the_patch_is_not_the_new_ones() {
    let run = Run::images();
    for started in [-3600, -1, 0] {
        assert_eq!(run.state(restarted(&run, 2, ended("Error", started)), 9), PodState::Updated, "{started}");
    }
    assert_eq!(failure(run.state(restarted(&run, 2, ended("Error", 1)), 9)), "TooManyRestarts");
}

#[test]
fn a_pod_whose_node_starts_again_has_its_time_once_more() {
    let run = Run::images();
    let lost = json!({"terminated": ended("Unknown", 5)});
    let gone = in_sandbox_since(down(&run, 1, 400, lost), 400);
    assert_eq!(run.stand(gone.clone(), 410), Stand { state: PodState::Patched, wake: Some(at(700)) });
    assert_eq!(failure(run.state(gone, 700)), "DeadlineExceeded");
    // It runs again, and is not ready yet.
    let last = ended("Unknown", 5);
    let back = both(restarted(&run, 2, last), readiness(false, 400));
    assert_eq!(run.stand(back, 410), Stand { state: PodState::Patched, wake: Some(at(700)) });
}

#[test]
fn a_container_that_ends_as_often_as_it_may_is_waited_for_and_no_longer_than_one_that_was_changed() {
    let mut run = Run::images();
    let crashed = |run: &Run| down(run, 1, 400, json!({"terminated": ended("Error", 5)}));
    assert_eq!(failure(run.state(crashed(&run), 410)), "TooManyRestarts");
    run.pace.max_restarts = 1;
    assert_eq!(run.stand(crashed(&run), 410), Stand { state: PodState::Patched, wake: Some(at(700)) });
    let looping = |run: &Run| {
        let mut pod =
            down(run, 2, 1, waiting("CrashLoopBackOff", "back-off 10s restarting failed container"));
        pod["status"]["containerStatuses"][0]["lastState"] = json!({"terminated": ended("Error", 5)});
        pod
    };
    assert_eq!(failure(run.state(looping(&run), 20)), "CrashLoopBackOff");
    run.pace.max_restarts = 2;
    assert_eq!(run.state(looping(&run), 20), PodState::Patched);
    assert_eq!(failure(run.state(looping(&run), 301)), "DeadlineExceeded", "it was never ready");
}

#[test]
fn what_was_said_of_the_old_version_is_not_held_against_the_new_one() {
    let run = Run::images();
    let old = |state: Value| {
        let mut pod = down(&run, 0, -60, state);
        pod["status"]["containerStatuses"][0]["containerID"] = json!("containerd://1");
        pod
    };
    let looping = || old(waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container"));
    assert_eq!(run.state(looping(), 1), PodState::Patched, "its pause ends with the image");
    let unseen = |state: Value| both(old(state), json!({"status": {"observedGeneration": 1}}));
    assert_eq!(run.state(unseen(waiting("ImagePullBackOff", "not found")), 1), PodState::Patched);
    for (reason, message) in [
        ("ImagePullBackOff", "Back-off pulling image \"app:bad\": ErrImagePull: not found"),
        ("ErrImagePull", "failed to pull and unpack image \"docker.io/library/app:bad\": not found"),
    ] {
        assert_eq!(run.state(old(waiting(reason, message)), 1), PodState::Patched, "{message}");
    }
    let own =
        waiting("ErrImagePull", "failed to pull and unpack image \"docker.io/library/app:2\": not found");
    assert_eq!(failure(run.state(old(own), 1)), "ErrImagePull");
}

#[test]
fn a_pull_that_may_succeed_later_is_waited_for_up_to_the_deadline() {
    let run = Run::images();
    let stand = |reason: &str, message: &str, now| run.stand(down(&run, 0, 1, waiting(reason, message)), now);
    for (reason, message) in [
        ("ErrImagePull", "pull QPS exceeded"),
        ("ImagePullBackOff", "Back-off pulling image \"app:2\": ErrImagePull: pull QPS exceeded"),
        ("ErrImagePull", "failed to pull image \"app:2\": dial tcp 192.0.2.1:443: i/o timeout"),
        ("RegistryUnavailable", "unavailable"),
    ] {
        let patched = Stand { state: PodState::Patched, wake: Some(at(300)) };
        assert_eq!(stand(reason, message, 10), patched, "{message}");
        assert_eq!(failure(stand(reason, message, 300).state), reason, "what it waited for is named");
    }
    for (reason, message) in [
        ("ImagePullBackOff", "Back-off pulling image \"app:2\""),
        ("ImagePullBackOff", "Back-off pulling image \"app:2\": ErrImagePull: app:2: not found"),
        ("ErrImagePull", "failed to pull image \"app:2\": 401 Unauthorized"),
        ("InvalidImageName", "couldn't parse image name"),
    ] {
        assert_eq!(failure(stand(reason, message, 10).state), reason, "{message}");
    }
}

#[test]
fn a_moment_without_readiness_is_none_lost() {
    let run = Run::images();
    let mut pod = both(run.patched(json!({})), run.gate("True", "", 50));
    let unready = json!({"status": "False", "lastTransitionTime": at(400).to_string()});
    overlay(&mut pod["status"]["conditions"][0], unready);
    assert_eq!(run.stand(pod.clone(), 405), Stand { state: PodState::Patched, wake: Some(at(410)) });
    assert_eq!(failure(run.state(pod, 410)), "ReadinessLost");
}

#[test]
fn a_deadline_that_is_shorter_than_it_takes_to_be_sure_fails_nobody() {
    let mut run = Run::images();
    run.pace.pod_deadline = SignedDuration::from_secs(30);
    run.evidence.candidates = [(Arc::from("app"), Sighting { since: at(8), saw_begin: true })].into();
    let same = || both(run.patched(json!({"imageID": "reg/app@sha256:1"})), readiness(true, 8));
    assert_eq!(run.stand(same(), 40), Stand { state: PodState::Patched, wake: Some(at(43)) });
    assert_eq!(run.state(same(), 43), PodState::Updated);
}
