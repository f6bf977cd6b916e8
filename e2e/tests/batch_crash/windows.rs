//! Peak windows that open and close while a job runs.

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use springtide_crds::batch_job::{BatchJobSpec, CompleteReason, Interruption};
use springtide_crds::batch_queue::{BatchQueueSpec, ReadyReason};
use springtide_e2e::batch::{Testbed, queues};

use crate::plays::{QUEUE, at_least_once, end, only, queued, quota};
use crate::scenarios::JOB;

/// Seconds from an edit of the queue to the edge that it makes: the manager has read it by then, or is away.
const SOON: i64 = 5;

/// A queue with this quota and a peak window that nobody will live to see.
fn with_far_peak(nominal: &str, action: &Value) -> Result<BatchQueueSpec> {
    let window = json!({"start": "00:00", "end": "01:00", "timeZone": "UTC", "dates": ["2099-01-01"]});
    let peak = json!([peak("far", &window, action, 600)]);
    Ok(BatchQueueSpec { peak_windows: serde_json::from_value(peak)?, ..quota(nominal, None) })
}

/// A peak window, after which a ramp ends when the last task may start.
fn peak(name: &str, window: &Value, action: &Value, lead_seconds: i64) -> Value {
    json!({
        "name": name, "window": window, "actions": [action], "leadSeconds": lead_seconds,
        "resume": {"rampSeconds": 2, "jitterSeconds": 0},
    })
}

fn drain() -> Value {
    json!({"tier": "BestEffort", "action": "Drain"})
}

/// Forces the windows of the queue open.
async fn force(test: &Testbed<'_>) -> Result<()> {
    let until = Timestamp::now() + SignedDuration::from_hours(1);
    let forced = json!({"mode": "ForceOn", "untilTime": until, "reason": "INC-4711"});
    queues::edit(test, QUEUE, json!({"spec": {"overridePeak": forced}})).await
}

/// Changes the queue so that no peak has an effect any more, and ends the tasks once they all run.
pub(crate) async fn come_back(test: &Testbed<'_>, tasks: usize, change: Value) -> Result<()> {
    queues::edit(test, QUEUE, change).await?;
    test.running(JOB, tasks).await?;
    // Until the ramp is told to be over: what is told of it later would be told at rest.
    queues::ready(test, QUEUE, ReadyReason::Admitting).await?;
    end(test, tasks).await?;
    test.completed(JOB).await?;
    Ok(())
}

pub(crate) async fn forced(test: &Testbed<'_>) -> Result<()> {
    queues::open(test, QUEUE, with_far_peak("200m", &drain())?).await?;
    test.submit(JOB, queued(2, 2)).await?;
    test.running(JOB, 2).await?;
    force(test).await?;
    test.reason(JOB, CompleteReason::Suspended).await?;
    test.no_pods(JOB).await?;
    come_back(test, 2, json!({"spec": {"overridePeak": null}})).await
}

pub(crate) async fn degraded(test: &Testbed<'_>) -> Result<()> {
    let half = json!({"tier": "BestEffort", "action": "Degrade", "percent": 50});
    queues::open(test, QUEUE, with_far_peak("200m", &half)?).await?;
    test.submit(JOB, queued(2, 2)).await?;
    test.running(JOB, 2).await?;
    force(test).await?;
    test.running(JOB, 1).await?;
    // KWOK removes a pod by its name, perhaps twice: one that is new could be hit.
    only(test, 1).await?;
    come_back(test, 2, json!({"spec": {"overridePeak": null}})).await
}

/// Of one window the lead begins some seconds from now, while the job runs; another one, which was open already,
/// takes its place once the job is suspended, and ends some seconds from then. Whoever is away at such a moment finds
/// the same when it is back, so that no crash has to be over in time.
pub(crate) async fn by_the_clock(test: &Testbed<'_>) -> Result<()> {
    queues::open(test, QUEUE, quota("100m", None)).await?;
    // With a grace that is longer than the lead a pod goes when that begins.
    let interruption = Interruption { grace_seconds: 600, ..Interruption::default() };
    test.submit(JOB, at_least_once(BatchJobSpec { interruption, ..queued(1, 1) })).await?;
    test.running(JOB, 1).await?;
    // From then on it is known that it has started, whoever finds its pod gone.
    test.reason(JOB, CompleteReason::Running).await?;
    let now = Timestamp::now().as_second();
    let start = (now / 60 + 2) * 60;
    let window = json!({"cron": cron(start)?, "durationSeconds": 3600, "timeZone": "UTC"});
    set(test, &peak("near", &window, &drain(), start - now - SOON)).await?;
    test.reason(JOB, CompleteReason::Suspended).await?;
    test.no_pods(JOB).await?;

    let close = Timestamp::now().as_second() + SOON;
    // No window is shorter than a minute.
    let start = (close / 60 - 1) * 60;
    let window = json!({"cron": cron(start)?, "durationSeconds": close - start, "timeZone": "UTC"});
    set(test, &peak("over", &window, &drain(), 0)).await?;
    test.running(JOB, 1).await?;
    queues::ready(test, QUEUE, ReadyReason::Admitting).await?;
    // Its times would make the spec of each run another one.
    come_back(test, 1, json!({"spec": {"peakWindows": null}})).await
}

/// Makes this the only window of the queue.
async fn set(test: &Testbed<'_>, peak: &Value) -> Result<()> {
    queues::edit(test, QUEUE, json!({"spec": {"peakWindows": [peak]}})).await
}

/// The expression of a full minute of each day.
fn cron(second: i64) -> Result<String> {
    Ok(Timestamp::from_second(second)?.strftime("%-M %-H * * *").to_string())
}
