//! I2: how many writes are refused as somebody else was faster, at ten thousand pods, beside one who writes their statuses
//! all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;
use springtide_e2e::bench::lives::Belled;
use springtide_e2e::bench::{STRATEGIC, patch};
use springtide_e2e::manager::USER_AGENT;
use springtide_e2e::upgrade::image;
use springtide_e2e::write_count::WriteCount;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::field::Field;
use crate::pods::PodFeed;

/// Statuses that are written by the other one, a second.
pub(crate) const NOISE_PER_SECOND: u32 = 100;
/// How often it looks for a pod that is still to be upgraded before it takes any.
const LOOKS: usize = 20;
/// Its condition.
const NOISE: &str = "bench.springtide.dev/noise";
/// HTTP status of a write that came too late.
const CONFLICT: u16 = 409;

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Conflicts {
    /// Pods that were upgraded.
    pub(crate) pods: usize,
    /// Seconds that it took, with an audit log.
    pub(crate) seconds: f64,
    /// Statuses that the other one has written meanwhile.
    pub(crate) noise: usize,
    /// Writes of the manager on pods.
    pub(crate) writes: usize,
    /// Those of them that were answered with a conflict.
    pub(crate) refused: usize,
}

impl Conflicts {
    /// Refused ones of all.
    pub(crate) fn share(&self) -> f64 {
        self.refused as f64 / self.writes as f64
    }
}

/// Upgrades all pods of a field with an audit log.
pub(crate) async fn measure(field: &Field) -> Result<Conflicts> {
    let wish = image(2);
    field.wish(&wish).await?;
    let log = field.cluster.audit_log()?;
    let mark = log.mark()?;
    let noise = Noise::start(field, &wish)?;
    let began = field.begin().await?;
    let served = field.all_serve(&wish, "upgraded beside noise").await?;
    let noise = noise.end();
    field.finished().await?;
    let (writes, refused) = count(&log.since(mark)?.in_namespace(&field.namespace));
    ensure!(writes >= served.len(), "{writes} writes for {} pods", served.len());
    let last = *served.last().context("no pod")?;
    let seconds = (last - began).as_secs_f64();
    Ok(Conflicts { pods: served.len(), seconds, noise, writes, refused })
}

/// The manager's writes on pods, and those of them that were too late.
fn count(requests: &WriteCount) -> (usize, usize) {
    let own = requests.by_agent(USER_AGENT).writes().of_resource("pods");
    (own.len(), own.filter(|request| request.code == CONFLICT).len())
}

/// Who writes statuses of pods that have not been upgraded yet.
struct Noise {
    written: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Noise {
    fn start(field: &Field, wish: &str) -> Result<Self> {
        let client = field.cluster.client("bench-noise")?;
        let pods: Vec<_> = field.names().into_iter().map(|(uid, name)| (uid, field.path(&name))).collect();
        ensure!(!pods.is_empty(), "no pods to make noise about");
        let (feed, wish) = (Arc::clone(&field.pods), wish.to_owned());
        let written = Arc::new(AtomicUsize::new(0));
        let mut task = JoinSet::new();
        let counter = Arc::clone(&written);
        task.spawn(async move {
            let mut tick = interval(Duration::from_secs(1) / NOISE_PER_SECOND);
            let mut under_way = JoinSet::new();
            for round in 0_usize.. {
                tick.tick().await;
                let path = pick(&feed, &pods, &wish).to_owned();
                let (client, counter) = (client.clone(), Arc::clone(&counter));
                under_way.spawn(async move {
                    // Whoever only makes noise may be refused.
                    if write(&client, &path, round).await.is_ok() {
                        counter.fetch_add(1, Ordering::Relaxed);
                    }
                });
                while under_way.try_join_next().is_some() {}
            }
        });
        Ok(Self { written, _task: task })
    }

    /// Ends it, and gives how many it has written.
    fn end(self) -> usize {
        self.written.load(Ordering::Relaxed)
    }
}

/// Path of some pod, if possible of one that does not serve the wish.
fn pick<'a>(feed: &PodFeed, pods: &'a [(String, String)], wish: &str) -> &'a str {
    let some = || &pods[rand::random_range(0..pods.len())];
    let seen = feed.now();
    let is_old = |uid: &str| seen.thing(uid).is_some_and(|life| life.serves.as_deref() != Some(wish));
    let looks = (0..LOOKS).map(|_| some()).find(|(uid, _)| is_old(uid));
    &looks.unwrap_or_else(some).1
}

async fn write(client: &Client, path: &str, round: usize) -> Result<()> {
    let condition = json!({"type": NOISE, "status": "True", "message": format!("round {round}")});
    let status = json!({"status": {"conditions": [condition]}});
    patch(client, &format!("{path}/status"), &status, STRATEGIC).await
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Of a hundred writes one was too late.
    pub(crate) fn conflicts() -> Conflicts {
        Conflicts { pods: 10_000, seconds: 400.0, noise: 38_000, writes: 30_100, refused: 100 }
    }

    #[test]
    fn a_share_of_nothing_is_none() {
        assert!(Conflicts { writes: 0, refused: 0, ..conflicts() }.share().is_nan());
        assert_eq!(Conflicts { writes: 400, refused: 4, ..conflicts() }.share(), 0.01);
    }
}
