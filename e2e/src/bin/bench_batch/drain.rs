//! G11 and G12: a peak window that ends a thousand pods which trap SIGTERM for their grace, at nearly the rate at
//! which the API server takes deletes from as few requests at a time as a manager sends, and the ramp by which they come
//! back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use kube::api::{Api, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use springtide_crds::batch_queue::BatchQueue;
use springtide_e2e::batch::pool;
use springtide_e2e::bench::post;
use springtide_e2e::kwok::{RUN_SECONDS, STOP_SECONDS};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::contender::{RAISED, RAISED_WORKERS};
use crate::generator::Generator;
use crate::load;
use crate::manifests::{self, System, Task};
use crate::pods::{Life, Pods};

/// Pods that are drained.
pub(crate) const PODS: usize = 1_000;
/// Jobs that they are of: a job tells of each step of its drain, once a second at most, whatever its size.
pub(crate) const JOBS: usize = 10;
/// Seconds from SIGTERM to SIGKILL, which the containers use up.
pub(crate) const GRACE: u32 = 20;
/// Seconds in which batch work comes back, and pods a second of that.
pub(crate) const RAMP: u32 = 50;
/// Of the raw rate by few, how fast the queue is told to drain: a little above the goal, as pauses cannot be made up for.
const SHARE: f64 = 0.95;
/// Name and label of the nodes, and their number.
const POOL: &str = "drained";
const NODES: usize = 10;
const PODS_PER_NODE: u32 = 110;
/// Deletes under way of the raw rate, and of that by few: the most that the manager's write window can have, and what it
/// begins with and does not get above while answers take more than three times their least.
pub(crate) const IN_FLIGHT: usize = 64;
pub(crate) const FEW: usize = 16;
/// Before the lead begins, for the queue's new spec to be seen.
const AHEAD: SignedDuration = SignedDuration::from_secs(20);
/// The peak itself, in seconds. Windows begin and end with a minute.
const PEAK: SignedDuration = SignedDuration::from_secs(60);
/// Bounds: for all to run, for all to be gone, for all to be back.
const RUNNING: Duration = Duration::from_secs(300);
const GONE: Duration = Duration::from_secs(300);
const BACK: Duration = Duration::from_secs(300);

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Drain {
    /// Deletes a second that the server takes of such pods, by [`IN_FLIGHT`] requests side by side.
    pub(crate) raw: f64,
    /// The same by [`FEW`].
    pub(crate) raw_by_few: f64,
    /// What `drainPodsPerSecond` and `leadSeconds` were set to.
    pub(crate) told: u32,
    pub(crate) lead: u32,
    /// Deletes a second, from the first to the last.
    pub(crate) rate: f64,
    /// Seconds from when the last pod was gone to the start of the peak; below zero when it was late.
    pub(crate) margin: f64,
    /// Pods that were created from the beginning of the lead to the end of the peak.
    pub(crate) inside: usize,
    /// Pods that came back in each second of the ramp.
    pub(crate) ramp: Vec<usize>,
}

impl Drain {
    /// As a share of the raw rate.
    pub(crate) fn share(&self) -> f64 {
        self.rate / self.raw
    }

    /// As a share of the raw rate by few.
    pub(crate) fn share_of_few(&self) -> f64 {
        self.rate / self.raw_by_few
    }

    /// What the server takes from few at a time, as a share of the raw rate.
    pub(crate) fn few(&self) -> f64 {
        self.raw_by_few / self.raw
    }

    /// The fullest second of the ramp, as a share of its slope.
    pub(crate) fn steepest(&self) -> f64 {
        let slope = PODS as f64 / f64::from(RAMP);
        self.ramp.iter().copied().max().map_or(f64::NAN, |most| most as f64 / slope)
    }
}

/// Measures the raw rates, the drain and the ramp, in namespaces of their own.
pub(crate) async fn measure(cluster: &LocalCluster) -> Result<Drain> {
    let kwok = cluster.kwok().context("KWOK")?;
    kwok.add_nodes(cluster, &pool(POOL, NODES, "64", PODS_PER_NODE)).await?;
    let raw = raw_rate(cluster, IN_FLIGHT).await?;
    let raw_by_few = raw_rate(cluster, FEW).await?;
    eprintln!(
        "      without a controller {raw:.0} deletes/s by {IN_FLIGHT}, {raw_by_few:.0} by {FEW} in flight"
    );

    let namespace = cluster.create_namespace("drain").await?;
    let (factor, workers) = (RAISED.to_string(), RAISED_WORKERS.to_string());
    let args = ["--write-budget-factor", &factor, "--workers", &workers];
    let mut manager = Manager::start(cluster, "manager-drain", &args).await?;
    manager.wait_ready().await?;
    let client = cluster.client("bench-generator")?;
    let path = format!("/apis/springtide.dev/v1alpha1/namespaces/{namespace}/batchqueues");
    post(&client, &path, &queue(&namespace)).await.context("create the queue")?;
    let pods = Pods::start(cluster, &namespace).await?;
    for number in 0..JOBS {
        let path = System::BatchJob.jobs(&namespace);
        post(&client, &path, &job(&namespace, number))
            .await
            .with_context(|| format!("create job {number}"))?;
    }
    pods.until("run", PODS, RUNNING, Life::runs).await?;

    let told = (raw_by_few * SHARE).clamp(1.0, 1000.0) as u32;
    let window = Window::of(told, Timestamp::now())?;
    let queues: Api<BatchQueue> = Api::namespaced(client, &namespace);
    let change = json!({"spec": {"peakWindows": [window.spec(told)]}});
    queues.patch(QUEUE, &PatchParams::default(), &Patch::Merge(change)).await.context("set the window")?;
    let stored = queues.get(QUEUE).await?;
    let stored = serde_json::to_value(stored.spec)?;
    ensure!(stored["peakWindows"].is_array(), "this BatchQueue has no peakWindows: {stored}");
    let (lead, [begins, start, end]) = (window.lead, window.instants());
    eprintln!("      a peak in {:.0} s, a lead of {lead} s", until(start));
    let is_new = |life: &Life| life.added >= begins;
    pods.until("are gone", PODS, GONE + start.saturating_duration_since(Instant::now()), |life| {
        life.gone.is_some()
    })
    .await?;
    let back = BACK + end.saturating_duration_since(Instant::now());
    pods.until("are back", PODS, back, is_new).await?;
    load::remove(cluster, std::slice::from_ref(&namespace)).await?;
    pods.until("are gone for good", 2 * PODS, GONE, |life| life.gone.is_some()).await?;
    manager.stop()?;

    let lives = pods.all();
    let first: Vec<&Life> = lives.iter().filter(|life| life.added < begins).collect();
    let ended = || first.iter().filter_map(|life| life.ended);
    let (from, to) = ended().min().zip(ended().max()).context("no pod was ended")?;
    let gone = first.iter().filter_map(|life| life.gone).max().context("no pod is gone")?;
    let late = gone.saturating_duration_since(start).as_secs_f64();
    let early = start.saturating_duration_since(gone).as_secs_f64();
    let drain = Drain {
        raw,
        raw_by_few,
        told,
        lead,
        rate: (first.len() - 1) as f64 / (to - from).as_secs_f64(),
        margin: early - late,
        inside: lives.iter().filter(|life| life.added >= begins && life.added < end).count(),
        ramp: buckets(end, lives.iter().map(|life| life.added).filter(|added| *added >= end)),
    };
    eprintln!("      {:.0} deletes/s, gone {:.1} s before the peak", drain.rate, drain.margin);
    Ok(drain)
}

const QUEUE: &str = "default";

fn queue(namespace: &str) -> Value {
    json!({
        "apiVersion": "springtide.dev/v1alpha1",
        "kind": "BatchQueue",
        "metadata": {"namespace": namespace, "name": QUEUE},
        "spec": {
            "capacitySource": {"type": "Static"},
            "quota": [{"resource": "pods", "nominal": PODS.to_string()}],
        },
    })
}

fn job(namespace: &str, number: usize) -> Value {
    let pods = PODS / JOBS;
    let mut pod = manifests::pod_of(&Task { pool: Some(POOL), ..Task::of("never") });
    pod["terminationGracePeriodSeconds"] = GRACE.into();
    json!({
        "apiVersion": "springtide.dev/v1alpha1",
        "kind": "BatchJob",
        "metadata": {"namespace": namespace, "name": format!("drain-{number}")},
        "spec": {
            "completions": pods,
            "parallelism": pods,
            "tier": "BestEffort",
            "interruption": {"graceSeconds": GRACE},
            "template": {
                "metadata": {"annotations": {RUN_SECONDS: "never", STOP_SECONDS: GRACE.to_string()}},
                "spec": pod,
            },
        },
    })
}

/// Deletes a second that the server takes of such pods, of nobody's, by so many requests side by side.
async fn raw_rate(cluster: &LocalCluster, in_flight: usize) -> Result<f64> {
    let namespace = cluster.create_namespace("raw").await?;
    let generator = Generator::new(cluster, std::slice::from_ref(&namespace))?;
    let (generator, namespace) = (&generator, &namespace);
    let watch = Pods::start(cluster, namespace).await?;
    let path = &manifests::pods(namespace);
    let name = |number: usize| format!("raw-{number}-0-0");
    futures::stream::iter(0..PODS)
        .map(|number| async move {
            let task = Task::of("never");
            let mut pod = manifests::orphan(namespace, &format!("raw-{number}"), &task);
            pod["metadata"]["annotations"][STOP_SECONDS] = GRACE.to_string().into();
            pod["spec"]["nodeName"] = json!(format!("{POOL}-{}", number % NODES));
            pod["spec"]["terminationGracePeriodSeconds"] = GRACE.into();
            post(&generator.client, path, &pod).await.map(drop)
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect::<()>()
        .await?;
    watch.until("run", PODS, RUNNING, Life::runs).await?;
    let start = Instant::now();
    futures::stream::iter(0..PODS)
        .map(|number| async move { generator.delete(path, &name(number)).await })
        .buffer_unordered(in_flight)
        .try_collect::<()>()
        .await?;
    let rate = PODS as f64 / start.elapsed().as_secs_f64();
    watch.until("are gone", PODS, GONE, |life| life.gone.is_some()).await?;
    Ok(rate)
}

/// A peak, and the lead before it.
#[derive(Debug)]
struct Window {
    lead: u32,
    start: Timestamp,
    made: (Timestamp, Instant),
}

impl Window {
    /// The next whole minute before which so many deletes a second are done, with the grace of the last pod and the
    /// tenth of the lead that a drain keeps in reserve.
    fn of(told: u32, now: Timestamp) -> Result<Self> {
        let takes = f64::from(GRACE) + PODS as f64 / f64::from(told);
        let lead = (takes * 10.0 / 9.0).ceil() as u32 + 2;
        let earliest = now + AHEAD + SignedDuration::from_secs(lead.into());
        let minute = earliest.as_second().div_euclid(60) + 1;
        Ok(Self { lead, start: Timestamp::from_second(minute * 60)?, made: (now, Instant::now()) })
    }

    fn end(&self) -> Timestamp {
        self.start + PEAK
    }

    fn spec(&self, told: u32) -> Value {
        let time = |at: Timestamp| at.strftime("%H:%M").to_string();
        let date = self.start.strftime("%Y-%m-%d").to_string();
        json!({
            "name": "bench",
            "window": {
                "start": time(self.start), "end": time(self.end()), "timeZone": "Etc/UTC", "dates": [date],
            },
            "actions": [{"tier": "BestEffort", "action": "Drain"}],
            "leadSeconds": self.lead,
            "drainPodsPerSecond": told,
            "resume": {"rampSeconds": RAMP, "jitterSeconds": 0},
        })
    }

    /// When the lead begins, the peak starts and ends, on the monotonic clock.
    fn instants(&self) -> [Instant; 3] {
        let (now, instant) = self.made;
        let lead = SignedDuration::from_secs(self.lead.into());
        [self.start - lead, self.start, self.end()].map(|at| {
            let ahead = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            instant + ahead
        })
    }
}

/// How many there were in each second from `start` on.
fn buckets(start: Instant, times: impl Iterator<Item = Instant>) -> Vec<usize> {
    let mut buckets = Vec::new();
    for time in times {
        let second = time.saturating_duration_since(start).as_secs() as usize;
        if buckets.len() <= second {
            buckets.resize(second + 1, 0);
        }
        buckets[second] += 1;
    }
    buckets
}

fn until(at: Instant) -> f64 {
    at.saturating_duration_since(Instant::now()).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_a_whole_minute_and_leaves_time_for_the_lead_and_the_deletes() {
        let now: Timestamp = "2026-11-11T23:58:40Z".parse().unwrap();
        let window = Window::of(400, now).unwrap();
        // 20 s of grace and 2.5 s of deletes, a tenth in reserve.
        assert_eq!((window.lead, window.start.to_string()), (27, "2026-11-12T00:00:00Z".to_owned()));
        let spec = window.spec(400);
        assert_eq!((&spec["window"]["start"], &spec["window"]["end"]), (&json!("00:00"), &json!("00:01")));
        assert_eq!(spec["window"]["dates"], json!(["2026-11-12"]));
        let [begins, start, end] = window.instants();
        assert_eq!((start - begins, end - start), (Duration::from_secs(27), Duration::from_secs(60)));
    }

    #[test]
    fn pods_are_counted_by_the_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(buckets(start, [at(0), at(999), at(1000), at(3500)].into_iter()), [2, 1, 0, 1]);
        let drain = |ramp: Vec<usize>| Drain {
            raw: 500.0,
            raw_by_few: 400.0,
            told: 380,
            lead: 27,
            rate: 370.0,
            margin: 1.5,
            inside: 0,
            ramp,
        };
        assert_eq!(drain(vec![20, 22, 18]).steepest(), 1.1);
        let shares = drain(Vec::new());
        assert_eq!((shares.share(), shares.share_of_few(), shares.few()), (0.74, 0.925, 0.8));
        assert!(drain(Vec::new()).steepest().is_nan());
    }

    #[test]
    fn the_objects_are_such_as_the_kinds_take() {
        let job: springtide_crds::batch_job::BatchJob = serde_json::from_value(job("ns", 3)).unwrap();
        assert_eq!(
            (job.spec.parallelism as usize * JOBS, job.spec.interruption.grace_seconds),
            (PODS, GRACE)
        );
        let queue: BatchQueue = serde_json::from_value(queue("ns")).unwrap();
        assert_eq!(queue.spec.quota[0].resource, "pods");
    }
}
