//! A control group of our own in every hierarchy, below which the kubelet works:
//! cleaning up then means removing these groups and no others.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::guardian::{Cleanup, Guarded, guard};

/// Controllers without which the kubelet refuses to start.
const NEEDED: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];
/// The kernel frees a group shortly after its last process, not with it.
const REMOVAL: Duration = Duration::from_secs(10);

/// One mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    root: PathBuf,
    /// Of version 1: the controllers it is mounted with. Version 2 says them in a file.
    controllers: Option<Vec<String>>,
}

/// Groups of one name directly below the root of every hierarchy. They go on drop,
/// or by the guardian.
#[derive(Debug)]
pub(super) struct CgroupTree {
    name: String,
    groups: Vec<(PathBuf, Guarded)>,
}

impl CgroupTree {
    /// Makes the groups; `name` must not exist in any hierarchy.
    ///
    /// # Errors
    /// A controller that the kubelet needs is not there, or a group cannot be made.
    pub(super) fn create(name: &str) -> Result<Self> {
        let hierarchies = hierarchies(&fs::read_to_string("/proc/self/mountinfo")?);
        let mut missing: Vec<&str> = NEEDED.to_vec();
        for hierarchy in &hierarchies {
            let has = hierarchy.controllers()?;
            missing.retain(|needed| !has.iter().any(|controller| controller == needed));
        }
        ensure!(missing.is_empty(), "no control groups for {}", missing.join(", "));
        let mut tree = Self { name: name.to_owned(), groups: Vec::new() };
        for hierarchy in &hierarchies {
            let group = hierarchy.root.join(name);
            let guarded = guard(&Cleanup::RemoveCgroup(group.clone()))?;
            fs::create_dir(&group).with_context(|| format!("make the control group {}", group.display()))?;
            tree.groups.push((group.clone(), guarded));
            hierarchy.prepare(&group)?;
        }
        Ok(tree)
    }

    /// The path as the kubelet wants it for `cgroupRoot`.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.name)
    }
}

impl Drop for CgroupTree {
    fn drop(&mut self) {
        for (group, guarded) in self.groups.drain(..) {
            match remove(&group) {
                Ok(()) => drop(guarded),
                Err(error) => {
                    eprintln!("{} is left to the guardian: {error}", group.display());
                    // It kills what is still inside at the end of the process.
                    std::mem::forget(guarded);
                }
            }
        }
    }
}

impl Hierarchy {
    fn controllers(&self) -> Result<Vec<String>> {
        match &self.controllers {
            Some(controllers) => Ok(controllers.clone()),
            None => words(&self.root.join("cgroup.controllers")),
        }
    }

    /// Lets processes and the needed controllers into a new group.
    fn prepare(&self, group: &Path) -> Result<()> {
        match &self.controllers {
            // Empty at first, and no process may enter before they are set.
            Some(controllers) if controllers.iter().any(|controller| controller == "cpuset") => {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let value = fs::read_to_string(self.root.join(file))?;
                    fs::write(group.join(file), value).with_context(|| format!("set {file}"))?;
                }
                Ok(())
            }
            Some(_) => Ok(()),
            // A controller works in a group when its parent hands it down.
            None => {
                for group in [&*self.root, group] {
                    let control = group.join("cgroup.subtree_control");
                    let (has, on) = (words(&group.join("cgroup.controllers"))?, words(&control)?);
                    for needed in NEEDED.map(String::from) {
                        if has.contains(&needed) && !on.contains(&needed) {
                            fs::write(&control, format!("+{needed}"))
                                .with_context(|| format!("hand {needed} down from {}", group.display()))?;
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

fn words(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// The hierarchies that a mount table (`proc_pid_mountinfo(5)`) shows, each once.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let Some(root) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut filesystem = filesystem.split(' ');
        let controllers = match filesystem.next() {
            Some("cgroup") => {
                let options = filesystem.nth(1).unwrap_or_default();
                Some(options.split(',').map(str::to_owned).collect())
            }
            Some("cgroup2") => None,
            Some(_) | None => continue,
        };
        let hierarchy = Hierarchy { root, controllers };
        if found.iter().all(|other| other.root != hierarchy.root) {
            found.push(hierarchy);
        }
    }
    found
}

/// The group of this name in every hierarchy that has one.
pub(super) fn groups_named(name: &str) -> Result<Vec<PathBuf>> {
    let hierarchies = hierarchies(&fs::read_to_string("/proc/self/mountinfo")?);
    let groups = hierarchies.into_iter().map(|hierarchy| hierarchy.root.join(name));
    Ok(groups.filter(|group| group.exists()).collect())
}

/// What the kernel holds a pod to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodLimits {
    /// CPU in millicores; `None` without a limit.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes; `None` without a limit.
    pub memory_bytes: Option<u64>,
}

/// Where a kubelet puts the groups of pods, by their QoS class: Burstable, BestEffort, Guaranteed.
const QOS_GROUPS: [&str; 3] = ["kubepods/burstable", "kubepods/besteffort", "kubepods"];

/// The limits of the group that a pod of this UID has below the groups of this name.
///
/// # Errors
/// There is no such group, or it does not say.
pub(super) fn limits_of_pod(name: &str, uid: &str) -> Result<PodLimits> {
    let groups = groups_named(name)?;
    let of_pod = |group: &PathBuf| {
        let places = QOS_GROUPS.map(|qos| group.join(qos).join(format!("pod{uid}")));
        places.into_iter().find(|place| place.is_dir())
    };
    let found: Vec<PathBuf> = groups.iter().filter_map(of_pod).collect();
    let file = |name: &str| found.iter().map(|group| group.join(name)).find(|path| path.is_file());
    let read = |path: PathBuf| fs::read_to_string(&path).with_context(|| format!("read {}", path.display()));
    if let (Some(quota), Some(period), Some(memory)) =
        (file("cpu.cfs_quota_us"), file("cpu.cfs_period_us"), file("memory.limit_in_bytes"))
    {
        return limits(read(quota)?.trim(), read(period)?.trim(), read(memory)?.trim());
    }
    let (Some(cpu), Some(memory)) = (file("cpu.max"), file("memory.max")) else {
        bail!("no group of pod {uid} below {name}");
    };
    let cpu = read(cpu)?;
    let (quota, period) = cpu.trim().split_once(' ').context("quota and period")?;
    limits(quota, period, read(memory)?.trim())
}

/// Limits as either version writes them: no quota is `-1` or `max`, and so is no memory limit `max` or, in whole pages,
/// the largest number (`cgroups(7)`).
fn limits(quota: &str, period: &str, memory: &str) -> Result<PodLimits> {
    let number = |text: &str| text.parse::<u64>().with_context(|| format!("{text:?} is no number"));
    let cpu_millis = match quota {
        "-1" | "max" => None,
        quota => Some(number(quota)? * 1000 / number(period)?.max(1)),
    };
    let memory_bytes = match memory {
        "max" => None,
        memory => Some(number(memory)?).filter(|bytes| *bytes < u64::MAX / 4),
    };
    Ok(PodLimits { cpu_millis, memory_bytes })
}

/// Removes a group and those below it, once their processes are gone.
fn remove(group: &Path) -> io::Result<()> {
    let deadline = Instant::now() + REMOVAL;
    loop {
        match remove_once(group) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}

fn remove_once(group: &Path) -> io::Result<()> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    match fs::read_dir(group) {
        Ok(entries) => {
            for entry in entries {
                let entry = entry?;
                // Files of a group go with its folder.
                if entry.file_type()?.is_dir() {
                    remove_once(&entry.path())?;
                }
            }
        }
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(error),
    }
    match fs::remove_dir(group) {
        Err(error) if !gone(&error) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_in_a_mount_table() {
        let table = "25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                     26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                     27 25 0:24 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
                     28 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n";
        let controllers = ["rw", "cpu", "cpuacct"].map(String::from).to_vec();
        let expected = [
            Hierarchy { root: "/sys/fs/cgroup/cpu,cpuacct".into(), controllers: Some(controllers) },
            Hierarchy { root: "/sys/fs/cgroup/unified".into(), controllers: None },
        ];
        assert_eq!(hierarchies(table), expected);
    }

    #[test]
    fn limits_are_read_as_both_versions_write_them() {
        let some = |cpu_millis, memory_bytes| PodLimits { cpu_millis, memory_bytes };
        for (quota, period, memory, expected) in [
            ("40000", "100000", "134217728", some(Some(400), Some(128 << 20))),
            ("-1", "100000", "9223372036854771712", some(None, None)),
            ("max", "100000", "max", some(None, None)),
        ] {
            assert_eq!(limits(quota, period, memory).unwrap(), expected, "{quota} {memory}");
        }
        limits("soon", "100000", "max").unwrap_err();
        limits_of_pod("springtide-none", "uid").unwrap_err();
    }

    #[test]
    fn groups_are_made_and_removed_with_those_below() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: control groups need root");
            return;
        }
        let name = format!("springtide-test-{}", std::process::id());
        let tree = CgroupTree::create(&name).unwrap();
        let groups = groups_named(&name).unwrap();
        assert!(!groups.is_empty());
        for group in &groups {
            fs::create_dir_all(group.join("kubepods/pod")).unwrap();
        }
        assert_eq!(tree.path(), format!("/{name}"));
        drop(tree);
        assert!(groups_named(&name).unwrap().is_empty());
    }
}
