//! Jobs with a BatchTaskProfile.

use super::*;
use crate::profiles::learned::{ContainerRun, Run};
use crate::profiles::status::{UsageApi, next};
use crate::profiles::usage::Usage;

/// A job of one task that leaves its requests to its profile.
fn recurring(name: &str, mode: &str) -> Arc<JobView> {
    wide(name, mode, 1)
}

/// The same of so many tasks.
fn wide(name: &str, mode: &str, tasks: u32) -> Arc<JobView> {
    let containers = json!([{"name": "main", "image": "app"}]);
    decoded(json!({"metadata": meta(name), "spec": {
        "completions": tasks, "parallelism": tasks,
        "profile": {"key": "etl", "mode": mode}, "template": {"spec": {"containers": containers}},
    }}))
}

/// The profile after twenty runs that used half a core, as the manager has stored it.
fn learned() -> Value {
    let profile = |status: Value| json!({"metadata": meta("etl"), "spec": {"percentile": 90, "marginPercent": 10}, "status": status});
    let usage = Usage { cpu: Some(500), memory: None };
    let container = ContainerRun { name: "main".into(), usage, killed_at: None };
    let run = |second| Run {
        finished: NOW - jiff::SignedDuration::from_secs(second),
        seconds: Some(40.0),
        containers: vec![container.clone()],
    };
    let runs: Vec<Run> = (0..20).rev().map(run).collect();
    let stored: Arc<ProfileView> = decoded(profile(json!({})));
    profile(json!(next(&stored, &runs, UsageApi::Served, NOW)))
}

/// The profile edited: another generation, which the manager has not seen yet.
fn edited(spec: Value) -> Arc<ProfileView> {
    let mut profile = learned();
    profile["metadata"]["generation"] = json!(2);
    profile["spec"] = spec;
    decoded(profile)
}

fn of_profile(profile: Arc<ProfileView>) -> Changes {
    Changes { profiles: vec![profile], ..Changes::default() }
}

/// What each pod requests of cpu.
fn cpu(writes: &[PlannedWrite]) -> Vec<(&str, Option<&str>)> {
    assert!(writes.iter().all(|write| write.kind == "Pod"), "{writes:?}");
    writes.iter().map(|write| (write.name.as_str(), write.requests.get("cpu").map(String::as_str))).collect()
}

#[tokio::test]
async fn what_a_profile_gives_is_explained_request_by_request() {
    let known =
        World { profiles: vec![decoded(learned())], ..world(vec![recurring("a", "Initial")], vec![]) };
    let answer = explained(known.clone(), "a");
    let said: Vec<_> =
        answer.profile.iter().map(|word| (word.reason.as_str(), word.message.as_str())).collect();
    let request = "container main requests cpu 592m, the template requests none: percentile 90 of 20 runs of profile etl \
                   and 10 %";
    let time = "a pod runs for 41 s at most, as 95 of 100 runs of profile etl did";
    assert_eq!(said, [("ProfileRequest", request), ("ExpectedRunTime", time)]);
    assert_eq!(cpu(&answer.next_writes), [("a-0-0", Some("592m"))]);
    // The words of the plan are what the manager logs.
    let plan = |name: &str| {
        let rehearsal = Rehearsal::new(known.clone(), NOW);
        let observed = rehearsal.observed(&ObjectKey::new("ns", name)).unwrap();
        let why = rehearsal.reconciler.plan(&observed, NOW).why;
        why.into_iter().skip(1).map(ProfileWord::from).collect::<Vec<_>>()
    };
    assert_eq!(answer.profile, plan("a"));
    // It learns of this one, and nobody has asked for more.
    let quiet = World { jobs: vec![job("a", "1", json!({"profile": {"key": "other"}}))], ..known };
    assert_eq!(explained(quiet, "a").profile, []);
}

#[tokio::test]
async fn the_first_job_with_a_key_makes_its_profile_and_the_next_one_finds_it() {
    let now = world(vec![], vec![]);
    let new = recurring("a", "Initial");
    let changes = Changes { jobs: vec![Arc::clone(&new), recurring("b", "Observe")], ..Changes::default() };
    let difference = caused_by(&now, changes, NOW);
    let expected =
        [("create", "BatchTaskProfile", "etl"), ("create", "Pod", "a-0-0"), ("create", "Pod", "b-0-0")];
    assert_eq!(told(&difference.writes), expected);
    assert_eq!((difference.writes[0].job.as_str(), difference.writes[0].requests.len()), ("", 0));
    let answer = difference.after.explain(&ObjectKey::new("ns", "a")).unwrap();
    assert_eq!(told(&answer.next_writes)[0], expected[0]);
    assert_eq!(answer.profile[0].message, "profile etl has 0 runs and recommends nothing yet");
    // It is there, or due anyway: no further one comes of another job.
    let due = world(vec![recurring("b", "Observe")], vec![]);
    assert_eq!(told(&caused_by(&due, of_job(&new), NOW).writes), [expected[1]]);
    let there = World { profiles: vec![decoded(learned())], ..now.clone() };
    assert_eq!(told(&caused_by(&there, of_job(&new), NOW).writes), [expected[1]]);
    let off = recurring("a", "Off");
    assert_eq!(told(&caused_by(&now, of_job(&off), NOW).writes), [expected[1]]);
}

#[tokio::test]
async fn a_changed_profile_changes_the_requests_of_pods_that_are_still_to_be_made() {
    let now = World { profiles: vec![decoded(learned())], ..world(vec![recurring("a", "Initial")], vec![]) };
    let same = caused_by(&now, of_profile(edited(json!({"percentile": 90, "marginPercent": 10}))), NOW);
    assert_eq!((same.writes, same.spared), (vec![], vec![]));
    let bounds = json!([{"container": "main", "resource": "cpu", "max": "200m"}]);
    let bound = caused_by(&now, of_profile(edited(json!({"bounds": bounds}))), NOW);
    assert_eq!(cpu(&bound.writes), [("a-0-0", Some("200m"))]);
    assert_eq!(cpu(&bound.spared), [("a-0-0", Some("592m"))]);
    let answer = bound.after.explain(&ObjectKey::new("ns", "a")).unwrap();
    assert!(answer.profile[0].message.ends_with(", held at max of spec.bounds"), "{:?}", answer.profile);
    let learns_only = caused_by(&now, of_profile(edited(json!({"maxMode": "Observe"}))), NOW);
    assert_eq!(cpu(&learns_only.writes), [("a-0-0", None)]);
    let answer = learns_only.after.explain(&ObjectKey::new("ns", "a")).unwrap();
    assert_eq!(answer.profile[0].message, "spec.maxMode of profile etl is Observe");
    // Of a node of eight cores thirteen take what there is; with the bound there is room for all.
    let many = World { jobs: vec![wide("a", "Auto", 20)], ..now };
    let bound = caused_by(&many, of_profile(edited(json!({"bounds": bounds}))), NOW);
    assert_eq!((bound.writes.len(), bound.spared.len()), (20, 13));
}
