//! Random tests of the workspace, run in full, and what they count.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cargo::cargo;

/// What stands before a count in what a test prints; behind it stands its JSON, to the end of the line.
const MARKER: &str = "counted: ";
/// With what the line begins in which a test program says what became of its tests.
const RESULT: &str = "test result: ";
/// Lines of what tests have printed that an error carries.
const LINES: usize = 20;

/// What a test has counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// What it is about; no two counts are about the same.
    pub what: String,
    /// Random steps, or clocks, or whatever it has tried.
    pub tries: u64,
    /// What was started in them: pods, or managers after a crash.
    pub starts: u64,
    /// How often something was that may not be.
    pub violations: u64,
}

impl Count {
    /// Prints it, as [`run`] finds it.
    ///
    /// # Errors
    /// Never, as it is plain.
    pub fn tell(&self) -> Result<()> {
        println!("{MARKER}{}", serde_json::to_string(self)?);
        Ok(())
    }
}

/// Runs these tests, which are named in full, with their long loops, one after the other; they are tests of the libraries of
/// the workspace and of these test programs of it. Cargo builds them as `make test` does, and tells of it. `environment`
/// says how much of them is run, where they ask for it.
///
/// # Errors
/// They do not build, a count cannot be read, or a test fails although it has counted no violation.
pub async fn run(programs: &[&str], tests: &[&str], environment: &[(&str, &str)]) -> Result<Vec<Count>> {
    let printed = printed(programs, tests, environment).await?;
    let counts = counts(&printed.text)?;
    if !printed.is_success && counts.iter().all(|counted| counted.violations == 0) {
        bail!("{} failed:\n{}", tests.join(", "), printed.end());
    }
    Ok(counts)
}

/// Runs these tests, which are named in full, of these test programs of the workspace, and counts them: each is a try and
/// was started, and one that fails is a violation.
///
/// # Errors
/// They do not build, or some have not run.
pub async fn passed(what: &str, programs: &[&str], tests: &[&str]) -> Result<Count> {
    let printed = printed(programs, tests, &[]).await?;
    let [passed, failed] = results(&printed.text);
    let ran = passed + failed;
    ensure!(ran == tests.len() as u64, "{ran} of {} tests have run:\n{}", tests.len(), printed.end());
    Ok(Count { what: what.to_owned(), tries: ran, starts: ran, violations: failed })
}

/// The count of something, of at least so many tries.
///
/// # Errors
/// No test has counted it, or fewer.
pub fn find(counts: &[Count], what: &str, least: u64) -> Result<Count> {
    let found = counts.iter().find(|counted| counted.what == what);
    let found = found.with_context(|| format!("no test has counted {what}"))?;
    ensure!(found.tries >= least && found.starts > 0, "those are not all: {found:?}");
    Ok(found.clone())
}

/// Whether a test, which is named in full, is in the source of a test program of this crate: a name that is none would be
/// told by a run that counts nothing.
#[must_use]
pub fn is_test_of(program: &str, test: &str) -> bool {
    let (module, name) = test.rsplit_once("::").unwrap_or(("main", test));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(program);
    let source = std::fs::read_to_string(folder.join(format!("{module}.rs"))).unwrap_or_default();
    source.contains(&format!("fn {name}("))
}

/// What tests have printed, and whether all have passed.
struct Printed {
    text: String,
    is_success: bool,
}

impl Printed {
    /// Its last lines.
    fn end(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

async fn printed(programs: &[&str], tests: &[&str], environment: &[(&str, &str)]) -> Result<Printed> {
    let child = tokio::process::Command::from(cargo())
        // A test that counts violations fails, and those of the other programs are to run all the same.
        .args(["test", "--workspace", "--no-fail-fast", "--lib"])
        .args(programs.iter().flat_map(|program| ["--test", *program]))
        // Two at a time would be in each other's way: some tell apart what a slow API server does.
        .args(["--", "--exact", "--nocapture", "--test-threads=1"])
        .args(tests)
        .env("SPRINGTIDE_LONG", "1")
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("run cargo for tests")?;
    let output = child.wait_with_output().await.context("wait for tests")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(Printed { text, is_success: output.status.success() })
}

/// How many tests have passed and failed, of all programs.
fn results(printed: &str) -> [u64; 2] {
    let of = |line: &str, word: &str| -> u64 {
        let before = line.split_once(&format!(" {word};")).map_or("", |(before, _)| before);
        before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
    };
    let ends = printed.lines().filter(|line| line.starts_with(RESULT));
    ends.fold([0, 0], |[passed, failed], line| [passed + of(line, "passed"), failed + of(line, "failed")])
}

/// The counts in what tests have printed. A line may begin with the name of the test.
fn counts(printed: &str) -> Result<Vec<Count>> {
    let found = printed.lines().filter_map(|line| line.split_once(MARKER));
    let read = |json: &str| serde_json::from_str::<Count>(json).with_context(|| format!("a count: {json}"));
    found.map(|(_, json)| read(json)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_wherever_a_test_prints_them() {
        let printed = "\nrunning 2 tests\n\
            test walk ... counted: {\"what\":\"a\",\"tries\":1000000,\"starts\":7,\"violations\":0}\n\
            counted: {\"what\":\"b\",\"tries\":1000,\"starts\":5,\"violations\":2}\nFAILED\n\
            test result: FAILED. 0 passed; 1 failed\n";
        let counted = |what: &str, tries, starts, violations| Count {
            what: what.to_owned(),
            tries,
            starts,
            violations,
        };
        assert_eq!(counts(printed).unwrap(), [counted("a", 1_000_000, 7, 0), counted("b", 1000, 5, 2)]);
        assert!(counts("running 0 tests\n").unwrap().is_empty());
        counts("counted: {\"what\":\"a\"}").unwrap_err();
    }

    #[test]
    fn a_test_is_one_of_its_program() {
        assert!(is_test_of("upgrade_crash", "a_crash_at_any_write_changes_no_end"));
        assert!(!is_test_of("upgrade_crash", "facts::a_crash_at_any_write_changes_no_end"));
        assert!(!is_test_of("upgrade_crashes", "a_crash_at_any_write_changes_no_end"));
    }

    #[test]
    fn a_count_is_found_if_it_is_whole() {
        let count = |tries, starts| Count { what: "a".to_owned(), tries, starts, violations: 1 };
        assert_eq!(find(&[count(10, 9)], "a", 10).unwrap(), count(10, 9));
        let error = find(&[count(10, 9)], "b", 1).unwrap_err().to_string();
        assert!(error.contains("no test has counted b"), "{error}");
        find(&[count(9, 9)], "a", 10).unwrap_err();
        find(&[count(10, 0)], "a", 10).unwrap_err();
    }

    #[test]
    fn results_of_all_programs_are_summed_up() {
        let printed = "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 812 filtered out\n\
            test a ... some words\nok\ntest b ... FAILED\n\
            test result: FAILED. 12 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.00s\n";
        assert_eq!(results(printed), [12, 1]);
        assert_eq!(results("error: could not compile"), [0, 0]);
    }
}
