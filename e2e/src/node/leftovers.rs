//! Looks for whatever a private machine may have left behind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cgroup::groups_named;

/// Environment variable with the id of the machine to which a process belongs.
/// Shims inherit it from containerd; containers are found by their control group.
pub(super) const RUN: &str = "SPRINGTIDE_RUN";

/// Everything by which the parts of one private machine can be recognised, also
/// after the process that made it is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    id: String,
    folders: Vec<PathBuf>,
    namespaces: Vec<Namespace>,
}

/// A namespace by the number that the kernel gives it. Numbers are used again, but
/// only after the namespace is gone, so compare while the run is still fresh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Namespace {
    kind: String,
    inode: u64,
}

impl Footprint {
    /// The footprint of the machine whose first process is `init`.
    pub(super) fn of(id: &str, folder: &Path, init: i32) -> Result<Self> {
        let namespaces = ["net", "mnt", "pid"].map(|kind| {
            let path = format!("/proc/{init}/ns/{kind}");
            let inode = fs::metadata(&path).with_context(|| format!("read {path}"))?.ino();
            Ok(Namespace { kind: kind.to_owned(), inode })
        });
        Ok(Self {
            id: id.to_owned(),
            folders: vec![folder.to_owned()],
            namespaces: namespaces.into_iter().collect::<Result<_>>()?,
        })
    }

    /// The footprint of a cluster without a private machine: the processes that have
    /// its state folder on their command line, and the folder.
    ///
    /// # Errors
    /// The folder has no name in UTF-8.
    pub fn of_folder(folder: &Path) -> Result<Self> {
        let id = folder.file_name().and_then(|name| name.to_str()).context("the folder has no name")?;
        Ok(Self { id: id.to_owned(), folders: vec![folder.to_owned()], namespaces: Vec::new() })
    }

    /// Adds the folder of something that runs on the machine.
    pub(super) fn with_folder(mut self, folder: &Path) -> Self {
        self.folders.push(folder.to_owned());
        self
    }

    /// Name of the machine, of its folder below the temporary folder, and of its
    /// control groups.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Describes, one line each, every process, namespace, mount, control group and
    /// folder of the machine that is still there. Looks at all processes of the
    /// system: call it as root, or it sees only your own.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn leftovers(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("read /proc")? {
            let process = entry.context("read /proc")?.path();
            let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
            if process.file_name().and_then(|name| name.to_str()).is_some_and(is_number) {
                self.look_at(&process, &mut found);
            }
        }
        for group in groups_named(&self.id)? {
            found.push(format!("control group {}", group.display()));
        }
        for folder in self.folders.iter().filter(|folder| folder.exists()) {
            found.push(format!("folder {}", folder.display()));
        }
        Ok(found)
    }

    /// A process that ends meanwhile, or is another user's, shows nothing.
    fn look_at(&self, process: &Path, found: &mut Vec<String>) {
        let pid = process.file_name().unwrap_or_default().to_string_lossy();
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        let mut report = |what: &str| found.push(format!("{what} process {pid} ({})", name.trim()));

        let marker = format!("{RUN}={}", self.id);
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        if environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes()) {
            report("by its environment:");
        }
        let groups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        if groups.split([':', '/', '\n']).any(|part| part == self.id) {
            report("by its control group:");
        }
        if process != Path::new(&format!("/proc/{}", std::process::id())) {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command);
            if self.folders.iter().any(|folder| command.contains(&*folder.to_string_lossy())) {
                report("by its command line:");
            }
        }
        let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        if mounts.contains(&self.id) {
            report("mounts of the machine seen by");
        }
        for Namespace { kind, inode } in &self.namespaces {
            if fs::metadata(process.join("ns").join(kind)).is_ok_and(|namespace| namespace.ino() == *inode) {
                report(&format!("{kind} namespace of"));
            }
            if mounts.contains(&format!("{kind}:[{inode}]")) {
                report(&format!("{kind} namespace mounted for"));
            }
            if holds(process, &format!("{kind}:[{inode}]")) {
                report(&format!("{kind} namespace held by"));
            }
        }
    }
}

/// Whether a process has a descriptor of this link text.
fn holds(process: &Path, target: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors
        .filter_map(Result::ok)
        .any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_and_folder_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let id = folder.path().file_name().unwrap().to_str().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let footprint = Footprint::of(id, folder.path(), own).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").env(RUN, id).spawn().unwrap();
        let left = footprint.leftovers().unwrap().join("\n");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(left.contains(&format!("by its environment: process {} (sleep)", child.id())), "{left}");
        assert!(left.contains(&format!("net namespace of process {own} ")), "{left}");
        assert!(left.contains(&format!("folder {}", folder.path().display())), "{left}");
        let stranger =
            Footprint { id: "springtide-none".into(), folders: vec!["/none".into()], namespaces: Vec::new() };
        assert_eq!(stranger.leftovers().unwrap(), Vec::<String>::new());
    }
}
