//! Random tests of the workspace, run in full, and what they count.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::cargo::cargo;

/// What stands before a count in what a test prints; behind it stands its JSON, to the end of the line.
const MARKER: &str = "counted: ";
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

/// Runs these tests, which are named in full, with their long loops; they are tests of the libraries of the workspace
/// and of these test programs of it. Cargo builds them as `make test` does, and tells of it.
///
/// # Errors
/// They do not build, a count cannot be read, or a test fails although it has counted no violation.
pub async fn run(programs: &[&str], tests: &[&str]) -> Result<Vec<Count>> {
    let child = tokio::process::Command::from(cargo())
        // A test that counts violations fails, and those of the other programs are to run all the same.
        .args(["test", "--workspace", "--no-fail-fast", "--lib"])
        .args(programs.iter().flat_map(|program| ["--test", *program]))
        .args(["--", "--exact", "--nocapture"])
        .args(tests)
        .env("SPRINGTIDE_LONG", "1")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("run cargo for tests")?;
    let output = child.wait_with_output().await.context("wait for tests")?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let counts = counts(&printed)?;
    if !output.status.success() && counts.iter().all(|counted| counted.violations == 0) {
        let lines: Vec<&str> = printed.lines().collect();
        let end = lines[lines.len().saturating_sub(LINES)..].join("\n");
        bail!("{} ended with {}:\n{end}", tests.join(", "), output.status);
    }
    Ok(counts)
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
}
