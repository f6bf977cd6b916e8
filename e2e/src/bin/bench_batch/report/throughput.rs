//! The page's sections on throughput: rates, what the manager sent, what each process used.

use std::fmt::Write as _;

use anyhow::Result;
use springtide_e2e::bench::lives::Lives;
use springtide_e2e::bench::processes::table;
use springtide_e2e::bench::scrape::Traffic;

use super::Measured;
use crate::comparison::{Comparison, Step};
use crate::contender::Contender;
use crate::processes::{MANAGER, NAMES, Spent};

/// Writes them all.
pub(super) fn sections(page: &mut String, measured: &Measured, comparison: &Comparison) -> Result<()> {
    rates(page, measured.asked.jobs, comparison)?;
    as_shipped(page, comparison)?;
    limits(page, comparison)?;
    traffic(page, comparison)?;
    served(page, comparison)
}

fn rates(page: &mut String, jobs: usize, comparison: &Comparison) -> Result<()> {
    let (bare, limit) = (comparison.bare_limit(), comparison.limit());
    writeln!(page, "\n## Throughput: up to {jobs} single-pod jobs a run, created to all objects gone\n")?;
    writeln!(
        page,
        "| | jobs | jobs/s | R' around it | share of R' | slowest and fastest tenth | CPU-ms a job, all processes |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|")?;
    writeln!(
        page,
        "| R: bare pods, 5 writes each, no controller, scheduler or node | | {bare:.1} | | | | |"
    )?;
    writeln!(page, "| R': the write chain without a controller | | {limit:.1} | | 100 % | | |")?;
    for (round, steps) in comparison.rounds.iter().enumerate() {
        for step in steps {
            let Step { contender, run, around: [before, after] } = step;
            let slowest = run.tenths.iter().copied().fold(f64::INFINITY, f64::min);
            let fastest = run.tenths.iter().copied().fold(0.0, f64::max);
            writeln!(
                page,
                "| {}{} | {} | {:.1} | {:.1}, {:.1} | {:.0} % | {slowest:.1}, {fastest:.1} | {:.1} |",
                contender.title(),
                round_of(comparison, round),
                run.jobs,
                run.rate,
                before.rate,
                after.rate,
                100.0 * step.share(),
                1000.0 * run.spent.cpu_seconds() / run.jobs as f64,
            )?;
        }
    }
    Ok(())
}

/// Names a round where there are several.
fn round_of(comparison: &Comparison, round: usize) -> String {
    if comparison.rounds.len() > 1 { format!(" (round {})", round + 1) } else { String::new() }
}

/// How BatchJob compares where neither it nor Kubernetes nor Kueue is tuned.
fn as_shipped(page: &mut String, comparison: &Comparison) -> Result<()> {
    let peers = [(Contender::JobShipped, "Kubernetes Job"), (Contender::KueueShipped, "Kueue + Job")];
    let times =
        peers.into_iter().filter(|(peer, _)| comparison.steps(*peer).next().is_some()).map(|(peer, name)| {
            format!("{:.1} times those of {name}", comparison.times(Contender::AllShipped, peer))
        });
    let times: Vec<String> = times.collect();
    if !times.is_empty() {
        let times = times.join(" and ");
        writeln!(page, "\nWith everything as shipped, the jobs/s of BatchJob are {times}.")?;
    }
    Ok(())
}

fn limits(page: &mut String, comparison: &Comparison) -> Result<()> {
    let [job, pod] = comparison.sizes;
    writeln!(
        page,
        "\nA job has {job} bytes at its end as the server sends it, a pod {pod}. KWOK alone, with {:.0} pods/s,",
        comparison.kwok
    )?;
    writeln!(page, "starts and ends pods that have a node.\n")?;
    writeln!(
        page,
        "| limit | in flight | watches | lives/s | p50 of a life | p99 |\n|---|---|---|---|---|---|"
    )?;
    let mut row = |limit: &str, watches: &str, lives: &Lives| {
        let Lives { in_flight, rate, p50, p99 } = lives;
        writeln!(page, "| {limit} | {in_flight} | {watches} | {rate:.1} | {p50:.2} s | {p99:.2} s |")
    };
    for lives in &comparison.bare.sweep {
        row("R", "0", lives)?;
    }
    for (watches, lives) in &comparison.bare.watched {
        row("R", &watches.to_string(), lives)?;
    }
    for lives in &comparison.sweep {
        row("R'", "the generator's", lives)?;
    }
    Ok(())
}

fn traffic(page: &mut String, comparison: &Comparison) -> Result<()> {
    writeln!(page, "\n## What the manager did in these runs\n")?;
    writeln!(
        page,
        "| | CPU-ms a job | RSS MiB, most | writes a job | under way on average | answer after, on average | put off |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|")?;
    let mut classes = String::new();
    for (round, step) in rounds(comparison) {
        let (Some(manager), Some(traffic)) = (step.run.spent.of(MANAGER), &step.run.traffic) else {
            continue;
        };
        let jobs = step.run.jobs;
        let title = format!("{}{}", step.contender.title(), round_of(comparison, round));
        let Traffic { in_flight, latency, .. } = traffic;
        let put_off = traffic.put_off();
        writeln!(
            page,
            "| {title} | {:.2} | {:.0} | {:.2} | {in_flight:.1} | {:.1} ms | {put_off} |",
            1000.0 * manager.cpu_seconds / jobs as f64,
            manager.peak_mib,
            traffic.written() / jobs as f64,
            1000.0 * latency,
        )?;
        writeln!(classes, "- {title}: {}", traffic.by_class(jobs as f64))?;
    }
    writeln!(page, "\nWrites a job by class and resource:\n\n{classes}")?;
    Ok(())
}

/// What everybody wrote in these runs. An audit log would slow them down; it tells elsewhere who it was.
fn served(page: &mut String, comparison: &Comparison) -> Result<()> {
    writeln!(page, "## Writes a job in these runs, by the API server's own count\n")?;
    writeln!(page, "| | on jobs, Workloads and pods | beside: on Events |\n|---|---|---|")?;
    for (round, step) in rounds(comparison) {
        let (served, jobs) = (&step.run.served, step.run.jobs as f64);
        writeln!(
            page,
            "| {}{} | {:.2} | {:.2} |",
            step.contender.title(),
            round_of(comparison, round),
            served.jobs_and_pods / jobs,
            served.events / jobs
        )?;
    }
    Ok(())
}

fn rounds(comparison: &Comparison) -> impl Iterator<Item = (usize, &Step)> {
    let rounds = comparison.rounds.iter().enumerate();
    rounds.flat_map(|(round, steps)| steps.iter().map(move |step| (round, step)))
}

/// What each process used in each part: processor seconds and, at the end, resident MiB.
pub(super) fn processes(page: &mut String, measured: &Measured) -> Result<()> {
    let mut parts: Vec<(String, &Spent)> = Vec::new();
    if let Some(comparison) = &measured.comparison {
        for (round, step) in rounds(comparison) {
            let title = format!("{}{}", step.contender.title(), round_of(comparison, round));
            parts.push((title, &step.run.spent));
        }
    }
    parts.extend(measured.latency.iter().map(|latency| ("latency".to_owned(), &latency.spent)));
    parts.extend(measured.load.iter().map(|load| ("steady load".to_owned(), &load.spent)));
    if parts.is_empty() {
        return Ok(());
    }
    Ok(table(page, &NAMES, &parts)?)
}
