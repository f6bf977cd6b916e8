//! `cargo xtask ci`: everything a change must pass, in one order, with the
//! minutes of each stage. `make test` and the pipeline both run this.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::memory_folder::MemoryFolder;
use crate::{cluster_tests, debian, image, repository_root, tools};

/// Flags of `cargo xtask ci`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the tests, with their long loops, and those on real clusters with the image that is delivered.
    #[arg(long)]
    long: bool,
    /// When compiling this program began, in seconds since 1970, so that the
    /// table counts that too.
    #[arg(long, value_name = "SECONDS")]
    started: Option<u64>,
}

/// One step of the run.
struct Stage {
    name: &'static str,
    work: Work,
    /// Whether `--long` runs it too.
    long: bool,
}

/// What a stage does.
enum Work {
    /// Install or name missing Debian packages.
    Packages,
    /// Provide the test binaries.
    Tools,
    /// Run cargo with these arguments.
    Cargo(&'static [&'static str]),
    /// Unit, property and documentation tests, and the tests of each crate alone.
    CrateTests,
    /// The tests on real clusters.
    ClusterTests,
}

/// Builds everything, with the one set of features that all stages share.
pub(crate) const BUILD: [&str; 3] = ["build", "--workspace", "--all-targets"];

/// The cheapest refusal comes first; the test binaries come early, because a
/// machine that cannot build them should say so before it has compiled anything.
const STAGES: &[Stage] = &[
    stage("fmt", Work::Cargo(&["fmt", "--all", "--check"])),
    stage("deps", Work::Packages).and_long(),
    stage("tools", Work::Tools).and_long(),
    stage("build", Work::Cargo(&BUILD)).and_long(),
    stage("clippy", Work::Cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    stage("check", Work::Cargo(&["xtask", "check"])),
    stage("test", Work::CrateTests).and_long(),
    stage("e2e", Work::ClusterTests).and_long(),
];

const fn stage(name: &'static str, work: Work) -> Stage {
    Stage { name, work, long: false }
}

impl Stage {
    const fn and_long(self) -> Self {
        Self { long: true, ..self }
    }
}

/// Runs the stages up to the first that fails, then prints the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut rows = Vec::new();
    if let Some(started) =
        args.started.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
    {
        rows.push(Row { name: "xtask", outcome: Some((started.elapsed().unwrap_or_default(), true)) });
    }
    let mut result = Ok(());
    for stage in STAGES.iter().filter(|stage| stage.long || !args.long) {
        let outcome = result.is_ok().then(|| {
            eprintln!("\n==> {}", stage.name);
            let started = Instant::now();
            result = perform(&stage.work, args.long)
                .with_context(|| format!("stage {} failed; the stages after it did not run", stage.name));
            (started.elapsed(), result.is_ok())
        });
        rows.push(Row { name: stage.name, outcome });
    }
    eprintln!("\n{}", table(&rows));
    result
}

fn perform(work: &Work, long: bool) -> Result<()> {
    match work {
        Work::Packages => {
            debian::install_missing();
            Ok(())
        }
        Work::Tools => tools::provide(&[]).map(drop),
        Work::Cargo(arguments) => cargo(arguments, &[]),
        Work::CrateTests => {
            let environment = environment(long)?;
            let targets = test_targets(|package| package != CLUSTER_TESTS)?;
            cargo(&with_tests(&["test", "--workspace", "--lib", "--bins"], &targets), &environment)?;
            cargo(&["test", "--workspace", "--doc"], &environment)
        }
        Work::ClusterTests => {
            let mut environment = environment(long)?;
            if long {
                // What is delivered, in place of the quick image of the debug build.
                cargo(&["xtask", "image", "--check"], &[])?;
                environment.push(("SPRINGTIDE_IMAGE", image::archive().into_os_string()));
            }
            let memory = MemoryFolder::make();
            environment.extend(memory.as_ref().map(MemoryFolder::variable));
            let programs = cluster_tests::programs()?;
            if programs.is_empty() {
                bail!("{CLUSTER_TESTS} has no tests: a run without them would prove nothing");
            }
            // The long loops are for figures, each with the machine to itself.
            cluster_tests::run(programs, &environment, if long { 1 } else { cluster_tests::LANES })
        }
    }
}

/// Cases of a property test in a long run: ten times as many as without a word. Proptest goes by the variable also
/// where a test asks for a number of its own; one whose cases take seconds has a runner of its own.
const LONG_CASES: u32 = 2560;
const PROPTEST_CASES: &str = "PROPTEST_CASES";

/// What the tests are told.
fn environment(long: bool) -> Result<Vec<(&'static str, OsString)>> {
    let mut environment = vec![("SPRINGTIDE_BIN", tools::provide(&[])?.into_os_string())];
    if long {
        environment.extend(of_long_run(env::var_os(PROPTEST_CASES)));
    }
    Ok(environment)
}

/// What makes a run of the tests a long one; `cases` are asked for by whoever starts it.
fn of_long_run(cases: Option<OsString>) -> [(&'static str, OsString); 2] {
    let cases = cases.unwrap_or_else(|| LONG_CASES.to_string().into());
    [("SPRINGTIDE_LONG", "1".into()), (PROPTEST_CASES, cases)]
}

/// The package whose tests need real clusters.
const CLUSTER_TESTS: &str = "springtide-e2e";

/// Names of the integration tests of the packages that `wanted` accepts. They are
/// selected one by one inside `--workspace`, because cargo compiles kube and
/// everything above it once more for each other set of packages.
fn test_targets(wanted: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
    let output = Command::new(cargo_program())
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(repository_root())
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo metadata")?;
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("reading cargo metadata")?;
    Ok(metadata
        .packages
        .into_iter()
        .filter(|package| wanted(&package.name))
        .flat_map(|package| package.targets)
        .filter(|target| target.kind.iter().any(|kind| kind == "test"))
        .map(|target| target.name)
        .collect())
}

/// What is read of `cargo metadata`.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

fn with_tests<'a>(first: &[&'a str], targets: &'a BTreeSet<String>) -> Vec<&'a str> {
    first.iter().copied().chain(targets.iter().flat_map(|target| ["--test", target.as_str()])).collect()
}

pub(crate) fn cargo_program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Runs cargo in the root of the clone; its output is the caller's, unchanged.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, OsString)]) -> Result<()> {
    let status = Command::new(cargo_program())
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(repository_root())
        .status()
        .context("starting cargo")?;
    if !status.success() {
        bail!("`cargo {}` ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// A line of the final table.
struct Row {
    name: &'static str,
    /// How long it took and whether it passed; none when it did not run.
    outcome: Option<(Duration, bool)>,
}

fn table(rows: &[Row]) -> String {
    let minutes = |time: Duration| format!("{:.1}", time.as_secs_f64() / 60.0);
    let mut text = String::from("stage     minutes  result\n");
    let mut total = Duration::ZERO;
    for Row { name, outcome } in rows {
        let (time, result) = match *outcome {
            Some((time, passed)) => {
                total += time;
                (minutes(time), if passed { "passed" } else { "FAILED" })
            }
            None => ("-".to_owned(), "not run"),
        };
        text += &format!("{name:<8}  {time:>7}  {result}\n");
    }
    text + &format!("{:<8}  {:>7}", "all", minutes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_passed_failed_and_not_run_apart() {
        let text = table(&[
            Row { name: "deps", outcome: Some((Duration::from_secs(6), true)) },
            Row { name: "tools", outcome: Some((Duration::from_secs(90), false)) },
            Row { name: "e2e", outcome: None },
        ]);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[1], ["deps", "0.1", "passed"]);
        assert_eq!(lines[2], ["tools", "1.5", "FAILED"]);
        assert_eq!(lines[3], ["e2e", "-", "not", "run"]);
        assert_eq!(lines[4], ["all", "1.6"]);
    }

    #[test]
    fn the_long_run_has_its_binaries_and_the_tests_alone() {
        let names: Vec<_> = STAGES.iter().filter(|stage| stage.long).map(|stage| stage.name).collect();
        assert_eq!(names, ["deps", "tools", "build", "test", "e2e"]);
    }

    #[test]
    fn a_long_run_asks_for_more_cases_unless_somebody_has_said_how_many() {
        let told = |cases: Option<&str>| of_long_run(cases.map(OsString::from)).map(|(_, value)| value);
        assert_eq!(told(None), ["1", "2560"].map(OsString::from));
        assert_eq!(told(Some("7")), ["1", "7"].map(OsString::from));
    }

    #[test]
    fn every_integration_test_runs_in_exactly_one_stage() {
        let on_clusters = test_targets(|package| package == CLUSTER_TESTS).unwrap();
        let others = test_targets(|package| package != CLUSTER_TESTS).unwrap();
        assert!(!on_clusters.is_empty());
        // They are selected by name alone, over all packages.
        assert_eq!(on_clusters.intersection(&others).next(), None);
        assert_eq!(on_clusters.len() + others.len(), test_targets(|_| true).unwrap().len());
    }

    #[test]
    fn a_command_that_fails_fails_its_stage_with_its_name() {
        let error = cargo(&["no-such-command"], &[]).unwrap_err().to_string();
        assert!(error.starts_with("`cargo no-such-command` ended with"), "{error}");
    }
}
