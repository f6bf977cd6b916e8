//! The status of a queue, and when it is written: at most every five seconds, and only when it differs.

use super::peaks;
use super::rules::{Problem, amount};
use crate::admission::{QueueFigures, WaitingClass};
use crate::archive::{Health, Sink, outbox::FailureKind};
use crate::pod_groups::Service;
use crate::projections::queue::{BATCH_QUEUE, QueueView};
use springtide_plumbing::resources::ResourceList;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use springtide_crds::batch_job::StopPolicy;
use springtide_crds::batch_queue::{
    self, ArchiveFailingReason, BatchQueueStatus, CapacityStaleReason, GangScheduler, GangSchedulingReason,
    MESSAGE_MAX_BYTES, OvercommittedReason, QUOTA_ROWS_MAX, ReadyReason, ReconcilingReason, SHAPE_MAX_LENGTH,
    StalledReason, WAITING_MAX,
};
use springtide_crds::common::{
    ConditionStatus, ConditionWriter, Quantity, RESOURCE_NAME_MAX_LENGTH, condition, remove_condition,
    whole_seconds,
};
use springtide_crds::reason::Reason;
use springtide_plumbing::clock::after;
use springtide_plumbing::events::{EventNote, Severity};
use springtide_plumbing::failing::{Failing, Told};
use springtide_plumbing::plan::{Action, Outcome, Plan, Why, Write, WriteClass};
use springtide_plumbing::projection::Projection;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Distance between two writes of the status of one queue.
const WRITE_INTERVAL: SignedDuration = SignedDuration::from_secs(5);
/// How often a queue is looked at in which nothing waits or runs: its capacity changes all the same.
const IDLE_INTERVAL: SignedDuration = SignedDuration::from_secs(30);

/// When an edge of a peak is looked at again that could not be acted on.
const LATE_EDGE: SignedDuration = SignedDuration::from_secs(1);

/// Plain data about one queue.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The queue.
    pub queue: Arc<QueueView>,
    /// What the admission knows of it.
    pub figures: QueueFigures,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    /// How its archive fares; `None` where it has none.
    pub archive: Option<Health>,
    /// When this process last wrote its status.
    pub last_write: Option<Timestamp>,
    /// Whether its gangs get PodGroups.
    pub pod_groups: Service,
    /// What its writes fail at.
    pub failing: Option<Failing>,
}

impl Observed {
    /// Whether anything waits or runs in it.
    pub fn is_active(&self) -> bool {
        let figures = &self.figures;
        figures.pending_jobs > 0 || figures.admitted_jobs > 0 || figures.running_pods > 0
    }
}

/// What has to be written for one queue now, and when to look again.
pub fn plan(observed: &Observed, now: Timestamp) -> Plan {
    let queue = &observed.queue;
    let (status, ready, message) = status(observed, now);
    let outcome = match ready {
        ReadyReason::Admitting | ReadyReason::Held | ReadyReason::Drained | ReadyReason::Closed => {
            Outcome::Converged
        }
        ReadyReason::Draining | ReadyReason::Ramping | ReadyReason::Deleting => Outcome::Progressing,
        ReadyReason::Pending | ReadyReason::CapacityStale => Outcome::Waiting,
        ReadyReason::Stalled(_) => Outcome::Blocked,
    };
    let mut plan = Plan { why: vec![Why { reason: ready.as_str(), message }], ..Plan::idle(outcome) };
    plan.wake_at(after(now, if observed.is_active() { WRITE_INTERVAL } else { IDLE_INTERVAL }));
    if let Some(edge) = observed.figures.peak.as_ref().and_then(|peak| peak.wake) {
        // Where the admission may not look, as its view is too old, the edge lies behind us.
        plan.wake_at(if edge > now { edge } else { after(now, LATE_EDGE) });
    }
    if status == queue.status {
        return plan;
    }
    // One that lies ahead was made before the clock was put back: nobody knows how long ago.
    let last_write = observed.last_write.filter(|last| *last <= now);
    match last_write.map(|last| after(last, WRITE_INTERVAL)).filter(|due| *due > now) {
        Some(due) => plan.wake_at(due),
        None => {
            plan.events = notes(queue, &status).into_iter().chain(peaks::notes(queue, &status)).collect();
            plan.status = Some(write(queue, &status));
        }
    }
    plan
}

/// The write of a status.
pub(super) fn write(queue: &QueueView, status: &BatchQueueStatus) -> Write {
    // A struct of strings, numbers and lists cannot fail to be JSON.
    let json = |status| serde_json::to_value(status).unwrap_or(Value::Null);
    Write {
        resource: BATCH_QUEUE,
        key: queue.meta().key.clone(),
        class: WriteClass::Status,
        action: Action::Status {
            uid: queue.meta().uid.clone(),
            resource_version: queue.meta().resource_version,
            status: json(status),
            stored: json(&queue.status),
        },
    }
}

/// One event when the queue comes to need a person, one when its archive takes nothing, and one when its gangs get no
/// PodGroup.
fn notes(queue: &QueueView, status: &BatchQueueStatus) -> Vec<EventNote> {
    let notes = [
        note::<StalledReason>(queue, status, ConditionStatus::True, "Admitting"),
        note::<ArchiveFailingReason>(queue, status, ConditionStatus::True, "Archiving"),
        note::<GangSchedulingReason>(queue, status, ConditionStatus::False, "Scheduling"),
    ];
    notes.into_iter().flatten().collect()
}

/// An event where a condition has the status that is bad news, and another reason than before.
fn note<R: Reason + Copy>(
    queue: &QueueView,
    status: &BatchQueueStatus,
    bad: ConditionStatus,
    action: &'static str,
) -> Option<EventNote> {
    let of = |status: &BatchQueueStatus| condition(&status.conditions, R::CONDITION).cloned();
    let now = of(status).filter(|condition| condition.status == bad)?;
    let known = R::all().into_iter().find(|reason| now.is(*reason))?;
    let is_news = of(&queue.status).is_none_or(|before| before.reason != now.reason);
    let meta = queue.meta();
    is_news.then(|| EventNote {
        resource: BATCH_QUEUE,
        key: meta.key.clone(),
        uid: meta.uid.clone(),
        severity: Severity::Warning,
        reason: known.as_str(),
        action,
        note: now.message,
    })
}

/// The status that follows from what was observed, with the reason and message of its condition Ready.
pub fn status(observed: &Observed, now: Timestamp) -> (BatchQueueStatus, ReadyReason, String) {
    let Observed { queue, figures, .. } = observed;
    let writer = ConditionWriter {
        observed_generation: queue.meta().generation,
        now,
        message_max_bytes: MESSAGE_MAX_BYTES,
    };
    let mut status = queue.status.clone();
    status.observed_generation = queue.meta().generation;
    status.pending_jobs = count(figures.pending_jobs);
    status.admitted_jobs = count(figures.admitted_jobs);
    status.running_pods = count(figures.running_pods);
    status.classes = count(figures.classes);
    let rows: Vec<&str> = queue.spec.quota.iter().map(|row| row.resource.as_str()).collect();
    status.used = quantities(&figures.used, &rows);
    status.borrowed = quantities(&figures.borrowed, &[]);
    let capacity = figures.capacity.as_ref().map(|capacity| quantities(capacity, &rows)).unwrap_or_default();
    if capacity != status.capacity || status.capacity_time.is_none() {
        status.capacity_time = figures.capacity.as_ref().map(|_| whole_seconds(now));
        status.capacity = capacity;
    }
    status.waiting = figures.waiting.iter().take(WAITING_MAX).map(waiting).collect();
    // Nobody needs to mend what is to go.
    let stalled = stalled(observed).filter(|_| !queue.meta().is_deleting());
    let (ready, message) = ready(observed, stalled.as_ref());
    let conditions = &mut status.conditions;
    writer.set(conditions, ready, &message);
    match &stalled {
        Some((reason, message)) => writer.set(conditions, *reason, message),
        None => remove_condition(conditions, StalledReason::CONDITION),
    }
    match ReconcilingReason::of(ready) {
        Some(reason) => writer.set(conditions, reason, &message),
        None => remove_condition(conditions, ReconcilingReason::CONDITION),
    }
    if figures.metrics_old {
        writer.set(conditions, CapacityStaleReason::MetricsOld, METRICS_OLD);
    } else if figures.is_stale {
        writer.set(conditions, CapacityStaleReason::NodesNotSynced, STALE);
    } else {
        writer.set(conditions, CapacityStaleReason::Fresh, "nodes and pods are seen as they are");
    }
    match (queue.spec.gang_scheduler, &observed.pod_groups) {
        (GangScheduler::None, _) => remove_condition(conditions, GangSchedulingReason::CONDITION),
        // What is known of it stays: it was a manager before this one that knew.
        (GangScheduler::PodGroup, Service::Unknown) => {}
        (GangScheduler::PodGroup, Service::Served) => {
            writer.set(conditions, GangSchedulingReason::PodGroup, "the scheduler places gangs as a whole");
        }
        (GangScheduler::PodGroup, Service::NotServed { message }) => {
            writer.set(conditions, GangSchedulingReason::NotServed, message);
        }
        (GangScheduler::PodGroup, Service::Refused { message }) => {
            let message = format!("gangs start by the count alone: {message}");
            writer.set(conditions, GangSchedulingReason::Refused, &message);
        }
    }
    match overcommitted(observed) {
        Some((reason, message)) => writer.set(conditions, reason, &message),
        None => remove_condition(conditions, OvercommittedReason::CONDITION),
    }
    match archive(observed) {
        Some((reason, message)) => writer.set(conditions, reason, &message),
        None => remove_condition(conditions, ArchiveFailingReason::CONDITION),
    }
    peaks::tell(figures.peak.as_ref(), &writer, &mut status);
    (status, ready, message)
}

/// Whether lines of finished jobs get where they should; `None` where there are none.
fn archive(observed: &Observed) -> Option<(ArchiveFailingReason, String)> {
    let sink = Sink::of(&observed.queue.spec.retention.archive)?;
    Some(match observed.archive.as_ref()? {
        Health::Well => {
            let message = "finished jobs are deleted once their line is taken".to_owned();
            (ArchiveFailingReason::Delivering, message)
        }
        Health::Failing { problem, dropping: true, .. } => {
            (ArchiveFailingReason::Dropping, format!("the oldest jobs go without a line; {sink}: {problem}"))
        }
        Health::Failing { problem, kind: FailureKind::AddressRefused, dropping: false } => {
            (ArchiveFailingReason::AddressRefused, format!("finished jobs stay; {sink}: {problem}"))
        }
        Health::Failing {
            problem,
            kind: FailureKind::Unavailable | FailureKind::Refused,
            dropping: false,
        } => (ArchiveFailingReason::NotTaken, format!("finished jobs stay; {sink}: {problem}")),
    })
}

const STALE: &str = "the view of nodes and pods is not up to date; nothing starts until it is";

const METRICS_OLD: &str = "metrics.k8s.io tells nothing new of most nodes of the queue; nothing starts, and what runs goes \
                           on";

fn stalled(observed: &Observed) -> Option<(StalledReason, String)> {
    if let Some(problem) = observed.problems.first() {
        return Some((problem.reason, problem.message.clone()));
    }
    let failing = observed.failing.as_ref()?;
    match failing.told()? {
        // It goes on by itself.
        Told::NotReady => None,
        Told::Forbidden => Some((StalledReason::Forbidden, failing.message.clone())),
        Told::InternalError => Some((StalledReason::InternalError, failing.message.clone())),
    }
}

fn ready(observed: &Observed, stalled: Option<&(StalledReason, String)>) -> (ReadyReason, String) {
    let Observed { queue, figures, .. } = observed;
    if let Some((reason, message)) = stalled {
        return (ReadyReason::Stalled(*reason), message.clone());
    }
    if queue.meta().is_deleting() {
        let message = "nothing starts; the queue goes when its finalizers are gone".to_owned();
        return (ReadyReason::Deleting, message);
    }
    match queue.spec.stop_policy {
        StopPolicy::Hold => {
            (ReadyReason::Held, "spec.stopPolicy is Hold; set it to None to go on".to_owned())
        }
        StopPolicy::Drain if figures.running_pods > 0 => {
            (ReadyReason::Draining, "spec.stopPolicy is Drain; the pods are ending".to_owned())
        }
        StopPolicy::Drain => {
            (ReadyReason::Drained, "spec.stopPolicy is Drain; set it to None to go on".to_owned())
        }
        StopPolicy::None if figures.metrics_old => (ReadyReason::CapacityStale, METRICS_OLD.to_owned()),
        StopPolicy::None if figures.is_stale => (ReadyReason::CapacityStale, STALE.to_owned()),
        StopPolicy::None => {
            figures.peak.as_ref().and_then(peaks::ready).unwrap_or_else(|| {
                (ReadyReason::Admitting, "jobs start as quota and capacity allow".to_owned())
            })
        }
    }
}

/// Whether the nodes cover what the quota guarantees; `None` where nobody knows.
fn overcommitted(observed: &Observed) -> Option<(OvercommittedReason, String)> {
    let figures = &observed.figures;
    let capacity = figures.capacity.as_ref().filter(|_| !figures.is_stale)?;
    let short = observed.queue.spec.quota.iter().find_map(|row| {
        let live = capacity.get(&row.resource).max(0);
        (amount(&row.resource, &row.nominal) > live).then_some((row, live))
    });
    Some(match short {
        Some((row, live)) => (
            OvercommittedReason::NominalAboveLive,
            format!(
                "nominal {} {} is above {}, which the nodes have for batch",
                row.resource,
                row.nominal.as_str(),
                exact(&row.resource, live).as_str()
            ),
        ),
        None => (OvercommittedReason::WithinLive, "the nodes cover the nominal quota".to_owned()),
    })
}

fn waiting(class: &WaitingClass) -> batch_queue::WaitingClass {
    let fits = |name: &&Arc<str>| name.len() <= RESOURCE_NAME_MAX_LENGTH;
    batch_queue::WaitingClass {
        tier: class.tier,
        priority: class.priority,
        shape: class.shape.chars().take(SHAPE_MAX_LENGTH).collect(),
        reason: class.reason.as_str().to_owned(),
        resource: class.resource.as_ref().filter(fits).map(|name| name.to_string()).unwrap_or_default(),
        jobs: count(class.jobs),
        oldest_time: Some(whole_seconds(class.oldest)),
    }
}

/// Amounts as the API has them: of the resources with a quota, and others that are not zero as far as
/// there is room. How many pods there are stands elsewhere, unless the quota is of them.
fn quantities(list: &ResourceList, rows: &[&str]) -> BTreeMap<String, Quantity> {
    let others = list
        .iter()
        .map(|(name, _)| name)
        .filter(|name| *name != "pods" && name.len() <= RESOURCE_NAME_MAX_LENGTH && !rows.contains(name));
    rows.iter()
        .copied()
        .chain(others)
        .take(QUOTA_ROWS_MAX)
        .map(|name| (name.to_owned(), exact(name, list.get(name).max(0))))
        .collect()
}

/// The shortest way to write exactly this amount.
fn exact(resource: &str, amount: i64) -> Quantity {
    const BINARY: [(&str, i64); 4] = [("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
    let text = if resource == "cpu" {
        if amount % 1000 == 0 { (amount / 1000).to_string() } else { format!("{amount}m") }
    } else {
        match BINARY.iter().find(|(_, unit)| amount != 0 && amount % unit == 0) {
            Some((suffix, unit)) => format!("{}{suffix}", amount / unit),
            None => amount.to_string(),
        }
    };
    Quantity::new(text)
}

/// Within the bounds of the API.
fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX).min(batch_queue::COUNT_MAX)
}
