//! `make bench-upgrade`: InPlaceUpgrades of ten thousand pods against the raw limit of the same machine, what each pod
//! costs, and what users of its pods notice.
//!
//! The raw limit is that of the same writes to the same pods by a generator without a controller, right after the run that
//! it is for. Parts are independent; two of them share a cluster with an audit log.

mod conflicts;
mod crashes;
mod downtime;
mod field;
mod many;
mod names;
mod pods;
mod random;
mod raw;
mod report;
mod requests;
mod stored;
mod throughput;
mod writes;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use field::Field;
use report::Measured;
use serde_json::Value;
use springtide_e2e::bench::at_rest;
use springtide_e2e::bench::parts::{self, Bench, Log, wanted};
use springtide_e2e::bench::report::Report;
use springtide_e2e::bench::stored::Store;
use springtide_e2e::upgrade::Signal;
use throughput::BUDGET;

/// The longest that a part may take: the longest ones take a quarter of that on two cores, and may be asked for more.
const BOUND: Duration = Duration::from_secs(120 * 60);

/// What is measured, and how much of it.
#[derive(Parser)]
#[command(name = "bench-upgrade")]
struct Options {
    /// Only these parts, separated by commas. The report is then target/bench/upgrade-partial.md, and docs stay.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Takes the parts that were measured in full before, at this commit and on whatever machine, and measures the
    /// others. What a part has measured is stored in docs/benchmarks/data/upgrade when it is done, unless files outside of
    /// docs are not those of the commit: after an interrupted run, or one with --only, the whole is there with this.
    #[arg(long)]
    resume: bool,
    /// Pods of the runs that are timed, and of those beside noise and at rest.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    pods: u32,
    /// Minutes in which nothing changes.
    #[arg(long, default_value_t = at_rest::REST_MINUTES)]
    rest_minutes: u64,
    /// Pods of the run that only looks at memory.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1_000..=50_000))]
    many: u32,
    /// Requests through a Service while its pods are upgraded.
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
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
    /// I3 and I4: pods with a gate.
    Gated,
    /// I3 and I4: pods without.
    Plain,
    /// I2: conflicts beside one who writes statuses.
    Conflicts,
    /// I9: memory, and writes at rest.
    Rest,
    /// I9: memory beside many more pods.
    Many,
    /// I1: writes a pod.
    Writes,
    /// I7 and I4: how long a pod is out, on a real node.
    Downtime,
    /// I8: requests that are lost, on a real node.
    Requests,
    /// I5: names of equal content, on a real node.
    Names,
    /// I5: a kill at each write.
    Crashes,
    /// I6: a thousand upgrades at random.
    Random,
}

impl Part {
    fn title(self, options: &Options) -> String {
        let Options { pods, rest_minutes, many, requests, .. } = options;
        match self {
            Self::Gated => format!("{pods} pods with a gate, {BUDGET} writes/s"),
            Self::Plain => format!("{pods} pods without a gate, {BUDGET} writes/s"),
            Self::Conflicts => format!("{pods} pods beside one who writes their statuses"),
            Self::Rest => format!("{pods} pods at rest for {rest_minutes} min, and a restart"),
            Self::Many => format!("memory beside {many} pods"),
            Self::Writes => format!("writes a pod, {} pods of each kind", writes::PODS),
            Self::Downtime => "how long pods of a real node are out".to_owned(),
            Self::Requests => format!("{requests} requests through a Service on a real node"),
            Self::Names => "upgrades among names of equal content on a real node".to_owned(),
            Self::Crashes => "a kill of the manager at each write".to_owned(),
            Self::Random => "upgrades at random beside controllers that are late and replaced".to_owned(),
        }
    }

    /// Whether no less of it is measured than the method asks for. More is no harm.
    fn is_whole(self, options: &Options) -> bool {
        let method = Options::parse_from(["bench-upgrade"]);
        match self {
            // Of other numbers of pods the figures are others.
            Self::Gated | Self::Plain | Self::Conflicts => options.pods == method.pods,
            Self::Rest => options.pods == method.pods && options.rest_minutes >= method.rest_minutes,
            Self::Many => options.many == method.many,
            Self::Requests => options.requests >= method.requests,
            Self::Writes | Self::Downtime | Self::Names | Self::Crashes | Self::Random => true,
        }
    }

    /// Whether it runs on the cluster with an audit log, after what was there before.
    fn is_on_the_shared_cluster(self) -> bool {
        match self {
            Self::Conflicts | Self::Rest => true,
            Self::Gated
            | Self::Plain
            | Self::Many
            | Self::Writes
            | Self::Downtime
            | Self::Requests
            | Self::Names
            | Self::Crashes
            | Self::Random => false,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    // Names the commit, which may not be the last one any more at the end.
    let report = Report::new("upgrade")?;
    let store = Store::open(&report, options.resume)?;
    let parts = wanted(&options.only);
    let (resumes, is_whole) = (options.resume, options.is_whole());
    let mut upgrades = Upgrades { measured: Measured::default(), options, shared: None };
    parts::run(&mut upgrades, &parts, &store, resumes, BOUND).await;
    let Upgrades { measured, options, .. } = &upgrades;
    report::write(&report, measured, options, is_whole)?;
    measured.log.verdict(parts.len())
}

/// A run of this bench.
struct Upgrades {
    options: Options,
    shared: Option<Field>,
    measured: Measured,
}

impl Upgrades {
    /// The field with an audit log, whose pods have not been upgraded where a part is the first that asks for it.
    async fn shared(&mut self) -> Result<&mut Field> {
        if self.shared.is_none() {
            let field = Field::start(field::usual(), Signal::Gate, self.options.pods, BUDGET).await?;
            self.shared = Some(field);
        }
        self.shared.as_mut().context("the shared cluster")
    }
}

impl Bench for Upgrades {
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

    fn end_before(&mut self, next: Option<Part>) -> Result<()> {
        if next.is_some_and(Part::is_on_the_shared_cluster) {
            return Ok(());
        }
        self.shared.take().map_or(Ok(()), Field::stop)
    }

    async fn measure(&mut self, part: Part) -> Result<()> {
        let title = part.title(&self.options);
        let Options { pods, rest_minutes, many, requests, .. } = self.options;
        match part {
            Part::Gated => self.measured.gated = Some(throughput::measure(Signal::Gate, pods).await?),
            Part::Plain => self.measured.plain = Some(throughput::measure(Signal::None, pods).await?),
            Part::Conflicts => {
                let conflicts = conflicts::measure(self.shared().await?).await?;
                self.measured.conflicts = Some(conflicts);
            }
            Part::Rest => {
                let has_upgraded = self.shared.is_some();
                let field = self.shared().await?;
                if !has_upgraded {
                    // The part before was taken from where it was stored.
                    conflicts::measure(field).await?;
                }
                let pods = field.names().len();
                let rest = at_rest::measure(&mut field.managed, pods, rest_minutes).await?;
                self.measured.rest = Some(rest);
            }
            Part::Many => match at_rest::too_small_for_many()? {
                None => self.measured.many = Some(many::measure(many).await?),
                Some(why) => self.measured.log.left_out.push((title, why)),
            },
            Part::Writes => self.measured.writes = Some(writes::per_pod().await?),
            Part::Downtime => {
                let downtimes = downtime::measure().await?;
                self.measured.downtimes = self.measured.log.on_a_node(title, downtimes);
            }
            Part::Requests => {
                let compared = requests::measure(requests).await?;
                self.measured.requests = self.measured.log.on_a_node(title, compared);
            }
            Part::Names => {
                let names = names::measure().await?;
                self.measured.names = self.measured.log.on_a_node(title, names);
            }
            Part::Crashes => self.measured.crashes = Some(crashes::measure().await?),
            Part::Random => self.measured.random = Some(random::measure().await?),
        }
        Ok(())
    }

    fn give_up(&mut self) {
        self.shared = None;
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn options(args: &[&str]) -> Options {
        Options::parse_from(["bench-upgrade"].iter().chain(args))
    }

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let options = options(&["--only", "gated,rest", "--rest-minutes", "1", "--resume"]);
        assert_eq!((options.only, options.rest_minutes), (vec![Part::Gated, Part::Rest], 1));
        Options::try_parse_from(["bench-upgrade", "--pods", "30000"]).map(drop).unwrap_err();
    }

    #[test]
    fn who_measures_less_than_the_method_asks_for_writes_no_docs() {
        let is_whole = |args: &[&str]| options(args).is_whole();
        assert!(is_whole(&[]) && is_whole(&["--resume"]));
        assert!(is_whole(&["--rest-minutes", "60", "--requests", "2000000"]), "that is more");
        for less in [
            ["--only", "writes"],
            ["--pods", "1000"],
            ["--rest-minutes", "1"],
            ["--many", "10000"],
            ["--requests", "10000"],
        ] {
            assert!(!is_whole(&less), "{less:?}");
        }
    }

    #[test]
    fn what_rests_has_been_upgraded_right_before() {
        let parts = Part::value_variants();
        let at = |wanted: Part| parts.iter().position(|part| *part == wanted).unwrap();
        assert_eq!(at(Part::Conflicts) + 1, at(Part::Rest));
        let shared = parts.iter().filter(|part| part.is_on_the_shared_cluster()).count();
        assert_eq!(shared, 2, "the shared cluster is started once");
    }
}
