//! `springtide status` of queues: what they have, use and hold back.

use super::world;
use crate::cli::read::Cluster;
use crate::cli::text::{count, lines, paragraph, span, table};
use crate::cli::{API_VERSION, OutputArgs, Verdict};
use anyhow::{Result, bail};
use jiff::Timestamp;
use serde::Serialize;
use springtide_batch_job::projections::job::JobView;
use springtide_batch_job::projections::queue::QueueView;
use springtide_batch_job::rehearsal::World;
use springtide_crds::batch_job::{CompleteReason, QueuedReason};
use springtide_crds::batch_queue::{
    BatchQueueStatus, CapacityStaleReason, OvercommittedReason, ReadyReason, StalledReason,
};
use springtide_crds::common::{Quantity, Tier};
use springtide_crds::reason::Reason;
use springtide_plumbing::projection::Projection;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Jobs of a queue that are told of one by one.
const JOBS_TOLD: usize = 20;

/// What the command says.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    items: Vec<Queue>,
}

/// One queue.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Queue {
    namespace: String,
    /// Empty for the built-in queue.
    name: String,
    /// Reason of its condition Ready; `BuiltIn` for the built-in queue.
    ready: String,
    /// The message of that condition.
    message: String,
    /// Reason of its condition Stalled; empty where nothing needs a person.
    stalled: String,
    /// Whether the manager has seen the queue as it is now.
    is_current: bool,
    cohort: String,
    /// Further conditions that are true: reason and message.
    warnings: Vec<String>,
    pending_jobs: u32,
    admitted_jobs: u32,
    running_pods: u32,
    resources: Vec<ResourceRow>,
    /// Classes of jobs that wait, in the order of the queue.
    waiting: Vec<WaitingRow>,
    /// Unfinished jobs, of one queue in detail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    jobs: Vec<JobRow>,
}

/// One resource of a queue; what is not known or not bounded is empty.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceRow {
    resource: String,
    used: String,
    nominal: String,
    max: String,
    borrowed: String,
    capacity: String,
}

/// Jobs that wait for the same thing.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct WaitingRow {
    tier: Tier,
    priority: i32,
    shape: String,
    reason: String,
    /// What the reason means.
    meaning: String,
    resource: String,
    jobs: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_time: Option<Timestamp>,
}

/// One unfinished job.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct JobRow {
    name: String,
    /// Reason of its condition Complete.
    complete: String,
    /// Reason of its condition Queued, where it waits.
    queued: String,
    active: u32,
    created_time: Timestamp,
}

/// Reads and prints. Writes nothing.
///
/// # Errors
/// The API server cannot be asked, the caller may not read queues and jobs there, or there is no such queue.
pub(in crate::cli) async fn run(
    cluster: &Cluster,
    wanted: Option<&str>,
    all_namespaces: bool,
    output: &OutputArgs,
) -> Result<Verdict> {
    let world = world::queues_and_jobs(cluster, all_namespaces).await?;
    let mut items = queues(&world, wanted.is_some());
    if let Some(name) = wanted {
        items.retain(|queue| queue.name == name);
        if items.is_empty() {
            bail!("there is no BatchQueue {name} in namespace {}", cluster.namespace);
        }
    }
    let verdict = items.iter().map(verdict).max().unwrap_or(Verdict::Fine);
    let answer = Answer { api_version: API_VERSION, kind: "QueueStatusList", items };
    let now = Timestamp::now();
    let text = || match (wanted, answer.items.first()) {
        (Some(_), Some(queue)) => detail(queue, now),
        (Some(_) | None, _) => overview(&answer.items, all_namespaces, &cluster.namespace, now),
    };
    print!("{}", output.render(&answer, text)?);
    Ok(verdict)
}

fn verdict(queue: &Queue) -> Verdict {
    let known = ReadyReason::all().into_iter().find(|reason| reason.as_str() == queue.ready);
    match known {
        _ if !queue.stalled.is_empty() => Verdict::Stalled,
        // The built-in queue has no condition.
        None => Verdict::Fine,
        Some(_) if !queue.is_current => Verdict::NotReady,
        Some(reason) => match reason.status() {
            springtide_crds::common::ConditionStatus::True => Verdict::Fine,
            springtide_crds::common::ConditionStatus::False
            | springtide_crds::common::ConditionStatus::Unknown => Verdict::NotReady,
        },
    }
}

/// The queues of what was read, the built-in ones included: one for each namespace with jobs in it.
fn queues(world: &World, with_jobs: bool) -> Vec<Queue> {
    let unfinished = |job: &&std::sync::Arc<JobView>| job.is_ours() && !job.is_finished();
    let mut built_in: BTreeMap<&str, Queue> = BTreeMap::new();
    let with_queue: BTreeSet<&str> = world.queues.iter().map(|queue| &*queue.meta().key.namespace).collect();
    for job in world.jobs.iter().filter(unfinished) {
        let namespace = &*job.meta().key.namespace;
        let is_built_in = match (&job.spec.queue_name, job.status.queue.as_deref()) {
            (Some(_), _) => false,
            (None, Some(name)) => name.is_empty(),
            // Nobody has looked at it yet.
            (None, None) => !with_queue.contains(namespace),
        };
        if is_built_in {
            let queue = built_in.entry(namespace).or_insert_with(|| Queue {
                namespace: namespace.to_owned(),
                ready: "BuiltIn".to_owned(),
                message: "the queue without an object serves jobs without a BatchQueue".to_owned(),
                is_current: true,
                ..Queue::default()
            });
            queue.running_pods += job.status.active;
            if job.status.active > 0 {
                queue.admitted_jobs += 1;
            } else {
                queue.pending_jobs += 1;
            }
        }
    }
    let mut items: Vec<Queue> = world.queues.iter().map(|queue| of(queue, world, with_jobs)).collect();
    items.extend(built_in.into_values());
    items.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    items
}

fn of(queue: &QueueView, world: &World, with_jobs: bool) -> Queue {
    let meta = queue.meta();
    let BatchQueueStatus { pending_jobs, admitted_jobs, running_pods, .. } = queue.status;
    let ready = queue.condition(ReadyReason::CONDITION);
    let stalled = queue.condition(StalledReason::CONDITION).filter(|_| queue.holds(StalledReason::CONDITION));
    let warnings = [CapacityStaleReason::CONDITION, OvercommittedReason::CONDITION]
        .into_iter()
        .filter(|type_| queue.holds(type_))
        .filter_map(|type_| queue.condition(type_))
        .map(|condition| format!("{} ({}): {}", condition.type_, condition.reason, condition.message));
    let waiting = queue.status.waiting.iter().map(|class| WaitingRow {
        tier: class.tier,
        priority: class.priority,
        shape: class.shape.clone(),
        reason: class.reason.clone(),
        meaning: meaning(&class.reason),
        resource: class.resource.clone(),
        jobs: class.jobs,
        oldest_time: class.oldest_time.as_ref().map(|time| time.0),
    });
    let is_of_queue = |job: &&std::sync::Arc<JobView>| {
        let key = &job.meta().key;
        let named = job.spec.queue_name.as_deref().or(job.status.queue.as_deref());
        with_jobs
            && key.namespace == meta.key.namespace
            && named == Some(&*meta.key.name)
            && !job.is_finished()
    };
    Queue {
        namespace: meta.key.namespace.to_string(),
        name: meta.key.name.to_string(),
        ready: ready.map_or_else(|| ReadyReason::Pending.as_str().to_owned(), |ready| ready.reason.clone()),
        message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
        stalled: stalled.map(|stalled| stalled.reason.clone()).unwrap_or_default(),
        is_current: queue.status.observed_generation == meta.generation,
        cohort: queue.spec.cohort.clone().unwrap_or_default(),
        warnings: warnings.collect(),
        pending_jobs,
        admitted_jobs,
        running_pods,
        resources: resources(queue),
        waiting: waiting.collect(),
        jobs: world.jobs.iter().filter(is_of_queue).map(|job| row(job)).collect(),
    }
}

/// The resources with a quota, then others of which something is used.
fn resources(queue: &QueueView) -> Vec<ResourceRow> {
    let text = |list: &BTreeMap<String, Quantity>, resource: &str| {
        list.get(resource).map(|amount| amount.as_str().to_owned()).unwrap_or_default()
    };
    let status = &queue.status;
    let quota = queue.spec.quota.iter().map(|row| row.resource.as_str());
    let others = status.used.keys().map(String::as_str);
    let others = others.filter(|name| queue.spec.quota.iter().all(|row| row.resource != *name));
    quota
        .chain(others)
        .map(|resource| {
            let row = queue.spec.quota.iter().find(|row| row.resource == resource);
            ResourceRow {
                resource: resource.to_owned(),
                used: text(&status.used, resource),
                nominal: row.map(|row| row.nominal.as_str().to_owned()).unwrap_or_default(),
                max: row
                    .map(|row| row.max.as_ref().unwrap_or(&row.nominal).as_str().to_owned())
                    .unwrap_or_default(),
                borrowed: text(&status.borrowed, resource),
                capacity: text(&status.capacity, resource),
            }
        })
        .collect()
}

fn row(job: &JobView) -> JobRow {
    let reason = |type_: &str| job.condition(type_).map(|found| found.reason.clone()).unwrap_or_default();
    JobRow {
        name: job.meta().key.name.to_string(),
        complete: reason(CompleteReason::CONDITION),
        queued: if job.holds(QueuedReason::CONDITION) {
            reason(QueuedReason::CONDITION)
        } else {
            String::new()
        },
        active: job.status.active,
        created_time: job.meta().creation_time,
    }
}

fn meaning(reason: &str) -> String {
    let known = QueuedReason::all().into_iter().find(|known| known.as_str() == reason);
    known.map(|known| known.doc().to_owned()).unwrap_or_default()
}

/// All queues, one or more lines each, and what waits in them.
fn overview(queues: &[Queue], all: bool, namespace: &str, now: Timestamp) -> String {
    if queues.is_empty() {
        let place = if all { "in the cluster".to_owned() } else { format!("in namespace {namespace}") };
        return format!("There is no BatchQueue {place}, and no job that has not ended.\n");
    }
    let mut rows = Vec::new();
    for queue in queues {
        let none = [ResourceRow::default()];
        let resources = if queue.resources.is_empty() { &none[..] } else { &queue.resources };
        for (number, resource) in resources.iter().enumerate() {
            let first = |text: String| if number == 0 { text } else { String::new() };
            rows.push([
                first(full_name(queue, all)),
                first(ready(queue)),
                first(queue.pending_jobs.to_string()),
                first(queue.running_pods.to_string()),
                dash(&resource.resource),
                dash(&resource.used),
                dash(&resource.nominal),
                dash(&resource.max),
                dash(&resource.borrowed),
                dash(&resource.capacity),
            ]);
        }
    }
    let head = [
        "QUEUE", "READY", "PENDING", "RUNNING", "RESOURCE", "USED", "NOMINAL", "MAX", "BORROWED", "CAPACITY",
    ];
    let mut text = table(head, rows);
    let waiting: Vec<_> = queues
        .iter()
        .flat_map(|queue| {
            queue.waiting.iter().map(move |class| waiting_row(full_name(queue, all), class, now))
        })
        .collect();
    if !waiting.is_empty() {
        let _ = writeln!(text);
        let head = ["WAITING IN", "TIER", "PRIORITY", "SHAPE", "JOBS", "OLDEST", "REASON", "RESOURCE"];
        text.push_str(&table(head, waiting));
    }
    text
}

fn waiting_row(queue: String, class: &WaitingRow, now: Timestamp) -> [String; 8] {
    let age = class.oldest_time.map(|oldest| span(now.duration_since(oldest).as_secs()));
    [
        queue,
        format!("{:?}", class.tier),
        class.priority.to_string(),
        class.shape.clone(),
        class.jobs.to_string(),
        age.unwrap_or_default(),
        class.reason.clone(),
        dash(&class.resource),
    ]
}

/// One queue, with what its reasons mean and the jobs that have not ended.
fn detail(queue: &Queue, now: Timestamp) -> String {
    let mut text = format!("BatchQueue {}/{}: {}\n", queue.namespace, queue.name, ready(queue));
    if !queue.message.is_empty() {
        let _ = writeln!(text, "  {}", queue.message);
    }
    let _ = writeln!(text);
    let jobs = format!(
        "{} pending, {} admitted; {} running",
        queue.pending_jobs,
        queue.admitted_jobs,
        count(queue.running_pods as usize, "pod")
    );
    paragraph(&mut text, "Jobs", &jobs);
    if !queue.cohort.is_empty() {
        paragraph(&mut text, "Cohort", &queue.cohort);
    }
    lines(&mut text, "Warning", queue.warnings.iter().cloned());
    if !queue.is_current {
        paragraph(&mut text, "Warning", "the manager has not seen the queue yet as it is now: does one run?");
    }
    if !queue.resources.is_empty() {
        let rows = queue.resources.iter().map(|row| {
            [&row.resource, &row.used, &row.nominal, &row.max, &row.borrowed, &row.capacity]
                .map(|text| dash(text))
        });
        let _ = writeln!(text);
        text.push_str(&table(["RESOURCE", "USED", "NOMINAL", "MAX", "BORROWED", "CAPACITY"], rows));
    }
    if !queue.waiting.is_empty() {
        let _ = writeln!(text);
        let rows = queue.waiting.iter().map(|class| {
            let [_, cells @ ..] = waiting_row(String::new(), class, now);
            cells
        });
        text.push_str(&table(["TIER", "PRIORITY", "SHAPE", "JOBS", "OLDEST", "REASON", "RESOURCE"], rows));
        let reasons: BTreeMap<&str, &str> =
            queue.waiting.iter().map(|class| (class.reason.as_str(), class.meaning.as_str())).collect();
        let _ = writeln!(text);
        for (reason, meaning) in reasons {
            let _ = writeln!(text, "{reason}: {meaning}");
        }
    }
    if !queue.jobs.is_empty() {
        let _ = writeln!(text);
        let rows = queue.jobs.iter().take(JOBS_TOLD).map(|job| {
            let age = span(now.duration_since(job.created_time).as_secs());
            [format!("bj/{}", job.name), job.complete.clone(), dash(&job.queued), job.active.to_string(), age]
        });
        text.push_str(&table(["JOB", "COMPLETE", "QUEUED", "ACTIVE", "AGE"], rows));
        if queue.jobs.len() > JOBS_TOLD {
            let _ = writeln!(text, "... and {} more", queue.jobs.len() - JOBS_TOLD);
        }
    }
    text
}

fn full_name(queue: &Queue, with_namespace: bool) -> String {
    let name = if queue.name.is_empty() { "(built-in)" } else { queue.name.as_str() };
    if with_namespace { format!("{}/{name}", queue.namespace) } else { name.to_owned() }
}

fn ready(queue: &Queue) -> String {
    if queue.is_current { queue.ready.clone() } else { format!("{} (old)", queue.ready) }
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests;
