use super::*;
use crate::cli::timeshare::fixtures::{NOW, switching, unit, write};

/// A plan with two units of one way.
fn planned() -> SwitchPlan {
    let mut explanation = switching();
    let way = |number: u32| {
        let (promo, payment) = (format!("promo-{number}"), format!("payment-{number}"));
        vec![write(&promo, ""), write(&promo, "resize"), write(&payment, "resize"), write(&payment, "")]
    };
    explanation.units =
        [1, 2].map(|number| UnitLine { writes: way(number), ..unit(number, "Ahead", "Still", "") }).into();
    explanation.next_writes = vec![write("promo-1", "")];
    SwitchPlan { explanation, checks: vec![check("payment-1", "Accepted", "")] }
}

fn check(name: &str, verdict: &'static str, message: &str) -> Check {
    Check {
        kind: "Pod".into(),
        namespace: "shop".into(),
        name: name.into(),
        subresource: "resize".into(),
        verdict,
        message: message.into(),
    }
}

#[test]
fn a_plan_tells_each_unit_and_every_write() {
    let mut said = String::new();
    text(&mut said, &planned(), NOW);
    let expected = "\
NODE   SHRINKS   GROWS       SIDE    STATE   WRITES
n1     promo-1   payment-1   Ahead   Still   pod, pod/resize, pod/resize, pod
n2     promo-2   payment-2   Ahead   Still   pod, pod/resize, pod/resize, pod

Writes to the unit of promo-1, payment-1 on n1, as it comes to its turn, and alike in 1 other unit:
  patch pod shop/promo-1  strategicMerge {\"spec\":{}}
  patch pod/resize shop/promo-1  strategicMerge {\"spec\":{}}
  patch pod/resize shop/payment-1  strategicMerge {\"spec\":{}}
  patch pod shop/payment-1  strategicMerge {\"spec\":{}}

The manager would write now (1 write):
  patch pod shop/promo-1  strategicMerge {\"spec\":{}}
";
    assert!(
        said.starts_with("TimeShareGroup shop/double11: Switching\n") && said.ends_with(expected),
        "{said}"
    );
    assert!(said.contains("\nDry runs  pod/resize payment-1: the API server would take it\n"), "{said}");
}

#[test]
fn what_is_refused_is_told_first_and_what_is_taken_is_counted() {
    let mut checks: Vec<Check> =
        (0..8).map(|number| check(&format!("payment-{number}"), "Accepted", "")).collect();
    checks.push(check("payment-9", "Refused", "exceeded quota"));
    let said = told_checks(&checks);
    assert_eq!(
        said.first().map(String::as_str),
        Some("pod/resize payment-9: the API server refuses it: exceeded quota")
    );
    assert_eq!(said.last().map(String::as_str), Some("3 more would be taken"));
    assert_eq!(said.len(), 7);
}

#[test]
fn many_units_are_cut_and_counted() {
    let mut plan = planned();
    plan.explanation.units = (0..50).map(|number| unit(number, "Ahead", "Still", "")).collect();
    let mut said = String::new();
    text(&mut said, &plan, NOW);
    assert!(said.contains("... and 10 more\n"), "{said}");
}

#[test]
fn the_json_has_the_documented_fields() {
    let json = serde_json::to_value(planned()).unwrap();
    assert_eq!(json["checks"][0]["verdict"], "Accepted");
    assert_eq!(json["units"][0]["writes"][1]["subresource"], "resize");
    let page = include_str!("../../../../../../docs/cli.md");
    for field in json.as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}
