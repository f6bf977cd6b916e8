//! The report: a Markdown page, a plot, and the goals as JSON.

use crate::Options;
use crate::decision::{self, Decision};
use crate::through::{Latency, Run};
use crate::waiting::{self, Waiting};
use crate::writes::Writes;
use anyhow::{Context, Result};
use plotters::prelude::*;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

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
pub(crate) fn write(measured: &Measured) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let commit = output("git", &["-C", &root.display().to_string(), "rev-parse", "--short", "HEAD"])?;
    let machine = machine()?;
    let docs = root.join("docs/benchmarks");
    std::fs::create_dir_all(&docs)?;
    plot(measured, &docs.join("batch.svg"))?;
    let page = page(measured, &commit, &machine)?;
    std::fs::write(docs.join("batch.md"), &page)?;
    let bench = root.join("target/bench");
    std::fs::create_dir_all(&bench)?;
    let goals = goals(measured);
    let document = json!({"commit": commit, "machine": machine, "goals": goals});
    std::fs::write(bench.join("batch.json"), serde_json::to_string_pretty(&document)?)?;
    println!("{page}");
    Ok(())
}

fn raw_limit(measured: &Measured) -> f64 {
    measured.sweep.iter().map(|(_, rate)| *rate).fold(0.0, f64::max)
}

fn page(measured: &Measured, commit: &str, machine: &str) -> Result<String> {
    let Measured { options, sweep, runs, latency, containers, waiting, writes, decision } = measured;
    let limit = raw_limit(measured);
    let mut page = String::new();
    writeln!(page, "# BatchJob: jobs a second, cost and latency\n")?;
    writeln!(page, "Written by `make bench-batch` at commit {commit} on {machine}.\n")?;
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
fn goals(measured: &Measured) -> Vec<serde_json::Value> {
    let limit = raw_limit(measured);
    let mut goals = Vec::new();
    let at_most = |id: &str, what: &str, value: f64, unit: &str, bound: f64| {
        goal(id, what, value, unit, &format!("<= {bound}"), value <= bound)
    };
    if let Some((factor, run)) = measured.runs.last() {
        let share = run.rate / limit;
        let what = format!("jobs/s as a share of R', write budget x {factor}");
        goals.push(goal("G1-share-of-raw", &what, share, "ratio", ">= 0.8", share >= 0.8));
    }
    for (id, what, spans, bound) in [
        ("G4-create-to-pod", "create to pod, p99", &measured.latency.create_to_pod, 100.0),
        ("G5-exit-to-outcome", "exit to outcome, p99", &measured.latency.exit_to_outcome, 200.0),
        ("G6-exit-to-gone", "exit to pod gone, p99", &measured.latency.exit_to_gone, 500.0),
    ] {
        let value = 1000.0 * quantile(spans, 0.99);
        goals.push(goal(id, what, value, "ms", &format!("< {bound}"), value < bound));
    }
    if let Some(containers) = &measured.containers {
        let value = 1000.0 * quantile(&containers.exit_to_gone, 0.99);
        let what = "exit to pod gone with real containers, p99";
        goals.push(goal("G6-real-containers", what, value, "ms", "< 1000", value < 1000.0));
    }
    for Writes { what, id, own, own_budget, all } in &measured.writes {
        let own_what = format!("writes of the manager a short job, {what}");
        goals.push(at_most(&format!("G2-own-{id}"), &own_what, *own, "writes/job", f64::from(*own_budget)));
        let all_what = format!("writes of all components a short job, {what}");
        goals.push(at_most(&format!("G2-all-{id}"), &all_what, *all, "writes/job", 10.0));
    }
    let Waiting { idle_mib, full_mib, ready_after_kill } = measured.waiting;
    // The goals are in MB.
    let mb = |mib: f64| mib * 1.048_576;
    let queue = format!("{} jobs wait and {} run", waiting::WAITING, waiting::RUNNING);
    goals.push(at_most("G3-rss", &format!("manager RSS, {queue}"), mb(full_mib), "MB", 60.0));
    let over_idle = mb(full_mib - idle_mib);
    goals.push(at_most(
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
        goals.push(at_most(id, &what, 1000.0 * time.as_secs_f64(), "ms", bound));
    }
    let what = format!("ready after kill -9, {queue}");
    goals.push(goal("G13-ready", &what, ready_after_kill, "s", "< 5", ready_after_kill < 5.0));
    goals
}

fn goal(id: &str, what: &str, value: f64, unit: &str, target: &str, met: bool) -> serde_json::Value {
    json!({"id": id, "what": what, "value": value, "unit": unit, "target": target, "met": met})
}

fn quantile(sorted: &[f64], q: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * q).round() as usize).copied().unwrap_or(f64::NAN)
}

fn plot(measured: &Measured, path: &Path) -> Result<()> {
    let limit = raw_limit(measured);
    let mut bars = vec![("R'".to_owned(), limit)];
    bars.extend(measured.runs.iter().map(|(factor, run)| (format!("budget x {factor}"), run.rate)));
    let area = SVGBackend::new(path, (640, 360)).into_drawing_area();
    area.fill(&WHITE)?;
    let count = bars.len() as i32;
    let mut chart = ChartBuilder::on(&area)
        .caption("single-pod jobs a second", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(48)
        .build_cartesian_2d((0..count).into_segmented(), 0.0..limit * 1.15)?;
    let labels: Vec<String> = bars.iter().map(|(label, _)| label.clone()).collect();
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(bars.len())
        .x_label_formatter(&|at| match at {
            SegmentValue::CenterOf(index) => labels.get(*index as usize).cloned().unwrap_or_default(),
            SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
        })
        .draw()?;
    chart.draw_series(bars.iter().enumerate().map(|(index, (_, rate))| {
        let index = index as i32;
        let mut bar = Rectangle::new(
            [(SegmentValue::Exact(index), 0.0), (SegmentValue::Exact(index + 1), *rate)],
            RGBColor(46, 111, 149).filled(),
        );
        bar.set_margin(0, 0, 30, 30);
        bar
    }))?;
    area.present()?;
    Ok(())
}

fn machine() -> Result<String> {
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown CPU", |line| line.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|line| line.split_whitespace().next())
        .context("no MemTotal")?
        .parse()?;
    Ok(format!("{cores} cores ({model}), {} GiB", kib / 1024 / 1024))
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("run {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
