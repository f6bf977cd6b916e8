//! Windows that follow a TimeShareGroup.

use super::*;
use crate::peaks::{GroupProblem, PeakProblem, peaks_of};
use serde_json::{Value, json};
use springtide_crds::batch_queue::StalledReason;
use springtide_plumbing::time_share::TimeShareGroupView;

const FOLLOWING: &str = "
- name: online
  fromTimeShareGroup: {name: double11, member: payment}
  leadSeconds: 300
  actions: [{tier: BestEffort, action: Drain}]
  resume: {rampSeconds: 600, jitterSeconds: 0}
";

/// In which payment has noon, after ten minutes of lead, and promo has the rest.
fn group(over: impl FnOnce(&mut Value)) -> TimeShareGroupView {
    let size = || json!({"cpu": "1"});
    let member = |name: &str| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
        let containers = json!([{"name": "app", "peak": size(), "valley": size()}]);
        json!({"name": name, "targetRef": target, "containers": containers})
    };
    let window = json!({"start": "12:00", "end": "14:00", "timeZone": "UTC"});
    let mut group = json!({
        "metadata": {"namespace": "shop", "name": "double11", "uid": "g", "resourceVersion": "1", "generation": 1},
        "spec": {
            "members": [member("payment"), member("promo")],
            "schedule": {
                "defaultMember": "promo", "windows": [{"name": "noon", "member": "payment", "window": window}],
            },
        },
    });
    over(&mut group);
    serde_json::from_value(group).unwrap()
}

fn following(windows: &str, group: Option<&TimeShareGroupView>) -> Peaks {
    peaks(windows, None).following(|named| peaks_of(named, group, true))
}

fn member(name: &str) -> String {
    FOLLOWING.replace("payment", name)
}

#[test]
fn batch_work_has_gone_when_the_lead_of_the_groups_window_begins() {
    let peaks = following(FOLLOWING, Some(&group(|_| ())));
    for (now, phase) in [
        ("2026-05-04T11:44:59Z", Phase::Idle),
        ("2026-05-04T11:45:00Z", Phase::Draining),
        ("2026-05-04T11:49:59Z", Phase::Draining),
        ("2026-05-04T11:50:00Z", Phase::Closed),
        ("2026-05-04T13:59:59Z", Phase::Closed),
        ("2026-05-04T14:00:00Z", Phase::Ramping),
        ("2026-05-04T14:10:00Z", Phase::Idle),
    ] {
        assert_eq!(at(&peaks, now).phase, phase, "{now}");
    }
    let draining = at(&peaks, "2026-05-04T11:45:00Z");
    let start = Some(time("2026-05-04T11:50:00Z"));
    assert_eq!(draining.tier(Tier::BestEffort).drain.unwrap().start, start);
    assert_eq!(draining.ahead[0].start, start.unwrap());
    let next = at(&peaks, "2026-05-04T11:00:00Z").next.unwrap();
    assert_eq!((next.occurrence.start, next.occurrence.end), (start.unwrap(), time("2026-05-04T14:00:00Z")));
    assert_eq!(at(&peaks, "2026-05-04T11:45:00Z").wake, start);
}

#[test]
fn an_override_of_the_group_closes_at_once_and_gives_pods_their_whole_grace() {
    let over = json!({"member": "payment", "untilTime": "2026-05-04T10:00:00Z", "reason": "INC-1"});
    let forced = group(|group| group["spec"]["override"] = over);
    let peaks = following(FOLLOWING, Some(&forced));
    let state = at(&peaks, "2026-05-04T09:30:00Z");
    assert_eq!((state.phase, state.tier(Tier::BestEffort).action), (Phase::Closed, Action::Drain));
    assert_eq!(state.tier(Tier::BestEffort).drain.unwrap().start, None);
    assert_eq!(state.ahead, [], "nobody is late");
    let active = state.active.unwrap();
    assert_eq!((active.start, active.end), (None, time("2026-05-04T10:00:00Z")));
    assert_eq!(state.wake, Some(active.end));
    assert_eq!(at(&peaks, "2026-05-04T10:00:00Z").phase, Phase::Ramping);
    // It keeps the other members from their peaks.
    let other = following(&member("promo"), Some(&forced));
    assert_eq!(at(&other, "2026-05-04T09:30:00Z").phase, Phase::Idle);
}

#[test]
fn the_peaks_of_all_members_count_where_none_is_named_and_what_one_has_by_default_is_none() {
    let evening = json!({"start": "18:00", "end": "19:00", "timeZone": "UTC"});
    let both = group(|group| {
        let windows = group["spec"]["schedule"]["windows"].as_array_mut().unwrap();
        windows.push(json!({"name": "evening", "member": "promo", "window": evening}));
    });
    let closed = |peaks: &Peaks| {
        ["2026-05-04T12:30:00Z", "2026-05-04T16:00:00Z", "2026-05-04T18:30:00Z"]
            .map(|now| at(peaks, now).phase == Phase::Closed)
    };
    let all = FOLLOWING.replace(", member: payment", "");
    assert_eq!(closed(&following(&all, Some(&both))), [true, false, true]);
    assert_eq!(closed(&following(FOLLOWING, Some(&both))), [true, false, false]);
    assert_eq!(closed(&following(&member("promo"), Some(&both))), [false, false, true]);
    assert_eq!(closed(&following(&member("promo"), Some(&group(|_| ())))), [false; 3]);
}

#[test]
fn what_is_not_known_of_a_group_holds_and_names_the_remedy() {
    let well = group(|_| ());
    let broken = group(|group| {
        group["spec"]["schedule"]["windows"][0]["window"]["timeZone"] = json!("Mars/Olympus");
    });
    let (not_found, invalid) = (StalledReason::TimeShareGroupNotFound, StalledReason::InvalidWindow);
    for (windows, group, reason, words) in [
        (FOLLOWING.to_owned(), None, not_found, "there is no TimeShareGroup double11 with member payment"),
        (
            member("stranger"),
            Some(&well),
            not_found,
            "no member stranger in TimeShareGroup double11; name one of payment, promo",
        ),
        (
            FOLLOWING.to_owned(),
            Some(&broken),
            invalid,
            "TimeShareGroup double11: schedule.windows[noon].window.timeZone",
        ),
    ] {
        let peaks = following(&windows, group);
        let problems: Vec<&PeakProblem> = peaks.problems().collect();
        let [problem] = &problems[..] else { panic!("one problem") };
        assert_eq!(problem.reason(), reason);
        let message = problem.to_string();
        assert!(message.starts_with("peak window online: ") && message.contains(words), "{message}");
        let state = at(&peaks, "2026-05-04T12:30:00Z");
        assert_eq!(state.reason, PeakWindowActiveReason::Unresolved);
        assert!(!state.tier(Tier::BestEffort).may_start(), "{message}");
        let found: Vec<_> = peaks.problems_with(|named| peaks_of(named, group, true)).collect();
        assert_eq!(found, [PeakProblem::clone(problem)]);
    }
}

#[test]
fn a_group_of_another_namespace_is_followed_by_grant_alone_and_without_one_not_told_of() {
    let far = FOLLOWING.replace("name: double11", "name: double11, namespace: shop");
    let well = group(|_| ());
    let peaks = |group, is_granted| peaks(&far, None).following(|named| peaks_of(named, group, is_granted));
    assert_eq!(peaks(Some(&well), true).problems().next(), None);
    let refused = |group| peaks(group, false).problems().next().cloned();
    let not_granted = GroupProblem::NotGranted { namespace: "shop".to_owned(), name: "double11".to_owned() };
    let expected = PeakProblem::TimeShareGroup { name: "online".to_owned(), problem: not_granted };
    assert_eq!((refused(Some(&well)), refused(None)), (Some(expected.clone()), Some(expected)));
}

#[test]
fn an_entry_that_is_not_whole_follows_nobody() {
    let unclear = FOLLOWING.replace("action: Drain", "action: Degrade");
    let peaks = following(&unclear, Some(&group(|_| ())));
    let problems: Vec<String> = peaks.problems().map(ToString::to_string).collect();
    assert_eq!(problems, ["peak window online: action Degrade needs percent, 1 to 99"]);
    assert_eq!(peaks.groups().count(), 0);
}
