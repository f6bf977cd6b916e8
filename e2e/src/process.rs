//! Child processes that never outlive this process.
//!
//! Three things end them, each covering what the one before cannot: `Drop` (normal
//! end, panic), the kernel's parent-death signal (SIGKILL of this process), and
//! the [guardian](crate::guardian) (what a child has started in its process group).

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getppid};

use crate::guardian::{Cleanup, Guarded, guard};
use crate::namespaces::{Namespaces, Pids};

/// How often a state that has no event is looked at again.
const POLL: Duration = Duration::from_millis(20);
/// Lines of a log that an error carries.
const TAIL_LINES: usize = 20;
/// Bytes read from a log's end for those lines.
const TAIL_BYTES: u64 = 16 * 1024;

/// What to run, and where its output goes.
#[derive(Debug)]
pub struct Command {
    name: String,
    program: PathBuf,
    log: PathBuf,
    inner: std::process::Command,
    namespaces: Option<Arc<Namespaces>>,
    pids: Pids,
    stdin: Stdio,
}

impl Command {
    /// `name` stands in errors; stdout and stderr are appended to `log`; stdin is empty.
    #[must_use]
    pub fn new(name: impl Into<String>, program: impl AsRef<Path>, log: impl AsRef<Path>) -> Self {
        let program = program.as_ref().to_owned();
        Self {
            name: name.into(),
            log: log.as_ref().to_owned(),
            inner: std::process::Command::new(&program),
            program,
            namespaces: None,
            pids: Pids::Own,
            stdin: Stdio::null(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.inner.args(args);
        self
    }

    /// Sets an environment variable; the others are inherited.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(key, value);
        self
    }

    /// Gives it an open descriptor as stdin, such as a listening socket.
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Runs it inside these namespaces, with `/` as working folder: give absolute paths.
    #[must_use]
    pub fn in_namespaces(mut self, namespaces: &Arc<Namespaces>) -> Self {
        self.pids = namespaces.pids();
        self.namespaces = Some(Arc::clone(namespaces));
        self
    }

    /// Makes it the first process of a new PID namespace: with its end the kernel
    /// kills every other process there. To be called after `in_namespaces`.
    #[must_use]
    pub fn as_init(mut self) -> Self {
        self.pids = Pids::New;
        self
    }

    /// Starts it as the leader of a new process group.
    ///
    /// # Errors
    /// The log cannot be opened, the program cannot be run, or the namespaces cannot
    /// be entered.
    pub fn spawn(self) -> Result<Child> {
        let Self { name, program, log, mut inner, namespaces, pids, stdin } = self;
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open the log of {name}, {}", log.display()))?;
        inner.stdin(stdin).stdout(output.try_clone().context("share a log")?).stderr(output).process_group(0);
        die_with_parent(&mut inner, namespaces, pids.parent());
        let inner =
            spawner().spawn(inner, pids).with_context(|| format!("start {name} ({})", program.display()))?;
        let pid = i32::try_from(inner.id()).context("pid out of range")?;
        let mut child = Child { name, log, pid: Pid::from_raw(pid), inner, ended: false, _guarded: None };
        child._guarded = Some(guard(&Cleanup::KillGroup { group: pid, started: start_time(pid)? })?);
        Ok(child)
    }
}

/// Has the kernel send SIGKILL when this process dies, and enters namespaces.
#[allow(unsafe_code)]
fn die_with_parent(command: &mut std::process::Command, namespaces: Option<Arc<Namespaces>>, parent: Pid) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The
    // closure makes plain system calls (prctl, getppid, setns), converts errno
    // values, and neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || {
            if let Some(namespaces) = &namespaces {
                namespaces.enter()?;
            }
            set_pdeathsig(Signal::SIGKILL)?;
            // A parent that died before the line above sends no signal any more.
            if getppid() != parent {
                return Err(io::Error::from(Errno::ESRCH));
            }
            Ok(())
        });
    }
}

type SpawnRequest = (std::process::Command, Pids, mpsc::Sender<io::Result<std::process::Child>>);

/// The thread from which every child is started. The kernel sends the parent-death
/// signal when the *thread* that forked ends, and test threads end with their test.
struct Spawner {
    requests: mpsc::Sender<SpawnRequest>,
}

fn spawner() -> &'static Spawner {
    static SPAWNER: OnceLock<Spawner> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<SpawnRequest>();
        // Detached: it ends with the process. Should it not start, `spawn` says so.
        let _ = thread::Builder::new().name("spawner".into()).spawn(move || {
            for (mut command, pids, reply) in inbox {
                // The asker waits for the reply; nobody else holds the channel.
                let _ = reply.send(pids.place(|| command.spawn()));
            }
        });
        Spawner { requests }
    })
}

impl Spawner {
    fn spawn(&self, command: std::process::Command, pids: Pids) -> io::Result<std::process::Child> {
        let (reply, answer) = mpsc::channel();
        let gone = || io::Error::other("the spawner thread is gone");
        self.requests.send((command, pids, reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }
}

/// Start time of a process in clock ticks after boot: with the pid it names one
/// process for good.
///
/// # Errors
/// There is no such process, or `/proc` is not readable.
pub fn start_time(pid: i32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The second field is a name in parentheses that may hold anything.
    let (_, fields) = stat.rsplit_once(") ").with_context(|| format!("{path} has no name field"))?;
    fields
        .split(' ')
        .nth(19)
        .and_then(|field| field.parse().ok())
        .with_context(|| format!("{path} has no start time"))
}

/// A running child. Dropping it kills its process group and waits for it.
#[derive(Debug)]
pub struct Child {
    name: String,
    log: PathBuf,
    pid: Pid,
    inner: std::process::Child,
    /// Reaped: the pid may belong to a stranger now.
    ended: bool,
    _guarded: Option<Guarded>,
}

impl Child {
    /// Name as given to [`Command::new`].
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id, which is also the id of the process group.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// File with its stdout and stderr.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// The last lines of its log, for error messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(log not readable: {error})"))
    }

    /// Whether it has not ended yet. A stopped process (SIGSTOP) is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        // Not reaped here: as a zombie its pid, and so its group, stays ours.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        matches!(waitid(Id::Pid(self.pid), flags), Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
    }

    /// # Errors
    /// It has ended: with name, status and the last lines of its log.
    pub fn ensure_running(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let status = self.reap()?;
        Err(anyhow!(
            "{} ended early ({status}); its log {} ends with:\n{}",
            self.name,
            self.log.display(),
            self.log_tail()
        ))
    }

    /// Waits until `probe` succeeds, trying again every 50 ms.
    ///
    /// # Errors
    /// The child ends, or `bound` has passed: with the last error of the probe and
    /// the last lines of the log.
    pub async fn wait_ready<T>(
        &mut self,
        bound: Duration,
        mut probe: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let deadline = tokio::time::Instant::now() + bound;
        loop {
            let tried = match tokio::time::timeout_at(deadline, probe()).await {
                Ok(tried) => tried,
                Err(_) => Err(anyhow!("the probe did not answer")),
            };
            let error = match tried {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.ensure_running()?;
            if tokio::time::Instant::now() >= deadline {
                return Err(self.not_ready(bound, &error));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn not_ready(&self, bound: Duration, error: &Error) -> Error {
        anyhow!(
            "{} is not ready after {bound:?}: {error:#}; its log {} ends with:\n{}",
            self.name,
            self.log.display(),
            self.log_tail()
        )
    }

    /// Sends a signal to the process alone, not to its group.
    ///
    /// # Errors
    /// It has been reaped, or the signal is refused.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.ended {
            return Err(anyhow!("{} has ended", self.name));
        }
        kill(self.pid, signal).with_context(|| format!("send {signal} to {}", self.name))
    }

    /// Freezes it (SIGSTOP): it keeps its sockets and leases but does nothing.
    ///
    /// # Errors
    /// As [`Child::signal`].
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Ends a pause (SIGCONT).
    ///
    /// # Errors
    /// As [`Child::signal`].
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Asks it to end by `signal` and waits up to `bound`; then, and for what is left
    /// of its group, SIGKILL. Blocks the thread.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn stop(mut self, signal: Signal, bound: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            self.signal(signal)?;
            // A paused process sees the signal only when it goes on.
            self.resume()?;
            let deadline = Instant::now() + bound;
            while self.is_running() && Instant::now() < deadline {
                thread::sleep(POLL);
            }
        }
        self.reap()
    }

    /// Kills the group, then waits for the process.
    fn reap(&mut self) -> Result<ExitStatus> {
        if !self.ended {
            // Its zombie keeps the number, so this group is ours. ESRCH cannot be.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
        let status = self.inner.wait().with_context(|| format!("wait for {}", self.name))?;
        self.ended = true;
        self._guarded = None;
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended
            && let Err(error) = self.reap()
        {
            eprintln!("{error:#}");
        }
    }
}

/// The last lines of a log.
pub(crate) fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &Path, script: &str) -> Command {
        Command::new("shell", "/bin/sh", folder.join("log")).args(["-c", script])
    }

    fn wait_for(what: &str, mut event: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !event() {
            assert!(Instant::now() < deadline, "{what} never came");
            thread::sleep(POLL);
        }
    }

    /// Not there, or a zombie that only waits for its new parent.
    fn is_gone(pid: i32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    }

    #[test]
    fn an_early_end_is_reported_with_status_and_log() {
        let folder = tempfile::tempdir().unwrap();
        let script = "for i in $(seq 30); do echo line $i; done; exit 3";
        let mut child = shell(folder.path(), script).spawn().unwrap();
        wait_for("the end", || !child.is_running());
        let error = child.ensure_running().unwrap_err().to_string();
        assert!(error.contains("shell ended early (exit status: 3)"), "{error}");
        assert!(error.contains("line 30") && error.contains("line 11"), "{error}");
        assert!(!error.contains("line 10\n"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let command = Command::new("etcd", "/nonexistent/etcd", folder.path().join("log"));
        let error = format!("{:#}", command.spawn().unwrap_err());
        assert!(error.contains("start etcd (/nonexistent/etcd)"), "{error}");
    }

    #[test]
    fn stop_asks_first_and_takes_the_group_along() {
        let folder = tempfile::tempdir().unwrap();
        let script = "sleep 1000 & echo $!; trap 'echo bye; exit 7' TERM; wait";
        let child = shell(folder.path(), script).spawn().unwrap();
        wait_for("the grandchild", || !child.log_tail().is_empty());
        let grandchild: i32 = child.log_tail().trim().parse().unwrap();
        let log = child.log_path().to_owned();
        let status = child.stop(Signal::SIGTERM, Duration::from_secs(60)).unwrap();
        assert_eq!(status.code(), Some(7));
        assert!(tail(&log).unwrap().ends_with("bye"));
        wait_for("the grandchild's end", || is_gone(grandchild));
    }

    #[test]
    fn a_paused_process_can_be_stopped_and_a_deaf_one_killed() {
        let folder = tempfile::tempdir().unwrap();
        let child = shell(folder.path(), "sleep 1000").spawn().unwrap();
        child.pause().unwrap();
        child.stop(Signal::SIGTERM, Duration::from_secs(60)).unwrap();
        let deaf = shell(folder.path(), "trap '' TERM; echo deaf; sleep 1000").spawn().unwrap();
        wait_for("the trap", || deaf.log_tail().contains("deaf"));
        let status = deaf.stop(Signal::SIGTERM, Duration::from_millis(200)).unwrap();
        assert!(!status.success());
    }

    #[test]
    fn children_outlive_the_thread_that_asked_for_them_and_end_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let child = thread::spawn(move || shell(&path, "sleep 1000").spawn().unwrap()).join().unwrap();
        thread::sleep(Duration::from_millis(200));
        assert!(child.is_running(), "the parent-death signal came too early");
        let pid = child.pid();
        drop(child);
        assert!(is_gone(pid));
    }

    #[test]
    fn children_enter_namespaces() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: namespaces need root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let namespaces = Namespaces::private().unwrap();
        let mut child = shell(folder.path(), "readlink /proc/self/ns/net /proc/self/ns/mnt")
            .in_namespaces(&namespaces)
            .spawn()
            .unwrap();
        wait_for("the end", || !child.is_running());
        assert!(child.ensure_running().is_err());
        let expected = namespaces
            .run(|| {
                ["net", "mnt"].map(|kind| {
                    let link = format!("/proc/thread-self/ns/{kind}");
                    fs::read_link(link).unwrap().display().to_string()
                })
            })
            .unwrap();
        assert_eq!(child.log_tail(), expected.join("\n"));
    }
}
