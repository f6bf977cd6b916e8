//! G1: jobs a second of BatchJob, with the write budget as shipped and raised, and of its peers, each between two
//! measurements of R' on the same cluster.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::lives::{Lives, Window, best, middle};
use springtide_e2e::bench::stats::{mean, median};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::bare::{self, Bare};
use crate::chain;
use crate::contender::{self, Contender};
use crate::generator::Generator;
use crate::kueue::{Installation, Kueue, Tuning};
use crate::kwok;
use crate::manifests::{System, Task};
use crate::processes::Beside;
use crate::throughput::{self, Run};
use crate::watcher::{Jobs, Seen, Watcher};

/// Jobs that go before a run, one or two in each namespace, and a bound for them.
const WARM_UP: usize = 12;
const WARM_UP_BOUND: Duration = Duration::from_secs(180);

/// How much is measured.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub(crate) struct Shape {
    /// Jobs of each throughput run.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) jobs: usize,
    /// How often all throughput runs are done, one round after the other; the median round counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Finds R and R' by a few steps of some seconds, once each, for trials: the whole sweep takes twenty minutes.
    #[arg(long)]
    pub(crate) short_sweep: bool,
    /// Lives in flight of the sweep for R (bare pods), instead of those of the method.
    #[arg(long, value_delimiter = ',')]
    pub(crate) bare_in_flight: Vec<usize>,
    /// Watches beside which the best of them is led again.
    #[arg(long, value_delimiter = ',', default_values_t = WATCHES)]
    pub(crate) watches: Vec<usize>,
    /// Lives in flight of the sweep for R' (the write chain without a controller), instead of those of the method.
    #[arg(long, value_delimiter = ',')]
    pub(crate) in_flight: Vec<usize>,
    /// Seconds of each step of the sweep for R, instead of those of the method.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) sweep_seconds: Option<u64>,
    /// Jobs of the run of Kueue, tuned: at the ten a second that it takes, ten thousand would take a quarter of an hour,
    /// and more that wait make it no faster.
    #[arg(long, default_value_t = 3_000, value_parser = clap::value_parser!(u32).range(10..))]
    pub(crate) peer_jobs: u32,
    /// Jobs of each run with everything as it is shipped: the rates that Kubernetes limits itself to do not depend on
    /// it, and ten thousand would take most of an hour.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..))]
    pub(crate) shipped_jobs: u32,
    /// Leaves out Kueue, and all that is as shipped.
    #[arg(long)]
    pub(crate) without_peers: bool,
    /// Further runs with the raised budget, with so many workers of the manager each.
    #[arg(long, value_delimiter = ',')]
    pub(crate) workers: Vec<usize>,
}

impl Shape {
    /// Whether no less is measured than by the method.
    pub(crate) fn is_whole(&self, method: &Self) -> bool {
        self.sweep().is_whole()
            && !self.without_peers
            && self.jobs >= method.jobs
            && self.peer_jobs >= method.peer_jobs
            && self.shipped_jobs >= method.shipped_jobs
    }

    /// Jobs of a run of this contender.
    pub(crate) fn jobs_of(&self, contender: Contender) -> usize {
        match contender {
            Contender::Shipped | Contender::Raised | Contender::Workers(_) | Contender::Job => self.jobs,
            Contender::Kueue => self.peer_jobs as usize,
            Contender::AllShipped | Contender::JobShipped | Contender::KueueShipped => {
                self.shipped_jobs as usize
            }
        }
    }

    /// How R and R' are found.
    pub(crate) fn sweep(&self) -> Sweep {
        let Sweep { bare_in_flight, in_flight, times, seconds, chain_seconds, .. } =
            Sweep::new(self.short_sweep);
        let asked = self.sweep_seconds.unwrap_or(seconds);
        Sweep {
            bare_in_flight: asked_or(&self.bare_in_flight, bare_in_flight),
            in_flight: asked_or(&self.in_flight, in_flight),
            watches: self.watches.clone(),
            times,
            seconds: asked,
            // Longer by as much as in the method: its lives are.
            chain_seconds: asked * chain_seconds / seconds,
        }
    }
}

/// The steps of the whole sweep, the watches beside its best one, how often each is done, and its seconds.
const STEPS: [usize; 4] = [1, 32, 128, 256];
const WATCHES: [usize; 3] = [1, 3, 5];
const TIMES: usize = 3;
const SECONDS: u64 = 20;
/// Seconds of the steps for R': its lives are longer, and fewer end.
const CHAIN_SECONDS: u64 = 30;
/// Those of the short one.
const SHORT_BARE: [usize; 5] = [8, 32, 64, 128, 256];
const SHORT_CHAIN: [usize; 3] = [64, 128, 256];
/// The longest time before lives count: they take a few seconds at most.
const WARM_UP_OF_LIVES: Duration = Duration::from_secs(15);

/// How R and R' are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// Lives in flight of the steps for R.
    pub(crate) bare_in_flight: Vec<usize>,
    /// Lives in flight of the steps for R'.
    pub(crate) in_flight: Vec<usize>,
    /// Watches beside which the best step for R is done again.
    pub(crate) watches: Vec<usize>,
    /// How often each step is done; the median counts.
    pub(crate) times: usize,
    /// Seconds of a step for R.
    pub(crate) seconds: u64,
    /// Seconds of a step for R', and of R' around runs.
    pub(crate) chain_seconds: u64,
}

/// What was asked for, if anything was, else what the method has.
pub(crate) fn asked_or(asked: &[usize], method: Vec<usize>) -> Vec<usize> {
    if asked.is_empty() { method } else { asked.to_vec() }
}

/// Numbers as a page lists them.
pub(crate) fn listed(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

impl Sweep {
    /// The one of the method, or the short one for trials.
    pub(crate) fn new(is_short: bool) -> Self {
        let (bare, chain, times, seconds, chain_seconds) = if is_short {
            (&SHORT_BARE[..], &SHORT_CHAIN[..], 1, 8, 16)
        } else {
            (&STEPS[..], &STEPS[..], TIMES, SECONDS, CHAIN_SECONDS)
        };
        let (bare_in_flight, in_flight) = (bare.to_vec(), chain.to_vec());
        Self { bare_in_flight, in_flight, watches: WATCHES.to_vec(), times, seconds, chain_seconds }
    }

    /// Whether it is the one of the method, whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.bare_in_flight == STEPS
            && self.in_flight == STEPS
            && self.watches == WATCHES
            && self.times == TIMES
            && self.seconds == SECONDS
            && self.chain_seconds == CHAIN_SECONDS
    }

    /// The time of a step of so many seconds.
    pub(crate) fn window(seconds: u64) -> Window {
        let counted = Duration::from_secs(seconds);
        Window { warm_up: (counted / 2).min(WARM_UP_OF_LIVES), counted }
    }
}

/// A run and the raw limit around it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) contender: Contender,
    pub(crate) run: Run,
    /// R' right before it and right after it.
    pub(crate) around: [Lives; 2],
}

impl Step {
    /// R' as it was around this run.
    pub(crate) fn limit(&self) -> f64 {
        mean(self.around.iter().map(|lives| lives.rate))
    }

    /// The run's rate as a share of that.
    pub(crate) fn share(&self) -> f64 {
        self.run.rate / self.limit()
    }
}

/// Everything of G1.
#[derive(Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) bare: Bare,
    /// R' by lives in flight.
    pub(crate) sweep: Vec<Lives>,
    /// The runs of each round, in their order.
    pub(crate) rounds: Vec<Vec<Step>>,
    /// Pods a second that KWOK plays by itself.
    pub(crate) kwok: f64,
    /// Size of the objects as the server sends them, in bytes: a job and a pod that have ended.
    pub(crate) sizes: [usize; 2],
}

impl Comparison {
    /// R: the best of bare pods whose lives are short enough; NaN if there is none.
    pub(crate) fn bare_limit(&self) -> f64 {
        best(&self.bare.sweep, bare::LONGEST_P99).map_or(f64::NAN, |lives| lives.rate)
    }

    /// R' around all runs: the median.
    pub(crate) fn limit(&self) -> f64 {
        median(self.all().map(Step::limit))
    }

    /// The median over the rounds of a figure of one contender.
    pub(crate) fn median(&self, contender: Contender, figure: impl Fn(&Step) -> f64) -> f64 {
        median(self.steps(contender).map(figure))
    }

    /// The median over the rounds of how many times faster one contender was than another.
    pub(crate) fn times(&self, one: Contender, other: Contender) -> f64 {
        let rate = |round: &[Step], contender: Contender| {
            round.iter().find(|step| step.contender == contender).map(|step| step.run.rate)
        };
        median(self.rounds.iter().filter_map(|round| Some(rate(round, one)? / rate(round, other)?)))
    }

    /// All runs.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Step> {
        self.rounds.iter().flatten()
    }

    /// The runs of one contender.
    pub(crate) fn steps(&self, contender: Contender) -> impl Iterator<Item = &Step> {
        self.all().filter(move |step| step.contender == contender)
    }
}

/// Measures the limits and all contenders. Beside what was measured stands why a peer, and all after it, was not.
pub(crate) async fn measure(
    cluster: &mut LocalCluster,
    namespaces: &[String],
    shape: &Shape,
) -> Result<(Comparison, Result<()>)> {
    let generator = Generator::new(cluster, namespaces)?;
    let plan = shape.sweep();
    let long = Sweep::window(plan.chain_seconds);
    let bare = bare::measure(cluster, &generator, &plan).await?;
    let kwok = kwok::pods_per_second(cluster, &generator).await?;
    eprintln!("      KWOK alone: {kwok:.0} pods/s");
    let mut sweep = Vec::new();
    for in_flight in &plan.in_flight {
        let mut tries = Vec::new();
        for number in 0..plan.times {
            let prefix = format!("sweep{in_flight}-{number}-");
            tries.push(chain::lives(cluster, &generator, &prefix, *in_flight, long).await?);
        }
        let lives = middle(tries).context("no lives for R'")?;
        eprintln!("      R', {in_flight} in flight: {:.1} lives/s, p99 {:.1} s", lives.rate, lives.p99);
        sweep.push(lives);
    }
    let in_flight = best(&sweep, f64::INFINITY).context("no lives for R'")?.in_flight;
    let sizes = kwok::sizes(&generator).await?;

    let mut rounds = Vec::new();
    let contenders = Contender::all(shape.without_peers, &shape.workers);
    let mut kueue = Kueues { namespaces, installation: None };
    let mut failed = Ok(());
    for round in 1..=shape.rounds {
        let limit = async |cluster: &LocalCluster, place: usize| {
            let lives =
                chain::lives(cluster, &generator, &format!("limit{round}-{place}-"), in_flight, long).await?;
            eprintln!("      R', {in_flight} in flight: {:.1} lives/s", lives.rate);
            anyhow::Ok(lives)
        };
        let mut steps = Vec::new();
        let mut before = limit(cluster, 0).await?;
        for (place, contender) in contenders.iter().enumerate() {
            let jobs = shape.jobs_of(*contender);
            let run = one(cluster, &generator, &mut kueue, *contender, round, jobs).await;
            let run = match run.with_context(|| contender.title()) {
                Ok(run) => run,
                // What was measured before is worth a report. The cluster may be no more what it was.
                Err(error) if contender.is_peer() => {
                    failed = Err(error);
                    break;
                }
                Err(error) => return Err(error),
            };
            let after = limit(cluster, place + 1).await?;
            let step = Step { contender: *contender, run, around: [before, after.clone()] };
            eprintln!(
                "      {}: {:.1} jobs/s, {:.0} % of R'",
                contender.title(),
                step.run.rate,
                100.0 * step.share()
            );
            steps.push(step);
            before = after;
        }
        rounds.push(steps);
        if failed.is_err() {
            break;
        }
    }
    Ok((Comparison { bare, sweep, rounds, kwok, sizes }, failed))
}

/// Kueue, installed when it is needed for the first time.
struct Kueues<'a> {
    namespaces: &'a [String],
    installation: Option<Installation>,
}

impl Kueues<'_> {
    async fn start(&mut self, cluster: &LocalCluster, tuning: Tuning, name: &str) -> Result<Kueue> {
        let installation = match self.installation.take() {
            Some(installation) => installation,
            None => Installation::new(cluster, self.namespaces).await?,
        };
        self.installation.insert(installation).start(cluster, tuning, name).await
    }
}

async fn one(
    cluster: &mut LocalCluster,
    generator: &Generator,
    kueue: &mut Kueues<'_>,
    contender: Contender,
    round: u32,
    jobs: usize,
) -> Result<Run> {
    eprintln!("      {jobs} jobs: {}, round {round}", contender.title());
    let prefix = format!("{}{round}-", contender.id());
    match contender.tuning() {
        Tuning::Tuned => of_contender(cluster, generator, kueue, contender, &prefix, jobs).await,
        Tuning::Shipped => {
            cluster.run_controllers_with(contender::flags(Tuning::Shipped)).await?;
            warm_up(cluster, generator, System::Job, &format!("as-shipped-{prefix}")).await?;
            let run = of_contender(cluster, generator, kueue, contender, &prefix, jobs).await?;
            cluster.run_controllers_with(contender::flags(Tuning::Tuned)).await?;
            warm_up(cluster, generator, System::Job, &format!("tuned-{prefix}")).await?;
            Ok(run)
        }
    }
}

async fn of_contender(
    cluster: &LocalCluster,
    generator: &Generator,
    kueue: &mut Kueues<'_>,
    contender: Contender,
    prefix: &str,
    jobs: usize,
) -> Result<Run> {
    let system = contender.system();
    let log = format!("{prefix}{jobs}");
    match system {
        System::Job => throughput::run(cluster, generator, system, prefix, jobs, Beside::Nobody).await,
        System::BatchJob => {
            let args = contender.manager_args();
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let mut manager = Manager::start(cluster, &format!("manager-{log}"), &args).await?;
            manager.wait_ready().await?;
            let beside = Beside::Manager(&manager);
            let run = throughput::run(cluster, generator, system, prefix, jobs, beside).await?;
            manager.stop()?;
            Ok(run)
        }
        System::KueueJob => {
            let kueue = kueue.start(cluster, contender.tuning(), &format!("kueue-{log}")).await?;
            warm_up(cluster, generator, system, &format!("warm-{prefix}")).await?;
            let run =
                throughput::run(cluster, generator, system, prefix, jobs, Beside::Kueue(&kueue)).await?;
            kueue.stop(cluster).await?;
            Ok(run)
        }
    }
}

/// A few jobs, after which everything that has been started has its watches.
async fn warm_up(cluster: &LocalCluster, generator: &Generator, system: System, prefix: &str) -> Result<()> {
    let watcher = Watcher::start(cluster, system, prefix, Jobs::Presence).await?;
    generator.create(system, prefix, WARM_UP, |_| Task::of("0")).await?;
    watcher.until_all("gone before the run", WARM_UP, WARM_UP_BOUND, Seen::is_gone).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::Spent;
    use crate::served::Served;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        shape: Shape,
    }

    fn lives(rate: f64) -> Lives {
        Lives { in_flight: 64, rate, p50: 0.5, p99: 0.9 }
    }

    fn step(contender: Contender, rate: f64, before: f64, after: f64) -> Step {
        let run = Run {
            jobs: 100,
            rate,
            tenths: Vec::new(),
            spent: Spent { seconds: 1.0, processes: Vec::new() },
            traffic: None,
            served: Served::default(),
            create_to_pod: Vec::new(),
            exit_to_gone: Vec::new(),
        };
        Step { contender, run, around: [lives(before), lives(after)] }
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_their_median_counts() {
        // The third round had a slow machine, the second a run that was disturbed.
        let round = |raised, job, limit| {
            vec![step(Contender::Raised, raised, limit, limit), step(Contender::Job, job, limit, limit)]
        };
        let comparison = Comparison {
            bare: Bare { sweep: vec![lives(150.0)], watched: Vec::new() },
            sweep: Vec::new(),
            rounds: vec![round(45.0, 25.0, 50.0), round(20.0, 25.0, 50.0), round(22.5, 12.5, 25.0)],
            kwok: 300.0,
            sizes: [0; 2],
        };
        assert_eq!(comparison.median(Contender::Raised, Step::share), 0.9);
        assert_eq!(comparison.times(Contender::Raised, Contender::Job), 1.8);
        assert_eq!(comparison.steps(Contender::Job).count(), 3);
        assert_eq!((comparison.limit(), comparison.bare_limit()), (50.0, 150.0));
        assert!(comparison.times(Contender::Shipped, Contender::Job).is_nan(), "it did not run");
    }

    #[test]
    fn the_whole_sweep_is_what_is_done_when_nothing_is_asked_for() {
        let of = |args: &[&str]| {
            let args = ["bench"].iter().chain(args);
            <Only as clap::Parser>::parse_from(args).shape.sweep()
        };
        let whole = of(&[]);
        assert!(whole.is_whole());
        assert_eq!((whole.in_flight.first(), whole.in_flight.last()), (Some(&1), Some(&256)));
        assert_eq!((whole.times, whole.seconds, whole.watches), (3, 20, vec![1, 3, 5]));
        assert_eq!(whole.chain_seconds, 30);
        let short = of(&["--short-sweep"]);
        assert!(!short.is_whole());
        assert_eq!((short.times, short.seconds, short.chain_seconds), (1, 8, 16));
        let asked = of(&["--short-sweep", "--in-flight", "7", "--sweep-seconds", "2"]);
        assert_eq!((asked.in_flight, asked.seconds, asked.chain_seconds), (vec![7], 2, 4));
        let longer = of(&["--sweep-seconds", "30"]);
        assert!(!longer.is_whole());
        assert_eq!((longer.seconds, longer.chain_seconds), (30, 45));
        assert_eq!(Sweep::window(60).warm_up, Duration::from_secs(15));
        assert_eq!(Sweep::window(8).warm_up, Duration::from_secs(4));
    }

    #[test]
    fn who_is_slow_runs_fewer_jobs_and_the_tuned_job_as_many_as_we() {
        let shape = <Only as clap::Parser>::parse_from(["bench"]).shape;
        let jobs = |contender| shape.jobs_of(contender);
        assert_eq!(jobs(Contender::Job), jobs(Contender::Raised));
        assert_eq!((jobs(Contender::Shipped), jobs(Contender::Workers(16))), (10_000, 10_000));
        assert_eq!((jobs(Contender::Kueue), jobs(Contender::KueueShipped)), (3_000, 500));
        assert_eq!(jobs(Contender::AllShipped), jobs(Contender::JobShipped));
    }

    #[test]
    fn a_share_is_of_the_limit_on_both_sides() {
        assert_eq!(step(Contender::Shipped, 40.0, 60.0, 40.0).share(), 0.8);
    }
}
