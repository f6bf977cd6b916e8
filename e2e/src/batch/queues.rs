//! The hands of an administrator: BatchQueues of a test's namespace.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::Value;
use springtide_crds::batch_queue::{BatchQueue, BatchQueueSpec, ReadyReason};
use springtide_crds::reason::Reason;

use super::Testbed;
use crate::oracle::feed::PATIENCE;
use crate::oracle::statuses;
use crate::polling::until_seen;

/// Creates a queue.
///
/// # Errors
/// It is refused.
pub async fn create(test: &Testbed<'_>, name: &str, spec: BatchQueueSpec) -> Result<()> {
    let created = test.api().create(&PostParams::default(), &BatchQueue::new(name, spec)).await;
    created.with_context(|| format!("create the queue {name}"))?;
    Ok(())
}

/// Creates a queue, and waits until the manager admits jobs to it. Jobs and queues come to it by separate watches: a job
/// that names no queue, and is seen first, starts in the built-in one, and stays there.
///
/// # Errors
/// It is refused, or does not come to admit.
pub async fn open(test: &Testbed<'_>, name: &str, spec: BatchQueueSpec) -> Result<()> {
    create(test, name, spec).await?;
    ready(test, name, ReadyReason::Admitting).await.map(drop)
}

/// Merges `change` into a queue.
///
/// # Errors
/// It is refused.
pub async fn edit(test: &Testbed<'_>, name: &str, change: Value) -> Result<()> {
    let edited = test.api::<BatchQueue>().patch(name, &PatchParams::default(), &Patch::Merge(change)).await;
    edited.with_context(|| format!("edit the queue {name}"))?;
    Ok(())
}

/// Waits until a queue is as `check` wants it.
///
/// # Errors
/// It does not become so.
pub async fn queue(
    test: &Testbed<'_>,
    name: &str,
    what: &str,
    check: impl Fn(&BatchQueue) -> bool,
) -> Result<BatchQueue> {
    let condition = |queue: Option<&BatchQueue>| queue.is_some_and(&check);
    let queues = test.api::<BatchQueue>();
    let waited = tokio::time::timeout(PATIENCE, await_condition(queues.clone(), name, condition)).await;
    match waited {
        Ok(found) => found?.with_context(|| format!("queue {name} is gone: {what}")),
        Err(_) => {
            let status = queues.get_opt(name).await?.and_then(|queue| queue.status);
            bail!("queue {name}: {what}: not within {PATIENCE:?}, its status is {status:?}")
        }
    }
}

/// Waits until a queue says this of its present generation.
///
/// # Errors
/// It does not.
pub async fn told<R: Reason>(test: &Testbed<'_>, name: &str, reason: R) -> Result<BatchQueue> {
    let what = format!("{} {}", R::CONDITION, reason.as_str());
    queue(test, name, &what, |queue| says(queue, &reason)).await
}

/// As [`told`], of its summary.
///
/// # Errors
/// It does not.
pub async fn ready(test: &Testbed<'_>, name: &str, reason: ReadyReason) -> Result<BatchQueue> {
    told(test, name, reason).await
}

/// Waits until events on queues of the namespace tell of all this: they come after the status.
///
/// # Errors
/// They do not.
pub async fn events_tell(test: &Testbed<'_>, reasons: &[&str]) -> Result<()> {
    let events = test.api::<Event>();
    until_seen(PATIENCE, &format!("events tell of all of {reasons:?}"), async || {
        let listed = events.list(&ListParams::default()).await?;
        let of_queue = |event: &&Event| {
            event.regarding.as_ref().is_some_and(|about| about.kind.as_deref() == Some("BatchQueue"))
        };
        let told = listed.items.iter().filter(of_queue).filter_map(|event| event.reason.as_deref());
        let told: BTreeSet<&str> = told.collect();
        let all = reasons.iter().all(|reason| told.contains(*reason));
        Ok(if all { Ok(()) } else { Err(format!("{told:?}")) })
    })
    .await
}

/// Whether a queue has a condition with this reason, about its present generation.
#[must_use]
pub fn says<R: Reason>(queue: &BatchQueue, reason: &R) -> bool {
    let conditions = queue.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    statuses::says(conditions, queue.metadata.generation, reason)
}
