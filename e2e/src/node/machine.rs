//! The private machine of a cluster with a real node: namespaces, control groups
//! and a state folder of its own.
//!
//! Its processes share a PID namespace. Containers and their shims leave every
//! session and process group, but not that: when its first process ends, the
//! kernel kills them all, and their mounts, links and rules go with them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::cgroup::CgroupTree;
use super::leftovers::{Footprint, RUN};
use super::program::box_program;
use crate::namespaces::Namespaces;
use crate::process::{Child, Command};
use crate::state_folder::StateFolder;

/// Address of the node, which is also that of the API server for pods.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);
/// A private machine takes 50 ms on an idle one.
const SETUP: Duration = Duration::from_secs(30);
/// For short commands such as `ctr`; importing a large image takes seconds.
const COMMAND: Duration = Duration::from_secs(120);
const SCRIPT: &str = include_str!("machine.sh");

/// See the module. Dropping it ends every process inside; drop the [`Child`]ren
/// inside before, as the first process ends only when each has been waited for.
#[derive(Debug)]
pub(super) struct Machine {
    // In the order in which they go: groups and folder are free when no process is left.
    _init: Child,
    namespaces: Arc<Namespaces>,
    cgroups: CgroupTree,
    footprint: Footprint,
    search_path: String,
    folder: StateFolder,
}

impl Machine {
    /// Makes one. Programs are looked for in `binaries` (folders as in PATH) first.
    ///
    /// # Errors
    /// A missing privilege, kernel feature or program; see [`super::preflight`].
    pub(super) async fn create(binaries: &str) -> Result<Self> {
        let program = box_program()?;
        let folder = StateFolder::create("node")?;
        let id = name_of(folder.path())?;
        let cgroups = CgroupTree::create(&id)?;
        let log = folder.subfolder("log")?;
        let search_path = search_path(binaries);

        let namespaces = Namespaces::private()?;
        let init_log = log.join("init");
        let mut init = Command::new("the private machine", "/bin/sh", &init_log)
            .env(RUN, &id)
            .env("PATH", &search_path)
            .args(["-c", SCRIPT, "machine"])
            .arg(folder.path())
            .arg(format!("{ADDRESS}/24"))
            .arg(&program)
            .args(["pause", "ready"])
            .in_namespaces(&namespaces)
            .as_init()
            .spawn()?;
        init.wait_ready(SETUP, async || {
            let log = std::fs::read_to_string(&init_log)?;
            ensure!(log.lines().any(|line| line == "ready"), "its set-up is not done");
            Ok(())
        })
        .await?;
        let namespaces = namespaces.with_init(&init)?;

        let footprint = Footprint::of(&id, folder.path(), init.pid())?;
        Ok(Self { _init: init, namespaces, cgroups, footprint, search_path, folder })
    }

    /// For control planes and other processes that shall run inside.
    pub(super) fn namespaces(&self) -> &Arc<Namespaces> {
        &self.namespaces
    }

    /// `cgroupRoot` of the kubelet.
    pub(super) fn cgroup_root(&self) -> String {
        self.cgroups.path()
    }

    /// What to look for when nothing of this machine may be left.
    pub(super) fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// The folder that is `/run/node` inside.
    pub(super) fn node_folder(&self) -> PathBuf {
        self.folder.join("run/node")
    }

    /// A process inside, with a log of its name.
    pub(super) fn command(&self, name: &str, program: &Path) -> Command {
        Command::new(name, program, self.folder.join("log").join(name))
            .env(RUN, self.footprint.id())
            .env("PATH", &self.search_path)
            .in_namespaces(&self.namespaces)
    }

    /// Runs a short program inside and gives its standard output. Blocks the thread.
    ///
    /// # Errors
    /// It fails, with its standard error, or takes longer than two minutes.
    pub(super) fn run(&self, program: &Path, arguments: &[&str]) -> Result<String> {
        let shown = || format!("{} {}", program.display(), arguments.join(" "));
        let output = self.namespaces.run(|| -> std::io::Result<Output> {
            std::process::Command::new("timeout")
                .args(["--signal=KILL", &COMMAND.as_secs().to_string()])
                .arg(program)
                .args(arguments)
                .env("PATH", &self.search_path)
                .env(RUN, self.footprint.id())
                .output()
        })?;
        let output = output.with_context(shown)?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            bail!("{} failed ({}): {}", shown(), output.status, reason.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// PATH of everything inside: containerd must find its shim and runc, kube-proxy
/// `nft`, which an ordinary user's PATH may not show.
pub(super) fn search_path(binaries: &str) -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    let parts = [binaries, &own, "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(":")
}

fn name_of(folder: &Path) -> Result<String> {
    let name = folder.file_name().context("the state folder has no name")?;
    Ok(name.to_str().context("the state folder's name is not UTF-8")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::preflight::required_or_skipped;
    use super::*;

    #[tokio::test]
    async fn a_machine_is_separate_and_leaves_nothing() -> Result<()> {
        if !required_or_skipped().await? {
            return Ok(());
        }
        let machine = Machine::create("").await?;
        let footprint = machine.footprint().clone();
        let mut daemon = machine
            .command("daemon", Path::new("/bin/sh"))
            .args([
                "-c",
                "echo 9 > /proc/sys/kernel/panic; mkdir /var/lib/springtide-test; setsid sleep 1000 & wait",
            ])
            .spawn()?;
        daemon
            .wait_ready(SETUP, async || {
                ensure!(machine.run(Path::new("ls"), &["/var/lib/springtide-test"]).is_ok());
                // The shell's child may still be a shell.
                ensure!(footprint.leftovers()?.iter().any(|found| found.contains("(sleep)")));
                Ok(())
            })
            .await?;
        let addresses = machine.run(Path::new("ip"), &["-4", "-brief", "address"])?;
        assert!(addresses.contains("10.200.0.1/24") && addresses.lines().count() == 2, "{addresses}");
        assert_ne!(std::fs::read_to_string("/proc/sys/kernel/panic")?.trim(), "9");
        assert!(!Path::new("/var/lib/springtide-test").exists());

        let found = footprint.leftovers()?.join("\n");
        for part in [
            "by its environment: process",
            "(sleep)",
            "net namespace of",
            "control group",
            "folder",
            "mounts",
        ] {
            assert!(found.contains(part), "{part} is missing in:\n{found}");
        }
        drop(daemon);
        drop(machine);
        assert_eq!(footprint.leftovers()?, Vec::<String>::new());
        Ok(())
    }
}
