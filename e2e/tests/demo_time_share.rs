//! The demo of time-share groups as its users run it: each of its promises is kept, and nothing of it is left.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use springtide_e2e::node::required_or_skipped;
use springtide_e2e::polling::until_seen;
use tokio::process::Command;

/// Bound for its end: by the clock it takes four minutes, and it gives up by itself.
const PATIENCE: Duration = Duration::from_secs(900);
/// Bound for what its guardian removes, a moment after it has ended.
const REMOVAL: Duration = Duration::from_secs(120);

async fn run(temporary: &Path, environment: &[(&str, &str)]) -> Result<(Output, String)> {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo-time-share"));
    demo.env("TMPDIR", temporary).envs(environment.iter().copied()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, demo.output()).await;
    let output = ended.context("the demo does not end")??;
    let said = [&*output.stdout, &*output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Ok((output, said))
}

#[tokio::test]
async fn the_demo_of_a_day_keeps_what_it_promises_and_leaves_nothing() -> Result<()> {
    if !required_or_skipped().await? {
        return Ok(());
    }
    let temporary = tempfile::tempdir()?;
    let (output, said) = run(temporary.path(), &[]).await?;
    ensure!(output.status.success(), "{}:\n{said}", output.status);
    ensure!(said.contains("\nAll as it should be after "), "{said}");
    for promise in [
        "promo has its peak size and all traffic in its peak",
        "payment has its peak size and all traffic in its peak",
        "promo has it by hand inside the other one's peak",
        "payment has it back when the override is gone",
        "they are the same pods all day",
        "no request to promo is lost",
        "batch has what the services leave",
    ] {
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

#[tokio::test]
async fn without_a_real_node_the_demo_says_what_it_needs() -> Result<()> {
    let temporary = tempfile::tempdir()?;
    let (output, said) = run(temporary.path(), &[("SPRINGTIDE_NODE", "off")]).await?;
    ensure!(output.status.code() == Some(1), "{}", output.status);
    ensure!(said.lines().count() == 1 && said.contains("needs a real node"), "{said}");
    Ok(())
}
