//! I3 and I4: how fast ten thousand pods are upgraded within a write budget, what the same writes come to without a
//! controller, and whether they are the same pods.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::lives::{Lives, best};
use springtide_e2e::bench::processes::{Meter, Spent};
use springtide_e2e::bench::scrape::{Scrape, Traffic};
use springtide_e2e::bench::stats::rates_of_tenths;
use springtide_e2e::upgrade::cost::{GATED, PLAIN};
use springtide_e2e::upgrade::{Signal, image};

use crate::field::{self, Field};
use crate::raw;

/// Writes a second that the manager is given.
pub(crate) const BUDGET: u32 = 150;

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Upgraded {
    /// Pods that there were.
    pub(crate) pods: usize,
    /// Writes that the manager is due for each.
    pub(crate) writes: usize,
    /// From the create of the upgrade until the last pod served its new image, in seconds.
    pub(crate) seconds: f64,
    /// From there until the upgrade said that it was done, in seconds.
    pub(crate) finished: f64,
    /// Pods a second of each tenth of them, in the order in which they came to serve.
    pub(crate) tenths: Vec<f64>,
    /// What each process used.
    pub(crate) spent: Spent,
    /// What the manager sent.
    pub(crate) traffic: Traffic,
    /// Writes of all components on pods, by the API server's own count.
    pub(crate) served: f64,
    /// The same writes without a controller, by pods in flight.
    pub(crate) raw: Vec<Lives>,
    /// Pods that had the UID, the address and the node of before when the upgrade was done.
    pub(crate) same: usize,
    /// ReplicaSets that had pods then, beside the one of before.
    pub(crate) other_sets: usize,
}

impl Upgraded {
    /// Pods a second.
    pub(crate) fn rate(&self) -> f64 {
        self.pods as f64 / self.seconds
    }

    /// Writes on pods a second, as a share of the budget.
    pub(crate) fn share_of_budget(&self) -> f64 {
        self.rate() * self.writes as f64 / f64::from(BUDGET)
    }

    /// The most pods a second without a controller; NaN of none.
    pub(crate) fn limit(&self) -> f64 {
        best(&self.raw, f64::INFINITY).map_or(f64::NAN, |lives| lives.rate)
    }
}

/// Upgrades so many pods, and then leads them through the same writes without a manager.
pub(crate) async fn measure(signal: Signal, pods: u32) -> Result<Upgraded> {
    let writes = match signal {
        Signal::Gate | Signal::Label => GATED.len(),
        Signal::None => PLAIN.len(),
    };
    let mut field = Field::start(field::usual().without_audit(), signal, pods, BUDGET).await?;
    let identities = field.pods.now().identities();
    let sets = field.active_sets().await?;
    field.wish(&image(2)).await?;
    let before = Scrape::of(field.manager()?).await?;
    let server = Scrape::of_api_server(&field.client).await?.writes_on(&["pods"]);
    let meter = Meter::start(&field.cluster, Some(field.manager()?))?;
    let began = field.begin().await?;
    let served = field.all_serve(&image(2), "upgraded").await?;
    let spent = meter.end()?;
    let traffic = Traffic::between(&before, &Scrape::of(field.manager()?).await?, spent.seconds);
    let server = Scrape::of_api_server(&field.client).await?.writes_on(&["pods"]) - server;
    let last = *served.last().context("no pod")?;
    field.finished().await?;
    let finished = last.elapsed().as_secs_f64();
    let seconds = (last - began).as_secs_f64();
    eprintln!("      {pods} pods in {seconds:.0} s, done {finished:.1} s later");
    let now = field.pods.now().identities();
    let same = identities.iter().filter(|(uid, identity)| now.get(*uid) == Some(*identity)).count();
    let other_sets = field.active_sets().await?.difference(&sets).count();
    field.managed.stop_manager()?;
    let raw = raw::measure(&field, signal).await?;
    field.stop()?;
    let ends: Vec<f64> = served.iter().map(|at| at.saturating_duration_since(began).as_secs_f64()).collect();
    Ok(Upgraded {
        pods: pods as usize,
        writes,
        seconds,
        finished,
        tenths: rates_of_tenths(&ends),
        spent,
        traffic,
        served: server,
        raw,
        same,
        other_sets,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Ten thousand gated pods in so many seconds.
    pub(crate) fn upgraded(writes: usize, seconds: f64) -> Upgraded {
        let lives = |in_flight, rate| Lives { in_flight, rate, p50: 0.5, p99: 1.0 };
        Upgraded {
            pods: 10_000,
            writes,
            seconds,
            finished: 1.5,
            tenths: vec![48.0, 50.0],
            spent: Spent { seconds, processes: Vec::new() },
            traffic: Traffic {
                writes: vec![(["spec".to_owned(), "pods".to_owned()], 20_000.0)],
                in_flight: 4.0,
                latency: 0.02,
                throttled: vec![("namespace".to_owned(), 900.0)],
            },
            served: 70_000.0,
            raw: vec![lives(32, 60.0), lives(128, 75.0)],
            same: 10_000,
            other_sets: 0,
        }
    }

    #[test]
    fn shares_are_of_the_budget_and_of_what_is_possible_without_a_controller() {
        let gated = upgraded(GATED.len(), 200.0);
        assert_eq!((gated.rate(), gated.share_of_budget(), gated.limit()), (50.0, 1.0, 75.0));
        assert_eq!(upgraded(PLAIN.len(), 100.0).share_of_budget(), 100.0 / 150.0);
        assert!(Upgraded { raw: Vec::new(), ..gated }.limit().is_nan());
    }
}
