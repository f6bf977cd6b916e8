//! Programs that cargo installs, for chores that few machines run.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{ci, debian, tools};

/// A program on crates.io, by the name of its package.
pub(crate) struct CargoTool {
    pub(crate) name: &'static str,
    /// Installed when the machine has none of its own.
    pub(crate) version: &'static str,
}

impl CargoTool {
    /// The machine's own, or ours, installed into the cache at first use.
    pub(crate) fn provide(&self) -> Result<PathBuf> {
        let Self { name, version } = self;
        if let Some(found) = debian::find_program(name) {
            return Ok(found);
        }
        let root = tools::cache_folder()?.join(format!("{name}-{version}"));
        let program = root.join("bin").join(name);
        if !program.is_file() {
            eprintln!("Installing {name} {version} into {}: it compiles for some minutes.", root.display());
            let root = root.to_str().context("the path of the cache is not UTF-8")?;
            ci::cargo(&["install", "--locked", "--root", root, "--version", version, name], &[])?;
        }
        Ok(program)
    }
}
