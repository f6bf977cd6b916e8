//! T9: requests through a Service whose members take turns, and how many of them are lost; beside it the same where all
//! pods leave traffic at once, which has to lose some.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use springtide_e2e::node::NodeCluster;
use springtide_e2e::node::load::Seen;
use springtide_e2e::time_share::node_member::NodeMember;
use springtide_e2e::time_share::node_stage::NodeStage;
use springtide_e2e::time_share::traffic::{Clients, with_traffic};

use crate::unit::on_a_node;

/// Pods of each member behind the Service.
pub(crate) const PODS: u32 = 3;
/// Requests a second. Half of them open a connection each, which a client's host remembers for a minute: twice as many
/// would use up its ports.
pub(crate) const RATE: u32 = 700;
/// Seconds that a drained pod keeps its size, for the node's proxy to follow.
pub(crate) const MIN_SECONDS: u32 = 2;
/// Units at once, with proof and in the control.
const ONE: u32 = 1;
const ALL: u32 = 110;
/// Switches of the control.
pub(crate) const CONTROL: u32 = 4;
/// Beyond the time in which all requests would have been sent: clients may fall back.
const MARGIN: f64 = 1.03;

/// What clients have seen.
#[derive(Serialize, Deserialize)]
pub(crate) struct Requests {
    /// Switches meanwhile.
    pub(crate) switches: u32,
    /// Requests that were answered.
    pub(crate) answered: u64,
    /// Requests that were not, by clients that open a connection for each, and by those that keep theirs.
    pub(crate) failed: [u64; 2],
    /// Half of the answers, and 99 of a hundred, took no longer, in seconds; of clients that open a connection for each, and
    /// of those that keep theirs.
    pub(crate) p50: [f64; 2],
    /// See `p50`.
    pub(crate) p99: [f64; 2],
    /// The slowest answer, in seconds.
    pub(crate) slowest: f64,
    /// Answers by the member that gave them.
    pub(crate) members: BTreeMap<String, u64>,
    /// Some of the failures.
    pub(crate) failures: Vec<String>,
}

impl Requests {
    fn of(switches: u32, seen: Seen) -> Self {
        let answered = seen.answered();
        let Seen { new, kept, millis: _ } = seen;
        let seconds = |micros: u64| micros as f64 / 1e6;
        let mut members = new.texts;
        for (text, count) in kept.texts {
            *members.entry(text).or_default() += count;
        }
        Self {
            switches,
            answered,
            failed: [new.failed, kept.failed],
            p50: [seconds(new.p50_micros), seconds(kept.p50_micros)],
            p99: [seconds(new.p99_micros), seconds(kept.p99_micros)],
            slowest: seconds(new.slowest_micros.max(kept.slowest_micros)),
            members,
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

/// One unit after the other, and all at once.
#[derive(Serialize, Deserialize)]
pub(crate) struct Compared {
    pub(crate) drained: Requests,
    pub(crate) control: Requests,
}

/// Sends at least so many requests, and some to the control.
pub(crate) async fn measure(requests: u64) -> Result<Option<Compared>> {
    let Some((cluster, manager)) = on_a_node().await? else { return Ok(None) };
    let long = Duration::from_secs_f64(requests as f64 / f64::from(RATE) * MARGIN);
    let drained = of(&cluster, ONE, |started, _| started.elapsed() >= long).await?;
    ensure!(drained.sent() >= requests, "only {} requests were sent", drained.sent());
    let control = of(&cluster, ALL, |_, switches| switches >= CONTROL).await?;
    ensure!(control.lost() > 0, "where nobody serves no request is lost: the clients would not see it");
    manager.stop()?;
    cluster.stop()?;
    Ok(Some(Compared { drained, control }))
}

/// Has members take turns until it is `enough`, beside requests.
async fn of(cluster: &NodeCluster, at_once: u32, enough: impl Fn(Instant, u32) -> bool) -> Result<Requests> {
    let stage = NodeStage::new(cluster, "requests").await?;
    let members = ["pay", "promo"].map(|name| NodeMember::new(name, PODS, "300m", "50m"));
    let mut before = Vec::new();
    for member in &members {
        before.push(stage.start(member).await?);
    }
    stage.fill(i64::from(PODS) * 250).await?;
    stage
        .group(&[&members[0], &members[1]], |spec| {
            spec.switch.max_in_flight_units_per_node = at_once;
            for member in &mut spec.members {
                member.traffic.drain.min_seconds = MIN_SECONDS;
            }
        })
        .await?;
    stage.switch_to(Some("pay")).await?;
    let front = with_traffic(None, true);
    let clients = Clients::start(&stage.test, "front", &front, PODS as usize, RATE).await?;
    let (started, mut switches) = (Instant::now(), 0);
    while !enough(started, switches) {
        let to = if switches % 2 == 0 { "promo" } else { "pay" };
        stage.switch_to(Some(to)).await?;
        switches += 1;
    }
    let seen = Requests::of(switches, clients.end().await?);
    eprintln!(
        "      {at_once} units at once: {switches} switches, {} requests, {} lost",
        seen.sent(),
        seen.lost()
    );
    for (member, before) in members.iter().zip(&before) {
        stage.sizes.now().ensure_same(&member.name, before)?;
    }
    stage.test.clear().await?;
    Ok(seen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_e2e::node::load::Half;

    #[test]
    fn both_kinds_of_clients_count() {
        let half = |answered, failed, member: &str| Half {
            answered,
            failed,
            slowest_micros: 1_500_000,
            p50_micros: 500,
            p99_micros: 2_000,
            texts: BTreeMap::from([(member.to_owned(), answered)]),
            ..Half::default()
        };
        let seen = Seen { new: half(10, 1, "pay"), kept: half(20, 2, "pay"), millis: 1 };
        let requests = Requests::of(2, seen);
        assert_eq!((requests.sent(), requests.lost(), requests.failed), (33, 3, [1, 2]));
        assert_eq!((requests.members["pay"], requests.slowest, requests.p99), (30, 1.5, [0.002, 0.002]));
    }
}
