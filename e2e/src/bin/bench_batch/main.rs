//! `make bench-batch`: BatchJobs against the raw limit of the same machine and against Kubernetes' Job, in one run.
//!
//! The raw limit R' is the write chain of one job (create job, create pod, bind, two pod statuses,
//! status, delete pod, delete job) driven by a generator without a controller, with the same
//! scheduler and KWOK. All throughput runs use the same cluster, one after the other, each between two
//! measurements of R'.

mod admission;
mod bare;
mod chain;
mod comparison;
mod contender;
mod decision;
mod drain;
mod flood;
mod follows;
mod generator;
mod kueue;
mod kwok;
mod latency;
mod load;
mod manifests;
mod online;
mod pending;
mod pods;
mod processes;
mod queue;
mod report;
mod served;
mod stored;
mod throughput;
mod walk;
mod watcher;
mod writes;

use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use report::Measured;
use serde_json::Value;
use springtide_e2e::bench::TUNED;
use springtide_e2e::bench::parts::{self, Bench, Log, wanted};
use springtide_e2e::bench::report::Report;
use springtide_e2e::bench::stored::Store;
use springtide_e2e::kwok::NodeSpec;
use springtide_e2e::local_cluster::{Component, LocalCluster};

/// Namespaces over which jobs are spread: the declared maximum of one is 1 500.
const NAMESPACES: usize = 8;
/// The longest that a part may take: the longest one takes two thirds of that on two cores.
const BOUND: Duration = Duration::from_secs(180 * 60);
/// Jobs that the controller manager works on at once; five by default.
const JOB_SYNCS: &str = "--concurrent-job-syncs=50";

/// What is measured, and how much of it.
#[derive(Parser)]
#[command(name = "bench-batch", args_conflicts_with_subcommands = true)]
struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// Only these parts, separated by commas. The report is then target/bench/batch-partial.md, and docs stay.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Takes the parts that were measured in full before, at this commit and on whatever machine, and measures the
    /// others. What a part has measured is stored in docs/benchmarks/data/batch when it is done, unless files outside of
    /// docs are not those of the commit: after an interrupted run, or one with --only, the whole is there with this.
    #[arg(long)]
    resume: bool,
    /// Nodes that KWOK plays; some parts add a few of their own.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(10..=240))]
    nodes: u16,
    #[command(flatten)]
    comparison: comparison::Shape,
    /// Seconds of the latency run at ten jobs a second.
    #[arg(long, default_value_t = 60)]
    latency_seconds: usize,
    /// Minutes of the load run at 1 000 jobs a minute.
    #[arg(long, default_value_t = 10)]
    load_minutes: usize,
    /// Jobs that come at once in the run that shows whether the last go as fast as the first.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    flood_jobs: u32,
}

impl Options {
    /// Whether all is measured that the method asks for, and no less of it.
    fn is_whole(&self) -> bool {
        self.only.is_empty() && Part::value_variants().iter().all(|part| part.is_whole(self))
    }
}

/// A bench of its own, with a report of its own.
#[derive(Subcommand)]
enum Other {
    /// Queues with quota and cohorts, on the loads of Kueue's own test: `make bench-batch-admission`.
    Admission(admission::Options),
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// G1: jobs a second.
    Throughput,
    /// G4 to G6: latencies at ten jobs a second.
    Latency,
    /// G10: pods that wait for a node.
    Pending,
    /// G14: minutes of a steady load.
    Load,
    /// G11 and G12: a peak window that drains a thousand pods, and their way back.
    Drain,
    /// How soon capacity follows nodes, and a job tells of a queue that is not there.
    Follows,
    /// G3 and G13: a full queue and a killed manager.
    Queue,
    /// Five times as many jobs at once as the kind is declared for.
    Flood,
    /// G6 with real containers.
    Containers,
    /// An online server on a real node beside batch pods, and while they are drained.
    Online,
    /// G2: writes a job.
    Writes,
    /// G9: CPU time of the admission.
    Decision,
    /// G15, and G11 under clocks at random: what may never be, in very many random steps.
    Walk,
}

impl Part {
    fn title(self, options: &Options) -> String {
        match self {
            Self::Throughput => {
                format!("throughput, {} jobs a run, of slow peers fewer", options.comparison.jobs)
            }
            Self::Latency => format!("latency at 10 jobs/s for {} s", options.latency_seconds),
            Self::Pending => "pods that wait for a node, oversubscribed".to_owned(),
            Self::Load => format!("{} jobs a minute for {} min", load::JOBS_PER_MINUTE, options.load_minutes),
            Self::Drain => format!("a drain of {} pods, and their way back", drain::PODS),
            Self::Follows => "what follows a node, and a queue that is not there".to_owned(),
            Self::Queue => format!("{} jobs that wait and {} that run", queue::WAITING, queue::RUNNING),
            Self::Flood => format!("{} jobs at once", options.flood_jobs),
            Self::Containers => format!("latency with real containers, {} jobs", latency::CONTAINER_JOBS),
            Self::Online => "an online server on a real node beside batch pods".to_owned(),
            Self::Writes => "writes a job, on a cluster of its own with an audit log".to_owned(),
            Self::Decision => format!("CPU time of a decision over {} jobs", decision::JOBS),
            Self::Walk => format!("{} random steps, and {} random clocks", walk::STEPS, walk::CLOCKS),
        }
    }

    /// Whether no less of it is measured than the method asks for. More is no harm; of other nodes the figures are
    /// others.
    fn is_whole(self, options: &Options) -> bool {
        let method = Options::parse_from(["bench-batch"]);
        let on_its_nodes = options.nodes == method.nodes;
        match self {
            Self::Throughput => on_its_nodes && options.comparison.is_whole(&method.comparison),
            Self::Latency => on_its_nodes && options.latency_seconds >= method.latency_seconds,
            Self::Load => on_its_nodes && options.load_minutes >= method.load_minutes,
            Self::Flood => on_its_nodes && options.flood_jobs >= method.flood_jobs,
            Self::Pending | Self::Drain | Self::Follows | Self::Queue => on_its_nodes,
            Self::Containers | Self::Online | Self::Writes | Self::Decision | Self::Walk => true,
        }
    }

    /// Whether it runs on the cluster that all timed parts share.
    fn is_on_the_shared_cluster(self) -> bool {
        match self {
            Self::Throughput
            | Self::Latency
            | Self::Pending
            | Self::Load
            | Self::Drain
            | Self::Follows
            | Self::Queue => true,
            Self::Flood | Self::Containers | Self::Online | Self::Writes | Self::Decision | Self::Walk => {
                false
            }
        }
    }
}

/// The cluster of the timed parts and its namespaces.
struct Shared {
    cluster: LocalCluster,
    namespaces: Vec<String>,
}

impl Shared {
    async fn start(nodes: u16) -> Result<Self> {
        eprintln!("a control plane with {nodes} KWOK nodes");
        let nodes = NodeSpec { count: nodes.into(), ..NodeSpec::default() };
        let cluster = LocalCluster::builder()
            .without_audit()
            .with_fsync()
            .extra_args(Component::ControllerManager, TUNED.into_iter().chain([JOB_SYNCS]))
            .extra_args(Component::Scheduler, TUNED)
            .kwok(nodes)
            .start()
            .await?;
        cluster.install_crds().await?;
        let mut namespaces = Vec::new();
        for _ in 0..NAMESPACES {
            namespaces.push(cluster.create_namespace("bench").await?);
        }
        Ok(Self { cluster, namespaces })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    if let Some(Other::Admission(options)) = &options.other {
        return admission::run(options).await;
    }
    // Names the commit, which may not be the last one any more at the end.
    let report = Report::new("batch")?;
    let store = Store::open(&report, options.resume)?;
    // The full queue comes last of those on the shared cluster: it is not cleaned up.
    let parts = wanted(&options.only);
    let (resumes, is_whole) = (options.resume, options.is_whole());
    let mut batch = Batch { measured: Measured::new(&options), options, shared: None };
    parts::run(&mut batch, &parts, &store, resumes, BOUND).await;
    let measured = &batch.measured;
    report::write(&report, measured, is_whole)?;
    measured.log.verdict(parts.len())
}

/// A run of this bench.
struct Batch {
    options: Options,
    shared: Option<Shared>,
    measured: Measured,
}

impl Batch {
    async fn shared(&mut self) -> Result<&mut Shared> {
        if self.shared.is_none() {
            self.shared = Some(Shared::start(self.options.nodes).await?);
        }
        self.shared.as_mut().context("the shared cluster")
    }
}

impl Bench for Batch {
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
        self.shared.take().map_or(Ok(()), |shared| shared.cluster.stop())
    }

    async fn measure(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Throughput => {
                let shape = self.options.comparison.clone();
                let Shared { cluster, namespaces } = self.shared().await?;
                let (comparison, failed) = comparison::measure(cluster, namespaces, &shape).await?;
                self.measured.comparison = Some(comparison);
                failed?;
            }
            Part::Latency => {
                let seconds = self.options.latency_seconds;
                let Shared { cluster, namespaces } = self.shared().await?;
                let latency = latency::on_kwok(cluster, namespaces, seconds).await?;
                self.measured.latency = Some(latency);
            }
            Part::Pending => {
                let Shared { cluster, namespaces } = self.shared().await?;
                let pending = pending::measure(cluster, namespaces).await?;
                self.measured.pending = Some(pending);
            }
            Part::Load => {
                let minutes = self.options.load_minutes;
                let Shared { cluster, namespaces } = self.shared().await?;
                let load = load::measure(cluster, namespaces, minutes).await?;
                self.measured.load = Some(load);
            }
            Part::Drain => {
                let drain = drain::measure(&self.shared().await?.cluster).await?;
                self.measured.drain = Some(drain);
            }
            Part::Follows => {
                let follows = follows::measure(&self.shared().await?.cluster).await?;
                self.measured.follows = Some(follows);
            }
            Part::Queue => {
                let queue = queue::measure(&self.shared().await?.cluster).await?;
                self.measured.queue = Some(queue);
            }
            Part::Flood => {
                let Options { nodes, flood_jobs, .. } = &self.options;
                self.measured.flood = Some(flood::measure(*nodes, *flood_jobs as usize).await?);
            }
            Part::Containers => {
                let (title, log) = (part.title(&self.options), &mut self.measured.log);
                self.measured.containers = log.on_a_node(title, latency::on_a_real_node().await?);
            }
            Part::Online => {
                let (title, log) = (part.title(&self.options), &mut self.measured.log);
                self.measured.online = log.on_a_node(title, online::measure().await?);
            }
            Part::Writes => self.measured.writes = Some(writes::per_job().await?),
            Part::Decision => self.measured.decision = Some(decision::cpu_time()?),
            Part::Walk => self.measured.walk = Some(walk::measure().await?),
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
    use springtide_e2e::bench::parts::name_of;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
        let options = Options::parse_from([
            "bench-batch",
            "--only",
            "load,queue",
            "--load-minutes",
            "1",
            "--workers",
            "8,32",
        ]);
        assert_eq!(options.only, [Part::Load, Part::Queue]);
        assert_eq!((options.load_minutes, options.comparison.workers), (1, vec![8, 32]));
        assert!(options.other.is_none());
        Options::try_parse_from(["bench-batch", "--rounds", "0"]).map(drop).unwrap_err();
        let options = Options::parse_from(["bench-batch", "admission", "--only", "baseline,decision"]);
        assert!(matches!(options.other, Some(Other::Admission(_))));
    }

    #[test]
    fn who_measures_less_than_the_method_asks_for_writes_no_docs() {
        let is_whole = |args: &[&str]| {
            let args = ["bench-batch"].iter().chain(args);
            Options::parse_from(args).is_whole()
        };
        assert!(is_whole(&[]));
        assert!(is_whole(&["--load-minutes", "20", "--rounds", "2", "--workers", "8"]), "that is more");
        assert!(is_whole(&["--resume"]), "the rest was measured before");
        for less in [
            ["--only", "load"],
            ["--nodes", "100"],
            ["--jobs", "1000"],
            ["--peer-jobs", "1000"],
            ["--shipped-jobs", "100"],
            ["--in-flight", "64"],
            ["--watches", "1"],
            ["--sweep-seconds", "10"],
            ["--latency-seconds", "5"],
            ["--load-minutes", "1"],
            ["--flood-jobs", "1000"],
        ] {
            assert!(!is_whole(&less), "{less:?}");
        }
        assert!(!is_whole(&["--short-sweep"]) && !is_whole(&["--without-peers"]));
    }

    #[test]
    fn a_part_is_whole_though_others_are_shorter_or_are_not_measured() {
        let are_whole = |args: &[&str]| {
            let options = Options::parse_from(["bench-batch"].iter().chain(args));
            let whole = Part::value_variants().iter().filter(|part| part.is_whole(&options));
            whole.map(|part| name_of(*part)).collect::<Vec<_>>()
        };
        let all = are_whole(&[]);
        assert_eq!(all.len(), Part::value_variants().len());
        assert_eq!(are_whole(&["--only", "load"]), all);
        let without = |part: &str| all.iter().filter(|other| *other != part).cloned().collect::<Vec<_>>();
        assert_eq!(are_whole(&["--short-sweep"]), without("throughput"));
        assert_eq!(are_whole(&["--latency-seconds", "5"]), without("latency"));
        assert_eq!(are_whole(&["--load-minutes", "1"]), without("load"));
        assert_eq!(are_whole(&["--flood-jobs", "1000"]), without("flood"));
        let elsewhere = ["containers", "online", "writes", "decision", "walk"];
        assert_eq!(are_whole(&["--nodes", "100"]), elsewhere, "the others run on these nodes");
    }

    #[test]
    fn the_part_that_is_not_cleaned_up_is_the_last_one_on_its_cluster() {
        let last = Part::value_variants().iter().rfind(|part| part.is_on_the_shared_cluster());
        assert_eq!(last, Some(&Part::Queue));
        let first_alone = Part::value_variants().iter().position(|part| !part.is_on_the_shared_cluster());
        let queue = Part::value_variants().iter().position(|part| *part == Part::Queue);
        assert!(queue < first_alone, "the shared cluster is started once");
    }
}
