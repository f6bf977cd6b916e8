//! The demo of peak windows as its users run it: each of its promises is kept, and nothing of it is left.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use springtide_e2e::polling::until_seen;
use tokio::process::Command;

/// Bound for its end: by the clock it takes three to four minutes, and it gives up by itself.
const PATIENCE: Duration = Duration::from_secs(900);
/// Bound for what its guardian removes, a moment after it has ended.
const REMOVAL: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_demo_of_peak_windows_keeps_what_it_promises_and_leaves_nothing() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo-batch"));
    demo.env("TMPDIR", temporary.path()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, demo.output()).await;
    let output = ended.context("the demo does not end")??;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success(), "{}:\n{said}", output.status);
    ensure!(said.contains("\nAll as it should be after "), "{said}");
    for promise in ["BestEffort is gone when it opens", "the pods come back, not faster than the ramp"] {
        ensure!(
            said.lines().any(|line| line.starts_with("ok ") && line.contains(promise)),
            "{promise}: {said}"
        );
    }
    until_seen(REMOVAL, "nothing of it is left", async || {
        let entries = std::fs::read_dir(temporary.path())?.map(|entry| entry.map(|entry| entry.file_name()));
        let left = entries.collect::<Result<Vec<_>, _>>()?;
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await
}
