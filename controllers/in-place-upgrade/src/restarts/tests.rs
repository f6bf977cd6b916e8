use super::*;
use crate::change::Change;
use crate::differences::{Against, differences};
use crate::fixtures::{overlay, pod, template};
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{InPlaceUpgradeSpec, TargetKind};
use springtide_plumbing::workloads::names::RECORD_ANNOTATION;
use springtide_plumbing::workloads::template::Template;

const CREATED: &str = "2026-11-23T09:00:00Z";
const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A pod of one container of this image, which runs under the digest.
fn running(image: &str, over: Value) -> Arc<PodView> {
    let mut whole = json!({
        "metadata": {"creationTimestamp": CREATED},
        "spec": {"containers": [{"name": "app", "image": image}]},
        "status": {"containerStatuses": [{
            "name": "app", "containerID": "containerd://1", "imageID": format!("docker.io/library/app@{DIGEST}"),
        }]},
    });
    overlay(&mut whole, over);
    pod("web-1", whole)
}

/// A pod that a run has restarted for this instant, with the image under this name.
fn restarted(image: &str, before: &str, renamed: &[&str]) -> Arc<PodView> {
    let record = json!({
        "run": "7c9f21ab04de", "at": before, "g": 1, "base": {"app": ["a", "b"]}, "restarted": before,
        "renamed": renamed,
    });
    running(image, json!({"metadata": {"annotations": {RECORD_ANNOTATION: record.to_string()}}}))
}

fn wish(image: &str, restart: Value) -> Wish {
    let mut wish =
        Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), &template(image, json!({})));
    wish.restart = serde_json::from_value(restart).unwrap();
    wish
}

fn before(time: &str) -> Value {
    json!({"beforeTime": time})
}

/// In what a pod that was made from this very template differs.
fn found(pod: &PodView, wish: &Wish) -> Differences {
    let change = Change::default();
    let against = Against {
        wish: &wish.template,
        change: &change,
        revision: None,
        is_strict_on_amounts: true,
        claims: &[],
    };
    let mut found = differences(pod, &against);
    add(pod, wish, &mut found);
    found
}

fn flips(pod: &PodView, wish: &Wish) -> Vec<String> {
    found(pod, wish).flips.values().map(ToString::to_string).collect()
}

#[test]
fn a_pod_that_was_created_before_gets_another_name_of_its_image_and_one_created_later_none() {
    let pod = running("app:1", json!({}));
    assert_eq!(flips(&pod, &wish("app:1", before("2026-11-23T09:00:01Z"))), [format!("app:1@{DIGEST}")]);
    assert!(found(&pod, &wish("app:1", before(CREATED))).is_content_equal());
    assert!(found(&pod, &wish("app:1", json!(null))).is_content_equal());
}

#[test]
fn a_pod_is_restarted_once_for_one_instant_and_gets_the_wished_name_back_the_next_time() {
    let (first, second) = ("2026-11-23T10:00:00Z", "2026-11-23T11:00:00Z");
    let pinned = format!("app:1@{DIGEST}");
    let once = restarted(&pinned, first, &["app"]);
    assert!(found(&once, &wish("app:1", before(first))).is_content_equal(), "the name is no difference");
    assert!(
        found(&once, &wish("app:1", before(CREATED))).is_content_equal(),
        "an earlier one is done with it"
    );
    let again = wish("app:1", before(second));
    assert_eq!((due(&once, &again).is_some(), flips(&once, &again)), (true, vec!["app:1".to_owned()]));
    let twice = restarted("app:1", second, &[]);
    assert!(found(&twice, &again).is_content_equal());
}

#[test]
fn a_name_that_no_restart_has_given_is_a_difference() {
    let pinned = format!("app:1@{DIGEST}");
    let by_hand = restarted(&pinned, "2026-11-23T10:00:00Z", &[]);
    assert_eq!(found(&by_hand, &wish("app:1", json!(null))).images.len(), 1);
    let mirrored = running("mirror/app:1", json!({}));
    let found = found(&mirrored, &wish("app:1", before("2026-11-23T10:00:00Z")));
    assert!(found.is_digest_unknown && found.flips.is_empty(), "admission has written it so");
}

#[test]
fn containers_that_are_named_are_restarted_and_unknown_ones_are_missing() {
    let sidecar = json!({"name": "b", "image": "b:1"});
    let containers = json!([{"name": "app", "image": "app:1"}, sidecar]);
    let mut wish = wish("app:1", json!({"beforeTime": "2026-11-23T10:00:00Z", "containers": ["app", "c"]}));
    wish.template = template("app:1", json!({"spec": {"containers": containers}}));
    let pod = running("app:1", json!({"spec": {"containers": containers}}));
    let found = found(&pod, &wish);
    assert_eq!(found.flips.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["app"]);
    assert_eq!(found.missing, [Arc::from("c")]);
}

#[test]
fn what_has_not_started_and_what_gets_another_image_restarts_by_itself() {
    let wish_of = |image| wish(image, before("2026-11-23T10:00:00Z"));
    let waiting = running("app:1", json!({"status": {"containerStatuses": []}}));
    assert!(found(&waiting, &wish_of("app:1")).is_content_equal());
    let old = restarted("app:1", "2026-11-23T09:30:00Z", &[]);
    let found = found(&old, &wish_of("app:2"));
    assert!(found.images.len() == 1 && found.flips.is_empty() && found.restart.is_some());
}

#[test]
fn what_does_not_start_under_its_other_name_gets_back_its_own_by_a_rollback_alone() {
    let pinned = format!("app:1@{DIGEST}");
    let waiting = |pod: &PodView| {
        let mut pod = pod.clone();
        let status = pod.containers[0].status.as_mut().unwrap();
        status.state = ContainerState::Waiting { reason: "ErrImagePull".into(), message: "".into() };
        pod
    };
    let started = restarted(&pinned, "2026-11-23T10:00:00Z", &["app"]);
    let forth = wish("app:1", before("2026-11-23T10:00:00Z"));
    let back = forth.back_to(&forth.template);
    assert_eq!(flips(&waiting(&started), &back), ["app:1"]);
    assert!(found(&waiting(&started), &forth).is_content_equal());
    let mut running = PodView::clone(&started);
    running.containers[0].status.as_mut().unwrap().state = ContainerState::Running { started: None };
    assert!(found(&running, &back).is_content_equal(), "it is restarted, whatever became of the run");
}

#[test]
fn a_key_that_the_environment_is_made_of_restarts_its_container_with_the_patch_that_sets_it() {
    let with = |value: &str| {
        let variable =
            json!({"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['config']"}}});
        let containers = json!([{"name": "app", "image": "app:1", "env": [variable]}]);
        template(
            "app:1",
            json!({"metadata": {"annotations": {"config": value, "other": value}}, "spec": {"containers": containers}}),
        )
    };
    let (old, new) = (with("v1"), with("v2"));
    let mut wish = wish("app:1", json!(null));
    wish.template = Arc::clone(&new);
    let change = Change::between(&old, &new);
    let differs = |annotations: Value| {
        let pod = running("app:1", json!({"metadata": {"annotations": annotations}}));
        let against =
            Against { wish: &new, change: &change, revision: None, is_strict_on_amounts: true, claims: &[] };
        let mut found = differences(&pod, &against);
        add(&pod, &wish, &mut found);
        (found.annotations.len(), found.flips.len())
    };
    assert_eq!(differs(json!({"config": "v1", "other": "v1"})), (2, 1));
    assert_eq!(differs(json!({"config": "v2", "other": "v1"})), (1, 0), "its environment is read already");
    assert_eq!(differs(json!({"config": "v2", "other": "v2"})), (0, 0));
}

#[test]
fn a_rollout_restart_of_kubectl_restarts_all_that_runs_and_a_rollback_of_it_nothing() {
    let asked = |value: &str| {
        let setup = json!([{"name": "setup", "image": "setup:1"}]);
        let annotations = json!({KUBECTL_RESTART: value});
        template(
            "app:1",
            json!({"metadata": {"annotations": annotations}, "spec": {"initContainers": setup}}),
        )
    };
    let pod = running("app:1", json!({}));
    let against = |old: &Template, wish: &Wish, pod: &PodView| {
        let change = Change::between(old, &wish.template);
        let wished = &wish.template;
        let against = Against {
            wish: wished,
            change: &change,
            revision: None,
            is_strict_on_amounts: true,
            claims: &[],
        };
        let mut found = differences(pod, &against);
        add(pod, wish, &mut found);
        found
    };
    let (first, second) = (asked("2026-11-23T10:00:00Z"), asked("2026-11-23T11:00:00Z"));
    let spec = InPlaceUpgradeSpec::new(TargetKind::Deployment, "web");
    let forth = Wish::of(&spec, &second);
    for old in [&template("app:1", json!({})), &first] {
        let found = against(old, &forth, &pod);
        assert_eq!(found.flips.keys().map(AsRef::as_ref).collect::<Vec<&str>>(), ["app"]);
        assert_eq!(&*found.annotations[KUBECTL_RESTART], "2026-11-23T11:00:00Z", "with the same patch");
    }
    let done =
        running("app:1", json!({"metadata": {"annotations": {KUBECTL_RESTART: "2026-11-23T11:00:00Z"}}}));
    assert!(against(&first, &forth, &done).flips.is_empty());
    let back = against(&second, &forth.back_to(&first), &done);
    assert!(back.flips.is_empty() && back.annotations.len() == 1, "it runs");
}
