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
use crate::faults::Faults;
use crate::preflight::Asked;
use crate::starts::Starts;
use crate::switched::{BUDGET, Switched, WRITES};
use crate::unit::Units;
use crate::writes::Writes;

/// What was done to all pods before they rest.
const AFTER: &str = "a switch";
/// How members take turns, as it is meant and in the control.
const WAYS: [&str; 2] = ["one unit after the other", "all units at once"];

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
    pub(crate) starts: Option<Starts>,
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

/// Writes the page, the plot and the goals, and prints the page.
pub(crate) fn write(report: &Report, measured: &Measured, options: &Options, is_whole: bool) -> Result<()> {
    let goals = goals::of(measured);
    let page = page::of(measured, options, &goals, &report.origin())?;
    let is_complete = is_whole && measured.log.is_complete();
    report.write(&page, &goals, is_complete, |path| plot(measured, path))
}

fn plot(measured: &Measured, path: &Path) -> Result<()> {
    let mut bars = Vec::new();
    for (which, switched) in measured.timed() {
        let which = which.trim_start_matches("the ");
        bars.push((format!("budget, {which}"), f64::from(BUDGET) / WRITES as f64));
        bars.push((format!("group, {which}"), switched.rate()));
        bars.push((format!("raw, {which}"), switched.limit()));
        if let Some(scaled) = &switched.scaled {
            bars.push(("scaler".to_owned(), scaled.replicas as f64 / scaled.seconds));
        }
    }
    report::bars(path, "pods a second that come to serve at peak (raw: without a controller)", &bars)
}
