//! How far a run is, what holds it, and how it goes.

use super::Told;
use crate::fixtures::at;
use crate::health::{Metric, MetricState};
use crate::observed::BudgetRoom;
use crate::plan::tests::kinds::{db, in_run, observed, old_pods};
use crate::plan::tests::scenes::{Scene, answer, draining, opened, refusal, until, without_images};
use crate::plan::tests::world::World;
use crate::time_share::TimeShare;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{
    DriftedReason, FinalizedReason, HealthyReason, HeldReason, ReadyReason, ReconcilingReason,
};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::projection::Projection;

fn world(spec: Value) -> World {
    World::new(3, false, spec)
}

/// An image that no registry has.
fn bad(spec: Value) -> World {
    let mut world = World::new(4, false, spec);
    world.bad_images.push("app:2".to_owned());
    world
}

/// An object whose target is another's.
fn taken() -> Scene {
    Scene::of(world(json!({}))).with(|observed| observed.rival = Some(ObjectKey::new("ns", "older")))
}

/// A run that is done, somebody having edited a pod since.
fn edited() -> World {
    let mut world = world(json!({}));
    world.run_until("UpToDate", |_| {});
    world.pods.get_mut("web-01").unwrap()["spec"]["containers"][0]["image"] = json!("app:9");
    world.others_act();
    world
}

fn deleted() -> Scene {
    let mut world = draining(json!({}));
    world.upgrade["metadata"]["deletionTimestamp"] = json!(at(0).to_string());
    Scene::of(world)
}

fn approved() -> World {
    let steps = json!([{"replicas": 1, "hold": {"type": "Approval"}}, {"replicas": "100%"}]);
    world(json!({"strategy": {"steps": steps}}))
}

fn on_hold() -> Value {
    json!({"rollback": {"onFailure": "Hold"}})
}

pub(super) fn ready(reason: &ReadyReason) -> Option<Told> {
    Some(match reason {
        // What the schema's default says; every plan says more.
        ReadyReason::Pending => return None,
        ReadyReason::UpToDate => (until(world(json!({})), reason), &["3 of 3 pods"]),
        ReadyReason::Planning => (Scene::of(world(json!({}))), &["API server", "dry runs"]),
        ReadyReason::PrePulling => {
            (Scene { observed: without_images(), now: 0 }, &["0 of 3 nodes have the images"])
        }
        ReadyReason::Upgrading => (Scene::of(opened(json!({}))), &["0 of 3 pods"]),
        ReadyReason::Held => (until(approved(), reason), &["step 1", "spec.approval"]),
        ReadyReason::Paused => (Scene::of(world(json!({"mode": "Paused"}))), &["spec.mode", "Apply"]),
        ReadyReason::PlanOnly => {
            (until(world(json!({"mode": "Plan"})), reason), &["spec.mode", "3 pods", "status.plan", "Apply"])
        }
        ReadyReason::Finalizing => (until(world(json!({})), reason), &["ReplicaSet rs"]),
        ReadyReason::RollingBack => (until(bad(json!({})), reason), &["1 pod failed"]),
        ReadyReason::RolledBack => {
            (until(bad(json!({})), reason), &["rolled back", "1 pod failed", "spec.attempt"])
        }
        ReadyReason::Blocked => (taken(), &["older", "spec.targetRef", "delete"]),
        ReadyReason::Failed => (until(bad(on_hold()), reason), &["1 pod failed", "spec.attempt"]),
        ReadyReason::Deleting => (deleted(), &["given back", "traffic of"]),
    })
}

pub(super) fn reconciling(reason: &ReconcilingReason) -> Option<Told> {
    let summary = match reason {
        ReconcilingReason::Pending => ReadyReason::Pending,
        ReconcilingReason::Planning => ReadyReason::Planning,
        ReconcilingReason::PrePulling => ReadyReason::PrePulling,
        ReconcilingReason::Upgrading => ReadyReason::Upgrading,
        ReconcilingReason::Finalizing => ReadyReason::Finalizing,
        ReconcilingReason::RollingBack => ReadyReason::RollingBack,
        ReconcilingReason::Deleting => ReadyReason::Deleting,
    };
    ready(&summary)
}

pub(super) fn held(reason: &HeldReason) -> Option<Told> {
    let time_share = |share: TimeShare| {
        Scene::of(opened(json!({}))).with(|observed| {
            observed.time_share = Some(TimeShare { group: "day-night".to_owned(), ..share });
        })
    };
    Some(match reason {
        HeldReason::NotObserved => (taken(), &["nothing has been seen"]),
        HeldReason::StepHold => {
            let hold = json!({"type": "Duration", "durationSeconds": 900});
            let steps = json!([{"replicas": 1, "hold": hold}, {"replicas": "100%"}]);
            (until(world(json!({"strategy": {"steps": steps}})), reason), &["step 1 is done", "begins at"])
        }
        HeldReason::ApprovalRequired => {
            (until(approved(), reason), &["step 1 is done", "spec.approval", "targetHash", "throughStep 1"])
        }
        HeldReason::Paused => (Scene::of(world(json!({"mode": "Paused"}))), &["spec.mode", "Apply"]),
        HeldReason::FreezeWindow => {
            let clock = |seconds: i64| at(seconds).to_string()[11..16].to_owned();
            let window = json!({"start": clock(-3600), "end": clock(3600), "timeZone": "UTC"});
            let spec = json!({"freezeWindows": [{"name": "sale", "window": window}]});
            (until(world(spec), reason), &["freeze window sale", "spec.freezeWindows", "until"])
        }
        HeldReason::TimeShareSwitch => {
            let share = TimeShare { is_switching: true, ..TimeShare::default() };
            (time_share(share), &["TimeShareGroup day-night", "switching"])
        }
        HeldReason::TimeSharePeak => {
            let share = TimeShare { peak_until: Some(at(9000)), ..TimeShare::default() };
            (time_share(share), &["TimeShareGroup day-night", "until", "spec.policy.timeShare"])
        }
        HeldReason::DisruptionBudget => {
            let mut seen = observed("StatefulSet", db(100_000, 0, 1), old_pods(), in_run());
            let pods = seen.pods.iter().map(|pod| pod.meta().uid.clone()).collect();
            seen.budgets = vec![BudgetRoom { name: "db-pdb".to_owned(), room: 0, pods }];
            let words = &["PodDisruptionBudget db-pdb", "spec.strategy.disruptionBudgets"];
            (Scene { observed: seen, now: 0 }, words)
        }
        HeldReason::Unavailable => {
            let mut world = opened(json!({"strategy": {"maxUnavailable": 1}}));
            world.pods.remove("web-02");
            (Scene::of(world), &["1 pods are unavailable", "spec.strategy.maxUnavailable"])
        }
        HeldReason::NoMetricData => {
            let metric = Metric { name: "errors".to_owned(), state: MetricState::NoData };
            let scene = Scene::of(opened(json!({}))).with(|observed| observed.metrics = vec![metric]);
            (scene, &["metric errors has no value", "spec.health.metrics", "onNoData"])
        }
        HeldReason::Free => (Scene::of(opened(json!({}))), &["nothing keeps"]),
    })
}

pub(super) fn healthy(reason: &HealthyReason) -> Option<Told> {
    Some(match reason {
        HealthyReason::NotObserved => (taken(), &["nothing has been seen"]),
        HealthyReason::GatesPassing => (Scene::of(opened(json!({}))), &["spec.health"]),
        HealthyReason::TooManyFailures => (
            until(bad(json!({})), reason),
            &["1 pod failed, of 0", "spec.health.failureThreshold", "first web-0", "ImagePullBackOff"],
        ),
        HealthyReason::TooManyRestarts => {
            let mut world = patched();
            let name = changed(&world);
            let pod = world.pods.get_mut(&name).unwrap();
            pod["status"]["containerStatuses"][0]["restartCount"] = json!(9);
            (Scene::of(world), &["1 pod failed", "spec.health.maxRestarts", "TooManyRestarts"])
        }
        HealthyReason::ReadinessLost => {
            let mut world = draining(json!({}));
            for _ in 0..60 {
                world.pass(usize::MAX);
                world.others_act();
                world.now += 1;
                if world.out_of_traffic() == 0 && world.images().contains(&"app:2") {
                    break;
                }
            }
            let name = changed(&world);
            let conditions = &mut world.pods.get_mut(&name).unwrap()["status"]["conditions"];
            for condition in conditions.as_array_mut().unwrap() {
                if condition["type"] == "ContainersReady" || condition["type"] == "Ready" {
                    condition["status"] = json!("False");
                }
            }
            (Scene::of(world).later(301), &["1 pod failed", "spec.health.failureThreshold", "ReadinessLost"])
        }
        HealthyReason::MetricBreached => {
            let metric = Metric { name: "errors".to_owned(), state: MetricState::Breached };
            let scene = Scene::of(opened(json!({}))).with(|observed| observed.metrics = vec![metric]);
            (scene, &["metric errors", "spec.health.metrics"])
        }
        HealthyReason::AdmissionDenied => {
            let scene = Scene::of(world(json!({}))).with(|observed| {
                assert_eq!(answer(observed, 0, |_| refusal("policy images: app:2 is not signed")), 1);
            });
            (scene, &["API server", "web-00", "app:2 is not signed", "change the wish", "asked again"])
        }
    })
}

/// A run that has changed a pod.
fn patched() -> World {
    let mut world = world(json!({}));
    for _ in 0..30 {
        if world.images().contains(&"app:2") {
            return world;
        }
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
    panic!("not patched: {:#}", world.upgrade["status"]);
}

/// Name of the changed pod.
fn changed(world: &World) -> String {
    let is_new = |pod: &Value| pod["spec"]["containers"][0]["image"] == "app:2";
    world.pods.iter().find(|(_, pod)| is_new(pod)).unwrap().0.clone()
}

pub(super) fn finalized(reason: &FinalizedReason) -> Option<Told> {
    Some(match reason {
        FinalizedReason::NotObserved => (taken(), &["nothing has been seen"]),
        FinalizedReason::NativeControllerAgrees => (until(world(json!({})), reason), &["counts every pod"]),
        FinalizedReason::Unneeded => {
            let inline = json!({"persist": "PodsOnly", "containers": [{"name": "app", "image": "app:3"}]});
            let spec = json!({"source": {"type": "Inline", "inline": inline}});
            (until(world(spec), reason), &["no say"])
        }
        FinalizedReason::WaitingForPods => (Scene::of(opened(json!({}))), &["still to be changed"]),
        FinalizedReason::WaitingForHandshake => (until(world(json!({})), reason), &["ReplicaSet rs"]),
        FinalizedReason::OlderReplicaSetMatches => {
            let mut world = world(json!({}));
            world.run_until("UpToDate", |_| {});
            world.pass(usize::MAX);
            world.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:1");
            (until(world, reason), &["an older ReplicaSet", "changes places with rs"])
        }
    })
}

pub(super) fn drifted(reason: &DriftedReason) -> Option<Told> {
    Some(match reason {
        DriftedReason::NotObserved => (taken(), &["nothing has been seen"]),
        DriftedReason::PodsDiffer => {
            (until(edited(), reason), &["1 in all", "first web-01", "images", "delete it", "spec.attempt"])
        }
        DriftedReason::NoDrift => (until(world(json!({})), reason), &["no pod differs"]),
    })
}
