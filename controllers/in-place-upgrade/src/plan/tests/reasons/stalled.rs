//! What needs a person.

use super::{Told, target};
use crate::fixtures::at;
use crate::plan::tests::scenes::{Scene, answer, draining, pulling, refusal, until, without_images};
use crate::plan::tests::world::World;
use crate::projections::upgrade::UpgradeView;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{FinalizedReason, ReadyReason, StalledReason};
use springtide_crds::reason::Reason;
use springtide_plumbing::dry_run::Verdict;
use springtide_plumbing::error::{ErrorClass, FieldConflict};
use springtide_plumbing::failing::Failing;
use std::sync::Arc;

fn world(spec: Value) -> World {
    World::new(3, false, spec)
}

fn bad(on_failure: &str) -> World {
    let mut world = World::new(4, false, json!({"rollback": {"onFailure": on_failure}}));
    world.bad_images.push("app:2".to_owned());
    world
}

/// An inline wish that is to be written into the template too, with this answer about that.
fn of_template(verdict: impl Fn() -> Verdict<()>) -> Scene {
    let inline = json!({"containers": [{"name": "app", "image": "app:3"}]});
    Scene::of(world(json!({"source": {"type": "Inline", "inline": inline}}))).with(|observed| {
        let asked = answer(observed, 0, |question| {
            if question.starts_with("template/") { verdict() } else { Verdict::Accepted(()) }
        });
        assert_eq!(asked, 2, "pods and template");
    })
}

fn failing(class: ErrorClass, message: &str) -> Scene {
    let failing = Failing { class, passes: 1, attempt: None, message: message.to_owned() };
    Scene::of(world(json!({}))).with(|observed| observed.failing = Some(failing))
}

/// Pods that a Service still lists after their drain's time.
fn listed() -> Scene {
    Scene::of(draining(json!({}))).later(120).with(|observed| {
        for evidence in observed.evidence.values_mut() {
            evidence.proved_since = None;
            evidence.exposure.listed_by.insert("shop".into());
        }
    })
}

pub(super) fn stalled(reason: &StalledReason) -> Option<Told> {
    Some(match reason {
        StalledReason::NotLocked => {
            let mut world = world(json!({}));
            world.deployment["spec"]["paused"] = json!(false);
            (Scene::of(world), &["not paused", "set spec.paused to true"])
        }
        StalledReason::FieldOwnershipConflict => {
            let field = ".spec.template.spec.containers[name=\"app\"].image".to_owned();
            let held = FieldConflict { manager: "kubectl-edit".to_owned(), field };
            let scene = of_template(move || Verdict::FieldConflict(vec![held.clone()]));
            (
                scene,
                &["containers[name=\"app\"].image", "kubectl-edit", "spec.policy.fieldOwnership", "Force"],
            )
        }
        StalledReason::TemplateRefused => {
            let scene = of_template(|| refusal("image app:3 is not allowed"));
            (scene, &["image app:3 is not allowed", "template", "spec.source.inline", "asked again"])
        }
        StalledReason::PodsBlocked => {
            let mut world = world(json!({}));
            world.deployment["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
            let words = &[
                "3 of 3 pods",
                "first web-00",
                "more than images",
                "take that out",
                "spec.policy.ineligible",
            ];
            (Scene::of(world), words)
        }
        StalledReason::PrePullFailed => {
            let waiting = json!({"waiting": {"reason": "ErrImagePull", "message": "app:2: not found"}});
            let scene = Scene { observed: pulling(&waiting, true), now: 5 };
            (scene, &["no container was stopped", "node-web-00", "app:2: not found", "correct the image"])
        }
        StalledReason::DrainFailed => (
            listed(),
            &["4 pods", "spec.traffic.drain.timeoutSeconds", "first web-00", "shop", "EndpointSlices"],
        ),
        StalledReason::HealthFailed => {
            (until(bad("Hold"), reason), &["1 pod failed", "change the wish", "spec.attempt"])
        }
        StalledReason::RolledBack => {
            (until(bad("Auto"), reason), &["rolled back", "1 pod failed", "change the wish", "spec.attempt"])
        }
        StalledReason::RollbackFailed => {
            let scene = {
                let mut world = bad("Auto");
                world.run_until(ReadyReason::RollingBack.as_str(), |_| {});
                Scene::of(world)
            };
            let scene = scene.with(|observed| {
                let mut upgrade = UpgradeView::clone(&observed.upgrade);
                upgrade.status.previous.as_mut().unwrap().revision = "web-gone".to_owned();
                observed.upgrade = Arc::new(upgrade);
            });
            (scene, &["revision web-gone", "change the wish", "spec.attempt"])
        }
        StalledReason::FinalizeFailed => {
            let scene = until(world(json!({})), &FinalizedReason::WaitingForHandshake);
            let now = scene.now;
            let scene = scene.with(|observed| observed.still_since = Some(at(now))).later(600);
            (scene, &["10 minutes", "ReplicaSet rs", "kube-controller-manager"])
        }
        StalledReason::NoProgress => {
            let scene = Scene { observed: without_images(), now: 700 };
            let scene = scene.with(|observed| observed.still_since = Some(at(100)));
            (scene, &["10 minutes", "of 3 nodes", "see the events"])
        }
        StalledReason::Forbidden => {
            (failing(ErrorClass::Forbidden, "may not patch pods: apply the role"), &["may not patch pods"])
        }
        StalledReason::InternalError => (failing(ErrorClass::Bug, "a defect: see the log"), &["a defect"]),
        StalledReason::Refused(reason) => return Some(target::refused(*reason)),
    })
}
