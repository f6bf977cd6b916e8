//! Clean-up that happens even when this process is killed.
//!
//! `Drop` covers normal ends and panics, not SIGKILL, `process::exit` or a
//! `static`. So one small helper process holds the reading end of a pipe whose
//! only writer is this process: when the kernel closes it, for whatever reason,
//! the helper runs the actions that are still registered, newest first.
//!
//! The helper is a POSIX shell with an embedded script. A binary of this crate
//! would not exist for the tests of other crates (cargo builds binaries only for
//! the integration tests of their own package), and running this executable
//! again needs a hook before `main`, which test harnesses do not give. `/bin/sh`
//! is there for tests, examples and the demo alike. It has its own process
//! group, so that Ctrl-C ends only its owner.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};

const SCRIPT: &str = include_str!("guardian.sh");

/// Something that must not outlive this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cleanup {
    /// Removes a folder with its content; never descends into other file systems.
    /// The path must be absolute and have at least two components.
    RemoveFolder(PathBuf),
    /// Sends SIGKILL to a process group and waits for its end (at most 5 s).
    KillGroup {
        /// Id of the group, which is the pid of its leader.
        group: i32,
        /// Start time of the leader in clock ticks after boot (field 22 of
        /// `/proc/<pid>/stat`), which tells it from a later process with its number.
        started: u64,
    },
    /// Unmounts a path of the machine's own mount namespace, lazily when it is busy.
    Unmount(PathBuf),
    /// Kills every process of a cgroup and of those below, then removes them.
    RemoveCgroup(PathBuf),
    /// Runs a program (first word) with arguments, for at most 30 s.
    Run(Vec<String>),
}

impl Cleanup {
    /// The call of the script's function, with quoted arguments.
    fn to_shell(&self) -> Result<String> {
        let words: Vec<Vec<u8>> = match self {
            Self::RemoveFolder(path) => vec![b"remove_folder".to_vec(), removable(path)?],
            Self::KillGroup { group, started } => {
                ensure!(*group > 1, "process group {group} may not be killed");
                vec![b"kill_group".to_vec(), group.to_string().into_bytes(), started.to_string().into_bytes()]
            }
            Self::Unmount(path) => vec![b"unmount".to_vec(), removable(path)?],
            Self::RemoveCgroup(path) => vec![b"remove_cgroup".to_vec(), removable(path)?],
            Self::Run(words) => {
                ensure!(!words.is_empty(), "a clean-up command needs a program");
                let mut all = vec![b"run".to_vec()];
                all.extend(words.iter().map(|word| word.clone().into_bytes()));
                all
            }
        };
        let quoted: Result<Vec<String>> = words.iter().map(|word| quote(word)).collect();
        Ok(quoted?.join(" "))
    }
}

/// Refuses paths whose removal could hit more than a folder of ours.
fn removable(path: &Path) -> Result<Vec<u8>> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    ensure!(
        path.is_absolute() && plain && path.components().count() > 2,
        "{} is not an absolute path below a top folder: it may not be cleaned up",
        path.display()
    );
    Ok(path.as_os_str().as_bytes().to_vec())
}

/// Single quotes for the shell; line ends would break the protocol.
fn quote(word: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(word).context("clean-up words must be UTF-8")?;
    ensure!(!text.contains(['\n', '\0']), "clean-up words must be one line: {text:?}");
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

struct Guardian {
    feed: ChildStdin,
    next: u64,
}

static GUARDIAN: Mutex<Option<Guardian>> = Mutex::new(None);

fn lock() -> MutexGuard<'static, Option<Guardian>> {
    // A panic between two writes leaves no half state: each is a single call.
    GUARDIAN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Guardian {
    fn start() -> Result<Self> {
        let mut child = Command::new("/bin/sh")
            .args([OsStr::new("-c"), OsStr::new(SCRIPT)])
            .arg("springtide-guardian")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the guardian (/bin/sh)")?;
        let Some(feed) = child.stdin.take() else {
            bail!("the guardian has no standard input");
        };
        Ok(Self { feed, next: 0 })
    }
}

/// A registered clean-up. Dropping it says that the owner has cleaned up itself;
/// `std::mem::forget` leaves the clean-up to the end of the process.
#[derive(Debug)]
#[must_use = "dropping it cancels the clean-up"]
pub struct Guarded {
    id: u64,
}

/// Has `cleanup` done when this process ends, in reverse order of registration.
/// Register before the thing exists, so that no moment is uncovered.
///
/// # Errors
/// A path that may not be removed, or a guardian that cannot be started.
pub fn guard(cleanup: &Cleanup) -> Result<Guarded> {
    let action = cleanup.to_shell()?;
    let mut slot = lock();
    let guardian = match slot.as_mut() {
        Some(guardian) => guardian,
        None => slot.insert(Guardian::start()?),
    };
    let id = guardian.next;
    guardian.next += 1;
    guardian
        .feed
        .write_all(format!("add {id} {action}\n").as_bytes())
        .context("the guardian is gone: somebody ended it")?;
    Ok(Guarded { id })
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Some(guardian) = lock().as_mut() {
            // A guardian that is gone has nothing left to forget.
            let _ = guardian.feed.write_all(format!("forget {}\n", self.id).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the script directly, so that its end can be observed.
    fn run_script(lines: &[String]) {
        let mut child = Command::new("/bin/sh").args(["-c", SCRIPT]).stdin(Stdio::piped()).spawn().unwrap();
        let mut feed = child.stdin.take().unwrap();
        feed.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
        drop(feed);
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn actions_run_in_reverse_order_without_those_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("it's out");
        let append = |word: &str| {
            let script = format!("echo {word} >> \"$0\"");
            let words = ["sh", "-c", &script, out.to_str().unwrap()];
            Cleanup::Run(words.map(String::from).to_vec()).to_shell().unwrap()
        };
        run_script(&[
            format!("add 1 {}", append("one")),
            format!("add 10 {}", append("ten")),
            format!("add 2 {}", append("two")),
            "forget 1".into(),
            format!("add 3 {}", append("three")),
        ]);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), "three\ntwo\nten\n");
    }

    #[test]
    fn folders_and_groups_go() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("a b");
        std::fs::create_dir_all(state.join("deep")).unwrap();
        let mut child =
            Command::new("/bin/sh").args(["-c", "sleep 1000 & sleep 1000"]).process_group(0).spawn().unwrap();
        let group = i32::try_from(child.id()).unwrap();
        let started = crate::process::start_time(group).unwrap();
        let other = Cleanup::KillGroup { group, started: started + 1 };
        run_script(&[format!("add 0 {}", other.to_shell().unwrap())]);
        assert!(child.try_wait().unwrap().is_none(), "a stranger was killed");

        // The child stays a zombie of ours until we wait, so reap it meanwhile.
        let reaper = std::thread::spawn(move || child.wait().unwrap());
        run_script(&[
            format!("add 0 {}", Cleanup::RemoveFolder(state.clone()).to_shell().unwrap()),
            format!("add 1 {}", Cleanup::KillGroup { group, started }.to_shell().unwrap()),
        ]);
        assert!(!reaper.join().unwrap().success());
        assert!(!state.exists());
    }

    #[test]
    fn dangerous_paths_are_refused() {
        for path in ["/", "/tmp", "relative/path", "/tmp/../etc"] {
            assert!(Cleanup::RemoveFolder(path.into()).to_shell().is_err(), "{path}");
        }
        assert!(Cleanup::KillGroup { group: 1, started: 0 }.to_shell().is_err());
        assert!(Cleanup::Run(vec!["a\nb".into()]).to_shell().is_err());
    }
}
