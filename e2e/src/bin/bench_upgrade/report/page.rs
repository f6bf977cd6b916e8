//! The page.

use std::fmt::Write as _;

use anyhow::Result;
use springtide_e2e::bench::at_rest;
use springtide_e2e::bench::counted::Count;
use springtide_e2e::bench::lives::{self, Lives};
use springtide_e2e::bench::processes::{NAMES, Spent, table};
use springtide_e2e::bench::report::{Goal, quantile};
use springtide_e2e::bench::scrape::{self, Sent};

use super::{AFTER, Measured, WAYS, method};
use crate::Options;
use crate::conflicts::{Conflicts, NOISE_PER_SECOND};
use crate::downtime::{Downtime, Downtimes};
use crate::throughput::{BUDGET, Upgraded};
use crate::writes::Writes;

/// All of it.
pub(super) fn of(measured: &Measured, options: &Options, goals: &[Goal], origin: &str) -> Result<String> {
    let mut page = String::new();
    let timed = timed(measured);
    let plot = (!timed.is_empty()).then_some("![Pods upgraded a second](upgrade.svg)");
    let title = "InPlaceUpgrade: speed, cost, and what users notice";
    measured.log.open(&mut page, title, origin, plot, goals)?;
    if !timed.is_empty() {
        speed(&mut page, &timed)?;
        same(&mut page, &timed)?;
        scrape::section(&mut page, "pod", &timed.iter().map(sent).collect::<Vec<_>>())?;
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
    let many = "in several workloads";
    at_rest::section(&mut page, AFTER, measured.rest.as_ref(), many, measured.many.as_ref())?;
    if let Some(downtimes) = &measured.downtimes {
        out(&mut page, downtimes)?;
    }
    if let Some(compared) = &measured.requests {
        writeln!(page, "\n## Requests through a Service whose pods are upgraded\n")?;
        compared.table(&mut page, WAYS, "upgrades of all pods", "version")?;
    }
    counted(&mut page, measured)?;
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
    let sweeps: Vec<(&str, &[Lives])> =
        timed.iter().map(|(which, upgraded)| (*which, &*upgraded.raw)).collect();
    Ok(lives::table(page, "pod", &sweeps)?)
}

fn same(page: &mut String, timed: &[(&'static str, &Upgraded)]) -> Result<()> {
    writeln!(
        page,
        "\n| after it | pods with UID, address and node of before | ReplicaSets with pods, beside the one of before |"
    )?;
    writeln!(page, "|---|---|---|")?;
    for (which, Upgraded { pods, same, other_sets, .. }) in timed {
        writeln!(page, "| {which} | {same} of {pods} | {other_sets} |")?;
    }
    Ok(())
}

fn sent<'a>((which, upgraded): &(&'a str, &'a Upgraded)) -> Sent<'a> {
    Sent { title: which, things: upgraded.pods, traffic: &upgraded.traffic, served: upgraded.served }
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

fn out(page: &mut String, Downtimes { gated, plain }: &Downtimes) -> Result<()> {
    writeln!(page, "\n## How long a pod is out, real kubelet, images on the node, in s\n")?;
    writeln!(page, "| pods | from | changes | seen | p50 | p99 | longest |\n|---|---|---|---|---|---|---|")?;
    for (which, downtime) in [("with a gate", gated), ("without a gate", plain)] {
        let Downtime { changes, out, restarted, .. } = downtime;
        for (from, spans) in
            [("Ready False to True", out), ("change of the image to a new container", restarted)]
        {
            let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|q| quantile(spans, q));
            let seen = spans.len();
            writeln!(page, "| {which} | {from} | {changes} | {seen} | {p50:.2} | {p99:.2} | {longest:.2} |")?;
        }
    }
    let (pods, volumes) = (gated.pods + plain.pods, gated.volumes + plain.volumes);
    writeln!(page, "\nOf their {pods} volumes {volumes} have kept what each version has left there.")?;
    Ok(())
}

/// What tests have counted.
fn counted(page: &mut String, measured: &Measured) -> Result<()> {
    let Measured { names, crashes, random, .. } = measured;
    let rows = [
        (
            "names of equal and of changed content, containers that end before their change: tests",
            names.as_ref().map(|names| &names.ends),
        ),
        ("a kill of the manager at each write: upgrades", crashes.as_ref().map(|crashes| &crashes.ends)),
        (
            "at random, beside controllers that are late and replaced: upgrades",
            random.as_ref().map(|random| &random.replacements),
        ),
    ];
    if rows.iter().all(|(_, count)| count.is_none()) {
        return Ok(());
    }
    writeln!(page, "\n## Upgrades that end otherwise than they have to\n")?;
    writeln!(page, "| | all | kills, or disturbances | that end otherwise |\n|---|---|---|---|")?;
    for (what, Count { tries, starts, violations, what: _ }) in
        rows.into_iter().filter_map(|(what, count)| Some((what, count?)))
    {
        writeln!(page, "| {what} | {tries} | {starts} | {violations} |")?;
    }
    Ok(())
}

#[cfg(test)]
pub(in crate::report) mod tests;
