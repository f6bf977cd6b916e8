use super::*;
use serde_json::json;
use springtide_batch_job::rehearsal::{Deadline, PodLine, QuotaUse, Reported, RetryWait, Said, Tasks};
use springtide_crds::batch_job::{CompleteReason, FailedReason, QueuedReason, StalledReason};
use springtide_crds::common::Tier;

const NOW: Timestamp = Timestamp::constant(1_794_355_200, 0);

fn at(seconds: i64) -> Timestamp {
    NOW + jiff::SignedDuration::from_secs(seconds)
}

/// A job that waits for quota, with two of its four pods running.
fn waiting() -> Explanation {
    let message = "a pod of cpu 500m must fit; queue reports uses 1 of 1 cpu";
    Explanation {
        namespace: "team-a".into(),
        name: "etl".into(),
        generation: 1,
        state: State::Running,
        basis: Basis::Computed,
        summary: Said::of(CompleteReason::Running, "pods running: 2"),
        stalled: None,
        queue: QueueStanding {
            name: "reports".into(),
            found_by: "spec.queueName".into(),
            exists: true,
            tier: Tier::Standard,
            priority: 5,
            quota: vec![QuotaUse {
                resource: "cpu".into(),
                used: "1".into(),
                nominal: "1".into(),
                max: "1".into(),
            }],
        },
        waits: Some(Waits {
            said: Said::of(QueuedReason::QuotaExceeded, message),
            resource: Some("cpu".into()),
            wakes: "a pod of the queue ends".into(),
            until: None,
            remedies: vec!["wait".into(), "ask for more quota".into()],
        }),
        retry: Some(RetryWait { index: 3, failures: 2, until: at(14) }),
        line: Some(PlaceInLine {
            shape: "9be1".into(),
            waiting: 12,
            ahead: 3,
            class_waiting: 4,
            class_ahead: 1,
            outside: false,
        }),
        nodes: Some(FitReport {
            nodes: 12,
            pods: 30,
            with_room: 9,
            is_modelled: true,
            excluded: vec![
                ExcludedNodes {
                    reason: NodeExclusion::Tainted,
                    detail: "dedicated=gpu:NoSchedule".into(),
                    nodes: 2,
                    examples: vec!["n1".into(), "n2".into()],
                },
                ExcludedNodes {
                    reason: NodeExclusion::Cordoned,
                    detail: String::new(),
                    nodes: 1,
                    examples: vec!["n3".into()],
                },
            ],
        }),
        tasks: Tasks {
            completions: 4,
            parallelism: 4,
            succeeded: 0,
            failed: 2,
            disrupted: 1,
            live: 2,
            running: 2,
            startable: 1,
        },
        pods: vec![PodLine {
            name: "etl-0-0".into(),
            phase: "Running".into(),
            node: "n4".into(),
            created_time: at(-90),
            obstacle: String::new(),
        }],
        last_failures: vec![
            serde_json::from_value(json!({
                "index": 3, "attempt": 1, "node": "n5", "exitCode": 137, "reason": "OOMKilled",
            }))
            .unwrap(),
        ],
        exit_codes: Vec::new(),
        result: None,
        deadlines: vec![Deadline {
            field: "activeDeadlineSeconds".into(),
            what: "the job fails, unless it has ended".into(),
            time: at(3000),
        }],
        next_writes: Vec::new(),
        reported: None,
    }
}

fn planned(verb: &str, name: &str) -> PlannedWrite {
    PlannedWrite {
        verb: verb.into(),
        kind: "Pod".into(),
        namespace: "team-a".into(),
        name: name.into(),
        subresource: String::new(),
        job: "etl".into(),
        grace_seconds: None,
    }
}

#[test]
fn a_job_that_runs_and_waits_reads_so() {
    let expected = "\
BatchJob team-a/etl runs: Running
  pods running: 2

Why       QuotaExceeded: a pod of cpu 500m must fit; queue reports uses 1 of 1 cpu (The queue has used up its
          quota, and its cohort has nothing to lend)
Wakes     a pod of the queue ends
Backoff   task 3 failed 2 times and is tried again at 2026-11-11T00:00:14Z (in 14s)
Queue     reports, found by: spec.queueName; tier Standard, priority 5; cpu used 1 of nominal 1, max 1
Line      3 ahead of it of 12 jobs that wait; in its class (shape 9be1) 1 of 4
Nodes     12 nodes: room for 30 on 9 of them; 2 tainted dedicated=gpu:NoSchedule (n1, n2); 1 cordoned (n3)
Tasks     0 of 4 succeeded; 2 pods, 2 running, 4 at a time; 2 failed; 1 disrupted
Pods      etl-0-0 Running on n4, 90s old
Failures  task 3, attempt 1: exit code 137 (OOMKilled) on n5
Deadlines 2026-11-11T00:50:00Z (in 50m), by spec.activeDeadlineSeconds: the job fails, unless it has ended
To do     wait
          ask for more quota
";
    assert_eq!(text(&waiting(), &[], NOW), expected);
    assert_eq!(verdict(&waiting()), Verdict::Fine, "it runs");
}

#[test]
fn what_was_not_seen_is_said_with_its_consequence() {
    let message = "a pod needs cpu 1: room for 0 on 3 eligible nodes";
    let mut job = waiting();
    job.state = State::Waiting;
    job.basis = Basis::Reported;
    job.summary = Said::of(CompleteReason::Queued, message);
    job.waits = Some(Waits {
        said: Said::of(QueuedReason::NoCapacity, message),
        resource: None,
        wakes: "a pod ends".into(),
        until: Some(at(5)),
        remedies: Vec::new(),
    });
    (job.retry, job.line, job.nodes, job.pods) = (None, None, None, Vec::new());
    (job.last_failures, job.deadlines) = (Vec::new(), Vec::new());
    job.tasks = Tasks { completions: 1, parallelism: 1, ..Tasks::default() };
    job.reported = Some(Reported {
        reason: "NoCapacity".into(),
        message: message.into(),
        since: at(-300),
        is_current: true,
    });
    let unread = Unread {
        resource: "nodes".into(),
        scope: "the cluster".into(),
        problem: "nodes is forbidden".into(),
        consequence: "whether a pod fits is not computed".into(),
    };
    let said = text(&job, &[unread], NOW);
    let expected = "\
BatchJob team-a/etl waits: Queued
  a pod needs cpu 1: room for 0 on 3 eligible nodes

Why       NoCapacity: No node has room for another pod of the job now; where nodes may not be seen, the
          scheduler has yet to place the pods before it.
Wakes     a pod ends; looked at again at 2026-11-11T00:00:05Z (in 5s)
Queue     reports, found by: spec.queueName; tier Standard, priority 5; cpu used 1 of nominal 1, max 1
Tasks     0 of 1 succeeded; 0 pods, 0 running, 1 at a time
Rests on  by the manager's own word in the job's status, NoCapacity since 2026-11-10T23:55:00Z (5m ago)
Not seen  nodes of the cluster: whether a pod fits is not computed (nodes is forbidden)
";
    assert_eq!(said, expected);
    assert_eq!(verdict(&job), Verdict::NotReady);
    (job.state, job.waits, job.reported) = (State::Unknown, None, None);
    assert!(text(&job, &[], NOW).contains("too little can be read to compute why"));
}

#[test]
fn what_needs_a_person_and_what_comes_next_is_said() {
    let mut job = waiting();
    job.stalled = Some(Said::of(StalledReason::NeverFits, "no node is large enough"));
    job.next_writes =
        vec![planned("create", "etl-1-0"), planned("create", "etl-2-0"), planned("delete", "etl-3-1")];
    let said = text(&job, &[], NOW);
    assert!(said.contains("Stalled   NeverFits: no node is large enough ("), "{said}");
    assert!(said.contains("Next      the manager is about to create 2 pods (etl-1-0, ...)"), "{said}");
    assert!(said.contains("about to end or remove 1 pod (etl-3-1)"), "{said}");
    assert_eq!(verdict(&job), Verdict::Stalled);
    job.stalled = None;
    job.state = State::Failed;
    job.summary = Said::of(CompleteReason::Failed(FailedReason::BackoffLimitExceeded), "7 pods failed");
    job.waits = None;
    let said = text(&job, &[], NOW);
    assert!(
        said.starts_with("BatchJob team-a/etl has failed: BackoffLimitExceeded\n  7 pods failed\n"),
        "{said}"
    );
    assert_eq!(verdict(&job), Verdict::Stalled);
}

#[test]
fn the_json_has_the_documented_fields() {
    let answer = Answer {
        api_version: API_VERSION,
        kind: "Explanation",
        time: NOW,
        explanation: waiting(),
        not_seen: Vec::new(),
    };
    let json = serde_json::to_value(&answer).unwrap();
    assert_eq!(json["apiVersion"], "cli.springtide.dev/v1alpha1");
    assert_eq!(json["waits"]["reason"], "QuotaExceeded");
    assert_eq!(json["waits"]["resource"], "cpu");
    assert_eq!(json["line"]["classAhead"], 1);
    assert_eq!(json["nodes"]["excluded"][0]["reason"], "Tainted");
    assert_eq!(json["retry"]["until"], "2026-11-11T00:00:14Z");
    // Each of them stands in the page that documents them.
    let page = include_str!("../../../../../docs/cli.md");
    for field in json.as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}
