//! G1: jobs a second of BatchJob, with the write budget as shipped and raised, and of Kubernetes' Job, each between
//! two measurements of R' on the same cluster.

use std::time::Duration;

use anyhow::{Context, Result};
use springtide_e2e::local_cluster::LocalCluster;
use springtide_e2e::manager::Manager;

use crate::bare::{self, Bare};
use crate::chain;
use crate::generator::{Generator, Lives, Window, best};
use crate::kwok;
use crate::manifests::System;
use crate::stats::{mean, median};
use crate::throughput::{self, Run};

/// By how much the write budget is raised.
pub(crate) const RAISED: u32 = 10;
/// Workers beside it: a worker has one write under way, and with the eight that are shipped that is all there is. The
/// Jobs beside are synced fifty at a time.
pub(crate) const RAISED_WORKERS: usize = 32;

/// How much is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shape {
    /// Jobs of each throughput run.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) jobs: usize,
    /// How often all throughput runs are done, one round after the other; the median round counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Lives in flight of the sweep for R (bare pods).
    #[arg(long, value_delimiter = ',', default_values_t = [8, 32, 64, 128, 256])]
    pub(crate) bare_in_flight: Vec<usize>,
    /// Watches beside which the best of them is led again.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3, 5])]
    pub(crate) watches: Vec<usize>,
    /// Lives in flight of the sweep for R' (the write chain without a controller).
    #[arg(long, value_delimiter = ',', default_values_t = [64, 128, 256])]
    pub(crate) in_flight: Vec<usize>,
    /// Seconds of each step of the sweep for R; that for R' takes twice as long, as do R' before and after each run.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) sweep_seconds: u64,
    /// Further runs with the raised budget, with so many workers of the manager each.
    #[arg(long, value_delimiter = ',')]
    pub(crate) workers: Vec<usize>,
}

impl Shape {
    fn window(&self, times: u64) -> Window {
        let counted = Duration::from_secs(self.sweep_seconds * times);
        Window { warm_up: counted / 2, counted }
    }
}

/// What a throughput run is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contender {
    /// BatchJob as it is installed.
    Shipped,
    /// BatchJob with the raised write budget, and more workers.
    Raised,
    /// The same with so many workers instead.
    Workers(usize),
    /// Job, its controller manager and scheduler tuned as all of this cluster.
    Job,
}

impl Contender {
    fn system(self) -> System {
        match self {
            Self::Shipped | Self::Raised | Self::Workers(_) => System::BatchJob,
            Self::Job => System::Job,
        }
    }

    /// What the report calls it.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Shipped => "BatchJob, write budget as shipped".to_owned(),
            Self::Raised => format!("BatchJob, write budget x {RAISED}, {RAISED_WORKERS} workers"),
            Self::Workers(workers) => format!("BatchJob, write budget x {RAISED}, {workers} workers"),
            Self::Job => "Kubernetes Job, tuned".to_owned(),
        }
    }

    /// A part of names of objects and files.
    fn id(self) -> String {
        match self {
            Self::Shipped => "shipped".to_owned(),
            Self::Raised => "raised".to_owned(),
            Self::Workers(workers) => format!("workers{workers}"),
            Self::Job => "job".to_owned(),
        }
    }

    /// Options of its manager; `None` where it has none.
    fn manager(self) -> Option<Vec<String>> {
        let raised = |workers: usize| {
            let args = ["--write-budget-factor", &RAISED.to_string(), "--workers", &workers.to_string()];
            args.map(str::to_owned).to_vec()
        };
        match self {
            Self::Shipped => Some(Vec::new()),
            Self::Raised => Some(raised(RAISED_WORKERS)),
            Self::Workers(workers) => Some(raised(workers)),
            Self::Job => None,
        }
    }
}

/// A run and the raw limit around it.
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

/// Measures the limits and all contenders.
pub(crate) async fn measure(
    cluster: &LocalCluster,
    namespaces: &[String],
    shape: &Shape,
) -> Result<Comparison> {
    let generator = Generator::new(cluster, namespaces)?;
    let (short, long) = (shape.window(1), shape.window(2));
    let bare = bare::measure(cluster, &generator, &shape.bare_in_flight, &shape.watches, short).await?;
    let kwok = kwok::pods_per_second(cluster, &generator).await?;
    eprintln!("      KWOK alone: {kwok:.0} pods/s");
    let mut sweep = Vec::new();
    for in_flight in &shape.in_flight {
        let lives =
            chain::lives(cluster, &generator, &format!("sweep{in_flight}-"), *in_flight, long).await?;
        eprintln!("      R', {in_flight} in flight: {:.1} lives/s, p99 {:.1} s", lives.rate, lives.p99);
        sweep.push(lives);
    }
    let in_flight = best(&sweep, f64::INFINITY).context("no lives for R'")?.in_flight;
    let sizes = kwok::sizes(&generator).await?;

    let mut rounds = Vec::new();
    let further = shape.workers.iter().map(|workers| Contender::Workers(*workers));
    let contenders: Vec<Contender> =
        [Contender::Shipped, Contender::Raised, Contender::Job].into_iter().chain(further).collect();
    for round in 1..=shape.rounds {
        let limit = async |place: usize| {
            let lives =
                chain::lives(cluster, &generator, &format!("limit{round}-{place}-"), in_flight, long).await?;
            eprintln!("      R', {in_flight} in flight: {:.1} lives/s", lives.rate);
            anyhow::Ok(lives)
        };
        let mut steps = Vec::new();
        let mut before = limit(0).await?;
        for (place, contender) in contenders.iter().enumerate() {
            let run = one(cluster, &generator, *contender, round, shape.jobs).await;
            let run = run.with_context(|| contender.title())?;
            let after = limit(place + 1).await?;
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
    }
    Ok(Comparison { bare, sweep, rounds, kwok, sizes })
}

async fn one(
    cluster: &LocalCluster,
    generator: &Generator,
    contender: Contender,
    round: u32,
    jobs: usize,
) -> Result<Run> {
    eprintln!("      {jobs} jobs: {}, round {round}", contender.title());
    let prefix = format!("{}{round}-", contender.id());
    let system = contender.system();
    let Some(args) = contender.manager() else {
        return throughput::run(cluster, generator, system, &prefix, jobs, None).await;
    };
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut manager = Manager::start(cluster, &format!("manager-{prefix}{jobs}"), &args).await?;
    manager.wait_ready().await?;
    let run = throughput::run(cluster, generator, system, &prefix, jobs, Some(&manager)).await?;
    manager.stop()?;
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processes::Spent;

    fn lives(rate: f64) -> Lives {
        Lives { in_flight: 64, rate, p50: 0.5, p99: 0.9 }
    }

    fn step(contender: Contender, rate: f64, before: f64, after: f64) -> Step {
        let run = Run {
            rate,
            tenths: Vec::new(),
            spent: Spent { seconds: 1.0, processes: Vec::new() },
            traffic: None,
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
    fn a_share_is_of_the_limit_on_both_sides() {
        assert_eq!(step(Contender::Shipped, 40.0, 60.0, 40.0).share(), 0.8);
    }

    #[test]
    fn only_job_runs_without_a_manager_and_the_shipped_one_without_options() {
        assert_eq!(Contender::Shipped.manager(), Some(Vec::new()));
        assert_eq!(Contender::Job.manager(), None);
        let args = Contender::Workers(16).manager().unwrap();
        assert_eq!(args, ["--write-budget-factor", "10", "--workers", "16"]);
    }
}
