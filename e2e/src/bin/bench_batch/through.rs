//! Jobs through the manager: as many as it takes, and at a steady pace.

use crate::manifests;
use crate::watcher::{Seen, Watcher};
use anyhow::{Result, bail};
use futures::{StreamExt, TryStreamExt};
use springtide_e2e::bench::post;
use springtide_e2e::bench::usage::{self, Usage};
use springtide_e2e::local_cluster::LocalCluster;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Jobs that the generator creates at once.
const CREATES_IN_FLIGHT: usize = 64;
/// A run in which nothing more is seen for this long has failed.
const SILENCE: Duration = Duration::from_secs(120);

/// A throughput run.
pub(crate) struct Run {
    /// Jobs a second, from the first create until all objects are gone.
    pub(crate) rate: f64,
    /// What the manager used in it.
    pub(crate) usage: Usage,
    /// Create answered to pod seen, in seconds, sorted.
    pub(crate) create_to_pod: Vec<f64>,
    /// Pod ended to pod gone, in seconds, sorted.
    pub(crate) exit_to_gone: Vec<f64>,
}

/// Creates `jobs` jobs as fast as the server takes them and waits until all is gone.
pub(crate) async fn throughput(
    cluster: &LocalCluster,
    namespaces: &[String],
    jobs: usize,
    manager: i32,
) -> Result<Run> {
    let watcher = Watcher::start(cluster, false)?;
    let client = cluster.client("bench-generator")?;
    let created = Mutex::new(HashMap::new());
    let before = usage::of(manager)?;
    let start = Instant::now();
    let creates = futures::stream::iter(0..jobs)
        .map(|number| {
            let namespace = &namespaces[number % namespaces.len()];
            let name = format!("job-{number}");
            let (client, created) = (client.clone(), &created);
            async move {
                post(&client, &manifests::jobs(namespace), &manifests::job(namespace, &name, "0")).await?;
                insert(created, format!("{namespace}/{name}"));
                anyhow::Ok(())
            }
        })
        .buffer_unordered(CREATES_IN_FLIGHT)
        .try_collect::<()>();
    creates.await?;
    all_gone(&watcher, jobs).await?;
    let rate = jobs as f64 / start.elapsed().as_secs_f64();
    let after = usage::of(manager)?;
    let usage = Usage { cpu_seconds: after.cpu_seconds - before.cpu_seconds, peak_mib: after.peak_mib };
    let created = created.into_inner().unwrap_or_default();
    let seen = watcher.all();
    Ok(Run {
        rate,
        usage,
        create_to_pod: spans(&seen, |key, seen| {
            Some(seen.pod_added?.saturating_duration_since(*created.get(key)?))
        }),
        exit_to_gone: spans(&seen, |_, seen| Some(seen.pod_gone? - seen.pod_ended?)),
    })
}

/// Latencies at a steady pace, in seconds, sorted.
pub(crate) struct Latency {
    /// Create answered to pod seen.
    pub(crate) create_to_pod: Vec<f64>,
    /// Pod ended to outcome in the job's status.
    pub(crate) exit_to_outcome: Vec<f64>,
    /// Pod ended to pod gone.
    pub(crate) exit_to_gone: Vec<f64>,
}

/// Creates jobs of one second each, one every `pace`.
pub(crate) async fn paced(
    cluster: &LocalCluster,
    namespaces: &[String],
    jobs: usize,
    pace: Duration,
) -> Result<Latency> {
    let watcher = Watcher::start(cluster, true)?;
    let client = cluster.client("bench-generator")?;
    let created = Mutex::new(HashMap::new());
    let mut tick = tokio::time::interval(pace);
    for number in 0..jobs {
        tick.tick().await;
        let namespace = &namespaces[number % namespaces.len()];
        let name = format!("paced-{number}");
        post(&client, &manifests::jobs(namespace), &manifests::job(namespace, &name, "1")).await?;
        insert(&created, format!("{namespace}/{name}"));
    }
    all_gone(&watcher, jobs).await?;
    let created = created.into_inner().unwrap_or_default();
    let seen = watcher.all();
    Ok(Latency {
        create_to_pod: spans(&seen, |key, seen| {
            Some(seen.pod_added?.saturating_duration_since(*created.get(key)?))
        }),
        exit_to_outcome: spans(&seen, |_, seen| {
            Some(seen.outcome?.saturating_duration_since(seen.pod_ended?))
        }),
        exit_to_gone: spans(&seen, |_, seen| Some(seen.pod_gone? - seen.pod_ended?)),
    })
}

fn insert(created: &Mutex<HashMap<String, Instant>>, key: String) {
    if let Ok(mut created) = created.lock() {
        created.insert(key, Instant::now());
    }
}

async fn all_gone(watcher: &Watcher, jobs: usize) -> Result<()> {
    let gone = |seen: &Seen| seen.pod_gone.is_some() && seen.job_gone.is_some();
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = watcher.count(gone);
        if now == jobs {
            return Ok(());
        }
        if now > last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() > SILENCE {
            bail!("only {now} of {jobs} jobs are gone, and nothing has changed for {} s", SILENCE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn spans(seen: &HashMap<String, Seen>, span: impl Fn(&str, &Seen) -> Option<Duration>) -> Vec<f64> {
    let mut spans: Vec<f64> =
        seen.iter().filter_map(|(key, seen)| span(key, seen)).map(|span| span.as_secs_f64()).collect();
    spans.sort_by(f64::total_cmp);
    spans
}
