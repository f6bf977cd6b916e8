//! `make bench-batch-admission`: workloads that wait in queues with quota and cohorts, on the loads of Kueue's own
//! scheduler performance test, each with its pod as an object; and the processor time of decisions.

mod goals;
mod options;
mod page;
mod preset;
mod raw;
mod runner;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use futures::{StreamExt, TryStreamExt};
use kube::api::{Api, ListParams};
use serde_json::json;
use springtide_crds::batch_queue::{BatchQueue, StalledReason};
use springtide_crds::common::{ConditionStatus, condition};
use springtide_crds::reason::Reason;
use springtide_e2e::bench::post;
use springtide_e2e::bench::report::{Report, quantile};
use springtide_e2e::bench::scrape::{Scrape, Traffic};
use springtide_e2e::bench::stats::{mean, sorted};
use springtide_e2e::kwok::NodeSpec;
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::manager::Manager;
use springtide_plumbing::budget::BudgetConfig;

use crate::decision::{self, Decision};
use crate::generator::Generator;
use crate::manifests::System;
use crate::processes::{Meter, Spent};
use crate::watcher::{Jobs, Seen, Watcher};
use crate::{JOB_SYNCS, TUNED};
pub(crate) use options::Options;
use preset::{Extent, Load, Queue};
use raw::Raw;

/// Nodes with room for all quota of the larger load and a fifth above it: what is measured is the quota.
const NODES: usize = 100;
/// The longest that a run may take.
const BOUND: Duration = Duration::from_secs(45 * 60);
/// For the manager to see the queues.
const SETTLED: Duration = Duration::from_secs(5);
/// Queues that are created at once.
const IN_FLIGHT: usize = 32;

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// G9: processor time of decisions.
    Decision,
    /// G7: Kueue's baseline.
    Baseline,
    /// The same with the manager as it is installed, but for the declared maximum.
    Shipped,
    /// G8: Kueue's large-scale load, and the raw rate that it is measured by.
    LargeScale,
}

/// Options of the manager in a run.
#[derive(Clone, Debug)]
struct Flags {
    title: String,
    args: Vec<String>,
    /// Whether pods end for those of higher priority in their own queue, where the load says so.
    preempts: bool,
}

impl Part {
    fn title(self) -> &'static str {
        match self {
            Self::Decision => "processor time of decisions",
            Self::Baseline => "baseline of Kueue's runner",
            Self::Shipped => "baseline of Kueue's runner, manager as shipped",
            Self::LargeScale => "large-scale load of Kueue's runner",
        }
    }

    fn flags(self, options: &Options) -> Flags {
        let preempts = !options.without_preemption;
        let kind = if preempts { "" } else { ", without preemption" };
        match self {
            Self::Shipped => Flags { title: format!("as shipped{kind}"), args: Vec::new(), preempts },
            Self::Decision | Self::Baseline | Self::LargeScale => {
                let (factor, workers) = (options.write_budget_factor, options.workers);
                let args = [
                    "--write-budget-factor".to_owned(),
                    factor.to_string(),
                    "--workers".to_owned(),
                    workers.to_string(),
                ];
                let title = format!("write budget x {factor}, {workers} workers{kind}");
                Flags { title, args: args.into(), preempts }
            }
        }
    }
}

/// A class of workloads in a run.
#[derive(Clone, Debug, PartialEq)]
struct Class {
    name: String,
    jobs: usize,
    /// Seconds from the sending of a workload to its last pod, which is its only one unless it was preempted, and to
    /// the first; on average.
    wait: f64,
    first_wait: f64,
    /// The p99 of the former.
    p99: f64,
    /// Pods that were preempted.
    preempted: usize,
}

/// One run of a load.
struct Run {
    part: Part,
    flags: String,
    extent: Extent,
    /// Seconds from the first create to the last outcome.
    wall: f64,
    classes: Vec<Class>,
    /// How much of the nominal quota pods used on average, in per cent.
    usage: f64,
    spent: Spent,
    traffic: Traffic,
    /// By seconds since the start, how many had been admitted.
    admitted: Vec<(f64, f64)>,
}

/// Everything that was measured.
#[derive(Default)]
struct Measured {
    runs: Vec<Run>,
    raw: Option<Raw>,
    decision: Option<Decision>,
    failures: Vec<(&'static str, String)>,
    minutes: f64,
}

/// Measures what was asked for, and reports.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let report = Report::new("batch-admission")?;
    let is_wanted = |part: &&Part| options.only.is_empty() || options.only.contains(part);
    let parts: Vec<Part> = Part::value_variants().iter().filter(is_wanted).copied().collect();
    let mut measured = Measured::default();
    let start = Instant::now();
    for (number, part) in parts.iter().enumerate() {
        let minutes = start.elapsed().as_secs_f64() / 60.0;
        eprintln!("[{}/{}] {} ({minutes:.0} min so far)", number + 1, parts.len(), part.title());
        if let Err(error) = measure(*part, options, &mut measured).await {
            eprintln!("      failed: {error:#}");
            measured.failures.push((part.title(), format!("{error:#}")));
        }
    }
    measured.minutes = start.elapsed().as_secs_f64() / 60.0;
    let goals = goals::of(&measured);
    let is_whole = options.is_whole() && measured.failures.is_empty();
    let page = page::of(&measured, &goals, &report.origin(), options, is_whole)?;
    if is_whole {
        page::plot(&measured, &report.plot())?;
        report.publish(&page, &goals)?;
    } else {
        report.publish_partial(&page, &goals)?;
    }
    match measured.failures.len() {
        0 => Ok(()),
        failed => bail!("{failed} of {} parts failed", parts.len()),
    }
}

async fn measure(part: Part, options: &Options, measured: &mut Measured) -> Result<()> {
    let flags = part.flags(options);
    match part {
        Part::Decision => measured.decision = Some(decision::cpu_time()?),
        Part::Baseline | Part::Shipped => {
            let text = match &options.generator {
                Some(path) => {
                    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?
                }
                None => preset::BASELINE.to_owned(),
            };
            measured.runs.push(load(part, &Load::parse(&text)?, flags).await?);
        }
        Part::LargeScale => {
            measured.raw = Some(raw_rate(options).await?);
            measured.runs.push(load(part, &Load::parse(preset::LARGE_SCALE)?, flags).await?);
        }
    }
    Ok(())
}

/// A cluster of a part's own, so that none has to be cleaned up.
async fn cluster(namespaces: usize) -> Result<(LocalCluster, Vec<String>)> {
    let nodes = NodeSpec {
        count: NODES,
        cpu: "256".to_owned(),
        memory: "1024Gi".to_owned(),
        pods: 1000,
        ..NodeSpec::default()
    };
    let cluster = LocalCluster::builder()
        .without_audit()
        .with_fsync()
        .extra_args(Component::ControllerManager, TUNED.into_iter().chain([JOB_SYNCS]))
        .extra_args(Component::Scheduler, TUNED)
        .kwok(nodes)
        .start()
        .await?;
    cluster.install_crds().await?;
    let mut names = Vec::new();
    for _ in 0..namespaces {
        names.push(cluster.create_namespace("cohort").await?);
    }
    Ok((cluster, names))
}

async fn raw_rate(options: &Options) -> Result<Raw> {
    let (cluster, namespaces) = cluster(8).await?;
    let generator = Generator::new(&cluster, &namespaces)?;
    let raw = raw::measure(&generator, &options.sweep()).await?;
    cluster.stop()?;
    Ok(raw)
}

async fn load(part: Part, load: &Load, flags: Flags) -> Result<Run> {
    let mut queues = load.queues()?;
    for queue in &mut queues {
        queue.preempts_within &= flags.preempts;
    }
    let queues = queues;
    let extent = Extent::of(&queues);
    let Extent { cohorts, queues: count, jobs, floor, .. } = &extent;
    eprintln!(
        "      {jobs} workloads, {count} queues in {cohorts} cohorts, {}; quota alone: {floor:.0} s",
        flags.title
    );
    let (cluster, namespaces) = cluster(extent.cohorts).await?;
    let mut manager = start(&cluster, &extent, &flags.args).await?;
    manager.wait_ready().await?;
    let generator = Generator::new(&cluster, &namespaces)?;
    create_queues(&generator, &namespaces, &queues).await?;
    tokio::time::sleep(SETTLED).await;
    all_admit(&cluster).await?;

    let (tell, started) = runner::wire();
    // All that there is belongs to this run.
    let watcher = Watcher::start_telling(&cluster, System::BatchJob, "", Jobs::Outcomes, tell).await?;
    let before = Scrape::of(&manager).await?;
    let meter = Meter::start(&cluster, Some(&manager))?;
    let began = Instant::now();
    let work = async {
        let create = runner::create(&generator, &namespaces, &queues);
        let finished = watcher.until_all("finished", extent.jobs, BOUND, |seen| seen.outcome.is_some());
        anyhow::Ok(tokio::try_join!(create, finished)?.0)
    };
    let sent = tokio::select! {
        sent = work => sent?,
        ended = runner::end_in_time(&generator, started) => {
            ended?;
            bail!("nobody ends pods any more");
        }
    };
    let spent = meter.end()?;
    let traffic = Traffic::between(&before, &Scrape::of(&manager).await?, spent.seconds);
    let seen = watcher.all();
    manager.stop()?;
    cluster.stop()?;

    let last = seen.values().filter_map(|seen| seen.outcome).max().context("no outcome")?;
    let wall = last.duration_since(began).as_secs_f64();
    let of = |key: &str| seen.get(key).zip(sent.get(key).copied());
    let mut used = 0.0;
    let mut waits: BTreeMap<String, Vec<(f64, f64, usize)>> = BTreeMap::new();
    for queue in &queues {
        let namespace = namespaces.get(queue.cohort).context("a cohort without namespace")?;
        for job in queue.jobs() {
            let (seen, sent) = of(&format!("{namespace}/{}", job.name)).context("a workload not seen")?;
            let (wait, first, held) = figures(seen, sent).with_context(|| job.name.clone())?;
            used += held * job.millis as f64;
            waits.entry(job.class.clone()).or_default().push((wait, first, seen.pods.saturating_sub(1)));
        }
    }
    let admissions = sorted(
        seen.values().filter_map(|seen| Some(seen.pod_added?.saturating_duration_since(began).as_secs_f64())),
    );
    let admitted = admissions.iter().enumerate().map(|(count, at)| (*at, (count + 1) as f64)).collect();
    Ok(Run {
        part,
        flags: flags.title,
        wall,
        classes: waits.into_iter().map(|(name, waits)| class(name, &waits)).collect(),
        usage: 100.0 * used / (extent.nominal as f64 * wall),
        extent,
        spent,
        traffic,
        admitted,
    })
}

/// Starts a manager that takes as many objects as the load has.
async fn start(cluster: &LocalCluster, extent: &Extent, args: &[String]) -> Result<Manager> {
    let configuration = json!({
        "apiVersion": "config.springtide.dev/v1alpha1",
        "kind": "ManagerConfiguration",
        "controllers": {"batchJob": {"settings": {
            "maxJobsPerNamespace": extent.most_jobs,
            // A twentieth of it is kept free by ending the oldest finished ones early.
            "maxJobsPerCluster": extent.jobs + extent.jobs.div_ceil(10),
            "maxQueuesPerNamespace": extent.most_queues,
            "maxQueuesPerCluster": extent.queues,
        }}},
    });
    let path = cluster.folder().join("bench-manager.yaml");
    std::fs::write(&path, serde_yaml::to_string(&configuration)?)?;
    let path = path.to_str().context("the folder of the cluster")?;
    let mut all = vec!["--config", path];
    all.extend(args.iter().map(String::as_str));
    Manager::start(cluster, "manager-admission", &all).await
}

async fn create_queues(generator: &Generator, namespaces: &[String], queues: &[Queue]) -> Result<()> {
    futures::stream::iter(queues)
        .map(|queue| async move {
            let namespace = namespaces.get(queue.cohort).context("a cohort without namespace")?;
            let path = format!("/apis/springtide.dev/v1alpha1/namespaces/{namespace}/batchqueues");
            let created = post(&generator.client, &path, &queue.manifest(namespace)).await;
            created.map(drop).with_context(|| format!("create queue {}", queue.name))
        })
        .buffer_unordered(IN_FLIGHT)
        .try_collect()
        .await
}

/// A queue that does not work would only be seen by jobs that never start.
async fn all_admit(cluster: &LocalCluster) -> Result<()> {
    let queues: Api<BatchQueue> = Api::all(cluster.client("bench-generator")?);
    for queue in queues.list(&ListParams::default()).await?.items {
        let conditions = queue.status.map(|status| status.conditions).unwrap_or_default();
        let stalled = condition(&conditions, StalledReason::CONDITION);
        if let Some(stalled) = stalled.filter(|stalled| stalled.status == ConditionStatus::True) {
            bail!("queue {:?} is Stalled: {}", queue.metadata.name, stalled.message);
        }
    }
    Ok(())
}

/// Seconds from the sending of a workload to its last pod and to its first one, and how long the last one took its
/// request.
fn figures(seen: &Seen, sent: Instant) -> Option<(f64, f64, f64)> {
    let since = |at: Instant| at.saturating_duration_since(sent).as_secs_f64();
    let (first, last, ended) = (seen.pod_added?, seen.last_pod_added?, seen.pod_ended?);
    Some((since(last), since(first), ended.saturating_duration_since(last).as_secs_f64()))
}

fn class(name: String, waits: &[(f64, f64, usize)]) -> Class {
    Class {
        name,
        jobs: waits.len(),
        wait: mean(waits.iter().map(|(wait, ..)| *wait)),
        first_wait: mean(waits.iter().map(|(_, first, _)| *first)),
        p99: quantile(&sorted(waits.iter().map(|(wait, ..)| *wait)), 0.99),
        preempted: waits.iter().map(|(.., preempted)| preempted).sum(),
    }
}

/// What the budget of a manager is by default, and with a factor, for the page.
fn budget(factor: u32) -> String {
    let BudgetConfig { process, controller, namespace, .. } =
        BudgetConfig::default().scaled(f64::from(factor));
    format!(
        "{} writes a second for the process, {} for a controller, {} for one of its namespaces",
        process.rate, controller.rate, namespace.rate
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use springtide_e2e::bench::lives::Lives;

    #[test]
    fn the_wait_of_who_was_preempted_is_that_until_its_last_pod() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let seen = Seen {
            pods: 2,
            pod_added: Some(at(3)),
            last_pod_added: Some(at(10)),
            pod_ended: Some(at(11)),
            ..Seen::default()
        };
        assert_eq!(figures(&seen, at(1)), Some((9.0, 2.0, 1.0)));
        let class = class("small".to_owned(), &[(9.0, 2.0, 1), (1.0, 1.0, 0)]);
        assert_eq!((class.wait, class.first_wait, class.preempted), (5.0, 1.5, 1));
        assert_eq!(figures(&Seen::default(), start), None);
    }

    fn run_of(part: Part, text: &str, wall: f64, waits: &[(&str, f64)]) -> Run {
        let extent = Extent::of(&Load::parse(text).unwrap().queues().unwrap());
        let class = |(name, wait): &(&str, f64)| class((*name).to_owned(), &[(*wait, *wait, 0)]);
        Run {
            part,
            flags: "write budget x 10".to_owned(),
            extent,
            wall,
            classes: waits.iter().map(class).collect(),
            usage: 60.0,
            spent: Spent { seconds: wall, processes: Vec::new() },
            traffic: Traffic { writes: Vec::new(), in_flight: 9.0, latency: 0.02, throttled: Vec::new() },
            admitted: vec![(1.0, 1.0), (wall, 2.0)],
        }
    }

    pub(super) fn measured() -> Measured {
        let waits = [("large", 20.0), ("medium", 80.0), ("small", 100.0)];
        Measured {
            runs: vec![
                run_of(Part::Baseline, preset::BASELINE, 180.0, &waits),
                run_of(Part::LargeScale, preset::LARGE_SCALE, 300.0, &waits),
            ],
            raw: Some(Raw { sweep: vec![Lives { in_flight: 64, rate: 200.0, p50: 0.1, p99: 0.3 }] }),
            decision: Some(Decision {
                equal: Duration::from_millis(4),
                distinct: Duration::from_millis(600),
            }),
            failures: Vec::new(),
            minutes: 30.0,
        }
    }

    #[test]
    fn the_runs_that_raise_the_budget_say_so() {
        let options = Options {
            only: Vec::new(),
            generator: None,
            write_budget_factor: 10,
            workers: 32,
            without_preemption: true,
            short_sweep: false,
            raw_in_flight: Vec::new(),
            raw_seconds: None,
        };
        assert!(Part::Shipped.flags(&options).args.is_empty());
        let raised = Part::Baseline.flags(&options);
        assert_eq!(raised.args, ["--write-budget-factor", "10", "--workers", "32"]);
        assert_eq!(raised.title, "write budget x 10, 32 workers, without preemption");
        assert!(!raised.preempts);
        assert!(budget(10).starts_with("3000 writes a second for the process, 2000 for a controller"));
    }
}
