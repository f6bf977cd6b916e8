use super::*;
use crate::cli::upgrade::fixtures::{NOW, at, held, write};
use serde_json::json;
use springtide_crds::in_place_upgrade::{ReadyReason, StalledReason};
use springtide_crds::reason::Reason;
use springtide_in_place_upgrade::rehearsal::{Basis, ConditionLine, Said};

#[test]
fn an_upgrade_that_is_held_reads_so() {
    let expected = "\
InPlaceUpgrade team-a/web: Held
  step 1 is done: set spec.approval to targetHash 7c9f21ab04de, throughStep 1

Target    Deployment/web, wish 7c9f21ab04de
Held      ApprovalRequired: The step is done, and the next one needs spec.approval with this status.targetHash
          and a throughStep at or above status.step.index
Wakes     spec.approval names this wish, and this step or a later one
Step      1 of 2: 1 of 3 pods, begun at 2026-11-10T23:50:00Z (10m ago)
Pods      1 of 3 as wished, 1 of them available; 1 blocked
Left      1 by image; 1 blocked (1 QoSClassWouldChange)
Last run  Succeeded at 2026-11-10T22:00:00Z (2h ago): wish 000000000000, 3 pods
To do     approve it

POD     NODE   VERDICT                        STATE        DIFFERS IN
web-3   n1     Blocked: QoSClassWouldChange   Ineligible   image of app: reg/app:v2
web-2   n1     InPlace                        Old          image of app: reg/app:v2
";
    assert_eq!(text(&held(), &[], NOW), expected);
    assert_eq!(verdict(&held()), Verdict::NotReady);
}

#[test]
fn what_needs_a_person_what_is_wrong_and_what_comes_next_is_said() {
    let mut upgrade = held();
    upgrade.summary = Said::of(ReadyReason::Blocked, "the Deployment is not paused");
    upgrade.stalled = Some(Said::of(StalledReason::NotLocked, "the Deployment is not paused"));
    upgrade.held = None;
    upgrade.until = Some(at(30));
    upgrade.conditions.push(ConditionLine {
        type_: "Healthy".into(),
        status: "False".into(),
        reason: "AdmissionDenied".into(),
        message: "images: not signed".into(),
    });
    upgrade.next_writes = vec![write("status", json!({})), write("status", json!({})), write("", json!({}))];
    let said = text(&upgrade, &[], NOW);
    for piece in [
        "InPlaceUpgrade team-a/web: Blocked\n  the Deployment is not paused\n",
        "Stalled   NotLocked: The workload's own controller would roll; condition Locked says what to do\n",
        "Healthy   AdmissionDenied: images: not signed\n",
        "Next      the manager is about to patch pod of 1 object (web-2)\n",
        "          the manager is about to patch pod/status of 2 objects (web-2, ...)\n",
    ] {
        assert!(said.contains(piece), "no {piece:?} in:\n{said}");
    }
    let unbroken = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(unbroken.contains("; looked at again at 2026-11-11T00:00:30Z (in 30s)"), "{said}");
    assert_eq!(verdict(&upgrade), Verdict::Stalled);
}

#[test]
fn the_managers_own_word_is_told_as_such_and_what_was_not_seen_too() {
    let mut upgrade = held();
    upgrade.basis = Basis::Reported;
    let unread = Unread {
        resource: "nodes".into(),
        scope: "the cluster".into(),
        problem: "nodes is forbidden".into(),
        consequence: "which images nodes have is not computed".into(),
    };
    let said = text(&upgrade, &[unread], NOW);
    let rests = "Rests on  by the manager's own word in the object's status, Held since 2026-11-10T23:55:00Z (5m ago)\n";
    assert!(said.contains(rests), "{said}");
    let unseen =
        "Not seen  nodes of the cluster: which images nodes have is not computed (nodes is forbidden)\n";
    assert!(said.contains(unseen), "{said}");
}

#[test]
fn each_summary_has_its_exit_code() {
    for ready in ReadyReason::all() {
        let mut upgrade = held();
        upgrade.summary = Said::of(ready, "");
        let expected = match ready {
            ReadyReason::UpToDate
            | ReadyReason::Planning
            | ReadyReason::PrePulling
            | ReadyReason::Upgrading
            | ReadyReason::Finalizing => Verdict::Fine,
            ReadyReason::Pending
            | ReadyReason::Held
            | ReadyReason::Paused
            | ReadyReason::PlanOnly
            | ReadyReason::RollingBack
            | ReadyReason::Deleting => Verdict::NotReady,
            ReadyReason::RolledBack | ReadyReason::Blocked | ReadyReason::Failed => Verdict::Stalled,
        };
        assert_eq!(verdict(&upgrade), expected, "{}", ready.as_str());
        upgrade.stalled = Some(Said::of(StalledReason::NoProgress, ""));
        assert_eq!(verdict(&upgrade), Verdict::Stalled, "{}", ready.as_str());
    }
}

#[test]
fn the_json_has_the_documented_fields() {
    let mut explanation = held();
    explanation.pods[1].until = Some(NOW);
    explanation.pods[1].writes = vec![write("", json!({}))];
    explanation.until = Some(NOW);
    explanation.stalled = explanation.held.clone();
    explanation.pre_pull = Some(springtide_crds::in_place_upgrade::PrePullCounts::default());
    let answer = Answer {
        api_version: API_VERSION,
        kind: "UpgradeExplanation",
        time: NOW,
        explanation,
        not_seen: Vec::new(),
    };
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["apiVersion"], "cli.springtide.dev/v1alpha1");
    assert_eq!(
        (&json["held"]["reason"], &json["counts"]["blocked"]),
        (&json!("ApprovalRequired"), &json!(1))
    );
    assert_eq!(json["conditions"][0]["type"], "Locked");
    let page = include_str!("../../../../../../docs/cli.md");
    let pod = json["pods"][1].as_object().unwrap();
    let written = pod["writes"][0].as_object().unwrap();
    for field in json.as_object().unwrap().keys().chain(pod.keys()).chain(written.keys()) {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}
