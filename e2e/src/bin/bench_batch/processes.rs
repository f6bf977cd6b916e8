//! What each process of a run uses.

use std::time::Instant;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use springtide_e2e::bench::usage;
use springtide_e2e::local_cluster::{Component, LocalCluster};
use springtide_e2e::manager::Manager;

use crate::kueue::Kueue;

/// Names of the processes in reports, in their order.
pub(crate) const NAMES: [&str; 8] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", MANAGER, KUEUE, "bench"];
/// The manager among them.
pub(crate) const MANAGER: &str = "manager";
/// Kueue's among them.
pub(crate) const KUEUE: &str = "kueue";
const COMPONENTS: [Component; 4] =
    [Component::Etcd, Component::ApiServer, Component::ControllerManager, Component::Scheduler];

/// What one process used in a run.
#[derive(Serialize, Deserialize)]
pub(crate) struct Process {
    /// One of [`NAMES`].
    pub(crate) name: String,
    /// User and system time in the run.
    pub(crate) cpu_seconds: f64,
    /// Resident memory at its end, in MiB.
    pub(crate) resident_mib: f64,
    /// The most that it ever was, in MiB.
    pub(crate) peak_mib: f64,
}

/// What all of them used.
#[derive(Serialize, Deserialize)]
pub(crate) struct Spent {
    /// Length of the run.
    pub(crate) seconds: f64,
    /// Those that there were.
    pub(crate) processes: Vec<Process>,
}

impl Spent {
    /// One of them.
    pub(crate) fn of(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name == name)
    }

    /// Processor time of all together.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.processes.iter().map(|process| process.cpu_seconds).sum()
    }

    /// The manager's processor time, of a run that had one.
    pub(crate) fn manager(&self) -> Result<&Process> {
        self.of(MANAGER).context("a run with a manager")
    }
}

/// The process of a batch system beside the control plane.
#[derive(Clone, Copy)]
pub(crate) enum Beside<'a> {
    /// The system is a part of the control plane.
    Nobody,
    /// Ours.
    Manager(&'a Manager),
    /// Kueue's.
    Kueue(&'a Kueue),
}

impl<'a> Beside<'a> {
    /// The manager, if it is ours.
    pub(crate) fn manager(self) -> Option<&'a Manager> {
        match self {
            Self::Manager(manager) => Some(manager),
            Self::Nobody | Self::Kueue(_) => None,
        }
    }
}

/// A run that is being measured.
pub(crate) struct Meter {
    start: Instant,
    before: Vec<(&'static str, i32, f64)>,
}

impl Meter {
    /// Starts to count, of a run with a manager or without one.
    pub(crate) fn start(cluster: &LocalCluster, manager: Option<&Manager>) -> Result<Self> {
        Self::start_beside(cluster, manager.map_or(Beside::Nobody, Beside::Manager))
    }

    /// The same, whoever does the work.
    pub(crate) fn start_beside(cluster: &LocalCluster, beside: Beside<'_>) -> Result<Self> {
        let mut pids = Vec::new();
        for component in COMPONENTS {
            if let Some(child) = cluster.component(component) {
                pids.push((component.binary(), child.pid()));
            }
        }
        pids.extend(cluster.kwok().map(|kwok| ("kwok", kwok.child().pid())));
        match beside {
            Beside::Nobody => {}
            Beside::Manager(manager) => pids.push((MANAGER, manager.child().pid())),
            Beside::Kueue(kueue) => pids.push((KUEUE, kueue.child().pid())),
        }
        pids.push(("bench", i32::try_from(std::process::id())?));
        let read = |(name, pid)| anyhow::Ok((name, pid, usage::of(pid)?.cpu_seconds));
        let before = pids.into_iter().map(read).collect::<Result<_>>()?;
        Ok(Self { start: Instant::now(), before })
    }

    /// What was used since then.
    pub(crate) fn end(self) -> Result<Spent> {
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
