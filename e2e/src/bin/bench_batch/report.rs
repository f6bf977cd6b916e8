//! The report: a Markdown page, a plot, and the goals as JSON.

use crate::Options;
use crate::decision::{self, Decision};
use crate::through::{Latency, Run};
use crate::waiting::{self, Waiting};
use crate::writes::Writes;
use anyhow::Result;
use springtide_e2e::bench::report::{self, Goal, Report, quantile};
use std::fmt::Write as _;
use std::path::Path;

/// The shape of the run.
pub(crate) struct Shape {
    jobs: usize,
    lives: usize,
    nodes: usize,
    latency_jobs: usize,
}

impl Shape {
    /// As asked for on the command line.
    pub(crate) fn of(options: &Options) -> Self {
        Self {
            jobs: options.jobs,
            lives: options.lives,
            nodes: options.nodes,
            latency_jobs: options.latency_seconds * 10,
        }
    }
}

/// Everything that was measured.
pub(crate) struct Measured {
    /// What was asked for.
    pub(crate) options: Shape,
    /// R' by lives in flight.
    pub(crate) sweep: Vec<(usize, f64)>,
    /// Throughput runs by factor of the write budget.
    pub(crate) runs: Vec<(f64, Run)>,
    /// The latency run.
    pub(crate) latency: Latency,
    /// The same with real containers, where the machine can run them.
    pub(crate) containers: Option<Latency>,
    /// The full queue.
    pub(crate) waiting: Waiting,
    /// Writes a job.
    pub(crate) writes: Vec<Writes>,
    /// CPU time of the admission.
    pub(crate) decision: Decision,
}

/// Writes `docs/benchmarks/batch.md`, its plot and `target/bench/batch.json`, and prints the page.
pub(crate) fn write(report: &Report, measured: &Measured) -> Result<()> {
    plot(measured, &report.plot())?;
    report.publish(&page(measured, &report.origin())?, &goals(measured))
}

fn raw_limit(measured: &Measured) -> f64 {
    measured.sweep.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
}

fn page(measured: &Measured, origin: &str) -> Result<String> {
    let Measured { options, sweep, runs, latency, containers, waiting, writes, decision } = measured;
    let limit = raw_limit(measured);
    let mut page = String::new();
    writeln!(page, "# BatchJob: jobs a second, cost and latency\n")?;
    writeln!(page, "{origin}\n")?;
    writeln!(page, "![Jobs a second](batch.svg)\n")?;
    writeln!(page, "## Throughput: {} single-pod jobs, created to all objects gone\n", options.jobs)?;
    writeln!(page, "| | jobs/s | share of R' | manager CPU-s | CPU-ms a job | manager RSS MiB |")?;
    writeln!(page, "|---|---|---|---|---|---|")?;
    writeln!(page, "| R' (raw limit, no controller) | {limit:.1} | 100 % | | | |")?;
    for (factor, run) in runs {
        writeln!(
            page,
            "| BatchJob, write budget x {factor} | {:.1} | {:.0} % | {:.1} | {:.2} | {:.0} |",
            run.rate,
            100.0 * run.rate / limit,
            run.usage.cpu_seconds,
            1000.0 * run.usage.cpu_seconds / options.jobs as f64,
            run.usage.peak_mib
        )?;
    }
    writeln!(page, "\nR' by lives in flight: ")?;
    for (in_flight, rate) in sweep {
        writeln!(page, "- {in_flight}: {rate:.1}/s")?;
    }
    writeln!(page, "\n## Latency in ms\n")?;
    writeln!(page, "| run | measure | p50 | p99 |")?;
    writeln!(page, "|---|---|---|---|")?;
    let mut row = |run: &str, measure: &str, spans: &[f64]| {
        writeln!(
            page,
            "| {run} | {measure} | {:.0} | {:.0} |",
            1000.0 * quantile(spans, 0.5),
            1000.0 * quantile(spans, 0.99)
        )
    };
    let paced = format!("10 jobs/s, {} jobs", options.latency_jobs);
    row(&paced, "create → pod", &latency.create_to_pod)?;
    row(&paced, "exit → outcome in status", &latency.exit_to_outcome)?;
    row(&paced, "exit → pod gone", &latency.exit_to_gone)?;
    if let Some(latency) = containers {
        row("real containers", "create → pod", &latency.create_to_pod)?;
        row("real containers", "exit → outcome in status", &latency.exit_to_outcome)?;
        row("real containers", "exit → pod gone", &latency.exit_to_gone)?;
    }
    for (factor, run) in runs {
        let name = format!("all at once, write budget x {factor}");
        row(&name, "create → pod", &run.create_to_pod)?;
        row(&name, "exit → pod gone", &run.exit_to_gone)?;
    }
    writeln!(page, "\n## Writes a job, from the audit log\n")?;
    writeln!(page, "| completion tracking | manager | all components |")?;
    writeln!(page, "|---|---|---|")?;
    for Writes { what, own, all, .. } in writes {
        writeln!(page, "| {what} | {own:.2} | {all:.2} |")?;
    }
    writeln!(page, "\n## A full queue: {} jobs wait, {} run\n", waiting::WAITING, waiting::RUNNING)?;
    writeln!(page, "| measure | value |")?;
    writeln!(page, "|---|---|")?;
    writeln!(page, "| manager RSS without jobs | {:.0} MiB |", waiting.idle_mib)?;
    writeln!(page, "| manager RSS with all of them | {:.0} MiB |", waiting.full_mib)?;
    writeln!(
        page,
        "| a new manager is ready after a SIGKILL of the former | {:.1} s |",
        waiting.ready_after_kill
    )?;
    let millis = |time: std::time::Duration| 1000.0 * time.as_secs_f64();
    writeln!(
        page,
        "| decisions by which {} equal jobs are granted | {:.1} ms CPU |",
        decision::JOBS,
        millis(decision.equal)
    )?;
    writeln!(
        page,
        "| decisions by which {} jobs with a shape each are granted | {:.1} ms CPU |",
        decision::JOBS,
        millis(decision.distinct)
    )?;
    write!(
        page,
        "\n## Method\n\n\
         One control plane (etcd with fsync, kube-apiserver, controller manager, scheduler) and KWOK with {} nodes \
         on the same machine; a namespace holds an eighth of the jobs. R' is the best of a sweep over lives in \
         flight, {} lives each: create job, create pod, bind, two pod statuses, status, delete pod, delete job, by a \
         generator without a controller. The runs of the manager follow on the same cluster: all jobs are created \
         by 64 requests in flight, their TTL is 0, the clock stops when the last object is gone. A watcher of its \
         own takes the times, on one monotonic clock; it decodes in the same process as the generator. The full \
         queue stands on the same cluster afterwards; the writes are counted on a cluster of their own, as an audit \
         log costs time; a decision is a pass of the admission over 200 nodes with room, alone; of five tries \
         the median counts. Times of single runs vary on a small machine; the shares are within one run.\n",
        options.nodes, options.lives
    )?;
    Ok(page)
}

/// The goals of the specification that this bench measures.
fn goals(measured: &Measured) -> Vec<Goal> {
    let limit = raw_limit(measured);
    let mut goals = Vec::new();
    if let Some((factor, run)) = measured.runs.last() {
        let share = run.rate / limit;
        let what = format!("jobs/s as a share of R', write budget x {factor}");
        goals.push(Goal::at_least("G1-share-of-raw", &what, share, "ratio", 0.8));
    }
    for (id, what, spans, bound) in [
        ("G4-create-to-pod", "create to pod, p99", &measured.latency.create_to_pod, 100.0),
        ("G5-exit-to-outcome", "exit to outcome, p99", &measured.latency.exit_to_outcome, 200.0),
        ("G6-exit-to-gone", "exit to pod gone, p99", &measured.latency.exit_to_gone, 500.0),
    ] {
        let value = 1000.0 * quantile(spans, 0.99);
        goals.push(Goal::below(id, what, value, "ms", bound));
    }
    if let Some(containers) = &measured.containers {
        let value = 1000.0 * quantile(&containers.exit_to_gone, 0.99);
        let what = "exit to pod gone with real containers, p99";
        goals.push(Goal::below("G6-real-containers", what, value, "ms", 1000.0));
    }
    for Writes { what, id, own, own_budget, all } in &measured.writes {
        let own_what = format!("writes of the manager a short job, {what}");
        goals.push(Goal::at_most(
            &format!("G2-own-{id}"),
            &own_what,
            *own,
            "writes/job",
            f64::from(*own_budget),
        ));
        let all_what = format!("writes of all components a short job, {what}");
        goals.push(Goal::at_most(&format!("G2-all-{id}"), &all_what, *all, "writes/job", 10.0));
    }
    let Waiting { idle_mib, full_mib, ready_after_kill } = measured.waiting;
    // The goals are in MB.
    let mb = |mib: f64| mib * 1.048_576;
    let queue = format!("{} jobs wait and {} run", waiting::WAITING, waiting::RUNNING);
    goals.push(Goal::at_most("G3-rss", &format!("manager RSS, {queue}"), mb(full_mib), "MB", 60.0));
    let over_idle = mb(full_mib - idle_mib);
    goals.push(Goal::at_most(
        "G3-rss-over-idle",
        &format!("manager RSS over idle, {queue}"),
        over_idle,
        "MB",
        25.0,
    ));
    let Decision { equal, distinct } = measured.decision;
    for (id, what, time, bound) in
        [("G9-equal", "equal jobs", equal, 5.0), ("G9-distinct", "jobs with a shape each", distinct, 500.0)]
    {
        let what = format!("CPU of the decisions that grant {} {what}", decision::JOBS);
        goals.push(Goal::at_most(id, &what, 1000.0 * time.as_secs_f64(), "ms", bound));
    }
    let what = format!("ready after kill -9, {queue}");
    goals.push(Goal::below("G13-ready", &what, ready_after_kill, "s", 5.0));
    goals
}

fn plot(measured: &Measured, path: &Path) -> Result<()> {
    let mut bars = vec![("R'".to_owned(), raw_limit(measured))];
    bars.extend(measured.runs.iter().map(|(factor, run)| (format!("budget x {factor}"), run.rate)));
    report::bars(path, "single-pod jobs a second", &bars)
}
