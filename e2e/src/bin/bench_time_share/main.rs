//! `make bench-timeshare`: groups of ten thousand pods against the raw limit of the same machine and against scalers that
//! move replicas, what each pod costs, how long one unit takes on a real node, and what users of its pods notice.
//!
//! The raw limit is that of the same writes to the same pods by a generator without a controller, right after the run that
//! it is for. Parts are independent.

mod faults;
mod field;
mod many;
mod pods;
mod preflight;
mod raw;
mod report;
mod requests;
mod scaler;
mod starts;
mod stored;
mod switched;
mod unit;
mod writes;

use std::time::Duration;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use field::Field;
use report::Measured;
use serde_json::Value;
use springtide_crds::time_share_group::{ReadyReason, TrafficMode};
use springtide_e2e::bench::at_rest;
use springtide_e2e::bench::parts::{self, Bench, Log, wanted};
use springtide_e2e::bench::report::Report;
use springtide_e2e::bench::stored::Store;
use springtide_time_share_group::sizes::Level;
use switched::BUDGET;

/// The longest that a part may take: the longest ones take a quarter of that on two cores, and may be asked for more.
const BOUND: Duration = Duration::from_secs(120 * 60);

/// What is measured, and how much of it.
#[derive(Parser)]
#[command(name = "bench-time-share")]
struct Options {
    /// Only these parts, separated by commas. The report is then target/bench/timeshare-partial.md, and docs stay.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Takes the parts that were measured in full before, at this commit and on whatever machine, and measures the
    /// others. What a part has measured is stored in docs/benchmarks/data/timeshare when it is done, unless files outside
    /// of docs are not those of the commit: after an interrupted run, or one with --only, the whole is there with this.
    #[arg(long)]
    resume: bool,
    /// Units of the runs that are timed, asked for ahead and at rest, of two pods each.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=10_000))]
    units: u32,
    /// Minutes in which nothing changes.
    #[arg(long, default_value_t = at_rest::REST_MINUTES)]
    rest_minutes: u64,
    /// Pods of the run that only looks at memory.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(10_000..=50_000))]
    many: u32,
    /// Requests through a Service while its pods take turns.
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// Rounds of switches among faults; an even number, as every other one is without late writes.
    #[arg(long, default_value_t = faults::ROUNDS, value_parser = clap::value_parser!(u64).range(2..))]
    fault_rounds: u64,
}

impl Options {
    /// Whether all is measured that the method asks for, and no less of it.
    fn is_whole(&self) -> bool {
        self.only.is_empty() && Part::value_variants().iter().all(|part| part.is_whole(self))
    }
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// T2: traffic by the label, and scalers beside it.
    Label,
    /// T2: traffic by the gate.
    Gate,
    /// T6: dry runs ahead.
    Preflight,
    /// T8: memory, and writes at rest.
    Rest,
    /// T8: memory beside many more pods.
    Many,
    /// T1: writes a pod.
    Writes,
    /// T3: how long a unit takes, on a real node.
    Unit,
    /// T9: requests that are lost, on a real node.
    Requests,
    /// T4, T5: switches among faults, and aborts.
    Faults,
    /// T7: switches that begin late.
    Starts,
}

impl Part {
    fn title(self, options: &Options) -> String {
        let Options { units, rest_minutes, many, requests, fault_rounds, .. } = options;
        match self {
            Self::Label => format!("{units} units by the label, {BUDGET} writes/s, and a scaler"),
            Self::Gate => format!("{units} units by the gate, {BUDGET} writes/s"),
            Self::Preflight => format!("dry runs for {units} units"),
            Self::Rest => format!("{} pods at rest for {rest_minutes} min, and a restart", 2 * units),
            Self::Many => format!("memory beside {many} pods"),
            Self::Writes => format!("writes a pod, {} pods of each kind", writes::PODS),
            Self::Unit => format!("{} switches of one unit on a real node", unit::SWITCHES),
            Self::Requests => format!("{requests} requests through a Service on a real node"),
            Self::Faults => format!("{fault_rounds} rounds of switches among faults, and aborts"),
            Self::Starts => "starts of switches, after changes of leader too".to_owned(),
        }
    }

    /// Whether no less of it is measured than the method asks for. More is no harm.
    fn is_whole(self, options: &Options) -> bool {
        let method = Options::parse_from(["bench-time-share"]);
        match self {
            // Of other numbers of units the figures are others.
            Self::Label | Self::Gate | Self::Preflight => options.units == method.units,
            Self::Rest => options.units == method.units && options.rest_minutes >= method.rest_minutes,
            Self::Many => options.many == method.many,
            Self::Requests => options.requests >= method.requests,
            Self::Faults => options.fault_rounds >= method.fault_rounds,
            Self::Writes | Self::Unit | Self::Starts => true,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    // Names the commit, which may not be the last one any more at the end.
    let report = Report::new("timeshare")?;
    let store = Store::open(&report, options.resume)?;
    let parts = wanted(&options.only);
    let (resumes, is_whole) = (options.resume, options.is_whole());
    let mut groups = Groups { measured: Measured::default(), options };
    parts::run(&mut groups, &parts, &store, resumes, BOUND).await;
    let Groups { measured, options } = &groups;
    report::write(&report, measured, options, is_whole)?;
    measured.log.verdict(parts.len())
}

/// A run of this bench.
struct Groups {
    options: Options,
    measured: Measured,
}

impl Bench for Groups {
    type Part = Part;

    fn title(&self, part: Part) -> String {
        part.title(&self.options)
    }

    fn is_whole(&self, part: Part) -> bool {
        part.is_whole(&self.options)
    }

    fn options(&self, part: Part) -> Value {
        stored::shape(part, &self.options)
    }

    fn end_before(&mut self, _: Option<Part>) -> Result<()> {
        // No part leaves anything to the next one.
        Ok(())
    }

    async fn measure(&mut self, part: Part) -> Result<()> {
        let title = part.title(&self.options);
        let Options { units, rest_minutes, many, requests, fault_rounds, .. } = self.options;
        match part {
            Part::Label => {
                self.measured.label = Some(switched::measure(TrafficMode::ServiceLabel, units, true).await?);
            }
            Part::Gate => {
                self.measured.gate = Some(switched::measure(TrafficMode::ReadinessGate, units, false).await?);
            }
            Part::Preflight => self.measured.preflight = Some(preflight::measure(units).await?),
            Part::Rest => self.measured.rest = Some(at_rest_after_a_switch(units, rest_minutes).await?),
            Part::Many => match at_rest::too_small_for_many()? {
                None => self.measured.many = Some(many::measure(many).await?),
                Some(why) => self.measured.log.left_out.push((title, why)),
            },
            Part::Writes => self.measured.writes = Some(writes::per_pod().await?),
            Part::Unit => {
                let units = unit::measure().await?;
                self.measured.unit = self.measured.log.on_a_node(title, units);
            }
            Part::Requests => {
                let compared = requests::measure(requests).await?;
                self.measured.requests = self.measured.log.on_a_node(title, compared);
            }
            Part::Faults => self.measured.faults = Some(faults::measure(fault_rounds).await?),
            Part::Starts => self.measured.starts = Some(starts::measure().await?),
        }
        Ok(())
    }

    fn give_up(&mut self) {}

    fn result(&self, part: Part) -> Result<Option<Value>> {
        stored::result(part, &self.measured)
    }

    fn put(&mut self, part: Part, result: Value) -> Result<()> {
        stored::put(part, &mut self.measured, result)
    }

    fn log(&mut self) -> &mut Log {
        &mut self.measured.log
    }
}

/// A manager with nothing left to do after a switch of so many units.
async fn at_rest_after_a_switch(units: u32, minutes: u64) -> Result<at_rest::Rest> {
    let builder = field::builder(units);
    let mut field = Field::start(builder, TrafficMode::ServiceLabel, units, BUDGET, |_| {}).await?;
    field.ask_for(field::OTHER).await?;
    field.all(field::OTHER, Level::Peak, "switched").await?;
    field.settled(field::OTHER, &[ReadyReason::Settled]).await?;
    let pods = 2 * field.pairs;
    let rest = at_rest::measure(&mut field.managed, pods, minutes).await?;
    field.stop()?;
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn options(args: &[&str]) -> Options {
        Options::parse_from(["bench-time-share"].iter().chain(args))
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let options = options(&["--only", "label,rest", "--rest-minutes", "1", "--resume"]);
        assert_eq!((options.only, options.rest_minutes), (vec![Part::Label, Part::Rest], 1));
        Options::try_parse_from(["bench-time-share", "--units", "30000"]).map(drop).unwrap_err();
    }

    #[test]
    fn who_measures_less_than_the_method_asks_for_writes_no_docs() {
        let is_whole = |args: &[&str]| options(args).is_whole();
        assert!(is_whole(&[]) && is_whole(&["--resume"]));
        assert!(is_whole(&["--rest-minutes", "60", "--requests", "2000000"]), "that is more");
        for less in [
            ["--only", "writes"],
            ["--units", "1000"],
            ["--rest-minutes", "1"],
            ["--many", "10000"],
            ["--requests", "10000"],
            ["--fault-rounds", "2"],
        ] {
            assert!(!is_whole(&less), "{less:?}");
        }
    }
}
