use super::*;
use serde_json::json;
use springtide_batch_job::rehearsal::{
    Deadline, PodLine, ProfileWord, QuotaUse, Reported, RetryWait, Said, Tasks, World,
};
use springtide_crds::batch_job::{CompleteReason, FailedReason, QueuedReason, StalledReason};
use springtide_crds::common::Tier;
use std::collections::BTreeMap;
use std::sync::Arc;

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
        profile: vec![
            ProfileWord {
                reason: "ProfileRequest".into(),
                message: "container main requests cpu 350m, the template requests none: percentile 95 of 212 runs of \
                          profile etl-daily and 15 %"
                    .into(),
            },
            ProfileWord {
                reason: "ExpectedRunTime".into(),
                message: "a pod runs for 95 s at most, as 95 of 100 runs of profile etl-daily did".into(),
            },
        ],
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
        requests: BTreeMap::new(),
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
Profile   container main requests cpu 350m, the template requests none: percentile 95 of 212 runs of profile
          etl-daily and 15 %
          a pod runs for 95 s at most, as 95 of 100 runs of profile etl-daily did
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
    job.profile = Vec::new();
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
    let profile = PlannedWrite {
        kind: "BatchTaskProfile".into(),
        job: String::new(),
        ..planned("create", "etl-daily")
    };
    job.next_writes.push(profile);
    let said = text(&job, &[], NOW);
    assert!(said.contains("Stalled   NeverFits: no node is large enough ("), "{said}");
    assert!(said.contains("Next      the manager is about to create BatchTaskProfile etl-daily\n"), "{said}");
    assert!(said.contains("          the manager is about to create 2 pods (etl-1-0, ...)"), "{said}");
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
    assert_eq!(json["profile"][1]["reason"], "ExpectedRunTime");
    assert_eq!(json["nodes"]["excluded"][0]["reason"], "Tainted");
    assert_eq!(json["retry"]["until"], "2026-11-11T00:00:14Z");
    // Each of them stands in the page that documents them.
    let page = include_str!("../../../../../docs/cli.md");
    for field in json.as_object().unwrap().keys() {
        assert!(page.contains(&format!("`{field}`")), "docs/cli.md says nothing of {field}");
    }
}

/// One node of eight cores, the queue of all jobs, and jobs whose tasks take a core each. Of some a task runs.
fn rehearsed(spec: &serde_json::Value, jobs: &[(&str, serde_json::Value)], running: &[&str]) -> World {
    let meta = |name: &str| {
        json!({
            "namespace": "team-a", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "1",
            "generation": 1, "creationTimestamp": at(-600),
        })
    };
    let container = json!({"name": "main", "image": "app", "resources": {"requests": {"cpu": "1"}}});
    let job = |(name, further): &(&str, serde_json::Value)| {
        let mut spec = json!({"template": {"spec": {"containers": [container.clone()]}}});
        spec.as_object_mut().unwrap().extend(further.as_object().unwrap().clone());
        Arc::new(serde_json::from_value(json!({"metadata": meta(name), "spec": spec})).unwrap())
    };
    let pod = |name: &&str| {
        let mut pod = json!({
            "metadata": meta(&format!("{name}-0-0")),
            "spec": {"nodeName": "n1", "containers": [container.clone()]},
            "status": {"phase": "Running"},
        });
        pod["metadata"]["labels"] = json!({
            "springtide.dev/job": name, "springtide.dev/queue": "default", "springtide.dev/tier": "BestEffort",
        });
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": name,
            "uid": format!("uid-{name}"), "controller": true,
        }]);
        Arc::new(serde_json::from_value(pod).unwrap())
    };
    let node = json!({
        "metadata": {"name": "n1", "uid": "n1", "resourceVersion": "1"},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "8", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    World {
        jobs: jobs.iter().map(job).collect(),
        pods: running.iter().map(pod).collect(),
        nodes: Some(vec![Arc::new(serde_json::from_value(node).unwrap())]),
        queues: vec![Arc::new(
            serde_json::from_value(json!({"metadata": meta("default"), "spec": spec})).unwrap(),
        )],
        priority_classes: Some(Vec::new()),
        ..World::default()
    }
}

/// What `explain` prints of a job there, without the breaks of its lines.
fn said(world: World, name: &str) -> String {
    let mut rehearsal = Rehearsal::new(world, NOW);
    rehearsal.run();
    let explanation = rehearsal.explain(&ObjectKey::new("team-a", name)).unwrap();
    assert_eq!(verdict(&explanation), Verdict::NotReady, "{explanation:?}");
    text(&explanation, &[], NOW).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has_all(said: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(said.contains(piece), "no {piece:?} in: {said}");
    }
}

#[tokio::test]
async fn a_job_that_waits_for_a_peak_is_told_which_and_until_when() {
    let spec = json!({
        "peakWindows": [{
            "name": "night", "window": {"start": "23:00", "end": "02:00", "timeZone": "UTC"},
            "actions": [{"tier": "BestEffort", "action": "Hold"}],
        }],
    });
    let waits = said(rehearsed(&spec, &[("late", json!({}))], &[]), "late");
    has_all(
        &waits,
        &[
            "BatchJob team-a/late waits: Queued queue default starts nothing of tier BestEffort: peak night lasts until",
            "Why PeakWindow: A peak window of the queue",
            "or spec.overridePeak of the queue is ForceOff; looked at again at 2026-11-11T02:00:00Z (in 2h)",
            "Queue default, found by: the BatchQueue called default; tier BestEffort, priority 0",
            "Line 0 ahead of it of 1 job that wait",
            "Nodes 1 node: room for 8 on 1 of them",
            "To do wait: jobs start again when the window ends",
        ],
    );
    // One that would run into the peak of the next hour.
    let spec = json!({
        "peakWindows": [{
            "name": "night", "window": {"start": "01:00", "end": "02:00", "timeZone": "UTC"},
            "actions": [{"tier": "BestEffort", "action": "Drain"}],
        }],
    });
    let finishing = json!({"interruption": {"policy": "FinishOrDontStart"}, "expectedSeconds": 7200});
    let waits = said(rehearsed(&spec, &[("late", finishing)], &[]), "late");
    has_all(
        &waits,
        &["Why WouldNotFinish: ", "a task takes 7200 s", "looked at again at 2026-11-11T02:00:00Z (in 2h)"],
    );
}

#[tokio::test]
async fn a_job_that_waits_for_quota_or_behind_another_is_told_its_place_and_what_helps() {
    let spec = |ordering: &str| json!({"ordering": ordering, "quota": [{"resource": "cpu", "nominal": "2"}]});
    // The first wants both cores, one of which is in use.
    let jobs = [
        ("runs", json!({})),
        ("first", json!({"priority": 5, "completions": 2, "parallelism": 2, "minParallelism": 2})),
        ("late", json!({})),
    ];
    let waits = said(rehearsed(&spec("PriorityFIFO"), &jobs[..2], &["runs"]), "first");
    has_all(
        &waits,
        &[
            "Why QuotaExceeded: ",
            "queue default uses 1 of 2 cpu",
            "Wakes a pod of the queue ends",
            "cpu used 1 of nominal 2, max 2",
            "Line 0 ahead of it of 1 job that wait",
            "let the administrator raise nominal or max in spec.quota of the queue",
        ],
    );
    let waits = said(rehearsed(&spec("StrictFIFO"), &jobs, &["runs"]), "late");
    has_all(
        &waits,
        &[
            "Why HeadBlocked: ",
            "Wakes the first job of the queue starts or goes Queue",
            "Line 1 ahead of it of 2 jobs that wait",
            "while it waits, all others do, as spec.ordering is StrictFIFO",
        ],
    );
}
