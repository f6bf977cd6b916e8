//! Private network and mount namespaces, held by file descriptors.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, getpid};

use crate::process::Child;

/// A network and a mount namespace. Only the two descriptors (and the processes
/// inside) hold them, so the kernel takes links, rules and mounts away with the
/// last one, also when this process is killed.
#[derive(Debug)]
pub struct Namespaces {
    net: OwnedFd,
    mnt: OwnedFd,
    pid: Option<Arc<OwnedFd>>,
}

/// The PID namespace of a child.
#[derive(Debug)]
pub(crate) enum Pids {
    /// That of this process.
    Own,
    /// A new one, whose first process the child is.
    New,
    /// An existing one below ours.
    Of(Arc<OwnedFd>),
}

impl Pids {
    /// What the child sees as its parent: of a process in a namespace above, nothing.
    pub(crate) fn parent(&self) -> Pid {
        match self {
            Self::Own => getpid(),
            Self::New | Self::Of(_) => Pid::from_raw(0),
        }
    }

    /// Runs `fork` on a thread whose children go into the namespace. A thread never
    /// changes its own PID namespace, so the way back is always open.
    pub(crate) fn place<T>(&self, fork: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let own = match self {
            Self::Own => return fork(),
            Self::New | Self::Of(_) => File::open("/proc/thread-self/ns/pid")?,
        };
        match self {
            Self::Own => {}
            Self::New => unshare(CloneFlags::CLONE_NEWPID)?,
            Self::Of(pid) => setns(pid, CloneFlags::CLONE_NEWPID)?,
        }
        let forked = fork();
        setns(own, CloneFlags::CLONE_NEWPID)?;
        forked
    }
}

impl Namespaces {
    /// Makes new namespaces: the mounts are copies whose changes stay private, the
    /// network has only `lo`, which is up.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or without the program `ip` (Debian package iproute2).
    pub fn private() -> Result<Arc<Self>> {
        // Namespaces belong to a thread: the one that leaves ours must not live on.
        let made = thread::Builder::new()
            .name("unshare".into())
            .spawn(|| -> Result<Self> {
                unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                    .context("make private network and mount namespaces (are you root?)")?;
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
                    .context("make the mounts private")?;
                let up = std::process::Command::new("ip")
                    .args(["link", "set", "lo", "up"])
                    .output()
                    .context("run `ip` (Debian package iproute2)")?;
                if !up.status.success() {
                    let reason = String::from_utf8_lossy(&up.stderr);
                    return Err(anyhow!("ip link set lo up: {}", reason.trim()));
                }
                let open = |kind: &str| {
                    File::open(format!("/proc/thread-self/ns/{kind}"))
                        .map(OwnedFd::from)
                        .with_context(|| format!("open the new {kind} namespace"))
                };
                Ok(Self { net: open("net")?, mnt: open("mnt")?, pid: None })
            })
            .context("start a thread")?
            .join()
            .map_err(|_| anyhow!("the thread that makes namespaces panicked"))??;
        Ok(Arc::new(made))
    }

    /// The same namespaces, joined with the PID namespace whose first process is
    /// `init` (see [`Command::as_init`](crate::process::Command::as_init)): what is
    /// started in them dies with `init`. Wait for those children before `init`: the
    /// kernel lets it end only when each of them has been waited for.
    ///
    /// # Errors
    /// `init` has ended.
    pub fn with_init(&self, init: &Child) -> Result<Arc<Self>> {
        let path = format!("/proc/{}/ns/pid", init.pid());
        let pid = File::open(&path).with_context(|| format!("open {path}"))?;
        let share = |fd: &OwnedFd| fd.try_clone().context("share a namespace");
        let pid = Some(Arc::new(OwnedFd::from(pid)));
        Ok(Arc::new(Self { net: share(&self.net)?, mnt: share(&self.mnt)?, pid }))
    }

    /// Where children that enter these namespaces get their PIDs.
    pub(crate) fn pids(&self) -> Pids {
        match &self.pid {
            None => Pids::Own,
            Some(pid) => Pids::Of(Arc::clone(pid)),
        }
    }

    /// Moves the calling thread into both namespaces; its working folder becomes the
    /// root of the mount namespace. Async-signal-safe, for use between fork and exec.
    pub(crate) fn enter(&self) -> io::Result<()> {
        setns(&self.net, CloneFlags::CLONE_NEWNET)?;
        setns(&self.mnt, CloneFlags::CLONE_NEWNS)?;
        Ok(())
    }

    /// Runs `work` on a thread inside the namespaces and gives its result. Sockets
    /// that it opens, and processes that it starts, stay inside.
    ///
    /// # Errors
    /// The namespaces cannot be entered, or `work` panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| -> Result<T> {
                    // Threads share one root and working folder until one says otherwise,
                    // and the kernel lets none change its mounts while it shares them.
                    unshare(CloneFlags::CLONE_FS).context("stop sharing the working folder")?;
                    self.enter().context("enter the private namespaces")?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("the thread inside the namespaces panicked"))?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Command;

    fn links() -> Vec<String> {
        let out = std::process::Command::new("ip").args(["-br", "link"]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().filter_map(|line| line.split_whitespace().next().map(String::from)).collect()
    }

    #[test]
    fn everything_dies_with_the_first_process() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: namespaces need root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let run = |script: &str, log: &str| {
            Command::new("shell", "/bin/sh", folder.path().join(log)).args(["-c", script])
        };
        let namespaces = Namespaces::private().unwrap();
        let init =
            run("echo $$; exec sleep 1000", "init").in_namespaces(&namespaces).as_init().spawn().unwrap();
        let inside = namespaces.with_init(&init).unwrap();
        // A daemon: neither child of ours nor in a process group of ours.
        let marker = format!("{}", 100_000 + std::process::id());
        let script = format!("setsid sleep {marker} & echo $!");
        let mut child = run(&script, "child").in_namespaces(&inside).spawn().unwrap();
        let command_line = format!("sleep\0{marker}\0");
        let daemons = || {
            let processes = std::fs::read_dir("/proc").unwrap();
            let lines =
                processes.filter_map(|entry| std::fs::read(entry.unwrap().path().join("cmdline")).ok());
            lines.filter(|line| line == command_line.as_bytes()).count()
        };
        while child.is_running() || daemons() != 1 {
            thread::sleep(std::time::Duration::from_millis(20));
        }
        assert_eq!(init.log_tail(), "1");
        assert!(child.log_tail().parse::<u32>().unwrap() < 10, "numbers start anew: {}", child.log_tail());
        assert!(child.ensure_running().is_err());
        drop(init);
        assert_eq!(daemons(), 0);
        // The thread that forks is back: a child of this process sees its parent.
        let mut plain = run("echo $PPID", "plain").spawn().unwrap();
        while plain.is_running() {
            thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(plain.ensure_running().is_err());
        assert_eq!(plain.log_tail(), std::process::id().to_string());
    }

    #[test]
    fn links_and_mounts_stay_inside() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: namespaces need root");
            return;
        }
        let namespaces = Namespaces::private().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("inside");
        namespaces
            .run(|| {
                assert_eq!(links(), ["lo"]);
                mount(Some("none"), folder.path(), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
                std::fs::write(&inside, "x").unwrap();
            })
            .unwrap();
        assert!(!inside.exists(), "the mount must not be seen outside");
        assert!(namespaces.run(|| inside.exists()).unwrap());
    }
}
