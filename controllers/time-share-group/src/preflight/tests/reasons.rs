//! Each reason of condition PreflightPassed, and who it is about.

use super::*;
use springtide_crds::reason::Reason;
use springtide_plumbing::workloads::template::Template;

fn row(place: usize, member: &str, reason: PreflightFailure) -> Failure {
    Failure { node: format!("n{place:03}").into(), pod: format!("{member}-{place:03}").into(), reason }
}

/// The only unit of a group fails for this reason, by a pod of this member.
fn fails(
    mut observed: Observed,
    of: impl Fn(&str, Level) -> Refusals,
    member: &str,
    reason: PreflightFailure,
) -> Preflight {
    let found = known(&mut observed, of);
    assert_eq!((found.units, found.passed, found.is_complete), (1, 0, true));
    assert_eq!(found.failures, [row(0, member, reason)]);
    assert_eq!(found.reason, PreflightPassedReason::Failed(reason));
    found
}

fn refuses(by: RefusedBy, words: &'static str) -> impl Fn(&str, Level) -> Refusals {
    move |_, level| (level == Level::Peak).then(|| (by, words.into()))
}

#[test]
fn each_unit_that_would_be_done_passes() {
    let found = known(&mut stage(3, json!({})), accepts);
    assert_eq!((found.units, found.passed, found.is_due, found.is_complete), (3, 3, true, true));
    assert_eq!((found.reason, found.failures, found.words), (PreflightPassedReason::AllUnits, vec![], None));
    assert_eq!((found.holds, found.wake, found.member.as_deref()), (false, None, Some("promo")));
}

#[test]
fn as_many_units_as_are_asked_for_are_enough() {
    let refuses_one =
        |uid: &str, _: Level| (uid == "promo-001").then(|| (RefusedBy::Admission, "denied".into()));
    for (percent, reason) in [
        (66, PreflightPassedReason::EnoughUnits),
        (67, PreflightPassedReason::Failed(PreflightFailure::DryRunRefused)),
    ] {
        let mut observed = stage(3, json!({"guards": {"preflight": {"requirePercent": percent}}}));
        let found = known(&mut observed, refuses_one);
        assert_eq!((found.passed, found.reason), (2, reason), "{percent} %");
        assert_eq!(found.failures, [row(1, "promo", PreflightFailure::DryRunRefused)]);
        assert_eq!(found.words.as_deref(), Some("denied"));
    }
}

#[test]
fn what_is_not_due_says_when_it_is() {
    let known = json!({"preflight": {"member": "promo", "completionTime": at(-90_000).to_string(), "units": 1, "passed": 1}});
    let observed = stage_of(1, json!({}), known, (json!({}), json!({})));
    let found = look(&observed, &to_promo(10_000), 0);
    assert_eq!((found.is_due, found.reason), (false, PreflightPassedReason::NotDue));
    assert_eq!((found.wake, found.questions), (Some(at(2800)), vec![]), "two hours before the switch");
    assert!(look(&observed, &to_promo(10_000), 2800).is_due);
    let profiles = profiles::all(&observed.group.spec, &observed.members).unwrap();
    let none = preflight(&observed, &profiles, None, at(0));
    assert_eq!((none.reason, none.is_due, none.holds), (PreflightPassedReason::NotDue, false, false));
}

#[test]
fn while_units_are_not_known_only_what_is_certain_is_said() {
    let observed = stage(2, json!({}));
    let found = look(&observed, &to_promo(0), 0);
    assert_eq!(
        (found.reason, found.is_complete, found.passed),
        (PreflightPassedReason::NotObserved, false, 0)
    );
    let mut half = stage(2, json!({}));
    answer(&mut half, &found.questions[..1], 0, refuses(RefusedBy::Admission, "denied"));
    let found = look(&half, &to_promo(0), 1);
    assert!(!found.is_complete);
    assert_eq!(
        found.reason,
        PreflightPassedReason::Failed(PreflightFailure::DryRunRefused),
        "99 % cannot be any more"
    );
}

#[test]
fn a_resize_that_the_server_refuses_is_told_in_its_words() {
    let words = "admission webhook \"policy\" denied the request";
    let found = fails(
        stage(1, json!({})),
        refuses(RefusedBy::Admission, words),
        "promo",
        PreflightFailure::DryRunRefused,
    );
    assert_eq!(found.words.as_deref(), Some(words));
    fails(
        stage(1, json!({})),
        refuses(RefusedBy::Ineligible, "old"),
        "promo",
        PreflightFailure::DryRunRefused,
    );
    let of_donor =
        |_: &str, level: Level| (level == Level::Valley).then(|| (RefusedBy::Admission, "no".into()));
    fails(stage(1, json!({})), of_donor, "pay", PreflightFailure::DryRunRefused);
}

#[test]
fn a_pod_that_its_node_has_no_room_for_fails_though_nobody_refuses_it() {
    // That of `pay` is at valley already, and pods of others have what it left.
    let small = crate::fixtures::sized("200m", "200m");
    let observed = stage_of(1, json!({}), json!({}), (small, json!({})));
    fails(observed, accepts, "promo", PreflightFailure::NodeDoesNotFit);
}

#[test]
fn a_pod_that_its_whole_node_is_too_small_for_fails_by_the_servers_word() {
    let words = "pods \"a\" is forbidden: node didn't have enough allocatable resources: cpu";
    let refused = refuses(RefusedBy::Ineligible, words);
    fails(stage(1, json!({})), refused, "promo", PreflightFailure::NodeDoesNotFit);
}

#[test]
fn only_as_many_pods_pass_as_a_node_has_room_for() {
    let mut observed = stage(1, json!({}));
    let one = observed.members[1].pods[0].clone();
    for place in 1..4 {
        let mut more = one.clone();
        more.pod = pod(&format!("promo-{place:03}"), "n000", json!({}));
        observed.members[1].pods.push(more);
    }
    fill(&mut observed, Demand { cpu: 2 * 3800 + 1, memory: 0 });
    let found = known(&mut observed, accepts);
    assert_eq!((found.units, found.passed), (4, 3), "one for the pod that shrinks, and two beside");
    assert_eq!(found.reason, PreflightPassedReason::Failed(PreflightFailure::NodeDoesNotFit));
}

fn with_quota(order: &str, quota: Quota) -> Observed {
    let mut observed = stage(1, json!({"switch": {"order": order}}));
    for member in &mut observed.members {
        member.quotas = vec![quota.clone()];
    }
    observed
}

#[test]
fn a_quota_without_room_for_both_pods_fails_unless_one_shrinks_first() {
    let small = || Quota { requests_cpu: Some(3799), ..Quota::default() };
    for order in ["Pipelined", "ClaimFirst"] {
        fails(with_quota(order, small()), accepts, "promo", PreflightFailure::QuotaExceeded);
    }
    let enough = Quota { requests_cpu: Some(3800), ..Quota::default() };
    assert_eq!(known(&mut with_quota("Pipelined", enough), accepts).reason, PreflightPassedReason::AllUnits);
    let refused = refuses(RefusedBy::Quota, "exceeded quota: q");
    let found = known(&mut with_quota("ShrinkFirst", small()), &refused);
    assert_eq!(
        found.reason,
        PreflightPassedReason::AllUnits,
        "the server counts both, and they are not there at a time"
    );
    let mut elsewhere = with_quota("ShrinkFirst", small());
    elsewhere.members[0].namespace = "bank".into();
    fails(elsewhere, accepts, "promo", PreflightFailure::QuotaExceeded);
}

#[test]
fn a_quota_that_only_the_server_knows_fails_by_its_word() {
    let scoped = Quota { is_scoped: true, requests_cpu: Some(0), ..Quota::default() };
    assert_eq!(
        known(&mut with_quota("Pipelined", scoped.clone()), accepts).reason,
        PreflightPassedReason::AllUnits
    );
    let refused = || refuses(RefusedBy::Quota, "exceeded quota: q");
    fails(with_quota("Pipelined", scoped), refused(), "promo", PreflightFailure::QuotaExceeded);
    fails(stage(1, json!({})), refused(), "promo", PreflightFailure::QuotaExceeded);
    let range = refuses(RefusedBy::Admission, "maximum cpu usage per Container is 1, but limit is 4");
    fails(stage(1, json!({})), range, "promo", PreflightFailure::QuotaExceeded);
}

#[test]
fn quotas_of_limits_count_limits_alone() {
    let quota = |free: i64| Quota { limits_cpu: Some(free), ..Quota::default() };
    assert_eq!(
        known(&mut with_quota("Pipelined", quota(0)), accepts).reason,
        PreflightPassedReason::AllUnits
    );
    let limited = |free: i64| {
        let limits =
            json!({"spec": {"containers": [{"name": "app", "resources": {"limits": {"cpu": "200m"}}}]}});
        let mut observed = stage_of(1, json!({}), json!({}), (json!({}), limits.clone()));
        let workload = observed.members[1].workload.as_mut().unwrap();
        let mut template = workload.template.value();
        overlay(&mut template, limits);
        workload.template = Template::shared(&template);
        for member in &mut observed.members {
            member.quotas = vec![quota(free)];
        }
        observed
    };
    assert_eq!(known(&mut limited(3800), accepts).reason, PreflightPassedReason::AllUnits);
    fails(limited(3799), accepts, "promo", PreflightFailure::QuotaExceeded);
}

#[test]
fn a_pod_of_another_class_of_service_fails_and_is_not_asked_for() {
    let guaranteed = json!({"status": {"qosClass": "Guaranteed"}});
    let observed = stage_of(1, json!({}), json!({}), (json!({}), guaranteed.clone()));
    fails(observed, accepts, "promo", PreflightFailure::QoSClassWouldChange);
    let donor = stage_of(1, json!({}), json!({}), (guaranteed, json!({})));
    assert!(look(&donor, &to_promo(0), 0).questions.is_empty());
    fails(donor, accepts, "pay", PreflightFailure::QoSClassWouldChange);
    let refused = refuses(RefusedBy::QosClass, "Pod QOS Class may not change as a result of resizing");
    fails(stage(1, json!({})), refused, "promo", PreflightFailure::QoSClassWouldChange);
}

#[test]
fn a_pod_that_would_restart_fails() {
    let policy = |resource: &str| {
        json!({"spec": {"containers": [{"name": "app", "resizePolicy": [
            {"resourceName": resource, "restartPolicy": "RestartContainer"},
        ]}]}})
    };
    let observed = stage_of(1, json!({}), json!({}), (json!({}), policy("cpu")));
    fails(observed, accepts, "promo", PreflightFailure::ResizeNeedsRestart);
    let mut of_memory = stage_of(1, json!({}), json!({}), (json!({}), policy("memory")));
    assert_eq!(known(&mut of_memory, accepts).reason, PreflightPassedReason::AllUnits, "its memory stays");
}

#[test]
fn memory_of_which_nobody_knows_the_use_fails() {
    let moves = json!({"members": [{"name": "pay", "memory": "Move", "containers": [{"name": "app", "peak": {"memory": "4Gi"}}]}]});
    let large = json!({
        "spec": {"containers": [{"name": "app", "resources": {"requests": {"memory": "4Gi"}}}]},
        "status": {"containerStatuses": [{"name": "app", "resources": {"requests": {"memory": "4Gi"}}}]},
    });
    let made = || stage_of(1, moves.clone(), json!({}), (large.clone(), json!({})));
    fails(made(), accepts, "pay", PreflightFailure::NoUsageData);
    for used in [1, 1 << 40] {
        let mut observed = made();
        let working_set = [("app".into(), used)].into();
        observed.members[0].pods[0].evidence.usage = Some(Usage { at: at(0), working_set });
        let found = known(&mut observed, accepts);
        assert_eq!(found.reason, PreflightPassedReason::AllUnits, "cpu moves whatever is used");
    }
}

#[test]
fn every_reason_for_a_failure_is_counted() {
    assert_eq!(PreflightFailure::all(), FAILURES);
}

#[test]
fn the_reason_of_most_units_is_told_and_the_first_rows_by_node_and_name() {
    let mut observed = stage(8, json!({}));
    let restarting = json!({"spec": {"containers": [{"name": "app", "resizePolicy": [
        {"resourceName": "cpu", "restartPolicy": "RestartContainer"},
    ]}]}});
    for place in [0, 7] {
        let name = format!("promo-{place:03}");
        observed.members[1].pods[place].pod = pod(&name, &format!("n{place:03}"), restarting.clone());
    }
    let found = known(&mut observed, refuses(RefusedBy::Admission, "no"));
    assert_eq!((found.units, found.passed), (8, 0));
    assert_eq!(found.reason, PreflightPassedReason::Failed(PreflightFailure::DryRunRefused));
    let rows = (0..PREFLIGHT_ROWS_MAX).map(|place| {
        let reason =
            if place == 0 { PreflightFailure::ResizeNeedsRestart } else { PreflightFailure::DryRunRefused };
        row(place, "promo", reason)
    });
    assert_eq!(found.failures, rows.collect::<Vec<_>>());
}

#[test]
fn a_switch_to_nobody_asks_those_that_shrink() {
    let mut observed = stage(2, json!({}));
    let heading = Heading { id: 7, from: Some(PAY), to: None, is_return: false };
    let upcoming = Upcoming { heading, start: at(0) };
    let first = look(&observed, &upcoming, 0);
    assert_eq!(first.member, None);
    assert!(
        asked(&first.questions)
            .iter()
            .all(|(uid, level)| uid.0.starts_with("pay") && *level == Level::Valley)
    );
    answer(&mut observed, &first.questions, 0, accepts);
    let second = look(&observed, &upcoming, 1);
    assert_eq!((second.units, second.passed, second.reason), (2, 2, PreflightPassedReason::AllUnits));
}

#[test]
fn only_hold_makes_the_switch_wait_and_only_until_enough_is_known() {
    for (policy, holds) in [("Report", false), ("Hold", true)] {
        let mut observed = stage(1, json!({"guards": {"preflight": {"onFailure": policy}}}));
        let first = look(&observed, &to_promo(0), 0);
        assert_eq!((first.holds, first.is_complete), (holds, false), "{policy}: not known yet");
        answer(&mut observed, &first.questions, 0, accepts);
        assert!(!look(&observed, &to_promo(0), 1).holds, "{policy}: passed");
        answer(&mut observed, &first.questions, 0, refuses(RefusedBy::Admission, "no"));
        let failed = look(&observed, &to_promo(0), 1);
        assert_eq!((failed.holds, failed.is_complete), (holds, true), "{policy}: failed");
    }
}

#[test]
fn a_new_process_takes_the_stored_word_until_it_has_asked_again() {
    let stored = |passed: u32, over: Value| {
        let mut preflight = json!({
            "member": "promo", "completionTime": at(-60).to_string(), "units": 2, "passed": passed,
            "failures": [{"node": "n001", "pod": "promo-001", "reason": "QuotaExceeded"}],
        });
        overlay(&mut preflight, over);
        let spec = json!({"guards": {"preflight": {"onFailure": "Hold"}}});
        stage_of(2, spec, json!({"preflight": preflight}), (json!({}), json!({})))
    };
    let observed = stored(1, json!({}));
    let found = look(&observed, &to_promo(0), 0);
    assert_eq!((found.units, found.passed, found.is_complete, found.holds), (2, 1, true, true));
    assert_eq!(found.reason, PreflightPassedReason::Failed(PreflightFailure::QuotaExceeded));
    assert_eq!(found.failures, [row(1, "promo", PreflightFailure::QuotaExceeded)]);
    assert_eq!(found.questions.len(), 4, "it asks all the same");
    let passed = look(&stored(2, json!({"failures": []})), &to_promo(0), 0);
    assert_eq!((passed.passed, passed.holds, passed.reason), (2, false, PreflightPassedReason::AllUnits));
    for (what, other) in [
        ("of another switch", json!({"member": "games"})),
        ("of the one before", json!({"completionTime": at(-89_001).to_string()})),
        ("too old", json!({"completionTime": at(-7201).to_string()})),
        ("not done", json!({"completionTime": null})),
    ] {
        let found = look(&stored(2, other), &to_promo(0), 0);
        assert_eq!((found.is_complete, found.holds, found.passed), (false, true, 0), "{what}");
    }
    let mut answered = stored(1, json!({}));
    answer(&mut answered, &found.questions, 0, accepts);
    let found = look(&answered, &to_promo(0), 1);
    assert_eq!(
        (found.passed, found.reason),
        (2, PreflightPassedReason::AllUnits),
        "what is known goes before"
    );
}

#[test]
fn what_was_found_is_told_until_the_next_look() {
    let preflight =
        json!({"member": "promo", "completionTime": at(-60).to_string(), "units": 2, "passed": 2});
    let observed = stage_of(2, json!({}), json!({"preflight": preflight}), (json!({}), json!({})));
    let found = look(&observed, &to_promo(50_000), 0);
    assert_eq!(
        (found.is_due, found.is_complete, found.reason),
        (false, true, PreflightPassedReason::AllUnits)
    );
    assert_eq!((found.units, found.passed, found.questions), (2, 2, vec![]));
    let changed = stage_of(
        2,
        json!({}),
        json!({"preflight": preflight, "observedGeneration": 0}),
        (json!({}), json!({})),
    );
    let found = look(&changed, &to_promo(50_000), 0);
    assert_eq!(
        (found.is_due, found.is_complete, found.questions.len()),
        (true, false, 4),
        "the group has changed"
    );
}
