use super::*;
use crate::cli::upgrade::fixtures::{HELD, NOW, at, condition, status, upgrade};
use serde_json::json;

fn up_to_date() -> Upgrade {
    let status = json!({
        "observedGeneration": 2,
        "conditions": [condition("Ready", "True", "UpToDate", "3 of 3 pods are as they are wished")],
        "pods": {"total": 3, "updated": 3, "updatedReady": 3},
    });
    of(&upgrade("api", &status))
}

#[test]
fn upgrades_are_told_in_two_tables() {
    let items = [up_to_date(), of(&upgrade("web", &status()))];
    let expected = "\
UPGRADE   TARGET           READY      STEP   PODS   IN FLIGHT   FAILED   BLOCKED   AGE
api       Deployment/api   UpToDate   -      3/3    0           0        0         2h
web       Deployment/web   Held       1/2    1/3    0           0        1         2h

WAITING   REASON             GOES ON WHEN
web       ApprovalRequired   spec.approval names this wish, and this step or a later one
";
    assert_eq!(overview(&items, false, "team-a", NOW), expected);
    assert!(overview(&items, true, "team-a", NOW).contains("\nteam-a/web "));
    assert_eq!(overview(&[], false, "team-a", NOW), "There is no InPlaceUpgrade in namespace team-a.\n");
    assert_eq!(items.iter().map(verdict).collect::<Vec<_>>(), [Verdict::Fine, Verdict::NotReady]);
}

#[test]
fn one_upgrade_is_told_with_what_its_reasons_mean() {
    let mut web = status();
    web["failures"] =
        json!([{"pod": "web-2", "node": "n1", "reason": "ImagePullBackOff", "sinceTime": at(-90)}]);
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

FAILED POD   NODE   REASON             SINCE
web-2        n1     ImagePullBackOff   90s
";
    assert_eq!(detail(&of(&upgrade("web", &web)), NOW), expected);
}

#[test]
fn a_hold_of_time_and_a_stall_say_when_and_an_old_status_says_that_it_is_old() {
    let mut held = status();
    held["conditions"][1] = condition("Held", "True", "StepHold", "step 1 is done");
    held["step"]["holdUntilTime"] = json!(at(600));
    let until = of(&upgrade("web", &held));
    assert_eq!(until.until, Some(at(600)));
    assert!(detail(&until, NOW).contains("the hold of the step is over, at 2026-11-11T00:10:00Z (in 10m)"));
    let mut stalled = held;
    stalled["conditions"].as_array_mut().unwrap().push(condition(
        "Stalled",
        "True",
        "TemplateRefused",
        "the policy says no",
    ));
    stalled["nextAttemptTime"] = json!(at(60));
    let stalled = of(&upgrade("web", &stalled));
    assert_eq!((stalled.until, verdict(&stalled)), (Some(at(60)), Verdict::Stalled));
    let old = Upgrade { is_current: false, ..up_to_date() };
    assert_eq!((ready(&old).as_str(), verdict(&old)), ("UpToDate (old)", Verdict::NotReady));
    assert!(detail(&old, NOW).contains("Warning   the manager has not seen the object yet as it is now"));
}

#[test]
fn the_json_has_the_documented_fields() {
    let mut full = status();
    full["nextAttemptTime"] = json!(at(60));
    full["prePull"] = json!({"nodes": 4, "ready": 3, "failed": 0});
    let items = vec![of(&upgrade("web", &full))];
    assert_eq!((items[0].message.as_str(), items[0].held.as_str()), (HELD, "ApprovalRequired"));
    let answer = Answer { api_version: API_VERSION, kind: "UpgradeStatusList", items };
    let json = serde_json::to_value(&answer).unwrap();
    let page = include_str!("../../../../../../docs/cli.md");
    let item = json["items"][0].as_object().unwrap();
    for field in json.as_object().unwrap().keys().chain(item.keys()) {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}
