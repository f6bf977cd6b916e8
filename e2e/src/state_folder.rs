//! Temporary folders that are removed in every case.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::guardian::{Cleanup, Guarded, guard};

/// A private folder (mode 0700) below the system's temporary folder. It is
/// removed on drop, and by the guardian when this process ends without dropping.
/// With `SPRINGTIDE_KEEP=1` it stays, and its path is printed.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    guarded: Option<Guarded>,
}

/// Whether `SPRINGTIDE_KEEP` asks to keep state folders (any value but empty and `0`).
#[must_use]
pub fn keep_state() -> bool {
    std::env::var_os("SPRINGTIDE_KEEP").is_some_and(|value| !value.is_empty() && value != "0")
}

impl StateFolder {
    /// Makes `<temp>/springtide-<purpose>-<pid>-<random>`. The name is short, since
    /// Unix sockets below it may have paths of at most 107 bytes.
    ///
    /// # Errors
    /// The folder cannot be made, or the guardian cannot be started.
    pub fn create(purpose: &str) -> Result<Self> {
        let name =
            format!("springtide-{purpose}-{}-{:06x}", std::process::id(), rand::random::<u32>() & 0xff_ffff);
        let path = std::path::absolute(std::env::temp_dir()).context("find the temporary folder")?.join(name);
        let guarded = match keep_state() {
            true => None,
            false => Some(guard(&Cleanup::RemoveFolder(path.clone()))?),
        };
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("make the state folder {}", path.display()))?;
        Ok(Self { path, guarded })
    }

    /// Absolute path of the folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of an entry of the folder.
    #[must_use]
    pub fn join(&self, entry: impl AsRef<Path>) -> PathBuf {
        self.path.join(entry)
    }

    /// Makes a folder in it and gives its path.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn subfolder(&self, name: &str) -> Result<PathBuf> {
        let path = self.join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for StateFolder {
    fn drop(&mut self) {
        match self.guarded.take() {
            None => eprintln!("kept, as SPRINGTIDE_KEEP asks: {}", self.path.display()),
            Some(guarded) => match fs::remove_dir_all(&self.path) {
                Ok(()) => drop(guarded),
                Err(error) => {
                    eprintln!("{} is left to the guardian: {error}", self.path.display());
                    // It tries again at the end of the process.
                    std::mem::forget(guarded);
                }
            },
        }
    }
}
