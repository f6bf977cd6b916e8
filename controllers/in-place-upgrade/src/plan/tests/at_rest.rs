//! Runs that cannot go on for now, or at all: nobody whom they have taken out of traffic is left there.

use super::kinds::{db, db_pod, in_run, observed, writes};
use super::scenes::draining;
use super::world::World;
use crate::fixtures::{at, overlay};
use crate::plan::plan;
use serde_json::{Value, json};
use springtide_plumbing::plan::{Action, Write};
use springtide_plumbing::workloads::names::UPGRADE_TRAFFIC;

/// Lets everybody act for a while.
fn wait(world: &mut World) {
    for _ in 0..10 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 1;
    }
}

#[test]
fn a_lock_that_is_taken_away_in_mid_drain_leaves_nobody_out_of_traffic() {
    let mut world = draining(json!({}));
    // Somebody has let it go, and has paused it again: pods are of two ReplicaSets.
    let mut other = world.replica_sets["rs"].clone();
    overlay(&mut other, json!({"metadata": {"name": "other", "uid": "other"}, "spec": {"replicas": 1}}));
    world.replica_sets.insert("other".to_owned(), other);
    wait(&mut world);
    assert_eq!((world.reason("Locked").as_str(), world.out_of_traffic()), ("UnlockedDuringRun", 0));
    assert_eq!(world.images(), ["app:1"; 5], "nothing else has become of them");
    world.replica_sets.remove("other");
    world.pods.retain(|_, pod| pod["metadata"]["ownerReferences"][0]["uid"] == "rs");
    world.run_until("UpToDate", |_| {});
    assert_eq!((world.images(), world.out_of_traffic()), (vec!["app:2"; 4], 0));
}

#[test]
fn a_rollback_whose_revision_is_gone_leaves_nobody_out_of_traffic() {
    let mut world = draining(json!({}));
    let breached = json!([{
        "type": "Healthy", "status": "False", "observedGeneration": 1, "reason": "MetricBreached", "message": "x",
        "lastTransitionTime": at(world.now).to_string(),
    }]);
    overlay(
        &mut world.upgrade,
        json!({"status": {"previous": {"revision": "gone"}, "conditions": breached}}),
    );
    wait(&mut world);
    assert_eq!((world.reason("Stalled").as_str(), world.out_of_traffic()), ("RollbackFailed", 0));
    assert_eq!(world.images(), ["app:1"; 4], "nobody knows what they were");
}

/// A pod that an earlier run has taken out of traffic by its gate.
fn out_of_traffic() -> Value {
    json!({
        "spec": {"readinessGates": [{"conditionType": UPGRADE_TRAFFIC.gate}]},
        "status": {"conditions": [
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": at(-60).to_string()},
            {"type": "Ready", "status": "False", "lastTransitionTime": at(-5).to_string()},
            {"type": UPGRADE_TRAFFIC.gate, "status": "False", "message": "run=000000000000",
             "lastTransitionTime": at(-5).to_string()},
        ]},
    })
}

#[test]
fn a_field_that_another_manager_holds_in_mid_run_leaves_nobody_out_of_traffic() {
    let pods = vec![
        db_pod(0, "db-a", "app:1", json!({})),
        db_pod(1, "db-a", "app:1", json!({})),
        db_pod(2, "db-a", "app:1", out_of_traffic()),
    ];
    // Another wish has taken the place of the first one, and is yet to be written.
    let inline = json!({"containers": [{"name": "app", "image": "app:3"}]});
    let mut over = in_run();
    overlay(&mut over, json!({"spec": {"source": {"type": "Inline", "inline": inline}}}));
    let mut seen = observed("StatefulSet", db(100_000, 0, 1), pods, over);
    let planned = plan(&seen, at(0));
    let is_applied = |write: &Write| matches!(write.action, Action::Apply { .. });
    assert!(matches!(writes(&planned)[..], [back, write] if !is_applied(back) && is_applied(write)));
    seen.field_conflict = Some("it is another's".to_owned());
    let planned = plan(&seen, at(0));
    let written: Vec<_> =
        writes(&planned).into_iter().map(|write| (&*write.key.name, write.action.subresource())).collect();
    assert_eq!(written, [("db-2", "status")]);
}

#[test]
fn who_is_out_of_traffic_comes_back_while_the_revision_of_another_wish_is_awaited() {
    let pods = vec![
        db_pod(0, "db-a", "app:1", json!({})),
        db_pod(1, "db-a", "app:1", json!({})),
        db_pod(2, "db-a", "app:1", out_of_traffic()),
    ];
    let planned = plan(&observed("StatefulSet", db(100_000, 0, 0), pods, in_run()), at(0));
    let written: Vec<_> =
        writes(&planned).into_iter().map(|write| (&*write.key.name, write.action.subresource())).collect();
    assert_eq!(written, [("db-2", "status")], "its controller may be away for long");
}

#[test]
fn who_was_taken_out_of_traffic_in_a_way_that_is_not_asked_for_any_more_comes_back() {
    let mut by_both = out_of_traffic();
    let note = format!("run=000000000000,since={}", at(-5));
    let metadata = json!({
        "labels": {UPGRADE_TRAFFIC.label: "false"}, "annotations": {UPGRADE_TRAFFIC.annotation: note},
    });
    overlay(&mut by_both, json!({"metadata": metadata}));
    let mut over = in_run();
    for (mode, first) in [("None", "status"), ("ServiceLabel", "status"), ("ReadinessGate", ""), ("Auto", "")]
    {
        let pods = vec![
            db_pod(0, "db-b", "app:2", json!({})),
            db_pod(1, "db-b", "app:2", json!({})),
            db_pod(2, "db-a", "app:1", by_both.clone()),
        ];
        over["spec"] = json!({"traffic": {"mode": mode}});
        let planned = plan(&observed("StatefulSet", db(100_000, 2, 1), pods, over.clone()), at(0));
        let written: Vec<_> = writes(&planned)
            .into_iter()
            .map(|write| (&*write.key.name, write.action.subresource()))
            .collect();
        assert_eq!(written, [("db-2", first)], "{mode}");
    }
}

#[test]
fn a_mode_that_is_changed_in_mid_drain_leaves_nobody_out_of_traffic() {
    let mut world = draining(json!({}));
    assert!(world.out_of_traffic() > 0);
    overlay(&mut world.upgrade, json!({"spec": {"traffic": {"mode": "None"}}}));
    world.pass(usize::MAX);
    world.run_until("UpToDate", |world| assert_eq!(world.out_of_traffic(), 0));
    assert_eq!(world.images(), ["app:2"; 4]);
}
