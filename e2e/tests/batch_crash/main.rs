//! BatchJob survives a crash of its manager at every write.
//!
//! `SPRINGTIDE_LONG=1` runs every case, without it a fixed sample runs. `SPRINGTIDE_CRASH_CASE` names the
//! one case to run, as a failure prints it, or a scenario of which to run all.

mod scenarios;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use scenarios::Batch;
use springtide_e2e::batch;
use springtide_e2e::crash::{CASE_VARIABLE, Case, Lane, Reference, Scenario, Verdict};

/// Control planes side by side: two for each processor, as a case waits more than it computes.
const LANES_MAX: usize = 8;
/// Scenarios of the sample, and cases of each.
const SAMPLE: [(Batch, usize); 4] =
    [(Batch::Indexed, 3), (Batch::Failing, 2), (Batch::DrainAndResume, 3), (Batch::Delete, 2)];

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_write_changes_no_end() -> Result<()> {
    let began = Instant::now();
    let variable = std::env::var(CASE_VARIABLE).ok();
    let one_scenario = variable.as_ref().filter(|text| !text.contains(':'));
    let one_case = variable.as_ref().filter(|text| text.contains(':'));
    let named = one_case.map(|text| text.parse::<Case>()).transpose()?;
    let long = batch::long() || one_scenario.is_some();
    let by_name = |name: &str| {
        let found = Batch::ALL.into_iter().find(|scenario| scenario.name() == name);
        found.with_context(|| format!("{name} is no scenario"))
    };
    let name = named.as_ref().map(|case| &case.scenario).or(one_scenario);
    let wanted: Vec<(Batch, Option<usize>)> = match name {
        Some(name) => vec![(by_name(name)?, None)],
        None if long => Batch::ALL.into_iter().map(|scenario| (scenario, None)).collect(),
        None => SAMPLE.into_iter().map(|(scenario, count)| (scenario, Some(count))).collect(),
    };

    let processors = std::thread::available_parallelism()?.get();
    let count = if long && name.is_none() { (2 * processors).min(LANES_MAX) } else { 1 };
    let lanes = try_join_all((0..count).map(|_| async { Lane::new(batch::cluster().await?) })).await?;
    let scenarios = Mutex::new(wanted.into_iter().collect::<VecDeque<_>>());
    let verdicts = Mutex::new(Vec::new());
    let broken = Mutex::new(Vec::new());
    try_join_all(lanes.iter().map(async |lane| {
        while let Some((scenario, sample)) = { scenarios.lock().unwrap().pop_front() } {
            let name = scenario.name();
            // The others can still be told apart.
            let reference = match lane.reference(&scenario, long).await {
                Ok(reference) => reference,
                Err(error) => {
                    broken.lock().unwrap().push(format!("{name} without a crash: {error:#}"));
                    continue;
                }
            };
            let writes = reference.writes.len();
            let cases = match (&named, sample) {
                (Some(case), _) => vec![case.clone()],
                (None, None) => Case::all(name, writes as u64, &reference.stages),
                (None, Some(count)) => Case::sample(name, writes as u64, &reference.stages, count),
            };
            eprintln!("{name}: {writes} writes, {} cases", cases.len());
            for case in cases {
                let verdict = lane.case(&scenario, &reference, &case).await;
                report(&verdict, &reference);
                verdicts.lock().unwrap().push(verdict);
            }
        }
        anyhow::Ok(())
    }))
    .await?;

    let verdicts = verdicts.into_inner()?;
    let crashed = verdicts.iter().filter(|verdict| verdict.crashed).count();
    let bad: Vec<_> = verdicts.iter().filter(|verdict| !verdict.violations.is_empty()).collect();
    let seconds = began.elapsed().as_secs();
    eprintln!("{} cases, {crashed} with a crash, {} bad, {seconds} s", verdicts.len(), bad.len());
    let broken = broken.into_inner()?;
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    ensure!(crashed * 2 >= verdicts.len(), "only {crashed} of {} managers crashed", verdicts.len());
    if !bad.is_empty() {
        let commands = bad.iter().map(|verdict| command(&verdict.case));
        bail!(
            "{} cases ended differently; to repeat them:\n{}",
            bad.len(),
            commands.collect::<Vec<_>>().join("\n")
        );
    }
    Ok(())
}

fn command(case: &Case) -> String {
    format!("{CASE_VARIABLE}='{case}' cargo test --workspace --test batch_crash -- --nocapture")
}

fn report(verdict: &Verdict, reference: &Reference) {
    let Verdict { case, crashed, violations, took } = verdict;
    let write = usize::try_from(case.write).ok().and_then(|number| reference.writes.get(number - 1));
    let write = write.map_or("a write that the reference does not have", String::as_str);
    let seconds = took.as_secs_f64();
    let crashed = if *crashed { "" } else { ", not reached" };
    eprintln!(
        "{case} ({write}){crashed}: {} in {seconds:.1} s",
        if violations.is_empty() { "good" } else { "BAD" }
    );
    if !violations.is_empty() {
        eprintln!("{}\n{}", violations.join("\n"), command(case));
    }
}
