use super::*;
use crate::fixtures::{node, overlay, pod, template};
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, TargetKind};
use springtide_plumbing::workloads::template::Template;

fn wish(template: &Arc<Template>) -> Wish {
    Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), template)
}

struct Case {
    old: Arc<Template>,
    new: Arc<Template>,
    pod: Value,
    edit: fn(&mut Court<'_>),
}

impl Case {
    fn new(old: Value, new: Value) -> Self {
        let template = |containers: Value| template("app:1", json!({"spec": containers}));
        Self { old: template(old), new: template(new), pod: json!({}), edit: |_| {} }
    }

    fn images(old: &str, new: &str) -> Self {
        Self::new(containers(old, json!({})), containers(new, json!({})))
    }

    fn amounts(old: Value, new: Value) -> Self {
        let mut case = Self::new(containers("app:1", old.clone()), containers("app:1", new));
        case.pod = json!({
            "spec": containers("app:1", old.clone()),
            "status": {"containerStatuses": [{"name": "app", "containerID": "c", "imageID": "i", "resources": old}]},
        });
        case
    }

    fn with(mut self, over: Value) -> Self {
        overlay(&mut self.pod, over);
        self
    }

    fn verdict(&self) -> Verdict {
        let wish = wish(&self.new);
        let change = Change::between(&self.old, &self.new);
        let mut court = Court {
            wish: &wish,
            change: &change,
            revision: None,
            is_strict_on_amounts: true,
            claims: &[],
            traffic: TrafficMode::Auto,
            ineligible: Ineligible::Block,
            is_denied: false,
        };
        (self.edit)(&mut court);
        judge(&pod("web-1", self.pod.clone()), Some(&node("n1", &[], json!({}))), &court).verdict
    }
}

fn containers(image: &str, resources: Value) -> Value {
    json!({"containers": [{"name": "app", "image": image, "resources": resources}]})
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"requests": {"cpu": cpu, "memory": memory}})
}

#[test]
fn a_pod_that_is_as_it_is_wished_is_up_to_date_however_it_came_to_be_so() {
    assert_eq!(Case::images("app:1", "app:1").verdict(), Verdict::UpToDate);
    let born = Case::images("app:1", "app:2").with(json!({"spec": containers("app:2", json!({}))}));
    assert_eq!(born.verdict(), Verdict::UpToDate);
}

#[test]
fn each_kind_of_change_has_its_verdict() {
    assert_eq!(Case::images("app:1", "app:2").verdict(), Verdict::InPlace);
    let resize = || Case::amounts(requests("1", "1Gi"), requests("2", "1Gi"));
    assert_eq!(resize().verdict(), Verdict::Resize);
    let mut restarting = resize();
    restarting.pod["spec"]["containers"][0]["resizePolicy"] =
        json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
    assert_eq!(restarting.verdict(), Verdict::Restart);
    let metadata = template("app:1", json!({"metadata": {"annotations": {"config": "v2"}}}));
    let case = Case { new: metadata, ..Case::images("app:1", "app:1") };
    assert_eq!(case.verdict(), Verdict::Metadata);
    let init = |image: &str| json!({"initContainers": [{"name": "setup", "image": image}]});
    let case = Case::new(init("setup:1"), init("setup:2")).with(json!({"spec": init("setup:1")}));
    assert_eq!(case.verdict(), Verdict::NextRestart);
}

#[test]
fn a_field_that_cannot_be_changed_in_place_blocks_or_recreates() {
    let mut case = Case::new(json!({}), json!({"hostNetwork": true}));
    assert_eq!(case.verdict(), Verdict::Blocked(BlockedReason::TemplateFieldNotInPlace));
    case.edit = |court| court.ineligible = Ineligible::Recreate;
    assert_eq!(case.verdict(), Verdict::Recreate);
}

#[test]
fn a_resize_that_cannot_be_is_blocked_with_its_reason() {
    let grow = || Case::amounts(requests("1", "1Gi"), requests("2", "1Gi"));
    let blocked = |case: Case, reason| assert_eq!(case.verdict(), Verdict::Blocked(reason));
    blocked(
        Case::amounts(requests("1", "1Gi"), json!({"requests": {"cpu": "1"}})),
        BlockedReason::ResourceRemoved,
    );
    let whole = |cpu: &str| json!({"requests": {"cpu": cpu, "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
    blocked(Case::amounts(whole("1"), whole("500m")), BlockedReason::QosClassWouldChange);
    blocked(Case::amounts(requests("1", "1Gi"), requests("5", "1Gi")), BlockedReason::ExceedsNodeAllocatable);
    blocked(grow().with(json!({"spec": {"os": {"name": "windows"}}})), BlockedReason::ResizeUnsupported);
    blocked(
        grow().with(json!({"spec": {"resourceClaims": [{"name": "gpu"}]}})),
        BlockedReason::ResizeUnsupported,
    );
    let unreported =
        json!({"status": {"containerStatuses": [{"name": "app", "containerID": "c", "imageID": "i"}]}});
    blocked(grow().with(unreported), BlockedReason::ResizeUnsupported);
    let unstarted = json!({"status": {"containerStatuses": []}});
    assert_eq!(grow().with(unstarted).verdict(), Verdict::Resize, "nothing is in force yet");
}

#[test]
fn what_is_blocked_is_not_if_there_is_nothing_to_do() {
    let mirror = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}});
    assert_eq!(Case::images("app:1", "app:1").with(mirror.clone()).verdict(), Verdict::UpToDate);
    let case = Case::images("app:1", "app:2").with(mirror);
    assert_eq!(case.verdict(), Verdict::Blocked(BlockedReason::StaticPod));
}

#[test]
fn a_pod_without_the_gate_that_is_asked_for_is_blocked_only_if_it_restarts() {
    let gate: fn(&mut Court<'_>) = |court| court.traffic = TrafficMode::ReadinessGate;
    let mut case = Case::images("app:1", "app:2");
    case.edit = gate;
    assert_eq!(case.verdict(), Verdict::Blocked(BlockedReason::GateMissing));
    let mut resize = Case::amounts(requests("1", "1Gi"), requests("2", "1Gi"));
    resize.edit = gate;
    assert_eq!(resize.verdict(), Verdict::Resize);
    let mut pending = Case::images("app:1", "app:2").with(json!({"status": {"containerStatuses": []}}));
    pending.edit = gate;
    assert_eq!(pending.verdict(), Verdict::InPlace, "it gets no traffic yet");
}

#[test]
fn containers_that_are_not_there_block() {
    let sidecar = json!({"containers": [{"name": "app", "image": "app:1"}, {"name": "b", "image": "b:1"}]});
    let case = Case::new(sidecar.clone(), sidecar);
    assert_eq!(case.verdict(), Verdict::Blocked(BlockedReason::ContainerMissing), "admission took it away");
    let mut denied = Case::images("app:1", "app:2");
    denied.edit = |court| court.is_denied = true;
    assert_eq!(denied.verdict(), Verdict::Blocked(BlockedReason::AdmissionDenied));
}

#[test]
fn a_restart_without_a_digest_blocks_or_recreates() {
    let case = |image_id: &str, ineligible| {
        let template = template("app:1", json!({}));
        let mut wish = wish(&template);
        wish.restart = serde_json::from_value(json!({"beforeTime": "2026-11-23T10:00:00Z"})).unwrap();
        let change = Change::default();
        let court = Court {
            wish: &wish,
            change: &change,
            revision: None,
            is_strict_on_amounts: true,
            claims: &[],
            traffic: TrafficMode::Auto,
            ineligible,
            is_denied: false,
        };
        let status = json!([{"name": "app", "containerID": "containerd://1", "imageID": image_id}]);
        let created = json!({"creationTimestamp": "2026-11-23T09:00:00Z"});
        let pod = pod("web-1", json!({"metadata": created, "status": {"containerStatuses": status}}));
        judge(&pod, None, &court).verdict
    };
    let known = format!("docker.io/library/app@sha256:{}", "0".repeat(64));
    assert_eq!(case(&known, Ineligible::Block), Verdict::Restart);
    let unknown = "sha256:0123";
    assert_eq!(case(unknown, Ineligible::Block), Verdict::Blocked(BlockedReason::DigestUnknown));
    assert_eq!(case(unknown, Ineligible::Recreate), Verdict::Recreate);
}

#[test]
fn a_resize_that_is_not_in_force_yet_is_still_to_be_done() {
    let mut case = Case::amounts(requests("1", "1Gi"), requests("2", "1Gi"));
    case.pod["spec"] = containers("app:1", requests("2", "1Gi"));
    assert_eq!(case.verdict(), Verdict::Resize);
    case.pod["status"]["containerStatuses"][0]["resources"] = requests("2", "1Gi");
    assert_eq!(case.verdict(), Verdict::UpToDate);
}
