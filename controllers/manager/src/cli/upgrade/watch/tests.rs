use super::*;
use crate::cli::upgrade::fixtures::{HASH, condition as told_as, status};
use serde_json::json;

fn read(status: Value) -> InPlaceUpgradeStatus {
    serde_json::from_value(status).unwrap()
}

/// A status of the wish [`HASH`] with this summary.
fn says(ready: &str, stalled: Option<&str>) -> InPlaceUpgradeStatus {
    let mut conditions = vec![told_as("Ready", "False", ready, "")];
    conditions.extend(stalled.map(|reason| told_as("Stalled", "True", reason, "")));
    let mut said = status();
    said["conditions"] = json!(conditions);
    read(said)
}

fn awaited(wish: Option<&str>, before: &str) -> Awaited {
    Awaited { wish: wish.map(str::to_owned), before: before.to_owned() }
}

#[test]
fn a_run_ends_when_the_manager_says_so_of_the_object_as_it_is_now() {
    let of_wish = awaited(Some(HASH), "000000000000");
    for (ready, stalled, ending) in [
        ("Upgrading", None, None),
        ("Held", None, None),
        ("RollingBack", None, None),
        ("UpToDate", None, Some(Ending::Succeeded)),
        ("RolledBack", Some("RolledBack"), Some(Ending::RolledBack)),
        ("Blocked", Some("PodsBlocked"), Some(Ending::Stalled)),
        ("Failed", Some("HealthFailed"), Some(Ending::Stalled)),
    ] {
        assert_eq!(of_wish.end(2, &says(ready, stalled)), ending, "{ready}");
        assert_eq!(of_wish.end(3, &says(ready, stalled)), None, "{ready}, before the last edit");
    }
}

#[test]
fn what_was_said_before_the_manager_saw_the_workload_is_no_end() {
    let done = says("UpToDate", None);
    // The template has another wish than the one that the status is about.
    assert_eq!(awaited(Some("111111111111"), HASH).end(2, &done), None);
    assert_eq!(awaited(Some(HASH), HASH).end(2, &done), Some(Ending::Succeeded));
    // The template was changed once more meanwhile.
    assert_eq!(awaited(Some("111111111111"), "000000000000").end(2, &done), Some(Ending::Succeeded));
    // Nobody knows what the template says.
    assert_eq!(awaited(None, HASH).end(2, &done), Some(Ending::Succeeded));
}
