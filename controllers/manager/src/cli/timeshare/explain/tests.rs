use super::*;
use crate::cli::timeshare::fixtures::{NOW, at, switching, write};
use serde_json::json;
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{HeldReason, ReadyReason, StalledReason};
use springtide_time_share_group::rehearsal::{Basis, Said};

#[test]
fn a_group_in_a_switch_reads_so() {
    let expected = "\
TimeShareGroup shop/double11: Switching
  switch 42 to payment

Peak      promo; payment is to have it by a window
Why       The peak changes hands, or the preflight before that goes on.
Wakes     units that are under way are done: each of them makes room for another one
Switch    42 from promo to payment, asked for by a window; begun at 2026-11-10T23:58:00Z (2m ago), step 2 of
          3: 3 of 10 units done, 2 in flight, 1 skipped, 1 stuck
Next      to promo at 2026-11-11T02:00:00Z (in 2h)
Preflight 9 of 10 units of the switch to payment would come through, at 2026-11-10T23:00:00Z (60m ago); not
          so: payment-7 on n7 (QuotaExceeded)
Nodes     10 nodes need cpu 40 in place of cpu 80: cpu 40 are saved
          CapacitySafe NodesOverBudget: 1 of 10 nodes

MEMBER    PODS   AT PEAK   AT VALLEY   TRAFFIC   UNPAIRED   UPGRADING
payment   10     3         7           3         1          0
promo*    10     7         3           7         0          0

NODE   SHRINKS   GROWS       SIDE   STATE
n7     promo-7   payment-7   Back   GivenUp: it has its old sizes until the next switch
n4     promo-4   payment-4   To     Draining: Services have yet to stop sending traffic

STUCK POD   NODE   REASON     SINCE
payment-7   n7     Deferred   90s
";
    assert_eq!(text(&switching(), &[], NOW), expected);
    assert_eq!(verdict(&switching()), Verdict::Fine);
}

#[test]
fn what_needs_a_person_and_what_comes_next_is_said() {
    let mut group = switching();
    group.stalled = Some(Said::of(StalledReason::UnitStuck, "no unit starts, as one is stuck"));
    group.remedies = vec!["make room".to_owned()];
    group.until = Some(at(30));
    group.next_writes = vec![write("payment-1", "resize"), write("payment-2", "resize")];
    let said = text(&group, &[], NOW);
    let unbroken = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for piece in [
        "Stalled UnitStuck: no unit starts, as one is stuck (A unit is stuck",
        "; looked at again at 2026-11-11T00:00:30Z (in 30s)",
        "Writes the manager is about to patch pod/resize of 2 objects (payment-1, ...)",
        "To do make room",
    ] {
        assert!(unbroken.contains(piece), "no {piece:?} in:\n{said}");
    }
    assert_eq!(verdict(&group), Verdict::Stalled);
}

#[test]
fn the_managers_own_word_is_told_as_such() {
    let mut group = switching();
    group.basis = Basis::Reported;
    let said = text(&group, &[], NOW);
    assert!(
        said.contains("Rests on  by the manager's own word in the object's status, Switching since"),
        "{said}"
    );
}

#[test]
fn each_summary_has_its_exit_code() {
    for ready in ReadyReason::all() {
        let mut group = switching();
        group.summary = Said::of(ready, "");
        let expected = match ready {
            ReadyReason::Settled | ReadyReason::SettledWithSkips | ReadyReason::Switching => Verdict::Fine,
            ReadyReason::Pending
            | ReadyReason::RollingBack
            | ReadyReason::Held
            | ReadyReason::Paused
            | ReadyReason::Observing
            | ReadyReason::Degraded
            | ReadyReason::Deleting => Verdict::NotReady,
            ReadyReason::Refused => Verdict::Stalled,
        };
        assert_eq!(verdict(&group), expected, "{}", ready.as_str());
        group.stalled = Some(Said::of(StalledReason::NoProgress, ""));
        assert_eq!(verdict(&group), Verdict::Stalled, "{}", ready.as_str());
    }
}

#[test]
fn the_json_has_the_documented_fields() {
    let mut explanation = switching();
    explanation.until = Some(NOW);
    explanation.held = Some(Said::of(HeldReason::StepHold, ""));
    explanation.stalled = Some(Said::of(StalledReason::NoProgress, ""));
    explanation.units[0].until = Some(NOW);
    explanation.units[0].writes = vec![write("payment-7", "resize")];
    let answer = Answer {
        api_version: API_VERSION,
        kind: "TimeShareExplanation",
        time: NOW,
        explanation,
        not_seen: Vec::new(),
    };
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["apiVersion"], "cli.springtide.dev/v1alpha1");
    assert_eq!((&json["activeMember"], &json["transition"]["id"]), (&json!("promo"), &json!(42)));
    let page = include_str!("../../../../../../docs/cli.md");
    let keys = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().map(|object| object.keys().cloned().collect()).unwrap_or_default()
    };
    let part =
        json["day"]["parts"].as_array().unwrap().iter().find(|part| part["cause"] == "Window").unwrap();
    let all = [keys(&json), keys(&json["units"][0]), keys(&json["day"]), keys(part)].concat();
    for field in all {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}
