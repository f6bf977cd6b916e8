//! Private network and mount namespaces, held by file descriptors.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

/// A network and a mount namespace. Only the two descriptors (and the processes
/// inside) hold them, so the kernel takes links, rules and mounts away with the
/// last one, also when this process is killed.
#[derive(Debug)]
pub struct Namespaces {
    net: OwnedFd,
    mnt: OwnedFd,
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
                Ok(Self { net: open("net")?, mnt: open("mnt")? })
            })
            .context("start a thread")?
            .join()
            .map_err(|_| anyhow!("the thread that makes namespaces panicked"))??;
        Ok(Arc::new(made))
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

    fn links() -> Vec<String> {
        let out = std::process::Command::new("ip").args(["-br", "link"]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().filter_map(|line| line.split_whitespace().next().map(String::from)).collect()
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
