//! `cargo xtask tools`: the test binaries (etcd, Kubernetes, KWOK, promtool, containerd
//! and what belongs to it), built from the modules pinned in `hack/tools` into
//! a cache outside the clone, or taken from where the user has them.

mod cache;
mod go;
mod progress;
mod table;

use std::env;
use std::path::PathBuf;

use anyhow::Result;

/// Flags of `cargo xtask tools`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print the folder that holds the binaries, and nothing else, to stdout.
    #[arg(long)]
    print_path: bool,
    /// Tools or groups (control-plane, kwok, node, install, monitoring, peers) to provide; when none is named,
    /// all but the peers of the bench, and those of a real node only without SPRINGTIDE_NODE=off.
    tools: Vec<String>,
}

/// Provides the named tools; a second run only looks whether they are there.
pub(crate) fn run(args: &Args) -> Result<()> {
    let folder = provide(&args.tools)?;
    if args.print_path {
        println!("{}", folder.display());
    } else {
        eprintln!("The test binaries are in {}", folder.display());
    }
    Ok(())
}

/// Builds what is missing of `names` (see [`Args`] for when there are none) and
/// returns the one folder that holds them all.
pub(crate) fn provide(names: &[String]) -> Result<PathBuf> {
    let mut wanted = table::select(names)?;
    if names.is_empty() && env::var_os("SPRINGTIDE_NODE").is_some_and(|value| value == "off") {
        wanted.retain(|tool| tool.group != table::Group::Node);
    }
    let modules = crate::repository_root().join("hack/tools");
    let hash = |module: &table::Module| cache::hash(&modules, module);
    let sources = cache::Sources::from_env()?;
    sources.provide(hash, &wanted, &go::Go { modules: modules.clone() })
}

/// Where built programs are kept, outside the clone.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    Ok(cache::Sources::from_env()?.cache)
}
