use super::*;
use crate::cli::timeshare::fixtures::{NOW, at, condition, group, status};
use serde_json::json;

/// A status with this transition, summary and stall.
fn says(id: u32, ready: (&str, &str), stalled: Option<&str>) -> TimeShareGroupStatus {
    let mut conditions = vec![condition("Ready", ready.0, ready.1, "")];
    conditions.extend(stalled.map(|reason| condition("Stalled", "True", reason, "")));
    let mut said = status();
    said["conditions"] = json!(conditions);
    said["transition"]["id"] = json!(id);
    serde_json::from_value(said).unwrap()
}

#[test]
fn a_switch_ends_when_the_manager_says_so_of_the_group_as_it_is_now() {
    let open = Awaited { after: None };
    for (ready, stalled, ending) in [
        (("False", "Switching"), None, None),
        (("False", "Held"), None, None),
        (("False", "RollingBack"), None, None),
        (("False", "Switching"), Some("DeadlineExceeded"), None),
        (("True", "Settled"), None, Some(Ending::Succeeded)),
        (("True", "SettledWithSkips"), None, Some(Ending::Succeeded)),
        (("False", "RollingBack"), Some("RolledBack"), Some(Ending::RolledBack)),
        (("False", "RollingBack"), Some("RollbackStuck"), Some(Ending::Stalled)),
        (("False", "Switching"), Some("UnitStuck"), Some(Ending::Stalled)),
        (("False", "Refused"), Some("MemberNotFound"), Some(Ending::Stalled)),
    ] {
        assert_eq!(open.end(2, &says(42, ready, stalled)), ending, "{ready:?} {stalled:?}");
        assert_eq!(open.end(3, &says(42, ready, stalled)), None, "{ready:?}, before the last edit");
    }
}

#[test]
fn a_switch_that_is_due_is_no_end_before_it_has_begun() {
    let settled = ("True", "Settled");
    let due = Awaited { after: Some(42) };
    assert_eq!(due.end(2, &says(42, settled, None)), None);
    assert_eq!(due.end(2, &says(43, settled, None)), Some(Ending::Succeeded));
}

#[test]
fn what_is_due_follows_from_the_spec_and_the_time() {
    let mut ended = status();
    ended["transition"]["completionTime"] = json!(at(-60));
    let to_payment = group("double11", &ended);
    // At midnight the window of payment opens; at noon promo has the peak by default.
    assert_eq!(Awaited::of(&to_payment, NOW), Awaited { after: None });
    assert_eq!(Awaited::of(&to_payment, at(12 * 3600)), Awaited { after: Some(42) });
    let mut fresh = status();
    fresh.as_object_mut().unwrap().remove("transition");
    assert_eq!(Awaited::of(&group("double11", &fresh), NOW), Awaited { after: Some(0) });
}
