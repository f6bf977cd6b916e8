//! Peak windows of a BatchQueue, on a real control plane with pods that KWOK plays: batch work leaves before a window
//! opens, stays away while it is open, and comes back after it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test fail as a test does")]

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};
use springtide_crds::batch_job::{
    BatchJobSpec, CompleteReason, DegradedReason, Interruption, InterruptionPolicy, QueuedReason,
    SuspendedReason,
};
use springtide_crds::batch_queue::{
    BatchQueue, BatchQueueSpec, DrainWillMissReason, PeakWindowActiveReason, QuotaRow, ReadyReason,
    StalledReason,
};
use springtide_crds::common::{Quantity, Tier};
use springtide_crds::reason::Reason;
use springtide_e2e::batch::queues::{create, edit, events_tell, queue, says, told};
use springtide_e2e::batch::{Task, Testbed, cluster, shared};
use springtide_e2e::manager::Manager;
use springtide_e2e::oracle::jobs;

/// The queue that all jobs are in that name none.
const QUEUE: &str = "default";

/// The first full minute that is at least so many seconds away.
fn minute_after(seconds: i64) -> Timestamp {
    let earliest = (Timestamp::now() + SignedDuration::from_secs(seconds)).as_second();
    Timestamp::from_second((earliest / 60 + 1) * 60).unwrap()
}

/// A window of one minute in which BestEffort leaves and Standard keeps three tenths.
fn window(start: Timestamp) -> Value {
    window_of(start, 1)
}

/// The same of so many minutes.
fn window_of(start: Timestamp, minutes: i64) -> Value {
    let time_of_day = |at: Timestamp| at.to_string()[11..16].to_owned();
    let end = start + SignedDuration::from_mins(minutes);
    json!({
        "name": "minute",
        "window": {"start": time_of_day(start), "end": time_of_day(end), "timeZone": "UTC"},
        "actions": [
            {"tier": "BestEffort", "action": "Drain"}, {"tier": "Standard", "action": "Degrade", "percent": 30},
        ],
        "leadSeconds": 30,
        "drainPodsPerSecond": 10,
        "resume": {"rampSeconds": 20, "jitterSeconds": 0},
    })
}

/// A queue of so many cores with such windows.
fn spec(cores: &str, windows: &Value) -> Result<BatchQueueSpec> {
    let cpu = QuotaRow { resource: "cpu".to_owned(), nominal: Quantity::new(cores), max: None };
    Ok(BatchQueueSpec {
        quota: vec![cpu],
        peak_windows: serde_json::from_value(windows.clone())?,
        ..BatchQueueSpec::new()
    })
}

/// A job whose tasks take half a core each and do not end by themselves.
fn wide(tasks: u32, tier: Tier) -> BatchJobSpec {
    let task = Task { cpu: "500m".into(), ..Task::endless() };
    BatchJobSpec {
        completions: tasks,
        parallelism: tasks,
        tier,
        interruption: Interruption { grace_seconds: 2, ..Interruption::default() },
        ..BatchJobSpec::new(task.template())
    }
}

/// Sets or lifts the override of the queue.
async fn force(test: &Testbed<'_>, mode: Option<&str>) -> Result<()> {
    let until = Timestamp::now() + SignedDuration::from_hours(1);
    let forced = mode.map(|mode| json!({"mode": mode, "untilTime": until, "reason": "INC-4711"}));
    edit(test, QUEUE, json!({"spec": {"overridePeak": forced}})).await
}

/// All pods that a job ever had.
fn ever(test: &Testbed<'_>, job: &str) -> BTreeSet<String> {
    test.pods.now().of(job).into_iter().map(|life| life.uid.clone()).collect()
}

async fn clean_up(test: &Testbed<'_>, names: &[&str]) -> Result<()> {
    for job in names {
        test.delete(job).await?;
        test.gone(job).await?;
    }
    test.verify()
}

#[tokio::test]
async fn batch_work_is_gone_when_a_window_opens_and_comes_back_when_it_has_closed() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "peak").await?;
    create(&test, QUEUE, spec("8", &json!([]))?).await?;
    told(&test, QUEUE, ReadyReason::Admitting).await?;
    // With a grace that no task takes. The drain counts on it, so that it has more time than it needs.
    let graceful = |tasks| BatchJobSpec {
        interruption: Interruption { grace_seconds: 30, ..Interruption::default() },
        ..wide(tasks, Tier::BestEffort)
    };
    test.submit("low", graceful(6)).await?;
    test.submit("single", graceful(1)).await?;
    test.running("low", 6).await?;
    test.running("single", 1).await?;
    // The lead, and what is to be seen before it, in it, inside and after the window, are longer than it takes to see
    // it: a job tells after half a minute that it waits.
    let start = minute_after(160);
    let mut minute = window_of(start, 2);
    minute["leadSeconds"] = json!(60);
    minute["resume"]["rampSeconds"] = json!(40);
    edit(&test, QUEUE, json!({"spec": {"peakWindows": [minute]}})).await?;
    let before = told(&test, QUEUE, ReadyReason::Admitting).await?;
    let next = before.status.context("a status")?.next_window.context("the next window")?;
    ensure!((next.name.as_str(), next.start_time.0) == ("minute", start), "{next:?}");
    let finishing = BatchJobSpec {
        expected_seconds: Some(600),
        interruption: Interruption {
            policy: InterruptionPolicy::FinishOrDontStart,
            ..Interruption::default()
        },
        ..wide(1, Tier::BestEffort)
    };
    test.submit("finishing", finishing).await?;
    test.reason("finishing", QueuedReason::WouldNotFinish).await?;

    let draining = told(&test, QUEUE, PeakWindowActiveReason::Draining).await?;
    ensure!(says(&draining, &ReadyReason::Draining), "{:?}", draining.status);
    ensure!(says(&draining, &DrainWillMissReason::OnTime), "{:?}", draining.status);
    let at_lead = ever(&test, "low");
    test.submit("late", wide(1, Tier::BestEffort)).await?;
    let closed = told(&test, QUEUE, ReadyReason::Closed).await?;
    let active = closed.status.context("a status")?.active_window.context("the active window")?;
    ensure!((active.name.as_str(), active.pods_left) == ("minute", 0), "{active:?}");
    for job in ["low", "single"] {
        test.no_pods(job).await?;
        let job = test.reason(job, SuspendedReason::PeakWindow).await?;
        ensure!(jobs::has(&job, &CompleteReason::Suspended), "{:?}", job.status);
        ensure!(job.status.context("a status")?.failed == 0, "what was drained has not failed");
    }
    ensure!(ever(&test, "low") == at_lead, "a pod has started inside");
    ensure!(ever(&test, "late").is_empty() && ever(&test, "finishing").is_empty());

    told(&test, QUEUE, ReadyReason::Ramping).await?;
    test.running("low", 6).await?;
    for job in ["single", "late", "finishing"] {
        test.running(job, 1).await?;
    }
    for job in ["low", "single"] {
        test.reason(job, SuspendedReason::Resumed).await?;
    }
    told(&test, QUEUE, PeakWindowActiveReason::Idle).await?;
    events_tell(&test, &["Draining", "Closed", "Ramping", "Idle"]).await?;
    clean_up(&test, &["low", "single", "late", "finishing"]).await
}

#[tokio::test]
async fn an_override_opens_and_closes_the_windows_and_a_degraded_job_shrinks_and_grows() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "override").await?;
    // Some hours away: nothing but the override has an effect.
    let start = minute_after(5 * 3600);
    create(&test, QUEUE, spec("5", &json!([window(start)]))?).await?;
    told(&test, QUEUE, ReadyReason::Admitting).await?;
    test.submit("low", wide(2, Tier::BestEffort)).await?;
    test.running("low", 2).await?;
    test.submit("usual", wide(8, Tier::Standard)).await?;
    test.running("usual", 8).await?;
    force(&test, Some("ForceOn")).await?;
    let forced = told(&test, QUEUE, PeakWindowActiveReason::Forced).await?;
    let status = forced.status.context("a status")?;
    ensure!(status.conditions.iter().any(|condition| condition.message.contains("INC-4711")), "{status:?}");
    test.no_pods("low").await?;
    test.reason("low", SuspendedReason::PeakWindow).await?;
    // 30 percent of 5 cores.
    let left = test.running("usual", 3).await?;
    test.reason("usual", DegradedReason::PeakWindow).await?;
    force(&test, Some("ForceOff")).await?;
    told(&test, QUEUE, PeakWindowActiveReason::ForcedOff).await?;
    test.running("low", 2).await?;
    let all = test.running("usual", 8).await?;
    ensure!(
        left.iter().all(|life| all.iter().any(|other| other.uid == life.uid)),
        "they went on all the time"
    );
    let job = test.reason("usual", DegradedReason::FullParallelism).await?;
    ensure!(job.status.context("a status")?.failed == 0);
    clean_up(&test, &["low", "usual"]).await
}

#[tokio::test]
async fn a_cron_window_that_holds_lets_pods_finish_and_starts_nothing_until_it_closes() -> Result<()> {
    // Longer than it takes to see what is to be seen inside.
    const OPEN_SECONDS: i64 = 120;
    let test = Testbed::new(shared().await?, "hold").await?;
    let start = minute_after(30);
    let cron = start.strftime("%-M %-H * * *").to_string();
    let hold = json!({
        "name": "nightly",
        "window": {"cron": cron, "durationSeconds": OPEN_SECONDS, "timeZone": "UTC"},
        "actions": [{"tier": "BestEffort", "action": "Hold"}],
        "resume": {"rampSeconds": 40, "jitterSeconds": 0},
    });
    create(&test, QUEUE, spec("8", &json!([hold]))?).await?;
    let before = told(&test, QUEUE, ReadyReason::Admitting).await?;
    let next = before.status.context("a status")?.next_window.context("the next window")?;
    let end = start + SignedDuration::from_secs(OPEN_SECONDS);
    ensure!((next.start_time.0, next.end_time.0) == (start, end), "{next:?}");
    test.submit("low", BatchJobSpec { completions: 4, ..wide(2, Tier::BestEffort) }).await?;
    let running = test.running("low", 2).await?;

    told(&test, QUEUE, PeakWindowActiveReason::Closed).await?;
    test.submit("late", wide(1, Tier::BestEffort)).await?;
    test.end_pod(&running[0], 0).await?;
    test.job("low", "one succeeded", |job| job.status.as_ref().is_some_and(|status| status.succeeded == 1))
        .await?;
    queue(&test, QUEUE, "telling that both wait", |queue| {
        let waiting = queue.status.iter().flat_map(|status| &status.waiting);
        let for_the_peak = waiting.filter(|class| class.reason == QueuedReason::PeakWindow.as_str());
        for_the_peak.map(|class| class.jobs).sum::<u32>() == 2
    })
    .await?;
    // The other tier is not concerned.
    test.submit("usual", wide(1, Tier::Standard)).await?;
    test.running("usual", 1).await?;
    ensure!(test.running("low", 1).await?[0].uid == running[1].uid, "what runs goes on");
    ensure!(ever(&test, "low").len() == 2 && ever(&test, "late").is_empty(), "a pod has started inside");

    told(&test, QUEUE, ReadyReason::Ramping).await?;
    test.running("low", 2).await?;
    test.running("late", 1).await?;
    told(&test, QUEUE, PeakWindowActiveReason::Idle).await?;
    clean_up(&test, &["low", "late", "usual"]).await
}

#[tokio::test]
async fn a_drain_that_will_miss_its_start_is_told_with_its_cause_until_it_is_mended() -> Result<()> {
    let test = Testbed::new(shared().await?, "miss").await?;
    create(&test, QUEUE, spec("8", &json!([]))?).await?;
    told(&test, QUEUE, ReadyReason::Admitting).await?;
    let graceful = BatchJobSpec {
        interruption: Interruption { grace_seconds: 60, ..Interruption::default() },
        ..wide(12, Tier::BestEffort)
    };
    test.submit("low", graceful).await?;
    let running = test.running("low", 12).await?;
    // Within the hour of the forecast, and long before the lead.
    let start = minute_after(1800);
    for (lead_seconds, rate, reason) in [
        (30, 10, DrainWillMissReason::GraceTooLong),
        // The first of twelve would have to go 71 s before the start.
        (65, 1, DrainWillMissReason::RateTooLow),
        (600, 1, DrainWillMissReason::OnTime),
    ] {
        let mut peak = window(start);
        peak["leadSeconds"] = json!(lead_seconds);
        peak["drainPodsPerSecond"] = json!(rate);
        edit(&test, QUEUE, json!({"spec": {"peakWindows": [peak]}})).await?;
        let queue = told(&test, QUEUE, reason).await?;
        ensure!(says(&queue, &ReadyReason::Admitting), "a forecast ends nothing: {:?}", queue.status);
    }
    ensure!(test.running("low", 12).await? == running, "a pod has been ended");
    clean_up(&test, &["low"]).await
}

#[tokio::test]
async fn a_window_that_cannot_be_read_stalls_its_queue_alone_and_holds_its_tiers_alone() -> Result<()> {
    let cluster = shared().await?;
    let test = Testbed::new(cluster, "badzone").await?;
    let mut unreadable = window(minute_after(3600));
    unreadable["window"]["timeZone"] = json!("Mars/Olympus");
    let group = json!({
        "name": "shared", "fromTimeShareGroup": {"name": "double11"},
        "actions": [{"tier": "BestEffort", "action": "Drain"}],
    });
    create(&test, "bad", spec("4", &json!([unreadable]))?).await?;
    create(&test, "groupless", spec("4", &json!([group]))?).await?;
    create(&test, "good", spec("4", &json!([]))?).await?;
    let bad = told(&test, "bad", StalledReason::InvalidWindow).await?;
    ensure!(says(&bad, &PeakWindowActiveReason::Unresolved), "{:?}", bad.status);
    let message = |queue: &BatchQueue| {
        let conditions = queue.status.iter().flat_map(|status| status.conditions.clone());
        conditions.map(|condition| condition.message).collect::<Vec<_>>().join("; ")
    };
    ensure!(message(&bad).contains("Mars/Olympus"), "{}", message(&bad));
    told(&test, "groupless", StalledReason::TimeShareGroupNotFound).await?;
    told(&test, "good", ReadyReason::Admitting).await?;
    let in_queue = |queue: &str, tier| BatchJobSpec { queue_name: Some(queue.to_owned()), ..wide(1, tier) };
    test.submit("held", in_queue("bad", Tier::BestEffort)).await?;
    test.submit("held-too", in_queue("groupless", Tier::BestEffort)).await?;
    test.submit("usual", in_queue("bad", Tier::Standard)).await?;
    test.submit("good", in_queue("good", Tier::BestEffort)).await?;
    test.running("usual", 1).await?;
    test.running("good", 1).await?;
    ensure!(ever(&test, "held").is_empty() && ever(&test, "held-too").is_empty());
    // Mended, it goes on.
    edit(&test, "bad", json!({"spec": {"peakWindows": [window(minute_after(3 * 3600))]}})).await?;
    test.running("held", 1).await?;
    told(&test, "bad", ReadyReason::Admitting).await?;
    clean_up(&test, &["held", "held-too", "usual", "good"]).await
}

#[tokio::test]
async fn a_manager_that_comes_back_in_a_window_starts_nothing_and_after_it_opens_by_and_by() -> Result<()> {
    let cluster = cluster().await?;
    let mut first = Manager::start(&cluster, "first", &[]).await?;
    first.wait_ready().await?;
    let test = Testbed::new(&cluster, "restart").await?;
    create(&test, QUEUE, spec("8", &json!([window(minute_after(5 * 3600))]))?).await?;
    told(&test, QUEUE, ReadyReason::Admitting).await?;
    test.submit("low", wide(6, Tier::BestEffort)).await?;
    test.running("low", 6).await?;
    force(&test, Some("ForceOn")).await?;
    test.no_pods("low").await?;
    test.reason("low", SuspendedReason::PeakWindow).await?;
    told(&test, QUEUE, ReadyReason::Closed).await?;
    let before = ever(&test, "low");
    first.kill()?;
    test.submit("late", wide(1, Tier::BestEffort)).await?;
    let mut second = Manager::start(&cluster, "second", &[]).await?;
    second.wait_ready().await?;
    // Something that it does after it has looked at the job that came while nobody was there.
    test.submit("guaranteed", wide(1, Tier::Standard)).await?;
    test.running("guaranteed", 1).await?;
    ensure!(ever(&test, "low") == before && ever(&test, "late").is_empty(), "a pod has started inside");
    // The window ends while nobody is there; only the status knows that it was one.
    second.kill()?;
    force(&test, None).await?;
    let mut third = Manager::start(&cluster, "third", &[]).await?;
    third.wait_ready().await?;
    told(&test, QUEUE, ReadyReason::Ramping).await?;
    test.running("low", 6).await?;
    test.running("late", 1).await?;
    told(&test, QUEUE, ReadyReason::Admitting).await?;
    clean_up(&test, &["low", "late", "guaranteed"]).await
}

/// When the API server made the pods of a job that are there, in order.
async fn creations(test: &Testbed<'_>, job: &str) -> Result<Vec<Timestamp>> {
    let pods =
        test.api::<Pod>().list(&ListParams::default().labels(&format!("springtide.dev/job={job}"))).await?;
    let created = pods.items.into_iter().filter_map(|pod| Some(pod.metadata.creation_timestamp?.0));
    let mut created: Vec<Timestamp> = created.collect();
    created.sort_unstable();
    Ok(created)
}

/// Nothing but a wait: until a clock shows that time.
async fn at(time: Timestamp) -> Result<()> {
    let left = time.duration_since(Timestamp::now());
    tokio::time::sleep(left.try_into().unwrap_or_default()).await;
    Ok(())
}

#[tokio::test]
async fn a_window_that_starts_and_ends_while_no_manager_is_there_means_the_same_to_the_next_one() -> Result<()>
{
    const OPEN_SECONDS: i64 = 120;
    const RAMP_SECONDS: i64 = 120;
    let cluster = cluster().await?;
    // Without election: the next one need not wait for the lease of the one that was killed.
    let manager = async |number: usize| {
        let mut manager =
            Manager::start(&cluster, &format!("away-{number}"), &["--no-leader-election"]).await?;
        manager.wait_ready().await?;
        anyhow::Ok(manager)
    };
    let first = manager(1).await?;
    let test = Testbed::new(&cluster, "away").await?;
    create(&test, QUEUE, spec("8", &json!([]))?).await?;
    told(&test, QUEUE, ReadyReason::Admitting).await?;
    test.submit("low", wide(6, Tier::BestEffort)).await?;
    test.submit("single", wide(1, Tier::BestEffort)).await?;
    let running = test.running("low", 6).await?;
    test.running("single", 1).await?;
    // The manager is gone before the lead, which is short for that reason.
    let start = minute_after(60);
    let end = start + SignedDuration::from_secs(OPEN_SECONDS);
    let mut away = window(start);
    away["window"]["end"] = json!(end.to_string()[11..16]);
    away["leadSeconds"] = json!(10);
    away["resume"]["rampSeconds"] = json!(RAMP_SECONDS);
    edit(&test, QUEUE, json!({"spec": {"peakWindows": [away]}})).await?;
    told(&test, QUEUE, ReadyReason::Admitting).await?;
    first.kill()?;
    let before = ever(&test, "low");
    test.submit("late", wide(1, Tier::BestEffort)).await?;
    at(start + SignedDuration::from_secs(1)).await?;
    ensure!(test.running("low", 6).await? == running, "nobody was there to end them");

    // Whoever comes now drains at once, and starts nothing.
    let second = manager(2).await?;
    for job in ["low", "single"] {
        test.no_pods(job).await?;
        let job = test.reason(job, SuspendedReason::PeakWindow).await?;
        ensure!(jobs::has(&job, &CompleteReason::Suspended), "{:?}", job.status);
        ensure!(job.status.context("a status")?.failed == 0, "what was drained has not failed");
    }
    let gone = told(&test, QUEUE, PeakWindowActiveReason::Closed).await?;
    let window = gone.status.context("a status")?.active_window.context("the active window")?;
    ensure!(window.end_time.as_ref().map(|end| end.0) == Some(end), "{window:?}");
    second.kill()?;
    at(end + SignedDuration::from_secs(1)).await?;
    ensure!(ever(&test, "low") == before && ever(&test, "late").is_empty(), "a pod has started inside");

    // The ramp is that of the end, which nobody has seen.
    let third = manager(3).await?;
    let ramping = told(&test, QUEUE, ReadyReason::Ramping).await?;
    let window = ramping.status.context("a status")?.active_window.context("the active window")?;
    ensure!(window.end_time.as_ref().map(|end| end.0) == Some(end), "{window:?}");
    for (job, tasks) in [("low", 6), ("single", 1), ("late", 1)] {
        test.running(job, tasks).await?;
    }
    for job in ["low", "single"] {
        test.reason(job, SuspendedReason::Resumed).await?;
    }
    let mut created = Vec::new();
    for job in ["low", "single", "late"] {
        created.extend(creations(&test, job).await?);
    }
    created.sort_unstable();
    ensure!(created.len() == 8, "{created:?}");
    for (number, created) in (1_i64..).zip(&created) {
        // Eight cores are free at the end, of which each task takes a half.
        let earliest = end + SignedDuration::from_secs(number * RAMP_SECONDS / 16);
        ensure!(*created >= earliest, "task {number} has come at {created}, not before {earliest} was it to");
    }
    clean_up(&test, &["low", "single", "late"]).await?;
    third.stop()?;
    Ok(())
}
