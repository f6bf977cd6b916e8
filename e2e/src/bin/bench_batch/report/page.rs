//! The page.

use std::fmt::Write as _;

use anyhow::Result;
use springtide_e2e::bench::counted::Count;
use springtide_e2e::bench::report::{Goal, quantile};
use springtide_plumbing::budget::BudgetConfig;
use springtide_plumbing::controller::DEFAULT_WORKERS;

use super::{Measured, follows, peers, throughput};
use crate::comparison::Comparison;
use crate::contender::{RAISED, RAISED_WORKERS};
use crate::decision::{self, Decision};
use crate::drain::{self, Drain};
use crate::flood::Flood;
use crate::latency::{JOBS_PER_SECOND, Latency};
use crate::load::{JOBS_PER_MINUTE, Load};
use crate::online::{self, Online, Phases};
use crate::pending::{OVERSUBSCRIBED, Pending};
use crate::queue::{self, Queue};
use crate::walk::{self, Walk};
use crate::writes::{self, Counted, Events, Writes};

/// All of it.
pub(super) fn of(measured: &Measured, goals: &[Goal], origin: &str) -> Result<String> {
    let Measured { comparison, pending, load, queue, writes, decision, .. } = measured;
    let mut page = String::new();
    let plot = comparison.is_some().then_some("![Jobs a second](batch.svg)");
    measured.log.open(&mut page, "BatchJob: jobs a second, cost and latency", origin, plot, goals)?;
    if let Some(comparison) = comparison {
        throughput::sections(&mut page, measured, comparison)?;
    }
    throughput::processes(&mut page, measured)?;
    latencies(&mut page, measured)?;
    if let Some(counted) = writes {
        written(&mut page, counted)?;
    }
    if let Some(pending) = pending {
        waits(&mut page, pending)?;
    }
    if let Some(load) = load {
        steady(&mut page, load)?;
    }
    if let Some(drain) = &measured.drain {
        drained(&mut page, drain)?;
    }
    if let Some(measured) = &measured.follows {
        follows::section(&mut page, measured)?;
    }
    if let Some(online) = &measured.online {
        beside_batch(&mut page, online)?;
    }
    if let Some(queue) = queue {
        full_queue(&mut page, queue)?;
    }
    if let Some(flood) = &measured.flood {
        flooded(&mut page, flood)?;
    }
    if let Some(decision) = decision {
        decisions(&mut page, decision)?;
    }
    if let Some(walk) = &measured.walk {
        walked(&mut page, walk)?;
    }
    method(&mut page, measured)?;
    Ok(page)
}

fn latencies(page: &mut String, measured: &Measured) -> Result<()> {
    let Measured { comparison, latency, containers, .. } = measured;
    if comparison.is_none() && latency.is_none() && containers.is_none() {
        return Ok(());
    }
    writeln!(page, "\n## Latency in ms\n\n| run | measure | p50 | p99 |\n|---|---|---|---|")?;
    let mut row = |run: &str, measure: &str, spans: &[f64]| {
        let [p50, p99] = [0.5, 0.99].map(|q| 1000.0 * quantile(spans, q));
        writeln!(page, "| {run} | {measure} | {p50:.0} | {p99:.0} |")
    };
    let paced = latency.iter().map(|latency| (format!("{JOBS_PER_SECOND} jobs/s"), latency));
    let real = containers.iter().map(|latency| ("real containers".to_owned(), latency));
    for (run, Latency { create_to_pod, exit_to_outcome, exit_to_gone, .. }) in paced.chain(real) {
        row(&run, "create → pod", create_to_pod)?;
        row(&run, "exit → outcome in status", exit_to_outcome)?;
        row(&run, "exit → pod gone", exit_to_gone)?;
    }
    for step in comparison.iter().flat_map(Comparison::all) {
        let run = format!("all at once: {}", step.contender.title());
        row(&run, "create → pod", &step.run.create_to_pod)?;
        row(&run, "exit → pod gone", &step.run.exit_to_gone)?;
    }
    if let Some(Events { scheduler, node, controller }) = containers.as_ref().and_then(|run| run.events) {
        writeln!(
            page,
            "\nEvents a job with real containers: {scheduler:.1} of the scheduler, {node:.1} of the kubelet, \
             {controller:.1} of the manager."
        )?;
    }
    Ok(())
}

fn written(page: &mut String, counted: &Counted) -> Result<()> {
    let Counted { rows, job, job_events, pod_group } = counted;
    writeln!(page, "\n## Writes a job, from the audit log\n")?;
    writeln!(
        page,
        "| jobs | manager | all components | beside: Events of the scheduler | of KWOK | of the controller |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|")?;
    let mut row = |jobs: &str, own: &str, all: f64, events: &Events| {
        let Events { scheduler, node, controller } = events;
        writeln!(page, "| {jobs} | {own} | {all:.2} | {scheduler:.2} | {node:.2} | {controller:.2} |")
    };
    for Writes { what, own, all, events, .. } in rows {
        row(&format!("BatchJob, {what}"), &format!("{own:.2}"), *all, events)?;
    }
    row("Kubernetes Job, short", "", *job, job_events)?;
    let [own, all] = pod_group;
    writeln!(
        page,
        "\nOn the PodGroup of a gang, once for all its pods, the manager writes {own:.2} times, all components {all:.2} times."
    )?;
    Ok(())
}

fn waits(page: &mut String, [ours, theirs, by_quota]: &[Pending; 3]) -> Result<()> {
    writeln!(page, "\n## Pods that wait for a node, {OVERSUBSCRIBED} x oversubscribed\n")?;
    writeln!(page, "| | tasks | pods | pending pod-seconds | pods that fitted nowhere | all gone after |")?;
    writeln!(page, "|---|---|---|---|---|---|")?;
    let queued = "BatchJob, in a queue whose quota is the room of the nodes";
    for (system, pending) in [("BatchJob", ours), (queued, by_quota), ("Kubernetes Job", theirs)] {
        let Pending { tasks, pod_seconds, unschedulable, pods, seconds, metric: _ } = pending;
        writeln!(
            page,
            "| {system} | {tasks} | {pods} | {pod_seconds:.1} | {unschedulable} | {seconds:.0} s |"
        )?;
    }
    if let Some(metric) = ours.metric {
        writeln!(page, "\nThe manager's own metric says {metric:.1} pod-seconds.")?;
    }
    Ok(())
}

fn steady(page: &mut String, load: &Load) -> Result<()> {
    let Load { minutes, admission, exit_to_outcome, spent, kept } = load;
    let manager = spent.manager()?;
    writeln!(
        page,
        "\n## {JOBS_PER_MINUTE} jobs a minute for {minutes} min\n\n| measure | value |\n|---|---|"
    )?;
    for (what, spans) in [("create → pod", admission), ("exit → outcome in status", exit_to_outcome)] {
        let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|q| 1000.0 * quantile(spans, q));
        writeln!(page, "| {what}: p50, p99, longest | {p50:.0}, {p99:.0}, {longest:.0} ms |")?;
    }
    writeln!(page, "| manager, of a core | {:.1} % |", load.core_percent()?)?;
    writeln!(page, "| manager RSS at the end | {:.0} MiB |", manager.resident_mib)?;
    writeln!(page, "| finished jobs that were kept | {kept} |")?;
    Ok(())
}

fn drained(page: &mut String, drain: &Drain) -> Result<()> {
    let Drain { raw, raw_by_few, told, lead, rate, margin, inside, ramp } = drain;
    let [share, share_of_few, few] =
        [drain.share(), drain.share_of_few(), drain.few()].map(|share| 100.0 * share);
    let steepest = drain.steepest();
    writeln!(page, "\n## A peak: {} pods that trap SIGTERM are drained, and come back\n", drain::PODS)?;
    writeln!(page, "| measure | value |\n|---|---|")?;
    writeln!(page, "| deletes a second, by a generator alone, {} in flight | {raw:.0} |", drain::IN_FLIGHT)?;
    writeln!(page, "| the same, {} in flight | {raw_by_few:.0} |", drain::FEW)?;
    writeln!(page, "| drainPodsPerSecond, leadSeconds | {told}, {lead} |")?;
    writeln!(
        page,
        "| deletes a second of the drain | {rate:.0}, {share_of_few:.0} % of the latter, {share:.0} % of the former |"
    )?;
    writeln!(page, "| all gone before the start of the peak | {margin:.1} s |")?;
    writeln!(page, "| pods that started in the lead or the peak | {inside} |")?;
    let seconds: Vec<String> = ramp.iter().map(usize::to_string).collect();
    writeln!(page, "| fullest second of the ramp, to its slope | {steepest:.2} |")?;
    writeln!(page, "| pods that came back, by the second | {} |", seconds.join(" "))?;
    writeln!(
        page,
        "\nFrom {least} requests side by side the server takes {few:.0} % of the deletes that it takes from {most}, and \
         answers each in {quick:.0} instead of {slow:.0} ms. The manager's write window begins with \
         {least} requests and does not grow while answers take more than three times their least, since more of them would \
         only wait for each other, and what others ask for with them. So the drain is told by the rate of {least}, and \
         is held to both.",
        most = drain::IN_FLIGHT,
        least = drain::FEW,
        // By Little's law.
        quick = 1000.0 * drain::FEW as f64 / raw_by_few,
        slow = 1000.0 * drain::IN_FLIGHT as f64 / raw
    )?;
    Ok(())
}

fn beside_batch(page: &mut String, online: &Online) -> Result<()> {
    let (rate, seconds) = (online::RATE, online::SECONDS);
    writeln!(page, "\n## An online server on a real node, {rate} requests/s for {seconds} s each, ms\n")?;
    writeln!(page, "| | | p50 | p99 | longest | p99, to that alone |\n|---|---|---|---|---|---|")?;
    for (server, phases) in [("a CPU of its own", &online.own), ("CPUs that all share", &online.shared)] {
        let Phases { alone, beside, draining, batch, drained } = phases;
        for (when, latencies) in [
            ("alone".to_owned(), alone),
            (format!("beside {batch} batch pods that keep every core busy that they get"), beside),
            (format!("while those are drained, {drained} gone at the end"), draining),
        ] {
            let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|q| quantile(latencies, q));
            let times = phases.times_alone(latencies);
            writeln!(page, "| {server} | {when} | {p50:.2} | {p99:.2} | {longest:.2} | {times:.2} |")?;
        }
    }
    writeln!(
        page,
        "\nOn shared CPUs a request waits at times until the time slice of another process is over, be it of a batch pod, \
         of the control plane or of who sends the requests, however little weight that has: on few cores these are a good \
         part of the latency. A CPU of its own, as latency-critical servers are given by the kubelet's static policy, \
         shows what batch work costs them beside that."
    )?;
    Ok(())
}

fn full_queue(page: &mut String, queue: &Queue) -> Result<()> {
    let Queue { idle_mib, full_mib, ready, decides, ended, unattended, lost, doubled } = queue;
    writeln!(page, "\n## A full queue: {} jobs wait, {} run\n", queue::WAITING, queue::RUNNING)?;
    writeln!(page, "| measure | value |\n|---|---|")?;
    writeln!(page, "| manager RSS without jobs | {idle_mib:.0} MiB |")?;
    writeln!(page, "| manager RSS with all of them | {full_mib:.0} MiB |")?;
    writeln!(page, "| a new manager is ready after a SIGKILL of the former | {ready:.1} s |")?;
    writeln!(page, "| it creates the first pod of a job that had waited | {decides:.1} s |")?;
    writeln!(page, "| tasks that ended, of them without any manager | {ended}, {unattended} |")?;
    writeln!(page, "| outcomes lost, doubled (Strict) | {lost}, {doubled} |")?;
    Ok(())
}

fn flooded(page: &mut String, flood: &Flood) -> Result<()> {
    let Flood { jobs, rate, pods, gone, spent } = flood;
    let tenths = |rates: &[f64]| rates.iter().map(|rate| format!("{rate:.1}")).collect::<Vec<_>>().join(" ");
    writeln!(page, "\n## {jobs} jobs that are there at once\n\n| measure | value |\n|---|---|")?;
    writeln!(page, "| jobs/s, from the start of the manager to all objects gone | {rate:.1} |")?;
    writeln!(page, "| pods/s of each tenth of them, in the order in which they went | {} |", tenths(pods))?;
    writeln!(page, "| jobs/s of each tenth of the BatchJobs, likewise | {} |", tenths(gone))?;
    let manager = spent.manager()?;
    writeln!(page, "| manager RSS, most | {:.0} MiB |", manager.peak_mib)?;
    writeln!(page, "| manager CPU time a job | {:.1} ms |", 1000.0 * manager.cpu_seconds / *jobs as f64)?;
    writeln!(
        page,
        "\nOn a cluster of their own, with {RAISED} times the write budget and {RAISED_WORKERS} workers, and a declared \
         maximum that is as large. The manager starts when all of them are there. Finished BatchJobs are deleted in the \
         lowest class of writes, after what others wait for."
    )?;
    Ok(())
}

fn decisions(page: &mut String, Decision { equal, distinct }: &Decision) -> Result<()> {
    let millis = |time: &std::time::Duration| 1000.0 * time.as_secs_f64();
    writeln!(page, "\n## CPU time of decisions\n\n| measure | value |\n|---|---|")?;
    let jobs = decision::JOBS;
    writeln!(page, "| by which {jobs} equal jobs are granted | {:.1} ms |", millis(equal))?;
    writeln!(page, "| by which {jobs} jobs with a shape each are granted | {:.1} ms |", millis(distinct))?;
    Ok(())
}

fn walked(page: &mut String, walk: &Walk) -> Result<()> {
    writeln!(page, "\n## What may never be, in random steps and under random clocks\n")?;
    writeln!(page, "| | tries | pods started | how often it was |\n|---|---|---|---|")?;
    let what = [
        "grants above the max of a queue, or what its cohort or its capacity has",
        "grants inside a window or under a load trigger",
        "pods created inside a window, by the clock of the process",
    ];
    for (what, counted) in what.into_iter().zip(walk.all()) {
        let Count { tries, starts, violations, what: _ } = counted;
        writeln!(page, "| {what} | {tries} | {starts} | {violations} |")?;
    }
    Ok(())
}

fn method(page: &mut String, measured: &Measured) -> Result<()> {
    let asked = &measured.asked;
    let ahead = match measured.online.as_ref().map(|online| online.is_ahead) {
        Some(true) => ", the latter ahead of all else there (SCHED_FIFO)",
        Some(false) => ", the latter among them without priority, as SCHED_FIFO was refused",
        None => "",
    };
    let budget = BudgetConfig::default().controller;
    let paragraphs = [
        format!(
            "One control plane (etcd with fsync, kube-apiserver, controller manager and scheduler with \
             `--kube-api-qps=5000 --kube-api-burst=10000`, the former with `--concurrent-job-syncs=50`) and KWOK with \
             {} nodes, all on the same machine as the manager, the generator and its watches. KWOK has 64 workers and \
             one Stage that ends pods whoever owns them, at once where nothing else is said. Jobs are spread over eight \
             namespaces and have one shape.",
            asked.nodes
        ),
        peers::limits(&asked.sweep),
        peers::peers(asked),
        format!(
            "Throughput: all jobs, {} where no peer below has fewer, are created by 64 requests in flight, their TTL is 0, and the clock runs from the \
             first create until the last object is gone. Job runs the same pods on the same cluster without our \
             manager. The write budget as shipped is {} writes a second for the controller with a burst of {}; raised, \
             {RAISED} times that with {RAISED_WORKERS} workers instead of {DEFAULT_WORKERS}. The declared maximum of \
             BatchJobs in a cluster, which none of these runs raises, is {}. What is under way on average is the sum of the times of all writes over the length of the run.",
            asked.jobs,
            budget.rate,
            budget.burst,
            springtide_batch_job::Settings::default().max_per_cluster
        ),
        format!(
            "Latencies and times of pods are those at which one watcher saw them, on one monotonic clock, in the same \
             process as the generator; jobs come at their pace whatever the answers take, for {} s, and the clock of a \
             create runs from its sending. Tasks run for a second. Pending: pods of 10 to 20 s on 5 nodes with room for \
             10 pods each, the sum of the times from a pod's appearance until it has a node. Load: {} min with the \
             retention that is shipped, the manager's processor time over all of it.",
            asked.latency_seconds, asked.load_minutes
        ),
        format!(
            "The full queue is in twelve namespaces; as many jobs wait as the kind declares for a cluster, so that \
             `maxJobsPerCluster` and `maxJobsPerNamespace` are raised for it; those that run have completion tracking \
             Strict. Tasks are ended as a kubelet would, the manager is killed when half of those have ended, the rest end \
             without one, and as many under the next. It runs without election: else it waits for the Lease of the killed \
             one. Writes are counted on a cluster of their own with an audit log, {} jobs a row, Events beside; a long task \
             runs for 6 s; those that wait are in a queue whose quota is used up, until each says QuotaExceeded in its \
             status, which it does after half a minute, a Strict one after a minute and a half. A row of fewer writes of \
             the manager than these jobs are due is an error. The throughput runs have no audit log, which would slow them \
             down: the API server's `apiserver_request_total` is read before and after them. PodGroups are those of {} gangs of four pods. A decision is the passes of the admission over 200 nodes \
             with room, alone; of five tries the median counts.",
            writes::JOBS,
            writes::GANGS
        ),
        format!(
            "Peak: {} pods of {} jobs on nodes that KWOK plays, with a grace of {} s that each uses up. The raw rates are those \
             of deletes of as many such pods, {} and {} side by side. The queue is then told to drain at 95 % of the latter, with a lead \
             in which that is just done: the grace, the deletes and the tenth that a drain keeps in reserve. The manager has \
             {RAISED} times the write budget and {RAISED_WORKERS} workers. The ramp takes {} s; its seconds count from the end of the peak.",
            drain::PODS,
            drain::JOBS,
            drain::GRACE,
            drain::IN_FLIGHT,
            drain::FEW,
            drain::RAMP
        ),
        follows::method(),
        format!(
            "Online: a server on a real node, asked at a steady pace from the same node, whatever the answers take. Batch pods \
             without requests compute as long as they are let, go on for {} s after SIGTERM, and are drained one a second by \
             `overridePeak`. On shared CPUs the server has a request of 500m of cpu, and control plane, kubelet, manager and \
             who asks are on the same cores. With a CPU of its own it is a Guaranteed pod of one CPU under the kubelet's static \
             CPU manager policy, all others are reserved by it, and to those batch pods, control plane, kubelet, manager \
             and who asks are kept{ahead}; of the last of them the node offers nine tenths to batch pods.",
            online::GRACE
        ),
        format!(
            "Random: the controller's own tests in a build for development, with their long loops. One walks {} random \
             steps in legs of a thousand, each with other queues, cohorts, windows, nodes and jobs, and looks at every grant; \
             the other takes a process through a peak window under {} random clocks, up to twelve hours off, in five time \
             zones, while tasks end, the process dies at times and is away at times.",
            walk::STEPS,
            walk::CLOCKS
        ),
        format!(
            "{} Times of single runs vary on a small machine; the shares are within one run.",
            measured.log.independence()
        ),
    ];
    write!(page, "\n## Method\n\n{}\n", paragraphs.join("\n\n"))?;
    Ok(())
}

#[cfg(test)]
mod tests;
