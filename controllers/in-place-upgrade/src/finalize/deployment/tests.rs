use super::*;
use crate::fixtures::{deployment, overlay, replica_set, template};
use springtide_crds::in_place_upgrade::{FieldOwnership, InPlaceUpgradeSpec, Inline, TargetKind};
use springtide_plumbing::key::Uid;
use springtide_plumbing::plan::Patch;

fn wish(image: &str) -> Wish {
    Wish::of(&InPlaceUpgradeSpec::new(TargetKind::Deployment, "web"), &template(image, json!({})))
}

fn uid() -> Uid {
    Uid("ipu".into())
}

fn terms(uid: &Uid) -> Terms<'_> {
    Terms {
        uid,
        lock: Lock::Require,
        history: History::Snapshot,
        ownership: FieldOwnership::Refuse,
        inline: None,
        recorded_partition: None,
        relabelled: &[],
        left_out: 0,
    }
}

fn next(deployment: Arc<DeploymentView>, sets: Vec<Arc<ReplicaSetView>>, terms: &Terms<'_>) -> Finalize {
    super::super::finalize(&Target::deployment(deployment, sets), &wish("app:2"), terms)
}

fn writes(finalize: &Finalize) -> Vec<Vec<&Write>> {
    let Finalize::Write { stages, .. } = finalize else { panic!("{finalize:?}") };
    stages.iter().map(|stage| stage.iter().flat_map(Step::writes).collect()).collect()
}

fn operations(write: &Write) -> &Value {
    let Action::Patch { patch: Patch::Json { operations }, .. } = &write.action else { panic!("{write:?}") };
    operations
}

fn manifest(write: &Write) -> &Value {
    let Action::Create { manifest } = &write.action else { panic!("{write:?}") };
    manifest
}

fn with_revision(set: &Arc<ReplicaSetView>, revision: i64) -> Arc<ReplicaSetView> {
    let mut set = ReplicaSetView::clone(set);
    set.revision = revision;
    Arc::new(set)
}

#[test]
fn the_old_template_is_kept_and_the_active_replica_set_gets_the_new_one() {
    let uid = uid();
    let next = next(deployment(3, "app:2", json!({})), vec![replica_set("rs", 4, 3, "app:1")], &terms(&uid));
    let writes = writes(&next);
    assert_eq!(writes.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
    let kept = manifest(writes[0][0]);
    let hash = kept["metadata"]["labels"][POD_TEMPLATE_HASH].as_str().unwrap();
    assert_eq!(kept["metadata"]["name"], format!("web-{hash}"));
    assert_eq!(kept["spec"]["replicas"], 0);
    assert_eq!(kept["spec"]["selector"]["matchLabels"], json!({"app": "web", POD_TEMPLATE_HASH: hash}));
    assert_eq!(
        kept["spec"]["template"]["metadata"]["labels"],
        json!({"app": "web", POD_TEMPLATE_HASH: hash})
    );
    assert_eq!(kept["spec"]["template"]["spec"]["containers"][0]["image"], "app:1");
    assert_eq!(kept["metadata"]["annotations"][REVISION], "4");
    let flip = operations(writes[1][0]);
    assert_eq!(
        (&flip[0]["path"], &flip[1]["path"]),
        (&json!("/metadata/uid"), &json!("/metadata/resourceVersion"))
    );
    assert_eq!(flip[2]["value"]["metadata"]["labels"], json!({"app": "web", POD_TEMPLATE_HASH: "rs"}));
    assert_eq!(flip[2]["value"]["spec"]["containers"][0]["image"], "app:2");
}

#[test]
fn no_history_is_kept_where_none_is_wanted_or_there_is_one() {
    let uid = uid();
    let lengths = |over: Value, terms: &Terms<'_>, more: Vec<Arc<ReplicaSetView>>| {
        let mut sets = vec![replica_set("rs", 4, 3, "app:1")];
        sets.extend(more);
        writes(&next(deployment(3, "app:2", over), sets, terms)).iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(lengths(json!({"spec": {"revisionHistoryLimit": 0}}), &terms(&uid), Vec::new()), [1]);
    assert_eq!(lengths(json!({}), &Terms { history: History::None, ..terms(&uid) }, Vec::new()), [1]);
    assert_eq!(lengths(json!({}), &terms(&uid), vec![replica_set("kept", 3, 0, "app:1")]), [1]);
}

#[test]
fn pods_that_are_left_as_they_are_are_noted_with_the_flip_and_what_they_were_made_from_is_kept() {
    let uid = uid();
    let leaving = Terms { history: History::None, left_out: 1, ..terms(&uid) };
    let note = |write: &Write| {
        let operations = operations(write).as_array().unwrap();
        let path = "/metadata/annotations/springtide.dev~1earlier-templates";
        operations.iter().find(|operation| operation["path"] == path).cloned()
    };
    let planned = next(deployment(3, "app:2", json!({})), vec![replica_set("rs", 4, 3, "app:1")], &leaving);
    let flipped = writes(&planned);
    assert_eq!(flipped.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1], "whatever is said of history");
    let text = note(flipped[1][0]).unwrap()["value"].as_str().unwrap().to_owned();
    let noted = EarlierTemplates::read(&text);
    assert!(noted.is_left() && noted.is_open());
    let mut left = ReplicaSetView::clone(&replica_set("rs", 4, 3, "app:1"));
    left.earlier = noted;
    let all = next(deployment(3, "app:2", json!({})), vec![Arc::new(left)], &terms(&uid));
    let last = writes(&all);
    assert_eq!(note(last.last().unwrap()[0]).unwrap()["op"], "remove", "all are of one template again");
    let unknown = deployment(3, "app:2", json!({"spec": {"revisionHistoryLimit": 0}}));
    let unkept = next(unknown, vec![replica_set("rs", 4, 3, "app:1")], &leaving);
    assert_eq!(note(writes(&unkept)[0][0]), None, "nobody would know what they were made from");
}

#[test]
fn an_older_replica_set_that_equals_the_wish_changes_places_first() {
    let uid = uid();
    let sets = vec![replica_set("rs", 4, 3, "app:1"), replica_set("older", 2, 0, "app:2")];
    let next = next(deployment(3, "app:2", json!({})), sets, &terms(&uid));
    assert!(matches!(next, Finalize::Write { reason: FinalizedReason::OlderReplicaSetMatches, .. }));
    let writes = writes(&next);
    let swap = operations(writes[0][0]);
    assert_eq!((&*writes[0][0].key.name, &*writes[1][0].key.name), ("older", "rs"));
    assert_eq!(swap[2]["value"]["spec"]["containers"][0]["image"], "app:1");
    assert_eq!(swap[2]["value"]["metadata"]["labels"][POD_TEMPLATE_HASH], "older");
    assert_eq!(
        (&swap[3]["path"], &swap[3]["value"]),
        (&json!("/metadata/annotations/deployment.kubernetes.io~1revision"), &json!("4"))
    );
}

#[test]
fn the_end_is_that_the_controller_counts_all_pods_and_has_raised_the_revision() {
    let uid = uid();
    let flipped = replica_set("rs", 4, 3, "app:2");
    let kept = replica_set("kept", 4, 0, "app:1");
    let of = |over: Value, revision: i64| {
        let sets = vec![with_revision(&flipped, revision), kept.clone()];
        next(deployment(3, "app:2", over), sets, &terms(&uid))
    };
    assert_eq!(of(json!({}), 5), Finalize::agreed());
    assert!(matches!(of(json!({}), 4), Finalize::Waiting { .. }), "the status may be from before");
    assert!(matches!(of(json!({"status": {"observedGeneration": 0}}), 5), Finalize::Waiting { .. }));
    assert!(matches!(of(json!({"status": {"updatedReplicas": 2}}), 5), Finalize::Waiting { .. }));
}

#[test]
fn a_controller_that_has_not_seen_the_template_is_waited_for() {
    let uid = uid();
    let unseen = json!({"status": {"observedGeneration": 0}});
    let next = next(deployment(3, "app:2", unseen), vec![replica_set("rs", 4, 3, "app:1")], &terms(&uid));
    assert!(matches!(next, Finalize::Waiting { .. }));
}

#[test]
fn a_transient_lock_pauses_with_the_write_of_the_template_and_ends_by_leaving_it_out() {
    let uid = uid();
    let inline: Inline =
        serde_json::from_value(json!({"containers": [{"name": "app", "image": "app:2"}]})).unwrap();
    let terms = Terms { lock: Lock::Transient, inline: Some(&inline), ..terms(&uid) };
    let rs = |image| vec![replica_set("rs", 4, 3, image)];
    let fields = |next: &Finalize| {
        let Action::Apply { fields, force, .. } = &writes(next)[0][0].action else { panic!() };
        (fields.clone(), *force)
    };
    let wished = json!({"spec": {"containers": [{"name": "app", "image": "app:2"}]}});
    let first = next(deployment(3, "app:1", json!({"spec": {"paused": false}})), rs("app:1"), &terms);
    let (applied, force) = fields(&first);
    assert_eq!(applied["spec"], json!({"paused": true, "template": wished}));
    assert_eq!((&applied["metadata"]["annotations"][PAUSED_BY_ANNOTATION], force), (&json!("ipu"), false));
    let paused = deployment(3, "app:2", json!({"metadata": {"annotations": {PAUSED_BY_ANNOTATION: "ipu"}}}));
    assert_eq!(writes(&next(paused.clone(), rs("app:1"), &terms)).len(), 2, "snapshot and flip");
    let last = next(paused, rs("app:2"), &terms);
    assert_eq!(fields(&last), (json!({"spec": {"template": wished}}), true));
    let ended = deployment(3, "app:2", json!({"spec": {"paused": false}}));
    assert_eq!(next(ended, rs("app:2"), &terms), Finalize::agreed());
}

#[test]
fn a_foreign_pause_is_used_and_left_alone() {
    let uid = uid();
    let inline: Inline =
        serde_json::from_value(json!({"containers": [{"name": "app", "image": "app:2"}]})).unwrap();
    let terms = Terms { inline: Some(&inline), ..terms(&uid) };
    let sets = || vec![replica_set("rs", 4, 3, "app:1")];
    let written = next(deployment(3, "app:1", json!({})), sets(), &terms);
    let Action::Apply { fields, .. } = &writes(&written)[0][0].action else { panic!() };
    assert!(fields["spec"].get("paused").is_none());
    let flipped = vec![replica_set("rs", 4, 3, "app:2")];
    assert_eq!(next(deployment(3, "app:2", json!({})), flipped, &terms), Finalize::agreed());
}

#[test]
fn a_replica_set_that_is_lost_is_made_again_with_the_wish_once_the_new_template_is_seen() {
    let uid = uid();
    let lost = |over: Value| {
        let mut whole = json!({
            "metadata": {"annotations": {REVISION: "4"}}, "spec": {"revisionHistoryLimit": 0},
        });
        overlay(&mut whole, over);
        next(deployment(0, "app:2", whole), Vec::new(), &terms(&uid))
    };
    let made = lost(json!({}));
    let writes = writes(&made);
    assert_eq!(writes.iter().map(Vec::len).collect::<Vec<_>>(), [1]);
    let made = manifest(writes[0][0]);
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["image"], "app:2");
    assert_eq!(
        (&made["spec"]["replicas"], &made["metadata"]["annotations"][REVISION]),
        (&json!(0), &json!("5"))
    );
    assert_eq!(made["metadata"]["ownerReferences"][0]["uid"], "web");
    let unseen = lost(json!({"status": {"observedGeneration": 0}}));
    assert!(matches!(unseen, Finalize::Waiting { .. }), "its controller would delete this one too");
    let counted = lost(json!({"status": {"replicas": 3}}));
    assert!(matches!(counted, Finalize::Waiting { .. }), "it has one that is not seen here yet");
    let scaled = deployment(3, "app:2", json!({"status": {"replicas": 0, "updatedReplicas": 0}}));
    let made = vec![replica_set("web-5", 5, 0, "app:2")];
    assert!(
        matches!(next(scaled, made, &terms(&uid)), Finalize::Waiting { .. }),
        "it is yet to be scaled up"
    );
    let agreed =
        next(deployment(3, "app:2", json!({})), vec![replica_set("web-5", 5, 3, "app:2")], &terms(&uid));
    assert_eq!(agreed, Finalize::agreed());
}

#[test]
fn a_transient_wish_comes_into_a_deployment_whose_replica_set_is_lost() {
    let uid = uid();
    let inline: Inline =
        serde_json::from_value(json!({"containers": [{"name": "app", "image": "app:2"}]})).unwrap();
    let terms = Terms { lock: Lock::Transient, inline: Some(&inline), ..terms(&uid) };
    let annotations = json!({REVISION: "4", PAUSED_BY_ANNOTATION: "ipu"});
    let lost = |image: &str| {
        next(deployment(0, image, json!({"metadata": {"annotations": annotations}})), Vec::new(), &terms)
    };
    let first = lost("app:1");
    assert!(matches!(writes(&first)[0][0].action, Action::Apply { .. }), "{first:?}");
    let second = lost("app:2");
    assert_eq!(
        manifest(writes(&second)[0][0])["spec"]["template"]["spec"]["containers"][0]["image"],
        "app:2"
    );
}

#[test]
fn a_deployment_without_pods_is_finalized_at_once() {
    let uid = uid();
    let next = next(deployment(0, "app:2", json!({})), vec![replica_set("rs", 4, 0, "app:1")], &terms(&uid));
    assert_eq!(writes(&next).len(), 2);
}
