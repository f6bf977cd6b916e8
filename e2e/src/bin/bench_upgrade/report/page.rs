//! The page.

use std::fmt::Write as _;

use anyhow::Result;
use springtide_e2e::bench::at_rest::{Large, Rest};
use springtide_e2e::bench::lives::Lives;
use springtide_e2e::bench::processes::{BENCH, KWOK, MANAGER, Spent, table};
use springtide_e2e::bench::report::{Goal, quantile};
use springtide_e2e::bench::scrape::Traffic;

use super::{Measured, method};
use crate::Options;
use crate::conflicts::{Conflicts, NOISE_PER_SECOND};
use crate::crashes::Crashes;
use crate::downtime::{Downtime, Downtimes};
use crate::requests::{Compared, Requests};
use crate::throughput::{BUDGET, Upgraded};
use crate::writes::Writes;

/// Names of the processes, in their order.
const NAMES: [&str; 7] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", KWOK, MANAGER, BENCH];

/// All of it.
pub(super) fn of(measured: &Measured, options: &Options, goals: &[Goal], origin: &str) -> Result<String> {
    let mut page = String::new();
    let timed = timed(measured);
    let plot = (!timed.is_empty()).then_some("![Pods upgraded a second](upgrade.svg)");
    let title = "InPlaceUpgrade: speed, cost, and what users notice";
    measured.log.open(&mut page, title, origin, plot, goals)?;
    if !timed.is_empty() {
        speed(&mut page, &timed)?;
        sent(&mut page, &timed)?;
        let spent: Vec<(String, &Spent)> =
            timed.iter().map(|(which, upgraded)| ((*which).to_owned(), &upgraded.spent)).collect();
        table(&mut page, &NAMES, &spent)?;
    }
    if let Some(rows) = &measured.writes {
        written(&mut page, rows)?;
    }
    if let Some(conflicts) = &measured.conflicts {
        refused(&mut page, conflicts)?;
    }
    if measured.rest.is_some() || measured.many.is_some() {
        at_rest(&mut page, measured)?;
    }
    if let Some(downtimes) = &measured.downtimes {
        out(&mut page, downtimes)?;
    }
    if let Some(compared) = &measured.requests {
        lost(&mut page, compared)?;
    }
    if let Some(crashes) = &measured.crashes {
        killed(&mut page, crashes)?;
    }
    write!(page, "\n## Method\n\n{}\n", method::paragraphs(measured, options).join("\n\n"))?;
    Ok(page)
}

/// The timed runs, each with what its pods have.
fn timed(measured: &Measured) -> Vec<(&'static str, &Upgraded)> {
    let both = [("with a gate", &measured.gated), ("without a gate", &measured.plain)];
    both.into_iter().filter_map(|(which, upgraded)| Some((which, upgraded.as_ref()?))).collect()
}

fn speed(page: &mut String, timed: &[(&'static str, &Upgraded)]) -> Result<()> {
    writeln!(page, "\n## All pods at once, {BUDGET} writes a second\n")?;
    writeln!(
        page,
        "| pods | | seconds | pods/s | share of the budget | pods/s without a controller | share of that | slowest and \
         fastest tenth, pods/s | said to be done after |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|---|")?;
    for (which, upgraded) in timed {
        let Upgraded { pods, seconds, finished, tenths, .. } = upgraded;
        let (rate, limit) = (upgraded.rate(), upgraded.limit());
        let slowest = tenths.iter().copied().fold(f64::INFINITY, f64::min);
        let fastest = tenths.iter().copied().fold(0.0, f64::max);
        writeln!(
            page,
            "| {pods} | {which} | {seconds:.0} | {rate:.1} | {:.0} % | {limit:.1} | {:.0} % | {slowest:.1}, {fastest:.1} | \
             {finished:.1} s more |",
            100.0 * upgraded.share_of_budget(),
            100.0 * rate / limit
        )?;
    }
    writeln!(
        page,
        "\n| without a controller | in flight | pods/s | p50 of a pod | p99 |\n|---|---|---|---|---|"
    )?;
    for (which, upgraded) in timed {
        for Lives { in_flight, rate, p50, p99 } in &upgraded.raw {
            writeln!(page, "| {which} | {in_flight} | {rate:.1} | {p50:.2} s | {p99:.2} s |")?;
        }
    }
    Ok(())
}

fn sent(page: &mut String, timed: &[(&'static str, &Upgraded)]) -> Result<()> {
    writeln!(page, "\n## What was written in these runs\n")?;
    writeln!(
        page,
        "| | writes of the manager a pod, by class and resource | under way on average | answer after, on average | put \
         off | writes of all on pods, a pod |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|")?;
    for (which, upgraded) in timed {
        let Traffic { writes, in_flight, latency, throttled } = &upgraded.traffic;
        let pods = upgraded.pods as f64;
        let by_class: Vec<String> = writes
            .iter()
            .map(|([class, resource], count)| format!("{class} {resource} {:.2}", count / pods))
            .collect();
        let put_off: Vec<String> =
            throttled.iter().map(|(limit, count)| format!("{limit} {count:.0}")).collect();
        writeln!(
            page,
            "| {which} | {} | {in_flight:.1} | {:.1} ms | {} | {:.2} |",
            by_class.join(", "),
            1000.0 * latency,
            put_off.join(", "),
            upgraded.served / pods
        )?;
    }
    Ok(())
}

fn written(page: &mut String, rows: &[Writes]) -> Result<()> {
    writeln!(page, "\n## Writes a pod, from the audit log\n")?;
    writeln!(
        page,
        "| change | manager | most of a pod | due | beside, in all: on upgrade and workload | of KWOK a pod |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|")?;
    for Writes { what, id: _, own, most, due, beside, node } in rows {
        writeln!(page, "| {what} | {own:.2} | {most} | {due} | {beside} | {node:.2} |")?;
    }
    Ok(())
}

fn refused(page: &mut String, conflicts: &Conflicts) -> Result<()> {
    let Conflicts { pods, seconds, noise, writes, refused } = conflicts;
    let share = 100.0 * conflicts.share();
    writeln!(page, "\n## Beside one who writes statuses of the same pods\n\n| measure | value |\n|---|---|")?;
    writeln!(page, "| pods that were upgraded | {pods}, in {seconds:.0} s, with an audit log |")?;
    writeln!(page, "| statuses that the other one wrote | {noise}, of {NOISE_PER_SECOND} a second |")?;
    writeln!(page, "| writes of the manager on pods | {writes} |")?;
    writeln!(page, "| refused by a conflict | {refused}, {share:.2} % |")?;
    Ok(())
}

fn at_rest(page: &mut String, measured: &Measured) -> Result<()> {
    writeln!(page, "\n## Memory, and writes at rest\n\n| measure | value |\n|---|---|")?;
    if let Some(Rest { pods, resident_mib, peak_mib, fresh_mib, minutes, writes, writes_of_fresh }) =
        &measured.rest
    {
        writeln!(
            page,
            "| manager RSS beside {pods} pods, after an upgrade of all | {resident_mib:.0} MiB |"
        )?;
        writeln!(page, "| the most until then | {peak_mib:.0} MiB |")?;
        writeln!(page, "| RSS of another manager that has just started | {fresh_mib:.0} MiB |")?;
        writeln!(page, "| writes in {minutes} min in which nothing changes | {writes} |")?;
        writeln!(page, "| writes of the other one in its first two minutes | {writes_of_fresh} |")?;
    }
    if let Some(Large { pods, idle_mib, resident_mib, peak_mib }) = &measured.many {
        writeln!(page, "| manager RSS without pods | {idle_mib:.0} MiB |")?;
        writeln!(page, "| beside {pods} pods with a gate, in several workloads | {resident_mib:.0} MiB |")?;
        writeln!(page, "| the most until then | {peak_mib:.0} MiB |")?;
    }
    Ok(())
}

fn out(page: &mut String, Downtimes { gated, plain }: &Downtimes) -> Result<()> {
    writeln!(page, "\n## How long a pod is out, real kubelet, images on the node, in s\n")?;
    writeln!(page, "| pods | from | changes | seen | p50 | p99 | longest |\n|---|---|---|---|---|---|---|")?;
    for (which, downtime) in [("with a gate", gated), ("without a gate", plain)] {
        let Downtime { changes, out, restarted } = downtime;
        for (from, spans) in
            [("Ready False to True", out), ("change of the image to a new container", restarted)]
        {
            let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|q| quantile(spans, q));
            let seen = spans.len();
            writeln!(page, "| {which} | {from} | {changes} | {seen} | {p50:.2} | {p99:.2} | {longest:.2} |")?;
        }
    }
    Ok(())
}

fn lost(page: &mut String, Compared { drained, control }: &Compared) -> Result<()> {
    writeln!(page, "\n## Requests through a Service whose pods are upgraded\n")?;
    writeln!(
        page,
        "| | upgrades of all pods | requests | lost, a connection each | lost, connections kept | slowest | answers by version |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|")?;
    for (which, requests) in [("gate and proof", drained), ("no drain", control)] {
        let Requests { upgrades, failed: [new, kept], slowest, versions, .. } = requests;
        let versions: Vec<String> =
            versions.iter().map(|(version, count)| format!("{version} {count}")).collect();
        writeln!(
            page,
            "| {which} | {upgrades} | {} | {new} | {kept} | {slowest:.2} s | {} |",
            requests.sent(),
            versions.join(", ")
        )?;
    }
    for failure in &drained.failures {
        writeln!(page, "\nLost with gate and proof: {failure}.")?;
    }
    Ok(())
}

fn killed(page: &mut String, Crashes { ends }: &Crashes) -> Result<()> {
    writeln!(page, "\n## A kill of the manager at each write\n\n| measure | value |\n|---|---|")?;
    writeln!(page, "| cases | {} |", ends.tries)?;
    writeln!(page, "| managers that were killed where they were to be | {} |", ends.starts)?;
    writeln!(page, "| cases that ended otherwise than without a kill | {} |", ends.violations)?;
    Ok(())
}

#[cfg(test)]
pub(in crate::report) mod tests;
