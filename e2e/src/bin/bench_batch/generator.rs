//! The load generator: creates of many jobs, and lives that are led side by side.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use kube::Client;
use kube::core::Request;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use springtide_e2e::bench::post;
use springtide_e2e::bench::report::quantile;
use springtide_e2e::local_cluster::LocalCluster;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::manifests::{System, Task};
use crate::stats::sorted;

/// Jobs that are created at once.
const CREATES_IN_FLIGHT: usize = 64;
/// Bound of one request, and of one life: far above any that makes sense.
const REQUEST: Duration = Duration::from_secs(60);
const LIFE: Duration = Duration::from_secs(120);

/// Creates jobs in namespaces, one after the other in turn.
#[derive(Clone)]
pub(crate) struct Generator {
    /// Its client.
    pub(crate) client: Client,
    namespaces: Arc<[String]>,
}

impl Generator {
    /// One with connections of its own.
    pub(crate) fn new(cluster: &LocalCluster, namespaces: &[String]) -> Result<Self> {
        Ok(Self { client: cluster.client("bench-generator")?, namespaces: namespaces.into() })
    }

    /// The namespace of an object by its number.
    pub(crate) fn namespace(&self, number: usize) -> &str {
        &self.namespaces[number % self.namespaces.len()]
    }

    /// Creates jobs `<prefix>0` and so on, as fast as the server takes them. Gives by namespace and name when each
    /// was sent.
    pub(crate) async fn create(
        &self,
        system: System,
        prefix: &str,
        jobs: usize,
        task: impl Fn(usize) -> Task,
    ) -> Result<HashMap<String, Instant>> {
        futures::stream::iter(0..jobs)
            .map(|number| self.create_one(system, format!("{prefix}{number}"), number, task(number)))
            .buffer_unordered(CREATES_IN_FLIGHT)
            .try_collect()
            .await
    }

    /// Creates jobs `<prefix>0` and so on, one every `pace`, however long the answers take: a stall of the server
    /// is not to hide what would have come in meanwhile. Gives by namespace and name when each was sent.
    pub(crate) async fn create_paced(
        &self,
        system: System,
        prefix: &str,
        jobs: usize,
        pace: Duration,
        task: &Task,
    ) -> Result<HashMap<String, Instant>> {
        let mut tick = interval(pace);
        let mut creates = JoinSet::new();
        for number in 0..jobs {
            tick.tick().await;
            let (this, task, name) = (self.clone(), task.clone(), format!("{prefix}{number}"));
            creates.spawn(async move { this.create_one(system, name, number, task).await });
        }
        let mut sent = HashMap::with_capacity(jobs);
        while let Some(created) = creates.join_next().await {
            sent.extend([created??]);
        }
        Ok(sent)
    }

    async fn create_one(
        &self,
        system: System,
        name: String,
        number: usize,
        task: Task,
    ) -> Result<(String, Instant)> {
        let namespace = self.namespace(number);
        let job = system.job(namespace, &name, &task);
        let sent = Instant::now();
        let created = timeout(REQUEST, post(&self.client, &system.jobs(namespace), &job)).await;
        created
            .with_context(|| format!("{name} is not created"))?
            .with_context(|| format!("create {name}"))?;
        Ok((format!("{namespace}/{name}"), sent))
    }

    /// Merges into the status of an object.
    pub(crate) async fn patch_status(&self, path: &str, status: &Value, content_type: &str) -> Result<()> {
        let request = http::Request::patch(format!("{path}/status"))
            .header("content-type", content_type)
            .body(serde_json::to_vec(status)?)?;
        timeout(REQUEST, self.client.request::<Value>(request)).await??;
        Ok(())
    }

    /// Deletes an object.
    pub(crate) async fn delete(&self, collection: &str, name: &str) -> Result<()> {
        let request = Request::new(collection).delete(name, &Default::default())?;
        timeout(REQUEST, self.client.request::<Value>(request)).await??;
        Ok(())
    }
}

/// How the lives of a time went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lives {
    /// How many were led at once.
    pub(crate) in_flight: usize,
    /// Lives that ended a second.
    pub(crate) rate: f64,
    /// Their length in seconds: half of them, and 99 % of them, took no longer. NaN where none has ended.
    #[serde(deserialize_with = "crate::stored::nan_of_null")]
    pub(crate) p50: f64,
    #[serde(deserialize_with = "crate::stored::nan_of_null")]
    pub(crate) p99: f64,
}

/// For how long lives are led before any counts, and for how long they count. The first ones begin spread over half
/// of the time before: all at once they would also end together, and whether one more such wave falls into the
/// time that counts would be chance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) warm_up: Duration,
    pub(crate) counted: Duration,
}

/// Leads `in_flight` lives at a time, each followed by another until the window is over. `life` gets a number
/// of its own from `first` on, which is raised by as many as there were.
pub(crate) async fn lead<F>(
    in_flight: usize,
    window: Window,
    first: &mut usize,
    life: impl Fn(usize) -> F + Clone + Send + 'static,
) -> Result<Lives>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let from = Instant::now() + window.warm_up;
    let to = from + window.counted;
    let next = Arc::new(AtomicUsize::new(*first));
    let mut lanes = JoinSet::new();
    for lane in 0..in_flight {
        let (next, life) = (Arc::clone(&next), life.clone());
        let delay = window.warm_up.mul_f64(0.5 * lane as f64 / in_flight as f64);
        lanes.spawn(async move {
            tokio::time::sleep(delay).await;
            let mut lengths = Vec::new();
            while Instant::now() < to {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let began = Instant::now();
                let led = timeout(LIFE, life(number)).await;
                led.with_context(|| format!("life {number} does not end"))??;
                let ended = Instant::now();
                if (from..to).contains(&ended) {
                    lengths.push((ended - began).as_secs_f64());
                }
            }
            anyhow::Ok(lengths)
        });
    }
    let mut lengths = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        lengths.extend(lane??);
    }
    *first = next.load(Ordering::Relaxed);
    let lengths = sorted(lengths);
    Ok(Lives {
        in_flight,
        rate: lengths.len() as f64 / window.counted.as_secs_f64(),
        p50: quantile(&lengths, 0.5),
        p99: quantile(&lengths, 0.99),
    })
}

/// The best of a sweep: the highest rate whose lives are short enough; of none that is, none.
pub(crate) fn best(sweep: &[Lives], longest_p99: f64) -> Option<&Lives> {
    let fitting = sweep.iter().filter(|lives| lives.p99 < longest_p99);
    fitting.max_by(|one, other| one.rate.total_cmp(&other.rate))
}

/// Of several tries of the same, the one whose rate is in the middle; of none, none.
pub(crate) fn middle(mut tries: Vec<Lives>) -> Option<Lives> {
    tries.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let place = tries.len() / 2;
    tries.into_iter().nth(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(in_flight: usize, rate: f64, p99: f64) -> Lives {
        Lives { in_flight, rate, p50: p99 / 2.0, p99 }
    }

    #[test]
    fn the_best_is_the_fastest_that_is_quick_enough() {
        let sweep = [lives(8, 90.0, 0.2), lives(64, 140.0, 0.9), lives(256, 160.0, 2.0)];
        assert_eq!(best(&sweep, 1.0).map(|lives| lives.in_flight), Some(64));
        assert_eq!(best(&sweep, f64::INFINITY).map(|lives| lives.in_flight), Some(256));
        assert!(best(&sweep, 0.1).is_none());
        // Without a life there is no p99.
        assert!(best(&[lives(1, 0.0, f64::NAN)], f64::INFINITY).is_none());
    }

    #[test]
    fn the_try_in_the_middle_counts() {
        let tries = vec![lives(1, 30.0, 0.1), lives(1, 10.0, 0.3), lives(1, 20.0, 0.2)];
        assert_eq!(middle(tries).map(|lives| (lives.rate, lives.p99)), Some((20.0, 0.2)));
        assert!(middle(Vec::new()).is_none());
    }

    #[tokio::test]
    async fn every_life_has_a_number_of_its_own_and_the_next_run_goes_on_from_there() {
        let window = Window { warm_up: Duration::ZERO, counted: Duration::from_millis(50) };
        let numbers = Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut first = 7;
        for _ in 0..2 {
            let numbers = Arc::clone(&numbers);
            let life = move |number| {
                let numbers = Arc::clone(&numbers);
                async move {
                    numbers.lock().unwrap().push(number);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok(())
                }
            };
            lead(3, window, &mut first, life).await.unwrap();
        }
        let mut numbers = numbers.lock().unwrap().clone();
        numbers.sort_unstable();
        assert_eq!(numbers, (7..first).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_life_that_fails_ends_the_run() {
        let window = Window { warm_up: Duration::ZERO, counted: Duration::from_secs(600) };
        let failed = lead(2, window, &mut 0, |number| async move { anyhow::bail!("life {number}") }).await;
        assert!(failed.unwrap_err().to_string().starts_with("life "));
    }
}
