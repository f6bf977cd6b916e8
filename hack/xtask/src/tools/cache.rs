//! Where test binaries come from and where built ones are kept.
//!
//! Looked up in this order: `SPRINGTIDE_BIN` (a folder that has them all),
//! `KUBEBUILDER_ASSETS` (a folder with etcd, kube-apiserver and kubectl, as
//! other operator projects use it), our own cache. A binary appears in the
//! cache by a rename, so what is there is whole, and the name of its module's folder
//! has a hash of everything that went into it, so what is there is right. What is handed out is
//! one folder of links to them.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

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

/// The part of a module's cache folder's name that tells its versions apart: a hash of its pins (`go.mod` and
/// `go.sum` below `folder`) and of the flags it is built with.
pub(crate) fn hash(folder: &Path, module: &Module) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| {
        // With its length, so that text never moves between parts unseen.
        hasher.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hasher.update(part);
    };
    for name in ["go.mod", "go.sum"] {
        let path = folder.join(module.folder).join(name);
        add(&fs::read(&path).with_context(|| format!("reading {}", path.display()))?);
    }
    add(&[u8::from(module.cgo)]);
    for flag in module.flags() {
        add(flag.as_bytes());
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

    /// One folder with all of `wanted`, after building what is nowhere yet. `hash` tells the versions of a
    /// module apart: a change of one leaves the binaries of all others as they are.
    pub(crate) fn provide(
        &self,
        hash: impl Fn(&Module) -> Result<String>,
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
        let assets = self.assets.as_deref().map(absolute);
        let asset = |tool: &Tool| {
            let path = assets.as_ref()?.join(tool.name);
            (ASSETS.contains(&tool.name) && is_executable(&path)).then_some(path)
        };
        let homes: Vec<PathBuf> = MODULES
            .iter()
            .map(|module| Ok(self.cache.join(format!("{}-{}", module.folder, hash(module)?))))
            .collect::<Result<_>>()?;
        let mut targets = Vec::new();
        for (module, home) in MODULES.iter().zip(&homes) {
            let tools = wanted.iter().copied().filter(|tool| module.has(tool));
            let (from_assets, ours): (Vec<_>, Vec<_>) = tools.partition(|tool| asset(tool).is_some());
            build_missing(home, module, &ours, builder)?;
            targets.extend(from_assets.into_iter().filter_map(asset));
            targets.extend(ours.into_iter().map(|tool| home.join("bin").join(tool.name)));
        }
        // The same for each subset of the tools, so that its path can be kept.
        let all = homes.iter().chain(&assets).map(|path| path.as_os_str());
        let folder = self.cache.join(format!("bin-{}", short_hash(all)));
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        for target in targets {
            if let Some(name) = target.file_name() {
                link(&target, &folder.join(name))?;
            }
        }
        Ok(folder)
    }
}

/// Builds into `home/bin` what it lacks of `wanted`, which are of one module. Callers in other threads
/// and processes wait for each other on `home/lock`, so each binary is built
/// once; the lock ends with its holder, however that ends.
fn build_missing(home: &Path, module: &Module, wanted: &[&'static Tool], builder: &impl Build) -> Result<()> {
    let bin = home.join("bin");
    if missing(&bin, wanted).is_empty() {
        return Ok(());
    }
    fs::create_dir_all(&bin).with_context(|| format!("making {}", bin.display()))?;
    let _lock = lock(&home.join("lock"))?;
    let missing: Vec<&Tool> = missing(&bin, wanted);
    clear_staging(home)?;
    if missing.is_empty() {
        return Ok(());
    }
    // Of this process alone: the compiler of a killed one may still be writing to its own.
    let staging = home.join(format!("{STAGING}{}", process::id()));
    fs::create_dir(&staging).with_context(|| format!("making {}", staging.display()))?;
    builder.build(module, &missing, &staging)?;
    for tool in missing {
        fs::rename(staging.join(tool.name), bin.join(tool.name))
            .with_context(|| format!("moving the new {} into {}", tool.name, bin.display()))?;
    }
    fs::remove_dir_all(&staging).with_context(|| format!("removing {}", staging.display()))
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
    // Two threads may link the same.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let mut temporary = at.as_os_str().to_owned();
    temporary.push(format!(".{}-{}", process::id(), CALLS.fetch_add(1, Ordering::Relaxed)));
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

fn short_hash<'a>(paths: impl IntoIterator<Item = &'a OsStr>) -> String {
    let mut hasher = Sha256::new();
    for path in paths {
        // No path has a zero in it.
        hasher.update(path.as_encoded_bytes());
        hasher.update([0]);
    }
    hex::encode(&hasher.finalize()[..8])
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
