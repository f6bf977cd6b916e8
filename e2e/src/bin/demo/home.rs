//! The one demo of a user: who holds it, and what it is made of.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use springtide_e2e::node::leftovers::Footprint;
use springtide_e2e::process::start_time;

/// The process that holds a demo, and its cluster once that is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pid: i32,
    /// In clock ticks after boot: with the pid it names one process for good.
    started: u64,
    /// When it began.
    pub(crate) since: Timestamp,
    /// Absent while it starts.
    pub(crate) cluster: Option<Cluster>,
}

/// Where users find a running cluster, and all that must be gone after its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// Of an administrator.
    pub(crate) kubeconfig: PathBuf,
    /// For counting writes.
    pub(crate) audit_log: PathBuf,
    /// The samples that suit the node, a pattern for `kubectl apply -f`.
    pub(crate) samples: String,
    /// Name of the node.
    pub(crate) node: String,
    /// What to look for when nothing may be left.
    pub(crate) footprint: Footprint,
}

impl State {
    /// The state of the calling process, before it has a cluster.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(crate) fn own() -> Result<Self> {
        let pid = i32::try_from(std::process::id()).context("pid out of range")?;
        Ok(Self { pid, started: start_time(pid)?, since: Timestamp::now(), cluster: None })
    }

    /// Pid of the process, while it is still that process.
    pub(crate) fn live_pid(&self) -> Option<i32> {
        start_time(self.pid).is_ok_and(|started| started == self.started).then_some(self.pid)
    }
}

/// The folder of a user's demo, `$XDG_STATE_HOME/springtide/demo`.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    folder: PathBuf,
}

/// The right to be the demo of this user; it ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Claim {
    home: Home,
    // A lock on the folder itself leaves no lock file behind.
    _lock: File,
}

impl Home {
    /// The one of this user.
    ///
    /// # Errors
    /// Neither `XDG_STATE_HOME` nor `HOME` is set.
    pub(crate) fn of_user() -> Result<Self> {
        let own = |variable: &str| {
            let value = std::env::var_os(variable).map(PathBuf::from);
            // As the specification of XDG says, others are to be ignored.
            value.filter(|path| path.is_absolute())
        };
        let state = own("XDG_STATE_HOME")
            .or_else(|| own("HOME").map(|home| home.join(".local/state")))
            .context("no folder for the demo's state: set XDG_STATE_HOME or HOME to an absolute path")?;
        Ok(Self { folder: state.join("springtide/demo") })
    }

    fn state_file(&self) -> PathBuf {
        self.folder.join("state.json")
    }

    /// Log of the process that holds the demo.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("demo.log")
    }

    /// Takes the demo; `None` when another process has it.
    ///
    /// # Errors
    /// The folder cannot be made or locked.
    pub(crate) fn claim(&self) -> Result<Option<Claim>> {
        let shown = || self.folder.display().to_string();
        loop {
            fs::create_dir_all(&self.folder).with_context(|| format!("make {}", shown()))?;
            let lock = File::open(&self.folder).with_context(|| format!("open {}", shown()))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("lock {}", shown()));
                }
            }
            // Whoever had it before may have removed the folder between the two calls.
            let locked = lock.metadata().with_context(|| format!("read {}", shown()))?;
            if fs::metadata(&self.folder).is_ok_and(|now| now.ino() == locked.ino()) {
                return Ok(Some(Claim { home: self.clone(), _lock: lock }));
            }
        }
    }

    /// Whether there is anything of a demo, running or not.
    pub(crate) fn exists(&self) -> bool {
        self.folder.exists()
    }

    /// What the process that holds the demo says of itself; it stays when that is killed.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(crate) fn state(&self) -> Result<Option<State>> {
        let path = self.state_file();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let state = serde_json::from_slice(&text);
        state.map(Some).with_context(|| format!("read {}: not the state of a demo", path.display()))
    }

    /// # Errors
    /// A demo of this user runs: with where it is and how to end it.
    pub(crate) fn ensure_free(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        match self.claim()? {
            Some(claim) => {
                // Made by a demo that was killed, and now ours to use again or remove.
                drop(claim);
                Ok(())
            }
            None => bail!("{}", self.taken()?),
        }
    }

    /// What to tell somebody who wants a demo while there is one.
    ///
    /// # Errors
    /// The state cannot be read.
    pub(crate) fn taken(&self) -> Result<String> {
        let state = self.state()?;
        let since =
            state.as_ref().map(|state| format!(" since {}", shown_time(state.since))).unwrap_or_default();
        let cluster = state.and_then(|state| state.cluster);
        let kubeconfig = cluster
            .map(|cluster| format!("\nTo use it:    export KUBECONFIG={}", cluster.kubeconfig.display()));
        Ok(format!(
            "a demo of yours runs already{since}.{}\nTo end it:    make clean-local",
            kubeconfig.unwrap_or_default()
        ))
    }
}

impl Claim {
    /// Writes the state, whole or not at all.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn publish(&self, state: &State) -> Result<()> {
        let path = self.home.state_file();
        let part = path.with_extension("part");
        let write = || -> Result<()> {
            fs::write(&part, serde_json::to_vec_pretty(state)?)?;
            Ok(fs::rename(&part, &path)?)
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Removes state, log and folder, and gives the demo back.
    ///
    /// # Errors
    /// Something of it cannot be removed.
    pub(crate) fn remove(self) -> Result<()> {
        let folder = &self.home.folder;
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        // The folder of other things of Springtide, if there are any.
        if let Some(parent) = folder.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }
}

fn shown_time(time: Timestamp) -> String {
    let zoned = time.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Folder of this checkout, from which the commands that are shown can be repeated.
pub(crate) fn repository() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_has_one_holder_and_leaves_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { folder: folder.path().join("springtide/demo") };
        home.ensure_free().unwrap();
        assert!(!home.exists(), "looking makes nothing");
        let claim = home.claim().unwrap().unwrap();
        assert!(home.claim().unwrap().is_none());
        let state = State::own().unwrap();
        claim.publish(&state).unwrap();
        assert_eq!(home.state().unwrap().unwrap().live_pid(), Some(std::process::id().cast_signed()));
        let refusal = home.ensure_free().unwrap_err().to_string();
        assert!(refusal.contains("make clean-local"), "{refusal}");
        claim.remove().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_state_of_a_killed_demo_names_no_live_process() {
        let state = State { started: 1, ..State::own().unwrap() };
        assert_eq!(state.live_pid(), None, "a later process with its number");
    }
}
