//! What each process of a run uses.

use std::fmt::{self, Write as _};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::usage;
use crate::local_cluster::{Component, LocalCluster};
use crate::manager::Manager;
use crate::process::Child;

/// The manager among the processes of a run.
pub const MANAGER: &str = "manager";
/// KWOK among them.
pub const KWOK: &str = "kwok";
/// The bench itself.
pub const BENCH: &str = "bench";
/// Names of the processes of a run with the manager alone, in the order of a page.
pub const NAMES: [&str; 7] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", KWOK, MANAGER, BENCH];
const COMPONENTS: [Component; 4] =
    [Component::Etcd, Component::ApiServer, Component::ControllerManager, Component::Scheduler];

/// What one process used in a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Its binary, or one of [`MANAGER`], [`KWOK`] and [`BENCH`].
    pub name: String,
    /// User and system time in the run.
    pub cpu_seconds: f64,
    /// Resident memory at its end, in MiB.
    pub resident_mib: f64,
    /// The most that it ever was, in MiB.
    pub peak_mib: f64,
}

/// What all of them used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spent {
    /// Length of the run.
    pub seconds: f64,
    /// Those that there were.
    pub processes: Vec<Process>,
}

impl Spent {
    /// One of them.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name == name)
    }

    /// Processor time of all together.
    #[must_use]
    pub fn cpu_seconds(&self) -> f64 {
        self.processes.iter().map(|process| process.cpu_seconds).sum()
    }

    /// The manager, of a run that had one.
    ///
    /// # Errors
    /// It had none.
    pub fn manager(&self) -> Result<&Process> {
        self.of(MANAGER).context("a run with a manager")
    }
}

/// Writes a table of runs: of each process that is named the processor seconds and, at the end, the resident MiB.
///
/// # Errors
/// Never, as a page is a text.
pub fn table(page: &mut String, names: &[&str], runs: &[(String, &Spent)]) -> fmt::Result {
    writeln!(page, "\n## Processor time and memory of each process\n")?;
    writeln!(page, "CPU-seconds, and MiB resident at the end.\n")?;
    writeln!(page, "| | seconds | {} |", names.join(" | "))?;
    writeln!(page, "|---|---|{}", "---|".repeat(names.len()))?;
    for (title, spent) in runs {
        let used = names.iter().map(|name| {
            spent
                .of(name)
                .map_or(String::new(), |used| format!("{:.1}, {:.0}", used.cpu_seconds, used.resident_mib))
        });
        let used: Vec<String> = used.collect();
        writeln!(page, "| {title} | {:.0} | {} |", spent.seconds, used.join(" | "))?;
    }
    Ok(())
}

/// A run that is being measured.
pub struct Meter {
    start: Instant,
    before: Vec<(&'static str, i32, f64)>,
}

impl Meter {
    /// Starts to count, of a run with a manager or without one.
    ///
    /// # Errors
    /// A process has ended.
    pub fn start(cluster: &LocalCluster, manager: Option<&Manager>) -> Result<Self> {
        Self::start_beside(cluster, manager.map(|manager| (MANAGER, manager.child())))
    }

    /// The same with this process beside the control plane, if there is one.
    ///
    /// # Errors
    /// A process has ended.
    pub fn start_beside(cluster: &LocalCluster, beside: Option<(&'static str, &Child)>) -> Result<Self> {
        let mut pids = Vec::new();
        for component in COMPONENTS {
            if let Some(child) = cluster.component(component) {
                pids.push((component.binary(), child.pid()));
            }
        }
        pids.extend(cluster.kwok().map(|kwok| (KWOK, kwok.child().pid())));
        pids.extend(beside.map(|(name, child)| (name, child.pid())));
        pids.push((BENCH, i32::try_from(std::process::id())?));
        let read = |(name, pid)| anyhow::Ok((name, pid, usage::of(pid)?.cpu_seconds));
        let before = pids.into_iter().map(read).collect::<Result<_>>()?;
        Ok(Self { start: Instant::now(), before })
    }

    /// What was used since then.
    ///
    /// # Errors
    /// A process has ended.
    pub fn end(self) -> Result<Spent> {
        let seconds = self.start.elapsed().as_secs_f64();
        let read = |(name, pid, before): (&'static str, i32, f64)| {
            let usage = usage::of(pid).with_context(|| format!("{name} has ended"))?;
            anyhow::Ok(Process {
                name: name.to_owned(),
                cpu_seconds: usage.cpu_seconds - before,
                resident_mib: usage::resident_mib(pid)?,
                peak_mib: usage.peak_mib,
            })
        };
        let processes = self.before.into_iter().map(read).collect::<Result<_>>()?;
        Ok(Spent { seconds, processes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_a_run_did_not_have_is_an_empty_cell() {
        let manager =
            Process { name: MANAGER.to_owned(), cpu_seconds: 2.0, resident_mib: 40.4, peak_mib: 50.0 };
        let spent = Spent { seconds: 250.0, processes: vec![manager] };
        let mut page = String::new();
        table(&mut page, &[KWOK, MANAGER], &[("a run".to_owned(), &spent)]).unwrap();
        assert!(page.contains("| | seconds | kwok | manager |\n|---|---|---|---|\n"), "{page}");
        assert!(page.ends_with("| a run | 250 |  | 2.0, 40 |\n"), "{page}");
        assert_eq!((spent.cpu_seconds(), spent.manager().unwrap().peak_mib), (2.0, 50.0));
        Spent { processes: Vec::new(), ..spent }.manager().map(drop).unwrap_err();
    }
}
