//! The report: a Markdown page, a plot, and the goals as JSON.

mod goals;
mod method;
mod page;

use std::path::Path;

use anyhow::Result;
use springtide_e2e::bench::at_rest::{Large, Rest};
use springtide_e2e::bench::parts::Log;
use springtide_e2e::bench::report::{self, Report};

use crate::Options;
use crate::conflicts::Conflicts;
use crate::crashes::Crashes;
use crate::downtime::Downtimes;
use crate::requests::Compared;
use crate::throughput::{BUDGET, Upgraded};
use crate::writes::Writes;

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
    /// Where the machine can run containers, as the next.
    pub(crate) downtimes: Option<Downtimes>,
    pub(crate) requests: Option<Compared>,
    pub(crate) crashes: Option<Crashes>,
    /// What became of its parts.
    pub(crate) log: Log,
}

/// Writes the page, the plot and the goals, and prints the page: those of the repository after a whole run in which
/// everything was measured, by it or by one before, else partial ones in the target folder.
pub(crate) fn write(report: &Report, measured: &Measured, options: &Options, is_whole: bool) -> Result<()> {
    let goals = goals::of(measured);
    let page = page::of(measured, options, &goals, &report.origin())?;
    if !is_whole || !measured.log.is_complete() {
        return report.publish_partial(&page, &goals);
    }
    plot(measured, &report.plot())?;
    report.publish(&page, &goals)
}

fn plot(measured: &Measured, path: &Path) -> Result<()> {
    let mut bars = Vec::new();
    for (name, upgraded) in [("with a gate", &measured.gated), ("without", &measured.plain)] {
        if let Some(upgraded) = upgraded {
            bars.push((format!("budget, {name}"), f64::from(BUDGET) / upgraded.writes as f64));
            bars.push((format!("InPlaceUpgrade, {name}"), upgraded.rate()));
            bars.push((format!("no controller, {name}"), upgraded.limit()));
        }
    }
    report::bars(path, "pods upgraded in place a second", &bars)
}
