//! Where test binaries come from and where built ones are kept.
//!
//! Looked up in this order: `SPRINGTIDE_BIN` (a folder that has them all),
//! `KUBEBUILDER_ASSETS` (a folder with etcd, kube-apiserver and kubectl, as
//! other operator projects use it), our own cache. A binary appears in the
//! cache by a rename, so what is there is whole, and the folder's name is the
//! hash of everything that went into it, so what is there is right.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::table::{MODULES, Module, Tool};

/// The tools that `KUBEBUILDER_ASSETS` is known to hold.
const ASSETS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];

/// Makes binaries of one module; real is [`super::go::Go`], tests have their own.
pub(crate) trait Build {
    /// Writes an executable file for each of `tools` into the folder `into`,
    /// under the tool's name.
    fn build(&self, module: &Module, tools: &[&Tool], into: &Path) -> Result<()>;
}

/// Name of the cache folder: a hash of the pinned modules (`go.mod` and
/// `go.sum` below `folder`) and of the flags they are built with.
pub(crate) fn hash(folder: &Path, modules: &[Module]) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| {
        // With its length, so that text never moves between parts unseen.
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    };
    for module in modules {
        add(module.folder.as_bytes());
        for name in ["go.mod", "go.sum"] {
            let path = folder.join(module.folder).join(name);
            add(&fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
        }
        add(&[u8::from(module.cgo)]);
        for flag in module.flags() {
            add(flag.as_bytes());
        }
    }
    // 64 bits tell versions apart; paths stay short.
    Ok(hex::encode(&hasher.finalize()[..8]))
}

/// The places that may hold binaries, as the environment names them.
pub(crate) struct Sources {
    /// `SPRINGTIDE_BIN`: used as it is.
    pub(crate) given: Option<PathBuf>,
    /// `KUBEBUILDER_ASSETS`: preferred for the tools in [`ASSETS`].
    pub(crate) assets: Option<PathBuf>,
    /// Parent of all cache folders.
    pub(crate) cache: PathBuf,
}

impl Sources {
    /// Reads the environment of this process.
    pub(crate) fn from_env() -> Result<Self> {
        Self::from_lookup(|name| env::var_os(name))
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let folder = |name| lookup(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let cache = folder("XDG_CACHE_HOME")
            // The XDG specification has relative paths ignored.
            .filter(|path| path.is_absolute())
            .or_else(|| folder("HOME").map(|home| home.join(".cache")))
            .context(
                "neither XDG_CACHE_HOME nor HOME is set: there is no place for the built test binaries",
            )?;
        Ok(Self {
            given: folder("SPRINGTIDE_BIN"),
            assets: folder("KUBEBUILDER_ASSETS"),
            cache: cache.join("springtide"),
        })
    }

    /// One folder with all of `wanted`, after building what is nowhere yet.
    pub(crate) fn provide(
        &self,
        hash: &str,
        wanted: &[&'static Tool],
        builder: &impl Build,
    ) -> Result<PathBuf> {
        if let Some(given) = &self.given {
            let missing = missing(given, wanted);
            if !missing.is_empty() {
                bail!(
                    "SPRINGTIDE_BIN={} lacks {}; unset it to have them built",
                    given.display(),
                    names(&missing)
                );
            }
            return Ok(absolute(given));
        }
        let home = self.cache.join(hash);
        let Some(assets) = self.assets.as_deref().map(absolute) else {
            build_missing(&home, wanted, builder)?;
            return Ok(home.join("bin"));
        };
        let is_asset = |tool: &&Tool| ASSETS.contains(&tool.name) && is_executable(&assets.join(tool.name));
        let (from_assets, ours): (Vec<&'static Tool>, Vec<&'static Tool>) =
            wanted.iter().copied().partition(is_asset);
        build_missing(&home, &ours, builder)?;
        let links = home.join(format!("bin-with-assets-{}", short_hash(&assets)));
        fs::create_dir_all(&links).with_context(|| format!("making {}", links.display()))?;
        for (tools, folder) in [(from_assets, assets), (ours, home.join("bin"))] {
            for tool in tools {
                link(&folder.join(tool.name), &links.join(tool.name))?;
            }
        }
        Ok(links)
    }
}

/// Builds into `home/bin` what it lacks of `wanted`. Callers in other threads
/// and processes wait for each other on `home/lock`, so each binary is built
/// once; the lock ends with its holder, however that ends.
fn build_missing(home: &Path, wanted: &[&'static Tool], builder: &impl Build) -> Result<()> {
    let bin = home.join("bin");
    if missing(&bin, wanted).is_empty() {
        return Ok(());
    }
    fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
    let _lock = lock(&home.join("lock"))?;
    let missing = missing(&bin, wanted);
    clear_staging(home)?;
    // Of this process alone: the compiler of a killed one may still be writing to its own.
    let staging = home.join(format!("{STAGING}{}", process::id()));
    for module in MODULES {
        let tools: Vec<&Tool> = missing
            .iter()
            .copied()
            .filter(|tool| module.tools.iter().any(|of| of.name == tool.name))
            .collect();
        if tools.is_empty() {
            continue;
        }
        fs::create_dir(&staging).with_context(|| format!("making {}", staging.display()))?;
        builder.build(module, &tools, &staging)?;
        for tool in tools {
            fs::rename(staging.join(tool.name), bin.join(tool.name))
                .with_context(|| format!("moving the new {} into {}", tool.name, bin.display()))?;
        }
        fs::remove_dir_all(&staging).with_context(|| format!("removing {}", staging.display()))?;
    }
    Ok(())
}

/// How the names of folders begin in which builders put what is not yet whole.
const STAGING: &str = "staging-";

/// Removes what killed or failed builders left; the caller holds the lock, so
/// no other builder is at work.
fn clear_staging(home: &Path) -> Result<()> {
    for entry in fs::read_dir(home).with_context(|| format!("listing {}", home.display()))? {
        let entry = entry.with_context(|| format!("listing {}", home.display()))?;
        if entry.file_name().as_encoded_bytes().starts_with(STAGING.as_bytes()) {
            let left = entry.path();
            fs::remove_dir_all(&left).with_context(|| format!("removing {}", left.display()))?;
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!("Waiting for another process that builds test binaries in {}", path.display());
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("locking {}", path.display()));
        }
    }
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Makes `at` a link to `target`, never absent in between.
fn link(target: &Path, at: &Path) -> Result<()> {
    if fs::read_link(at).is_ok_and(|now| now == target) {
        return Ok(());
    }
    let mut temporary = at.as_os_str().to_owned();
    temporary.push(format!(".{}", process::id()));
    let make = || -> std::io::Result<()> {
        symlink(target, &temporary)?;
        fs::rename(&temporary, at)
    };
    make().with_context(|| format!("linking {} to {}", at.display(), target.display()))
}

fn missing(folder: &Path, wanted: &[&'static Tool]) -> Vec<&'static Tool> {
    wanted.iter().copied().filter(|tool| !is_executable(&folder.join(tool.name))).collect()
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.len() > 0 && meta.permissions().mode() & 0o111 != 0)
}

/// The tools' names for a message.
pub(crate) fn names(tools: &[&Tool]) -> String {
    tools.iter().map(|tool| tool.name).collect::<Vec<_>>().join(", ")
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn short_hash(path: &Path) -> String {
    hex::encode(&Sha256::digest(path.as_os_str().as_encoded_bytes())[..4])
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
