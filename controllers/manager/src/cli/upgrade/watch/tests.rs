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

#[test]
fn only_what_no_further_attempt_changes_ends_a_watch() {
    let api = |code| {
        let status = kube::core::Status { code, message: "no".to_owned(), ..kube::core::Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    };
    for code in [401, 403, 404] {
        assert_eq!(refusal(&api(code)).as_deref(), Some("no"), "{code}");
    }
    for code in [410, 429, 500, 503] {
        assert_eq!(refusal(&api(code)), None, "{code}");
    }
    assert_eq!(refusal(&watcher::Error::NoResourceVersion), None);
}

#[test]
fn the_last_words_say_how_it_ended_and_where_there_is_more() {
    let key = ObjectKey::new("team-a", "web");
    let last = Shown::of(&says("Held", None));
    let said = farewell(&key, Ending::TimeUp, &last, 90);
    let expected = "\
InPlaceUpgrade team-a/web: not at its end after 90s; it goes on without this command
Held: 1/3 pods, step 1/2, 1 blocked
see: springtide explain ipu/web -n team-a";
    assert_eq!(said, expected);
    assert!(!farewell(&key, Ending::Succeeded, &last, 90).contains("see:"));
}

#[test]
fn each_ending_has_the_documented_exit_code() {
    let page = include_str!("../../../../../../docs/cli.md");
    for (ending, code, word) in [
        (Ending::Succeeded, 0_u8, "up to date"),
        (Ending::TimeUp, 2, "`--timeout` is over"),
        (Ending::Stalled, 3, "something needs a person"),
        (Ending::RolledBack, 4, "rolled back"),
        (Ending::Interrupted, 130, "Ctrl-C"),
    ] {
        assert_eq!(format!("{:?}", ExitCode::from(ending)), format!("{:?}", ExitCode::from(code)));
        let row = page.lines().find(|line| line.starts_with(&format!("| {code} |")) && line.contains(word));
        assert!(row.is_some(), "docs/cli.md has no row of {code} with {word}");
    }
}
