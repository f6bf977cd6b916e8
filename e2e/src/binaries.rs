//! Where the test binaries (etcd, kube-apiserver, containerd and so on) are found.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::cargo;

/// The folders that hold the test binaries.
#[derive(Debug, Clone)]
pub struct Binaries {
    folders: Vec<PathBuf>,
}

impl Binaries {
    /// Takes `SPRINGTIDE_BIN` when it is set. Else `KUBEBUILDER_ASSETS` (which has only
    /// etcd, kube-apiserver and kubectl) goes before the cache of `cargo xtask tools`,
    /// which is asked for its path; it must have been filled before.
    ///
    /// # Errors
    /// `SPRINGTIDE_BIN` is not a folder, or the cache cannot be found.
    pub fn locate() -> Result<Self> {
        if let Some(folder) = folder_of("SPRINGTIDE_BIN")? {
            return Ok(Self { folders: vec![folder] });
        }
        let mut folders: Vec<PathBuf> = folder_of("KUBEBUILDER_ASSETS")?.into_iter().collect();
        folders.push(cache()?);
        Ok(Self { folders })
    }

    /// Absolute path of a binary.
    ///
    /// # Errors
    /// No folder has it; the message says how to build it.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let found = self.folders.iter().map(|folder| folder.join(name));
        match found.into_iter().find(|path| path.is_file()) {
            Some(path) => Ok(path),
            None => {
                let folders: Vec<String> =
                    self.folders.iter().map(|folder| folder.display().to_string()).collect();
                bail!("{name} is not in {}: run `cargo xtask tools` to build it", folders.join(" or "))
            }
        }
    }

    /// The folders joined for a PATH variable, first one first.
    #[must_use]
    pub fn search_path(&self) -> String {
        let folders: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        folders.join(":")
    }
}

/// The folder named by an environment variable, absolute.
fn folder_of(variable: &str) -> Result<Option<PathBuf>> {
    let Some(value) = env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let folder = Path::new(&value);
    ensure!(folder.is_dir(), "{variable} is {}, which is not a folder", folder.display());
    let absolute = std::path::absolute(folder).with_context(|| format!("resolve {variable}"))?;
    Ok(Some(absolute))
}

/// Asks `cargo xtask tools` for its cache, since the path depends on a hash that
/// only it knows.
fn cache() -> Result<PathBuf> {
    let output = cargo()
        .args(["xtask", "tools", "--print-path"])
        .output()
        .context("run `cargo xtask tools --print-path`; or set SPRINGTIDE_BIN")?;
    ensure!(
        output.status.success(),
        "`cargo xtask tools --print-path` failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let printed = String::from_utf8(output.stdout).context("the path is not UTF-8")?;
    let folder = PathBuf::from(printed.trim());
    ensure!(
        folder.is_absolute(),
        "`cargo xtask tools --print-path` printed {printed:?}, which is not a path"
    );
    Ok(folder)
}
