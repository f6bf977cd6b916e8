//! Gangs whose queue asks for PodGroups.

use super::*;
use springtide_crds::batch_queue::GangSchedulingReason;

/// The queue that asks for them, with this in condition GangScheduling.
fn asks(said: Option<GangSchedulingReason>) -> Arc<QueueView> {
    let said = said.map(|reason| {
        json!({
            "type": GangSchedulingReason::CONDITION, "status": reason.status(), "reason": reason.as_str(),
            "message": "as it was answered", "observedGeneration": 1, "lastTransitionTime": NOW,
        })
    });
    decoded(json!({
        "metadata": meta("default"), "spec": {"gangScheduler": "PodGroup"},
        "status": {"observedGeneration": 1, "conditions": said.into_iter().collect::<Vec<_>>()},
    }))
}

fn gang() -> Arc<JobView> {
    job(
        "a",
        "1",
        json!({"completions": 4, "parallelism": 4, "minParallelism": 4, "completionMode": "Indexed"}),
    )
}

#[tokio::test]
async fn a_gang_gets_one_group_before_its_pods_however_many_passes_it_takes() {
    let difference = caused_by(&world(vec![], vec![asks(None)]), of_job(&gang()), NOW);
    let expected = [
        ("create", "PodGroup", "a-uida"),
        ("create", "Pod", "a-0-0"),
        ("create", "Pod", "a-1-0"),
        ("create", "Pod", "a-2-0"),
        ("create", "Pod", "a-3-0"),
    ];
    assert_eq!(told(&difference.writes), expected);
    assert!(difference.writes.iter().all(|write| write.job == "a"), "{:?}", difference.writes);
    // A class that starts slowly comes to the job again.
    let passes = difference.after.writes().iter().filter(|write| write.action.subresource() != "status");
    assert_eq!(passes.count(), expected.len());
    let answer = difference.after.explain(&ObjectKey::new("ns", "a")).unwrap();
    assert_eq!(told(&answer.next_writes)[0], expected[0], "it is one of the job's own");
}

#[tokio::test]
async fn a_group_that_is_there_is_not_made_again() {
    let mut now = world(vec![gang()], vec![asks(Some(GangSchedulingReason::PodGroup))]);
    let grouped = |name: &str, is_grouped: bool| {
        let mut pod = PodView::clone(&pod(name, Some("a"), "default", "1"));
        pod.is_grouped = is_grouped;
        Arc::new(pod)
    };
    now.pods = vec![grouped("a-0-0", true), grouped("a-1-0", true)];
    assert_eq!(created(&explained(now.clone(), "a").next_writes), ["a-2-0", "a-3-0"]);
    // With a part of the gang outside a group would wait for ever.
    now.pods = vec![grouped("a-0-0", true), grouped("a-1-0", false)];
    assert_eq!(created(&explained(now, "a").next_writes), ["a-2-0", "a-3-0"]);
}

#[tokio::test]
async fn a_queue_that_says_why_its_gangs_have_none_is_taken_at_its_word() {
    for reason in [GangSchedulingReason::NotServed, GangSchedulingReason::Refused] {
        let refused = world(vec![gang()], vec![asks(Some(reason))]);
        let answer = explained(refused, "a");
        assert_eq!(created(&answer.next_writes), ["a-0-0", "a-1-0", "a-2-0", "a-3-0"], "{reason:?}");
    }
}
