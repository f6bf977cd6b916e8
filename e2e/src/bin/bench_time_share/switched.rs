//! T2: how fast thousands of units are switched within a write budget, and what the same writes come to without a
//! controller; beside it a scaler that moves as many replicas.

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use springtide_crds::time_share_group::{ReadyReason, TrafficMode};
use springtide_e2e::bench::lives::{Lives, best};
use springtide_e2e::bench::processes::{Meter, Spent};
use springtide_e2e::bench::scrape::{Scrape, Traffic};
use springtide_e2e::bench::stats::rates_of_tenths;
use springtide_time_share_group::sizes::Level;

use crate::field::{self, DEFAULT, Field, OTHER};
use crate::raw;
use crate::scaler::{self, Scaled};

/// Writes a second that the manager is given.
pub(crate) const BUDGET: u32 = 300;
/// Writes of a unit of two pods: off, smaller, larger, on.
pub(crate) const WRITES: usize = 4;
/// What a switch may take beyond the time that its writes take by the budget, in seconds.
pub(crate) const BEYOND: f64 = 15.0;
/// The switch is foreseen for so long from now, so that everything may be asked for at once; it is done by hand before.
const AHEAD: SignedDuration = SignedDuration::from_mins(50);
const LEAD: u32 = 7200;

/// What was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Switched {
    /// Units, of two pods each.
    pub(crate) units: usize,
    /// From the override until the last pod served at its peak size, in seconds.
    pub(crate) seconds: f64,
    /// From there until the group said that it was done, in seconds.
    pub(crate) finished: f64,
    /// Units a second of each tenth of them, in the order in which their pods came to serve.
    pub(crate) tenths: Vec<f64>,
    /// Resizes that were withdrawn and asked for again.
    pub(crate) nudges: u32,
    /// What each process used.
    pub(crate) spent: Spent,
    /// What the manager sent.
    pub(crate) traffic: Traffic,
    /// Writes of all components on pods, by the API server's own count.
    pub(crate) served: f64,
    /// The same writes without a controller, by units in flight.
    pub(crate) raw: Vec<Lives>,
    /// The scaler, where it was asked for.
    pub(crate) scaled: Option<Scaled>,
}

impl Switched {
    /// Units a second.
    pub(crate) fn rate(&self) -> f64 {
        self.units as f64 / self.seconds
    }

    /// The time that all writes take by the budget, in seconds.
    pub(crate) fn due(&self) -> f64 {
        (self.units * WRITES) as f64 / f64::from(BUDGET)
    }

    /// The most units a second without a controller; NaN of none.
    pub(crate) fn limit(&self) -> f64 {
        best(&self.raw, f64::INFINITY).map_or(f64::NAN, |lives| lives.rate)
    }
}

/// Switches so many units, leads them through the same writes without a manager, and has a scaler move as many replicas.
pub(crate) async fn measure(mode: TrafficMode, units: u32, with_scaler: bool) -> Result<Switched> {
    let builder = field::builder(units).without_audit();
    let mut field = Field::start(builder, mode, units, BUDGET, |_| {}).await?;
    field.foresee(AHEAD, LEAD).await?;
    let [passed, asked] = field.preflight().await?;
    ensure!((passed, asked) == (units, units), "{passed} of {asked} units pass the preflight");
    field.pods.now().count_anew();
    let before = Scrape::of(field.manager()?).await?;
    let server = Scrape::of_api_server(&field.client).await?.writes_on(&["pods"]);
    let meter = Meter::start(&field.cluster, Some(field.manager()?))?;
    let began = field.ask_for(OTHER).await?;
    field.all(OTHER, Level::Peak, "switched").await?;
    let served: Vec<_> = field.pods.now().arrivals(Level::Peak).to_vec();
    let spent = meter.end()?;
    let traffic = Traffic::between(&before, &Scrape::of(field.manager()?).await?, spent.seconds);
    let server = Scrape::of_api_server(&field.client).await?.writes_on(&["pods"]) - server;
    let last = *served.last().context("no pod")?;
    let group = field.settled(OTHER, &[ReadyReason::Settled]).await?;
    let finished = last.elapsed().as_secs_f64();
    field.all(DEFAULT, Level::Valley, "small").await?;
    let seconds = (last - began).as_secs_f64();
    eprintln!("      {units} units in {seconds:.0} s, done {finished:.1} s later");
    let nudges = group.status.and_then(|status| Some(status.transition?.nudges)).context("a transition")?;
    field.managed.stop_manager()?;
    let raw = raw::measure(&field, mode).await?;
    let scaled = if with_scaler { Some(scaler::measure(&field, units).await?) } else { None };
    field.stop()?;
    let ends: Vec<f64> = served.iter().map(|at| at.saturating_duration_since(began).as_secs_f64()).collect();
    Ok(Switched {
        units: units as usize,
        seconds,
        finished,
        tenths: rates_of_tenths(&ends),
        nudges,
        spent,
        traffic,
        served: server,
        raw,
        scaled,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Five thousand units in so many seconds.
    pub(crate) fn switched(seconds: f64) -> Switched {
        let lives = |in_flight, rate| Lives { in_flight, rate, p50: 0.5, p99: 1.0 };
        Switched {
            units: 5000,
            seconds,
            finished: 1.5,
            tenths: vec![60.0, 64.0],
            nudges: 2,
            spent: Spent { seconds, processes: Vec::new() },
            traffic: Traffic {
                writes: vec![(["spec".to_owned(), "pods".to_owned()], 20_000.0)],
                in_flight: 4.0,
                latency: 0.02,
                throttled: vec![("namespace".to_owned(), 900.0)],
            },
            served: 40_000.0,
            raw: vec![lives(64, 60.0), lives(128, 70.0)],
            scaled: Some(scaler::tests::scaled()),
        }
    }

    #[test]
    fn what_is_due_follows_from_writes_and_budget() {
        let switched = switched(80.0);
        assert_eq!((switched.rate(), switched.limit()), (62.5, 70.0));
        assert!((switched.due() - 66.67).abs() < 0.01, "{}", switched.due());
        assert!(Switched { raw: Vec::new(), ..switched }.limit().is_nan());
    }
}
