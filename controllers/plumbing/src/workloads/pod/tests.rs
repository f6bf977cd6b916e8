use super::*;
use crate::traffic::{Lever, Traffic};

fn pod(text: &str) -> PodView {
    serde_yaml::from_str(text).unwrap()
}

const WEB: &str = "
metadata:
  name: web-1
  namespace: ns
  uid: p1
  resourceVersion: '7'
  generation: 2
  labels: {app: web}
  annotations: {springtide.dev/in-place-upgrade: '{}'}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-6d, uid: rs, controller: true}]
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 60
  readinessGates: [{conditionType: springtide.dev/upgrade-ready}]
  initContainers:
  - {name: setup, image: 'setup:1'}
  - {name: proxy, image: 'proxy:1', restartPolicy: Always}
  containers:
  - name: app
    image: app:1
    resources: {requests: {cpu: 500m}}
    resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}, {resourceName: memory, restartPolicy: RestartContainer}]
status:
  phase: Running
  qosClass: Burstable
  observedGeneration: 1
  conditions:
  - {type: ContainersReady, status: 'True', lastTransitionTime: '2026-11-23T10:00:00Z'}
  - {type: springtide.dev/upgrade-ready, status: 'False', message: 'run=7c9f21ab04de', lastTransitionTime: '2026-11-23T10:05:00Z'}
  - {type: PodResizePending, status: 'True', reason: Infeasible, message: 'Node did not have enough capacity'}
  - {type: PodResizeInProgress, status: 'False'}
  - {type: PodReadyToStartContainers, status: 'True', lastTransitionTime: '2026-11-23T08:00:00Z'}
  containerStatuses:
  - name: app
    containerID: containerd://aa
    imageID: sha256:11
    restartCount: 3
    ready: true
    state: {running: {startedAt: '2026-11-23T09:00:00Z'}}
    resources: {requests: {cpu: 400m}}
";

#[test]
fn a_pod_of_a_workload_is_kept_with_containers_and_what_their_kubelet_reports() {
    let pod = pod(WEB);
    let roles: Vec<_> = pod.containers.iter().map(|found| (&*found.name, found.role)).collect();
    assert_eq!(roles, [("setup", Role::Init), ("proxy", Role::Sidecar), ("app", Role::Main)]);
    let app = pod.container("app").unwrap();
    assert_eq!((app.cpu_restarts, app.memory_restarts), (false, true));
    let status = app.status.as_ref().unwrap();
    assert_eq!((status.restarts, &*status.container_id), (3, "containerd://aa"));
    assert_eq!(status.amounts.unwrap().requests.cpu, Some(400));
    assert_eq!((pod.grace_seconds, pod.observed_generation, pod.qos), (60, 1, Some(QosClass::Burstable)));
    assert!(pod.are_containers_ready() && !pod.is_ready() && pod.is_live() && !pod.has_not_started());
    assert!(pod.resize_pending.as_ref().unwrap().is_infeasible && pod.resize_in_progress.is_none());
    assert_eq!((&pod.trace, pod.annotations.len()), (&Trace::Damaged, 0));
    let Traffic::Off { run, .. } = pod.signals.traffic(Lever::ReadinessGate) else { panic!() };
    assert_eq!(run.as_deref(), Some("7c9f21ab04de"));
}

#[test]
fn what_ran_before_is_known_by_its_start_and_by_whether_anybody_saw_its_end() {
    let of = |state: &str| {
        let running = "state: {running: {startedAt: '2026-11-23T09:00:00Z'}}";
        let pod = pod(&WEB.replace(running, state));
        (pod.sandbox_since, pod.container("app").unwrap().status.as_deref().unwrap().clone())
    };
    let at = |time: &str| Some(time.parse::<Timestamp>().unwrap());
    let (sandbox, running) = of(
        "lastState: {terminated: {exitCode: 255, reason: Unknown, startedAt: '2026-11-23T07:00:00Z'}}\n    \
         state: {running: {startedAt: '2026-11-23T09:00:00Z'}}",
    );
    assert_eq!(sandbox, at("2026-11-23T08:00:00Z"));
    assert_eq!(running.last, Some(EndedContainer { started: at("2026-11-23T07:00:00Z"), is_lost: true }));
    let (_, ended) =
        of("state: {terminated: {exitCode: 1, reason: Error, startedAt: '2026-11-23T09:00:00Z'}}");
    let crashed = EndedContainer { started: at("2026-11-23T09:00:00Z"), is_lost: false };
    assert_eq!((ended.state, ended.last), (ContainerState::Terminated(crashed), None));
    let (_, gone) =
        of("state: {terminated: {exitCode: 137, reason: ContainerStatusUnknown, startedAt: null}}");
    assert_eq!(gone.state, ContainerState::Terminated(EndedContainer { started: None, is_lost: true }));
}

#[test]
fn of_other_pods_only_gates_labels_and_readiness_are_kept() {
    let pod = pod(&WEB.replace("kind: ReplicaSet", "kind: Job"));
    assert!(pod.containers.is_empty() && pod.annotations.is_empty());
    assert!(pod.are_containers_ready() && pod.signals.has_gate);
    assert_eq!(&*pod.meta().labels["app"], "web");
}

#[test]
fn a_pod_of_which_nothing_is_reported_is_live_and_has_not_started() {
    let pod = pod("{metadata: {name: a, namespace: ns}, spec: {containers: [{name: app}]}}");
    assert!(pod.is_live() && pod.has_not_started() && !pod.are_containers_ready());
}

#[test]
fn volumes_that_are_images_are_told_from_others() {
    let has = |volumes: &str| {
        pod(&WEB.replace("  nodeName: n1", &format!("  nodeName: n1\n  volumes: {volumes}")))
            .has_image_volumes
    };
    assert!(has(
        "[{name: a, emptyDir: {}}, {name: b, image: {reference: 'app:2', pullPolicy: IfNotPresent}}]"
    ));
    assert!(!has("[{name: a, emptyDir: {}}, {name: b}]") && !has("[]") && !pod(WEB).has_image_volumes);
}

#[test]
fn a_long_annotation_is_known_by_its_digest() {
    let long = "x".repeat(VALUE_MAX_BYTES + 1);
    let kept = AnnotationValue::new(&long);
    assert_eq!(kept.text(), None);
    assert!(kept.is(&long) && !kept.is("x") && !kept.is(&"y".repeat(VALUE_MAX_BYTES + 1)));
    assert!(AnnotationValue::new("v1").is("v1"));
}
