//! The figures and rows of a status, and that it is small whatever is in it.

use super::{says, status_of, stored, told};
use crate::fixtures::{at, fill, on_stage, overlay, pod, serving, sized, switching};
use crate::observed::{Member, MemberPod, Observed};
use crate::plan::fixtures::{at_pay, both, found, to_pay};
use crate::sizes::Demand;
use serde_json::{Value, json};
use springtide_crds::common::{REASON_MAX_LENGTH, whole_seconds};
use springtide_crds::reason::Reason;
use springtide_crds::time_share_group::{
    COUNT_MAX, LAST_TRANSITIONS_MAX, MAX_DURATION_SECONDS, MAX_TRANSITION_ID, MEMBER_NAME_MAX_LENGTH,
    MEMBERS_MAX, MESSAGE_MAX_BYTES, NAME_MAX_LENGTH, PREFLIGHT_ROWS_MAX, STUCK_MAX, StalledReason,
    StuckReason, TimeShareGroupStatus,
};
use springtide_plumbing::plan::MAX_STATUS_BYTES;
use springtide_plumbing::projection::Projection;

#[test]
fn members_are_told_by_what_kubelets_report() {
    let kept = both(sized("4", "4"), serving("false"));
    let pay = [on_stage(), sized("4", "200m"), kept];
    let mut observed = found(at_pay(json!({})), &pay, &[json!({})]);
    observed.members[0].pods[1].evidence.is_upgrading = true;
    let status = status_of(&observed);
    let pay = &status.members[0];
    assert_eq!((pay.name.as_str(), pay.workload_uid.as_str(), pay.pods), ("pay", "pay", 3));
    assert_eq!((pay.at_peak, pay.at_valley, pay.traffic_on, pay.upgrading), (2, 0, 1, 1));
    // promo has a pod on n1 alone.
    assert_eq!(pay.unpaired, 2);
    let promo = &status.members[1];
    assert_eq!((promo.pods, promo.at_peak, promo.at_valley, promo.traffic_on), (1, 0, 1, 0));
}

#[test]
fn a_removed_member_stays_told_until_its_pods_are_let_go() {
    let removed = |over: Value| {
        let mut observed = found(at_pay(json!({})), &[on_stage()], &[json!({})]);
        let promo = observed.members[1].workload.clone();
        let pod = MemberPod { pod: pod("games-1", "n1", over), evidence: Default::default() };
        let mut games =
            Member { workload: promo, pods: vec![pod], ..Member::of("games".into(), "shop".into()) };
        if let Some(workload) = &mut games.workload {
            workload.uid = springtide_plumbing::key::Uid("games".into());
        }
        observed.removed = vec![games];
        observed
    };
    let large = status_of(&removed(on_stage()));
    let games = large.members.last().unwrap();
    assert_eq!(
        (games.name.as_str(), games.workload_uid.as_str(), games.pods, games.traffic_on),
        ("games", "games", 1, 1)
    );
    assert_eq!(status_of(&removed(json!({}))).members.len(), 2);
}

#[test]
fn the_uid_of_a_workload_that_is_gone_stays_known() {
    let observed = found(at_pay(json!({})), &[], &[]);
    let mut observed = stored(&observed, status_of(&observed));
    observed.members[0].workload = None;
    observed.members[0].missing_since = Some(at(0));
    assert_eq!(status_of(&observed).members[0].workload_uid, "pay", "it is not served, and stays told");
}

#[test]
fn what_the_nodes_save_is_told_as_quantities() {
    let union = status_of(&found(at_pay(json!({})), &[on_stage()], &[json!({})])).union.unwrap();
    let json = serde_json::to_value(&union).unwrap();
    assert_eq!(json["budget"]["cpu"], "4200m");
    assert_eq!((&json["sumOfPeaks"]["cpu"], &json["saved"]["cpu"]), (&json!("8"), &json!("3800m")));
    assert_eq!((union.nodes, union.nodes_over_budget), (1, 0));
}

#[test]
fn pods_that_did_not_come_through_are_told_those_that_are_stuck_longest_first() {
    let mark = |since: i64, id: u32, reason: &str| {
        json!({"status": {"conditions": [{
            "type": "springtide.dev/time-share", "status": "False", "reason": reason,
            "message": format!("transition={id}"), "lastTransitionTime": at(since).to_string(),
        }]}})
    };
    let pay = [mark(60, 7, "Deferred"), mark(40, 7, "NotReady"), mark(20, 6, "NotReady"), json!({})];
    let mut observed = found(to_pay(json!({})), &pay, &[]);
    fill(&mut observed, Demand::ZERO);
    let status = status_of(&observed);
    let rows: Vec<_> = status.stuck.iter().map(|row| (row.pod.as_str(), row.reason)).collect();
    // Whose node has no room waits since the switch began; the mark of another switch is none.
    let marked = [("pay-2", StuckReason::NotReady), ("pay-1", StuckReason::Deferred)];
    assert!(rows.ends_with(&marked), "{rows:?}");
    assert!(rows.iter().all(|(pod, reason)| *pod != "pay-3" || *reason == StuckReason::Deferred), "{rows:?}");
    assert_eq!(status.stuck.last().map(|row| row.since_time.clone()), Some(whole_seconds(at(60))));
}

#[test]
fn the_next_switch_and_who_is_wished_for_are_told_and_kept_while_the_schedule_cannot_be_followed() {
    let night = json!({"spec": {"schedule": {"windows": [{"name": "night", "member": "promo", "leadSeconds": 600,
        "window": {"cron": "0 0 * * *", "durationSeconds": 3600, "timeZone": "UTC"}}]}}});
    let status = status_of(&found(at_pay(night), &[on_stage()], &[json!({})]));
    assert_eq!(status.desired_member.as_deref(), Some("pay"));
    let next = status.next_transition.clone().unwrap();
    assert_eq!(
        (next.member.as_deref(), next.start_time.0.as_second() % 86_400),
        (Some("promo"), 86_400 - 600)
    );
    let broken = json!({"spec": {"schedule": {"windows": [{"name": "night", "member": "promo",
        "window": {"cron": "0 0 * * *", "durationSeconds": 3600, "timeZone": "Nowhere"}}]}}});
    let observed = stored(&found(at_pay(broken), &[on_stage()], &[json!({})]), status);
    let status = status_of(&observed);
    assert_eq!((status.desired_member.as_deref(), status.next_transition), (Some("pay"), None));
}

#[test]
fn what_a_switch_was_taken_back_for_stays_told_on_the_way_back() {
    let row = json!([{"pod": "pay-9", "node": "n9", "reason": "Infeasible", "sinceTime": at(5).to_string()}]);
    let mut status = switching(8, Some("pay"), Some("promo"));
    overlay(&mut status, json!({"transition": {"cause": "Rollback"}, "stuck": row}));
    let back = found(json!({"status": status}), &[json!({})], &[on_stage()]);
    assert_eq!(status_of(&back).stuck[0].pod, "pay-9");
    let forth = found(to_pay(json!({"status": {"stuck": row}})), &[on_stage()], &[json!({})]);
    assert_eq!(status_of(&forth).stuck, []);
}

#[test]
fn in_the_same_situation_nothing_is_new() {
    let observed = found(at_pay(json!({})), &[on_stage()], &[json!({})]);
    let first = status_of(&observed);
    assert_eq!(status_of(&stored(&observed, first.clone())), first);
}

#[test]
fn a_rollback_of_an_older_spec_needs_nobody() {
    let conditions = json!([told("Stalled", "True", "RolledBack", "")]);
    let mut status = switching(8, Some("pay"), Some("promo"));
    overlay(
        &mut status,
        json!({
            "activeMember": "promo", "conditions": conditions,
            "transition": {"cause": "Rollback", "completionTime": at(50).to_string()},
        }),
    );
    let object = json!({"metadata": {"generation": 2}, "spec": {"schedule": {"defaultMember": "pay"}}, "status": status});
    assert_eq!(says::<StalledReason>(&found(object, &[json!({})], &[on_stage()])), None);
}

/// The largest status that there can be: every text and every list at its bound.
fn largest(of: &Observed) -> TimeShareGroupStatus {
    let mut status = serde_json::to_value(status_of(of)).unwrap();
    let (member, name) = ("m".repeat(MEMBER_NAME_MAX_LENGTH), "n".repeat(NAME_MAX_LENGTH));
    let (time, uid, amount) = (at(0).to_string(), "u".repeat(36), "9".repeat(22));
    let amounts = json!({"cpu": amount, "memory": amount});
    let counts: Value =
        ["total", "done", "inFlight", "deferred", "infeasible", "skipped", "reversed", "stuck"]
            .map(|count| (count.to_owned(), json!(COUNT_MAX)))
            .into_iter()
            .collect::<serde_json::Map<_, _>>()
            .into();
    let rows = |row: Value, count: usize| Value::Array(vec![row; count]);
    let whole = json!({
        "observedGeneration": 1_000_000_000,
        "activeMember": member,
        "desiredMember": member,
        "nextTransition": {"member": member, "startTime": time},
        "transition": {
            "id": MAX_TRANSITION_ID, "from": member, "to": member, "cause": "Rollback", "startTime": time,
            "completionTime": time, "step": 10, "holdUntilTime": time, "units": counts, "nudges": COUNT_MAX,
        },
        "members": rows(json!({
            "name": member, "workloadUid": uid, "pods": COUNT_MAX, "atPeak": COUNT_MAX, "atValley": COUNT_MAX,
            "trafficOn": COUNT_MAX, "unpaired": COUNT_MAX, "upgrading": COUNT_MAX,
        }), MEMBERS_MAX),
        "union": {
            "nodes": COUNT_MAX, "nodesOverBudget": COUNT_MAX, "budget": amounts, "sumOfPeaks": amounts, "saved": amounts,
        },
        "preflight": {
            "member": member, "completionTime": time, "units": COUNT_MAX, "passed": COUNT_MAX,
            "failures": rows(json!({"node": name, "pod": name, "reason": "QoSClassWouldChange"}), PREFLIGHT_ROWS_MAX),
        },
        "lastTransitions": rows(json!({
            "id": MAX_TRANSITION_ID, "to": member, "cause": "Rollback", "completionTime": time,
            "durationSeconds": MAX_DURATION_SECONDS, "units": COUNT_MAX, "skipped": COUNT_MAX, "nudges": COUNT_MAX,
            "result": "RolledBack",
        }), LAST_TRANSITIONS_MAX),
        "stuck": rows(json!({"pod": name, "node": name, "reason": "DeadlineExceeded", "sinceTime": time}), STUCK_MAX),
    });
    for (field, value) in whole.as_object().unwrap() {
        status[field] = value.clone();
    }
    let mut status: TimeShareGroupStatus = serde_json::from_value(status).unwrap();
    for condition in &mut status.conditions {
        condition.reason = "r".repeat(REASON_MAX_LENGTH);
        condition.message = "m".repeat(MESSAGE_MAX_BYTES);
    }
    status
}

#[test]
fn a_status_has_at_most_ten_kilobytes_whatever_is_in_it() {
    // One that needs a person has as many conditions as there can be at a time.
    let mut observed = found(at_pay(json!({})), &[on_stage()], &[json!({})]);
    observed.excess = Some("it is one too many".to_owned());
    let status = largest(&observed);
    assert!(status.conditions.iter().any(|found| found.type_ == StalledReason::CONDITION));
    let bytes = serde_json::to_string(&status).unwrap().len();
    assert!(bytes <= MAX_STATUS_BYTES, "{bytes}");
    assert!(bytes > MAX_STATUS_BYTES * 9 / 10, "it is no large one: {bytes}");
}

#[test]
fn names_that_are_long_are_cut_and_rows_are_few() {
    let long = "p".repeat(253);
    let pay = vec![json!({}); 30];
    let mut observed = found(at_pay(json!({})), &pay, &[]);
    for found in &mut observed.members[0].pods {
        let over = json!({"metadata": {"uid": found.pod.meta().uid}});
        let node = format!("{}-{long}", found.pod.node.as_deref().unwrap_or_default());
        found.pod = pod(&long, &node[..253], over);
    }
    let nodes = observed.members[0].pods.iter().filter_map(|found| found.pod.node.clone());
    observed.nodes = nodes.map(|name| (name, Default::default())).collect();
    let status = status_of(&observed);
    assert!(status.stuck.len() <= STUCK_MAX && !status.stuck.is_empty(), "{:?}", status.stuck);
    assert!(
        status.stuck.iter().all(|row| row.pod.len() <= NAME_MAX_LENGTH && row.node.len() <= NAME_MAX_LENGTH)
    );
    assert!(status.conditions.iter().all(|found| found.message.len() <= MESSAGE_MAX_BYTES));
}
