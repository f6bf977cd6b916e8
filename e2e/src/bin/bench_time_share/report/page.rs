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
use crate::faults::{COUNTED, Faults};
use crate::preflight::Asked;
use crate::requests::{Compared, Requests};
use crate::scaler::Scaled;
use crate::switched::{BUDGET, Switched};
use crate::unit::Units;
use crate::writes::Writes;

/// Names of the processes, in their order.
const NAMES: [&str; 7] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", KWOK, MANAGER, BENCH];

/// All of it.
pub(super) fn of(measured: &Measured, options: &Options, goals: &[Goal], origin: &str) -> Result<String> {
    let mut page = String::new();
    let timed = measured.timed();
    let plot = (!timed.is_empty()).then_some("![Pods a second that come to serve](timeshare.svg)");
    let title = "TimeShareGroup: speed, cost, and what users notice";
    measured.log.open(&mut page, title, origin, plot, goals)?;
    if !timed.is_empty() {
        speed(&mut page, &timed)?;
        sent(&mut page, &timed)?;
        let spent: Vec<(String, &Spent)> =
            timed.iter().map(|(which, switched)| ((*which).to_owned(), &switched.spent)).collect();
        table(&mut page, &NAMES, &spent)?;
    }
    if let Some(rows) = &measured.writes {
        written(&mut page, rows)?;
    }
    if let Some(units) = &measured.unit {
        one_unit(&mut page, units)?;
    }
    if let Some(faults) = &measured.faults {
        counted(&mut page, faults)?;
    }
    if let Some(asked) = &measured.preflight {
        ahead(&mut page, asked)?;
    }
    if measured.rest.is_some() || measured.many.is_some() {
        at_rest(&mut page, measured)?;
    }
    if let Some(compared) = &measured.requests {
        lost(&mut page, compared)?;
    }
    write!(page, "\n## Method\n\n{}\n", method::paragraphs(measured, options).join("\n\n"))?;
    Ok(page)
}

fn speed(page: &mut String, timed: &[(&'static str, &Switched)]) -> Result<()> {
    writeln!(page, "\n## All units in one step, {BUDGET} writes a second\n")?;
    writeln!(
        page,
        "| units | traffic by | seconds | due by the budget | units/s | units/s without a controller | share of that | slowest \
         and fastest tenth, units/s | nudges | said to be done after |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|---|---|")?;
    for (which, switched) in timed {
        let Switched { units, seconds, finished, tenths, nudges, .. } = switched;
        let (rate, limit) = (switched.rate(), switched.limit());
        let slowest = tenths.iter().copied().fold(f64::INFINITY, f64::min);
        let fastest = tenths.iter().copied().fold(0.0, f64::max);
        writeln!(
            page,
            "| {units} | {which} | {seconds:.0} | {:.0} s | {rate:.1} | {limit:.1} | {:.0} % | {slowest:.1}, {fastest:.1} | \
             {nudges} | {finished:.1} s more |",
            switched.due(),
            100.0 * rate / limit
        )?;
    }
    writeln!(
        page,
        "\n| without a controller | in flight | units/s | p50 of a unit | p99 |\n|---|---|---|---|---|"
    )?;
    for (which, switched) in timed {
        for Lives { in_flight, rate, p50, p99 } in &switched.raw {
            writeln!(page, "| {which} | {in_flight} | {rate:.1} | {p50:.2} s | {p99:.2} s |")?;
        }
    }
    let scaled =
        timed.iter().filter_map(|(which, switched)| Some((which, switched, switched.scaled.as_ref()?)));
    for (which, switched, Scaled { replicas, seconds, served }) in scaled {
        writeln!(
            page,
            "\n| on the same cluster | moved | seconds | writes of all on pods |\n|---|---|---|---|"
        )?;
        writeln!(
            page,
            "| TimeShareGroup, {which} | {} pods come to serve, {} warm ones stay | {:.0} | {:.0} |",
            switched.units, switched.units, switched.seconds, switched.served
        )?;
        writeln!(
            page,
            "| a scaler | {replicas} pods are made, {replicas} ended | {seconds:.0} | {served:.0} |"
        )?;
    }
    Ok(())
}

fn sent(page: &mut String, timed: &[(&'static str, &Switched)]) -> Result<()> {
    writeln!(page, "\n## What was written in these runs\n")?;
    writeln!(
        page,
        "| | writes of the manager a unit, by class and resource | under way on average | answer after, on average | put \
         off | writes of all on pods, a unit |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|")?;
    for (which, switched) in timed {
        let Traffic { writes, in_flight, latency, throttled } = &switched.traffic;
        let units = switched.units as f64;
        let by_class: Vec<String> = writes
            .iter()
            .map(|([class, resource], count)| format!("{class} {resource} {:.2}", count / units))
            .collect();
        let put_off: Vec<String> =
            throttled.iter().map(|(limit, count)| format!("{limit} {count:.0}")).collect();
        writeln!(
            page,
            "| {which} | {} | {in_flight:.1} | {:.1} ms | {} | {:.2} |",
            by_class.join(", "),
            1000.0 * latency,
            put_off.join(", "),
            switched.served / units
        )?;
    }
    Ok(())
}

fn written(page: &mut String, rows: &[Writes]) -> Result<()> {
    writeln!(page, "\n## Writes a pod, from the audit log\n")?;
    writeln!(
        page,
        "| traffic by | manager | most of a pod | due | beside, in all: on the group, events, routes | of them on routes | nudges |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|")?;
    for Writes { what, id: _, own, most, due, beside, routes, nudges } in rows {
        writeln!(page, "| {what} | {own:.2} | {most} | {due} | {beside} | {routes} | {nudges} |")?;
    }
    Ok(())
}

fn one_unit(page: &mut String, Units { switched, nudges, by_hand }: &Units) -> Result<()> {
    writeln!(page, "\n## One unit on a real node, first resize to peak in force, in s\n")?;
    writeln!(page, "| | units | p50 | p99 | longest | nudges |\n|---|---|---|---|---|---|")?;
    for (which, spans, nudges) in
        [("by the manager", switched, nudges.to_string()), ("by hand", by_hand, String::new())]
    {
        let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|q| quantile(spans, q));
        writeln!(page, "| {which} | {} | {p50:.3} | {p99:.3} | {longest:.3} | {nudges} |", spans.len())?;
    }
    Ok(())
}

fn counted(page: &mut String, Faults { counts }: &Faults) -> Result<()> {
    writeln!(page, "\n## Among faults\n\n| what may never be | tries | managers and faults | times |")?;
    writeln!(page, "|---|---|---|---|")?;
    for (counted, count) in COUNTED.iter().zip(counts) {
        writeln!(page, "| {} | {} | {} | {} |", counted.text, count.tries, count.starts, count.violations)?;
    }
    Ok(())
}

fn ahead(page: &mut String, asked: &Asked) -> Result<()> {
    let Asked {
        units,
        dry_runs,
        seconds,
        changed,
        waited_before,
        waited_beside,
        turn_before,
        turn_beside,
        named,
        skipped,
        refused,
    } = asked;
    writeln!(page, "\n## Dry runs ahead\n\n| measure | value |\n|---|---|")?;
    writeln!(page, "| units that were looked at | {units} |")?;
    writeln!(page, "| dry runs | {dry_runs:.0} in {seconds:.0} s |")?;
    writeln!(page, "| changes of their pods meanwhile | {changed} |")?;
    for (what, before, beside) in [
        ("wait of other writes for the budget, on average", waited_before, waited_beside),
        ("a switch of another group", turn_before, turn_beside),
    ] {
        writeln!(
            page,
            "| {what}, before and beside them | {:.2}, {:.2} ms |",
            1000.0 * before,
            1000.0 * beside
        )?;
    }
    writeln!(page, "| units that were named as not coming through | {named} |")?;
    writeln!(page, "| units that did not | {skipped} |")?;
    writeln!(page, "| real resizes that were refused | {refused:.0} |")?;
    Ok(())
}

fn at_rest(page: &mut String, measured: &Measured) -> Result<()> {
    writeln!(page, "\n## Memory, and writes at rest\n\n| measure | value |\n|---|---|")?;
    if let Some(Rest { pods, resident_mib, peak_mib, fresh_mib, minutes, writes, writes_of_fresh }) =
        &measured.rest
    {
        writeln!(page, "| manager RSS beside {pods} pods, after a switch of all | {resident_mib:.0} MiB |")?;
        writeln!(page, "| the most until then | {peak_mib:.0} MiB |")?;
        writeln!(page, "| RSS of another manager that has just started | {fresh_mib:.0} MiB |")?;
        writeln!(page, "| writes in {minutes} min in which nothing changes | {writes} |")?;
        writeln!(page, "| writes of the other one in its first two minutes | {writes_of_fresh} |")?;
    }
    if let Some(Large { pods, idle_mib, resident_mib, peak_mib }) = &measured.many {
        writeln!(page, "| manager RSS without pods | {idle_mib:.0} MiB |")?;
        writeln!(page, "| beside {pods} pods of several groups | {resident_mib:.0} MiB |")?;
        writeln!(page, "| the most until then | {peak_mib:.0} MiB |")?;
    }
    Ok(())
}

fn lost(page: &mut String, Compared { drained, control }: &Compared) -> Result<()> {
    writeln!(page, "\n## Requests through a Service whose members take turns\n")?;
    writeln!(
        page,
        "| | switches | requests | lost, a connection each | lost, connections kept | p50 of either, ms | p99 of either, ms | \
         slowest | answers by member |"
    )?;
    writeln!(page, "|---|---|---|---|---|---|---|---|---|")?;
    for (which, requests) in [("one unit after the other", drained), ("all at once", control)] {
        let Requests { switches, failed: [new, kept], p50, p99, slowest, members, .. } = requests;
        let members: Vec<String> =
            members.iter().map(|(member, count)| format!("{member} {count}")).collect();
        let millis =
            |seconds: &[f64; 2]| seconds.map(|seconds| format!("{:.1}", 1000.0 * seconds)).join(", ");
        writeln!(
            page,
            "| {which} | {switches} | {} | {new} | {kept} | {} | {} | {slowest:.2} s | {} |",
            requests.sent(),
            millis(p50),
            millis(p99),
            members.join(", ")
        )?;
    }
    for failure in &drained.failures {
        writeln!(page, "\nLost one unit after the other: {failure}.")?;
    }
    Ok(())
}

#[cfg(test)]
pub(in crate::report) mod tests;
