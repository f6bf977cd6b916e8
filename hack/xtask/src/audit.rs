//! `cargo xtask audit`: licences, banned crates, sources and known
//! vulnerabilities of the dependencies, by cargo-deny and `deny.toml`.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cargo_tools::CargoTool;
use crate::repository_root;

const CARGO_DENY: CargoTool = CargoTool { name: "cargo-deny", version: "0.20.2" };

/// Runs the checks; fails at the first that does not hold.
pub(crate) fn run() -> Result<()> {
    let deny = CARGO_DENY.provide()?;
    check(&deny, &["bans", "licenses", "sources"])?;
    // A machine without access to that database shall still see the rest pass.
    let fetched = Command::new(&deny)
        .args(["fetch", "db"])
        .current_dir(repository_root())
        .stdin(Stdio::null())
        .output()
        .context("starting cargo-deny")?;
    if !fetched.status.success() {
        // Git's own reason is the last it says.
        let said = String::from_utf8_lossy(&fetched.stderr).into_owned();
        eprintln!(
            "Advisories were NOT checked: their database cannot be reached ({}).",
            said.trim_end().lines().next_back().unwrap_or("no reason given")
        );
        return Ok(());
    }
    check(&deny, &["--disable-fetch", "advisories"])
}

fn check(deny: &Path, what: &[&str]) -> Result<()> {
    let status = Command::new(deny)
        .args(["check", "--hide-inclusion-graph"])
        .args(what)
        .current_dir(repository_root())
        .status()
        .context("starting cargo-deny")?;
    if !status.success() {
        bail!("`cargo deny check {}` found something to mend: see above", what.join(" "));
    }
    Ok(())
}
