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
    assert_eq!((status.amounts.unwrap().requests.cpu, status.allocated), (Some(400), None));
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
fn of_other_pods_only_gates_labels_readiness_and_room_are_kept() {
    let pod = pod(&WEB.replace("kind: ReplicaSet", "kind: Job"));
    assert!(pod.containers.is_empty() && pod.annotations.is_empty());
    assert!(pod.are_containers_ready() && pod.signals.has_gate);
    assert_eq!(&*pod.meta().labels["app"], "web");
    assert_eq!((pod.requests.cpu, pod.requests.memory), (Some(400), Some(0)));
}

const SHARED: &str = "
metadata:
  name: pay-1
  namespace: ns
  labels: {springtide.dev/traffic-serving: 'false'}
  annotations: {springtide.dev/traffic-drain: 'run=42,since=2026-11-23T10:00:00Z'}
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: pay, uid: s, controller: true}]
spec:
  priority: -10
  preemptionPolicy: Never
  readinessGates: [{conditionType: springtide.dev/traffic}, {conditionType: springtide.dev/upgrade-ready}]
  overhead: {cpu: 10m, memory: 1Mi}
  initContainers: [{name: setup, resources: {requests: {cpu: 3}}}]
  containers:
  - {name: app, resources: {requests: {cpu: 500m, memory: 1Gi}}}
  - {name: proxy, resources: {requests: {cpu: 100m}}}
status:
  conditions:
  - {type: springtide.dev/traffic, status: 'True'}
  - {type: springtide.dev/time-share, status: 'False', reason: Deferred, message: 'transition=42',
     lastTransitionTime: '2026-11-23T10:02:00Z'}
  containerStatuses:
  - {name: app, allocatedResources: {cpu: 4, memory: 1Gi}, resources: {requests: {cpu: 200m, memory: 2Gi}}}
";

#[test]
fn what_is_said_of_time_sharing_is_told_from_what_is_said_of_upgrades() {
    let pod = pod(SHARED);
    assert!(pod.time_share.has_gate && pod.signals.has_gate && pod.signals.condition.is_none());
    assert_eq!(pod.time_share.traffic(Lever::ReadinessGate), Traffic::On);
    let Traffic::Off { run, since } = pod.time_share.traffic(Lever::ServiceLabel) else { panic!() };
    assert_eq!((run.as_deref(), since), (Some("42"), "2026-11-23T10:00:00Z".parse().ok()));
    let skipped = pod.skipped.as_ref().unwrap();
    assert_eq!((&*skipped.reason, &*skipped.message), ("Deferred", "transition=42"));
    assert_eq!(skipped.since, "2026-11-23T10:02:00Z".parse().ok());
    assert!(pod.traits.has_foreign_gates, "an upgrade does not open it");
    let over = SHARED.replace("time-share, status: 'False'", "time-share, status: 'True'");
    assert_eq!(self::pod(&over).skipped, None);
}

#[test]
fn a_pod_holds_the_highest_of_what_it_asks_for_is_allocated_and_has() {
    let requests = |text: &str| {
        let Pair { cpu, memory } = pod(text).requests;
        (cpu.unwrap(), memory.unwrap())
    };
    let (mi, gi) = (1 << 20, 1 << 30);
    // The kubelet has said nothing of the proxy.
    assert_eq!(requests(SHARED), (4100 + 10, 2 * gi + mi));
    let infeasible = "conditions:\n  - {type: PodResizePending, status: 'True', reason: Infeasible}";
    let asks_much = SHARED.replace("cpu: 500m", "cpu: 64");
    assert_eq!(requests(&asks_much), (64_110, 2 * gi + mi));
    assert_eq!(requests(&asks_much.replace("conditions:", infeasible)), (4000 + 10, 2 * gi + mi));
    assert_eq!(requests("{metadata: {name: a}, spec: {containers: [{name: app, resources: null}]}}"), (0, 0));
    let status = pod(SHARED).container("app").unwrap().status.clone().unwrap();
    assert_eq!(status.allocated, Some(Pair { cpu: Some(4000), memory: Some(gi) }));
}

#[test]
fn a_pod_that_says_nothing_of_its_priority_preempts_others_of_less_than_none() {
    let shared = pod(SHARED);
    assert_eq!((shared.priority, shared.preempts), (-10, false));
    let web = pod(WEB);
    assert_eq!((web.priority, web.preempts), (0, true));
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
