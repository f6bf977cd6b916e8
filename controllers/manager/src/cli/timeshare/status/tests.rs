use super::*;
use crate::cli::timeshare::fixtures::{NOW, at, condition, group, status};
use serde_json::json;

fn settled() -> Group {
    let status = json!({
        "observedGeneration": 2,
        "activeMember": "promo",
        "desiredMember": "promo",
        "conditions": [condition("Ready", "True", "Settled", "promo has the peak")],
        "transition": {
            "id": 41, "to": "promo", "cause": "Default", "startTime": at(-7400), "completionTime": at(-7200), "step": 3,
            "units": {"total": 10, "done": 10},
        },
    });
    of(&group("autumn", &status), NOW)
}

fn held() -> Group {
    let mut held = status();
    held["conditions"] = json!([
        condition("Ready", "False", "Held", "step 2 of 3 is done"),
        condition("Held", "True", "StepHold", "step 2 of 3 is done"),
    ]);
    held["transition"]["holdUntilTime"] = json!(at(60));
    of(&group("double11", &held), NOW)
}

#[test]
fn groups_are_told_in_two_tables() {
    let items = [settled(), held()];
    let expected = "\
GROUP      ACTIVE   READY     NEXT          UNITS   IN FLIGHT   STUCK   SAVED CPU   AGE
autumn     promo    Settled   -             10/10   0           0       -           2h
double11   promo    Held      promo in 2h   3/10    2           1       40          2h

WAITING    REASON     GOES ON WHEN
double11   StepHold   the hold of the step is over, at 2026-11-11T00:01:00Z (in 60s)
";
    assert_eq!(overview(&items, false, "shop", NOW), expected);
    assert!(overview(&items, true, "shop", NOW).contains("\nshop/double11 "));
    assert_eq!(overview(&[], false, "shop", NOW), "There is no TimeShareGroup in namespace shop.\n");
    assert_eq!(items.iter().map(verdict).collect::<Vec<_>>(), [Verdict::Fine, Verdict::NotReady]);
}

#[test]
fn one_group_is_told_with_its_members_and_its_day() {
    let said = detail(&of(&group("double11", &status()), NOW), NOW);
    let unbroken = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for piece in [
        "TimeShareGroup shop/double11: Switching switch 42 to payment",
        "Peak promo; payment is to have it",
        "Switch 42 from promo to payment, asked for by a window; begun at",
        "Next to promo at 2026-11-11T02:00:00Z (in 2h)",
        "Ended Succeeded: switch 41 to promo at 2026-11-10T22:00:00Z (2h ago) after 2m, 10 units, 1 skipped, 2 nudges",
        "Times now payment by window night, until 02:00",
        "02:00 promo by default, until 23:50",
        "23:50 payment by window night, which opens at 00:00: lead 10m",
    ] {
        assert!(unbroken.contains(piece), "no {piece:?} in:\n{said}");
    }
    let row =
        |member: &str| said.lines().find(|line| line.starts_with(member)).unwrap_or_default().to_owned();
    assert!(row("payment").contains("####....") && row("promo").contains("....####"), "{said}");
    assert!(said.contains("MEMBER    PODS   AT PEAK"), "{said}");
    assert!(said.ends_with("payment-7   n7     Deferred   90s\n"), "{said}");
}

#[test]
fn an_override_is_told_as_long_as_it_has_an_effect() {
    let forced = |until: i64| {
        let mut view = group("double11", &status());
        let over = json!({"member": "payment", "untilTime": at(until), "reason": "INC-4711"});
        view.spec.override_ = Some(serde_json::from_value(over).unwrap());
        detail(&of(&view, NOW), NOW)
    };
    let said = forced(3600);
    assert!(said.contains("Override  payment until 2026-11-11T01:00:00Z (in 60m): INC-4711\n"), "{said}");
    assert!(said.contains("now payment by spec.override: INC-4711, until 01:00\n"), "{said}");
    assert!(!forced(-1).contains("INC-4711"));
}

#[test]
fn a_stall_says_what_it_means_and_an_old_status_that_it_is_old() {
    let mut stalled = status();
    let wrong = condition("Stalled", "True", "RolledBack", "no peak for payment");
    stalled["conditions"].as_array_mut().unwrap().push(wrong);
    let stalled = of(&group("double11", &stalled), NOW);
    assert_eq!(verdict(&stalled), Verdict::Stalled);
    assert!(
        detail(&stalled, NOW)
            .contains("Stalled   RolledBack: A switch has gone wrong, and the peak went back")
    );
    let old = Group { is_current: false, ..settled() };
    assert_eq!((ready(&old).as_str(), verdict(&old)), ("Settled (old)", Verdict::NotReady));
    assert!(detail(&old, NOW).contains("Warning   the manager has not seen the object yet as it is now"));
}

#[test]
fn the_json_has_the_documented_fields() {
    let mut item = held();
    item.forced = Some(serde_json::from_value(json!({"untilTime": at(60), "reason": "INC-1"})).unwrap());
    let answer = Answer { api_version: API_VERSION, kind: "TimeShareStatusList", items: vec![item] };
    let json = serde_json::to_value(&answer).unwrap();
    let page = include_str!("../../../../../../docs/cli.md");
    let item = json["items"][0].as_object().unwrap();
    assert!(item.contains_key("override") && item.contains_key("until"));
    for field in json.as_object().unwrap().keys().chain(item.keys()) {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}
