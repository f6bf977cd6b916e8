//! The report: a Markdown page, a plot, and the goals as JSON.

mod goals;
mod method;
mod page;

use std::path::Path;

use anyhow::Result;
use springtide_e2e::bench::at_rest::{Large, Rest};
use springtide_e2e::bench::parts::Log;
use springtide_e2e::bench::report::{self, Report};
use springtide_e2e::bench::requests::Compared;

use crate::Options;
use crate::conflicts::Conflicts;
use crate::crashes::Crashes;
use crate::downtime::Downtimes;
use crate::names::Names;
use crate::random::Random;
use crate::throughput::{BUDGET, Upgraded};
use crate::writes::Writes;

/// What was done to all pods before they rest.
const AFTER: &str = "an upgrade";
/// The ways of pods out of traffic, as it is meant and in the control.
const WAYS: [&str; 2] = ["with gate and proof", "without a drain"];

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) gated: Option<Upgraded>,
    pub(crate) plain: Option<Upgraded>,
    pub(crate) conflicts: Option<Conflicts>,
    pub(crate) rest: Option<Rest>,
    /// Where the machine is large enough.
    pub(crate) many: Option<Large>,
    pub(crate) writes: Option<Vec<Writes>>,
    /// Where the machine can run containers, as the next two.
    pub(crate) downtimes: Option<Downtimes>,
    pub(crate) requests: Option<Compared>,
    pub(crate) names: Option<Names>,
    pub(crate) crashes: Option<Crashes>,
    pub(crate) random: Option<Random>,
    /// What became of its parts.
    pub(crate) log: Log,
}

/// Writes the page, the plot and the goals, and prints the page.
pub(crate) fn write(report: &Report, measured: &Measured, options: &Options, is_whole: bool) -> Result<()> {
    let goals = goals::of(measured);
    let page = page::of(measured, options, &goals, &report.origin())?;
    let is_complete = is_whole && measured.log.is_complete();
    report.write(&page, &goals, is_complete, |path| plot(measured, path))
}

fn plot(measured: &Measured, path: &Path) -> Result<()> {
    let mut bars = Vec::new();
    for (name, upgraded) in [("gate", &measured.gated), ("no gate", &measured.plain)] {
        if let Some(upgraded) = upgraded {
            bars.push((format!("budget, {name}"), f64::from(BUDGET) / upgraded.writes as f64));
            bars.push((format!("upgrade, {name}"), upgraded.rate()));
            bars.push((format!("raw, {name}"), upgraded.limit()));
        }
    }
    report::bars(path, "pods upgraded in place a second (raw: without a controller)", &bars)
}
