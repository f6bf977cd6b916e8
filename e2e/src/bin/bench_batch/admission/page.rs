//! The page and the plot.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;
use springtide_e2e::bench::report::{self, Goal};
use springtide_plumbing::controller::DEFAULT_WORKERS;

use super::goals::{KUEUE_WAITS, KUEUE_WALL};
use super::{Measured, Options, Part, Run, budget, raw};
use crate::comparison::listed;
use crate::decision;
use crate::processes::NAMES;

/// All of it.
pub(super) fn of(
    measured: &Measured,
    goals: &[Goal],
    origin: &str,
    options: &Options,
    is_whole: bool,
) -> Result<String> {
    let mut page = String::new();
    let minutes = measured.minutes;
    writeln!(page, "# Admission: queues with quota and cohorts\n\n{origin} It took {minutes:.0} minutes.\n")?;
    if is_whole {
        writeln!(page, "![Workloads admitted over time](batch-admission.svg)\n")?;
    }
    for (part, error) in &measured.failures {
        writeln!(page, "**Not measured**: {part}. {error}\n")?;
    }
    page.push_str(&report::goals_section(goals));
    if !measured.runs.is_empty() {
        loads(&mut page, &measured.runs)?;
        classes(&mut page, &measured.runs)?;
        sent(&mut page, &measured.runs)?;
        processes(&mut page, &measured.runs)?;
    }
    if let Some(raw) = &measured.raw {
        writeln!(
            page,
            "\n## Raw writes of custom resources\n\n| lives in flight | writes a second | p99 of a life |"
        )?;
        writeln!(page, "|---|---|---|")?;
        for lives in &raw.sweep {
            let rate = raw::WRITES as f64 * lives.rate;
            writeln!(page, "| {} | {rate:.0} | {:.2} s |", lives.in_flight, lives.p99)?;
        }
    }
    method(&mut page, options)?;
    Ok(page)
}

fn title(run: &Run) -> String {
    let load = match run.part {
        Part::Baseline | Part::Shipped => "baseline",
        Part::LargeScale => "large-scale",
        Part::Decision => "decisions",
    };
    format!("{load}, {}", run.flags)
}

fn loads(page: &mut String, runs: &[Run]) -> Result<()> {
    writeln!(page, "\n## Loads\n")?;
    writeln!(
        page,
        "| load, manager | workloads | queues | cohorts | all finished after | were the quota always full | quota used, of nominal |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|")?;
    for run in runs {
        let extent = &run.extent;
        writeln!(
            page,
            "| {} | {} | {} | {} | {:.0} s | {:.0} s | {:.0} % |",
            title(run),
            extent.jobs,
            extent.queues,
            extent.cohorts,
            run.wall,
            extent.floor,
            run.usage
        )?;
    }
    writeln!(
        page,
        "| baseline, Kueue by its own runner, without pods | 15000 | 30 | 5 | {KUEUE_WALL:.0} s | 66 s | |"
    )?;
    Ok(())
}

fn classes(page: &mut String, runs: &[Run]) -> Result<()> {
    writeln!(page, "\n## Time until admission in s\n")?;
    writeln!(
        page,
        "| load, manager | class | workloads | average | p99 | average until the first pod | preempted | average in Kueue |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|")?;
    for run in runs {
        for class in &run.classes {
            let kueue = KUEUE_WAITS.iter().find(|(name, _)| *name == class.name);
            let kueue = match run.part {
                Part::Baseline | Part::Shipped => kueue.map_or(String::new(), |(_, wait)| wait.to_string()),
                Part::LargeScale | Part::Decision => String::new(),
            };
            writeln!(
                page,
                "| {} | {} | {} | {:.1} | {:.1} | {:.1} | {} | {kueue} |",
                title(run),
                class.name,
                class.jobs,
                class.wait,
                class.p99,
                class.first_wait,
                class.preempted
            )?;
        }
    }
    Ok(())
}

fn sent(page: &mut String, runs: &[Run]) -> Result<()> {
    writeln!(page, "\n## What the manager wrote\n")?;
    writeln!(
        page,
        "| load, manager | writes a workload | under way on average | answer after, on average | by class and resource, a workload | put off |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|")?;
    for run in runs {
        let (traffic, jobs) = (&run.traffic, run.extent.jobs as f64);
        let by_class = traffic
            .writes
            .iter()
            .map(|([class, resource], count)| format!("{class} {resource} {:.2}", count / jobs));
        let put_off = traffic.throttled.iter().map(|(limit, count)| format!("{limit} {count:.0}"));
        writeln!(
            page,
            "| {} | {:.2} | {:.1} | {:.1} ms | {} | {} |",
            title(run),
            traffic.written() / jobs,
            traffic.in_flight,
            1000.0 * traffic.latency,
            by_class.collect::<Vec<_>>().join(", "),
            put_off.collect::<Vec<_>>().join(", ")
        )?;
    }
    Ok(())
}

fn processes(page: &mut String, runs: &[Run]) -> Result<()> {
    writeln!(page, "\n## Processor time and memory of each process\n")?;
    writeln!(page, "CPU-seconds, and most MiB resident. Kueue's manager: 98.7 and 656 for the baseline.\n")?;
    writeln!(page, "| load, manager | {} |", NAMES.join(" | "))?;
    writeln!(page, "|---|{}", "---|".repeat(NAMES.len()))?;
    for run in runs {
        let used = NAMES.map(|name| {
            let used = run.spent.of(name);
            used.map_or(String::new(), |used| format!("{:.1}, {:.0}", used.cpu_seconds, used.peak_mib))
        });
        writeln!(page, "| {} | {} |", title(run), used.join(" | "))?;
    }
    Ok(())
}

fn method(page: &mut String, options: &Options) -> Result<()> {
    let (factor, workers) = (options.write_budget_factor, options.workers);
    let sweep = options.sweep();
    let median = if sweep.times > 1 { ", of which the median counts" } else { "" };
    let paragraphs = [
        "The loads are those of Kueue's scheduler performance test, in files that its runner reads as well. As there, \
         the workloads of a set are created one after the other, each so long after the one before; a workload is ended \
         so long after its admission as it is to run; and what has finished stays. Here a workload is a BatchJob of tier \
         BestEffort, and it is admitted when its pod exists: the time is that at which the bench's watch shows the pod, \
         which is after the API server has committed the manager's POST. Nobody schedules the pod. The runner ends it as \
         a kubelet would report it, by a patch of its status, 64 at a time at most. The manager then writes the outcome and \
         deletes the pod. A workload that was preempted waits until its last admission, as in Kueue's figures; the table has \
         its first one too. Kueue's runner has no pods: its workloads are admitted and finished by conditions."
            .to_owned(),
        "Each cohort is a namespace, each queue a BatchQueue with the quota of the load and capacitySource Static: nominal, \
         and nominal plus the borrowing limit as max. withinClusterQueue LowerPriority is a tier that yields to itself: \
         pods of lower priority end at once for those of higher. What was borrowed is always reclaimed, as with \
         reclaimWithinCohort Any."
            .to_owned(),
        format!(
            "The control plane is real: etcd with fsync, kube-apiserver, controller manager and scheduler with \
             `--kube-api-qps=5000 --kube-api-burst=10000`, KWOK with {} nodes of 256 cores, and the manager, all on this \
             machine, with the runner and its watches. Each load has a cluster of its own.",
            super::NODES
        ),
        format!(
            "The manager as shipped has {} and {DEFAULT_WORKERS} workers; raised, {} and {workers} workers \
             (`--write-budget-factor {factor} --workers {workers}`). In all runs the declared maxima are raised to the load \
             by `maxJobsPerNamespace`, `maxJobsPerCluster`, `maxQueuesPerNamespace` and `maxQueuesPerCluster`: more \
             objects than the kinds declare, for the bench only. Nothing else differs from an installed manager.",
            budget(1),
            budget(factor)
        ),
        format!(
            "The raw rate is that of lives of a BatchJob without any manager: create and two statuses, which are the writes \
             that Kueue makes for a workload; the best of a sweep with {} in flight, {} x {} s each{median}. The objects of \
             each try are deleted after it, which does not count. The time of the large-scale load is compared with what {} \
             such writes take.",
            listed(&sweep.bare_in_flight),
            sweep.times,
            sweep.seconds,
            raw::WRITES * 50_000
        ),
        format!(
            "A decision is the passes of the admission over 200 nodes with room by which {} waiting jobs are granted, of one \
             shape or of as many shapes as jobs; alone, in processor time of its thread; of five tries the median counts.",
            decision::JOBS
        ),
        "Times of single runs vary on a small machine. Kueue's figures were taken once with its own runner on two cores."
            .to_owned(),
    ];
    write!(page, "\n## Method\n\n{}\n", paragraphs.join("\n\n"))?;
    Ok(())
}

/// Workloads admitted over time.
pub(super) fn plot(measured: &Measured, path: &Path) -> Result<()> {
    let baseline = measured.runs.iter().filter(|run| match run.part {
        Part::Baseline | Part::Shipped => true,
        Part::LargeScale | Part::Decision => false,
    });
    let lines: Vec<(String, Vec<(f64, f64)>)> =
        baseline.map(|run| (title(run), thinned(&run.admitted))).collect();
    report::lines(path, "workloads of Kueue's baseline admitted", "seconds", &lines)
}

/// A few hundred points of many.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(400).max(1);
    let mut thinned: Vec<_> = points.iter().copied().step_by(step).collect();
    thinned.extend(points.last());
    thinned
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::goals;
    use crate::admission::tests::measured;

    fn options() -> Options {
        Options {
            only: Vec::new(),
            generator: None,
            write_budget_factor: 10,
            workers: 64,
            without_preemption: false,
            short_sweep: false,
            raw_in_flight: Vec::new(),
            raw_seconds: None,
        }
    }

    #[test]
    fn every_run_has_its_rows_and_tables_are_whole() {
        let measured = measured();
        let page = of(&measured, &goals::of(&measured), "Written by a test.", &options(), true).unwrap();
        for row in [
            "| G7-wall | Kueue's baseline, 15000 workloads with their pods, write budget x 10 | 180.000 s | <= 200 | met |",
            "| baseline, write budget x 10 | 15000 | 30 | 5 | 180 s | 66 s | 60 % |",
            "| baseline, write budget x 10 | medium | 1 | 80.0 | 80.0 | 80.0 | 0 | 71.7 |",
            "| large-scale, write budget x 10 | small | 1 | 100.0 | 100.0 | 100.0 | 0 |  |",
            "| 64 | 600 | 0.30 s |",
            "of a sweep with 1, 32, 128, 256 in flight, 3 x 20 s each, of which the median counts.",
        ] {
            assert!(page.contains(row), "{row}\n{page}");
        }
        for table in page.split("\n\n") {
            let widths: Vec<usize> = table
                .lines()
                .filter(|line| line.starts_with('|'))
                .map(|line| line.matches('|').count())
                .collect();
            assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
        }
    }

    #[test]
    fn what_failed_is_named_and_the_plot_can_be_drawn() {
        let mut all = measured();
        let folder = std::env::temp_dir().join(format!("bench-plot-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("plot.svg");
        plot(&all, &path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().contains("polyline"));
        std::fs::remove_dir_all(&folder).unwrap();
        all.runs.clear();
        all.failures.push(("baseline", "the manager has ended".to_owned()));
        let page = of(&all, &goals::of(&all), "Written by a test.", &options(), false).unwrap();
        assert!(page.contains("**Not measured**: baseline. the manager has ended"), "{page}");
        assert!(!page.contains("## Loads") && !page.contains("batch-admission.svg"), "{page}");
    }

    #[test]
    fn a_plot_keeps_its_last_point() {
        let points: Vec<_> = (0..1000).map(|at| (f64::from(at), 1.0)).collect();
        let thinned = thinned(&points);
        assert!(thinned.len() < 400 && thinned.last() == Some(&(999.0, 1.0)));
    }
}
