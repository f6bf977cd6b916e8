use super::*;
use crate::profiles::learned::ContainerRun;
use crate::profiles::usage::Usage;
use proptest::prelude::*;
use serde_json::json;
use springtide_crds::batch_task_profile::ReconcilingReason;

const MI: i64 = 1 << 20;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn profile(spec: Value, status: Value) -> Arc<ProfileView> {
    let profile = json!({
        "metadata": {"namespace": "ns", "name": "etl", "uid": "u", "resourceVersion": "7", "generation": 1},
        "spec": spec, "status": status,
    });
    Arc::new(serde_json::from_value(profile).unwrap())
}

fn run(second: i64, name: &str, cpu: Option<i64>) -> Run {
    let usage = Usage { cpu, memory: cpu.map(|cpu| cpu * MI) };
    let container = ContainerRun { name: name.into(), usage, killed_at: None };
    Run { finished: at(second), seconds: Some(40.0), containers: vec![container] }
}

fn runs(count: i64) -> Vec<Run> {
    (0..count).map(|second| run(second, "main", Some(300))).collect()
}

fn observed(stored: Option<Arc<ProfileView>>, runs: Vec<Run>) -> Observed {
    Observed {
        key: ObjectKey::new("ns", "etl"),
        stored,
        is_used: true,
        refusal: None,
        runs,
        written: None,
        usage_api: UsageApi::NotAsked,
    }
}

fn status(plan: &Plan) -> Value {
    match &plan.status.as_ref().expect("a status is written").action {
        Action::Status { status, .. } => status.clone(),
        other @ (Action::Create { .. }
        | Action::Delete { .. }
        | Action::Patch { .. }
        | Action::Apply { .. }
        | Action::Evict { .. }
        | Action::DryRun { .. }) => panic!("{other:?}"),
    }
}

/// Reason and message of a condition; empty where there is none.
fn says(status: &Value, type_: &str) -> (String, String) {
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|condition| condition["type"] == type_).cloned().unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

/// The profile after this plan.
fn stored(before: &ProfileView, plan: &Plan) -> Arc<ProfileView> {
    profile(json!(before.spec), status(plan))
}

#[test]
fn it_is_made_at_the_first_use_and_no_sooner() {
    let made = plan(&observed(None, Vec::new()), at(0));
    let [Write { key, action: Action::Create { manifest }, .. }] = made.stages[0][0].writes() else {
        panic!("{made:?}")
    };
    assert_eq!(key, &ObjectKey::new("ns", "etl"));
    assert_eq!(
        manifest,
        &json!({
            "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchTaskProfile",
            "metadata": {"namespace": "ns", "name": "etl"}, "spec": {},
        })
    );
    let unused = Observed { is_used: false, ..observed(None, Vec::new()) };
    assert_eq!(plan(&unused, at(0)).writes(), 0);
    let full = Observed { refusal: Some("there are 200".to_owned()), ..observed(None, Vec::new()) };
    let refused = plan(&full, at(0));
    assert_eq!((refused.writes(), refused.outcome), (0, Outcome::Blocked));
}

#[test]
fn a_new_profile_says_that_it_has_seen_nothing_yet() {
    let plan = plan(&observed(Some(profile(json!({}), json!({}))), Vec::new()), at(0));
    let status = status(&plan);
    assert_eq!((&status["observedGeneration"], &status["samples"]), (&json!(1), &json!(0)));
    let waits =
        (ReconcilingReason::TooFewSamples.as_str().to_owned(), "0 of 20 runs that are needed".to_owned());
    assert_eq!((says(&status, "Ready"), says(&status, "Reconciling")), (waits.clone(), waits));
    assert_eq!(plan.outcome, Outcome::Waiting);
}

#[test]
fn from_twenty_runs_on_it_recommends() {
    let new = profile(json!({}), json!({}));
    for (count, reason) in [(19, "TooFewSamples"), (20, "Learned")] {
        let plan = plan(&observed(Some(new.clone()), runs(count)), at(100));
        let status = status(&plan);
        assert_eq!(says(&status, "Ready").0, reason);
        assert_eq!(says(&status, "Reconciling").0.is_empty(), reason == "Learned");
        assert_eq!(status["containers"][0]["recommended"].is_null(), reason != "Learned");
        assert_eq!(status["lastSampleTime"], json!(at(count - 1)));
        assert!(status["runTime"]["p95Seconds"].as_i64().is_some_and(|seconds| (40..=46).contains(&seconds)));
        if reason == "Learned" {
            let stored = stored(&new, &plan);
            let row = &stored.recommended[0];
            assert!(row.cpu.is_some_and(|cpu| (345..=385).contains(&cpu)), "{row:?}");
            assert!(row.memory.is_some_and(|memory| memory % MI == 0 && memory >= 345 * MI), "{row:?}");
        }
    }
}

#[test]
fn what_is_missing_and_what_would_help_is_said() {
    let silent: Vec<Run> = (0..20).map(|second| run(second, "main", None)).collect();
    let of = |usage_api| {
        let observed =
            Observed { usage_api, ..observed(Some(profile(json!({}), json!({}))), silent.clone()) };
        says(&status(&plan(&observed, at(100))), "Ready").1
    };
    let absent = of(UsageApi::NotServed);
    assert!(
        absent
            .starts_with("20 runs, but not yet 20 with main cpu, main memory: metrics.k8s.io is not served")
    );
    assert!(absent.ends_with("usage: cpu=350m memory=900Mi"), "{absent}");
    assert!(of(UsageApi::Served).contains("run for a minute"));
}

#[test]
fn a_status_is_written_once_a_minute_at_most_and_only_when_it_differs() {
    let new = profile(json!({}), json!({}));
    let first = plan(&observed(Some(new.clone()), runs(3)), at(100));
    let known = stored(&new, &first);
    let rest = plan(&observed(Some(known.clone()), Vec::new()), at(101));
    assert_eq!((rest.writes(), rest.wake), (0, None), "nothing new: {rest:?}");
    let soon =
        Observed { written: Some(at(100)), ..observed(Some(known.clone()), vec![run(120, "main", Some(1))]) };
    let early = plan(&soon, at(121));
    assert_eq!((early.writes(), early.wake), (0, Some(at(160))));
    let due = plan(&soon, at(160));
    assert_eq!(status(&due)["samples"], json!(4));
    // The clock was put back by hours: it is not waited for.
    let put_back = Observed { written: Some(at(9000)), ..soon };
    assert_eq!(status(&plan(&put_back, at(121)))["samples"], json!(4));
}

#[test]
fn an_edit_of_the_spec_draws_other_conclusions_from_the_same_runs() {
    let new = profile(json!({}), json!({}));
    let known = stored(&new, &plan(&observed(Some(new.clone()), runs(20)), at(100)));
    let bounds =
        json!({"bounds": [{"container": "main", "resource": "cpu", "max": "200m"}], "marginPercent": 0});
    let edited = profile(bounds, json!(known.status));
    let status = status(&plan(&observed(Some(edited), Vec::new()), at(200)));
    assert_eq!(status["containers"][0]["recommended"]["cpu"], "200m");
    assert_eq!(status["containers"][0]["histogram"], json!(known.status.containers[0].histogram));
}

#[test]
fn another_task_under_the_same_key_needs_a_person_until_one_fits_again() {
    let new = profile(json!({}), json!({}));
    let known = stored(&new, &plan(&observed(Some(new.clone()), runs(3)), at(100)));
    let mismatch = plan(&observed(Some(known.clone()), vec![run(150, "app", Some(1))]), at(200));
    let (reason, message) = says(&status(&mismatch), "Stalled");
    assert_eq!(reason, StalledReason::ContainerMismatch.as_str());
    assert_eq!(says(&status(&mismatch), "Ready").0, ReadyReason::ContainerMismatch.as_str());
    assert_eq!(message, "container main of the profile is not among those of a new task (app)");
    assert_eq!((mismatch.events.len(), mismatch.outcome), (1, Outcome::Blocked));
    assert_eq!(status(&mismatch)["samples"], json!(3), "nothing is learned from it");
    let stalled = stored(&known, &mismatch);
    let rest = plan(&observed(Some(stalled.clone()), Vec::new()), at(300));
    assert_eq!(rest.writes(), 0, "it stays so, also for a new process");
    let again = plan(&observed(Some(stalled.clone()), vec![run(301, "app", Some(1))]), at(400));
    assert_eq!((again.writes(), again.events.len()), (0, 0), "and is told once");
    let fits = plan(&observed(Some(stalled), vec![run(401, "main", Some(1))]), at(500));
    assert_eq!(says(&status(&fits), "Stalled").0, "");
}

#[test]
fn a_bound_of_a_container_that_no_task_has_needs_a_person_until_it_is_corrected() {
    let spec = json!({"bounds": [{"container": "mian", "resource": "cpu", "max": 2}]});
    let new = profile(spec.clone(), json!({}));
    assert_eq!(says(&status(&plan(&observed(Some(new.clone()), Vec::new()), at(0))), "Stalled").0, "");
    let wrong = plan(&observed(Some(new.clone()), runs(1)), at(100));
    let (reason, message) = says(&status(&wrong), "Stalled");
    assert_eq!(reason, "ContainerMismatch");
    assert_eq!(message, "spec.bounds names container mian, the tasks have main");
    let corrected = profile(json!({}), status(&wrong));
    assert_eq!(says(&status(&plan(&observed(Some(corrected), Vec::new()), at(200))), "Stalled").0, "");
}

#[test]
fn one_that_is_being_deleted_is_left_alone() {
    let mut deleting = json!({
        "metadata": {"namespace": "ns", "name": "etl", "uid": "u", "resourceVersion": "7", "generation": 1},
        "spec": {},
    });
    deleting["metadata"]["deletionTimestamp"] = json!(at(0));
    let deleting = Arc::new(serde_json::from_value(deleting).unwrap());
    assert_eq!(plan(&observed(Some(deleting), runs(30)), at(100)).writes(), 0);
}

proptest! {
    #[test]
    fn a_plan_is_idempotent_and_its_status_small(
        names in prop::collection::vec("[a-z]{1,63}", 1..10),
        count in 0..60_i64,
        usage in prop::option::of(0..1_i64 << 30),
    ) {
        let containers = |_| {
            let usage = Usage { cpu: usage, memory: usage };
            names.iter().map(|name| ContainerRun { name: name.as_str().into(), usage, killed_at: Some(1) }).collect()
        };
        let runs: Vec<Run> = (0..count)
            .map(|second| Run { finished: at(second), seconds: None, containers: containers(second) })
            .collect();
        let new = profile(json!({}), json!({}));
        let first = plan(&observed(Some(new.clone()), runs), at(1000));
        let text = status(&first).to_string();
        prop_assert!(text.len() <= 8_000, "{} bytes", text.len());
        let rest = plan(&observed(Some(stored(&new, &first)), Vec::new()), at(5000));
        prop_assert_eq!(rest.writes(), 0);
    }
}
