//! What is planned for workloads other than Deployments, one look at a time.

use crate::fixtures::{at, autoscaler, daemon_set, overlay, pod, replica_set, revision, stateful_set};
use crate::observed::{BudgetRoom, Observed};
use crate::plan::plan;
use crate::previous::content_of_pods;
use crate::target::Target;
use crate::wish::Wish;
use serde_json::{Value, json};
use springtide_crds::in_place_upgrade::InPlaceUpgradeStatus;
use springtide_plumbing::dry_run::{Answer, Verdict};
use springtide_plumbing::plan::{Action, Patch, Plan, Write};
use springtide_plumbing::projection::Projection;
use springtide_plumbing::workloads::names::{CONTROLLER_REVISION_HASH, RECORD_ANNOTATION};
use springtide_plumbing::workloads::pod::PodView;
use std::sync::Arc;

/// An object of a target in the middle of a run: what tests lay over it is all that matters to them.
pub(super) fn observed(kind: &str, target: Target, pods: Vec<Arc<PodView>>, over: Value) -> Observed {
    let name = target.key().name.clone();
    let spec = json!({
        "targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": name},
        "prePull": {"mode": "None"},
        "strategy": {"maxUnavailable": 2, "maxInFlightPerNode": 10},
    });
    let mut whole = json!({
        "metadata": {
            "name": "ipu", "namespace": "ns", "uid": "ipu", "generation": 1, "resourceVersion": "3",
            "finalizers": ["springtide.dev/in-place-upgrade"],
        },
        "spec": spec,
    });
    overlay(&mut whole, over);
    let parsed: crate::projections::upgrade::UpgradeView = serde_json::from_value(whole.clone()).unwrap();
    let wish = Wish::of(&parsed.spec, target.template());
    if whole["status"].get("previous").is_some() && whole["status"].get("targetHash").is_none() {
        whole["status"]["targetHash"] = json!(wish.hash.as_str());
    }
    let mut observed = Observed::of(Arc::new(serde_json::from_value(whole).unwrap()));
    let digests: Vec<_> =
        pods.iter().filter_map(|pod| target.template_of(pod)).map(|old| old.whole).collect();
    let of_bare = match &target {
        Target::ReplicaSet(set) => content_of_pods(set, &pods).whole,
        Target::Deployment { .. } | Target::StatefulSet { .. } | Target::DaemonSet { .. } => {
            target.template().whole
        }
    };
    for digest in digests.into_iter().chain([of_bare]) {
        for what in ["patch", "resize"] {
            let question = format!("{what}/{}/{digest}", wish.hash);
            observed.answers.insert(question.into(), Answer { at: at(0), verdict: Verdict::Accepted(()) });
        }
    }
    observed.target = Some(target);
    observed.pods = pods;
    observed
}

pub(super) fn db_pod(ordinal: u32, of: &str, image: &str, over: Value) -> Arc<PodView> {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "db", "controller": true}]);
    let mut whole = json!({
        "metadata": {"labels": {CONTROLLER_REVISION_HASH: of}, "ownerReferences": owner},
        "spec": {"containers": [{"name": "app", "image": image}]},
    });
    overlay(&mut whole, over);
    pod(&format!("db-{ordinal}"), whole)
}

pub(super) fn db(partition: u32, updated: u32, observed: i64) -> Target {
    let spec = json!({"updateStrategy": {"rollingUpdate": {"partition": partition}}});
    let status = json!({
        "currentRevision": "db-a", "updateRevision": "db-b", "updatedReplicas": updated, "observedGeneration": observed,
    });
    let revisions = vec![revision("db-a", 1, "app:1"), revision("db-b", 2, "app:2")];
    Target::stateful_set(stateful_set(3, "app:2", spec, status), revisions)
}

pub(super) fn in_run() -> Value {
    json!({"status": {"previous": {"revision": "db-a", "partition": 100_000}}})
}

pub(super) fn writes(plan: &Plan) -> Vec<&Write> {
    plan.stages.iter().flatten().flat_map(|step| step.writes()).collect()
}

fn status(plan: &Plan) -> InPlaceUpgradeStatus {
    let Action::Status { status, .. } = &plan.status.as_ref().unwrap().action else { panic!() };
    serde_json::from_value(status.clone()).unwrap()
}

fn reason(plan: &Plan, type_: &str) -> String {
    let status = status(plan);
    let found = status.conditions.iter().find(|condition| condition.type_ == type_);
    found.map(|condition| condition.reason.clone()).unwrap_or_default()
}

/// The labels that a patch sets.
fn labels(write: &Write) -> Value {
    let Action::Patch { patch: Patch::Json { operations }, .. } = &write.action else { panic!("{write:?}") };
    let set = operations.as_array().unwrap().iter().filter(|operation| operation["op"] == "add");
    let set = set.filter_map(|operation| {
        let key = operation["path"].as_str()?.strip_prefix("/metadata/labels/")?;
        Some((key.to_owned(), operation["value"].clone()))
    });
    Value::Object(set.collect())
}

pub(super) fn old_pods() -> Vec<Arc<PodView>> {
    (0..3).map(|ordinal| db_pod(ordinal, "db-a", "app:1", json!({}))).collect()
}

#[test]
fn pods_of_a_stateful_set_start_from_the_top_and_get_the_label_of_the_new_revision() {
    let planned = plan(&observed("StatefulSet", db(100_000, 0, 1), old_pods(), in_run()), at(0));
    let writes = writes(&planned);
    let names: Vec<_> = writes.iter().map(|write| &*write.key.name).collect();
    assert_eq!(names, ["db-1", "db-2"], "two of the three may be unavailable");
    assert_eq!(labels(writes[0]), json!({CONTROLLER_REVISION_HASH: "db-b"}));
}

#[test]
fn nothing_is_labelled_before_the_revision_of_the_template_is_there() {
    let planned = plan(&observed("StatefulSet", db(100_000, 0, 0), old_pods(), in_run()), at(0));
    assert!(writes(&planned).is_empty());
    assert_eq!(reason(&planned, "Accepted"), "TemplateNotObserved");
}

#[test]
fn a_partition_below_the_replicas_is_no_lock() {
    let planned = plan(&observed("StatefulSet", db(1, 0, 1), old_pods(), json!({})), at(0));
    assert!(writes(&planned).is_empty());
    assert_eq!(
        (reason(&planned, "Locked"), reason(&planned, "Stalled")),
        ("PartitionTooLow".into(), "NotLocked".into())
    );
}

#[test]
fn the_partition_follows_at_the_end_of_a_step_and_is_raised_before_pods_go_back() {
    let pods = || {
        vec![
            db_pod(0, "db-a", "app:1", json!({})),
            db_pod(1, "db-a", "app:1", json!({})),
            db_pod(2, "db-b", "app:2", json!({})),
        ]
    };
    let steps = json!({"spec": {"strategy": {"steps": [{"replicas": 1, "hold": {"type": "Approval"}}, {"replicas": "100%"}]}}});
    let mut over = in_run();
    overlay(&mut over, steps);
    let lowered = plan(&observed("StatefulSet", db(100_000, 1, 1), pods(), over.clone()), at(0));
    let applied = |plan: &Plan| {
        let Action::Apply { fields, .. } = &writes(plan)[0].action else { panic!() };
        fields["spec"]["updateStrategy"]["rollingUpdate"]["partition"].clone()
    };
    assert_eq!((writes(&lowered).len(), applied(&lowered)), (1, json!(2)));
    assert_eq!(reason(&lowered, "Held"), "ApprovalRequired");
    let uncounted = plan(&observed("StatefulSet", db(100_000, 0, 1), pods(), over.clone()), at(0));
    assert!(writes(&uncounted).is_empty());
    let unhealthy = json!([{
        "type": "Healthy", "status": "False", "observedGeneration": 1, "reason": "TooManyFailures", "message": "x",
        "lastTransitionTime": at(0).to_string(),
    }]);
    overlay(&mut over, json!({"status": {"conditions": unhealthy}}));
    let raised = plan(&observed("StatefulSet", db(2, 1, 1), pods(), over.clone()), at(0));
    assert_eq!((writes(&raised).len(), applied(&raised)), (1, json!(100_000)));
    let back = plan(&observed("StatefulSet", db(100_000, 1, 1), pods(), over), at(0));
    assert_eq!(reason(&back, "Ready"), "RollingBack");
    let pods: Vec<_> = writes(&back).iter().map(|write| (&*write.key.name, labels(write))).collect();
    assert_eq!(pods, [("db-2", json!({CONTROLLER_REVISION_HASH: "db-a"}))]);
}

#[test]
fn pods_of_a_daemon_set_get_the_hash_of_the_newest_revision() {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "log", "uid": "log", "controller": true}]);
    let log_pod = |node: &str| {
        let metadata = json!({"labels": {CONTROLLER_REVISION_HASH: "log-a"}, "ownerReferences": owner});
        pod(&format!("log-{node}"), json!({"metadata": metadata, "spec": {"nodeName": node}}))
    };
    let revisions = vec![revision("log-a", 1, "app:1"), revision("log-b", 2, "app:2")];
    let target = Target::daemon_set(daemon_set(2, "app:2", true), revisions);
    let over = json!({"status": {"previous": {"revision": "log-a"}}});
    let planned = plan(&observed("DaemonSet", target, vec![log_pod("n1"), log_pod("n2")], over), at(0));
    let writes = writes(&planned);
    assert_eq!(writes.len(), 2);
    assert!(writes.iter().all(|write| labels(write) == json!({CONTROLLER_REVISION_HASH: "log-b"})));
}

#[test]
fn a_bare_replica_set_is_changed_by_what_its_pods_are() {
    let target = Target::ReplicaSet(replica_set("rs", 0, 2, "app:2"));
    let pods = || vec![pod("web-1", json!({})), pod("web-2", json!({}))];
    let opened = plan(&observed("ReplicaSet", target.clone(), pods(), json!({})), at(0));
    let previous = status(&opened).previous.unwrap();
    assert_eq!(previous.content, r#"{"spec":{"containers":[{"image":"app:1","name":"app"}]}}"#);
    let over = json!({"status": {"previous": {"content": previous.content}}});
    let planned = plan(&observed("ReplicaSet", target, pods(), over), at(0));
    assert_eq!(writes(&planned).len(), 2);
}

#[test]
fn a_budget_that_allows_no_pod_less_holds_and_is_named() {
    let mut observed = observed("StatefulSet", db(100_000, 0, 1), old_pods(), in_run());
    let pods = observed.pods.iter().map(|pod| pod.meta().uid.clone()).collect();
    observed.budgets = vec![BudgetRoom { name: "db-pdb".to_owned(), room: 0, pods }];
    let planned = plan(&observed, at(0));
    assert!(writes(&planned).is_empty());
    let status = status(&planned);
    let held = status.conditions.iter().find(|condition| condition.type_ == "Held").unwrap();
    assert!(held.reason == "DisruptionBudget" && held.message.contains("db-pdb"), "{held:?}");
}

#[test]
fn who_else_resizes_these_pods_is_not_fought() {
    let resources = json!({"spec": {"source": {"type": "Inline", "inline": {
        "containers": [{"name": "app", "resources": {"requests": {"cpu": "1"}}}],
    }}}});
    let mut conflicting = observed("StatefulSet", db(100_000, 0, 1), old_pods(), resources);
    conflicting.autoscaler = Some(autoscaler("vpa", json!({})));
    let planned = plan(&conflicting, at(0));
    assert!(writes(&planned).is_empty());
    assert_eq!(reason(&planned, "Accepted"), "ConflictsWithVerticalPodAutoscaler");
    let mut images = observed("StatefulSet", db(100_000, 0, 1), old_pods(), in_run());
    images.autoscaler = Some(autoscaler("vpa", json!({})));
    assert_eq!(writes(&plan(&images, at(0))).len(), 2, "images are nobody's but ours");
}

#[test]
fn what_is_not_served_says_why_and_writes_nothing() {
    let target = || db(100_000, 0, 1);
    let mut taken = observed("StatefulSet", target(), old_pods(), json!({}));
    taken.rival = Some(springtide_plumbing::key::ObjectKey::new("ns", "older"));
    let mut missing = observed("StatefulSet", target(), old_pods(), json!({}));
    missing.target = None;
    let mut awaited = missing.clone();
    missing.target_missing_since = Some(at(-60));
    awaited.target_missing_since = Some(at(-59));
    let mut beyond = observed("StatefulSet", target(), old_pods(), json!({}));
    beyond.excess = Some("too many".to_owned());
    let window = json!({"name": "w", "window": {"start": "08:00", "end": "09:00", "timeZone": "No/Where"}});
    let invalid = observed("StatefulSet", target(), old_pods(), json!({"spec": {"freezeWindows": [window]}}));
    for (observed, expected) in [
        (taken, "TargetTaken"),
        (missing, "TargetNotFound"),
        (beyond, "LimitExceeded"),
        (invalid, "InvalidSpec"),
    ] {
        let planned = plan(&observed, at(0));
        assert!(writes(&planned).is_empty());
        assert_eq!(
            (reason(&planned, "Accepted"), reason(&planned, "Stalled")),
            (expected.into(), expected.into())
        );
    }
    let waiting = plan(&awaited, at(0));
    assert_eq!((reason(&waiting, "Stalled"), waiting.wake), (String::new(), Some(at(1))));
}

#[test]
fn pods_that_cannot_be_changed_block_the_run_or_are_left_out() {
    let mut pods = old_pods();
    pods[0] = db_pod(
        0,
        "db-a",
        "app:1",
        json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}),
    );
    let blocked = plan(&observed("StatefulSet", db(100_000, 0, 1), pods.clone(), in_run()), at(0));
    assert!(writes(&blocked).is_empty());
    assert_eq!(reason(&blocked, "Stalled"), "PodsBlocked");
    assert_eq!(status(&blocked).plan.reasons.len(), 1);
    let mut over = in_run();
    overlay(&mut over, json!({"spec": {"policy": {"ineligible": "Ignore"}}}));
    assert_eq!(writes(&plan(&observed("StatefulSet", db(100_000, 0, 1), pods, over), at(0))).len(), 2);
}

#[test]
fn a_pod_that_somebody_changes_after_the_run_is_drift_and_left_alone() {
    let succeeded = |hash: &str| {
        json!({"status": {"targetHash": hash, "lastRun": {
            "targetHash": hash, "completionTime": at(-100).to_string(), "result": "Succeeded",
        }}})
    };
    let target = || {
        let status = json!({"currentRevision": "db-b", "updateRevision": "db-b", "updatedReplicas": 3});
        Target::stateful_set(stateful_set(3, "app:2", json!({}), status), vec![revision("db-b", 2, "app:2")])
    };
    let record =
        json!({"run": "7c9f21ab04de", "at": at(-200).to_string(), "g": 1, "base": {"app": ["a", "b"]}});
    let edited = json!({"metadata": {"annotations": {RECORD_ANNOTATION: record.to_string()}}});
    let pods = || {
        vec![
            db_pod(0, "db-b", "app:2", json!({})),
            db_pod(1, "db-b", "app:9", edited.clone()),
            db_pod(2, "db-b", "app:2", json!({})),
        ]
    };
    let none = observed("StatefulSet", target(), pods(), json!({}));
    let hash = Wish::of(&none.upgrade.spec, target().template()).hash;
    let planned = plan(
        &observed("StatefulSet", target(), pods(), {
            let mut over = succeeded(hash.as_str());
            over["metadata"] = json!({"finalizers": []});
            over
        }),
        at(0),
    );
    assert!(writes(&planned).is_empty());
    assert_eq!(
        (reason(&planned, "Drifted"), reason(&planned, "Ready")),
        ("PodsDiffer".into(), "UpToDate".into())
    );
    assert_eq!(status(&planned).pods.drifted, 1);
}
