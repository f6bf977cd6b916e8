//! Whether a spec is served, whether its workload is locked, and whether images are on the nodes.

use super::Told;
use crate::fixtures::{at, autoscaler, daemon_set, overlay, pod, replica_set, revision};
use crate::observed::Observed;
use crate::plan::tests::kinds::{db, in_run, observed, old_pods};
use crate::plan::tests::scenes::{Scene, on_nodes, opened, pulling, until, without_images};
use crate::plan::tests::world::World;
use crate::target::Target;
use crate::time_share::TimeShare;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{AcceptedReason, LockedReason, PrePulledReason, RefusalReason};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::workloads::amounts::Amounts;
use springtide_plumbing::workloads::claims::Claim;

fn world(spec: Value) -> World {
    World::new(3, false, spec)
}

fn seen(observed: Observed) -> Scene {
    Scene { observed, now: 0 }
}

fn of_stateful_set(target: Target, over: Value) -> Scene {
    seen(observed("StatefulSet", target, old_pods(), over))
}

fn of_daemon_set(is_on_delete: bool) -> Scene {
    let revisions = vec![revision("log-a", 1, "app:1"), revision("log-b", 2, "app:2")];
    let target = Target::daemon_set(daemon_set(1, "app:2", is_on_delete), revisions);
    seen(observed("DaemonSet", target, vec![pod("log-1", json!({}))], json!({})))
}

/// A wish of cpu.
fn of_amounts() -> Scene {
    let containers = json!([{"name": "app", "resources": {"requests": {"cpu": "1"}}}]);
    Scene::of(world(json!({"source": {"type": "Inline", "inline": {"containers": containers}}})))
}

/// Why a spec is refused, and what the message says of it.
pub(super) fn refused(reason: RefusalReason) -> Told {
    match reason {
        RefusalReason::InvalidSpec => {
            let steps = json!([{"replicas": 2}, {"replicas": 1}, {"replicas": "100%"}]);
            let scene = Scene::of(world(json!({"strategy": {"steps": steps}})));
            (scene, &["spec.strategy.steps[1].replicas", "make it larger"])
        }
        RefusalReason::TargetNotFound => {
            let scene = Scene::of(world(json!({}))).with(|observed| {
                observed.target = None;
                observed.target_missing_since = Some(at(-60));
            });
            (scene, &["no Deployment web", "namespace ns", "create it", "spec.targetRef"])
        }
        RefusalReason::TargetTaken => {
            let rival = ObjectKey::new("ns", "older");
            let scene = Scene::of(world(json!({}))).with(|observed| observed.rival = Some(rival));
            (scene, &["InPlaceUpgrade older", "spec.targetRef", "delete one of them"])
        }
        RefusalReason::LimitExceeded => {
            let excess = "there are more than 500 InPlaceUpgrades in namespace ns".to_owned();
            let scene = Scene::of(world(json!({}))).with(|observed| observed.excess = Some(excess));
            (scene, &["more than 500", "namespace ns", "delete those"])
        }
        RefusalReason::ConflictsWithTimeShareGroup => {
            let scene = of_amounts().with(|observed| {
                let peak = Amounts::read(&json!({"requests": {"cpu": "4"}}));
                let claim = Claim::of_stated([("app".into(), peak)]);
                let group = "day-night".to_owned();
                observed.time_share = Some(TimeShare { group, claim, ..TimeShare::default() });
            });
            (scene, &["cpu or memory", "container app", "TimeShareGroup day-night", "leave its resources"])
        }
        RefusalReason::ConflictsWithVerticalPodAutoscaler => {
            let scene =
                of_amounts().with(|observed| observed.autoscaler = Some(autoscaler("vpa", json!({}))));
            (scene, &["cpu or memory", "container app", "VerticalPodAutoscaler vpa", "leave its resources"])
        }
    }
}

pub(super) fn accepted(reason: &AcceptedReason) -> Option<Told> {
    Some(match reason {
        AcceptedReason::NotObserved => {
            let scene = Scene::of(world(json!({}))).with(|observed| {
                observed.target = None;
                observed.target_missing_since = Some(at(-1));
            });
            (scene, &["Deployment/web", "spec.targetRef", "not there yet"])
        }
        AcceptedReason::Accepted => (Scene::of(world(json!({}))), &["served"]),
        AcceptedReason::TemplateNotObserved => {
            (of_stateful_set(db(100_000, 0, 0), in_run()), &["StatefulSet's controller", "revision"])
        }
        AcceptedReason::Refused(reason) => return Some(refused(*reason)),
    })
}

pub(super) fn locked(reason: &LockedReason) -> Option<Told> {
    Some(match reason {
        LockedReason::NotObserved => {
            let rival = ObjectKey::new("ns", "older");
            let scene = Scene::of(world(json!({}))).with(|observed| observed.rival = Some(rival));
            (scene, &["nothing has been seen"])
        }
        LockedReason::Paused => (Scene::of(world(json!({}))), &["Deployment is paused"]),
        LockedReason::Partition => (of_stateful_set(db(100_000, 0, 1), json!({})), &["partition is 100000"]),
        LockedReason::OnDelete => (of_daemon_set(true), &["OnDelete"]),
        LockedReason::Unneeded => {
            let target = Target::ReplicaSet(replica_set("rs", 0, 1, "app:2"));
            let pods = vec![pod("web-1", json!({}))];
            (seen(observed("ReplicaSet", target, pods, json!({}))), &["never compares"])
        }
        LockedReason::NotPaused => {
            let mut world = world(json!({}));
            world.deployment["spec"]["paused"] = json!(false);
            (Scene::of(world), &["not paused", "set spec.paused to true"])
        }
        LockedReason::PartitionTooLow => (
            of_stateful_set(db(1, 0, 1), json!({})),
            &["partition is 1", "3 replicas", "spec.updateStrategy.rollingUpdate.partition"],
        ),
        LockedReason::StrategyNotLockable => {
            (of_daemon_set(false), &["spec.updateStrategy.type", "DaemonSet log", "OnDelete"])
        }
        LockedReason::MultipleActiveReplicaSets => {
            let mut world = world(json!({}));
            let mut other = world.replica_sets["rs"].clone();
            overlay(&mut other, json!({"metadata": {"name": "other", "uid": "other"}}));
            world.replica_sets.insert("other".to_owned(), other);
            (Scene::of(world), &["2 ReplicaSets", "let its rollout end"])
        }
        LockedReason::UnlockedDuringRun => {
            let mut world = opened(json!({}));
            world.deployment["spec"]["paused"] = json!(false);
            (Scene::of(world), &["not paused", "set spec.paused to true", "no further pod is changed"])
        }
    })
}

pub(super) fn pre_pulled(reason: &PrePulledReason) -> Option<Told> {
    let failing = |reason: &str, message: &str| {
        let waiting = json!({"waiting": {"reason": reason, "message": message}});
        seen(pulling(&waiting, true)).later(5)
    };
    let pulls = |is_scheduled: bool| {
        seen(pulling(&json!({"waiting": {"reason": "ContainerCreating", "message": ""}}), is_scheduled))
            .later(600)
    };
    Some(match reason {
        PrePulledReason::NotObserved => {
            let rival = ObjectKey::new("ns", "older");
            let scene = Scene::of(world(json!({}))).with(|observed| observed.rival = Some(rival));
            (scene, &["nothing has been seen"])
        }
        PrePulledReason::AllNodes => (seen(on_nodes(&["app:1", "app:2"])), &["nodes have the images"]),
        PrePulledReason::NotNeeded => (until(world(json!({})), reason), &["spec.prePull.mode is None"]),
        PrePulledReason::InProgress => (seen(without_images()), &["0 of 3 nodes"]),
        PrePulledReason::ImageNotFound => {
            (failing("ErrImagePull", "app:2: not found"), &["node node-web-00", "app:2: not found"])
        }
        PrePulledReason::PullDenied => {
            (failing("ErrImagePull", "pull access denied"), &["node node-web-00", "access denied"])
        }
        PrePulledReason::TimedOut => (pulls(true), &["node node-web-00", "spec.prePull.timeoutSeconds"]),
        PrePulledReason::PullerNotScheduled => {
            (pulls(false), &["node node-web-00", "does not take the pod that pulls"])
        }
    })
}
