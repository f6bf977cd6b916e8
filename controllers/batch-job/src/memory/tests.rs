use super::*;
use crate::admission::{Reclaim, Waiting};
use serde_json::json;
use springtide_crds::batch_job::QueuedReason;
use std::collections::BTreeSet;

fn job(closed_below: u32) -> JobView {
    serde_json::from_value(json!({
        "metadata": {"namespace": "ns", "name": "a", "uid": "u", "resourceVersion": "1"},
        "spec": {"completions": 3, "parallelism": 3, "template": {}},
        "status": {"indexes": {"closedBelow": closed_below}, "succeeded": closed_below},
    }))
    .unwrap()
}

fn pod(index: u32, phase: &str, deleted: bool) -> Arc<PodView> {
    let owner = json!({"apiVersion": "x", "kind": "BatchJob", "name": "a", "uid": "u", "controller": true});
    let mut pod = json!({
        "metadata": {
            "namespace": "ns", "name": format!("a-{index}-0"), "uid": format!("p{index}"), "resourceVersion": "1",
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "n"},
        "status": {"phase": phase},
    });
    if deleted {
        pod["metadata"]["deletionTimestamp"] = json!(Timestamp::UNIX_EPOCH);
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

#[test]
fn a_pod_that_vanishes_is_disrupted_unless_its_end_stands_in_the_status() {
    let now = Timestamp::UNIX_EPOCH;
    let mut memory = Memory::new(&job(0), now);
    memory.look(
        &job(0),
        &Attempt::of_job(&job(0), &[pod(0, "Running", false), pod(1, "Running", false)]),
        now,
    );
    // Whoever led before has counted the first, and released it.
    memory.look(&job(1), &[], now);
    assert_eq!(memory.facts.disrupted, 1);
    assert_eq!(memory.facts.setbacks.keys().collect::<Vec<_>>(), [&1]);
}

#[test]
fn what_a_profile_gives_and_the_server_refuses_is_left_out_before_the_job_fails() {
    use crate::projections::profile::Recommended;
    use springtide_crds::batch_task_profile::ProfileMode;
    let template = serde_json::from_value(json!({"spec": {"containers": [{"name": "c"}]}})).unwrap();
    let fitting = |cpu| {
        let rows = [Recommended { container: "c".into(), cpu: Some(cpu), memory: None }];
        let fitted = Fitted::new(&template, &rows, ProfileMode::Auto).map(Arc::new);
        Fitting { fitted, samples: 20, note: "given".to_owned(), ..Fitting::default() }
    };
    let at = |second| Timestamp::from_second(second).unwrap();
    let invalid = Refusal { code: 422, reason: String::new(), message: String::new(), fields: Vec::new() };
    let mut memory = Memory::new(&job(0), at(0));
    assert_eq!(memory.fit(fitting(500)), fitting(500));
    for _ in 0..2 {
        assert_eq!(memory.refused(1, &invalid, "above its limit".to_owned(), at(1)), None);
    }
    assert_eq!(memory.facts.refusal, None, "two creates of one pass");
    let left = memory.fit(fitting(500));
    assert_eq!(left.fitted, None);
    assert_eq!(left.note, "the profile's requests are refused and not set: above its limit");
    // Without them it is the template's fault.
    memory.refused(1, &invalid, "no such field".to_owned(), at(2));
    assert_eq!(memory.facts.refusal.as_ref().unwrap().kind, RefusalKind::InvalidTemplate);
    assert_eq!(memory.fit(fitting(100)), fitting(100), "another recommendation is another try");
    // A LimitRange refuses in other words, and for it the template may be well too.
    let message = "pods \"a-0-0\" is forbidden: maximum cpu usage per Container is 50m, but limit is 100m";
    let beyond = Refusal { code: 403, message: message.to_owned(), ..invalid.clone() };
    memory.facts.refusal = None;
    assert_eq!(memory.refused(1, &beyond, "too much".to_owned(), at(3)), None);
    assert_eq!(memory.facts.refusal, None);
    assert_eq!(memory.fit(fitting(100)).fitted, None);
    // What is said of another field is the template's fault at once.
    let mut other = Memory::new(&job(0), at(0));
    other.fit(fitting(500));
    let elsewhere =
        Refusal { fields: vec!["spec.containers[0].image: Required value".to_owned()], ..invalid };
    other.refused(1, &elsewhere, "no image".to_owned(), at(1));
    assert_eq!(other.facts.refusal.as_ref().unwrap().kind, RefusalKind::InvalidTemplate);
}

#[test]
fn a_failed_pod_that_is_marked_as_deleted_is_disrupted_unless_its_failure_stands_in_the_status() {
    let now = Timestamp::UNIX_EPOCH;
    let mut memory = Memory::new(&job(1), now);
    let pods = [pod(0, "Failed", true), pod(1, "Failed", true)];
    memory.look(&job(1), &Attempt::of_job(&job(1), &pods), now);
    assert_eq!(memory.facts.disrupted, 1, "the second, of which nobody has counted a failure");
}

#[test]
fn what_was_taken_is_known_until_the_job_waits_for_nothing_more() {
    let mut memory = Memory::new(&job(0), Timestamp::UNIX_EPOCH);
    let cause = ReclaimCause::QuotaShrunk;
    let reclaim = Some(Reclaim { keep: 1, pods: BTreeSet::new(), cause, until: None });
    let claimed = Verdict { reclaim, ..Verdict::default() };
    let waiting = Waiting { reason: QueuedReason::QuotaExceeded, message: String::new() };
    let waits = Verdict { waiting: Some(waiting), ..Verdict::default() };
    assert_eq!(memory.note_taken(Some(&claimed), false), Some(cause));
    // While they end nothing is claimed, and nobody waits.
    assert_eq!(memory.note_taken(Some(&Verdict::default()), true), Some(cause));
    assert_eq!(memory.note_taken(None, true), Some(cause));
    assert_eq!(memory.note_taken(Some(&waits), false), Some(cause));
    assert_eq!(memory.note_taken(Some(&Verdict::default()), false), None);
}
