//! What bad input comes to that no schema refuses.

use super::scenes::{message_of, status_of};
use super::world::World;
use crate::fixtures::at;
use crate::observed::Observed;
use crate::plan::plan;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::{
    BlockedPods, BlockedReason, HeldReason, RefusalReason, StalledReason,
};
use springtide_plumbing::key::ObjectKey;
use springtide_plumbing::plan::{Action, Plan};
use springtide_plumbing::workloads::names::RECORD_ANNOTATION;

fn world(spec: Value) -> World {
    World::new(3, false, spec)
}

/// Writes that are stored, but for that of the status.
fn stored(plan: &Plan) -> usize {
    let writes = plan.stages.iter().flatten().flat_map(|step| step.writes());
    writes.filter(|write| !matches!(write.action, Action::DryRun { .. })).count()
}

#[test]
fn a_spec_that_cannot_be_served_is_told_at_the_first_look_and_nothing_is_written() {
    let window = |window: Value| json!({"freezeWindows": [{"name": "w", "window": window}]});
    let image = |image: &str| {
        let containers = json!([{"name": "app", "image": image}]);
        json!({"source": {"type": "Inline", "inline": {"containers": containers}}})
    };
    let steps = json!([{"replicas": "50%"}, {"replicas": "10%"}, {"replicas": "100%"}]);
    let metric = json!({
        "name": "errors", "prometheus": {"address": "http://secret", "query": "up"}, "failureAbove": "1",
    });
    for (spec, field) in [
        (window(json!({"start": "08:00", "end": "09:00", "timeZone": "Mars/Base"})), "spec.freezeWindows[w]"),
        (json!({"strategy": {"steps": steps}}), "spec.strategy.steps[1].replicas"),
        (image("Not An Image"), "spec.source.inline.containers[app].image"),
        (json!({"health": {"metrics": [metric]}}), "spec.health.metrics[errors].prometheus.address"),
    ] {
        let mut observed = world(spec).observe();
        let refused = ("http://secret".to_owned(), "it is on no list".to_owned());
        observed.refused_addresses = [refused].into();
        let planned = plan(&observed, at(0));
        let invalid = StalledReason::Refused(RefusalReason::InvalidSpec);
        let message = message_of(&planned, &invalid).unwrap();
        assert!(message.starts_with(field), "{message}");
        assert!(planned.stages.is_empty());
    }
}

/// Something else that is seen.
type Change = fn(&mut Observed);

#[test]
fn a_target_that_is_missing_taken_unlocked_or_too_much_is_told_and_nothing_is_written() {
    let changes: [(Change, StalledReason); 3] = [
        (
            |observed| {
                observed.target = None;
                observed.target_missing_since = Some(at(-60));
            },
            StalledReason::Refused(RefusalReason::TargetNotFound),
        ),
        (
            |observed| observed.rival = Some(ObjectKey::new("ns", "older")),
            StalledReason::Refused(RefusalReason::TargetTaken),
        ),
        (
            |observed| observed.excess = Some("there are too many".to_owned()),
            StalledReason::Refused(RefusalReason::LimitExceeded),
        ),
    ];
    for (change, reason) in changes {
        let mut observed = world(json!({})).observe();
        change(&mut observed);
        let planned = plan(&observed, at(0));
        assert!(message_of(&planned, &reason).is_some() && planned.stages.is_empty(), "{reason:?}");
    }
    let mut unlocked = world(json!({}));
    unlocked.deployment["spec"]["paused"] = json!(false);
    let planned = plan(&unlocked.observe(), at(0));
    assert!(message_of(&planned, &StalledReason::NotLocked).is_some() && planned.stages.is_empty());
}

#[test]
fn pods_that_a_wish_does_not_fit_are_blocked_and_counted_by_reason() {
    let containers = json!([{"name": "nobody", "image": "app:2"}]);
    let unknown = json!({"source": {"type": "Inline", "inline": {"containers": containers}}});
    let mut beyond = world(json!({}));
    beyond.deployment["spec"]["template"]["spec"]["hostNetwork"] = json!(true);
    for (world, reason, words) in [
        (world(unknown), BlockedReason::ContainerMissing, "no container nobody"),
        (beyond, BlockedReason::TemplateFieldNotInPlace, "the wish changes more than images"),
    ] {
        let mut world = world;
        for _ in 0..5 {
            let planned = plan(&world.observe(), at(world.now));
            assert_eq!(stored(&planned), 0);
            let message = message_of(&planned, &StalledReason::PodsBlocked).unwrap();
            assert!(message.contains(words), "{message}");
            let status = status_of(&planned).unwrap();
            assert_eq!((status.plan.blocked, status.pods.blocked), (3, 3));
            assert_eq!(status.plan.reasons, [BlockedPods { reason, count: 3 }]);
            world.pass(usize::MAX);
            world.now += 1;
        }
    }
}

#[test]
fn a_foreign_or_damaged_record_is_ignored() {
    let foreign = json!({
        "run": "000000000000", "at": "2020-01-01T00:00:00Z", "g": 77, "base": {"app": ["x", "y"], "b": ["x", "y"]},
    });
    for record in ["{", "", "null", "[]", "{\"run\": 7}", foreign.to_string().as_str()] {
        let mut world = world(json!({}));
        for pod in world.pods.values_mut() {
            pod["metadata"]["annotations"] = json!({RECORD_ANNOTATION: record});
        }
        world.run_until("UpToDate", |_| {});
        assert_eq!(world.images(), ["app:2"; 3], "{record}");
    }
}

#[test]
fn an_approval_of_another_wish_is_inert() {
    let steps = json!([{"replicas": 1, "hold": {"type": "Approval"}}, {"replicas": "100%"}]);
    let approval = json!({"targetHash": "000000000000", "throughStep": 20});
    let mut world = world(json!({"strategy": {"steps": steps}, "approval": approval}));
    world.run_until("Held", |_| {});
    for _ in 0..10 {
        world.pass(usize::MAX);
        world.others_act();
        world.now += 60;
    }
    assert_eq!(world.images().iter().filter(|image| **image == "app:2").count(), 1);
    let planned = plan(&world.observe(), at(world.now));
    assert!(message_of(&planned, &HeldReason::ApprovalRequired).is_some());
}
