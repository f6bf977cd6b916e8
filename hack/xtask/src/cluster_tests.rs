//! The programs of tests on real clusters, some side by side: most of their time they wait for leases, containers
//! and times to live, not for the processor.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::ci::{BUILD, cargo_program};
use crate::inotify;
use crate::repository_root;

/// The folder of the package whose tests need real clusters.
const PACKAGE: &str = "e2e";

/// Programs side by side.
pub(crate) const LANES: usize = 5;

/// Programs that start real nodes run one after the other, in this order, beside the others: containers of several
/// real nodes on two processors stand still for so long that their probes end them.
const ON_REAL_NODES: [&str; 9] = [
    "time_share_real_node",
    "upgrade_real_node",
    "install",
    "demo_time_share",
    "demo",
    "demo_upgrade",
    "batch_real_node",
    "real_node",
    "fault_proxy",
];

/// These start real nodes too, but their containers have no probes, and they wait for what a metrics server tells
/// every few seconds: one of them may run beside one of the others, where the machine lets so many components watch
/// their files.
const MEASURED_ON_REAL_NODES: [&str; 2] = ["batch_load", "batch_usage"];

/// What takes longest begins first, so that no lane waits for it in the end; the others follow by name.
const LONGEST: [&str; 17] = [
    "time_share_kwok",
    "upgrade_kwok",
    "batch_peaks",
    "time_share_windows",
    "batch_profile",
    "demo_batch",
    "upgrade_stale",
    "time_share_random",
    "upgrade_random",
    "time_share_crash",
    "upgrade_crash",
    "plumbing_brake",
    "batch_citizen",
    "plumbing_conditions",
    "plumbing_faults",
    "batch_crash",
    "plumbing_recovery",
];

/// Programs whose tests wait for minutes of the clock, and so run all at once.
const BY_THE_CLOCK: [&str; 3] = ["batch_peaks", "batch_profile", "time_share_windows"];

/// How far the heaps of the servers of Kubernetes grow between two collections, in percent (GOGC of the Go runtime). They
/// live for a minute or two and share two processors: by default a quarter of their start is spent on collecting.
const GO_HEAP_GROWTH: &str = "300";

/// A test program that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    name: String,
    path: PathBuf,
}

/// Programs of which one runs at a time.
struct InTurn {
    waiting: VecDeque<Program>,
    /// The one that a lane runs.
    runs: Option<Program>,
}

impl InTurn {
    fn ended(&mut self, done: &Program) {
        self.runs.take_if(|runs| runs == done);
    }

    fn next(&mut self) -> Option<Program> {
        if self.runs.is_some() {
            return None;
        }
        self.runs = self.waiting.pop_front();
        self.runs.clone()
    }
}

/// The programs that have not begun.
struct Waiting {
    in_turn: Vec<InTurn>,
    others: VecDeque<Program>,
}

impl Waiting {
    fn new(mut programs: BTreeMap<String, PathBuf>, nodes_side_by_side: bool) -> Self {
        let mut first = |names: &[&str]| -> VecDeque<_> {
            let found = names.iter().filter_map(|name| programs.remove_entry(*name));
            found.map(|(name, path)| Program { name, path }).collect()
        };
        let (mut measured, on_real_nodes) = (first(&MEASURED_ON_REAL_NODES), first(&ON_REAL_NODES));
        let lists = if nodes_side_by_side {
            vec![measured, on_real_nodes]
        } else {
            measured.extend(on_real_nodes);
            vec![measured]
        };
        let in_turn = lists.into_iter().map(|waiting| InTurn { waiting, runs: None }).collect();
        let mut others = first(&LONGEST);
        others.extend(programs.into_iter().map(|(name, path)| Program { name, path }));
        Self { in_turn, others }
    }

    /// The next program for a lane that has run `done`.
    fn next(&mut self, done: Option<&Program>) -> Option<Program> {
        if let Some(done) = done {
            self.in_turn.iter_mut().for_each(|programs| programs.ended(done));
        }
        self.in_turn.iter_mut().find_map(InTurn::next).or_else(|| self.others.pop_front())
    }
}

/// The programs by name, as the stage that builds everything has left them. A `cargo test` of one of them would
/// unite the features of fewer packages, and compile kube and all above it once more.
pub(crate) fn programs() -> Result<BTreeMap<String, PathBuf>> {
    let output = Command::new(cargo_program())
        .args(BUILD)
        .arg("--message-format=json-render-diagnostics")
        .current_dir(repository_root())
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo build")?;
    if !output.status.success() {
        bail!("`cargo {}` ended with {}", BUILD.join(" "), output.status);
    }
    let said = String::from_utf8(output.stdout).context("reading what cargo built")?;
    let manifest = repository_root().join(PACKAGE).join("Cargo.toml");
    Ok(said.lines().filter_map(|line| Artifact::read(line)?.program_of(&manifest)).collect())
}

/// What is read of a line in which cargo tells of something that it built.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Artifact {
    /// `None` where the line tells of something else.
    fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }

    /// The name and the path of an integration test of the package with this manifest.
    fn program_of(self, manifest: &Path) -> Option<(String, PathBuf)> {
        let is_test = self.manifest_path == manifest && self.target.kind == ["test"];
        self.executable.filter(|_| is_test).map(|path| (self.target.name, path))
    }
}

/// So many lines of a failed program are shown once more at the end.
const LAST_LINES: usize = 60;

/// Runs each test program by itself, `lanes` at a time; shows what one has said when it ends, and at the end once more
/// what the failed ones said last.
///
/// # Errors
/// Names the programs that failed.
pub(crate) fn run(
    programs: BTreeMap<String, PathBuf>,
    environment: &[(&str, OsString)],
    lanes: usize,
) -> Result<()> {
    let instances = inotify::enough();
    let waiting = Mutex::new(Waiting::new(programs, instances.is_some()));
    let failed = Mutex::new(Vec::new());
    // A panic in one lane fails the scope; the lists are whole at every point.
    let next = |done: Option<&Program>| waiting.lock().unwrap_or_else(PoisonError::into_inner).next(done);
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                let mut waits = next(None);
                while let Some(program) = waits {
                    eprintln!("    e2e {} ...", program.name);
                    let started = Instant::now();
                    let ran = run_tests(&program, environment);
                    let seconds = started.elapsed().as_secs();
                    let (output, passed) = match ran {
                        Ok(output) => {
                            let text = [output.stderr, output.stdout].concat();
                            (String::from_utf8_lossy(&text).into_owned(), output.status.success())
                        }
                        Err(error) => (format!("{error:#}"), false),
                    };
                    // One call, so that the lanes' words stay apart.
                    println!("{output}\n    e2e {}: {seconds} s", program.name);
                    waits = next(Some(&program));
                    if !passed {
                        let last = last_words(&output);
                        failed.lock().unwrap_or_else(PoisonError::into_inner).push((program.name, last));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.is_empty() {
        return Ok(());
    }
    for (name, last) in &failed {
        println!("\n    e2e {name} FAILED:\n{last}");
    }
    bail!("these tests failed: {}", failed.iter().map(|(name, _)| &**name).collect::<Vec<_>>().join(", "))
}

/// The end of what a failed program said: libtest ends with what each failed test said, and their names. Frames of
/// backtraces, of which the names are hundreds of characters long, are left out.
fn last_words(output: &str) -> String {
    let is_frame = |line: &str| {
        let line = line.trim_start();
        let number = line.split_once(": ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        number || line.starts_with("at /") || line.starts_with("at ./")
    };
    let lines: Vec<&str> = output.lines().filter(|line| !is_frame(line)).collect();
    let failures = lines.iter().position(|line| *line == "failures:").unwrap_or(0);
    lines[failures.max(lines.len().saturating_sub(LAST_LINES))..].join("\n")
}

/// Each program has one cluster; two tests at a time use it without crowding it.
fn run_tests(program: &Program, environment: &[(&str, OsString)]) -> Result<Output> {
    let threads = if BY_THE_CLOCK.contains(&&*program.name) { 8 } else { 2 };
    Command::new(&program.path)
        .arg(format!("--test-threads={threads}"))
        .env("CARGO", cargo_program())
        .env("GOGC", GO_HEAP_GROWTH)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir(repository_root().join(PACKAGE))
        .output()
        .with_context(|| format!("starting {}", program.path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;

    /// Names of the programs, by their sources.
    fn names() -> BTreeSet<String> {
        let folder = repository_root().join(PACKAGE).join("tests");
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// Whether a program's source, a file or a folder of files, starts a real node.
    fn starts_a_node(name: &str) -> bool {
        let source = repository_root().join(PACKAGE).join("tests").join(name);
        let says_so = |path: &Path| fs::read_to_string(path).unwrap().contains("springtide_e2e::node::");
        match source.is_dir() {
            true => fs::read_dir(source).unwrap().any(|entry| says_so(&entry.unwrap().path())),
            false => says_so(&source.with_extension("rs")),
        }
    }

    #[test]
    fn last_words_are_what_failed_tests_said() {
        let said = "noise\nfailures:\n\n---- a stdout ----\nwhy\n  12: frame\n      at ./tests/a.rs:1:2\n\nfailures:\n    a\n";
        assert_eq!(last_words(said), "failures:\n\n---- a stdout ----\nwhy\n\nfailures:\n    a");
        let long: String = (0..100).map(|line| format!("{line}\n")).collect();
        assert!(last_words(&long).starts_with("40\n") && last_words(&long).ends_with("99"));
    }

    #[test]
    fn the_list_of_programs_on_real_nodes_is_that_of_the_sources() {
        let found: BTreeSet<_> = names().into_iter().filter(|name| starts_a_node(name)).collect();
        let listed = ON_REAL_NODES.iter().chain(&MEASURED_ON_REAL_NODES);
        assert_eq!(found, listed.map(|name| (*name).to_owned()).collect());
    }

    #[test]
    fn each_program_runs_once_and_no_two_of_those_on_real_nodes_together() {
        let names = names();
        assert!(LONGEST.iter().all(|name| names.contains(*name) && !starts_a_node(name)));
        let programs: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), name.into())).collect();
        for nodes_side_by_side in [true, false] {
            let mut waiting = Waiting::new(programs.clone(), nodes_side_by_side);
            let mut lanes: [Option<Program>; LANES] = [const { None }; LANES];
            let mut seen = Vec::new();
            // The lanes end in turn.
            for turn in 0.. {
                let lane = &mut lanes[turn % LANES];
                let done = lane.take();
                *lane = waiting.next(done.as_ref());
                seen.extend(lane.iter().map(|program| program.name.clone()));
                let of = |list: &[&str]| {
                    lanes.iter().flatten().filter(|program| list.contains(&program.name.as_str())).count()
                };
                let (measured, on_real_nodes) = (of(&MEASURED_ON_REAL_NODES), of(&ON_REAL_NODES));
                assert!(measured <= 1 && on_real_nodes <= 1, "{lanes:?}");
                assert!(nodes_side_by_side || measured + on_real_nodes <= 1, "{lanes:?}");
                if lanes.iter().all(Option::is_none) {
                    break;
                }
            }
            assert_eq!(seen.len(), names.len());
            assert_eq!(BTreeSet::from_iter(seen), names);
        }
    }

    #[test]
    fn of_what_cargo_built_the_integration_tests_of_the_package_are_programs() {
        let line = |kind: &str, executable: &str| {
            format!(
                r#"{{"reason": "compiler-artifact", "manifest_path": "/e2e/Cargo.toml",
                "target": {{"name": "a", "kind": ["{kind}"]}}, "executable": {executable}}}"#
            )
        };
        let program = |line: &str, manifest: &str| Artifact::read(line)?.program_of(Path::new(manifest));
        let test = line("test", r#""/target/a-1""#);
        assert_eq!(program(&test, "/e2e/Cargo.toml"), Some(("a".to_owned(), "/target/a-1".into())));
        assert_eq!(program(&test, "/other/Cargo.toml"), None);
        assert_eq!(program(&line("bin", r#""/target/a-1""#), "/e2e/Cargo.toml"), None);
        assert_eq!(program(&line("lib", "null"), "/e2e/Cargo.toml"), None);
        assert_eq!(program(r#"{"reason": "build-finished", "success": true}"#, "/e2e/Cargo.toml"), None);
    }
}
