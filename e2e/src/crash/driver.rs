//! Which cases of some scenarios are run, on how many control planes side by side, and what is said of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use tabled::builder::Builder;
use tabled::settings::Style;

use super::Scenario;
use super::case::{CASE_VARIABLE, Case, EACH_WRITE, Point};
use super::lane::{Lane, Verdict};
use super::reference::Reference;
use super::strike::Struck;
use crate::batch::long;
use crate::bench::counted::Count;

/// Control planes side by side: three for each processor, as a case waits more than it computes; ...
const LANES_MAX: usize = 8;
/// ... and for the sample, where a further one must be worth its start.
const LANES_SAMPLE: usize = 2;
/// Every manager must have crashed at its deed. Of those that were to at a status or an event, which come or
/// not by the pace of changes, so many must have, in percent.
const CRASHED_MIN_PERCENT: usize = 95;
/// Of the stages, in percent, so many may have been under way only in part, and one more: what is under way
/// together is not the same in every run ...
const PARTLY_MAX_PERCENT: usize = 20;
/// ... where there are so many of them; of fewer, one of several must have been under way whole.
const PARTLY_FROM: usize = 10;
/// How long no write may come once all is at rest: after a case, ...
const WATCHED: Duration = Duration::from_secs(3);
/// ... after one of the sample, ...
const WATCHED_SAMPLE: Duration = Duration::from_secs(1);
/// ... and after a run without a crash, of which there are few. It is longer than most of what a manager
/// puts off.
const WATCHED_REFERENCE: Duration = Duration::from_secs(40);

/// Which cases of its scenarios are run.
enum Extent {
    /// One of each.
    Sample,
    /// Each write once.
    EachWrite,
    /// All.
    All,
    /// This one.
    Only(Case),
}

impl Extent {
    /// Whether so many are run that the references and what is counted are worth their time.
    fn is_thorough(&self) -> bool {
        match self {
            Self::EachWrite | Self::All => true,
            Self::Sample | Self::Only(_) => false,
        }
    }

    /// How long no write may come after a case.
    fn watched(&self) -> Duration {
        match self {
            Self::All => WATCHED,
            Self::Sample | Self::EachWrite | Self::Only(_) => WATCHED_SAMPLE,
        }
    }
}

/// What is run.
struct Selection<'a, S> {
    /// Name of the test program, for commands.
    program: &'a str,
    scenarios: Vec<&'a S>,
    extent: Extent,
}

impl<'a, S: Scenario> Selection<'a, S> {
    fn read(program: &'a str, all: &'a [S]) -> Result<Self> {
        let by_name = |name: &str| {
            let found = all.iter().find(|scenario| scenario.name() == name);
            found.with_context(|| format!("{name} is no scenario"))
        };
        let every = || all.iter().collect();
        let (scenarios, extent) = match std::env::var(CASE_VARIABLE).ok() {
            None => (every(), if long() { Extent::All } else { Extent::Sample }),
            Some(name) if name == EACH_WRITE => (every(), Extent::EachWrite),
            Some(name) if !name.contains(':') => (vec![by_name(&name)?], Extent::All),
            Some(text) => {
                let case: Case = text.parse()?;
                (vec![by_name(&case.scenario)?], Extent::Only(case))
            }
        };
        Ok(Self { program, scenarios, extent })
    }

    /// The cases of the `number`-th scenario.
    fn cases(&self, number: usize, reference: &Reference) -> Vec<Case> {
        let name = self.scenarios[number].name();
        match &self.extent {
            Extent::Only(case) => vec![case.clone()],
            Extent::All => Case::all(name, &reference.writes, &reference.stages),
            Extent::EachWrite => Case::each(name, &reference.writes),
            Extent::Sample => {
                let (writes, stages) = reference.certain();
                sample(number, &Case::all(name, &writes, &stages)).into_iter().collect()
            }
        }
    }

    /// Control planes for it.
    fn lanes(&self) -> Result<usize> {
        let processors = std::thread::available_parallelism()?.get();
        Ok(match self.extent {
            Extent::Only(_) => 1,
            Extent::All | Extent::EachWrite => (3 * processors).min(LANES_MAX),
            Extent::Sample => LANES_SAMPLE,
        })
    }
}

/// One of the `number`-th scenario's cases, so that the sample is as large as there are scenarios. The scenarios take turns
/// in points, and as far as they go in writes and recoveries; every fourth has one of a stage. A further scenario at the end
/// of the list changes nothing about the others' cases.
fn sample(number: usize, all: &[Case]) -> Option<Case> {
    let wanted = Point::SINGLE[number % Point::SINGLE.len()];
    let of_stage = |case: &&Case| matches!(case.point, Point::Stage(_));
    let mut cases: Vec<_> = all.iter().filter(|case| number % 4 == 1 && of_stage(case)).collect();
    if cases.is_empty() {
        cases = all.iter().filter(|case| case.point == wanted).collect();
    }
    let place = (7 * number).checked_rem(cases.len())?;
    cases.get(place).map(|case| (*case).clone())
}

/// Runs the cases of a test program's scenarios on control planes that `lane` starts: with `SPRINGTIDE_LONG=1` all of
/// them, else one of each scenario; where [`CASE_VARIABLE`] is set, the one case that it names, all of the scenario, or
/// with [`EACH_WRITE`] one of each write.
///
/// # Errors
/// No control plane starts; a scenario does not come to its end without a crash, a case comes to another one, or too few
/// managers crashed where they were to.
pub async fn run<S: Scenario>(
    program: &str,
    scenarios: &[S],
    lane: impl AsyncFn() -> Result<Lane>,
) -> Result<()> {
    let began = Instant::now();
    let selection = Selection::read(program, scenarios)?;
    let count = selection.lanes()?;
    let lanes = try_join_all((0..count).map(|_| lane())).await?;
    eprintln!("{count} control planes in {} s", began.elapsed().as_secs());

    let (first, others) = (WATCHED_SAMPLE, WATCHED_REFERENCE);
    let runs = if selection.extent.is_thorough() { vec![first, others, first] } else { vec![first] };
    let played = match lanes.first() {
        Some(lane) => lane.references(&selection.scenarios, &runs).await?,
        None => bail!("no control plane"),
    };
    let mut references = Vec::new();
    let mut broken = Vec::new();
    for (scenario, reference) in selection.scenarios.iter().zip(played) {
        match reference {
            Ok(reference) => references.push(Some(reference)),
            // The others can still be told apart.
            Err(error) => {
                broken.push(format!("{} without a crash: {error:#}", scenario.name()));
                references.push(None);
            }
        }
    }
    let with_cases = references.iter().enumerate().filter_map(|(number, reference)| {
        let reference = reference.as_ref()?;
        let (scenario, cases) = (selection.scenarios[number], selection.cases(number, reference));
        Some(cases.into_iter().map(move |case| (scenario, reference, case)))
    });
    let cases: VecDeque<_> = with_cases.flatten().collect();
    let seconds = began.elapsed().as_secs();
    eprintln!("{} cases of {} scenarios, prepared in {seconds} s", cases.len(), references.len());

    let watched = selection.extent.watched();
    let (cases, verdicts) = (RefCell::new(cases), RefCell::new(Vec::new()));
    try_join_all(lanes.iter().map(async |lane| {
        while let Some((scenario, reference, case)) = { cases.borrow_mut().pop_front() } {
            let verdict = lane.case(scenario, reference, &case, watched).await;
            report(program, &verdict);
            let spoilt = verdict.spoilt;
            verdicts.borrow_mut().push(verdict);
            if spoilt {
                break;
            }
        }
        anyhow::Ok(())
    }))
    .await?;

    let (verdicts, unrun) = (verdicts.into_inner(), cases.into_inner().len());
    let rare = summary(&selection, &references, &verdicts);
    eprintln!(
        "{} cases in {} s, {unrun} more for which no lane was left",
        verdicts.len(),
        began.elapsed().as_secs()
    );
    let bad: Vec<_> = verdicts.iter().filter(|verdict| !verdict.violations.is_empty()).collect();
    if selection.extent.is_thorough() {
        Count {
            what: format!("{program}-ends"),
            tries: (verdicts.len() + unrun) as u64,
            starts: verdicts.iter().filter(|verdict| verdict.crashed.is_some()).count() as u64,
            violations: (broken.len() + bad.len() + unrun) as u64,
        }
        .tell()?;
    }
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    if !bad.is_empty() {
        let commands = bad.iter().map(|verdict| command(program, &verdict.case));
        bail!(
            "{} cases ended differently; to repeat them:\n{}",
            bad.len(),
            commands.collect::<Vec<_>>().join("\n")
        );
    }
    ensure!(rare.is_empty(), "too few managers crashed where they were to:\n{}", rare.join("\n"));
    Ok(())
}

/// Prints what became of the cases by scenario, and which writes have none; tells where too few managers crashed.
fn summary<S: Scenario>(
    selection: &Selection<'_, S>,
    references: &[Option<Reference>],
    verdicts: &[Verdict],
) -> Vec<String> {
    let mut table = Builder::default();
    table.push_record(["scenario", "writes", "cases", "crashed", "partly", "not reached", "tries", "bad"]);
    let names = selection.scenarios.iter().map(|scenario| scenario.name());
    let each = names.zip(references).map(|(name, reference)| {
        (name, reference.as_ref().map_or(0, |reference| reference.writes.len()), Some(name))
    });
    let writes = references.iter().flatten().map(|reference| reference.writes.len()).sum();
    for (title, writes, name) in each.chain([("all", writes, None)]) {
        let own = verdicts.iter().filter(|verdict| name.is_none_or(|name| verdict.case.scenario == name));
        let own: Vec<_> = own.collect();
        let crashed = own.iter().filter(|verdict| verdict.crashed.is_some()).count();
        let partly = own.iter().filter(|verdict| verdict.crashed == Some(Struck::Partly)).count();
        let bad = own.iter().filter(|verdict| !verdict.violations.is_empty()).count();
        let tries: u32 = own.iter().map(|verdict| verdict.tries).sum();
        let tries = usize::try_from(tries).unwrap_or(usize::MAX);
        let row = [writes, own.len(), crashed, partly, own.len() - crashed, tries, bad];
        table.push_record(std::iter::once(title.to_owned()).chain(row.map(|figure| figure.to_string())));
    }
    eprintln!("{}", table.build().with(Style::markdown()));
    for (scenario, reference) in selection.scenarios.iter().zip(references) {
        let left_out = reference.iter().flat_map(|reference| &reference.left_out).map(ToString::to_string);
        let left_out: Vec<_> = left_out.collect();
        if !left_out.is_empty() {
            eprintln!("{}, in one run only, so no case: {}", scenario.name(), left_out.join(", "));
        }
    }
    too_few(selection.program, verdicts)
}

/// Where too few managers crashed, a line each.
fn too_few(program: &str, verdicts: &[Verdict]) -> Vec<String> {
    let (deeds, told): (Vec<&Verdict>, _) = verdicts.iter().partition(|verdict| verdict.case.is_deed());
    let missed = deeds.into_iter().filter(|verdict| verdict.crashed.is_none());
    let mut few: Vec<_> =
        missed.map(|verdict| format!("not reached: {}", command(program, &verdict.case))).collect();
    let told: Vec<&Verdict> = told;
    let crashed = told.iter().filter(|verdict| verdict.crashed.is_some()).count();
    if crashed * 100 < told.len() * CRASHED_MIN_PERCENT {
        few.push(format!("{crashed} of {} at a status or an event", told.len()));
    }
    let stages = verdicts.iter().filter(|verdict| matches!(verdict.case.point, Point::Stage(_)));
    let (count, partly) = stages.fold((0, 0), |(count, partly), verdict| {
        (count + 1, partly + usize::from(verdict.crashed == Some(Struck::Partly)))
    });
    let partly_max = if count < PARTLY_FROM {
        count.saturating_sub(1).max(1)
    } else {
        count * PARTLY_MAX_PERCENT / 100 + 1
    };
    if partly > partly_max {
        few.push(format!("{partly} of {count} stages only partly"));
    }
    few
}

/// What repeats a case.
fn command(program: &str, case: &Case) -> String {
    format!("{CASE_VARIABLE}='{case}' cargo test --workspace --test {program} -- --nocapture")
}

fn report(program: &str, verdict: &Verdict) {
    let Verdict { case, crashed, tries, violations, spoilt: _, took } = verdict;
    let seconds = took.as_secs_f64();
    let crashed = match crashed {
        Some(Struck::Whole) => "",
        Some(Struck::Partly) => ", partly",
        None => ", not reached",
    };
    let tries = if *tries > 1 { format!(", {tries} tries") } else { String::new() };
    let verdict = if violations.is_empty() { "good" } else { "BAD" };
    eprintln!("{case}{crashed}{tries}: {verdict} in {seconds:.1} s");
    if !violations.is_empty() {
        eprintln!("{}\n{}", violations.join("\n"), command(program, case));
    }
}
