//! What is planned for a given world: each fixture is one look at a job, and the plan it must lead to.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use springtide_batch_job::admission::{Reclaim, ReclaimCause, Verdict, Waiting};
use springtide_batch_job::archive;
use springtide_batch_job::ceiling::Standing;
use springtide_batch_job::memory::Memory;
use springtide_batch_job::observe::Observed;
use springtide_batch_job::plan::{Attempt, JobState, Settings, plan};
use springtide_batch_job::projections::job::JobView;
use springtide_batch_job::projections::pod::PodView;
use springtide_batch_job::projections::queue::QueueView;
use springtide_batch_job::queues::{BuiltInQueue, Placement};
use springtide_crds::batch_job::QueuedReason;
use springtide_crds::reason::Reason;
use springtide_plumbing::error::Refusal;
use springtide_plumbing::key::Uid;
use springtide_plumbing::plan::{Action, Plan, Step, Write};
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    name: String,
    now: Timestamp,
    #[serde(default)]
    job: Option<Value>,
    /// Pods of any incarnation of the job, short or whole.
    #[serde(default)]
    pods: Vec<Value>,
    /// Pods of others.
    #[serde(default)]
    strangers: Vec<Value>,
    #[serde(default)]
    granted: Option<u32>,
    #[serde(default)]
    waiting: Option<(String, String)>,
    /// Pods that may stay, as the job's queue has less quota than it uses.
    #[serde(default)]
    quota_shrunk_to: Option<u32>,
    /// Pods that may stay, as who has lent what the others hold needs it.
    #[serde(default)]
    reclaimed_to: Option<u32>,
    /// Pods that may stay, as a higher tier or priority of its queue needs the room of the others.
    #[serde(default)]
    preempted_to: Option<u32>,
    /// Names of the pods whose room is needed; without any, all but so many go.
    #[serde(default)]
    named: Vec<String>,
    /// Of those granted, pods that no node has room for.
    #[serde(default)]
    unfit: u32,
    /// The BatchQueue that the job is in; without one it is in the built-in queue.
    #[serde(default)]
    queue: Option<Value>,
    /// Creates were refused so, at these times.
    #[serde(default)]
    refused: Option<(Vec<Timestamp>, u16, String)>,
    /// When this process first saw the pods that run; by default, when each was created.
    #[serde(default)]
    pods_seen: Option<Timestamp>,
    /// When this process first saw the job; by default, when it was created.
    #[serde(default)]
    since: Option<Timestamp>,
    #[serde(default)]
    beyond_maximum: u32,
    #[serde(default)]
    exceeds_history: bool,
    /// The line of the finished job has still to be taken.
    #[serde(default)]
    line_waits: bool,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Expect {
    /// One line per write; the stages are separated by `--`.
    #[serde(default)]
    writes: Vec<String>,
    #[serde(default)]
    wake: Option<Timestamp>,
    /// Fields that the written status must have; null for one it must not have.
    #[serde(default)]
    status: Option<Value>,
    /// `type: status reason` of all conditions of the written status.
    #[serde(default)]
    conditions: Option<BTreeMap<String, String>>,
    /// Message of the condition Complete in the written status.
    #[serde(default)]
    says: Option<String>,
}

#[test]
fn every_fixture_leads_to_its_plan() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/decisions/fixtures");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let mut failures = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let cases: Vec<Case> =
            serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for case in cases {
            if let Err(failure) = check(&case) {
                let file = file.file_name().unwrap().to_string_lossy();
                failures.push(format!("{file}: {}:\n{failure}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn check(case: &Case) -> Result<(), String> {
    let plan = plan(&observe(case), case.now);
    let writes = lines(&plan);
    if writes != case.expect.writes {
        return Err(format!(
            "  writes {writes:?}\n  expected {:?}\n  why {:?}",
            case.expect.writes, plan.why
        ));
    }
    if case.expect.wake.is_some() && plan.wake != case.expect.wake {
        return Err(format!("  wakes at {:?}, expected {:?}", plan.wake, case.expect.wake));
    }
    if let Some(wake) = plan.wake
        && wake <= case.now
    {
        return Err(format!("  wakes at {wake}, which is past: a hot loop"));
    }
    let Some(Write { action: Action::Status { status, .. }, .. }) = &plan.status else { return Ok(()) };
    if let Some(expected) = &case.expect.status {
        contains(status, expected, "status")?;
    }
    if let Some(expected) = &case.expect.says {
        let conditions = status["conditions"].as_array().unwrap();
        let complete = conditions.iter().find(|condition| condition["type"] == "Complete").unwrap();
        if complete["message"] != **expected {
            return Err(format!("  says {}, expected {expected:?}", complete["message"]));
        }
    }
    if let Some(expected) = &case.expect.conditions {
        let conditions: BTreeMap<String, String> = status["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| {
                let text = |field: &str| c[field].as_str().unwrap().to_owned();
                (text("type"), format!("{} {}", text("status"), text("reason")))
            })
            .collect();
        if conditions != *expected {
            return Err(format!("  conditions {conditions:#?}\n  expected {expected:#?}"));
        }
    }
    Ok(())
}

fn observe(case: &Case) -> Observed {
    let pods: Vec<Arc<PodView>> = case.pods.iter().map(pod).collect();
    let Some(job) = &case.job else {
        return Observed {
            state: None,
            verdict: None,
            orphans: pods,
            orphans_until: None,
            exceeds_history: false,
            archive: archive::Standing::Clear,
            unfinished_jobs: 0,
            next_pass: None,
        };
    };
    let mut job = job.clone();
    let meta = job["metadata"].as_object_mut().unwrap();
    for (field, value) in [("namespace", "ns"), ("uid", "u1"), ("resourceVersion", "9")] {
        meta.entry(field).or_insert_with(|| value.into());
    }
    meta.entry("generation").or_insert_with(|| 1.into());
    job["spec"]
        .as_object_mut()
        .unwrap()
        .entry("template")
        .or_insert_with(|| serde_json::json!({"spec": {"containers": [{"name": "main", "image": "app"}]}}));
    let job: Arc<JobView> = Arc::new(serde_json::from_value(job).unwrap());
    let mut memory = Memory::new(&job, case.since.unwrap_or(job.meta().creation_time));
    let attempts = Attempt::of_job(&job, &pods);
    // Pods are seen when they are made, one after the other.
    let mut live: Vec<Attempt> = attempts.iter().filter(|pod| pod.is_live()).cloned().collect();
    live.sort_by_key(|pod| pod.view.meta().creation_time);
    for seen in 1..=live.len() {
        let at = case.pods_seen.unwrap_or(live[seen - 1].view.meta().creation_time);
        memory.look(&job, &live[..seen], at);
    }
    memory.look(&job, &attempts, case.now);
    if let Some((times, code, message)) = &case.refused {
        let refusal =
            Refusal { code: *code, reason: String::new(), message: message.clone(), fields: Vec::new() };
        for at in times {
            memory.refused(job.meta().generation, &refusal, message.clone(), *at);
        }
    }
    let standing = match case.beyond_maximum {
        0 => Standing::Within,
        1 => Standing::Beyond { limit: 1500 },
        _ => Standing::FarBeyond { limit: 1500 },
    };
    let mut state = JobState::new(job, &pods, memory.facts, standing, Settings::default(), case.now);
    let strangers: Vec<Arc<PodView>> = case.strangers.iter().map(pod).collect();
    state.yield_names(|key| strangers.iter().find(|pod| pod.meta().key == *key).cloned());
    if let Some(queue) = &case.queue {
        let queue: QueueView = serde_json::from_value(queue.clone()).unwrap();
        let no_problem = |_: &QueueView| Vec::new();
        let job = &state.job;
        state.placement = Placement::of(job, None, &[Arc::new(queue)], BuiltInQueue::Enabled, no_problem);
    }
    let waiting = case.waiting.as_ref().map(|(reason, message)| Waiting {
        reason: QueuedReason::all().into_iter().find(|known| known.as_str() == reason).unwrap(),
        message: message.clone(),
    });
    let claims = [
        (case.quota_shrunk_to, ReclaimCause::QuotaShrunk),
        (case.reclaimed_to, ReclaimCause::Reclaimed),
        (case.preempted_to, ReclaimCause::Preempted),
    ];
    let named = case.named.iter().map(|pod| Uid(format!("uid-{pod}").into())).collect();
    let reclaim = claims
        .into_iter()
        .find_map(|(keep, cause)| Some((keep?, cause)))
        .map(|(keep, cause)| Reclaim { keep, pods: named, cause, until: None });
    let unfit = case.unfit;
    let verdict =
        case.granted.map(|granted| Verdict { granted, waiting, reclaim, unfit, ..Verdict::default() });
    Observed {
        state: Some(state),
        verdict,
        orphans: Vec::new(),
        orphans_until: None,
        exceeds_history: case.exceeds_history,
        archive: if case.line_waits { archive::Standing::Waiting } else { archive::Standing::Clear },
        unfinished_jobs: 1,
        next_pass: None,
    }
}

/// A pod in short form: `name` and `phase`, and where they matter `node`, `created`, `started`,
/// `finished`, `exitCode`, `reason`, `message`, `podReason`, `deleting`, `strict`, `unfit`, `gate`, `conditions`,
/// `owner` (UID of the job, `u1` by default, or `none`).
fn pod(short: &Value) -> Arc<PodView> {
    let short = short.as_object().unwrap();
    let text = |field: &str| short.get(field).and_then(Value::as_str);
    let name = text("name").unwrap();
    let job = name.rsplitn(3, '-').last().unwrap();
    let mut metadata = serde_json::json!({
        "namespace": "ns", "name": name, "uid": format!("uid-{name}"), "resourceVersion": "5",
        "creationTimestamp": text("created").unwrap_or("2026-11-11T00:00:00Z"),
    });
    if short.get("unfit") == Some(&Value::Bool(true)) {
        metadata["labels"] = serde_json::json!({"springtide.dev/unfit": "true"});
    }
    if text("owner") != Some("none") {
        metadata["ownerReferences"] = serde_json::json!([{
            "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": job,
            "uid": text("owner").unwrap_or("u1"), "controller": true,
        }]);
    }
    if let Some(at) = text("deleting") {
        metadata["deletionTimestamp"] = at.into();
    }
    if short.get("strict") == Some(&Value::Bool(true)) {
        metadata["finalizers"] = serde_json::json!(["springtide.dev/job-tracking"]);
    }
    let mut spec = Map::new();
    if text("node") != Some("none") {
        spec.insert("nodeName".to_owned(), text("node").unwrap_or("n1").into());
    }
    if let Some(gate) = text("gate") {
        spec.insert("schedulingGates".to_owned(), serde_json::json!([{"name": gate}]));
    }
    let phase = text("phase").unwrap();
    let mut status = serde_json::json!({
        "phase": phase, "reason": text("podReason"), "message": Value::Null,
        "conditions": short.get("conditions").cloned().unwrap_or(serde_json::json!([])),
    });
    let state = match phase {
        "Running" => serde_json::json!({"running": {"startedAt": text("started")}}),
        "Succeeded" | "Failed" => {
            let default = if phase == "Failed" { 1 } else { 0 };
            serde_json::json!({"terminated": {
                "exitCode": short.get("exitCode").and_then(Value::as_i64).unwrap_or(default),
                "reason": text("reason").unwrap_or(if phase == "Failed" { "Error" } else { "Completed" }),
                "message": text("message").unwrap_or_default(),
                "startedAt": text("started"), "finishedAt": text("finished"),
            }})
        }
        _ => match text("reason") {
            Some(reason) => {
                serde_json::json!({"waiting": {"reason": reason, "message": text("message").unwrap_or_default()}})
            }
            None => serde_json::json!({}),
        },
    };
    status["containerStatuses"] = serde_json::json!([{"name": "main", "state": state}]);
    let pod = serde_json::json!({"metadata": metadata, "spec": spec, "status": status});
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn lines(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for stage in &plan.stages {
        if !lines.is_empty() {
            lines.push("--".to_owned());
        }
        lines.extend(stage.iter().flat_map(Step::writes).map(line));
    }
    lines.extend(plan.status.iter().map(line));
    lines
}

fn line(write: &Write) -> String {
    let kind = write.resource.kind.to_lowercase();
    let name = &write.key.name;
    match &write.action {
        Action::Create { manifest } => {
            assert_eq!(manifest["metadata"]["name"], **name);
            let unfit = manifest["metadata"]["labels"].get("springtide.dev/unfit").is_some();
            format!("create {kind} {name}{}", if unfit { " unfit" } else { "" })
        }
        Action::Delete { resource_version, grace_seconds, .. } => {
            let guarded = if resource_version.is_some() { " as seen" } else { "" };
            let grace = grace_seconds.map(|seconds| format!(" in {seconds} s")).unwrap_or_default();
            format!("delete {kind} {name}{guarded}{grace}")
        }
        Action::Patch { .. } => format!("release {kind} {name}"),
        Action::Status { .. } => format!("{:?} status", write.class),
        Action::Apply { .. } | Action::Evict { .. } | Action::DryRun { .. } => {
            format!("{} {kind} {name}", write.action.verb())
        }
    }
}

fn contains(value: &Value, expected: &Value, path: &str) -> Result<(), String> {
    match expected {
        Value::Object(fields) => fields
            .iter()
            .try_for_each(|(name, expected)| contains(&value[name], expected, &format!("{path}.{name}"))),
        Value::Array(items) => {
            let found = value.as_array().map_or(0, Vec::len);
            if found != items.len() {
                return Err(format!("  {path}: {value}, expected {expected}"));
            }
            items
                .iter()
                .enumerate()
                .try_for_each(|(at, expected)| contains(&value[at], expected, &format!("{path}[{at}]")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) if value == expected => Ok(()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(format!("  {path}: {value}, expected {expected}"))
        }
    }
}
