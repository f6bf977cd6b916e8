//! I8: requests through a Service while its pods are upgraded again and again, and how many of them are lost; beside it
//! the same without a drain, which has to lose some.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use springtide_crds::common::IntOrPercent;
use springtide_crds::in_place_upgrade::{PrePullMode, TrafficMode};
use springtide_e2e::node::NodeCluster;
use springtide_e2e::node::load::Seen;
use springtide_e2e::upgrade::traffic::{Traffic, server_reference};
use springtide_e2e::upgrade::{Testbed, Workload};

use crate::downtime::{next, on_a_node};

/// Pods behind the Service.
pub(crate) const PODS: u32 = 4;
/// Requests a second. Half of them open a connection each, which a client's host remembers for a minute: twice as many
/// would use up its ports.
pub(crate) const RATE: u32 = 700;
/// Seconds that a drained pod goes on serving, for the node's proxy to follow.
pub(crate) const MIN_SECONDS: u32 = 2;
/// Upgrades of the run without a drain.
pub(crate) const CONTROL_UPGRADES: u32 = 3;
/// Beyond the time in which all requests would have been sent: clients may fall back.
const MARGIN: f64 = 1.03;
/// Name of the workload, of its Service and of its upgrade.
const WEB: &str = "web";

/// What clients have seen.
#[derive(Serialize, Deserialize)]
pub(crate) struct Requests {
    /// Upgrades of all pods meanwhile.
    pub(crate) upgrades: u32,
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// Requests that were not, by clients that open a connection for each, and by those that keep theirs.
    pub(crate) failed: [u64; 2],
    /// The slowest answer, in seconds.
    pub(crate) slowest: f64,
    /// Answers by the version that gave them.
    pub(crate) versions: BTreeMap<String, u64>,
    /// Some of the failures.
    pub(crate) failures: Vec<String>,
}

impl Requests {
    fn of(upgrades: u32, seen: Seen) -> Self {
        let answered = seen.answered();
        let Seen { new, kept, millis: _ } = seen;
        let mut versions = new.texts;
        for (text, count) in kept.texts {
            *versions.entry(text).or_default() += count;
        }
        Self {
            upgrades,
            answered,
            failed: [new.failed, kept.failed],
            slowest: new.slowest_micros.max(kept.slowest_micros) as f64 / 1e6,
            versions,
            failures: new.failures.into_iter().chain(kept.failures).collect(),
        }
    }

    /// All that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.answered + self.lost()
    }

    /// All that were not answered.
    pub(crate) fn lost(&self) -> u64 {
        self.failed.iter().sum()
    }
}

/// With gate and proof, and without a drain.
#[derive(Serialize, Deserialize)]
pub(crate) struct Compared {
    pub(crate) drained: Requests,
    pub(crate) control: Requests,
}

/// Sends at least so many requests, and some to the control.
pub(crate) async fn measure(requests: u64) -> Result<Option<Compared>> {
    let Some((cluster, manager)) = on_a_node().await? else { return Ok(None) };
    let long = Duration::from_secs_f64(requests as f64 / f64::from(RATE) * MARGIN);
    let drained = of(&cluster, TrafficMode::ReadinessGate, |started, _| started.elapsed() >= long).await?;
    ensure!(drained.sent() >= requests, "only {} requests were sent", drained.sent());
    let control = of(&cluster, TrafficMode::None, |_, upgrades| upgrades >= CONTROL_UPGRADES).await?;
    ensure!(control.lost() > 0, "without a drain no request is lost: the clients would not see it");
    manager.stop()?;
    cluster.stop()?;
    Ok(Some(Compared { drained, control }))
}

/// Upgrades all pods to one version and the other until it is `enough`, beside requests.
async fn of(
    cluster: &NodeCluster,
    mode: TrafficMode,
    enough: impl Fn(Instant, u32) -> bool,
) -> Result<Requests> {
    let test = Testbed::new(cluster.control_plane(), "requests").await?;
    let web = Workload::deployment(WEB, PODS).serving();
    let before = test.start_paused(&web).await?;
    let mut spec = web.upgrade();
    spec.strategy.max_unavailable = IntOrPercent::Int(1);
    spec.traffic.mode = mode;
    spec.traffic.drain.min_seconds = MIN_SECONDS;
    spec.pre_pull.mode = PrePullMode::None;
    let traffic = Traffic::start(&test, &web, RATE).await?;
    let started = Instant::now();
    let (mut version, mut upgrades) = (1, 0);
    while !enough(started, upgrades) {
        let last = test.target_hash(WEB);
        version = next(version);
        test.set_image(&web, &server_reference(version)).await?;
        if upgrades == 0 {
            test.upgrade(WEB, spec.clone()).await?;
        }
        test.succeeded(WEB, &last).await?;
        upgrades += 1;
    }
    let seen = Requests::of(upgrades, traffic.end().await?);
    eprintln!("      {mode:?}: {upgrades} upgrades, {} requests, {} lost", seen.sent(), seen.lost());
    test.pods.now().ensure_same(WEB, &before)?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_e2e::node::load::Half;

    #[test]
    fn both_kinds_of_clients_count() {
        let half = |answered, failed, version: &str| Half {
            answered,
            failed,
            slowest_micros: 1_500_000,
            texts: BTreeMap::from([(version.to_owned(), answered)]),
            ..Half::default()
        };
        let requests = Requests::of(2, Seen { new: half(10, 1, "v1"), kept: half(20, 2, "v1"), millis: 1 });
        assert_eq!((requests.sent(), requests.lost(), requests.failed), (33, 3, [1, 2]));
        assert_eq!((requests.versions["v1"], requests.slowest), (30, 1.5));
    }

    #[test]
    fn versions_take_turns() {
        assert_eq!([next(1), next(2)], [2, 1]);
    }
}
