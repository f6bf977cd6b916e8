//! The project's own chores, run as `cargo xtask <chore>`; `make` is the
//! short form for people.
//!
//! A library with a thin program: documentation tests select libraries alone, and without this one cargo
//! would unite other features for them and compile the types of Kubernetes once more.

mod audit;
mod bill;
mod cargo_tools;
mod check;
mod ci;
mod cluster_tests;
mod debian;
mod generate;
mod gitops;
mod image;
mod inotify;
mod manifests;
mod memory_folder;
mod monitoring;
mod schema;
mod tools;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about, disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check licences, banned crates, sources and advisories of the dependencies.
    Audit,
    /// Check that generated files are up to date and that the CRDs keep the rules of all kinds.
    Check,
    /// Run every stage of `make test` in order and print the minutes of each.
    Ci(ci::Args),
    /// Check that the Debian packages needed for builds and the real node are there.
    Deps(debian::Args),
    /// Write the files that are derived from Rust values: CRDs, samples, reference.
    Gen,
    /// Build the container image as an OCI archive, from a static program, without a container engine.
    Image(image::Args),
    /// Render the kustomize bases and config/install.yaml from the chart.
    Manifests,
    /// Build the pinned test binaries that are not yet in the cache.
    Tools(tools::Args),
}

/// Performs the chore that the command line names.
#[must_use]
pub fn run() -> ExitCode {
    match perform(Args::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One clear line: a backtrace through this program helps nobody.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(chore: Chore) -> Result<()> {
    match chore {
        Chore::Audit => audit::run(),
        Chore::Check => check::run(),
        Chore::Ci(args) => ci::run(&args),
        Chore::Deps(args) => debian::run(&args),
        Chore::Gen => generate::run(),
        Chore::Image(args) => image::run(&args),
        Chore::Manifests => manifests::run(),
        Chore::Tools(args) => tools::run(&args),
    }
}

/// Root folder of the clone this binary was built from.
fn repository_root() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).map(PathBuf::from).unwrap_or(manifest)
}
