//! `cargo xtask ci`: everything a change must pass, in one order, with the
//! minutes of each stage. `make test` and the pipeline both run this.

use std::env;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{debian, repository_root, tools};

/// Flags of `cargo xtask ci`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the tests on real clusters, with their long loops.
    #[arg(long)]
    long: bool,
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
    /// The same, with the folder of test binaries in `SPRINGTIDE_BIN`.
    CargoWithTools(&'static [&'static str]),
}

/// Cheap refusals come first where they can; the test binaries come early
/// because a machine that cannot build them should say so before the tests.
const STAGES: &[Stage] = &[
    stage("deps", Work::Packages).and_long(),
    stage("tools", Work::Tools).and_long(),
    stage("fmt", Work::Cargo(&["fmt", "--all", "--check"])),
    stage("build", Work::Cargo(&["build", "--workspace", "--all-targets"])).and_long(),
    stage("clippy", Work::Cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
    stage("check", Work::Cargo(&["xtask", "check"])),
    stage("test", Work::Cargo(&["test", "--workspace", "--exclude", "springtide-e2e"])),
    // Each binary has one cluster; two tests at a time use it without crowding it.
    stage("e2e", Work::CargoWithTools(&["test", "-p", "springtide-e2e", "--", "--test-threads=2"]))
        .and_long(),
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
    let stages: Vec<_> = STAGES.iter().filter(|stage| stage.long || !args.long).collect();
    let mut times = Vec::new();
    let mut outcome = Ok(());
    for stage in &stages {
        eprintln!("\n==> {}", stage.name);
        let started = Instant::now();
        outcome = perform(&stage.work, args.long);
        times.push(started.elapsed());
        if outcome.is_err() {
            break;
        }
    }
    let names: Vec<_> = stages.iter().map(|stage| stage.name).collect();
    eprintln!("\n{}", table(&names, &times, outcome.is_ok()));
    let last = names[times.len().saturating_sub(1)];
    outcome.with_context(|| format!("stage {last} failed; the stages after it did not run"))
}

fn perform(work: &Work, long: bool) -> Result<()> {
    match work {
        Work::Packages => {
            debian::install_missing();
            Ok(())
        }
        Work::Tools => tools::provide(&[]).map(drop),
        Work::Cargo(arguments) => cargo(arguments, &[]),
        Work::CargoWithTools(arguments) => {
            let mut environment = vec![("SPRINGTIDE_BIN", tools::provide(&[])?.into_os_string())];
            if long {
                environment.push(("SPRINGTIDE_LONG", "1".into()));
            }
            cargo(arguments, &environment)
        }
    }
}

/// Runs cargo in the root of the clone; its output is the caller's, unchanged.
fn cargo(arguments: &[&str], environment: &[(&str, OsString)]) -> Result<()> {
    let program = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let status = Command::new(program)
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

/// One line per stage: its minutes, and how it ended.
fn table(names: &[&str], times: &[Duration], all_passed: bool) -> String {
    let minutes = |time: Duration| format!("{:.1}", time.as_secs_f64() / 60.0);
    let mut text = String::from("stage     minutes  result\n");
    for (position, name) in names.iter().enumerate() {
        let (time, result) = match times.get(position) {
            Some(time) if position + 1 < times.len() || all_passed => (minutes(*time), "passed"),
            Some(time) => (minutes(*time), "FAILED"),
            None => ("-".to_owned(), "not run"),
        };
        let _ = writeln!(text, "{name:<8}  {time:>7}  {result}");
    }
    let _ = write!(text, "{:<8}  {:>7}", "all", minutes(times.iter().sum()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_passed_failed_and_not_run_apart() {
        let text =
            table(&["deps", "tools", "e2e"], &[Duration::from_secs(6), Duration::from_secs(90)], false);
        let lines: Vec<_> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines[1], ["deps", "0.1", "passed"]);
        assert_eq!(lines[2], ["tools", "1.5", "FAILED"]);
        assert_eq!(lines[3], ["e2e", "-", "not", "run"]);
        assert_eq!(lines[4], ["all", "1.6"]);
    }

    #[test]
    fn a_run_without_failure_has_every_stage_passed() {
        let text = table(&["deps", "tools"], &[Duration::ZERO, Duration::ZERO], true);
        assert_eq!(text.matches("passed").count(), 2);
    }

    #[test]
    fn the_long_run_has_its_binaries_and_only_the_tests_on_clusters() {
        let names: Vec<_> = STAGES.iter().filter(|stage| stage.long).map(|stage| stage.name).collect();
        assert_eq!(names, ["deps", "tools", "build", "e2e"]);
    }
}
