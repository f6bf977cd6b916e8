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
use crate::faults::COUNTED;
use crate::preflight::Asked;
use crate::scaler::Scaled;
use crate::switched::{BUDGET, Switched};
use crate::unit::Units;
use crate::writes::Writes;

/// All of it.
pub(super) fn of(measured: &Measured, options: &Options, goals: &[Goal], origin: &str) -> Result<String> {
    let mut page = String::new();
    let timed = measured.timed();
    let plot = (!timed.is_empty()).then_some("![Pods a second that come to serve](timeshare.svg)");
    let title = "TimeShareGroup: speed, cost, and what users notice";
    measured.log.open(&mut page, title, origin, plot, goals)?;
    if !timed.is_empty() {
        speed(&mut page, &timed)?;
        scrape::section(&mut page, "unit", &timed.iter().map(sent).collect::<Vec<_>>())?;
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
    counted(&mut page, measured)?;
    if let Some(asked) = &measured.preflight {
        ahead(&mut page, asked)?;
    }
    let many = "of several groups";
    at_rest::section(&mut page, AFTER, measured.rest.as_ref(), many, measured.many.as_ref())?;
    if let Some(compared) = &measured.requests {
        writeln!(page, "\n## Requests through a Service whose members take turns\n")?;
        compared.table(&mut page, WAYS, "switches", "member")?;
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
    let sweeps: Vec<(&str, &[Lives])> =
        timed.iter().map(|(which, switched)| (*which, &*switched.raw)).collect();
    lives::table(page, "unit", &sweeps)?;
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

fn sent<'a>((which, switched): &(&'a str, &'a Switched)) -> Sent<'a> {
    Sent { title: which, things: switched.units, traffic: &switched.traffic, served: switched.served }
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

/// What tests have counted.
fn counted(page: &mut String, measured: &Measured) -> Result<()> {
    let Measured { faults, starts, .. } = measured;
    let among = faults.iter().flat_map(|faults| COUNTED.iter().zip(&faults.counts));
    let mut rows: Vec<(&str, &Count)> = among.map(|(counted, count)| (counted.text, count)).collect();
    rows.extend(starts.iter().map(|starts| ("switches that began more than a second late", &starts.late)));
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n## Among faults\n\n| what may never be | tries | managers and faults | times |")?;
    writeln!(page, "|---|---|---|---|")?;
    for (text, Count { tries, starts, violations, what: _ }) in rows {
        writeln!(page, "| {text} | {tries} | {starts} | {violations} |")?;
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

#[cfg(test)]
pub(in crate::report) mod tests;
