use super::*;
use crate::cli::upgrade::fixtures::{NOW, held, write};
use serde_json::json;
use springtide_plumbing::dry_run::Verdict as Answered;
use springtide_plumbing::error::WriteError;
use springtide_plumbing::executor::{Done, WriteResult};
use springtide_plumbing::key::{Resource, Uid};
use springtide_plumbing::plan::{Action, Fields, Part, Patch, Write, WriteClass};

/// A plan with a pod that takes three writes, and another one like it.
fn planned() -> UpgradePlan {
    let mut explanation = held();
    let off = write("status", json!({"status": {"conditions": []}}));
    let patch = PlannedWrite { resource_version: "10".into(), ..write("", json!({"spec": {}})) };
    explanation.pods[1].writes = vec![off.clone(), patch, off.clone()];
    let mut other = explanation.pods[1].clone();
    other.name = "web-4".into();
    explanation.pods.insert(2, other);
    explanation.next_writes = vec![
        PlannedWrite {
            kind: "InPlaceUpgrade".into(),
            form: "status".into(),
            name: "web".into(),
            ..off.clone()
        },
        off,
    ];
    UpgradePlan { explanation, checks: vec![Check::of(&answered(Ok(accepted())))] }
}

fn answered(outcome: Result<Done, WriteError>) -> WriteResult {
    let fields = Fields { uid: Uid("uid-2".into()), resource_version: None, fields: json!({}) };
    let action = Action::Patch { part: Part::Resize, patch: Patch::Strategic(fields) };
    let key = ObjectKey::new("team-a", "web-2");
    let write = Write { resource: Resource::POD, key, class: WriteClass::Spec, action: action.dry_run("q") };
    WriteResult { write, outcome }
}

fn accepted() -> Done {
    Done { dry_run: Some(Answered::Accepted(Arc::new(json!({})))), ..Done::default() }
}

#[test]
fn a_plan_tells_each_pod_and_every_write() {
    let mut said = String::new();
    text(&mut said, &planned(), NOW);
    let expected = "\
Dry runs  pod/resize web-2: the API server would take it
To do     approve it

POD     NODE   VERDICT                        STATE        DIFFERS IN                 WRITES
web-3   n1     Blocked: QoSClassWouldChange   Ineligible   image of app: reg/app:v2   -
web-2   n1     InPlace                        Old          image of app: reg/app:v2   pod/status, pod, pod/status
web-4   n1     InPlace                        Old          image of app: reg/app:v2   pod/status, pod, pod/status

Writes to pod web-2, as it comes to its turn, and alike to 1 other pod:
  patch pod/status team-a/web-2  strategicMerge {\"status\":{\"conditions\":[]}}
  patch pod team-a/web-2  strategicMerge {\"spec\":{}}
  patch pod/status team-a/web-2  strategicMerge {\"status\":{\"conditions\":[]}}

The manager would write now (2 writes):
  patch inplaceupgrade/status team-a/web  its new status
  patch pod/status team-a/web-2  strategicMerge {\"status\":{\"conditions\":[]}}
";
    assert!(said.starts_with("InPlaceUpgrade team-a/web: Held\n") && said.ends_with(expected), "{said}");
}

#[test]
fn what_is_long_is_cut_and_counted() {
    let mut plan = planned();
    let pod = plan.explanation.pods[1].clone();
    plan.explanation.pods =
        (0..50).map(|number| PodLine { name: format!("web-{number}"), ..pod.clone() }).collect();
    plan.explanation.next_writes = vec![write("", json!({"long": "x".repeat(5000)})); 30];
    let mut said = String::new();
    text(&mut said, &plan, NOW);
    assert!(said.contains("... and 10 more\n") && said.contains("alike to 49 other pods"), "{said}");
    assert!(said.contains("patch pod team-a/web-2  strategicMerge of 5011 bytes\n"), "{said}");
    assert!(said.ends_with("  and 10 more\n") && said.contains("(30 writes)"), "{said}");
    plan.explanation.next_writes.clear();
    plan.explanation.pods.clear();
    let mut said = String::new();
    text(&mut said, &plan, NOW);
    assert!(said.ends_with("\nThe manager would write nothing now.\n"), "{said}");
}

#[test]
fn the_json_has_the_documented_fields() {
    let json = serde_json::to_value(planned()).unwrap();
    assert_eq!(json["checks"][0]["verdict"], "Accepted");
    assert_eq!(json["pods"][1]["writes"][1]["resourceVersion"], "10");
    let page = include_str!("../../../../../../docs/cli.md");
    let check = json["checks"][0].as_object().unwrap();
    for field in json.as_object().unwrap().keys().chain(check.keys()) {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}
