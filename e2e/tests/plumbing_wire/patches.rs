//! Patches of parts, applies, evictions and dry runs.

use super::*;
use springtide_plumbing::dry_run::Verdict;
use springtide_plumbing::error::FieldConflict;
use springtide_plumbing::plan::{Fields, Part, Patch};

fn fields(uid: &Uid, resource_version: Option<ResourceVersion>, fields: Value) -> Fields {
    Fields { uid: uid.clone(), resource_version, fields }
}

fn strategic(part: Part, fields: Fields) -> Action {
    Action::Patch { part, patch: Patch::Strategic(fields) }
}

fn merge(fields: Fields) -> Action {
    Action::Patch { part: Part::Main, patch: Patch::Merge(fields) }
}

fn evict(uid: &Uid) -> Action {
    Action::Evict { uid: uid.clone(), resource_version: None, grace_seconds: None }
}

fn apply(uid: &Uid, resource_version: Option<ResourceVersion>, fields: Value, force: bool) -> Action {
    let (part, manager) = (Part::Main, "springtide-wire-data");
    Action::Apply { part, manager, uid: uid.clone(), resource_version, fields, force }
}

fn label(value: &str) -> Value {
    json!({"metadata": {"labels": {"a": value}}})
}

#[tokio::test]
async fn a_merge_hits_one_incarnation_in_one_version() {
    let desk = Desk::new().await;
    let makes: [fn(Fields) -> Action; 2] = [merge, |fields| strategic(Part::Main, fields)];
    desk.held_pod("p").await;
    desk.write(BATCH_JOB, "j", create(job("j"))).await.unwrap();
    for (resource, name, makes) in [(Resource::POD, "p", &makes[..]), (BATCH_JOB, "j", &makes[..1])] {
        for (number, make) in makes.iter().enumerate() {
            let (uid, version) = desk.identity(resource, name).await.unwrap();
            let value = format!("v{number}");
            let write =
                |uid: &Uid, version| desk.write(resource, name, make(fields(uid, version, label(&value))));
            let outcome = write(&OTHER, None).await;
            assert!(matches!(outcome, Err(WriteError::Gone)), "{name} {number}: {outcome:?}");
            let outcome = write(&uid, Some(STALE)).await;
            assert!(matches!(outcome, Err(WriteError::Conflict(_))), "{name} {number}: {outcome:?}");
            let written = write(&uid, Some(version)).await.unwrap().resource_version;
            assert!(written > Some(version), "{name} {number}");
            assert_eq!(desk.identity(resource, name).await.unwrap().1, written.unwrap());
            let again = write(&uid, None).await.unwrap().resource_version;
            assert_eq!(again, written, "what changes nothing has no new version");
            let gone = desk.write(resource, "missing", make(fields(&uid, None, label(&value)))).await;
            assert!(matches!(gone, Err(WriteError::Gone)), "{gone:?}");
        }
    }
    let (uid, _) = desk.identity(BATCH_JOB, "j").await.unwrap();
    let refusal = desk.refused(BATCH_JOB, "j", strategic(Part::Main, fields(&uid, None, label("x")))).await;
    assert_eq!(refusal.code, 415, "a custom resource has no keys to merge lists by: {refusal:?}");
}

#[tokio::test]
async fn parts_of_a_pod_have_the_same_preconditions() {
    let desk = Desk::new().await;
    let (uid, version) = desk.held_pod("p").await;
    let gate = |status: &str| json!({"status": {"conditions": [{"type": "springtide.dev/test", "status": status, "message": "m"}]}});
    let cpu = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "20m"}}}]}});
    for (part, content) in [(Part::Status, gate("False")), (Part::Resize, cpu)] {
        let write = |uid: &Uid, version| {
            desk.write(Resource::POD, "p", strategic(part, fields(uid, version, content.clone())))
        };
        let outcome = write(&OTHER, None).await;
        assert!(matches!(outcome, Err(WriteError::Gone)), "{part:?}: {outcome:?}");
        let missing =
            desk.write(Resource::POD, "no", strategic(part, fields(&uid, None, content.clone()))).await;
        assert!(matches!(missing, Err(WriteError::Gone)), "{part:?}: {missing:?}");
    }
    let write = |version, status| {
        desk.write(Resource::POD, "p", strategic(Part::Status, fields(&uid, version, gate(status))))
    };
    assert!(matches!(write(Some(STALE), "False").await, Err(WriteError::Conflict(_))));
    let closed = write(Some(version), "False").await.unwrap().resource_version;
    let open = write(closed, "True").await.unwrap().resource_version;
    assert!(open > closed && closed > Some(version));
}

#[tokio::test]
async fn an_apply_takes_what_nobody_holds_and_names_who_holds_the_rest() {
    let desk = Desk::new().await;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "theirs"},
    });
    desk.write(Resource::CONFIG_MAP, "m", create(map)).await.unwrap();
    let (uid, version) = desk.identity(Resource::CONFIG_MAP, "m").await.unwrap();
    let write = |action| desk.write(Resource::CONFIG_MAP, "m", action);
    let (ours, theirs) = (json!({"data": {"b": "ours"}}), json!({"data": {"a": "ours"}}));

    assert!(matches!(write(apply(&OTHER, None, ours.clone(), false)).await, Err(WriteError::Gone)));
    let outcome = write(apply(&uid, Some(STALE), ours.clone(), false)).await;
    assert!(matches!(outcome, Err(WriteError::Conflict(_))), "{outcome:?}");
    let missing = desk.write(Resource::CONFIG_MAP, "no", apply(&uid, None, ours.clone(), true)).await;
    assert!(matches!(missing, Err(WriteError::Gone)), "nothing is made anew: {missing:?}");
    assert_eq!(desk.identity(Resource::CONFIG_MAP, "no").await, None);

    let applied = write(apply(&uid, Some(version), ours, false)).await.unwrap().resource_version;
    assert!(applied > Some(version));
    let held = [FieldConflict { manager: "springtide-wire".to_owned(), field: ".data.a".to_owned() }];
    match write(apply(&uid, None, theirs.clone(), false)).await {
        Err(WriteError::FieldConflict(conflicts)) => assert_eq!(conflicts, held),
        other => panic!("{other:?}"),
    }
    let asked = write(apply(&uid, None, theirs.clone(), false).dry_run("q")).await.unwrap();
    assert_eq!(asked.dry_run, Some(Verdict::FieldConflict(held.into())));
    let forced = write(apply(&uid, None, theirs, true)).await.unwrap().resource_version;
    assert!(forced > applied);
}

fn budget(name: &str) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}},
    })
}

#[tokio::test]
async fn an_eviction_is_refused_by_a_budget_and_not_by_a_busy_server() {
    let desk = Desk::new().await;
    let mut guarded = pod("p");
    guarded["metadata"]["labels"] = json!({"app": "guarded"});
    desk.write(Resource::POD, "p", create(guarded)).await.unwrap();
    let (uid, _) = desk.identity(Resource::POD, "p").await.unwrap();
    // Of a pod that has not run nobody asks a budget.
    let running = json!({"status": {"phase": "Running"}});
    desk.write(Resource::POD, "p", strategic(Part::Status, fields(&uid, None, running))).await.unwrap();

    for name in ["one", "two"] {
        let mut budget = budget(name);
        budget["metadata"]["namespace"] = desk.namespace.as_str().into();
        desk.cluster.apply(&budget.to_string()).await.unwrap();
        match desk.write(Resource::POD, "p", evict(&uid)).await {
            Err(WriteError::DisruptionBudget(message)) => {
                assert!(
                    message.contains("disruption budget one") || message.contains("more than one"),
                    "{message}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
        let asked = desk.write(Resource::POD, "p", evict(&uid).dry_run("q")).await.unwrap();
        assert!(matches!(asked.dry_run, Some(Verdict::DisruptionBudget(_))), "{name}: {asked:?}");
    }
    assert!(matches!(desk.write(Resource::POD, "missing", evict(&uid)).await, Err(WriteError::Gone)));

    desk.cluster.kubectl_in(&desk.namespace, &["delete", "pdb", "one", "two"]).await.unwrap();
    let other = desk.write(Resource::POD, "p", evict(&OTHER)).await;
    assert!(matches!(other, Err(WriteError::Gone)), "{other:?}");
    let asked = desk.write(Resource::POD, "p", evict(&uid).dry_run("q")).await.unwrap();
    assert!(asked.dry_run.is_some_and(|verdict| verdict.is_accepted()));
    assert_eq!(desk.write(Resource::POD, "p", evict(&uid)).await.unwrap(), Done::default());
    let deleting = desk.reader.identity(Resource::POD, &ObjectKey::new(&*desk.namespace, "p")).await.unwrap();
    assert!(deleting.is_some_and(|pod| pod.deleting), "its finalizer holds it");
}

#[tokio::test]
async fn a_dry_run_tells_what_would_be_stored_and_who_denies_it() {
    let desk = Desk::new().await;
    let (uid, version) = desk.held_pod("p").await;
    let image = |image: &str| {
        let content = json!({"spec": {"containers": [{"name": "c", "image": image}]}});
        strategic(Part::Main, fields(&uid, None, content)).dry_run("q")
    };
    let asked = desk.write(Resource::POD, "p", image("registry.invalid/new")).await.unwrap();
    let Some(Verdict::Accepted(object)) = asked.dry_run else { panic!("{asked:?}") };
    assert_eq!(object["spec"]["containers"][0]["image"], "registry.invalid/new");
    assert_eq!(desk.identity(Resource::POD, "p").await.unwrap().1, version, "nothing was stored");
    let invalid = strategic(Part::Main, fields(&uid, None, json!({"metadata": {"labels": {"a b": ""}}})));
    let asked = desk.write(Resource::POD, "p", invalid.dry_run("q")).await.unwrap();
    assert!(matches!(&asked.dry_run, Some(Verdict::Refused(refusal)) if refusal.code == 422), "{asked:?}");

    let (name, namespace) = (format!("images-{}", desk.namespace), &desk.namespace);
    let meta = json!({"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}});
    let rule = json!({
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["pods"],
    });
    let mut policy = meta.clone();
    policy["kind"] = "ValidatingAdmissionPolicy".into();
    policy["spec"] = json!({
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{
            "expression": "!object.spec.containers.exists(c, c.image.startsWith('evil.invalid/'))",
            "message": "images of evil.invalid are not for us",
        }],
    });
    let mut binding = meta;
    binding["kind"] = "ValidatingAdmissionPolicyBinding".into();
    binding["spec"] = json!({
        "policyName": name, "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
    });
    for object in [policy, binding] {
        desk.cluster.apply(&object.to_string()).await.unwrap();
    }
    // It holds once the server has compiled it.
    let denied = async {
        loop {
            let asked = desk.write(Resource::POD, "p", image("evil.invalid/new")).await.unwrap();
            if let Some(Verdict::Refused(refusal)) = asked.dry_run {
                return refusal;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let refusal = tokio::time::timeout(PATIENCE, denied).await.unwrap();
    assert!(refusal.message.contains("images of evil.invalid are not for us"), "{refusal:?}");
    desk.cluster
        .kubectl(&["delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", &name])
        .await
        .unwrap();
}
