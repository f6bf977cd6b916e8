//! The project's own chores, run as `cargo xtask <chore>`; `make` is the
//! short form for people.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {}

fn main() -> Result<()> {
    match Args::parse().chore {}
}

/// Root folder of the clone this binary was built from.
fn repository_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}
