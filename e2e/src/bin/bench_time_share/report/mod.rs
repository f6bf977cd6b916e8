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
use crate::faults::Faults;
use crate::preflight::Asked;
use crate::requests::Compared;
use crate::switched::{BUDGET, Switched, WRITES};
use crate::unit::Units;
use crate::writes::Writes;

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) label: Option<Switched>,
    pub(crate) gate: Option<Switched>,
    pub(crate) preflight: Option<Asked>,
    pub(crate) rest: Option<Rest>,
    /// Where the machine is large enough.
    pub(crate) many: Option<Large>,
    pub(crate) writes: Option<Vec<Writes>>,
    /// Where the machine can run containers, as the next.
    pub(crate) unit: Option<Units>,
    pub(crate) requests: Option<Compared>,
    pub(crate) faults: Option<Faults>,
    /// What became of its parts.
    pub(crate) log: Log,
}

impl Measured {
    /// The timed runs, each with what its pods have their traffic by.
    fn timed(&self) -> Vec<(&'static str, &Switched)> {
        let both = [("the label", &self.label), ("the gate", &self.gate)];
        both.into_iter().filter_map(|(which, switched)| Some((which, switched.as_ref()?))).collect()
    }
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
    for (which, switched) in measured.timed() {
        bars.push((format!("budget, {which}"), f64::from(BUDGET) / WRITES as f64));
        bars.push((format!("group, {which}"), switched.rate()));
        bars.push((format!("no controller, {which}"), switched.limit()));
        if let Some(scaled) = &switched.scaled {
            bars.push(("scaler".to_owned(), scaled.replicas as f64 / scaled.seconds));
        }
    }
    report::bars(path, "pods a second that come to serve at their peak", &bars)
}
