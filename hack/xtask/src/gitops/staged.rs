//! BatchJobs in every situation of the status contract. Their statuses are what the controller's own
//! planner writes, so a verdict on them is a verdict on the controller.

use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_batch_job::admission::{Verdict, Waiting};
use springtide_batch_job::ceiling::Standing;
use springtide_batch_job::memory::Memory;
use springtide_batch_job::observe::Observed;
use springtide_batch_job::plan::{Attempt, JobState, Settings, plan};
use springtide_batch_job::projections::job::JobView;
use springtide_batch_job::projections::pod::PodView;
use springtide_crds::Kind;
use springtide_crds::batch_job::QueuedReason;
use springtide_plumbing::plan::{Action, Write};

use crate::schema;

/// A row of the status contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Situation {
    /// No controller has looked yet, or not at this generation.
    NotYetSeen,
    /// Work is under way, or waits for something that comes by itself.
    Working,
    /// Nothing is left to do.
    Converged,
    /// It does not go on unless a person changes something.
    NeedsPerson,
    /// The user holds it.
    Held,
    /// Nothing is under way until the user resumes or approves it.
    AwaitsPerson,
    /// Nothing is under way until an hour comes, or others are available; it goes on by itself.
    Waiting,
    /// The user closed it, and there is nothing else that it is to do.
    Closed,
    /// Deletion was asked for.
    Deleting,
}

/// One object in one situation.
pub(crate) struct Staged {
    /// Name of its file.
    pub(crate) name: &'static str,
    /// Its row.
    pub(crate) situation: Situation,
    /// The whole object.
    pub(crate) object: Value,
}

/// When the object was created; all else happens after it.
pub(super) const START: Timestamp = Timestamp::constant(1_794_355_200, 0);

pub(super) fn after(seconds: i64) -> Timestamp {
    START + SignedDuration::from_secs(seconds)
}

/// All of them, each situation at least once.
pub(crate) fn batch_jobs(kind: &Kind) -> Result<Vec<Staged>> {
    let new = new(kind)?;
    let full = waiting(QueuedReason::NoCapacity, "no node has room for cpu 100m, memory 32Mi");
    let huge = waiting(QueuedReason::NeverFits, "no node is large enough for cpu 64, memory 32Mi");
    let queued = planned(new.clone(), &[], full.clone(), after(31))?;
    let live = [pod(0, "Running", None)];
    let running = planned(new.clone(), &live, granted(1), after(60))?;
    let completed = planned(running.clone(), &[pod(0, "Succeeded", Some(0))], granted(1), after(90))?;
    let one_try = with(new.clone(), "spec", "backoffLimit", json!(0));
    let failed = planned(one_try, &[pod(0, "Failed", Some(3))], granted(1), after(90))?;
    let never_fits = planned(new.clone(), &[], huge, after(10))?;
    let held = with(new.clone(), "spec", "stopPolicy", json!("Hold"));
    let suspended = planned(held, &[], None, after(10))?;
    let drained = edited(running.clone(), "stopPolicy", json!("Drain"));
    let draining = planned(drained, &live, granted(1), after(70))?;
    let resumed = edited(suspended.clone(), "stopPolicy", json!("None"));
    let mut wide = with(new.clone(), "spec", "completions", json!(3));
    wide["spec"]["parallelism"] = json!(3);
    let mut stranger = pod(1, "Running", None);
    if let Some(meta) = stranger["metadata"].as_object_mut() {
        meta.remove("ownerReferences");
    }
    let working_with_a_conflict = planned(wide, &[pod(0, "Running", None), stranger], granted(3), after(60))?;
    let closed = edited(completed.clone(), "stopPolicy", json!("Hold"));
    let completed_and_held = planned(closed, &[], None, after(100))?;
    let deleting = being_deleted(running.clone());
    let deleting = planned(deleting, &live, None, after(81))?;
    let staged = |name, situation, object| Staged { name, situation, object };
    Ok(vec![
        staged("new", Situation::NotYetSeen, new),
        staged("edited-after-suspension", Situation::NotYetSeen, resumed),
        staged("queued", Situation::Working, queued),
        staged("running", Situation::Working, running),
        staged("running-with-a-name-conflict", Situation::Working, working_with_a_conflict),
        staged("completed", Situation::Converged, completed),
        staged("completed-then-held", Situation::Converged, completed_and_held),
        staged("failed", Situation::NeedsPerson, failed),
        staged("never-fits", Situation::NeedsPerson, never_fits),
        staged("suspended", Situation::Held, suspended),
        staged("draining", Situation::Working, draining),
        staged("deleting", Situation::Deleting, deleting),
    ])
}

/// The object from its deletion on, which the API server counts as an edit.
pub(super) fn being_deleted(object: Value) -> Value {
    let generation = object["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
    let object = with(object, "metadata", "generation", json!(generation));
    with(object, "metadata", "deletionTimestamp", json!(after(80)))
}

/// The first example of the kind, as the API server stores it: with the status that its schema gives it.
pub(super) fn new(kind: &Kind) -> Result<Value> {
    let mut object = kind.samples.first().context("a kind has an example")?.object.clone();
    let schema = schema::root(&json!(kind.crd));
    object["status"] = schema["properties"]["status"]["default"].clone();
    let meta = object["metadata"].as_object_mut().context("an object has metadata")?;
    for (field, value) in [
        ("namespace", json!("default")),
        ("uid", json!("7d0f3c52-4a51-4d5c-9c62-3f1b1f2d8a10")),
        ("resourceVersion", json!("4711")),
        ("generation", json!(1)),
        ("creationTimestamp", json!(START)),
    ] {
        meta.insert(field.to_owned(), value);
    }
    Ok(object)
}

pub(super) fn with(mut object: Value, part: &str, field: &str, value: Value) -> Value {
    object[part][field] = value;
    object
}

/// A change of the spec, which the API server answers with a new generation.
pub(super) fn edited(mut object: Value, field: &str, value: Value) -> Value {
    object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap_or(1) + 1);
    with(object, "spec", field, value)
}

fn granted(pods: u32) -> Option<Verdict> {
    Some(Verdict { granted: pods, ..Verdict::default() })
}

fn waiting(reason: QueuedReason, message: &str) -> Option<Verdict> {
    let waiting = Some(Waiting { reason, message: message.to_owned() });
    Some(Verdict { granted: 0, waiting, ..Verdict::default() })
}

/// A pod of the job that was scheduled at once.
fn pod(index: u32, phase: &str, exit_code: Option<i32>) -> Value {
    let state = match exit_code {
        Some(code) => json!({"terminated": {
            "exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" },
            "startedAt": after(2), "finishedAt": after(88),
        }}),
        None => json!({"running": {"startedAt": after(2)}}),
    };
    json!({
        "metadata": {
            "name": format!("hello-{index}-0"), "namespace": "default", "uid": format!("pod-{index}"),
            "resourceVersion": "4712", "creationTimestamp": after(1),
            "ownerReferences": [{
                "apiVersion": "springtide.dev/v1alpha1", "kind": "BatchJob", "name": "hello",
                "uid": "7d0f3c52-4a51-4d5c-9c62-3f1b1f2d8a10", "controller": true,
            }],
        },
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": "task", "state": state}],
        },
    })
}

/// The object after a pass of the planner: with the status it writes, or its own where it writes none.
fn planned(mut object: Value, pods: &[Value], verdict: Option<Verdict>, now: Timestamp) -> Result<Value> {
    let job: Arc<JobView> = Arc::new(serde_json::from_value(object.clone()).context("read the job")?);
    let pods: Vec<Arc<PodView>> = pods
        .iter()
        .map(|pod| serde_json::from_value(pod.clone()).map(Arc::new).context("read a pod"))
        .collect::<Result<_>>()?;
    let mut memory = Memory::new(&job, START);
    memory.look(&job, &Attempt::of_job(&job, &pods), now);
    let (standing, settings) = (Standing::Within, Settings::default());
    let mut state = JobState::new(job, &pods, memory.facts, standing, settings, now);
    state.yield_names(|key| {
        let same =
            |pod: &&Arc<PodView>| springtide_plumbing::projection::Projection::meta(pod.as_ref()).key == *key;
        pods.iter().find(same).cloned()
    });
    let observed = Observed {
        state: Some(state),
        verdict,
        orphans: Vec::new(),
        orphans_until: None,
        exceeds_history: false,
        archive: springtide_batch_job::archive::Standing::Clear,
        unfinished_jobs: 1,
        next_pass: None,
    };
    if let Some(Write { action: Action::Status { status, .. }, .. }) = plan(&observed, now).status {
        object["status"] = status;
    }
    Ok(object)
}
